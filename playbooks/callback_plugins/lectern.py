"""What Ansible prints: what changes or fails, and each step of the rollout with its answer, sentences and seconds."""

from __future__ import annotations

from typing import Any

from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
    name: lectern
    type: stdout
    short_description: the default output without what says nothing, with the answers of the rollout's steps
    extends_documentation_fragment:
      - default_callback
      - result_format_callback
"""


class CallbackModule(Default):
    """The default output without what changes nothing and says nothing, which `-v` shows, but with each step's answer.

    With another callback, the answer is in each task's result.
    """

    CALLBACK_NAME = "lectern"

    def v2_runner_on_ok(self, result: Any) -> None:  # noqa: ANN401
        """Print the answer under the task; nothing of a task that changes nothing and says nothing."""
        if self._is_silent(result):
            return
        super().v2_runner_on_ok(result)
        for said in result.result.get("said") or ():
            self._display.display(f"    {said}")
        for one in result.result.get("steps") or ():
            self._display.display(f"    {one['step']}: {one['seconds']:.2f} s")

    def v2_runner_item_on_ok(self, result: Any) -> None:  # noqa: ANN401
        """Print what changes something."""
        if not self._is_silent(result):
            super().v2_runner_item_on_ok(result)

    def v2_playbook_on_include(self, included_file: Any) -> None:  # noqa: ANN401
        """Print nothing of a file that is read on the way, except with `-v`."""
        if self._display.verbosity:
            super().v2_playbook_on_include(included_file)

    def v2_runner_retry(self, result: Any) -> None:  # noqa: ANN401
        """Say once that a task waits, not at each look."""
        if self._display.verbosity or result.result["attempts"] == 1:
            super().v2_runner_retry(result)

    def _is_silent(self, result: Any) -> bool:  # noqa: ANN401
        fields = result.result
        speaks = any(fields.get(one) for one in ("changed", "warnings", "deprecations", "_ansible_verbose_always"))
        return not (speaks or "said" in fields or self._display.verbosity)

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
