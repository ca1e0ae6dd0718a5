"""The answer of a step: whether it changed anything, sentences, differences, times; a failed step answers, too."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lectern.errors import LecternError


@dataclass(frozen=True)
class Difference:
    """A text before and after, for `--diff`; its secrets are already masked."""

    path: str
    before: str
    after: str

    def to_dict(self) -> dict[str, str]:
        """The fields that Ansible shows as a difference."""
        return {
            "before": self.before,
            "after": self.after,
            "before_header": self.path,
            "after_header": self.path,
        }


@dataclass
class Answer:
    """The answer of a step; it grows while the step runs, so that a failed step can say how far it came."""

    changed: bool = False
    said: list[str] = field(default_factory=list)
    diff: list[Difference] = field(default_factory=list)
    steps: list[tuple[str, float]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def say(self, *sentences: str) -> None:
        """Add sentences."""
        self.said += sentences

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Record how long *step* took, even if it fails."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.steps.append((step, time.monotonic() - began))

    def since(self, already: tuple[int, int, int], *, changed: bool) -> "Answer":
        """What was added to *already* (numbers of sentences, differences and steps); `more` is given as a whole."""
        said, diff, steps = already
        return Answer(changed, self.said[said:], self.diff[diff:], self.steps[steps:], dict(self.more))

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that a step prints."""
        return {
            "changed": self.changed,
            "said": self.said,
            "diff": [one.to_dict() for one in self.diff],
            "steps": [{"step": step, "seconds": round(seconds, 3)} for step, seconds in self.steps],
            **self.more,
        }


class Failed(LecternError):
    """A step failed; *answer* says how far it came, or has a sentence for each fault."""

    def __init__(self, message: str, answer: Answer) -> None:
        super().__init__(message)
        self.answer = answer
