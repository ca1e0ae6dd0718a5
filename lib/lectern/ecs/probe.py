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

_TAIL_S = 3
_WHOLE_S = 10.0  # a shorter file is decoded whole: ffmpeg finds no way into an FLV file with a single keyframe
_LEAST_BYTES_S = 100  # less than that is no picture
_ON_ITS_SIDE = re.compile(r"-?(90|270)(\.0*)?")
_REPORT = re.compile(r"\w+=.*")
_NO_PICTURE = Text("no picture")
_NO_CURL, _NOT_MOVED = 97, 98
# A host without curl could not upload a rendition, so it must not make one.
_MOVE = f'command -v "$1" >/dev/null || exit {_NO_CURL}; mv -f -- "$2" "$3" || exit {_NOT_MOVED}; shift 3; exec "$@"'

# One command finds out all about an output: starting a second one would cost as much as its work.
_CHECK = r"""
( {look}; printf '\nlectern-look %s\n' "$?"; stat -c %s -- {file}; md5sum <{file} ) &
tail=$({tail} 2>&1); code=$?; wait
printf '\nlectern-tail %s\n' "$code"; printf '%s\n' "$tail" | tail -c 3000
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


async def _look(connection: ssh.SshConnection, argv: Sequence[str], least_s: float = 0.0) -> subprocesses.Finished:
    try:
        return await connection.run(argv, timeout_s=max(LOOK_S, least_s))
    except subprocesses.TimedOut as error:
        raise TryAgain("{host}: {error}; is its disk busy?", host=connection.host, error=error.message) from error


@dataclass(frozen=True)
class Wanted:
    """What a rendition is to be: *output*, made of *source*, of which ffmpeg could read *reached_s* seconds."""

    output: ffmpeg.Output
    source: Media
    source_path: str
    reached_s: float
    thing: str


async def made_well(connection: ssh.SshConnection, settings: TeacherSettings, wanted: Wanted) -> tuple[int, str]:
    """Size in bytes and MD5, in hexadecimal, of a rendition that is good.

    Raises Refuse if the source is at fault, TryAgain if we are.
    """
    path = wanted.output.path
    probe, argv = (
        shlex.join(_probe_argv(settings.ecs_ffprobe, path)),
        _tail_argv(settings.ecs_ffmpeg, wanted, path, _TAIL_S),
    )
    script = _CHECK.format(look=probe, tail=shlex.join(argv), file=shlex.quote(path))
    finished = await _look(connection, ["sh", "-c", script])
    json_text, _, rest = finished.output.partition("\nlectern-look ")
    measured, _, report = rest.partition("\nlectern-tail ")
    try:
        looked, size, md5, *_ = measured.split()
    except ValueError as error:
        text = msgid("{host}: {path} cannot be read: {last_words}")
        raise TryAgain(text, host=connection.host, path=path, last_words=finished.last_words) from error
    _ended_itself(connection, settings.ecs_ffprobe, int(looked))
    made, end = _recording(json_text, finished.last_words, wanted.thing, errors.TRANSCODE_FAILED), _end_of(report)
    if end == _NO_PICTURE:
        end = await _earlier_end(connection, settings.ecs_ffmpeg, wanted)
    check(wanted, made, int(size), end)
    return int(size), md5


async def _earlier_end(connection: ssh.SshConnection, program: str, wanted: Wanted) -> str:
    """What is wrong with a picture that ends before the sound; nothing if that of the source ends there, too.

    A recorded screen on which nothing moves has no picture for long. More is looked at until there is one.
    """

    async def tail(path: str, last_s: int) -> str:
        ended = await _look(connection, _tail_argv(program, wanted, path, last_s), last_s)  # as long as it plays
        report = f"\n{ended.output}"[-2000:].partition("\n")[2]  # of a long one the last whole lines
        return _end_of(f"{ended.returncode}\n{ended.errors}\n{report}")

    end: str = _NO_PICTURE
    last_s = _TAIL_S
    while end == _NO_PICTURE and last_s < wanted.source.duration_s:
        if await tail(wanted.source_path, last_s) != _NO_PICTURE:
            break
        last_s *= 4
        end = await tail(wanted.output.path, last_s)
    return end


def _tail_argv(program: str, wanted: Wanted, path: str, last_s: int) -> list[str]:
    """The command line that decodes the picture of the last *last_s* seconds of a source, or of what is made of it."""
    argv = [program, "-v", "error", "-nostdin", "-progress", "pipe:1", *ffmpeg.LOCAL]
    argv += ["-sseof", f"-{last_s}"] if wanted.source.duration_s > _WHOLE_S else []
    return [*argv, "-i", f"file:{path}", "-map", "0:v:0", "-f", "null", "-"]


def _end_of(tail: str) -> str:
    """What is wrong with the picture of the last seconds, by ffmpeg's exit code and output; empty if nothing is."""
    code, _, said = tail.partition("\n")
    errors = [line for line in said.splitlines() if line.strip() and not _REPORT.fullmatch(line)]
    if code != "0" or errors:
        return errors[-1].strip() if errors else Text("ffmpeg ended with {code}", code=code)
    frames = re.findall(r"^frame=\s*(\d+)", said, re.MULTILINE)
    return "" if frames and int(frames[-1]) > 0 else _NO_PICTURE


def check(wanted: Wanted, made: Media, size_bytes: int, tail: str) -> None:
    """Raise if *made* is not what is *wanted*: Refuse if the source is at fault, TryAgain if the transcoding is.

    *tail* says what is wrong with the rendition's end, or is empty.
    """
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
    if tail:
        wrong.append(Text("does not decode at its end ({tail})", tail=tail))
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
