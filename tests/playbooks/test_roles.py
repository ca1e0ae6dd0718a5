"""What the roles ask of a host is what the program understands."""

import configparser
import json
import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a package of their own
from pydantic import SecretStr

from lectern.rollout.backup import store
from lectern.rollout.spec import Spec
from lectern.settings import Settings, StreamerSettings, TeacherSettings
from tests.playbooks import here
from tests.playbooks.here import ROOT

pytestmark = pytest.mark.live

ROLES = ROOT / "playbooks" / "roles"
INVENTORIES = ("production", "staging")
SIGN_KEY = "CHANGE-ME was changed"
SETTINGS: dict[str, type[Settings]] = {"teacher": TeacherSettings, "streamer": StreamerSettings}
ASK = """
- hosts: teachers:streamers
  gather_facts: false
  vars:
    host_role: "{{ 'streamer' if 'streamers' in group_names else 'teacher' }}"
  tasks:
    - ansible.builtin.include_role: {name: "{{ host_role }}", tasks_from: before, public: true, apply: {when: false}}
    - ansible.builtin.import_role: {name: host, tasks_from: look}
    - ansible.builtin.copy:
        dest: "{{ out }}/{{ inventory_hostname }}.json"
        mode: "0600"
        content: >-
          {{ {'wanted': host_wanted, 'secrets': host_secrets} | to_json }}
"""


@dataclass(frozen=True)
class Asked:
    """What a role asks of one host of an inventory."""

    inventory: str
    host: str
    text: str

    @cached_property
    def wanted(self) -> Spec:
        return Spec.parse(json.dumps(json.loads(self.text)["wanted"]))

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
    """Each host of the inventories that the project comes with, its secrets those of the examples.

    Only the sign key is changed, as an operator must: no teacher starts with the example's.
    """
    return [one for name in INVENTORIES for one in _asked(tmp_path_factory.mktemp(name), name)]


def _asked(folder: Path, inventory: str, **more: object) -> Iterator[Asked]:
    done = _played(folder, inventory, ASK, **more)
    assert done.returncode == 0, done.stdout + done.stderr
    for file in sorted((folder / "out").iterdir()):
        yield Asked(inventory, file.stem, file.read_text())


def _played(folder: Path, inventory: str, text: str, **more: object) -> "subprocess.CompletedProcess[str]":
    playbook, out, there = folder / "ask.yml", folder / "out", folder / "there"
    playbook.write_text(text)
    for made in (out, there):
        made.mkdir()
    (folder / "roles").symlink_to(ROLES)  # the program's file is found beside the playbook
    given = {"out": str(out), "release": "2.0.0", "ansible_connection": "local", "ansible_become": False}
    given["vault_transcode_sign_key"] = SIGN_KEY
    given |= {f"{role}_{name}": str(there) for role in SETTINGS for name in ("code_dir", "log_dir")} | more
    vault = ROOT / "inventory/vault.yml.example"
    return here.played(playbook, "-i", f"inventory/{inventory}", "-e", f"@{vault}", "-e", json.dumps(given))


# -- what is asked ------------------------------------------------------------------------------------------------


def test_each_host_of_both_inventories_is_asked_for_what_the_rollout_can_read(asked: list[Asked]) -> None:
    assert {(one.inventory, one.wanted.role) for one in asked} == {(i, r) for i in INVENTORIES for r in SETTINGS}
    assert all(one.wanted.name == one.host for one in asked)


def test_nothing_runs_as_root_unless_the_inventory_says_so(tmp_path: Path) -> None:
    """The documented folder of the old program is root's."""
    gate = ASK[: ASK.index("    - ansible.builtin.copy")] + (
        "    - ansible.builtin.import_role: {name: host, tasks_from: gates}\n"
    )
    roots = dict.fromkeys(("streamer_code_dir", "teacher_code_dir"), "/")
    (tmp_path / "told").mkdir()
    (tmp_path / "untold").mkdir()
    refused = _played(tmp_path / "untold", "staging", gate, **roots)
    assert "Write streamer_user: lectern into the inventory" in " ".join(refused.stdout.split())
    users = dict.fromkeys(("streamer_user", "teacher_user"), "root")
    told = _played(tmp_path / "told", "staging", gate, **roots, **users)
    assert "belongs to root" not in " ".join(told.stdout.split())
    assert "lectern and wanted must be given" in " ".join(told.stdout.split()), "the next gate is asked"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to a user who is not there")
