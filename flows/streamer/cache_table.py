"""The cache of a streamer as a table in the UI."""

from collections.abc import Sequence

from lectern import words
from lectern.facts import Cached, Usage
from lectern.states import FileState


def lines(rows: Sequence[Cached], bound: Usage) -> list[dict[str, object]]:
    """The cache of a streamer as a table: what is used, reserved, pinned, evictable."""
    here = [one for one in rows if one.state is FileState.READY]
    idle = [one for one in here if one.num_cite <= 0]
    sums = {
        "used": here,
        "reserved": [one for one in rows if one.state is FileState.DOWNLOADING],
        "pinned": [one for one in here if one.num_cite > 0],
        "evictable": idle,
    }
    found: list[dict[str, object]] = [
        {"what": what, "renditions": len(some), "size": words.size(sum(one.size_bytes for one in some))}
        for what, some in sums.items()
    ]
    oldest = f"oldest evictable: {idle[0].stem}" if idle else "nothing is evictable"
    return [
        *found,
        {
            "what": "bound (MAX_VIDEO_NUM, MAX_VIDEO_SIZE)",
            "renditions": bound.num,
            "size": words.size(bound.size_bytes),
        },
        {"what": oldest, "renditions": "", "size": ""},
    ]
