"""Commands of RUNBOOK.md are typed on hosts, and show what they are for."""

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stage import Child, Stage, Town, answers, runbook, staged, wait_until
from town import programs
from town.ports import HOST, free_port

pytestmark = pytest.mark.live
ROOT = Path(__file__).parents[2]

# What is typed here, and a word that an operator is to see then: the command may have looked, and shown nothing.
TYPED = {
    "REDISCLI_AUTH=… redis-cli ping": "PONG",
    "cp -p /opt/lectern/rollout/backups/ID/silent/task_list.db /root/firstleaprecord/code/task_list.db": "",
    "curl -I URL": "200",
    "curl -s http://127.0.0.1:4200/api/health": "true",
    "curl -s http://127.0.0.1:8801/health": '"ready":true',
    "curl PREFECT_API_URL/health": "true",
    "date": ":",
    "date -u": "UTC",
    "df -h": "%",
    "df -h /home/video": "%",
    "df -i": "%",
    "ffprobe URL": "Audio",
    "fuser -v teacher.db": "teacher.db",
    "lectern backup teacher --into FOLDER": "Its restore was tried",
    "lectern book FILE": "booked",
    "lectern cache ls": "STEM",
    "lectern cache reconcile": "",
    "lectern explain CLASS_ID": "placed",
    "lectern explain CLASS_ID --json": '"events"',
    "lectern explain NEW_CLASS_ID": "placed",
    "lectern explain RECORD_ID": "placed",
    "lectern init streamer": "",
    "lectern init teacher --check": "as it should be",
    "lectern init teacher": "",
    "lectern report": "class_id,",
    "lectern status": "streamer1",
    "lectern status --json": '"network"',
    "ls -l teacher.db": "teacher.db",
    "ls /opt/lectern/rollout/backups": "ID",
    "ls /var/backups/lectern": "ID",
    "mount | grep 'ro,'": "",
    "nc -vz HOST 1935": "",
    "redis-cli -u REDIS_URL ping": "PONG",
    "redis-cli ACL GETUSER NAME": "flags",
    "redis-cli ACL WHOAMI": "default",
    "redis-cli INFO memory": "used_memory",
    "redis-cli XREVRANGE dead_letter + - COUNT 5": "not JSON",
    "redis-cli ping": "PONG",
    "sqlite3 /opt/lectern/rollout/backups/ID/silent/task_list.db 'PRAGMA integrity_check'": "ok",
    "ssh-keygen -R '[HOST]:PORT' -f FILE": "updated",
    "ssh-keyscan -p PORT HOST >> FILE": "",
    "supervisorctl status": "RUNNING",
    "wget --spider -S URL": "200",
}


def test_what_is_typed_here_stands_in_the_book() -> None:
    """That each of its commands parses is a claim of `tests/text/test_runbook.py`."""
    assert TYPED.keys() - {line for heading in runbook.headings() for line in runbook.lines(heading)} == set()


