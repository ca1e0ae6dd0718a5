"""What happens when a promised class loses its file: an alarm, and a second download or a refusal."""

from collections.abc import Sequence

from lectern import errors
from lectern.decide import readiness
from lectern.errors import ErrorCode
from lectern.facts import Airing, Cached
from lectern.states import AiringState
from lectern.streamer_changes import StreamerChanges
from lectern.wire import called


def fetch_again(changes: StreamerChanges, row: Cached, url: str | None, citing: Sequence[Airing], why: str) -> None:
    """Forget the file of *row*, which is lost as *why* says; reserve a download if classes need it.

    *citing* are the live classes that cite it: they wait for the download, or are refused if nobody knows a URL. A
    class on air goes on, with the slate.
    """
    needing = [one for one in citing if one.state is not AiringState.WAITING]
    changes.lose(row)
    changes.note("its file is lost", detail=why, stem=row.stem)
    if needing and url:
        changes.reserve(row.stem, row.size_bytes, url, row.source)
        changes.cited[row.stem] += len(needing)
    waiting = [one for one in citing if one.state in {AiringState.WAITING, AiringState.ON_AIR}]
    for one in needing:
        if one.state is not AiringState.READY:
            continue  # a broken class is not aired again unless a person retries it
        waiting.append(changes.move(one, AiringState.WAITING))
        if url:
            _alarm(changes, one, f"its file is lost: {why}; it is downloaded again")
    if needing and not url:
        refuse(changes, waiting, errors.DOWNLOAD_FAILED, f"{row.stem}: {why}, and no URL is known")


def refuse(changes: StreamerChanges, waiting: Sequence[Airing], code: ErrorCode, why: str) -> None:
    """Refuse all classes that wait for a rendition that cannot be had; an alarm for each that was promised.

    A class on air is not refused: it goes on with the slate, and raises an alarm.
    """
    alarm_on_air(changes, [one for one in waiting if one.state is AiringState.ON_AIR], why)
    for one in waiting:
        if one.state is AiringState.ON_AIR:
            continue
        after = changes.move(one, AiringState.REFUSED, code, why)
        changes.report("prepared", after, code, why)
        if one.lost:
            _alarm(changes, one, f"its file is lost and cannot be had again: {why}")


def alarm_on_air(changes: StreamerChanges, classes: Sequence[Airing], why: str) -> None:
    """Raise an alarm for each of *classes*, which go on with the slate."""
    for one in classes:
        changes.alarm(errors.NO_RECORDING, f"{one.class_id}: its recording cannot be had again: {why}", one)


def _alarm(changes: StreamerChanges, one: Airing, why: str) -> None:
    said = readiness.sentence(called(one.class_id), one.stem, one.start_time - changes.now, [why])
    changes.alarm(errors.NOT_READY_FOR_START, said, one)
