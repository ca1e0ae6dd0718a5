"""Our ECS transcoding over HTTP: a signed POST begins it or joins the one under way, a GET says how far it is."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Annotated, Any
from uuid import UUID

import httpx
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound, PrefectException
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flows.host import TeacherHost
from flows.teacher.ecs import transcode as ecs
from flows.teacher.transcoding import ecs_run
from lectern import __version__
from lectern.db import bookings, ecs_jobs, events, transcodings
from lectern.decide.transcoding import Limits, next_attempt
from lectern.errors import Refuse, TryAgain
from lectern.model.facts import Event
from lectern.rendition_ids import stem
from lectern.states import Backend, RenditionState, Resolution
from lectern.storage import oss
from lectern.timing import Rate
from lectern.wire.fields import RecordId, WireResolution
from lectern.wire.messages import Booking

MAX_BODY_BYTES = 4096
A_SECOND = 10.0
BURST = 30
BODY_S = 5.0
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


class _No(Exception):
    """An answer that ends the request: status and a sentence."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.response = JSONResponse(
            {"error": message}, status, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )


ReadRun = Callable[[UUID], Awaitable[FlowRun]]


def routes(host: TeacherHost, read_run: ReadRun) -> list[Route]:
    """The routes of the API; *read_run* asks Prefect for a run."""
    api = TranscodeApi(host, read_run)
    return [
        Route("/transcode", _answering(api.ask), methods=["POST"]),
        Route("/transcode/{id}", _answering(api.look), methods=["GET"]),
        Route("/openapi.json", lambda _request: JSONResponse(described(TranscodeRequest))),
    ]


