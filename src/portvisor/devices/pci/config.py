"""Configuration space of a PCI function: standard registers, and which bits software may write.

Source: PCI Local Bus Specification 3.0, chapter 6 (type 0 header) and 6.7 (capabilities); PCI-to-PCI Bridge
Architecture Specification 1.2, chapter 3 (type 1 header).
"""

from __future__ import annotations

from dataclasses import dataclass

CONFIG_SIZE = 256

VENDOR_ID = 0x00
DEVICE_ID = 0x02
COMMAND = 0x04
STATUS = 0x06
REVISION_ID = 0x08
CLASS_CODE = 0x09
CACHE_LINE_SIZE = 0x0C
LATENCY_TIMER = 0x0D
HEADER_TYPE = 0x0E
BAR0 = 0x10
SUBSYSTEM_VENDOR_ID = 0x2C
SUBSYSTEM_ID = 0x2E
ROM_BASE = 0x30
CAPABILITIES_POINTER = 0x34
INTERRUPT_LINE = 0x3C
INTERRUPT_PIN = 0x3D

PRIMARY_BUS = 0x18
SECONDARY_BUS = 0x19
SUBORDINATE_BUS = 0x1A
SECONDARY_LATENCY_TIMER = 0x1B
IO_BASE = 0x1C
IO_LIMIT = 0x1D
SECONDARY_STATUS = 0x1E
MEMORY_BASE = 0x20
MEMORY_LIMIT = 0x22
PREFETCHABLE_BASE = 0x24
PREFETCHABLE_LIMIT = 0x26
PREFETCHABLE_BASE_UPPER = 0x28
PREFETCHABLE_LIMIT_UPPER = 0x2C
IO_BASE_UPPER = 0x30
IO_LIMIT_UPPER = 0x32
BRIDGE_ROM_BASE = 0x38
BRIDGE_CONTROL = 0x3E

COMMAND_IO = 0x0001
COMMAND_MEMORY = 0x0002
COMMAND_MASTER = 0x0004
COMMAND_PARITY = 0x0040
COMMAND_SERR = 0x0100
COMMAND_INTX_DISABLE = 0x0400

STATUS_INTERRUPT = 0x0008
STATUS_CAPABILITIES = 0x0010
STATUS_FAST_BACK_TO_BACK = 0x0080
STATUS_DEVSEL_MEDIUM = 0x0200
STATUS_ERRORS = 0xF900  # master parity error, signaled/received aborts, SERR#, parity error: write 1 to clear

HEADER_BRIDGE = 0x01
HEADER_MULTIFUNCTION = 0x80

FIRST_CAPABILITY = 0x40


COMMON_NAMES = {
    VENDOR_ID: "VENDOR_ID",
    DEVICE_ID: "DEVICE_ID",
    COMMAND: "COMMAND",
    STATUS: "STATUS",
    REVISION_ID: "REVISION_ID",
    CLASS_CODE: "CLASS_CODE",
    CLASS_CODE + 1: "SUB_CLASS",
    CLASS_CODE + 2: "BASE_CLASS",
    CACHE_LINE_SIZE: "CACHE_LINE_SIZE",
    LATENCY_TIMER: "LATENCY_TIMER",
    HEADER_TYPE: "HEADER_TYPE",
    BAR0: "BAR0",
    BAR0 + 4: "BAR1",
    CAPABILITIES_POINTER: "CAPABILITIES_POINTER",
    INTERRUPT_LINE: "INTERRUPT_LINE",
    INTERRUPT_PIN: "INTERRUPT_PIN",
}
TYPE0_NAMES = COMMON_NAMES | {
    BAR0 + 8: "BAR2",
    BAR0 + 12: "BAR3",
    BAR0 + 16: "BAR4",
    BAR0 + 20: "BAR5",
    SUBSYSTEM_VENDOR_ID: "SUBSYSTEM_VENDOR_ID",
    SUBSYSTEM_ID: "SUBSYSTEM_ID",
    ROM_BASE: "ROM_BASE",
}
TYPE1_NAMES = COMMON_NAMES | {
    PRIMARY_BUS: "PRIMARY_BUS",
    SECONDARY_BUS: "SECONDARY_BUS",
    SUBORDINATE_BUS: "SUBORDINATE_BUS",
    SECONDARY_LATENCY_TIMER: "SECONDARY_LATENCY_TIMER",
    IO_BASE: "IO_BASE",
    IO_LIMIT: "IO_LIMIT",
    SECONDARY_STATUS: "SECONDARY_STATUS",
    MEMORY_BASE: "MEMORY_BASE",
    MEMORY_LIMIT: "MEMORY_LIMIT",
    PREFETCHABLE_BASE: "PREFETCHABLE_BASE",
    PREFETCHABLE_LIMIT: "PREFETCHABLE_LIMIT",
    PREFETCHABLE_BASE_UPPER: "PREFETCHABLE_BASE_UPPER",
    PREFETCHABLE_LIMIT_UPPER: "PREFETCHABLE_LIMIT_UPPER",
    IO_BASE_UPPER: "IO_BASE_UPPER",
    IO_LIMIT_UPPER: "IO_LIMIT_UPPER",
    BRIDGE_ROM_BASE: "ROM_BASE",
    BRIDGE_CONTROL: "BRIDGE_CONTROL",
}
"""Names of the standard registers by offset, for traces."""


@dataclass(frozen=True, slots=True)
class PciId:
    """What a function says it is. `class_code` has 24 bits: base class, sub-class, programming interface."""

    vendor: int
    device: int
    class_code: int
    revision: int = 0
    subsystem_vendor: int = 0
    subsystem: int = 0


class ConfigLayout:
    """Reset value, writable bits and write-1-to-clear bits of every byte. A bit in neither mask is read-only."""

    def __init__(self) -> None:
        self.initial = bytearray(CONFIG_SIZE)
        self.writable = bytearray(CONFIG_SIZE)
        self.clears = bytearray(CONFIG_SIZE)

    def define(self, offset: int, size: int, value: int = 0, writable: int = 0, clears: int = 0) -> None:
        """Declare a register of `size` bytes; replaces what was declared there.

        Raises:
            ValueError: it leaves the 256 bytes, or a bit is in both masks.
        """
        if offset < 0 or offset + size > CONFIG_SIZE:
            raise ValueError(f"PCI register {offset:#x}+{size}: configuration space has {CONFIG_SIZE} bytes")
        if writable & clears:
            raise ValueError(f"PCI register {offset:#x}: bits {writable & clears:#x} are both writable and W1C")
        for table, bits in ((self.initial, value), (self.writable, writable), (self.clears, clears)):
            table[offset : offset + size] = bits.to_bytes(size, "little")

    def apply(self, config: bytearray, offset: int, size: int, value: int) -> None:
        """A write of `size` bytes, filtered by the masks."""
        end = offset + size
        old = int.from_bytes(config[offset:end], "little")
        writable = int.from_bytes(self.writable[offset:end], "little")
        clears = int.from_bytes(self.clears[offset:end], "little")
        new = (old & ~writable | value & writable) & ~(value & clears)
        config[offset:end] = new.to_bytes(size, "little")
