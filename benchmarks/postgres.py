"""A PostgreSQL server of its own on loopback, if this machine has one."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.stage import wait_until
from town.ports import HOST, free_port

NOBODY = 65534
"""It does not run as root, so that if the benchmarks do it gets another user."""


def programs() -> Path | None:
    """The folder of the newest one's programs; Debian keeps them off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda one: float(one.parent.name))
    on_path = shutil.which("pg_isready")
    if on_path is not None:
        folders.append(Path(on_path).resolve().parent)
    return next((one for one in reversed(folders) if (one / "initdb").exists() and (one / "pg_isready").exists()), None)


def _as_nobody() -> list[str]:
    """Runs what follows as nobody, who may enter folders all the same: on some machines even / is root's alone."""
    capability = "+dac_read_search"
    return [
        "setpriv",
        f"--reuid={NOBODY}",
        f"--regid={NOBODY}",
        "--clear-groups",
        "--securebits=+no_setuid_fixup",  # else access(2) forgets the capability
        f"--inh-caps={capability}",
        f"--ambient-caps={capability}",
    ]


@contextmanager
def server(bin_folder: Path, *options: str) -> Iterator[str]:
    """Its URL for asyncpg; all that it keeps is gone at the end."""
    folder, port = Path(tempfile.mkdtemp(prefix="benchpg")), free_port()
    data = folder / "data"
    as_nobody = _as_nobody() if os.geteuid() == 0 else []
    if as_nobody:
        os.chown(folder, NOBODY, NOBODY)
    try:
        initdb = [str(bin_folder / "initdb"), "-D", str(data), "-U", "bench", "-A", "trust", "-E", "UTF8", "--no-sync"]
        subprocess.run([*as_nobody, *initdb], check=True, capture_output=True, timeout=120, cwd=folder)
        argv = [*as_nobody, str(bin_folder / "postgres"), "-D", str(data), "-p", str(port)]
        argv += ["-c", f"listen_addresses={HOST}"]
        argv += ["-c", f"unix_socket_directories={folder}", "-c", "max_connections=300", *options]
        with (folder / "log").open("wb") as log:
            running = subprocess.Popen(argv, stdout=log, stderr=log, cwd=folder)
        try:
            ready = [str(bin_folder / "pg_isready"), "-q", "-h", HOST, "-p", str(port)]
            wait_until(lambda: subprocess.run(ready, check=False).returncode == 0, description="PostgreSQL answers")
            yield f"postgresql+asyncpg://bench@{HOST}:{port}/postgres"
        finally:
            running.send_signal(signal.SIGQUIT)  # at once, without a checkpoint: nothing is kept
            running.wait(60)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
