"""A host for tests: a floppy controller with its DMA channel, driven the way a driver does."""

from __future__ import annotations

from collections.abc import Sequence

from devices.shared_bus import bus
from portvisor.backends.image import MemoryImage
from portvisor.devices.dma_pages import DmaPages
from portvisor.devices.floppy import DriveKind, FloppyController, FloppyDrive, HostMode
from portvisor.devices.i8237 import DmaController
from portvisor.ports import BlockBackend, IrqLine, Ram, RamRegion

SRA, SRB, DOR, TDR, MSR, FIFO, DIR = 0x3F0, 0x3F1, 0x3F2, 0x3F3, 0x3F4, 0x3F5, 0x3F7
DSR, CCR = MSR, DIR
READY, RESULT, BUSY = 0x80, 0xD0, 0x10
MOTOR_A, MOTOR_B = 0x1C, 0x2D
READ, WRITE = 0x46, 0x45
"""Commands with MFM, without MT and SK."""
TO_MEMORY, FROM_MEMORY = 0x46, 0x4A
"""Modes of DMA channel 2."""
BUFFER = 0x1000
SECTORS_1440K = 2880


def content(sectors: int) -> bytes:
    """An image in which every sector says its number."""
    return b"".join(index.to_bytes(4, "little") * 128 for index in range(sectors))


def image(sectors: int = SECTORS_1440K, *, read_only: bool = False) -> MemoryImage:
    return MemoryImage(content(sectors), read_only=read_only)


class Host:
    """A board with two drives; drive A has a 1.44 MB medium and its motor on, after all the polling."""

    def __init__(
        self,
        medium: BlockBackend | None = None,
        *,
        kind: DriveKind | None = None,
        second: FloppyDrive | None = None,
        mode: HostMode = HostMode.PS2,
        start: bool = True,
        as_qemu: bool = False,
    ) -> None:
        self.medium = medium or image()
        self.edges: list[int] = []
        self.irq = IrqLine(self.edges.append, "IRQ6")
        self.bytes = bytearray(0x20000)
        self.dma = DmaController()
        pages = DmaPages(self.dma)
        memory = Ram(RamRegion(0, memoryview(self.bytes)))
        self.drive = FloppyDrive(self.medium, kind)
        self.fdc = FloppyController(
            self.irq, self.dma, memory, (self.drive, second), mode=mode,
            select_by_command=as_qemu, enabled_after_reset=as_qemu,
        )  # fmt: skip
        self.space = bus(self.fdc, self.dma, pages)
        self.out(0xD6, 0xC0)
        self.out(0xD4, 0x00)
        if start:
            self.start()

    def out(self, port: int, *values: int) -> None:
        for value in values:
            self.space.write(port, 1, value)

    def inb(self, port: int) -> int:
        return self.space.read(port, 1)

    def start(self) -> None:
        """Out of reset, drive A's motor on, 500 kb/s, status of all drives taken."""
        self.out(DOR, MOTOR_A)
        self.out(CCR, 0)
        for _ in range(4):
            self.command(0x08)

    def send(self, *values: int) -> None:
        """The bytes of a command."""
        for value in values:
            assert self.inb(MSR) & 0xC0 == READY
            self.out(FIFO, value)

    def results(self) -> bytes:
        """All result bytes that there are."""
        taken = bytearray()
        while self.inb(MSR) & 0xF0 == RESULT:
            taken.append(self.inb(FIFO))
        return bytes(taken)

    def command(self, *values: int) -> bytes:
        """A command and its result."""
        self.send(*values)
        return self.results()

    def seek(self, cylinder: int, drive: int = 0) -> None:
        """To a cylinder; the interrupt is served."""
        self.send(0x0F, drive, cylinder)
        assert self.command(0x08) == bytes((0x20 | drive, cylinder))

    def program(self, mode: int, length: int) -> None:
        """DMA channel 2 for a transfer at BUFFER."""
        self.out(0x0A, 6)
        self.out(0x0B, mode)
        self.out(0x0C, 0)
        self.out(0x04, BUFFER & 0xFF, BUFFER >> 8)
        self.out(0x05, length - 1 & 0xFF, length - 1 >> 8)
        self.out(0x81, 0)
        self.out(0x0A, 2)

    def read(self, chs: Sequence[int], length: int, *, code: int = READ, eot: int = 18, n: int = 2) -> bytes:
        """Read by DMA; the result bytes. The data is in `buffer`."""
        self.program(TO_MEMORY, length)
        cylinder, head, record = chs
        return self.command(code, head << 2, cylinder, head, record, n, eot, 0x1B, 0xFF)

    def write(self, chs: Sequence[int], data: bytes, *, code: int = WRITE, eot: int = 18) -> bytes:
        """Write by DMA; the result bytes."""
        self.bytes[BUFFER : BUFFER + len(data)] = data
        self.program(FROM_MEMORY, len(data))
        cylinder, head, record = chs
        return self.command(code, head << 2, cylinder, head, record, 2, eot, 0x1B, 0xFF)

    def buffer(self, length: int) -> bytes:
        """What DMA has brought."""
        return bytes(self.bytes[BUFFER : BUFFER + length])

    def sector(self, number: int, count: int = 1) -> bytes:
        """Sectors of the medium."""
        return self.medium.read(number, count)
