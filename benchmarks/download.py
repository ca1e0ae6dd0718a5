"""A download with all its checks, beside bare wget at the same limit."""

import time
from collections.abc import Iterator

from benchmarks import recording
from benchmarks.figures import Figure
from benchmarks.run_cost import run_s
from benchmarks.stand import Stand
from tests.stage import Stage, wait_until

WHAT = (
    "a recording comes from an origin on loopback at a limited rate. *run*: the download's run, by Prefect's clock: the"
    " look at the origin, wget, length, CRC-64, probe, fsync, its place in the cache. *answer*: from the booking's"
    " PUBLISH to its answer. The peer is wget alone with the same `--limit-rate`"
)
RATE = "2m"
RATE_BITS_S = 8 * 2 * 2**20
GOAL = "<= 1.03 of wget"


def measure(stand: Stand) -> Iterator[Figure]:
    """Both, in turns."""
    seconds = 5 if stand.quick else 30  # that the download takes
    found: dict[str, list[float]] = {"run": [], "answer": [], "wget": []}
    with stand.stage(DOWNLOAD_RATE=RATE) as stage:
        stage.up("teacher", "streamer1")
        warm = stage.booking(stage.town.record(), starts_in_s=90_000)
        assert stage.answer(stage.book(warm), timeout_s=120)["result"] == "success"
        master = recording.make(stand.folder() / "master.flv", seconds, bits_s=RATE_BITS_S, preset="ultrafast")
        for _ in range(stand.rounds):
            record = stage.town.record()
            source = stage.town.origin.root / str(record) / f"{record}.flv"
            source.unlink()
            source.hardlink_to(master)
            found["wget"].append(_wget(stand, stage, record))
            run, answer = _ours(stage, record, seconds)
            found["run"].append(run)
            found["answer"].append(answer)
            stand.say(f"download: wget {found['wget'][-1]:.2f} s, run {run:.2f} s, answer {answer:.2f} s")
        note = f"{master.stat().st_size / 2**20:.0f} MiB at {RATE} a second"
    times = {name: min(all_) for name, all_ in found.items()}
    wget = {"wget": times.pop("wget")}
    for name, value in times.items():
        goal = GOAL if name == "run" else ""
        yield Figure(f"download: {name}", "s", value, wget, more_is_better=False, goal=goal, note=note)


def _wget(stand: Stand, stage: Stage, record: int) -> float:
    """Seconds of the bare command."""
    url, target = stage.town.origin.url_for(f"{record}/{record}.flv"), stand.folder() / "wget.flv"
    began = time.perf_counter()
    recording.run(stage.town.programs.wget, "-q", f"--limit-rate={RATE}", "-O", str(target), url)
    return time.perf_counter() - began


def _ours(stage: Stage, record: int, seconds: int) -> tuple[float, float]:
    """Seconds of the run, and from the booking to the answer."""
    began = time.time()
    class_id = stage.book(stage.booking(record, starts_in_s=90_000))
    answer = stage.answer(class_id, timeout_s=120 + 10 * seconds)
    assert answer["result"] == "success", answer
    ended = wait_until(
        lambda: [one for one in stage.runs("streamer1", f"download {record}") if one["end_time"]],
        description=f"the run of download {record} has ended",
    )
    return run_s(ended[0]), float(answer["received_at"]) - began
