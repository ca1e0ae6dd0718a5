"""The worker and its control socket: a bad line harms nothing, the timetable outlives everything."""

import asyncio
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import Mock

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from lectern import metrics
from lectern.cli.playout import app
from lectern.playout import as_run, control_socket, kernel, net, schedule, timetable, worker
from lectern.playout.as_run import AiredClass
from lectern.playout.kernel import Now
from lectern.playout.schedule import CANCELLED
from lectern.playout.timetable import BadRequest, ScheduledClass, lesson
from tests.playout import flvs
from tests.playout.receiver import Receiver
from tests.playout.stage import Inside, loopback
from tests.waiting import async_wait_until, cancelled, wait_until

LESSON: dict[str, Any] = {
    "class_id": "c1",
    "file": "/a.flv",
    "push_urls": ["rtmp://h/live/c1"],
    "start": 1000.0,
    "end": 1060.0,
}


def test_a_line_that_cannot_be_read_is_answered_and_harms_nothing(tmp_path: Path) -> None:
    with Inside(tmp_path / "p") as playout, socket.socket(socket.AF_UNIX) as other:
        other.settimeout(10)
        other.connect(str(playout.socket))
        for line in (b"\n", b"no json\n", b"[]\n", b'{"do": "dance"}\n', b'{"do": []}\n', b"[" * 9000 + b"\n"):
            other.sendall(line)
            answer = json.loads(other.recv(65_536))
            assert not answer["ok"], line
            assert answer["why"], line
            other.sendall(b'{"do": "hello", "id": 7}\n')
            answer = json.loads(other.recv(65_536))
            assert (answer["ok"], answer["id"], answer["protocol"]) == (True, 7, 2), line


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (b"x" * 6_000_000, r"Broken pipe|reset"),
        (200 * (b'{"do": "status", "id": "' + b"x" * 60_000 + b'"}\n'), r"Broken pipe|reset|timed out"),
    ],
    ids=["a line without end", "it reads no answers"],
)
def test_who_sends_without_end_is_cut_off_and_nobody_else(tmp_path: Path, sent: bytes, words: str) -> None:
    with Inside(tmp_path / "p") as playout, socket.socket(socket.AF_UNIX) as other:
        other.settimeout(10)
        other.connect(str(playout.socket))
        with pytest.raises(OSError, match=words):
            other.sendall(sent)
        assert playout.hello()["ok"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_id": ""}, "class_id"),
        ({"class_id": 1025 * "x"}, "class_id"),
        ({"class_id": [7]}, "class_id"),
        ({"file": "a.flv"}, "file: an absolute path"),
        ({"file": "/a\0"}, "file: an absolute path"),
        ({"push_urls": []}, "push_urls: 1 to 4"),
        ({"push_urls": ["rtmp://h/a/b"] * 2}, "push_urls: 1 to 4 different"),
        ({"push_urls": [f"rtmp://h/a/{number}" for number in range(5)]}, "push_urls: 1 to 4"),
        ({"push_urls": "rtmp"}, "push_urls: 1 to 4"),
        ({"push_urls": ["http://h/a"]}, r"push_urls\[0\]: the push URL begins neither"),
        ({"push_urls": ["rtmp://me:secret@/a/b"]}, r"push_urls\[0\]: the push URL has no host"),
        ({"start": "soon"}, "start: a number"),
        ({"start": True}, "start: a number"),
        ({"start": -1}, "start: a number"),
        ({"end": 1e12}, "end: a number"),
        ({"end": 1000.0}, "end: it must be after start"),
        ({"end": float("nan")}, "end: a number"),
        ({"slate": 7}, "slate"),
        ({"networks": "public"}, "networks: a list"),
        ({"networks": ["10.0.0.0/99"]}, "networks: a list"),
        ({"networks": ["public", 7]}, "networks: a list"),
    ],
)
def test_a_class_that_cannot_be_aired_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words) as caught:
        lesson({**LESSON, **change})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "change",
    [
        {"class_id": 1024 * "x"},
        {"push_urls": [f"rtmp://h/a/{number}" for number in range(4)]},
        {"start": 0, "end": 1},
        {"duration_s": 0, "slate": "/s", "networks": ["public", "10.0.0.0/8"]},
        {"duration_s": None, "slate": None, "networks": None, "of_a_later_release": 7},
    ],
)
def test_a_class_is_taken_as_it_is_asked_for(change: dict[str, Any]) -> None:
    wanted = {**LESSON, **change}
    wanted |= {name: tuple(value) for name, value in wanted.items() if isinstance(value, list)}
    wanted.pop("of_a_later_release", None)
    assert lesson({**LESSON, **change}) == ScheduledClass(**wanted)


