"""What an alarm says, it says in Chinese to those who read Chinese, to its last word; programs keep their own words."""

import errno
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping

import pytest

from lectern import chinese_alarms, chinese_reasons, chinese_transcoding, commands, urls
from lectern.amendments import Change
from lectern.chinese_account import message, sentence
from lectern.decide import broadcast, cache, dead_air, readiness
from lectern.decide.cache import Bound
from lectern.decide.gaps import not_aired, sent
from lectern.decide.readiness import Seen
from lectern.effects import process
from lectern.effects.ecs import check
from lectern.effects.ecs.check import Measured, Media, Wanted
from lectern.effects.files import disk, origin, upload, wget
from lectern.effects.files.upload import Put
from lectern.effects.media import ffmpeg
from lectern.effects.process import Finished
from lectern.errors import CODES, ForbiddenMove, LecternError, Malformed, Refuse
from lectern.facts import AsRun, Usage
from lectern.messages import Booking, Cancel, Report, TranscodingResult
from lectern.playout import flv, index, link
from lectern.playout.flv import NotAirable
from lectern.playout.index import Look
from lectern.playout.rtmp import NotRtmp, amf0
from lectern.playout.rtmp.url import target
from lectern.playout.timetable import BadRequest, lesson
from lectern.states import Resolution
from lectern.told import Past

SAID = "WHAT THE PROGRAM SAID"
NAMES = re.compile(
    r"[a-z]+://[^\s：；）]*|/[^\s：；，）]+|\bc-\d+|\b(?:streamer|teacher)\d?\b|\b\d+_\d+P[^\s：；]*"
    r"|\b\w+_\w+|\w+(?:\.zh)?\.md|\b[A-Z][A-Z0-9]+\b"
)
"""URLs, paths, ids, settings, fields of messages and abbreviations: the same in every language."""

TERMS = {"Redis", "Prefect", "ETag", "run", "list", "stream", "object", "worker", "deployment", "chunk", "apprise"}
"""What README.zh.md and RUNBOOK.zh.md call so, too."""

KEPT = [
    "redis-cli LRANGE 6666_720P:waiting 0 -1",
    "lectern init teacher",
    *("apt-get install util-linux coreutils", "apt-get install wget", "apt-get install ffmpeg"),
    *("pip install imageio-ffmpeg", "ssh-keygen -t ed25519 -N '' -f /k"),
    *("ssh-keyscan -p 22 h >> /k", "ssh-copy-id -i /k -p 22 e@h", "[Errno 2]", "No space left on device"),
    *("'booking/teacher'", "booking", "take back", "ConnectError", "KeyError", "None", "setsid", "timeout"),
    *("ffprobe", "ffmpeg", "wget", "encode", "fetch-1", "upload-720P-1", "content-length", "connect"),
    *("audio", "aac", "mp3", "vp9", "h264"),
    *("push_urls[0]", "lectern:to:", "order", "go", "100k", "1000k", "1.5m", "public", "host:port", "host"),
    *("https", "http", "rtmps", "rtmp", "oss", "ecs", "abc", "soon"),
]
"""What programs, commands, files and senders call so; each counts only where the English has it, too."""

AIR = "c-1: it is not on air: {}; it is tried again until its end"
RED = "c-1 begins in 5 min and is not ready with 6_720P: {}"
AWAY = "streamer1: {}; 1 class should be on air"
OSS, ECS = "6_720P: 6_720P: {}; 1 class refused", "6_720P: ssh://e@h:22: {}"


FIELDS = {
    "cmd",
    "streamer",
    "result",
    "success",
    "failed",
    "fail",
    "code",
    "type",
    "networks",
    "file",
    "start",
    "end",
    "sh",
}
FIELDS |= {"cancel", "change", "transcoding", "prepared", "amended", "ended"}
"""Words of messages and of the playout's requests, which their sender looks for."""


def left(text: str) -> list[str]:
    """The words of an alarm that are still English in its Chinese, but for names and for the words of programs."""
    said = sentence(text)
    for one in (SAID, *KEPT):
        said = said.replace(one, "") if one in text else said
    kept = TERMS | {word for word in FIELDS if word in text}
    return [word for word in re.findall("[A-Za-z]{2,}", NAMES.sub("", said)) if word not in kept]


