"""Watchdog of the iBASE IB700 single-board computer.

Source: the board's manual, as Linux' and QEMU's ib700 know it.

| port | write |
|---|---|
| 441 | WDT_STOP: any value stops the timer |
| 443 | WDT_START: bits 3:0 say 0 (30 s) to F (0 s), in steps of 2 s; starts the timer anew |

Reads give FF. Not modelled: a time-out of 0 s, which the manual does not explain, expires at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from portvisor.ports import Clock, Device, PortRange

WDT_STOP, WDT_START = 0x441, 0x443
STOP, START = 0, 2
NS_PER_S = 1_000_000_000
LONGEST_S, STEP_S = 30, 2


class Ib700(Device):
    """The timer; `on_expiry` resets the machine."""

    name = "ib700"
    REGISTERS: ClassVar = {STOP: "WDT_STOP", START: "WDT_START"}

    @dataclass
    class State:
        """Clock time of the expiry, None while stopped."""

        expires: int | None = None

    state: State

    def __init__(self, clock: Clock, on_expiry: Callable[[], None]) -> None:
        super().__init__()
        self._clock = clock
        self._on_expiry = on_expiry
        self._timer = clock.timer(self._expired, "ib700")
        self.ports = (
            PortRange(WDT_STOP, 1, name="ib700", offset=STOP),
            PortRange(WDT_START, 1, name="ib700", offset=START),
        )

    def reset(self) -> None:
        super().reset()
        self._timer.disarm()

    def restored(self) -> None:
        if self.state.expires is None:
            self._timer.disarm()
        else:
            self._timer.arm(self.state.expires)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == START:
            seconds = LONGEST_S - STEP_S * (value & 0xF)
            self.state.expires = self._clock.now() + seconds * NS_PER_S
        else:
            self.state.expires = None
        self.restored()

    def _expired(self) -> None:
        self.state.expires = None
        self._on_expiry()
