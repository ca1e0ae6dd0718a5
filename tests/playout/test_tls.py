"""rtmps: a certificate is verified, always; a session ends with its worker, and is made anew."""

import asyncio
import os
import signal
import socket
import ssl
from pathlib import Path

import pytest

from lectern.playout import net, worker
from lectern.playout.rtmp import target
from tests.effects.certificates import issued
from tests.playout import flvs
from tests.playout.receiver import HOST, Receiver, sounds
from tests.playout.stage import Inside, Playout
from tests.playout.turned import Air
from tests.waiting import wait_until


def certificate(folder: Path, host: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate for *host*, and the file to trust."""
    authority, server = issued(folder, host)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server)
    return context, authority


@pytest.mark.live
def test_a_class_is_aired_over_tls_and_connects_anew_when_its_worker_dies(tmp_path: Path) -> None:
    tags = flvs.lesson(60)
    path = flvs.write(tmp_path / "a.flv", tags)
    context, ca_file = certificate(tmp_path, "localhost")
    with Receiver(tls=context) as receiver, Playout(tmp_path / "p", ca_file=ca_file) as playout:
        playout.air("c1", path, f"rtmps://localhost:{receiver.port}/live/c1", starts_in_s=3)
        wait_until(lambda: playout.told("on_air"), description="on air")
        first = receiver.session("c1")
        os.kill(playout.worker(), signal.SIGKILL)
        receiver.session("c1", 2, has=sounds)
        wait_until(lambda: first.ended, description="the end of the first")
        packets = first.packets()
        assert packets == tags[: len(packets)]
        assert len(packets) > 30


@pytest.mark.parametrize(("of", "is_listed"), [("localhost", True), ("localhost", False), ("elsewhere", True)])
async def test_only_a_certificate_that_is_trusted_is_sent_a_class(
    air: Air, tmp_path: Path, of: str, is_listed: bool
) -> None:
    context, ca_file = certificate(tmp_path, of)
    with Receiver(tls=context) as receiver:
        airing = air(f"rtmps://localhost:{receiver.port}/live/c1")
        airing.context.ca_file = str(ca_file) if is_listed else None
        if (of, is_listed) == ("localhost", True):
            await airing.until(lambda: airing.told("on_air"))
            assert receiver.session("c1").packets()[:2] == [(9, 0, flvs.AVC_HEADER), (8, 0, flvs.AAC_HEADER)]
            assert [one.journal for one in airing.sessions.values()] == [None], "its keys cannot be handed over"
        else:
            await airing.seen(lambda: airing.told("broke_off"))
            assert airing.told("broke_off")[0]["why"].startswith("the server's certificate is not trusted: ")
            assert [one for one in receiver.sessions if one.published] == []
        airing.end()


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "TLS with the server fails: "),
        (b"\x15\x03\x03\x00\x02\x02\x28", "TLS with the server fails: "),
        (b"", "the server closed the connection"),
    ],
)
async def test_a_server_without_tls_is_told_in_words(says: bytes, words: str) -> None:
    """Not as "Operation not permitted": OpenSSL has other numbers for its errors than the system has."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(says)
        writer.close()

    async with await asyncio.start_server(answer, HOST, 0) as server:
        port = server.sockets[0].getsockname()[1]
        trusted = ssl.create_default_context()
        found = await worker.connect_refusal(target(f"rtmps://{HOST}:{port}/live/c1"), trusted)
    assert found is not None
    assert found.startswith(words)


@pytest.mark.parametrize(
    ("family", "bad", "why"),
    [
        (12345, HOST, "Address family not supported by protocol"),
        (socket.AF_INET, "127.0.0.2", "no answer within 0.1 s"),
    ],
    ids=["this machine cannot reach it", "it does not answer"],
)
async def test_an_address_that_is_no_good_leaves_time_for_the_next_one_and_is_the_reason_if_that_is_none_either(
    monkeypatch: pytest.MonkeyPatch, family: int, bad: str, why: str
) -> None:
    """Else a good server counts as one that does not answer, and its classes begin seconds late."""
    loop = asyncio.get_running_loop()
    connect = loop.sock_connect

    async def hangs(connection: socket.socket, address: tuple[str, int]) -> None:
        await (asyncio.Event().wait() if address[0] == bad != HOST else connect(connection, address))

    async def found(host: str, port: int, **_: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        kind = socket.SOCK_STREAM, socket.IPPROTO_TCP, ""
        return [(family, *kind, (bad, port)), (socket.AF_INET, *kind, (host, port))]

    monkeypatch.setattr(loop, "sock_connect", hangs)
    monkeypatch.setattr(loop, "getaddrinfo", found)
    monkeypatch.setattr(net, "NEXT_S", 0.1)
    with socket.create_server((HOST, 0)) as server:
        where = target(f"rtmp://{HOST}:{server.getsockname()[1]}/live/c1")
        async with asyncio.timeout(worker.TRY_S - 1):
            (await net.connect(where, 0, None)).close()
    assert await worker.connect_refusal(where, None) == why


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_certificates_that_cannot_be_read_is_named(tmp_path: Path, content: str | None) -> None:
    path, ca_file = flvs.write(tmp_path / "a.flv", flvs.lesson(9)), tmp_path / "ca.pem"
    if content is not None:
        ca_file.write_text(content)
    with Inside(tmp_path / "p", ca_file=ca_file) as playout:
        playout.air("c1", path, f"rtmps://{HOST}:9/live/c1", starts_in_s=0.2)
        wait_until(lambda: playout.told("broke_off"), description="the reason")
        why = playout.told("broke_off")[0]["why"]
        assert why.startswith(f"{ca_file}: the certificates to trust cannot be read: ")
        assert "rror 1" not in why
        assert "cannot be read: " in playout.ask("try", url=f"rtmps://{HOST}:9/live/c1")["refused"]
