"""Takes released classes off the air, with or without a run."""

from collections.abc import Sequence

from flows.host import Host, log
from lectern.effects.rows.airings import Airing
from lectern.errors import TryAgain
from lectern.settings import StreamerSettings

WHY = "the class was cancelled"


def here(host: Host[StreamerSettings], released: Sequence[Airing]) -> None:
    """End the pushes of classes that are released in the database already, whoever airs them; nobody is asked."""
    for one in released:
        if one.class_id in host.guarded:
            host.guarded[one.class_id].cancel(WHY)
        for run_id in {one.run_id, host.aired_by.get(one.class_id)} - {None}:
            host.runs.end(str(run_id), WHY)


async def in_prefect(host: Host[StreamerSettings], released: Sequence[Airing]) -> None:
    """Take the runs of released classes off the timetable; what runs here has been ended by `here`."""
    for one in released:
        if one.run_id is None:
            continue
        try:
            await host.runs.cancel(one.run_id, WHY)
        except TryAgain as error:
            log.warning("%s: its run can not be cancelled in the UI: %s", one.class_id, error.message)
