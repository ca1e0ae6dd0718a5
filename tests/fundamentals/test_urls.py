"""Which URLs are taken, and under which name a recording is kept."""

import re
import string
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import rendition_ids, urls
from lectern.rendition_ids import HeldStem
from lectern.states import Resolution

PUSH = {
    "rtmp://push.example/live/x": ("push.example", 1935),
    "rtmps://push.example/live/x": ("push.example", 443),
    "rtmp://[::1]:1936/live/x": ("::1", 1936),
    "rtmp://[2001:DB8::1]/live/x": ("2001:db8::1", 1935),
    "rtmp://control_1.example./live/x": ("control_1.example.", 1935),
    "rtmp://user:p%40ss@push.example/live/x?key=a/b": ("push.example", 1935),
    "rtmp://push.example:65535/x": ("push.example", 65535),
}


def test_a_push_url_leads_to_a_host_and_a_port_and_is_written_as_dns_writes_it() -> None:
    """What comes behind the host stays as it came."""
    for text, place in PUSH.items():
        url = urls.push(text)
        assert (url.host, url.port) == place
    text = "RTMP://User@Push.EXAMPLE:01935/Live/X?K=V#F"
    assert urls.push(text).text == "rtmp://User@push.example:1935/Live/X?K=V#F"
    assert urls.push("rtmp://课堂.example/live/x").text == "rtmp://xn--cksr32j.example/live/x"


NO_HOSTS = [
    *("a..b", ".a", ".", f"{'a' * 64}.example", ".".join(["a" * 60] * 5)),
    f"{''.join(map(chr, range(0x4E00, 0x9000, 300)))}.example",
    *("ho$t", "ho%41t", "999.1.1.1", "127.1", "[::1", "[v1.a]", "[:::1]", "a:b:c", "a\\@push.example", ":1935", ""),
    *(f"host:{port}" for port in ("99999", "abc", "0", "-1", "１９３５", "1" * 1_500, "1:2")),
]
NO_PATHS = ["", "//", "?key=x", "/live/a b", "/live/a\x00b", "/live/a\nb", "/" + "x" * 2_000]
NO_SCHEMES = ["rtmp:/", "//", "http://", "\nrtmp://"]


@pytest.mark.parametrize(
    "text",
    [
        *(f"rtmp://{host}/live/x" for host in NO_HOSTS),
        *(f"rtmp://push.example{path}" for path in NO_PATHS),
        *(f"{scheme}push.example/live/x" for scheme in NO_SCHEMES),
    ],
)
def test_what_cannot_be_pushed_to_is_refused_in_words_that_do_not_repeat_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as caught:
        urls.push(text)
    assert text not in str(caught.value)


def test_two_spellings_of_a_push_url_name_the_same_stream() -> None:
    one = "rtmp://push.example/live/c-1"
    same = {one, "RTMP://PUSH.example:1935/live/c-1", "rtmp://user:secret@push.example/live/c-1"}
    same |= {f"{one}?auth_key=1764010800-0-0-abc", f"{one}?txSecret=a&txTime=b"}
    assert len({urls.push(text).stream for text in same}) == 1
    others = {one, "rtmp://push.example/live/C-1", "rtmp://push.example:1936/live/c-1"}
    others |= {"rtmp://other.example/live/c-1", f"{one}?vhost=other.example"}
    assert len({urls.push(text).stream for text in others}) == len(others)


@given(
    st.from_regex(r"(rtmps?|RTMP|http)://[a-zA-Z0-9._:@\[\]-]{0,20}(/[!-~]{0,10})?", fullmatch=True)
    | st.text(max_size=40)
    | st.sampled_from([*PUSH])
)
def test_whatever_comes_is_a_url_that_reads_the_same_again_or_a_value_error(text: str) -> None:
    try:
        url = urls.push(text)
    except ValueError:
        return
    assert urls.push(url.text) == url
    assert 1 <= url.port <= 65_535
    assert url.host.encode("idna")


_pieces = st.sampled_from(
    [
        *("http://", "https://", "rtmp://", "rtmps://", "HTTP://", "host", "a.b-c.example", "10.0.0.1", "1.2", "x_1"),
        *("9", "H.x", ":80", ":0", ":01", ":70000", ":8080", "/", "/live/c-1", "10.0.0.255", ".256", "01", ":59999"),
        *(":65535", "?a=b&c", "#", "@", "..", "-", "\\", "[::1]", "é", "%20"),
    ]
)


@given(st.lists(_pieces, min_size=2, max_size=7).map("".join), st.sampled_from([urls.HTTP, urls.RTMP]))
def test_a_plain_url_is_read_as_the_careful_check_reads_it(text: str, schemes: tuple[str, ...]) -> None:
    """The short way takes only what the long way takes, and finds the same in it."""
    try:
        expected = urls.careful(text, schemes)
    except ValueError as refused:
        with pytest.raises(ValueError, match=re.escape(str(refused))):
            urls.read(text, schemes)
    else:
        names_stream = schemes == urls.HTTP or expected.path.strip("/")
        with nullcontext() if names_stream else pytest.raises(ValueError, match="must name the stream"):
            assert urls.read(text, schemes) == expected


