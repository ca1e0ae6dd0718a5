"""Runs the old teacher's app.js where there is no Node: reads its version and modules, and does what it did."""

import json
import os
import re
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Redis:
    """As much of Redis's protocol as the old program needs."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._socket = socket.create_connection((parts.hostname or "127.0.0.1", parts.port or 6379))
        self._file = self._socket.makefile("rb")
        if parts.password:
            self.call("AUTH", unquote(parts.password))
        self.call("SELECT", parts.path.strip("/") or "0")

    def call(self, *words: str) -> Any:
        """The answer to one command."""
        encoded = [word.encode() for word in words]
        self._socket.sendall(
            b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)
        )
        return self.read()

    def read(self) -> Any:
        """The next answer or message."""
        line = self._file.readline()
        if not line:
            raise ConnectionError("Redis has gone")
        kind, rest = line[:1], line[1:].strip()
        if kind == b"-":
            raise ConnectionError(rest.decode())
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return None if rest == b"-1" else self._file.read(int(rest) + 2)[:-2].decode()
        if kind == b"*":
            return [self.read() for _ in range(int(rest))]
        return rest.decode()


def taken(redis: Redis, booking: dict[str, Any]) -> None:
    """A booking: kept, and put on the waiting list where its resolution is not there yet."""
    redis.call("SET", "class:" + booking["class_id"], json.dumps(booking))
    wanted = booking.get("video_resolution")
    if wanted and wanted not in booking.get("video_url_list", {}):
        redis.call("RPUSH", "waiting:%s:%s" % (booking["record_id"], wanted), booking["class_id"])
    else:
        answered(redis, booking["class_id"])


def made(redis: Redis, result: dict[str, Any]) -> None:
    """A rendition was made: whoever waits for it is answered."""
    key = "waiting:%s:%s" % (result["record_id"], result["video_resolution"])
    for class_id in redis.call("LRANGE", key, "0", "-1"):
        answered(redis, class_id)
    redis.call("DEL", key)


def answered(redis: Redis, class_id: str) -> None:
    """Tell the platform that the class will be aired."""
    answer = {"cmd": "order_result", "class_id": class_id, "result": "success", "code": 0, "streamer": "old"}
    redis.call("PUBLISH", "order_result", json.dumps(answer))


def listen(url: str) -> None:
    """Take what is published, for ever."""
    ear, mouth = Redis(url), Redis(url)
    ear.call("SUBSCRIBE", "order", "transcoding")
    while True:
        kind, channel, body = ear.read()
        if kind == "message":
            {"order": taken, "transcoding": made}[channel](mouth, json.loads(body))


def serve(host: str, port: int, version: str) -> None:
    """The page with the version."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = json.dumps({"version": version, "role": "virtual-teacher"}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Not each look is worth a line."""

    server = ThreadingHTTPServer((host, port), Page)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()


def modules(text: str) -> list[str]:
    """What a script requires of its own folder; raises FileNotFoundError as Node would."""
    found = re.findall(r"require\('\./([^']+)'\)", text)
    for one in found:
        if not os.path.isfile(one if one.endswith(".json") else one + ".js"):
            raise FileNotFoundError("Cannot find module './%s'" % one)
    return found


def main(script: str) -> None:
    """Run until SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    with open(script, encoding="utf-8") as file:
        text = file.read()
    modules(text)
    found = re.search(r"VERSION = '([^']+)'", text)
    with open("config/default.json", encoding="utf-8") as file:
        config = json.load(file)
    assert found is not None
    serve(config["host"], config["port"], found.group(1))
    while True:
        try:
            listen(config["redis"])
        except OSError as error:
            print(error, file=sys.stderr, flush=True)
            time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1])
