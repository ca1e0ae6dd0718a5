"""Files of settings are edited in place: what is wanted is read, and no other byte changes."""

import getpass
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from dotenv import dotenv_values
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lectern.errors import Misuse
from lectern.old_config import strict
from lectern.rollout import env_file, files, json_config, settings_files
from lectern.rollout.backup.host import FilesBefore
from lectern.settings import Common
from tests.rollout.host import DOCUMENTED, a_host

NAMES = ("wget_path", "MAX_VIDEO_SIZE", "A", "B")
ODD = ["'", '"', "\\", "\\'", "#", "${A}", "${", "$", "`id`", "a=b", "密码", "\ufeff"]
BLANK = ["", " ", "a #b", "a\nb", "\r\n", "\t", "x y"]
TEXT = st.characters(codec="utf-8", exclude_characters="\0")
VALUES = st.text(TEXT, max_size=12) | st.sampled_from([*ODD, *BLANK])
PIECES = st.sampled_from(
    [
        "A=1", "export A=1", "  export  B = 'x' # c", "B=\"q\\\"\"", "A", "A=", "A  # bare", "A= # empty",
        "A=#no comment", "a=lower", "# c", "'A'='quoted name'", "NOT A LINE", "=x", "B='many\nlines'", "B=${A}",
        "A='open", 'B="open', "wget_path=/bin/wget", "MAX_VIDEO_SIZE=10 # G", "", "  ", "\\", "X=\\'", "Y='it\\'s'",
    ]
)  # fmt: skip
ENDS = st.sampled_from(["\n", "\r\n", "\r", "\n\n"])
FILES = st.builds(
    lambda bom, pieces, last: bom + "".join(piece + end for piece, end in pieces) + last,
    st.sampled_from(["", "\ufeff"]),
    st.lists(st.tuples(PIECES, ENDS), max_size=8),
    PIECES,
)


@settings(deadline=None)
@given(FILES | st.text(TEXT, max_size=60), st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=3))
@example("A='open\nB=1\n", {"B": "it's"})
@example("A=1\nA=2", {"A": "3"})
@example("x='${A}'", {"A": "${A}"})
def test_any_value_is_read_back_from_any_file(text: str, wanted: dict[str, str]) -> None:
    """Only where an open quote would swallow it, it is refused, and the line is named."""
    try:
        new = env_file.edited(text, wanted)
    except Misuse as error:
        if "line " not in str(error):
            raise
        return
    found = dotenv_values(stream=io.TextIOWrapper(io.BytesIO(new.encode()), encoding="utf-8"))
    assert {name: found.get(name) for name in wanted} == wanted
    assert env_file.missing_from(new, wanted) == []
    assert env_file.edited(new, wanted) == new


@settings(deadline=None)
@given(FILES, st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "x y", "it's"]), max_size=3))
@example("# c\r\nNOT A LINE\n=x\n\nX=\\'\nY='it\\'s'\n", {"A": "1"})
@example("A='open\nB='x' # c\n", {"B": "x y", "A": "1"})
def test_every_other_line_stays_and_what_was_put_in_can_be_taken_out(text: str, wanted: dict[str, str]) -> None:
    """After a person added a line, each name has the value of before again, and those that were not there are gone.

    Only if a line cannot be read, it may be left to the person, and the line is named.
    """
    try:
        new = env_file.edited(text, wanted)
    except Misuse:
        return
    if "many" not in text:  # a value over several lines has lines that look like anything
        other = re.compile(rf"\ufeff?\s*(export\s+)?'?({'|'.join(NAMES)})'?\s*(=|#|$)", re.IGNORECASE)
        # The mark of the byte order stays in front of all, also where a new line is the first.
        kept, left = ([one.lstrip("\ufeff") for one in its.splitlines() if not other.match(one)] for its in (text, new))
        assert left == kept
        assert set(re.findall(r"\r\n|\n|\r", new)) <= set(re.findall(r"\r\n|\n|\r", text)) | {"\n"}
    touched = f"{new}\nPERSON=1\n"
    assume(env_file.values(touched).get("PERSON") == "1")
    try:
        back = env_file.taken_back(touched, wanted, text)
    except Misuse as error:
        if not re.match(r"line \d+ cannot be read", error.message):
            raise
        return
    before, after = env_file.values(text), env_file.values(back)
    assert after["PERSON"] == "1"
    assert {name: after.get(name) or "" for name in wanted if name in before} == {
        name: before[name] or "" for name in wanted if name in before
    }
    assert {name for name in after if name in wanted and name not in before} == set()


