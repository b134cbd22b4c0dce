"""What sits on the PCI bus, and the bus."""

from portvisor.devices.pci.bar import ROM_BAR, Bar, BarKind
from portvisor.devices.pci.bridge import PciBridge
from portvisor.devices.pci.bus import PciBus, RootBus, SecondaryBus, swizzle
from portvisor.devices.pci.config import PciId
from portvisor.devices.pci.function import PciFunction
from portvisor.devices.pci.host import PciHost
from portvisor.devices.pci.i440fx import I440Fx, PamSegment
from portvisor.devices.pci.piix3 import Piix3, slot_route

__all__ = [
    "ROM_BAR",
    "Bar",
    "BarKind",
    "I440Fx",
    "PamSegment",
    "PciBridge",
    "PciBus",
    "PciFunction",
    "PciHost",
    "PciId",
    "Piix3",
    "RootBus",
    "SecondaryBus",
    "slot_route",
    "swizzle",
]
