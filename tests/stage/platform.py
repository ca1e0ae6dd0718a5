"""The platform of a test: books, cancels, hears answers, sees what is pushed."""

import itertools
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.stage.ear import Fields
from tests.stage.hosts import Hosts
from tests.stage.town import Town
from tests.waiting import wait_until
from town.platform import position_s
from town.recordings import Publish


class Platform(Hosts):
    """Hosts, and the platform that they serve."""

    def __init__(self, town: Town, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(town, folder, settings)
        self._classes = itertools.count(1)

    def booking(
        self,
        record_id: int,
        resolution: str | None = None,
        *,
        starts_in_s: float = 600.0,
        length_s: float = 6.0,
        listed: Sequence[str] = (),
        **fields: object,
    ) -> Fields:
        """A booking of a new class; without *resolution* one of the old kind, which names no record."""
        class_id = f"{self.prefix}-c{next(self._classes)}"
        start, url_for = time.time() + starts_in_s, self.town.origin.url_for
        new = {
            "record_id": record_id,
            "video_resolution": resolution,
            "video_url_list": {one: url_for(f"{record_id}/{record_id}_{one}.flv") for one in listed},
        }
        return {
            "cmd": "order",
            "class_id": class_id,
            "institution_id": "i-7",
            "video_url": url_for(f"{record_id}/{record_id}.flv"),
            "start_time": start,
            "end_time": start + length_s,
            "push_url": self.town.receiver.url(class_id),
            **(new if resolution else {}),
            **fields,
        }

    def publish(self, channel: str, message: object) -> None:
        """Publish on one of the documented channels; a text goes as it is."""
        body = message if isinstance(message, str) else json.dumps(message)
        self.town.redis.publish(self.channels[channel], body)

    def book(self, booking: Fields) -> str:
        """Publish a booking; returns its class_id."""
        self.publish("order", booking)
        return str(booking["class_id"])

    def book_on_stream(self, booking: Fields) -> str:
        """Put a booking on the stream, which is read whenever somebody comes to read it; returns its class_id."""
        self.town.redis.xadd(self.channels["order"], {"body": json.dumps(booking)})
        return str(booking["class_id"])

    def cancel(self, class_id: str) -> None:
        """Publish a cancel."""
        self.publish("cancel", {"cmd": "cancel", "class_id": class_id})

    def cancel_on_stream(self, class_id: str) -> None:
        """Put a cancel on the stream."""
        self.town.redis.xadd(self.channels["cancel"], {"body": json.dumps({"cmd": "cancel", "class_id": class_id})})

    def tell(self, streamer: str, message: Fields) -> None:
        """Tell a streamer what a teacher would; for stages that have none."""
        self.town.redis.xadd(f"{self.prefix}:to:{self.name(streamer)}", {"body": json.dumps(message)})

    def stream(self, name: str) -> list[Fields]:
        """All that was put on a stream."""
        found: Any = self.town.redis.xrange(name)
        return [json.loads(fields["body"]) for _, fields in found]

    def answer(self, class_id: str, *, timeout_s: float = 45.0, count: int = 1) -> Fields:
        """The answer to a booking; with *count* the last of so many."""
        description = f"{class_id} is answered {count} times"
        wait_until(lambda: len(self.ear.answers[class_id]) >= count, timeout_s=timeout_s, description=description)
        return self.ear.answers[class_id][count - 1]

    def alarms(self, code: int, **fields: object) -> list[Fields]:
        """The alarms with *code* and these fields."""
        return [
            one
            for one in self.ear.alarms
            if one["code"] == code and all(one.get(name) == value for name, value in fields.items())
        ]

    def pushes(self, class_id: str) -> list[Publish]:
        """What the RTMP receiver took of a class, one entry a push."""
        return list(self.town.receiver.publishes.get(class_id, []))

    def on_air(self, class_id: str, timeout_s: float = 40.0) -> Publish:
        """Wait until pictures of the class arrive."""

        def seen() -> Publish | None:
            live = [one for one in self.pushes(class_id) if one.first_media_at is not None and one.ended_at is None]
            return live[-1] if live else None

        return wait_until(seen, timeout_s=timeout_s, description=f"{class_id} is on air")  # type: ignore[return-value]

    def off_air(self, class_id: str, timeout_s: float = 40.0) -> list[Publish]:
        """Wait until all pushes of the class have ended."""

        def over() -> bool:
            pushes = self.pushes(class_id)
            return bool(pushes) and all(one.ended_at is not None for one in pushes)

        wait_until(over, timeout_s=timeout_s, description=f"{class_id} is off air")
        return self.pushes(class_id)

    def position_s(self, record_id: int, push: Publish) -> float:
        """Where in the recording a push began, by its first key picture; of one on air that may be on its way."""
        source = self.town.origin.root / str(record_id) / f"{record_id}.flv"
        received = self.town.receiver.root / push.file
        (found,) = wait_until(
            lambda: [at for at in [position_s(source, received)] if at is not None],
            description=f"{push.file} has a key picture of {source.name}",
        )
        return found
