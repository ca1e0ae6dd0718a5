"""``lectern playout``: runs the playout, which airs classes; shows its status, and upgrades it."""

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from lectern import formatting
from lectern.cli.options import Json, say
from lectern.errors import LecternError
from lectern.i18n import Text
from lectern.playout import control_socket, worker_process

Folder = Annotated[
    Path, typer.Option("--dir", envvar="PLAYOUT_DIR", help="Where the timetable, the lock and the socket are.")
]
Socket = Annotated[
    Path | None,
    typer.Option("--socket", envvar="PLAYOUT_SOCKET", help="The control socket, if not playout.sock in the folder."),
]
CaFile = Annotated[
    Path | None,
    typer.Option(envvar="PLAYOUT_CA_FILE", help="Certificates to trust for rtmps, instead of the machine's own."),
]
FOLDER = Path("/var/lib/lectern/playout")

app = typer.Typer()


@app.callback(invoke_without_command=True)
def run(context: typer.Context, folder: Folder = FOLDER, socket: Socket = None, ca_file: CaFile = None) -> None:
    """Air classes until SIGTERM, whatever happens to the rest; docs/playout.md says how to talk to it.

    It goes on while its workers are killed or upgraded. Only one runs in a folder.
    """
    context.obj = socket or folder / "playout.sock"
    if context.invoked_subcommand is not None:
        return
    argv = [sys.executable, "-I", "-S", str(worker_process.PROGRAM), "holder"]
    argv += ["--dir", str(folder), "--socket", str(context.obj)]
    argv += ["--ca-file", str(ca_file.absolute())] if ca_file is not None else []
    os.execv(sys.executable, argv)  # noqa: S606 (the small supervisor takes this process's place)


@app.command()
def status(context: typer.Context, as_json: Json = False) -> None:
    """Say what is on air, what comes, and how the last change of workers went."""
    found = _asked(context.obj, "status")
    say(as_json, found, _lines(found))


@app.command()
def upgrade(context: typer.Context, as_json: Json = False) -> None:
    """Let a worker of the release that is installed now take over; classes on air go on in their sessions."""
    before = _asked(context.obj, "hello")
    try:
        asyncio.run(control_socket.asked(context.obj, "upgrade", timeout_s=control_socket.UPGRADE_S))
    except control_socket.RequestRefused as error:
        raise LecternError("Not upgraded: {error}", error=error) from error
    except control_socket.PlayoutUnreachable:
        pass  # the old worker ended, as it should
    found = _asked(context.obj, "status")
    if found["pid"] == before["pid"]:
        raise LecternError(
            Text("Not upgraded: the old worker answers still. Its log says why: journalctl -u lectern-playout")
        )
    taken, how = found["worker"]["taken_over"], "the playout was started again meanwhile, and all its sessions are new"
    if taken is not None:
        kept = f"{formatting.counted(taken['kept'], 'session')} went on of {taken['sessions']}"
        how = f"{kept}; the longest gap was {taken['gap_s']:.2f} s"
    line = f"Release {found['release']} is on air: {how}."
    say(as_json, {"release": found["release"], "taken_over": taken}, [line])


def _asked(path: Path, do: str) -> dict[str, Any]:
    try:
        return asyncio.run(control_socket.asked(path, do, timeout_s=control_socket.UPGRADE_S))
    except control_socket.PlayoutUnreachable as error:
        raise LecternError(
            "{error}. Does it run, with the same --dir? Start it: lectern playout", error=error
        ) from error
    except control_socket.RequestRefused as error:
        raise LecternError(str(error)) from error


def _lines(found: dict[str, Any]) -> list[str]:
    worker, left_s = found["worker"], found["lease_until"] - found["boot_now"]
    lease = f"held for another {left_s:.0f} s" if left_s > 0 else "not held: nothing is sent"
    on_air = f"{worker['classes_on_air']} of {formatting.counted(len(found['classes']), 'class', 'classes')}"
    late = f"up to {worker['lateness_s'] * 1000:.0f} ms late"
    lines = [
        f"Release {found['release']}, worker {found['pid']}, supervisor {found['holder_pid']}.",
        f"Lease: {lease}.",
        f"On air: {on_air}; {formatting.counted(worker['reconnects'], 'reconnect')}; {late}.",
    ]
    if (taken := worker["taken_over"]) is not None:
        lines.append(
            f"This worker took over ({taken['why']}): {taken['kept']} of {taken['sessions']} sessions went on."
        )
    for one in found["classes"]:
        position = f" at {one['position_s']:.0f} s" if one["position_s"] is not None else ""
        slate = ", slate" if one["slate"] and one["state"] != "ended" else ""
        why = f": {one['why']}" if one["why"] else ""
        lines.append(f"  {one['class_id']}  {one['state'].replace('_', ' ')}{position}{slate}{why}")
    return lines
