"""What the roles ask of a host is what the program understands, in the order of the rollout's documented steps."""

import configparser
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from pydantic import SecretStr

from lectern.rollout.wanted import Wanted
from lectern.settings import Settings, StreamerSettings, TeacherSettings

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "playbooks" / "roles"
INVENTORIES = ("production", "staging")
SETTINGS: dict[str, type[Settings]] = {"teacher": TeacherSettings, "streamer": StreamerSettings}
DOCUMENTED = {"teacher": ["1", "1-6", *"123456"], "streamer": ["1", "2-8", *"2345678"]}
ASK = """
- hosts: teachers:streamers
  gather_facts: false
  vars:
    role: "{{ 'streamer' if 'streamers' in group_names else 'teacher' }}"
  tasks:
    - ansible.builtin.include_role: {name: "{{ role }}", tasks_from: look, public: true}
    - ansible.builtin.copy:
        dest: "{{ out }}/{{ inventory_hostname }}.json"
        mode: "0600"
        content: >-
          {{ {'wanted': lookup('vars', role ~ '_wanted'), 'secrets': lookup('vars', role ~ '_secrets')} | to_json }}
"""


@dataclass(frozen=True)
class Asked:
    """What a role asks of one host of an inventory."""

    inventory: str
    host: str
    text: str

    @cached_property
    def wanted(self) -> Wanted:
        return Wanted.parse(json.dumps(json.loads(self.text)["wanted"]))

    @cached_property
    def secrets(self) -> list[str]:
        found: list[str] = json.loads(self.text)["secrets"]
        return found

    @property
    def settings(self) -> type[Settings]:
        return SETTINGS[self.wanted.role]

    @property
    def conf(self) -> dict[str, str]:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(self.wanted.program_conf)
        return dict(parser[f"program:{self.wanted.program}"])


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> list[Asked]:
    """Each host of the inventories that the project comes with, its secrets those of the examples."""
    return [one for name in INVENTORIES for one in _asked(tmp_path_factory.mktemp(name), name)]


def _asked(folder: Path, inventory: str) -> Iterator[Asked]:
    playbook, out, there = folder / "ask.yml", folder / "out", folder / "there"
    playbook.write_text(ASK)
    for made in (out, there, folder / "templates"):
        made.mkdir()
    for role in SETTINGS:  # outside of a role, templates are looked for beside the playbook
        name = f"lectern-{role}.conf.j2"
        (folder / "templates" / name).symlink_to(ROLES / role / "templates" / name)
    given = {"out": str(out), "release": "2.0.0", "ansible_connection": "local", "ansible_become": False}
    given |= {f"{role}_{name}": str(there) for role in SETTINGS for name in ("code_dir", "log_dir")}
    vault = ROOT / "inventory" / inventory / "group_vars" / "all" / "vault.yml.example"
    argv = [str(Path(sys.executable).with_name("ansible-playbook")), str(playbook), "-i", f"inventory/{inventory}"]
    done = subprocess.run(
        [*argv, "-e", f"@{vault}", "-e", json.dumps(given)],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(folder),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_HOME": str(folder / "a"),
        },
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for file in sorted(out.iterdir()):
        yield Asked(inventory, file.stem, file.read_text())


# -- what is asked ------------------------------------------------------------------------------------------------


def test_each_host_of_both_inventories_is_asked_for_what_the_rollout_can_read(asked: list[Asked]) -> None:
    assert {(one.inventory, one.wanted.role) for one in asked} == {(i, r) for i in INVENTORIES for r in SETTINGS}
    assert all(one.wanted.name == one.host for one in asked)


def test_the_settings_are_fields_of_the_programs_settings_under_their_right_names(asked: list[Asked]) -> None:
    for one in asked:
        fields = one.settings.model_fields
        assert [name for name in one.wanted.env if name.lower() not in fields] == []
        required = {name for name, field in fields.items() if field.is_required()}
        assert required <= {name.lower() for name in one.wanted.env}


