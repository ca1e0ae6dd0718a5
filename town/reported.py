"""What is told of the demo's classes: the report, beside what the RTMP receiver took, and the events on the bus."""

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


CUT = ["accepted", "on_air", "interrupted", "resumed", "ended"]
EVENTS = (
    ("c-old", ["accepted", "on_air", "ended"], {"whole"}),
    ("c-cut", CUT, {"whole", "with_gaps"}),
    ("c-cancelled", ["accepted", "ended"], {"cancelled"}),
)
"""Classes of the demo, their events without those of checks, and their outcomes."""


class Reported(Table):
    """One row for all that was aired, and one for the events of each of three classes."""

    async def events_told(self) -> None:
        """The platform has heard how a class was aired, cut and cancelled: in order, without a hole, its end once."""
        for class_id, expected, outcomes in EVENTS:
            said = self.platform.events[class_id]
            row = self.row(class_id, "its events on class_event", ", ".join(expected), "")
            fault = await self.comes(lambda s=said: any(one["event"] == "ended" for one in s), "its end", class_id)  # type: ignore[misc]
            names = [one["event"] for one in said if one["event"] not in {"ready", "not_ready"}]
            outcome = said[-1].get("outcome") if said else None
            if not fault and (names != expected or outcome not in outcomes):
                fault = f"it was told {', '.join(names)}: {outcome}"
            if not fault and [one["seq"] for one in said] != list(range(1, len(said) + 1)):
                fault = f"its events are numbered {[one['seq'] for one in said]}"
            if not fault and outcome == "cancelled" and self.platform.cancels[class_id]["result"] != "success":
                fault = "its cancel was not answered with success"
            row.result = f"{len(said)} events, {outcome}"
            self.settle(row, fault)

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

        latest = time.time() + LATEST_S * self.stack.slowness
        fault = await self.comes(is_same, "the report over this day", row.class_id, latest)
        row.result, row.received_s = "told", round(sum(taken.values()), 1)
        self.settle(row, "; ".join([fault, *faults]) if fault else "" if taken else "nothing was aired")

    async def _differences(self, taken: dict[str, float]) -> list[str]:
        began, now = (time.strftime("%Y-%m-%d", time.localtime(at)) for at in (self.rows[0].began_at, time.time()))
        told = json.loads(await self.stack.lectern("report", "--from", began, "--to", now, "--format", "json"))
        sent = {one["class_id"]: one["sent_s"] + one["slate_s"] for one in told["classes"]}
        found = []
        for class_id, received_s in taken.items():
            off_s = sent.get(class_id, 0.0) - received_s
            if not -EXACT_S <= off_s <= (CUT_S if len(self.platform.received(class_id)) > 1 else EXACT_S):
                found.append(f"{class_id}: {received_s} s were received, {sent.get(class_id, 0.0):.1f} s reported")
        return found
