"""A run that is to be created in Prefect."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class NewRun:
    """What the run does and what it is called; of runs with the same *key* Prefect creates one.

    If it names *outdated*, a run that was cancelled because of that, or that has completed, does not count as one of
    them: another is created.
    """

    flow: str
    parameters: Mapping[str, Any]
    name: str
    tags: Sequence[str] = ()
    key: str | None = None
    outdated: str | None = None