ALARMS = [
    # a group of alarms
    "occurred 12 times since 19:00:02; new: c-1, c-2; first message: c-1: its slate is sent: the recording is missing",
    "occurred once since 19:00:02; new: c-1, c-2 and 7 more; first message: c-1: it is not on air: no reason was given",
    "still going on, occurred 2 times since 19:00:02; first message: "
    + AWAY.format("the worker of the playout ended")
    + "; the newest: "
    + AWAY.format("the playout did not answer within 10 s"),
    "resolved: occurred once, at 19:00:02; first message: streamer1: not heard of for 2.5 s",
    "resolved: occurred 3 times, since 19:00:02; first message: streamer1: channels does not work: " + SAID,
    # renditions
    "6666_720P: no result of the oss transcoding in time; 3 classes refused",
    "6666_720P: no result of the oss transcoding in time; 1 class refused; 2 changes refused",
    "6666_720P: no result of the oss transcoding in time; 1 change refused",
    "6666_720P: no result of the old transcoding in time; 1 class refused",
    "6666_720P: ecs transcoding of 6666_720P: failed; 3 classes refused",
    "6666_720P: the transcoding of 6666_720P: failed; 0 classes refused",
    "6666_720P: cancelled in the UI; 2 classes refused",
    "c-1: 6666_720P: the booking names no source",
    "c-1: 6666_720P: neither OSS nor ECS transcoding is set up",
    "c-1: 6666_720P failed 5 times today",
    "c-1: 6666_720P is transcoded, but video_url_list lacks it",
    "6666_720P: a result came, and nobody asked for it",
    (
        "6666_720P: a result came, and nobody asked for it. 2 classes wait on the list 6666_720P:waiting, and nobody "
        "answers: type redis-cli LRANGE 6666_720P:waiting 0 -1"
    ),
    (
        "6666_720P: a result came, and nobody asked for it. 1 class waits on the list 6666_720P:waiting, and nobody "
        "answers: type redis-cli LRANGE 6666_720P:waiting 0 -1"
    ),
    "c-1 waited for 6666_720P; its booking is not known here",
    "c-1 has waited for 6666_720P for more than 2 d 4 h",
    "c-1: its change has waited for 6666_720P for more than 24 h",
    "c-1: its change is refused: s1 is lost",
    # the OSS transcoder
    OSS.format("OSS transcoding: no answer within 10 s"),
    OSS.format(f"OSS transcoding: no answer: ConnectError {SAID}"),
    OSS.format(f"OSS transcoding: cannot be asked: {SAID}"),
    OSS.format(f"OSS transcoding: answered 403: {SAID}"),
    OSS.format("OSS transcoding: the transcoder's URL has port 0"),
    OSS.format("OSS transcoding: OSS_TRANSCODE_URL is not set any more"),
    (
        "6666_720P: the OSS API failed 5 times in a row, the last time because: 6666_720P: OSS transcoding: "
        "answered 503; it is left alone; 1 class refused"
    ),
    # an ECS host
    f"ssh://e@h:22: failed 3 times in a row, it gets no job for 600 s: cannot be reached: {SAID}",
    "ssh://e@h:22: failed 3 times in a row, it gets no job for 600 s: no answer for 45 s, hung up",
    ECS.format("the connection is closed; 1 class refused"),
    ECS.format(f"the connection is lost: {SAID}; 1 class refused"),
    ECS.format("the connection was lost while ffprobe ran; 1 class refused"),
    ECS.format("ffprobe could not be started (127): no word; the host needs setsid and timeout: ")
    + "apt-get install util-linux coreutils; 1 class refused",
    ECS.format("its key is not in /k; look who it is, then: ssh-keyscan -p 22 h >> /k; see RUNBOOK.md"),
    ECS.format(f"its key is another than in /k ({SAID}); look who it is, then: ")
    + "ssh-keyscan -p 22 h >> /k; see RUNBOOK.md",
    ECS.format(f"does not take /k ({SAID}); type: ssh-copy-id -i /k -p 22 e@h; see RUNBOOK.md; 1 class refused"),
    "6666_720P: /k: there is no such SSH key for ssh://e@h:22; type: ssh-keygen -t ed25519 -N '' -f /k",
    "6666_720P: /k: there is no such file; type: ssh-keyscan -p 22 h >> /k",
    (
        f"6666_720P: /k: cannot be read as an SSH key ({SAID}); make one that has no passphrase: "
        "ssh-keygen -t ed25519 -N '' -f /k"
    ),
    ECS.format("ffprobe cannot be run; type there: apt-get install ffmpeg; 1 class refused"),
    ECS.format(f"/w/6666_720P.flv cannot be read: {SAID}"),
    ECS.format("the folder /w/6666_720P-1-ab failed (1): no word"),
    ECS.format(f"ending 6666_720P-1-ab failed (1): {SAID}"),
    ECS.format("/w/6666 is gone: encode was ended by another"),
    ECS.format("/w/6666 cannot be used: 3"),
    OSS.format("ssh://e@h:22 has no room: 5 bytes are free in /w, 9 are needed"),
    OSS.format("encode on ssh://e@h:22 was not done after 120 s in all"),
    OSS.format("encode on ssh://e@h:22 was not done after 120 s in all; it said last: nothing"),
    OSS.format(f"encode on ssh://e@h:22 was not done after 120 s in all; it said last: {SAID}"),
    OSS.format(f"fetch-1 on ssh://e@h:22 ended with 3: {SAID}; its disk is full"),
    OSS.format("upload-720P-1 on ssh://e@h:22 was ended from outside"),
    OSS.format(f"ffmpeg on ssh://e@h:22 ended with 1: {SAID}"),
    OSS.format("source of 6666: is not playable: no stream, or no duration"),
    OSS.format(f"is not playable: {SAID}"),
    OSS.format("http://h/6666.flv: wget ended with 4: no word; 12 bytes were promised"),
    OSS.format("http://h/6666.flv: is larger than the 12 bytes that it may be"),
    OSS.format("http://h/6.flv: has changed while it was read: None bytes were promised, 3 came, now it has 4"),
    OSS.format("http://p/6_720P.flv: was uploaded, but: http://p/6_720P.flv: the origin answered 404"),
    OSS.format("http://p/6_720P.flv: has 12 bytes, but 13 were uploaded"),
    OSS.format("http://p/6_720P.flv: its CRC-64 is 12, but 13 was uploaded"),
    OSS.format("no ECS host is set up; set ECS_HOSTS"),
    # recordings
    "c-1: http://h/6666.flv: the origin answered 404",
    "c-1: http://h/6666.flv: no answer within 10 s",
    f"c-1: http://h/6666.flv: no answer: ConnectError {SAID}",
    f"c-1: http://h/6666.flv: its answer cannot be read: {SAID}",
    "c-1: http://h/6666.flv: more than 3 redirects, the last one to http://g/6666.flv",
    "c-1: http://h/6666.flv: its ETag has 300 characters",
    "c-1: http://h/6666.flv: has 2 different content-length",
    "c-1: http://h/6666.flv: no file has the CRC-64 'abc'",
    "c-1: http://h/6666.flv: no file has the CRC-64 '123456789012345678901234567890… (40 characters)'",
    "c-1: http://h: 10.0.0.1 is no allowed origin; see ALLOWED_ORIGINS",
    "c-1: http://h/6666.flv: its host has no address",
    "c-1: h: there is no such host",
    "c-1: h: is no host name",
    f"c-1: h: cannot be looked up: {SAID}",
    "c-1: http://h/6666.flv: cannot be looked at: KeyError in go, line 3 of /x/y.py",
    "c-1: the origin does not say how large the recording is",
    "c-1: http://origin.example/a.flv: the recording is empty",
    "c-1: 6666_720P: the origin does not say its length any more",
    "c-1: 6666_720P: given up after 10 runs; see their logs",
    "c-1: 6666_720P: was replaced at its origin while it was downloaded",
    "c-1: 6666_720P: 12 bytes came of 13",
    "c-1: 6666_720P: CRC-64 is 12, the origin says 13",
    "c-1: 6666_720P: its end cannot be decoded",
    "c-1: the download of 6666_720P was cancelled in the UI",
    "c-1: http://h/6666.flv: is larger than the 12 bytes that were reserved for it",
    "c-1: /v/6666.flv.part: has no video, only audio",
    "c-1: /v/6666.flv.part: its pictures are of a kind that is not known",
    "c-1: /v/6666.flv.part: has no video, only no stream at all",
    f"c-1: /v/6666.flv.part: cannot be opened as a recording: {SAID}",
    "c-1: /v/6666.flv.part: not probed within 60 s; is the disk busy?",
    "c-1: /v/6666.flv.part: cannot be made a plain FLV file: no space left on the disk",
    "c-1: /v/6666.flv.part: cannot be made a plain FLV file: ffmpeg was ended from outside; is memory short?",
    f"c-1: /v/6666.flv.part: cannot be aired (the file is empty), nor made a plain FLV file: {SAID}",
    f"c-1: wget: cannot be started ({SAID}); install it (apt-get install wget) or give its path",
    f"c-1: wget: cannot be started: {SAID}",
    "c-1: wget: cannot be started in /x: there is no such folder",
    "c-1: wget: cannot be started: no thread to be had just now",
    "c-1: ffmpeg: not found; install it: apt-get install ffmpeg, or pip install imageio-ffmpeg",
    "c-1: process 12 cannot be ended, not even by KILL; does its disk hang?",
    "c-1: 6_720P cannot be there before the class ends in 60 s: its download of 9.0 MB takes 90 s at DOWNLOAD_RATE 9k",
    # streamers
    "c-1: 6666_720P: no streamer was heard of lately",
    "c-1: streamer1 is lost",
    "c-1: streamer1 is drained; no other streamer can take it",
    (
        "c-1: streamer1: 316 no room for 6666_720P (1.2 GB): booked classes need 12 of 12 renditions (MAX_VIDEO_NUM); "
        "the next place for it is free at 2026-11-26 19:40:00; no other streamer can take it"
    ),
    "c-1: streamer1: 318 http://h/6666.flv: the origin answered 503; no other streamer can take it",
    (
        "streamer1: not heard of for 30 s; 2 classes stay with it, because no streamer is alive that it asks before it "
        "goes on alone"
    ),
    "c-1: h: 10.0.0.1 is no allowed push host; to push there, set ALLOWED_PUSH_HOSTS=public,10.0.0.1",
    "c-1: streamer1 did not say in time that it is ready",
    "c-1: streamer1 never said how it ended",
    "c-1: it ended before its rendition was there",
    # a class on air
    AIR.format(f"the server refuses: {SAID}"),
    AIR.format("h: 10.0.0.1 is no allowed push host; see ALLOWED_PUSH_HOSTS"),
    AIR.format("h has no address"),
    AIR.format("no answer within 5 s"),
    AIR.format("the server did not answer within 10 s, at the step connect"),
    AIR.format("the server took nothing for 5 s"),
    AIR.format("the server closed the connection"),
    AIR.format(f"TLS with the server fails: {SAID}"),
    AIR.format("/x/ca.pem: the certificates to trust cannot be read: it holds none"),
    AIR.format("the server closes the connection"),
    AIR.format("the server closes the session"),
    AIR.format("the server refuses, and gives no reason"),
    AIR.format("the server names no stream to publish on"),
    AIR.format("the server does not answer as RTMP does"),
    AIR.format("the server asks for more answers than it takes"),
    AIR.format("the server sends too much: more than 64 KB within 10 s, or thousands of tiny messages"),
    AIR.format(
        "the server sends too much: more than 1 MB before the class is published, or thousands of tiny messages"
    ),
    AIR.format("the server asks for a user and password, and the push URL has none"),
    AIR.format("the server does not take the user and password of the push URL"),
    AIR.format("the server asks for a login again, and gives nothing to answer"),
    AIR.format("a window that names no number of bytes"),
    AIR.format("messages of more than 16384 bytes that are begun, and do not end"),
    AIR.format("a message of 70000 bytes, which is more than 65536"),
    AIR.format("more than 64 chunk streams"),
    AIR.format("chunks of 1 bytes, which is less than 128"),
    AIR.format("the lease is over"),
    AIR.format("its class is not aired any more"),
    AIR.format("the session's journal does not tell how to go on"),
    AIR.format("the session's journal does not fit what was sent"),
    AIR.format(f"a fault of the playout: {SAID}"),
    "c-1: it falls behind the clock, and 2 s of it were skipped: its receiver takes less than it is sent",
    "c-1: not aired to its end: nobody knows how much of it was sent",
    "c-1: not aired: nothing was sent",
    "c-1: not aired: it was cancelled",
    "c-1: nothing is sent, there is no slate: the slate is missing",
    "c-1: its slate is sent from its start on: the recording is missing",
    "c-1: nothing will be sent, there is no slate: the slate is missing",
    f"c-1: nothing is sent, there is no slate: the slate cannot be read: {SAID}",
    "c-1: its slate is sent: the recording is not read in time: the disk is slow, or hangs",
    "c-1: its slate is sent: the recording has a hole of 3600 s",
    "c-1: its slate is sent: the recording cannot be aired: it is as broken as before",
    "c-1: its slate is sent: the recording cannot be aired: the index does not fit the recording",
    "c-1: its recording cannot be had again: 6666_720P: the recording is missing, and no URL is known",
    "c-1: the playout does not take it: push_urls[0]: the push URL has no host, or a port that is none",
    "c-1: the playout does not take it: the timetable has 10000 classes already, which is all it takes",
    AWAY.format(f"/run/playout.sock: no playout answers there: [Errno 2] {SAID}"),
    AWAY.format("it was not reached yet"),
    AWAY.format("the playout's worker ended before it answered"),
    AWAY.format("the playout's worker ended, or did not answer"),
    AWAY.format("the playout is not there: the worker of the playout ended"),
    # before a class
    RED.format("it is not made yet"),
    RED.format("streamer1 does not have it yet"),
    RED.format("its file is lost: it has 12 bytes, not 13; it is downloaded again"),
    RED.format("its file is lost and cannot be had again: 6_720P: it is not on the disk, and no URL is known"),
    RED.format("its file is lost: it is not on the disk, it was at /home/video/6/6_720P.flv; it is downloaded again"),
    RED.format("it was refused: http://h/6.flv: the origin answered 404"),
    RED.format(f"its check failed: {SAID}"),
    RED.format("its download of 0.9 MB takes 12 min at DOWNLOAD_RATE 100k"),
    RED.format("its push URL cannot be reached: h:1935 does not answer within 5 s; nothing pins its rendition"),
    RED.format("its push URL cannot be reached: the server does not answer within 5 s"),
    RED.format("its push URL cannot be reached: h: 10.0.0.1 is no allowed push host; see ALLOWED_PUSH_HOSTS"),
    "c-1: task_list has 'soon' for a time. Write epoch seconds there. Until then the class is not aired.",
    # messages
    "c-1: it is booked already with other content: record_id 6 -> 7; the first booking stands, it is ready",
    "c-1: its change is refused: c-1: it ends in 3 s, so it cannot be changed any more",
    "c-1: its change is refused: c-1: its end has passed, so it cannot be changed any more",
    "c-1: its change is refused: the class was over before its change was in force",
    "c-1: inbox 12: not handled in 7 runs; see their logs",
    "inbox 12: not handled in 7 runs; see their logs",
    "c-1: not handled in 7 runs; see their logs",
    f"Redis refuses messages for lectern:to:streamer1: WRONGTYPE {SAID}",
    f"Redis does not let order be read: NOPERM {SAID}",
    # parts of a host
    f"streamer1: the disk cannot be written: {SAID}",
    f"teacher: prefect does not work: away for more than 60 s: {SAID}",
    "teacher: runs does not work: Prefect knows no deployment 'booking/teacher'. Type: lectern init teacher",
    "teacher: people does not work: ALARM_URLS: mailto:// (number 1) is no address that apprise knows. See https://g/a",
    (
        "streamer1: playout does not work: ALLOWED_PUSH_HOSTS: '10/8/8' cannot be read; write host, host:port, "
        "10.0.0.0/8 or public"
    ),
    "streamer1: downloads does not work: download rate 'abc': cannot be read; write 1000k, 1.5m or 0 (no limit)",
    "streamer1: class c-1 does not work: KeyError in go, line 3 of /x/y.py",
    "streamer1: rendition x does not work: x: is no rendition; write 6666 or 6666_720P",
    "streamer1: reconcile does not work: /x: is not in the store /v",
]


