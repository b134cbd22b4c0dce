"""Commands for pc-testdev."""

from __future__ import annotations

from random import Random

from hypothesis import strategies as st

from qtest.differential import Chip

LETTERS = {"b": 1, "w": 2, "l": 4, "q": 8}
MEMORY = 0xFF000000
MEMORY_END = 0x10000
LINES = (0, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
"""Without the cascade; QEMU aborts from 16 on."""
PROLOGUE = (
    "outl 0xe0 0",
    *(f"outb {0x2000 + line:#x} 0" for line in LINES),
    *(f"memset {MEMORY + start:#x} 0x40 0" for start in (0, MEMORY_END - 0x40)),
)
"""RESET leaves the device alone."""


def _accesses(chance: Random) -> list[str]:
    """The ports in all sizes, a line, or memory near one of its ends."""
    kind = chance.random()
    letter = chance.choice("bwl")
    if kind < 0.4:
        port, value = chance.randrange(0xE0, 0xED - LETTERS[letter]), chance.getrandbits(8 * LETTERS[letter])
        return [f"out{letter} {port:#x} {value:#x}", "inl 0xe0", f"in{letter} {port:#x}", "inl 0xe8"]
    if kind < 0.7:
        line = chance.choice(LINES)
        return [f"outb {0x2000 + line:#x} {chance.choice((0, 1, 0xFF)):#x}", f"inb {0x2000 + line:#x}"]
    letter = chance.choice("bwlq")
    size = LETTERS[letter]
    offset = chance.choice((0, MEMORY_END - 0x40)) + chance.randrange(0x41 - size)
    address = MEMORY + offset // size * size
    return [f"write{letter} {address:#x} {chance.getrandbits(8 * size):#x}", f"readq {address & ~7:#x}"]


TESTDEV = Chip(
    st.randoms(use_true_random=False).map(lambda chance: tuple(_accesses(chance))),
    PROLOGUE,
    arguments=("-device", "pc-testdev"),
)
