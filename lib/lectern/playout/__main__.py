"""The playout's program; needs nothing but Python: ``python -I -S …/lectern/playout/__main__.py holder --dir DIR``."""

import argparse
import os
import sys
from pathlib import Path

if __package__ in (None, ""):
    # Started by its path: the library comes after the standard one, so that it cannot replace a standard module.
    sys.path.append(str(Path(__file__).parents[2]))


def main() -> None:
    """Be a supervisor, or its worker."""
    parser = argparse.ArgumentParser(prog="lectern playout", description="Air classes until SIGTERM.")
    parts = parser.add_subparsers(dest="part", required=True)
    for name in ("holder", "worker"):
        part = parts.add_parser(name)
        part.add_argument("--dir", type=Path, required=True)
        if name == "holder":
            part.add_argument("--socket", type=Path)
        if name == "worker":
            for number in ("holder", "pipe", "shared", "listener"):
                part.add_argument(f"--{number}", type=int, required=True)
        part.add_argument("--ca-file")
    arguments = parser.parse_args()
    folder = arguments.dir.absolute()
    if arguments.part == "holder":
        from lectern.playout.lease import Misuse  # noqa: PLC0415 (the supervisor stays small)
        from lectern.playout.supervisor import PlayoutSupervisor  # noqa: PLC0415 (as above)

        try:
            PlayoutSupervisor(folder, arguments.socket or folder / "playout.sock", arguments.ca_file).run()
        except Misuse as error:
            sys.exit(f"lectern playout: {error}")
        return
    from lectern.playout import worker  # noqa: PLC0415 (as above)

    os.umask(0o077)
    a = arguments
    worker.main(worker.Terms(folder, a.holder, a.pipe, a.shared, a.listener, a.ca_file))


if __name__ == "__main__":
    main()
