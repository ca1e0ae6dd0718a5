"""Settings have documented names and defaults, come from four places, and keep their secrets."""

import errno
import json
import os
import socket
from pathlib import Path
from unittest.mock import Mock

import httpx
import pytest

from lectern import settings as settings_module
from lectern.cli import doctor, options
from lectern.errors import Misuse
from lectern.settings import RENAMED, Common, StreamerSettings, TeacherSettings

SECRET = "hunter2-0xC0FFEE"


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, and none of our variables in the environment."""
    monkeypatch.chdir(tmp_path)
    for name in {**Common.model_fields, **TeacherSettings.model_fields, **StreamerSettings.model_fields}:
        monkeypatch.delenv(name.upper(), raising=False)
        monkeypatch.delenv(name, raising=False)


def teacher(**given: object) -> TeacherSettings:
    return TeacherSettings.load(transcode_sign_key=SECRET, **given)


def test_a_streamer_is_named_after_its_host_unless_it_is_named_and_a_size_in_g_is_in_gibibytes() -> None:
    assert StreamerSettings.load().name == socket.gethostname()
    found = StreamerSettings.load(streamer_name="streamer1", max_video_size=10)
    assert (found.name, found.max_bytes) == ("streamer1", 10 * 1024**3)


@pytest.mark.parametrize(("name", "old"), RENAMED.items())
def test_a_setting_has_an_old_name_and_its_own_wins(name: str, old: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRANSCODE_SIGN_KEY", "k-1")
    values = ("stop", "push") if name == "partition_policy" else (11, 12)
    for role in (role for role in (TeacherSettings, StreamerSettings) if name in role.model_fields):
        for variable, value in zip((old, name), values, strict=True):
            monkeypatch.setenv(variable.upper(), str(value))
            assert getattr(role.load(), name) == value
        monkeypatch.delenv(name.upper())


def test_a_variable_without_a_value_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as `OSS_TRANSCODE_URL=`, which else would be an address that nobody answers at."""
    for role, load in ((TeacherSettings, teacher), (StreamerSettings, StreamerSettings.load)):
        unset = [name for name, field in role.model_fields.items() if field.default is None]
        for name in unset:
            monkeypatch.setenv(name.upper(), "")
        assert {name: getattr(load(), name) for name in unset} == dict.fromkeys(unset)


PLACES = "'http://h/' cannot be read; write host, host:port"
REFUSED: dict[tuple[str, str], list[str]] = {
    ("API_BIND", "must be host:port, or empty"): ["8800", "127.0.0.1", "127.0.0.1:http", ":8800", "127.0.0.1:70000"],
    ("HEALTH_ADDRESS", "must be host:port, or empty"): ["http://10.0.0.7:8801", "fd00::7", "[fd00::7]"],
    ("ECS_LOUDNESS_LUFS", ""): ["-36.1", "-5.9", "nan", "-16 LUFS"],
    ("TRANSCODE_WINDOWS", ""): ["00:00-06:00=1m"],
    ("TRANSCODE_SIGN_KEY", "must be a secret"): ["", "  ", "CHANGE-ME", "change-me"],
    ("PUBLIC_URL", ".*must have no user and no password"): ["http://user:hidden@h/put", "https://hidden@h"],
    ("PUBLIC_URL", ".*begins with http:// or https://"): ["oss://bucket/prefix"],
    ("DOWNLOAD_WINDOWS", ""): ["6-7"],
    ("TIMEZONE", ""): ["Mars/Olympus"],
    ("ALLOWED_ORIGINS", PLACES): ["public,http://h/"],
    ("ALLOWED_PUSH_HOSTS", PLACES): ["public,http://h/"],
    ("DOWNLOAD_RATE", ""): ["fast"],
    ("MAX_VIDEO_NUM", ""): ["0"],
    ("MAX_VIDEO_SIZE", ""): ["-1", "inf"],
    ("LOG_FORMAT", ""): ["yaml"],
    ("STREAMER_NAME", ""): ["a/b"],
    ("HOST_RATE", ""): ["12"],
    ("BATCH_MAX", ""): ["0"],
    ("DRAIN_TIMEOUT_S", ""): ["60"],
}


