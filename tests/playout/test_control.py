"""The control socket: a bad line harms nothing, the timetable outlives everything."""

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from lectern import metrics
from lectern.playout import as_run, control_socket, timetable
from lectern.playout.as_run import AiredClass
from lectern.playout.timetable import BadRequest, lesson
from tests.playout.receiver import Receiver
from tests.playout.stage import Playout, loopback
from tests.waiting import async_wait_until, cancelled, wait_until

pytestmark = pytest.mark.live

LESSON: dict[str, Any] = {
    "class_id": "c1",
    "file": "/a.flv",
    "push_urls": ["rtmp://h/live/c1"],
    "start": 1000.0,
    "end": 1060.0,
}


def test_a_line_that_cannot_be_read_is_answered_and_harms_nothing(tmp_path: Path) -> None:
    with Playout(tmp_path / "p") as playout, socket.socket(socket.AF_UNIX) as other:
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
    with Playout(tmp_path / "p") as playout, socket.socket(socket.AF_UNIX) as other:
        other.settimeout(10)
        other.connect(str(playout.socket))
        with pytest.raises(OSError, match=words):
            other.sendall(sent)
        assert playout.hello()["ok"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"class_id": ""}, "class_id"),
        ({"file": "a.flv"}, "file: an absolute path"),
        ({"push_urls": []}, "push_urls: 1 to 4"),
        ({"push_urls": ["rtmp://h/a/b"] * 2}, "push_urls: 1 to 4 different"),
        ({"push_urls": ["http://h/a"]}, r"push_urls\[0\]: the push URL begins neither"),
        ({"push_urls": ["rtmp://me:secret@/a/b"]}, r"push_urls\[0\]: the push URL has no host"),
        ({"start": "soon"}, "start: a number"),
        ({"end": 999.0}, "end: it must be after start"),
        ({"end": float("nan")}, "end: a number"),
        ({"slate": 7}, "slate"),
        ({"networks": "public"}, "networks: a list"),
        ({"networks": ["10.0.0.0/99"]}, "networks: a list"),
    ],
)
def test_a_class_that_cannot_be_aired_is_refused_in_words(change: dict[str, Any], words: str) -> None:
    with pytest.raises(BadRequest, match=words) as caught:
        lesson({**LESSON, **change})
    assert "secret" not in str(caught.value)


