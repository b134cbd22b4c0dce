"""The ring in which KVM queues writes to coalesced ports and memory (struct kvm_coalesced_mmio_ring).

Source: Linux UAPI `linux/kvm.h`. Indices count modulo the number of slots that fit in the page, 170; KVM
keeps one free, and older kernels leave with an exit at 85 because of how they count.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

from portvisor.kvm.abi import PAGE_SIZE

RING_FIRST = 0  # u32, index of the oldest entry; ours
RING_LAST = 4  # u32, index of the next free entry; KVM's
RING_ENTRIES = 8
ENTRY = struct.Struct("<QII8s")
"""phys_addr (or port), len, pio, data."""
SLOTS = (PAGE_SIZE - RING_ENTRIES) // ENTRY.size

Write = Callable[[int, int, int], None]
"""(address or port, size, value)."""


class CoalescedRing:
    """One VM's ring, seen through the mapping of any of its vCPUs."""

    def __init__(self, page: memoryview) -> None:
        self.indices = page[RING_FIRST:RING_ENTRIES].cast("I")
        """The two indices; there is something to drain when they differ."""
        self._page = page

    def drain(self, write_port: Write, write_memory: Write) -> None:
        """Give every queued write, oldest first. A write that drains again gets the rest, in order."""
        indices = self.indices
        while (first := indices[0]) != indices[1]:
            address, size, pio, data = ENTRY.unpack_from(self._page, RING_ENTRIES + first * ENTRY.size)
            indices[0] = (first + 1) % SLOTS
            (write_port if pio else write_memory)(address, size, int.from_bytes(data[:size], "little"))

    def release(self) -> None:
        """Let go of the mapping."""
        self.indices.release()
        self._page.release()