@pytest.mark.parametrize(("duration_s", "needed_ms"), [(None, None), (10.0, 10_000), (90.0, 60_000)])
def test_a_recording_must_last_as_long_as_it_says_and_no_longer_than_its_class(
    duration_s: float | None, needed_ms: float | None
) -> None:
    assert lesson({**LESSON, "duration_s": duration_s}).needed_ms == needed_ms


@given(
    st.dictionaries(
        st.sampled_from([*LESSON, "slate", "duration_s", "networks"]),
        st.none() | st.integers() | st.text("a/ \0", max_size=5),
    )
)
def test_any_fields_are_a_class_or_a_bad_request(fields: dict[str, Any]) -> None:
    try:
        found = lesson({**LESSON, **fields})
    except BadRequest:
        return
    assert found.end > found.start


def test_what_was_aired_is_read_as_it_was_written_but_for_odd_entries(tmp_path: Path) -> None:
    path = tmp_path / as_run.AIRED
    row = {"url": 0, "session": 1, "source": "recording", "from": 1.0, "to": 2.0, "position_s": 0.0, "sent_s": 1.0}
    row |= {"bytes": 9, "open": False}
    on_air, over = (
        AiredClass(lesson(LESSON), [row], None, 3.0),
        AiredClass(lesson({**LESSON, "class_id": "c2"}), [row], "over"),
    )
    odd = AiredClass(lesson({**LESSON, "class_id": "c3"}), [row, cast("Any", 7), {"from": 1.0}, {**row, "to": None}])
    lines = [json.dumps({"on_air": 4}), on_air.line(), odd.line(), "odd", json.dumps({"lesson": {}}), over.line()]
    path.write_text("\n".join(lines))
    found, others = as_run.read_aired(path)
    assert found == {"c1": on_air, "c3": AiredClass(odd.lesson, [row])}
    assert [as_run.entry(one) for one in others] == [over]
    url = f"rtmp://h:{'9' * 5000}/live/x"
    for fields in ({"class_id": "odd"}, ["odd"], "odd", None, {**LESSON, "push_urls": [url]}):
        assert as_run.entry(json.dumps({"lesson": fields, "as_run": [], "ended": None}).encode()) is None
    for text in (None, "{", "{}", "[]", "", "[" * 100_000):
        path.unlink() if text is None else path.write_text(text)
        with pytest.raises(BadRequest, match="cannot be read"):
            as_run.read_aired(path)


def test_a_timetable_that_cannot_be_read_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "TAKE_S", 18.0)  # on a busy machine it takes a while to read 64 MB
    too_few = '{"version": "v", "count": 2}\n{}'
    with Inside(tmp_path / "p") as playout:
        playout.air("c1", tmp_path / "a.flv", "rtmp://127.0.0.1/live/c1", starts_in_s=600)
        version = playout.hello()["timetable"]["version"]
        too_long = f'{" " * (timetable.MAX_BYTES - 35)}{{"version": "v", "count": 1}}\n[1234]\n'
        for text in ("", "{", "{}", "[]", too_few, "[" * 100_000, too_long):
            (tmp_path / "p" / timetable.NAME).write_text(text)
            answer = playout.ask("timetable", version="another")
            assert (answer["ok"], "cannot be read" in answer["why"]) == (False, True), text[:40]
            assert playout.hello()["timetable"]["version"] == version, text[:40]
            assert playout.status("c1")["state"] == "waiting"


