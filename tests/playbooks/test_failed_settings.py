"""A rollout that fails takes back only itself: the one below it may be of the same version, with other settings."""

import json
import os
import sys
from pathlib import Path

import pytest

from tests.playbooks.hosts.controller import SIGN_KEY, Controller

pytestmark = pytest.mark.live

LECTERN = """#!{python} -S
import json, sys
step, given = sys.argv[2:], sys.stdin.read()
with open({did!r}, "a") as log:
    log.write(json.dumps([step, given]) + "\\n")
told = {{"preflight": {{"state": "untouched"}}, "open": {{"opened": True}}, "ended": {{"failed": True, "msg": "no"}}}}
print(json.dumps({{"changed": False, "said": [], **told.get(step[0], {{}})}}))
"""


@pytest.mark.parametrize("role", ["streamer", "teacher"])
def test_what_goes_back_is_the_rollout_that_failed_and_no_other_of_its_version(tmp_path: Path, role: str) -> None:
    """By the time the playbook hears of the failure the host has gone back, and what stands there is the one below."""
    root = tmp_path / "root"
    did, program = root / "did", root / "releases/2.0.0/venv/bin/lectern"
    program.parent.mkdir(parents=True)
    program.write_text(LECTERN.format(python=sys.executable, did=str(did)))
    program.chmod(0o755)
    of_role = {
        "root": str(root),
        "code_dir": str(tmp_path),
        "log_dir": str(tmp_path),
        "user": "root",
        "old_programs": [],
    }
    fields = {f"{role}_{name}": value for name, value in of_role.items()} | {"teacher_transcode_sign_key": SIGN_KEY}
    here = {"ansible_connection": "local", "ansible_become": False, "ansible_python_interpreter": sys.executable}
    here |= {"lectern_redis_url": "redis://127.0.0.1:1/0", "lectern_prefect_api_url": "http://127.0.0.1:1/api"}
    inventory = {f"{role}s": {"hosts": {f"{role}1": fields}}, "all": {"vars": here}}
    controller = Controller(tmp_path, inventory, os.environ["PATH"])
    played = controller.run("rollout", "-e", "release=2.0.0", "--tags", "window").assert_failed()
    assert "What had been changed on the host was taken back" in played.output
    calls = [json.loads(line) for line in did.read_text().splitlines()]
    (back,) = [given for step, given in calls if step == ["rollback"]]
    (begun,) = [given for step, given in calls if step == ["open"]]
    assert json.loads(back) == {
        **json.loads(begun),
        "even_on_air": False,
        "restore_database": False,
        "half_only": False,
    }