@pytest.mark.parametrize("text", ALARMS)
def test_no_word_of_ours_in_an_alarm_is_left_in_english(text: str) -> None:
    """Ids, hosts, URLs, numbers and the words of programs stand in the Chinese as they stand in the English."""
    assert left(text) == [], sentence(text)
    assert {*re.findall(r"\d+", text)} <= {*re.findall(r"\d+", sentence(text)), "0"}


@pytest.mark.parametrize("name", [*chinese_alarms.PARTS, "inbox, take back", "the lease of streamer1"])
def test_each_part_of_a_host_has_a_name_in_chinese(name: str) -> None:
    """The name is quoted, so that it can be told from what is said of it."""
    text = f"teacher: {name} does not work: {SAID}"
    assert re.fullmatch(f"teacher：“[^“”]+”不工作：{SAID}", sentence(text))
    assert left(text) == []


GB = 10**9
SOURCE, HALF = Media(1280, 720, 4.0, "h264", "aac"), Media(320, 180, 2.0, None, None)
OUTPUT, PUT = ffmpeg.Output("/w/6_720P.flv", Resolution.P720, 1280, 720), Put("6/6_720P.flv", "http://u/6", "")


def raised(work: Callable[..., object], *given: object) -> str:
    """The words of the error that *work* raises."""
    with pytest.raises((LecternError, NotRtmp, NotAirable, BadRequest)) as caught:
        work(*given)
    return str(caught.value)


