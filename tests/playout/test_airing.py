"""A class is aired by itself: at its second, to the packet, by the clock."""

import asyncio
import itertools
import os
import select
import socket
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from lectern.playout import demuxer, net, worker
from lectern.playout.kernel import Now
from lectern.playout.muxer import BATCH_BYTES
from lectern.playout.publisher import FIRST_S
from lectern.playout.rtmp import target
from lectern.playout.session import Broken
from lectern.playout.session import Session as OurSession
from tests.playout import flvs
from tests.playout.receiver import Arrived, Receiver, Session, sounds
from tests.playout.turned import STEP_S, Air, Held
from tests.waiting import async_wait_until, wait_until

PING = b"\x03\0\0\0\0\0\x06\x04\0\0\0\0\0\x06\0\0\0\x07"
"""A server asks whether somebody is there."""


async def test_a_class_connects_before_its_start_and_is_published_at_it(air: Air) -> None:
    airing = air(starts_in_s=5)
    await airing.turn(2 - STEP_S)
    assert airing.pushes[0].state == "waiting"
    await airing.until(lambda: airing.told("connected"), within_s=2)
    await airing.turn(airing.lesson.start - airing.clock.wall - STEP_S)
    assert [one.published for one in air.receiver.sessions] == [None]
    await airing.turn(STEP_S)
    assert airing.position_ms() == 0
    await airing.until(lambda: airing.told("on_air"), within_s=2)
    assert airing.told("on_air")[0]["first_byte_at"] == airing.lesson.start
    assert airing.status()["pushes"][0]["failures"] == 0
    await airing.turn(10)
    (row,) = airing.status()["as_run"]
    assert (row["from"], row["position_s"], row["open"]) == (airing.lesson.start, 0, True)
    assert row["to"] == pytest.approx(airing.clock.wall, abs=2 * STEP_S)
    assert row["sent_s"] == pytest.approx(row["to"] - row["from"], abs=0.04)
    assert row["bytes"] == airing.context.sent_bytes == airing.status()["bytes"]
    assert [one["event"] for one in airing.events] == ["connected", "on_air"]


async def test_a_session_that_is_cut_is_made_anew_at_the_clocks_position(air: Air) -> None:
    airing = air()
    for number in range(1, 5):
        await airing.until(lambda: len(airing.told("on_air")) == number)  # noqa: B023 (it is awaited)
        air.receiver.session("c1", number, has=sounds).cut()
        await airing.seen(lambda: len(airing.told("broke_off")) == number)  # noqa: B023
        airing.clock.turn(STEP_S)
        airing.player.tick(Now.read())
        position_ms = airing.position_ms()
        await async_wait_until(
            lambda: [*filter(Session.packets, air.receiver.of("c1")[number:])],  # noqa: B023
            description="headers without another tick",
        )
        await airing.turn(1)
        first = sounds(air.receiver.session("c1", number + 1, has=sounds))[0]
        assert 0 <= flvs.number(first.body) * 40 - position_ms < 40
    assert all(one["was_on_air"] and one["retry_in_s"] == 0 for one in airing.told("broke_off"))
    assert [one["session"] for one in airing.status()["as_run"]] == [1, 2, 3, 4, 5]
    assert airing.context.reconnects == 4


async def test_a_class_on_air_goes_on_though_the_clock_is_set_to_before_its_start(air: Air) -> None:
    """And lacks nothing by what is told of it at its end, also if its worker dies meanwhile."""
    airing = air(starts_in_s=-5)
    await airing.turn(1)
    airing.clock.wall -= 3600
    assert not airing.player.is_early(Now.read())
    await airing.turn(2)
    session = air.receiver.session("c1", has=sounds)
    wait_until(lambda: flvs.number(sounds(session)[-1].body) * 40 > 7900, description="the sound of its eighth second")
    (row,) = airing.status()["as_run"]
    assert row["to"] - row["from"] == pytest.approx(3, abs=0.1)
    airing.hand_over()
    (row,) = airing.status()["as_run"]
    assert row["to"] - row["from"] == pytest.approx(3, abs=0.1)
    await airing.turn(1)
    wait_until(lambda: flvs.number(sounds(session)[-1].body) * 40 > 9400, description="the next worker's second")
    assert len(air.receiver.sessions) == 1