@pytest.mark.parametrize(
    ("name", "is_in_the_way"), [(timetable.NAME, False), (as_run.AIRED, False), (timetable.NAME, True)]
)
def test_a_file_that_cannot_be_read_is_set_aside_and_the_playout_starts(
    tmp_path: Path, name: str, is_in_the_way: bool
) -> None:
    """Also where it cannot be, as on a disk that is read-only after an error; here a folder is in the way."""
    folder, aside = tmp_path / "p", tmp_path / f"p/{name}.unreadable"
    (aside / "full" if is_in_the_way else folder).mkdir(parents=True)
    (folder / name).write_text("{")
    with Inside(folder) as playout:
        assert playout.ask("status")["classes"] == []
    assert (folder / name if is_in_the_way else aside).read_text() == "{"


def test_a_timetable_at_which_the_disk_lets_nobody_look_keeps_no_worker_from_its_start(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Each would die of it at once; so the resident hands over one that lies elsewhere. Of none yet nothing is said."""
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / timetable.NAME).symlink_to("x" * 300)  # as at a fault of the disk, all that asks for it is an error
    with Inside(folder) as playout:
        assert (playout.hello()["timetable"]["version"], playout.ask("status")["classes"]) == (None, [])
    said = capfd.readouterr().err
    assert (f"{timetable.NAME}: it cannot be read" in said, as_run.AIRED in said) == (True, False)


def test_whatever_a_worker_before_left_the_next_one_answers_and_says_what_it_does_not_know(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with Inside(tmp_path / "p") as playout:
        assert playout.ask("status")["classes"] == []
    said = "not all that the worker before left is known"
    assert said not in capfd.readouterr().err
    monkeypatch.setattr(schedule, "entry", Mock(side_effect=RuntimeError("odd")))
    (tmp_path / "p" / as_run.AIRED).write_text('{"on_air": 0}\n{"it": "was over"}\n')
    with Inside(tmp_path / "p") as playout:
        assert playout.ask("status")["classes"] == []
    assert f"{said}: " in capfd.readouterr().err


def test_what_was_aired_that_cannot_be_written_down_is_told(tmp_path: Path) -> None:
    """The class goes on; only the next worker would not know what was sent."""
    with loopback(tmp_path, playout=Inside) as (playout, receiver, path):
        (tmp_path / "p" / as_run.AIRED).mkdir()
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        wait_until(lambda: receiver.of("c1"), description="on air")
        wait_until(lambda: not playout.hand_over()["durable"], description="it is told")
        assert playout.hand_over()["why"].startswith("what was aired cannot be written: ")


async def test_the_client_asks_hears_events_and_notices_the_workers_end(tmp_path: Path) -> None:
    with loopback(tmp_path, playout=Inside) as (playout, receiver, path):
        async with await control_socket.Client.connect(playout.socket) as ours:
            await ours.ask("hello", events=True)
            await asyncio.to_thread(playout.air, "c1", path, receiver.url("c1"), starts_in_s=0.0)
            with pytest.raises(control_socket.RequestRefused, match="url: "):
                await ours.ask("try", url="http://127.0.0.1/x")
            seen = []
            async for event in ours.events():
                seen.append(event["event"])
                if event["event"] == "on_air":
                    playout.pipe.close()  # as at the end of its supervisor
            assert seen == ["connected", "on_air"]
            with pytest.raises(control_socket.PlayoutUnreachable):
                await ours.ask("status")
    with pytest.raises(
        control_socket.PlayoutUnreachable, match=r"no playout answers there: (Connection refused|No such file)"
    ):
        await control_socket.Client.connect(playout.socket)


def doing(*, sets: asyncio.Event | None = None, waits: asyncio.Event | None = None, **answer: Any) -> control_socket.Do:
    """What gives an *answer*, after it has set one event, and has waited for the other."""

    async def do(_: dict[str, Any]) -> dict[str, Any]:
        if sets is not None:
            sets.set()
        if waits is not None:
            await waits.wait()
        return answer

    return do


async def test_requests_of_one_client_are_at_work_together_and_answered_in_their_order(tmp_path: Path) -> None:
    """So one write of the timetable serves many classes; whoever asks after one that was cancelled gets their own."""
    begun, go = asyncio.Event(), asyncio.Event()
    does = {"slow": doing(sets=begun, waits=go, of="slow"), "first": doing(waits=go, of="first")}
    async with served(tmp_path, {**does, "second": doing(sets=go, of="second")}) as (_, ours):
        asked = asyncio.create_task(ours.ask("slow"))
        await begun.wait()
        await cancelled(asked)  # as by a work that is drained
        answered = asyncio.Queue[str]()

        async def ask(do: str) -> None:
            answered.put_nowait((await ours.ask(do))["of"])

        await asyncio.gather(ask("first"), ask("second"))
        assert [answered.get_nowait(), answered.get_nowait()] == ["first", "second"]


async def test_a_client_that_reads_is_not_cut_off_for_an_answer_that_is_long(tmp_path: Path) -> None:
    """The status of a day of classes has megabytes; an event may follow before any of it could be read."""

    def tell_once_it_waits() -> None:
        if any(one.transport.get_write_buffer_size() > control_socket.MAX_WAITING_BYTES for one in desk._hearing):
            desk.tell({"event": "connected"})
        else:
            asyncio.get_running_loop().call_soon(tell_once_it_waits)

    async def status(_: dict[str, Any]) -> dict[str, Any]:
        tell_once_it_waits()
        return {"classes": "x" * 5 * control_socket.MAX_WAITING_BYTES}

    async with served(tmp_path, {"status": status, "hello": doing()}) as (desk, ours):
        await ours.ask("hello", events=True)
        for _ in range(2):
            assert len((await ours.ask("status"))["classes"]) == 5 * control_socket.MAX_WAITING_BYTES
            assert (await anext(ours.events()))["event"] == "connected"


async def test_events_are_told_to_whoever_asked_and_end_with_a_client_that_reads_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_socket, "MAX_EVENTS", 2)
    monkeypatch.setattr(control_socket, "MAX_CLIENTS", 2)
    async with served(tmp_path, {"hello": doing()}) as (desk, ours):
        await ours.ask("hello")
        desk.tell({"event": "of nobody"})
        async with await control_socket.Client.connect(tmp_path / "s") as other:
            await other.ask("hello")
            with pytest.raises(control_socket.PlayoutUnreachable):
                await control_socket.asked(tmp_path / "s", "hello")
        await ours.ask("hello", events=True)
        for name in ("first", "second"):
            desk.tell({"event": name})
        await ours.ask("hello")
        desk.tell({"event": "one too many"})
        await asyncio.wait({ours._reading})
        with pytest.raises(control_socket.PlayoutUnreachable):
            await ours.ask("hello")
        assert [one["event"] async for one in ours.events()] == ["second"]


@asynccontextmanager
async def served(
    folder: Path, does: dict[str, control_socket.Do]
) -> AsyncIterator[tuple[control_socket.Control, control_socket.Client]]:
    """A control socket *folder*/s that does what a test needs, and a client of it, for ten seconds."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s"))
        listener.listen()
        desk = control_socket.Control(listener, does)
        await desk.start()
        async with await control_socket.Client.connect(folder / "s") as ours, asyncio.timeout(10):
            yield desk, ours