def reds() -> Iterator[str]:
    """Why a class is not ready, as its check finds it."""
    for ready, found_bytes, unreadable, damaged in [
        (False, 13, None, None),
        (True, None, None, None),
        (True, 12, None, None),
        (True, 13, SAID, None),
        (True, 13, None, "its CRC-64 is 12, not 13"),
        (True, 13, None, "it ends after 12 s, not 13 s"),
        (True, 13, None, "its end cannot be decoded"),
    ]:
        seen = Seen(ready, 0, 13, found_bytes, unreadable, damaged, f"h:1935: {SAID}", -7.5, lease=False)
        yield readiness.sentence("c-1", "6_720P", -80, readiness.reds(seen))
        if (why := readiness.lost_file(seen)) is not None:
            yield f"c-1: its file is lost: {why}; it is downloaded again"


def of_streamers() -> Iterator[str]:
    """What becomes of a class on its streamer."""
    for size_bytes, usage, bound in [
        (9 * GB, Usage(0, 0), Bound(8 * GB, 9, by_disk=True)),
        (9 * GB, Usage(0, 0), Bound(8 * GB, 9)),
        (9 * GB, Usage(9 * GB, 9), Bound(90 * GB, 9)),
        (9 * GB, Usage(88 * GB, 1), Bound(90 * GB, 9)),
        (9 * GB, Usage(88 * GB, 1), Bound(90 * GB, 9, by_disk=True)),
    ]:
        yield f"c-1: {cache.with_next_place(cache.no_room('6_720P', size_bytes, usage, bound, []), 9.0, 0.0)}"
    yield f"c-1: its recording 6_720P has dead air: {dead_air.Fault('black', 10, 31).text()}; 7 more places"
    yield f"c-1: its recording 6_720P has dead air: {dead_air.Fault('nothing recorded', 3, 3603).text()}"
    yield f"c-1: {not_aired(sent(0, 9, ()), 'the recording is missing')}"
    yield f"c-1: {not_aired(sent(0, 9, [AsRun(0, 1, 'slate', 0, 9, 0, 9)]), 'the server closed the connection')}"
    for what in (*broadcast.STORY, "moved", "placed"):
        events = [Past(5.0, what, "c-1", None, "s1", "the recording is missing")]
        for source in ("recording", "slate"):
            parts = [AsRun(0, 1, "recording", 0, 5, 0, 5), AsRun(0, 2, source, 500, 600, 0, 100)]
            yield f"c-1: {sent(0, 600, parts, events, 'its recording is over').sentence()}; its end has come"
    yield f"streamer1: class c-1 does not work: {ForbiddenMove('c-1', 'aired', 'on air').message}"
    for url in ("http://h:x/", "ftp://h/6.flv", "http://u:p@h/6.flv", "http://h/\x7f", "http://h*/6.flv"):
        yield f"c-1: {raised(origin._split, url)}"
    yield f"c-1: {raised(origin._number, 'http://h/6.flv', 'length', '9' * 40, 9)}"
    yield f"c-1: {raised(origin._number, 'http://h/6.flv', 'length', 'abc', 9)}"
    yield f"c-1: {raised(wget.judge, Finished(('wget',), 3, '', 'No space left on device', 1.0), 'http://h/6.flv')}"
    yield f"c-1: {raised(wget.asked, 'http://h/' + chr(127), None)}"
    yield f"c-1: {process.TimedOut('wget', 9.0, SAID).message}"
    yield f"c-1: {process.Stalled('ffmpeg', 9.0, '').message}"


