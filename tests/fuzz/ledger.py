"""What was heard of the hosts: answers and dead letters, each of them once."""

import json
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

import redis

from tests.fuzz.good import Answer
from tests.fuzz.odd_messages import Odd
from tests.stage import Stage

AT_ONCE = 2_000
KNOWN_BY = 160
"""A dead letter is recognised by so many characters of its message."""


@dataclass
class Ledger:
    """Reads the streams on which the teacher answers, from where it stopped."""

    stage: Stage
    answers: dict[str, list[Answer]] = field(default_factory=lambda: defaultdict(list))
    letters: Counter[str] = field(default_factory=Counter)  # by the kind of their message
    accused: list[str] = field(default_factory=list)  # good messages among them
    kinds: dict[str, str] = field(default_factory=dict)  # of the odd classes
    sent: Counter[str] = field(default_factory=Counter)
    _bodies: dict[int, str] = field(default_factory=dict)
    _read: dict[Any, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._client = redis.Redis.from_url(
            self.stage.town.redis_url, decode_responses=True, encoding_errors="replace", socket_timeout=30
        )
        self._answers = self.stage.channels["order_result"]
        self._letters = self.stage.settings["DEAD_LETTER_STREAM"]
        self._read = dict.fromkeys((self._answers, self._letters), "0")

    def note(self, one: Odd) -> None:
        """An odd message is sent."""
        self.sent[one.kind] += len(one.sendings)
        if one.due is not None:
            self.kinds[one.due] = one.kind
        for sending in one.sendings:
            self._bodies[_known(sending.body.decode(errors="replace"))] = one.kind

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
        else:
            body = str(said["body"])
            self.letters[self._bodies.get(_known(body), "entries")] += 1
            if body in good:
                self.accused.append(f"{said['error']}: {body[:300]}")

    def by_kind(self, kind: str) -> Counter[int]:
        """How many classes of odd bookings of a kind were answered with which code."""
        found: Counter[int] = Counter()
        for class_id, its in self.kinds.items():
            if its == kind and self.answers.get(class_id):
                found[self.answers[class_id][0][1]] += 1
        return found

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def _known(body: str) -> int:
    return hash((body[:KNOWN_BY], len(body)))