@pytest.mark.parametrize("part", ["{name: host, tasks_from: look}", "{name: provision, tasks_from: folders}"])
def test_an_old_folder_of_a_user_who_has_no_name_is_told_with_what_to_write(tmp_path: Path, part: str) -> None:
    """As one that was unpacked from another machine's archive."""
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    os.chown(nameless, 54_321, 54_321)
    look = ASK[: ASK.index("    - ansible.builtin.import_role")] + f"    - ansible.builtin.import_role: {part}\n"
    done = _played(tmp_path, "staging", look, streamer_code_dir=str(nameless))
    said = " ".join(done.stdout.split())
    assert done.returncode == 2
    assert f"{nameless} belongs to the user number 54321" in said
    assert "streamer_user: lectern" in said


def test_several_streamers_answer_where_the_others_reach_them(asked: list[Asked]) -> None:
    """They ask each other while the control host is away; one alone answers on its loopback."""
    binds = {one.host: one.wanted.env["HEALTH_BIND"] for one in asked if one.wanted.role == "streamer"}
    assert binds["streamer1"] == "192.0.2.21:8801"
    assert binds["staging-streamer"] == "127.0.0.1:8801"
    for one in asked:
        if one.wanted.role == "streamer":
            assert one.wanted.health_url == f"http://{binds[one.host]}/health"


def test_the_settings_are_fields_of_the_programs_settings_under_their_right_names(asked: list[Asked]) -> None:
    for one in asked:
        fields = one.settings.model_fields
        assert [name for name in one.wanted.env if name.lower() not in fields] == []
        required = {name for name, field in fields.items() if field.is_required()}
        assert required <= {name.lower() for name in one.wanted.env}


def test_every_setting_that_a_role_can_write_is_a_field_also_where_the_inventories_leave_it_empty() -> None:
    for role, settings in SETTINGS.items():
        names = yaml.safe_load((ROLES / role / "vars" / "main.yml").read_text(encoding="utf-8"))[f"{role}_settings"]
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
            assert one.wanted.documented == documented
        else:
            assert one.wanted.documented == {}


def test_the_two_documented_parameters_of_the_json_config_are_milliseconds(asked: list[Asked]) -> None:
    for one in asked:
        if one.wanted.role == "teacher":
            assert one.wanted.config == {"order_warn_time_out": 86_400_000, "transcoding_time_out": 120_000}


def test_the_two_documented_parameters_count_also_where_no_json_config_is(tmp_path: Path) -> None:
    more = {"teacher_config_file": "", "teacher_transcoding_time_out": 240_000}
    teacher = next(one for one in _asked(tmp_path, "production", **more) if one.wanted.role == "teacher")
    written = {name: float(teacher.wanted.env[name]) for name in ("TRANSCODING_TIME_OUT_S", "ORDER_WARN_TIME_OUT_S")}
    assert written == {"TRANSCODING_TIME_OUT_S": 240.0, "ORDER_WARN_TIME_OUT_S": 86_400.0}


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
        if isinstance(settings, TeacherSettings):
            assert settings.transcode_sign_key.get_secret_value() == SIGN_KEY
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


def test_the_password_of_a_database_and_the_key_of_a_bucket_are_written_and_blotted_out(tmp_path: Path) -> None:
    more = {
        "teacher_database_url": "postgresql+psycopg://lectern:of-the-database@db.example/lectern",
        "teacher_oss_access_key_id": "of-the-key",
        "teacher_oss_access_key_secret": "of-the-secret",
    }
    teacher = next(one for one in _asked(tmp_path, "production", **more) if one.wanted.role == "teacher")
    assert {"of-the-database", "of-the-key", "of-the-secret"} <= {*teacher.secrets}
    assert teacher.wanted.env["TEACHER_DATABASE_URL"] == more["teacher_database_url"]
    assert teacher.wanted.env["OSS_ACCESS_KEY_SECRET"] == "of-the-secret"
    assert store.of(teacher.wanted).shown == "db.example/lectern"


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
        own = f'LECTERN_SETTINGS="{one.wanted.root}/current/settings.env"'
        assert re.fullmatch(rf'HOME="/[^"]*",USER="{one.wanted.user}",{own}', one.conf["environment"])