def of_ecs() -> Iterator[str]:
    """What is wrong with a rendition, or with its source."""
    yield ECS.format(f"{process.TimedOut('sh on ssh://e@h:22', 9.0, '').message}; is its disk busy?")
    yield ECS.format(process.Stalled("ffmpeg on ssh://e@h:22", 9.0, SAID).message)
    yield f"6_720P: {raised(check.check_streams, Media(0, 0, 4.0, None, 'aac'), 'source of 6')}"
    yield f"6_720P: {raised(check.check_streams, Media(8, 6, 4.0, 'h264', None), 'source of 6')}"
    for made, reached_s, tail in [
        (HALF, 2.0, ""),
        (HALF, 4.0, SAID),
        (Media(1280, 720, 4.0, "vp9", "mp3"), 4.0, "no picture"),
        (Media(1280, 720, 4.0, "h264", None), 4.0, "ffmpeg ended with 1"),
        (Media(1280, 720, 4.0, None, "aac"), 4.0, ""),
    ]:
        wanted = Wanted(OUTPUT, SOURCE, reached_s, "6_720P")
        yield f"6_720P: {raised(check.check, wanted, made, Measured(9, ''), tail)}; 1 class refused"
    yield f"6_720P: {raised(upload.judge, PUT, 'ssh://e@h:22', 7, '', SAID)}; 1 class refused"
    yield f"6_720P: {raised(upload.judge, PUT, 'ssh://e@h:22', 22, 'lectern-status 403', SAID)}; 1 class refused"


