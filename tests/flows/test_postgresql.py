"""A teacher whose rows are on PostgreSQL; `--postgresql` has the whole tutorial with one, which the night runs."""

import json
from collections.abc import Iterator

import pytest

from tests.stage import Stage, Town, staged, wait_until
from tests.stage.postgres import Databases

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def stage(town: Town, tmp_path_factory: pytest.TempPathFactory, postgresql: Databases) -> Iterator[Stage]:
    with staged(town, tmp_path_factory.mktemp("stage"), TEACHER_DATABASE_URL=postgresql.fresh()) as found:
        found.up("teacher", "streamer1")
        yield found


def test_the_largest_record_is_answered_and_commands_say_how_it_stands(stage: Stage) -> None:
    class_id = stage.book({**stage.booking(1), "record_id": 2**63 - 1})
    assert stage.answer(class_id)["code"] != 400
    assert stage.order(class_id)["record_id"] == 2**63 - 1
    class_id = stage.book(stage.booking(stage.town.record()))
    stage.answer(class_id)
    wait_until(lambda: stage.order(class_id)["state"] == "ready", description="it is ready")
    for command in (("status", "--json"), ("explain", class_id, "--json")):
        found = stage.lectern("teacher", *command)
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)
    assert stage.lectern("teacher", "init", "teacher").returncode == 0
