"""``make cluster``: builds the image of the release, starts the cluster, and waits until classes are on air."""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from playbooks.release import Target, built
from tests.playbooks.hosts import engine
from tests.playbooks.small_release import manifest_digest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CONTEXT = ROOT / "dist" / "cluster"
PYTHON = "3.13"
"""The Python of the Debian that the image is made of."""

UP_S, ON_AIR_S = 900, 300
COMPOSE = ("docker", "compose", "--file", str(HERE / "compose.yaml"))
SAID = """
Prefect: http://127.0.0.1:4200   the page: http://127.0.0.1:8800
What the platform sees:  docker logs -f lectern-cluster-town-1
Kill what you like:      docker kill lectern-cluster-teacher1-1   (prefect1, services, streamer2, playout3 …)
                         docker start lectern-cluster-teacher1-1
End it:                  make cluster ARGS=down
"""


def main() -> int:
    """Build and start it, or end it and forget all that it kept."""
    parser = argparse.ArgumentParser(prog="make cluster", description=__doc__)
    parser.add_argument("what", nargs="?", choices=["up", "down"], default="up")
    given = parser.parse_args()
    if (why := engine.absent()) is not None:
        sys.stderr.write(f"{why}. Install Docker, and start it.\n")
        return 1
    if given.what == "down":
        return _compose("down", "--volumes", "--timeout", "15")
    _context()
    engine.have_base()
    argv = [
        "docker",
        "build",
        "--quiet",
        "--tag",
        "lectern-cluster",
        "--build-arg",
        f"BASE={engine.BASE}",
        str(CONTEXT),
    ]
    subprocess.run(argv, check=True, timeout=1200)
    if code := _compose("up", "--detach", "--quiet-pull"):
        _compose("logs", "--tail", "15")  # a container that is not well says itself why
        return code
    return _wait()


def _context() -> None:
    """All that the image is made of, in one folder."""
    release = built(Target.parse(PYTHON, None), ROOT / "dist", Console(stderr=True))
    shutil.rmtree(CONTEXT, ignore_errors=True)
    CONTEXT.mkdir(parents=True)
    (CONTEXT / "release").mkdir()
    for file in (release, ROOT / "playbooks/roles/release/files/on_host.py"):
        shutil.copy(file, CONTEXT / "release")
    asked = {"tarball": f"/release/{release.name}", "into": "/opt/releases/now", "digest": manifest_digest(release)}
    (CONTEXT / "release/asked.json").write_text(json.dumps(asked))
    shutil.copytree(ROOT / "town", CONTEXT / "town", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Dockerfile", "haproxy.cfg", "postgres.sh"):
        shutil.copy(HERE / name, CONTEXT / name)


def _compose(*words: str) -> int:
    return subprocess.run([*COMPOSE, *words], check=False, timeout=UP_S).returncode


def _wait() -> int:
    """Wait until the platform sees a class on air."""
    until = time.monotonic() + ON_AIR_S
    while time.monotonic() < until:
        said = _said(["docker", "logs", "--tail", "1", "lectern-cluster-town-1"])
        if "on air" in said and " 0 on air" not in said:
            print(said + SAID)
            return 0
        time.sleep(2)
    sys.stderr.write(f"No class is on air after {ON_AIR_S} s; look at {' '.join(COMPOSE)} logs\n")
    return 1


def _said(argv: Sequence[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30, env=dict(os.environ))
    return done.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