def test_a_line_keeps_its_spaces_quotes_and_place_and_a_new_one_is_as_the_others() -> None:
    assert env_file.edited("A=1\r\n# c\r\nB='x'", {"C": "1", "D": "2"}) == "A=1\r\n# c\r\nB='x'\r\nC=1\r\nD=2"
    text = "\n  export  MAX_VIDEO_SIZE =  '10'  # G\nX=1\n"
    assert env_file.edited(text, {"MAX_VIDEO_SIZE": "1000"}) == "\n  export  MAX_VIDEO_SIZE =  1000  # G\nX=1\n"
    assert env_file.edited('A="1000k"\n', {"A": "1000k"}) == 'A="1000k"\n'
    assert env_file.edited("A=1\nA=2\nB=3\n", {"A": "4"}) == "A=1\nA=4\nB=3\n"
    text = "A='many\nlines'\nB=1\n"
    new = env_file.edited(text, {"A": "2"})
    assert new == f"{text}A=2\n"
    assert env_file.taken_back(f"{new}C=3\n", {"A": "2"}, text) == f"{text}C=3\n"
    before, wanted = "max_video_num=5\nA=1\n", {"MAX_VIDEO_NUM": "1000"}  # another spelling of the name
    edited = env_file.edited(before, wanted) + "PERSON=1\n"
    assert env_file.taken_back(edited, wanted, before) == before + "PERSON=1\n"


def test_the_settings_of_the_program_read_what_is_wanted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another spelling of the name does not win over ours: settings know no case."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    Path(".env").write_text(env_file.edited("redis_url=redis://old\n", {"REDIS_URL": "redis://:p'\"${a}\\@h/0"}))
    assert Common.load().redis_url.get_secret_value() == "redis://:p'\"${a}\\@h/0"


def test_people_see_only_the_lines_of_the_wanted_names_and_of_these_only_harmless_values() -> None:
    text = "PASSWORD=hidden1\n# TOKEN=hidden2\nBROKEN 'hidden3\nwget_path=/usr/bin/wget # hidden4\nMAX_VIDEO_NUM='10'\n"
    assert env_file.shown(text, ("wget_path", "MAX_VIDEO_NUM")) == "wget_path=/usr/bin/wget\nMAX_VIDEO_NUM=10\n"
    assert env_file.shown(text, ("PASSWORD", "MAX_VIDEO_SIZE")) == "PASSWORD=********\n"
    secret = "REDIS_URL=redis-host\nPREFECT_API_URL=http://a:hidden5@b/api\nAPI_BIND=127.0.0.1:8800\n"
    shown = "REDIS_URL=********\nPREFECT_API_URL=********\nAPI_BIND=127.0.0.1:8800\n"
    assert env_file.shown(secret, env_file.values(secret)) == shown
    # What is nearly a URL: else no answer could be given on a host that has it, and it could not be rolled back.
    assert env_file.secrets({"PUBLIC_URL": "https://me:hidden@[host/"}) == {"https://me:hidden@[host/"}


# -- the teacher's JSON config ----------------------------------------------------------------------------------------

WANTED = {"order_warn_time_out": 86400000, "transcoding_time_out": 120000}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(st.text(max_size=6) | st.sampled_from([*WANTED, "x"]), JSON, max_size=5)
STYLES = st.sampled_from(
    [{}, {"indent": 2}, {"indent": "\t"}, {"indent": 4}, {"separators": (",", ":")}, {"ensure_ascii": False}]
)


@settings(deadline=None)
@given(
    OBJECTS, STYLES, st.dictionaries(st.sampled_from([*WANTED, "x"]), st.integers() | st.text(max_size=5), max_size=3)
)
def test_any_object_gets_the_wanted_values_and_keeps_all_others(
    found: dict[str, Any], style: dict[str, Any], wanted: dict[str, int | str]
) -> None:
    text = json.dumps(found, **style).replace("\n", "\r\n" if len(found) % 2 else "\n")
    new = json_config.edited(text, wanted)
    assert strict(text) == text
    assert json.loads(new) == {**found, **wanted}
    assert [name for name in json.loads(new) if name in found] == list(found)
    assert json_config.edited(new, wanted) == new
    assert json_config.missing_from(new, wanted) == []
    assert json_config.taken_back(new, wanted, text) == text


