"""Stands in for the resident process where only the rollout is tested: reads its settings, answers with its version.

Started as `lectern serve ROLE` in the code folder. It refuses to start where the rollout has not done its part.
`lectern init ROLE --check` refuses if there is a file `refuses-VERSION`; so does `POST /reload` if there is one.
"""

import ctypes
import http.server
import json
import signal
import sqlite3
import sys
from pathlib import Path
from typing import ClassVar

VERSION = Path(__file__).resolve().parents[2].name


class Page(http.server.BaseHTTPRequestHandler):
    answer: ClassVar[dict[str, object]] = {}

    settings: ClassVar[dict[str, str]] = {}

    def do_GET(self) -> None:
        self.say(200, self.answer | {"settings": self.settings})

    def do_POST(self) -> None:
        if Path(f"refuses-{VERSION}").exists():
            self.say(422, {"error": "ALARM_URLS: nonsense"})
            return
        before, Page.settings = self.settings, read()
        said = [f"{name} is {text}" for name, text in self.settings.items() if before.get(name) != text]
        self.say(200, {"said": said})

    def say(self, status: int, answer: object) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def read() -> dict[str, str]:
    own = Path(sys.argv[0]).absolute().parents[2] / "settings.env"
    lines = [line for file in (Path(".env"), own) if file.exists() for line in file.read_text().splitlines()]
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def main(role: str) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    Page.settings = settings = read()
    if Path("broken").exists():
        sys.exit("the new program is broken: no such module")
    if not settings.get("TEACHER_DATABASE_URL", "").startswith("postgresql"):
        with sqlite3.connect("task_list.db" if role == "streamer" else "teacher.db") as connection:
            connection.execute(
                "select class_id, institution_id from task_list" if role == "streamer" else "select * from order_list"
            )
    name = settings["STREAMER_NAME" if role == "streamer" else "TEACHER_NAME"]
    Page.answer = {"version": VERSION, "role": role, "name": name, "ready": True}
    host, port = settings["HEALTH_BIND" if role == "streamer" else "API_BIND"].split(":")
    http.server.ThreadingHTTPServer.allow_reuse_address = True
    http.server.ThreadingHTTPServer((host, int(port)), Page).serve_forever()


def check(role: str) -> None:
    if Path(f"refuses-{VERSION}").exists():
        sys.exit(f"a newer release wrote the database of this {role}")


if __name__ == "__main__":
    {"serve": main, "init": check}[sys.argv[1]](sys.argv[2])