def _answering(work: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            return await work(request)
        except _No as no:
            return no.response

    return answer


class TranscodeApi:
    """``POST /transcode`` and ``GET /transcode/{id}``."""

    def __init__(self, host: TeacherHost, read_run: ReadRun) -> None:
        self._host = host
        self._read_run = read_run
        self._rate = Rate(BURST, A_SECOND)
        self._strangers = Rate(BURST, A_SECOND)
        self._key = host.settings.transcode_sign_key.get_secret_value()

    async def ask(self, request: Request) -> Response:
        """202 with the run's id; 200 if the rendition is there; 401, 404, 409, 413, 422, 429, 503 say why not."""
        asked = self._signed(await self._fields(request))
        settings = self._host.settings
        if not settings.ecs_hosts:
            raise _No(503, "no ECS host is set up here; set ECS_HOSTS on the teacher")
        key = (asked.record_id, asked.video_resolution)
        found = await self._host.write_tx(_begin, self._host, key, asked.at, await self._gone(key))
        if found.status != 202:
            return JSONResponse(found.body, found.status)
        try:
            run_id = found.run_id or await ecs_run(self._host, asked.record_id, [asked.video_resolution], found.attempt)
        except (TryAgain, httpx.HTTPError) as error:
            raise _No(503, f"{stem(*key)}: noted, its run begins later: {error}", Retry_After="30") from error
        body = {**found.body, "id": run_id}
        return JSONResponse(body, 202, headers={"Location": f"/transcode/{run_id}"})

    async def _gone(self, key: tuple[int, Resolution]) -> int | None:
        """The attempt that made the rendition, if its file is not there any more."""
        made = await self._host.read_tx(transcodings.made, key)
        return made[0] if made is not None and await ecs.gone(self._host, made[1]) else None

    async def look(self, request: Request) -> Response:
        """How far a run is; *sign* in the query is the signature of its id."""
        id_ = request.path_params["id"]
        if not oss.verify({"id": id_}, request.query_params.get("sign", ""), self._key):
            raise self._stranger(_No(401, "the signature is wrong: sign is the md5 of id=ID&key=SECRET"))
        _admit(self._rate)
        try:
            run = await self._read_run(UUID(id_))
        except (ValueError, ObjectNotFound) as error:
            raise _No(404, f"{id_[:60]}: no such transcoding") from error
        except (httpx.HTTPError, PrefectException) as error:
            raise _No(503, "Prefect does not answer; ask again", Retry_After="10") from error
        keys = _asked_for(run.parameters)
        if not keys:
            raise _No(404, f"{id_}: no such transcoding")
        made = await self._host.write_tx(transcodings.standing, keys)
        state = run.state.name if run.state else "unknown"
        return JSONResponse(
            {"id": id_, "state": state, "message": run.state.message if run.state else None, "renditions": made}
        )

    def _stranger(self, no: _No) -> _No:
        """The answer to a request without our signature; it is not counted against the rate of signed requests."""
        _admit(self._strangers)
        return no

    async def _fields(self, request: Request) -> dict[str, Any]:
        try:
            async with asyncio.timeout(BODY_S):
                return await _fields(request)
        except TimeoutError as error:
            raise self._stranger(_No(408, f"the body did not come within {BODY_S:g} s")) from error
        except _No as no:
            raise self._stranger(no) from no

    def _signed(self, fields: dict[str, Any]) -> TranscodeRequest:
        signature = fields.get("sign")
        if not isinstance(signature, str) or not oss.verify(fields, signature, self._key):
            said = "the signature is wrong: sign is the md5 of the other fields, sorted, and the key"
            raise self._stranger(_No(401, said))
        _admit(self._rate)
        try:
            asked = TranscodeRequest.model_validate(fields)
        except ValidationError as error:
            faults = "; ".join(f"{one['loc'][0] if one['loc'] else 'body'}: {one['msg']}" for one in error.errors())
            raise _No(422, faults) from error
        if asked.at is not None and abs(time.time() - asked.at) > OLD_S:
            raise _No(401, f"the request is of another time: at must be within {OLD_S:g} s of now")
        return asked


def _admit(rate: Rate) -> None:
    wait_s = rate.take()
    if wait_s > 0:
        raise _No(429, "too many requests", Retry_After=str(int(wait_s) + 1))


async def _fields(request: Request) -> dict[str, Any]:
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise _No(413, f"the body is longer than {MAX_BODY_BYTES} bytes")
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:  # a few brackets are enough for the latter
        raise _No(422, f"the body is no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise _No(422, "the body must be a JSON object")
    return fields


def _asked_for(parameters: dict[str, Any]) -> list[tuple[int, Resolution]]:
    """What a run was to make; nothing if it is no run of a transcoding."""
    try:
        return [(int(parameters["record_id"]), Resolution(one)) for one in parameters["resolutions"]]
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
    row = transcodings.states(connection, [key]).get(key)
    if row is not None and row.state is RenditionState.SUCCESS and row.attempt != gone:
        (made,) = transcodings.standing(connection, [key])
        return _Found(200, {"rendition": name, "status": row.state, "url": made["url"]})
    if row is not None and row.state is RenditionState.TRANSCODING:
        if row.backend is not Backend.ECS:
            transcodings.fall_back(connection, [key], now + ecs.DEADLINE_S, now)
            _note(connection, host, name, "taken over from the OSS", now)
        run_id = next(iter(ecs_jobs.others(connection, [key], "", now)), None)
        return _Found(202, {"rendition": name, "status": "transcoding"}, row.attempt, run_id)
    if row is not None and (asked_at is None or transcodings.settled_since(connection, key, asked_at)):
        (before,) = transcodings.standing(connection, [key])
        fate = "it was made, but its file is gone" if row.attempt == gone else f"{row.state}: {before['reason']}"
        raise _No(409, f"{name}: {fate}; for another attempt, ask again with the time of now in at")
    payload = bookings.latest_payload(connection, key[0])
    if payload is None:
        raise _No(404, f"record {key[0]}: no booking names it, so its recording is not known here")
    own = replace(Limits.of(host.settings), oss=False)
    attempt = next_attempt(Booking.model_validate_json(payload), key, row, own, now)
    if isinstance(attempt, Refuse):
        raise _No(409, f"{attempt.code.number}: {attempt.message}")
    transcodings.begin(connection, [attempt], now)
    _note(connection, host, name, f"attempt {attempt.attempt}", now)
    return _Found(202, {"rendition": name, "status": "transcoding"}, attempt.attempt)


def _note(connection: Connection, host: TeacherHost, name: str, detail: str, now: float) -> None:
    said = Event("asked for over HTTP", stem=name, detail=detail)
    events.note(connection, host.journal, host.settings.name, [said], now)


# -- the OpenAPI document ----------------------------------------------------------------------------------------------


def _error(description: str) -> dict[str, object]:
    schema = {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _rendition(description: str, **more: object) -> dict[str, object]:
    properties = {"rendition": {"type": "string"}, "status": {"type": "string"}, **more}
    schema = {"type": "object", "properties": properties, "required": ["rendition", "status"]}
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_ONE_ATTEMPT = """\
What is being made is joined: the answer names the run under way. What was made, and still lies where it was uploaded,
is not made again. Without `at`, a request begins the first attempt only, so one that is sent again, by its sender or
by whoever recorded it, begins nothing. After an attempt that failed, or if the file is gone, another one begins for
a request whose `at` is later than that; such a request is taken for five minutes."""


def described(asked: type[BaseModel]) -> dict[str, object]:
    """The OpenAPI document; *asked* is the model of a request's body."""
    # OpenAPI keeps the models that others refer to under components, not under $defs as a JSON Schema does.
    schema = asked.model_json_schema(ref_template="#/components/schemas/{model}")
    schemas = schema.pop("$defs")
    return {
        "openapi": "3.1.0",
        "info": {"title": "lectern: ECS transcoding", "version": __version__},
        "components": {"schemas": schemas},
        "paths": {
            "/transcode": {
                "post": {
                    "summary": "Have a rendition made on an ECS host; a second request joins the one under way.",
                    "description": _ONE_ATTEMPT,
                    "requestBody": {
                        "required": True,
                        "content": {"application/json": {"schema": schema}},
                    },
                    "responses": {
                        "200": _rendition("It was made, and nothing is begun.", url={"type": ["string", "null"]}),
                        "202": _rendition("It is being made.", id={"type": "string", "format": "uuid"}),
                        "401": _error("The signature is wrong, or the request is of another time."),
                        "404": _error("No booking names the record."),
                        "409": _error(
                            "Its last attempt failed, or its file is gone, and at is missing or before that; "
                            "or no attempt is left today, or there is nothing to transcode from."
                        ),
                        "408": _error("The body did not come in time."),
                        "413": _error("The body is too long."),
                        "422": _error("The body is not as it should be."),
                        "429": _error("Too many requests; Retry-After says how long to wait."),
                        "503": _error("No ECS host is set up, or Prefect is away."),
                    },
                }
            },
            "/transcode/{id}": {
                "get": {
                    "summary": "How far a transcoding is.",
                    "parameters": [
                        {"name": "id", "in": "path", "required": True, "schema": {"type": "string"}},
                        {"name": "sign", "in": "query", "required": True, "schema": {"type": "string"}},
                    ],
                    "responses": {
                        "200": {"description": "Its state, and that of its renditions."},
                        "401": _error("The signature is wrong."),
                        "404": _error("There is no such transcoding."),
                        "429": _error("Too many requests."),
                        "503": _error("Prefect is away."),
                    },
                }
            },
        },
    }
