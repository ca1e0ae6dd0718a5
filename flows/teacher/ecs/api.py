"""Our ECS transcoding over HTTP: a signed POST begins it or joins the one under way, a GET says how far it is."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any
from uuid import UUID

from fastapi import FastAPI
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse

from flows.host import TeacherHost
from flows.prefect_api import asking
from flows.teacher.ecs.job import note
from flows.teacher.http_requests import Refused, admit, fields_of
from flows.teacher.transcoding import ecs_run, is_there
from lectern.db import bookings, transcodings
from lectern.decide.transcoding import next_attempt
from lectern.errors import Refuse, TryAgain
from lectern.i18n import Text, labelled, msgid
from lectern.rendition_ids import stem
from lectern.states import Backend, RenditionState, Resolution
from lectern.storage import oss
from lectern.timing import Rate
from lectern.wire.fields import RecordId, WireResolution
from lectern.wire.messages import Booking
from lectern.wire.parser import in_words

MAX_BODY_BYTES = 4096
A_SECOND = 10.0
BURST = 30
BODY_S = 5.0
PREFECT_S = 5.0  # seconds that Prefect has to name a run: requests that wait for it would leave bookings no place
ASKED = msgid("asked for over HTTP")  # in the story of a rendition
OLD_S = 300.0
"""Seconds for which a request that names its time is accepted, so that nobody can replay a recorded one later."""


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


class TranscodeRequest(BaseModel):
    """The body of the documented request; another attempt begins only for one that names its time (epoch seconds)."""

    model_config = ConfigDict(extra="allow", frozen=True)

    record_id: Annotated[RecordId, BeforeValidator(_whole)]  # in JSON 6.0 is the integer 6
    video_resolution: WireResolution
    sign: str = Field(min_length=32, max_length=32)
    at: float | None = Field(default=None, allow_inf_nan=False)


@dataclass(frozen=True)
class _Found:
    status: int
    body: dict[str, object]
    attempt: int = 0
    run_id: str | None = None  # the run that makes it already


ReadRun = Callable[[UUID], Awaitable[FlowRun]]


class TranscodeRefusal(BaseModel):
    """Why a request is refused."""

    error: str


class RenditionAnswer(BaseModel):
    """How a rendition stands: its URL if it was made, the id of the run that makes it otherwise."""

    rendition: str
    status: str
    url: str | None = None
    id: UUID | None = None


_ONE_ATTEMPT = """\
What is being made is joined: the answer names the run under way. What was made, and still lies where it was uploaded,
is not made again. Without `at`, a request begins the first attempt only, so one that is sent again, by its sender or
by whoever recorded it, begins nothing. After an attempt that failed, or if the file is gone, another one begins for
a request whose `at` is later than that; such a request is taken for five minutes."""


def add_routes(app: FastAPI, host: TeacherHost, read_run: ReadRun) -> None:
    """Add the routes of ECS transcoding to *app*; *read_run* asks Prefect for a run.

    The body is declared and not validated by FastAPI, because the signature is checked first, over the raw fields.
    """
    api = TranscodeApi(host, read_run)
    body = {"required": True, "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Transcode"}}}}
    refused = _answers(TranscodeRefusal, 401, 404, 408, 409, 413, 422, 429, 503)
    app.post(
        "/transcode",
        summary="Have a rendition made on an ECS host; a second request joins the one under way.",
        description=_ONE_ATTEMPT,
        openapi_extra={"requestBody": body},
        responses=_answers(RenditionAnswer, 200, 202) | refused,
    )(api.ask)
    app.get(
        "/transcode/{id}",
        summary="How far a transcoding is; sign is the signature of its id.",
        description="",
        responses=_answers(TranscodeRefusal, 401, 404, 422, 429, 503),
    )(api.look)


def _answers(model: type[BaseModel], *statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"description": HTTPStatus(status).phrase, "model": model} for status in statuses}


class TranscodeApi:
    """``POST /transcode`` and ``GET /transcode/{id}``."""

    def __init__(self, host: TeacherHost, read_run: ReadRun) -> None:
        self._host = host
        self._read_run = read_run
        self._rate = Rate(BURST, A_SECOND)
        self._strangers = Rate(BURST, A_SECOND)

    @property
    def _key(self) -> str:
        return self._host.settings.transcode_sign_key.get_secret_value()

    async def ask(self, request: Request) -> JSONResponse:
        """202 with the run's id; 200 if the rendition is there; 401, 404, 409, 413, 422, 429, 503 say why not."""
        try:
            fields = await fields_of(request, MAX_BODY_BYTES, BODY_S)
        except Refused as no:
            raise self._stranger(no) from no
        asked = self._signed(fields)
        if not self._host.settings.ecs_hosts:
            raise Refused(503, Text("no ECS host is set up here; set ECS_HOSTS on the teacher"))
        key = (asked.record_id, asked.video_resolution)
        begun = await self._host.write_tx(_begin, self._host, key, asked.at, await self._gone(key))
        if begun.status != 202:
            return JSONResponse(begun.body, begun.status)
        try:
            run_id = begun.run_id or await ecs_run(self._host, asked.record_id, [asked.video_resolution], begun.attempt)
        except TryAgain as error:
            noted = Text("{rendition}: noted, its run begins later: {error}", rendition=stem(*key), error=error)
            raise Refused(503, noted, Retry_After="30") from error
        body = {**begun.body, "id": run_id}
        return JSONResponse(body, 202, headers={"Location": f"/transcode/{run_id}"})

    async def _gone(self, key: tuple[int, Resolution]) -> int | None:
        for row in await self._host.read_tx(transcodings.among, [key]):
            if row.state is RenditionState.SUCCESS and row.url and await is_there(self._host, row.url) is False:
                return row.attempt
        return None

    async def look(self, id: str, sign: str = "") -> JSONResponse:
        """How far a run is; *sign* is the signature of its *id*."""
        if not oss.verify({"id": id}, sign, self._key):
            raise self._stranger(Refused(401, Text("the signature is wrong: sign is the md5 of id=ID&key=SECRET")))
        admit(self._rate)
        unknown = Refused(404, Text("{id}: no such transcoding", id=id[:60]))
        try:
            run_id = UUID(id)
            async with asking(PREFECT_S):
                run = await self._read_run(run_id)
        except ValueError as error:
            raise unknown from error
        except TryAgain as error:
            if isinstance(error.__cause__, ObjectNotFound):
                raise unknown from error
            raise Refused(503, Text("Prefect does not answer; ask again"), Retry_After="10") from error
        keys = _asked_for(run.parameters)
        if not keys:
            raise unknown
        made = [
            {"rendition": row.stem, "status": row.state, "url": row.url, "reason": row.reason}
            for row in await self._host.read_tx(transcodings.among, keys)
        ]
        state = run.state.name if run.state else "unknown"
        return JSONResponse(
            {"id": id, "state": state, "message": run.state.message if run.state else None, "renditions": made}
        )

    def _stranger(self, no: Refused) -> Refused:
        """The answer to a request without our signature; it is not counted against the rate of signed requests."""
        admit(self._strangers)
        return no

    def _signed(self, fields: dict[str, Any]) -> TranscodeRequest:
        signature = fields.get("sign")
        if not isinstance(signature, str) or not oss.verify(fields, signature, self._key):
            reason = Text("the signature is wrong: sign is the md5 of the other fields, sorted, and the key")
            raise self._stranger(Refused(401, reason))
        admit(self._rate)
        try:
            asked = TranscodeRequest.model_validate(fields)
        except ValidationError as error:
            raise Refused(422, in_words(error)) from error
        if asked.at is not None and abs(time.time() - asked.at) > OLD_S:
            raise Refused(
                401, Text("the request is of another time: at must be within {old_s:g} s of now", old_s=OLD_S)
            )
        return asked


