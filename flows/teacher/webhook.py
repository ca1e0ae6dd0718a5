"""Posts answers and events to EVENT_WEBHOOK_URL, signed as Standard Webhooks say, in the order of each class."""

import asyncio
import base64
import hashlib
import hmac
import time
from collections import deque
from dataclasses import replace

import httpx
import stamina
from pydantic_core import from_json
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from flows import failures
from flows.host import TeacherHost, is_ours, log
from flows.outbox_publisher import publish_outbox
from lectern import __version__, errors
from lectern.allowlist import PUBLIC, Allowlist, may_reach
from lectern.db import bookings, outbox
from lectern.db.outbox import Telling, WebhookDue
from lectern.errors import Misuse, Refuse, TryAgain
from lectern.i18n import Text
from lectern.settings import TeacherSettings
from lectern.storage import origin
from lectern.urls import redact_url
from lectern.wire import outgoing

AT_ONCE = 8  # number of messages that are posted at the same time, each of another class
READ_AT_ONCE = 200
"""Number of messages that are read at once, each the oldest one of its class: all that are due are read for it."""

POST_S = 10.0  # seconds that the receiver has to take a message
MOST_S = 600.0  # most seconds until a message is posted again; the pause doubles from one second on
GIVEN_UP_S = 86_400.0  # seconds after which a message that was not taken becomes a dead letter
TRIES = 10
"""Number of times that it is posted at least, which takes nine minutes: it may be as old before its first try."""

MOST_BYTES = 1 << 16  # number of bytes that are read of an answer; its connection is closed if more come
LOOK_S = 1.0
LEASE_S = 60.0
DUTY = "webhook"
GONE = "it answered 410"
_until_noted = stamina.AsyncRetryingCaller(attempts=None, timeout=None).on(DBAPIError)
"""Writes what became of a message, again until the database takes it: else the message would be posted again."""


def signed(settings: TeacherSettings, id_: str, at: float, body: str) -> dict[str, str]:
    """The headers of a message; raises Misuse if EVENT_WEBHOOK_SECRET is none of Standard Webhooks."""
    secret = settings.event_webhook_secret
    try:
        key = base64.b64decode((secret.get_secret_value() if secret else "").removeprefix("whsec_"), validate=True)
    except ValueError as error:  # also of characters that are no ASCII
        raise Misuse(Text("EVENT_WEBHOOK_SECRET: must be whsec_ and base64 after it")) from error
    whole = f"{id_}.{int(at)}.{body}".encode()
    signature = base64.b64encode(hmac.digest(key, whole, hashlib.sha256)).decode()
    return {"webhook-id": id_, "webhook-timestamp": str(int(at)), "webhook-signature": f"v1,{signature}"}


def check(settings: TeacherSettings) -> None:
    """Raise Misuse if EVENT_WEBHOOK_URL is set, and its secret cannot be used."""
    if settings.event_webhook_url:
        signed(settings, "", 0, "")