def test_every_setting_that_a_role_can_write_is_a_field_also_where_the_inventories_leave_it_empty() -> None:
    for role, settings in SETTINGS.items():
        names = _yaml(ROLES / role / "vars" / "main.yml")[f"{role}_settings"]
        assert [name for name in names if name.lower() not in settings.model_fields] == []


def test_the_four_documented_parameters_are_written_as_documented(asked: list[Asked]) -> None:
    documented = {
        "wget_path": "/usr/bin/wget",
        "DOWNLOAD_RATE": "1000k",
        "MAX_VIDEO_NUM": "1000",
        "MAX_VIDEO_SIZE": "1000",
    }
    for one in asked:
        if one.wanted.role == "streamer":
            assert {name: one.wanted.env.get(name) for name in documented} == documented


def test_the_two_documented_parameters_of_the_json_config_are_milliseconds(asked: list[Asked]) -> None:
    for one in asked:
        if one.wanted.role == "teacher":
            assert one.wanted.config == {"order_warn_time_out": 86_400_000, "transcoding_time_out": 120_000}


def test_the_program_starts_with_what_is_written_for_it_and_answers_where_it_is_asked(
    asked: list[Asked], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for one in asked:
        for name in list(os.environ):
            monkeypatch.delenv(name)
        for name, value in one.wanted.env.items():
            monkeypatch.setenv(name, value)
        if one.wanted.config_file is not None:
            file = tmp_path / one.wanted.config_file
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(one.wanted.config))
        settings = one.settings.load()
        assert settings.name == one.wanted.name
        assert settings.database_url == f"sqlite:///{one.wanted.database}"
        assert settings.redis_url.get_secret_value() == one.wanted.redis_url
        assert settings.prefect_api_url == one.wanted.prefect_api_url
        assert settings.waiting_key == one.wanted.waiting_key
        assert one.wanted.health_url == f"http://{settings.bind}/health"


def test_every_secret_is_blotted_out_of_what_is_shown(asked: list[Asked]) -> None:
    for one in asked:
        assert one.secrets
        assert all(one.secrets)
        for name, value in one.wanted.env.items():
            if SecretStr.__name__ in str(one.settings.model_fields[name.lower()].annotation) and "CHANGE-ME" in value:
                assert any(secret in value for secret in one.secrets), name


# -- supervisord's file -------------------------------------------------------------------------------------------


def test_supervisord_asks_the_program_to_end_and_waits_longer_than_it_drains(asked: list[Asked]) -> None:
    for one in asked:
        assert one.conf["stopsignal"] == "TERM"
        assert float(one.conf["stopwaitsecs"]) > one.settings.model_fields["drain_timeout_s"].default
        assert one.conf["autorestart"] == "true"


def test_the_program_runs_from_the_link_in_the_old_folder_as_its_owner_and_finds_a_home(asked: list[Asked]) -> None:
    for one in asked:
        assert one.conf["command"] == f"{one.wanted.root}/current/venv/bin/lectern serve {one.wanted.role}"
        assert one.conf["directory"] == str(one.wanted.code_dir)
        assert one.conf["user"] == one.wanted.user
        assert re.fullmatch(rf'HOME="/[^"]*",USER="{one.wanted.user}"', one.conf["environment"])


# -- how the roles are written ------------------------------------------------------------------------------------