async def test_a_class_waits_in_its_connection_for_its_start_though_the_clock_is_set_back(air: Air) -> None:
    """Else its server is blamed that it does not answer, when nobody has asked it anything."""
    airing = air(starts_in_s=3)
    await airing.until(lambda: airing.told("connected"))
    airing.clock.wall -= 12
    await airing.until(lambda: airing.told("on_air"))
    assert (airing.told("broke_off"), len(air.receiver.sessions)) == ([], 1)


async def test_a_server_that_says_start_and_closes_is_not_stormed(air: Air) -> None:
    air.receiver.close_after_start = True
    airing = air()
    for number in range(1, 7):
        await airing.seen(lambda: len(airing.told("broke_off")) == number)  # noqa: B023
        await airing.turn(airing.told("broke_off")[-1]["retry_in_s"] + STEP_S)
    pauses = [one["retry_in_s"] for one in airing.told("broke_off")][:6]
    assert pauses[0] == 0
    assert all(FIRST_S * 2**at <= pause_s <= FIRST_S * 2**at * 1.5 for at, pause_s in enumerate(pauses[1:]))
    assert not any(one["was_on_air"] for one in airing.told("broke_off"))
    assert airing.player.state == "trying"
    air.receiver.close_after_start = False
    await airing.until(lambda: airing.told("on_air"))


async def test_of_two_urls_each_has_its_own_luck(air: Air) -> None:
    def broken(url: int) -> list[dict[str, Any]]:
        return [one for one in airing.told("broke_off") if one["url"] == url]

    with Receiver() as other:
        other.refuse_publish = "stream is taken"
        airing = air(air.receiver.url("c1"), other.url("c1"), "rtmp://127.0.0.1:1/live/c1")
        for number in range(1, 8):
            await airing.seen(lambda: broken(1)[number - 1 :])  # noqa: B023 (it is awaited)
            await airing.turn(broken(1)[-1]["retry_in_s"] + STEP_S)
        assert {one["why"] for one in broken(1)} == {"the server refuses: NetStream.Publish.BadName: stream is taken"}
        assert {one["why"] for one in broken(2)} == {"Connection refused"}
        assert broken(0) == []
        status = airing.status()
        assert status["state"] == "on_air"
        assert [push["state"] for push in status["pushes"]] == ["on_air", "trying", "trying"]
        other.refuse_publish = None
        await airing.until(lambda: len(airing.told("on_air")) == 2)
        assert len(air.receiver.sessions) == 1
        airing.end()


@pytest.mark.parametrize(
    ("until", "bound_s", "why"),
    [
        ("", 10, "the server did not answer within 10 s, at the step handshake"),
        ("connected", 10, "the server did not answer within 10 s, at the step publish"),
        ("on_air", 5, "the server took nothing for 5 s"),
    ],
)
async def test_a_receiver_that_does_nothing_is_given_up(air: Air, until: str, bound_s: int, why: str) -> None:
    air.receiver.small_buffer(8192)
    airing = air(starts_in_s=1)
    await airing.until(lambda: not until or airing.told(until))
    with air.frozen():
        # Something may have been taken last a look or two before it stood still.
        assert bound_s - 0.5 <= await airing.until(lambda: airing.told("broke_off")) < bound_s + 9
    assert airing.told("broke_off")[0]["why"] == why
    on_air = len(airing.told("on_air"))
    await airing.until(lambda: len(airing.told("on_air")) > on_air)


