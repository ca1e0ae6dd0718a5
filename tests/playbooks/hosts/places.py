"""Where things are on a test host: the same names for a container and for a folder of this machine."""

from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Literal

Role = Literal["teacher", "streamer"]
OLD_VERSION = {"streamer": "1.4.2", "teacher": "3.1.0"}
OLD_PROGRAM = {"streamer": "idc_client", "teacher": "virtual-teacher"}


@dataclass(frozen=True)
class Places:
    """One host. Paths are the host's own."""

    name: str
    role: Role
    user: str
    base: PurePosixPath
    """Holds what belongs to the test and not to the old program: its diary, the stand-in of Node."""
    code_dir: PurePosixPath
    programs_dir: PurePosixPath
    root: PurePosixPath
    video_root: PurePosixPath
    port: int
    """Of the page with the version, the old program's and the new one's, on the host's loopback."""
    python: str
    supervisorctl: tuple[str, ...]
    redis_url: str
    """As seen from the host."""
    wget: str = "/usr/bin/wget"

    @property
    def database(self) -> PurePosixPath:
        return self.code_dir / ("task_list.db" if self.role == "streamer" else "teacher.db")

    @property
    def diary(self) -> PurePosixPath:
        """A line for every row that is safe in the old database."""
        return self.base / "diary"

    @property
    def old_program(self) -> str:
        return OLD_PROGRAM[self.role]

    @property
    def old_conf(self) -> PurePosixPath:
        return self.programs_dir / f"{self.old_program}.conf"

    @property
    def program(self) -> str:
        return f"lectern-{self.role}"

    @property
    def old_version(self) -> str:
        """What the old program answers."""
        return OLD_VERSION[self.role]
