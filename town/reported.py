"""The report over the demo's classes, beside what the RTMP receiver took of each."""

import json
import time

from town.platform import seconds
from town.table import Table

EXACT_S = 0.2
"""What a class's seconds may differ by: the receiver counts from the first picture to the last, without that one."""

CUT_S = 1.5
"""Seconds of difference if the receiver was killed: what was on its way was sent, and not received."""

LATEST_S = 60.0
"""Seconds until what was sent is in the report."""


class Reported(Table):
    """One row for all that was aired."""

    async def reported(self) -> None:
        """The sums of the report are the receiver's."""
        row = self.row("-", "lectern report over this day", "the receiver's seconds of each class", "")
        taken = {
            one.class_id: seconds(self.platform.received(one.class_id)) for one in self.rows if one.result == "aired"
        }
        faults: list[str] = []

        async def is_same() -> bool:  # the streamer's last reports may still be on their way
            faults[:] = await self._differences(taken)
            return not faults

        await self.comes(is_same, "the report over this day", row.class_id, time.time() + LATEST_S)
        row.result, row.received_s = "told", round(sum(taken.values()), 1)
        row.ok, row.why = bool(taken) and not faults, "; ".join(faults) or ("" if taken else "nothing was aired")

    async def _differences(self, taken: dict[str, float]) -> list[str]:
        began, now = (time.strftime("%Y-%m-%d", time.localtime(at)) for at in (time.time() - 600, time.time()))
        told = json.loads(await self.stack.lectern("report", "--from", began, "--to", now, "--format", "json"))
        sent = {one["class_id"]: one["sent_s"] + one["slate_s"] for one in told["classes"]}
        found = []
        for class_id, received_s in taken.items():
            off_s = sent.get(class_id, 0.0) - received_s
            if not -EXACT_S <= off_s <= (CUT_S if len(self.platform.received(class_id)) > 1 else EXACT_S):
                found.append(f"{class_id}: {received_s} s were received, {sent.get(class_id, 0.0):.1f} s reported")
        return found
