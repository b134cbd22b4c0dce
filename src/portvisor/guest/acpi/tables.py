"""The fixed ACPI tables: RSDP, RSDT, FADT, FACS, MADT, ERST. Source: ACPI 6.4, 5.2 and 18.5.

A table is built with offsets instead of addresses where it points into the table blob; `Blob` remembers
these places, so that either a loader in the firmware or `Blob.placed` can add the base.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

OEM_ID = b"PORTVS"
OEM_TABLE_ID = b"PORTVISR"
CREATOR_ID = b"PVSR"
HEADER = struct.Struct("<4sIBB6s8sI4sI")
CHECKSUM_OFFSET = 9


def checksum(data: bytes | bytearray) -> int:
    """The byte that makes the sum of all bytes 0."""
    return -sum(data) & 0xFF


def table(signature: bytes, revision: int, body: bytes) -> bytes:
    """Header (5.2.6) and body; the checksum is left 0 for `Blob`."""
    length = HEADER.size + len(body)
    head = HEADER.pack(signature, length, revision, 0, OEM_ID, OEM_TABLE_ID, 1, CREATOR_ID, 1)
    return head + body


@dataclass(frozen=True, slots=True)
class Pointer:
    """A little-endian field of `size` bytes at `offset` that holds an offset into the blob."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Checksummed:
    """A stretch of the blob whose byte at `field` makes its sum 0."""

    field: int
    start: int
    length: int


@dataclass
class Blob:
    """Tables one after the other, with the places that depend on where the blob lands."""

    data: bytearray = field(default_factory=bytearray)
    pointers: list[Pointer] = field(default_factory=list)
    checksums: list[Checksummed] = field(default_factory=list)

    def reserve(self, size: int, align: int) -> int:
        """Append `size` zero bytes; their offset."""
        self.data += bytes(-len(self.data) % align)
        offset = len(self.data)
        self.data += bytes(size)
        return offset

    def add(self, content: bytes, pointers: Sequence[Pointer] = (), align: int = 16, *, summed: bool = True) -> int:
        """Append a table whose `pointers` are relative to its own start; its offset."""
        offset = self.reserve(len(content), align)
        self.data[offset : offset + len(content)] = content
        self.pointers += [Pointer(offset + one.offset, one.size) for one in pointers]
        if summed:
            self.checksums.append(Checksummed(offset + CHECKSUM_OFFSET, offset, len(content)))
        return offset

    def placed(self, base: int) -> bytes:
        """The blob as it lies at guest-physical `base`: addresses and checksums filled in."""
        out = bytearray(self.data)
        for one in self.pointers:
            stop = one.offset + one.size
            value = int.from_bytes(out[one.offset : stop], "little") + base
            out[one.offset : stop] = value.to_bytes(one.size, "little")
        for one_sum in self.checksums:
            out[one_sum.field] = 0
            out[one_sum.field] = checksum(out[one_sum.start : one_sum.start + one_sum.length])
        return bytes(out)


@dataclass(frozen=True, slots=True)
class Gas:
    """Generic Address Structure (5.2.3.2). `space` 0 is memory, 1 is I/O."""

    space: int
    width: int
    address: int
    offset: int = 0
    access: int = 0

    def pack(self) -> bytes:
        """The structure's 12 bytes."""
        return struct.pack("<BBBBQ", self.space, self.width, self.offset, self.access, self.address)


SYSTEM_MEMORY, SYSTEM_IO = 0, 1


@dataclass(frozen=True, slots=True)
class Block:
    """A register block in I/O space."""

    port: int
    length: int

    def gas(self) -> bytes:
        """The block as a GAS, zero if it is absent."""
        return Gas(SYSTEM_IO, min(255, self.length * 8), self.port).pack() if self.length else bytes(12)


@dataclass(frozen=True, slots=True)
class FixedHardware:
    """What the FADT says of the fixed hardware (5.2.9)."""

    pm1a_event: Block
    pm1a_control: Block
    pm2_control: Block
    pm_timer: Block
    gpe0: Block
    sci: int = 9
    smi_command: int = 0xB2
    acpi_enable: int = 2
    acpi_disable: int = 3
    p_lvl2_latency: int = 0x65
    p_lvl3_latency: int = 0x3E9
    duty_offset: int = 1
    duty_width: int = 3
    day_alarm: int = 0x0D
    century: int = 0x32
    boot_architecture: int = 3
    """IAPC_BOOT_ARCH: bit 0 legacy devices, bit 1 8042."""
    flags: int = 0x425
    """WBINVD, PROC_C1, SLP_BUTTON (no such button), RESET_REG_SUP."""
    reset_register: int = 0xCF9
    reset_value: int = 0x06


FADT_LENGTH = 244
FADT_REVISION = 4
FADT_FACS, FADT_DSDT, FADT_X_FACS, FADT_X_DSDT = 36, 40, 132, 140
PM_PROFILE_ENTERPRISE_SERVER = 4


