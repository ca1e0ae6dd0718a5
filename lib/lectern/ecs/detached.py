"""Runs programs on another host that go on without us: begins each once, finds it again, watches, ends, cleans up."""

from collections.abc import Sequence
from dataclasses import dataclass

from lectern import subprocesses
from lectern.ecs import ssh
from lectern.errors import NO_ECS_ROOM, CallAPerson, FallBack, LecternError, TryAgain
from lectern.i18n import Text, msgid
from lectern.subprocesses import OnLine, last_line

LEFT_MINUTES = 10
"""Minutes without a look after which a job's folder counts as abandoned; the next job on the host ends its programs."""

_QUICK_S = 60.0
_OUTLIVES_US_S = 60
_GONE = 3
_OUTPUT, _ENDED = "lectern-output", "lectern-ended"
_ROOT = 'case $1 in "~"|"~/"*) root=$HOME${1#"~"};; *) root=$1;; esac; umask 077'
_FREE = 'df -Pk . | { read -r _; read -r _ _ _ free _; echo "$free"; }'

# The shell does itself what it can (true >seen is touch): each further program costs 1-2 ms before a class, and these
# scripts run several times per job. Not by `:`, which ends the script if it cannot write.

# The processes of a step hold its lock; the kernel releases it with the last of them. So the process group is
# signalled only while it exists, and a step that has not yet written down its id stops by itself.
_END = """
end() (
  cd -- "$1" 2>/dev/null || exit 0
  true >stop
  for lock in *.lock; do
    [ -e "$lock" ] || continue
    tries=0
    until flock -w 0.2 "$lock" true; do
      tries=$((tries+1)); sign=TERM; [ "$tries" -gt 15 ] && sign=KILL; [ "$tries" -gt 40 ] && exit 1
      read -r group <"${lock%.lock}.pid" && kill -"$sign" "-$group"
    done 2>/dev/null
  done
  cd .. && rm -rf -- "$1"
)
"""
_ENTER = f"""{_ROOT}; {_END}
mkdir -p -- "$root" && cd -- "$root" || exit 1
find . -mindepth 2 -maxdepth 2 -name seen -mmin +{LEFT_MINUTES} | while read -r seen; do
  left=${{seen#./}}; left=${{left%/seen}}; [ "$left" = "$2" ] || end "$left"
done
[ -e "$2/stop" ] && {{ end "$2" || exit 1; }}
mkdir -p -- "$2" && pwd -P && {_FREE} && ls -A -- "$2" && touch -- "$2/seen"
"""
_LEAVE = f"""{_ROOT}; {_END}
cd -- "$root" 2>/dev/null || exit 0; end "$2"
"""
_STEP = """
step=$1; shift; echo "$PPID" >"$step.pid" && [ ! -e stop ] || exit
"$@" <"$step.in" >"$step.out" 2>"$step.err"
echo "$?" >"$step.tmp" && mv -f "$step.tmp" "$step.exit"
"""
_RUN = f"""
umask 077; cd -- "$1" || exit {_GONE}; step=$2 limit=$3 program=$4; shift 4
exec 9>>"$step.lock"
if [ ! -e "$step.exit" ] && flock -w 1 9 && [ ! -e "$step.exit" ] && [ ! -e stop ]; then
  [ ! -e "$step.pid" ] || rm -f "$step.pid"
  cat >"$step.in"; : >"$step.out"; : >"$step.err"
  ( setsid timeout -k 5 "$limit" sh -c "$program" lectern "$step" "$@" </dev/null >/dev/null 2>&1 & )
fi
exec 9>&-
true >seen; tail -n +1 -f "$step.out" 2>/dev/null & tail=$!
until flock -w 20 "$step.lock" true; do touch seen || {{ kill "$tail"; exit {_GONE}; }}; done
kill "$tail"; wait "$tail" 2>/dev/null
[ -s "$step.err" ] && tail -c 8000 "$step.err" >&2
printf '\\n{_OUTPUT}\\n'; [ -s "$step.out" ] && tail -c 4000 "$step.out"
code=; read -r code 2>/dev/null <"$step.exit"
printf '\\n{_ENDED} %s %s\\n' "${{code:-gone}}" "$([ "$code" = 0 ] || {{ {_FREE}; }})"
"""


