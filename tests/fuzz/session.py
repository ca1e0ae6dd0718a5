"""A living teacher and a streamer, what is sent to them, and whether they bear it."""

import json
import random
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import redis

from tests.fuzz.odd_messages import TWO_WAYS, Here, Odd, Sending, drawn
from tests.fuzz.odd_values import FAR_S
from tests.stage import Stage, Town, wait_until
from town.oss_transcoder import Behaviour, Rule
from town.ports import HOST, free_port

BINDS = {"teacher": "API_BIND", "streamer1": "HEALTH_BIND"}
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
PORTION, GOODS = 250, 10
"""Number of odd messages that are sent together, and of good bookings among them."""

CANARY_S = 150.0
"""While a host says that it is ready, a booking is answered within so long, whatever came with it.

Its health knows a message that nobody handles for two minutes."""

DUE_S = 400.0
"""All others are answered within so long after the last message."""

AHEAD = 3
"""So many portions are sent before the canaries of the first of them must be answered."""

WARM, GROWTH_BYTES, FILES = 5, 200 * 1024**2, 200
"""After how many portions the processes are as large as they are to be, and how much memory and how many files more
what is really kept would soon pass."""

BACKLOG, DOWNLOADS = 2_000, 100
"""Number of messages, and of downloads, that may wait before more are sent."""

AIR_EVERY, AIR_IN_S, AIR_S, MISSED_S = 10, 60.0, 12.0, 4.0
"""One class in ten portions of messages is on air. In seconds: from its booking to its start, its length, and how late
it may begin."""

OFTEN = ("old", "old", "old", "listed", "twice", "cancelled", "malformed", "ended", "soon", "fresh", "transcoded")
REFUSED = {"malformed": 400, "ended": 410, "cancelled": 411}
"""The kinds of good bookings that are not booked, or perhaps not, with the code of their answer."""


class Harm(AssertionError):
    """Something odd has hurt more than itself."""


@dataclass
class Good:
    """A booking, and the codes of which its answer must have one."""

    kind: str
    class_id: str
    sendings: tuple[Sending, ...]
    codes: set[int]
    sent_at: float = 0.0  # monotonic


