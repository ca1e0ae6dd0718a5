"""The name of this release."""

from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2]


def name() -> str:
    """The version of the installed package beside this one; `development` in a working tree."""
    found = sorted(LIBRARY.glob("lectern-*.dist-info"))
    return found[-1].name.removeprefix("lectern-").removesuffix(".dist-info") if found else "development"
