"""Formats by size, and how drives see them."""

from __future__ import annotations

import pytest

from devices.floppy.fdc_host import image
from portvisor.devices.floppy.drive import FloppyDrive
from portvisor.devices.floppy.media import FORMATS, DriveKind, MediumError, format_of


@pytest.mark.parametrize(
    ("kib", "geometry", "rate", "kind"),
    [
        (160, (40, 1, 8), 2, DriveKind.KB_360),
        (180, (40, 1, 9), 2, DriveKind.KB_360),
        (320, (40, 2, 8), 2, DriveKind.KB_360),
        (360, (40, 2, 9), 2, DriveKind.KB_360),
        (720, (80, 2, 9), 2, DriveKind.MB_1_44),
        (1200, (80, 2, 15), 0, DriveKind.MB_1_2),
        (1440, (80, 2, 18), 0, DriveKind.MB_1_44),
        (1680, (80, 2, 21), 0, DriveKind.MB_1_44),
        (2880, (80, 2, 36), 3, DriveKind.MB_2_88),
    ],
)
def test_size_gives_geometry_rate_and_drive(
    kib: int, geometry: tuple[int, int, int], rate: int, kind: DriveKind
) -> None:
    one = format_of(kib * 2)
    assert (one.cylinders, one.heads, one.sectors) == geometry
    assert one.rate == rate
    assert FloppyDrive(image(kib * 2)).kind is kind


def test_other_sizes_are_refused_with_the_list() -> None:
    with pytest.raises(MediumError, match=r"1000448 bytes are no floppy disk; the sizes are 160K, 180K, .*2880K"):
        format_of(1954)


def test_a_medium_that_does_not_fit_the_drive_is_refused_and_changes_nothing() -> None:
    medium = image(1440)
    drive = FloppyDrive(medium, DriveKind.KB_720)
    with pytest.raises(MediumError, match="1440K does not fit a KB_720 drive"):
        drive.insert(image())
    assert drive.image is medium


def test_a_360_rpm_drive_reads_a_360k_medium_at_300_kbps_with_double_steps() -> None:
    drive = FloppyDrive(image(720), DriveKind.MB_1_2)
    assert drive.track(0, 1) == 0
    assert drive.track(0, 2) is None
    drive.step(1)
    assert drive.track(0, 1) is None  # between two tracks
    drive.step(1)
    assert drive.track(0, 1) == 1


def test_the_head_stops_at_both_ends() -> None:
    drive = FloppyDrive(image())
    drive.step(200)
    assert drive.state.cylinder == 83
    assert drive.track(0, 0) is None
    drive.step(-200)
    assert drive.at_track_0


def test_every_format_fits_its_usual_drive() -> None:
    assert all(format_of(one.total, one.drives[0]) is one for one in FORMATS)