ORIGIN = "http://origin.example/records"
PLAIN = {f"{one}.flv": one for one in ("6666", "lesson-7_b", "06666", "9" * 20, str(2**63), "6666_999P")}
PLAIN |= dict.fromkeys(("a/b/6666.mp4", "6666", "6666.flv?Expires=1&OSSAccessKeyId=a&Signature=b"), "6666")
ODD = ["6666_720P", "06666_720P", "quarantine", f"url-{'0' * 32}", "", ".", "-rf", "_a", "a.b", "6666.flv.part", "课"]
ODD += ["%36666", "a%2Fb", "a+b", "a;b", "x" * 101, "x" * 300]


def test_a_recording_without_a_record_is_called_as_its_file_if_that_is_a_plain_name() -> None:
    """Any other name is replaced by one that no other recording can have; a new signature is the same recording."""
    for path, stem in PLAIN.items():
        assert (rendition_ids.of_url(f"{ORIGIN}/{path}"), rendition_ids.folder(stem)) == (stem, stem)
        assert rendition_ids.is_stem(stem)
    for url in (f"{ORIGIN}/{name}" for name in ("", "6666.flv?id=7", *(f"{one}.flv" for one in ODD))):
        stem = rendition_ids.of_url(url)
        assert stem == rendition_ids.hashed(url) == rendition_ids.folder(stem)
        assert rendition_ids.is_stem(stem)
    signed = [f"{ORIGIN}/a.flv?{one}" for one in ("Expires=1&Signature=x&id=1", "Signature=y&id=1&Expires=2")]
    assert rendition_ids.source(signed[0]) == rendition_ids.source(signed[1])
    assert rendition_ids.of_url(f"{ORIGIN}/get?id=1") != rendition_ids.of_url(f"{ORIGIN}/get?id=2")


ONE, OTHER = "http://a.example/6666.flv", "http://b.example/6666.flv"
BY_URL = {url: HeldStem(rendition_ids.source(url), url) for url in (ONE, OTHER)}
CHOSEN: dict[str, tuple[int | None, str, HeldStem | None, bool]] = {
    "it has the file": (None, "HTTP://A.example:80/6666.flv?Signature=new", BY_URL[ONE], True),
    "another recording has it": (None, OTHER, BY_URL[ONE], False),
    "of a record": (6666, "http://a.example/x.flv", None, True),
    "a record has it": (6666, ONE, HeldStem(None, OTHER), True),
    "a record, by the URL of its file": (6666, OTHER, BY_URL[OTHER], True),
    "another recording has that of a record": (6666, ONE, BY_URL[OTHER], False),
    "a record named the file, with its URL": (None, ONE, HeldStem(None, ONE), True),
    "a record named the file, with another": (None, OTHER, HeldStem(None, ONE), False),
    "a record named the file, with none": (None, OTHER, HeldStem(None, None), False),
}


@pytest.mark.parametrize(("record", "url", "held", "is_kept"), CHOSEN.values(), ids=CHOSEN)
def test_a_name_that_another_recording_has_is_not_taken(
    record: int | None, url: str, held: HeldStem | None, *, is_kept: bool
) -> None:
    """A record keeps its name whatever its URLs; a file that it named is shared with its own URL alone."""
    found = rendition_ids.chosen(record, None, url, {"6666": held} if held else {})
    assert found == ("6666" if is_kept else rendition_ids.hashed(url))
    rendition = rendition_ids.chosen(6666, Resolution.P720, url, {"6666_720P": HeldStem("x", "x")})
    assert rendition == "6666_720P"


recordings = st.builds(
    "http://{}.example/{}{}".format,
    st.sampled_from("ab"),
    st.sampled_from(["6666", "6666_720P", "a", "quarantine", "%41", "a.b", ""]) | st.text(string.printable, max_size=4),
    st.sampled_from([".flv", ".mp4", "", "?id=1", ".flv?Signature=x"]),
)


@given(st.lists(recordings, max_size=12))
def test_classes_in_any_order_never_share_a_file_unless_their_recording_is_the_same(named: list[str]) -> None:
    held: dict[str, HeldStem] = {}
    for url in named:
        stem = rendition_ids.chosen(None, None, url, held)
        assert rendition_ids.is_stem(stem)
        before = held.setdefault(stem, HeldStem(rendition_ids.source(url), url))
        assert before.source == rendition_ids.source(url)
        assert rendition_ids.folder(stem) in {stem, str(rendition_ids.record_of(stem))}
