"""How times, lengths, amounts and files are written for people: in the host's own time, in units that people use."""

import os
import time
from unicodedata import east_asian_width

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def moment(at: float) -> str:
    """The date and time of *at* (epoch seconds): ``2026-11-26 19:00:00``."""
    return _written("%Y-%m-%d %H:%M:%S", at)


def clock(at: float) -> str:
    """The time of day of *at* (epoch seconds), if the reader knows the date: ``19:00:00``."""
    return _written("%H:%M:%S", at)


def tenths(at: float) -> str:
    """The date and time of *at* (epoch seconds) to the tenth of a second: ``2026-11-26 19:00:00.5``."""
    second, tenth = divmod(round(at * 10), 10)
    return f"{moment(second)}.{tenth}"


def when(at: float, now: float) -> str:
    """The time of day of *at* (epoch seconds), with its date unless that is the date of *now*."""
    return clock(at) if _written("%F", at) == _written("%F", now) else moment(at)


def zone(at: float) -> str:
    """The name of the host's time zone at *at* (epoch seconds): ``CST``."""
    return _written("%Z", at)


def span(seconds: float) -> str:
    """A length of time: ``45 s``, ``12 min``, ``3 h 5 min``, ``2 d 4 h``."""
    whole = max(int(seconds), 0)
    if whole < 120:
        return f"{whole} s"
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if minutes < 120:
        return f"{minutes} min"
    said = f"{hours} h {minutes % 60} min" if days < 2 else f"{days} d {hours % 24} h"
    return said.removesuffix(" 0 min").removesuffix(" 0 h")


def length(seconds: float) -> str:
    """A length of time to the second: ``1.1 s``, ``16 min 40 s``, ``1 h 5 s``."""
    if seconds < 10:
        return f"{max(seconds, 0.0):.1f}".removesuffix(".0") + " s"
    whole = round(seconds)
    units = ((whole // 3600, "h"), (whole // 60 % 60, "min"), (whole % 60, "s"))
    return " ".join(f"{number} {unit}" for number, unit in units if number)


def minutes(seconds: float) -> str:
    """A length of time in minutes, from 90 s on: ``5 min``, ``80 s``."""
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def position(seconds: float) -> str:
    """A place in a recording: ``4:03``, ``1:04:03``."""
    whole = max(int(seconds), 0)
    hours, minutes = whole // 3600, whole // 60 % 60
    return f"{hours}:{minutes:02}:{whole % 60:02}" if hours else f"{minutes}:{whole % 60:02}"


def size(number_of_bytes: float) -> str:
    """An amount of data: ``0.9 MB``, ``1,074 GB``."""
    if number_of_bytes < 1000:
        return f"{number_of_bytes:.0f} bytes"
    unit, name = next(((unit, name) for unit, name in _UNITS if number_of_bytes >= unit * 0.1), _UNITS[-1])
    found = number_of_bytes / unit
    return f"{found:,.1f} {name}" if found < 100 else f"{found:,.0f} {name}"


def counted(number: int, thing: str, things: str | None = None) -> str:
    """A number and what it counts: ``1 class``, ``1,200 classes``."""
    return f"{number:,} {thing if number == 1 else things or thing + 's'}"


def padded(text: str, cells: int) -> str:
    """*text* with spaces up to *cells* cells of a terminal, of which a Chinese character takes two."""
    taken = sum(2 if east_asian_width(one) in "WF" else 1 for one in text)
    return text + " " * (cells - taken)


def path(file: str | os.PathLike[str]) -> str:
    r"""A file's path; bytes of a name that is no UTF-8, as names in GBK are none, are written as ``\xbf``."""
    return os.fsencode(file).decode("utf-8", "backslashreplace")


def _written(form: str, at: float) -> str:
    try:
        return time.strftime(form, time.localtime(at))
    except (ValueError, OverflowError, OSError):  # no clock shows it; an old database can hold anything
        return f"{at:g} (no time)"