class Session:
    """One teacher and one streamer; the servers are the town's."""

    def __init__(self, town: Town, folder: Path, seed: int) -> None:
        self.seed, self.stage = seed, Stage(town, folder, {})
        made = f"{town.origin.url}/{{record_id}}/{{record_id}}_{{video_resolution}}.flv"
        self.stage.oss.rules.append(Rule(Behaviour.QUICK, url=made))
        self.stage.settings |= SETTINGS
        self._binds = {who: f"{HOST}:{free_port()}" for who in BINDS}
        self.stage.own |= {who: {name: self._binds[who]} for who, name in BINDS.items()}
        self.here = Here(seed, self.stage.name("streamer1"), town.origin.url, town.record("720P", seconds=3))
        self.goods: dict[str, Good] = {}
        self._bodies: set[str] = set()  # of those that no dead letter may have
        self.kinds: dict[str, str] = {}  # of the odd classes that must be answered
        self.answers: dict[str, list[tuple[str, int]]] = defaultdict(list)
        self.letters = 0
        self.bus: redis.Redis = redis.Redis.from_url(
            town.redis_url, decode_responses=True, encoding_errors="replace", socket_timeout=30
        )
        self._record = town.record("480P", "720P")
        self._answers = self.stage.channels["order_result"]
        self._read: dict[Any, Any] = dict.fromkeys((self._answers, self.stage.settings["DEAD_LETTER_STREAM"]), "0")
        self._sizes: dict[str, tuple[int, int]] = {}
        self._portions = 0
        self._open: deque[tuple[list[int], list[Good]]] = deque()  # portions, and their canaries

    # -- messages ----------------------------------------------------------------------------------------------------

    def play(self, number: int, tell: Callable[[int], None] = lambda _: None) -> list[str]:
        """Send the first *number* odd messages, and wait for all that is due; returns what is wrong, in words."""
        try:
            self._send([], [], canaries=1)
            self.catch_up()
            for first in range(0, number, PORTION):
                after = min(first + PORTION, number)
                self._portion([drawn(self.here, index) for index in range(first, after)])
                tell(after)
            self.catch_up()
            self._rest()
        except Harm as harm:
            suspects = [index for indices, _ in self._open for index in indices]
            return [f"{harm}; it is among the messages {suspects[:1]} to {suspects[-1:]}"]
        return self.complaints()

    def _portion(self, odds: Sequence[Odd]) -> None:
        """Send these, and good bookings among them; raises Harm if something before them has hurt anybody."""
        chance = random.Random(f"{self.seed} good {odds[0].index}")
        goods = [self._good(chance.choice(OFTEN), on_channel=chance.random() < 0.5) for _ in range(GOODS)]
        goods += [self._good("on air", on_channel=False)] if self._portions % AIR_EVERY == 0 else []
        self._portions += 1
        self._send(goods, odds, canaries=2)
        self.here.good.extend(one.class_id for one in goods if one.kind == "old")
        self.catch_up(AHEAD)

        def short() -> bool:
            self.look()
            downloads = self._number("streamer1", "video_list where state = 'downloading'")
            return all(self._waiting(who) < BACKLOG for who in BINDS) and downloads < DOWNLOADS

        wait_until(short, timeout_s=DUE_S, description="what waits in the inboxes becomes less")
        self._measure()

    def _good(self, kind: str, *, on_channel: bool) -> Good:
        stage, starts = self.stage, {"soon": 3_000.0, "ended": -600.0, "on air": AIR_IN_S}
        booking: dict[str, Any] = stage.booking(
            stage.town.record("720P") if kind in {"fresh", "transcoded"} else self._record,
            "720P" if kind in {"listed", "transcoded"} else None,
            starts_in_s=starts.get(kind, FAR_S),
            length_s=AIR_S if kind == "on air" else 60,
            listed=("480P", "720P") if kind == "listed" else (),
        )
        if kind == "malformed":
            del booking["start_time"]
        class_id = str(booking["class_id"])
        bodies = [("order", booking)] * (2 if kind == "twice" else 1)
        bodies += [("cancel", {"cmd": "cancel", "class_id": class_id})] if kind == "cancelled" else []
        via = "channel" if on_channel else "stream"
        sendings = tuple(Sending(via, to, json.dumps(body).encode()) for to, body in bodies)  # type: ignore[arg-type]
        self._bodies |= {one.body.decode() for one in sendings if kind != "malformed"}
        codes = {REFUSED.get(kind, 0)} | ({0} if kind == "cancelled" else set())
        self.goods[class_id] = Good(kind, class_id, sendings, codes)
        return self.goods[class_id]

    def _send(self, goods: Sequence[Good], odds: Sequence[Odd], canaries: int) -> None:
        """All of them, mixed, but each one's own messages in their order; then canaries, which must be answered."""
        bundles = [one.sendings for one in odds] + [one.sendings for one in goods]
        random.Random(f"{self.seed} mixed {self._portions}").shuffle(bundles)
        last = [self._good("canary", on_channel=number == 1) for number in range(canaries)]
        self.kinds |= {one.due: one.kind for one in odds if one.due is not None}
        with self.bus.pipeline(transaction=False) as pipe:
            for sending in (sending for bundle in [*bundles, *(one.sendings for one in last)] for sending in bundle):
                if sending.via == "channel":
                    pipe.publish(self.stage.channels[sending.target], sending.body)
                else:
                    pipe.xadd(sending.stream(self.stage), dict(sending.entry.items()))
            for good in last:
                good.sent_at = time.monotonic()
            pipe.execute()
        self._open.append(([one.index for one in odds], last))

    # -- what must be true -------------------------------------------------------------------------------------------

    def look(self) -> None:
        """Raise Harm where a process ended, or a good message became a dead letter."""
        for who in BINDS:
            child = self.stage.residents[who]
            if child.exit_code is not None:
                raise Harm(f"{who} ended with {child.exit_code}:\n{child.said()[-1_500:]}")
        found: Any = self.bus.xread(self._read, count=2_000)
        for stream, entries in found:
            self._read[stream] = entries[-1][0]
            for _, fields in entries:
                self._take(stream, json.loads(fields["body"]))

    def _take(self, stream: str, said: dict[str, Any]) -> None:
        if stream == self._answers:
            self.answers[said["class_id"]].append((said["result"], said["code"]))
            return
        self.letters += 1
        if str(said["body"]) in self._bodies:
            raise Harm(f"a good message became a dead letter: {said['error']}: {said['body'][:300]}")

    def _measure(self) -> None:
        """Raise Harm where a process grows without end."""
        of = {who: psutil.Process(self.stage.residents[who].pid) for who in BINDS}
        sizes = {who: (process.memory_info().rss, process.num_fds()) for who, process in of.items()}
        self._sizes = sizes if self._portions == WARM else self._sizes
        for who, (rss, files) in self._sizes.items():
            if sizes[who][0] - rss > GROWTH_BYTES or sizes[who][1] - files > FILES:
                raise Harm(f"{who} grew from {rss:,} to {sizes[who][0]:,} bytes, and to {sizes[who][1]} open files")

    def catch_up(self, ahead: int = 0) -> None:
        """Wait until the canaries of all portions but *ahead* are answered; raises Harm where they are not in time."""
        self.look()
        while len(self._open) > ahead:
            for one in self._open[0][1]:
                while not self.answers.get(one.class_id):
                    if time.monotonic() - one.sent_at > CANARY_S:
                        why = self.not_ready() or "all say they are ready"
                        raise Harm(f"a canary was not answered within {CANARY_S:g} s; {why}")
                    time.sleep(0.02)
                    self.look()
            self._open.popleft()

    def not_ready(self) -> list[str]:
        """Who does not say that it is ready, and what it says."""
        said = {who: httpx.get(f"http://{bind}/health", timeout=30) for who, bind in self._binds.items()}
        return [f"{who} is not ready: {one.text[:200]}" for who, one in said.items() if one.status_code != 200]

    def _number(self, who: str, what: str) -> int:
        return int(self.stage.rows(who, f"select count(*) as number from {what}")[0]["number"])

    def _waiting(self, who: str) -> int:
        return self._number(who, "inbox_list where state = 'new'")

    def _rest(self) -> None:
        """Wait until all that is due has come, or no longer may come."""
        end = time.monotonic() + DUE_S
        while time.monotonic() < end:
            self.look()
            is_answered = all(self.answers.get(class_id) for class_id in (*self.goods, *self.kinds))
            if is_answered and not self._aired_wrongly() and not any(map(self._waiting, BINDS)):
                return
            time.sleep(0.3)

    def _aired_wrongly(self) -> list[str]:
        wrong = []
        for one in (one for one in self.goods.values() if one.kind == "on air"):
            pushes = [push for push in self.stage.pushes(one.class_id) if push.first_media_at is not None]
            seconds = sum((push.last_timestamp_ms or 0) - (push.first_timestamp_ms or 0) for push in pushes) / 1_000
            if len(pushes) != 1 or seconds < AIR_S - MISSED_S:
                wrong.append(f"{one.class_id} was on air in {len(pushes)} pushes, for {seconds:.0f} of {AIR_S:.0f} s")
        return wrong

    def complaints(self) -> list[str]:
        """All that is wrong, in words."""
        found = [*self._aired_wrongly(), *self.not_ready()]
        for class_id, good in self.goods.items():
            said = self.answers.get(class_id, [])
            allowed = {("fail" if code else "success", code) for code in good.codes}
            if len(said) != (2 if good.kind == "twice" else 1) or len(set(said)) > 1 or not set(said) <= allowed:
                found.append(f"{class_id} ({good.kind}) was answered {said}, not {sorted(allowed)}")
        for class_id, kind in self.kinds.items():
            said = self.answers.get(class_id, [])
            if not said or (len(set(said)) > 1 and kind not in TWO_WAYS):
                found.append(f"{class_id} (odd: {kind}) was answered {said}")
        return found


@contextmanager
def living(town: Town, folder: Path, seed: int) -> Iterator[Session]:
    folder.mkdir(parents=True, exist_ok=True)
    session = Session(town, folder, seed)
    try:
        session.stage.up(*BINDS)
        yield session
    finally:
        session.stage.close()
        session.bus.close()
