"""Why a goal is not met, and what would meet it; each row that misses its goal needs its reason."""

from collections.abc import Mapping
from types import MappingProxyType

_ON_TWO_CORES = (
    "Teacher, streamer, Redis and what publishes and hears share two cores, and each booking crosses them four times."
    " Of 100,000 the tables grow to hundreds of thousands of rows meanwhile. With the streamer on a machine of its own"
    " it would be met. Since this run each booking is also an event of its class, which is kept and told, and what was"
    " decided about it is kept beside its message: in turns with the commit of this run, a storm of 5,000 is refused at"
    " 0.65 and accepted at 0.74 of its rate, and is shown after 1.4 of its time."
)
_VIEW = (
    "Showing begins when the answers are out, because they come first. Prefect, one process, then needs some 16 ms of a"
    " core for each of the 125 runs: for the run, its event and its tags. Fewer runs with more classes each would meet"
    " it, but Prefect takes no run of more than about 95 tags."
)

REASONS: Mapping[str, str] = MappingProxyType(
    {
        "rekey": (
            "The limit renames, and does nothing else. Ours looks at each name, counts, notes clashes and writes a"
            " journal to disk, without which a rollout could not be taken back. In larger slices it would be quicker,"
            " and others would wait for Redis for longer than 20 ms."
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
        "storm, cached, 10,000": _ON_TWO_CORES,
        "storm_postgres, cached": (
            "Teacher, streamer, Redis, Prefect and its PostgreSQL share two cores; beside Prefect on SQLite, in the"
            " same run, it is not slower. A third core would meet it."
        ),
        "filled, /metrics": (
            "An answer of some 12 ms varies by more than that: the row alone, again on the same commit, took 12.9 ms"
            " with full tables and 19.4 ms with empty ones."
        ),
        "storm_postgres, cached, 10,000: view": _VIEW,
        "storm_postgres, refused, 10,000: view": _VIEW,
    }
)
"""By the beginning of a row's name; the longest one that fits counts."""


def reason(row: str) -> str:
    """Why *row* may miss its goal; empty if nobody has said."""
    fitting = [one for one in REASONS if row.startswith(one)]
    return REASONS[max(fitting, key=len)] if fitting else ""
