"""A VGA on a port space and a memory space, and the register sets of some BIOS modes, for the tests of the VGA."""

from __future__ import annotations

from dataclasses import dataclass

from portvisor.devices.vga import MEMORY_BASE, MEMORY_LENGTH, Vga
from portvisor.ports import IrqLine, MmioSpace, PortSpace, VirtualClock

FRAME_BUFFER = 0xE0000000
_PORTS = PortSpace(strict=True)
"""Shared by all boards, because a port space takes longer to make than most tests to run."""


@dataclass(frozen=True)
class Mode:
    """What a BIOS programs: misc output, and the registers of each block in order."""

    misc: int
    sequencer: str
    crtc: str
    graphics: str
    attribute: str


_EGA = "00 01 02 03 04 05 14 07 38 39 3a 3b 3c 3d 3e 3f"
_LINEAR = "00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f"

MODE_3 = Mode(
    0x67,
    "03 00 03 00 02",
    "5f 4f 50 82 55 81 bf 1f 00 4f 0d 0e 00 00 00 00 9c 8e 8f 28 1f 96 b9 a3 ff",
    "00 00 00 00 00 10 0e 0f ff",
    _EGA + "0c 00 0f 08 00",
)
MODE_4 = Mode(
    0x63,
    "03 09 03 00 02",
    "2d 27 28 90 2b 80 bf 1f 00 c1 00 00 00 00 00 00 9c 8e 8f 14 00 96 b9 a2 ff",
    "00 00 00 00 00 30 0f 0f ff",
    "00 13 15 17 02 04 06 07 10 11 12 13 14 15 16 17 01 00 03 00 00",
)
MODE_12 = Mode(
    0xE3,
    "03 01 0f 00 06",
    "5f 4f 50 82 54 80 0b 3e 00 40 00 00 00 00 00 00 ea 8c df 28 00 e7 04 e3 ff",
    "00 00 00 00 00 00 05 0f ff",
    _EGA + "01 00 0f 00 00",
)
MODE_13 = Mode(
    0x63,
    "03 01 0f 00 0e",
    "5f 4f 50 82 54 80 bf 1f 00 41 00 00 00 00 00 00 9c 8e 8f 28 40 96 b9 a3 ff",
    "00 00 00 00 00 40 05 0f ff",
    _LINEAR + "41 00 0f 00 00",
)


class Board:
    """Accesses as a CPU makes them. Device errors propagate."""

    def __init__(self, *, irq: IrqLine | None = None, vbe_memory: int = 16 << 20) -> None:
        self.clock = VirtualClock()
        self.vga = Vga(self.clock, irq=irq, vbe_memory=vbe_memory)
        self.memory = MmioSpace()
        self.memory.attach(MEMORY_BASE, MEMORY_LENGTH, self.vga, "vga")
        self.memory.attach(FRAME_BUFFER, max(vbe_memory, 0x10000), self.vga.linear, "vga frame buffer")

    @property
    def ports(self) -> PortSpace:
        """The port space with this board's VGA on it."""
        if _PORTS.devices() != (self.vga,):
            for device in _PORTS.devices():
                _PORTS.detach(device)
            _PORTS.attach(self.vga)
        return _PORTS

    def outb(self, port: int, value: int) -> None:
        self.ports.write(port, 1, value)

    def outw(self, port: int, value: int) -> None:
        self.ports.write(port, 2, value)

    def inb(self, port: int) -> int:
        return self.ports.read(port, 1)

    def inw(self, port: int) -> int:
        return self.ports.read(port, 2)

    def set_indexed(self, port: int, index: int, value: int) -> None:
        """Write a register of an index/data pair with one word."""
        self.outw(port, value << 8 | index)

    def get_indexed(self, port: int, index: int) -> int:
        self.outb(port, index)
        return self.inb(port + 1)

    def set_attribute(self, index: int, value: int) -> None:
        self.inb(0x3DA)
        self.outb(0x3C0, index)
        self.outb(0x3C0, value)

    def get_attribute(self, index: int) -> int:
        self.inb(0x3DA)
        self.outb(0x3C0, index)
        return self.inb(0x3C1)

    def set_colour(self, index: int, red: int, green: int, blue: int) -> None:
        self.outb(0x3C8, index)
        for level in (red, green, blue):
            self.outb(0x3C9, level)

    def set_vbe(self, index: int, value: int) -> None:
        self.ports.write(0x1CE, 2, index)
        self.ports.write(0x1CF, 2, value)

    def get_vbe(self, index: int) -> int:
        self.ports.write(0x1CE, 2, index)
        return self.ports.read(0x1CF, 2)

    def start_vbe(self, width: int, height: int, depth: int, flags: int = 0) -> None:
        self.set_vbe(4, 0)
        for index, value in ((1, width), (2, height), (3, depth), (4, 1 | flags)):
            self.set_vbe(index, value)

    def set_mode(self, mode: Mode) -> None:
        """What a BIOS does on a mode set: misc, sequencer, CRTC (unprotected first), graphics, attributes."""
        self.outb(0x3C2, mode.misc)
        for index, value in enumerate(bytes.fromhex(mode.sequencer)):
            self.set_indexed(0x3C4, index, value)
        self.set_indexed(0x3D4, 0x11, 0)
        for index, value in enumerate(bytes.fromhex(mode.crtc)):
            self.set_indexed(0x3D4, index, value)
        for index, value in enumerate(bytes.fromhex(mode.graphics)):
            self.set_indexed(0x3CE, index, value)
        for index, value in enumerate(bytes.fromhex(mode.attribute)):
            self.set_attribute(index, value)
        self.inb(0x3DA)
        self.outb(0x3C0, 0x20)

    def load_font(self, glyphs: dict[int, bytes], block: int = 0) -> None:
        """Write 8x16 patterns to map 2 as a BIOS does: sequential, one map, window at A0000; then back to text."""
        for port, index, value in ((0x3C4, 2, 4), (0x3C4, 4, 7), (0x3CE, 4, 2), (0x3CE, 5, 0), (0x3CE, 6, 4)):
            self.set_indexed(port, index, value)
        for code, rows in glyphs.items():
            for line, bits in enumerate(rows):
                self.memory.write(MEMORY_BASE + block + 32 * code + line, 1, bits)
        for port, index, value in (
            (0x3C4, 2, 3),
            (0x3C4, 4, 2),
            (0x3CE, 4, 0),
            (0x3CE, 5, 0x10),
            (0x3CE, 6, 0x0E),
        ):
            self.set_indexed(port, index, value)

    def put_text(self, row: int, column: int, text: bytes, attribute: int = 7, columns: int = 80) -> None:
        for step, code in enumerate(text):
            self.memory.write(0xB8000 + 2 * (row * columns + column + step), 2, attribute << 8 | code)
