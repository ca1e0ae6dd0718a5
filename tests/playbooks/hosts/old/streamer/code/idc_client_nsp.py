# It imports its neighbours by their bare names, as a stand-alone program does.
# mypy: ignore-errors
"""The client of a push host: keeps classes, pushes them, and says on a page which version it is."""

import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from commands import COMMANDS, VERSION
from db_helper import Database
from env_settings import settings
from livestreamer import LiveStreamer
from model import OVER


class Page(BaseHTTPRequestHandler):
    """Answers with the version; takes what the teacher sends."""

    database = "task_list.db"

    def do_GET(self) -> None:
        """The version."""
        self._answer({"version": VERSION, "role": "idc_client"})

    def do_POST(self) -> None:
        """A command of the teacher."""
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        COMMANDS[message.pop("cmd")](Database(self.database), message)
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
