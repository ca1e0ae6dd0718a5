# It imports its neighbours by their bare names, as a stand-alone program does.
# mypy: ignore-errors
"""The client of a push host, as far as a rollout sees it: keeps classes, and says on a page which version it is."""

import json
import signal
import sqlite3
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from env_settings import settings
from model import BOOKED, OVER

VERSION = "1.4.2"
COLUMNS = "class_id, video_url, push_url, start_time, end_time"


def connected() -> sqlite3.Connection:
    """To the classes; each statement is a transaction."""
    connection = sqlite3.connect("task_list.db", timeout=20, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    return connection


def add(connection: sqlite3.Connection, *values) -> None:
    """Keep a class; one that is there stays as it is."""
    connection.execute(f"INSERT OR IGNORE INTO task_list ({COLUMNS}, status) VALUES (?, ?, ?, ?, ?, ?)", values)


class Page(BaseHTTPRequestHandler):
    """Answers with the version; takes what the teacher sends."""

    def do_GET(self) -> None:
        self._answer({"version": VERSION, "role": "idc_client"})

    def do_POST(self) -> None:
        task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        names = ("class_id", "video_url", "push_url", "start_time", "end_time")
        add(connected(), *(task[name] for name in names), BOOKED)
        self._answer({"code": 0})

    def _answer(self, fields: object) -> None:
        body = json.dumps(fields).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Not each look is worth a line."""


def keep_diary(connection: sqlite3.Connection, written: str, number: int) -> None:
    """A class that was over long ago, into the database, and then into the list of those that are safe there."""
    class_id = "w-%d-%d" % (time.time_ns(), number)
    now = int(time.time())
    add(connection, class_id, "http://origin.example/9/9.flv", "rtmp://live.example/w", now - 7200, now - 3600, OVER)
    with open(written, "a") as file:
        file.write(class_id + "\n")


def main() -> None:
    told = settings()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    server = ThreadingHTTPServer((told["CLIENT_HOST"], int(told["CLIENT_PORT"])), Page)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    connection = connected()
    number = 0
    while not over.wait(0.02):
        number += 1
        keep_diary(connection, told["DIARY"], number)


if __name__ == "__main__":
    sys.exit(main())