@dataclass
class Office:
    """A teacher and a streamer under supervisord, as on their hosts, and one's own words for those of the book."""

    stage: Stage
    words: dict[str, str]
    folder: Path

    def type(self, command: str) -> "subprocess.CompletedProcess[str]":
        """Type a command with one's own words, on the host that it is for."""
        wanted = re.compile("|".join(map(re.escape, sorted(self.words, key=len, reverse=True))))
        own = wanted.sub(lambda one: self.words[one[0]], command)
        if own.startswith("lectern "):
            who = "streamer1" if "cache" in own or "streamer" in own else "teacher"
            return self.stage.lectern(who, *own.split()[1:])
        return subprocess.run(
            ["sh", "-c", own],
            env=self.stage.environment("teacher"),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def states(self) -> dict[str, str]:
        """What supervisord says of its programs."""
        return {
            name: state for name, state, *_ in map(str.split, self.type("supervisorctl status").stdout.splitlines())
        }


SUPERVISORD = """
[unix_http_server]
file={folder}/s
[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[supervisorctl]
serverurl=unix://{folder}/s
"""
PROGRAM = """
[program:{name}]
command={folder}/{name}.sh
autostart={autostart}
stopasgroup=true
"""


def supervised(folder: Path, name: str, command: list[str], environment: dict[str, str], *, autostart: bool) -> str:
    """A program of supervisord; its environment is in a script, for supervisord reads a % in its own way."""
    script = folder / f"{name}.sh"
    said = "".join(f"export {key}={subprocess.list2cmdline([value])}\n" for key, value in environment.items())
    words = " ".join(f"'{word}'" for word in command)
    script.write_text(f"#!/bin/sh\n{said}exec {words}\n")
    script.chmod(0o755)
    return PROGRAM.format(folder=folder, name=name, autostart=str(autostart).lower())


@pytest.fixture(scope="module")
def office(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder = tmp_path_factory.mktemp("office")
    redis_port, prefect_port, health_port = free_port(), free_port(), free_port()
    with staged(town, folder) as stage:
        stage.own["streamer1"] = {"HEALTH_BIND": f"{HOST}:{health_port}"}
        stage.init("teacher", "streamer1")
        lectern = [sys.executable, "-c", "from lectern.cli import main; main()", "serve"]
        prefect = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)]
        playout = [
            sys.executable,
            "-c",
            "from lectern.cli import main; main()",
            "playout",
            "--dir",
            str(folder / "air"),
        ]
        redis = [programs.redis_server(), "--port", str(redis_port), "--bind", HOST, "--save", "", "--dir", str(folder)]
        home = {**town.environment, "PREFECT_HOME": str(folder / "prefect")}
        conf = SUPERVISORD.format(folder=folder)
        conf += supervised(
            folder, "lectern-teacher", [*lectern, "teacher"], stage.environment("teacher"), autostart=True
        )
        streamer = stage.environment("streamer1")
        conf += supervised(folder, "lectern-streamer", [*lectern, "streamer"], streamer, autostart=True)
        conf += supervised(folder, "redis", redis, town.environment, autostart=False)
        conf += supervised(folder, "playout", playout, town.environment, autostart=False)
        conf += supervised(folder, "prefect", prefect, home, autostart=False)
        (folder / "supervisord.conf").write_text(conf)
        argv = [sys.executable, "-m", "supervisor.supervisord", "-c", str(folder / "supervisord.conf")]
        supervisord = Child(argv, town.environment, folder / "supervisord.out")
        stage.play("streamer1")  # without it, it is ready for a minute only
        try:
            yield Office(stage, _words(stage, folder, prefect_port, health_port), folder)
        finally:
            supervisord.end()


def _words(stage: Stage, folder: Path, prefect_port: int, health_port: int) -> dict[str, str]:
    """What the operator has for the words of the book; a class is booked, a file backed up, a message unreadable."""
    town, record = stage.town, stage.town.record()
    class_id = stage.book_on_stream(stage.booking(record))
    assert stage.answer(class_id, timeout_s=90)["result"] == "success"
    stage.publish("order", "please")
    wait_until(lambda: stage.stream(f"{stage.prefix}:dead_letter"), description="it is a dead letter")
    backup = folder / "backups" / "made" / "silent"
    backup.mkdir(parents=True)
    with closing(sqlite3.connect(backup / "task_list.db")) as saved:
        saved.execute("CREATE TABLE task_list (class_id PRIMARY KEY)")
    (folder / "booking.json").write_text(json.dumps(stage.booking(record)))
    known_hosts = folder / "known_hosts"
    known_hosts.write_text(town.ssh.known_hosts.read_text())
    ctl = f"{sys.executable} -m supervisor.supervisorctl"
    return {
        "supervisorctl -c /etc/lectern/supervisord.conf": f"{ctl} -c {folder}/supervisord.conf",
        "supervisorctl": f"{ctl} -c {folder}/supervisord.conf",
        "OLD_PROGRAM": "lectern-streamer",
        "redis-cli -u": "redis-cli -u",
        "redis-cli": f"redis-cli -p {town.redis_port}",
        "REDIS_URL": town.redis_url,
        "PREFECT_API_URL": stage.settings["PREFECT_API_URL"],
        "http://127.0.0.1:4200": f"http://{HOST}:{town.prefect_port}",
        "http://127.0.0.1:8801": f"http://{HOST}:{health_port}",
        "new Prefect": f"http://{HOST}:{prefect_port}/api/health",
        "dead_letter": f"{stage.prefix}:dead_letter",
        "URL": town.origin.url_for(f"{record}/{record}.flv"),
        "CLASS_ID": class_id,
        "NEW_CLASS_ID": class_id,
        "RECORD_ID": str(record),
        "KEY": f"{stage.prefix}:key",
        "LIST": f"{stage.prefix}:list",
        "GETUSER NAME": "GETUSER default",
        "STEM": str(record),
        "lectern book FILE": f"lectern book {folder}/booking.json",
        "FILE": str(known_hosts),
        "[HOST]:PORT": f"[{HOST}]:{town.ssh.port}",
        "HOST 1935": f"{HOST} {town.receiver.port}",
        "HOST": HOST,
        "PORT": str(town.ssh.port),
        "/opt/lectern/rollout/backups": str(folder / "backups"),
        "ID": "made",
        "/var/backups/lectern": str(folder / "backups"),
        "FOLDER": str(folder / "nightly"),
        "/root/firstleaprecord/code/task_list.db": str(folder / "restored.db"),
        "/home/video": str(folder / "streamer1"),
        "teacher.db": str(stage.database("teacher")),
        "REDISCLI_AUTH": "REDISCLI_AUTH",
        "…": "made-up",
    }


