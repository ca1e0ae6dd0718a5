"""The cloud's transcoder of a random day: it makes nothing, and says what the day has for it."""

import asyncio
import json
import time
from collections.abc import Mapping
from contextlib import suppress

from redis.exceptions import RedisError

from lectern.states import Resolution
from tests.faults.day import Rendition
from town.oss_transcoder import OssTranscoder, Rule


class Transcoder(OssTranscoder):
    """Makes nothing: says of each rendition what the day has for it, late, doubled, or not at all."""

    renditions: Mapping[tuple[int, str], Rendition] = {}

    async def _answer(self, rule: Rule, record_id: int, resolution: Resolution) -> None:
        found = self.renditions.get((record_id, resolution.value))
        if found is None or found.result == "none":
            return
        told = [(found.delay_s, self._result(record_id, resolution, made=found.result == "made"))]
        if found.again_after_s is not None:
            told.append((found.delay_s + found.again_after_s, told[0][1]))
        if found.lie_after_s is not None:
            lie = {**self._result(record_id, resolution, made=False), **found.lie}
            told.append((found.lie_after_s, lie))
        began = time.monotonic()
        for at_s, result in sorted(told, key=lambda one: one[0]):
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            await self._say(result, kept=found.kept)

    def _result(self, record_id: int, resolution: Resolution, *, made: bool) -> dict[str, object]:
        url = f"{self._origin_url}/{record_id}/{record_id}_{resolution.value}.flv"
        return {
            "cmd": "transcoding",
            "record_id": record_id,
            "video_resolution": resolution.value,
            "result": "sucess" if made else "failed",
            "transcode_video_url": url if made else "",
            "type": "oss",
        }

    async def _say(self, result: dict[str, object], *, kept: bool) -> None:
        assert self._redis is not None
        for _ in range(200):  # a transcoder that reaches no Redis tries again, as the cloud's does
            with suppress(RedisError, OSError):
                if kept:
                    await self._redis.xadd(self._channel, {"body": json.dumps(result)})
                else:
                    await self._redis.publish(self._channel, json.dumps(result))
                return
            await asyncio.sleep(0.2)
