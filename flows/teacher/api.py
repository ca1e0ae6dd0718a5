"""The teacher's HTTP API: the platform's messages and their answers, for programs that do not reach Redis.

A request is a row of the inbox first, as a message is, and handled by the same flows; ``/openapi.json`` describes all.
"""

import asyncio
import json
import math
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from secrets import token_hex
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, FastAPI, Query, Security
from fastapi.security import HTTPBearer
from pydantic import BaseModel, Field
from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import JSONResponse

from flows.host import TeacherHost
from flows.teacher.ecs import api as ecs_api
from flows.teacher.ecs.api import ReadRun, TranscodeRequest
from flows.teacher.http_requests import AGAIN_S, Problem, Refused, add_refusals, admit, fields_of, json_of, refusals
from lectern import __version__, errors
from lectern.db import account as db_account
from lectern.db import bookings, events, inbox, outbox, timetable, transcodings, viewers
from lectern.db.inbox import ReceivedMessage
from lectern.decide import booking as decide_booking
from lectern.decide import forecast
from lectern.decide.placement import answer_of
from lectern.errors import Malformed
from lectern.i18n import Text
from lectern.model.facts import Order
from lectern.model.plan import Changes
from lectern.model.tables.teacher import ClassEventRow, ViewerRow
from lectern.model.views import StreamerStatus
from lectern.page import view
from lectern.states import BookingState, Right
from lectern.timing import Rate, comes
from lectern.wire import outgoing, schema
from lectern.wire.fields import BACKUP
from lectern.wire.messages import Booking, Cancel, Change, Message
from lectern.wire.parser import parse, read

T = TypeVar("T")
MAX_BODY_BYTES = 1 << 20
BODY_S = 10.0
A_SECOND = 50.0  # number of requests that a client may send in a second, and at once
WRONG_TOKENS = 20.0  # number of wrong tokens of one address that are answered at once; after that, one a second
MOST_WAITING = 100  # number of requests that wait for an answer at the same time
MOST_KEPT = 20_000  # number of unhandled messages in the inbox at which no further request is taken
MOST_CHECKED = 1_000
PAGE = 200  # number of classes or events in one answer
LOOK_S = 0.5
"""Seconds after which a waiting request looks at the rows again: another teacher may have handled its message."""

STATUS = {0: 200, 316: 507, 400: 422, 404: 404, 409: 409, 410: 410, 411: 410}
"""The HTTP status of an answer by its code; other refusals are 422."""

Heard = Callable[[], Awaitable[Mapping[str, StreamerStatus] | None]]
Wait = Annotated[float, Query(ge=0, le=60, description="Seconds to wait for the answer; without it 202 at once.")]
After = Annotated[int, Query(ge=0, lt=2**63, description="The last one that is known; 0 for the first ones.")]
Time = Annotated[float | None, Field(ge=0, lt=4e9, allow_inf_nan=False, description="Epoch seconds.")]


class Listed(BaseModel):
    """Which classes are listed."""

    since: Time = Field(default=None, alias="from")
    until: Time = Field(default=None, alias="to")
    institution: str | None = None
    state: BookingState | None = None
    cursor: str = ""


def application(host: TeacherHost, read_run: ReadRun, heard: Heard) -> FastAPI:
    """The application with all routes that other programs use.

    *read_run* asks Prefect for a run, *heard* returns the last status of each streamer.
    """
    app = FastAPI(title="lectern", version=__version__, docs_url=None, redoc_url=None)
    add_refusals(app, lambda: host.settings.runbook_url or "/runbook")
    ecs_api.add_routes(app, host, read_run)
    ClassesApi(host, heard).add_routes(app)
    described = app.openapi

    def openapi() -> dict[str, Any]:
        document = described()  # FastAPI keeps it, and returns the same value each time
        # The schemas of the bodies that FastAPI does not read itself: our parser does, or a signature comes first.
        at = "#/components/schemas/"
        asked = TranscodeRequest.model_json_schema(ref_template=at + "{model}")
        bodies: dict[str, Any] = json.loads(schema.text().replace("#/$defs/", at))["$defs"]
        bodies |= {**asked.pop("$defs"), "Transcode": asked, "Problem": Problem.model_json_schema()}
        document["components"]["schemas"] |= bodies
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's manual says
    return app


@dataclass(frozen=True)
class _Before:
    order: Order | None
    waiting: int  # number of messages in the inbox
    sent: int  # the last message in the outbox


