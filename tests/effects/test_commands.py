"""What is typed first: the first word comes at once, versions, help, doctor, bookings by hand, without a server."""

import errno
import getpass
import io
import json
import math
import os
import shlex
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest
import typer
from sqlalchemy import Connection, Engine, insert, update

from lectern import __version__, formatting
from lectern.cli import doctor, options, readers, streamer
from lectern.cli.app import COMMANDS, EXAMPLES, app
from lectern.cli.booking import _read
from lectern.db import bookings, cache, incidents, leases, outbox
from lectern.db.engine import opened, transaction
from lectern.db.incidents import AlertPolicy
from lectern.errors import OSS_REFUSES, Misuse
from lectern.model.tables import streamer as streamer_tables
from lectern.model.tables.teacher import cancels, orders
from lectern.settings import StreamerSettings, TeacherSettings
from lectern.states import AiringState, BookingState, FileState
from lectern.wire import outgoing
from lectern.wire.messages import Booking
from lectern.wire.outgoing import Outgoing, OutgoingKind
from lectern.wire.parser import parse
from tests import laid, strategies, typed
from tests.answering import serving
from tests.effects.redis_servers import paused, redis_server, url_of
from tests.rows import add, commit, prepare, reserve
from town.__main__ import next_steps
from town.ports import free_port

CODE = "from lectern.cli import main; main()"
lectern = partial(typed.lectern, TRANSCODE_SIGN_KEY="made up")
FOREIGN = (
    *("sqlalchemy", "sqlalchemy.dialects.postgresql", "pydantic", "redis", "rich", "prefect", "httpx", "paramiko"),
    *("importlib.metadata", "ctypes"),
)


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """A folder with a teacher's database, and in it a class that was aired."""
    engine = laid.opened("teacher", tmp_path / "teacher.db")
    done = strategies.booking("c-aired", start_time=1.0, end_time=2.0)
    commit(engine, bookings.add, [(done, BookingState.AIRED)], 1.0)
    engine.dispose()
    return tmp_path


def ran(folder: Path, *argv: object, **env: str) -> "subprocess.CompletedProcess[str]":
    """A program that is started in *folder* for itself."""
    words = [str(one) for one in argv]
    return subprocess.run(words, cwd=folder, env=env, capture_output=True, text=True, timeout=60, check=False)


def loaded_by(folder: Path, *words: str) -> tuple[str, set[str]]:
    """What a command printed, and which modules of FOREIGN it had loaded at its end."""
    loaded = f"import atexit, sys; atexit.register(lambda: print(*set({FOREIGN!r}) & sys.modules.keys()))"
    env = {**os.environ, "TRANSCODE_SIGN_KEY": "made up"}
    done = ran(folder, sys.executable, "-c", f"{loaded}; {CODE}", *words, **env)
    assert done.returncode == 0, done.stderr
    *lines, last = done.stdout.splitlines()
    return "\n".join(lines), set(last.split())


@pytest.mark.live
@pytest.mark.parametrize("option", ["--help", "-h", "--version"])
def test_the_first_word_loads_nothing_that_takes_long(tmp_path: Path, option: str) -> None:
    """Measured on an idle machine it comes within 0.2 s; what is loaded is the same on a busy one."""
    said, loaded = loaded_by(tmp_path, option)
    assert loaded == ({"importlib.metadata"} if option == "--version" else set())
    assert ("lectern " + __version__ if option == "--version" else "Usage: lectern") in said


@pytest.mark.live
def test_who_looks_into_a_sqlite_file_does_not_wait_for_what_only_others_need(teacher: Path) -> None:
    """PostgreSQL's dialect takes a fifth of what the tables take, and each program that starts loads them."""
    said, loaded = loaded_by(teacher, "report")
    assert "institution" in said
    assert not loaded & {"prefect", "paramiko", "sqlalchemy.dialects.postgresql"}
    done = ran(teacher, sys.executable, "-c", "import lectern.cli.status, sys; print(*sys.modules)", **os.environ)
    assert not {*done.stdout.split()} & {"httpx", "lectern.model.tables.streamer", "rich"}
    assert done.returncode == 0, done.stderr


@pytest.mark.live
def test_a_command_does_not_look_through_all_packages_that_are_installed(teacher: Path) -> None:
    """Pydantic would before its first model, for plugins that nobody has: a fortieth of each start."""
    listed = "sys.addaudithook(lambda event, of: event == 'open' and 'entry_points' in str(of[0]) and print(of[0]))"
    done = ran(teacher, sys.executable, "-c", f"import sys; {listed}; {CODE}", "report", **os.environ)
    assert (done.returncode, "institution" in done.stdout, "entry_points" in done.stdout) == (0, True, False)


@pytest.mark.live
def test_how_things_stand_takes_no_mapping_of_rows_while_no_rendition_is_made(teacher: Path) -> None:
    """SQLAlchemy maps all tables before the first row is a value: a fiftieth of `lectern status`."""
    look = "with readers.teacher().looking() as connection: timetable.status_of_teacher(connection, 1.0, 'teacher')"
    code = f"""from lectern.cli import readers
from lectern.db import timetable
from lectern.model.tables.teacher import RenditionRow
{look}
print(RenditionRow.__mapper__.configured)"""
    assert ran(teacher, sys.executable, "-c", code, **os.environ).stdout == "False\n"


