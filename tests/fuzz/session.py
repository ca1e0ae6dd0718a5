"""A living teacher and a streamer, what is sent to them, and whether they bear it."""

import json
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from tests.fuzz.good import AIR_IN_S, AIR_S, MISSED_S, OFTEN, Answer, Good, Goods
from tests.fuzz.odd_messages import TWO_WAYS, Here, Odd, drawn
from tests.stage import Stage, Town, wait_until
from town.oss_transcoder import Behaviour, Rule
from town.ports import HOST, free_port

WHO = ("teacher", "streamer1")
SETTINGS = {
    "ECS_HOSTS": "",
    "TRANSCODING_TIME_OUT_S": "15",
    "HTTP_TIMEOUT_S": "5",
    "MAX_DOWNLOADS": "32",
    "LEASE_S": "45",
    "MAX_VIDEO_NUM": "100000",
    "MAX_ATTEMPTS_A_DAY": "1000",
    "ALARM_GROUP_S": "60",
    "SWEEP_INTERVAL_S": "5",
    "LOG_LEVEL": "INFO",
}
PORTION = 250
"""So many odd messages are sent together."""

CANARY_S = 150.0
"""While a host says that it is ready, a booking is answered within so long, whatever came with it.

Its health knows a message that nobody handles for two minutes."""

DUE_S = 400.0
"""All others are answered within so long after the last message."""

GOODS = 10
"""So many good bookings go with each portion of odd messages."""

AHEAD = 3
"""So many portions are sent before the canaries of the first of them must be answered."""

WARM = 5
"""After so many portions the processes are as large as they are to be."""

GROWTH_BYTES, FILES = 200 * 1024**2, 200
"""More memory, and more open files, than then: what is really kept would pass this soon."""

AIR_EVERY, AT_ONCE = 10, 2_000
BACKLOG, DOWNLOADS = 2_000, 100
"""So many messages, and so many downloads, may wait before more are sent."""


class Harm(AssertionError):
    """Something odd has hurt more than itself."""


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
        self._client.close()


