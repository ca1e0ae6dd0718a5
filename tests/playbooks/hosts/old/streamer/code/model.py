"""The table of the classes; ``python model.py`` makes it."""

import sqlite3

BOOKED, ON_AIR, OVER = 0, 1, 2

TASK_LIST = (
    "CREATE TABLE IF NOT EXISTS task_list (class_id VARCHAR(250) NOT NULL, video_url VARCHAR(250),"
    " push_url VARCHAR(250), start_time INTEGER, end_time INTEGER, status INTEGER, teacher_name VARCHAR(50),"
    " PRIMARY KEY (class_id))"
)


def create(path: str) -> None:
    """Make the table in the database at *path*."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute(TASK_LIST)
    connection.commit()
    connection.close()


if __name__ == "__main__":
    create("task_list.db")
