"""What a rendition is called on a streamer: two recordings never share a file."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import stems
from lectern.states import Resolution
from lectern.stems import Held

ORIGIN = "http://origin.example/records"


@pytest.mark.parametrize(
    ("url", "stem", "folder"),
    [
        ("http://origin.example/6666.flv", "6666", "6666"),
        ("http://origin.example/a/b/6666.mp4", "6666", "6666"),
        ("https://origin.example/6666", "6666", "6666"),
        ("http://origin.example/lesson-7_b.flv", "lesson-7_b", "lesson-7_b"),
        ("http://origin.example/06666.flv", "06666", "06666"),
        ("http://origin.example/99999999999999999999.flv", "99999999999999999999", "99999999999999999999"),
        (f"http://origin.example/{2**63}.flv", str(2**63), str(2**63)),
        ("http://origin.example/6666_999P.flv", "6666_999P", "6666_999P"),
        ("http://origin.example/6666.flv?Expires=1&OSSAccessKeyId=a&Signature=b", "6666", "6666"),
    ],
)
def test_a_recording_without_a_record_is_called_as_its_file(url: str, stem: str, folder: str) -> None:
    assert (stems.of_url(url), stems.folder(stem)) == (stem, folder)
    assert stems.is_stem(stem)


@pytest.mark.parametrize(
    "name",
    [
        "6666_720P.flv",  # a rendition of record 6666
        "06666_720P.flv",
        "quarantine.flv",
        f"url-{'0' * 32}.flv",
        "",
        ".flv",
        "..flv",
        "-rf.flv",
        "_a.flv",
        "a.b.flv",
        "6666.flv.part.flv",
        "%36666.flv",
        "a%2Fb.flv",
        "课.flv",
        "a+b.flv",
        "a;b.flv",
        f"{'x' * 101}.flv",
        f"{'x' * 300}.flv",
        "6666.flv?id=7",
    ],
)
def test_any_other_name_is_replaced_by_one_that_no_other_recording_can_have(name: str) -> None:
    url = f"{ORIGIN}/{name}"
    assert stems.of_url(url) == stems.hashed(url)
    assert stems.is_stem(stems.hashed(url))
    assert stems.folder(stems.hashed(url)) == stems.hashed(url)


def test_a_new_signature_is_the_same_recording_and_another_query_is_not() -> None:
    assert stems.source(f"{ORIGIN}/a.flv?Expires=1&Signature=x") == stems.source(
        f"{ORIGIN}/a.flv?Signature=y&Expires=2"
    )
    assert stems.source(f"{ORIGIN}/a.flv?id=1&Expires=1") == stems.source(f"{ORIGIN}/a.flv?id=1&Expires=2")
    assert stems.of_url(f"{ORIGIN}/get?id=1") != stems.of_url(f"{ORIGIN}/get?id=2")


def test_a_name_that_another_recording_has_is_not_taken() -> None:
    one, other = "http://a.example/6666.flv", "http://b.example/6666.flv"
    held = {"6666": Held(stems.source(one), one)}
    assert stems.chosen(None, None, one, held) == "6666"
    assert stems.chosen(None, None, "HTTP://A.example:80/6666.flv?Signature=new", held) == "6666"
    assert stems.chosen(None, None, other, held) == stems.hashed(other)


def test_a_record_keeps_its_name_whatever_its_urls_unless_another_recording_has_it() -> None:
    one, other = "http://a.example/x.flv", "http://b.example/6666.flv"
    assert stems.chosen(6666, None, one, {}) == "6666"
    assert stems.chosen(6666, None, one, {"6666": Held(None, other)}) == "6666"
    assert stems.chosen(6666, None, other, {"6666": Held(stems.source(other), other)}) == "6666"
    assert stems.chosen(6666, None, one, {"6666": Held(stems.source(other), other)}) == stems.hashed(one)
    assert stems.chosen(6666, Resolution.P720, one, {"6666_720P": Held("x", "x")}) == "6666_720P"


def test_a_file_that_a_record_named_is_shared_only_with_its_own_url() -> None:
    one, other = "http://a.example/6666.flv", "http://b.example/6666.flv"
    assert stems.chosen(None, None, one, {"6666": Held(None, one)}) == "6666"
    assert stems.chosen(None, None, other, {"6666": Held(None, one)}) == stems.hashed(other)
    assert stems.chosen(None, None, other, {"6666": Held(None, None)}) == stems.hashed(other)


recordings = st.builds(
    "http://{}.example/{}{}".format,
    st.sampled_from("ab"),
    st.sampled_from(["6666", "6666_720P", "a", "quarantine", "%41", "a.b", ""]) | st.text(string.printable, max_size=4),
    st.sampled_from([".flv", ".mp4", "", "?id=1", ".flv?Signature=x"]),
)


@given(st.lists(recordings, max_size=12))
def test_classes_in_any_order_never_share_a_file_unless_their_recording_is_the_same(named: list[str]) -> None:
    held: dict[str, Held] = {}
    for url in named:
        stem = stems.chosen(None, None, url, held)
        assert stems.is_stem(stem)
        before = held.setdefault(stem, Held(stems.source(url), url))
        assert before.source == stems.source(url)
        assert stems.folder(stem) in {stem, str(stems.record_of(stem))}
