"""Port 92: fast A20 gate and CPU reset of a PS/2-type system.

Source: Intel C610 series PCH data sheet (330788), 12.7.2 "PORT92 - INIT Register".

| bit | | |
|---|---|---|
| 0 | INIT_NOW | a change from 0 to 1 resets the CPU |
| 1 | ALT_A20_GATE | 1 lets A20 through, OR-ed with the keyboard controller's gate |

Bits 7:2 are reserved: they are kept, as on older chips. Not modelled: password lock (bit 3), activity LEDs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from portvisor.ports import Device, PortRange

INIT_NOW, ALT_A20_GATE = 1, 2


class Port92(Device):
    """The register. `reset` asks for a CPU reset, `a20` is told about the gate."""

    ports = (PortRange(0x92, 1, name="port92"),)
    REGISTERS: ClassVar = {0: "PORT92"}

    @dataclass
    class State:
        """The register's value."""

        value: int = 0

    state: State

    def __init__(self, reset: Callable[[], None], a20: Callable[[bool], None]) -> None:
        super().__init__()
        self._reset_cpu = reset
        self._gate_a20 = a20

    def reset(self) -> None:
        super().reset()
        self.restored()

    def restored(self) -> None:
        self._gate_a20(bool(self.state.value & ALT_A20_GATE))

    def read(self, offset: int, size: int) -> int:
        return self.state.value

    def write(self, offset: int, size: int, value: int) -> None:
        rising = value & ~self.state.value
        self.state.value = value
        self._gate_a20(bool(value & ALT_A20_GATE))
        if rising & INIT_NOW:
            self._reset_cpu()
