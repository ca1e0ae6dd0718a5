"""What is odd in a day, beside the kills: messages, rows of old programs, errors within."""

import random
import sqlite3
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field

import redis

from tests.faults.day import LONG_S, RESOLUTIONS
from tests.faults.points import STEPS
from tests.faults.world import HOSTS, World
from tests.fuzz import odd_values as odd
from tests.fuzz.odd_messages import Here, drawn

ERRORS = ("RuntimeError", "ValueError", "KeyError", "RecursionError", "TypeError", "OSError", "MemoryError")
ERROR_S = (0.2, 5.0)
"""An error is raised at each call of a step for between so many seconds."""

ALONE = frozenset({"strangers", "names"})
"""Kinds left to ``make fuzz``: what they name may be another odd message's, too, which leaves it without an answer."""

Send = Callable[[str, Mapping[bytes, bytes]], None]
"""Puts an entry on a stream, sooner or later."""


@dataclass
class Content:
    """Lets odd things happen in a world; all of them follow from the seed."""

    world: World
    seed: int
    send: Send
    due: dict[str, str] = field(default_factory=dict)  # odd classes that must be answered, with their kinds
    happened: int = 0
    _errors: list[tuple[float, str, ExitStack]] = field(default_factory=list)  # until when, monotonic; where; the end

    def __post_init__(self) -> None:
        self._chance = random.Random(f"content {self.seed}")
        town, stage = self.world.town, self.world.stage
        record = town.record(*RESOLUTIONS, record_id=self.world.record_id(0), seconds=int(LONG_S) + 10)
        self._here = Here(self.seed, stage.name("streamer1"), town.origin.url, record)

    def happen(self) -> None:
        """One odd thing, or some messages."""
        what = self._chance.choices((self._messages, self._row, self._error), (12, 4, 4))[0]
        what()
        self.happened += 1

    def tend(self) -> None:
        now = time.monotonic()
        for one in [one for one in self._errors if one[0] <= now]:
            self._errors.remove(one)
            one[2].close()

    def end(self) -> None:
        self._errors = [(0.0, step, ending) for _, step, ending in self._errors]
        self.tend()

    def _messages(self) -> None:
        for _ in range(self._chance.randint(1, 5)):
            one = drawn(self._here, self._chance.randrange(10**6))
            if one.kind in ALONE:
                continue
            if one.due is not None:
                self.due[one.due] = one.kind
            for sending in one.sendings:
                self.send(sending.stream(self.world.stage), sending.entry)

    def _row(self) -> None:
        """What an old program, or a finger, has left in Redis or in a database."""
        with suppress(redis.RedisError, OSError, sqlite3.Error):  # it is away: nobody leaves anything there
            self._chance.choice((self._old_class, self._waiting))()

    def _old_class(self) -> None:
        chance = self._chance
        times = (None, "x", "", b"\xff", 1e300, -1, "1e400", "2020-13-45 99:00", "9" * 400, float("inf"), True)
        class_id = f"old-{self.happened}"
        stem = chance.choice(("1", "x", "", "../x", "9_720P"))
        state = chance.choice(("ready", "waiting", None, "?", "on air"))
        urls = (odd.url(chance, "http"), chance.choice((None, "", odd.url(chance, "rtmp"))))
        task = (class_id, *urls, chance.choice(times), chance.choice(times))
        database = self.world.stage.database(chance.choice(HOSTS[1:]))
        # A host may be stopped in the middle of a transaction: this one does not wait for it.
        with closing(sqlite3.connect(database, timeout=0.5)) as connection, connection:
            columns = "class_id, video_url, push_url, start_time, end_time"
            connection.execute(f"insert into task_list ({columns}) values (?, ?, ?, ?, ?)", task)
            columns = "class_id, video_id, state, placement"
            connection.execute(f"insert into class_list ({columns}) values (?, ?, ?, 1)", (class_id, stem, state))

    def _waiting(self) -> None:
        key = f"{self.world.stage.prefix}:{self._here.record_id}_{self._chance.choice(('240P', '720P'))}"
        self.world.town.redis.rpush(key, self._chance.choice(odd.NAMES).encode())

    def _error(self) -> None:
        """For a while one step raises what nobody foresaw, in all hosts."""
        step = self._chance.choice(list(STEPS))
        if step in {one for _, one, _ in self._errors}:
            return
        ending = ExitStack()
        ending.enter_context(self.world.errors.raising(step, self._chance.choice(ERRORS)))
        self._errors.append((time.monotonic() + self._chance.uniform(*ERROR_S), step, ending))
