"""Our SSH key, and the hosts that we know by theirs, in files of OpenSSH's."""

import shlex
from pathlib import Path

import paramiko  # type: ignore[import-untyped]
from paramiko.hostkeys import HostKeyEntry  # type: ignore[import-untyped]

from lectern.errors import Caught, Misuse


def own(path: Path) -> paramiko.PKey:
    """The SSH key in a file; paramiko itself would hide a host's refusal behind its attempts to read other kinds."""
    try:
        return paramiko.PKey.from_path(path)
    except (paramiko.SSHException, paramiko.UnknownKeyType, OSError, TypeError, ValueError) as error:
        make = f"make one that has no passphrase: ssh-keygen -t ed25519 -N '' -f {shlex.quote(str(path))}"
        raise Misuse(f"{path}: cannot be read as an SSH key ({error or type(error).__name__}); {make}") from error


def know(hosts: paramiko.HostKeys, path: Path) -> None:
    """Add the keys in *path* to *hosts*; raises Misuse if the file cannot be read.

    A line that cannot be read is passed over: its host counts as unknown, which says what to type. Paramiko by itself
    would know no host at all.
    """
    try:
        lines = path.read_bytes().decode(errors="replace").split("\n")
    except OSError as error:
        raise Misuse(f"{path}: cannot be read ({error.strerror}); let the user of the teacher read it") from error
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        with Caught():  # whatever is odd about a line, it is that host's alone
            entry = HostKeyEntry.from_line(line, number)
            for name in entry.hostnames if entry is not None else ():
                hosts.add(name, entry.key.get_name(), entry.key)
