"""General-purpose I/O block of a PCH: 128 bytes at GPIOBASE.

Source: Intel C610 series PCH data sheet (330788), 12.10 "General Purpose I/O Registers"; default values as in
the 7 series data sheet (326776), whose block is the same.

| offset | register (sets 1, 2, 3: pins 0-31, 32-63, 64-75) |
|---|---|
| 00, 30, 40 | GPIO_USE_SEL: 1 the pin is a GPIO |
| 04, 34, 44 | GP_IO_SEL: 1 input |
| 0C, 38, 48 | GP_LVL: reads pin levels; writes go to outputs |
| 18 | GPO_BLINK, 1C GP_SER_BLINK, 20 GP_SB_CMDSTS, 24 GP_SB_DATA |
| 28, 2A | GPI_NMI_EN, GPI_NMI_STS (write 1 to clear) |
| 2C | GPI_INV |
| 60, 64, 68 | GP_RST_SEL |

A pin whose IO_SEL bit is 1 reads its strap (`inputs`) and ignores writes to its level. The offsets between the
registers are reserved: they read 0. Not modelled: blinking, serial blink transfers, NMI and SCI from pins, the
choice of resets in GP_RST_SEL (every reset resets every pin).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.ports import Device, PortRange

LENGTH = 0x80
WORDS = LENGTH // 4
IO_SEL_OF_LEVEL = {0x0C: 0x04, 0x38: 0x34, 0x48: 0x44}
NMI = 0x28
NMI_STATUS_LANES = 0xFFFF0000
ALL, SET_3 = 0xFFFFFFFF, 0x00000FFF
SERIAL_COMMAND = 0x00FF0000
"""GP_SB_CMDSTS: 23:22 length, 21:16 rate; 8 busy and 0 go are over before they can be read."""
REGISTERS = {
    0x00: (0xB96BA1FF, ALL), 0x04: (0xEEFF6EFF, ALL), 0x0C: (0x02FE0100, ALL), 0x18: (0x00040000, ALL),
    0x1C: (0, ALL), 0x20: (0x00080000, SERIAL_COMMAND), 0x24: (0, ALL), NMI: (0, 0xFFFF), 0x2C: (0, ALL),
    0x30: (0x020300FF, ALL), 0x34: (0x1F57FFF4, ALL), 0x38: (0xA4AA0007, ALL),
    0x40: (0x00000130, SET_3), 0x44: (0x00000FF0, SET_3), 0x48: (0x000000C0, SET_3),
    0x60: (0x01000000, ALL), 0x64: (0, ALL), 0x68: (0, SET_3),
}  # fmt: skip
"""Default value and writable bits of every dword that is not reserved."""


def _reset_words() -> list[int]:
    return [REGISTERS.get(4 * index, (0, 0))[0] for index in range(WORDS)]


class PchGpio(Device):
    """The block. `holes` are ports inside it that the board gives to something else."""

    name = "gpio"
    REGISTERS: ClassVar = {
        0x00: "GPIO_USE_SEL", 0x04: "GP_IO_SEL", 0x0C: "GP_LVL", 0x18: "GPO_BLINK", 0x1C: "GP_SER_BLINK",
        0x20: "GP_SB_CMDSTS", 0x24: "GP_SB_DATA", 0x28: "GPI_NMI_EN", 0x2A: "GPI_NMI_STS", 0x2C: "GPI_INV",
        0x30: "GPIO_USE_SEL2", 0x34: "GP_IO_SEL2", 0x38: "GP_LVL2", 0x40: "GPIO_USE_SEL3",
        0x44: "GP_IO_SEL3", 0x48: "GP_LVL3", 0x60: "GP_RST_SEL1", 0x64: "GP_RST_SEL2", 0x68: "GP_RST_SEL3",
    }  # fmt: skip

    @dataclass
    class State:
        """The registers as dwords."""

        words: list[int] = field(default_factory=_reset_words)

    state: State

    def __init__(self, inputs: int = 0, holes: Iterable[PortRange] = (), base: int | None = None) -> None:
        """`inputs` holds the levels of pins 0-95 that are inputs."""
        super().__init__()
        self._inputs = inputs
        self._holes = tuple(holes)
        self.ports = self.ranges(base)

    def ranges(self, base: int | None) -> tuple[PortRange, ...]:
        """The block's ports for a GPIOBASE, without the holes; none if it is not decoded."""
        if base is None:
            return ()
        taken = {port for hole in self._holes for port in range(hole.base, hole.last + 1)}
        free = [port for port in range(base, base + LENGTH) if port not in taken]
        pieces: list[PortRange] = []
        start = 0
        for index in range(1, len(free) + 1):
            if index == len(free) or free[index] != free[index - 1] + 1:
                first = free[start]
                length = free[index - 1] - first + 1
                sizes = (1,) if (first - base) % 4 else (1, 2, 4)
                pieces.append(PortRange(first, length, sizes, "gpio", first - base))
                start = index
        return tuple(pieces)

    def read(self, offset: int, size: int) -> int:
        index = offset & ~3
        value = self.state.words[index >> 2]
        if index in IO_SEL_OF_LEVEL:
            pins = self._inputs >> 32 * list(IO_SEL_OF_LEVEL).index(index)
            inputs = self._input_pins(index)
            value = value & ~inputs | pins & inputs
        return value >> 8 * (offset & 3)

    def _input_pins(self, level: int) -> int:
        """Which pins of a GP_LVL register are inputs."""
        return self.state.words[IO_SEL_OF_LEVEL[level] >> 2]

    def write(self, offset: int, size: int, value: int) -> None:
        shift, index = 8 * (offset & 3), offset & ~3
        lanes = ((1 << 8 * size) - 1) << shift & REGISTERS.get(index, (0, 0))[1]
        if index in IO_SEL_OF_LEVEL:
            lanes &= ~self._input_pins(index)
        words = self.state.words
        words[index >> 2] = words[index >> 2] & ~lanes | value << shift & lanes
        if index == NMI:
            words[NMI >> 2] &= ~(value << shift & NMI_STATUS_LANES)

    def register_name(self, offset: int, size: int, write: bool) -> str:
        return self.REGISTERS.get(offset) or self.REGISTERS.get(offset & ~3, "")
