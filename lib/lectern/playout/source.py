"""What one push sends, by the class's clock: the recording, or the slate while the recording cannot be sent."""

import math
import time
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

from lectern.playout.demuxer import MISSING, STALL_S, STALLED, Demuxer, Identity, Position
from lectern.playout.keyframe_index import HOLE_MS
from lectern.playout.muxer import RECORDING, SLATE, TAGS, Muxer
from lectern.playout.sentences import sentence
from lectern.playout.session import Mark
from lectern.playout.timetable import ScheduledClass

FROM_THE_START_MS = 1000
"""Milliseconds of delay below which a class begins at its beginning: a seek would skip to the next keyframe."""
RETRY_S, SLATE_RETRY_S = 1.0, 5.0
"""Seconds between two looks for a recording that is missing or at fault, and for a slate that could not be read."""
BEHIND_MS = 4000
"""Milliseconds of delay above which media are skipped, to go on at the clock's position.

A worker that hangs is killed after 2 s, and the next one may take as long to start: it sends what it finds undone.
"""
LOOP_MS = 500
"""Milliseconds that a slate lasts at least: one that is made of a single picture would be sent at each tick."""
NEAR_MS = 2000
"""Milliseconds that a demuxer may be away from where a session begins; further, a seek is faster than reading on."""
TOO_SHORT_MS = 1000
UNKNOWN = sentence("was missing or broken")
"""What is wrong with a recording in place of which the worker before sent the slate, until this one has looked."""
FINAL = ("is broken", "ends after", "cannot be aired")
"""The beginnings of those faults of a recording, or a slate, that stay until another file replaces it."""
_SOON_MS = 200
_DEFAULT_BYTES = 128 * 1024


