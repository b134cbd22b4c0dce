"""Waiting for text on the guest's serial port or screen, to press keys or to end the run."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from portvisor.devices.ps2_scancodes import KEYS
from portvisor.guest.errors import GuestFileError
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.pc_like import PcLike

LOOK_EVERY_NS = 50_000_000
KEPT = 65_536
"""Bytes of serial output in which a text is looked for."""


class Script:
    """Steps of (text, keys) in order, then the text that ends the run."""

    def __init__(self, machine: PcLike, steps: Sequence[tuple[str, str]], until: str | None) -> None:
        """Watch `machine`; the steps have passed `check_steps`."""
        self._machine = machine
        self._steps = deque(steps)
        self._until = until
        self._serial = bytearray()
        if steps or until:
            self._timer = machine.clock.timer(self._look, "script")
            self._timer.arm(machine.clock.now() + LOOK_EVERY_NS)

    def saw_serial(self, data: bytes) -> None:
        """Bytes that the guest sent."""
        self._serial += data
        del self._serial[:-KEPT]

    def _sees(self, text: str) -> bool:
        return text.encode() in self._serial or any(text in line for line in self._machine.screen.text())

    def _look(self) -> None:
        if self._steps:
            text, keys = self._steps[0]
            if self._sees(text):
                self._steps.popleft()
                self._serial.clear()
                press(self._machine, keys)
        elif self._until and self._sees(self._until):
            self._machine.request_stop(Outcome(End.CONDITION, detail=f"saw {self._until!r}"))
            return
        self._timer.arm(self._machine.clock.now() + LOOK_EVERY_NS)


def check_steps(steps: Sequence[tuple[str, str]]) -> None:
    """Refuse what cannot be pressed.

    Raises:
        GuestFileError: a step names a key that no keyboard has.
    """
    for _, keys in steps:
        for key in keys.replace("+", ",").split(","):
            if key not in KEYS:
                raise GuestFileError(f"no key is called {key!r}; there are {', '.join(sorted(KEYS))}")


def press(machine: PcLike, keys: str) -> None:
    """Press key strokes on the guest's keyboard: "down,down,enter" or "leftctrl+c"."""
    for stroke in keys.split(","):
        machine.keyboard.tap(*stroke.split("+"))
