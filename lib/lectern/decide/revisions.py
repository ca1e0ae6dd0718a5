"""Changes of booked classes: each is admitted as a booking is, and is in force once a streamer has what it needs.

If a class waits for its rendition, its booking is changed at once. If a streamer has the class, its changed form is a
booking of its own, the *revision*, until its streamer has prepared it: it is placed, downloaded, moved, refused and
cancelled like any other, holds its push URL and its place in the cache, and is never aired by itself. So a change that
cannot be kept leaves the class as it was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError
from pydantic_core import from_json

from lectern import errors
from lectern.amendments import Amend, Change
from lectern.changes import Changes
from lectern.commands import in_words
from lectern.decide import backups
from lectern.decide.attempts import Limits
from lectern.decide.booking import Before, Verdict, plan
from lectern.decide.cancels import cancel_second
from lectern.decide.delivery import is_same
from lectern.decide.verdicts import Loads, proceed
from lectern.errors import Refuse
from lectern.facts import Order, Rendition, RenditionKey, Slot
from lectern.messages import Booking, Report
from lectern.states import BookingState
from lectern.wire import BACKUP, class_of, revised, revision_id

IN_FORCE = "in force"
"""The message of a revision that has replaced the booking of its class."""

WAITS = frozenset({BookingState.WAITING, BookingState.PLACED})
"""States of a revision that is neither in force nor refused."""


@dataclass(frozen=True)
class Facts:
    """What the database says of the renditions, streams and streamers that the changes are about."""

    renditions: dict[RenditionKey, Rendition]
    taken: dict[str, list[Slot]]
    loads: Loads


def decide(changes: Changes, asked: Sequence[Change], facts: Facts, limits: Limits) -> None:
    """Decide changes in their order; ``changes`` knows the classes, their second airings, and the revisions of both."""
    for one in asked:
        try:
            _decide(changes, one, facts, limits)
        except Refuse as error:
            changes.answer_change(one.class_id, error.code.number, error.message)
            changes.note("change refused", class_id=one.class_id, detail=f"{error.code.number}: {error.message}")
            changes.row(one.class_id, "refuse the change", code=error.code.number, detail=error.message)


def wanted(orders: Mapping[str, Order], revisions: Sequence[str], asked: Change) -> tuple[Order, Booking]:
    """What a change applies to, the class or its newest waiting revision; and the booking that results.

    Raises Refuse if the class is not booked, is over, or the change makes no valid booking.
    """
    order = orders.get(asked.class_id)
    if order is None:
        raise Refuse(f"{asked.class_id}: nobody has booked it here", errors.NOT_BOOKED)
    if order.state not in WAITS | backups.ON:
        code = errors.CANCELLED if order.state is BookingState.CANCELLED else errors.ENDED
        raise Refuse(f"{asked.class_id}: the class is {order.state}", code)
    waiting = [orders[one] for one in revisions if orders[one].state in WAITS]
    latest = max(waiting, key=lambda one: _number(one.class_id), default=order)
    try:
        return latest, asked.onto(from_json(latest.payload))
    except ValidationError as error:
        raise Refuse(f"{asked.class_id}: {in_words(error)}", errors.MALFORMED) from error


def _decide(changes: Changes, asked: Change, facts: Facts, limits: Limits) -> None:
    latest, booking = wanted(changes.orders, changes.revisions.get(asked.class_id, ()), asked)
    order = changes.orders[asked.class_id]
    if is_same(_plain(latest), booking):
        _again(changes, latest)
        return
    if order.start_time <= changes.now < booking.start_time:
        raise Refuse(f"{order.class_id}: it has begun, so its start_time cannot be later than now", errors.MALFORMED)
    twin = changes.orders.get(backups.twin_id(order.class_id))
    if twin is not None and twin.state not in WAITS | backups.ON and _airs_elsewhere(latest, asked):
        why = f"its second airing is {twin.state}{f' ({twin.message})' if twin.message else ''}"
        raise Refuse(f"{order.class_id}: {why}, so its {backups.FIELD} cannot be changed", errors.ENDED)
    verdict = _admitted(changes, latest, booking, facts, limits)
    if order.state is BookingState.WAITING:
        _at_once(changes, order, booking, verdict, facts.loads)
        return
    _revision(changes, order, booking, verdict)
    second = backups.second_of(booking.payload)
    if second is not None and twin is not None and twin.state in backups.ON:
        _revision(changes, twin, second.under(twin.class_id), verdict)


def _airs_elsewhere(latest: Order, asked: Change) -> bool:
    return asked.push_url_backup not in (None, "", from_json(latest.payload).get(backups.FIELD))


def _again(changes: Changes, latest: Order) -> None:
    """Answer a second delivery as the first was answered, or will be; it changes nothing."""
    class_id = class_of(latest.class_id)
    if latest.revises is not None:
        changes.count_delivery(latest)
    else:
        changes.answer_change(class_id, 0, IN_FORCE)
    changes.row(class_id, "change delivered again")


def _admitted(changes: Changes, latest: Order, booking: Booking, facts: Facts, limits: Limits) -> Verdict:
    """The booking table's verdict for the changed class, against all other classes. Raises Refuse if it is refused."""
    others = {
        stream: [slot for slot in facts.taken.get(stream, ()) if class_of(slot.class_id) != booking.class_id]
        for stream in booking.streams
    }
    before = Before(renditions=facts.renditions, taken=others)
    made = plan([_where_it_lies(latest, booking)], before, limits, changes.now)
    (verdict,) = made.verdicts
    if verdict.code is not None:
        raise Refuse(verdict.message, verdict.code)
    waits = latest.revises is None and latest.state is BookingState.WAITING
    if waits and verdict.state is BookingState.PLACED and not facts.loads:
        raise Refuse(f"{booking.class_id}: {changes.no_streamer()}", errors.NO_STREAMER)
    for attempt in made.attempts:
        changes.begun.append(attempt)
        changes.note("transcoding begins", stem=attempt.stem, detail=f"{attempt.backend}, attempt {attempt.attempt}")
        facts.renditions[attempt.record_id, attempt.resolution] = Rendition.of(attempt)
    for stream in booking.streams:
        facts.taken.setdefault(stream, []).append(Slot(booking.class_id, booking.start_time, booking.end_time))
    return verdict


