"""The garbage collector is off while commands are imported, and on while they work."""

import gc
from collections.abc import Iterator

import pytest
from typer.testing import CliRunner

from lectern.cli.app import COMMANDS, LOAD_MORE, app


@pytest.fixture
def off() -> Iterator[None]:
    """As `lectern.cli.main` begins."""
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


@pytest.mark.parametrize("words", [["rollout", "verify"], ["rekey", "--rule", "no rule", "--dry-run"]])
def test_it_is_on_once_a_command_is_loaded_or_a_step_of_a_rollout_begins(off: None, words: list[str]) -> None:
    found = CliRunner().invoke(app, words, input="nothing that is wanted")
    assert found.exit_code != 0, "it was to come as far as to its own words"
    assert gc.isenabled()


def test_who_turns_it_on_by_itself_is_a_command() -> None:
    assert set(LOAD_MORE) <= COMMANDS.keys()
