"""A host that is a Debian container: SSH, sudo and supervisor as on a real one."""

import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from tests.playbooks.hosts.host import Host
from tests.playbooks.hosts.places import Places, Role

USER = "deploy"


class Container:
    """One service of compose.yml."""

    def __init__(self, project: str, service: str) -> None:
        self.service = service
        self.name = f"{project}-{service}-1"

    def run(
        self, argv: Sequence[str], *, given: bytes = b"", check: bool = True, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[bytes]":
        whole = ["docker", "exec", "-i", self.name, *argv]
        found = subprocess.run(whole, input=given, capture_output=True, timeout=timeout_s, check=False)
        assert found.returncode == 0 or not check, f"{argv}: {found.returncode}\n{found.stdout!r}\n{found.stderr!r}"
        return found

    @property
    def cut(self) -> list[str]:
        """The command that takes the controller's way to it: what runs in it runs on, as when a cable is cut."""
        return ["docker", "exec", self.name, "pkill", "-STOP", "sshd"]

    def mend(self) -> None:
        """Give the way back."""
        self.run(["pkill", "-CONT", "sshd"])

    def host_key(self) -> str:
        """Its real SSH host key, read from inside: type and key."""
        text = self.run(["cat", "/etc/ssh/ssh_host_ed25519_key.pub"]).stdout.decode()
        return " ".join(text.split()[:2])


class ContainerHost(Host):
    """A teacher or a streamer; its old program runs as root in root's home, as documented, or as another user."""

    def __init__(
        self,
        container: Container,
        role: Role,
        home: str,
        user: str,
        redis_url: str,
        recording: Path,
    ) -> None:
        folder = "firstleaprecord/code" if role == "streamer" else "virtual-teacher"
        places = Places(
            name=container.service,
            role=role,
            user=user,
            base=PurePosixPath("/var/log/old"),
            code_dir=PurePosixPath(home) / folder,
            programs_dir=PurePosixPath("/etc/supervisor/conf.d"),
            root=PurePosixPath("/opt/lectern"),
            video_root=PurePosixPath("/home/video"),
            port=8800,
            python="/usr/bin/python3",
            supervisorctl=("supervisorctl",),
            redis_url=redis_url,
        )
        super().__init__(places, recording)
        self.container = container

    def run(
        self, argv: Sequence[str], *, given: bytes = b"", check: bool = True, timeout_s: float = 60.0
    ) -> "subprocess.CompletedProcess[bytes]":
        return self.container.run(argv, given=given, check=check, timeout_s=timeout_s)


def reached_by(port: int, key: Path, known_hosts: Path) -> dict[str, Any]:
    """How Ansible reaches a container: as an ordinary user, with a key, to a host whose key is known."""
    options = {"UserKnownHostsFile": known_hosts, "StrictHostKeyChecking": "yes", "IdentitiesOnly": "yes"}
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": port,
        "ansible_user": USER,
        "ansible_ssh_private_key_file": str(key),
        "ansible_ssh_common_args": " ".join(f"-o {name}={value}" for name, value in options.items()),
    }
