"""Why a goal is not met, and what would meet it; each row that misses its goal needs its reason."""

from collections.abc import Mapping
from types import MappingProxyType

REASONS: Mapping[str, str] = MappingProxyType({})
"""By the beginning of a row's name; the longest one that fits counts."""


def reason(row: str) -> str:
    """Why *row* may miss its goal; empty where nobody has said."""
    fitting = [one for one in REASONS if row.startswith(one)]
    return REASONS[max(fitting, key=len)] if fitting else ""