def _where_it_lies(latest: Order, booking: Booking) -> Booking:
    """The booking with the known URL of its recording, if the change leaves the recording as it is."""
    before = from_json(latest.payload).get("video_url")
    same = (latest.record_id, latest.resolution) == (booking.record_id, booking.video_resolution)
    if latest.url is None or not same or (booking.record_id is None and before != booking.video_url):
        return booking
    if booking.video_resolution is None:
        return booking if booking.video_url is not None else booking.model_copy(update={"video_url": latest.url})
    listed = {**booking.video_url_list, str(booking.video_resolution): latest.url}
    if booking.video_resolution in booking.urls:
        return booking
    return Booking.model_validate({**from_json(booking.payload), "video_url_list": listed})


def _at_once(changes: Changes, order: Order, booking: Booking, verdict: Verdict, loads: Loads) -> None:
    """Change a class at once: it waits for a rendition, so no streamer has it."""
    before = changes.waiting_key(order)
    after = changes.revise(order, booking, None)
    if verdict.state is BookingState.PLACED:
        changes.leaves.append((before, order.class_id))
        proceed(changes, [(after, verdict.url or "")], loads)
    elif changes.waiting_key(after) != before:
        changes.leaves.append((before, order.class_id))
        changes.joins[changes.waiting_key(after)].append(order.class_id)
    changes.answer_change(order.class_id, 0, IN_FORCE)
    changes.note("changed", after)
    changes.row(order.class_id, "changed", detail=after.stem)


