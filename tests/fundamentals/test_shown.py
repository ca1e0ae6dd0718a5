"""How URLs are written where people can read them."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lectern.errors import CallAPerson, Malformed
from lectern.shown import masked, plain, shown


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("http://h/6666.flv", "http://h/6666.flv"),
        ("https://h:8443/a/b.flv?Expires=1&Signature=x", "https://h:8443/a/b.flv?…"),
        ("http://user:pass@h/a.flv", "http://h/a.flv"),
        ("http://user:p@ss@h/a.flv#token", "http://h/a.flv?…"),
        ("http://[::1]:80/a?x", "http://[::1]:80/a?…"),
        ("oss://bucket/prefix", "oss://bucket/prefix"),
        ("rtmp://h:1935/live/key", "rtmp://h:1935/…"),
        ("RTMPS://h/live/key?auth_key=x", "RTMPS://h/…"),
        ("http://user:pa/ss@h/a", "http://…"),
        ("redis://:pass@h:6379/0", "redis://h:6379/0"),
        ("no URL?token", "no URL?…"),
        ("http://…", "http://…"),
        ("", ""),
    ],
)
def test_a_url_is_shown_without_what_is_secret(url: str, seen: str) -> None:
    assert shown(url) == seen


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("wget: http://h/a.flv?sign=x: ERROR 403: Forbidden.", "wget: http://h/a.flv?… ERROR 403: Forbidden."),
        ("http://h/a.flv: the origin answered 404", "http://h/a.flv: the origin answered 404"),
        ("begins with rtmp:// or rtmps://", "begins with rtmp:// or rtmps://"),
        ("set http://… or oss://bucket/prefix.", "set http://… or oss://bucket/prefix."),
        ("Error opening output rtmp://h/live/k: I/O", "Error opening output rtmp://h/…: I/O"),
        ("from 'http://h/a?x' to \"http://u:p@h/b\".", 'from \'http://h/a?… to "http://h/b".'),
        ("http://h/a.flv?…: the origin answered 404", "http://h/a.flv?…: the origin answered 404"),
        ("no URL at all: a?b", "no URL at all: a?b"),
        ("ssh://media@ecs-1:22: no answer", "ssh://media@ecs-1:22: no answer"),
        ("ssh://media:secret@ecs-1:22: no answer", "ssh://ecs-1:22: no answer"),
    ],
)
def test_urls_in_a_sentence_are_shown_without_what_is_secret(text: str, seen: str) -> None:
    assert masked(text) == seen


def test_no_error_has_a_secret_of_a_url_in_its_text() -> None:
    error = CallAPerson("http://u:secret@h/a?secret: broken")
    assert "secret" not in f"{error} {error.message} {error!r}"
    assert "secret" not in str(Malformed("push_url: rtmp://h/secret", "c-1"))


SECRETS = st.text("abcdefgh", min_size=3, max_size=8).map(lambda text: f"S{text}")


@given(SECRETS, SECRETS, st.sampled_from(["", "/a", "/a%20b/c.flv"]))
def test_a_url_that_is_shown_has_lost_its_secrets(password: str, token: str, path: str) -> None:
    assert shown(f"https://user:{password}@store.example{path}?signature={token}") == f"https://store.example{path}?…"


@given(st.text(), st.text(alphabet=st.characters(exclude_categories=["Z", "C"]), min_size=1).map(lambda t: f"%{t}"))
def test_a_query_is_never_shown(around: str, secret: str) -> None:
    """Whatever stands around it; blanks end a URL, and are refused in a booking."""
    secret = f"S3{secret}CRET"
    assert secret not in masked(f"{around} http://h/a.flv?{secret}")
    assert secret not in shown(f"http://h/a.flv?{secret}")


def test_a_long_text_is_read_in_no_time() -> None:
    assert len(masked("a://" * 200_000)) > 0


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionError("Error 111 connecting to 127.0.0.1:1. Connect call failed ('127.0.0.1', 1)."),
            "127.0.0.1:1: connection refused",
        ),
        (
            ConnectionError(
                "Error 1 connecting to h:1. [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: "
                "self-signed certificate (_ssl.c:1032)."
            ),
            "h:1: certificate verify failed: self-signed certificate",
        ),
        (OSError(errno.ENOENT, "No such file or directory"), "No such file or directory"),
        (TimeoutError(), "no answer in time"),
        (ValueError("it is none"), "it is none"),
    ],
)
def test_what_went_wrong_is_said_without_numbers_of_the_system(error: Exception, said: str) -> None:
    assert plain(error) == said