@pytest.mark.live
def test_who_makes_deployments_waits_for_no_migrations(tmp_path: Path) -> None:
    """Alembic takes a twentieth of `lectern deploy`, which a rollout types on each host; `init` loads it."""
    done = ran(tmp_path, sys.executable, "-c", "import lectern.cli.serving, sys; print(*sys.modules)", **os.environ)
    assert (done.returncode, "alembic" in done.stdout.split()) == (0, False), done.stderr


def test_help_names_each_command_and_each_has_its_help(tmp_path: Path) -> None:
    said = lectern(tmp_path, "--help").stdout
    assert all(f"  {name} " in said for name in COMMANDS)
    for name in COMMANDS:
        done = lectern(tmp_path, name, "--help")
        assert (done.returncode, f"lectern {name}" in done.stdout) == (0, True), done.stderr


@pytest.mark.live
def test_a_shell_can_complete_the_commands(tmp_path: Path) -> None:
    asked = {"_LECTERN_COMPLETE": "complete_bash", "COMP_WORDS": "lectern st", "COMP_CWORD": "1"}
    done = ran(tmp_path, Path(sys.executable).parent / "lectern", PATH="/usr/bin:/bin", **asked)
    assert done.stdout.split() == ["status"]


def test_the_help_of_each_command_ends_with_a_line_that_the_command_understands() -> None:
    all_commands: Any = typer.main.get_command(app)
    commands = {name: all_commands.get_command(None, name) for name in COMMANDS if name != "rollout"}
    parts = {f"{name} {part}": one for name, group in commands.items() for part, one in _parts(group)}
    typed_by_people = {name: one for name, one in commands.items() if not _parts(one)} | parts
    assert EXAMPLES.keys() == typed_by_people.keys() | {"playout"}
    for name, command in typed_by_people.items():
        assert command.epilog.endswith(f"  {EXAMPLES[name]}")
        line = EXAMPLES[name].partition(" > ")[0]
        _, *words = shlex.split(line)
        command.make_context(name, words[len(name.split()) :])


def _parts(group: Any) -> list[tuple[str, Any]]:
    return list(getattr(group, "commands", {}).items())


def test_the_example_is_a_booking_of_ten_minutes_from_now_with_what_it_is_told_of(tmp_path: Path) -> None:
    """The demo tells of its own, by a variable or by its folder, so that the example can be booked and is aired."""
    booking = parse(lectern(tmp_path, "book", "--example").stdout, (Booking,))
    assert 9 * 60 <= booking.start_time - time.time() <= 11 * 60
    own = {"video_url": "http://127.0.0.1:1/1200.flv", "push_url": "rtmp://127.0.0.1:1/live/CLASS_ID"}
    said = lectern(tmp_path, "book", "--example", LECTERN_EXAMPLE=json.dumps(own)).stdout
    booking = parse(said, (Booking,))
    assert (booking.video_url, booking.push_url) == (own["video_url"], f"rtmp://127.0.0.1:1/live/{booking.class_id}")
    odd = lectern(tmp_path, "book", "--example", LECTERN_EXAMPLE="{")
    assert (odd.returncode, "LECTERN_EXAMPLE" in odd.stderr, "Traceback" in odd.stderr) == (2, True, False)
    (tmp_path / ".demo").mkdir()
    text = next_steps("http://ui", "http://page", tmp_path / ".demo", {"LECTERN_EXAMPLE": json.dumps(own)}, math.inf)
    assert text.splitlines()[-1] == "Open the page: http://page"
    booking = parse(lectern(tmp_path, "book", "--example").stdout, (Booking,))
    assert booking.push_url == f"rtmp://127.0.0.1:1/live/{booking.class_id}"


def test_a_dry_run_says_what_would_be_decided_and_sends_nothing(teacher: Path) -> None:
    """Redis is not there, so whatever was sent would fail. A cancel that came before the booking is heeded."""
    example = lectern(teacher, "book", "--example").stdout
    done = lectern(teacher, "book", "-", "--dry-run", text=example)
    assert done.returncode == 0, done.stderr
    assert "6666_720P" in done.stdout
    asked = json.loads(example)
    over = {**asked, "start_time": 1, "end_time": 2}
    assert "410" in lectern(teacher, "book", "-", "--dry-run", text=json.dumps(over)).stdout
    waits = insert(cancels).values(class_id=asked["class_id"], cancelled_at=1.0, told_at=1.0, until=4e9)
    with opened(f"sqlite:///{teacher}/teacher.db") as engine:
        commit(engine, Connection.execute, waits)
    said = lectern(teacher, "book", "-", "--dry-run", text=example).stdout
    assert said.splitlines()[-1] == f"{asked['class_id']}: cancelled before it was booked 411"


def test_a_dry_run_knows_that_no_streamer_takes_classes(teacher: Path) -> None:
    """Those that are drained or full are none that does; the booking would get 317."""
    example = lectern(teacher, "book", "--example").stdout
    with redis_server(teacher) as client:
        for told, said in (({"full": True}, ": refuse 317 6666_720P"), ({}, ": proceed s1 6666_720P")):
            client.hset("streamers", "s1", json.dumps({"at": time.time(), **told}))
            done = lectern(teacher, "book", "-", "--dry-run", text=example, REDIS_URL=url_of(client))
            assert said in done.stdout, done.stderr


