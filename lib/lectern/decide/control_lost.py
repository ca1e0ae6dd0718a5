"""Whether a streamer whose lease still runs goes on airing without the control host: a table, read row by row."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

PEER_S = 300.0
"""Seconds of silence after which a streamer does not count any more among those that could take over."""

GONE_S = 30.0
"""The same for one that has said that it goes: longer than a restart, shorter than a reboot of its machine."""


class Word(StrEnum):
    """What Prefect says of the classes of this streamer."""

    FREE = "nobody takes them"
    TAKEN = "another streamer takes them"
    AWAY = "Prefect does not answer"


class Peer(StrEnum):
    """What one streamer's health says about whether it hears the control host."""

    BLIND = "blind"
    HEARS = "hears"
    SILENT = "silent"


class Peers(StrEnum):
    """What the healths of all other streamers say together."""

    NONE = "no other streamer is known"
    BLIND = "every other streamer answers and hears no control host either"
    HEARS = "another streamer hears the control host"
    SILENT = "another streamer does not answer, and may hear the control host"


@dataclass(frozen=True)
class Verdict:
    """Whether the classes stay on air, and why."""

    goes_on: bool
    why: str


ANY = None
GO_ON, STOP = True, False
TABLE: Sequence[tuple[str | None, Word | None, Peers | None, bool]] = (
    # ON_CONTROL_LOST | Prefect | other streamers | do
    (ANY, Word.TAKEN, ANY, STOP),
    (ANY, Word.FREE, ANY, GO_ON),
    ("push", Word.AWAY, ANY, GO_ON),
    ("stop", Word.AWAY, ANY, STOP),
    ("ask peers", Word.AWAY, Peers.NONE, GO_ON),
    ("ask peers", Word.AWAY, Peers.BLIND, GO_ON),
    ("ask peers", Word.AWAY, Peers.HEARS, STOP),
    ("ask peers", Word.AWAY, Peers.SILENT, STOP),
)
"""The first row that fits decides. *STOP* does not lengthen the lease: the classes end with it."""


def verdict(policy: str, word: Word, peers: Peers) -> Verdict:
    """The verdict of the first row that fits."""
    for on_lost, said, others, do in TABLE:
        given = ((on_lost, policy), (said, word), (others, peers))
        if all(wanted is ANY or wanted == found for wanted, found in given):
            return Verdict(do, _why(word, policy, peers))
    raise AssertionError((policy, word, peers))


def _why(word: Word, policy: str, peers: Peers) -> str:
    if word is not Word.AWAY:
        return f"Prefect says that {word}"
    return str(peers) if policy == "ask peers" else f"ON_CONTROL_LOST is {policy}"


def together(looks: Collection[Peer]) -> Peers:
    """What all other streamers say: one that hears the control host, or may hear it, outweighs those that do not."""
    for peer, peers in ((Peer.HEARS, Peers.HEARS), (Peer.SILENT, Peers.SILENT), (Peer.BLIND, Peers.BLIND)):
        if peer in looks:
            return peers
    return Peers.NONE


def look(health: Mapping[str, Any] | None, name: str) -> Peer:
    """What the *health* of streamer *name* says about the control host; *health* is None if it did not answer.

    An answer under another name does not count: two streamers may have the same loopback address.
    """
    if health is None or health.get("name") != name or not isinstance(health.get("hears"), bool):
        return Peer.SILENT
    return Peer.HEARS if health["hears"] else Peer.BLIND


def others(beats: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, str]:
    """The addresses (``host:port``, or empty) of the streamers besides *name* with a heartbeat in the last PEER_S."""
    at = float(beats[name]["at"]) if name in beats else max((float(one["at"]) for one in beats.values()), default=0.0)
    return {
        other: address if isinstance(address := beat.get("address"), str) else ""
        for other, beat in sorted(beats.items())
        if other != name and at - float(beat["at"]) <= (GONE_S if beat.get("gone") else PEER_S)
    }


def may_take(last_beat: Mapping[str, Any] | None, names: Collection[str]) -> list[str]:
    """Those of *names* that may take a silent streamer's classes: only those that its last heartbeat lists as peers.

    If that heartbeat has no such list, the streamer stops by itself when its lease expires, so any may take them.
    """
    known = (last_beat or {}).get("peers")
    return sorted(names) if not isinstance(known, list) else sorted(name for name in names if name in known)


def says(policy: str, known: Collection[str]) -> list[str] | None:
    """The peers that a heartbeat lists: those that the streamer asks; None if the policy stops without asking."""
    return {"ask peers": sorted(known), "push": []}.get(policy)
