"""Frame information structures between an adapter and a drive: building them, and taking a command apart.

Source: Serial ATA 3.x, 10.5.
"""

from __future__ import annotations

from portvisor.devices.ahci import registers as r
from portvisor.devices.ide.registers import (
    DEVICE,
    FEATURES,
    LBA_HIGH,
    LBA_LOW,
    LBA_MID,
    SECTOR_COUNT,
    TaskFile,
)

H2D_LENGTH = 20
H2D_LAYOUT = (
    (3, FEATURES, False), (4, LBA_LOW, False), (5, LBA_MID, False), (6, LBA_HIGH, False), (7, DEVICE, False),
    (8, LBA_LOW, True), (9, LBA_MID, True), (10, LBA_HIGH, True), (11, FEATURES, True),
    (12, SECTOR_COUNT, False), (13, SECTOR_COUNT, True),
)  # fmt: skip
"""(byte in the FIS, register, in its previous value) of a Register - Host to Device FIS."""
E_STATUS = 15
"""Byte of a PIO Setup FIS: Status after the data."""


def take_command(fis: bytes, registers: TaskFile) -> int:
    """Put a command's parameters into a drive's registers; gives the command code."""
    for place, register, previous in H2D_LAYOUT:
        (registers.previous if previous else registers.current)[register] = fis[place]
    return fis[2]


def _registers(registers: TaskFile) -> bytes:
    """Bytes 4-13 of a FIS from the drive."""
    now, before = registers.current, registers.previous
    low = (now[LBA_LOW], now[LBA_MID], now[LBA_HIGH], now[DEVICE])
    high = (before[LBA_LOW], before[LBA_MID], before[LBA_HIGH], 0)
    return bytes((*low, *high, now[SECTOR_COUNT], before[SECTOR_COUNT]))


def d2h(registers: TaskFile, *, interrupt: bool, status: int | None = None) -> bytes:
    """Register - Device to Host FIS."""
    status = registers.status if status is None else status
    head = bytes((r.FIS_D2H, r.FIS_INTERRUPT if interrupt else 0, status, registers.error))
    return head + _registers(registers) + bytes(6)


def pio_setup(registers: TaskFile, *, to_host: bool, interrupt: bool, count: int) -> bytearray:
    """PIO Setup FIS for a block of `count` bytes; E_STATUS is still to be filled in."""
    flags = (r.FIS_D_IN if to_host else 0) | (r.FIS_INTERRUPT if interrupt else 0)
    head = bytes((r.FIS_PIO_SETUP, flags, registers.status, registers.error))
    return bytearray(head + _registers(registers) + bytes(2) + (count & 0xFFFF).to_bytes(2, "little") + bytes(2))


def set_device_bits(registers: TaskFile, completed: int) -> bytes:
    """Set Device Bits FIS; `completed` is a mask of queue tags."""
    head = bytes((r.FIS_SDB, r.FIS_INTERRUPT, registers.status & r.SDB_STATUS, registers.error))
    return head + completed.to_bytes(4, "little")