def of_files() -> Iterator[str]:
    """Why a recording cannot be written, or aired."""
    with pytest.raises(Refuse) as caught, disk.writing("/v/6.flv.part"):
        raise OSError(errno.ENOSPC, SAID)
    yield f"c-1: {caught.value.message}"
    found = Look(99, 4000, has_sound=True, has_picture=True, broken_at=12, records=())
    for head in (b"", b"MP4", b"FLV\x01", b"FLV\x01\x05\0\0\0\x08\0\0\0\0"):
        yield f"c-1: /v/6.flv: cannot be aired: {raised(flv.check_head, head)}"
    yield RED.format(f"its file is damaged: {raised(index.check, found)}")
    yield "c-1: /v/6: is a symbolic link, which may lead anywhere; take it away"
    for why in (
        "the file has neither pictures nor sound",
        "the file has pictures, but no keyframe to begin with",
        "its times go back by 3.5 s, at byte 12",
        "its times do not go on: all of it is at one moment",
        "it has more than 1000 tags a second, at byte 12",
        "it has more than 200000 keyframes and headers",
        "the pictures cannot be decoded: the header that must come before is missing",
        "the sound cannot be decoded: the header that must come before is missing",
        flv.codec_fault(flv.PICTURE, b"\x1f"),
    ):
        yield f"c-1: /v/6.flv: cannot be aired: {why}"


