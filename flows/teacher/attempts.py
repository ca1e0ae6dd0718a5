"""Begins the runs that make renditions, beside the work that asks for them."""

from collections.abc import Sequence

from flows.beside import NewRun
from flows.host import Teacher
from lectern.decide.transcode import by_record
from lectern.facts import RenditionKey
from lectern.states import Resolution


async def start_requests(host: Teacher, keys: Sequence[RenditionKey]) -> None:
    """Begin a run that asks the OSS for each of *keys*; if it cannot begin, the sweeper does it."""
    if keys:
        name = f"request {words(keys[0])}" if len(keys) == 1 else f"request {len(keys)} renditions"
        wanted = [[record_id, str(resolution)] for record_id, resolution in keys]
        _start(host, "request", {"renditions": wanted}, name, [record_id for record_id, _ in keys])


async def start_ecs(host: Teacher, keys: Sequence[RenditionKey]) -> None:
    """Begin a run for each record of *keys*: its renditions are made together."""
    for record_id, resolutions in by_record(keys).items():
        name = f"transcode {record_id} {'+'.join(resolutions)}"
        parameters = {"record_id": record_id, "resolutions": [str(one) for one in resolutions]}
        _start(host, "transcode", parameters, name, [record_id])


async def ecs_run(host: Teacher, record_id: int, resolutions: Sequence[Resolution], attempt: int) -> str:
    """The id of the run that makes this attempt, begun now or by an earlier request."""
    wanted = [str(one) for one in resolutions]
    name = f"transcode {record_id} {'+'.join(wanted)}"
    parameters = {"record_id": record_id, "resolutions": wanted}
    key = f"{host.settings.name} {name} attempt {attempt}"
    return await host.runs.start(NewRun("transcode", parameters, name, [f"record:{record_id}"], key))


def _start(host: Teacher, which: str, parameters: dict[str, object], name: str, records: Sequence[int]) -> None:
    tags = [f"record:{record_id}" for record_id in records[:20]]
    host.starter.begin(host.runs, NewRun(which, parameters, name, tags))


def words(key: RenditionKey) -> str:
    """A rendition for people."""
    return f"{key[0]} {key[1]}"
