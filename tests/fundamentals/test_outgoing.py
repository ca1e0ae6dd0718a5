"""What goes out is true to what came in, and is told to people in the units that they use."""

import json

import pytest

from lectern import outgoing
from lectern.commands import parse
from lectern.messages import Prepare
from lectern.outgoing import OrderResult
from tests import strategies


def test_what_a_streamer_is_told_reads_as_if_it_had_been_checked_again() -> None:
    """Its values were checked as the booking came in; unknown fields are passed on, the list of URLs is not."""
    booked = strategies.booking("c-1", teacher_mood="good")
    told = outgoing.prepare(booked.payload, "http://origin.example/6666.flv", 2).to_json()
    fields = {**json.loads(booked.payload), "cmd": "prepare", "placement": 2}
    fields["video_url"] = "http://origin.example/6666.flv"
    del fields["video_url_list"]
    assert json.loads(told) == json.loads(Prepare.model_validate(fields).to_json())
    assert parse(told, (Prepare,)).placement == 2


@pytest.mark.parametrize(("code", "result"), [(0, "success"), (207, "fail")])
def test_an_answer_is_the_documented_one(code: int, result: str) -> None:
    said = outgoing.answer("c-1", code, "why").to_json()
    assert json.loads(said) == {
        "cmd": "order_result",
        "class_id": "c-1",
        "result": result,
        "code": code,
        "message": "why",
    }
    assert OrderResult.model_validate_json(said).to_json() == said
