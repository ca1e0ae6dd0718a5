"""Odd rows in the hash of the streamers and beside it: what old programs, other programs and fingers leave there."""

import json
import random
from dataclasses import dataclass

from tests.fuzz import odd_values as odd
from tests.fuzz.odd_values import Raw, written


@dataclass(frozen=True)
class Row:
    """A field of a hash; *which* of the hashes: the beats, the claims to a lease, the leases."""

    which: str
    name: bytes
    value: bytes


AT: tuple[object, ...] = (
    *("now", 0, -1, 1e300, 10**400, None, True, "", "now", [], {}),
    Raw(b"NaN"),
    Raw(b"Infinity"),
    Raw(b"9" * 4_301),
    "1e9",
)


def drawn(seed: int, index: int, now: float) -> Row:
    """The row number *index* of a seed; by none of them a streamer is there."""
    chance = random.Random(f"{seed} row {index}")
    which = chance.choice(("streamers", "streamers", "claims", "lease"))
    name = chance.choice((f"ghost-{index}", *odd.NAMES)).encode("utf-8", "surrogatepass")
    if chance.random() < 0.15:
        name = odd.bad_bytes(chance) + name
    at = chance.choice(AT)
    at = now if at == "now" else at
    beat = {
        "at": at,
        "max_bytes": chance.choice(odd.NUMBERS),
        "used_bytes": chance.choice(odd.NUMBERS),
        "full": chance.choice(odd.TYPES),
    }
    claim = {"session": chance.choice((f"s-{index}", *odd.NAMES)), "lease_s": chance.choice((12, *odd.NUMBERS))}
    whole = beat if which == "streamers" else claim
    value = chance.choice(
        (
            written(whole),
            written({**whole, chance.choice(sorted(whole)): chance.choice(odd.TYPES)}),
            written({}),
            written(chance.choice(odd.TYPES)),
            odd.brackets(chance),
            odd.bad_bytes(chance),
            json.dumps(whole, default=str).encode()[:-1],
            b"",
            b"1764010800.25",
        )
    )
    return Row(which, name, value)
