"""Commands of RUNBOOK.md that ask our hosts and servers are typed, and show what they are for."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.stage import Stage, Town, runbook, staged, wait_until
from town.ports import HOST, free_port

pytestmark = pytest.mark.live

# What is typed here, and a word that an operator is to see then: the command may have looked, and shown nothing.
TYPED = {
    "REDISCLI_AUTH=… redis-cli ping": "PONG",
    "curl -s http://127.0.0.1:8801/health": '"ready":true',
    "curl PREFECT_API_URL/health": "true",
    "lectern backup teacher --into FOLDER": "Its restore was tried",
    "lectern book FILE": "lectern explain ",
    "lectern cache ls": "STEM",
    "lectern cache reconcile": "",
    "lectern explain CLASS_ID": "placed",
    "lectern explain CLASS_ID --json": '"events"',
    "lectern explain RECORD_ID": "placed",
    "lectern init streamer": "",
    "lectern init teacher --check": "as it should be",
    "lectern init teacher": "",
    "lectern report": "class_id,",
    "lectern status": "streamer1",
    "lectern status --json": '"network"',
    "redis-cli -u REDIS_URL DEL LIST": "0",
    "redis-cli -u REDIS_URL LRANGE LIST 0 -1": "",
    "redis-cli ACL GETUSER NAME": "flags",
    "redis-cli XREVRANGE dead_letter + - COUNT 5": "not JSON",
}


@pytest.fixture(scope="module")
def office(town: Town, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A teacher and a streamer."""
    with staged(town, tmp_path_factory.mktemp("office")) as stage:
        stage.own["streamer1"] = {"HEALTH_BIND": f"{HOST}:{free_port()}"}
        stage.up("teacher", "streamer1")
        yield stage


@pytest.fixture(scope="module")
def words(office: Stage) -> dict[str, str]:
    """What the operator has for the words of the book; a class is booked, and a message unreadable."""
    stage, town, folder, record = office, office.town, office.folder, office.town.record()
    class_id = stage.book_on_stream(stage.booking(record))
    assert stage.answer(class_id, timeout_s=90)["result"] == "success"
    stage.publish("order", "please")
    wait_until(lambda: stage.stream(f"{stage.prefix}:dead_letter"), description="it is a dead letter")
    (folder / "booking.json").write_text(json.dumps(stage.booking(record)))
    return {
        "redis-cli -u": "redis-cli -u",
        "redis-cli": f"redis-cli -p {town.redis_port}",
        "REDIS_URL": town.redis_url,
        "PREFECT_API_URL": stage.settings["PREFECT_API_URL"],
        "http://127.0.0.1:8801": f"http://{stage.own['streamer1']['HEALTH_BIND']}",
        "dead_letter": f"{stage.prefix}:dead_letter",
        "CLASS_ID": class_id,
        "RECORD_ID": str(record),
        "LIST": f"{stage.prefix}:list",
        "NAME": "default",
        "STEM": str(record),
        "FILE": str(folder / "booking.json"),
        "FOLDER": str(folder / "nightly"),
        "REDISCLI_AUTH": "REDISCLI_AUTH",
        "…": "made-up",
    }


@pytest.mark.parametrize("command", sorted(TYPED))
def test_the_command_stands_in_the_book_and_shows_what_it_is_for(
    office: Stage, words: dict[str, str], command: str
) -> None:
    """Those of a program that this machine lacks are passed over; the hosts have it."""
    assert command in {line for heading in runbook.headings() for line in runbook.lines(heading)}
    program = next(word for word in command.split() if "=" not in word)
    if program != "lectern" and shutil.which(program) is None:
        pytest.skip(f"no {program} here")
    wanted = re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))
    own = wanted.sub(lambda one: words[one[0]], command)
    if own.startswith("lectern "):
        done = office.lectern("streamer1" if "cache" in own or "streamer" in own else "teacher", *own.split()[1:])
    else:
        its: dict[str, Any] = {"env": office.environment("teacher"), "cwd": office.folder, "timeout": 90}
        done = subprocess.run(["sh", "-c", own], capture_output=True, text=True, check=False, **its)
    assert done.returncode == 0, done.stderr
    word = TYPED[command]
    assert words.get(word, word) in done.stdout + done.stderr
