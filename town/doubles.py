"""What lectern uses of wget, curl and ffprobe, for a machine that has none.

python -m town.doubles wget|curl|ffprobe ARGUMENTS
"""

import argparse
import json
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import httpx
from av.stream import Disposition

_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}


def write(name: str, folder: Path) -> Path:
    """Make *name* a command in *folder* that behaves like the program, run by this Python."""
    path = folder / name
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m town.doubles {name} "$@"\n')
    path.chmod(0o755)
    return path


def wget(words: Sequence[str]) -> int:
    """Fetch a URL into a file, once; returns wget's exit code."""
    parser = argparse.ArgumentParser(prog="wget", allow_abbrev=False)
    parser.add_argument("-c", dest="resume", action="store_true")
    parser.add_argument("-O", dest="file", type=Path)
    parser.add_argument("--timeout", type=float, default=900.0)
    parser.add_argument("--limit-rate", type=_rate, default=0.0)
    parser.add_argument("--input-file", action="store_true")
    given, others = parser.parse_known_args([word.replace("--input-file=-", "--input-file") for word in words])
    url = sys.stdin.readline().strip() if given.input_file else others[-1]
    start = given.file.stat().st_size if given.resume and given.file.exists() else 0
    headers = {"User-Agent": "Wget", "Accept-Encoding": "identity", **({"Range": f"bytes={start}-"} if start else {})}
    try:
        with (
            httpx.Client(trust_env=False, timeout=given.timeout) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if start and answer.status_code == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                return 0  # it is whole already
            if not answer.is_success:
                return _fails(8, f"{url}: ERROR {answer.status_code}: {answer.reason_phrase}.")
            _save(answer, given.file, given.limit_rate)
    except httpx.HTTPError as error:
        return _fails(4, f"{url}: {error}")
    except OSError as error:
        return _fails(3, f"{given.file}: {error.strerror}")
    return 0


def curl(words: Sequence[str]) -> int:
    """PUT a file to the URL that is read from standard input; returns curl's exit code."""
    parser = argparse.ArgumentParser(prog="curl", allow_abbrev=False)
    parser.add_argument("--header", action="append", default=[])
    parser.add_argument("--upload-file", type=Path, required=True)
    parser.add_argument("--write-out", default="")
    given, _ = parser.parse_known_args(words)
    quoted = re.search(r'url = "(.*)"', sys.stdin.read())
    url = re.sub(r"\\(.)", r"\1", quoted[1]) if quoted else ""
    headers = dict(line.split(": ", 1) for line in given.header if ": " in line)
    status, code = 0, 0
    try:
        with given.upload_file.open("rb") as body:
            answer = httpx.put(url, content=body, headers=headers, trust_env=False, timeout=30)
        status = answer.status_code
        print(f"HTTP/1.1 {status} {answer.reason_phrase}", *map(": ".join, answer.headers.items()), sep="\n")
        print("", answer.text, sep="\n")
    except httpx.HTTPError as error:
        code = 7 if isinstance(error, httpx.ConnectError) else 56
        print(f"curl: ({code}) {error}", file=sys.stderr)
    print(given.write_out.replace("%{http_code}", f"{status:03}").replace("\\n", "\n"), end="")
    return code


def ffprobe(words: Sequence[str]) -> int:
    """Print the streams and the length of a file as JSON."""
    path = words[words.index("-i") + 1]
    try:
        with av.open(path, options={"protocol_whitelist": "file"}) as media:
            streams = [
                {
                    "codec_type": stream.type,
                    "codec_name": stream.codec_context.name,
                    "width": getattr(stream, "width", None),
                    "height": getattr(stream, "height", None),
                    "disposition": {"attached_pic": int(Disposition.attached_pic in stream.disposition)},
                }
                for stream in (*media.streams.video, *media.streams.audio)
            ]
            told = {"duration": str(media.duration / av.time_base)} if media.duration else {}
    except (av.FFmpegError, OSError) as error:
        return _fails(1, f"{path}: {error.strerror}")
    print(json.dumps({"streams": streams, "format": told}))
    return 0


PROGRAMS: dict[str, Callable[[Sequence[str]], int]] = {"wget": wget, "curl": curl, "ffprobe": ffprobe}


def _save(answer: httpx.Response, file: Path, rate: float) -> None:
    """Write what comes, no quicker than *rate* bytes a second (0: no limit); a part goes behind what is there."""
    began, passed = time.monotonic(), 0
    is_part = answer.status_code == httpx.codes.PARTIAL_CONTENT
    with file.open("ab" if is_part else "wb", buffering=0) as sink:
        for chunk in answer.iter_raw():
            sink.write(chunk)
            passed += len(chunk)
            if rate:
                time.sleep(max(0.0, began + passed / rate - time.monotonic()))


def _rate(text: str) -> float:
    unit = _UNITS.get(text[-1:].lower())
    return float(text[:-1]) * unit if unit else float(text)


def _fails(code: int, text: str) -> int:
    print(text, file=sys.stderr)
    return code


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python would go on; a file that is too large ends the program
    sys.exit(PROGRAMS[sys.argv[1]](sys.argv[2:]))
