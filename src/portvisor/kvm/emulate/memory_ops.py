"""A ready `EmulateOps`: KVM's register structures, guest-physical memory, the guest's own page tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from portvisor.kvm.abi import Regs, Segment, Sregs
from portvisor.kvm.emulate.paging import (
    ACCESS_AC,
    ACCESS_FETCH,
    ACCESS_IMPLICIT,
    ACCESS_USER,
    ACCESS_WRITE,
    Paging,
    ReadPhysical,
    WritePhysical,
)
from portvisor.kvm.emulate.x86 import (
    CR0_PE,
    EFER_LMA,
    MASK32,
    MASK64,
    PAGE_OFFSET,
    PAGE_SIZE,
    RFLAGS_AC,
    RFLAGS_VM,
)

PioIn = Callable[[int, int, int], bytes | None]
"""(port, size, count) -> data, or None if nobody claims the port."""
PioOut = Callable[[int, int, bytes], bool]
"""(port, size, data) -> whether somebody claims the port."""


class FlatMemory:
    """Guest-physical memory from address 0 in one buffer. Beyond it reads give FF and writes are dropped."""

    def __init__(self, buffer: bytearray | memoryview) -> None:
        self._view = memoryview(buffer)

    def read(self, address: int, length: int) -> bytes:
        """Bytes at a guest-physical address."""
        data = bytes(self._view[address : address + length])
        return data if len(data) == length else data.ljust(length, b"\xff")

    def write(self, address: int, data: bytes) -> None:
        """Store bytes."""
        room = max(len(self._view) - address, 0)
        self._view[address : address + len(data)] = data[:room]


def _unclaimed_in(port: int, size: int, count: int) -> None:
    return None


def _unclaimed_out(port: int, size: int, data: bytes) -> bool:
    return False


def _never() -> bool:
    return False


class MemoryOps:
    """`EmulateOps` over registers and callables.

    Args:
        regs: general registers; changed in place.
        sregs: segments and control registers.
        read_physical: reads guest-physical memory.
        write_physical: writes it.
        pio_in: ports served in here; default: none.
        pio_out: likewise.
        interrupt_pending: see `EmulateOps.interrupt_pending`; default: never.
        debug_registers: DR0 to DR7.
        physical_bits: width of a physical address.
        is_ram: tells whether a guest-physical page is plain memory. Elsewhere every element is an access of
            its own; default: everything is.
    """

    def __init__(
        self,
        regs: Regs,
        sregs: Sregs,
        read_physical: ReadPhysical,
        write_physical: WritePhysical,
        *,
        pio_in: PioIn = _unclaimed_in,
        pio_out: PioOut = _unclaimed_out,
        interrupt_pending: Callable[[], bool] = _never,
        debug_registers: Sequence[int] = (0,) * 8,
        physical_bits: int = 52,
        is_ram: Callable[[int], bool] | None = None,
    ) -> None:
        self.regs = regs
        self.sregs = sregs
        self.pio_in = pio_in
        self.pio_out = pio_out
        self.interrupt_pending = interrupt_pending
        self.debug_registers = debug_registers
        self._read_physical = read_physical
        self._write_physical = write_physical
        self._is_ram = is_ram
        self._paging = Paging(read_physical, write_physical, physical_bits)
        self._probed: tuple[int, int] | None = None

    # --- registers ------------------------------------------------------------------------------------
    @property
    def cr0(self) -> int:
        return self.sregs.cr0

    @property
    def cr4(self) -> int:
        return self.sregs.cr4

    @property
    def efer(self) -> int:
        return self.sregs.efer

    @property
    def cpl(self) -> int:
        sregs = self.sregs
        if not sregs.cr0 & CR0_PE:
            return 0
        return 3 if self.regs.rflags & RFLAGS_VM else sregs.ss.dpl

    def get_segment(self, name: str) -> Segment:
        segment: Segment = getattr(self.sregs, name)
        return segment

    def get_dr(self, index: int) -> int:
        return self.debug_registers[index]

    # --- memory ---------------------------------------------------------------------------------------
    def fetch(self, linear: int, length: int) -> bytes:
        access = ACCESS_FETCH | ACCESS_USER if self.cpl == 3 else ACCESS_FETCH
        return self._read_physical(self._paging.translate(linear, access, self.sregs), length)

    def read(self, linear: int, length: int, size: int) -> bytes:
        if (linear & PAGE_OFFSET) + length <= PAGE_SIZE:
            return self._read_span(self._paging.translate(linear, self._data_access(), self.sregs), length, size)
        spans = self._spans(linear, length, self._data_access(), self._data_mask())
        return b"".join(self._read_span(physical, part, size) for physical, part in spans)

    def write(self, linear: int, data: bytes, size: int) -> None:
        probed, self._probed = self._probed, None
        offset = linear & PAGE_OFFSET
        length = len(data)
        if probed and probed[0] == linear - offset and offset + length <= PAGE_SIZE:
            self._write_span(probed[1] | offset, data, size)
            return
        start = 0
        for physical, part in self._spans(linear, length, self._data_access() | ACCESS_WRITE, self._data_mask()):
            self._write_span(physical, data[start : start + part], size)
            start += part

    def probe(self, linear: int, length: int, write: bool) -> None:
        self._probed = None
        access = self._data_access() | ACCESS_WRITE if write else self._data_access()
        if (linear & PAGE_OFFSET) + length > PAGE_SIZE:
            self._spans(linear, length, access, self._data_mask())
            return
        physical = self._paging.translate(linear, access, self.sregs)
        if write:
            # The write that follows in the same step need not walk again.
            self._probed = (linear & ~PAGE_OFFSET, physical & ~PAGE_OFFSET)

    def read_std(self, linear: int, length: int) -> bytes:
        if (linear & PAGE_OFFSET) + length <= PAGE_SIZE:
            return self._read_physical(self._paging.translate(linear, ACCESS_IMPLICIT, self.sregs), length)
        mask = MASK64 if self.sregs.efer & EFER_LMA else MASK32
        spans = self._spans(linear, length, ACCESS_IMPLICIT, mask)
        return b"".join(self._read_physical(physical, part) for physical, part in spans)

    def _data_access(self) -> int:
        access = ACCESS_AC if self.regs.rflags & RFLAGS_AC else 0
        return access | ACCESS_USER if self.cpl == 3 else access

    def _data_mask(self) -> int:
        """Linear addresses wrap at 4 GiB outside 64-bit mode."""
        sregs = self.sregs
        return MASK64 if sregs.efer & EFER_LMA and sregs.cs.l else MASK32

    def _spans(self, linear: int, length: int, access: int, mask: int) -> list[tuple[int, int]]:
        """Physical (address, length) of every page's part; faults before any of it is used."""
        translate = self._paging.translate
        first = PAGE_SIZE - (linear & PAGE_OFFSET)
        spans = [(translate(linear, access, self.sregs), min(first, length))]
        while first < length:
            part = min(length - first, PAGE_SIZE)
            spans.append((translate(linear + first & mask, access, self.sregs), part))
            first += part
        return spans

    def _read_span(self, physical: int, length: int, size: int) -> bytes:
        if self._is_ram is None or length <= size or self._is_ram(physical):
            return self._read_physical(physical, length)
        return b"".join(self._read_physical(physical + at, size) for at in range(0, length, size))

    def _write_span(self, physical: int, data: bytes, size: int) -> None:
        if self._is_ram is None or len(data) <= size or self._is_ram(physical):
            self._write_physical(physical, data)
            return
        for at in range(0, len(data), size):
            self._write_physical(physical + at, data[at : at + size])