def test_what_a_change_would_do_is_said_by_who_is_alive_not_by_who_has_classes(teacher: Path) -> None:
    """A class that waits for its rendition goes to a streamer without classes, too; not to one that is lost."""
    start = time.time() + 3600
    coming = partial(strategies.booking, start_time=start, end_time=start + 600)
    with opened(f"sqlite:///{teacher}/teacher.db") as engine, transaction(engine) as connection:
        bookings.add(connection, [(coming("c-1"), BookingState.WAITING), (coming("c-2"), BookingState.READY)], 1.0)
        connection.execute(update(orders).where(orders.c.class_id == "c-2").values(streamer="lost"))
    (teacher / "made.json").write_text('{"video_url_list": {"720P": "http://origin.example/6666_720P.flv"}}')
    with redis_server(teacher) as client:
        client.hset("streamers", "alive", json.dumps({"at": time.time()}))
        change = partial(lectern, teacher, "change", "c-1", "--recording", "made.json", "--dry-run")
        assert "streamer: none -> alive" in change(REDIS_URL=url_of(client)).stdout
    assert "streamer: none -> lost" in change().stdout, "without Redis nobody knows"


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("book",), "Missing argument", 2),
        (("book", "-"), "standard input: the message is not JSON", 2),
        (("book", "no-such.json"), "lectern: no-such.json: No such file or directory\n", 2),
        (("book", "half.json"), "start_time", 2),
        (("cancel", "not a name"), "class_id", 2),
        (("explain", "no-such-class"), "nothing is known of it here", 2),
        (("explain", "\udcbf\udcce"), "nothing is known of it here", 2),  # typed where the terminal has GBK
        (("preview", "no-such-class"), "lectern status", 2),
        (("preview", "c-aired"), "lectern explain c-aired", 1),
        (("viewer", "add", "<b>"), "use 1 to 250 of the characters", 2),
        (("viewer", "add", "x", "--institution", ""), "use 1 to 250 of the characters", 2),
        (("client", "add", "x", "--may", "fly"), "write book, read, or book,read", 2),
    ],
    ids=lambda one: ascii(" ".join(one)) if isinstance(one, tuple) else "",
)
def test_what_cannot_be_done_is_said_in_words(teacher: Path, arguments: tuple[str, ...], words: str, code: int) -> None:
    """Misuse ends with 2. A class that cannot be seen says what to type.

    What cannot be a name or a right makes no token: an empty variable of a shell must not let a school see all classes.
    """
    (teacher / "half.json").write_text('{"cmd": "order", "class_id": "c-1"}')
    done = lectern(teacher, *arguments, text="?")
    assert done.returncode == code
    assert words in done.stderr
    assert not {"Errno", "Traceback"} & set(done.stderr.replace(":", " ").split())


def test_misuse_is_said_in_the_language_of_the_host(tmp_path: Path) -> None:
    """What is wrong with a setting, too, and what a step of the rollout answers; English if no setting can be read."""
    said = lectern(tmp_path, "reload", "teacher", LECTERN_LANG="zh", API_BIND="x").stderr
    assert said.startswith("lectern: 配置有错或缺少：API_BIND：必须是 host:port")
    assert lectern(tmp_path, "reload", "teacher", LECTERN_LANG="xx").stderr.startswith("lectern: Settings are wrong")
    done = lectern(tmp_path, "status", LECTERN_SETTINGS="/nowhere/settings.env")
    assert "LECTERN_SETTINGS=/nowhere/settings.env: there is no such file." in done.stderr
    wanted: dict[str, object] = {"role": "teacher", "old_programs": [], "supervisorctl": ["x"]}
    wanted |= dict.fromkeys(("name", "version", "user", "program", "program_conf"), "x")
    wanted |= dict.fromkeys(("root", "code_dir", "programs_dir", "database"), str(tmp_path))
    wanted |= dict.fromkeys(("redis_url", "prefect_api_url", "health_url"), "") | {"env": {"LECTERN_LANG": "zh"}}
    said = json.loads(lectern(tmp_path, "rollout", "verify", text=json.dumps(wanted)).stdout)["msg"]
    assert said.endswith("：它没有在这台主机上线。请执行 ansible-playbook playbooks/rollout.yml。")


