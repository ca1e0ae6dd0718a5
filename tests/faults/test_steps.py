"""The steps in which a day raises errors, and the points at which it kills, are functions that the product has."""

import importlib

from tests.faults.errors import STEPS
from tests.faults.points import STREAMER, TEACHER, TEACHERS

FUNCTIONS = {**STEPS, **{name: point.function for name, point in {**TEACHER, **TEACHERS, **STREAMER}.items()}}


def test_what_is_named_is_there() -> None:
    """Whoever renames a function is told here, and not by a day of an hour."""
    missing = []
    for name, function in FUNCTIONS.items():
        module, _, path = function.partition(":")
        found: object = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part, None)
        missing += [] if callable(found) else [f"{name}: {function}"]
    assert missing == []
