"""What a PS/2 keyboard and a PS/2 mouse share: replies, data, resend and parameters of commands.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller".

A device sends its replies to the host's commands first and then its data. It sends no data while it waits for
the parameter of a command, and a new command drops what has not been sent of the reply to the one before.
Answers are immediate: the serial line between device and controller takes no time, and so does the self test.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from portvisor.ports import Clock

ACK = 0xFA
RESEND = 0xFE
SELF_TEST_PASSED = 0xAA

READ_ID = 0xF2
SET_RATE = 0xF3
ENABLE = 0xF4
DISABLE = 0xF5
SET_DEFAULTS = 0xF6
RESET = 0xFF


def _unconnected() -> None:
    """Nobody listens."""


@dataclass
class Ps2State:
    """State of the protocol."""

    replies: list[int] = field(default_factory=list)
    data: list[int] = field(default_factory=list)
    last_sent: int = 0
    expecting: int = 0
    """The command whose parameter comes next; 0 for none."""


class Ps2Device:
    """The device's end of the line. A controller takes bytes with `pop` and gives them with `receive`.

    Args:
        clock: for typematic repeat and sampling.
        state: where the owner keeps the state.
    """

    state: Ps2State

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.on_output: Callable[[], None] = _unconnected
        """Called when bytes may have become ready to be sent."""

    def has_output(self) -> bool:
        """Whether `pop` has a byte to give."""
        state = self.state
        return bool(state.replies or (state.data and not state.expecting))

    def pop(self) -> int:
        """The next byte; only if `has_output`."""
        state = self.state
        state.last_sent = state.replies.pop(0) if state.replies else state.data.pop(0)
        return state.last_sent

    def receive(self, value: int) -> None:
        """A byte from the host."""
        raise NotImplementedError

    def reply(self, *codes: int) -> None:
        """Answer a command; an answer that was not fetched is lost."""
        self.state.replies[:] = codes
