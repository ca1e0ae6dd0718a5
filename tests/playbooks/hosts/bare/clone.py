"""A clone of the project, in which a person types what README.md and RUNBOOK.md say."""

import os
import pty
import re
import select
import shlex
import subprocess
import time
from pathlib import Path

from tests.playbooks.hosts.bare.hosts import BareHosts
from tests.playbooks.hosts.controller import ROOT

VAULT_PASSWORD = "made-up-vault-password"
SECRET = "b5d1c0ffee0ddba11ad"
"""Every secret of the vault; no run may show it."""
TYPED_S = 1500.0
STORE = "https://store.example/renditions"
EXAMPLES = {
    "teacher1": "teacher2",
    "staging-teacher": "teacher2",
    "streamer1": "streamer3",
    "staging-streamer": "streamer3",
}
"""What of host_vars makes each host a new one."""


class Clone:
    """The project's folder as `git clone` makes it; its inventories name the bare hosts."""

    def __init__(self, folder: Path, hosts: BareHosts) -> None:
        self.hosts, self.folder = hosts, folder / "lectern"
        subprocess.run(
            ["git", "clone", "-q", str(ROOT), str(self.folder)], check=True, capture_output=True, timeout=TYPED_S
        )
        secrets = folder / "secrets.yml"
        example = self.folder / "inventory/vault.yml.example"
        text = example.read_text().replace("CHANGE-ME", SECRET)
        secrets.write_text(re.sub(r"@[\d.]+:", f"@{hosts.addresses['teacher']}:", text))
        editor = folder / "editor"
        editor.write_text(f'#!/bin/sh\ncat {secrets} >"$1"\n')
        editor.chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ANSIBLE", "VIRTUAL_ENV"))},
            "PATH": f"{self.folder}/.venv/bin:{os.environ['PATH']}",
            "EDITOR": str(editor),
            "ANSIBLE_HOME": str(folder / "a"),
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
            "TERM": "dumb",
        }

    def name_the_hosts(self, inventory: str) -> None:
        """Edit it as inventory/README.md says, for hosts that are new."""
        base = self.folder / "inventory" / inventory
        hosts, everywhere = base / "hosts.yml", base / "group_vars/all/main.yml"
        text = re.sub(r"^        streamer2:\n.*\n", "", hosts.read_text(), flags=re.MULTILINE)  # there is one machine
        names = re.findall(r"^        (\S+):\n          ansible_host: (\S+)$", text, flags=re.MULTILINE)
        for name, address in names:
            new = self.hosts.addresses["teacher" if "teacher" in name else "streamer"]
            text = text.replace(f"ansible_host: {address}\n", f"ansible_host: {new}\n")
            example = self.folder / f"inventory/production/host_vars/{EXAMPLES[name]}.yml.example"
            (base / "host_vars").mkdir(exist_ok=True)
            (base / "host_vars" / f"{name}.yml").write_text(example.read_text())
        given = f"ecs:\n  hosts:\n    ecs1:\n      ansible_host: {self.hosts.addresses['ecs']}\n"
        text, number = re.subn(
            r"^ecs:\n  hosts: \{\}\n# +ecs1:\n# +ansible_host: \S+\n", given, text, flags=re.MULTILINE
        )
        assert number == 1, "hosts.yml says how an ECS host is written"
        hosts.write_text(text)
        teachers = base / "group_vars/teachers/main.yml"
        text = re.sub(
            '^(teacher_(?:upload|public)_url): ""$', rf"\1: {STORE}", teachers.read_text(), flags=re.MULTILINE
        )
        assert text.count(STORE) == 2, "it says where renditions are put and read"
        teachers.write_text(text)
        text = re.sub(
            r"(?<=^lectern_control: )\S+", self.hosts.addresses["teacher"], everywhere.read_text(), flags=re.MULTILINE
        )
        text = re.sub(r"(?<=^provision_firewall_allowed: ).*$", "[]", text, flags=re.MULTILINE)
        text += f"ansible_ssh_private_key_file: {self.hosts.keys.private}\n"
        text += f"ansible_ssh_common_args: -o UserKnownHostsFile={self.hosts.known_hosts} -o IdentitiesOnly=yes\n"
        everywhere.write_text(text)

    def type(self, line: str) -> str:
        """Type *line* at a terminal, the vault's password where it is asked for; returns what was shown."""
        words = shlex.split(line, comments=True)
        process, terminal = pty.fork()
        if process == 0:
            os.chdir(self.folder)
            os.execvpe(words[0], words, self.environment)
        shown = _answered(terminal, time.monotonic() + TYPED_S)
        _, status = os.waitpid(process, 0)
        assert os.waitstatus_to_exitcode(status) == 0, f"{line}\n{shown[-6000:]}"
        assert SECRET not in shown, f"{line} shows a secret"
        return shown


def _answered(terminal: int, until: float) -> str:
    shown, answered = b"", 0
    while time.monotonic() < until:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            read = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not read:
            break
        shown += read
        asked = len(re.findall(rb"[Pp]assword: ", shown))
        if asked > answered:
            os.write(terminal, VAULT_PASSWORD.encode() + b"\n")
            answered = asked
    os.close(terminal)
    return shown.decode(errors="replace")


def readme_commands(heading: str) -> list[str]:
    """What the section of README.md says is to be typed, each line in its order."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {heading}\n((?:(?!## ).*\n)*)", text, flags=re.MULTILINE)
    assert section is not None
    return [line for block in re.findall(r"```console\n(.*?)```", section[1], re.DOTALL) for line in block.splitlines()]
