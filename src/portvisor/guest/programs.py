"""Guest programs of portvisor's own, as bytes; their source lies beside them (`guest/data/NAME.S`).

`portprobe` prints what a PC's ports answer: on COM1 and in VGA text memory, then it writes 10 to port F4. It
runs as a boot sector under a BIOS, as a flat binary at `LOAD_ADDRESS` entered at CS:IP = 0000:7C00, and as the
last 4 KiB of a ROM.
"""

from __future__ import annotations

from importlib.resources import files

from portvisor.guest.errors import GuestFileError

LOAD_ADDRESS = 0x7C00
"""Where every program expects to be, and its entry point, with CS = 0."""
EXIT_PORT = 0xF4
"""A program ends by writing a byte here: `EXIT_GOOD`, or anything else."""
EXIT_GOOD = 0x10
HIDDEN_SECTORS_OFFSET = 0x1C
"""Where an image keeps the number of the disk sector that it starts at (u32), as a volume boot record does."""

_DATA = files("portvisor.guest") / "data"

NAMES = tuple(sorted(entry.name.removesuffix(".bin") for entry in _DATA.iterdir() if entry.name.endswith(".bin")))
"""The programs there are."""


def load(name: str) -> bytes:
    """The image of a program.

    Raises:
        GuestFileError: there is none of this name.
    """
    if name not in NAMES:
        raise GuestFileError(f"no built-in program {name!r}; there are: {', '.join(NAMES)}")
    return (_DATA / f"{name}.bin").read_bytes()


load_program = load
"""The same, with a name that can stand alone."""


def at_sector(image: bytes, sector: int) -> bytes:
    """The image as it must be on a disk if it starts at another sector than 0: in a partition."""
    after = HIDDEN_SECTORS_OFFSET + 4
    return image[:HIDDEN_SECTORS_OFFSET] + sector.to_bytes(4, "little") + image[after:]
