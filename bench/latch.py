"""The device of the benchmarks: as little as a device can do."""

from __future__ import annotations

from portvisor.ports import Device, PortRange

PORT = 0x2F0


class Latch(Device):
    """A byte."""

    ports = (PortRange(PORT, 1, name="latch"),)
    REGISTERS = {0: "LATCH"}  # noqa: RUF012  # a constant of a benchmark

    def __init__(self) -> None:
        super().__init__()
        self.value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value
