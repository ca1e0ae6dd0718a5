"""A Prefect server of which only the login is there."""

import base64
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Server(http.server.ThreadingHTTPServer):
    login: str


class _Prefect(http.server.BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        """As the middleware of Prefect does it."""
        given = self.headers.get("Authorization", "").removeprefix("Basic ")
        is_known = base64.b64decode(given).decode() == self.server.login
        is_there = self.path == "/api/admin/version"
        self.send_response(404 if not is_there else 200 if is_known else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def prefect_asking(login: str) -> Iterator[str]:
    """The address of a server that lets *login*, ``user:password``, in."""
    with _Server(("127.0.0.1", 0), _Prefect) as server:
        server.login = login
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/api"
        server.shutdown()
