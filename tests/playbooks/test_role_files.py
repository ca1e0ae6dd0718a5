"""How the roles are written: the documented steps in their order, every input declared."""

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

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "playbooks" / "roles"
ROLE_NAMES = ("teacher", "streamer")
INVENTORY = ROOT / "inventory"
OF_HOSTS = sorted(
    [path for role in ROLE_NAMES for path in INVENTORY.glob(f"*/group_vars/{role}s/main.yml")]
    + [*INVENTORY.glob("*/host_vars/*.example")]
)
DOCUMENTED = {"teacher": [*"112344566"], "streamer": [*"1234567888"]}
STEPS = {
    "teacher": ["backup", "stop", "switch", "create", "rekey", "adopt", "config", "reload", "healthy"],
    "streamer": ["backup", "stop", "alter", "create", "switch", "env", "adopt", "reload", "healthy"],
}


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _imported(task: dict[str, Any]) -> str | None:
    return next((task[key] for key in task if key.rpartition(".")[2] in ("import_tasks", "include_tasks")), None)


def _flat(tasks: list[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Tasks in the order in which they are done, those of imported files in their place."""
    for task in tasks:
        if imported := _imported(task):
            yield from _flat(_yaml(folder / imported), folder)
        elif "block" in task:
            for part in ("block", "rescue", "always"):
                yield from _flat(task.get(part, []), folder)
        else:
            yield task


def _all_tasks() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(ROLES.glob("*/tasks/*.yml")):
        for task in _flat([one for one in _yaml(path) if not _imported(one)], path.parent):
            yield path, task
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in _yaml(path):
            for task in _flat(play.get("tasks", []), path.parent):
                yield path, task


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_each_documented_step_is_a_task_that_does_what_its_name_says(role: str) -> None:
    """The numbers of the note in their order, and behind each name the step and no other."""
    tasks = list(_flat(_yaml(ROLES / role / "tasks" / "steps.yml"), ROLES / role / "tasks"))
    numbered = [
        (match[1], task) for task in tasks if (match := re.match(rf"{role.capitalize()} (\d) · \w", task["name"]))
    ]
    assert [number for number, _ in numbered] == DOCUMENTED[role]
    steps = [task["lectern_step"]["step"] for _, task in numbered if "lectern_step" in task]
    assert steps == STEPS[role]
    assert set(TASKS[role]) - {"commit"} == set(steps) - {"backup"}
    assert [task["name"] for _, task in numbered if "ansible.builtin.debug" in task] == []


@pytest.mark.parametrize("role", ROLE_NAMES)
def test_every_input_is_declared_and_has_a_default_unless_it_is_required(role: str) -> None:
    entries = _yaml(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]
    defaults = set(_yaml(ROLES / role / "defaults" / "main.yml"))
    assert set(entries) == {"before"}
    for entry in entries.values():
        required = {name for name, option in entry["options"].items() if option.get("required")}
        assert defaults <= set(entry["options"])
        assert set(entry["options"]) - defaults <= required


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
    }
    own = set(_yaml(ROLES / role / "vars" / "main.yml")[f"{role}_wanted"])
    shared = set(
        re.findall(r"^       '(\w+)':", (ROLES / "host/vars/main.yml").read_text(encoding="utf-8"), re.MULTILINE)
    )
    assert own & shared == set()
    assert own | shared == set(Spec.model_fields) - others[role] - {
        "restore_database",
        "even_on_air",
        "half_only",
        "again",
    }


WARNED = ["bash: warning: setlocale: LC_ALL: cannot change locale (zh_CN.UTF-8)", "sudo: unable to resolve host s1"]


def test_what_is_asked_without_a_module_is_heard_behind_the_warnings_of_a_shell(tmp_path: Path) -> None:
    """They come by the same terminal."""
    here = {"host_code_dir": str(tmp_path), "host_log_dir": str(tmp_path / "no logs"), "host_user": "root"}
    variables = _yaml(ROLES / "host/vars/main.yml")

    def rendered(text: str, **more: object) -> Any:
        given = {name: trust_as_template(value) for name, value in variables.items() if isinstance(value, str)}
        return Templar(DataLoader(), {**given, **here, **more}).template(trust_as_template(text))

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


def test_no_module_is_used_but_ansibles_own_and_our_one() -> None:
    keywords = re.compile(
        r"name|register|when|tags|vars|become|become_user|loop|loop_control|delegate_to|changed_when|failed_when|"
        r"check_mode|until|retries|delay|notify|environment|no_log|run_once|args|diff|timeout|listen"
    )
    strange = [
        (path.name, key)
        for path, task in _all_tasks()
        for key in task
        if not keywords.fullmatch(key) and not key.startswith("ansible.builtin.") and key != "lectern_step"
    ]
    assert strange == []


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
    assert [(one["hosts"], one.get("serial")) for one in plays] == [
        ("teachers", None),
        ("streamers", None),
        ("teachers", 1),
        ("streamers", 1),
    ]
    assert [play["serial"] for play in _yaml(ROOT / "playbooks/rollback.yml") if "serial" in play] == [1, 1]
    assert not any(
        "any_errors_fatal" in (ROOT / f"playbooks/{name}.yml").read_text() for name in ("rollout", "rollback")
    )
    gates = [(ROLES / role / "tasks/before.yml").read_text(encoding="utf-8") for role in ROLE_NAMES]
    assert all("tasks_from: gates" in one for one in gates)
    assert not any("tasks_from: open" in one for one in gates)


def test_preparing_changes_nothing_in_prefect() -> None:
    """The deployments of a release replace those of the one that runs: they are made when it is about to be stopped."""
    deploys = [path.name for path, task in _all_tasks() if task.get("lectern_step", {}).get("step") == "deploy"]
    assert deploys == ["open.yml"]


def test_a_step_is_never_sent_twice() -> None:
    """Sent again after its connection broke it would be told that all is done: a failure would not be taken back."""
    assert "\nretries = 0\n" in (ROOT / "ansible.cfg").read_text()


def test_a_host_that_fails_takes_back_what_was_begun_on_it_and_ends_the_roll() -> None:
    for play in (one for one in _yaml(ROOT / "playbooks" / "rollout.yml") if "serial" in one):
        first, block = play["tasks"]
        assert first["ansible.builtin.import_role"]["tasks_from"] == "unbroken"
        assert first["tags"] == ["always"]
        back, end = block["rescue"]
        assert back["ansible.builtin.import_role"]["tasks_from"] == "back"
        assert end["ansible.builtin.import_role"]["tasks_from"] == "end"
        assert (back["tags"], end["tags"]) == (["always"], ["always"]), "--tags may not leave the way back out"
    [last] = _yaml(ROLES / "preflight" / "tasks" / "end.yml")
    assert "ansible.builtin.fail" in last
