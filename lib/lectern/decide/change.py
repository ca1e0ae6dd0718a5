"""Changes of booked classes: each is admitted as a booking is, and in force once a streamer confirms that it airs it.

If a class waits for its rendition, its booking is changed at once. If a streamer has the class, its changed form is a
booking of its own, the *revision*, until its streamer has prepared it and confirmed that its playout has it: it is
placed, downloaded, moved, refused and cancelled like any other, holds its push URL and its place in the cache, and is
never aired by itself. So a change that cannot be kept leaves the class as it was, and none is answered before it is so.
"""

from collections.abc import Sequence
from dataclasses import replace

from pydantic import ValidationError
from pydantic_core import from_json

from lectern import errors
from lectern.decide import placement
from lectern.decide.booking import BookingFacts, BookingVerdict, changed_fields, is_listed, is_same, verdict_on
from lectern.decide.placement import Loads, asked_by, cancel_second, proceed
from lectern.errors import Refuse
from lectern.i18n import Text, labelled
from lectern.model.facts import Airing, Order
from lectern.model.plan import Changes
from lectern.model.streamer_plan import StreamerChanges
from lectern.states import BOOKING_OVER, IN_HAND, LIVE_AIRINGS, ON_STREAMER, AiringState, BookingState
from lectern.wire.fields import BACKUP, class_of, revised, revision_id
from lectern.wire.messages import Amend, Booking, Change, Report
from lectern.wire.parser import in_words

IN_FORCE = "in force"
"""The message of a revision that has replaced the booking of its class."""

LAST_S = 5.0
"""Seconds before the end of a class in which it cannot be changed: its streamer may not do it in time."""


def decide(changes: Changes, asked: Change, facts: BookingFacts) -> None:
    """Decide a change; ``changes`` knows the class, its second airing, and the revisions of both."""
    try:
        _decide(changes, asked, facts)
    except Refuse as error:
        changes.answer_change(asked.class_id, error.code.number, error.message)
        changes.note("change refused", class_id=asked.class_id, detail=labelled(error.code.number, error.message))
        changes.row(asked.class_id, "refuse the change", code=error.code.number, detail=error.message)


def wanted(changes: Changes, asked: Change) -> tuple[Order, Booking]:
    """What a change applies to, the class or its newest waiting revision; and the booking that results.

    Raises Refuse if the class is not booked, is over, or the change makes no valid booking.
    """
    order = changes.orders.get(asked.class_id)
    if order is None:
        raise Refuse("{class_id}: nobody has booked it here", errors.NOT_BOOKED, class_id=asked.class_id)
    if order.state not in IN_HAND:
        code = errors.CANCELLED if order.state is BookingState.CANCELLED else errors.ENDED
        raise Refuse("{class_id}: the class is {state}", code, class_id=asked.class_id, state=order.state)
    latest = _latest(changes, order)
    try:
        return latest, asked.onto(from_json(latest.payload))
    except ValidationError as error:
        raise Refuse(labelled(asked.class_id, in_words(error)), errors.MALFORMED) from error


def _decide(changes: Changes, asked: Change, facts: BookingFacts) -> None:
    latest, booking = wanted(changes, asked)
    order = changes.orders[asked.class_id]
    if is_same(_plain(latest), booking):
        _again(changes, latest)
        return
    if order.start_time <= changes.now < booking.start_time:
        raise Refuse(
            "{class_id}: it has begun, so its start_time cannot be later than now",
            errors.MALFORMED,
            class_id=order.class_id,
        )
    _refuse_late(changes, order, min(order.end_time, booking.end_time))
    twin = changes.orders.get(placement.secondary_id(order.class_id))
    stays = from_json(latest.payload).get(placement.BACKUP_FIELD)  # a change that is not in force yet may take it away
    airs_elsewhere = asked.push_url_backup not in (None, "", stays)
    if twin is not None and airs_elsewhere and (twin.state not in IN_HAND or not stays):
        why = Text("its second airing is {state}", state=twin.state if stays else BookingState.CANCELLED)
        if twin.message:
            why = Text("its second airing is {state} ({message})", state=twin.state, message=twin.message)
        raise Refuse(
            "{class_id}: {reason}, so its {backup_field} cannot be changed",
            errors.ENDED,
            class_id=order.class_id,
            reason=why,
            backup_field=placement.BACKUP_FIELD,
        )
    verdict = _admitted(changes, latest, booking, facts)
    if order.state is BookingState.WAITING:
        _at_once(changes, order, booking, verdict, facts.loads)
        changes.note("changed", changes.orders[order.class_id], asked_by(asked))
        return
    _revision(changes, order, booking, verdict, asked_by(asked))
    second = placement.secondary_of(booking.payload)
    if second is not None and twin is not None and twin.state in ON_STREAMER:
        _revision(changes, twin, second.under(twin.class_id), verdict, asked_by(asked))


