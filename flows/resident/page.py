"""The addresses of the page, and what each answers; nothing here writes."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any
from urllib.parse import quote, urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from flows import as_run_report
from flows.as_run_report import Format
from flows.host import TeacherHost
from flows.streamer.stills import KEPT_S, Stills
from lectern import formatting as written
from lectern import health
from lectern.db import timetable, viewers
from lectern.decide.leases import Presence, listed
from lectern.errors import LecternError, TryAgain
from lectern.i18n import Text, accepted, languages, translated
from lectern.media import ffmpeg
from lectern.model.tables.teacher import ViewerRow
from lectern.model.views import StreamerStatus
from lectern.page import runbook, view
from lectern.redis.connection import asking
from lectern.states import BookingState, Right
from lectern.timing import Rate
from lectern.wire import schema

COOKIE = "lectern_viewer"
FRAGMENTS = "X-Fragments"  # the header by which the script of the page asks for what has changed
BURST, A_SECOND = 30.0, 3.0  # number of requests that a viewer may send at once, and then in a second
TRIES = 20.0  # number of wrong tokens of one address that are answered at once; after that, one a second
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; base-uri 'none'; "
    "script-src 'self'; connect-src 'self'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
KEPT = {"Cache-Control": "max-age=300"}
FRESH_S = 2.0  # seconds for which the status of the streamers is reused, and within which Redis must answer
STILLS_BURST, STILLS_A_SECOND = 200.0, 20.0  # number of stills that a viewer may ask for at once, and then in a second
STILLS_AT_ONCE = 8  # number of stills that are fetched from streamers at the same time
STILL_S = 4.0  # seconds that a streamer has to answer with a still
STILL_KEPT = {"Cache-Control": f"private, max-age={KEPT_S:.0f}"}
AT_ONCE = 2
"""Number of pages that are read and rendered at the same time, so that the platform's messages get their turn."""

MOST_WAITING = 30  # number of requests that wait for their turn; a further one is refused with 503 until there is room
LINES = 2_000  # number of classes of a day that are shown; ``lectern report`` has them all
TYPES = {Format.csv: "text/csv; charset=utf-8", Format.json: "application/json"}
STATES = tuple(BookingState)
Handler = Callable[[Request, ViewerRow], Awaitable[Response]]


