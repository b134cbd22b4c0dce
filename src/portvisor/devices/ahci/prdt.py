"""The physical region descriptor table of a command, walked as data is moved.

Source: AHCI 1.3.1, 4.2.3.3. A table may have 65,535 entries of 2 bytes to 4 MiB each, anywhere in the 64-bit
address space; it is read piecewise, and only as far as the data goes.
"""

from __future__ import annotations

import struct

from portvisor.devices.ahci import registers as r
from portvisor.ports import GuestMemory

BATCH = 128
"""Entries read from memory at once."""
ENTRY = struct.Struct("<QII")


class Regions:
    """A place in the table. `address` and `room` say where the next bytes go; `room` is 0 at its end."""

    def __init__(self, memory: GuestMemory, table: int, count: int) -> None:
        self._memory = memory
        self._next = table + r.TABLE_PRDT
        self._left = count
        self._batch: list[tuple[int, int, int]] = []
        self._interrupt = False
        self.address = self.room = self.moved = 0
        self.interrupts = False
        """A region with the I bit was filled."""
        self._load()

    def advance(self, count: int) -> None:
        """`count` bytes, at most `room`, were moved."""
        self.address += count
        self.room -= count
        self.moved += count
        if not self.room:
            self.interrupts |= self._interrupt
            self._load()

    def _load(self) -> None:
        if not self._batch and not self._fetch():
            self._interrupt = False
            return
        address, _, count = self._batch.pop()
        self.address = address & ~1
        self.room = (count & r.PRD_BYTES | 1) + 1
        self._interrupt = bool(count & r.PRD_INTERRUPT)

    def _fetch(self) -> bool:
        count = min(BATCH, self._left)
        if not count:
            return False
        data = self._memory.read(self._next, ENTRY.size * count)
        self._batch = list(ENTRY.iter_unpack(data))[::-1]
        self._next += len(data)
        self._left -= count
        return True