class Webhook:
    """Posts what is due; a message is sent until it is taken, and holds up those of its own class alone."""

    def __init__(self, host: TeacherHost) -> None:
        self._host = host
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._due: deque[WebhookDue] = deque()  # read and not begun, each of another class
        self._receiver: str | None = None  # the last one, as it is kept

    async def run(self) -> None:
        """Post until cancelled; without EVENT_WEBHOOK_URL, or when it is switched off, there is nothing to do."""
        check(self._settings)  # raises Misuse, which is alarmed
        headers = {"user-agent": f"lectern/{__version__}", "content-type": "application/json"}
        tls = origin.trusted_authorities()
        async with httpx.AsyncClient(timeout=POST_S, headers=headers, trust_env=False, verify=tls) as client:
            try:
                while True:
                    self._host.watchdog.beat("webhook")
                    url = self._settings.event_webhook_url
                    if (receiver := _digest(url)) != self._receiver:  # another one than before is asked anew
                        self._host.webhook_off = await self._host.write_tx(outbox.webhook_is_gone, receiver)
                        self._due.clear()
                        self._receiver = receiver
                    if not url or self._host.webhook_off or not await self._begin(client):
                        await asyncio.sleep(LOOK_S)
            finally:
                for task in self._at_work.values():
                    task.cancel()

    @property
    def _settings(self) -> TeacherSettings:
        return self._host.settings

    async def _begin(self, client: httpx.AsyncClient) -> bool:
        """Begin to post what is due; False if nothing is at work."""
        if not await is_ours(self._host, DUTY, LEASE_S):
            self._due.clear()  # another teacher posts them
            return False
        busy = set(self._at_work)  # before the rows are read: what ends meanwhile may be read as it was before
        room = AT_ONCE - len(busy)
        if room and not self._due:
            if await self._host.read_tx(outbox.is_gone, self._receiver or ""):
                self._receiver = None  # it has answered so to another teacher: it is switched off here, too
                return False
            rows = await self._host.read_tx(outbox.webhook_due, time.time(), READ_AT_ONCE + len(busy))
            self._due.extend(message for message in rows if message.key not in busy)
        due = [self._due.popleft() for _ in range(min(room, len(self._due)))]
        for message in due:
            self._at_work[message.key] = asyncio.create_task(self._deliver(client, message))
        if not due and self._at_work:
            await asyncio.wait(self._at_work.values(), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        return bool(due or busy)  # behind one that has ended by now, the next of its class may be due

    async def _deliver(self, client: httpx.AsyncClient, message: WebhookDue) -> None:
        try:
            async with failures.isolated(self._host, Text("webhook")):
                url = self._settings.event_webhook_url or ""
                body = await self._host.read_tx(outbox.webhook_body, message.id)
                if body is None:
                    return
                message = replace(message, body=body)
                why = await self._post(client, message, url)
                await _until_noted(self._host.write_tx, self._note, message, why, time.time(), url)
                self._host.webhook_off |= why == GONE and _digest(url) == self._receiver
                if why:
                    log.warning("webhook: message %d is not taken, try %d: %s", message.id, message.tries + 1, why)
                    await publish_outbox(self._host)  # an alarm, perhaps
        finally:
            self._at_work.pop(message.key, None)

    async def _post(self, client: httpx.AsyncClient, message: WebhookDue, url: str) -> str:
        """Post a message; returns why it is not taken, empty if it is. It follows no redirect."""
        id_ = f"msg_{message.id}_{message.created_at:.0f}"  # after a restore of the database, its number comes again
        headers = signed(self._settings, id_, time.time(), message.body)

        async def post(address: str, waits: httpx.Timeout) -> httpx.Response:
            where, names, more = origin.pinned(httpx.URL(url), address)
            own = headers | names
            async with client.stream(
                "POST", where, content=message.body, headers=own, extensions=more, timeout=waits
            ) as answer:
                number = 0
                async for part in answer.aiter_raw():  # so that its connection can be used again
                    if (number := number + len(part)) > MOST_BYTES:
                        break
            return answer

        try:
            async with asyncio.timeout(POST_S):
                addresses = await asyncio.to_thread(_addresses, url, self._settings.allowed_origins)
                _, answer = await origin.first_connected(addresses, POST_S, post)
        except TimeoutError:
            return f"no answer within {POST_S:g} s"
        except (httpx.HTTPError, httpx.InvalidURL, Refuse, TryAgain, OSError) as error:
            return origin.words(error)
        return "" if answer.is_success else f"it answered {answer.status_code}"

    def _note(self, connection: Connection, message: WebhookDue, why: str, now: float, url: str) -> None:
        """Note what became of a message posted to *url*; one that is given up is a dead letter, with an alarm."""
        host, where, is_another = self._host, redact_url(url), url != (self._settings.event_webhook_url or "")
        if not why:
            outbox.note_webhook(connection, message.id, Telling.TOLD)
            if from_json(message.body)["cmd"] == "order_result":  # so it was heard in time
                bookings.answered(connection, [message.key], now)
        elif is_another:  # of what that one answered, nothing holds for the next
            outbox.note_webhook(connection, message.id, Telling.DUE, message.tries)
        elif why == GONE:
            if not outbox.give_webhook_up(connection, message.id, _digest(url)):
                return  # another message had the same answer
            sentence = Text(
                "the webhook {url} answered 410 Gone: it is switched off until its URL is another", url=where
            )
            outbox.put(connection, [host.alarm(errors.WEBHOOK_REFUSES, sentence, now)], now)
        elif now - message.created_at < GIVEN_UP_S or message.tries + 1 < TRIES:
            until = now + min(2.0 ** min(message.tries, 20), MOST_S)
            outbox.note_webhook(connection, message.id, Telling.DUE, message.tries + 1, until)
        else:
            outbox.note_webhook(connection, message.id, Telling.GIVEN_UP, message.tries + 1)
            letter = outgoing.dead_letter(self._settings.dead_letter_stream, "webhook", message.body, why)
            sentence = Text(
                "the webhook {url} has not taken message {id} for a day: {why}", url=where, id=message.id, why=why
            )
            outbox.put(connection, [letter, host.alarm(errors.WEBHOOK_REFUSES, sentence, now)], now)


def _digest(url: str | None) -> str:
    """How a receiver is kept: its URL may have a secret."""
    return hashlib.sha256((url or "").encode()).hexdigest()[:32]


def _addresses(url: str, allowed_origins: str) -> list[str]:
    """The addresses of the receiver; raises Refuse for one that is not allowed, and for http to a public host."""
    allowed = Allowlist.listed(allowed_origins)
    addresses = [str(address) for address in origin.checked(url, allowed)]
    if not addresses:
        raise TryAgain("{url}: its host has no address", url=redact_url(url))
    if url.startswith("http:") and any(may_reach(address, [PUBLIC]) for address in addresses):
        raise Refuse("{url}: http is for private hosts; use https", errors.FORBIDDEN_ORIGIN, url=redact_url(url))
    return addresses
