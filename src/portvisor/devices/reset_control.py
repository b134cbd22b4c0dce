"""Reset control register, CF9.

Source: Intel C610 series PCH data sheet (330788), 12.7.5 "RST_CNT - Reset Control Register".

| bit | | |
|---|---|---|
| 1 | SYS_RST | the kind of reset: 0 CPU only (INIT#), 1 the whole system |
| 2 | RST_CPU | a change from 0 to 1 starts the reset |
| 3 | FULL_RST | with SYS_RST: power is cycled |

Not modelled: a difference between the three kinds beyond the name that `reset` is told.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from portvisor.ports import Device, PortRange

SYS_RST, RST_CPU, FULL_RST = 1 << 1, 1 << 2, 1 << 3
WRITABLE = SYS_RST | RST_CPU | FULL_RST


class ResetControl(Device):
    """The register.

    Args:
        reset: told "CPU", "system" or "power cycle".
        full_reset: whether there is FULL_RST; the PIIX3 has none.
    """

    name = "reset-control"
    ports = (PortRange(0xCF9, 1, name="reset control"),)
    REGISTERS: ClassVar = {0: "RST_CNT"}

    @dataclass
    class State:
        """The register's value."""

        value: int = 0

    state: State

    def __init__(self, reset: Callable[[str], None], *, full_reset: bool = True) -> None:
        super().__init__()
        self._writable = WRITABLE if full_reset else WRITABLE & ~FULL_RST
        self._reset_system = reset

    def read(self, offset: int, size: int) -> int:
        return self.state.value

    def write(self, offset: int, size: int, value: int) -> None:
        before = self.state.value
        self.state.value = value & self._writable
        if value & RST_CPU and not before & RST_CPU:
            self._reset_system(self._kind(self.state.value))

    @staticmethod
    def _kind(value: int) -> str:
        if not value & SYS_RST:
            return "CPU"
        return "power cycle" if value & FULL_RST else "system"
