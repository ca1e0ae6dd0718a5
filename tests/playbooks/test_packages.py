"""Each host gets the packages that its own work needs."""

import json
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own

from tests.playbooks.here import ROOT
from tests.playbooks.test_prefect_apart import played

pytestmark = pytest.mark.live

TASKS = ROOT / "playbooks/roles/provision/tasks/main.yml"
LOOK = """
- hosts: teachers:streamers
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {{name: provision, tasks_from: command, public: true, apply: {{when: false}}}}
    - ansible.builtin.copy: {{content: {names}, dest: "{{{{ out }}}}/{{{{ inventory_hostname }}}}"}}
"""


@pytest.mark.parametrize(
    ("url", "expected"),
    [("postgresql+psycopg://lectern:x@192.0.2.10/lectern", True), ("sqlite:////srv/lectern/teacher.db", False)],
)
def test_a_teacher_on_postgresql_has_the_programs_that_back_it_up(tmp_path: Path, url: str, *, expected: bool) -> None:
    """Also the second one, which is no control host: without them its rollout and each night's backup fail."""
    tasks = yaml.safe_load(TASKS.read_text())
    [names] = [one["ansible.builtin.apt"]["name"] for one in tasks if "ansible.builtin.apt" in one]
    content = json.dumps(names.replace("{{ ", "{{ (").replace(" }}", ") | to_json }}"))
    second = json.dumps({"teachers": {"hosts": {"teacher2": {"ansible_host": "192.0.2.11"}}}})
    done = played(tmp_path, LOOK.format(names=content), second, teacher_database_url=url)
    assert done.returncode == 0, done.stdout + done.stderr
    for host in ("teacher1", "teacher2", "streamer1"):
        packages = json.loads((tmp_path / "out" / host).read_text())
        assert "sqlite3" in packages
        assert ("postgresql-client" in packages) is (expected and host.startswith("teacher"))
