"""Register widths and element order of string instructions."""

from __future__ import annotations

from portvisor.kvm.emulate.x86 import MASK16


def merge(old: int, new: int, mask: int) -> int:
    """Write a register at an address size: 16 bits keep the rest, 32 bits clear the upper half."""
    return old & ~MASK16 | new & MASK16 if mask == MASK16 else new & mask


def reverse_elements(data: bytes, size: int) -> bytes:
    """The elements of a block in opposite order."""
    if size == 1:
        return data[::-1]
    return memoryview(data).cast("H" if size == 2 else "I")[::-1].tobytes()