def _refuse_late(changes: Changes, order: Order, end_time: float) -> None:
    """Raise Refuse if a class ends, or is to end, too soon for a change to be surely done before."""
    left_s = end_time - changes.now
    if left_s < LAST_S and order.state is not BookingState.WAITING:
        reason = Text("it ends in {left_s:span}", left_s=left_s) if left_s > 0 else Text("its end has passed")
        raise Refuse(
            "{class_id}: {reason}, so it cannot be changed any more",
            errors.ENDED,
            class_id=order.class_id,
            reason=reason,
        )


def _again(changes: Changes, latest: Order) -> None:
    """Answer a second delivery as the first was answered, or will be; raises Refuse after the end of the class."""
    class_id = class_of(latest.class_id)
    if latest.revises is not None:
        changes.count_delivery(latest)
    elif latest.end_time <= changes.now:
        raise Refuse(
            "{class_id}: its end has passed, so it cannot be changed any more", errors.ENDED, class_id=class_id
        )
    else:
        changes.answer_change(class_id, 0, IN_FORCE)
    changes.row(class_id, "change delivered again")


def _admitted(changes: Changes, latest: Order, booking: Booking, facts: BookingFacts) -> BookingVerdict:
    """The booking table's verdict for the changed class, against all other classes. Raises Refuse if it is refused."""
    others = {
        stream: [slot for slot in facts.taken.get(stream, ()) if class_of(slot.class_id) != booking.class_id]
        for stream in booking.streams
    }
    verdict = verdict_on(_where_it_lies(latest, booking), replace(facts, taken=others), changes.settings, changes.now)
    if verdict.code is not None:
        raise Refuse(verdict.message, verdict.code)
    waits = latest.revises is None and latest.state is BookingState.WAITING
    if waits and verdict.state is BookingState.PLACED and not facts.loads:
        raise Refuse(labelled(booking.class_id, changes.no_streamer()), errors.NO_STREAMER)
    if verdict.attempt is not None:
        changes.begin(verdict.attempt)
    if waits:  # it is changed at once, so what it leaves is free for the changes after it
        for slots in facts.taken.values():
            slots[:] = [slot for slot in slots if slot.class_id != booking.class_id]
    facts.take(verdict)
    return verdict


def _where_it_lies(latest: Order, booking: Booking) -> Booking:
    """The booking with the known URL of its recording, if the change leaves the recording as it is."""
    same = (latest.record_id, latest.resolution) == (booking.record_id, booking.video_resolution)
    if latest.url is None or not same or is_listed(booking):
        return booking
    listed = {**booking.video_url_list, str(booking.video_resolution): latest.url}
    return Booking.model_validate({**from_json(booking.payload), "video_url_list": listed})


def _at_once(changes: Changes, order: Order, booking: Booking, verdict: BookingVerdict, loads: Loads) -> None:
    """Change a class at once: it waits for a rendition, so no streamer has it."""
    before = changes.waiting_key(order)
    after = changes.revise(order, booking, None)
    _announce(changes, order, after, booking)
    if verdict.state is BookingState.PLACED:
        changes.leaves.append((before, order.class_id))
        proceed(changes, [(after, verdict.url or "")], loads)
    elif changes.waiting_key(after) != before:
        changes.leaves.append((before, order.class_id))
        changes.joins[changes.waiting_key(after)].append(order.class_id)
    changes.answer_change(order.class_id, 0, IN_FORCE)
    changes.row(order.class_id, "changed", detail=after.stem)