@pytest.mark.parametrize("encoding", ["utf-8", "gbk"])
def test_booking_on_standard_input_is_utf_8_whatever_shell_has(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file is; what is none is refused in words."""
    name = {"class_id": "c-1", "video_url": "http://o.example/1.flv", "push_url": "rtmp://p.example/live/x"}
    text = json.dumps({"cmd": "order", **name, "start_time": 1, "end_time": 2, "title": "周一"}, ensure_ascii=False)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode()), encoding=encoding))
    assert json.loads(_read(Path("-")).to_json())["title"] == "周一"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff" + text.encode()), encoding=encoding))
    with pytest.raises(Misuse, match="standard input: the message is not JSON"):
        _read(Path("-"))


def test_a_cancel_ends_as_its_answer_says(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever cancels knows that the class is off the air, or why not; without an answer, that nobody knows it yet."""
    answers = {"c-1": {"result": "success", "code": 0}, "c-2": {"result": "fail", "code": 404, "message": "not booked"}}
    monkeypatch.setattr("lectern.cli.booking.CANCEL_S", 3.0)
    with redis_server(teacher) as client, ThreadPoolExecutor(1) as thread:

        def answer(class_id: str) -> None:
            ((_, ((entry, fields),)),) = cast("Any", client.xread({"cancel": "0"}, block=20_000))
            asked = json.loads(fields[b"body"])
            client.xdel("cancel", entry)
            assert (asked["class_id"], asked["by"]) == (class_id, options.me())
            told = {"cmd": "cancel_result", "class_id": class_id, **answers[class_id]}
            client.publish("cancel_result", json.dumps(told))

        for class_id, code in (("c-1", 0), ("c-2", 1)):
            answering = thread.submit(answer, class_id)
            done = lectern(teacher, "cancel", class_id, REDIS_URL=url_of(client))
            answering.result()
            assert (done.returncode, str(answers[class_id]["result"]) in done.stdout) == (code, True), done.stderr
        done = lectern(teacher, "cancel", "c-3", REDIS_URL=url_of(client))
        assert (done.returncode, client.xlen("cancel")) == (1, 1)
        assert "c-3: no answer within 3 s. See: lectern explain c-3" in done.stderr


def test_what_gets_no_answer_was_sent(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if Redis hung at first: who is told that no answer came takes the cancel for kept."""
    monkeypatch.setattr("lectern.cli.booking.CANCEL_S", 0.5)
    hangs = Event()
    with redis_server(teacher) as client, ThreadPoolExecutor(1) as thread:

        def hang() -> None:
            with paused(client):
                hangs.set()
                time.sleep(2)

        hanging = thread.submit(hang)
        assert hangs.wait(30)
        done = lectern(teacher, "cancel", "c-1", REDIS_URL=url_of(client))
        hanging.result()
        assert (done.returncode, client.xlen("cancel")) == (1, 1)
        assert "c-1: no answer within 0.5 s" in done.stderr


@pytest.mark.parametrize("error", [KeyError("getpwuid(): uid not found: 4711"), OSError("No username set")])
def test_a_user_without_a_name_can_cancel_a_class(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """As in a container that runs as a number: at night, a traceback would be all that came of the cancel."""
    monkeypatch.setattr(getpass, "getuser", Mock(side_effect=error))
    assert options.me() == f"{os.getuid()}@{socket.gethostname()}"


def test_a_redis_that_refuses_is_not_said_to_be_away(teacher: Path) -> None:
    """Another program has a key of this name, or it is full: who pings it finds it well, and looks elsewhere."""
    example = lectern(teacher, "book", "--example").stdout
    with redis_server(teacher) as client:
        client.set("order", "somebody's")
        for language, away in (("en", "does not answer"), ("zh", "没有应答")):
            done = lectern(teacher, "book", "-", text=example, REDIS_URL=url_of(client), LECTERN_LANG=language)
            said = [words in done.stderr for words in ("WRONGTYPE", "505", away)]
            assert (done.returncode, said) == (1, [True, True, False]), done.stderr


def test_a_redis_that_refuses_the_login_is_not_said_to_be_away(teacher: Path) -> None:
    """Its password was changed: who has it started again, or looks at the network, looks in the wrong place."""
    airs = strategies.booking("c-now", start_time=time.time() - 60, end_time=time.time() + 600)
    with opened(f"sqlite:///{teacher}/teacher.db") as engine:
        commit(engine, bookings.add, [(airs, BookingState.READY)], 1.0)
        commit(engine, Connection.execute, update(orders).where(orders.c.class_id == "c-now").values(streamer="s1"))
    with redis_server(teacher) as client:
        client.config_set("requirepass", "another")
        done = lectern(teacher, "status", REDIS_URL=url_of(client))
    assert done.stderr.startswith("lectern: Redis refuses the login: "), done.stderr
    assert "REDIS_URL" in done.stderr
    assert "c-now: Redis cannot be asked: nobody here knows" in done.stdout
    assert "does not answer" not in done.stdout + done.stderr


def test_the_incidents_of_a_streamer_that_was_taken_out_go_with_it(teacher: Path) -> None:
    """Nobody is left who would say that they are over; a lost one may come back."""
    alarm = {"code": 316, "host": "s", "count": 1, "last_at": 1, "message": "disk full"}
    word = json.dumps({"at": 1, "sendings": {}, "checks": {}, "alarms": [alarm]})
    with redis_server(teacher) as client:
        for name, more in (("lost", {}), ("out", {"gone": True})):
            client.hset("streamers", name, json.dumps({"at": 1, **more}))
            client.hset("streamers:words", name, word)
        found = json.loads(lectern(teacher, "status", "--json", REDIS_URL=url_of(client)).stdout)
    assert [*found["streamers"]] == [one["streamer"] for one in found["streamer_incidents"]] == ["lost"]


@pytest.mark.parametrize(
    "arguments",
    [
        ("explain", "c-aired"),
        ("book", "-", "--dry-run"),
        ("change", "c-aired", "--end", "2026-11-26T19:00", "--dry-run"),
    ],
    ids=lambda one: one[0],
)
def test_a_class_in_a_state_that_nobody_knows_is_told_in_words(teacher: Path, arguments: tuple[str, ...]) -> None:
    """A newer release has written it, and was rolled back."""
    with opened(f"sqlite:///{teacher}/teacher.db") as engine:
        commit(engine, Connection.execute, update(orders).values(state="on the moon"))
    done = lectern(teacher, *arguments, text=strategies.booking("c-aired").to_json())
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "c-aired: its row cannot be read: 'on the moon' is not a valid BookingState." in done.stderr


def looked_at(folder: Path, role: str = "teacher", **env: str) -> str:
    """What doctor says of a host whose Prefect server is not there."""
    return lectern(folder, "doctor", role, **{"PREFECT_API_URL": "http://127.0.0.1:1/api", **env}).stdout


def test_doctor_says_what_is_not_there_and_what_to_type(teacher: Path) -> None:
    """It asks the host itself and no proxy of the person's shell, as the program does that it looks at."""
    (teacher / ".env").write_text("TEACHER_NAME=teacher7\nPREFECT_API_URL=http://127.0.0.1:1/api\n")
    bind = f"127.0.0.1:{free_port()}"  # on that of its default, somebody may listen
    with serving(status=403) as server:
        done = lectern(teacher, "doctor", API_BIND=bind, **dict.fromkeys(("http_proxy", "ALL_PROXY"), server.url))
    assert done.returncode == 1
    for line in (
        "✓ teacher: teacher7",
        f"✓ settings: from {teacher}/.env: PREFECT_API_URL=http://127.0.0.1:1/api, TEACHER_NAME=teacher7",
        "TRANSCODE_SIGN_KEY=(secret)",
        f"✓ database: {teacher}/teacher.db is as this release needs it",
        "✗ redis: redis://127.0.0.1:1",
        "    --> redis-cli -u redis://127.0.0.1:1/0 ping",
        "    --> curl http://127.0.0.1:1/api/health",
        "✗ prefect: http://127.0.0.1:1/api cannot be reached: nobody answers there.",
        f"✗ process: http://{bind}/health cannot be reached: nobody answers there",
    ):
        assert line in done.stdout
    assert ("made up" in done.stdout, "OSS" in done.stdout) == (False, False)
    found = json.loads(lectern(teacher, "doctor", "--json").stdout)
    assert found["well"] is False
    assert {one["what"] for one in found["findings"]} >= {"database", "redis", "prefect", "process", "settings"}


def test_doctor_takes_no_other_answer_for_that_of_prefect_a_process_or_a_redis(teacher: Path) -> None:
    """It says in plain words what it was.

    A Redis takes the connection, and says nothing; one that has become a copy answers all that is read. A setting that
    has another name now is told.
    """
    (teacher / ".env").write_text("INBOX_TRIES=7\n")
    for status, body, words in (
        (200, b'"3.4.5"', "✓ prefect: {} answers, version 3.4.5"),
        (200, b"<html>", "✗ prefect: {} answers something else than JSON of ours. Classes are aired without it."),
        (401, b"", "✗ prefect: {} does not let this host in (HTTP 401)."),
        (503, b"", "✗ prefect: {} answers HTTP 503 Service Unavailable."),
    ):
        with serving(status=status, body=body) as server:
            assert words.format(server.url) in looked_at(teacher, PREFECT_API_URL=server.url)
    with serving(body=b'{"wrong": [], "since": null}') as server, socket.create_server(("127.0.0.1", 0)) as hangs:
        url = f"redis://127.0.0.1:{hangs.getsockname()[1]}/0"
        said = looked_at(teacher, API_BIND=f"127.0.0.1:{server.server_port}", REDIS_URL=url)
    assert f"✗ process: {server.url}/health answers something else than JSON of ours" in said
    assert f"✗ redis: {url}: no answer in time" in said
    assert "INBOX_TRIES is now called INBOX_MAX_ATTEMPTS; the old name is still read\n    --> rename it" in said
    with redis_server(teacher) as client:
        url = url_of(client)
        assert f"✓ redis: {url} answers\n" in looked_at(teacher, REDIS_URL=url)
        client.replicaof("127.0.0.1", 1)
        said = looked_at(teacher, REDIS_URL=url)
    assert f"✗ redis: {url} answers, but takes no writes: You can't write against a" in said
    assert f"    --> redis-cli -u {url} INFO\n" in said


def test_doctor_takes_writes_that_wait_for_no_wrong_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Redis with a busy disk lets them wait; who set the clock by that would set the host apart from all others."""
    monkeypatch.setattr(doctor, "MAX_SKEW_S", 0.4)
    with redis_server(tmp_path) as client:
        client.client_pause(1500, all=False)
        answers, clock = doctor.of_redis(StreamerSettings.load(_env_file=None, redis_url=url_of(client)))
    assert (answers.is_well, clock.is_well) == (True, True), clock.said


def test_doctor_says_all_it_found_though_there_is_no_database_yet(tmp_path: Path) -> None:
    """What the OSS took last is kept there; the other findings are what the host is looked at for, once it is named."""
    done = lectern(tmp_path, "doctor")
    assert (done.returncode, "lectern doctor teacher, or lectern doctor streamer" in done.stderr) == (2, True)
    with serving(status=403) as server:
        said = looked_at(tmp_path, OSS_TRANSCODE_URL=server.url)
    assert "✗ database: " in said
    assert f"✓ OSS transcoder: {server.url} answers; TRANSCODE_SIGN_KEY is not tried here" in said
    assert "no request was taken" not in said, "nobody knows that"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"MAX_ECS_JOBS": "none"}, "✗ settings: Settings are wrong or missing: MAX_ECS_JOBS"),
        ({"MAX_DOWNLOADS": "none"}, "✗ settings: Settings are wrong or missing: MAX_DOWNLOADS"),
        ({"STREAMER_DATABASE_URL": "sqlite:////no/such/folder/x.db"}, "✗ database: /no/such/folder/x.db: its folder"),
    ],
    ids=["the teacher's", "the streamer's", "its database"],
)
@pytest.mark.usefixtures("streamer_engine")
def test_a_role_whose_settings_are_wrong_is_not_left_out(teacher: Path, wrong: dict[str, str], said: str) -> None:
    """On a host of both, the other one alone would be looked at, or read anew, and all that was asked for seem done.

    Of a class, half would be told as if it were all; and one that only the other role knows would seem unknown.
    """
    done = lectern(teacher, "doctor", **{"PREFECT_API_URL": "http://127.0.0.1:1/api", **wrong})
    assert (done.returncode, said in done.stdout) == (1, True), done.stdout
    for class_id in ("c-aired", "c-other"):
        done = lectern(teacher, "explain", class_id, **wrong)
        assert said.partition(": ")[2] in done.stdout + done.stderr, done
    if "MAX_ECS_JOBS" in wrong:
        done = lectern(teacher, "reload", HEALTH_BIND="", **wrong)
        assert (done.returncode, "MAX_ECS_JOBS" in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize(("command", "code"), [("status", 2), ("doctor", 1), ("init", 2), ("backup", 2)])
def test_a_database_whose_folder_is_closed_to_who_types_is_named(
    teacher: Path, monkeypatch: pytest.MonkeyPatch, command: str, code: int
) -> None:
    """Somebody who is called at night need not be the user of the host, and a traceback tells nobody that."""
    plain = Path.stat

    def stat(path: Path, **how: Any) -> os.stat_result:
        if path.name == "teacher.db":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return plain(path, **how)

    monkeypatch.setattr(Path, "stat", stat)
    done = lectern(teacher, command, *(("teacher",) if command != "status" else ()))
    assert f"{teacher}/teacher.db: cannot be read: Permission denied" in done.stdout + done.stderr
    assert done.returncode == code


def test_a_restore_names_the_file_that_it_may_not_read_or_write(teacher: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who is called at night would look for another backup, though the user alone was wrong."""
    made = json.loads(lectern(teacher, "backup", "teacher", "--json", BACKUP_DIR=f"{teacher}/kept").stdout)
    restore = "backup", "teacher", "--restore", made["folder"]
    (teacher / ".teacher.db.part").mkdir()  # no file can be written in its place, also not by root
    done = lectern(teacher, *restore)
    assert (done.returncode, done.stderr) == (1, f"lectern: {teacher}/.teacher.db.part: Is a directory\n")
    monkeypatch.setattr(Path, "read_text", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    done = lectern(teacher, *restore)
    assert (done.returncode, done.stderr) == (2, f"lectern: {made['folder']}: cannot be read: Permission denied\n")


@pytest.mark.parametrize(
    ("is_ours", "english"), [(True, "Redis does not answer"), (False, "of this release")], ids=["Redis", "database"]
)
def test_a_watched_status_says_what_is_away_in_the_language_of_the_host(
    teacher: Path, monkeypatch: pytest.MonkeyPatch, english: str, *, is_ours: bool
) -> None:
    """As the one does that is printed once."""
    if not is_ours:
        (teacher / "teacher.db").write_bytes(b"")
    monkeypatch.setattr("lectern.cli.status.time", SimpleNamespace(time=time.time, sleep=Mock(side_effect=SystemExit)))
    for language, is_said in (("en", True), ("zh", False)):
        done = lectern(teacher, "status", "--watch", LECTERN_LANG=language, COLUMNS="400")
        assert (english in done.stdout) == is_said, done.stdout


def test_doctor_tries_the_oss_and_tells_what_it_answered_last(teacher: Path) -> None:
    with serving() as server:
        url = f"{server.url}/transcode"
        assert "no request was taken yet" in looked_at(teacher, OSS_TRANSCODE_URL=url)
        said = outgoing.alarm(OSS_REFUSES, "6666_720P: OSS transcoding: answered 401", 1.0, "teacher")
        with opened(f"sqlite:///{teacher}/teacher.db") as engine, transaction(engine) as connection:
            outbox.put(connection, [Outgoing("alarm", OutgoingKind.CHANNEL, said)], 1.0)
            unsent = outbox.unsent(connection, limit=9, now=2.0)
            incidents.fold(connection, unsent, AlertPolicy(60, 60, 60), 1.0)
        refused = f"✗ OSS transcoder: {url} answers, and refused the last request: 6666_720P: "
        assert refused in looked_at(teacher, OSS_TRANSCODE_URL=url)
    away = f"✗ OSS transcoder: {url} cannot be reached: nobody answers there"
    assert away in looked_at(teacher, OSS_TRANSCODE_URL=url)


ECS = {
    "transcode_sign_key": "made-up",
    "ecs_hosts": "ssh://ecs@127.0.0.1:1",
    "ecs_ssh_key": "key",
    "ecs_known_hosts": "known",
    "upload_url": "https://store.example/put",
    "public_url": "https://store.example",
}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"ecs_ssh_key": None}, "ECS_SSH_KEY must be set"),
        ({"public_url": None}, "PUBLIC_URL must be set"),
        ({"upload_url": "oss://bucket/x"}, "OSS_ACCESS_KEY_ID"),
        ({"ecs_hosts": "127.0.0.1"}, "ssh://user@host:port"),
        ({}, "ssh://ecs@127.0.0.1:1: "),
    ],
)
def test_doctor_refuses_the_settings_of_transcoding_servers_with_which_no_teacher_starts(
    wrong: dict[str, str | None], said: str
) -> None:
    """Of those that are right, it says whether each server lets us in."""
    (found,) = doctor._ecs_hosts(TeacherSettings.load(_env_file=None, **(ECS | wrong)))
    assert (found.is_well, said in found.said) == (False, True), found.said
    assert found.to_type


