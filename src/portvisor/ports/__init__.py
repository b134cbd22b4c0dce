"""The I/O address space and all that a device model may import."""

from portvisor.ports.backend import SECTOR_SIZE, BlockBackend, BufferedChar, CharBackend
from portvisor.ports.clock import NS_PER_S, Clock, Timer, VirtualClock, WallClock
from portvisor.ports.device import Device, NoState, Snapshot, SnapshotError
from portvisor.ports.irq import IrqLine, SharedIrq
from portvisor.ports.memory import GuestMemory, MmioHandler, MmioSpace, Ram, RamRegion
from portvisor.ports.range import ACCESS_SIZES, PORT_COUNT, PortRange, PortRangeError
from portvisor.ports.space import (
    DeviceFailureError,
    Failure,
    Observer,
    Owner,
    PortConflictError,
    PortSpace,
    PortTap,
    ReadEntry,
    Unassigned,
    WriteEntry,
)

__all__ = [
    "ACCESS_SIZES",
    "NS_PER_S",
    "PORT_COUNT",
    "SECTOR_SIZE",
    "BlockBackend",
    "BufferedChar",
    "CharBackend",
    "Clock",
    "Device",
    "DeviceFailureError",
    "Failure",
    "GuestMemory",
    "IrqLine",
    "MmioHandler",
    "MmioSpace",
    "NoState",
    "Observer",
    "Owner",
    "PortConflictError",
    "PortRange",
    "PortRangeError",
    "PortSpace",
    "PortTap",
    "Ram",
    "RamRegion",
    "ReadEntry",
    "SharedIrq",
    "Snapshot",
    "SnapshotError",
    "Timer",
    "Unassigned",
    "VirtualClock",
    "WallClock",
    "WriteEntry",
]
