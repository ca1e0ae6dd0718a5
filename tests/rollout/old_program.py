"""The old program of a host: books a class every 20 ms into its database, and says its version over HTTP.

Started as: old_program.py DATABASE PORT TABLE. It knows nothing of ours, and dies with its supervisor.
"""

import ctypes
import http.server
import json
import os
import signal
import sqlite3
import sys
import threading
import time
from pathlib import Path


class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"version": "1.0.0"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def main(database: str, port: int) -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    http.server.ThreadingHTTPServer.allow_reuse_address = True
    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = sqlite3.connect(database, timeout=20, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    number = 0
    while True:
        number += 1
        row = (f"w-{os.getpid()}-{number}", "http://o/6666.flv", "rtmp://a/b", 1000, 2000, "done")
        connection.execute(
            "INSERT INTO task_list (class_id, video_url, push_url, start_time, end_time, status) VALUES (?,?,?,?,?,?)",
            row,
        )
        # Only what was acknowledged is asked for later.
        with Path(f"{database}.acknowledged").open("a") as file:
            file.write(row[0] + "\n")
        time.sleep(0.02)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
