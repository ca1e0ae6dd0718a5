"""A URL that was accepted can be used: one check, at the booking and wherever the URL is used later."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern import urls

PUSH = [
    ("rtmp://push.example/live/x", ("push.example", 1935)),
    ("rtmps://push.example/live/x", ("push.example", 443)),
    ("rtmp://127.0.0.1:19350/live/x", ("127.0.0.1", 19350)),
    ("rtmp://[::1]:1936/live/x", ("::1", 1936)),
    ("rtmp://[2001:DB8::1]/live/x", ("2001:db8::1", 1935)),
    ("rtmp://control/live/x", ("control", 1935)),
    ("rtmp://control_1.example./live/x", ("control_1.example.", 1935)),
    ("rtmp://user:p%40ss@push.example/live/x?key=a/b", ("push.example", 1935)),
    ("rtmp://push.example:65535/x", ("push.example", 65535)),
]


@pytest.mark.parametrize(("text", "place"), PUSH)
def test_a_push_url_leads_to_a_host_and_a_port(text: str, place: tuple[str, int]) -> None:
    url = urls.push(text)
    assert (url.host, url.port) == place
    assert urls.push(url.text) == url


@pytest.mark.parametrize(
    "text",
    [
        "rtmp://host:99999/live/x",
        "rtmp://host:abc/live/x",
        "rtmp://host:0/live/x",
        "rtmp://host:-1/live/x",
        "rtmp://host:１９３５/live/x",
        f"rtmp://host:{'1' * 1_500}/live/x",
        "rtmp://host:1:2/live/x",
        "rtmp://a..b/live/x",
        "rtmp://.a/live/x",
        "rtmp://./live/x",
        f"rtmp://{'a' * 64}.example/live/x",
        f"rtmp://{'.'.join(['a' * 60] * 5)}/live/x",
        f"rtmp://{''.join(map(chr, range(0x4E00, 0x9000, 300)))}.example/live/x",
        "rtmp://ho$t/live/x",
        "rtmp://ho%41t/live/x",
        "rtmp://999.1.1.1/live/x",
        "rtmp://127.1/live/x",
        "rtmp://[::1/live/x",
        "rtmp://[v1.a]/live/x",
        "rtmp://[:::1]/live/x",
        "rtmp://a:b:c/live/x",
        "rtmp://a\\@push.example/live/x",
        "rtmp://:1935/live/x",
        "rtmp:///live/x",
        "rtmp:/push.example/live/x",
        "//push.example/live/x",
        "http://push.example/live/x",
        "rtmp://push.example",
        "rtmp://push.example//",
        "rtmp://push.example?key=x",
        "rtmp://push.example/live/a b",
        "rtmp://push.example/live/a\x00b",
        "rtmp://push.example/live/a\nb",
        "\nrtmp://push.example/live/x",
        "rtmp://push.example/" + "x" * 2_000,
        "",
    ],
)
def test_what_cannot_be_pushed_to_is_refused_in_words_that_do_not_repeat_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"^must ") as caught:
        urls.push(text)
    assert not text or text not in str(caught.value)


def test_the_scheme_and_the_host_are_written_in_small_letters_and_the_rest_as_it_came() -> None:
    assert urls.push("RTMP://User@Push.EXAMPLE:01935/Live/X?K=V#F").text == "rtmp://User@push.example:1935/Live/X?K=V#F"


def test_a_host_of_other_letters_is_written_as_dns_writes_it() -> None:
    assert urls.push("rtmp://课堂.example/live/x").text == "rtmp://xn--cksr32j.example/live/x"


def test_the_url_of_a_recording_is_checked_in_the_same_way() -> None:
    assert (
        urls.http("HTTP://O.example:80/6666.flv?Signature=A%2Fb").text == "http://o.example:80/6666.flv?Signature=A%2Fb"
    )
    for faulty in ("http://o.example:99999/x", "http://a..b/x", "rtmp://o.example/x", "http://[", "http:o.example/x"):
        with pytest.raises(ValueError, match=r"^must "):
            urls.http(faulty)


def test_two_spellings_of_a_push_url_name_the_same_stream() -> None:
    one = "rtmp://push.example/live/c-1"
    for same in (
        "RTMP://PUSH.example:1935/live/c-1",
        "rtmp://user:secret@push.example/live/c-1",
        "rtmp://push.example/live/c-1?auth_key=1764010800-0-0-abc",
        "rtmp://push.example/live/c-1?txSecret=a&txTime=b",
    ):
        assert urls.push(same).stream == urls.push(one).stream
    for other in (
        "rtmp://push.example/live/C-1",
        "rtmp://push.example:1936/live/c-1",
        "rtmp://push.example/live/c-2",
        "rtmp://push.example/live/c-1?vhost=other.example",
        "rtmp://other.example/live/c-1",
    ):
        assert urls.push(other).stream != urls.push(one).stream


@given(
    st.from_regex(r"(rtmps?|RTMP|http)://[a-zA-Z0-9._:@\[\]-]{0,20}(/[!-~]{0,10})?", fullmatch=True)
    | st.text(max_size=40)
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
        assert urls.read(text, schemes) == expected
