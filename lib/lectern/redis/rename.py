"""Renames Redis keys by rules: in short slices on the server, never over another key, and safe to repeat."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, RedisError
from redis.exceptions import ConnectionError as Unreachable
from redis.exceptions import TimeoutError as Silent
from redis.retry import Retry

from lectern.errors import CallAPerson, Misuse, TryAgain
from lectern.i18n import Text
from lectern.redis import connection
from lectern.redis.key_patterns import KINDS, NAME, Rule, check, rules_in

__all__ = ["Renamed", "Rule", "check", "in_words", "next_count", "opened", "renamed", "rules_in"]

TARGET_S = 0.005  # of a slice, during which Redis serves no other client; none should wait for more than 20 ms
FIRST_COUNT, LEAST_COUNT, MOST_COUNT = 500, 100, 20_000
CLASHES_KEPT = 1000  # number of clashes that are named; all are counted

# A name that fits holds neither tab nor line break, so that one string can bring them all. An old Redis has no clock
# for scripts. A key can expire between SCAN and RENAMENX.
_SCRIPT = """
local os, call, match = rawget(_G, 'os'), redis.pcall, string.match
local began = os and os.clock()
local found = redis.call('SCAN', ARGV[1], 'MATCH', {glob}, 'COUNT', ARGV[2])
local clashes, c, matched, free, fault = {{}}, 0, 0, 0, ''
for _, old in ipairs(found[2]) do
  local {captures} = match(old, {pattern})
  if {checks} then
    local new = {new}
    local done = {act}
    if done == {free} then
      matched, free = matched + 1, free + 1
    elseif type(done) == 'number' then
      matched = matched + 1
      clashes[c + 1], clashes[c + 2], clashes[c + 3], clashes[c + 4], c = old, '\\t', new, '\\n', c + 4
    elseif not string.find(done.err, 'no such key', 1, true) then
      fault = done.err
      break
    end
  end
end
local took_us = os and math.floor((os.clock() - began) * 1000000) or -1
return {{found[1], took_us, matched, free, table.concat(clashes), fault}}
"""


def _script(rule: Rule, *, dry_run: bool) -> str:
    """The Lua script of one slice; its arguments are cursor and count."""
    variables = {name: f"v{at}" for at, name in enumerate(rule.old.fields, start=1)}
    checks = [KINDS.get(name, NAME).check.format(variable) for name, variable in variables.items()]
    pieces = [variables[part] if at % 2 else _quoted(part) for at, part in enumerate(rule.new.parts) if part or at % 2]
    first = next(iter(variables.values()), "v1")
    return _SCRIPT.format(
        glob=_quoted(rule.old.glob),
        pattern=_quoted(rule.old.lua),
        captures=", ".join(variables.values()) or "v1",
        checks=" and ".join([first, *checks]),
        new=" .. ".join(pieces),
        act="call('EXISTS', new)" if dry_run else "call('RENAMENX', old, new)",
        free=0 if dry_run else 1,
    )


def _quoted(text: str) -> str:  # as a Lua string literal, whatever characters it has
    return "'" + "".join(f"\\{byte:03d}" for byte in text.encode()) + "'"


@dataclass
class Renamed:
    """The result of a renaming; of a dry run, the result that it would have."""

    dry_run: bool = False
    matched: int = 0
    renamed: int = 0
    clashes: list[tuple[str, str]] = field(default_factory=list)
    """Old and new names of the first thousand keys that stay because the new name is taken."""
    clash_count: int = 0
    slices: int = 0
    seconds: float = 0.0
    longest_slice_s: float = 0.0
    """The server's own measurement; for an old server, the time that we waited."""

    def lines(self) -> list[str]:
        """The result as lines for people."""
        did = Text("{n} keys renamed", n=self.renamed)
        if self.dry_run:
            free = self.matched - self.clash_count
            did = Text("{n} of {matched} keys would be renamed", n=free, matched=self.matched)
        found = [
            Text(
                "{did} in {seconds:.2f} s, {slices} slices, the longest {longest_ms:.1f} ms",
                did=did,
                seconds=self.seconds,
                slices=self.slices,
                longest_ms=self.longest_slice_s * 1000,
            )
        ]
        found += [
            Text("clash: {old} stays as it is, {new} is there already", old=old, new=new) for old, new in self.clashes
        ]
        if self.clash_count > len(self.clashes):
            found.append(Text("... and {n} more clashes", n=self.clash_count - len(self.clashes)))
        return list(found)


