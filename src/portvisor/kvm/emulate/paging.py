"""Linear to physical addresses through the guest's own page tables.

Source: Intel SDM vol. 3, chapter 5 ("Paging"): 32-bit paging with PSE and PSE-36, PAE paging, 4- and 5-level
paging; access rights (5.6), page-fault error codes (5.7), accessed and dirty flags (5.8).

The PDPTEs of PAE paging are read from memory at each walk, not cached when CR3 is loaded. Not modelled:
protection keys, shadow stacks, a TLB.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from portvisor.kvm.emulate.errors import page_fault
from portvisor.kvm.emulate.x86 import (
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_PSE,
    CR4_SMAP,
    CR4_SMEP,
    EFER_LMA,
    EFER_NXE,
    MASK32,
    PF_FETCH,
    PF_PRESENT,
    PF_RESERVED,
    PF_USER,
    PF_WRITE,
)

ReadPhysical = Callable[[int, int], bytes]
"""(address, length) -> bytes; what is not memory reads as FF."""
WritePhysical = Callable[[int, bytes], None]
"""(address, data)."""

# The kind of an access: the bits of the page-fault error code, and two that only SMAP knows.
ACCESS_WRITE = PF_WRITE
ACCESS_USER = PF_USER
ACCESS_FETCH = PF_FETCH
ACCESS_IMPLICIT = 1 << 8
"""A supervisor access that the instruction does not name, such as the CPU's read of the TSS."""
ACCESS_AC = 1 << 9
"""RFLAGS.AC is set."""

PTE_P = 1 << 0
PTE_RW = 1 << 1
PTE_US = 1 << 2
PTE_A = 1 << 5
PTE_D = 1 << 6
PTE_PS = 1 << 7
PTE_NX = 1 << 63
PTE_ADDRESS = 0x000F_FFFF_FFFF_F000

_CODE_MASK = PF_WRITE | PF_USER
_PAE_LEVELS = 2
"""Levels below the page-directory pointers."""
_GIB_PAGE_SHIFT = 30
_PAE_POINTERS = 0xFFFF_FFE0
_LEGACY_ADDRESS = 0xFFFF_F000
_PDE4M_ADDRESS = 0xFFC0_0000
_PDE4M_HIGH_FIRST, _PDE4M_HIGH_LAST = 13, 21
_PSE36_BITS = 40


class PagingRegisters(Protocol):
    """The registers that decide about paging; `abi.Sregs` is one."""

    @property
    def cr0(self) -> int: ...

    @property
    def cr3(self) -> int: ...

    @property
    def cr4(self) -> int: ...

    @property
    def efer(self) -> int: ...


