"""A recording that cannot be there before its class is over is refused at once, while the class can be moved."""

import json
from functools import partial

import pytest
from sqlalchemy import select, update

from flows import handling
from flows.host import Host
from flows.streamer import admission, download
from flows.streamer.looks import Looked
from lectern import errors
from lectern.decide import endings
from lectern.effects.files import store
from lectern.effects.files.origin import RemoteFile
from lectern.effects.media.probe import Probe
from lectern.effects.rows.tables.engine import reading, transaction
from lectern.facts import Airing
from lectern.messages import Prepare, Report
from lectern.model.tables.streamer import classes, files, tasks
from lectern.settings import StreamerSettings
from lectern.states import AiringState
from lectern.streamer_changes import StreamerChanges
from tests import rows, strategies
from tests.faults import hosts

URL = "http://origin.example/6666.flv"
PROBE = Probe(640, 360, 10.0, 10, "h264", "aac", last_second_decodes=True)
LATE = {"class_id": "c-late", "end_time": 1_764_013_500.0}
LONG_S = 1000
"""Seconds until the class is over."""


def admitted(host: Host[StreamerSettings], size_bytes: int, left_s: float = LONG_S) -> tuple[str, int | None]:
    """State and code of a class whose recording has so many bytes, and that is over after *left_s*."""
    now = hosts.now()
    fields = json.loads(strategies.booking("c-1", start_time=int(now) - 10, end_time=now + left_s).to_json())
    one = Prepare(**{**fields, "cmd": "prepare", "video_url": URL}).named({})
    with transaction(host.engine) as connection:
        looked: dict[str, Looked] = {one.stem: RemoteFile(URL, size_bytes, None, None)}
        rows.did(connection, host, partial(admission.decided, looked, {}), one)
    with reading(host.engine) as connection:
        row = connection.execute(select(classes.c.state, classes.c.code)).one()
    return str(row.state), row.code


def test_a_download_that_would_end_after_its_class_is_refused_at_once(streamer: Host[StreamerSettings]) -> None:
    """Nothing is reserved and nothing evicted for it."""
    size_bytes = int(streamer.settings.download_rate_bytes * (LONG_S + 60))
    assert admitted(streamer, size_bytes) == ("refused", errors.NOT_READY_FOR_START.number)
    with reading(streamer.engine) as connection:
        assert connection.execute(select(files.c.id)).all() == []


def test_the_alarm_of_a_change_whose_recording_comes_too_late_names_the_class_that_people_know(
    streamer: Host[StreamerSettings],
) -> None:
    now = int(hosts.now())
    fields = json.loads(strategies.booking("c-1", start_time=now + 100, end_time=now + 9 * LONG_S).to_json())
    one = Prepare(**{**fields, "cmd": "prepare", "class_id": "c-1^1", "video_url": URL}).named({})
    with transaction(streamer.engine) as connection:
        size_bytes = int(streamer.settings.download_rate_bytes * LONG_S)
        looked: dict[str, Looked] = {one.stem: RemoteFile(URL, size_bytes, None, None)}
        rows.did(connection, streamer, partial(admission.decided, looked, {}), one)
    with reading(streamer.engine) as connection:
        sent = connection.execute(select(streamer.journal.outbox.c.target, streamer.journal.outbox.c.body)).all()
    (alarm,) = [json.loads(row.body) for row in sent if row.target == streamer.settings.alarm_channel]
    assert alarm["class_id"] == "c-1"
    assert alarm["message"].startswith("c-1 begins in ")


def test_a_download_that_ends_within_its_class_is_begun(streamer: Host[StreamerSettings]) -> None:
    """The class is then aired from the clock's position on."""
    assert admitted(streamer, int(streamer.settings.download_rate_bytes * (LONG_S - 60)))[0] == "waiting"


def test_what_is_on_the_disk_already_is_not_downloaded_again(streamer: Host[StreamerSettings]) -> None:
    size_bytes = int(streamer.settings.download_rate_bytes * (LONG_S + 60))
    part = store.part_path(streamer.settings.video_root, "6666_720P")
    part.parent.mkdir(parents=True)
    with part.open("wb") as file:
        file.truncate(int(streamer.settings.download_rate_bytes * 120))
    assert admitted(streamer, size_bytes)[0] == "waiting"


def test_a_class_that_is_over_is_refused_as_ended(streamer: Host[StreamerSettings]) -> None:
    """Its message came late, perhaps because the streamer was down; its recording is not to blame."""
    assert admitted(streamer, 1, left_s=-1) == ("refused", errors.ENDED.number)


def test_a_download_that_ends_after_a_class_refuses_it_and_makes_ready_those_that_are_still_to_be_aired(
    streamer: Host[StreamerSettings],
) -> None:
    """Nothing of the first can be aired any more, so nobody is told that it is ready."""
    now = hosts.now()
    fields = {
        **json.loads(strategies.booking("c").to_json()),
        "cmd": "prepare",
        "video_url": URL,
        "start_time": now - 9,
    }
    both = [Prepare(**{**fields, "class_id": f"c-{end:g}", "end_time": now + end}).named({}) for end in (60, 600)]
    remote = RemoteFile(URL, 10, None, None)
    with transaction(streamer.engine) as connection:
        rows.did(connection, streamer, partial(admission.decided, {both[0].stem: remote}, {}), *both)
        connection.execute(update(tasks).where(tasks.c.class_id == "c-60").values(end_time=now - 1))
        handling.change(connection, streamer, download.arrived(both[0].stem, remote, PROBE))
        # Their rendition is here: a class that comes late is refused all the same.
        rows.did(connection, streamer, partial(admission.decided, {}, {}), both[0].model_copy(update=LATE))
        found = connection.execute(select(classes.c.class_id, classes.c.state, classes.c.code)).all()
        bodies = connection.execute(select(streamer.journal.outbox.c.body)).scalars()
        reports = [(one["class_id"], one["code"]) for one in map(json.loads, bodies) if one["cmd"] == "prepared"]
    ended = errors.ENDED.number
    assert {tuple(one) for one in found} == {
        ("c-60", "refused", ended),
        ("c-600", "ready", None),
        ("c-late", "refused", ended),
    }
    assert sorted(reports) == [("c-60", ended), ("c-600", 0), ("c-late", ended)]


@pytest.mark.parametrize(
    ("state", "is_known", "says"),
    [
        (AiringState.READY, True, "nothing was sent"),
        (AiringState.READY, False, "nobody knows"),
        (AiringState.ON_AIR, True, "nobody knows"),
    ],
    ids=["its playout has nothing of it", "its playout is away", "it was on air, and its playout forgot it"],
)
def test_a_class_of_which_nothing_was_sent_is_closed_with_these_words(
    streamer: Host[StreamerSettings], state: AiringState, is_known: bool, says: str
) -> None:
    now = hosts.now()
    one = Airing("c-1", "6", state, "rtmp://push.example/live/c", now - 99, now - 60, 6, None)
    changes = StreamerChanges(streamer.settings, now)
    endings.close_late(changes, one, is_known=is_known)
    (said,) = [one.message for one in changes.sends if isinstance(one.message, Report)]
    assert (said.code, says in said.message) == (errors.AIRING_BROKEN.number, True)
