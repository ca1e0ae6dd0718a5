"""The answer of a step: whether it changed anything, sentences, differences, times; and how they name things."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from lectern.errors import CallAPerson, LecternError
from lectern.i18n import Text, joined, msgid, translated


@dataclass(frozen=True)
class TextDifference:
    """A text before and after, for `--diff`; its secrets are already masked."""

    path: str
    before: str
    after: str

    def to_dict(self) -> dict[str, str]:
        """The fields that Ansible shows as a difference."""
        headers = {"before_header": self.path, "after_header": self.path}
        return {"before": self.before, "after": self.after, **headers}


@dataclass
class StepAnswer:
    """The answer of a step; it grows while the step runs, so that a failed step can say how far it came."""

    changed: bool = False
    said: list[str] = field(default_factory=list)
    diff: list[TextDifference] = field(default_factory=list)
    steps: list[tuple[str, float]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)

    def say(self, *sentences: str) -> bool:
        """Add sentences; returns whether there are any."""
        self.said += sentences
        return bool(sentences)

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        """Record how long *step* took, even if it fails."""
        began = time.monotonic()
        try:
            yield
        finally:
            self.steps.append((step, time.monotonic() - began))

    def since(self, already: tuple[int, int, int], *, changed: bool) -> "StepAnswer":
        """What was added to *already* (numbers of sentences, differences and steps); `more` is given as a whole."""
        said, diff, steps = already
        return StepAnswer(changed, self.said[said:], self.diff[diff:], self.steps[steps:], dict(self.more))

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that a step prints."""
        return {
            "changed": self.changed,
            "said": self.said,
            "diff": [difference.to_dict() for difference in self.diff],
            "steps": [{"step": step, "seconds": round(seconds, 3)} for step, seconds in self.steps],
            **self.more,
        }


def in_language(fields: Mapping[str, Any], language: str) -> dict[str, Any]:
    """The *fields* of an answer with their sentences in *language*, those of a plan for each task, too."""
    written = dict(fields)
    if "msg" in fields:
        written["msg"] = translated(fields["msg"], language)
    if "said" in fields:
        written["said"] = [translated(sentence, language) for sentence in fields["said"]]
    if "plan" in fields:
        written["plan"] = {task: in_language(answer, language) for task, answer in fields["plan"].items()}
    return written


class Failed(LecternError):
    """A step failed; *answer* says how far it came, or has a sentence for each fault."""

    def __init__(self, message: str, answer: StepAnswer) -> None:
        super().__init__(message)
        self.answer = answer


MOST = 5
"""Greatest number of things of one kind that a sentence names."""


def shown(name: str | os.PathLike[str]) -> str:
    r"""*name* in quotes; what cannot be read is written as ``\n`` or ``\xff``."""
    text = os.fsencode(name).decode("utf-8", "backslashreplace")
    return "'" + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text).replace("'", "\\'") + "'"


def some(things: Iterable[str]) -> str:
    """The first of *things*, and how many more there are."""
    named = list(things)
    first = joined(named[:MOST], msgid("{first}, {second}"))
    return Text("{first} and {n:,} more", first=first, n=len(named) - MOST) if len(named) > MOST else first


def punctuated(sentences: Iterable[str]) -> list[str]:
    """*sentences*, each with a full stop."""
    return [Text("{sentence}.", sentence=sentence) for sentence in sentences]


def words(error: BaseException) -> str:
    """*error* for people."""
    return error.message if isinstance(error, LecternError) else f"{type(error).__name__}: {error}"


def failure(error: BaseException) -> dict[str, Any]:
    """The fields of the answer of a step that *error* has ended, with how far it came if *error* knows that."""
    if isinstance(error, OSError):
        thing, why = error.filename or msgid("the system"), error.strerror or error
        error = CallAPerson("{thing}: {why}. Mend it, then run this again.", thing=thing, why=why)
    fields = error.answer.to_dict() if isinstance(error, Failed) else {"changed": False, "said": []}
    return {**fields, "failed": True, "msg": words(error)}
