"""Whether a server listens where a class is to be pushed is said in words, whatever the URL is."""

import socket

import pytest

from lectern.effects import reach

HOST = "127.0.0.1"


@pytest.mark.asyncio
async def test_a_server_that_listens_is_reached_in_any_spelling_of_the_scheme() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        assert await reach.unreachable(f"RTMP://{HOST}:{port}/live/x", timeout_s=5) is None


@pytest.mark.asyncio
async def test_where_nobody_listens_the_host_and_the_port_are_named() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
    assert (await reach.unreachable(f"rtmp://{HOST}:{port}/live/x", timeout_s=5) or "").startswith(f"{HOST}:{port}: ")


@pytest.mark.asyncio
@pytest.mark.parametrize(
    "url",
    ["rtmp://h:99999/live/x", "rtmp://h:abc/live/x", "rtmp://a..b/live/x", f"rtmp://{'a' * 64}/live/x", "http://[", ""],
)
async def test_a_faulty_url_is_words_and_no_error(url: str) -> None:
    assert (await reach.unreachable(url, timeout_s=5) or "").startswith("the push URL must ")
