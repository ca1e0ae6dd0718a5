"""Backups are copied off the host by SFTP, to a machine whose host key is known."""

import asyncio
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from lectern.effects import process
from lectern.errors import CallAPerson, Misuse, TryAgain

COPY_TIMEOUT_S = 3600.0
CONNECT_TIMEOUT_S = 20
_PLAIN = re.compile(r"[A-Za-z0-9_./@:-]+")


@dataclass(frozen=True)
class Target:
    """A folder on another machine; *key* and *known_hosts* are files, None means those of the user's own ~/.ssh."""

    user: str
    host: str
    port: int
    folder: str
    key: Path | None = None
    known_hosts: Path | None = None

    @classmethod
    def parse(cls, url: str, key: Path | None = None, known_hosts: Path | None = None) -> Self:
        """The target of ``sftp://user@host:port/folder``; raises Misuse if *url* is something else."""
        try:
            parts = urlsplit(url)
            port = parts.port or 22
        except ValueError:
            parts, port = urlsplit(""), 0
        fits = parts.scheme == "sftp" and parts.hostname and parts.username and not parts.password
        if not fits or not parts.path.strip("/") or not _PLAIN.fullmatch(url):
            raise Misuse(f"{url!r:.200} is no place to copy backups to. Write sftp://user@host/folder; it needs a key.")
        assert parts.username  # a URL that fits has a user and a host
        assert parts.hostname
        return cls(parts.username, parts.hostname, port, parts.path.rstrip("/"), key, known_hosts)

    def __str__(self) -> str:
        return f"sftp://{self.user}@{self.host}:{self.port}{self.folder}"


def copy(folder: Path, target: Target) -> None:
    """Copy the backup in *folder*; it gets its name there only when all of it has arrived, in full size.

    Raises TryAgain if the machine does not answer or refuses the login, CallAPerson if not everything has arrived.
    """
    there = f"{target.folder}/{folder.name}"
    here = re.sub(r'(["\\])', r"\\\1", str(folder))  # quoted: else a blank would end it, and `[` be a pattern
    _sftp(target, f"-mkdir {target.folder}", f'put -pR "{here}" {there}.part')
    come = _sizes(_sftp(target, f"ls -ln {there}.part"))
    sent = {one.name: one.stat().st_size for one in folder.iterdir()}
    if come != sent:
        raise CallAPerson(f"{target}: of {folder.name} {come} has come, and {sent} was sent. Is its disk full?")
    _sftp(target, f"rename {there}.part {there}")


def sweep(name: str, target: Target) -> None:
    """Delete what copies of *name* that were broken off have left there: they can fill a disk. Raises TryAgain."""
    _sftp(target, f"-mkdir {target.folder}")
    for one in _named(name, target, r"\.part"):
        _sftp(target, f"-rm {target.folder}/{one}/*", f"rmdir {target.folder}/{one}")


def prune(name: str, target: Target, keep: int) -> list[str]:
    """Take the oldest copies of *name* beyond the newest *keep* away; returns their names."""
    gone = _named(name, target)[:-keep]
    for one in gone:
        _sftp(target, f"rm {target.folder}/{one}/*", f"rmdir {target.folder}/{one}")
    return gone


def _named(name: str, target: Target, more: str = "") -> list[str]:
    """The folders of *name* there, the oldest first; *more* is a pattern that ends their names."""
    listed = _sftp(target, f"ls -1 {target.folder}").splitlines()
    named = re.compile(rf"{re.escape(name)}-\d{{8}}T\d{{6}}Z{more}")
    return sorted({one for one in (line.strip().rpartition("/")[2] for line in listed) if named.fullmatch(one)})


def _sizes(listed: str) -> dict[str, int]:
    lines = [line.split() for line in listed.splitlines() if not line.startswith("sftp>")]
    return {words[-1].rpartition("/")[2]: int(words[4]) for words in lines if len(words) >= 9 and words[0][0] == "-"}


def _sftp(target: Target, *commands: str) -> str:
    """Run the commands and return their output; the first that fails ends them, unless it begins with a dash."""
    options = {
        "StrictHostKeyChecking": "yes",
        "PasswordAuthentication": "no",
        "ForwardAgent": "no",
        "ConnectTimeout": CONNECT_TIMEOUT_S,
        "ServerAliveInterval": 15,
    }
    if target.key is not None:
        options |= {"IdentityFile": str(target.key), "IdentitiesOnly": "yes"}
    if target.known_hosts is not None:
        options |= {"UserKnownHostsFile": str(target.known_hosts)}
    argv = ["sftp", "-b", "-", "-P", str(target.port)]
    argv += [word for name, value in options.items() for word in ("-o", f"{name}={value}")]

    async def given() -> bytes:
        return "".join(f"{one}\n" for one in commands).encode()

    lines: list[str] = []  # all of them: of a program's output only the end is kept
    argv.append(f"{target.user}@{target.host}")
    done = asyncio.run(process.run(argv, timeout_s=COPY_TIMEOUT_S, stdin=given, on_line=lines.append))
    if done.returncode != 0:
        said = " ".join(line for line in done.errors.splitlines() if "mkdir" not in line)[-300:].strip()
        raise TryAgain(f"{target}: {commands[-1].partition(' ')[0]} failed ({said or 'no reason'}).")
    return "\n".join(lines)
