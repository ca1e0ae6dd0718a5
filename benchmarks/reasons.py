"""Why a goal is not met, and what would meet it; each row that misses its goal needs its reason."""

from collections.abc import Mapping
from types import MappingProxyType

_ON_TWO_CORES = (
    "After ten seconds a storm is shown while it lasts, and from then on Prefect takes a part of the two cores on which"
    " all hosts of the measurement are. With Prefect, or the streamer, on a machine of its own it would be met."
)
_VIEW = (
    "Showing begins when the answers are out, because they come first, and Prefect needs a third of a millisecond and"
    " more of a core for each message that it shows: of a cached booking these are three. With a core of its own for"
    " Prefect it could be shown while the storm lasts. Since this run the tags of many classes are set after their run"
    " was created, which halves what it costs Prefect."
)

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "rekey": (
            "The limit renames, and does nothing else. Ours looks at each name, counts, notes clashes and writes a"
            " journal to disk, without which a rollout could not be taken back. In larger slices it would be quicker,"
            " and others would wait for Redis for longer than 20 ms."
        ),
        "cache": (
            "Half of the places take a millisecond, and that is Python's: a place is several statements, which decide,"
            " evict, reserve and cite, where the peer sets one key. At a million rows the slowest hundredth also waits"
            " until the write-ahead log is copied into the database. Fewer statements would meet it."
        ),
        "transcode": (
            "A tenth of a second more goes into the looks at the origin before and after, the check of the last second"
            " and the MD5, which keep a broken rendition off the air. Of a recording of an hour it is no thousandth."
        ),
        "transcode, two at once": (
            "One job saves a download and a decoding; the two encodings share two cores in any case. With a core more"
            " it would be met."
        ),
        "storm, refused, 100,000": _ON_TWO_CORES,
        "storm, cached, 100,000": _ON_TWO_CORES,
        "storm, cached, 1,000": (
            "It is over in 0.3 s. The streamer begins when the teacher has decided all of it, and the teacher answers"
            " when the streamer has admitted it: one core waits for the other. In smaller batches they would overlap,"
            " and each booking of a longer storm would be dearer."
        ),
        "storm, cached, 10,000: view": _VIEW,
        "storm_postgres, cached": (
            "Teacher, streamer, Redis, Prefect and its PostgreSQL share two cores; beside Prefect on SQLite, in the"
            " same run, it is not slower. A third core would meet it."
        ),
        "storm_postgres, cached, 10,000: view": _VIEW,
        "storm_postgres, refused, 10,000: view": _VIEW,
        "filled, lectern": (
            "Four fifths of it are Python's start and the import of what it needs, with empty tables, too; the full"
            " tables cost nothing. Since this run both end at once, without taking a million objects apart: this row"
            " alone, on a quiet machine, then gave 445 and 450 ms."
        ),
    }
)
"""By the beginning of a row's name; the longest one that fits counts."""


def reason(row: str) -> str:
    """Why *row* may miss its goal; empty if nobody has said."""
    fitting = [one for one in REASONS if row.startswith(one)]
    return REASONS[max(fitting, key=len)] if fitting else ""
