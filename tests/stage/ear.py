"""What the platform hears."""

import json
import threading
import time
from collections import defaultdict
from typing import Any

import redis

Fields = dict[str, Any]


class Ear:
    """The platform's: hears the answers and alarms that are published while it listens."""

    def __init__(self, url: str, answers: str, alarms: str) -> None:
        self.answers: dict[str, list[Fields]] = defaultdict(list)
        self.alarms: list[Fields] = []
        self._client = redis.Redis.from_url(url, decode_responses=True)
        self._pubsub = self._client.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]
        self._pubsub.subscribe(answers, alarms)
        self._alarms = alarms
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="ear", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._over.is_set():
            try:
                found = self._pubsub.get_message(timeout=0.2)
            except redis.RedisError:  # a test has taken it away
                self._over.wait(0.2)
                continue
            if found is None:
                continue
            message = {**json.loads(found["data"]), "received_at": time.time()}
            if found["channel"] == self._alarms:
                self.alarms.append(message)
            else:
                self.answers[message["class_id"]].append(message)

    def close(self) -> None:
        self._over.set()
        self._thread.join(5)
        self._pubsub.close()
        self._client.close()
