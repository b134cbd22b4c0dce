"""A floppy drive: head, disk change latch, write protection, and the medium as sectors with IDs.

The medium turns as fast as the controller wants, and steps take no time. A medium is an image with one of the
formats of `media`: an ID field for every sector with C, H, R = 1 ... and N = 2. The deleted data marks that a guest
writes live with the medium until it is taken out; an image file has no place for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from portvisor.devices.floppy.media import DriveKind, Format, format_of, last_cylinder
from portvisor.ports import SECTOR_SIZE, BlockBackend

SECTOR_CODE = 2
"""N of 512 bytes."""


@dataclass
class DriveState:
    """Everything that a drive remembers."""

    cylinder: int = 0
    """Where the head is."""
    changed: bool = True
    """The latch behind DSKCHG#: set while there is no medium, cleared by a step with one."""
    sector: int = 0
    """The sector whose ID has last passed under the head."""
    deleted: int = 0
    """A bit for every sector with a deleted data mark."""


class FloppyDrive:
    """One drive.

    Args:
        image: the medium; None for an empty drive.
        kind: the drive; by default the usual one for the medium, 1.44 MB if there is none.

    Raises:
        MediumError: the image has no format, or not one for this kind.
    """

    def __init__(self, image: BlockBackend | None = None, kind: DriveKind | None = None) -> None:
        if kind is None:
            kind = format_of(image.sectors).drives[0] if image else DriveKind.MB_1_44
        self.kind = kind
        self.state = DriveState()
        self.image: BlockBackend | None = None
        self.format: Format | None = None
        self.insert(image)

    def insert(self, image: BlockBackend | None) -> None:
        """Change the medium; None takes it out.

        Raises:
            MediumError: the drive does not take it; then nothing is changed.
        """
        self.format = format_of(image.sectors, self.kind) if image else None
        self.image = image
        self.state.changed = True
        self.state.deleted = self.state.sector = 0

    # --- signals --------------------------------------------------------------------------------------

    @property
    def at_track_0(self) -> bool:
        """TRK0#."""
        return self.state.cylinder == 0

    @property
    def write_protected(self) -> bool:
        """WP#; an empty drive asserts it, as no medium keeps its sensor open."""
        return self.image is None or self.image.read_only

    def step(self, cylinders: int) -> None:
        """Step pulses: inwards if positive. The head stops at both ends."""
        state = self.state
        state.cylinder = max(0, min(state.cylinder + cylinders, last_cylinder(self.kind)))
        if cylinders and self.image:
            state.changed = False

    # --- what is on the track -------------------------------------------------------------------------

    def track(self, head: int, rate: int) -> int | None:
        """The C of the ID fields under a head; None if no ID field can be read there."""
        layout = self.format
        if layout is None or head >= layout.heads or rate != layout.rate_in(self.kind):
            return None
        cylinder, between = divmod(self.state.cylinder, layout.steps(self.kind))
        return None if between or cylinder >= layout.cylinders else cylinder

    @property
    def sectors(self) -> int:
        """Sectors on a track."""
        return self.format.sectors if self.format else 0

    def next_id(self) -> int:
        """Let the medium turn to the next ID field; its R."""
        state = self.state
        state.sector = state.sector % max(1, self.sectors) + 1
        return state.sector

    def _number(self, track: int, head: int, record: int) -> int:
        assert self.format
        return (track * self.format.heads + head) * self.format.sectors + record - 1

    def is_deleted(self, track: int, head: int, record: int) -> bool:
        """Whether the sector has a deleted data address mark."""
        return bool(self.state.deleted >> self._number(track, head, record) & 1)

    def read(self, track: int, head: int, record: int) -> bytes:
        """A sector's data.

        Raises:
            OSError: the host cannot read it.
        """
        assert self.image
        self.state.sector = record
        return self.image.read(self._number(track, head, record), 1)

    def write(self, track: int, head: int, record: int, data: bytes, *, deleted: bool = False) -> None:
        """Write a sector and its address mark.

        Raises:
            OSError: the host cannot write it.
        """
        assert self.image
        assert len(data) == SECTOR_SIZE
        number = self._number(track, head, record)
        self.state.sector = record
        self.image.write(number, data)
        bit = 1 << number
        self.state.deleted = self.state.deleted | bit if deleted else self.state.deleted & ~bit
