"""The playout of a streamer, as a rollout sees it: it airs on while the resident is stopped, and is upgraded last."""

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lectern.errors import CallAPerson
from lectern.i18n import Text, msgid
from lectern.playout.control_socket import PlayoutUnreachable, RequestRefused, asked
from lectern.rollout.host import files
from lectern.rollout.result import StepAnswer
from lectern.rollout.spec import Spec
from lectern.settings import StreamerSettings

BRIDGE_S = 20.0
"""Seconds that the lease must still last: the window takes a few, and the new resident renews the lease then."""
UPGRADE_S = 60.0
"""Seconds to wait for an upgrade: a new worker has half a minute to load."""


def socket_of(wanted: Spec) -> Path:
    """The path of the playout's socket, from the wanted settings; relative paths begin in the code folder."""
    settings = {name.lower(): value for name, value in wanted.env.items()}
    folder = settings.get("playout_dir", StreamerSettings.model_fields["playout_dir"].default)
    path = settings.get("playout_socket") or f"{folder}/playout.sock"
    return wanted.code_dir / path


@dataclass(frozen=True)
class HeldClasses:
    """The classes that the playout airs, or will air, while the resident is stopped; or why it may air none."""

    classes: frozenset[str] = frozenset()
    why_none: str = ""


def held(wanted: Spec) -> HeldClasses:
    """What the playout holds now; nothing if it does not answer, or if its lease would end in the window."""
    try:
        status = _asked(socket_of(wanted), "status")
    except (PlayoutUnreachable, RequestRefused) as error:
        text = msgid("{error}. Start it (systemctl start lectern-playout), or provision the host")
        return HeldClasses(why_none=Text(text, error=error))
    left_s = status["lease_until"] - status["boot_now"]
    if left_s < BRIDGE_S:
        left = Text("ends in {left_s:.0f} s", left_s=left_s) if left_s > 0 else Text("has run out")
        text = msgid("its lease {left}, and must last for {bridge_s:g} s. See `lectern playout status`")
        return HeldClasses(why_none=Text(text, left=left, bridge_s=BRIDGE_S))
    return HeldClasses(frozenset(class_["class_id"] for class_ in status["classes"] if class_["state"] != "ended"))


def is_missing(wanted: Spec) -> str:
    """Why the playout does not answer; empty if it does."""
    try:
        _asked(socket_of(wanted), "hello")
    except (PlayoutUnreachable, RequestRefused) as error:
        return str(error)
    return ""


def upgrade(wanted: Spec, *, check: bool = False) -> StepAnswer:
    """Let a worker of the release that is installed now take over; classes on air go on in their sessions.

    If no playout answers, upgrade nothing and say so. Raises CallAPerson if the playout refuses.
    """
    path = socket_of(wanted)
    try:
        before = _asked(path, "hello")
    except PlayoutUnreachable:
        return StepAnswer(said=[Text("No playout answers at {path}; nothing is to be upgraded.", path=path)])
    if before["release"] == wanted.version:
        return StepAnswer(said=[Text("The playout is {version} already.", version=wanted.version)])
    if check:
        would = Text("The playout would be upgraded from {release}.", release=before["release"])
        return StepAnswer(changed=True, said=[would])
    led = _lead(wanted)
    try:
        _asked(path, "upgrade")
    except RequestRefused as error:
        _lead_back(wanted, led)
        raise CallAPerson(
            "The playout was not upgraded: {error}. Classes go on with {release}.",
            error=error,
            release=before["release"],
        ) from error
    except PlayoutUnreachable:
        pass  # the old worker ended, as it should
    after = _asked(path, "status")
    if after["release"] == before["release"]:
        _lead_back(wanted, led)
        still = Text(
            "The playout is {release} still: it is started neither out of {link} nor out of {current}.",
            release=after["release"],
            link=_link(wanted),
            current=wanted.current,
        )
        return StepAnswer(said=[still])
    taken = after["worker"]["taken_over"] or {}
    text = Text(
        "The playout is {release} now: {kept} of {sessions} sessions went on, the longest gap was {gap_s:.2f} s.",
        release=after["release"],
        **{name: taken.get(name, 0) for name in ("kept", "sessions", "gap_s")},
    )
    return StepAnswer(changed=True, said=[text])


def _link(wanted: Spec) -> Path:
    """The link from which a provisioned host starts its playout: the next worker is of the release at its end."""
    return wanted.root / "playout"


def _lead(wanted: Spec) -> str | None:
    """Point the link to the wanted release; returns its former target, None if nothing was to be changed."""
    link, target = _link(wanted), f"releases/{wanted.version}"
    before = files.link_target(link)
    if before in (None, target) or not (wanted.root / target).is_dir():
        return None
    files.switch_link(link, target)
    return before


def _lead_back(wanted: Spec, led: str | None) -> None:
    if led is not None:
        files.switch_link(_link(wanted), led)


def _asked(path: Path, do: str) -> dict[str, Any]:
    return asyncio.run(asked(path, do, timeout_s=UPGRADE_S))
