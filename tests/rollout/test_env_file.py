"""A file of settings is edited so that python-dotenv reads what is wanted, and no other byte changes."""

import getpass
import io
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from dotenv import dotenv_values
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from lectern.errors import Misuse
from lectern.rollout import env_file, files, settings_files
from lectern.settings import Common
from tests.rollout.host import DOCUMENTED

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


def lines(text: str) -> list[str]:
    return re.split(r"(?<=\r\n)|(?<=\n)|(?<=\r)(?!\n)", text)


@settings(deadline=None)
@given(FILES, st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "x y", "/bin/w"]), max_size=3))
def test_every_other_line_stays_byte_for_byte(text: str, wanted: dict[str, str]) -> None:
    try:
        new = env_file.edited(text, wanted)
    except Misuse:
        return
    other = re.compile(rf"\ufeff?\s*(export\s+)?'?({'|'.join(NAMES)})'?\s*(=|#|$)", re.IGNORECASE)
    # A value over several lines has lines that look like anything.
    assume("many" not in text)
    # The mark of the byte order stays in front of all, also where a new line is the first.
    kept = [line.rstrip("\r\n").lstrip("\ufeff") for line in lines(text) if not other.match(line)]
    assert [line.rstrip("\r\n").lstrip("\ufeff") for line in lines(new) if not other.match(line)] == kept
    assert set(re.findall(r"\r\n|\n|\r", new)) <= set(re.findall(r"\r\n|\n|\r", text)) | {"\n"}


@settings(deadline=None)
@given(FILES, st.dictionaries(st.sampled_from(NAMES), st.sampled_from(["1", "x y", "it's"]), max_size=3))
def test_what_was_put_in_can_be_taken_out(text: str, wanted: dict[str, str]) -> None:
    """After a person added a line, each name has the value of before again, and those that were not there are gone.

    Only if a line cannot be read, it may be left to the person, and the line is named.
    """
    try:
        touched = env_file.edited(text, wanted) + "\nPERSON=1\n"
    except Misuse:
        return
    assume(env_file.values(touched).get("PERSON") == "1")
    try:
        back = env_file.taken_back(touched, wanted, text)
    except Misuse as error:
        if not re.match(r"line \d+ cannot be read", error.message):
            raise
        return
    before, after = env_file.values(text), env_file.values(back)
    assert after.pop("PERSON") == "1"
    before.pop("PERSON", None)
    assert {name: after.get(name) or "" for name in wanted if name in before} == {
        name: before[name] or "" for name in wanted if name in before
    }
    assert {name for name in after if name in wanted and name not in before} == set()


def test_another_spelling_of_a_name_is_taken_back_too() -> None:
    """Also from a file that a person has edited since."""
    before, wanted = "max_video_num=5\nA=1\n", {"MAX_VIDEO_NUM": "1000"}
    edited = env_file.edited(before, wanted) + "PERSON=1\n"
    assert env_file.taken_back(edited, wanted, before) == before + "PERSON=1\n"


def test_the_documented_settings_are_added_at_the_end_in_the_kind_of_the_file() -> None:
    assert env_file.edited("A=1\r\n# c\r\nB='x'", {"MAX_VIDEO_NUM": "1000", "wget_path": "/usr/bin/wget"}) == (
        "A=1\r\n# c\r\nB='x'\r\nMAX_VIDEO_NUM=1000\r\nwget_path=/usr/bin/wget"
    )


def test_a_line_keeps_its_spaces_quotes_and_place() -> None:
    text = "\n  export  MAX_VIDEO_SIZE =  '10'  # G\nX=1\n"
    assert env_file.edited(text, {"MAX_VIDEO_SIZE": "1000"}) == "\n  export  MAX_VIDEO_SIZE =  1000  # G\nX=1\n"
    assert env_file.edited('A="1000k"\n', {"A": "1000k"}) == 'A="1000k"\n'
    assert env_file.edited("A=1\nA=2\nB=3\n", {"A": "4"}) == "A=1\nA=4\nB=3\n"
    text = "A='many\nlines'\nB=1\n"
    new = env_file.edited(text, {"A": "2"})
    assert new == f"{text}A=2\n"
    assert env_file.taken_back(f"{new}C=3\n", {"A": "2"}, text) == f"{text}C=3\n"


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
    assert env_file.shown(secret, env_file.values(secret)).splitlines() == [
        "REDIS_URL=********",
        "PREFECT_API_URL=********",
        "API_BIND=127.0.0.1:8800",
    ]


def a_file(tmp_path: Path) -> settings_files.SettingsFile:
    wanted = SimpleNamespace(env_path=tmp_path / ".env", documented=DOCUMENTED, user=getpass.getuser())
    found = settings_files.env(wanted)  # type: ignore[arg-type]  # it has what is asked for
    assert found is not None
    return found


def test_mode_and_owner_stay_and_a_new_file_is_for_its_user_alone(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    a_file(tmp_path).apply()
    assert files.Owner.of(file).mode == 0o600
    file.write_text("A=1\n")
    file.chmod(0o604)
    before = files.Owner.of(file)
    assert a_file(tmp_path).apply() == [f"{file}: set {', '.join(DOCUMENTED)}."]
    assert files.Owner.of(file) == before
    assert a_file(tmp_path).apply() == []


def test_a_file_that_cannot_be_read_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"A=1\nB=\xff\n")
    with pytest.raises(Misuse, match=r"\.env: line 2 is not UTF-8"):
        a_file(tmp_path).pending()
    with pytest.raises(Misuse, match="line 1 cannot be read"):
        env_file.edited("A='open\nB=1\n", {"B": "it's"})


def test_a_setting_that_is_nearly_a_url_is_blotted_out_as_a_whole() -> None:
    """Without this, no answer could be given on a host that has it, and it could not be rolled back."""
    assert env_file.secrets({"PUBLIC_URL": "https://me:hidden@[host/"}) == {"https://me:hidden@[host/"}
