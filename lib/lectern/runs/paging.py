"""How a batch of messages becomes pages: each class in a page of its kind, each line of the log with its class."""

import time
from collections.abc import Sequence
from typing import Any

from lectern.facts import Kept
from lectern.runs.handled import LINES, Handled
from lectern.runs.labels import CLASSES, Label, label_of, name_of, tags_of
from lectern.runs.pages import LATE_WORDS, STEM, Entry, Kind, Page, clock, utc
from lectern.wire import is_name
from lectern.words import counted


def late(flow: str, kept: Sequence[Kept]) -> list[Page]:
    """Pages for messages that another process has handled without showing them."""
    now = time.time()
    pages: list[Page] = []
    for first in range(0, len(kept), CLASSES):
        some = kept[first : first + CLASSES]
        page = Page(flow, Kind.LATE, now, now, said=f"{counted(len(some), 'message')} {LATE_WORDS}")
        page.add(Entry(label_of(one), [one.id]) for one in some)
        pages.append(page)
    return pages


def at_work(batch: Handled, host: str) -> dict[str, Any]:
    """The run that shows a batch while it is at work, in the form of Prefect's API."""
    labels = [label_of(one) for one in batch.kept[:CLASSES]]
    name = name_of(batch.flow, labels, len(batch.kept)) if batch.kept else batch.name or f"{batch.flow} {host}"
    return {
        "name": name,
        "parameters": batch.parameters,
        "tags": [*batch.tags, *tags_of(labels)],
        "state": {"type": "RUNNING", "name": "Running", "message": f"at work since {clock(batch.began)}"},
        "idempotency_key": batch.key,
        "labels": {"lectern.began": utc(batch.began)},
    }


def pages_of(batch: Handled, host: str) -> list[Page]:
    """A finished batch in pages of one kind each, without what waits for Redis or the database.

    If all of it waits, and a run shows it at work, there is a page that ends this run.
    """
    sorted_: dict[Kind, list[Entry]] = {}
    for one in _entries(batch):
        if batch.undone.issuperset(one.ids) and one.ids:
            if not batch.silent:
                sorted_.setdefault(Kind.FAILED, []).append(one)
        else:
            all_failed = batch.failed is not None and not batch.undone
            kind = Kind.FAILED if all_failed else Kind.REFUSED if one.is_refused() else Kind.DONE
            sorted_.setdefault(kind, []).append(one)
    if not sorted_ and not batch.kept and not batch.silent:  # a sweep that has no rows
        sorted_[Kind.FAILED if batch.failed else Kind.DONE] = []
    is_open = batch.run_id is not None or batch.is_open
    if not sorted_ and is_open:  # its run would be *Running* for ever
        sorted_[Kind.BACK] = []
    pages = [page for kind, entries in sorted_.items() for page in _filled(batch, kind, entries, host)]
    if pages and batch.lines:
        _share_lines(batch, pages)
    if pages and is_open:
        pages[0].key, pages[0].run_id, pages[0].is_open = batch.key, batch.run_id, True
    return pages


def _filled(batch: Handled, kind: Kind, entries: list[Entry], host: str) -> list[Page]:
    assert batch.ended is not None  # a finished batch has an end
    pages: list[Page] = []
    for first in range(0, max(1, len(entries)), CLASSES):
        page = Page(batch.flow, kind, batch.began, batch.ended, host, table=batch.table)
        page.work = batch if batch.name else None
        page.said = (batch.failed or batch.message) if kind in (Kind.FAILED, Kind.BACK) else batch.message
        page.longest_s = batch.ended - batch.began
        page.add(entries[first : first + CLASSES])
        if not page.ids:  # a message that names another thing has decided these classes
            page.ids = batch.ids
            page.title = label_of(batch.kept[0]) if len(batch.kept) == 1 else None
        pages.append(page)
    return pages


def _entries(batch: Handled) -> list[Entry]:
    """One entry for each message or class; a table line that names neither goes to a message without a class."""
    entries = [Entry(label_of(one), [one.id]) for one in batch.kept]
    by_name: dict[str, Entry] = {f"inbox {one.ids[0]}": one for one in entries}
    for one in entries:
        if one.label.class_id:
            by_name.setdefault(one.label.class_id, one)
    nameless = [one for one in entries if not one.label.class_id]
    for row in batch.rows:
        name = str(row["class"])
        found = by_name.get(name)
        if found is None and nameless and (STEM.fullmatch(name) or not is_name(name)):
            found = nameless.pop(0)
        if found is None:
            found = by_name[name] = Entry(Label() if STEM.fullmatch(name) or not is_name(name) else Label(name))
            entries.append(found)
        found.rows.append(row)
    return entries


def _share_lines(batch: Handled, pages: Sequence[Page]) -> None:
    """Give each log line to the page of the class or message that the line begins with."""
    place = {label.class_id: page for page in pages for label in page.labels if label.class_id}
    place |= {f"inbox {id_}": page for page in pages for id_ in page.ids}
    other = next((page for page in pages if page.kind is Kind.FAILED), pages[0])
    for line in batch.lines:
        page = place.get(line.text.partition(":")[0], other)
        if len(page.lines) < LINES:
            page.lines.append(line)
