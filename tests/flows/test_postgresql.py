"""A teacher whose rows are on PostgreSQL: what the fundamentals claim of bookings and transcodings holds there too."""

import json
from collections.abc import Iterator

import pytest

from tests.fundamentals.test_booking_flow import (
    test_a_different_booking_of_a_booked_class_changes_nothing,
    test_a_malformed_booking_is_answered_with_400,
    test_a_message_of_a_stream_is_as_good_as_one_of_a_channel,
    test_a_ready_class_can_be_cancelled,
    test_a_resolution_that_is_in_the_list_needs_no_transcoding,
    test_of_two_classes_on_one_push_url_at_the_same_time_the_second_is_refused,
    test_the_same_booking_twice_at_once_gets_the_same_answer_twice,
    test_what_can_not_be_read_is_a_dead_letter,
)
from tests.fundamentals.test_transcode_flow import (
    test_a_result_that_comes_twice_changes_nothing_the_second_time,
    test_a_silent_oss_is_given_up_with_207,
    test_a_success_without_the_url_in_the_booking_is_refused_with_501,
    test_two_classes_wait_for_one_transcoding,
    test_where_both_fail_every_waiting_class_is_refused_with_208,
)
from tests.stage import Stage, Town, staged, wait_until
from tests.stage.postgres import Databases

__all__ = [
    "test_a_different_booking_of_a_booked_class_changes_nothing",
    "test_a_malformed_booking_is_answered_with_400",
    "test_a_message_of_a_stream_is_as_good_as_one_of_a_channel",
    "test_a_ready_class_can_be_cancelled",
    "test_a_resolution_that_is_in_the_list_needs_no_transcoding",
    "test_a_result_that_comes_twice_changes_nothing_the_second_time",
    "test_a_silent_oss_is_given_up_with_207",
    "test_a_success_without_the_url_in_the_booking_is_refused_with_501",
    "test_of_two_classes_on_one_push_url_at_the_same_time_the_second_is_refused",
    "test_the_same_booking_twice_at_once_gets_the_same_answer_twice",
    "test_two_classes_wait_for_one_transcoding",
    "test_what_can_not_be_read_is_a_dead_letter",
    "test_where_both_fail_every_waiting_class_is_refused_with_208",
]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stage(town: Town, tmp_path_factory: pytest.TempPathFactory, postgresql: Databases) -> Iterator[Stage]:
    with staged(town, tmp_path_factory.mktemp("stage"), TEACHER_DATABASE_URL=postgresql.fresh()) as found:
        found.up("teacher", "streamer1")
        yield found


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
    errors = [one["error"] for one in stage.stream(f"{stage.prefix}:dead_letter")]
    assert sum("not JSON" in one for one in errors) >= 2
    assert stage.rows("teacher", "select id from inbox_list where state = 'new'") == []


def test_the_largest_record_is_answered(stage: Stage) -> None:
    class_id = stage.book({**stage.booking(1), "record_id": 2**63 - 1})
    assert stage.answer(class_id)["code"] != 400
    assert stage.order(class_id)["record_id"] == 2**63 - 1


def test_the_teacher_and_its_commands_say_how_it_stands(stage: Stage) -> None:
    class_id = stage.book(stage.booking(stage.town.record()))
    stage.answer(class_id)
    wait_until(lambda: stage.order(class_id)["state"] == "ready", description="it is ready")
    for command in (("status", "--json"), ("explain", class_id, "--json")):
        found = stage.lectern("teacher", *command)
        assert found.returncode == 0, found.stderr
        assert json.loads(found.stdout)
    assert stage.lectern("teacher", "init", "teacher").returncode == 0
