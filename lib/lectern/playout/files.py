"""The files that a class is made of."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Files:
    """The files; a recording that ends more than a second before *needed_ms* is broken (None: it may end anywhere)."""

    recording: Path
    index: Path
    slate: Path | None
    needed_ms: float | None
