"""What the Prefect server does by itself: it marks runs that fall silent, and passes alarms on to people."""

from prefect.client.orchestration import PrefectClient
from prefect.events.actions import SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.exceptions import ObjectNotFound

from flows.resident import alarms, heartbeats
from lectern.errors import Misuse
from lectern.settings import Settings

SUBJECT = "lectern: alarm {{ event.payload.code }} of {{ event.resource.name }}"
BODY = "{{ event.payload.message }}\n\nRUNBOOK.md: {{ event.payload.runbook }}"


async def wanted(client: PrefectClient, settings: Settings) -> list[AutomationCore]:
    """The automations that *settings* ask for; raises Misuse if ALARM_BLOCK names no block."""
    found = [heartbeats.automation(settings.run_heartbeat_s)]
    if settings.alarm_block:
        found.append(await _notifications(client, settings.alarm_block))
    return found


async def _notifications(client: PrefectClient, block: str) -> AutomationCore:
    slug, _, name = block.partition("/")
    try:
        document = await client.read_block_document_by_name(name, slug)
    except ObjectNotFound as error:
        raise Misuse(
            f"ALARM_BLOCK={block}: Prefect has no such block. Make it in the UI under Blocks, or write "
            f"TYPE/NAME of one that is there, for example slack-webhook/ops."
        ) from error
    return AutomationCore(
        name="lectern: alarms",
        description="Each alarm that a host sends is passed on; its host has made one of many already.",
        enabled=True,
        trigger=EventTrigger(
            expect={alarms.EVENT},
            match={"prefect.resource.id": "lectern.host.*"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        actions=[SendNotification(block_document_id=document.id, subject=SUBJECT, body=BODY)],
    )


async def missing(client: PrefectClient, settings: Settings) -> list[AutomationCore]:
    """The automations that the server lacks, or has in another form."""
    found: list[AutomationCore] = []
    for one in await wanted(client, settings):
        there = await client.read_automations_by_name(one.name)
        if not any(other.trigger == one.trigger and other.actions == one.actions for other in there):
            found.append(one)
    return found


async def make(client: PrefectClient, settings: Settings) -> None:
    """Create the automations that the server lacks, and update those that differ."""
    for one in await missing(client, settings):
        there = await client.read_automations_by_name(one.name)
        if there:
            await client.update_automation(there[0].id, one)
        else:
            await client.create_automation(one)