def _revision(changes: Changes, order: Order, booking: Booking, verdict: BookingVerdict, by: str) -> None:
    """Book the changed class as a revision: its streamer prepares it, or it waits for its rendition."""
    known = changes.revisions.get(order.class_id, ())
    number = 1 + max(map(_number, known), default=0)
    revision = changes.book(booking.under(revision_id(order.class_id, number)))
    changes.note(Text("change {number} is asked for", number=number), order, by)
    if verdict.state is BookingState.WAITING:
        changes.move(revision, BookingState.WAITING)
        changes.joins[changes.waiting_key(revision)].append(revision.class_id)
    else:
        changes.place(revision, order.streamer or "", verdict.url or "")
    changes.row(revision.class_id, str(verdict.state), where=order.streamer or "", detail=revision.stem)


def reported(changes: Changes, revision: Order, report: Report, loads: Loads) -> None:
    """Take a streamer's report on a revision: that it is prepared, that its class has its content, or why not.

    If it is refused, tell the streamer to apply the newest of those before it: they were a part of it.
    """
    order = changes.orders.get(revision.revises or "")
    is_of = report.cmd == "amended" and order is not None and _is_of(order, revision, report)
    if revision.state not in {BookingState.PLACED, BookingState.READY}:
        changes.row(revision.class_id, f"{report.cmd} of a revision that is {revision.message or revision.state}")
        return
    if order is not None and is_of and report.result == "success":
        _in_force(changes, order, revision, loads)  # also if its end was reported first
        return
    is_lost = report.cmd == "ended" or (report.cmd == "prepared" and report.result != "success")
    if is_lost or (is_of and report.code == errors.ENDED.number):
        code = errors.CODES.get(report.code, errors.DOWNLOAD_FAILED)
        changes.refuse(revision, code, report.reason, alarm=(revision.revises or "").endswith(BACKUP))
        if order is not None:
            _second_follows(changes, order, report.reason)
    elif order is None or order.state not in ON_STREAMER:
        forsake(changes, [revision])
    elif report.cmd == "prepared" and order.streamer == revision.streamer:
        _apply(changes, order, revision)
    else:  # the class was moved, or its revision was, or its streamer has lost the revision
        changes.release(revision.streamer or "", revision.class_id, revision.placement)
        changes.place(revision, order.streamer or "", revision.url or "")
    if order is not None and changes.orders[revision.class_id].state in BOOKING_OVER:
        apply_again(changes, _applied(changes, order))


def _second_follows(changes: Changes, order: Order, why: str) -> None:
    """Change the second airing, if *order* has one, to what its class is, or is to be, if nothing on its way does so.

    It may have been changed, and its class's own change refused; or been placed after the change was asked for.
    """
    twin, latest = changes.orders.get(placement.secondary_id(order.class_id)), _latest(changes, order)
    second = placement.secondary_of(_plain(latest))
    if twin is None or second is None or twin.state not in ON_STREAMER or latest.state not in ON_STREAMER:
        return
    # What is about to end stays as it is. What has begun follows to a later start, as its class then did, too.
    if twin.end_time >= changes.now + LAST_S and not is_same(
        _plain(_latest(changes, twin)), second.under(order.class_id)
    ):
        _revision(changes, twin, second, BookingVerdict(second, BookingState.PLACED, url=latest.url), why)


def _latest(changes: Changes, order: Order) -> Order:
    """The newest change of a class that is not in force yet; the class itself if there is none."""
    waiting = [revision for revision in _all_of(changes, order) if revision.state in IN_HAND]
    return max(waiting, key=lambda revision: _number(revision.class_id), default=order)


def _is_of(order: Order, revision: Order, report: Report) -> bool:
    """Whether a report says something of the class as it is placed now; it may have ended since."""
    may_be = ON_STREAMER | {BookingState.AIRED, BookingState.AIRED_WITH_GAPS, BookingState.BROKEN}
    return order.state in may_be and (order.streamer, max(order.placement, 1)) == (
        revision.streamer,
        report.of_placement,
    )


