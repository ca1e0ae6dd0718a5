"""Times, lengths and amounts are written as people say them."""

import errno
import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import formatting
from lectern.db.inbox import HandledMessage
from lectern.decide.account import period
from lectern.errors import CallAPerson, Malformed
from lectern.run_records import CLASSES, TAGS, label_of, name_of, records_of, tags_of
from lectern.urls import plain, redact, redact_url


@pytest.fixture(autouse=True)
def _zone() -> Iterator[None]:
    """Shanghai for a test; what comes after it in this process has the machine's zone again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "Asia/Shanghai")
        time.tzset()
        yield
    time.tzset()


SAID: dict[Callable[[Any], str], dict[float, str]] = {
    formatting.span: {
        -3: "0 s",
        720: "12 min",
        11_100: "3 h 5 min",
        86_400: "24 h",
        187_200: "2 d 4 h",
        259_200: "3 d",
    },
    formatting.length: {0: "0 s", 1.13: "1.1 s", 9.96: "10 s", 180: "3 min", 1000: "16 min 40 s", 3605: "1 h 5 s"},
    formatting.size: {12: "12 bytes", 419_481: "0.4 MB", 1_073_741_824_000: "1,074 GB", 5e7: "50.0 MB"},
    formatting.position: {243.4: "4:03", 3843: "1:04:03"},
    partial(formatting.counted, thing="class", things="classes"): {1: "1 class", 12_000: "12,000 classes"},
    partial(formatting.when, now=1_764_010_800): {1_764_013_500: "03:45:00", 1_764_097_200: "2025-11-26 03:00:00"},
}


@pytest.mark.parametrize("write", SAID, ids=["span", "length", "size", "position", "counted", "when"])
def test_a_number_is_written_in_its_unit(write: Callable[[Any], str]) -> None:
    """A length of time, what is missing of a class, an amount, a place in a recording, a count, a time of a day."""
    assert {number: write(number) for number in SAID[write]} == SAID[write]


def test_a_class_is_told_in_local_time_and_no_time_is_told_all_the_same() -> None:
    assert period(1_764_010_800, 1_764_013_500) == "2025-11-25 03:00:00 to 03:45:00 CST (45 min)"
    assert "2025-11-26" in period(1_764_010_800, 1_764_010_800 + 86_400)
    assert "no time" in formatting.moment(1e30)


# What a run is called, and by which tags it is found, whatever its messages hold.


def labels(flow: str, *bodies: object) -> tuple[str, list[str]]:
    found = [label_of(one if isinstance(one, str) else json.dumps(one)) for one in bodies]
    return name_of(flow, found, len(found)), tags_of(found)


def test_a_run_is_called_after_what_it_is_about() -> None:
    """A class, a rendition, or a number of messages."""
    c_1 = {"class_id": "c-1", "record_id": 6666, "video_resolution": "720p"}
    assert labels("booking", c_1) == ("booking c-1", ["class:c-1", "record:6666"])
    assert labels("booking", c_1, c_1) == ("booking 2 messages", ["class:c-1", "record:6666"])
    assert labels("settle", {"record_id": 6666, "video_resolution": "240"}) == ("settle 6666 240P", ["record:6666"])


ODD = [
    "[" * 1100,
    '{"class_id": ' + "[" * 1100 + "]" * 1100 + "}",
    r'{"class_id": "\ud800"}',
    r'{"class_id": "a\u0000b"}',
    r'{"class_id": ["\ud800"], "record_id": 7, "video_resolution": "\udfff"}',
    '{"class_id": "a b", "record_id": ' + "9" * 5000 + "}",
    '{"record_id": true, "video_resolution": {"a": 1}}',
    "\ud800",
    "null",
    "",
]


@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_nothing_that_a_body_holds_stands_in_a_name_or_a_tag(body: str) -> None:
    """Brackets that overflow a stack, half a surrogate pair, NUL: each once ended the teacher, or Prefect's request."""
    assert label_of(body).class_id is None
    name, tags = labels("booking", body, {"class_id": "good"})
    assert (name, tags[-1:]) == ("booking 2 messages", ["class:good"])
    alone, _ = labels("booking", body)
    assert alone.startswith("booking ")
    assert all(text.isascii() and text.isprintable() for text in (alone, *tags))


