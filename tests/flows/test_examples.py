"""The programs in examples/ do what their README says, against a real teacher and streamer."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from lectern.wire import schema
from lectern.wire.parser import PUBLISHED
from tests.stage import Stage
from tests.stage.hosts import SECRET

pytestmark = pytest.mark.live
EXAMPLES = Path(__file__).parents[2] / "examples"
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The Node.js program, with its library installed beside it."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is missing: the Node.js example is not run")
    folder = tmp_path_factory.mktemp("node") / "nodejs"
    shutil.copytree(EXAMPLES / "nodejs", folder, ignore=shutil.ignore_patterns("node_modules"))
    subprocess.run([npm, "install", "--no-audit", "--no-fund"], cwd=folder, check=True, timeout=180)
    return ["node", str(folder / "platform-client.mjs")]


@pytest.fixture(scope="module")
def token(stage: Stage) -> str:
    """The token of a client of the API."""
    made = json.loads(stage.lectern("teacher", "client", "add", "examples", "--json").stdout)
    return str(made["token"])


@pytest.fixture(params=["python", "nodejs", "python over HTTP", "nodejs over HTTP"])
def run(request: pytest.FixtureRequest, stage: Stage, token: str) -> Run:
    """Runs one of the two programs with the settings of the stage, over Redis or over HTTP."""
    if request.param.startswith("nodejs"):
        argv = request.getfixturevalue("node")
    else:
        argv = [sys.executable, str(EXAMPLES / "python" / "platform_client.py")]
    settings = {
        "REDIS_URL": stage.town.redis_url,
        "TRANSCODE_SIGN_KEY": SECRET,
        "TEACHER_API": f"http://{stage.settings['API_BIND']}",
        **({"TEACHER_TOKEN": token} if request.param.endswith("HTTP") else {}),
        **{
            f"{name.upper()}_CHANNEL": stage.channels[name]
            for name in ("order", "change", "cancel", "order_result", "change_result", "cancel_result")
        },
    }

    def with_arguments(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
        its: dict[str, Any] = {"env": {"PATH": os.environ["PATH"], **settings}, "timeout": 90, "input": given}
        return subprocess.run([*argv, *arguments], check=False, capture_output=True, text=True, **its)

    return with_arguments


def test_a_booking_is_answered_and_changed_and_a_cancel_ends_it(stage: Stage, run: Run) -> None:
    """The program waits for the answer and prints it; what it sent is of the schema, and so is what it got."""
    booking = stage.booking(stage.town.record("480P"), "480P", listed=("480P",), length_s=3600)
    done = run("book", "-", given=json.dumps(booking))
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["class_id"], answer["result"], answer["code"]) == (booking["class_id"], "success", 0)
    for message in (booking, answer):
        jsonschema.validate(message, schema.schema())
    later = {"end_time": booking["end_time"] + 600}
    changed = run("change", booking["class_id"], json.dumps(later))
    assert changed.returncode == 0, changed.stderr
    for message in ({"cmd": "change", "class_id": booking["class_id"], **later}, json.loads(changed.stdout)):
        jsonschema.validate(message, schema.schema())
    assert stage.order(booking["class_id"])["end_time"] == later["end_time"]
    assert run("cancel", booking["class_id"]).returncode == 0
    assert stage.order(booking["class_id"])["state"] == "cancelled"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing: its lines are not run")
def test_the_lines_of_curl_book_change_and_cancel_a_class(stage: Stage, token: str, tmp_path: Path) -> None:
    """What is sent is of the description at /openapi.json, and so is what comes."""
    booking = stage.booking(stage.town.record("480P"), "480P", listed=("480P",), length_s=3600, starts_in_s=1e6)
    (tmp_path / "booking.json").write_text(json.dumps(booking))
    lines = [one for one in (EXAMPLES / "README.md").read_text().splitlines() if one.startswith("curl ")]
    api = f"http://{stage.settings['API_BIND']}"
    described = httpx.get(f"{api}/openapi.json", trust_env=False).json()
    kinds = ("OrderResult", "ChangeResult", "CancelResult")
    for line, kind in zip(lines, kinds, strict=True):
        typed = line.replace("c-1001", booking["class_id"]).replace("1764014400", str(booking["end_time"] + 60))
        environment = {"PATH": os.environ["PATH"], "TEACHER_TOKEN": token, "TEACHER_API": api}
        done = subprocess.run(
            ["sh", "-c", f"{typed} -sS"], cwd=tmp_path, capture_output=True, check=True, timeout=90, env=environment
        )
        answer = json.loads(done.stdout)
        assert answer["result"] == "success", answer
        jsonschema.validate(answer, {**described, "$ref": f"#/components/schemas/{kind}"})


def test_a_refusal_is_told_by_the_exit_code(stage: Stage, run: Run) -> None:
    """The answer is printed as it came. A record that nobody booked is refused for that, not for its signature."""
    booking = stage.booking(stage.town.record(), starts_in_s=-7200, length_s=60)
    done = run("book", "-", given=json.dumps(booking))
    assert (done.returncode, json.loads(done.stdout)["code"]) == (1, 410)
    done = run("transcode", "999999", "480P")
    assert ["401" in done.stdout + done.stderr, "404" in done.stdout + done.stderr] == [False, True]
    done = run("nonsense")
    assert (done.returncode, "usage" in done.stderr) == (2, True)


def test_the_schema_that_make_writes_is_one_and_has_every_message_that_the_platform_sends_and_reads() -> None:
    """The booking in the folder is of it, and none without what it needs."""
    made = subprocess.run(
        [sys.executable, "-m", "lectern.wire.schema"], capture_output=True, text=True, timeout=60, check=True
    )
    schema = json.loads(made.stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    kinds = [schema["$defs"][one["$ref"].rpartition("/")[2]]["properties"]["cmd"]["const"] for one in schema["oneOf"]]
    read = ("order_result", "change_result", "cancel_result", "class_event", "alarm")
    assert sorted(kinds) == sorted([*PUBLISHED, *read])
    booking = json.loads((EXAMPLES / "booking.json").read_text())
    jsonschema.validate(booking, schema)
    for field in ("class_id", "push_url", "start_time", "cmd"):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({name: one for name, one in booking.items() if name != field}, schema)