@pytest.mark.parametrize("command", sorted(TYPED))
def test_the_command_is_understood_and_shows_what_it_is_for(office: Office, command: str) -> None:
    """Those of a program that this machine lacks are passed over; the hosts have it."""
    program = next(word for word in command.split() if "=" not in word)
    if program not in {"lectern", "supervisorctl"} and shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    done = office.type(command)
    # The mount is there to be found, and supervisorctl says by 3 that some of its programs do not run.
    assert done.returncode in {"mount": {0, 1}, "supervisorctl": {0, 3}}.get(program, {0}), done.stderr
    word = TYPED[command]
    assert office.words.get(word, word) in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("redis-cli") is None, reason="no redis-cli here")
def test_a_key_of_a_wrong_type_is_put_aside_and_a_waiting_list_is_read_and_deleted(office: Office) -> None:
    def said(command: str) -> list[str]:
        return office.type(command).stdout.split()

    office.type("redis-cli SET KEY odd")
    assert said("redis-cli TYPE KEY") == ["string"]
    assert said("redis-cli RENAMENX KEY KEY.old") == ["1"]
    assert said("redis-cli TYPE KEY") == ["none"]
    office.type("redis-cli RPUSH LIST c-1 c-2")
    assert said("redis-cli -u REDIS_URL LRANGE LIST 0 -1") == ["c-1", "c-2"]
    assert said("redis-cli -u REDIS_URL DEL LIST") == ["1"]
    assert said("redis-cli -u REDIS_URL LRANGE LIST 0 -1") == []


def test_hosts_and_servers_are_stopped_and_started(office: Office) -> None:
    def all_run() -> bool:
        states = office.states()
        return all(states[one] == "RUNNING" for one in ("lectern-teacher", "lectern-streamer"))

    assert office.type("supervisorctl stop all").returncode == 0
    assert "RUNNING" not in office.states().values()
    both = ("lectern-teacher", "lectern-streamer")
    for one in (f"{verb} {program}" for verb in ("start", "restart") for program in both):
        done = office.type(f"supervisorctl {one}")
        assert "started" in done.stdout, done.stdout
    wait_until(all_run, description="both run")
    assert "messages wait" in wait_until(
        lambda: (
            office.type("supervisorctl tail -3000 OLD_PROGRAM stderr").stdout
            or office.type("supervisorctl tail -3000 lectern-streamer").stdout
        ),
        description="the log has its first lines",
    )
    for one in ("redis", "playout"):
        assert "started" in office.type(f"supervisorctl -c /etc/lectern/supervisord.conf restart {one}").stdout
        assert office.states()[one] == "RUNNING"
    assert "started" in office.type("supervisorctl -c /etc/lectern/supervisord.conf start prefect").stdout
    wait_until(lambda: answers(office.words["new Prefect"]), timeout_s=90, description="Prefect is up")
    office.type("supervisorctl stop all")
    done = office.type("supervisorctl start all")
    assert done.stdout.count("started") == 5
    wait_until(all_run, description="both run again")


def test_a_cancelled_class_lets_its_rendition_go_and_it_can_be_evicted(office: Office) -> None:
    stage, record = office.stage, office.stage.town.record()
    class_id = stage.book_on_stream(stage.booking(record))
    assert stage.answer(class_id)["result"] == "success"
    mine = Office(stage, {**office.words, "CLASS_ID": class_id, "STEM": str(record)}, office.folder)
    refused = mine.type("lectern cache evict STEM")
    assert refused.returncode == 2
    assert "1 class needs it" in refused.stderr
    assert mine.type("lectern cancel CLASS_ID").returncode == 0
    wait_until(lambda: stage.num_cite("streamer1", str(record)) == 0, description="its citation is taken back")
    assert mine.type("lectern cache evict STEM").returncode == 0
    assert str(record) not in mine.type("lectern cache ls").stdout
