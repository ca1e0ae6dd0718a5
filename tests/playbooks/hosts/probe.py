"""Asks a host for its version every 20 ms and writes down each change of the answer; stdlib only, it runs on the host.

A line is ``{"answer", "at", "before"}``: what it was told, when first, and when last it was told what was before.
"""

import http.client
import json
import signal
import sys
import time
from pathlib import Path
from typing import TextIO

EVERY_S = 0.02


def asked(host: str, port: int, path: str, timeout_s: float = 2) -> str:
    """The version that answers; empty if nobody does, and with a remark if it is not ready."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        found = json.loads(connection.getresponse().read())
    except (OSError, ValueError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
    return str(found.get("version", "?")) + ("" if found.get("ready", True) else " not ready")


def watch(host: str, port: int, path: str, sink: TextIO) -> None:
    """Until killed."""
    last, before = None, 0.0
    while True:
        answer, now = asked(host, port, path), time.time()
        if answer != last:
            sink.write(json.dumps({"answer": answer, "at": now, "before": before}) + "\n")
            sink.flush()
        last, before = answer, now
        time.sleep(EVERY_S)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Path(sys.argv[4]).open("a", encoding="utf-8") as log:
        watch(sys.argv[1], int(sys.argv[2]), sys.argv[3], log)
