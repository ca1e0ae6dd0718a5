"""RTMP as a publisher speaks it: pure functions and state machines over bytes, which do no input or output."""

from dataclasses import dataclass, field
from urllib.parse import unquote

from lectern.playout.sentences import sentence


class NotRtmp(Exception):
    """The other side does not keep to RTMP, or refuses; the text says how. The only error of this package."""


PORTS = {"rtmp": 1935, "rtmps": 443}


@dataclass(frozen=True)
class Target:
    """Where to publish: connect to *host* and *port*, then to *app*, as *stream*."""

    host: str
    port: int
    secure: bool
    app: str
    stream: str
    tc_url: str
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)
    query: str = field(default="", repr=False)
    """The login for which the server asked when it refused the connection before."""

    @property
    def shown(self) -> str:
        """The target for people: its server, without user and password, and without the path, which holds the key."""
        return f"{self.tc_url.removesuffix(self.app)}…"


def target(url: str) -> Target:
    """The target of *url*; raises NotRtmp for what we do not speak, and what has no host. Nothing in it is unquoted."""
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in PORTS:
        raise NotRtmp(sentence("the push URL begins neither with rtmp:// nor with rtmps://"))
    cut = min((at for mark in "/?#" if (at := rest.find(mark)) >= 0), default=len(rest))
    place, path = rest[:cut], rest[cut:].partition(" ")[0]
    login, _, place = place.rpartition("@")
    user, _, password = login.partition(":")
    if place.startswith("["):  # an IPv6 address
        host, _, after = place[1:].partition("]")
        digits = after.removeprefix(":")
    else:
        host, _, digits = place.partition(":")
    host = unquote(host)
    is_port = not digits or (digits.isdecimal() and len(digits) <= 5 and 1 <= int(digits) <= 65_535)
    if not host or not is_port:
        raise NotRtmp(sentence("the push URL has no host, or a port that is none"))
    port = int(digits or PORTS[scheme])
    app, stream = _app_and_stream(path)
    is_file = ":" not in stream and stream.endswith((".f4v", ".mp4"))
    stream = f"mp4:{stream}" if is_file else stream.removesuffix(".flv")
    shown_host = f"[{host}]" if ":" in host else host
    tc_url = f"{scheme}://{shown_host}:{port}/{app}"
    return Target(host, port, scheme == "rtmps", app, stream, tc_url, user, password)


def _app_and_stream(path: str) -> tuple[str, str]:
    """App and stream in *path*: the app is one part of it, two if it has three; a query stays in its place."""
    query_at = path.find("?")
    if query_at >= 0 and "slist=" in path[query_at:]:
        return path[1:], path[path.index("slist=") + 6 :].partition("&")[0]
    if path.startswith("/ondemand/"):
        return "ondemand", path[len("/ondemand/") :]
    first = path.find("/", 1)
    if first < 0:
        return path[1:], ""
    second, colon = path.find("/", first + 1), path.find(":", first + 1)
    if second < 0 or 0 <= colon < second:
        return path[1:first], path[first + 1 :]
    return path[1:second], path[second + 1 :]
