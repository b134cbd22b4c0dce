"""The guest-physical address space: KVM's memory slots, and memory-mapped I/O wherever there is no slot.

Holes are mapped late, before the guest runs, and in chunks: Unicorn takes time by the page to unmap one.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Protocol

from portvisor.kvm.abi import PAGE_SIZE
from portvisor.kvm.api import EngineError, MemoryBus

PHYSICAL_SPACE = 1 << 40
LOW_SPACE = 1 << 32
"""Below here holes are cut into chunks."""
HOLE_CHUNK = 1 << 28


class PhysicalMemory(Protocol):
    """The part of `_softcpu.Cpu` that this module uses."""

    def map_memory(self, gpa: int, memory: mmap.mmap, offset: int, size: int, readonly: bool, /) -> None:
        """Map a buffer."""
        ...

    def map_hole(self, gpa: int, size: int, /) -> None:
        """Map memory-mapped I/O."""
        ...

    def unmap(self, gpa: int, size: int, /) -> None:
        """Undo a whole `map_memory` or `map_hole`."""
        ...

    def flush(self, translations: bool, /) -> None:
        """Forget the TLB and, if asked, all translated code."""
        ...


@dataclass(frozen=True, slots=True)
class _Extent:
    start: int
    end: int

    def overlaps(self, other: _Extent) -> bool:
        return self.start < other.end and other.start < self.end


@dataclass(frozen=True, slots=True)
class _Slot(_Extent):
    memory: mmap.mmap
    offset: int
    readonly: bool


class AddressSpace:
    """Slots and holes of one VM."""

    def __init__(self, memory: PhysicalMemory) -> None:
        self._memory = memory
        self._slots: dict[int, _Slot] = {}
        self._holes: list[_Extent] = []
        self.changed = True
        """`settle` is due before the guest runs."""
        self.bus: MemoryBus | None = None
        """Where accesses go that meet no slot, and writes to read-only ones."""

    def set_region(self, slot: int, gpa: int, memory: mmap.mmap, offset: int, size: int, readonly: bool) -> None:
        """KVM_SET_USER_MEMORY_REGION: an existing slot is replaced; size 0 removes it."""
        wanted = _Slot(gpa, gpa + size, memory, offset, readonly)
        what = f"memory slot {slot} at {gpa:#x}+{size:#x}"
        if offset < 0 or size < 0 or offset + size > len(memory):
            raise EngineError(f"{what}: {offset:#x}+{size:#x} is not inside {len(memory):#x} bytes of memory")
        if (gpa | offset | size) % PAGE_SIZE:
            raise EngineError(f"{what}, offset {offset:#x}: not a multiple of {PAGE_SIZE} bytes")
        if gpa < 0 or wanted.end > PHYSICAL_SPACE:
            raise EngineError(f"{what}: not inside the physical addresses, 0 to {PHYSICAL_SPACE:#x}")
        for number, extent in self._slots.items():
            if number != slot and size and extent.overlaps(wanted):
                raise EngineError(f"{what}: overlaps slot {number}")
        self.changed = True
        if slot in self._slots:
            self._unmap(self._slots.pop(slot))
        if size:
            for hole in [hole for hole in self._holes if hole.overlaps(wanted)]:
                self._holes.remove(hole)
                self._unmap(hole)
            self._memory.map_memory(gpa, memory, offset, size, readonly)
            self._slots[slot] = wanted

    def _unmap(self, extent: _Extent) -> None:
        self._memory.unmap(extent.start, extent.end - extent.start)

    def settle(self) -> None:
        """Fill what is left with memory-mapped I/O, and forget translations of what was there before."""
        start = 0
        for taken in sorted((*self._slots.values(), *self._holes), key=lambda extent: extent.start):
            self._fill(start, taken.start)
            start = taken.end
        self._fill(start, PHYSICAL_SPACE)
        self._memory.flush(True)
        self.changed = False

    def _fill(self, start: int, end: int) -> None:
        while start < end:
            limit = (start // HOLE_CHUNK + 1) * HOLE_CHUNK if start < LOW_SPACE else end
            hole = _Extent(start, min(limit, end))
            self._memory.map_hole(hole.start, hole.end - hole.start)
            self._holes.append(hole)
            start = hole.end

    # --- what the guest would see, for the emulator: accesses never cross a page ------------------------

    def _find(self, address: int) -> _Slot | None:
        return next((slot for slot in self._slots.values() if slot.start <= address < slot.end), None)

    def is_ram(self, address: int) -> bool:
        """Whether a guest-physical address is in a slot that can be written."""
        slot = self._find(address)
        return slot is not None and not slot.readonly

    def read(self, address: int, length: int) -> bytes:
        """Bytes of a slot, or one access to the bus."""
        slot = self._find(address)
        if slot is not None:
            start = slot.offset + address - slot.start
            return slot.memory[start : start + length]
        value = self.bus.read(address, length) if self.bus else -1
        return (value & ((1 << 8 * length) - 1)).to_bytes(length, "little")

    def write(self, address: int, data: bytes) -> bool:
        """Store into a slot (True), or make one access to the bus (False)."""
        slot = self._find(address)
        if slot is not None and not slot.readonly:
            start = slot.offset + address - slot.start
            slot.memory[start : start + len(data)] = data
            return True
        if self.bus:
            self.bus.write(address, len(data), int.from_bytes(data, "little"))
        return False
