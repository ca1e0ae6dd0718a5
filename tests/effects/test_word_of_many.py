"""What a streamer says of itself with each heartbeat costs the same however many classes are booked far ahead."""

import time
from pathlib import Path

from sqlalchemy import insert

from flows.streamer.word import word
from lectern.effects.rows.tables.engine import open_database, reading, transaction
from lectern.model.tables.streamer import classes, tasks
from tests.effects.sqlite_steps import steps
from tests.faults import hosts

DAY_S = 86_400


def test_classes_of_tomorrow_are_not_read_with_each_heartbeat(tmp_path: Path) -> None:
    engine = open_database(f"sqlite:///{hosts.database('streamer', tmp_path / 'task_list.db')}")
    settings = hosts.streamer(engine, tmp_path, 10_000_000, 1000).settings
    now, taken = time.time(), []
    for begins, number in ((now - 60, 3), (now + DAY_S, 200), (now + 2 * DAY_S, 2000)):
        with transaction(engine) as connection:
            for one in range(number):
                its = {"class_id": f"c-{begins:.0f}-{one}", "start_time": begins, "end_time": begins + 600}
                connection.execute(insert(tasks).values(**its, push_url="rtmp://push.example/live/x"))
                connection.execute(insert(classes).values(class_id=its["class_id"], video_id="6666", state="ready"))
        with reading(engine) as connection:
            assert word(connection, settings, now).due == 3
        taken.append(steps(engine, lambda connection: word(connection, settings, now)))
    engine.dispose()
    # What is left are two looks at the state and the start of each class, and at the faults of its recording: 0.3 each.
    # A row that is read takes twice as much.
    assert taken[2] - taken[1] < 2000 * 0.7