def test_doctor_looks_at_a_streamers_own_needs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It changes nothing there, and names a cache in a folder that is closed to who types it."""
    said = looked_at(tmp_path, "streamer", VIDEO_ROOT=str(tmp_path), WGET_PATH="/no/wget")
    assert "✗ program wget: /no/wget cannot be run" in said
    assert f"disk: {tmp_path}: " in said
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(Path, "is_dir", Mock(side_effect=PermissionError(errno.EACCES, "Permission denied")))
    found = doctor.of_disk(StreamerSettings(video_root=tmp_path))
    assert (found.is_well, found.said) == (False, f"{tmp_path}: Permission denied")


def test_a_recording_that_cannot_be_deleted_is_told_in_words_and_stays_about_to_be(
    tmp_path: Path, streamer_engine: Engine
) -> None:
    """Its folder may belong to another user than the database."""
    row = {"id": "6666", "state": FileState.READY, "size_bytes": 8, "num_cite": 0, "update_time": 1}
    with transaction(streamer_engine) as connection:
        cache.make_sums(connection, tmp_path)
        connection.execute(insert(streamer_tables.files).values(**row))
    (tmp_path / "6666/6666.flv").mkdir(parents=True)  # no file can be deleted there, also not by root
    done = lectern(tmp_path, "cache", "evict", "6666", VIDEO_ROOT=str(tmp_path))
    assert (done.returncode, done.stdout) == (1, ""), done.stderr
    assert done.stderr.startswith(f"lectern: {tmp_path}/6666/6666.flv: cannot be deleted: "), done.stderr
    assert commit(streamer_engine, cache.by_stem, ["6666"])["6666"].state is FileState.EVICTING


def test_of_a_download_the_cache_shows_how_much_has_come(tmp_path: Path, streamer_engine: Engine) -> None:
    """By that the runbook lets people see that it goes on; in one line, also where a screen or a pipe is narrow."""
    commit(streamer_engine, reserve, tmp_path, "6666", 4_000_000, "http://origin.example/6666.flv", 1.0)
    (tmp_path / "6666").mkdir()
    for came, said in ((0, "0 bytes of 4.0 MB"), (1_000_000, "1.0 MB of 4.0 MB")):
        (tmp_path / "6666/6666.flv.part").write_bytes(bytes(came))
        assert said in lectern(tmp_path, "cache", "ls", VIDEO_ROOT=str(tmp_path), COLUMNS="40").stdout


def test_a_drain_is_that_of_the_program_whatever_name_it_was_started_with(
    tmp_path: Path, streamer_engine: Engine
) -> None:
    """`lectern serve streamer --name s1` is s1, and the host of another name gets no classes; also without a wait."""
    commit(streamer_engine, leases.hold, "old", "e-1", 5.0)
    commit(streamer_engine, leases.hold, "s1", "e-2", 10.0)
    with redis_server(tmp_path) as client:
        done = lectern(tmp_path, "drain", "--within", "0", STREAMER_NAME="host", REDIS_URL=url_of(client))
    said = f"s1 is drained, and gets no class until you type: {streamer.END}\n"
    assert done.stdout == f"Nothing waits here, and nothing is on air.\n{said}", done.stderr
    assert done.returncode == 0
    assert commit(streamer_engine, leases.drained_by) == options.me()
    assert json.loads(lectern(tmp_path, "drain", "--within", "0", "--json", STREAMER_NAME="s1").stdout)["drained"]
    ended = lectern(tmp_path, "drain", "--off", STREAMER_NAME="host")
    assert (ended.returncode, commit(streamer_engine, leases.drained_by)) == (0, False), ended.stdout


def test_a_drain_is_over_when_its_teacher_has_heard_of_it_and_nothing_comes_any_more(
    tmp_path: Path, streamer_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A teacher places classes until a heartbeat says that the streamer is drained: the last one is on its way then."""
    with redis_server(tmp_path) as client:

        def beats(**more: bool) -> None:
            client.hset("streamers", "s1", json.dumps({"at": time.time(), **more}))

        def comes() -> None:
            commit(streamer_engine, add, prepare("c-1", 6666, time.time() + 600), AiringState.READY, "", 1.0)

        def goes() -> None:
            gone = update(streamer_tables.classes).values(state=AiringState.CANCELLED, released_at=1.0)
            commit(streamer_engine, Connection.execute, gone)

        beats()
        steps = iter((partial(beats, full=True), comes, goes))
        clock = SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=lambda _s: next(steps, lambda: None)())
        monkeypatch.setattr(streamer, "time", clock)
        settings = StreamerSettings.load(_env_file=None, streamer_name="s1", redis_url=url_of(client))
        left = streamer._waited(readers.Place(settings, streamer_engine), time.monotonic() + 60, quiet=True)
    assert (left.is_empty, list(steps)) == (True, [])


