"""Ten thousand classes are changed while they are cancelled, moved, transcoded and reported, in any order."""

import json
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, select

from flows import handling
from flows.host import Host, StreamerHost, TeacherHost
from flows.playout_link import ScheduledClass
from flows.streamer import amend as amending
from flows.streamer import downloads, lease, prepare
from flows.teacher import bookings, maintenance, membership, transcoding
from lectern.db import airings, cache, inbox, leases
from lectern.db.engine import transaction
from lectern.db.inbox import ReceivedMessage
from lectern.decide import airing
from lectern.decide.change import IN_FORCE
from lectern.errors import BAD_RECORDING, Refuse
from lectern.media.probe import Probe
from lectern.model.facts import Airing, InboxMessage
from lectern.model.streamer_plan import StreamerChanges
from lectern.model.tables.streamer import classes, files, tasks
from lectern.model.tables.teacher import StreamerRow, orders
from lectern.states import BOOKING_OVER, LIVE_AIRINGS, AiringState, BookingState, FileState
from lectern.storage import cache_dir
from lectern.storage.origin import RemoteFile
from lectern.wire.fields import class_of, revised
from lectern.wire.messages import Amend, Booking, Cancel, Change, Grant, Prepare, Release, Report, TranscodingResult
from lectern.wire.parser import COMMANDS
from tests import strategies
from tests.faults import hosts
from tests.faults.interleaved import databases
from tests.rows import commit

pytestmark = pytest.mark.night
CLASSES, PORTION, ROUNDS = 10_000, 500, 14
SIZE = 10
PROBE = Probe(10.0, SIZE, last_second_decodes=True)
OVER = BOOKING_OVER | {BookingState.BROKEN}


Content = tuple[str, float, float, str]
"""The rendition, the times and the push URL of a class."""


def lesson(host: StreamerHost, one: Airing) -> ScheduledClass:
    """A class as the playout has it."""
    file = str(cache_dir.rendition_path(host.settings.video_root, one.stem).absolute())
    return {"start": one.start_time, "end": one.end_time, "file": file, "push_urls": [one.push_url]}


def content(row: Any) -> Content:
    """What a booking says, the class's or that of a change."""
    return f"{row.record_id}_720P", row.start_time, row.end_time, json.loads(row.payload)["push_url"]


def _confirmed(aired: dict[str, ScheduledClass], connection: Connection, changes: StreamerChanges) -> None:
    waiting = {one.class_id for one in airings.unconfirmed(connection)}
    amending.confirmed(waiting, aired)(connection, changes)


@contextmanager
def two_streamers(folder: Path) -> Iterator[tuple[TeacherHost, dict[str, StreamerHost]]]:
    """A teacher and two streamers, whose databases are in *folder*."""
    with ExitStack() as stack:
        paths = {name: hosts.database("streamer", folder / f"{name}.db") for name in hosts.ALIVE}
        streamers = {
            name: hosts.streamer(stack.enter_context(databases(path))[0], folder, 10**6, 10**4, name=name)
            for name, path in paths.items()
        }
        for host in streamers.values():
            commit(host.engine, cache.make_sums, folder)
        engine, _ = stack.enter_context(databases(hosts.database("teacher", folder / "teacher.db")))
        yield hosts.teacher(engine), streamers


