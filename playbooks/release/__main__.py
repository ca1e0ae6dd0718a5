"""Builds dist/lectern-VERSION-cp313-linux-x86_64.tar.gz; what `make release` calls."""

import argparse
import hashlib
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console

from lectern.errors import LecternError, Misuse
from playbooks.release import packages, source, tarball
from playbooks.release.source import Target

ROOT = Path(__file__).resolve().parents[2]


def built(target: Target, dist: Path, console: Console) -> Path:
    """Build the release for *target* into *dist*. Raises LecternError."""
    found = source.look(ROOT)
    if found.dirty:
        console.print(f"Not all of it is committed: the release is {found.version}, but not that of {found.commit}.")
    with tempfile.TemporaryDirectory(prefix="lectern-release-") as name:
        scratch = Path(name)
        console.print("Building the wheel of lectern")
        own = source.own_wheel(ROOT, scratch, found)
        digest = hashlib.sha256(own.read_bytes()).hexdigest()
        console.print(f"Installing what uv.lock wants for {target.name}")
        tree = scratch / "packages"
        packages.install(f"{packages.locked(ROOT)}{own} --hash=sha256:{digest}\n", target, tree)
        console.print("Packing it")
        dist.mkdir(parents=True, exist_ok=True)
        file = dist / f"lectern-{found.version}-{target.name}.tar.gz"
        tarball.write(file, tree, tarball.manifest(tree, found, target), found.built_at)
    return file


def main(argv: list[str] | None = None) -> int:
    """Run the command line; the exit code is 1 for trouble and 2 for misuse."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("--python-version", metavar="3.13", help="the hosts' Python; else the one that builds")
    parser.add_argument("--platform", metavar="linux-x86_64", help="the hosts' platform; else this machine's")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist", help="where to put it")
    given = parser.parse_args(argv)
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()
    try:
        file = built(Target.parse(given.python_version, given.platform), given.dist, console)
    except LecternError as error:
        console.print(error.message, markup=False)
        return 2 if isinstance(error, Misuse) else 1
    console.print(f"{file.stat().st_size / 1e6:.1f} MB in {time.monotonic() - began:.1f} s", markup=False)
    print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