def opened(url: str, *, timeout_s: float = 10) -> redis.Redis:
    """A client for *url* that returns bytes, has timeouts, and retries no call. Raises Misuse if *url* is no Redis."""
    waits = {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    client: redis.Redis = connection.opened(url, {**waits, "retry": Retry(NoBackoff(), 0)}, is_blocking=True)
    return client


def renamed(client: redis.Redis, rules: Sequence[Rule], *, dry_run: bool = False) -> Renamed:
    """Rename every key of *client*'s database that fits a rule; keys whose new name is taken stay, and are listed.

    Safe to repeat: if killed anywhere, the next call goes on. The first slice has FIRST_COUNT, the others as many as
    can be looked at in the time that a slice may take. Raises Misuse, TryAgain and CallAPerson in words.
    """
    check(rules)
    done, began = Renamed(dry_run=dry_run), time.monotonic()

    def progress() -> str:
        far = f"{done.renamed} keys, or a slice more, were renamed so far."
        return "Nothing was changed." if dry_run else f"{far} Mend that, and type the same again: it goes on."

    with in_words(progress):
        if client.info("cluster").get("cluster_enabled"):
            raise Misuse(connection.NO_CLUSTER)
        for rule in rules:
            _through(client, rule, done)
    done.seconds = time.monotonic() - began
    return done


def _through(client: redis.Redis, rule: Rule, done: Renamed) -> None:
    """Rename the keys of *rule*, slice after slice, and count them in *done*."""
    script = client.register_script(_script(rule, dry_run=done.dry_run))
    way_s = min(_timed(client.ping)[1] for _ in range(3))
    cursor, count = b"0", FIRST_COUNT
    while True:
        found, waited_s = _timed(script, args=[cursor, count])
        cursor, took_us, matched, free, clashes, fault = found
        took_s = took_us / 1e6 if took_us >= 0 else max(waited_s - way_s, 0)
        done.matched, done.slices = done.matched + matched, done.slices + 1
        done.renamed += 0 if done.dry_run else free
        done.longest_slice_s = max(done.longest_slice_s, took_s)
        done.clash_count += clashes.count(b"\n")
        for line in clashes.decode().split("\n")[:-1][: CLASHES_KEPT - len(done.clashes)]:
            old, _, new = line.partition("\t")
            done.clashes.append((old, new))
        if fault:
            raise RedisError(fault.decode(errors="replace"))
        if int(cursor) == 0:
            return
        count = next_count(count, took_s)


def _timed(call: Callable[..., Any], **given: object) -> tuple[Any, float]:
    began = time.perf_counter()
    return call(**given), time.perf_counter() - began


def next_count(count: int, took_s: float) -> int:
    """Number of keys for the next slice, at most twice *count*; *took_s* is the time that *count* keys took."""
    return int(min(max(count * min(TARGET_S / max(took_s, 1e-6), 2), LEAST_COUNT), MOST_COUNT))


@contextmanager
def in_words(progress: Callable[[], str]) -> Iterator[None]:
    """Turn the errors of Redis and of files into ours; *progress* says how far the work has come, and what to type."""
    try:
        yield
    except AuthenticationError as error:
        raise Misuse(
            "Redis refuses the login: {error}. Correct the user and password in REDIS_URL.", error=error
        ) from error
    except (Unreachable, Silent) as error:
        raise TryAgain("Redis does not answer: {error}. {progress}", error=error, progress=progress()) from error
    except RedisError as error:
        advice = "Ask whoever runs the server."
        if "read only replica" in str(error):
            advice = "It is a replica: name its master in REDIS_URL."
        elif "permission" in str(error):
            advice = "The user of REDIS_URL needs INFO, SCAN, EXISTS, RENAMENX and scripts on all these keys."
        raise CallAPerson(
            "Redis refused: {error}. {advice} {progress}", error=error, advice=advice, progress=progress()
        ) from error
    except OSError as error:
        raise CallAPerson(
            "{file}: {strerror}. {progress}",
            file=error.filename or "a file",
            strerror=error.strerror,
            progress=progress(),
        ) from error
