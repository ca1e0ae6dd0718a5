"""Programs on another host: a real sshd on loopback."""

import asyncio
import socket
from pathlib import Path
from typing import Any

import asyncssh
import paramiko  # type: ignore[import-untyped]
import pytest

from lectern import subprocesses
from lectern.ecs import ssh
from lectern.errors import CallAPerson, Misuse, TryAgain
from tests.effects.conftest import FAMILY, STUBBORN, Sshd, ended, login, make_key
from tests.waiting import async_wait_until
from town.ports import free_port
from town.sshd import SshServer

pytestmark = pytest.mark.live
BEGUN_S = 4
"""Seconds in which a program there has surely begun, on a busy machine, too."""


def test_a_host_is_read_and_what_is_none_is_told_what_to_type() -> None:
    assert ssh.SshHost.parse("ssh://media@ecs-1.example:2222") == ssh.SshHost("media", "ecs-1.example", 2222)
    assert ssh.SshHost.parse("ssh://media@10.0.0.1") == ssh.SshHost("media", "10.0.0.1", 22)
    assert str(ssh.SshHost.parse("ssh://media@[::1]:22")) == "ssh://media@[::1]:22"
    assert ssh.SshHost.parse("ssh://media@ecs-1.example.").name == "ecs-1.example."
    slips = ("ssh://a@ecs..example", "ssh://a@.example", f"ssh://a@{'e' * 64}")  # which no resolver can be asked for
    for text in ("", "ecs-1", "ssh://ecs-1", "ssh://a:b@c", "ssh://a@b:0", "http://a@b", *slips):
        with pytest.raises(Misuse, match="ssh://user@host:port"):
            ssh.SshHost.parse(text)


async def test_a_program_runs_there_and_its_words_come_back_whole_and_bounded(sshd: Sshd) -> None:
    odd = ["it's", 'a "b" $HOME', "-x; rm", "二", ""]
    async with login(sshd) as connection:
        finished = await connection.run(["printf", "%s\n", *odd], timeout_s=10)
        assert finished.output.split("\n")[:-1] == odd
        finished = await connection.run(["sh", "-c", "echo out; echo err >&2; exit 7"], timeout_s=10)
        assert (finished.returncode, finished.output, finished.errors) == (7, "out\n", "err\n")
        assert (await connection.run(["no-such-program"], timeout_s=10)).returncode == 127
        assert (await connection.run(["cat"], timeout_s=10, stdin=b"in")).output == "in"
        assert (await connection.run(["cat"], timeout_s=10)).output == ""
    lines: list[str] = []
    async with login(sshd) as connection:
        finished = await connection.run(["seq", "1", "100000"], timeout_s=30, on_line=lines.append)
    assert lines == [str(number) for number in range(1, 100_001)]
    assert len(finished.output) == subprocesses.KEPT_BYTES


async def test_an_odd_line_of_the_known_hosts_makes_no_other_host_unknown(sshd: Sshd, tmp_path: Path) -> None:
    """A disk that was full cut off a line, somebody wrote a remark in GBK, or what a server answered was no key.

    Hosts are known in hashes, as ``HashKnownHosts yes`` writes them, and with several names, as people do.
    """
    known = sshd.known_hosts.read_bytes()
    name, _, key = known.partition(b" ")
    odd = b"# \xc4\xe3\n\xc4\xe3 " + key
    written = [odd + b"lost.example " + key[:cut] + b"\n\n<html>\n" + known for cut in (8, 40, 60)]
    written += [paramiko.HostKeys.hash_host(name.decode()).encode() + b" " + key, b"other.example," + known]
    for text in written:
        (tmp_path / "known_hosts").write_bytes(text)
        async with login(sshd, known_hosts=tmp_path / "known_hosts") as connection:
            assert (await connection.run(["echo", "in"], timeout_s=10)).output == "in\n"


@pytest.mark.parametrize(("script", "stalls"), [(FAMILY, False), (STUBBORN, False), (f"echo hmm >&2; {FAMILY}", True)])
async def test_a_program_that_takes_too_long_or_stalls_is_ended_there(
    sshd: Sshd, monkeypatch: pytest.MonkeyPatch, script: str, *, stalls: bool
) -> None:
    monkeypatch.setattr(ssh, "_GRACE_S", 1)
    limits: dict[str, Any] = {"timeout_s": 2 * BEGUN_S, "stall_s": BEGUN_S} if stalls else {"timeout_s": BEGUN_S}
    error, said = (subprocesses.Stalled, "hmm") if stalls else (subprocesses.TimedOut, "ssh://")
    lines: list[str] = []
    async with login(sshd) as connection:
        with pytest.raises(error, match=said):
            await connection.run(["sh", "-c", script], on_line=lines.append, **limits)
    assert len(lines[0].split()) == 2
    assert ended(map(int, lines[0].split())), "when its time is over, though nobody listens to it any more"


async def keeps_out(error: type[Exception], words: str, sshd: Sshd, **other: Path) -> None:
    with pytest.raises(error, match=words):
        async with login(sshd, **other):
            pass