class World:
    """A teacher and two streamers; what they say to each other waits until somebody takes it, in its order."""

    def __init__(self, teacher: TeacherHost, streamers: dict[str, StreamerHost], seed: int) -> None:
        self.teacher, self.streamers = teacher, streamers
        self.chance = random.Random(seed)
        self.links: dict[tuple[str, str], deque[str]] = defaultdict(deque)  # by who takes it, and class
        self.answers: dict[str, Counter[str]] = {"order_result": Counter(), "change_result": Counter()}
        self.asked: Counter[str] = Counter()
        self.aired: dict[str, dict[str, ScheduledClass]] = {name: {} for name in streamers}  # what each playout has
        self.history: dict[str, set[Content]] = defaultdict(set)  # all that some playout had of a class
        self._read: dict[str, int] = {}

    # -- messages ------------------------------------------------------------------------------------------------------

    def send(self, to: str, class_id: str, body: str) -> None:
        self.links[to, class_of(class_id)].append(body)

    def pick(self, to: str, share: float) -> list[str]:
        """The next messages to *to*: of each class the first of those that wait, or none."""
        found = [link.popleft() for (who, _), link in self.links.items() if who == to and link and self._maybe(share)]
        self.chance.shuffle(found)
        return found

    def _maybe(self, share: float) -> bool:
        return self.chance.random() < share

    def heard(self, host: Host[Any], connection: Connection) -> None:
        """Pass on what *host* has said in this transaction."""
        outbox, name = host.journal.outbox, host.settings.name
        new = select(outbox).where(outbox.c.id > self._read.get(name, 0)).order_by(outbox.c.id)
        for row in connection.execute(new):
            self._read[name] = row.id
            self.passes(name, connection, row)

    def passes(self, _name: str, _connection: Connection, row: Any) -> None:
        """Pass on a message that somebody has said."""
        if row.target in self.answers:
            self.answers[row.target][json.loads(row.body)["class_id"]] += 1
        elif row.target.startswith("streamer:"):
            self.send(row.target.removeprefix("streamer:"), row.class_id, row.body)
        elif row.target == "streamer_report":
            self.send("teacher", row.class_id, row.body)

    def at(self, host: Host[Any], work: Callable[[Connection], object]) -> None:
        with transaction(host.engine) as connection:
            work(connection)
            self.heard(host, connection)

    def kept(self, connection: Connection, host: Host[Any], bodies: Sequence[str]) -> list[InboxMessage]:
        now = hosts.now()
        arrived = [ReceivedMessage("test", json.loads(one)["cmd"], one) for one in bodies]
        return inbox.keep_claimed(connection, host.journal, arrived, now, 60) if arrived else []

    def decides(self, host: Host[Any], bodies: Sequence[str], kinds: tuple[Any, ...], go: Any) -> None:
        """Decide messages to *host* in one transaction, by *go*."""

        def work(connection: Connection) -> None:
            came = [handling.came(one, kinds) for one in self.kept(connection, host, bodies)]
            handling.change(connection, host, partial(handling.of_messages, host, came, go))

        self.at(host, work)

    # -- the teacher ---------------------------------------------------------------------------------------------------

    def teacher_takes(self, share: float) -> None:
        by_flow: dict[str, list[str]] = defaultdict(list)
        for body in self.pick("teacher", share):
            by_flow[COMMANDS[json.loads(body)["cmd"]].goes_to].append(body)
        flows: list[tuple[str, tuple[Any, ...], Any]] = [
            ("booking", (Booking, Cancel), partial(bookings.decided_bookings, hosts.ALIVE)),
            ("change", (Change,), partial(bookings.decided_changes, hosts.ALIVE)),
            ("settle", (TranscodingResult,), partial(transcoding.decided_results, hosts.ALIVE, {})),
            ("report", (Report,), partial(bookings.decided_reports, hosts.ALIVE)),
        ]
        self.chance.shuffle(flows)
        for flow, kinds, go in flows:
            self.decides(self.teacher, by_flow[flow], kinds, go)

    def loses(self, name: str) -> None:
        """All classes of a streamer are moved to the other one."""
        others = [one for one in hosts.ALIVE if one != name]

        def work(connection: Connection) -> None:
            holder = leases.holder(connection, name)
            assert isinstance(holder, StreamerRow)
            handling.change(connection, self.teacher, membership.taken(holder, others, force=True))

        self.at(self.teacher, work)

    def sweep(self) -> None:
        self.at(self.teacher, lambda c: handling.change(c, self.teacher, maintenance.overlooked))

    # -- a streamer ----------------------------------------------------------------------------------------------------

    def streamer_takes(self, name: str, share: float) -> None:
        host, bodies = self.streamers[name], self.pick(name, share)
        of: dict[str, list[str]] = defaultdict(list)
        for body in bodies:
            of[json.loads(body)["cmd"]].append(body)
        self.decides(host, of["release"], (Release, Grant), lease.release_classes)
        for cmd in self.chance.sample(["prepare", "amend"], 2):
            if cmd == "prepare":
                self.at(host, partial(self._prepare, host, of[cmd]))
            else:
                self.decides(host, of[cmd], (Amend,), amending.decided)

    def playout_takes_over(self, name: str, share: float) -> None:
        """The playout takes over some classes as their rows are, and leaves those that are over; then it confirms."""
        host, aired = self.streamers[name], self.aired[name]

        def work(connection: Connection) -> None:
            live = {one.class_id: one for one in airings.live(connection)}
            for class_id in [one for one in aired if one not in live]:
                del aired[class_id]
            for class_id, one in live.items():
                if self._maybe(share):
                    aired[class_id] = lesson(host, one)
                    self.history[class_id].add((one.stem, one.start_time, one.end_time, one.push_url))
            handling.change(connection, host, partial(_confirmed, aired))

        self.at(host, work)

    def _prepare(self, host: StreamerHost, bodies: Sequence[str], connection: Connection) -> None:
        came = [handling.came(one, (Prepare,)) for one in self.kept(connection, host, bodies)]
        came, _ = prepare.with_stems(connection, came)
        looked: dict[str, Any] = {
            one.stem: RemoteFile(one.video_url, SIZE, None, None) for one in prepare.prepares(came)
        }
        handling.change(
            connection, host, partial(handling.of_messages, host, came, partial(prepare.decided_classes, looked, {}))
        )

    def downloads(self, name: str, share: float) -> None:
        """Some downloads end, a few of them badly."""
        host = self.streamers[name]

        def work(connection: Connection) -> None:
            under_way = connection.execute(select(files.c.id).where(files.c.state == FileState.DOWNLOADING)).scalars()
            for stem in sorted(under_way):
                if not self._maybe(share):
                    continue
                if self._maybe(0.1):
                    error = Refuse("its end cannot be decoded", BAD_RECORDING)
                    handling.change(connection, host, downloads.failed(stem, error))
                else:
                    remote = RemoteFile("http://origin.example/x", SIZE, None, None)
                    handling.change(connection, host, downloads.arrived(stem, remote, PROBE))

        self.at(host, work)

    def airs(self, name: str, share: float) -> None:
        """Some classes begin, some that are on air end."""
        host = self.streamers[name]

        def decide(connection: Connection, changes: StreamerChanges) -> None:
            for one in airings.live(connection):
                if one.state is AiringState.READY and self._maybe(share):
                    changes.move(one, AiringState.ON_AIR)
                elif one.state is AiringState.ON_AIR and self._maybe(share / 3):
                    airing.close(changes, one, AiringState.AIRED, "whole")

        self.at(host, lambda connection: handling.change(connection, host, decide))

    # -- the platform --------------------------------------------------------------------------------------------------

    def platform_speaks(self, class_id: str, number: int) -> None:
        """One more message about a class."""
        key, draw = f"r-{class_id}", self.chance.random()
        start = int(hosts.now()) + 3600
        if number == 0:
            record = 10_000 + self.chance.randrange(300)
            listed = {"720P": f"http://origin.example/{record}_720P.flv"} if draw < 0.8 else {}
            body = strategies.booking(
                class_id, record_id=record, start_time=start, end_time=start + 600, video_url_list=listed
            )
            self.send("teacher", class_id, body.to_json())
        elif draw < 0.6:
            self.asked[class_id] += 1
            self.send(
                "teacher", class_id, json.dumps({"cmd": "change", "class_id": class_id, **self._fields(start, key)})
            )
        elif draw < 0.68:
            self.send("teacher", class_id, Cancel(class_id=class_id).to_json())

    def _fields(self, start: int, key: str) -> dict[str, object]:
        record = 10_000 + self.chance.randrange(300)
        recording: dict[str, object] = {"record_id": record, "video_url": f"http://origin.example/{record}.flv"}
        return self.chance.choice(
            [
                {"start_time": start + self.chance.randrange(-60, 60)},
                {"end_time": start + self.chance.choice([300, 900, 1200])},
                {"push_url": f"rtmp://push.example/live/{key}-{self.chance.randrange(3)}"},
                {"push_url_backup": f"rtmp://backup.example/live/{key}"},
                recording | {"video_url_list": {"720P": f"http://origin.example/{record}_720P.flv"}},
                recording,
            ]
        )

    def transcoder_speaks(self, share: float) -> None:
        def work(connection: Connection) -> None:
            waiting = select(orders.c.record_id).where(orders.c.state == BookingState.WAITING).distinct()
            for record in sorted(connection.execute(waiting).scalars()):
                if self._maybe(share):
                    ok = self._maybe(0.7)
                    said = strategies.result(
                        success=ok,
                        record_id=record,
                        transcode_video_url=f"http://origin.example/{record}_720P.flv" if ok else None,
                    )
                    self.send("teacher", f"result-{record}", said.to_json())

        self.at(self.teacher, work)

    # -- what must be so -----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Everything that waits is taken, until nobody says anything any more."""
        for _ in range(60):
            self.transcoder_speaks(1)
            self.teacher_takes(1)
            for name in self.streamers:
                self.streamer_takes(name, 1)
                self.downloads(name, 1)
                self.playout_takes_over(name, 1)
            self.sweep()
            if not any(self.links.values()):
                return
        raise AssertionError({key: list(link)[:3] for key, link in self.links.items() if link})

    def faults(self, class_ids: Sequence[str]) -> Iterator[str]:
        """What is inconsistent, in words."""
        booked = {row.class_id: row for row in commit(self.teacher.engine, Connection.execute, select(orders))}
        for class_id in class_ids:
            if self.answers["order_result"][class_id] != 1:
                yield f"{class_id}: {self.answers['order_result'][class_id]} answers"
            if self.answers["change_result"][class_id] != self.asked[class_id]:
                yield f"{class_id}: {self.asked[class_id]} changes, {self.answers['change_result'][class_id]} answers"
        live: dict[str, str] = {}
        for name, host in self.streamers.items():
            yield from self._of_streamer(name, host, booked, live)
        for class_id, row in booked.items():
            if row.revises is not None and row.state not in OVER:
                yield f"{class_id}: is a revision that is {row.state}"
            if row.message == IN_FORCE and content(row) not in self.history[row.revises]:
                yield f"{class_id}: was answered with success, and no playout ever had {content(row)}"
            if row.revises is None and row.state not in OVER and live.get(class_id) != row.streamer:
                yield f"{class_id}: is {row.state} on {row.streamer}, and lives on {live.get(class_id)}"

    def _of_streamer(
        self, name: str, host: StreamerHost, booked: dict[str, Any], live: dict[str, str]
    ) -> Iterator[str]:
        joined = classes.join(tasks, classes.c.class_id == tasks.c.class_id)
        wanted = select(classes, tasks.c.push_url, tasks.c.start_time, tasks.c.end_time).select_from(joined)
        with transaction(host.engine) as connection:
            cited = Counter({row.id: row.num_cite for row in connection.execute(select(files)) if row.num_cite})
            if cited != Counter(airings.citations(connection)):
                yield f"{name}: citations are {cited - Counter(airings.citations(connection))} off"
            for row in connection.execute(wanted.where(classes.c.state.in_(LIVE_AIRINGS))):
                order = booked[row.class_id]
                if row.class_id in live:
                    yield f"{row.class_id}: is on {name}, and on {live[row.class_id]}"
                live[row.class_id] = name
                if revised(row.class_id):
                    yield f"{row.class_id}: its revision lives on {name}"
                if order.state in OVER:
                    yield f"{row.class_id}: is {order.state}, and lives on {name}"
                its = content(order)
                if self.aired[name][row.class_id] != lesson(
                    host, Airing(row.class_id, *its[:1], AiringState.READY, its[3], *its[1:3], None, None)
                ):
                    yield f"{row.class_id}: the playout of {name} airs {self.aired[name][row.class_id]}, not {its}"
                if (row.video_id, row.start_time, row.end_time, row.push_url) != its:
                    yield f"{row.class_id}: {name} has {row.video_id} {row.start_time} {row.end_time}, not {its}"


