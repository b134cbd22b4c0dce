"""The test guests of tests/guests as bytes, and the forms in which a machine can be given one."""

from __future__ import annotations

from pathlib import Path

DIRECTORY = Path(__file__).parent / "guests"
NAMES = tuple(sorted(path.stem for path in DIRECTORY.glob("*.bin")))
PARAMETER_OFFSET = 0x20
"""Where a guest that has a parameter keeps it (u16): `stringio` its first scratch port."""
ROM_SIZE = 0x10000


def load(name: str) -> bytes:
    """The image: boot sector first, or a flat binary for 7C00 with CS:IP = 0000:7C00."""
    return (DIRECTORY / f"{name}.bin").read_bytes()


def with_parameter(image: bytes, value: int) -> bytes:
    """The image with another parameter."""
    return image[:PARAMETER_OFFSET] + value.to_bytes(2, "little") + image[PARAMETER_OFFSET + 2 :]


def rom_image(image: bytes) -> bytes:
    """A 64 KiB ROM that copies the image to 7C00 and jumps to it: a machine without firmware."""
    loader = load("romload")
    return image.ljust(ROM_SIZE - len(loader), b"\xff") + loader
