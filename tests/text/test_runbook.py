"""An alarm names a heading of RUNBOOK.md, and what its head tells one to type first works on a host."""

import getpass
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from lectern import __version__
from lectern.cli.app import COMMANDS, app
from lectern.errors import CODES
from lectern.states import Role
from tests import laid
from tests.playbooks.here import program

ROOT = Path(__file__).parents[2]
RUNBOOK = (ROOT / "RUNBOOK.md").read_text(encoding="utf-8")
DAMAGED = "the file is damaged, or is no SQLite database"
COMMAND = (ROOT / "playbooks/roles/provision/templates/lectern.sh.j2").read_text(encoding="utf-8")


def sources() -> str:
    """The program, all its modules behind each other."""
    paths = [path for folder in ("flows", "lib/lectern") for path in (ROOT / folder).rglob("*.py")]
    return "".join(path.read_text(encoding="utf-8") for path in paths)


def headings(book: str) -> list[str]:
    """The headings of the sections of *book*."""
    return re.findall(r"^## (.+)$", (ROOT / book).read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_each_code_has_its_heading_in_both_languages_in_the_order_of_the_numbers() -> None:
    """Nothing else begins with a number: an alarm links to its heading by it."""
    for book, titles in (
        ("RUNBOOK.md", [CODES[number].runbook for number in sorted(CODES)]),
        ("RUNBOOK.zh.md", [CODES[number].runbook_in("zh") for number in sorted(CODES)]),
    ):
        assert [one for one in headings(book) if one[0].isdigit()] == titles


def test_a_heading_that_begins_small_is_what_a_log_says_to_the_letter() -> None:
    """The operator searches for the sentence that they see; what differs from time to time is left out."""
    code = sources()
    said = [one.removesuffix("AwaitingRetry") for one in headings("RUNBOOK.md") if one[0].islower()]
    assert [one for one in said if one not in code] == []


def test_what_a_log_says_of_the_servers_is_quoted_to_the_letter() -> None:
    """A line that nothing says is looked for in vain, by somebody who has just been woken."""
    code = sources()
    line = re.compile(r"`((?:prefect|redis|database|recorder|settings|artifact)(?: …)?: [^`]*)`")
    for book in ("RUNBOOK.md", "RUNBOOK.zh.md"):
        quoted = set(line.findall((ROOT / book).read_text(encoding="utf-8")))
        assert len(quoted) > 10, "the lines were found"
        assert [one for one in quoted if any(part.strip() not in code for part in one.split("…"))] == []


def test_who_restores_a_streamer_is_told_how_the_classes_that_it_forgets_are_aired() -> None:
    """Those that came after the backup: its teacher takes them for ready, and nothing is said before they are over."""
    for book, restoring in (("RUNBOOK.md", "and restore one?"), ("RUNBOOK.zh.md", "怎么恢复备份？")):
        sections = re.split(r"^## ", (ROOT / book).read_text(encoding="utf-8"), flags=re.MULTILINE)
        damaged, backup = (next(one for one in sections if part in one.split("\n")[0]) for part in (DAMAGED, restoring))
        assert re.findall(r"^4\. .*`move`.*`streamer`.*`force=true`", damaged, flags=re.MULTILINE), book
        assert f"*{DAMAGED}*" in backup, book


def test_each_link_between_the_papers_leads_somewhere() -> None:
    """A relative link of README, RUNBOOK, CONTRIBUTING, CHANGELOG or of a page in docs names a file that is there."""
    papers = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    links = [(one, to) for one in papers for to in re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", one.read_text("utf-8"))]
    assert len(links) > 10, "the links were found"
    assert [f"{one.name}: {to}" for one, to in links if not (one.parent / to).exists()] == []


def test_each_link_into_the_runbook_itself_leads_to_a_heading() -> None:
    """The index by what one sees: at night nobody looks a number up by scrolling."""
    for book in ("RUNBOOK.md", "RUNBOOK.zh.md"):
        text = (ROOT / book).read_text(encoding="utf-8")
        titles = [re.sub(r"[*`]", "", one).lower() for one in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)]
        anchors = {re.sub(r"[^\w -]", "", one).replace(" ", "-") for one in titles}
        links = re.findall(r"\]\(#([^)]+)\)", text)
        assert {one[:3] for one in links if one[:3].isdigit()} == set(map(str, CODES)), book
        assert [one for one in links if one not in anchors] == [], book


def test_readme_and_changelog_speak_of_the_version_that_is_built() -> None:
    """Hosts refuse a second release under a version that they have; so there is one, and one chapter about it."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    for name in ("README.md", "README.zh.md"):
        readme = (ROOT / name).read_text(encoding="utf-8")
        assert {*re.findall(r"release=(\d[\w.]*)", readme), *re.findall(r"lectern-(\d[\w.]*)-", readme)} == {version}
    assert headings("CHANGELOG.md")[0] == version
    assert __version__ == version


def rolled_out(folder: Path, role: Role) -> Path:
    """A host as the rollout leaves it: supervisor's file from the template, and by `current` program and settings."""
    code, root = folder / "the code", folder / "lectern"
    code.mkdir()
    laid.database(role, code / "rows.db")
    (code / ".env").write_text(f"{role}_name=old\n")
    template = (ROOT / "playbooks/roles/host/templates/lectern.conf.j2").read_text(encoding="utf-8")
    own = {"host_code_dir": code, "host_root": root, "host_role": role, "host_owner": getpass.getuser()}
    conf = re.sub(r"{{ (\w+) }}", lambda name: str(own.get(name[1], name[1])), template)
    text = f"#!{sys.executable}\nimport sys\nsys.path[:0] = {sys.path!r}\nfrom lectern.cli import main\nmain()\n"
    program(root / "current/venv/bin/lectern", text)
    assert re.findall(r"^command=(\S+)", conf, flags=re.MULTILINE) == [str(root / "current/venv/bin/lectern")]
    settings = f"{role}_database_url=sqlite:///{code}/rows.db\n{role}_name=me\nTRANSCODE_SIGN_KEY=k\n"
    (root / "current/settings.env").write_text(settings)
    (root / "current/program.conf").write_text(conf)
    return root


def command(root: Path) -> Path:
    """`/usr/local/bin/lectern` of a provisioned host."""
    written = root / "command"
    written.write_text(COMMAND.replace("{{ provision_root }}", str(root)))
    return written


def typed(script: str) -> "subprocess.CompletedProcess[str]":
    """What a person types in a new shell."""
    argv, environment = ["sh", "-c", script], {"PATH": "/usr/bin:/bin"}
    return subprocess.run(argv, env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("role", ["teacher", "streamer"])
def test_what_is_typed_first_leads_to_the_program_and_its_settings(tmp_path: Path, role: Role) -> None:
    """On a provisioned host its command does, from anywhere, whatever supervisor's file is called."""
    root = rolled_out(tmp_path, role)
    [block] = re.findall(r"```console\n(.*?)```", RUNBOOK.partition("\n## ")[0], flags=re.DOTALL)
    first = block.replace("/opt/lectern", str(root))
    for script in (f"{first}lectern explain c-1", f"sh {command(root)} explain c-1"):
        done = typed(script)
        assert (done.returncode, "c-1: nothing is known of it here" in done.stderr) == (2, True), done.stderr


TYPED = """\
backup teacher
explain 6666
cache evict 6666
playout status
book @there.json --wait
book --dry-run @new.json
book - --wait
change 6666 --recording @there.json
backup teacher --into @new --key=@there.json
rekey @there.json --rule 6666
rekey --dry-run /there.json --rule=6666
playout --dir @playout status
"""


def test_only_the_name_of_a_file_is_taken_for_one(tmp_path: Path) -> None:
    """Whatever lies in the folder in which a person types, such as the folders of the recordings in `/home/video`."""
    root, here = rolled_out(tmp_path, "teacher"), tmp_path / "a folder"
    program(root / "current/venv/bin/lectern", '#!/bin/sh\necho "$@"\n')
    for name in ("backup", "teacher", "explain", "6666", "playout", "status", "evict", "cache"):
        (here / name).mkdir(parents=True)
    (here / "there.json").touch()
    script = [f"sh {command(root)} {words.replace('@', '')}" for words in TYPED.splitlines()]
    done = typed("\n".join(["set -e", f"cd '{here}'", *script]))
    assert (done.returncode, done.stdout) == (0, TYPED.replace("@", f"{here}/")), done.stderr


def test_each_file_that_a_command_takes_is_named_from_the_folder_that_one_is_in() -> None:
    all_commands: Any = typer.main.get_command(app)
    taken = set()
    for name in set(COMMANDS) - {"rollout"}:  # it is root's, and reads standard input
        its = all_commands.get_command(None, name)
        parts = getattr(its, "commands", {}).values()
        for one in [*its.params, *(own for part in parts for own in part.params)]:
            if one.bare_type() == "Path":
                taken.add(f"{name}:?*" if one.param_type_name == "argument" else f"*:{one.opts[0]}")
    [listed] = re.findall(r"^ *(\*:--.*)\)", COMMAND, flags=re.MULTILINE)
    assert {*listed.split(" | ")} == taken


BOOKS = ("README.md", "README.zh.md", "RUNBOOK.md", "RUNBOOK.zh.md")
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {path.name for folder in ("/usr/bin", "/usr/sbin") for path in Path(folder).iterdir()}
PROGRAMS |= {"ansible-playbook", "curl", "ffplay", "ffprobe", "make", "nc", "prefect", "redis-cli", "ssh", "ssh-keygen"}
PROGRAMS |= {"ssh-keyscan", "supervisorctl", "systemctl", "wget"}


def scripts(name: str) -> Iterator[str]:
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
    assert all(fault(one.split(), whole=True) for one in ("explian c-1", "explain", "status --wach", "cache ls all"))
    assert [wrong for words, whole in sorted(found) if (wrong := fault(list(words), whole=whole))] == []


def test_whatever_else_is_typed_is_understood_by_the_shell() -> None:
    """`sh -n` reads each block and each command of a sentence."""
    typed = {script for name in BOOKS for script in scripts(name)}
    typed |= {one for name in BOOKS for one in quoted(name) if " " in one and one.split()[0] in PROGRAMS}
    wrong = []
    for script in sorted(typed):
        done = subprocess.run(["sh", "-n"], input=script, capture_output=True, text=True, timeout=60, check=False)
        wrong += [f"{script}: {done.stderr}"] if done.returncode else []
    assert wrong == []


# The glossary names places in the code that exist.


def test_each_term_of_the_glossary_is_where_it_says() -> None:
    rows = [line for line in (ROOT / "docs/glossary.md").read_text().splitlines() if line.startswith("| ")]
    places = [place for row in rows for place in re.findall(r"`([\w/.]+)`", row.rsplit("|", 2)[1])]
    assert len(places) > 40
    missing = [one for one in places if not ((ROOT / one).exists() or (ROOT / "lib/lectern" / one).exists())]
    assert not missing
