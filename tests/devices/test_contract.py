"""The contract's own example passes the generic suite."""

from __future__ import annotations

from dataclasses import dataclass, field

from portvisor.ports import Device, IrqLine, PortRange
from portvisor.testing import DeviceSuite


class Scratch(Device):
    """Four scratch bytes; writing the last one raises the interrupt."""

    ports = (PortRange(0x2F0, 4, name="scratch"),)

    @dataclass
    class State:
        data: list[int] = field(default_factory=lambda: [0] * 4)

    state: State

    def __init__(self, irq: IrqLine) -> None:
        super().__init__()
        self.irq = irq

    def read(self, offset: int, size: int) -> int:
        return self.state.data[offset]

    def write(self, offset: int, size: int, value: int) -> None:
        self.state.data[offset] = value
        if offset == 3:
            self.irq.set(1)


class TestScratch(DeviceSuite):
    def make(self) -> Scratch:
        return Scratch(IrqLine())
