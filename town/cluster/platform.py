"""The platform of the trial cluster: books classes without end, receives them, and says what came of them."""

import asyncio
import itertools
import os
import time
from pathlib import Path

from redis.exceptions import RedisError

from lectern.media.ffmpeg import executable
from town.cluster.tally import Class, tally
from town.origin import Origin
from town.oss_transcoder import OssTranscoder
from town.platform import Platform
from town.recordings import make
from town.rtmp import RtmpReceiver

ROOT = Path("/srv/town")
ORIGIN_PORT, OSS_PORT, RTMP_PORT = 8001, 8002, 1935
EVERY_S, LEAD_S, LENGTH_S = 3.0, 40.0, 30.0
SAY_EVERY_S = 10.0
RECORDS = 5
NEW_EVERY = 10
"""Every NEW_EVERY-th class is of a new record, which has to be transcoded first."""


class Books:
    """Books classes, and keeps what it has booked."""

    def __init__(self, platform: Platform, origin: Origin, receiver: RtmpReceiver, recording: Path) -> None:
        self.classes: list[Class] = []
        self._platform, self._origin, self._receiver, self._recording = platform, origin, receiver, recording
        self._began = int(time.time())

    async def run(self) -> None:
        """Book classes until cancelled, by turns on the channel and on the stream."""
        for number in itertools.count(1):
            start = time.time() + LEAD_S
            one = Class(f"trial-{self._began}-{number}", start, start + LENGTH_S, time.time())
            self.classes.append(one)
            is_new = number % NEW_EVERY == 0
            record = number + 1000 if is_new else number % RECORDS + 1
            try:
                await self._book(one, self._placed(record), number, is_new=is_new)
            except RedisError as error:
                print(f"{one.id} is not booked: {error}", flush=True)
                self.classes.pop()
            await asyncio.sleep(EVERY_S)

    def _placed(self, record: int) -> int:
        folder = self._origin.root / str(record)
        folder.mkdir(parents=True, exist_ok=True)
        for name in (f"{record}.flv", f"{record}_480P.flv"):
            if not (folder / name).exists():
                (folder / name).hardlink_to(self._recording)
        return record

    async def _book(self, one: Class, record: int, number: int, *, is_new: bool) -> None:
        booking = {
            "cmd": "order",
            "class_id": one.id,
            "institution_id": "trial",
            "start_time": one.start,
            "end_time": one.end,
            "push_url": self._receiver.url(one.id),
            **self._origin.recording(record, "480P", () if is_new else ("480P",)),
        }
        # What is published while no teacher listens, as while they start, is heard by nobody.
        if number % 2 == 0 or not await self._platform.publish("order", booking):
            await self._platform.add("order", booking)


async def main() -> None:
    """Play the platform until SIGTERM."""
    recording = await make(executable(), ROOT / "recording.flv", seconds=60, width=480, height=360)
    redis_url, key = os.environ["REDIS_URL"], os.environ["TRANSCODE_SIGN_KEY"]
    async with (
        Origin(ROOT / "origin", ORIGIN_PORT) as origin,
        OssTranscoder(origin.root, origin.url, redis_url, key, OSS_PORT),
        RtmpReceiver(ROOT / "received", RTMP_PORT) as receiver,
        Platform(redis_url, ROOT / "received") as platform,
    ):
        books = Books(platform, origin, receiver, recording)
        booking = asyncio.create_task(books.run())
        while not booking.done():
            await asyncio.sleep(SAY_EVERY_S)
            print(tally(books.classes, platform.answers, receiver.publishes, time.time()).line(), flush=True)
        await booking


if __name__ == "__main__":
    asyncio.run(main())