def _revision(changes: Changes, order: Order, booking: Booking, verdict: Verdict) -> None:
    """Book the changed class as a revision: its streamer prepares it, or it waits for its rendition."""
    known = changes.revisions.get(order.class_id, ())
    number = 1 + max(map(_number, known), default=0)
    revision = changes.book(booking.under(revision_id(order.class_id, number)))
    changes.note(f"change {number} is asked for", order)
    if verdict.state is BookingState.WAITING:
        changes.move(revision, BookingState.WAITING)
        changes.joins[changes.waiting_key(revision)].append(revision.class_id)
    else:
        changes.place(revision, order.streamer or "", verdict.url or "")
    changes.row(revision.class_id, str(verdict.state), where=order.streamer or "", detail=revision.stem)


def reported(changes: Changes, revision: Order, said: Report, loads: Loads) -> None:
    """Take a streamer's report on a revision that it was told to prepare."""
    if revision.state is not BookingState.PLACED:
        changes.row(revision.class_id, f"{said.cmd} of a revision that is {revision.message or revision.state}")
        return
    its = changes.orders.get(revision.revises or "")
    if said.cmd == "ended" or said.result != "success":
        code = errors.CODES.get(said.code, errors.DOWNLOAD_FAILED)
        changes.refuse(revision, code, said.message, alarm=_is_second(revision))
    elif its is None or its.state not in backups.ON:
        forsake(changes, [revision])
    elif its.streamer != revision.streamer:  # the class was moved, or its revision was
        changes.release(revision.streamer or "", revision.class_id, revision.placement)
        changes.place(revision, its.streamer or "", revision.url or "")
    else:
        _in_force(changes, its, revision, loads)


def _in_force(changes: Changes, order: Order, revision: Order, loads: Loads) -> None:
    """Put a revision that its streamer has prepared in force, unless a newer one is in force already."""
    changes.move(revision, BookingState.CANCELLED, 0, IN_FORCE)
    changes.answer(revision, 0, IN_FORCE, revision.deliveries)
    changes.row(order.class_id, "changed", where=order.streamer or "", detail=revision.stem)
    changes.note("changed", order, f"by change {_number(revision.class_id)}")
    if any(_is_newer(changes.orders[one], revision) for one in changes.revisions[order.class_id]):
        changes.release(revision.streamer or "", revision.class_id, revision.placement)
        return
    booking = Booking.model_validate(from_json(revision.payload) | {"class_id": class_of(order.class_id)})
    after = changes.revise(order, booking.under(order.class_id), revision.url)
    streamer = order.streamer or ""
    told = Amend.model_construct(class_id=order.class_id, revision=revision.class_id, placement=order.placement)
    changes.tell(streamer, told, order.class_id)
    backups.add(changes, after, streamer, revision.url or "", loads)
    if backups.second_of(after.payload) is None:  # an empty push_url_backup took it away
        cancel_second(changes, after)


def forsake(changes: Changes, revisions: Sequence[Order]) -> None:
    """Refuse the changes of *revisions* because their classes are over."""
    for one in revisions:
        changes.refuse(one, errors.ENDED, "the class was over before its change was prepared")
        if one.state is BookingState.WAITING:
            changes.leaves.append((changes.waiting_key(one), one.class_id))
        if one.streamer is not None:
            changes.release(one.streamer, one.class_id, one.placement)


def _plain(order: Order) -> str:
    """The payload of a class or a revision, under the class_id of the wire."""
    if order.revises is None:
        return order.payload
    return Booking.model_validate(from_json(order.payload) | {"class_id": class_of(order.class_id)}).payload


def _number(class_id: str) -> int:
    before = revised(class_id)
    return 0 if before is None else int(class_id[len(before) + 1 :])


def _is_newer(one: Order, revision: Order) -> bool:
    return one.message == IN_FORCE and _number(one.class_id) > _number(revision.class_id)


def _is_second(revision: Order) -> bool:
    return (revision.revises or "").endswith(BACKUP)
