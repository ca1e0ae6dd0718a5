"""Which flows each role has, and how ``lectern init`` makes their deployments: again and again, the same ones."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectException
from prefect.flows import Flow

from flows.booking import booking
from flows.broadcast import broadcast
from flows.cache import prepare
from flows.download import download
from flows.reconcile import reconcile
from flows.report import report
from flows.settle import settle
from flows.sweep import sweep_streamer, sweep_teacher
from flows.transcode import request, transcode
from flows.worker import ResidentWorker
from lectern.errors import Misuse, TryAgain
from lectern.settings import Settings, TeacherSettings

TEACHER: Mapping[str, Flow[..., Any]] = {
    "booking": booking,
    "report": report,
    "settle": settle,
    "request": request,
    "transcode": transcode,
    "sweep": sweep_teacher,
}
STREAMER: Mapping[str, Flow[..., Any]] = {
    "prepare": prepare,
    "download": download,
    "broadcast": broadcast,
    "reconcile": reconcile,
    "sweep": sweep_streamer,
}


def of(settings: Settings) -> Mapping[str, Flow[..., Any]]:
    """The flows of a role."""
    return TEACHER if isinstance(settings, TeacherSettings) else STREAMER


async def make(settings: Settings) -> list[str]:
    """Make the work pool, the host's queue, and a deployment of each flow; returns their names.

    Raises TryAgain where Prefect does not answer.
    """
    try:
        async with get_client() as client:
            await _make_pool(client, settings.work_pool)
            return [await _make_deployment(settings, flow) for flow in of(settings).values()]
    except httpx.HTTPError as error:
        raise TryAgain(f"Prefect does not answer at {settings.prefect_api_url}: {error!r}") from error


async def _make_pool(client: PrefectClient, name: str) -> None:
    template = ResidentWorker.get_default_base_job_template()
    try:
        await client.create_work_pool(WorkPoolCreate(name=name, type="resident", base_job_template=template))
    except ObjectAlreadyExists:
        pool = await client.read_work_pool(name)
        if pool.type != "resident":
            raise Misuse(
                f"The work pool {name!r} is of type {pool.type!r}, not 'resident'. Set WORK_POOL to another name."
            ) from None


async def _make_deployment(settings: Settings, flow: Flow[..., Any]) -> str:
    deployment = await flow.ato_deployment(
        name=settings.name,
        work_pool_name=settings.work_pool,
        work_queue_name=settings.name,
        description=(flow.fn.__doc__ or "").strip(),
        tags=[settings.name],
    )
    await deployment.aapply()
    return f"{flow.name}/{settings.name}"


async def read(client: PrefectClient, settings: Settings) -> dict[str, UUID]:
    """The id of each flow's deployment; raises Misuse where one is missing, TryAgain where Prefect is away."""
    found: dict[str, UUID] = {}
    for key, flow in of(settings).items():
        name = f"{flow.name}/{settings.name}"
        try:
            found[key] = (await client.read_deployment_by_name(name)).id
        except ObjectNotFound as error:
            role = "teacher" if isinstance(settings, TeacherSettings) else "streamer"
            raise Misuse(f"Prefect knows no deployment {name!r}. Type: lectern init {role}") from error
        except (httpx.HTTPError, PrefectException) as error:
            raise TryAgain(f"Prefect does not answer at {settings.prefect_api_url}: {error!r}") from error
    return found