class Page:
    """The page of one teacher."""

    def __init__(self, host: TeacherHost) -> None:
        self._host = host
        self.bit_rates = view.BitRates()
        self._rates, self._tries = Rate(BURST, A_SECOND), Rate(TRIES, 1.0)
        self._stills, self._still_rates = Stills(STILLS_AT_ONCE), Rate(STILLS_BURST, STILLS_A_SECOND)
        self._gate, self._asked_for = asyncio.Semaphore(AT_ONCE), 0
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="page")
        # until when they are fresh, monotonic
        self._words: tuple[float, Mapping[str, StreamerStatus] | None] = (0.0, None)

    def routes(self) -> list[Route]:
        """The routes of the page."""
        return [
            Route("/", self._let_in(self.day)),
            Route("/class/{class_id}", self._let_in(self.one_class)),
            Route("/still/{class_id}.jpg", self._let_in(self.still, self._still_rates)),
            Route("/as-run", self._let_in(self.as_run)),
            Route("/classes", self._let_in(self.classes)),
            Route("/timetable.ics", self._let_in(self.calendar)),
            Route("/runbook", self.runbook),
            Route("/messages.schema.json", self.schema),
            Route("/page.css", partial(self.part, "page.css", "text/css")),
            Route("/page.js", partial(self.part, "page.js", "text/javascript")),
            Route("/icon.svg", self.icon),
        ]

    def _let_in(self, handler: Handler, rates: Rate | None = None) -> Callable[[Request], Awaitable[Response]]:
        """*handler* for whoever has a token; with *rates* of its own it waits for no page, and no page for it."""

        async def answer(request: Request) -> Response:
            token = request.query_params.get("token") or request.cookies.get(COOKIE) or ""
            address = request.client.host if request.client else ""
            viewer = await self._host.read_tx(viewers.of_token, token) if token and len(token) < 100 else None
            if viewer is None or Right.LOOK not in viewer.rights:
                if token and self._tries.take(address):  # others at this address have right ones, and are let in
                    return _later("Too many wrong tokens; wait a minute.", 429, 60)
                return self._shown(request, "closed.html", 401)
            if (rates or self._rates).take(viewer.name):
                return _later("Too many requests; wait a few seconds.", 429, 5)
            if request.query_params.get("token") and not request.url.path.endswith(".ics"):
                return _remembered(request, token)
            if rates is not None:
                return await handler(request, viewer)
            if self._asked_for >= AT_ONCE + MOST_WAITING:
                return _later("Too many pages are asked for at once; wait a few seconds.", 503, 5)
            self._asked_for += 1
            try:
                async with self._gate:
                    return await handler(request, viewer)
            finally:
                self._asked_for -= 1

        return answer

    async def day(self, request: Request, viewer: ViewerRow) -> Response:
        """The day's timetable, and how things stand."""
        begins = view.begin_of_day(time.time(), request.query_params.get("day"))
        page = min(_number(request.query_params.get("page")), 999)
        words, settings = await self.heard(), self._host.settings
        day_view = await self._host.read_tx_in(self._threads, view.of_day, viewer, words, settings, begins, page)
        apart: Mapping[str, tuple[Presence, float]] = {}  # streamers that take no classes, why, seconds since heard of
        if viewer.institution_id is None and words is not None:  # without Redis, nobody knows who is there
            streamers = listed(self._host.beats, time.time(), settings.streamer_lost_after_s)
            apart = {name: presence for name, presence in streamers.items() if presence[0] is not Presence.ALIVE}
        fields = view.fields_of(day_view) | {"rates": self.bit_rates}
        return self._shown(request, "day.html", viewer=viewer, apart=apart, **fields)

    async def one_class(self, request: Request, viewer: ViewerRow) -> Response:
        """The account of one class, as ``lectern explain`` gives it."""
        class_id = request.path_params["class_id"]
        words, settings = await self.heard(), self._host.settings
        class_view = await self._host.read_tx_in(self._threads, view.of_class, viewer, words, settings, class_id)
        if not isinstance(class_view, view.OneClass):
            return self._shown(request, "none.html", 404, class_id=class_id, why=class_view)
        return self._shown(request, "class.html", found=class_view, viewer=viewer)

    async def still(self, request: Request, viewer: ViewerRow) -> Response:
        """The picture of a class on air; where there is none, a grey one that says why."""
        class_id = request.path_params["class_id"]
        try:
            pusher = await self._host.read_tx(timetable.pusher, class_id, viewer.institution_id)
            if pusher is None:
                raise TryAgain(Text("not on air"))
            picture = await self._stills.of(class_id, partial(self._fetched, class_id, *pusher))
        except LecternError as error:
            words = translated(error.message, _language(request))
            return Response(view.rendered("still.svg", words=words), 404, HEADERS, "image/svg+xml")
        return Response(picture, 200, HEADERS | STILL_KEPT, "image/jpeg")

    async def _fetched(self, class_id: str, streamer: str, session: str) -> bytes:
        address = self._host.beats.get(streamer, {}).get("address")
        answer, headers = None, {"Authorization": f"Bearer {session}"}
        if address and session:
            url = f"http://{address}/still/{quote(class_id, safe='')}.jpg"
            answer = await health.fetched(url, STILL_S, ffmpeg.MOST_STILL_BYTES, headers)
        if answer is None:
            raise TryAgain("{streamer} does not answer", streamer=streamer)
        if answer.status_code != 200:
            raise TryAgain(answer.text[:200] or Text("{streamer} does not answer", streamer=streamer))
        return answer.content

    async def as_run(self, request: Request, viewer: ViewerRow) -> Response:
        """The as-run report of a day; of yesterday, if the request names no day."""
        today = view.begin_of_day(time.time())
        begins = view.begin_of_day(today - view.DAY_S / 2, request.query_params.get("day"))
        until = view.begin_of_day(begins + 1.5 * view.DAY_S)
        institution, form = viewer.institution_id, request.query_params.get("format")
        if form in (Format.csv, Format.json):
            which = begins, until, institution, Format(form)
            text = await self._host.read_tx_in(self._threads, as_run_report.text_of, *which)
            day = time.strftime("%F", time.localtime(begins))
            kept = {"Content-Disposition": f'attachment; filename="as-run-{day}.{form}"'}
            return Response(text, media_type=TYPES[Format(form)], headers=HEADERS | kept)
        report = await self._host.read_tx_in(self._threads, as_run_report.made, begins, until, institution)
        before, fields = view.begin_of_day(begins - view.DAY_S / 2), as_run_report.fields_of(report, LINES)
        return self._shown(request, "as_run.html", begins=begins, before=before, after=until, **fields)

    async def classes(self, request: Request, viewer: ViewerRow) -> Response:
        """The classes that somebody searches for."""
        asked = {
            name: request.query_params.get(name, "").strip()[:250] for name in ("q", "state", "institution", "sort")
        }
        wanted = timetable.Search(asked["q"][:100], asked["state"], asked["institution"], asked["sort"])
        fields = await self._host.read_tx_in(self._threads, view.of_search, viewer, await self.heard(), wanted)
        orders = {name: f"?{urlencode({**asked, 'sort': name})}" for name in timetable.ORDERS}
        return self._shown(
            request, "classes.html", wanted=wanted, orders=orders, viewer=viewer, states=STATES, **fields
        )

    async def calendar(self, request: Request, viewer: ViewerRow) -> Response:
        """The timetable for calendars."""
        now, wanted = time.time(), request.query_params.get("institution")
        if viewer.institution_id not in {None, wanted or viewer.institution_id}:
            return PlainTextResponse(f"This token is for {viewer.institution_id}.", 403, HEADERS)
        booked = await self._host.read_tx_in(self._threads, view.for_calendar, viewer, wanted, now)
        name = " ".join(filter(None, (self._host.settings.site_name, wanted or viewer.institution_id)))
        base = f"{'https' if _is_secure(request) else 'http'}://{request.url.netloc}"
        text = view.calendar(booked, now, name, base)
        return Response(text, media_type="text/calendar; charset=utf-8", headers=HEADERS)

    async def runbook(self, request: Request) -> Response:
        """RUNBOOK.md or RUNBOOK.zh.md, without a token: it holds no secret, and an alarm may have woken the reader."""
        wanted = request.query_params.get("q", "")[:100]
        sections = await asyncio.to_thread(runbook.sections, _language(request), wanted)
        return self._shown(request, "runbook.html", sections=sections, wanted=wanted)

    async def schema(self, _: Request) -> Response:
        """The JSON Schema of all messages of this release; needs no token."""
        return Response(schema.text(), media_type="application/schema+json", headers=HEADERS)

    @staticmethod
    async def part(template: str, kind: str, _request: Request) -> Response:
        """The style sheet of the page, and the script that keeps an open one up to date."""
        return Response(view.rendered(template), media_type=kind, headers=HEADERS | KEPT)

    async def icon(self, request: Request) -> Response:
        """The icon of the page's window, red if a class is not on air."""
        text = view.rendered("icon.svg", is_bad="bad" in request.query_params)
        return Response(text, media_type="image/svg+xml", headers=HEADERS | KEPT)

    async def heard(self) -> Mapping[str, StreamerStatus] | None:
        """The last status of each streamer; None if Redis does not answer."""
        until, words = self._words
        if time.monotonic() < until:
            return words
        settings = self._host.settings
        try:
            async with asking(FRESH_S):
                words = await self._host.bus.words(settings.streamers_key, settings.silent_after_s)
        except TryAgain:
            words = None  # the page says that Redis does not answer
        self._words = time.monotonic() + FRESH_S, words
        self.bit_rates.note(words or {})
        return words

    def _shown(self, request: Request, template: str, status: int = 200, **fields: Any) -> Response:  # noqa: ANN401
        language = _language(request)
        others = {name: value for name, value in request.query_params.items() if name not in {"token", "lang"}}
        links = [
            (f"?{urlencode({**others, 'lang': other})}", translated(Text("English"), other))  # each by its own name
            for other in languages()
            if other != language
        ]
        text = view.rendered(template, language, links=links, site=self._host.settings.site_name, **fields)
        if status == 200 and FRAGMENTS in request.headers:
            return _changed(request, text)
        return HTMLResponse(text, status, HEADERS)


