"""What Ansible prints: the usual, and under each step of the rollout what it answered, in sentences and seconds."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
    name: lectern
    type: stdout
    short_description: the default output, with the answers of the rollout's steps
    extends_documentation_fragment:
      - default_callback
      - result_format_callback
"""


class CallbackModule(Default):
    """The default output and more; with another callback, the same is in each task's result."""

    CALLBACK_NAME = "lectern"

    def v2_runner_on_ok(self, result: Any) -> None:  # noqa: ANN401
        """Print the answer under the task."""
        super().v2_runner_on_ok(result)
        for said in result.result.get("said") or ():
            self._display.display(f"    {said}")
        for one in result.result.get("steps") or ():
            self._display.display(f"    {one['step']}: {one['seconds']:.2f} s")

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:  # noqa: ANN401
        """Print the message of a step alone if it has all that was said: else each sentence would come three times."""
        fields, apart = result.result, {}
        if "said" in fields and all(one in str(fields.get("msg")) for one in fields["said"]):
            apart = {name: fields.pop(name) for name in ("said", "exception") if name in fields}
        super().v2_runner_on_failed(result, ignore_errors)
        fields.update(apart)

    def v2_runner_on_unreachable(self, result: Any) -> None:  # noqa: ANN401
        """Say what a host does that cannot be reached."""
        super().v2_runner_on_unreachable(result)
        self._display.display(
            f"    {result.host.get_name()} cannot be reached. If it was being rolled out, it goes on by itself, or "
            "takes everything back: read RUNBOOK.md, A rollout stopped half-way."
        )