@dataclass(frozen=True)
class Folder:
    """The folder in which the programs of a job write, and the files that it had when it was entered."""

    path: str
    free_bytes: int
    files: frozenset[str]


CUT_OFF = -1
"""The return code of a program that did not end by itself."""


@dataclass(frozen=True)
class Ended(subprocesses.Finished):
    """How a program ended; *free_bytes*, the free space of its disk, is measured only if it did not end well."""

    free_bytes: int | None


async def enter(connection: ssh.SshConnection, root: str, name: str) -> Folder:
    """Make the folder *name* in *root*, or find it again; end and remove what abandoned jobs have left in *root*.

    Raises FallBack (no room), CallAPerson (*root* cannot be used, or something there cannot be ended).
    """
    said = await _quick(connection, f"the folder {root}/{name}", _ENTER, root, name)
    path, free_kib, *files = said.splitlines()
    return Folder(f"{path}/{name}", int(free_kib) * 1024, frozenset(files))


async def leave(connection: ssh.SshConnection, root: str, name: str) -> None:
    """End what runs in the folder *name* (TERM, after 3 s KILL), check that it is gone, and remove the folder."""
    await _quick(connection, f"ending {name}", _LEAVE, root, name)


async def _quick(connection: ssh.SshConnection, what: str, script: str, *arguments: str) -> str:
    finished = await connection.run(["sh", "-c", script, "lectern", *arguments], timeout_s=_QUICK_S)
    if finished.returncode == 0:
        return finished.output
    found = f"{connection.host}: {what} failed ({finished.returncode}): {finished.last_words or 'no word'}"
    raise _unusable(finished, found)


def _unusable(finished: subprocesses.Finished, found: str) -> LecternError:
    """The error to raise if nothing can be done on a host, because its disk takes nothing, or for another reason."""
    return FallBack(found, NO_ECS_ROOM) if finished.has_no_room else CallAPerson(found)


@dataclass(frozen=True)
class DetachedStep:
    """A command of a job; *stdin* has what no command line may show. Without a line for *stall_s* it has stalled."""

    name: str
    argv: Sequence[str]
    stdin: bytes = b""
    stall_s: float | None = None
    on_line: OnLine | None = None


async def run(connection: ssh.SshConnection, folder: Folder, step: DetachedStep, timeout_s: float) -> Ended:
    """Begin *step*, or go on watching it, or return how it ended: each step is done once, however often this is called.

    Raises subprocesses.TimedOut, subprocesses.Stalled, ssh.Lost; the program then goes on, until somebody calls
    ``leave`` or a minute after its time. If somebody calls ``leave``, it was cut off, or TryAgain: its folder is gone.
    """
    limit = f"{timeout_s + _OUTLIVES_US_S:.0f}"
    script = ["sh", "-c", _RUN, "lectern", folder.path, step.name, limit, _STEP, *step.argv]
    try:
        seen = await connection.run(
            script, timeout_s=timeout_s, stall_s=step.stall_s, on_line=step.on_line, stdin=step.stdin
        )
    except (subprocesses.TimedOut, subprocesses.Stalled) as error:
        read = ["tail", "-c", "2000", f"{folder.path}/{step.name}.err"]
        words = await connection.run(read, timeout_s=_QUICK_S)
        raise type(error)(ssh.on_host(step.argv[0], connection.host), error.seconds, last_line(words.output)) from error
    output, found, ended = seen.output.rpartition(f"\n{_OUTPUT}\n")[2].rpartition(f"\n{_ENDED} ")
    if seen.returncode == _GONE:
        text = msgid("{host}: {path} is gone: {step} was ended by another")
        raise TryAgain(text, host=connection.host, path=folder.path, step=step.name)
    if not found:
        text = msgid("{host}: {path} cannot be used: {why}")
        why = seen.last_words or seen.returncode
        raise _unusable(seen, Text(text, host=connection.host, path=folder.path, why=why))
    code, *free_kib = ended.split()
    free_bytes = int(free_kib[0]) * 1024 if free_kib else None
    return Ended(CUT_OFF if code == "gone" else int(code), output, seen.errors, free_bytes)
