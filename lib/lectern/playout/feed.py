"""What one push sends, by the class's clock: the recording, or the slate while that is missing or at fault."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any

from lectern.playout import flv
from lectern.playout.files import Files
from lectern.playout.heads import Heads, Item
from lectern.playout.index import path_of
from lectern.playout.journal import Mark
from lectern.playout.opening import At, Identity
from lectern.playout.reel import MISSING, STALL_S, Reel

RECORDING, SLATE = 0, 1
FROM_THE_START_MS = 1000
"""Less late than this, a class begins at its beginning: a seek would skip to the next keyframe, seconds away."""
RETRY_S = 1.0
"""A recording that is missing or at fault is looked for as often."""
BEHIND_MS = 2000
"""What is later than this is skipped, to go on at the clock's position."""
TOO_SHORT_MS = 1000
FINAL = ("is broken", "ends after")
"""A recording at fault in this way stays so until another file is in its place."""
_SOON_MS = 200
_DEFAULT_BYTES = 128 * 1024

Place = tuple[int, int, int, int, int, bool, int]
"""*source* to *wrap* of a journal's mark."""


class Feed:
    """Gives what is due; *tell* hears of `slate` and `back`."""

    def __init__(self, files: Files, pool: Executor, tell: Callable[[str, str], None]) -> None:
        self.files = files
        self.source = RECORDING
        self.lost: str | None = None
        """What is wrong with the recording while it is not sent."""
        self.over = False
        self.last_ms = 0
        self._pool, self._tell = pool, tell
        self._reel: Reel | None = None
        self._coming: Reel | None = None
        self._back = False
        self._slate: Reel | None = None
        self._bad: Identity | None = None
        self._retry_at = self._come_at = 0.0
        self._heads = Heads()
        self._resumed: tuple[Place, dict[str, Any]] | None = None
        """Where the worker before was: all that is known until the file is open again."""
        self._shift_ms = self._from_ms = 0
        self._awaits_key = False

    @property
    def reel(self) -> Reel | None:
        """What is sent now."""
        return self._reel

    @property
    def wants_file(self) -> bool:
        """Whether the recording is not sent because it is missing or at fault, so that only another file helps."""
        return self.lost is not None and self.lost.startswith((MISSING, *FINAL))

    def bytes_a_second(self, length_s: float) -> int:
        """About a second of the class, which lasts *length_s*."""
        identity = self._reel.identity if self._reel is not None else None
        return int(identity[2] / length_s) if identity is not None else _DEFAULT_BYTES

    def open(self, position_ms: float) -> None:
        """Get ready to begin at *position_ms*."""
        at = At(clock_ms=position_ms) if position_ms >= FROM_THE_START_MS else At()
        self._come(at)

    def resume(self, mark: Mark, saved: dict[str, Any], position_ms: float) -> None:
        """Go on where a batch ended, in the file that was *saved*; in another one, at the position."""
        headers = {int(kind): place for kind, place in saved["headers"].items()} if saved["file"] == mark.file else None
        at = At(position_ms, place=mark.place, wrap=mark.wrap, headers=headers, file=mark.file)
        self.source, self._shift_ms = mark.source, mark.shift_ms
        self._from_ms, self._awaits_key, self.last_ms = mark.from_ms, mark.awaits_key, mark.last_ms
        path = self.files.slate if mark.source == SLATE and self.files.slate else self.files.recording
        self._reel = Reel(path, path_of(path), self._pool, at)
        place = mark.source, mark.file, mark.place, mark.shift_ms, mark.from_ms, mark.awaits_key, mark.wrap
        self._resumed = place, saved
        if mark.source == SLATE:
            self.lost = "was missing or broken"

    def begin(self, position_ms: float) -> None:
        """A new session begins: it needs the metadata, and the headers in force."""
        self._heads.forget()
        reel = self._reel
        if reel is None:
            return
        if self.source == RECORDING and position_ms >= FROM_THE_START_MS:
            if position_ms - max(self.last_ms, reel.begins_ms) > BEHIND_MS or not reel.knows_headers:
                reel.close()
                self._reel = None
                self._drop_coming()
                self._come(At(clock_ms=position_ms))
                return
            self._from_ms, self._awaits_key = int(position_ms), True
        self._heads.announce(reel, int(position_ms))

    def look(self, now: float, position_ms: float) -> None:
        """Move between recording and slate; called once a tick."""
        reel = self._reel
        if reel is not None and reel.is_elsewhere and reel.ready():
            reel.is_elsewhere = False
            self._from_ms, self._awaits_key = int(position_ms), True
            self._heads.announce(reel, int(position_ms))
        if reel is not None and self.source == RECORDING and not self.over:
            if reel.peek() is None and reel.ended:
                short = self.files.needed_ms is not None and self.last_ms + TOO_SHORT_MS < self.files.needed_ms
                self.over = not short
                if short:
                    self._lose(now, f"ends after {self.last_ms / 1000:.0f} s, which is too early")
            elif reel.fault:
                self._lose(now, reel.fault)
            elif reel.stalled(now):
                self._lose(now, "is not read in time: the disk is slow, or hangs")
        self._look_at_coming(now, position_ms)
        if self.lost is not None:
            self._look_at_slate(position_ms)
            if self._coming is None and now >= self._retry_at:
                self._retry_at = now + RETRY_S
                self._come(At(after_ms=position_ms + _SOON_MS), is_back=True)

    def peek(self, position_ms: float) -> Item | None:
        """What is to be sent next, once it is due."""
        if self._heads:
            return self._heads.first
        reel = self._reel
        if self._coming is not None and self._back and self._coming.ready():
            position_ms = min(position_ms, self._coming.begins_ms - 1)  # the recording takes over there
        while reel is not None and (tag := reel.peek()) is not None:
            at_ms = tag.time_ms + self._shift_ms
            if at_ms > position_ms:
                return None
            if self._is_wanted(tag.kind, at_ms, tag.body):
                return Item(tag.kind, at_ms, tag.body)
            reel.advance()
        return None

    def advance(self, item: Item) -> bool:
        """The item that was seen last is in the batch; returns whether it changes what `save` gives."""
        is_header = self._heads.sent(item)
        if self._heads:
            self._heads.next()
            return True
        assert self._reel is not None
        self._reel.advance()
        self.last_ms = item.at_ms
        if item.kind == flv.PICTURE and not is_header:
            self._awaits_key = False
        return is_header

    @property
    def queued(self) -> bool:
        """Whether messages wait that belong together."""
        return bool(self._heads)

    def behind_ms(self, position_ms: float) -> float:
        """How late the next message is."""
        item = self.peek(position_ms)
        return position_ms - item.at_ms if item is not None else 0.0

    def skip(self, position_ms: float) -> None:
        """Go on at the clock's position, once the file is read there."""
        if self._coming is None and self.source == RECORDING:
            self._come(At(clock_ms=position_ms))

    def replace(self, files: Files, position_ms: float) -> None:
        """Take over other files: another recording is gone on with at the clock's position."""
        other = files.recording != self.files.recording
        self.files = files
        if other:
            self._bad, self.over = None, False
            if self._reel is not None and self.source == RECORDING:
                self._drop_coming()
                self._come(At(clock_ms=position_ms))
            else:
                self._retry_at = 0.0

    def place(self) -> Place:
        """*source* to *wrap* of a journal's mark."""
        reel = self._reel
        if reel is None:  # nothing is sent now: whoever goes on looks for the clock's position
            return RECORDING, 0, flv.HEAD_BYTES, 0, self.last_ms + 1, True, 0
        if reel.identity is None and self._resumed is not None:
            return self._resumed[0]
        # The wrap may be a tag ahead of the place, which is near enough to tell one turn of 32 bits from another.
        return self.source, reel.fingerprint, reel.place, self._shift_ms, self._from_ms, self._awaits_key, reel.wrap

    def save(self) -> dict[str, Any]:
        """Which file is sent, and where its headers lie that are in force, for `resume`."""
        reel = self._reel
        if reel is not None and reel.identity is None and self._resumed is not None:
            return self._resumed[1]
        headers = {kind: begins for kind, (begins, _) in reel.headers.items()} if reel else {}
        return {"file": reel.fingerprint if reel else 0, "headers": headers}

    def close(self) -> None:
        """Close all files."""
        for one in (self._reel, self._coming, self._slate):
            if one is not None:
                one.close()
        self._reel = self._coming = self._slate = None

    def _come(self, at: At, *, is_back: bool = False) -> None:
        self._back, self._come_at = is_back, time.monotonic()
        self._coming = Reel(self.files.recording, self.files.index, self._pool, at, self._bad if is_back else None)

    def _drop_coming(self) -> None:
        if self._coming is not None:
            self._coming.close()
            self._coming = None

    def _look_at_coming(self, now: float, position_ms: float) -> None:
        coming = self._coming
        if coming is None:
            return
        was_open = coming.is_open
        if coming.ready():
            if self._back and not was_open and now - self._come_at > STALL_S:
                self._drop_coming()  # the keyframe that was looked for has passed meanwhile
                self._retry_at = now
            elif not self._back or position_ms >= coming.begins_ms:
                self._coming = None
                self._switch(coming, RECORDING, position_ms)
        elif coming.fault or coming.stalled(now):
            fault = coming.fault or "is not opened in time: the disk is slow, or hangs"
            if coming.fault:
                self._drop_coming()
            if self.lost is None:
                self._lose(now, fault)

    def _look_at_slate(self, position_ms: float) -> None:
        if self.source == SLATE and self._reel is not None:
            reel = self._reel
            if reel.peek() is None and reel.ended:
                self._shift_ms = max(self._shift_ms + reel.last_ms + 1, int(position_ms))
                reel.rewind()
            elif reel.fault:
                self._reel = None
                self._give_up_slate(reel)
        elif self._slate is not None:
            if self._slate.ready():
                slate, self._slate = self._slate, None
                self._switch(slate, SLATE, position_ms)
            elif self._slate.fault:
                slate, self._slate = self._slate, None
                self._give_up_slate(slate)
        elif self.files.slate is not None and self._reel is None:
            self._slate = Reel(self.files.slate, path_of(self.files.slate), self._pool, At())

    def _give_up_slate(self, slate: Reel) -> None:
        self._tell("slate", f"the slate {slate.fault}")
        slate.close()
        self.files = replace(self.files, slate=None)

    def _lose(self, now: float, fault: str) -> None:
        """The recording cannot be sent."""
        self.lost, self._retry_at = fault, now + RETRY_S
        if self._reel is not None:
            self._bad = self._reel.identity if fault.startswith(FINAL) else None
            self._reel.close()
            self._reel = None
        self._heads.clear()
        self._tell("slate", f"the recording {fault}")

    def _switch(self, reel: Reel, source: int, position_ms: float) -> None:
        """Send *reel* from now on."""
        if self._reel is not None:
            self._reel.close()
        if self._slate is not None and source == RECORDING:
            self._slate.close()
            self._slate = None
        self._reel, self.source = reel, source
        self._heads.clear()
        here = int(position_ms)
        if source == SLATE:
            self._shift_ms, self._from_ms, self._awaits_key = max(here, self.last_ms), 0, False
        else:
            was_lost, self.lost = self.lost, None
            self._shift_ms = self._from_ms = 0
            if position_ms >= FROM_THE_START_MS:
                exact = self._back and here - reel.begins_ms < FROM_THE_START_MS
                self._from_ms, self._awaits_key = reel.begins_ms if exact else here, True
            if was_lost is not None:
                self._tell("back", f"the recording is there; before, it {was_lost}")
        self._heads.announce(reel, here)

    def _is_wanted(self, kind: int, at_ms: int, body: bytes) -> bool:
        if flv.is_header(kind, body):
            return not self._heads.had(kind, body)
        if at_ms < self._from_ms:
            return False
        return kind != flv.PICTURE or not self._awaits_key or flv.is_keyframe(kind, body)
