"""The teacher's JSON config is edited in place: only the characters of the wanted values change."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lectern.errors import Misuse
from lectern.old_config import strict
from lectern.rollout import json_config, settings_files

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
    assert json.loads(new) == {**found, **wanted}
    assert [name for name in json.loads(new) if name in found] == list(found)
    assert json_config.edited(new, wanted) == new
    assert json_config.missing_from(new, wanted) == []
    assert json_config.taken_back(new, wanted, text) == text


def test_a_byte_order_mark_stays_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('\ufeff{\n  "transcoding_time_out": 1000*60*2 // two minutes\n}', encoding="utf-8")
    new = json_config.edited(json_config.read(path), WANTED)
    assert new == ('\ufeff{\n  "order_warn_time_out": 86400000,\n  "transcoding_time_out": 1000*60*2 // two minutes\n}')


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


def test_the_notes_own_file_keeps_its_comments_and_indentation() -> None:
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


@settings(deadline=None)
@given(OBJECTS, STYLES)
def test_what_is_json_means_itself(found: dict[str, Any], style: dict[str, Any]) -> None:
    text = json.dumps(found, **style)
    assert strict(text) == text


def a_file(tmp_path: Path) -> settings_files.SettingsFile:
    wanted = SimpleNamespace(config_path=tmp_path / "default.json", config=WANTED, user="root")
    found = settings_files.config(wanted)  # type: ignore[arg-type]  # it has what is asked for
    assert found is not None
    return found


def test_only_what_changes_is_shown(tmp_path: Path) -> None:
    (tmp_path / "default.json").write_text('{"order_warn_time_out": 3600000, "redis": {"password": "hidden"}}')
    shown = a_file(tmp_path).pending()
    assert "hidden" not in str(shown)
    assert (shown[0].before, shown[0].after) == (
        '"order_warn_time_out": 3600000\n',
        '"order_warn_time_out": 86400000\n"transcoding_time_out": 120000\n',
    )
    assert len(a_file(tmp_path).apply()) == 1
    assert a_file(tmp_path).apply() == []


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ('{\n  "order_warn_time_out": 1000*60*minutes\n}', "line 2, column 33"),
        ("{\n  a: 1\n}", "line 2, column 3"),
        ("", "line 1, column 1"),
        ('{"a": 1', "line 1, column"),
    ],
)
def test_what_is_no_config_is_refused_with_line_and_column(tmp_path: Path, text: str, place: str) -> None:
    (tmp_path / "default.json").write_text(text)
    with pytest.raises(Misuse, match=place):
        a_file(tmp_path).pending()
    assert (tmp_path / "default.json").read_text() == text


def test_no_file_and_one_that_is_no_object_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Misuse, match="no such file"):
        a_file(tmp_path).apply()
    (tmp_path / "default.json").write_text("[1]")
    with pytest.raises(Misuse, match="no JSON object"):
        a_file(tmp_path).apply()


def test_after_a_person_edited_it_only_our_values_are_taken_back() -> None:
    before = '{\n  "order_warn_time_out": 3600000\n}'
    ours = json_config.edited(before, WANTED)
    edited = ours.replace("{\n", '{\n  "person": true,\n')
    assert json_config.taken_back(edited, WANTED, before) == '{\n  "person": true,\n  "order_warn_time_out": 3600000\n}'
    assert json_config.taken_back(edited.replace("86400000", "7"), WANTED, before).count("7") == 1
    commented = ours.replace("{\n", "{ // a person's\n")
    assert json_config.taken_back(commented, WANTED, before).split() == before.replace("{", "{ // a person's").split()