def of_pushes() -> Iterator[str]:
    """Why a push does not come about."""
    for url in ("http://h/a/s", "rtmp://h:0/a/s"):
        yield AIR.format(raised(target, url))
    for data in (b"\x0d", b"\x00", b"\x0a\0\0\0\x01" * 20):
        yield AIR.format(raised(amf0.decode, data))
    untrusted = ssl.SSLCertVerificationError(1, SAID)
    untrusted.verify_message = SAID
    for error in (socket.gaierror(-2, SAID), untrusted):
        yield AIR.format(link.words(error))
    good = {"class_id": "c-1", "file": "/v/1.flv", "push_urls": ["rtmp://h/a/s"], "start": 1.0, "end": 2.0}
    faults: list[dict[str, object]] = [
        {"push_urls": []},
        {"push_urls": ["http://h/a"]},
        {"class_id": ""},
        {"file": "v"},
        {"start": "x"},
        {"end": 1.0},
        {"networks": ["x"]},
    ]
    for bad in faults:
        yield f"c-1: the playout does not take it: {raised(lesson, {**good, **bad})}"
    with pytest.raises(ValueError, match="must name") as caught:
        urls.push("rtmp://h")
    yield RED.format(f"its push URL cannot be reached: the push URL {caught.value}")


@pytest.mark.parametrize("text", [*reds(), *of_streamers(), *of_ecs(), *of_files(), *of_pushes()])
def test_what_the_product_makes_of_a_failure_is_said_in_chinese(text: str) -> None:
    """The sentence comes from the function that says it, so that a word that changes there is missed here."""
    assert left(text) == [], sentence(text)


