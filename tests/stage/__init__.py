"""What the tests of flows stand on: real servers, resident processes as children, the platform at the other end."""

from tests.stage.children import UP_S, Child, running_with
from tests.stage.gate import Gate
from tests.stage.hosts import SECRET
from tests.stage.seen import PROMPT_S, STAGES, Stage, staged
from tests.stage.town import Town
from tests.waiting import wait_until

__all__ = [
    "PROMPT_S",
    "SECRET",
    "STAGES",
    "UP_S",
    "Child",
    "Gate",
    "Stage",
    "Town",
    "running_with",
    "staged",
    "wait_until",
]
