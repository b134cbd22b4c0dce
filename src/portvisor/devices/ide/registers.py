"""Registers and bits of the ATA command and control blocks (T13/1410D ATA-6, clause 7), and a drive's copy."""

from __future__ import annotations

from dataclasses import dataclass, field

# Command block, as offsets from its base. A read of 1 is Error, a read of 7 is Status.
DATA = 0
FEATURES = 1
SECTOR_COUNT = 2
LBA_LOW = 3
LBA_MID = 4
LBA_HIGH = 5
DEVICE = 6
COMMAND = 7

# Status (7.15)
BSY = 0x80
DRDY = 0x40
DF = 0x20
DSC = 0x10
"""Seek complete: obsolete since ATA-4 and always set with DRDY here, as drives went on doing."""
DRQ = 0x08
ERR = 0x01

# Error (7.9)
UNC = 0x40
IDNF = 0x10
ABRT = 0x04
DIAGNOSTIC_PASSED = 0x01
"""Error after a reset or EXECUTE DEVICE DIAGNOSTIC: device 0 passed, device 1 passed or is absent."""

# Device (7.7)
DEVICE_LBA = 0x40
DEVICE_DEV = 0x10
DEVICE_HEAD = 0x0F

# Device Control (7.8)
NIEN = 0x02
SRST = 0x04
HOB = 0x80

LBA28_SECTORS = 1 << 28
LBA48_SECTORS = 1 << 48


def _bank() -> bytearray:
    return bytearray(8)


@dataclass
class TaskFile:
    """One drive's command block registers.

    `current` is indexed by the offsets FEATURES to DEVICE; `previous` holds what FEATURES to LBA_HIGH held
    before their last write (the 48-bit commands' upper halves, read back with HOB).
    """

    current: bytearray = field(default_factory=_bank)
    previous: bytearray = field(default_factory=_bank)
    status: int = 0
    error: int = 0

    def put(self, register: int, value: int) -> None:
        """A host write to FEATURES-DEVICE; DEVICE has no previous value."""
        if register != DEVICE:
            self.previous[register] = self.current[register]
        self.current[register] = value

    @property
    def count28(self) -> int:
        """Sectors asked for by an 8-bit count: 0 means 256."""
        return self.current[SECTOR_COUNT] or 256

    @property
    def count48(self) -> int:
        """Sectors asked for by a 16-bit count: 0 means 65,536."""
        return (self.previous[SECTOR_COUNT] << 8 | self.current[SECTOR_COUNT]) or 65_536

    @property
    def features16(self) -> int:
        """Features with its previous value on top: the sector count of a queued command, 0 means 65,536."""
        return (self.previous[FEATURES] << 8 | self.current[FEATURES]) or 65_536

    @property
    def lba28(self) -> int:
        """The 28-bit address."""
        return (self.current[DEVICE] & DEVICE_HEAD) << 24 | self._address(self.current)

    @lba28.setter
    def lba28(self, lba: int) -> None:
        self._set_address(self.current, lba)
        self.current[DEVICE] = self.current[DEVICE] & ~DEVICE_HEAD | lba >> 24 & DEVICE_HEAD

    @property
    def lba48(self) -> int:
        """The 48-bit address."""
        return self._address(self.previous) << 24 | self._address(self.current)

    @lba48.setter
    def lba48(self, lba: int) -> None:
        self._set_address(self.current, lba)
        self._set_address(self.previous, lba >> 24)

    @property
    def cylinder(self) -> int:
        """LBA_HIGH and LBA_MID as one number: a cylinder, or a packet device's byte count."""
        return self.current[LBA_HIGH] << 8 | self.current[LBA_MID]

    @cylinder.setter
    def cylinder(self, value: int) -> None:
        self.current[LBA_MID] = value & 0xFF
        self.current[LBA_HIGH] = value >> 8 & 0xFF

    @staticmethod
    def _address(bank: bytearray) -> int:
        return bank[LBA_HIGH] << 16 | bank[LBA_MID] << 8 | bank[LBA_LOW]

    @staticmethod
    def _set_address(bank: bytearray, address: int) -> None:
        bank[LBA_LOW] = address & 0xFF
        bank[LBA_MID] = address >> 8 & 0xFF
        bank[LBA_HIGH] = address >> 16 & 0xFF