@pytest.mark.parametrize("is_slate", [False, True], ids=["the recording", "the slate"])
async def test_a_slow_receiver_is_skipped_to_the_clocks_position_in_the_same_session(air: Air, is_slate: bool) -> None:
    """The slate, too: else it is said each second that some of it was skipped, and nothing is."""
    air.receiver.small_buffer(8192)
    large = flvs.lesson(60, size=8000)
    if is_slate:
        airing = air(tags=None, length_s=600.0, slate=str(flvs.write(air.folder / "slate.flv", large)))
    else:
        airing = air(tags=large, duration_s=600.0)
    await airing.turn(2)
    with air.frozen():
        await airing.until(lambda: airing.told("behind"), within_s=10)
        assert 4 <= airing.told("behind")[0]["behind_s"] < 4.1, "it is told in whole milliseconds"
        position_ms = airing.position_ms()
    await airing.turn(2)
    (session,) = air.receiver.of("c1")
    wait_until(lambda: sounds(session)[-1].timestamp > position_ms + 1900, description="it catches up")
    stamps, (apart_ms, early_ms) = [one.timestamp for one in sounds(session)], (80, 80) if is_slate else (40, 0)
    assert stamps == sorted(set(stamps))
    (gap,) = [(before, after) for before, after in pairwise(stamps) if after - before > apart_ms]
    assert gap[0] < position_ms - 4000 < position_ms - early_ms <= gap[1]
    assert is_slate or stamps == [flvs.number(one.body) * 40 for one in sounds(session)]
    assert len(airing.told("behind")) == 1
    assert [row["open"] for row in airing.status()["as_run"]] == [False, True]


async def test_what_is_late_is_skipped_once_a_second_though_the_disk_hangs_where_it_is_to_go_on(air: Air) -> None:
    air.receiver.small_buffer(8192)
    airing = air(tags=flvs.lesson(60, size=8000), duration_s=600.0)
    await airing.turn(2)
    airing.pushes[0].feed._pool = Held(lambda work: work is demuxer.open_at)
    with air.frozen():
        await airing.until(lambda: airing.told("behind"), within_s=10)
        await airing.turn(0.5)
        assert len(airing.told("behind")) == 1