def test_a_push_url_is_tried_up_to_connect_and_nothing_is_published(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody's stream is touched, not even by name; what is wrong comes in words, and what is mute costs nothing."""
    waits, until_ready = list[bool](), net.until_ready

    async def counted(connection: socket.socket, *, writable: bool = False) -> None:
        waits.append(writable)
        await until_ready(connection, writable=writable)

    def opened() -> set[Path]:
        found = set()
        for one in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):  # another thread has closed it
                found.add(one.readlink())
        return found

    def tried(url: str) -> str | None:
        return cast("str | None", playout.ask("try", url=url)["refused"])

    monkeypatch.setattr(net, "until_ready", counted)
    with Inside(tmp_path / "p") as playout, Receiver() as receiver, socket.create_server(("127.0.0.1", 0)) as mute:
        before = opened()
        assert tried(receiver.url("x")) is None
        assert [(one.published, one.commands) for one in receiver.sessions] == [(None, ["connect"])]
        assert 0 < len(waits) < 50
        waits.clear()
        monkeypatch.setattr(worker, "TRY_S", 0.5)
        silent = f"rtmp://127.0.0.1:{mute.getsockname()[1]}/live/x"
        assert "does not answer" in str(tried(silent))
        assert len(waits) < 5
        mute.close()
        monkeypatch.setattr(worker, "TRY_S", 60.0)
        assert tried(silent) == "Connection refused"
        assert not playout.ask("try", url="http://127.0.0.1/x")["ok"]
        wait_until(lambda: opened() <= before, description="all is closed")


