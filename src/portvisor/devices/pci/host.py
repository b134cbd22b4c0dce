"""PCI configuration mechanism #1 and the buses behind it.

Source: PCI Local Bus Specification 3.0, 3.2.2.3.2.

    port      size     register
    CF8       4        CONFIG_ADDRESS: 31 enable, 23:16 bus, 15:11 device, 10:8 function, 7:2 register
    CFC-CFF   1, 2, 4  CONFIG_DATA: the bytes of that register

Only whole dwords reach CONFIG_ADDRESS: byte and word accesses to CF8-CFB are ordinary I/O, so that reset
control can sit at CF9. An absent function reads ones.

Not modelled: mechanism #2, special cycles (device 31, function 7, register 0), the memory-mapped mechanism.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from portvisor.devices.pci.bridge import PciBridge
from portvisor.devices.pci.bus import BUS_COUNT, PciBus, RootBus, Swizzle, swizzle
from portvisor.devices.pci.function import PciFunction
from portvisor.devices.pci.mapping import RangeMapper
from portvisor.ports import Device, IrqLine, MmioSpace, PortConflictError, PortRange, PortSpace

CONFIG_ADDRESS = 0
CONFIG_DATA = 4

ADDRESS_ENABLE = 0x80000000
ADDRESS_BITS = 0x80FFFFFC


class PciHost(Device):
    """The host bridge's configuration ports. Functions are attached to buses made by `add_root`.

    Args:
        port_space: where functions' I/O ranges are mapped.
        mmio: where their memory ranges are mapped.
    """

    ports = (
        PortRange(0xCF8, 4, (4,), "PCI conf1", CONFIG_ADDRESS),
        PortRange(0xCFC, 4, (1, 2, 4), "PCI conf1", CONFIG_DATA),
    )

    @dataclass(slots=True)
    class State:
        """The address latch."""

        address: int = 0

    state: State

    def __init__(self, port_space: PortSpace, mmio: MmioSpace, *, name: str = "pci") -> None:
        self.name = name
        super().__init__()
        self._port_space = port_space
        self.mapper = RangeMapper(port_space, mmio)
        self.roots: dict[int, RootBus] = {}
        self._routes: dict[int, PciFunction] = {}

    def add_root(
        self,
        number: int = 0,
        *,
        last: int = BUS_COUNT - 1,
        lines: Sequence[IrqLine] = (),
        route: Swizzle = swizzle,
    ) -> RootBus:
        """A bus directly under the host, with bus numbers `number` to `last` below it.

        Args:
            number: its bus number.
            last: the highest number that is forwarded to it.
            lines: interrupt lines of the board, such as `Piix3.pirqs`.
            route: index into `lines` for a device's pin.

        Raises:
            ValueError: the numbers are no bus numbers or another root has them.
        """
        if not 0 <= number <= last < BUS_COUNT:
            raise ValueError(f"PCI root bus {number:#x}-{last:#x}: bus numbers are 00-ff")
        for other in self.roots.values():
            if number <= other.last and other.number <= last:
                raise ValueError(
                    f"PCI root bus {number:02x}-{last:02x} overlaps root bus {other.number:02x}-{other.last:02x}"
                )
        root = RootBus(self, number, last, lines, route)
        self.roots[number] = root
        return root

    # --- routing ----------------------------------------------------------------------------------------------

    def adopt(self, function: PciFunction) -> None:
        """Called by a bus: put a new function and the ranges it has from the start on the port space.

        Raises:
            PortConflictError: a range has another owner; nothing has changed.
        """
        self._port_space.attach(function, ())
        self.mapper.update(function)
        conflicts = self.mapper.conflicts_of(function)
        if conflicts:
            self.mapper.remove(function)
            self._port_space.detach(function)
            function.bus = None
            raise PortConflictError(conflicts[0])

    def renumber(self) -> None:
        """Find out anew which function every bus, device and function number reaches."""
        self._routes = {}
        for root in self.roots.values():
            self._route_bus(root, root.number, root.last)

    def _route_bus(self, bus: PciBus, number: int, last: int) -> None:
        """Enter the functions of bus `number`; numbers up to `last` are forwarded to it."""
        for place, function in bus.functions.items():
            self._routes.setdefault(number << 8 | place, function)
        for function in bus.functions.values():
            if isinstance(function, PciBridge) and number < function.secondary <= last:
                self._route_bus(function.secondary_bus, function.secondary, min(last, function.subordinate))

    def function_at(self, bus: int, device: int, function: int = 0) -> PciFunction | None:
        """The function that configuration accesses with these numbers reach at present."""
        return self._routes.get(bus << 8 | device << 3 | function)

    def functions(self) -> tuple[PciFunction, ...]:
        """All functions that can be reached at present, by address."""
        return tuple(self._routes[key] for key in sorted(self._routes))

    # --- the ports ----------------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        address = self.state.address
        if offset < CONFIG_DATA:
            return address
        if address & ADDRESS_ENABLE:
            function = self._routes.get(address >> 8 & 0xFFFF)
            if function is not None:
                return function.config_read(address & 0xFC | offset & 3, size)
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        if offset < CONFIG_DATA:
            self.state.address = value & ADDRESS_BITS
            return
        address = self.state.address
        if address & ADDRESS_ENABLE:
            function = self._routes.get(address >> 8 & 0xFFFF)
            if function is not None:
                function.config_write(address & 0xFC | offset & 3, size, value)

    def register_name(self, offset: int, size: int, write: bool) -> str:
        """ "CONFIG_ADDRESS", or which register of which function the data port reaches."""
        if offset < CONFIG_DATA:
            return "CONFIG_ADDRESS"
        address = self.state.address
        function = self._routes.get(address >> 8 & 0xFFFF) if address & ADDRESS_ENABLE else None
        if function is None:
            return "CONFIG_DATA"
        return f"{function.address} {function.config_register_name(address & 0xFC | offset & 3)}"