def test_a_drain_of_which_no_heartbeat_has_told_is_not_over_when_its_time_is(
    tmp_path: Path, streamer_engine: Engine
) -> None:
    """A script that stops the host by this exit code would take a class with it that is still placed there.

    Also if Redis is away just then: what its teacher has placed here comes when it is back.
    """
    commit(streamer_engine, leases.hold, "s1", "e-1", 10.0)
    with redis_server(tmp_path) as client:
        for told, code in (({}, 1), ({"full": True}, 0)):
            client.hset("streamers", "s1", json.dumps({"at": time.time(), **told}))
            done = lectern(tmp_path, "drain", "--within", "0", "--json", REDIS_URL=url_of(client))
            assert (done.returncode, json.loads(done.stdout)["empty"]) == (code, code == 0), done.stdout
    done = lectern(tmp_path, "drain", "--within", "0", "--json")
    assert (done.returncode, json.loads(done.stdout)["empty"]) == (1, False), done.stdout


def test_a_class_is_explained_under_the_name_of_the_program_that_airs_it(
    tmp_path: Path, streamer_engine: Engine
) -> None:
    """On a host of both roles its parts would else count twice: as those of another streamer, too."""
    commit(streamer_engine, leases.hold, "s1", "e-1", 5.0)
    commit(streamer_engine, add, prepare("c-1", 6666, 1e9), AiringState.AIRED, "", 1e9)
    done = lectern(tmp_path, "explain", "c-1", "--json", STREAMER_NAME="host")
    assert json.loads(done.stdout)["streamer"] == "s1", done.stderr