def test_only_addresses_of_the_networks_of_a_class_are_connected_to(tmp_path: Path) -> None:
    """A name may lead elsewhere than it did when the class was taken: what is asked is what is checked."""
    with loopback(tmp_path, playout=Inside) as (playout, receiver, path):
        playout.air("c1", path, receiver.url("c1"), networks=["public", "10.0.0.0/8"])
        wait_until(lambda: playout.told("broke_off"), description="it is not connected to")
        assert (
            playout.told("broke_off")[0]["why"]
            == "127.0.0.1: 127.0.0.1 is no allowed push host; see ALLOWED_PUSH_HOSTS"
        )
        tried = playout.ask("try", url=receiver.url("c1"), networks=["public"])["refused"]
        assert "is no allowed push host" in tried
        assert receiver.sessions == []
        playout.air("c2", path, receiver.url("c2"), networks=["127.0.0.0/8"])
        wait_until(lambda: receiver.of("c2"), description="on air")
        assert not playout.ask("try", url=receiver.url("c1"), networks=["everywhere"])["ok"]


async def test_a_request_at_which_something_unforeseen_happens_is_answered() -> None:
    """Its connection goes on: the lease is passed on over it."""

    async def odd(_: dict[str, Any]) -> dict[str, Any]:
        raise AttributeError("odd")

    with socket.socket(socket.AF_UNIX) as listener:
        answer = await control_socket.Control(listener, {"timetable": odd})._answer(b'{"do": "timetable", "id": 7}')
    assert answer == {"id": 7, "ok": False, "why": "a fault of the playout: AttributeError: odd"}


