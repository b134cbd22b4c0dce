"""SMBIOS tables: who made the machine, and where its BMC is.

Source: DMTF DSP0134 (SMBIOS 3.x), 5.2.1 (32-bit entry point) and chapter 7.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

ENTRY_POINT_LENGTH = 0x1F
INTERMEDIATE = 0x10
MAJOR, MINOR = 2, 8
BIOS, SYSTEM, IPMI_DEVICE, END = 0, 1, 38, 127
SEGMENT_START, SEGMENT_END = 0xF0000, 0x100000
"""Where software looks for the entry point, on 16-byte boundaries."""
PCI_SUPPORTED, SELECTABLE_BOOT = 1 << 7, 1 << 16
ACPI_SUPPORTED, VIRTUAL_MACHINE = 1 << 0, 1 << 4
"""BIOS characteristics extension bytes 1 and 2 (7.1.2)."""
KCS = 1
IPMI_2_0 = 0x20
SPACING_SHIFT = 6
SPACINGS = {1: 0, 4: 1, 16: 2}


@dataclass(frozen=True, slots=True)
class Structure:
    """One structure: its formatted part after the header, and its strings.

    Raises:
        ValueError: a string is empty or not printable ASCII, which would end the string set early.
    """

    kind: int
    body: bytes
    strings: Sequence[str] = ()

    def __post_init__(self) -> None:
        for text in self.strings:
            if not (text and text.isascii() and text.isprintable()):
                raise ValueError(f"SMBIOS string {text!r}: must be printable ASCII and not empty")

    def pack(self, handle: int) -> bytes:
        """The structure's bytes."""
        head = struct.pack("<BBH", self.kind, 4 + len(self.body), handle)
        texts = b"".join(text.encode("ascii") + b"\0" for text in self.strings) or b"\0"
        return head + self.body + texts + b"\0"


def bios(version: str, date: str) -> Structure:
    """Type 0; `date` is mm/dd/yyyy."""
    head = struct.pack("<BBHBB", 1, 2, SEGMENT_START >> 4, 3, 0)
    characteristics = struct.pack("<QBB", PCI_SUPPORTED | SELECTABLE_BOOT, ACPI_SUPPORTED, VIRTUAL_MACHINE)
    body = head + characteristics + bytes((1, 0, 0xFF, 0xFF))
    return Structure(BIOS, body, ("portvisor", version, date))


def system(product: str, serial: str) -> Structure:
    """Type 1."""
    body = struct.pack("<BBBB16sBBB", 1, 2, 3, 4, bytes(16), 6, 0, 0)
    return Structure(SYSTEM, body, ("portvisor", product, "1.0", serial))


def ipmi(base: int, spacing: int) -> Structure:
    """Type 38: a KCS interface in I/O space, without an interrupt.

    Raises:
        ValueError: the registers are not 1, 4 or 16 bytes apart.
    """
    if spacing not in SPACINGS:
        raise ValueError(f"KCS registers {spacing} bytes apart: SMBIOS knows 1, 4 and 16")
    modifier = SPACINGS[spacing] << SPACING_SHIFT | (base & 1) << 4
    body = struct.pack("<BBBBQBB", KCS, IPMI_2_0, 0x20, 0xFF, base | 1, modifier, 0)
    return Structure(IPMI_DEVICE, body)


def _checksum(data: bytes | bytearray) -> int:
    return -sum(data) & 0xFF


def build(structures: Sequence[Structure], address: int) -> bytes:
    """Entry point and structures as they lie at `address` (16-aligned, in F0000-FFFFF).

    Raises:
        ValueError: the address is none where software looks, or the structures do not fit behind it.
    """
    if address % 16 or not SEGMENT_START <= address < SEGMENT_END:
        raise ValueError(f"SMBIOS entry point at {address:#x}: must be 16-aligned in f0000-fffff")
    packed = [one.pack(handle) for handle, one in enumerate((*structures, Structure(END, b"")))]
    table = b"".join(packed)
    start = address + (ENTRY_POINT_LENGTH + 15 & ~15)
    if start + len(table) > SEGMENT_END:
        raise ValueError(f"SMBIOS structures of {len(table)} bytes at {start:#x} leave the segment f0000-fffff")
    largest = max(len(one) for one in packed)
    entry = bytearray(
        struct.pack("<4sBBBBHB5s", b"_SM_", 0, ENTRY_POINT_LENGTH, MAJOR, MINOR, largest, 0, bytes(5))
    )
    entry += struct.pack("<5sBHIHB", b"_DMI_", 0, len(table), start, len(packed), MAJOR << 4 | MINOR)
    entry[INTERMEDIATE + 5] = _checksum(entry[INTERMEDIATE:])
    entry[4] = _checksum(entry)
    return bytes(entry).ljust(start - address, b"\0") + table