@given(
    st.dictionaries(
        st.sampled_from([*LESSON, "index", "slate", "duration_s", "networks"]),
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
    assert as_run.read_aired(path) == ({}, [])
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
    for text in ("{", "{}", "[]", "", "[" * 100_000):
        path.write_text(text)
        with pytest.raises(BadRequest, match="cannot be read"):
            as_run.read_aired(path)


def test_a_timetable_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    too_few = '{"version": "v", "count": 2}\n{}'
    with Playout(tmp_path / "p") as playout:
        playout.air("c1", tmp_path / "a.flv", "rtmp://127.0.0.1/live/c1", starts_in_s=600)
        version = playout.hello()["timetable"]["version"]
        for text in ("", "{", "{}", "[]", too_few, "[" * 100_000):
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
    with Playout(folder) as playout:
        assert playout.ask("status")["classes"] == []
    assert (folder / name if is_in_the_way else aside).read_text() == "{"


def test_what_was_aired_that_cannot_be_written_down_is_told(tmp_path: Path) -> None:
    """The class goes on; only the next worker would not know what was sent."""
    with loopback(tmp_path) as (playout, receiver, path):
        (tmp_path / "p" / as_run.AIRED).mkdir()
        playout.air("c1", path, receiver.url("c1"), starts_in_s=0.2)
        wait_until(lambda: receiver.of("c1"), description="on air")
        wait_until(lambda: not playout.hand_over()["durable"], description="it is told")
        assert playout.hand_over()["why"].startswith("what was aired cannot be written: ")


async def test_the_client_asks_hears_events_and_notices_the_workers_end(tmp_path: Path) -> None:
    with loopback(tmp_path) as (playout, receiver, path):
        async with await control_socket.Client.connect(playout.socket) as ours:
            hello = await ours.ask("hello", events=True)
            await asyncio.to_thread(playout.air, "c1", path, receiver.url("c1"), starts_in_s=0.0)
            with pytest.raises(control_socket.RequestRefused, match="url: "):
                await ours.ask("try", url="http://127.0.0.1/x")
            seen = []
            async for event in ours.events():
                seen.append(event["event"])
                if event["event"] == "on_air":
                    os.kill(hello["pid"], signal.SIGKILL)
            assert seen == ["connected", "on_air"]
            with pytest.raises(control_socket.PlayoutUnreachable):
                await ours.ask("status")
    with pytest.raises(
        control_socket.PlayoutUnreachable, match=r"no playout answers there: (Connection refused|No such file)"
    ):
        await control_socket.Client.connect(playout.socket)


async def test_requests_of_one_client_are_at_work_together_and_answered_in_their_order(tmp_path: Path) -> None:
    """So one write of the timetable serves many classes, and a streamer does not wait for each answer in turn."""
    came = asyncio.Event()

    async def first(_: dict[str, Any]) -> dict[str, Any]:
        await came.wait()
        return {"which": "first"}

    async def second(_: dict[str, Any]) -> dict[str, Any]:
        came.set()
        return {"which": "second"}

    async with served(tmp_path, {"first": first, "second": second}) as (_, ours):
        answered: list[str] = []

        async def ask(do: str) -> None:
            answered.append((await ours.ask(do))["which"])

        await asyncio.gather(ask("first"), ask("second"))
        assert answered == ["first", "second"]


async def test_whoever_asks_after_a_request_that_was_cancelled_gets_their_own_answer(tmp_path: Path) -> None:
    """A drained work leaves a request unanswered; the lease that is passed on after it is not to take its answer."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def slow(_: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        await go.wait()
        return {"which": "slow"}

    async def quick(_: dict[str, Any]) -> dict[str, Any]:
        return {"which": "quick"}

    async with served(tmp_path, {"slow": slow, "quick": quick}) as (_, ours):
        asked = asyncio.create_task(ours.ask("slow"))
        await begun.wait()
        await cancelled(asked)
        go.set()
        assert (await ours.ask("quick"))["which"] == "quick"


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

    async def hello(_: dict[str, Any]) -> dict[str, Any]:
        return {}

    async with served(tmp_path, {"status": status, "hello": hello}) as (desk, ours):
        await ours.ask("hello", events=True)
        for _ in range(2):
            assert len((await ours.ask("status"))["classes"]) == 5 * control_socket.MAX_WAITING_BYTES
            assert (await anext(ours.events()))["event"] == "connected"


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


def test_a_push_url_is_tried_up_to_connect_and_nothing_is_published(tmp_path: Path) -> None:
    """Nobody's stream is touched, not even by name; what is wrong comes in words."""
    with Playout(tmp_path / "p") as playout, Receiver() as receiver, socket.create_server(("127.0.0.1", 0)) as mute:
        assert playout.ask("try", url=receiver.url("x"))["refused"] is None
        assert [(one.published, one.commands) for one in receiver.sessions] == [(None, ["connect"])]
        port = mute.getsockname()[1]
        assert "does not answer" in playout.ask("try", url=f"rtmp://127.0.0.1:{port}/live/x")["refused"]
        mute.close()
        assert playout.ask("try", url=f"rtmp://127.0.0.1:{port}/live/x")["refused"] == "Connection refused"
        assert not playout.ask("try", url="http://127.0.0.1/x")["ok"]


def test_only_addresses_of_the_networks_of_a_class_are_connected_to(tmp_path: Path) -> None:
    """A name may lead elsewhere than it did when the class was taken: what is asked is what is checked."""
    with loopback(tmp_path) as (playout, receiver, path):
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


# `lectern playout`, as a person types it, and its metrics.


def lectern(*arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [str(Path(sys.executable).with_name("lectern"))]
    return subprocess.run([*argv, "playout", *arguments], capture_output=True, text=True, timeout=100, check=False)


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


def test_where_no_playout_runs_a_command_says_what_to_do(tmp_path: Path) -> None:
    done = lectern("--dir", str(tmp_path), "status")
    assert done.returncode == 1
    assert "no playout answers there" in done.stderr
    assert "Start it: lectern playout" in done.stderr


@pytest.mark.parametrize("in_the_way", ["p", "p/playout.lock/x", "p/playout.sock/x"])
def test_folder_that_cannot_be_used_is_told_in_one_sentence_with_what_to_type(tmp_path: Path, in_the_way: str) -> None:
    """Whoever tries it by hand has no rights in /var/lib."""
    (tmp_path / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / in_the_way).touch()
    done = lectern("--dir", str(tmp_path / "p"))
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"lectern playout: {tmp_path / 'p'}")
    assert "Errno" not in done.stderr
    assert "--dir" in done.stderr or "--socket" in done.stderr


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


@pytest.mark.parametrize("arguments", [("--help",), ("status", "--help"), ("upgrade", "--help")])
def test_help_names_the_settings(arguments: tuple[str, ...]) -> None:
    done = lectern(*arguments)
    assert done.returncode == 0
    if arguments == ("--help",):
        assert all(name in done.stdout for name in ("PLAYOUT_DIR", "PLAYOUT_SOCKET", "PLAYOUT_CA_FILE"))


def read(text: bytes) -> dict[str, float]:
    families = text_string_to_metric_families(text.decode())
    return {sample.name: sample.value for family in families for sample in family.samples}


def test_metrics_tell_of_sessions_lateness_bytes_reconnects_and_the_lease(tmp_path: Path) -> None:
    """One class is on air, with one session; the other one's server is not there."""
    with loopback(tmp_path, lease_s=1000) as (playout, receiver, path):
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


def test_a_playout_that_does_not_answer_is_down() -> None:
    assert read(metrics.playout_exposition(None)) == {"lectern_playout_up": 0}
