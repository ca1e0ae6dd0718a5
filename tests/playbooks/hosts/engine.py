"""The Docker engine: whether there is one, and the image that the hosts are built from."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

BASE = "lectern-test-base:trixie"
PUBLIC = "debian:trixie-slim"
PULL_S, BUILD_S = 30, 600


def absent() -> str | None:
    """Why there is no engine, in one line; None where one answers."""
    if shutil.which("docker") is None:
        return "no Docker engine: docker is not on the PATH"
    asked = _docker("version", "--format", "{{.Server.Version}}", check=False)
    if asked.returncode != 0:
        return f"no Docker engine: {(asked.stderr.strip().splitlines() or ['it does not answer'])[-1][:200]}"
    if _docker("compose", "version", check=False).returncode != 0:
        return "no Docker engine: it has no `docker compose`"
    return None


def have_base() -> None:
    """See that there is a bare Debian under the name `BASE`: kept from before, pulled, or built here."""
    if _docker("image", "inspect", BASE, check=False).returncode == 0:
        return
    try:
        if _docker("pull", "-q", PUBLIC, check=False, timeout_s=PULL_S).returncode == 0:
            _docker("tag", PUBLIC, BASE)
            return
    except subprocess.TimeoutExpired:
        pass  # a registry that does not answer in half a minute is as good as none
    _bootstrap()


def _bootstrap() -> None:
    if shutil.which("debootstrap") is None or os.geteuid() != 0:
        raise AssertionError("no registry answers, and the base image is built by root with debootstrap: install it.")
    with tempfile.TemporaryDirectory(prefix="base-") as folder:
        argv = ["debootstrap", "--variant=minbase", "--include=ca-certificates", "trixie", folder]
        built = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_S, check=False)
        assert built.returncode == 0, f"debootstrap: {built.stdout[-2000:]}{built.stderr[-2000:]}"
        pack = ["tar", "-C", folder, "--exclude=./var/cache/apt/archives/*.deb", "-c", "."]
        with subprocess.Popen(pack, stdout=subprocess.PIPE) as tar:
            subprocess.run(
                ["docker", "import", "-", BASE], stdin=tar.stdout, capture_output=True, check=True, timeout=300
            )
        assert tar.returncode == 0, "tar could not pack the base image"
    assert not Path(folder).exists()


def _docker(*words: str, check: bool = True, timeout_s: float = 60) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["docker", *words], capture_output=True, text=True, timeout=timeout_s, check=check)
