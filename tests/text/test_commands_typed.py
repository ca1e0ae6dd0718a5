"""What README and RUNBOOK tell a person to type, in both languages, parses: by lectern's parser, or by the shell."""

import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from lectern.cli.app import app

ROOT = Path(__file__).parents[2]
BOOKS = ("README.md", "README.zh.md", "RUNBOOK.md", "RUNBOOK.zh.md")
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {path.name for folder in ("/usr/bin", "/usr/sbin") for path in Path(folder).iterdir()}
PROGRAMS |= {"ansible-playbook", "ffprobe", "make", "nc", "prefect", "redis-cli", "supervisorctl", "systemctl"}


def scripts(name: str) -> Iterator[str]:
    """The blocks for a shell."""
    text = (ROOT / name).read_text(encoding="utf-8")
    yield from (block for language, block in FENCED.findall(text) if language == "console")


def quoted(name: str) -> Iterator[str]:
    """What stands in backquotes between the blocks, with the bar as it is in a table."""
    text = FENCED.sub("", (ROOT / name).read_text(encoding="utf-8"))
    yield from (one.replace("\\|", "|") for one in re.findall(r"`([^`\n]+)`", text))


def of_lectern(script: str) -> Iterator[list[str]]:
    """The calls of lectern in *script*, each in words."""
    for line in script.replace("\\\n", " ").splitlines():
        for part in re.split(r"[;|]|&&|[<>].*$", re.sub(r"\s#.*", "", line)):
            words = shlex.split(part)
            while words and "=" in words[0]:
                del words[0]
            if words and words[0].rpartition("/")[2] == "lectern":
                yield words[1:]


def parsed(words: list[str], *, whole: bool) -> None:
    """Parse *words* as lectern does; without *whole*, arguments that a command needs may be left out."""
    command: Any = typer.main.get_command(app)
    context = command.context_class(command)
    while True:
        options, rest, order = command.make_parser(context).parse_args(list(words))
        parts = hasattr(command, "commands")
        missing = [one.name for one in order if one.required and one.param_type_name == "argument"]
        missing = [name for name in missing if not isinstance(options.get(name), str)] if whole and not parts else []
        assert not missing, f"needs {missing}"
        if not parts or not rest:
            assert not rest, f"takes no {rest}"
            return
        command, words = command.get_command(context, rest[0]), rest[1:]
        assert command is not None, f"there is no {rest[0]}"
        context = command.context_class(command, parent=context)


def fault(words: list[str], *, whole: bool) -> str:
    """What is wrong with a call of lectern; nothing, if it parses."""
    try:
        parsed(words, whole=whole)
    except Exception as error:  # noqa: BLE001 (each fault is listed, whichever class the parser has for it)
        return f"lectern {shlex.join(words)}: {getattr(error, 'message', error)}"
    return ""


def test_each_call_of_lectern_parses() -> None:
    """In a block it is whole; in a sentence it may leave out what it is about, and has optional words in brackets."""
    found = {(tuple(words), True) for name in BOOKS for script in scripts(name) for words in of_lectern(script)}
    spoken = [
        re.sub(r"\[(.*?)\]", lambda part: part[1].split("|")[0], one)
        for name in BOOKS
        for one in quoted(name)
        if one.startswith("lectern ") and "…" not in one
    ]
    found |= {(tuple(words), False) for one in spoken for words in of_lectern(one)}
    assert len(found) > 50, "the calls were found"
    assert [wrong for words, whole in sorted(found) if (wrong := fault(list(words), whole=whole))] == []


def test_a_call_that_is_wrong_is_found() -> None:
    assert all(fault(one.split(), whole=True) for one in ("explian c-1", "explain", "status --wach", "cache ls all"))


def test_whatever_else_is_typed_is_understood_by_the_shell() -> None:
    """`sh -n` reads each block and each command of a sentence."""
    typed = {script for name in BOOKS for script in scripts(name)}
    typed |= {one for name in BOOKS for one in quoted(name) if " " in one and one.split()[0] in PROGRAMS}
    wrong = []
    for script in sorted(typed):
        done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, timeout=60, check=False)
        wrong += [f"{script}: {done.stderr}"] if done.returncode else []
    assert wrong == []
