"""The part of wget that lectern uses, for machines that have no wget."""

import argparse
import contextlib
import errno
import http.client
import shlex
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import IO

OK, FILE_ERROR, NETWORK_FAILURE, SERVER_ERROR = 0, 3, 4, 8
"""Exit codes, as wget's manual numbers them; wrong arguments are 2."""

_CHUNK_BYTES = 64 * 1024
_UNITS = {"k": 1024, "m": 1024**2, "g": 1024**3}
_LONGEST_WAIT_S = 10
_AS_IT_IS = "%/:?#[]@!$&'()*+,;=~"  # of a URL; what has no place in one, a blank above all, is escaped as wget does


def write_shim(path: Path) -> Path:
    """Make *path* a command that behaves like wget, run by this Python."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m lectern.demo.wget "$@"\n')
    path.chmod(0o755)
    return path


def main(arguments: list[str] | None = None) -> int:
    """Fetch one URL, or send a file to it; the exit code is wget's."""
    given = _parse(arguments)
    if given.spider:
        return _look(given)
    if given.method == "PUT":
        return _put(given)
    return _fetch(given)


def _fetch(given: argparse.Namespace) -> int:
    download = _Download(given)
    for attempt in range(1, given.tries + 1 if given.tries else sys.maxsize):
        try:
            download.attempt(resume=given.resume or attempt > 1)
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and download.size:
                download.say("The file is already complete; there is nothing to do.")
                return OK
            download.say(f"{given.url}: ERROR {error.code}: {error.reason}.")  # wget's words, for they are read
            return SERVER_ERROR
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, OSError) and (error.filename is not None or error.errno == errno.ENOSPC):
                download.say(f"{given.output}: {error.strerror}")
                return FILE_ERROR
            download.say(f"{given.url}: attempt {attempt} failed at byte {download.size}: {error}")
            if isinstance(getattr(error, "reason", error), ConnectionRefusedError):
                return NETWORK_FAILURE  # wget does not try these again either
        else:
            return OK
        if attempt != given.tries:
            time.sleep(min(attempt, _LONGEST_WAIT_S))
    return NETWORK_FAILURE


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="wget", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("-c", "--continue", dest="resume", action="store_true", help="go on with a partial file")
    parser.add_argument("--limit-rate", type=_rate, metavar="RATE", help="bytes a second, with k, m or g")
    parser.add_argument("-O", "--output-document", dest="output", type=Path, metavar="FILE")
    parser.add_argument("-t", "--tries", type=int, default=20, metavar="N", help="0: without end")
    parser.add_argument("-T", "--timeout", type=float, default=900.0, metavar="S")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("-nv", "--no-verbose", action="store_true", help="accepted: it never says more")
    parser.add_argument("--header", action="append", default=[], type=_header, metavar="NAME: VALUE")
    parser.add_argument("--max-redirect", type=int, default=20, metavar="N")
    parser.add_argument("--progress", help="accepted: no progress is shown")
    parser.add_argument("-S", "--server-response", action="store_true")
    parser.add_argument("--spider", action="store_true", help="only ask whether the file is there")
    parser.add_argument("--no-proxy", action="store_true", help="whatever the environment says")
    parser.add_argument("--no-config", action="store_true", help="accepted: it reads none")
    parser.add_argument("--no-netrc", action="store_true", help="accepted: it reads none")
    parser.add_argument("--method", choices=["GET", "PUT"], default="GET")
    parser.add_argument("--body-file", type=Path, metavar="FILE", help="what is sent")
    parser.add_argument("-i", "--input-file", choices=["-"], help="the URL is the first line of standard input")
    parser.add_argument("url", metavar="URL", type=_url, nargs="?")
    given = parser.parse_args(arguments)
    if given.input_file:
        given.url = _url(sys.stdin.readline().strip())
    elif given.url is None:
        parser.error("missing URL")
    given.output = given.output or Path(Path(urllib.parse.urlsplit(given.url).path).name or "index.html")
    return given


def _rate(text: str) -> float:
    unit = _UNITS.get(text[-1:].lower())
    return float(text[:-1]) * unit if unit else float(text)


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME: VALUE")
    return name.strip(), value.strip()


