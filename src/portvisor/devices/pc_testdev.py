"""The test device of kvm-unit-tests: a port to read back, a port that flushes a page, interrupt lines, memory.

Source: its use by kvm-unit-tests, and the behaviour of QEMU 7.2's pc-testdev at its ports.

    port        register
    E0-E3       I/O port: 32 bits that read back what was written, in any access size
    E4-E7       flush page: a write has the host drop its mapping of a page; reads 0
    E8-EB       I/O port, byte: the same 32 bits as E0-E3, meant to be reached byte by byte
    2000-2017   IRQ line: a write of 0 lowers line `port - 2000`, any other value raises it; reads 0

64 KiB of memory-mapped bytes at FF000000 likewise keep what was written. RESET leaves all of it alone.

Not modelled: the flush itself, which a guest cannot see; lines 16-23, which no ISA device has (QEMU 7.2 aborts).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.ports import Device, IrqLine, PortRange

IO_PORT, FLUSH_PAGE, IO_PORT_BYTE = 0xE0, 0xE4, 0xE8
IRQ_LINE = 0x2000
LINES = 24
WIDTH = 4
IRQ_OFFSET = 0x10
"""Offset of line 0."""
MEMORY_BASE, MEMORY_LENGTH = 0xFF000000, 0x10000


class PcTestdev(Device):
    """The device; its memory is the `MmioHandler` that it is itself, for `MEMORY_BASE`.

    Args:
        lines: what its IRQ lines drive, by number.
    """

    name = "pc-testdev"
    ports = (
        PortRange(IO_PORT, WIDTH, (1, 2, 4), "pc-testdev", 0),
        PortRange(FLUSH_PAGE, WIDTH, (1, 2, 4), "pc-testdev", FLUSH_PAGE - IO_PORT),
        PortRange(IO_PORT_BYTE, WIDTH, (1, 2, 4), "pc-testdev", IO_PORT_BYTE - IO_PORT),
        PortRange(IRQ_LINE, LINES, name="pc-testdev", offset=IRQ_OFFSET),
    )
    REGISTERS: ClassVar[Mapping[int, str]] = {
        **dict.fromkeys(range(4), "I/O port"),
        **dict.fromkeys(range(4, 8), "flush page"),
        **dict.fromkeys(range(8, 12), "I/O port, byte"),
        **{IRQ_OFFSET + number: f"IRQ line {number}" for number in range(LINES)},
    }

    @dataclass
    class State:
        """The port's value, the lines' levels, the memory."""

        value: bytearray = field(default_factory=lambda: bytearray(WIDTH))
        levels: bytearray = field(default_factory=lambda: bytearray(LINES))
        memory: bytearray = field(default_factory=lambda: bytearray(MEMORY_LENGTH))

    state: State

    def __init__(self, lines: Mapping[int, IrqLine]) -> None:
        super().__init__()
        self._lines = lines

    def reset(self) -> None:
        """RESET does not reach it."""

    def restored(self) -> None:
        for number, line in self._lines.items():
            line.set(self.state.levels[number])

    @staticmethod
    def _is_value(offset: int) -> bool:
        """E0-E3 and E8-EB."""
        return offset < IRQ_OFFSET and not offset & WIDTH

    def read(self, offset: int, size: int) -> int:
        if not self._is_value(offset):
            return 0
        start = offset % WIDTH
        return int.from_bytes(self.state.value[start : start + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        if self._is_value(offset):
            start = offset % WIDTH
            self.state.value[start : start + size] = value.to_bytes(size, "little")
        elif offset >= IRQ_OFFSET:
            self._drive(offset - IRQ_OFFSET, value)

    def _drive(self, number: int, value: int) -> None:
        self.state.levels[number] = value != 0
        line = self._lines.get(number)
        if line:
            line.set(value)

    # --- memory ---------------------------------------------------------------------------------------

    def mmio_read(self, offset: int, size: int) -> int:
        """Bytes at FF000000 + offset."""
        return int.from_bytes(self.state.memory[offset : offset + size], "little")

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """Keep bytes; those beyond the end are dropped."""
        length = min(size, MEMORY_LENGTH - offset)
        self.state.memory[offset : offset + length] = value.to_bytes(size, "little")[:length]