async def test_an_unknown_host_key_calls_a_person_and_a_file_that_is_no_key_is_named(
    sshd: Sshd, tmp_path: Path
) -> None:
    other = tmp_path / "known_hosts"
    other.touch()
    await keeps_out(CallAPerson, f"ssh-keyscan -p {sshd.port} 127.0.0.1 >> ", sshd, known_hosts=other)
    assert other.read_text() == ""
    other.write_text(f"[127.0.0.1]:{sshd.port} {make_key(tmp_path / 'other')}")
    await keeps_out(CallAPerson, "is another than in", sshd, known_hosts=other)
    await keeps_out(Misuse, "ssh-keyscan", sshd, known_hosts=tmp_path / "none")
    make_key(tmp_path / "locked", passphrase="made up")
    (tmp_path / "odd").write_text("no key\n")
    for name in ("locked", "odd", "none"):
        await keeps_out(Misuse, "ssh-keygen", sshd, key=tmp_path / name)


@pytest.mark.parametrize("kind", ["-t ed25519", "-t ecdsa", "-t rsa", "-t rsa -m PEM"])
async def test_a_key_of_any_kind_lets_us_in_and_calls_a_person_before_the_host_takes_it(
    sshd: Sshd, tmp_path: Path, kind: str
) -> None:
    key, authorized = tmp_path / "another", sshd.folder / "authorized"
    before = authorized.read_text()
    with_it = before + make_key(key, kind.split())
    await keeps_out(CallAPerson, "ssh-copy-id", sshd, key=key)
    authorized.write_text(with_it)
    try:
        async with login(sshd, key=key) as connection:
            assert (await connection.run(["echo", "in"], timeout_s=10)).output == "in\n"
    finally:
        authorized.write_text(before)


@pytest.mark.parametrize("goes_away", [False, True], ids=["it is busy", "it is shut down"])
async def test_a_host_that_does_not_say_whether_it_takes_our_key_is_lost_and_refuses_nothing(
    tmp_path: Path, *, goes_away: bool
) -> None:
    """What was begun there goes on, and is looked for: a refusal would end it."""
    over = asyncio.Event()

    class Door(asyncssh.SSHServer):
        def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
            self.connection = conn

        async def begin_auth(self, _: str) -> bool:
            if goes_away:
                self.connection.abort()
            await over.wait()
            return True

    key, known = asyncssh.generate_private_key("ssh-ed25519"), tmp_path / "known_hosts"
    make_key(tmp_path / "ours")
    async with await asyncssh.listen("127.0.0.1", 0, server_factory=Door, server_host_keys=[key]) as server:
        known.write_text(f"[127.0.0.1]:{server.get_port()} {key.export_public_key().decode()}")
        host = ssh.SshHost("media", "127.0.0.1", server.get_port())
        with pytest.raises(ssh.Lost, match="cannot be reached"):
            async with ssh.connect(host, tmp_path / "ours", known, timeout_s=2):
                pass
        over.set()


async def test_a_host_that_does_not_answer_or_is_lost_is_tried_again_and_not_waited_for(sshd: Sshd) -> None:
    host = ssh.SshHost("media", "127.0.0.1", free_port())
    with pytest.raises(TryAgain, match=r"cannot be reached: (?!\[Errno)"):
        async with ssh.connect(host, sshd.key, sshd.known_hosts, timeout_s=5):
            pass
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = ssh.SshHost("media", "127.0.0.1", server.getsockname()[1])
        with pytest.raises(TryAgain):
            async with asyncio.timeout(30), ssh.connect(host, sshd.key, sshd.known_hosts, timeout_s=1):
                pass
    lines: list[str] = []
    async with login(sshd) as connection:
        run = connection.run(["sh", "-c", "echo begun; sleep 3"], timeout_s=20, on_line=lines.append)
        task = asyncio.create_task(run)
        await async_wait_until(lambda: lines, description="it has begun")
        connection._client.get_transport().sock.shutdown(socket.SHUT_RDWR)  # as a dead network does
        with pytest.raises(ssh.Lost, match="lost"):
            await task


async def test_a_server_that_only_does_exec_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The demo's is one, whatever its user is called."""
    monkeypatch.setenv("LOGNAME", "joe@corp.example")
    lines: list[str] = []
    async with SshServer(tmp_path / "ssh") as server:
        host = ssh.SshHost.parse(server.url)
        async with ssh.connect(host, server.client_key, server.known_hosts, timeout_s=10) as connection:
            assert (await connection.run(["echo", "it's"], timeout_s=10)).output == "it's\n"
            with pytest.raises(subprocesses.TimedOut):
                await connection.run(["sh", "-c", FAMILY], timeout_s=BEGUN_S, on_line=lines.append)
            assert ended(map(int, lines[0].split()))
            assert (await connection.run(["echo", "still"], timeout_s=10)).output == "still\n"


async def test_what_a_login_shell_says_is_no_output_and_what_the_host_lacks_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin = ssh._BEGIN
    async with SshServer(tmp_path / "ssh") as server:
        host = ssh.SshHost.parse(server.url)
        async with ssh.connect(host, server.client_key, server.known_hosts, timeout_s=10) as connection:
            monkeypatch.setattr(ssh, "_BEGIN", f"seq 1 50000; {begin}")
            assert (await connection.run(["echo", "in"], timeout_s=10)).output == "in\n"
            monkeypatch.setattr(ssh, "_BEGIN", begin.replace("setsid", "no-such-program"))
            with pytest.raises(CallAPerson, match="apt-get install util-linux coreutils"):
                await connection.run(["true"], timeout_s=10)
