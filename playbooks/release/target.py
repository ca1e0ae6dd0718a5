"""The hosts that a release is for: their Python and their platform."""

import platform
import re
import sys
from dataclasses import dataclass

from lectern.errors import Misuse

GLIBC = (2, 28)
"""The oldest C library that a host may have: that of Debian 10. What is newer takes the same wheels."""

_OLDEST_PYTHON = (3, 11)
_MACHINES = ("x86_64", "aarch64")


@dataclass(frozen=True)
class Target:
    """The Python, such as (3, 13), and the machine, such as x86_64, of the hosts, which run Linux."""

    python: tuple[int, int]
    machine: str

    @classmethod
    def parse(cls, python: str | None, platform_name: str | None) -> "Target":
        """Read ``3.13`` and ``linux-x86_64``; None stands for this process's own. Raises Misuse."""
        version = python or f"{sys.version_info.major}.{sys.version_info.minor}"
        if not re.fullmatch(r"3\.\d{1,2}", version) or _pair(version) < _OLDEST_PYTHON:
            raise Misuse(f"PYTHON_VERSION={version}: must be the hosts' Python, 3.11 or newer, such as 3.13")
        name = platform_name or f"linux-{platform.machine()}"
        system, _, machine = name.partition("-")
        if system != "linux" or machine not in _MACHINES:
            known = " or ".join(f"linux-{one}" for one in _MACHINES)
            raise Misuse(f"PLATFORM={name}: must be that of the hosts, {known}")
        return cls(_pair(version), machine)

    @property
    def python_tag(self) -> str:
        """The Python as the names of wheels write it: cp313."""
        return f"cp{self.python[0]}{self.python[1]}"

    @property
    def platform(self) -> str:
        """The platform as it is typed: linux-x86_64."""
        return f"linux-{self.machine}"

    @property
    def name(self) -> str:
        """The target as the release file's name writes it: cp313-linux-x86_64."""
        return f"{self.python_tag}-{self.platform}"

    def uv_options(self) -> list[str]:
        """The options that tell uv for which hosts it installs; of their Python, the patch version is taken as 0."""
        major, minor = self.python
        return ["--python-version", f"{major}.{minor}", "--python-platform", f"{self.machine}-manylinux_2_{GLIBC[1]}"]


def _pair(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)