def _apply(changes: Changes, order: Order, revision: Order) -> None:
    """Tell the streamer, which has prepared a revision, to give its class the content; it reports when that is so.

    If a newer revision is being applied already, this one is a part of it, and is answered with it, unless that is
    refused.
    """
    try:
        _refuse_late(changes, order, order.end_time)
    except Refuse as error:
        changes.refuse(revision, errors.ENDED, error.message, alarm=order.class_id.endswith(BACKUP))
        changes.release(revision.streamer or "", revision.class_id, revision.placement)
        _second_follows(changes, order, error.message)
        return
    after = changes.move(revision, BookingState.READY)
    if any(_number(applied.class_id) > _number(revision.class_id) for applied in _applied(changes, order)):
        changes.release(revision.streamer or "", revision.class_id, revision.placement)
        return
    _tell(changes, order, after)
    waits = Text("waits for {streamer} to confirm it", streamer=order.streamer)
    changes.note(Text("change {number} is prepared", number=_number(revision.class_id)), order, waits)
    changes.row(order.class_id, "to be changed", where=order.streamer or "", detail=revision.stem)


def _tell(changes: Changes, order: Order, revision: Order) -> None:
    message = Amend.model_construct(
        class_id=order.class_id,
        revision=revision.class_id,
        placement=max(order.placement, 1),
        revision_placement=max(revision.placement, 1),
    )
    changes.tell(revision.streamer or "", message, order.class_id)


def apply_again(changes: Changes, silent: Sequence[Order]) -> None:
    """Tell streamers again to apply revisions of which they confirmed nothing, of each class the newest."""
    for revision in silent:
        order = changes.orders.get(revision.revises or "")
        if order is not None and revision == max(_applied(changes, order), key=lambda it: _number(it.class_id)):
            _tell(changes, order, revision)
        changes.note_of(revision.class_id, updated_at=changes.now)


def _all_of(changes: Changes, order: Order) -> list[Order]:
    return [changes.orders[id_] for id_ in changes.revisions.get(order.class_id, ())]


def _applied(changes: Changes, order: Order) -> list[Order]:
    """The revisions of a class that its streamer was told to apply, or that are a part of such a one."""
    return [revision for revision in _all_of(changes, order) if revision.state is BookingState.READY]


def _in_force(changes: Changes, order: Order, revision: Order, loads: Loads) -> None:
    """Give a class the content that its streamer confirms to air; answer its change, and those that it includes."""
    number, streamer = _number(revision.class_id), order.streamer or ""
    for pending in _all_of(changes, order):
        if pending.state in IN_HAND and _number(pending.class_id) <= number:
            text = IN_FORCE if pending.class_id == revision.class_id else f"{IN_FORCE}, with the change after it"
            changes.answer(pending, 0, text, pending.deliveries)
            changes.move(pending, BookingState.CANCELLED, 0, text)
            _let_go(changes, pending)
    changes.row(order.class_id, "changed", where=streamer, detail=revision.stem)
    changes.note("changed", order, Text("by change {number}", number=number))
    booking = Booking.model_validate(from_json(revision.payload) | {"class_id": class_of(order.class_id)})
    after = changes.revise(order, booking.under(order.class_id), revision.url)
    _announce(changes, order, after, booking)
    if after.state not in ON_STREAMER:
        return
    placement.add_secondary(changes, after, streamer, revision.url or "", loads)
    _second_follows(changes, after, Text("by change {number}", number=number))
    if placement.secondary_of(after.payload) is None:  # an empty push_url_backup took it away
        cancel_second(changes, after)


def _announce(changes: Changes, order: Order, after: Order, booking: Booking) -> None:
    names = changed_fields(_plain(order), booking)
    changes.announce(after, "changed", message="; ".join(names), differs=[text.split(" ")[0] for text in names])


def _let_go(changes: Changes, revision: Order) -> None:
    """Take back what a revision still holds: its place in a waiting list, or what its streamer prepares for it."""
    if revision.state is BookingState.WAITING:
        changes.leaves.append((changes.waiting_key(revision), revision.class_id))
    elif revision.state is BookingState.PLACED:
        changes.release(revision.streamer or "", revision.class_id, revision.placement)


