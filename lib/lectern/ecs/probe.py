"""Checks files on an ECS host by ffprobe there: what a recording is, and whether a rendition of it is good."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lectern import errors, subprocesses
from lectern.ecs import ssh
from lectern.errors import CallAPerson, Refuse, TryAgain
from lectern.i18n import Text, joined, labelled, msgid
from lectern.media import ffmpeg
from lectern.settings import TeacherSettings

LOOK_S = 60.0
MISSING = frozenset({126, 127})
"""The exit codes by which a shell says that a program cannot be run."""

_BY_ITSELF = frozenset({0, 1})
"""The exit codes of ffprobe; of a killed one, a shell says 128 and the signal's number, and SSH -1."""

_LEAST_BYTES_S = 100  # less than that is no picture
_ON_ITS_SIDE = re.compile(r"-?(90|270)(\.0*)?")
_NO_CURL, _NOT_MOVED = 97, 98
# A host without curl could not upload a rendition, so it must not make one.
_MOVE = f'command -v "$1" >/dev/null || exit {_NO_CURL}; mv -f -- "$2" "$3" || exit {_NOT_MOVED}; shift 3; exec "$@"'

# One command finds out all about an output: starting a second one would cost as much as its work.
_CHECK = r"""
{look}; printf '\nlectern-look %s\n' "$?"; stat -c %s -- {file}; md5sum <{file}
"""


@dataclass(frozen=True)
class Media:
    """What a recording consists of; *video* is None if there is no picture, *audio* if there is no sound."""

    width: int
    height: int
    duration_s: float
    video: str | None
    audio: str | None


def missing(connection: ssh.SshConnection, program: str, package: str) -> CallAPerson:
    """The error to raise if the host lacks *program*, which *package* has."""
    text = msgid("{host}: {program} cannot be run; type there: apt-get install {package}")
    return CallAPerson(text, host=connection.host, program=program, package=package)


async def look(
    connection: ssh.SshConnection, path: str, settings: TeacherSettings, thing: str, *, was: str | None = None
) -> Media:
    """Look at a file by ffprobe; if it has just been fetched, first rename it from *was* to *path*.

    Raises Refuse(BAD_RECORDING) if it is no recording, TryAgain if there is no such file or ffprobe was killed,
    CallAPerson if the host has no ffprobe, or no curl to upload the renditions.
    """
    moving = [] if was is None else ["sh", "-c", _MOVE, "lectern", settings.ecs_curl, was, path]
    finished = await _look(connection, [*moving, *_probe_argv(settings.ecs_ffprobe, path)])
    if moving and finished.returncode == _NO_CURL:
        raise missing(connection, settings.ecs_curl, "curl")
    if moving and finished.returncode == _NOT_MOVED:
        raise TryAgain(labelled(connection.host, finished.last_words))
    _ended_itself(connection, settings.ecs_ffprobe, finished.returncode)
    return _recording(finished.output, finished.last_words, thing, errors.BAD_RECORDING)


def _ended_itself(connection: ssh.SshConnection, ffprobe: str, returncode: int) -> None:
    """Raise CallAPerson if the host has no *ffprobe*, TryAgain if a signal ended it: then nobody looked at the file."""
    if returncode in MISSING:
        raise missing(connection, ffprobe, "ffmpeg")
    if returncode not in _BY_ITSELF:
        text = msgid("{host}: ffprobe was killed ({returncode}); has it too little memory?")
        raise TryAgain(text, host=connection.host, returncode=returncode)


def _probe_argv(ffprobe: str, path: str) -> list[str]:
    entries = "stream=codec_type,codec_name,width,height:stream_disposition=attached_pic:format=duration"
    entries += ":stream_tags=rotate:stream_side_data=rotation"  # older and newer ffmpeg tell it in different places
    return [ffprobe, "-v", "error", "-show_entries", entries, "-of", "json", *ffmpeg.LOCAL, "-i", f"file:{path}"]


def _recording(probed: str, said: str, thing: str, code: errors.ErrorCode) -> Media:
    if (found := _media_of_json(probed)) is None:
        raise Refuse(
            "{thing}: is not playable: {reason}", code, thing=thing, reason=said or Text("no stream, or no duration")
        )
    return found


def check_streams(source: Media, thing: str) -> None:
    """Raise Refuse(HALF_A_RECORDING) if picture or sound is missing: a class needs both, and no other host helps."""
    if source.video is None:
        raise Refuse(
            "{thing}: has sound ({audio}), but no picture", errors.HALF_A_RECORDING, thing=thing, audio=source.audio
        )
    if source.audio is None:
        picture = f"{source.video}, {source.width}x{source.height}"
        raise Refuse(
            "{thing}: has a picture ({picture}), but no sound", errors.HALF_A_RECORDING, thing=thing, picture=picture
        )