class Session:
    """One teacher and one streamer; the servers are the town's."""

    def __init__(self, town: Town, folder: Path, seed: int) -> None:
        self.town, self.seed = town, seed
        self.stage = Stage(town, folder, {})
        origin = town.record("720P", seconds=3)
        made = f"{town.origin.url}/{{record_id}}/{{record_id}}_{{video_resolution}}.flv"
        self.stage.oss.rules.append(Rule(Behaviour.QUICK, url=made))
        self._ports = {who: free_port() for who in WHO}
        self.stage.settings |= SETTINGS
        for who, name in zip(WHO, ("API_BIND", "HEALTH_BIND"), strict=True):
            self.stage.own[who] = {name: f"{HOST}:{self._ports[who]}"}
        self.goods = Goods(self.stage)
        self.ledger = Ledger(self.stage)
        self.here = Here(seed, self.stage.name("streamer1"), town.origin.url, origin)
        self._aired_by = 0.0  # monotonic
        self._before: dict[str, tuple[int, int]] = {}
        self.bus: redis.Redis = redis.Redis.from_url(town.redis_url, socket_timeout=30)
        self._portions, self._slowest_s = 0, 0.0
        self._open: deque[tuple[list[int], list[Good]]] = deque()  # portions, and their canaries

    def up(self) -> None:
        """Start the hosts, and wait until a booking is answered."""
        self.stage.up(*WHO)
        self._send([self.goods.make("old", on_channel=False)], [])
        self._open.append(([], list(self.goods.made.values())))
        self.catch_up()

    def close(self) -> None:
        self.stage.close()
        self.ledger.close()
        self.bus.close()

    # -- messages ----------------------------------------------------------------------------------------------------

    def odd(self, indices: Sequence[int], tell: Callable[[int], None] = lambda _: None) -> None:
        """Send the odd messages of *indices*, and wait for their canaries; raises Harm."""
        for first in range(0, len(indices), PORTION):
            self.portion([drawn(self.here, index) for index in indices[first : first + PORTION]])
            tell(min(first + PORTION, len(indices)))
        self.catch_up()

    def portion(self, odds: Sequence[Odd]) -> None:
        """Send these, and good bookings among them; raises Harm if something before them has hurt anybody."""
        self._portions += 1
        chance = random.Random(f"{self.seed} good {odds[0].index if odds else 0}")
        goods = [self.goods.make(chance.choice(OFTEN), on_channel=chance.random() < 0.5) for _ in range(GOODS)]
        if self._portions % AIR_EVERY == 1:
            notice_s = 3 * self._slowest_s
            self._aired_by = time.monotonic() + AIR_IN_S + notice_s + AIR_S + MISSED_S
            goods.append(self.goods.make("on air", on_channel=False, notice_s=notice_s))
        self._send(goods, odds, chance)
        canaries = [self.goods.make("canary", on_channel=on_channel) for on_channel in (True, False)]
        self._send(canaries, [])
        self._open.append(([one.index for one in odds], canaries))
        self.here.good.extend(one.class_id for one in goods if one.kind == "old")
        self.catch_up(AHEAD)
        self._wait_for_backlog()
        self.measure()

    def _send(self, goods: Sequence[Good], odds: Sequence[Odd], chance: random.Random | None = None) -> None:
        """All of them, mixed, but each one's own messages in their order."""
        bundles = [one.sendings for one in odds] + [one.sendings for one in goods]
        if chance is not None:
            chance.shuffle(bundles)
        self.ledger.kinds |= {one.due: one.kind for one in odds if one.due is not None}
        for good in goods:
            good.sent_at = time.monotonic()
        with self.bus.pipeline(transaction=False) as pipe:
            for sending in (sending for bundle in bundles for sending in bundle):
                if sending.via == "channel":
                    pipe.publish(self.stage.channels[sending.target], sending.body)
                else:
                    pipe.xadd(sending.stream(self.stage), dict(sending.entry.items()))
            pipe.execute()

    # -- what must be true -------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Raise Harm where a process ended, or a good message became a dead letter."""
        for who in WHO:
            child = self.stage.residents[who]
            if child.exit_code is not None:
                raise Harm(f"{who} ended with {child.exit_code}:\n{child.said()[-1_500:]}")
        self.ledger.read(self.goods.bodies)
        if self.ledger.accused:
            raise Harm(f"a good message became a dead letter: {self.ledger.accused[0]}")

    def measure(self) -> None:
        """Raise Harm where a process grows without end."""
        sizes = {who: self._size(who) for who in WHO}
        self._before = sizes if self._portions == WARM else self._before
        for who, (rss, files) in self._before.items():
            if sizes[who][0] - rss > GROWTH_BYTES or sizes[who][1] - files > FILES:
                raise Harm(f"{who} grew from {rss:,} to {sizes[who][0]:,} bytes, and to {sizes[who][1]} open files")

    def _size(self, who: str) -> tuple[int, int]:
        process = psutil.Process(self.stage.residents[who].pid)
        return process.memory_info().rss, process.num_fds()

    def suspects(self) -> list[int]:
        """The numbers of the odd messages whose canaries were not answered yet."""
        return [index for indices, _ in self._open for index in indices]

    def catch_up(self, ahead: int = 0) -> None:
        """Wait until the canaries of all portions but *ahead* are answered; raises Harm where they are not in time."""
        self.look()
        while len(self._open) > ahead:
            _, canaries = self._open[0]
            while any(not self.ledger.answers.get(one.class_id) for one in canaries):
                time.sleep(0.02)
                self._bound(canaries)
                self.look()
            self._slowest_s = max(self._slowest_s, time.monotonic() - canaries[0].sent_at)
            self._open.popleft()

    def _bound(self, canaries: Sequence[Good]) -> None:
        if time.monotonic() - min(one.sent_at for one in canaries) > CANARY_S:
            raise Harm(
                f"a canary was not answered within {CANARY_S:g} s; {self.not_ready() or 'all say they are ready'}"
            )

    def not_ready(self) -> list[str]:
        """Who does not say that it is ready, and what it says."""
        said = {who: httpx.get(f"http://{HOST}:{port}/health", timeout=30) for who, port in self._ports.items()}
        return [f"{who} is not ready: {one.text[:200]}" for who, one in said.items() if one.status_code != 200]

    def _wait_for_backlog(self) -> None:
        """Until the inboxes are short enough for more."""

        def short() -> bool:
            self.look()
            return all(self._waiting(who) < BACKLOG for who in WHO) and self._downloads() < DOWNLOADS

        wait_until(short, timeout_s=DUE_S, description="what waits in the inboxes becomes less")

    def _downloads(self) -> int:
        (row,) = self.stage.rows("streamer1", "select count(*) as number from video_list where state = 'downloading'")
        return int(row["number"])

    def _waiting(self, who: str) -> int:
        (row,) = self.stage.rows(who, "select count(*) as number from inbox_list where state = 'new'")
        return int(row["number"])

    def unanswered(self) -> list[str]:
        due = [*self.goods.made, *self.ledger.kinds]
        return [class_id for class_id in due if not self.ledger.answers.get(class_id)]

    def rest(self) -> None:
        """Wait until all that is due has come, or no longer may come."""
        end = time.monotonic() + DUE_S
        while time.monotonic() < end:
            self.look()
            is_aired = time.monotonic() > self._aired_by or not self.goods.aired_wrongly()
            if is_aired and not self.unanswered() and not any(map(self._waiting, WHO)):
                return
            time.sleep(0.3)

    def complaints(self) -> list[str]:
        """All that is wrong, in words."""
        answers, found = self.ledger.answers, [*self.goods.aired_wrongly(), *self.not_ready()]
        for class_id, good in self.goods.made.items():
            said = answers.get(class_id, [])
            if len(said) != (2 if good.kind == "twice" else 1) or len(set(said)) > 1 or not set(said) <= good.expects:
                found.append(f"{class_id} ({good.kind}) was answered {said}, not {sorted(good.expects)}")
        for class_id, kind in self.ledger.kinds.items():
            said = answers.get(class_id, [])
            if not said or (len(set(said)) > 1 and kind not in TWO_WAYS):
                found.append(f"{class_id} (odd: {kind}) was answered {said}")
        return found


@contextmanager
def living(town: Town, folder: Path, seed: int) -> Iterator[Session]:
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(town, folder, seed)
    try:
        session.up()
        yield session
    finally:
        session.close()
