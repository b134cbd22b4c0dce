"""How a run ended."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class End(Enum):
    """Why the machine stopped."""

    POWER_OFF = "powered off"
    GUEST_EXIT = "guest left through the exit port"
    RESET = "reset"
    HALTED = "halted with interrupts off"
    IDLE = "idle for ever: halted with nothing left that could interrupt"
    SHUTDOWN = "triple fault"
    ENGINE = "the engine cannot go on"
    TIME_LIMIT = "time limit reached"
    INTERRUPTED = "interrupted"
    CONDITION = "condition met"
    DEVICE = "a device model failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run: why, with the guest's exit status and details for a person."""

    end: End
    status: int = 0
    detail: str = ""

    @property
    def exit_status(self) -> int:
        """Status for the command line: the guest's own, else 0 for an orderly end and 1 for a failure."""
        if self.end is End.GUEST_EXIT:
            return self.status
        if self.end is End.INTERRUPTED:
            return 130
        return 0 if self.end in (End.POWER_OFF, End.RESET, End.CONDITION) else 1

    def __str__(self) -> str:
        text = self.end.value
        if self.end is End.GUEST_EXIT:
            text = f"{text} with status {self.status}"
        return f"{text}: {self.detail}" if self.detail else text
