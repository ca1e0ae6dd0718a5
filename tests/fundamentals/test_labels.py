"""What a run is called, and by which tags it is found, whatever its messages hold."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.effects.rows.inbox import Handled
from lectern.facts import Kept
from lectern.run_records import CLASSES, TAGS, label_of, name_of, records_of, tags_of

ODD = [
    "[" * 1100,
    '{"class_id": ' + "[" * 1100 + "]" * 1100 + "}",
    r'{"class_id": "\ud800"}',
    r'{"class_id": "a\u0000b"}',
    r'{"class_id": ["\ud800"], "record_id": 7, "video_resolution": "\udfff"}',
    '{"class_id": "a b", "record_id": ' + "9" * 5000 + "}",
    '{"record_id": ' + "9" * 4000 + "}",
    '{"record_id": true, "video_resolution": {"a": 1}}',
    "\ud800",
    "null",
    "",
]


def labels(flow: str, messages: list[Kept]) -> tuple[str, list[str]]:
    found = [label_of(one.body) for one in messages]
    return name_of(flow, found, len(found)), tags_of(found)


def kept(*bodies: str) -> list[Kept]:
    return [Kept(number, "order", body, 0) for number, body in enumerate(bodies, 1)]


def test_a_run_is_called_after_its_only_class() -> None:
    booking = json.dumps({"class_id": "c-1", "record_id": 6666, "video_resolution": "720p"})
    assert labels("booking", kept(booking)) == ("booking c-1", ["class:c-1", "record:6666"])
    assert labels("booking", kept(booking, booking)) == ("booking 2 messages", ["class:c-1", "record:6666"])


def test_a_result_is_called_after_its_rendition() -> None:
    result = json.dumps({"record_id": 6666, "video_resolution": "240"})
    assert labels("settle", kept(result)) == ("settle 6666 240P", ["record:6666"])


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_nothing_that_a_body_holds_stands_in_a_name_or_a_tag(body: str) -> None:
    """Brackets that overflow a stack, half a surrogate pair, NUL: each once ended the teacher, or Prefect's request."""
    good = json.dumps({"class_id": "good"})
    assert label_of(body).class_id is None
    name, tags = labels("booking", kept(body, good))
    assert (name, tags[-1:]) == ("booking 2 messages", ["class:good"])
    alone, _ = labels("booking", kept(body))
    assert alone.startswith("booking ")
    for text in (alone, *tags):
        assert text.isascii()
        assert text.isprintable()


@given(st.text() | st.dictionaries(st.sampled_from(["class_id", "record_id", "video_resolution"]), st.text()).map(str))
def test_whatever_a_body_holds_a_run_can_be_called(body: str) -> None:
    name, tags = labels("booking", kept(body))
    assert all(text.encode().decode() == text for text in (name, *tags))


def test_a_storm_has_a_bounded_number_of_tags() -> None:
    storm = [json.dumps({"class_id": f"c-{number}", "record_id": number}) for number in range(500)]
    tags = labels("booking", kept(*storm))[1]
    assert len(tags) == TAGS
    assert sum(tag.startswith("class:") for tag in tags) == CLASSES


@pytest.mark.parametrize(("number", "named"), [(CLASSES, CLASSES), (CLASSES + 1, 0)])
def test_a_run_of_more_classes_than_it_can_name_names_none(number: int, named: int) -> None:
    """Each is found by its booking; the first of them here would stand for all."""
    bodies = [json.dumps({"class_id": f"c-{one}", "record_id": 7}) for one in range(number)]
    (record,) = records_of("report", [Handled(1, "prepared", one, None, None, 1.0, None) for one in bodies], "key", 1.0)
    assert sum(tag.startswith("class:") for tag in record.tags) == named