@pytest.mark.parametrize(
    ("name", "said", "value"), [(*key, value) for key, values in REFUSED.items() for value in values]
)
def test_a_wrong_value_is_refused_at_the_start_by_its_name(
    name: str, said: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not by each sweep, which would then enforce no deadline."""
    role = StreamerSettings if name.lower() in StreamerSettings.model_fields else TeacherSettings
    monkeypatch.setenv("TRANSCODE_SIGN_KEY", SECRET)
    monkeypatch.setenv(name, value)
    with pytest.raises(Misuse, match=f"{name}: {said}") as raised:
        role.load()
    assert "hidden" not in raised.value.message


@pytest.mark.parametrize("written", ["fd00::7:8801", "[fd00::7]:8801"])
def test_an_ipv6_address_can_be_asked_also_if_its_brackets_were_left_away(written: str) -> None:
    """It listens there in either case; but without brackets no URL names it, and no other streamer reaches it."""
    found = StreamerSettings.load(health_bind=written, health_address=written)
    assert httpx.URL(f"http://{found.bind}/health").port == httpx.URL(f"http://{found.health_address}/").port == 8801


def test_the_documented_env_file_is_read_with_its_comments_and_foreign_lines() -> None:
    lines = ("SOMETHING_OLD=1", "#wget 命令路径", "wget_path=/usr/local/bin/wget\t\t\t#wget 命令路径，下载文件用")
    Path(".env").write_text("\n".join((*lines, "DOWNLOAD_RATE=300k", "", "MAX_VIDEO_SIZE=10")), encoding="utf-8")
    found = StreamerSettings.load()
    assert (found.wget_path, found.download_rate, found.max_video_size) == ("/usr/local/bin/wget", "300k", 10)


def test_what_the_process_itself_exports_for_prefect_hides_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prefect reads its settings from the environment, which else wins over the files."""
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(settings_module, "exported", {})
    monkeypatch.setattr(options, "exported", settings_module.exported)
    Path(".env").write_text("PREFECT_API_URL=http://first/api")
    first = StreamerSettings.load()
    options.set_prefect(first)
    Path(".env").write_text("PREFECT_API_URL=http://second/api")
    assert first.reread().prefect_api_url == "http://second/api"


def test_the_old_config_may_calculate_and_have_comments() -> None:
    """Half an hour that is read from its point on would time each transcoding out at once."""
    path = Path("config.json")
    for milliseconds, seconds in {"0.5*60*60*1000": 1800, "1000*90.0": 90, "90000": 90}.items():
        path.write_text(f'{{"order_warn_time_out": 1000*60*60*24, //a day\n"transcoding_time_out": {milliseconds},}}')
        found = teacher(teacher_config=path)
        assert (found.order_warn_time_out_s, found.transcoding_time_out_s) == (86_400, seconds)


NO_TIMES = ['"soon"', "null", "true", "0", "-1", "[1]"]
NO_CONFIGS = dict.fromkeys(("{", "[]", "1", '{"transcoding_time_out": 1e3*60}'), "")
NO_CONFIGS |= {f'{{"transcoding_time_out": {one}}}': "transcoding_time_out is .* milliseconds" for one in NO_TIMES}


@pytest.mark.parametrize(("text", "said"), [*NO_CONFIGS.items(), (None, ".*Name the teacher's JSON config, or unset")])
def test_an_old_config_that_cannot_be_read_is_refused_by_its_name(text: str | None, said: str) -> None:
    """It does not calculate with a part of a number."""
    if text is not None:
        Path("config.json").write_text(text)
    with pytest.raises(Misuse, match=rf"TEACHER_CONFIG=config\.json: {said}"):
        teacher(teacher_config="config.json")


def test_later_sources_win_defaults_config_env_file_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """The old config is found by a variable; variables may be written in small letters."""
    assert teacher().transcoding_time_out_s == 120
    Path("config.json").write_text(json.dumps({"transcoding_time_out": 1_000}))
    monkeypatch.setenv("TEACHER_CONFIG", "config.json")
    assert teacher().transcoding_time_out_s == 1
    Path(".env").write_text("TRANSCODING_TIME_OUT_S=2\n")
    assert teacher().transcoding_time_out_s == 2
    monkeypatch.setenv("transcoding_time_out_s", "3")
    assert teacher().transcoding_time_out_s == 3
    assert teacher(transcoding_time_out_s=4).transcoding_time_out_s == 4


@pytest.mark.parametrize("names", [("KEEP_EVENTS_S", "EVENT_RETENTION_S"), ("EVENT_RETENTION_S", "KEEP_EVENTS_S")])
def test_the_hosts_own_file_wins_by_whichever_name_it_calls_a_setting(
    names: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for file, name, value in zip(("settings.env", ".env"), names, (333, 222), strict=True):
        Path(file).write_text(f"{name}={value}\n")
    monkeypatch.setenv("LECTERN_SETTINGS", "settings.env")
    found = StreamerSettings.load()
    assert found.event_retention_s == 333
    assert doctor.by_source(found) == {str(Path("settings.env").absolute()): ["EVENT_RETENTION_S=333"]}
    monkeypatch.setenv(names[1], "444")
    assert StreamerSettings.load().event_retention_s == 444, "and the environment over both"


def test_a_file_that_is_no_utf_8_or_may_not_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An editor saves comments in GBK, a command is typed by another user: nothing ends with a traceback."""
    for name in (".env", "mine.env"):
        Path(name).write_bytes("SITE_NAME=课\n".encode() + "#wget 命令路径\n".encode("gbk"))
        with pytest.raises(Misuse, match=rf"{name}: line 2 is not UTF-8, so no program can load it"):
            teacher()
        Path(name).unlink()
        monkeypatch.setenv("LECTERN_SETTINGS", str(Path("mine.env").absolute()))
    refused = PermissionError(errno.EACCES, "Permission denied", "mine.env")
    monkeypatch.setattr(Path, "is_file", Mock(side_effect=refused))
    with pytest.raises(Misuse, match=r"mine\.env: cannot be read: Permission denied"):
        teacher()


def test_no_way_of_writing_settings_down_shows_a_secret_and_who_needs_it_can_have_it() -> None:
    both = {"redis_url": f"rediss://lectern:{SECRET}@redis.example/0", "prefect_api_auth_string": f"admin:{SECRET}"}
    database = f"postgresql+psycopg://lectern:{SECRET}@db.example/lectern"
    its_streamer = StreamerSettings.load(streamer_database_url=database, **both)
    for settings in (teacher(teacher_database_url=database, **both), its_streamer):
        for text in (repr(settings), str(settings), settings.model_dump_json(), f"{settings.model_dump()}"):
            assert SECRET not in text
        assert SECRET in settings.redis_url.get_secret_value()
        assert SECRET in settings.database_url


@pytest.mark.parametrize("name", ["REDIS_URL", "PREFECT_API_AUTH_STRING", "MAX_ATTEMPTS_A_DAY"])
def test_every_wrong_or_missing_variable_is_named_at_once_and_no_secret_shown(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, SECRET)
    monkeypatch.setenv("MAX_ECS_JOBS", SECRET)
    with pytest.raises(Misuse) as caught:
        TeacherSettings.load()
    assert all(one in caught.value.message for one in ("MAX_ECS_JOBS: ", "TRANSCODE_SIGN_KEY: Field required"))
    cause: BaseException | None = caught.value
    while cause is not None:
        assert SECRET not in f"{cause} {cause!r}"
        cause = cause.__cause__
