"""PCI buses: which function sits where, and where interrupt pins lead.

Source: PCI Local Bus Specification 3.0, 2.2.6 and 3.2.2.3; PCI-to-PCI Bridge Architecture Specification 1.2
(interrupt routing of devices behind a bridge).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from portvisor.ports import IrqLine, SharedIrq

if TYPE_CHECKING:
    from portvisor.devices.pci.bridge import PciBridge
    from portvisor.devices.pci.function import PciFunction
    from portvisor.devices.pci.host import PciHost

DEVICES_PER_BUS = 32
FUNCTIONS_PER_DEVICE = 8
BUS_COUNT = 256

Swizzle = Callable[[int, int], int]
"""(device number, pin 0-3) -> index of the interrupt line on the board."""


def swizzle(device: int, pin: int) -> int:
    """The usual wiring: each device's INTA# goes one line further than that of the device before."""
    return (device + pin) % 4


class PciBus:
    """A bus with its functions; `RootBus` or `SecondaryBus`."""

    def __init__(self) -> None:
        self.functions: dict[int, PciFunction] = {}
        """By device number << 3 | function number."""

    @property
    def host(self) -> PciHost:
        """The host bridge that this bus hangs on."""
        raise NotImplementedError

    @property
    def number(self) -> int:
        """The bus number at present."""
        raise NotImplementedError

    def attach(self, function: PciFunction, device: int, number: int = 0) -> None:
        """Put a function at `device`.`number`, and its ranges on the port space.

        Raises:
            ValueError: there is no such place, it is taken, or the function is on a bus already.
            PortConflictError: a range that it has from the start has another owner.
        """
        place = f"{self.number:02x}:{device:02x}.{number}"
        if not (0 <= device < DEVICES_PER_BUS and 0 <= number < FUNCTIONS_PER_DEVICE):
            raise ValueError(f"{function.name}: no place {place} on a PCI bus")
        key = device << 3 | number
        if key in self.functions:
            raise ValueError(f"{function.name}: {place} is taken by {self.functions[key].name}")
        if function.bus is not None:
            raise ValueError(f"{function.name} is already at {function.address}")
        host = self.host
        function.attached(self, device, number)
        host.adopt(function)
        self.functions[key] = function
        self._mark_multifunction(device)
        host.renumber()

    def _mark_multifunction(self, device: int) -> None:
        first = self.functions.get(device << 3)
        if first is not None and any(key >> 3 == device and key & 7 for key in self.functions):
            first.set_multifunction()

    def interrupt_input(self, device: int, pin: int, name: str) -> IrqLine:
        """The wire at a device's interrupt pin (0-3 for INTA# to INTD#)."""
        raise NotImplementedError

    def forwards(self, io: bool, base: int, length: int) -> bool:
        """Whether accesses to an address range reach this bus."""
        raise NotImplementedError

    def masters_allowed(self) -> bool:
        """Whether DMA from this bus gets through to memory."""
        raise NotImplementedError

    def update_mappings(self) -> None:
        """Map anew what lies on this bus and below."""
        for function in self.functions.values():
            function.update_mappings()


class RootBus(PciBus):
    """A bus directly under the host.

    Args:
        host: the host bridge.
        number: its bus number.
        last: the highest bus number below it.
        lines: the board's interrupt lines (PIRQA# ...); empty if pins lead nowhere.
        route: which line a device's pin is wired to.
    """

    def __init__(self, host: PciHost, number: int, last: int, lines: Sequence[IrqLine], route: Swizzle) -> None:
        super().__init__()
        self._host = host
        self._number = number
        self.last = last
        self._shared = [SharedIrq(line) for line in lines]
        self._route = route

    @property
    def host(self) -> PciHost:
        return self._host

    @property
    def number(self) -> int:
        return self._number

    def interrupt_input(self, device: int, pin: int, name: str) -> IrqLine:
        if not self._shared:
            return IrqLine(name=name)
        return self._shared[self._route(device, pin)].input(name)

    def forwards(self, io: bool, base: int, length: int) -> bool:
        return True

    def masters_allowed(self) -> bool:
        return True


class SecondaryBus(PciBus):
    """The bus behind a bridge."""

    def __init__(self, bridge: PciBridge) -> None:
        super().__init__()
        self.bridge = bridge

    @property
    def _primary(self) -> PciBus:
        if self.bridge.bus is None:
            raise ValueError(f"{self.bridge.name} is on no bus yet: attach the bridge first")
        return self.bridge.bus

    @property
    def host(self) -> PciHost:
        return self._primary.host

    @property
    def number(self) -> int:
        return self.bridge.secondary

    def interrupt_input(self, device: int, pin: int, name: str) -> IrqLine:
        return self._primary.interrupt_input(self.bridge.device_number, swizzle(device, pin), name)

    def forwards(self, io: bool, base: int, length: int) -> bool:
        bridge = self.bridge
        passes = bridge.passes_io(base, length) if io else bridge.passes_memory(base, length)
        return passes and self._primary.forwards(io, base, length)

    def masters_allowed(self) -> bool:
        return self.bridge.bus_master
