"""Test-only connection plugin: a host of this machine, which does not answer any more once a file says so."""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.connection.local import Connection as Local

DOCUMENTATION = """
name: mortal
short_description: This machine, while it lives
description: [Test-only.]
extends_documentation_fragment: [connection_pipelining]
options:
  become_success_timeout:
    description: As of the plugin local.
    type: int
    default: 10
  become_strip_preamble:
    description: As of the plugin local.
    type: bool
    default: true
  dead_file:
    description: The file that is there once the host is dead.
    type: str
    vars: [{name: mortal_dead_file}]
"""


class Connection(Local):
    """The plugin local, but for the end."""

    transport = "mortal"

    def exec_command(self, *given: Any, **more: Any) -> Any:
        if Path(self.get_option("dead_file")).exists():
            raise AnsibleConnectionFailure("the host is dead")
        return super().exec_command(*given, **more)