async def test_a_client_that_has_gone_is_written_to_no_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its answers come one after another; asyncio logs a line without time or sense for each write."""
    begun = asyncio.Event()

    async def slow(_: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        await asyncio.sleep(0.05)
        return {}

    async with served(tmp_path, {"air": slow}) as (desk, _):
        _, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(b'{"do": "air"}\n' * 30)
        await writer.drain()
        await begun.wait()
        writer.transport.abort()
        await async_wait_until(lambda: len(desk._clients) == 1, description="only the other client is left")
    assert "socket.send() raised exception" not in caplog.text


def test_sessions_of_a_worker_that_died_go_on_unless_nobody_wants_them_or_the_lease_is_over(tmp_path: Path) -> None:
    tags = flvs.lesson(60)
    with loopback(tmp_path, tags, playout=Inside) as (playout, receiver, path):
        for name in ("kept", "gone"):
            playout.air(name, path, receiver.url(name))
        sessions = [receiver.session(name) for name in ("kept", "gone")]
        aired = playout.folder / as_run.AIRED
        wait_until(
            lambda: aired.exists() and aired.read_text().count('"sent_s"') == 2, description="it is written down"
        )
        playout.die()
        del playout.timetable["gone"]
        control_socket.write_timetable(playout.folder / timetable.NAME, [json.dumps(playout.timetable["kept"])])
        playout.go("died")
        taken_over = playout.ask("status")["worker"]["taken_over"]
        assert (taken_over["why"], taken_over["sessions"], taken_over["kept"]) == ("died", 2, 1)
        assert 0 < taken_over["gap_s"] < 60
        assert 0 <= taken_over["took_s"] < 60
        wait_until(lambda: sessions[1].ended, description="the end of a session without a class")
        assert (playout.status("gone")["why"], len(playout.status("gone")["as_run"])) == (CANCELLED, 1)
        assert [one["class_id"] for one in playout.ask("status", active=True)["classes"]] == ["kept"]
        assert (playout.heard(), list(playout.kept)) == (
            ["loaded", "over"],
            [key for key in playout.kept if "kept" in key],
        )
        count = len(sessions[0].packets())
        wait_until(lambda: len(sessions[0].packets()) > count + 20, description="more of the other one")
        assert sessions[0].packets() == tags[: len(sessions[0].packets())]
        playout.lease(0)
        wait_until(lambda: playout.told("fenced"), description="the lease's end")
        assert len(playout.told("lease_over")) == 1
        playout.lease(60)
        receiver.session("kept", 2)
        playout.die()
        playout.lease(0)
        playout.go("died")
        assert playout.ask("status")["worker"]["taken_over"]["kept"] == 0
        wait_until(lambda: receiver.of("kept")[1].ended, description="the end of a session without a lease")


def test_a_cancelled_class_ends_politely_and_the_next_workers_know_it_until_it_is_booked_anew(tmp_path: Path) -> None:
    """Who follows the playout may die before it hears its end, and asks another worker."""
    with loopback(tmp_path, playout=Inside) as (playout, receiver, path):
        playout.put_on_air("c1", path, receiver.url("c1"))
        playout.cancel("c1")
        assert receiver.session("c1", has=lambda one: one.ended).ended == "eof"
        (told,) = playout.told("ended")
        assert (told["why"], told["file"]) == (CANCELLED, str(path))
        aired = playout.folder / as_run.AIRED
        for _ in range(2):
            wait_until(lambda: aired.exists() and told["why"] in aired.read_text(), description="it is saved")
            playout.kill_worker()
            wait_until(lambda: playout.ask("status")["classes"], description="it is known")
            known = playout.status("c1")
            assert (known["state"], known["why"], known["as_run"]) == ("ended", told["why"], told["as_run"])
        playout.put_on_air("c1", path, receiver.url("c1"))
        wait_until(lambda: playout.status("c1")["state"] == "on_air", description="it is on air again")


async def test_an_upgrade_is_asked_for_once_and_its_failure_is_the_answer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Inside(tmp_path / "p") as playout:
        playout.pipe.say("upgrade failed", why="of nobody")
        playout.pipe.say("what a later supervisor says")
        async with await control_socket.Client.connect(playout.socket) as ours:
            for why in ("odd", "odder"):
                asked = asyncio.create_task(ours.ask("upgrade"))
                await async_wait_until(lambda: "upgrade" in playout.heard(), description="the supervisor is asked")
                with pytest.raises(control_socket.RequestRefused, match="under way"):
                    await control_socket.asked(playout.socket, "upgrade")
                for said in (why, "late"):
                    playout.pipe.say("upgrade failed", why=said)
                with pytest.raises(control_socket.RequestRefused, match=f"^{why}$"):
                    await asked
    assert [one.getMessage() for one in caplog.records if one.levelname == "ERROR"] == []


def test_where_the_kernel_cannot_hand_over_a_class_gets_a_new_session(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel, "HAND_OVER", False)
    with loopback(tmp_path, playout=Inside) as (playout, receiver, path):
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        receiver.session("c1")
        assert playout.kill_worker()["sessions"] == 0
        receiver.session("c1", 2)


def test_a_timetable_is_read_where_it_is_said_and_only_if_it_is_not_in_force(tmp_path: Path) -> None:
    with Inside(tmp_path / "p") as playout:
        version = control_socket.write_timetable(
            tmp_path / "elsewhere", [json.dumps({**LESSON, "start": 1e10, "end": 2e10})]
        )
        answer = playout.ask("timetable", version=version, path=str(tmp_path / "elsewhere"))
        assert (answer["ok"], answer["version"], answer["durable"]) == (True, version, True)
        assert playout.status("c1")["start"] == 1e10
        assert playout.ask("timetable", version=version)["ok"], "there is no file where it lies else"
        assert not playout.ask("timetable", version="another")["ok"]


def test_a_class_has_its_slate_and_is_taken_off_the_air_though_all_threads_wait_for_a_disk_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is moved to another streamer for that very reason, which may air it only when this one does not any more.

    Of two hundred classes each may hold up two: the read that hangs, and the next look for the recording.
    """
    monkeypatch.setattr(worker, "THREADS", 1)
    hangs = tmp_path / "hangs"
    os.mkfifo(hangs)
    with loopback(tmp_path, playout=Inside) as (playout, receiver, path):
        try:
            playout.put_on_air("c1", hangs, receiver.url("c1"), slate=str(path))
            playout.cancel("c1")
            assert playout.told("ended", "c1")[0]["why"] == CANCELLED
        finally:
            writer = os.open(hangs, os.O_RDWR)  # the disk answers
    os.close(writer)


