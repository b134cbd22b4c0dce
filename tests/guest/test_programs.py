"""The built-in guest programs as bytes."""

from __future__ import annotations

import pytest

from portvisor.guest import programs
from portvisor.guest.errors import GuestFileError


def test_portprobe_is_there() -> None:
    assert "portprobe" in programs.NAMES
    assert len(programs.load("portprobe")) == 4096


def test_a_program_that_is_not() -> None:
    with pytest.raises(GuestFileError) as caught:
        programs.load("../seed")
    assert str(caught.value) == f"no built-in program '../seed'; there are: {', '.join(programs.NAMES)}"


def test_at_sector_changes_the_hidden_sectors_alone() -> None:
    image = programs.load("portprobe")
    moved = programs.at_sector(image, 0x01020304)
    assert moved[0x1C:0x20] == b"\x04\x03\x02\x01"
    assert moved[:0x1C] + moved[0x20:] == image[:0x1C] + image[0x20:]


def test_the_last_bytes_of_portprobe_are_a_reset_vector() -> None:
    """A far jump to F000:xxxx, into the image itself."""
    vector = programs.load("portprobe")[-16:]
    assert vector[0] == 0xEA
    assert int.from_bytes(vector[3:5], "little") == 0xF000
    assert int.from_bytes(vector[1:3], "little") >= 0x10000 - 4096
