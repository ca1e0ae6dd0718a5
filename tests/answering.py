"""HTTP servers of a test's own, on loopback, each in a thread."""

import http.server
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Answer(http.server.BaseHTTPRequestHandler):
    """Gives each request the same answer; a class that is made of it gives others."""

    status, body = 200, b""

    def say(self, status: int, headers: Mapping[str, str] = {}, body: bytes = b"") -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer(self) -> None:
        self.say(self.status, body=self.body)

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815 (the library's names)

    def sent(self) -> bytes:
        return self.rfile.read(int(self.headers["content-length"]))

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Whoever asks may go in the middle of an answer."""


@contextmanager
def serving(handler: type[Answer] = Answer, **its: object) -> Iterator[Server]:
    """A server that answers as *handler* does, with *its* attributes."""
    with Server(("127.0.0.1", 0), type("Handler", (handler,), its)) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