class Source:
    """Chooses the demuxer that its `muxer` sends; calls *tell* with `slate` and `back`, each with a reason."""

    def __init__(
        self, lesson: ScheduledClass, pool: Executor, slate_pool: Executor, tell: Callable[[str, str], None]
    ) -> None:
        self.lesson = lesson
        self.muxer = Muxer()
        self.lost: str | None = None
        """What is wrong with the recording; None while nothing is."""
        self.over = False
        self._pool, self._slate_pool, self._tell = pool, slate_pool, tell
        self._coming: Demuxer | None = None
        self._back = False
        self._slate: Demuxer | None = None
        self._slate_fault: str | None = None
        self._hole_ms = 0
        self._bad: Identity | None = None
        self._retry_at = self._come_at = self._slate_at = 0.0

    @property
    def has_media(self) -> bool:
        """Whether there is something to send."""
        return self.muxer.demuxer is not None and self.muxer.demuxer.ready()

    @property
    def slate(self) -> str | None:
        """The path of the slate; None if there is none, or if it could not be read when it was tried last."""
        return self.lesson.slate if self._slate_fault is None else None

    @property
    def has_nothing(self) -> bool:
        """Whether there is nothing to send until a disk answers, or the recording is there: no slate can be sent."""
        if self.lost is None:
            return False
        slate = self.muxer.demuxer or (self._slate if self._slate_fault is None else None)
        return self.slate is None if slate is None else slate.stalled(time.monotonic())

    @property
    def wants_file(self) -> bool:
        """Whether the recording is not sent because it is missing or at fault, so that only another file helps."""
        is_back = self._coming is not None and self._coming.is_open  # and waits for its next keyframe
        return self.lost is not None and self.lost.startswith((MISSING, *FINAL)) and not is_back

    def bytes_a_second(self, length_s: float) -> int:
        """The average bytes of one second of the class, which lasts *length_s*; a guess before the file is open."""
        identity = self.muxer.demuxer.identity if self.muxer.demuxer is not None else None
        return int(identity[2] / length_s) if identity is not None else _DEFAULT_BYTES

    def open(self, position_ms: float) -> None:
        """Begin to open the recording at *position_ms*."""
        self._come(Position(clock_ms=position_ms) if position_ms >= FROM_THE_START_MS else Position())

    def resume(self, mark: Mark, saved: dict[str, Any], position_ms: float) -> None:
        """Go on after the last batch, in the file that was *saved*; in another file, at *position_ms*."""
        headers = {int(kind): place for kind, place in saved["headers"].items()} if saved["file"] == mark.file else None
        at = Position(position_ms, place=mark.place, wrap=mark.wrap, headers=headers, file=mark.file)
        path = Path(self.lesson.slate if mark.source == SLATE and self.lesson.slate else self.lesson.file)
        self.muxer.resume(Demuxer(path, self._slate_pool if mark.source == SLATE else self._pool, at), mark)
        if mark.source == SLATE:
            self.lost = UNKNOWN

    def begin(self, position_ms: float) -> None:
        """A new session begins: it needs the metadata, and the headers in force."""
        muxer = self.muxer
        muxer.forget()
        demuxer = muxer.demuxer
        if demuxer is not None and muxer.source == RECORDING:
            if position_ms < FROM_THE_START_MS:
                is_elsewhere = demuxer.has_begun or demuxer.begins_ms > position_ms
            else:
                apart_ms = position_ms - max(muxer.last_ms, demuxer.begins_ms)  # below 0 if the clock was set back
                is_elsewhere = abs(apart_ms) > NEAR_MS or not demuxer.knows_headers
            if is_elsewhere:  # the session cannot go on where the demuxer is
                muxer.drop()
                self._drop_coming()
                self.open(position_ms)
                return
            if position_ms >= FROM_THE_START_MS:
                muxer.skip_to(int(position_ms))
        else:
            self._restart_slate(position_ms)
        muxer.announce(position_ms)

    def look(self, now: float, position_ms: float) -> None:
        """Move between recording and slate; called once a tick."""
        muxer = self.muxer
        muxer.tags_left = TAGS
        demuxer = muxer.demuxer
        if demuxer is not None and demuxer.is_elsewhere and demuxer.ready():
            demuxer.is_elsewhere = False
            muxer.skip_to(int(position_ms))
            muxer.announce(position_ms)
        if demuxer is not None and muxer.source == RECORDING and not self.over:
            if demuxer.peek() is None and demuxer.ended and self._coming is None:
                # Its last tags need not have been sent: pictures without their keyframe are not.
                last_ms = max(muxer.last_ms, demuxer.last_ms)
                needed_ms = self.lesson.needed_ms
                short = needed_ms is not None and last_ms + TOO_SHORT_MS < needed_ms
                self.over = not short
                if short:
                    self._lose(now, sentence("ends after {at_s:.0f} s, which is too early", at_s=last_ms / 1000))
            elif demuxer.fault:
                self._lose(now, demuxer.fault)
            elif demuxer.stalled(now):
                self._lose(now, sentence("is not read in time: the disk is slow, or hangs"))
            elif (hole_ms := self._hole(demuxer, position_ms)) > 0:
                self._lose(now, sentence("has a hole of {hole_s:.0f} s", hole_s=hole_ms / 1000))
        self._look_at_coming(now, position_ms)
        if self.lost is not None:
            self._look_at_slate(now, position_ms)
            if self._coming is None and now >= self._retry_at:
                self._retry_at = now + RETRY_S
                self._come(Position(after_ms=position_ms + _SOON_MS), is_back=True)

    def skip(self, position_ms: float) -> None:
        """Go on at the clock's position, a recording once the file is read there."""
        if self.muxer.source == SLATE:
            self._restart_slate(position_ms)
        elif self._coming is None:
            self._come(Position(clock_ms=position_ms))

    def _restart_slate(self, position_ms: float) -> None:
        """Start the slate over, because it may have a single keyframe."""
        demuxer = self.muxer.demuxer
        if self.muxer.source == SLATE and demuxer is not None and demuxer.is_open:
            self.muxer.shift_ms = int(position_ms)
            demuxer.rewind()

    def replace(self, lesson: ScheduledClass, position_ms: float) -> None:
        """Take over the changed class; another recording is sent from the clock's position on."""
        before, self.lesson = self.lesson, lesson
        self._forgive_slate()
        if lesson.file != before.file:
            self._bad, self.over, self._hole_ms = None, False, 0
            is_sent = self.muxer.demuxer is not None and self.muxer.source == RECORDING
            was_coming = self._coming is not None and self.lost is None
            self._drop_coming()  # also if the disk still hangs on it
            if is_sent:  # until the next keyframe of the other one
                self._come(Position(after_ms=position_ms + _SOON_MS), is_back=True)
            elif was_coming:
                self.open(max(0.0, position_ms))
            else:
                self._retry_at = 0.0

    def close(self) -> None:
        """Close all files."""
        self.muxer.drop()
        self._drop_coming()
        self._drop_slate()

    def _hole(self, demuxer: Demuxer, position_ms: float) -> int:
        """Milliseconds until the next sound or picture, if the position lies in a hole that ends no time soon; else 0.

        A hole after which the recording cannot be begun is lost only once: its end is awaited, whatever is sent.
        """
        tag = demuxer.peek()
        if tag is None or tag.time_ms - position_ms < FROM_THE_START_MS:  # which is so at nearly each tick
            return 0
        last_ms = max(demuxer.last_ms, demuxer.begins_ms, self.muxer.last_ms)
        is_awaited = not demuxer.has_begun or tag.time_ms == self._hole_ms
        if is_awaited or tag.time_ms - last_ms <= HOLE_MS or position_ms < last_ms:
            return 0
        self._hole_ms = tag.time_ms
        return tag.time_ms - last_ms

    def _come(self, at: Position, *, is_back: bool = False) -> None:
        self._back, self._come_at = is_back, time.monotonic()
        self._coming = Demuxer(Path(self.lesson.file), self._pool, at, self._bad if is_back else None)

    def _drop_coming(self) -> None:
        self.muxer.before_ms = math.inf
        if self._coming is not None:
            self._coming.close()
            self._coming = None

    def _drop_slate(self) -> None:
        if self._slate is not None:
            self._slate.close()
            self._slate = None

    def _look_at_coming(self, now: float, position_ms: float) -> None:
        coming = self._coming
        if coming is None:
            return
        was_open = coming.is_open
        if coming.ready():
            if self._back and not was_open and now - self._come_at > STALL_S:
                self._drop_coming()  # the keyframe to begin at has passed meanwhile
                self._come(Position(after_ms=position_ms + _SOON_MS), is_back=True)
            elif self._back and position_ms < coming.begins_ms:
                self.muxer.before_ms = coming.begins_ms
            else:
                self._coming, sent = None, self.muxer.demuxer
                if sent is not None and not self._back and coming.begins_ms <= sent.last_ms:
                    coming.close()  # to read on is faster: the keyframe before the position may be far before it
                    self.muxer.skip_to(int(position_ms))
                else:
                    self._send_recording(coming, position_ms)
        elif coming.fault or coming.stalled(now):
            fault = coming.fault or STALLED
            if coming.fault:
                self._drop_coming()
            if self.lost in (None, UNKNOWN) or (fault == MISSING and not self.wants_file):
                self._lose(now, fault)

    def _look_at_slate(self, now: float, position_ms: float) -> None:
        muxer, demuxer = self.muxer, self.muxer.demuxer
        if muxer.source == SLATE and demuxer is not None:
            if demuxer.peek() is None and demuxer.ended:
                muxer.shift_ms = max(muxer.shift_ms + max(demuxer.last_ms + 1, LOOP_MS), int(position_ms))
                demuxer.rewind()
            elif demuxer.fault:
                self._lose_slate(now, demuxer.fault)
        elif self._slate is not None:
            if self._slate.ready():
                slate, self._slate = self._slate, None
                muxer.put(slate, SLATE, shift_ms=max(int(position_ms), muxer.last_ms))
                muxer.announce(position_ms)
                if self._slate_fault is not None:  # who heard that nothing is sent hears what is
                    self._forgive_slate()
                    self._tell("slate", sentence("the recording {fault}", fault=self.lost))
            elif self._slate.fault:
                self._lose_slate(now, self._slate.fault)
        elif self.lesson.slate is not None and demuxer is None and now >= self._slate_at:
            self._slate = Demuxer(Path(self.lesson.slate), self._slate_pool, Position())

    def _lose_slate(self, now: float, fault: str) -> None:
        """Send nothing because of *fault*, until the slate can be read; one that is broken is not tried again."""
        before, self._slate_fault = self._slate_fault, fault  # before it is told that nothing is sent now
        self._slate_at = math.inf if fault.startswith(FINAL) else now + SLATE_RETRY_S
        if fault != before:
            self._tell("slate", sentence("the slate {fault}", fault=fault))
        self.muxer.drop()
        self._drop_slate()

    def _forgive_slate(self) -> None:
        self._slate_fault, self._slate_at = None, 0.0

    def _lose(self, now: float, fault: str) -> None:
        """Stop sending the recording because of *fault*; the slate, if the class has one, takes over."""
        self.lost, self._retry_at = fault, now + RETRY_S
        if self.muxer.source == RECORDING:  # else the slate goes on
            if self.muxer.demuxer is not None:
                self._bad = self.muxer.demuxer.identity if fault.startswith(FINAL) else None
            self.muxer.drop()
        self._tell("slate", sentence("the recording {fault}", fault=fault))

    def _send_recording(self, demuxer: Demuxer, position_ms: float) -> None:
        self._drop_slate()
        self._forgive_slate()
        muxer, here = self.muxer, int(position_ms)
        muxer.put(demuxer, RECORDING)
        muxer.before_ms = math.inf
        was_lost, self.lost = self.lost, None
        if position_ms >= FROM_THE_START_MS:
            exact = self._back and here - demuxer.begins_ms < FROM_THE_START_MS
            muxer.skip_to(demuxer.begins_ms if exact else here)
        if was_lost is not None:
            self._tell("back", sentence("the recording is there; before, it {fault}", fault=was_lost))
        muxer.announce(position_ms)
