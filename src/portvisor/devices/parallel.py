"""PC parallel printer port with the PS/2's direction bit, and a printer that is always ready.

Source: IBM PC/AT Technical Reference, "Parallel Printer Adapter"; IBM PS/2 Hardware Interface Technical
Reference, "Parallel Port Controller" (direction, bit 5 of the control register).

    offset  read                       write
    0       data latch, or FF (input)  data latch
    1       status                     -
    2       control, bits 7:6 = 1      control

The rising STROBE hands the data latch to the printer, which acknowledges at once: with IRQ ENABLE the end of
the acknowledge pulse interrupts.

Not modelled: EPP and ECP, what a peripheral drives onto the data lines, INIT and AUTO FEED.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from portvisor.ports import Device, IrqLine, PortRange

DATA = 0
STATUS = 1
CONTROL = 2

STATUS_NOT_BUSY = 0x80
STATUS_NOT_ACKNOWLEDGE = 0x40
STATUS_SELECTED = 0x10
STATUS_NOT_ERROR = 0x08
STATUS_UNUSED = 0x07
STATUS_READY = STATUS_NOT_BUSY | STATUS_NOT_ACKNOWLEDGE | STATUS_SELECTED | STATUS_NOT_ERROR | STATUS_UNUSED

CONTROL_STROBE = 0x01
CONTROL_IRQ_ENABLE = 0x10
CONTROL_INPUT = 0x20
CONTROL_BITS = 0x3F
CONTROL_UNUSED = 0xC0

FLOATING = 0xFF


class ParallelPort(Device):
    """One printer port.

    Args:
        irq: interrupt line (IRQ 7 for 378).
        sink: gets every character that is strobed out.
        base: first of the three ports.
    """

    REGISTERS: ClassVar[Mapping[int, str]] = {DATA: "DATA", STATUS: "STATUS", CONTROL: "CONTROL"}

    @dataclass
    class State:
        """Both latches."""

        data: int = 0
        control: int = 0

    state: State

    def __init__(
        self, irq: IrqLine, sink: Callable[[bytes], None], *, base: int = 0x378, name: str = "parport"
    ) -> None:
        self.name = name
        super().__init__()
        self.ports = (PortRange(base, 3, name=name),)
        self._irq = irq
        self._sink = sink

    def read(self, offset: int, size: int) -> int:
        state = self.state
        if offset == STATUS:
            return STATUS_READY
        if offset == CONTROL:
            return state.control | CONTROL_UNUSED
        return FLOATING if state.control & CONTROL_INPUT else state.data

    def write(self, offset: int, size: int, value: int) -> None:
        state = self.state
        if offset == DATA:
            state.data = value
        elif offset == CONTROL:
            strobed = value & ~state.control & CONTROL_STROBE
            state.control = value & CONTROL_BITS
            if strobed and not value & CONTROL_INPUT:
                self._print()

    def _print(self) -> None:
        state = self.state
        self._sink(bytes((state.data,)))
        if state.control & CONTROL_IRQ_ENABLE:
            self._irq.pulse()
