"""Coprocessor error latch at F0-FF.

Source: Intel C610 series PCH data sheet (330788), 12.7.1 "COPROC_ERR - Coprocessor Error Register".

A write to F0 (or F1, which the first ATs had for a reset of the 80287) clears the interrupt that FERR# has
latched on IRQ 13 and asserts IGNNE#. The other ports hold nothing. Not modelled: FERR# and IGNNE# themselves,
as no engine has them; `latch` stands for FERR#.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from portvisor.ports import Device, IrqLine, PortRange

COPROC_ERR, COPROC_RESET = 0, 1


class FpuError(Device):
    """The latch. `holes` are ports of F0-FF that a board gives to something else."""

    REGISTERS: ClassVar = {COPROC_ERR: "COPROC_ERR", COPROC_RESET: "COPROC_RESET"}

    @dataclass
    class State:
        """Whether IRQ 13 is asserted."""

        latched: bool = False

    state: State

    def __init__(self, irq13: IrqLine, holes: Iterable[int] = ()) -> None:
        super().__init__()
        self._irq = irq13
        taken = set(holes)
        self.ports = tuple(
            PortRange(port, 1, name="fpu", offset=port - 0xF0) for port in range(0xF0, 0x100) if port not in taken
        )

    def latch(self) -> None:
        """FERR#: an unmasked x87 error."""
        self.state.latched = True
        self.restored()

    def reset(self) -> None:
        super().reset()
        self.restored()

    def restored(self) -> None:
        self._irq.set(self.state.latched)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset in (COPROC_ERR, COPROC_RESET):
            self.state.latched = False
            self.restored()
