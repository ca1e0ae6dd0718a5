"""Runs the old teacher's app.js where there is no Node, as far as a rollout sees it: it says which version it is."""

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Page(BaseHTTPRequestHandler):
    body = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, format: str, *args: object) -> None:
        """Not each look is worth a line."""


if __name__ == "__main__":
    found = re.search(r"VERSION = '([^']+)'", Path(sys.argv[1]).read_text(encoding="utf-8"))
    assert found is not None
    Page.body = json.dumps({"version": found.group(1), "role": "virtual-teacher"}).encode()
    config = json.loads(Path("config/default.json").read_text(encoding="utf-8"))
    ThreadingHTTPServer((config["host"], config["port"]), Page).serve_forever()
