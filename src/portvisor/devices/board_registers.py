"""Registers of a board's own logic (CPLD, LPC generic decode): they hold what was written.

Source: none; such blocks are not documented. A C610 server lists them at 600-61f, 800-81f, 880-883 and
ca0-ca5 in its PNP0C02 node. Not modelled: whatever they do on a real board.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from portvisor.ports import Device, PortRange


class BoardRegisters(Device):
    """Scratch bytes at several ranges; each range has its own."""

    name = "board"

    @dataclass
    class State:
        """All bytes, range after range."""

        data: bytearray = field(default_factory=bytearray)

    state: State

    def __init__(self, ranges: Sequence[tuple[int, int]], name: str = "board") -> None:
        """Blocks of (base, length)."""
        self.name = name
        super().__init__()
        placed, offset = [], 0
        for base, length in ranges:
            placed.append(PortRange(base, length, name=name, offset=offset))
            offset += length
        self.ports = tuple(placed)
        self._length = offset
        self.reset()

    def reset(self) -> None:
        self.state = self.State(bytearray(self._length))

    def read(self, offset: int, size: int) -> int:
        return self.state.data[offset]

    def write(self, offset: int, size: int, value: int) -> None:
        self.state.data[offset] = value