def test_what_a_streamer_knows_of_a_class_is_told_though_the_teacher_beside_it_has_no_readable_database(
    tmp_path: Path, streamer_engine: Engine
) -> None:
    """On a host of both roles, nothing at all was said of a class on air; what is wrong is said, too."""
    commit(streamer_engine, add, prepare("c-1", 6666, 1e9), AiringState.AIRED, "", 1e9)
    (tmp_path / "teacher.db").touch()
    done = lectern(tmp_path, "explain", "c-1")
    assert (done.returncode, "this is no teacher's database of this release" in done.stdout) == (0, True), done.stderr
    assert "6666" in done.stdout
    done = lectern(tmp_path, "explain", "c-2")
    assert (done.returncode, "this is no teacher's database of this release" in done.stderr) == (2, True)


def test_a_drain_names_each_class_once_and_says_the_day_of_its_end() -> None:
    end = time.time() + 2 * 86400
    said = streamer.Left(on_air=["c-1"], waiting=["c-2"], last_end=end, others=["streamer2"]).line()
    assert (said.count("c-1"), said.count("c-2"), formatting.moment(end) in said) == (1, 1, True)


@pytest.mark.parametrize(
    ("kind", "other", "rights", "listed"),
    [
        ("viewer", "client", ("--institution", "i-1"), "school  i-1  since "),
        ("client", "viewer", ("--may", "read"), "school  everything  may read  since "),
    ],
)
def test_a_token_is_made_once_listed_with_its_rights_and_revoked(
    teacher: Path, kind: str, other: str, rights: tuple[str, ...], listed: str
) -> None:
    """Viewers and clients have names of their own, and neither command touches the other's."""
    assert f"lectern {kind} add NAME" in lectern(teacher, kind, "ls").stdout
    made = json.loads(lectern(teacher, kind, "add", "school", *rights, "--json").stdout)
    page = f"/?token={made['token']}" if kind == "viewer" else ""
    assert (made["url"], bool(made["token"])) == (f"http://127.0.0.1:8800{page}", True)
    for one in (kind, other):
        again = lectern(teacher, one, "add", "school")
        assert (again.returncode, f"lectern {kind} revoke school" in again.stderr) == (2, True)
    said = lectern(teacher, kind, "ls").stdout
    assert (listed in said, made["token"] in said) == (True, False)
    (row,) = json.loads(lectern(teacher, kind, "ls", "--json").stdout)[f"{kind}s"]
    assert row.keys() == {"name", "institution_id", "made_at", "may"}, "nothing of the token"
    assert row["name"] == "school"
    assert "school" not in lectern(teacher, other, "ls").stdout
    assert [lectern(teacher, one, "revoke", "school").returncode for one in (other, kind, kind)] == [2, 0, 2]
