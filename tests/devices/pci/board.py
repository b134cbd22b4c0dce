"""A host with root buses and a function to play with, driven through the configuration ports."""

from __future__ import annotations

from portvisor.devices.pci import Bar, PciFunction, PciHost, PciId, RootBus
from portvisor.ports import IrqLine, MmioSpace, PortSpace

SPACE = PortSpace(strict=True)


def empty_space() -> PortSpace:
    """One port space for all tests: making its tables anew takes longer than a test."""
    for device in SPACE.devices():
        SPACE.detach(device)
    return SPACE


class Card(PciFunction):
    """A function whose ranges are plain storage, so that tests see where an access went."""

    ID = PciId(0x1234, 0x5678, 0x020000, 0x03, 0x1AF4, 0x1100)

    def __init__(self, bars: dict[int, Bar] | None = None, *, interrupt_pin: int = 1, name: str = "card") -> None:
        super().__init__(bars=bars, interrupt_pin=interrupt_pin, name=name)
        self.accesses: list[tuple[str, int, int, int]] = []

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        self.accesses.append(("read", bar, offset, size))
        return bar << 4 | offset & 0xF

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        self.accesses.append(("write", bar, offset, value))


class Board:
    """Root bus 0 with four interrupt lines."""

    def __init__(self) -> None:
        self.space = empty_space()
        self.mmio = MmioSpace()
        self.host = PciHost(self.space, self.mmio)
        self.space.attach(self.host)
        self.lines = [IrqLine(name=f"line {index}") for index in range(4)]
        self.root: RootBus = self.host.add_root(lines=self.lines)

    def _latch(self, bus: int, device: int, function: int, register: int) -> int:
        self.space.write(0xCF8, 4, 0x80000000 | bus << 16 | device << 11 | function << 8 | register & 0xFC)
        return 0xCFC + (register & 3)

    def get(self, device: int, register: int, size: int = 4, *, bus: int = 0, function: int = 0) -> int:
        return self.space.read(self._latch(bus, device, function, register), size)

    def put(
        self, device: int, register: int, value: int, size: int = 4, *, bus: int = 0, function: int = 0
    ) -> None:
        self.space.write(self._latch(bus, device, function, register), size, value)

    def owner(self, port: int, size: int = 1) -> str:
        """Name of the device that answers a port; "" if none."""
        owner = self.space.owner(port, size)
        return owner.device.name if owner else ""