async def _look(connection: ssh.SshConnection, argv: Sequence[str]) -> subprocesses.Finished:
    try:
        return await connection.run(argv, timeout_s=LOOK_S)
    except subprocesses.TimedOut as error:
        raise TryAgain("{host}: {error}; is its disk busy?", host=connection.host, error=error.message) from error


@dataclass(frozen=True)
class Wanted:
    """What a rendition is to be: *output*, made of *source*, of which ffmpeg could read *reached_s* seconds."""

    output: ffmpeg.Output
    source: Media
    reached_s: float
    thing: str


async def made_well(connection: ssh.SshConnection, settings: TeacherSettings, wanted: Wanted) -> tuple[int, str]:
    """Size in bytes and MD5, in hexadecimal, of a rendition that is good.

    Raises Refuse if the source is at fault, TryAgain if we are.
    """
    path = wanted.output.path
    probe = shlex.join(_probe_argv(settings.ecs_ffprobe, path))
    finished = await _look(connection, ["sh", "-c", _CHECK.format(look=probe, file=shlex.quote(path))])
    json_text, _, measured = finished.output.partition("\nlectern-look ")
    try:
        looked, size, md5, *_ = measured.split()
    except ValueError as error:
        text = msgid("{host}: {path} cannot be read: {last_words}")
        raise TryAgain(text, host=connection.host, path=path, last_words=finished.last_words) from error
    _ended_itself(connection, settings.ecs_ffprobe, int(looked))
    check(wanted, _recording(json_text, finished.last_words, wanted.thing, errors.TRANSCODE_FAILED), int(size))
    return int(size), md5


def check(wanted: Wanted, made: Media, size_bytes: int) -> None:
    """Raise if *made* is not what is *wanted*: Refuse if the source is at fault, TryAgain if the transcoding is."""
    output, source, reached_s, thing = wanted.output, wanted.source, wanted.reached_s, wanted.thing
    slack_s = max(0.25, source.duration_s * 0.01)
    if abs(reached_s - source.duration_s) > slack_s >= abs(made.duration_s - reached_s):
        found = Text(
            "only {reached_s:.1f} s can be read, but the source says {duration_s:.1f} s",
            reached_s=reached_s,
            duration_s=source.duration_s,
        )
        raise Refuse(
            "{thing}: {found}; it is truncated, or was never finished", errors.BAD_RECORDING, thing=thing, found=found
        )
    wrong: list[str] = []
    size, wanted_size = (f"{one.width}x{one.height}" for one in (made, output))
    if size != wanted_size:
        wrong.append(Text("is {size}, not {wanted}", size=size, wanted=wanted_size))
    if (made.video, made.audio) != ("h264", source.audio):
        has = Text(
            "has {picture} and {sound}, not h264 and {wanted}",
            picture=made.video or Text("no picture"),
            sound=made.audio or Text("no sound"),
            wanted=source.audio,
        )
        wrong.append(has)
    if abs(made.duration_s - source.duration_s) > slack_s:
        wrong.append(
            Text(
                "is {duration_s:.1f} s long, but the source says {source_s:.1f} s",
                duration_s=made.duration_s,
                source_s=source.duration_s,
            )
        )
    if size_bytes < _LEAST_BYTES_S * source.duration_s:
        wrong.append(Text("has only {size_bytes} bytes", size_bytes=size_bytes))
    if wrong:
        raise TryAgain(labelled(thing, joined(wrong)), errors.TRANSCODE_FAILED)


def _media_of_json(text: str) -> Media | None:
    """The media that ffprobe describes in *text*; None if that can be no recording, not even half of one."""
    try:
        found = json.loads(text)
        duration_s, streams = float(found["format"]["duration"]), found["streams"]
        pictures = [one for one in streams if one["codec_type"] == "video" and not one["disposition"]["attached_pic"]]
        sounds = [one["codec_name"] for one in streams if one["codec_type"] == "audio"]
        width, height = _as_shown(pictures[0]) if pictures else (0, 0)
        video = pictures[0]["codec_name"] if pictures else None
    except (ValueError, KeyError, TypeError):
        return None
    if duration_s <= 0 or (pictures and min(width, height) < 1) or not (pictures or sounds):
        return None
    return Media(width, height, duration_s, video, sounds[0] if sounds else None)


def _as_shown(picture: dict[str, Any]) -> tuple[int, int]:
    """Width and height as players show it and ffmpeg encodes it: that of a phone may be recorded lying on its side."""
    size = int(picture["width"]), int(picture["height"])
    turns = [one.get("rotation") for one in picture.get("side_data_list", ())] + [picture.get("tags", {}).get("rotate")]
    return size[::-1] if any(_ON_ITS_SIDE.fullmatch(str(one)) for one in turns) else size