def _later(why: str, status: int, seconds: int) -> Response:
    """Refuse a request because there are too many; it may be sent again after *seconds*."""
    return PlainTextResponse(why, status, HEADERS | {"Retry-After": str(seconds)})


def _changed(request: Request, text: str) -> Response:
    """The parts of a page that the browser does not have, which names those it has in one ETag; 304 if it has all."""
    parts = view.fragments(text)
    tags = set(request.headers.get("if-none-match", "").removeprefix("W/").strip('"').split("."))
    headers = HEADERS | {"ETag": f'"{".".join(parts)}"', "X-Now": written.moment(time.time())}
    changed = [html for tag, html in parts.items() if tag not in tags]
    return HTMLResponse("".join(changed), 200, headers) if changed else Response(status_code=304, headers=headers)


def _remembered(request: Request, token: str) -> Response:
    """Redirect to the address without its token, which others could read on the screen, and keep it in a cookie."""
    others = {name: value for name, value in request.query_params.items() if name != "token"}
    gone = RedirectResponse(f"{request.url.path}{'?' if others else ''}{urlencode(others)}", 303, HEADERS)
    gone.set_cookie(COOKIE, token, max_age=400 * 86_400, httponly=True, samesite="lax", secure=_is_secure(request))
    return gone


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto") == "https"


def _language(request: Request) -> str:
    wanted = request.query_params.get("lang")
    if wanted in languages():
        return wanted
    return accepted(request.headers.get("accept-language", ""))


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isascii() and text.isdecimal() and len(text) < 6 else 0
