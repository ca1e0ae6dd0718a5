"""The files that a class is made of."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Files:
    """What a class is made of. *needed_ms*: a recording that ends more than a second before is broken."""

    recording: Path
    index: Path
    slate: Path | None
    needed_ms: float | None