def _asked_for(parameters: dict[str, Any]) -> list[tuple[int, Resolution]]:
    """What a run was to make; nothing if it is no run of a transcoding."""
    try:
        return [(int(parameters["record_id"]), Resolution(resolution)) for resolution in parameters["resolutions"]]
    except (KeyError, TypeError, ValueError):
        return []


def _begin(
    connection: Connection, host: TeacherHost, key: tuple[int, Resolution], asked_at: float | None, gone: int | None
) -> _Found:
    """Begin an ECS transcoding, join the one under way, or take over from the OSS: one transaction.

    *gone*: the attempt whose file is not there any more, if any.
    """
    now = time.time()
    name = stem(*key)
    row = next(iter(transcodings.among(connection, [key])), None)
    if row is not None and row.state is RenditionState.SUCCESS and row.attempt != gone:
        return _Found(200, {"rendition": name, "status": row.state, "url": row.url})
    if row is not None and row.state is RenditionState.TRANSCODING:
        if row.backend is not Backend.ECS:
            transcodings.fall_back(connection, key, now)
            note(connection, host, ASKED, {name: Text("taken over from the OSS")}, now)
        run_id = next(iter(transcodings.others(connection, [key], "", now)), None)
        return _Found(202, {"rendition": name, "status": "transcoding"}, row.attempt, run_id)
    if row is not None and (asked_at is None or (row.updated_at or 0.0) > asked_at):
        is_gone = row.attempt == gone
        fate = Text("it was made, but its file is gone") if is_gone else labelled(row.state, row.reason)
        again = Text(
            "{rendition}: {fate}; for another attempt, ask again with the time of now in at", rendition=name, fate=fate
        )
        raise Refused(409, again)
    payload = bookings.latest_payload(connection, key[0])
    if payload is None:
        unknown = Text("record {record}: no booking names it, so its recording is not known here", record=key[0])
        raise Refused(404, unknown)
    own = host.settings.model_copy(update={"oss_transcode_url": None})
    attempt = next_attempt(Booking.model_validate_json(payload), key, row, own, now)
    if isinstance(attempt, Refuse):
        raise Refused(409, labelled(attempt.code.number, attempt.message))
    transcodings.begin(connection, [attempt], now)
    note(connection, host, ASKED, {name: attempt.text()}, now)
    return _Found(202, {"rendition": name, "status": "transcoding"}, attempt.attempt)