class ClassesApi:
    """``/v1``: classes are booked, changed, cancelled and looked at."""

    def __init__(self, host: TeacherHost, heard: Heard) -> None:
        self._host = host
        self._heard = heard
        self._rate, self._strangers = Rate(A_SECOND, A_SECOND), Rate(WRONG_TOKENS, 1.0)

    def add_routes(self, app: FastAPI) -> None:
        """Add the routes to *app*."""
        token = Security(HTTPBearer(scheme_name="client", auto_error=False))  # described so; `_client` reads it
        refused = refusals(401, 403, 404, 408, 413, 422, 429, 503)
        routes, one = APIRouter(prefix="/v1", dependencies=[token], responses=refused), "/classes/{class_id}"
        routes.put(one, summary="Book a class.", **_answered("OrderResult", "Booking"))(self.put)
        summary = "Change a booked class; absent fields stay."
        routes.patch(one, summary=summary, **_answered("ChangeResult", "Change"))(self.patch)
        routes.delete(one, summary="Cancel a class.", **_answered("CancelResult"))(self.delete)
        routes.get(one, summary="What lectern explain --json prints of a class.")(self.get)
        routes.get("/classes", summary="The classes of a time, by their start; next is the cursor.")(self.classes)
        routes.get(f"{one}/events", summary="What the platform was told of a class after the event SEQ.")(self.events)
        routes.get("/events", summary="The same of all classes, after the row ID; next is the last one.")(self.feed)
        listed = {"type": "array", "maxItems": MOST_CHECKED, "items": _ref("Booking")}
        summary = "What would be answered to these bookings now, in this order; nothing is kept."
        routes.post("/bookings:check", summary=summary, openapi_extra=_body(listed))(self.check)
        app.include_router(routes)

    # -- who may, and what they send -----------------------------------------------------------------------------------

    async def _client(self, request: Request, right: Right) -> ViewerRow:
        """The client that asks; raises Refused if there is no such client, or it may not, or asks too often."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        known = scheme.lower() == "bearer" and 0 < len(token) < 100
        client = await self._host.read_tx(viewers.of_token, token) if known else None
        if client is None or client.rights == {Right.LOOK}:
            if token:  # others at this address have right ones, and are let in
                admit(self._strangers, request.client.host if request.client else "", Text("too many wrong tokens"))
            hint = Text("send the token of a client: Authorization: Bearer TOKEN; lectern client add NAME makes one")
            raise Refused(401, hint, WWW_Authenticate="Bearer")
        admit(self._rate, client.name)
        if right not in client.rights:
            raise Refused(403, Text("{client} may not {right}", client=client.name, right=right))
        return client

    @staticmethod
    def _message(client: ViewerRow, kind: type[Message], fields: Mapping[str, Any], class_id: str) -> Any:  # noqa: ANN401 (a message of *kind*)
        """The message that *fields* are; raises Malformed with every fault, Refused for another institution."""
        cmd = kind.model_fields["cmd"].default
        for name, value in (("cmd", cmd), ("class_id", class_id)):
            if fields.get(name, value) != value:
                raise Malformed(Text("{name} must be {value}, or absent", name=name, value=repr(value)[:300]))
        defaults = (
            {} if kind is not Booking or client.institution_id is None else {"institution_id": client.institution_id}
        )
        given = fields.get("by")
        whole = {**defaults, **fields, "cmd": cmd, "class_id": class_id}
        whole["by"] = f"{client.name} ({given})" if isinstance(given, str) and given else client.name
        message = parse(json.dumps(whole), (kind,))
        if defaults and message.institution_id != client.institution_id:  # type: ignore[attr-defined]  # a booking
            only = Text("{client} books for {institution} alone", client=client.name, institution=client.institution_id)
            raise Refused(403, only, class_id=class_id)
        return message

    # -- what is sent to us --------------------------------------------------------------------------------------------

    async def put(self, class_id: str, request: Request, wait: Wait = 0) -> JSONResponse:
        """Book a class: 202 is a promise that it is decided; the same booking again is 200, another one 409."""
        client = await self._client(request, Right.BOOK)
        booking: Booking = self._message(client, Booking, await fields_of(request, MAX_BODY_BYTES, BODY_S), class_id)
        before = await self._before(client, class_id)
        if (known := _first_answer(before.order, booking)) is not None:
            return await self._heard_by_client(class_id, known)

        def look(connection: Connection) -> str | None:
            order = db_account.booking(connection, class_id)  # another booking of this class may have come first
            if order is not None and client.institution_id not in {None, order.institution_id}:
                raise _no_such(class_id)
            return _first_answer(order, booking) or self._answered(connection, booking, before)

        return await self._send(None if before.order else booking, class_id, wait, look)

    async def patch(self, class_id: str, request: Request, wait: Wait = 0) -> JSONResponse:
        """Change a class, also while it is on air; fields that are absent stay."""
        client, fields = await self._client(request, Right.BOOK), await fields_of(request, MAX_BODY_BYTES, BODY_S)
        return await self._follow_up(client, self._message(client, Change, fields, class_id), class_id, wait)

    async def delete(self, class_id: str, request: Request, wait: Wait = 0) -> JSONResponse:
        """Cancel a class; one that is on air ends at once."""
        client = await self._client(request, Right.BOOK)
        return await self._follow_up(client, self._message(client, Cancel, {}, class_id), class_id, wait)

    async def _follow_up(self, client: ViewerRow, message: Change | Cancel, class_id: str, wait: float) -> JSONResponse:
        before = await self._before(client, class_id, booked=True)
        return await self._send(message, class_id, wait, lambda c: self._answered(c, message, before))

    async def _before(self, client: ViewerRow, class_id: str, *, booked: bool = False) -> _Before:
        """What is known of the class; raises Refused if it is not the client's, or the inbox is full.

        *booked*: a client of an institution needs a class that is booked, because nobody knows whose another one is.
        """
        before = await self._host.read_tx(self._read, class_id)
        if self._host.intake is None or before.waiting >= MOST_KEPT:
            reason = Text("the teacher begins or ends")
            if self._host.intake is not None:
                reason = Text.many("{n:,} message waits already", "{n:,} messages wait already", n=before.waiting)
            raise Refused(503, reason, class_id=class_id, Retry_After=str(AGAIN_S))
        own = client.institution_id
        if own is None or (before.order.institution_id == own if before.order else not booked):
            return before
        if before.order is None and await self._host.read_tx(db_account.kept_since, class_id) is not None:
            raise Refused(503, Text("its booking is not handled yet"), class_id=class_id, Retry_After="1")
        raise _no_such(class_id)

    def _read(self, connection: Connection, class_id: str) -> _Before:
        order = db_account.booking(connection, class_id)
        return _Before(order, inbox.waiting(connection), outbox.last_id(connection))

    async def _send(
        self, message: Message | None, class_id: str, wait_s: float, look: Callable[[Connection], str | None]
    ) -> JSONResponse:
        """Commit *message*, unless it is kept already, and *wait_s* for what *look* finds: the answer."""
        intake = self._host.intake
        with self._waiting(class_id, wait_s) as came:
            if message is not None and intake is not None:
                await intake([ReceivedMessage("http", message.cmd, message.to_json(), token_hex(12), time.time())])
            outcome = await self._found(came, wait_s, look) if wait_s else None
        if outcome is not None:
            return await self._heard_by_client(class_id, outcome)
        body = {"class_id": class_id, "result": "pending"}
        where = {"Location": f"/v1/classes/{class_id}"}
        return JSONResponse(body, 200 if message is None else 202, where)

    async def _heard_by_client(self, class_id: str, body: str) -> JSONResponse:
        """The answer *body*; a success that a client has heard stays one on Redis, too, however late it gets there."""
        fields = read(body)
        if fields["cmd"] == "order_result" and fields["code"] == 0:
            await self._host.write_tx(bookings.answered, [class_id], time.time())
        return JSONResponse(fields, STATUS.get(fields["code"], 422))

    @contextmanager
    def _waiting(self, class_id: str, wait_s: float) -> Iterator[asyncio.Event]:
        """An event for a request that waits; raises Refused if too many wait already."""
        waiters = self._host.waiters
        if wait_s and waiters.number >= MOST_WAITING:
            raise Refused(503, Text("{n:,} requests wait already", n=MOST_WAITING), Retry_After="1")
        with waiters.waiting(class_id) as came:
            yield came

    async def _found(self, came: asyncio.Event, wait_s: float, look: Callable[[Connection], T | None]) -> T | None:
        """What *look* finds within *wait_s*: it looks whenever something was sent, and from time to time."""
        until = time.monotonic() + wait_s
        while True:
            came.clear()
            if (outcome := await self._host.read_tx(look)) is not None:
                return outcome
            left_s = until - time.monotonic()
            if left_s <= 0:
                return None
            await comes(came, min(left_s, LOOK_S))

    def _answered(self, connection: Connection, message: Booking | Change | Cancel, before: _Before) -> str | None:
        """The first answer to such a message about the class that was committed after the request came."""
        channel = getattr(self._host.settings, f"{message.cmd}_result_channel")
        return outbox.answer_since(connection, channel, message.class_id, before.sent)

    # -- what is looked at ---------------------------------------------------------------------------------------------

    async def get(self, class_id: str, request: Request) -> JSONResponse:
        """The account of a class, as ``lectern explain --json`` prints it."""
        client = await self._client(request, Right.READ)
        words, settings = await self._heard(), self._host.settings
        one, backup = [
            await self._host.read_tx(view.of_class, client, words, settings, id_)
            for id_ in (class_id, f"{class_id}{BACKUP}")
        ]
        if not isinstance(one, view.OneClass):
            raise Refused(503, one, None, class_id, Retry_After=str(AGAIN_S)) if one else _no_such(class_id)
        found = one.fields()
        if isinstance(backup, view.OneClass):
            found["backup"] = backup.fields()
        return JSONResponse(found)

    async def classes(self, request: Request, wanted: Annotated[Listed, Query()]) -> JSONResponse:
        """The classes that begin from *from* (by default a day ago) until *to*, PAGE of them, by their start."""
        client = await self._client(request, Right.READ)
        own, institution, since, until = client.institution_id, wanted.institution, wanted.since, wanted.until
        if own is not None and institution not in {None, own}:
            raise Refused(
                403, Text("{client} reads the classes of {institution} alone", client=client.name, institution=own)
            )
        span = timetable.Span(
            time.time() - 86_400 if since is None else since, 4e9 if until is None else until, own or institution
        )
        rows = await self._host.read_tx(timetable.page, span, wanted.state, _place(wanted.cursor), PAGE)
        classes = [
            {name: getattr(row, name) for name in ("class_id", "state", "start_time", "end_time", "code", "message")}
            | {"streamer": row.streamer, "institution": row.institution_id, "rendition": row.stem}
            for row in rows
        ]
        following = f"{rows[-1].start_time!r}:{rows[-1].class_id}" if len(rows) == PAGE else None
        return JSONResponse({"classes": classes, "next": following})

    async def events(self, class_id: str, request: Request, after: After = 0) -> JSONResponse:
        """The events of a class after its event *after*, in their order: the messages ``class_event``."""
        client = await self._client(request, Right.READ)
        rows = await self._host.read_tx(events.after, class_id, after, PAGE)
        if any(client.institution_id not in {None, row.institution_id} for row in rows):
            raise _no_such(class_id)
        return JSONResponse({"events": [read(row.body) for row in rows]})

    async def feed(self, request: Request, after: After = 0, wait: Wait = 0) -> JSONResponse:
        """The events of all classes that the client may see, after the row *after*; *wait* for the next ones."""
        client = await self._client(request, Right.READ)

        def look(connection: Connection) -> list[ClassEventRow] | None:
            return list(events.feed(connection, after, client.institution_id, PAGE)) or None

        with self._waiting("", wait) as came:
            rows = await self._found(came, wait, look) or []
        following = rows[-1].id if rows else after
        return JSONResponse({"events": [{"id": row.id, **read(row.body)} for row in rows], "next": following})

    async def check(self, request: Request) -> JSONResponse:
        """What would be answered to up to MOST_CHECKED bookings now; conflicts among them are found, too."""
        client = await self._client(request, Right.READ)
        listed = await json_of(request, MAX_BODY_BYTES, BODY_S)
        if not isinstance(listed, list) or not 0 < len(listed) <= MOST_CHECKED:
            raise Refused(422, Text("the body must be a list of 1 to {n:,} bookings", n=MOST_CHECKED), errors.MALFORMED)
        parsed = [self._checked(client, entry) for entry in listed]
        good = [entry for entry in parsed if isinstance(entry, Booking)]
        verdicts, made_at = await self._host.read_tx(self._verdicts, client, good)
        statuses, now = await self._heard(), time.time()
        # One that is drained says that it is full, too.
        full = {name for name, (_, away) in self._host.heard_at.items() if away == "full"}
        streamers = [status for name, status in (statuses or {}).items() if name not in full]
        no_streamer = statuses is not None and all(one.silent_s is not None for one in streamers)
        for booking, verdict in zip(good, verdicts, strict=True):
            if no_streamer and verdict["verdict"] == BookingState.PLACED:
                code = errors.NO_STREAMER
                verdict.update(verdict=BookingState.REFUSED, code=code.number, message=code.meaning)
            waits = verdict["verdict"] == BookingState.WAITING
            if verdict["verdict"] == BookingState.PLACED or (waits and booking.stem in made_at):
                at, why = forecast.booked_now(booking, streamers, now, made_at[booking.stem] if waits else None)
                verdict.update(ready_by=at, message=why)
        following = iter(verdicts)
        return JSONResponse(
            {"bookings": [next(following) if isinstance(entry, Booking) else entry for entry in parsed]}
        )

    def _checked(self, client: ViewerRow, fields: Any) -> Booking | dict[str, object]:  # noqa: ANN401 (any JSON)
        """A booking, or the verdict on what is none."""
        class_id = fields.get("class_id") if isinstance(fields, dict) else None
        try:
            if class_id is None:
                raise Malformed(Text("a booking is a JSON object with a class_id"))
            booking: Booking = self._message(client, Booking, fields, class_id)
        except (Malformed, Refused) as error:
            return _verdict(class_id, "refused", errors.MALFORMED.number, error.message)
        return booking

    def _verdicts(
        self, connection: Connection, client: ViewerRow, booked: Sequence[Booking]
    ) -> tuple[list[dict[str, object]], dict[str, float]]:
        """What is said of each, and when the renditions will be made that they wait for (epoch seconds), by stem."""
        now, settings = time.time(), self._host.settings
        ids = [booking.class_id for booking in booked]
        orders = bookings.readable_among(connection, ids)
        facts = bookings.facts(connection, Changes(settings, now, orders=orders), booked)
        refused = dict.fromkeys(set(facts.early) - orders.keys(), errors.CANCELLED)
        refused |= dict.fromkeys(bookings.booked_among(connection, ids) - orders.keys(), errors.NOT_HANDLED)
        others = [booking for booking in booked if booking.class_id not in refused]
        decided = decide_booking.plan(others, facts, settings, now)
        left, answers = iter(decided), list[dict[str, object]]()
        for class_id in ids:
            if class_id in refused:
                code = refused[class_id]
                answers.append(_verdict(class_id, "refused", code.number, code.meaning))
            elif isinstance(its := next(left), decide_booking.BookingVerdict):
                answers.append(_verdict(class_id, its.state, its.code.number if its.code else 0, its.message))
            elif not its:
                known = answer_of(orders[class_id]) if class_id in orders else None
                answers.append(_verdict(class_id, "booked already", *(known or (0, ""))))
            else:
                institution_id = orders[class_id].institution_id if class_id in orders else None
                is_theirs = client.institution_id in {None, institution_id}
                why = its if is_theirs else "the class_id is taken"
                answers.append(_verdict(class_id, "refused", errors.CONFLICT.number, why))
        waits = any(answer["verdict"] == BookingState.WAITING for answer in answers)
        begun = decide_booking.transcodings(decided)
        return answers, transcodings.made_at(connection, settings, now, begun) if waits else {}


def _first_answer(order: Order | None, booking: Booking) -> str | None:
    """The answer that *order* has had, if any; raises Refused if it is another booking than *booking*."""
    if order is None:
        return None
    if again := decide_booking.contradiction(order.payloads, booking):
        reason = Text("{again}; the first booking stands, it is {state}", again=again, state=order.state)
        raise Refused(409, reason, errors.CONFLICT, booking.class_id)
    known = answer_of(order)
    return None if known is None else outgoing.answer(order.class_id, *known, streamer=order.streamer).to_json()


def _no_such(class_id: str) -> Refused:
    return Refused(404, Text("{class_id}: there is no such class", class_id=class_id), errors.NOT_BOOKED, class_id)


def _verdict(class_id: str | None, decided: str, code: int, message: str) -> dict[str, object]:
    return {"class_id": class_id, "verdict": decided, "code": code, "message": message}


def _place(cursor: str) -> tuple[float, str]:
    """The class after which a page begins; raises Refused for what no page has given."""
    begins, _, class_id = cursor.partition(":")
    try:
        begins_at = float(begins) if cursor else -math.inf
    except ValueError as error:
        raise Refused(422, Text("the cursor is none that an answer gave as next")) from error
    return begins_at, class_id


# -- the description ---------------------------------------------------------------------------------------------------


class Pending(BaseModel):
    """It is kept, and not decided yet."""

    class_id: str
    result: Literal["pending"] = "pending"


def _body(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _ref(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _answered(answer: str, body: str = "") -> dict[str, Any]:
    """How a route that takes the message *body* is described; it is answered as on Redis, or refused at once."""
    refused = refusals(409, 410, 422, 507)
    for response in refused.values():
        response["content"] |= {"application/json": {"schema": _ref(answer)}}
    schema = {"anyOf": [_ref(answer), _ref("Pending")]}
    known = {"description": "Its answer.", "content": {"application/json": {"schema": schema}}}
    pending = {"description": "It is kept, and not decided yet.", "model": Pending}
    return {"responses": {200: known, 202: pending, **refused}, "openapi_extra": _body(_ref(body)) if body else None}