BOOKING = {"cmd": "order", "class_id": "c-1", "start_time": 1.0, "end_time": 2.0, "push_url": "rtmp://h/a/s"}
RESULT = {"cmd": "transcoding", "record_id": 6, "video_resolution": "720P"}
HERE = {**BOOKING, "video_url": "http://h/6.flv"}
BODIES: list[Mapping[str, object] | list[object]] = [
    [],
    {},
    {"cmd": "order", "class_id": "c-1"},
    BOOKING,
    {**HERE, "institution_id": "a\0b"},
    {**HERE, "end_time": 0.5},
    {**HERE, "video_resolution": "720P"},
    {**BOOKING, "video_resolution": "8K", "video_url": "ftp://h/6.flv", "institution_id": "a b"},
    {**BOOKING, "video_url": 7, "start_time": "soon", "end_time": True, "record_id": 1.5, "video_url_list": 7},
    {**HERE, "record_id": -1, "start_time": 0, "end_time": 5e9},
    {**HERE, "record_id": 6, "video_resolution": "720P", "video_url_list": {"720P": "ftp://h/6.flv"}},
    {**BOOKING, "push_url": "rtmp://h", "video_url": f"http://h/{'6' * 3000}"},
    {**BOOKING, "push_url": "rtmp://h:99999/a/s", "video_url": "http://h 7/6.flv"},
    {**BOOKING, "push_url": f"rtmp://{'h' * 70}/a/s", "video_url": "http://1.2.3/6.flv"},
    {**HERE, "push_url": "rtmp://a\\b@h/a/s"},
    {**HERE, "push_url": f"rtmp://{'é' * 99}/a/s"},
    {**HERE, "push_url_backup": "rtmp://h/a/s"},
    {**HERE, "push_url_backup": "rtmp://h/a/t", "class_id": "c" * 250},
    {"cmd": "change", "class_id": "c-1"},
    {"cmd": "change", "class_id": "c-1", "end_time": 5, "institution_id": "i-8"},
    {**RESULT, "result": "maybe"},
    {**RESULT, "result": "success"},
    {**RESULT, "result": "failed"},
    {"cmd": "ended", "class_id": "c-1", "streamer": "streamer1", "result": "maybe", "code": -1, "as_run": 7},
]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: json.dumps(body)[:70])
def test_what_is_wrong_with_a_message_is_said_in_chinese(body: Mapping[str, object] | list[object]) -> None:
    """Each fault of it; the names of its fields and commands stay, because the sender looks for them."""
    with pytest.raises(Malformed) as caught:
        commands.parse(json.dumps(body), (Booking, Cancel, Change, TranscodingResult, Report))
    text = f"c-1: {caught.value.message}"
    assert left(text) == [], sentence(text)


def test_a_message_that_is_too_long_is_said_to_be_so() -> None:
    """Such a message is read no further."""
    with pytest.raises(Malformed) as caught:
        commands.parse("x" * 99_999, (Booking,))
    assert left(caught.value.message) == []


@pytest.mark.parametrize("says", [chinese_alarms.FORMS, chinese_reasons.SAYS, chinese_transcoding.SAYS], ids=len)
def test_each_sentence_has_its_gaps_in_chinese(says: Mapping[str, str]) -> None:
    """A gap that is left out would lose a number, or the words of a program."""
    for english, chinese in says.items():
        assert sorted(re.findall(r"{\w+}", chinese)) == sorted(re.findall(r"{\w+}", english)), english


@pytest.mark.parametrize("text", ["404 Not Found", "Conversion failed!", "a: b; c: d", "frame=12; it: slow", "x" * 900])
def test_the_words_of_a_program_stay_as_they_are(text: str) -> None:
    """Also those that begin as ours do, and those that stand together."""
    assert message(208, f"6_720P: {text}") == f"{CODES[208].chinese.meaning}：6_720P: {text}"


@pytest.mark.parametrize("odd", ["316 ", "not aired: ", "a: ", "its file is gone; ", "its file is lost: "])
def test_no_message_is_so_odd_that_it_cannot_be_told(odd: str) -> None:
    """A result of a transcoder may say anything; what is too deep, or too much, stays English."""
    assert sentence(odd * 3000)