def test_a_value_is_edited_where_it_counts_and_not_if_it_is_so() -> None:
    assert json_config.edited('{"b": 1, "a": {"b": 2}, "b": 3}', {"b": 4}) == '{"b": 1, "a": {"b": 2}, "b": 4}'
    text = '{"order_warn_time_out": 1000*60*60*24, //a day\n "transcoding_time_out": 1000 * 60 * 2}'
    assert json_config.edited(text, WANTED) == text
    assert json_config.edited('{"transcoding_time_out": "120000"}', WANTED | {}).count("120000") == 1
    assert json_config.edited('{ "a": 1 }', {"b": 2}) == '{ "b": 2, "a": 1 }'
    assert json_config.edited('{"a":1}', {"b": 2}) == '{"b": 2,"a":1}'
    assert json_config.edited("{}", {"b": 2, "c": 3}) == '{"b": 2,"c": 3}'


NOTE = """{
    // the old program's
    "order_warn_time_out": 1000*60*60, //a booking is late
    "more": {"url": "http://x/*y", "list": [1, 2,],}, /* "transcoding_time_out": 7 */
    "last": "a, }",
}
"""


def test_the_notes_own_file_keeps_its_comments_and_indentation(tmp_path: Path) -> None:
    """A mark of the byte order stays where it is."""
    new = json_config.edited(NOTE, WANTED)
    assert new == NOTE.replace("1000*60*60,", "86400000,").replace("{", '{\n    "transcoding_time_out": 120000,', 1)
    assert json_config.edited(new, WANTED) == new
    assert json_config.missing_from(new, WANTED) == []
    assert json_config.taken_back(new, WANTED, NOTE) == NOTE
    text = '{\r\n\t"a": [1, {"order_warn_time_out": 5}],\r\n\t"order_warn_time_out" : 3600000,\r\n\t"z": null\r\n}\r\n'
    assert json_config.edited(text, WANTED) == (
        '{\r\n\t"transcoding_time_out": 120000,\r\n\t"a": [1, {"order_warn_time_out": 5}],'
        '\r\n\t"order_warn_time_out" : 86400000,\r\n\t"z": null\r\n}\r\n'
    )
    path, text = tmp_path / "config.json", '{\n  "transcoding_time_out": 1000*60*2 // two minutes\n}'
    path.write_text(f"\ufeff{text}", encoding="utf-8")
    new = json_config.edited(json_config.read(path), WANTED)
    assert new == "\ufeff" + text.replace("{", '{\n  "order_warn_time_out": 86400000,')


def test_after_a_person_edited_it_only_our_values_are_taken_back() -> None:
    before = '{\n  "order_warn_time_out": 3600000\n}'
    ours = json_config.edited(before, WANTED)
    edited = ours.replace("{\n", '{\n  "person": true,\n')
    assert json_config.taken_back(edited, WANTED, before) == '{\n  "person": true,\n  "order_warn_time_out": 3600000\n}'
    assert json_config.taken_back(edited.replace("86400000", "7"), WANTED, before).count("7") == 1
    commented = ours.replace("{\n", "{ // a person's\n")
    assert json_config.taken_back(commented, WANTED, before).split() == before.replace("{", "{ // a person's").split()


# -- the files themselves ----------------------------------------------------------------------------------------------


@pytest.fixture
def both(tmp_path: Path) -> tuple[settings_files.SettingsFile, settings_files.SettingsFile]:
    """The .env, and the JSON config."""
    paths = {"env_path": tmp_path / ".env", "config_path": tmp_path / "default.json"}
    wanted: Any = SimpleNamespace(**paths, documented=DOCUMENTED, config=WANTED, user=getpass.getuser())
    env, config = settings_files.env(wanted), settings_files.config(wanted)
    assert env is not None
    assert config is not None
    return env, config