def _yaml(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _flat(tasks: list[dict[str, Any]], folder: Path) -> Iterator[dict[str, Any]]:
    """Tasks in the order in which they are done, those of imported files in their place."""
    for task in tasks:
        imported = next(
            (task[key] for key in task if key.rpartition(".")[2] in ("import_tasks", "include_tasks")), None
        )
        if imported:
            yield from _flat(_yaml(folder / imported), folder)
        elif "block" in task:
            for part in ("block", "rescue", "always"):
                yield from _flat(task.get(part, []), folder)
        else:
            yield task


def _all_tasks() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(ROLES.glob("*/tasks/*.yml")):
        for task in _flat([one for one in _yaml(path) if not _imports(one)], path.parent):
            if not _imports(task):
                yield path, task
    for path in sorted((ROOT / "playbooks").glob("*.yml")):
        for play in _yaml(path):
            for task in _flat(play.get("tasks", []), path.parent):
                yield path, task


def _imports(task: dict[str, Any]) -> bool:
    return any(key.rpartition(".")[2] in ("import_tasks", "include_tasks") for key in task)


@pytest.mark.parametrize("role", SETTINGS)
def test_the_numbers_of_the_documented_steps_stand_in_the_names_in_their_order(role: str) -> None:
    names = [task["name"] for task in _flat(_yaml(ROLES / role / "tasks" / "main.yml"), ROLES / role / "tasks")]
    found = [match[1] for name in names if (match := re.match(rf"{role.capitalize()} ([\d-]+) · \w", name))]
    assert found == DOCUMENTED[role]


@pytest.mark.parametrize("role", SETTINGS)
def test_every_input_is_declared_and_has_a_default_unless_it_is_required(role: str) -> None:
    entries = _yaml(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]
    defaults = set(_yaml(ROLES / role / "defaults" / "main.yml"))
    assert set(entries) == {"main", "rollback", "verify"}
    for entry in entries.values():
        required = {name for name, option in entry["options"].items() if option.get("required")}
        assert defaults <= set(entry["options"])
        assert set(entry["options"]) - defaults <= required


@pytest.mark.parametrize("role", SETTINGS)
def test_every_variable_of_the_inventories_is_an_input_of_its_role(role: str) -> None:
    declared = _yaml(ROLES / role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    for path in (ROOT / "inventory").glob(f"*/group_vars/{role}s/main.yml"):
        assert [name for name in _yaml(path) if name not in declared] == []


@pytest.mark.parametrize("role", SETTINGS)
def test_what_is_wanted_leaves_out_only_what_is_the_other_roles(role: str) -> None:
    others = {
        "teacher": {"video_root", "old_video_roots", "record_patterns"},
        "streamer": {"config_file", "config", "rekey", "order_key"},
    }
    given = set(_yaml(ROLES / role / "vars" / "main.yml")[f"{role}_wanted"])
    assert given == set(Wanted.model_fields) - others[role]


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


def test_every_command_says_when_it_has_changed_something() -> None:
    commands = ("command", "raw", "shell", "script")
    unguarded = [
        (path.parent.parent.name, task["name"])
        for path, task in _all_tasks()
        for key, given in task.items()
        if key in {f"ansible.builtin.{one}" for one in commands}
        and "changed_when" not in task
        and not (isinstance(given, dict) and {"creates", "removes"} & set(given))
    ]
    assert unguarded == []


def test_every_step_on_a_host_blots_out_the_secrets() -> None:
    steps = [task["lectern_step"] for _, task in _all_tasks() if "lectern_step" in task]
    assert steps
    assert [step for step in steps if "_secrets" not in step.get("secrets", "")] == []


@pytest.mark.parametrize("playbook", ["rollout", "rollback"])
def test_one_host_at_a_time_and_a_lost_one_is_never_followed_by_the_next(playbook: str) -> None:
    plays = _yaml(ROOT / "playbooks" / f"{playbook}.yml")
    assert [play.get("serial") for play in plays[1:]] == [1, 1]
    assert "any_errors_fatal" not in (ROOT / "playbooks" / f"{playbook}.yml").read_text()


def test_a_host_that_fails_goes_back_by_the_tasks_of_the_rollback_and_ends_the_roll() -> None:
    for play in _yaml(ROOT / "playbooks" / "rollout.yml")[1:]:
        first, block = play["tasks"]
        assert first["ansible.builtin.import_role"]["tasks_from"] == "unbroken"
        assert first["tags"] == ["always"]
        back, end = block["rescue"]
        assert back["ansible.builtin.import_role"]["tasks_from"] == "rollback"
        assert end["ansible.builtin.import_role"]["tasks_from"] == "end"
        assert (back["tags"], end["tags"]) == (["always"], ["always"]), "--tags may not leave the way back out"
    [last] = _yaml(ROLES / "preflight" / "tasks" / "end.yml")
    assert "ansible.builtin.fail" in last