@pytest.mark.parametrize(("number", "named"), [(CLASSES, CLASSES), (CLASSES + 1, 0)])
def test_a_run_of_more_classes_than_it_can_name_names_none(number: int, named: int) -> None:
    """Each is found by its booking; the first of them here would stand for all. No run has too many tags."""
    bodies = [json.dumps({"class_id": f"c-{one}", "record_id": one}) for one in range(number)]
    assert len(labels("booking", *bodies)[1]) == TAGS
    (record,) = records_of(
        "report", [HandledMessage(1, "prepared", one, None, None, 1.0, None) for one in bodies], "key", 1.0
    )
    assert sum(tag.startswith("class:") for tag in record.tags) == named


URLS = {
    "http://h/6666.flv": "http://h/6666.flv",
    "https://h:8443/a/b.flv?Expires=1&Signature=x": "https://h:8443/a/b.flv?…",
    "http://user:p@ss@h/a.flv#token": "http://h/a.flv?…",
    "http://[::1]:80/a?x": "http://[::1]:80/a?…",
    "oss://bucket/prefix": "oss://bucket/prefix",
    "RTMPS://h:1935/live/key?auth_key=x": "RTMPS://h:1935/…",
    "http://user:pa/ss@h/a": "http://…",
    "redis://:pass@h:6379/0": "redis://h:6379/0",
    "no URL?token": "no URL?…",
    "http://…": "http://…",
    "": "",
}
SENTENCES = {
    "wget: http://h/a.flv?sign=x: ERROR 403: Forbidden.": "wget: http://h/a.flv?… ERROR 403: Forbidden.",
    "http://h/a.flv: the origin answered 404": "http://h/a.flv: the origin answered 404",
    "begins with rtmp:// or rtmps://": "begins with rtmp:// or rtmps://",
    "set http://… or oss://bucket/prefix.": "set http://… or oss://bucket/prefix.",
    "Error opening output rtmp://h/live/k: I/O": "Error opening output rtmp://h/…: I/O",
    "from 'http://h/a?x' to \"http://u:p@h/b\".": 'from \'http://h/a?… to "http://h/b".',
    "http://h/a.flv?…: the origin answered 404": "http://h/a.flv?…: the origin answered 404",
    "no URL at all: a?b": "no URL at all: a?b",
    "ssh://media@ecs-1:22: no answer": "ssh://media@ecs-1:22: no answer",
    "ssh://media:secret@ecs-1:22: no answer": "ssh://ecs-1:22: no answer",
}


def test_a_url_alone_or_in_a_sentence_is_shown_without_what_is_secret() -> None:
    assert {url: redact_url(url) for url in URLS} == URLS
    assert {text: redact(text) for text in SENTENCES} == SENTENCES


def test_a_secret_of_a_url_is_shown_nowhere_and_long_texts_take_no_time() -> None:
    error = CallAPerson("http://u:secret@h/a?secret: broken")
    assert "secret" not in f"{error} {error.message} {error!r}"
    assert "secret" not in str(Malformed("push_url: rtmp://h/secret", "c-1"))
    assert len(redact("a://" * 200_000)) > 0


@given(st.text(), st.text(alphabet=st.characters(exclude_categories=["Z", "C"]), min_size=1).map(lambda t: f"%{t}"))
def test_a_query_is_never_shown(around: str, secret: str) -> None:
    """Whatever stands around it; blanks end a URL, and are refused in a booking."""
    secret = f"S3{secret}CRET"
    assert secret not in redact(f"{around} http://h/a.flv?{secret}")
    assert secret not in redact_url(f"http://h/a.flv?{secret}")


REDIS = "Error 111 connecting to 127.0.0.1:1. Connect call failed ('127.0.0.1', 1)."
TLS = (
    "Error 1 connecting to h:1. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed (_ssl.c:1032)."
)


def test_what_went_wrong_is_said_without_numbers_of_the_system() -> None:
    assert plain(ConnectionError(REDIS)) == "127.0.0.1:1: connection refused"
    assert plain(ConnectionError(TLS)) == "h:1: certificate verify failed: self-signed"
    assert plain(OSError(errno.ENOENT, "No such file or directory")) == "No such file or directory"
    assert plain(TimeoutError()) == "no answer in time"
    assert plain(ValueError("it is none")) == "it is none"
