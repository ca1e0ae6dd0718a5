"""Makes the as-run report of a span of time for the command line and the page, and writes it."""

import csv
import json
import time
from enum import StrEnum
from io import StringIO
from typing import Any

from sqlalchemy import Connection

from lectern import formatting
from lectern.db import timetable
from lectern.db.timetable import Span
from lectern.decide import gaps as decide
from lectern.decide.gaps import NAMES, ReportLine, Total
from lectern.page.view import rendered
from lectern.states import BookingState

TIMES = frozenset({"start", "end", "began", "ended"})


class Format(StrEnum):
    """How a report is written."""

    csv = "csv"
    json = "json"
    html = "html"


def made(connection: Connection, since: float, until: float, institution: str | None) -> Total:
    """The as-run report of the classes that begin between *since* and *until* (epoch seconds), as they stand now."""
    span = Span(since, until, institution)
    booked, sent = timetable.planned(connection, span), timetable.parts(connection, span)
    return decide.report(booked, sent, timetable.transcoding_s(connection, span), time.time())


def written(found: Total, form: Format, title: str = "") -> str:
    """The text of a report; the totals follow the classes in CSV and JSON, and precede them in HTML."""
    totals, whole = _totals(found), found.told()
    if form is Format.json:
        lines = [{name: getattr(one, name) for name in NAMES} for one in found.lines]
        return json.dumps({"classes": lines, "institutions": dict(totals), "all": whole}) + "\n"
    if form is Format.html:
        return rendered("as_run.html", title=title, **fields_of(found))
    sink = StringIO()
    rows = csv.writer(sink)
    rows.writerow(NAMES)
    rows.writerows(cells(one) for one in found.lines)
    rows.writerow(())
    rows.writerow(("institution", *whole))
    rows.writerows((name, *told.values()) for name, told in [*totals, ("all", whole)])
    return sink.getvalue()


def cells(one: ReportLine) -> list[object]:
    """The cells of a class's row, with its times as people read them."""
    values: tuple[Any, ...] = one
    named = zip(NAMES, values, strict=False)  # without the last fields, which are not shown
    return [formatting.tenths(value) if name in TIMES and value is not None else value for name, value in named]


def _totals(found: Total) -> list[tuple[str, dict[str, float | None]]]:
    return [(name, one.told()) for name, one in sorted(found.totals.items())]


def fields_of(found: Total, most: int | None = None) -> dict[str, Any]:
    """The variables of the report's template, with the first *most* classes, those refused apart."""
    apart: dict[bool, list[ReportLine]] = {False: [], True: []}
    for one in found.lines[:most]:
        apart[one.state is BookingState.REFUSED].append(one)
    return {
        "totals": [*_totals(found), ("", found.told())],
        "lines": apart[False],
        "refused": apart[True],
        "number": len(found.lines),
    }


def text_of(connection: Connection, since: float, until: float, institution: str | None, form: Format) -> str:
    """The report of a span of time as text."""
    return written(made(connection, since, until, institution), form)
