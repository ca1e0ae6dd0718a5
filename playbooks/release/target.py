"""The hosts that a release is for: their Python and their platform."""

import platform
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from packaging.markers import Marker

from lectern.errors import Misuse

GLIBC = (2, 28)
"""The oldest C library that a host may have: that of Debian 10. What is newer takes the same wheels."""

_OLDEST_PYTHON = (3, 11)
_MACHINES = ("x86_64", "aarch64")
_LEGACY = {(2, 17): "manylinux2014", (2, 12): "manylinux2010", (2, 5): "manylinux1"}


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

    def pip_options(self) -> list[str]:
        """The options that tell pip which wheels run on the target."""
        version = f"{self.python[0]}.{self.python[1]}"
        options = ["--implementation", "cp", "--python-version", version, "--abi", self.python_tag]
        return [*options, *(word for name in _platforms(self.machine) for word in ("--platform", name))]

    def needs(self, marker: Marker | None) -> bool:
        """Whether some host of this kind installs a package with *marker*; its Python's patch version is unknown."""
        return marker is None or any(marker.evaluate(dict(one)) for one in self._environments())

    def _environments(self) -> Iterable[Mapping[str, str]]:
        version = f"{self.python[0]}.{self.python[1]}"
        for last in (0, 3, 99):
            yield {
                "implementation_name": "cpython",
                "implementation_version": f"{version}.{last}",
                "os_name": "posix",
                "platform_machine": self.machine,
                "platform_python_implementation": "CPython",
                "platform_system": "Linux",
                "python_full_version": f"{version}.{last}",
                "python_version": version,
                "sys_platform": "linux",
                "extra": "",
            }


def _pair(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def _platforms(machine: str) -> Iterable[str]:
    major, newest = GLIBC
    oldest = 5 if machine == "x86_64" else 17
    for minor in range(newest, oldest - 1, -1):
        yield f"manylinux_{major}_{minor}_{machine}"
        if (major, minor) in _LEGACY:
            yield f"{_LEGACY[major, minor]}_{machine}"
    yield f"linux_{machine}"
