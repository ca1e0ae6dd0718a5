"""Takes released classes off the air, with or without a run."""

from collections.abc import Sequence

import httpx
from prefect.exceptions import PrefectException

from flows.host import Host, log
from lectern.effects.airings import Airing
from lectern.settings import StreamerSettings


async def all_of(host: Host[StreamerSettings], released: Sequence[Airing]) -> None:
    """End the runs, and what is aired without one, of classes that are released in the database already."""
    for one in released:
        if one.class_id in host.guarded:
            host.guarded[one.class_id].cancel("the class was cancelled")
        if one.run_id is None:
            continue
        try:
            await host.runs.cancel(one.run_id, "the class was cancelled")
        except (httpx.HTTPError, PrefectException) as error:
            log.warning("%s: its run can not be cancelled in the UI: %s", one.class_id, error)
