"""Whether a server listens where a class is to be pushed is said in words, whatever the URL is."""

import asyncio
import socket
from typing import Any

import pytest

from lectern import health
from lectern.allowlist import Allowlist
from lectern.playout import net
from town.ports import HOST, free_port

HERE = Allowlist.listed(HOST, "ALLOWED_PUSH_HOSTS")


async def test_a_server_that_listens_is_reached_and_of_any_other_host_and_port_are_named() -> None:
    with socket.create_server((HOST, 0)) as server:
        port = server.getsockname()[1]
        assert await health.unreachable(f"RTMP://{HOST}:{port}/live/x", timeout_s=5, allowed=HERE) is None
    port = free_port()
    found = await health.unreachable(f"rtmp://{HOST}:{port}/live/x", timeout_s=5, allowed=HERE)
    assert found == f"{HOST}:{port}: Connection refused"
    found = await health.unreachable("rtmp://h:99999/live/x", timeout_s=5, allowed=HERE)
    assert (found or "").startswith("the push URL must ")


async def test_an_address_that_does_not_answer_leaves_time_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a class whose server takes it is red."""
    loop, dead = asyncio.get_running_loop(), "127.0.0.2"
    connect, look_up = loop.sock_connect, loop.getaddrinfo

    async def finds(_: str, port: int, **more: int) -> list[Any]:
        return [found for address in (dead, HOST) for found in await look_up(address, port, **more)]

    async def hangs(connection: socket.socket, address: tuple[str, int]) -> None:
        await (asyncio.Event().wait() if address[0] == dead else connect(connection, address))

    monkeypatch.setattr(loop, "sock_connect", hangs)
    monkeypatch.setattr(loop, "getaddrinfo", finds)
    monkeypatch.setattr(net, "NEXT_S", 0.3)
    with socket.create_server((HOST, 0)) as server:
        url = f"rtmp://{HOST}:{server.getsockname()[1]}/live/x"
        assert await health.unreachable(url, timeout_s=1, allowed=Allowlist.listed("127.0.0.0/8", "N")) is None


@pytest.mark.parametrize("name", [HOST, "localhost"])
async def test_a_place_that_is_not_allowed_is_not_connected_to(name: str) -> None:
    """What listens there is nobody's business."""
    with socket.create_server((HOST, 0)) as server:
        server.settimeout(0.3)
        port = server.getsockname()[1]
        found = await health.unreachable(f"rtmp://{name}:{port}/live/x", timeout_s=5, allowed=Allowlist())
        assert found is not None
        assert found.endswith("is no allowed push host; see ALLOWED_PUSH_HOSTS")
        with pytest.raises(TimeoutError):
            server.accept()
