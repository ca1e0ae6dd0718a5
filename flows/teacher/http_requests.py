"""What all routes of the HTTP API share: bodies with a limit, pace, and refusals, which are problem documents."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from sqlalchemy.exc import DBAPIError
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse

from lectern import errors
from lectern.errors import ErrorCode, LecternError, Malformed
from lectern.i18n import Text, accepted, found_wrong, translated
from lectern.timing import Rate
from lectern.wire.parser import read

PROBLEM = "application/problem+json"
AGAIN_S = 5  # seconds after which a request may be sent again that found the database or the inbox unable to take it


class Problem(BaseModel):
    """Why a request is refused, as RFC 9457 has it; *type* is the address of its heading in the runbook."""

    type: str
    title: str
    status: int
    detail: str
    code: int
    class_id: str | None = None


class Refused(Exception):
    """An answer that ends a request: status, a sentence, and headers with ``_`` for ``-``."""

    def __init__(
        self, status: int, message: str, code: ErrorCode | None = None, class_id: str | None = None, **headers: str
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.class_id = status, message, code, class_id
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}

    def response(self, path: str, runbook: str, language: str) -> JSONResponse:
        """The answer in *language*; that of ``/transcode`` is older than problem documents."""
        said = translated(self.message, language)
        if path.startswith("/transcode"):
            return JSONResponse({"error": said}, self.status, self.headers)
        code = self.code
        problem = Problem(
            type=f"{runbook}#{code.number}" if code else "about:blank",
            title=translated(code.meaning, language) if code else HTTPStatus(self.status).phrase,
            status=self.status,
            detail=said,
            code=code.number if code else self.status,
            class_id=self.class_id,
        )
        return JSONResponse(problem.model_dump(exclude_none=True), self.status, self.headers, media_type=PROBLEM)


def add_refusals(app: FastAPI, runbook: Callable[[], str]) -> None:
    """Answer what routes of *app* raise; *runbook* returns the address of the runbook."""

    async def refused(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, DBAPIError):
            error = Refused(
                503, Text("the database does not answer: {error}", error=error.orig), Retry_After=str(AGAIN_S)
            )
        elif isinstance(error, RequestValidationError):
            error = Refused(422, found_wrong(error.errors(), "request"))
        elif isinstance(error, Malformed):
            error = Refused(422, error.message, error.code, error.class_id)
        elif isinstance(error, LecternError):
            error = Refused(503, error.message, error.code, Retry_After=str(AGAIN_S))
        assert isinstance(error, Refused)
        return error.response(request.url.path, runbook(), accepted(request.headers.get("accept-language", "")))

    for kind in (Refused, DBAPIError, LecternError, RequestValidationError):
        app.add_exception_handler(kind, refused)


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The description of refusals with *statuses*, for ``/openapi.json``."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": HTTPStatus(status).phrase, "content": {PROBLEM: schema}} for status in statuses}


async def json_of(request: Request, most_bytes: int, within_s: float) -> Any:  # noqa: ANN401 (any JSON)
    """The JSON in the body of *request*; raises Refused if it is none, is too long, or does not come *within_s*."""
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most_bytes:
                    raise Refused(413, Text("the body is longer than {n:,} bytes", n=most_bytes))
    except TimeoutError as error:
        raise Refused(408, Text("the body did not come within {within_s:span}", within_s=within_s)) from error
    except ClientDisconnect as error:
        raise Refused(400, Text("the connection was closed before the body had come")) from error
    try:
        return read(bytes(body))
    except ValueError as error:
        raise Refused(422, Text("the body is not JSON: {error}", error=error), errors.MALFORMED) from error


async def fields_of(request: Request, most_bytes: int, within_s: float) -> dict[str, Any]:
    """The JSON object in the body of *request*; raises Refused as `json_of` does, and for any other JSON."""
    fields = await json_of(request, most_bytes, within_s)
    if not isinstance(fields, dict):
        raise Refused(422, Text("the body must be a JSON object"), errors.MALFORMED)
    return fields


def admit(rate: Rate, name: str = "", why: str | None = None) -> None:
    """Take one call of *name*; raises Refused, because of *why*, if it has none left."""
    wait_s = rate.take(name)
    if wait_s > 0:
        raise Refused(429, why or Text("too many requests"), Retry_After=str(int(wait_s) + 1))