def fadt(hardware: FixedHardware, facs: int, dsdt: int) -> tuple[bytes, list[Pointer]]:
    """FADT revision 4 and its pointers; `facs` and `dsdt` are offsets into the blob."""
    out = bytearray(table(b"FACP", FADT_REVISION, bytes(FADT_LENGTH - HEADER.size)))
    blocks = (hardware.pm1a_event, hardware.pm1a_control, hardware.pm2_control, hardware.pm_timer, hardware.gpe0)
    event, control, pm2, timer, gpe0 = blocks
    struct.pack_into("<II", out, FADT_FACS, facs, dsdt)
    struct.pack_into("<BHI", out, 45, PM_PROFILE_ENTERPRISE_SERVER, hardware.sci, hardware.smi_command)
    struct.pack_into("<BB", out, 52, hardware.acpi_enable, hardware.acpi_disable)
    struct.pack_into("<8I", out, 56, event.port, 0, control.port, 0, pm2.port, timer.port, gpe0.port, 0)
    lengths = (event.length, control.length, pm2.length, timer.length, gpe0.length, 0, 0)
    struct.pack_into("<7B", out, 88, *lengths)
    struct.pack_into("<HH", out, 96, hardware.p_lvl2_latency, hardware.p_lvl3_latency)
    struct.pack_into("<BB", out, 104, hardware.duty_offset, hardware.duty_width)
    struct.pack_into("<BBBH", out, 106, hardware.day_alarm, 0, hardware.century, hardware.boot_architecture)
    struct.pack_into("<I", out, 112, hardware.flags)
    out[116:128] = Gas(SYSTEM_IO, 8, hardware.reset_register, access=1).pack()
    out[128] = hardware.reset_value
    struct.pack_into("<QQ", out, FADT_X_FACS, 0, dsdt)
    for place, block in ((148, event), (172, control), (196, pm2), (208, timer), (220, gpe0)):
        out[place : place + 12] = block.gas()
    return bytes(out), [Pointer(FADT_FACS, 4), Pointer(FADT_DSDT, 4), Pointer(FADT_X_DSDT, 8)]


def facs() -> bytes:
    """FACS (5.2.10): 64 bytes, no checksum, must be 64-aligned."""
    return struct.pack("<4sIIIIIQB", b"FACS", 64, 0, 0, 0, 0, 0, 1).ljust(64, b"\0")


MADT_PCAT_COMPAT = 1
LOCAL_APIC_ENABLED = 1
ACTIVE_HIGH_LEVEL = 0x0D


def madt(processors: int, local_apic: int = 0xFEE00000, io_apic: int = 0xFEC00000, sci: int = 9) -> bytes:
    """MADT (5.2.12): local APICs, one I/O APIC, ISA overrides for the timer and the SCI."""
    body = struct.pack("<II", local_apic, MADT_PCAT_COMPAT)
    for index in range(processors):
        body += struct.pack("<BBBBI", 0, 8, index, index, LOCAL_APIC_ENABLED)
    body += struct.pack("<BBBBII", 1, 12, 0, 0, io_apic, 0)
    body += struct.pack("<BBBBIH", 2, 10, 0, 0, 2, 0)
    body += struct.pack("<BBBBIH", 2, 10, 0, sci, sci, ACTIVE_HIGH_LEVEL)
    body += struct.pack("<BBBHB", 4, 6, 0xFF, 0, 1)
    return table(b"APIC", 1, body)


def rsdt(offsets: Sequence[int]) -> tuple[bytes, list[Pointer]]:
    """RSDT (5.2.7) of tables at blob offsets."""
    content = table(b"RSDT", 1, b"".join(struct.pack("<I", offset) for offset in offsets))
    return content, [Pointer(HEADER.size + 4 * index, 4) for index in range(len(offsets))]


RSDP_LENGTH = 20
RSDP_CHECKSUM, RSDP_RSDT = 8, 16


def rsdp(rsdt_address: int) -> bytes:
    """RSDP of ACPI 1.0 (5.2.5.3), checksummed."""
    out = bytearray(struct.pack("<8sB6sBI", b"RSD PTR ", 0, OEM_ID, 0, rsdt_address))
    out[RSDP_CHECKSUM] = checksum(out)
    return bytes(out)


@dataclass(frozen=True, slots=True)
class ErstEntry:
    """One serialization instruction entry (18.5.1.2)."""

    action: int
    instruction: int
    register: Gas
    value: int = 0
    mask: int = (1 << 64) - 1

    def pack(self) -> bytes:
        """The entry's 32 bytes."""
        head = struct.pack("<BBBB", self.action, self.instruction, 0, 0)
        return head + self.register.pack() + struct.pack("<QQ", self.value, self.mask)


ERST_HEADER_LENGTH = 12
ERST_ENTRY_LENGTH = 32
ERST_GAR_ADDRESS = 8
"""Offset of the register's address inside an entry."""


def erst(entries: Sequence[ErstEntry]) -> tuple[bytes, list[Pointer]]:
    """ERST; registers in system memory hold blob offsets and are returned as pointers."""
    body = struct.pack("<III", ERST_HEADER_LENGTH, 0, len(entries)) + b"".join(one.pack() for one in entries)
    first = HEADER.size + ERST_HEADER_LENGTH
    pointers = [
        Pointer(first + ERST_ENTRY_LENGTH * index + ERST_GAR_ADDRESS, 8)
        for index, one in enumerate(entries)
        if one.register.space == SYSTEM_MEMORY
    ]
    return table(b"ERST", 1, body), pointers