def test_only_what_changes_is_shown_and_mode_and_owner_stay(both: Any, tmp_path: Path) -> None:
    """A new file is for its user alone."""
    file, (env, config) = tmp_path / ".env", both
    env.apply()
    assert files.Owner.of(file).mode == 0o600
    file.write_text("A=1\n")
    file.chmod(0o604)
    before = files.Owner.of(file)
    assert env.apply() == [f"{file}: set {', '.join(DOCUMENTED)}."]
    assert files.Owner.of(file) == before
    (tmp_path / "default.json").write_text('{"order_warn_time_out": 3600000, "redis": {"password": "hidden"}}')
    shown = config.pending()
    assert "hidden" not in str(shown)
    assert (shown[0].before, shown[0].after) == (
        '"order_warn_time_out": 3600000\n',
        '"order_warn_time_out": 86400000\n"transcoding_time_out": 120000\n',
    )
    assert len(config.apply()) == 1
    assert env.apply() == config.apply() == []


@pytest.mark.parametrize(
    ("now", "after"),
    [
        (json_config.edited("{}", WANTED), None),
        (
            '{"person": 1, "transcoding_time_out": 120000, "order_warn_time_out": 5}',
            '{"person": 1, "order_warn_time_out": 5}',
        ),
    ],
    ids=["with our values alone", "with others, too"],
)
def test_a_config_that_was_not_there_before_the_window_is_rolled_back(
    both: Any, tmp_path: Path, now: str, after: str | None
) -> None:
    """`config_file` was corrected in the inventory since, or somebody put the file there: only our values go."""
    (_, config), file = both, tmp_path / "default.json"
    before = FilesBefore(link=None, files=[], folder=tmp_path)
    file.write_text(now)
    assert not config.is_back(before)
    assert len(config.take_back(before)) == 1
    assert (file.read_text() if file.exists() else None) == after
    assert config.is_back(before)


UNREADABLE = (
    (None, "no such file"),
    ("[1]", "no JSON object"),
    ('{\n  "order_warn_time_out": 1000*60*minutes\n}', "line 2, column 33"),
    ("{\n  a: 1\n}", "line 2, column 3"),
    ("", "line 1, column 1"),
    ('{"a": 1', "line 1, column"),
)


def test_what_cannot_be_read_is_refused_with_its_line(both: Any, tmp_path: Path) -> None:
    env, config = both
    for text, why in UNREADABLE:
        if text is not None:
            (tmp_path / "default.json").write_text(text)
        for asked in (config.pending, config.apply):
            with pytest.raises(Misuse, match=why):
                asked()
        assert text is None or (tmp_path / "default.json").read_text() == text
    (tmp_path / ".env").write_bytes(b"A=1\nB=\xff\n")
    with pytest.raises(Misuse, match=r"\.env: line 2 is not UTF-8"):
        env.pending()
    with pytest.raises(Misuse, match="line 1 cannot be read"):
        env_file.edited("A='open\nB=1\n", {"B": "it's"})


ECS = {
    "ECS_HOSTS": "ssh://transcode@192.0.2.41",
    "ECS_SSH_KEY": "/etc/lectern/ecs_key",
    "ECS_KNOWN_HOSTS": "/etc/lectern/ecs_known_hosts",
    "UPLOAD_URL": "https://store.example/put",
    "PUBLIC_URL": "https://store.example",
}
WRONG = ({"ECS_HOSTS": "transcode@192.0.2.41"}, {"UPLOAD_URL": "store.example/put"}, {"UPLOAD_URL": "oss://bucket/x"})


def test_a_teacher_that_would_not_start_with_its_transcoding_servers_is_refused_before_the_stop(tmp_path: Path) -> None:
    """A bucket of the OSS needs a key, too."""
    with a_host(tmp_path, "teacher", start=False) as host:
        settings_files.as_wanted(host.parsed(ECS))
        for wrong in WRONG:
            with pytest.raises(Misuse, match="|".join(wrong.values())):
                settings_files.as_wanted(host.parsed(ECS | wrong))


def test_an_old_name_in_the_programs_own_file_wins_over_the_new_one_beside_it(tmp_path: Path) -> None:
    """As in the program itself, for which the rollout looks: the later file counts, however it calls the setting."""
    with a_host(tmp_path, "teacher", start=False) as host:
        wanted, own = host.parsed(), tmp_path / "own.env"
        wanted.env_path.write_text("TRANSCODE_SIGN_KEY=made-up\nINBOX_MAX_ATTEMPTS=7\n")
        own.write_text("INBOX_TRIES=9\n")
        assert settings_files.in_use(wanted, own).inbox_max_attempts == 9