def _url(text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise argparse.ArgumentTypeError(f"{text!r}: only http and https are known")
    return urllib.parse.quote(text, safe=_AS_IT_IS)


def _look(given: argparse.Namespace) -> int:
    """Ask for the head of the answer."""
    request = urllib.request.Request(given.url, headers={"User-Agent": "Wget", **dict(given.header)}, method="HEAD")
    return _asked(given, request)


def _put(given: argparse.Namespace) -> int:
    """Send a file, once."""
    headers = {"User-Agent": "Wget", "Content-Length": str(given.body_file.stat().st_size), **dict(given.header)}
    with given.body_file.open("rb") as body:
        return _asked(given, urllib.request.Request(given.url, data=body, headers=headers, method="PUT"))


def _asked(given: argparse.Namespace, request: urllib.request.Request) -> int:
    """Send a request, once; the answer's head is said where that is asked for."""
    direct = [urllib.request.ProxyHandler({})] if given.no_proxy else []
    opener = urllib.request.build_opener(_Redirects(given.max_redirect), *direct)
    try:
        with opener.open(request, timeout=given.timeout) as answer:
            if given.server_response:
                head = [f"HTTP/1.1 {answer.status} {answer.reason}", *(f"{n}: {v}" for n, v in answer.headers.items())]
                print("\n".join(f"  {line}" for line in head), file=sys.stderr)
    except urllib.error.HTTPError as error:
        print(f"{given.url}: ERROR {error.code}: {error.reason}.", file=sys.stderr)
        return SERVER_ERROR
    except (OSError, http.client.HTTPException) as error:
        print(f"{given.url}: failed: {error}", file=sys.stderr)
        return NETWORK_FAILURE
    return OK


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows at most so many redirects; the next one counts as the server's error."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def redirect_request(  # urllib calls it so
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: http.client.HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        self._left -= 1
        return super().redirect_request(req, fp, code, msg, headers, newurl) if self._left >= 0 else None


class _Download:
    """The URL's way into the file, over several attempts."""

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._file: Path = given.output

    @property
    def size(self) -> int:
        """Bytes that the file has."""
        with contextlib.suppress(FileNotFoundError):
            return self._file.stat().st_size
        return 0

    def say(self, text: str) -> None:
        """Tell the person, unless quiet."""
        if not self._given.quiet:
            print(text, file=sys.stderr, flush=True)

    def attempt(self, *, resume: bool) -> None:
        """Fetch all, or what the file lacks; raises OSError or HTTPException where the network gives way."""
        start = self.size if resume else 0
        request = urllib.request.Request(self._given.url, headers={"User-Agent": "Wget", **dict(self._given.header)})
        if start:
            request.add_header("Range", f"bytes={start}-")
        direct = [urllib.request.ProxyHandler({})] if self._given.no_proxy else []
        opener = urllib.request.build_opener(_Redirects(self._given.max_redirect), *direct)
        with (
            self._file.open("ab" if start else "wb") as sink,
            opener.open(request, timeout=self._given.timeout) as answer,
        ):
            if self._given.server_response:
                self.say("\n".join(f"  {name}: {value}" for name, value in answer.headers.items()))
            # A server that sends the whole file nevertheless: as in wget, what is there already is passed over.
            skip = start if answer.status != http.HTTPStatus.PARTIAL_CONTENT else 0
            self._copy(answer, sink, skip)
        self.say(f"{self._given.url} -> {self._file} [{self.size}]")

    def _copy(self, answer: http.client.HTTPResponse, sink: IO[bytes], skip: int) -> None:
        began, passed, rate = time.monotonic(), 0, self._given.limit_rate
        chunk_bytes = max(1, min(_CHUNK_BYTES, int(rate / 10))) if rate else _CHUNK_BYTES
        expected = answer.length
        while chunk := answer.read1(chunk_bytes):
            sink.write(chunk[max(0, skip - passed) :])
            passed += len(chunk)
            if rate:
                time.sleep(max(0.0, began + passed / rate - time.monotonic()))
        if expected is not None and passed < expected:
            raise http.client.IncompleteRead(b"", expected - passed)


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # Python would go on, where wget is ended by a file that is too large
    sys.exit(main())
