# It imports its neighbours by their bare names, as a stand-alone program does.
# mypy: ignore-errors
"""The client of a push host: keeps classes, pushes them, and says on a page which version it is."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from env_settings import settings
from model import BOOKED, ON_AIR, OVER

VERSION = "1.4.2"
COLUMNS = "class_id, video_url, push_url, start_time, end_time"


class Database:
    """One connection; each call is a transaction."""

    def __init__(self, path: str) -> None:
        self._connection = sqlite3.connect(path, timeout=20, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")

    def add(self, *values) -> None:
        """Keep a class; one that is there stays as it is."""
        self._connection.execute(
            f"INSERT OR IGNORE INTO task_list ({COLUMNS}, status) VALUES (?, ?, ?, ?, ?, ?)", values
        )

    def due(self, now: float):
        """The booked classes that should be on air."""
        wanted = f"SELECT {COLUMNS} FROM task_list WHERE status = ? AND start_time <= ? AND end_time > ?"
        return self._connection.execute(wanted, (BOOKED, now, now)).fetchall()

    def set_status(self, class_id: str, status: int) -> None:
        """Note how far a class is."""
        self._connection.execute("UPDATE task_list SET status = ? WHERE class_id = ?", (status, class_id))


class LiveStreamer:
    """Pushes the classes that are due, one ffmpeg a class."""

    def __init__(self, database: Database, root: str) -> None:
        self._database = database
        self._root = root
        self._pushes = {}

    def look(self) -> None:
        """Begin what is due, note what is over."""
        for class_id, video_url, push_url, _, end_time in self._database.due(time.time()):
            # The file that was downloaded for the class alone, else the one that is named as its URL ends.
            names = (class_id + ".flv", video_url.rsplit("/", 1)[-1])
            paths = [path for path in (os.path.join(self._root, name) for name in names) if os.path.isfile(path)]
            if paths:
                self._database.set_status(class_id, ON_AIR)
                seconds = str(max(1, int(end_time - time.time())))
                argv = ["ffmpeg", "-loglevel", "error", "-re", "-i", paths[0], "-t", seconds]
                push = subprocess.Popen([*argv, "-c", "copy", "-f", "flv", push_url], stdin=subprocess.DEVNULL)
                self._pushes[class_id] = push
        for class_id, push in list(self._pushes.items()):
            if push.poll() is not None:
                del self._pushes[class_id]
                self._database.set_status(class_id, OVER)

    def stop(self) -> None:
        """End all pushes."""
        for push in self._pushes.values():
            push.terminate()
            push.wait()


class Page(BaseHTTPRequestHandler):
    """Answers with the version; takes what the teacher sends."""

    database = "task_list.db"

    def do_GET(self) -> None:
        """The version."""
        self._answer({"version": VERSION, "role": "idc_client"})

    def do_POST(self) -> None:
        """A class that the teacher orders."""
        task = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        names = ("class_id", "video_url", "push_url", "start_time", "end_time")
        Database(self.database).add(*(task[name] for name in names), BOOKED)
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


def keep_diary(database: Database, written: str, number: int) -> None:
    """A class that was over long ago, into the database, and then into the list of those that are safe there."""
    class_id = "w-%d-%d" % (time.time_ns(), number)
    now = int(time.time())
    database.add(class_id, "http://origin.example/9/9.flv", "rtmp://live.example/w", now - 7200, now - 3600, OVER)
    with open(written, "a") as file:
        file.write(class_id + "\n")


def main() -> None:
    """Run until SIGTERM."""
    told = settings()
    over = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: over.set())
    server = ThreadingHTTPServer((told["CLIENT_HOST"], int(told["CLIENT_PORT"])), Page)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    database = Database("task_list.db")
    streamer = LiveStreamer(database, told["VIDEO_DIR"])
    number = 0
    while not over.wait(0.02):
        number += 1
        keep_diary(database, told["DIARY"], number)
        if number % 10 == 0:
            streamer.look()
    streamer.stop()


if __name__ == "__main__":
    sys.exit(main())
