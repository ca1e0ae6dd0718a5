"""The database of the classes."""

import sqlite3
from typing import Any

COLUMNS = "class_id, video_url, push_url, start_time, end_time, status"


class Database:
    """One connection; each call is a transaction."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=20, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")

    def add(self, *values: Any) -> None:
        """Keep a class; one that is there stays as it is."""
        self._connection.execute(f"INSERT OR IGNORE INTO task_list ({COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", values)

    def due(self, now: float, status: int) -> list[tuple[str, str, str, float, float]]:
        """The classes with *status* that should be on air."""
        wanted = "SELECT class_id, video_url, push_url, start_time, end_time FROM task_list"
        found = self._connection.execute(
            f"{wanted} WHERE status = ? AND start_time <= ? AND end_time > ?", (status, now, now)
        )
        return found.fetchall()

    def set_status(self, class_id: str, status: int) -> None:
        """Note how far a class is."""
        self._connection.execute("UPDATE task_list SET status = ? WHERE class_id = ?", (status, class_id))
