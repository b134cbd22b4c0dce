"""Floppy drives and the formats of their media.

Source: the IBM formats (ECMA-99 for 1.2 MB, ECMA-100 for 720 KB, ECMA-125 for 1.44 MB, ECMA-147 for 2.88 MB); CMOS
codes of drives: IBM AT and PS/2 BIOS interface technical reference. Sectors have 512 bytes (N = 2), MFM.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from portvisor.ports import SECTOR_SIZE

RATE_500K, RATE_300K, RATE_250K, RATE_1M = range(4)
"""Data rates in kilobits a second as CCR and DSR encode them."""


class DriveKind(IntEnum):
    """A drive by the code that CMOS byte 10h has for it."""

    KB_360 = 1
    """5.25 inch, 40 cylinders."""
    MB_1_2 = 2
    """5.25 inch, 80 cylinders, 360 rpm."""
    KB_720 = 3
    """3.5 inch."""
    MB_1_44 = 4
    """3.5 inch."""
    MB_2_88 = 5
    """3.5 inch, perpendicular recording."""


SPARE_CYLINDERS = 4
"""How far the head goes beyond the last cylinder that is formatted."""


def last_cylinder(kind: DriveKind) -> int:
    """Where the stop of the head is."""
    return (40 if kind is DriveKind.KB_360 else 80) + SPARE_CYLINDERS - 1


@dataclass(frozen=True, slots=True)
class Format:
    """How a medium is laid out."""

    cylinders: int
    heads: int
    sectors: int
    """On a track."""
    rate: int
    """In the drive that was made for it."""
    drives: tuple[DriveKind, ...]
    """That take it; the first is the usual one."""

    @property
    def total(self) -> int:
        """Sectors of the medium."""
        return self.cylinders * self.heads * self.sectors

    def rate_in(self, kind: DriveKind) -> int:
        """The rate at which a drive reads it: one that turns at 360 rpm reads 250 kb/s at 300."""
        return RATE_300K if kind is DriveKind.MB_1_2 and self.rate == RATE_250K else self.rate

    def steps(self, kind: DriveKind) -> int:
        """Cylinders of the drive from one of the medium's to the next."""
        return 2 if kind is DriveKind.MB_1_2 and self.cylinders == 40 else 1


_FIVE_INCH = (DriveKind.KB_360, DriveKind.MB_1_2)
_DOUBLE = (DriveKind.KB_720, DriveKind.MB_1_44, DriveKind.MB_2_88)
_HIGH = (DriveKind.MB_1_44, DriveKind.MB_2_88)

FORMATS = (
    Format(40, 1, 8, RATE_250K, _FIVE_INCH),
    Format(40, 1, 9, RATE_250K, _FIVE_INCH),
    Format(40, 2, 8, RATE_250K, _FIVE_INCH),
    Format(40, 2, 9, RATE_250K, _FIVE_INCH),
    Format(80, 2, 9, RATE_250K, (DriveKind.MB_1_44, *_DOUBLE)),
    Format(80, 2, 15, RATE_500K, (DriveKind.MB_1_2,)),
    Format(80, 2, 18, RATE_500K, _HIGH),
    Format(80, 2, 21, RATE_500K, _HIGH),
    Format(80, 2, 36, RATE_1M, (DriveKind.MB_2_88,)),
)


class MediumError(ValueError):
    """What cannot be a floppy disk, or not one for this drive: one line."""


def format_of(sectors: int, kind: DriveKind | None = None) -> Format:
    """The format of a medium, by its size in sectors of 512 bytes.

    Raises:
        MediumError: there is none of this size, or the drive `kind` does not take it.
    """
    for one in FORMATS:
        if one.total == sectors:
            if kind is not None and kind not in one.drives:
                raise MediumError(f"a floppy disk of {_size(one.total)} does not fit a {kind.name} drive")
            return one
    sizes = ", ".join(_size(one.total) for one in FORMATS)
    raise MediumError(f"{sectors * SECTOR_SIZE} bytes are no floppy disk; the sizes are {sizes}")


def _size(sectors: int) -> str:
    return f"{sectors * SECTOR_SIZE // 1024}K"