def test_a_class_is_aired_though_no_thread_can_be_started_for_its_recording(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where very many classes begin in one second. It waits for a thread that there is, here the only one."""
    start, refused = threading.Thread.start, list[str]()

    def no_more(thread: threading.Thread) -> None:
        if thread.name.startswith("recording") and thread.name != "recording_0":
            refused.append(thread.name)
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", no_more)
    hangs = tmp_path / "hangs"
    os.mkfifo(hangs)
    with loopback(tmp_path, playout=Inside) as (playout, receiver, path):
        try:
            playout.air("c1", hangs, receiver.url("c1"), starts_in_s=0.2)
            wait_until(lambda: playout.status("c1")["state"] != "waiting", description="the thread is taken")
            playout.air("c2", path, receiver.url("c2"), starts_in_s=0.2)
            wait_until(lambda: refused, description="another one is wanted")
        finally:
            writer = os.open(hangs, os.O_RDWR)  # the disk answers
        receiver.session("c2")
    os.close(writer)


@pytest.mark.parametrize("is_tick", [True, False], ids=["a tick before it", "something else in its loop"])
def test_a_worker_ticks_fifty_times_a_second_and_tells_how_late_it_was_at_worst(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_tick: bool
) -> None:
    """Of this minute and the one before, whatever took so long."""
    ticks, kept, tick = list[float](), list[tuple[int, set[int]]](), worker.Worker.tick
    takes_s = list[float]()

    def counted(self: worker.Worker, now: Now) -> None:
        minute = int(now.mono / 60)
        kept.append((minute, set(self.lateness)))
        self.lateness = {minute - 1: 0.001, minute - 2: 0.001} | self.lateness
        ticks.append(now.mono)
        tick(self, now)
        if takes_s:
            time.sleep(takes_s.pop())

    monkeypatch.setattr(worker.Worker, "tick", counted)
    with Inside(tmp_path / "p") as playout:
        wait_until(lambda: ticks, description="a tick")
        if is_tick:
            takes_s.append(0.3)
        else:
            playout._loop.call_soon_threadsafe(time.sleep, 0.3)
        wait_until(lambda count: len(ticks) > count + 100, len(ticks), description="ticks")
        assert 0.2 < playout.ask("status")["worker"]["lateness_s"] < 60
    assert len(ticks) * worker.TICK_S < ticks[-1] - ticks[0] + 0.5
    for (before, _), (minute, minutes) in itertools.pairwise(kept):
        assert before != minute or minutes == {minute - 1, minute}


def test_a_release_is_named_by_the_package_beside_the_playout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "LIBRARY", tmp_path)
    assert worker.release_name() == "development"
    (tmp_path / "lectern-2.7.0.dist-info").mkdir()
    assert worker.release_name() == "2.7.0"
    with Inside(tmp_path / "p") as playout:
        (tmp_path / "lectern-2.7.0.dist-info").rename(tmp_path / "lectern-2.8.0.dist-info")
        assert playout.hello()["release"] == "2.7.0", "another one is installed, and this worker goes on"


# `lectern playout`, as a person types it, and its metrics.


def lectern(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).with_name("lectern"))]
    return subprocess.run([*argv, "playout", *arguments], capture_output=True, text=True, timeout=100, check=False)


@pytest.mark.live
def test_status_and_upgrade_speak_to_people_and_to_programs(tmp_path: Path) -> None:
    with loopback(tmp_path) as (playout, receiver, path):
        playout.put_on_air("c1", path, receiver.url("c1"))
        place = ("--dir", str(playout.folder), "--socket", str(playout.socket))
        shown = lectern(*place, "status")
        assert shown.returncode == 0
        assert "On air: 1 of 1 class; 0 reconnects" in shown.stdout
        assert "  c1  on air at " in shown.stdout
        upgraded = lectern(*place, "upgrade")
        assert upgraded.returncode == 0, upgraded.stderr
        assert re.search(r"is on air: 1 session went on of 1; the longest gap was \d+\.\d+ s", upgraded.stdout)
        found = json.loads(lectern(*place, "status", "--json").stdout)
        assert found["worker"]["taken_over"]["why"] == "upgrade"
        assert found["classes"][0]["class_id"] == "c1"
        assert len(receiver.sessions) == 1


def test_an_upgrade_at_which_the_playout_is_started_again_says_that_no_session_went_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever typed it must hear that classes on air were cut; the new worker took nothing over."""
    status: dict[str, Any] = {"pid": 8, "release": "2.1.0", "worker": {"taken_over": None}}

    async def asked(_: Path, do: str, **_more: float) -> dict[str, Any]:
        if do == "upgrade":
            raise control_socket.PlayoutUnreachable("it ended")
        return status | ({"pid": 7} if do == "hello" else {})

    monkeypatch.setattr(control_socket, "asked", asked)
    done = CliRunner().invoke(app, ["--dir", str(tmp_path), "upgrade"])
    assert (done.exit_code, "2.1.0 is on air: the playout was started again" in done.output) == (0, True), done


@pytest.mark.live
def test_where_no_playout_runs_a_command_says_what_to_do_and_help_names_the_settings(tmp_path: Path) -> None:
    done = lectern("--dir", str(tmp_path), "status")
    assert done.returncode == 1
    assert "no playout answers there" in done.stderr
    assert "Start it: lectern playout" in done.stderr
    done = lectern("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert all(name in done.stdout for name in ("PLAYOUT_DIR", "PLAYOUT_SOCKET", "PLAYOUT_CA_FILE"))


@pytest.mark.live
def test_the_command_becomes_the_holder_which_stays_small(tmp_path: Path) -> None:
    argv = [str(Path(sys.executable).with_name("lectern")), "playout", "--dir", str(tmp_path / "p")]
    process = subprocess.Popen(argv)
    try:
        wait_until((tmp_path / "p/playout.sock").exists, description="the socket")
        rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        pss_kb = int(next(line for line in rollup.splitlines() if line.startswith("Pss:")).split()[1])
        assert pss_kb < 30_000
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == 0
        assert not (tmp_path / "p/playout.sock").exists()
    finally:
        process.kill()
        process.wait()


def read(text: bytes) -> dict[str, float]:
    families = text_string_to_metric_families(text.decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_metrics_tell_of_sessions_lateness_bytes_reconnects_and_the_lease(tmp_path: Path) -> None:
    """One class is on air, with one session; the other one's server is not there."""
    with loopback(tmp_path, playout=Inside, lease_s=1000) as (playout, receiver, path):
        playout.put_on_air("c1", path, receiver.url("c1"))
        playout.air("c2", path, "rtmp://127.0.0.1:1/live/c2", starts_in_s=0.2)
        wait_until(lambda: playout.told("broke_off"), description="a try that failed")
        assert playout.told("broke_off")[0]["why"] == "Connection refused"
        found = read(metrics.playout_exposition(playout.ask("status")))
    assert found["lectern_playout_up"] == 1
    assert found["lectern_playout_sessions"] == found["lectern_playout_classes_on_air"] == 1
    assert 500 < found["lectern_playout_lease_left_seconds"] <= 1000
    assert found["lectern_playout_bytes_total"] > 0
    assert found["lectern_playout_reconnects_total"] >= 1
    assert found["lectern_playout_slate_seconds"] == 0
    assert 0 <= found["lectern_playout_lateness_seconds"] < 10
    assert read(metrics.playout_exposition(None)) == {"lectern_playout_up": 0}, "one that does not answer"
