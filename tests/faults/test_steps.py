"""The steps in which a day raises errors, and the points at which it kills, are functions that the product has."""

import importlib
from functools import reduce

import pytest

from tests.faults.errors import STEPS
from tests.faults.points import STREAMER, TEACHER, TEACHERS

FUNCTIONS = {**STEPS, **{name: point.function for name, point in {**TEACHER, **TEACHERS, **STREAMER}.items()}}


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_what_is_named_is_there(name: str) -> None:
    """Whoever renames a function is told here, and not by a day of an hour."""
    module, _, path = FUNCTIONS[name].partition(":")
    assert callable(reduce(getattr, path.split("."), importlib.import_module(module)))
