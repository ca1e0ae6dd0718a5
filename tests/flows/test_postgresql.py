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


def test_a_nul_byte_is_refused_and_those_behind_it_are_answered(stage: Stage) -> None:
    """PostgreSQL can keep none: whoever can be named gets an answer, the rest is a dead letter, and nobody waits."""
    named = stage.booking(stage.town.record(), note="odd")
    stage.publish("order", json.dumps(named).replace("odd", "o\0dd"))
    stage.publish("order", '{"cmd": "order"}\0')
    stage.town.redis.xadd(stage.channels["order"], {"body": '{"cmd": "order", "half": "\\ud800", \0}'})
    last = stage.book(stage.booking(stage.town.record()))
    assert stage.answer(last)["result"] == "success"
    answer = stage.answer(named["class_id"])
    assert (answer["code"], "NUL" in answer["message"]) == (400, True)

    def unread() -> int:
        return sum("not JSON" in one["error"] for one in stage.stream(f"{stage.prefix}:dead_letter"))

    wait_until(lambda: unread() >= 2, description="the others are dead letters")
    waiting = "select id from inbox_list where state = 'new'"
    wait_until(lambda: not stage.rows("teacher", waiting), description="nothing waits")
