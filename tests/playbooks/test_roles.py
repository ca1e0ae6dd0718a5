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
LOOK = """
- hosts: teachers:streamers
  gather_facts: false
  vars:
    host_role: "{{ 'streamer' if 'streamers' in group_names else 'teacher' }}"
  tasks:
    - ansible.builtin.include_role: {name: "{{ host_role }}", tasks_from: before, public: true, apply: {when: false}}
    - ansible.builtin.import_role: {name: host, tasks_from: look}
"""
ASK = f"""{LOOK}    - {here.told("json", "{'wanted': host_wanted, 'secrets': host_secrets}")}
"""


@dataclass(frozen=True)
class Asked:
    inventory: str
    host: str
    text: str

    @cached_property
    def wanted(self) -> Spec:
        return Spec.parse(json.dumps(json.loads(self.text)["wanted"]))

    @property
    def secrets(self) -> list[str]:
        return [*json.loads(self.text)["secrets"]]

    @property
    def settings(self) -> type[Settings]:
        return SETTINGS[self.wanted.role]


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
    there = folder / "there"
    there.mkdir()
    (folder / "roles").symlink_to(ROLES)  # the program's file is found beside the playbook
    folders = {f"{role}_{name}": str(there) for role in SETTINGS for name in ("code_dir", "log_dir")}
    given = {"vault_transcode_sign_key": SIGN_KEY, **folders, **more}
    return here.played_with(folder, text, "all: {}", inventory, **given)


# -- what is asked ------------------------------------------------------------------------------------------------


def test_each_host_of_both_inventories_is_asked_for_what_the_rollout_can_read(asked: list[Asked]) -> None:
    assert {(one.inventory, one.wanted.role) for one in asked} == {(i, r) for i in INVENTORIES for r in SETTINGS}
    assert all(one.wanted.name == one.host for one in asked)


def test_nothing_runs_as_root_unless_the_inventory_says_so(tmp_path: Path) -> None:
    """The documented folder of the old program is root's."""
    gates = "    - ansible.builtin.import_role: {name: host, tasks_from: gates}\n"
    given = {"streamer_code_dir": "/", "teacher_code_dir": "/", "teacher_user": "root"}
    done = _played(tmp_path, "staging", LOOK + gates, **given)
    said = here.refused(done)
    assert "Write streamer_user: lectern into the inventory" in said
    assert "Write teacher_user" not in said
    assert "lectern and wanted must be given" in said, "the teacher's next gate is asked"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to a user who is not there")
@pytest.mark.parametrize("part", ["{name: host, tasks_from: look}", "{name: provision, tasks_from: folders}"])
def test_an_old_folder_of_a_user_who_has_no_name_is_told_with_what_to_write(tmp_path: Path, part: str) -> None:
    """As one that was unpacked from another machine's archive."""
    nameless = tmp_path / "nameless"
    nameless.mkdir()
    os.chown(nameless, 54_321, 54_321)
    look = ASK[: ASK.index("    - ansible.builtin.import_role")] + f"    - ansible.builtin.import_role: {part}\n"
    done = _played(tmp_path, "staging", look, streamer_code_dir=str(nameless))
    said = here.refused(done)
    assert f"{nameless} belongs to the user number 54321" in said
    assert "streamer_user: lectern" in said


def test_several_streamers_answer_where_the_others_reach_them(asked: list[Asked]) -> None:
    """They ask each other while the control host is away; one alone answers on its loopback."""
    binds = {one.host: one.wanted.env["HEALTH_BIND"] for one in asked if one.wanted.role == "streamer"}
    assert binds["streamer1"] == "192.0.2.21:8801"
    assert binds["staging-streamer"] == "127.0.0.1:8801"


def test_every_setting_that_a_role_can_write_is_a_field_also_where_the_inventories_leave_it_empty() -> None:
    for role, settings in SETTINGS.items():
        names = yaml.safe_load((ROLES / role / "vars" / "main.yml").read_text(encoding="utf-8"))[f"{role}_settings"]
        assert [name for name in names if name.lower() not in settings.model_fields] == []


def test_the_documented_parameters_are_written_as_documented_and_times_in_milliseconds(asked: list[Asked]) -> None:
    sizes = {"MAX_VIDEO_NUM": "1000", "MAX_VIDEO_SIZE": "1000"}
    of_streamer = {"wget_path": "/usr/bin/wget", "DOWNLOAD_RATE": "1000k", **sizes}
    of_teacher = {"order_warn_time_out": 86_400_000, "transcoding_time_out": 120_000}
    for one in asked:
        found = (one.wanted.documented, one.wanted.config)
        assert found == ((of_streamer, {}) if one.wanted.role == "streamer" else ({}, of_teacher))


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


def test_what_a_teacher_may_have_besides_is_written_and_its_secrets_are_blotted_out(tmp_path: Path) -> None:
    """A database of its own, a bucket; and the two documented parameters, where no JSON config is."""
    more = {
        "teacher_config_file": "",
        "teacher_transcoding_time_out": 240_000,
        "teacher_database_url": "postgresql+psycopg://lectern:of-the-database@db.example/lectern",
        "teacher_oss_access_key_id": "of-the-key",
        "teacher_oss_access_key_secret": "of-the-secret",
    }
    teacher = next(one for one in _asked(tmp_path, "production", **more) if one.wanted.role == "teacher")
    env = teacher.wanted.env
    assert (float(env["TRANSCODING_TIME_OUT_S"]), float(env["ORDER_WARN_TIME_OUT_S"])) == (240.0, 86_400.0)
    assert env["TEACHER_DATABASE_URL"] == more["teacher_database_url"]
    assert env["OSS_ACCESS_KEY_SECRET"] == "of-the-secret"
    assert {"of-the-database", "of-the-key", "of-the-secret"} <= {*teacher.secrets}
    assert store.of(teacher.wanted).shown == "db.example/lectern"


def test_a_redis_of_several_sentinels_can_be_rolled_out_and_its_password_is_blotted_out(tmp_path: Path) -> None:
    """docs/SCALING.md names it for whom one machine is too few; its URL has more than one port."""
    url = "redis+sentinel://lectern:of-the-sentinels@192.0.2.10:26379,192.0.2.11:26379/mymaster/0"
    for one in _asked(tmp_path, "production", lectern_redis_url=url):
        assert one.wanted.redis_url == one.wanted.env["REDIS_URL"] == url
        assert "of-the-sentinels" in one.secrets


# -- supervisord's file -------------------------------------------------------------------------------------------


def test_supervisord_starts_the_program_from_the_link_as_its_owner_and_lets_it_drain(asked: list[Asked]) -> None:
    """In the old folder, with a home; asked to end, it has longer than it drains."""
    for one in asked:
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(one.wanted.program_conf)
        conf = parser[f"program:{one.wanted.program}"]
        assert conf["command"] == f"{one.wanted.root}/current/venv/bin/lectern serve {one.wanted.role}"
        assert conf["directory"] == str(one.wanted.code_dir)
        assert conf["user"] == one.wanted.user
        assert (conf["stopsignal"], conf["autorestart"]) == ("TERM", "true")
        assert float(conf["stopwaitsecs"]) > one.settings.model_fields["drain_timeout_s"].default
        own = f'LECTERN_SETTINGS="{one.wanted.root}/current/settings.env"'
        assert re.fullmatch(rf'HOME="/[^"]*",USER="{one.wanted.user}",{own}', conf["environment"])
