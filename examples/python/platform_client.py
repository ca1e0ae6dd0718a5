"""How a platform talks to lectern: sends bookings, changes and cancels, reads answers, asks for a transcoding.

With TEACHER_TOKEN bookings, changes and cancels go over HTTP, else over Redis.
"""

import argparse
import hashlib
import json
import os
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import redis

ANSWER_TIMEOUT_S = 60
ORDER = os.environ.get("ORDER_CHANNEL", "order")
CANCEL = os.environ.get("CANCEL_CHANNEL", "cancel")
CHANGE = os.environ.get("CHANGE_CHANNEL", "change")
CHANGED = os.environ.get("CHANGE_RESULT_CHANNEL", "change_result")
CANCELLED = os.environ.get("CANCEL_RESULT_CHANNEL", "cancel_result")
ANSWERS = os.environ.get("ORDER_RESULT_CHANNEL", "order_result")
EVENTS = os.environ.get("CLASS_EVENT_CHANNEL", "class_event")
API = os.environ.get("TEACHER_API", "http://127.0.0.1:8800")


def connect() -> redis.Redis:
    """A connection to the Redis that the teacher uses."""
    url = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
    # A read that waits 5 s for answers needs a socket that waits longer.
    return redis.Redis.from_url(url, decode_responses=True, socket_timeout=30)


def send(bus: redis.Redis, stream: str, message: dict) -> None:
    """Put a message on a stream, where it waits also while the teacher restarts."""
    bus.xadd(stream, {"body": json.dumps(message)})


def answers(bus: redis.Redis, after: str, until: float, stream: str = ANSWERS):
    """Yield ``(id, answer)`` of every answer on *stream* behind the id *after*, until the time *until*."""
    last = after
    while (left_s := until - time.time()) > 0:
        found = bus.xread({stream: last}, block=max(1, int(min(left_s, 5) * 1000)), count=100)
        for _stream, entries in found:
            for entry_id, fields in entries:
                last = entry_id
                yield entry_id, json.loads(fields["body"])


def newest(bus: redis.Redis, stream: str = ANSWERS) -> str:
    """The id of the newest answer there is; what comes later is behind it."""
    found = bus.xrevrange(stream, count=1)
    return found[0][0] if found else "0"


def book(path: str) -> int:
    """Send a booking and print its answer; 0 if the class was taken, 1 if it was refused or nobody answered."""
    with sys.stdin if path == "-" else open(path, encoding="utf-8") as file:
        booking = json.load(file)
    return ask(ORDER, booking, ANSWERS)


def change(class_id: str, fields: str) -> int:
    """Change a booked class: *fields* is JSON with what is new. 0 if it is in force, 1 if the class stays as it was."""
    return ask(CHANGE, {"cmd": "change", "class_id": class_id, **json.loads(fields)}, CHANGED)


def ask(stream: str, message: dict, answered_on: str) -> int:
    """Send a message about a class and print its answer; 0 if that is a success."""
    if "TEACHER_TOKEN" in os.environ:
        return ask_over_http(message)
    bus = connect()
    after = newest(bus, answered_on)  # before the message is sent, so that a quick answer is not missed
    send(bus, stream, message)
    for _id, answer in answers(bus, after, time.time() + ANSWER_TIMEOUT_S, answered_on):
        if answer["class_id"] == message["class_id"]:
            print(json.dumps(answer, ensure_ascii=False))
            return 0 if answer["result"] == "success" else 1
    print(f"no answer within {ANSWER_TIMEOUT_S} s: send it again, that changes nothing", file=sys.stderr)
    return 1


def ask_over_http(message: dict) -> int:
    """The same by PUT, PATCH or DELETE; a refusal at once is a problem document, and has a code, too."""
    method = {"order": "PUT", "change": "PATCH", "cancel": "DELETE"}[message["cmd"]]
    path = f"/v1/classes/{urllib.parse.quote(message['class_id'])}?wait={ANSWER_TIMEOUT_S}"
    headers = {"Authorization": f"Bearer {os.environ['TEACHER_TOKEN']}", "Content-Type": "application/json"}
    body = json.dumps(message).encode() if method != "DELETE" else None
    request = urllib.request.Request(API + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=ANSWER_TIMEOUT_S + 10) as found:
            answer = json.load(found)
    except urllib.error.HTTPError as refused:
        answer = json.load(refused)
    print(json.dumps(answer, ensure_ascii=False))
    return 0 if answer.get("result") == "success" else 1


def cancel(class_id: str) -> int:
    """Cancel a class; the answer comes once its streamer has confirmed it. 1 if it is not booked, or is over."""
    return ask(CANCEL, {"cmd": "cancel", "class_id": class_id}, CANCELLED)


def follow(after: str | None, stream: str) -> int:
    """Print each message of *stream* with its id; keep the last id, and give it as ``--after`` after a restart."""
    bus = connect()
    for entry_id, answer in answers(bus, after or newest(bus, stream), float("inf"), stream):
        print(entry_id, json.dumps(answer, ensure_ascii=False), flush=True)
    return 0


def sign(fields: dict, key: str) -> str:
    """The signature of a request: MD5 of its fields in the order of their names, then the key."""
    text = "&".join(f"{name}={fields[name]}" for name in sorted(fields))
    return hashlib.md5(f"{text}&key={key}".encode(), usedforsecurity=False).hexdigest()


def transcode(record_id: int, resolution: str) -> int:
    """Ask for a rendition of a record; 202 means that it is being made or was made already."""
    fields = {"record_id": record_id, "video_resolution": resolution}
    body = json.dumps({**fields, "sign": sign(fields, os.environ["TRANSCODE_SIGN_KEY"])}).encode()
    request = urllib.request.Request(f"{API}/transcode", body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            print(answer.status, answer.read().decode())
            return 0
    except urllib.error.HTTPError as refused:
        print(refused.code, refused.read().decode(), file=sys.stderr)
        return 1


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("book").add_argument("path")
    changing = commands.add_parser("change")
    changing.add_argument("class_id")
    changing.add_argument("fields")
    commands.add_parser("cancel").add_argument("class_id")
    commands.add_parser("answers").add_argument("--after")
    commands.add_parser("events").add_argument("--after")
    wanted = commands.add_parser("transcode")
    wanted.add_argument("record_id", type=int)
    wanted.add_argument("resolution")
    given = parser.parse_args()
    if given.command == "book":
        return book(given.path)
    if given.command == "change":
        return change(given.class_id, given.fields)
    if given.command == "cancel":
        return cancel(given.class_id)
    if given.command == "answers":
        return follow(given.after, ANSWERS)
    if given.command == "events":
        return follow(given.after, EVENTS)
    return transcode(given.record_id, given.resolution)


if __name__ == "__main__":
    sys.exit(main())