@pytest.mark.parametrize("seed", range(CLASSES // PORTION))
def test_no_interleaving_of_a_change_leaves_anything_inconsistent(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each class and each change is answered once, and what was answered is what a playout had and has.

    Citations are right, and each class is on one streamer, as told. No message is lost here, so no answer may wait for
    the sweep that tells a streamer again after a minute: all is said before that has passed.
    """
    clock = count(strategies.NOW, 0.01)
    monkeypatch.setattr(time, "time", lambda: next(clock))
    with two_streamers(tmp_path) as (teacher, streamers):
        world = World(teacher, streamers, seed)
        class_ids = [f"c-{number}" for number in range(PORTION)]
        begins = {one: world.chance.randrange(4) for one in class_ids}
        for step in range(ROUNDS):
            for class_id in class_ids:
                if step == begins[class_id] or (step > begins[class_id] and world._maybe(0.25)):
                    world.platform_speaks(class_id, step - begins[class_id])
            world.transcoder_speaks(0.4)
            world.teacher_takes(0.7)
            for name in hosts.ALIVE:
                world.streamer_takes(name, 0.7)
                world.downloads(name, 0.4)
                world.playout_takes_over(name, 0.5)
                world.airs(name, 0.2)
            if step in {5, 9}:
                world.loses(hosts.ALIVE[step % 2])
            if world._maybe(0.3):
                world.sweep()
        world.settle()
        assert list(world.faults(class_ids))[:20] == []
        assert hosts.now() < strategies.NOW + maintenance.UNREPORTED_S
