# It imports its neighbours by their bare names, as a stand-alone program does.
# mypy: ignore-errors
"""What the teacher may ask of this client."""

from collections.abc import Callable
from typing import Any

from db_helper import Database
from model import BOOKED

VERSION = "1.4.2"


def order(database: Database, task: dict[str, Any]) -> None:
    """Keep a class."""
    database.add(task["class_id"], task["video_url"], task["push_url"], task["start_time"], task["end_time"], BOOKED)


COMMANDS: dict[str, Callable[[Database, dict[str, Any]], None]] = {"order": order}
