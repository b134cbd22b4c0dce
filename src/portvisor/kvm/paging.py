"""Guest-linear to guest-physical addresses, by walking the guest's page tables.

Source: Intel SDM vol. 3, chapter 4 (32-bit, PAE, 4-level and 5-level paging). Present bits and page sizes only:
this finds what is mapped where and checks no access rights.
"""

from __future__ import annotations

from collections.abc import Callable

from portvisor.kvm.abi import Sregs

ReadPhysical = Callable[[int, int], bytes]
"""(guest-physical address, length): as `ports.GuestMemory.read`, which never raises."""

CR0_PG = 1 << 31
CR4_PSE = 1 << 4
CR4_PAE = 1 << 5
CR4_LA57 = 1 << 12
EFER_LMA = 1 << 10
PRESENT = 1 << 0
PAGE_SIZE_BIT = 1 << 7
ADDRESS_MASK = 0x000F_FFFF_FFFF_F000


def translate(sregs: Sregs, linear: int, read: ReadPhysical) -> int | None:
    """The guest-physical address of a linear one; None if it is not mapped."""
    if not sregs.cr0 & CR0_PG:
        return linear & 0xFFFF_FFFF
    if sregs.efer & EFER_LMA:
        levels = 5 if sregs.cr4 & CR4_LA57 else 4
        return _walk(read, sregs.cr3 & ADDRESS_MASK, linear, levels)
    linear &= 0xFFFF_FFFF
    if sregs.cr4 & CR4_PAE:
        pointer = _entry(read, (sregs.cr3 & 0xFFFF_FFE0) + (linear >> 30) * 8, 8)
        return _walk(read, pointer & ADDRESS_MASK, linear, 2) if pointer & PRESENT else None
    return _walk_32(sregs, read, linear)


def _entry(read: ReadPhysical, address: int, size: int) -> int:
    return int.from_bytes(read(address, size), "little")


def _walk(read: ReadPhysical, table: int, linear: int, levels: int) -> int | None:
    """Tables of 512 8-byte entries; level 1 maps 4 KiB."""
    for level in range(levels, 0, -1):
        shift = 12 + 9 * (level - 1)
        entry = _entry(read, table + (linear >> shift & 0x1FF) * 8, 8)
        if not entry & PRESENT:
            return None
        inside = (1 << shift) - 1
        if level == 1 or (level <= 3 and entry & PAGE_SIZE_BIT):
            return entry & ADDRESS_MASK & ~inside | linear & inside
        table = entry & ADDRESS_MASK
    return None


def _walk_32(sregs: Sregs, read: ReadPhysical, linear: int) -> int | None:
    directory = _entry(read, (sregs.cr3 & 0xFFFF_F000) + (linear >> 22) * 4, 4)
    if not directory & PRESENT:
        return None
    if directory & PAGE_SIZE_BIT and sregs.cr4 & CR4_PSE:
        high = directory >> 13 & 0xFF  # PSE-36
        return high << 32 | directory & 0xFFC0_0000 | linear & 0x3F_FFFF
    entry = _entry(read, (directory & 0xFFFF_F000) + (linear >> 12 & 0x3FF) * 4, 4)
    return entry & 0xFFFF_F000 | linear & 0xFFF if entry & PRESENT else None
