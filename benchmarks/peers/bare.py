"""The limit: one loop over what has arrived, in sets, with nothing of the product and no framework.

    python -m benchmarks.peers.bare CHANNEL

No inbox, no outbox, no checks, no runs, no second process: what is lost with it is lost.
"""

import json
import os
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import redis

Fields = dict[str, Any]


def serve(channel: str) -> None:
    """Answer bookings until killed."""
    client = redis.Redis.from_url(os.environ["BENCH_REDIS"])
    folder = os.environ["BENCH_FOLDER"]
    teacher, streamer = (
        sqlite3.connect(f"{folder}/{role}.db", isolation_level=None) for role in ("teacher", "streamer")
    )
    for one in (teacher, streamer):
        one.execute("pragma journal_mode=wal")
        one.execute("pragma synchronous=full")
    subscription = client.pubsub(ignore_subscribe_messages=True)
    subscription.subscribe(channel)
    sys.stdout.write("listens\n")
    sys.stdout.flush()
    while True:
        found: list[Fields] = []
        while len(found) < 5000 and (message := subscription.get_message(timeout=0 if found else 1.0)) is not None:
            found.append(json.loads(message["data"]))
        if found:
            _answer(client, teacher, streamer, found)


def _answer(
    client: "redis.Redis", teacher: sqlite3.Connection, streamer: sqlite3.Connection, found: Sequence[Fields]
) -> None:
    late = {
        (record, resolution)
        for record, resolution in teacher.execute(
            "select record_id, resolution from video_list where status = 'timed out'"
        )
    }
    refused = [one for one in found if (one["record_id"], one.get("video_resolution")) in late]
    placed = [one for one in found if (one["record_id"], one.get("video_resolution")) not in late]
    _write_orders(teacher, refused, "refused", 207)
    _write_orders(teacher, placed, "placed", None)
    if placed:
        _write_classes(streamer, placed)
        teacher.execute("begin immediate")
        ready = "update order_list set state = 'ready', promised_at = ? where class_id = ?"
        teacher.executemany(ready, [(time.time(), one["class_id"]) for one in placed])
        teacher.execute("commit")
    pipe = client.pipeline(transaction=False)
    for one, code in [*((one, 207) for one in refused), *((one, 0) for one in placed)]:
        said = {"cmd": "order_result", "class_id": one["class_id"], "result": "fail" if code else "success"}
        pipe.publish(os.environ["BENCH_ANSWERS"], json.dumps({**said, "code": code, "message": ""}))
    pipe.execute()


def _write_orders(teacher: sqlite3.Connection, found: Sequence[Fields], state: str, code: int | None) -> None:
    now = time.time()
    teacher.execute("begin immediate")
    teacher.executemany(
        "insert into order_list (class_id, record_id, resolution, start_time, end_time, payload, state, code,"
        " deliveries, received_at, updated_at, placement) values (?, ?, ?, ?, ?, ?, ?, ?, 1, ?, ?, 1)",
        [
            (
                one["class_id"],
                one["record_id"],
                one.get("video_resolution"),
                one["start_time"],
                one["end_time"],
                json.dumps(one),
                state,
                code,
                now,
                now,
            )
            for one in found
        ],
    )
    teacher.executemany(
        "insert into event_list (at, what, class_id, host, detail) values (?, ?, ?, 'teacher', '')",
        [(now, state, one["class_id"]) for one in found],
    )
    teacher.execute("commit")


def _write_classes(streamer: sqlite3.Connection, found: Sequence[Fields]) -> None:
    now = time.time()
    streamer.execute("begin immediate")
    streamer.executemany(
        "insert into task_list (class_id, video_url, push_url, start_time, end_time, status) values (?, ?, ?, ?, ?, ?)",
        [
            (one["class_id"], one["video_url"], one["push_url"], one["start_time"], one["end_time"], "ready")
            for one in found
        ],
    )
    streamer.executemany(
        "insert into class_list (class_id, video_id, state, record_id, updated_at, placement)"
        " values (?, ?, 'ready', ?, ?, 1)",
        [(one["class_id"], str(one["record_id"]), one["record_id"], now) for one in found],
    )
    cited = Counter(str(one["record_id"]) for one in found)
    streamer.executemany(
        "update video_list set num_cite = num_cite + ?, update_time = ? where id = ?",
        [(number, now, stem) for stem, number in cited.items()],
    )
    streamer.execute("commit")


if __name__ == "__main__":
    serve(sys.argv[1])