async def test_the_kernel_is_asked_once_a_second_how_a_session_is(air: Air, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, watch = list[float](), OurSession.watch

    def watched(session: OurSession, now: float) -> None:
        asked.append(now)
        watch(session, now)

    monkeypatch.setattr(OurSession, "watch", watched)
    airing = air()
    await airing.turn(5.5)
    assert len(asked) >= 4
    assert all(1 < after - before < 1.1 for before, after in pairwise(asked))


async def test_a_server_that_still_speaks_gets_the_last_of_a_class_and_the_goodbye(air: Air) -> None:
    """It asks for an answer while the kernel has some of the class: a connection closed with that unread is reset."""
    air.receiver.small_buffer(8192)
    tags = flvs.lesson(1.2)
    airing = air(tags=tags)
    await airing.until(lambda: airing.status()["sent_s"] > 0.5)
    session = air.receiver.session("c1")
    (ours,) = airing.sessions.values()
    with air.frozen():
        await airing.until(lambda: airing.told("ended"), within_s=3)
        assert (airing.sessions, len(session.packets()) < len(tags)) == ({}, True)
        session.connection.sendall(PING)
    air.receiver.session("c1", has=lambda one: one.ended)
    assert (session.ended, session.packets(), session.commands[-1]) == ("eof", tags, "deleteStream")
    await async_wait_until(lambda: ours.connection.fileno() < 0, description="the connection is closed")


async def test_a_recording_is_over_when_the_kernel_has_all_of_it(air: Air) -> None:
    air.receiver.small_buffer(8192)
    tags = [*flvs.lesson(0.9), (9, 900, flvs.key(25, 40 * BATCH_BYTES))]
    airing = air(tags=tags, starts_in_s=-0.95)
    await airing.until(lambda: airing.told("connected"), within_s=0.1)
    with air.frozen():
        await airing.turn(2)
        (ours,) = airing.sessions.values()
        assert ours.connection.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) == 2 * (air.path.stat().st_size // 60)
        assert airing.told("ended") == []
    await airing.until(lambda: airing.told("ended"), within_s=0.3)
    session = air.receiver.session("c1", has=lambda one: one.ended)
    assert (session.ended, session.packets()) == ("eof", tags)
    assert session.commands[-2:] == ["FCUnpublish", "deleteStream"]
    (ended,) = airing.told("ended")
    assert (ended["why"], ended["sessions"]) == ("its recording is over", 1)


async def test_without_a_lease_nothing_is_sent_until_it_is_held(air: Air) -> None:
    airing = air()
    airing.context.is_held = False
    await airing.turn(1)
    assert (airing.player.state, airing.events, air.receiver.sessions) == ("no_lease", [], [])
    airing.context.is_held = True
    await airing.until(lambda: airing.told("on_air"))
    airing.context.is_held = False
    await airing.seen(lambda: airing.told("fenced"))
    assert air.receiver.session("c1", has=lambda one: one.ended).ended != "eof"
    await airing.turn(1)
    assert (airing.player.state, len(airing.told("fenced")), len(air.receiver.sessions)) == ("no_lease", 1, 1)
    airing.context.is_held = True
    await airing.seen(lambda: True)
    assert airing.player.state == "trying", "it is no lease that it lacks if no server takes it now"
    await airing.until(lambda: len(airing.told("on_air")) == 2)
    assert airing.told("broke_off") == []


async def test_a_host_that_is_frozen_within_a_tick_sends_nothing_more_if_its_lease_is_over_when_it_thaws(
    air: Air,
) -> None:
    """Another streamer may have taken the class over meanwhile."""
    airing, lease = air(), {"is_over": False}
    airing.context.held = lambda: not lease["is_over"]
    await airing.until(lambda: airing.told("on_air"))
    (ours,) = airing.sessions.values()
    written = ours.written
    lease["is_over"] = True  # after the tick began
    airing.clock.turn(0.1)
    airing.player.tick(Now.read())
    assert (ours.written, ours.is_clear) == (written, False), "there was something to send"
    airing.context.is_held = airing.context.held()
    await airing.seen(lambda: airing.told("fenced"))
    assert air.receiver.session("c1", has=lambda one: one.ended).ended != "eof"


class Killed(BaseException):
    """The worker ends at this instruction."""


DEATHS: list[tuple[Any, str, int, float]] = [
    *((os, "pwrite", call, part) for call in (0, 1) for part in (0.0, 0.5, 1.0)),
    *((net, "send", 0, part) for part in (0.0, 0.5, 1.0)),
]
"""In which function, in which call of it in a batch, and after which part of the bytes."""

RECEIVING: list[tuple[Any, str, int, float]] = [
    (net, "receive", 0, 1.0),
    *((OurSession, "note", 0, part) for part in (0.0, 1.0)),
    (OurSession, "_receive", 0, 1.0),
]
"""Before or after which function, while the server's ping is taken: it is looked at, written down, and gone."""


async def test_the_next_worker_goes_on_at_the_byte_at_which_one_died(air: Air) -> None:
    """What the kernel has of its last batch is not sent again, and each ping has its one answer."""
    airing, deaths = air(starts_in_s=-20.5), [*DEATHS, *RECEIVING]
    await airing.seen(lambda: airing.status()["bytes"])
    for ping, death in enumerate(deaths, 100):
        await airing.turn(2)
        (ours,), (theirs,) = airing.sessions.values(), air.receiver.sessions
        (thing, name, call, part), receives = death, death in RECEIVING
        calls, whole = itertools.count(), getattr(thing, name)
        if receives:
            asyncio.get_running_loop().remove_reader(ours.connection)
        theirs.connection.sendall(b"\3\0\0\0\0\0\6\4\0\0\0\0\0\6" + ping.to_bytes(4, "big"))
        if receives:
            select.select([ours.connection], [], [])
        else:
            await async_wait_until(lambda: ours.publisher.owed, description="the ping")  # noqa: B023 (it is awaited)

        def dying(first: Any, *given: Any) -> Any:
            if next(calls) < call:  # noqa: B023
                return whole(first, *given)  # noqa: B023
            if not receives:  # noqa: B023
                given = given[0][: int(part * len(given[0]))], *given[1:]  # noqa: B023
            if not receives or part:  # noqa: B023
                whole(first, *given)  # noqa: B023
            raise Killed

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(thing, name, dying)
            with pytest.raises(Killed):
                ours.receive() if receives else await airing.turn(1)
        airing.hand_over()
    (ours,), session = airing.sessions.values(), air.receiver.session("c1", has=sounds)
    has_come = lambda: ours.publisher.owed or len(session.pong_numbers) == len(deaths)  # noqa: E731
    for _ in range(2):  # the one that died may have read only what had come before the ping
        await async_wait_until(has_come, description="the last ping, or its answer")
        await airing.turn(0.5)
    last = int(airing.position_ms() // 40)
    wait_until(lambda: flvs.number(sounds(session)[-1].body) == last, description="all that is due")
    assert {body for _, _, body in session.packets()[:2]} == {flvs.AVC_HEADER, flvs.AAC_HEADER}
    numbers = [flvs.number(one.body) for one in sounds(session)]
    assert numbers == list(range(513, 513 + len(numbers))), "from the clock's position on"
    assert [one.timestamp for one in sounds(session)] == [number * 40 - 20_500 for number in numbers]
    shown = [flvs.number(one.body) for one in pictures(session)]
    assert shown == list(range(525, 525 + len(shown))), "pictures begin with the next keyframe"
    assert session.pong_numbers == list(range(100, 100 + len(deaths)))
    sent_at = airing.clock.wall
    airing.hand_over()
    airing.end()
    (row,) = airing.told("ended")[0]["as_run"]
    assert (row["from"], row["to"], row["position_s"]) == (airing.lesson.start + 20.5, sent_at, 20.5)
    assert row["sent_s"] == round(numbers[-1] * 0.04 - 20.5, 3)
    assert row["bytes"] > sum(len(body) for _, _, body in session.packets())
    assert [one["event"] for one in airing.events] == ["connected", "on_air", "ended"]


@pytest.mark.parametrize("fault", ["it is behind", "it is ahead", "other notes", "its server has gone"])
async def test_a_session_that_cannot_be_gone_on_with_is_made_anew(air: Air, fault: str) -> None:
    """Its journal has no notes for the byte that was read last, or no batch for that which was sent last."""
    airing = air()
    await airing.turn(2)
    (ours,), (theirs,) = airing.sessions.values(), air.receiver.sessions
    assert ours.journal is not None
    if fault == "its server has gone":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(net, "send", Mock(side_effect=Killed))
            with pytest.raises(Killed):
                await airing.turn(1)
        theirs.cut()
        select.select([ours.connection], [], [])  # until the kernel knows
    elif fault == "other notes":
        for _ in range(2):
            ours.journal.note({})
    elif last := ours.journal.last():
        shift = 20_000 if fault == "it is ahead" else -20_000
        ours.journal.write(last[0]._replace(offset=last[0].offset + shift), last[1])
    with pytest.raises(Broken, match=r"the session's journal does not|Broken pipe|reset"):
        airing.hand_over()
    await airing.turn(2)
    assert (len(air.receiver.of("c1")), airing.told("broke_off")) == (2, [])


async def test_a_server_that_asks_for_a_login_gets_it_alone(air: Air, capfd: pytest.CaptureFixture[str]) -> None:
    """Each step is a new connection; all of them are one try, and one session."""
    air.receiver.login, air.receiver.closes_after_refusal = ("adobe", "teacher", "hunter2"), True
    right, wrong = (air.receiver.url("c1").replace("//", f"//teacher:hunter{number}@") for number in (2, 3))
    refusal = "the server does not take the user and password of the push URL"
    assert [await worker.connect_refusal(target(url), None) for url in (right, wrong)] == [None, refusal]
    airing = air(right, wrong)
    await airing.until(lambda: airing.told("on_air") and len(airing.told("broke_off")) >= 2)
    assert {(one["url"], one["why"]) for one in airing.told("broke_off")} == {(1, refusal)}
    assert [one["session"] for one in airing.told("broke_off")][:2] == [1, 2]
    assert [(one["url"], one["session"]) for one in airing.told("on_air")] == [(0, 1)]
    connects = [one.connect for one in air.receiver.sessions]
    assert connects[0]["tcUrl"] == f"rtmp://127.0.0.1:{air.receiver.port}/live"
    shown = f"{connects} {airing.status()} {airing.events} {capfd.readouterr()}"
    assert "hunter" not in shown
    assert "teacher" not in shown.replace("user=teacher", "user="), "but where the server asked for it"


async def test_a_class_that_is_changed_on_air_goes_on_in_its_session_until_its_new_end(air: Air) -> None:
    airing = air()
    await airing.turn(2)
    other = flvs.write(air.folder / "b.flv", flvs.lesson(60, first_number=100_000))
    airing.change(file=str(other))
    await airing.turn(2)
    airing.change(end=airing.lesson.start + 6)
    await airing.until(lambda: airing.told("ended"))
    (ended,), (session,) = airing.told("ended"), air.receiver.sessions
    assert (ended["why"], ended["at"]) == ("its end has come", airing.lesson.start + 6)
    wait_until(lambda: session.ended, description="the session's end")
    found = pictures(session)
    assert [one.timestamp for one in found] == list(range(0, 6000, 40))
    assert [flvs.number(one.body) for one in found] == [*range(75), *range(100_075, 100_150)]


# While a recording is missing or broken, the slate is sent in the same session; then the recording, at the clock.


SLATE = 0x51A7E000
"""Numbers of the slate's pictures begin here."""


def slate(folder: Path) -> Path:
    head = flvs.AVC_HEADER + b"slate"
    tags = [
        (kind, at, head if body == flvs.AVC_HEADER else body) for kind, at, body in flvs.lesson(1, first_number=SLATE)
    ]
    return flvs.write(folder / "slate.flv", tags)


def pictures(session: Session) -> list[Arrived]:
    return [one for one in session.media if one.kind == 9 and one.body[1] == 1]


def of_recording(session: Session) -> list[Arrived]:
    return [one for one in pictures(session) if flvs.number(one.body) < SLATE]


async def test_a_missing_recording_is_the_slate_at_its_second_and_the_recording_when_it_is_there(air: Air) -> None:
    airing = air(tags=None, starts_in_s=3, length_s=12, slate=str(slate(air.folder)))
    await airing.turn(5.5)
    assert [(one["why"], one["wants_file"]) for one in airing.told("slate")] == [("the recording is missing", True)]
    assert (airing.status()["slate"], airing.status()["wants_file"]) == (True, True)
    flvs.write(air.path, flvs.lesson(60))
    await airing.until(lambda: airing.told("ended"))
    session = air.receiver.session("c1", has=lambda one: one.ended)
    stamps = [one.timestamp for one in pictures(session)]
    assert stamps[0] == 0
    assert max(after - before for before, after in pairwise(stamps)) < 80, "no picture is left out"
    assert [one.timestamp for one in of_recording(session)] == list(range(3000, 12_000, 40))
    headers = [one.body for one in session.media if one.kind == 9 and one.body[1] == 0]
    assert headers == [flvs.AVC_HEADER + b"slate", flvs.AVC_HEADER]
    (ended,) = airing.told("ended")
    assert [row["source"] for row in ended["as_run"]] == ["slate", "recording"]
    assert [ended[name] for name in ("slate_s", "sent_s", "gap_s", "sessions")] == pytest.approx([3, 9, 0, 1], abs=0.1)


async def test_a_slate_that_cannot_be_read_is_told_as_none(air: Air) -> None:
    """Else people hear that it is sent, and nothing is."""
    airing = air(tags=None, slate=str(air.folder / "nowhere.flv"))
    await airing.turn(2)
    told = [(one["why"], one["slate"] is not None) for one in airing.told("slate")]
    assert told == [("the recording is missing", True), ("the slate is missing", False)]
    assert (airing.status()["lost"], airing.status()["slate"]) == (True, False)


@pytest.mark.parametrize(
    ("hangs", "why"),
    [
        (False, "the recording is missing"),
        (True, "the recording is not opened in time: the disk is slow, or hangs"),
    ],
    ids=["missing and no slate", "a disk that hangs on both"],
)
async def test_as_long_as_nothing_can_be_sent_no_server_is_blamed_that_it_does_not_answer(
    air: Air, hangs: bool, why: str
) -> None:
    """The connection that was made before the start is let go, and waits for no disk: its server might end it."""
    disk = Held(lambda _: hangs)
    airing = air(tags=None, starts_in_s=3, slate=str(slate(air.folder)) if hangs else None)
    airing.context.pool = airing.context.other_pool = disk
    await airing.turn(15)
    (session,) = air.receiver.sessions
    wait_until(lambda: session.ended == "eof", description="the end of the connection")
    assert (air.receiver.of("c1"), airing.told("broke_off")) == ([], [])
    assert (airing.status()["state"], airing.status()["why"]) == ("trying", why)
    flvs.write(air.path, flvs.lesson(60))
    disk.holds = lambda _: False
    disk.go()
    await airing.turn(2)
    first = of_recording(air.receiver.session("c1", has=of_recording))[0]
    assert flvs.number(first.body) in (325, 350), "it begins at the next keyframe where the clock is"
    await airing.until(lambda: airing.told("on_air"))


@pytest.mark.parametrize("slate_hangs", [None, "at once", "later"])
async def test_a_class_on_air_with_nothing_to_send_is_called_on_air_only_once_it_is_sent_again(
    air: Air, slate_hangs: str | None
) -> None:
    """Else people hear that its receiver takes nothing, though that takes what it gets. Its session goes on."""
    disk = Held(lambda _: slate_hangs == "at once")
    airing = air(tags=flvs.lesson(5), duration_s=60.0, slate=str(slate(air.folder)) if slate_hangs else None)
    airing.context.other_pool = disk
    await airing.until(lambda: airing.told("on_air"))
    await airing.until(lambda: airing.told("slate"))
    if slate_hangs == "later":
        await airing.turn(2)
        assert airing.status()["state"] == "on_air"
    disk.holds = lambda _: True
    await airing.turn(3)
    status = airing.status()
    assert (status["state"], status["position_s"]) == ("trying", None)
    assert status["why"].startswith("the recording ends after")
    assert [push["state"] for push in status["pushes"]] == ["trying"]
    flvs.write(air.path, flvs.lesson(60))
    await airing.until(lambda: airing.told("back"))
    await airing.turn(0.1)
    assert (airing.status()["state"], len(air.receiver.sessions), airing.told("broke_off")) == ("on_air", 1, [])
    disk.go()


async def test_slate_and_recording_go_on_in_their_rows_when_their_worker_is_killed(air: Air) -> None:
    airing = air(tags=None, slate=str(slate(air.folder)))
    await airing.turn(2.5)
    airing.hand_over()
    await airing.turn(2)
    flvs.write(air.path, flvs.lesson(60))
    await airing.turn(4)
    airing.hand_over()
    await airing.turn(2)
    session = air.receiver.session("c1", has=pictures)
    wait_until(lambda: pictures(session)[-1].timestamp > airing.position_ms() - 80, description="all of it")
    stamps = [one.timestamp for one in pictures(session)]
    assert max(after - before for before, after in pairwise(stamps)) < 80, "no picture is left out"
    assert {flvs.number(one.body) * 40 - one.timestamp for one in of_recording(session)} == {0}
    slated, sent = airing.status()["as_run"]
    assert (slated["source"], sent["source"]) == ("slate", "recording")
    assert slated["sent_s"] + sent["sent_s"] == pytest.approx(11.5, abs=0.2)
