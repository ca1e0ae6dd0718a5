"""What was heard of the hosts: answers and dead letters, each of them once."""

import json
from collections import defaultdict
from typing import Any

import redis

from tests.fuzz.good import Answer
from tests.stage import Stage

AT_ONCE = 2_000


class Ledger:
    """Reads the streams on which the teacher answers, from where it stopped."""

    def __init__(self, stage: Stage) -> None:
        self.answers: dict[str, list[Answer]] = defaultdict(list)
        self.letters = 0
        self.accused: list[str] = []  # good messages that became dead letters
        self.kinds: dict[str, str] = {}  # of the odd classes that must be answered
        self._client = redis.Redis.from_url(
            stage.town.redis_url, decode_responses=True, encoding_errors="replace", socket_timeout=30
        )
        self._answers = stage.channels["order_result"]
        self._read: dict[Any, Any] = dict.fromkeys((self._answers, stage.settings["DEAD_LETTER_STREAM"]), "0")

    def read(self, good: set[str]) -> None:
        """Take in what came since; *good* are the bodies that no dead letter may have."""
        while True:
            found: Any = self._client.xread(self._read, count=AT_ONCE)
            if not found:
                return
            for stream, entries in found:
                self._read[stream] = entries[-1][0]
                for _, fields in entries:
                    self._take(stream, json.loads(fields["body"]), good)

    def _take(self, stream: str, said: dict[str, Any], good: set[str]) -> None:
        if stream == self._answers:
            self.answers[said["class_id"]].append((said["result"], said["code"]))
            return
        self.letters += 1
        if str(said["body"]) in good:
            self.accused.append(f"{said['error']}: {said['body'][:300]}")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()
