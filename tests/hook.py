"""A receiver of the webhook, as a platform has one: verifies and keeps what is posted to it."""

import base64
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from standardwebhooks import Webhook as Verifier

from tests.answering import Answer, serving

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()


class Receiver(Answer):
    """Keeps what is posted; its ``refuses`` says of each message what it answers, after as long as it likes."""

    def answer(self) -> None:
        server: Any = self.server
        body = self.sent().decode()
        message = Verifier(SECRET).verify(body, dict(self.headers.items()))
        status = server.refuses(message)
        with server.keeping:
            (server.taken if status < 300 else server.refused).append((self.headers["webhook-id"], message))
        if status == 299:
            self.send_response(299)
            self.end_headers()
            with suppress(OSError):
                while True:
                    self.wfile.write(b"x" * (1 << 16))
            return
        self.say(status, {"location": "/elsewhere"} if status == 302 else {})


@contextmanager
def receiving() -> Iterator[Any]:
    """A receiver that takes everything until a test says otherwise."""
    with serving(Receiver) as server:
        its: Any = server
        its.taken, its.refused, its.refuses, its.keeping = [], [], lambda _: 200, threading.Lock()
        yield its
