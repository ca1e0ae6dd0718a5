"""How the playbooks are written: Ansible can read them, the documented steps in their order, every input declared.

``make check`` has the linter look at them.
"""

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template

from lectern.rollout.spec import Spec
from lectern.rollout.steps import TASKS
from tests.playbooks import here
from tests.playbooks.here import ROOT

ROLES = ROOT / "playbooks" / "roles"
ROLE_NAMES = ("teacher", "streamer")
INVENTORY = ROOT / "inventory"
OF_HOSTS = sorted(
    [path for role in ROLE_NAMES for path in INVENTORY.glob(f"*/group_vars/{role}s/main.yml")]
    + [*INVENTORY.glob("*/host_vars/*.example")]
)
DOCUMENTED = {"teacher": "112344566", "streamer": "1234567888"}


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _flat(tasks: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Tasks in the order in which they are written, those of blocks in their place."""
    for task in tasks:
        if "block" in task:
            for part in ("block", "rescue", "always"):
                yield from _flat(task.get(part, []))
        else:
            yield task


def _all_tasks() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(ROLES.glob("*/tasks/*.yml")):
        yield from ((path, task) for task in _flat(_yaml(path)))
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in _yaml(path):
            yield from ((path, task) for task in _flat(play.get("tasks", [])))


@pytest.mark.parametrize("inventory", sorted(path.name for path in INVENTORY.iterdir() if path.is_dir()))
def test_every_playbook_can_be_read_with_every_inventory(inventory: str, tmp_path: Path) -> None:
    first, *others = sorted((ROOT / "playbooks").glob("*.yml"))
    done = here.played(first, *map(str, others), "--syntax-check", "-i", f"inventory/{inventory}", home=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("playbook: ") == 1 + len(others)
    assert "WARNING" not in done.stderr


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_each_documented_step_is_a_task_that_does_what_its_name_says(role: str) -> None:
    """The numbers of the note in their order, and behind the names the steps as the program knows them."""
    tasks = _flat(_yaml(ROLES / role / "tasks/steps.yml"))
    named = [(re.match(rf"{role.capitalize()} (\d) · \w", one["name"]), one) for one in tasks]
    numbered = [(match[1], one) for match, one in named if match]
    assert "".join(number for number, _ in numbered) == DOCUMENTED[role]
    steps = [task["lectern_step"]["step"] for _, task in numbered if "lectern_step" in task]
    assert steps == ["backup", *(one for one in TASKS[role] if one != "commit")]


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_every_input_is_declared_and_has_a_default_unless_it_is_required(role: str) -> None:
    [options] = [one["options"] for one in _yaml(ROLES / role / "meta/argument_specs.yml")["argument_specs"].values()]
    required = {name for name, option in options.items() if option.get("required")}
    defaults = set(_yaml(ROLES / role / "defaults/main.yml"))
    assert set(options) - required <= defaults <= set(options)


@pytest.mark.parametrize("file", OF_HOSTS, ids=lambda one: str(one.relative_to(INVENTORY)))
def test_every_variable_of_the_inventories_is_an_input_of_its_role(file: Path) -> None:
    for name, value in _yaml(file).items():
        declared = _yaml(ROLES / name.partition("_")[0] / "meta/argument_specs.yml")["argument_specs"]
        assert name in {option for part in declared.values() for option in part.get("options", {})}
        assert file.suffix != ".example" or "/root" not in str(value), "an ordinary user cannot work there"


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_what_is_wanted_leaves_out_only_what_is_the_other_roles(role: str) -> None:
    others = {
        "teacher": {"video_root", "old_video_roots", "record_patterns"},
        "streamer": {"config_file", "config", "rekey", "order_key", "unmatched_rules"},
    }[role] | {"restore_database", "even_on_air", "half_only", "further", "again"}
    own = [*_yaml(ROLES / role / "vars/main.yml")[f"{role}_wanted"]]
    shared = re.findall(r"^       '(\w+)':", (ROLES / "host/vars/main.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(own + shared) == sorted(set(Spec.model_fields) - others)


WARNED = ["bash: warning: setlocale: LC_ALL: cannot change locale (zh_CN.UTF-8)", "sudo: unable to resolve host s1"]


def test_what_is_asked_without_a_module_is_heard_behind_the_warnings_of_a_shell(tmp_path: Path) -> None:
    """They come by the same terminal."""
    given = {"host_code_dir": str(tmp_path), "host_log_dir": str(tmp_path / "no logs"), "host_user": "root"}
    variables = _yaml(ROLES / "host/vars/main.yml")

    def rendered(text: str, **more: object) -> Any:
        roles = {name: trust_as_template(value) for name, value in variables.items() if isinstance(value, str)}
        return Templar(DataLoader(), {**roles, **given, **more}).template(trust_as_template(text))

    (look,) = [
        one["ansible.builtin.raw"] for one in _yaml(ROLES / "host/tasks/look.yml") if "ansible.builtin.raw" in one
    ]
    said = subprocess.run(["sh", "-c", rendered(look)], capture_output=True, text=True, timeout=20, check=True).stdout
    looked = {"stdout_lines": [*WARNED, *said.splitlines()]}
    assert rendered("{{ [host_owner, host_missing] }}", host_looked=looked) == ["root", [str(tmp_path / "no logs")]]
    asked = _yaml(ROLES / "preflight/tasks/hosts.yml")
    (that,) = [one["ansible.builtin.assert"]["that"] for one in asked if "Python can do" in one["name"]]
    found = {"rc": 0, "stdout_lines": [*WARNED, "3.11"], "stdout": "\r\n".join([*WARNED, "3.11"])}
    assert [rendered(f"{{{{ {one} }}}}", preflight_python_found=found) for one in that] == [True, True]


def test_no_secret_is_on_a_command_line_or_in_an_environment_when_a_host_is_provisioned() -> None:
    """Both can be read by others on the host; Ansible's `environment:` puts its values on a command line."""
    for path, task in _all_tasks():
        if path.is_relative_to(ROLES / "provision"):
            argv = re.sub(r'"stdin": "[^"]*"', "", json.dumps(task.get("ansible.builtin.command", "")))
            assert "environment" not in task, f"{path.name}: {task['name']}"
            assert not re.search(r"password|auth_string|_login", argv), f"{path.name}: {task['name']}"


def test_every_step_on_a_host_blots_out_the_secrets() -> None:
    """By the defaults of the rollout's plays; what a rollback hands over has none."""
    plays = [one for one in _yaml(ROOT / "playbooks/rollout.yml") if "host_role" in one.get("vars", {})]
    given = [play["module_defaults"]["lectern_step"] for play in plays]
    assert [one["secrets"] for one in given] == ["{{ host_secrets }}"] * 4
    own = [task["lectern_step"] for _, task in _all_tasks() if "secrets" in task.get("lectern_step", {})]
    assert own
    assert all(one["wanted"].startswith("{{ host_standing | ") for one in own)


def test_hosts_are_begun_one_at_a_time_and_none_before_nothing_is_in_the_way_of_any() -> None:
    plays = [one for one in _yaml(ROOT / "playbooks/rollout.yml") if "tasks" in one]
    order = [("teachers", None), ("streamers", None), ("teachers", 1), ("streamers", 1)]
    assert [(one["hosts"], one.get("serial")) for one in plays] == order
    assert [play["serial"] for play in _yaml(ROOT / "playbooks/rollback.yml") if "serial" in play] == [1, 1]
    gates = [(ROLES / role / "tasks/before.yml").read_text(encoding="utf-8") for role in ROLE_NAMES]
    assert all("tasks_from: gates" in one and "tasks_from: open" not in one for one in gates)


def test_preparing_changes_nothing_in_prefect() -> None:
    """The deployments of a release replace those of the one that runs: they are made when it is about to be stopped."""
    deploys = [path.name for path, task in _all_tasks() if task.get("lectern_step", {}).get("step") == "deploy"]
    assert deploys == ["open.yml"]


def test_a_step_is_never_sent_twice() -> None:
    """Sent again after its connection broke it would be told that all is done: a failure would not be taken back."""
    assert "\nretries = 0\n" in (ROOT / "ansible.cfg").read_text()


def test_no_host_is_asked_by_a_proxy() -> None:
    """A host's /etc/environment may name one for apt; a streamer would be taken back, as if nobody leased it."""
    asks = [(path.name, task["ansible.builtin.uri"]) for path, task in _all_tasks() if "ansible.builtin.uri" in task]
    assert asks
    assert [name for name, ask in asks if ask.get("use_proxy", True)] == []
