"""Commands of RUNBOOK.md are typed on hosts, and show what they are for."""

import json
import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stage import Stage, Town, runbook, staged, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.live

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
    "lectern book FILE": "lectern explain ",
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
    "redis-cli -u REDIS_URL DEL LIST": "0",
    "redis-cli -u REDIS_URL LRANGE LIST 0 -1": "",
    "redis-cli ACL GETUSER NAME": "flags",
    "redis-cli ACL WHOAMI": "default",
    "redis-cli INFO memory": "used_memory",
    "redis-cli TYPE KEY": "none",
    "redis-cli XREVRANGE dead_letter + - COUNT 5": "not JSON",
    "redis-cli ping": "PONG",
    "sqlite3 /opt/lectern/rollout/backups/ID/silent/task_list.db 'PRAGMA integrity_check'": "ok",
    "ssh-keygen -R '[HOST]:PORT' -f FILE": "updated",
    "ssh-keyscan -p PORT HOST >> FILE": "",
    "wget --spider -S URL": "200",
}


def test_what_is_typed_here_stands_in_the_book() -> None:
    """That each of its commands parses is a claim of `tests/text/test_runbook.py`."""
    assert TYPED.keys() - {line for heading in runbook.headings() for line in runbook.lines(heading)} == set()


@dataclass
class Office:
    """A teacher and a streamer, and one's own words for those of the book."""

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


@pytest.fixture(scope="module")
def office(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    folder, health_port = tmp_path_factory.mktemp("office"), free_port()
    with staged(town, folder) as stage:
        stage.own["streamer1"] = {"HEALTH_BIND": f"{HOST}:{health_port}"}
        stage.up("teacher", "streamer1")
        yield Office(stage, _words(stage, folder, health_port), folder)


def _words(stage: Stage, folder: Path, health_port: int) -> dict[str, str]:
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
    return {
        "redis-cli -u": "redis-cli -u",
        "redis-cli": f"redis-cli -p {town.redis_port}",
        "REDIS_URL": town.redis_url,
        "PREFECT_API_URL": stage.settings["PREFECT_API_URL"],
        "http://127.0.0.1:4200": f"http://{HOST}:{town.prefect_port}",
        "http://127.0.0.1:8801": f"http://{HOST}:{health_port}",
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
    if program != "lectern" and shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    done = office.type(command)
    assert done.returncode in ({0, 1} if program == "mount" else {0}), done.stderr  # nothing is mounted so
    word = TYPED[command]
    assert office.words.get(word, word) in done.stdout + done.stderr