def forsake(changes: Changes, revisions: Sequence[Order]) -> None:
    """Refuse the changes of *revisions* because their classes are over."""
    for revision in revisions:
        changes.refuse(revision, errors.ENDED, OVER)
        _let_go(changes, revision)


def _plain(order: Order) -> str:
    """The payload of a class, its second airing or a revision, under the class_id of the wire."""
    if class_of(order.class_id) == order.class_id:
        return order.payload
    return Booking.model_validate(from_json(order.payload) | {"class_id": class_of(order.class_id)}).payload


def _number(class_id: str) -> int:
    before = revised(class_id)
    return 0 if before is None else int(class_id[len(before) + 1 :])


# What a streamer does when its teacher tells it to replace a class by the class's prepared revision. The class gets
# the content of the revision at once. The streamer tells the teacher when it airs that: with the commit if the playout
# can have nothing of the class yet, otherwise when the playout has confirmed it.


OVER = Text("the class was over before its change was in force")
NOT_HERE = "its streamer has the class without this change"

_CONTENT = ("stem", "push_url", "start_time", "end_time")
_OPEN = LIVE_AIRINGS - {AiringState.BROKEN}
"""States of a class that can be changed."""


def amend(
    changes: StreamerChanges,
    asked: Amend,
    airing: Airing | None,
    revision: Airing | None,
    waiting: Sequence[Airing],
    ahead_s: float,
) -> dict[str, Airing]:
    """Give the class the content of its revision; if the class is over or was moved away, cancel the revision.

    *waiting* are its revisions that wait to be confirmed; the playout knows the classes of the next *ahead_s* seconds.
    Returns what was changed, the class and the revision, by their ids.
    """
    if revision is None:
        whose = asked.revision, asked.revision_placement, asked.placement
        changes.report_amended(*whose, errors.NOT_BOOKED, NOT_HERE)
        return {}
    if revision.state not in LIVE_AIRINGS:
        if revision.class_id not in [*changes.unconfirmed, *(it.class_id for it in waiting)]:
            # Its report was lost, so it is repeated.
            confirm(changes, revision, airing, is_aired=True)
        return {}
    if (
        airing is None
        or airing.state not in _OPEN
        or airing.end_time <= changes.now
        or airing.placement != asked.placement
    ):
        changes.row(asked.class_id, "is over or elsewhere, its revision goes", asked.revision)
        changes.report_amended(revision.class_id, revision.placement, asked.placement, errors.ENDED, OVER)
        return {revision.class_id: changes.move(revision, AiringState.CANCELLED)}
    after = changes.amend(airing, revision)
    earlier = [*(it.class_id for it in waiting), *(it for it in changes.unconfirmed if revised(it) == airing.class_id)]
    changes.wait(earlier, None)  # the teacher answers them with this one
    if min(airing.start_time, after.start_time) > changes.now + ahead_s:
        changes.report_amended(revision.class_id, revision.placement, airing.placement)
    else:
        changes.wait([revision.class_id], changes.now)
    changes.note("changed", after)
    changes.row(airing.class_id, "changed", asked.revision)
    return {airing.class_id: after, revision.class_id: replace(revision, state=AiringState.CANCELLED)}


def confirm(changes: StreamerChanges, revision: Airing, airing: Airing | None, *, is_aired: bool) -> None:
    """Report that a class is aired as its revision says (*is_aired*), or that it cannot be any more; else wait."""
    whose = revision.class_id, revision.placement, airing.placement if airing is not None else 1
    if airing is None or airing.state not in _OPEN:
        changes.report_amended(*whose, errors.ENDED, OVER)
    elif any(
        getattr(airing, name) != getattr(revision, name) for name in _CONTENT
    ):  # it was moved away, and has come back
        changes.report_amended(*whose, errors.NOT_BOOKED, NOT_HERE)
    elif is_aired:
        changes.report_amended(*whose)
        changes.note("change in force", airing)
    else:
        return
    changes.wait([revision.class_id], None)