class Paging:
    """A page walker over guest-physical memory.

    Args:
        read: reads guest-physical memory.
        write: writes it, for the accessed and dirty flags.
        physical_bits: width of a physical address (MAXPHYADDR); bits above it are reserved in entries.
    """

    def __init__(self, read: ReadPhysical, write: WritePhysical, physical_bits: int = 52) -> None:
        self._read = read
        self._write = write
        self._physical_bits = physical_bits
        self._levels = {
            (levels, no_execute): _level_table(levels, no_execute, physical_bits)
            for levels in (_PAE_LEVELS, 4, 5)
            for no_execute in (False, True)
        }

    def translate(self, linear: int, access: int, registers: PagingRegisters, update: bool = True) -> int:
        """The guest-physical address of a canonical linear address.

        Args:
            linear: address; beyond 32 bits only in long mode.
            access: ACCESS_* bits, 0 for a supervisor data read.
            registers: CR0, CR3, CR4, EFER.
            update: set the accessed and dirty flags, as an access does; False to look only.

        Raises:
            GuestException: #PF with error code and CR2.
        """
        if not registers.cr0 & CR0_PG:
            return linear & MASK32
        if registers.efer & EFER_LMA:
            levels = 5 if registers.cr4 & CR4_LA57 else 4
            return self._walk_wide(linear, access, registers, registers.cr3 & PTE_ADDRESS, levels, update)
        if registers.cr4 & CR4_PAE:
            return self._walk_pae(linear, access, registers, update)
        return self._walk_legacy(linear, access, registers, update)

    # --- the walks ------------------------------------------------------------------------------------
    def _walk_pae(self, linear: int, access: int, registers: PagingRegisters, update: bool) -> int:
        pointer = self._read(registers.cr3 & _PAE_POINTERS | linear >> 27 & 0x18, 8)
        entry = int.from_bytes(pointer, "little")
        if not entry & PTE_P:
            raise _fault(linear, access, registers, 0)
        return self._walk_wide(linear, access, registers, entry & PTE_ADDRESS, _PAE_LEVELS, update)

    def _walk_wide(
        self, linear: int, access: int, registers: PagingRegisters, table: int, levels: int, update: bool
    ) -> int:
        """Entries of 8 bytes: the levels below the PDPT of PAE paging, or all of 4- and 5-level paging."""
        read = self._read
        all_set = -1
        any_set = 0
        visited = []
        for shift, reserved_table, reserved_page in self._levels[levels, bool(registers.efer & EFER_NXE)]:
            address = table | linear >> shift << 3 & 0xFF8
            entry = int.from_bytes(read(address, 8), "little")
            if not entry & PTE_P:
                raise _fault(linear, access, registers, 0)
            leaf = shift == 12 or entry & PTE_PS
            if entry & (reserved_page if leaf else reserved_table):
                raise _fault(linear, access, registers, PF_PRESENT | PF_RESERVED)
            all_set &= entry
            any_set |= entry
            visited.append((address, entry))
            if leaf:
                break
            table = entry & PTE_ADDRESS
        if not _allowed(all_set, any_set, access, registers):
            raise _fault(linear, access, registers, PF_PRESENT)
        if update and not (all_set & PTE_A and (entry & PTE_D or not access & ACCESS_WRITE)):
            self._mark(visited, access, 8)
        within = (1 << shift) - 1
        return entry & PTE_ADDRESS & ~within | linear & within

    def _walk_legacy(self, linear: int, access: int, registers: PagingRegisters, update: bool) -> int:
        """Two levels with entries of 4 bytes; 4 MiB pages with CR4.PSE."""
        directory = registers.cr3 & _LEGACY_ADDRESS | linear >> 20 & 0xFFC
        entry = int.from_bytes(self._read(directory, 4), "little")
        visited = [(directory, entry)]
        rights = entry
        large = bool(entry & PTE_PS and registers.cr4 & CR4_PSE)
        if entry & PTE_P and large:
            physical = self._large_page(entry, linear, access, registers)
        elif entry & PTE_P:
            address = entry & _LEGACY_ADDRESS | linear >> 10 & 0xFFC
            entry = int.from_bytes(self._read(address, 4), "little")
            visited.append((address, entry))
            rights &= entry
            physical = entry & _LEGACY_ADDRESS | linear & 0xFFF
        if not entry & PTE_P:
            raise _fault(linear, access, registers, 0)
        if not _allowed(rights, 0, access, registers):
            raise _fault(linear, access, registers, PF_PRESENT)
        if update:
            self._mark(visited, access, 4)
        return physical

    def _large_page(self, entry: int, linear: int, access: int, registers: PagingRegisters) -> int:
        """A 4 MiB page: address bits 39:32 lie in bits 20:13 of the entry, as far as they are implemented."""
        high_bits = max(min(self._physical_bits, _PSE36_BITS) - 32, 0)
        high = entry >> _PDE4M_HIGH_FIRST & (1 << _PDE4M_HIGH_LAST + 1 - _PDE4M_HIGH_FIRST) - 1
        if high >> high_bits:
            raise _fault(linear, access, registers, PF_PRESENT | PF_RESERVED)
        return high << 32 | entry & _PDE4M_ADDRESS | linear & 0x3F_FFFF

    def _mark(self, visited: list[tuple[int, int]], access: int, width: int) -> None:
        """Accessed flags on the way, the dirty flag in the last entry if it was a write."""
        leaf = len(visited) - 1
        for index, (address, entry) in enumerate(visited):
            marked = entry | PTE_A
            if index == leaf and access & ACCESS_WRITE:
                marked |= PTE_D
            if marked != entry:
                self._write(address, marked.to_bytes(width, "little"))


def _level_table(levels: int, no_execute: bool, physical_bits: int) -> tuple[tuple[int, int, int], ...]:
    """For each level from the top: index shift, reserved bits of an entry that points on, and of a page's."""
    reserved = PTE_ADDRESS & ~((1 << physical_bits) - 1)
    if not no_execute:
        reserved |= PTE_NX
    if levels == _PAE_LEVELS:
        reserved |= PTE_NX - (1 << physical_bits)
    table = []
    for shift in range(12 + 9 * (levels - 1), 11, -9):
        # Bit 12 of a large page is its PAT bit; from the fourth level up there are no pages.
        in_page = PTE_PS if shift > _GIB_PAGE_SHIFT else (1 << shift) - (1 << 13) if shift > 12 else 0
        table.append((shift, reserved, reserved | in_page))
    return tuple(table)


def _allowed(all_set: int, any_set: int, access: int, registers: PagingRegisters) -> bool:
    """Access rights of a present translation, from the AND and the OR of its entries."""
    if access & ACCESS_FETCH and any_set & PTE_NX:
        return False
    if access & ACCESS_USER:
        return bool(all_set & PTE_US and (all_set & PTE_RW or not access & ACCESS_WRITE))
    if access & ACCESS_WRITE and registers.cr0 & CR0_WP and not all_set & PTE_RW:
        return False
    if not all_set & PTE_US:
        return True
    if access & ACCESS_FETCH:
        return not registers.cr4 & CR4_SMEP
    return not registers.cr4 & CR4_SMAP or (bool(access & ACCESS_AC) and not access & ACCESS_IMPLICIT)


def _fault(linear: int, access: int, registers: PagingRegisters, code: int) -> Exception:
    """#PF; the fetch bit is reported only if NX or SMEP is in use."""
    code |= access & _CODE_MASK
    if access & ACCESS_FETCH:
        no_execute = registers.efer & EFER_NXE and (registers.cr4 & CR4_PAE or registers.efer & EFER_LMA)
        if no_execute or registers.cr4 & CR4_SMEP:
            code |= PF_FETCH
    return page_fault(code, linear)
