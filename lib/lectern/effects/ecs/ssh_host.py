"""The name of a host to log in on."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from lectern.errors import Misuse

_URL = re.compile(
    r"ssh://(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@(?P<name>[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?"
)


@dataclass(frozen=True)
class Host:
    """Where to log in."""

    user: str
    name: str
    port: int = 22

    @classmethod
    def parse(cls, text: str) -> "Host":
        """Read ``ssh://user@host:port``; raises Misuse with what to type."""
        matched = _URL.fullmatch(text.strip())
        if matched is None or not 0 < int(matched["port"] or 22) < 65536:
            raise Misuse(f"{text!r}: is no SSH host; write ssh://user@host:port")
        return cls(matched["user"], matched["name"].strip("[]"), int(matched["port"] or 22))

    def keyscan(self, known_hosts_path: Path) -> str:
        """The command that adds the host's key to *known_hosts_path*."""
        return f"ssh-keyscan -p {self.port} {self.name} >> {shlex.quote(str(known_hosts_path))}"

    def __str__(self) -> str:
        """As it was written."""
        return f"ssh://{self.user}@{f'[{self.name}]' if ':' in self.name else self.name}:{self.port}"
