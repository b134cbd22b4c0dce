"""From segment and offset to linear addresses: type, limit and canonical checks, and how far a block may go.

Source: Intel SDM vol. 3, sections 5.3 (limits), 5.4 (types), 3.3.7.1 (canonical addresses); vol. 1, 3.3.
"""

from __future__ import annotations

from portvisor.kvm.abi import Segment
from portvisor.kvm.emulate.errors import GuestException
from portvisor.kvm.emulate.mode import PROT64, REAL
from portvisor.kvm.emulate.x86 import (
    CR4_LA57,
    GP_VECTOR,
    MASK32,
    MASK64,
    PAGE_OFFSET,
    PAGE_SIZE,
    SS_VECTOR,
    TYPE_CODE,
    TYPE_EXPAND_DOWN,
    TYPE_READABLE,
    TYPE_WRITABLE,
)


def linear_bits(cr4: int) -> int:
    """Width of a linear address in 64-bit mode."""
    return 57 if cr4 & CR4_LA57 else 48


def is_canonical(linear: int, bits: int) -> bool:
    """Whether bits 63 to `bits - 1` are all equal."""
    return (linear + (1 << (bits - 1))) & MASK64 < 1 << bits


def segment_fault(name: str, mode: int) -> GuestException:
    """#SS(0) for the stack segment, #GP(0) for the others; no error code in real mode."""
    return GuestException(SS_VECTOR if name == "ss" else GP_VECTOR, None if mode == REAL else 0)


def is_accessible(segment: Segment, write: bool) -> bool:
    """Whether a protected-mode segment may be used for this kind of data access (null, absent, type)."""
    if segment.unusable or not segment.present:
        return False
    kind = segment.type
    if kind & TYPE_CODE:
        return not write and bool(kind & TYPE_READABLE)
    return not write or bool(kind & TYPE_WRITABLE)


def valid_offsets(segment: Segment) -> tuple[int, int]:
    """Lowest and highest offset that the limit allows."""
    if segment.type & (TYPE_CODE | TYPE_EXPAND_DOWN) == TYPE_EXPAND_DOWN:
        return segment.limit + 1, MASK32 if segment.db else 0xFFFF
    return 0, segment.limit


def has_base(name: str) -> bool:
    """Whether a segment has a base in 64-bit mode."""
    return name in ("fs", "gs")


def linear_address(
    mode: int, name: str, segment: Segment, offset: int, length: int, write: bool, va_bits: int
) -> tuple[int, int, int]:
    """Check an operand of `length` bytes and give its linear address, with the lowest and highest valid offset.

    Raises:
        GuestException: #GP or #SS.
    """
    if mode == PROT64:
        linear = (offset + segment.base) & MASK64 if has_base(name) else offset
        last = (linear + length - 1) & MASK64
        if not (is_canonical(linear, va_bits) and is_canonical(last, va_bits)):
            raise segment_fault(name, mode)
        return linear, 0, MASK64
    if mode != REAL and not is_accessible(segment, write):
        raise segment_fault(name, mode)
    low, high = valid_offsets(segment)
    # With a limit of 4 GiB nothing lies beyond it: the operand wraps to linear address 0.
    if not low <= offset <= high or (high != MASK32 and offset + length - 1 > high):
        raise segment_fault(name, mode)
    return (segment.base + offset) & MASK32, low, high


def block_length(
    linear: int, offset: int, low: int, high: int, size: int, address_mask: int, down: bool, remaining: int
) -> int:
    """How many elements, the first of them checked, lie in one page, inside the limit, before the offset wraps."""
    in_page = linear & PAGE_OFFSET
    if in_page + size > PAGE_SIZE:
        return 1
    if down:
        return min(remaining, in_page // size + 1, (offset - low) // size + 1)
    count = min(remaining, (PAGE_SIZE - in_page) // size, (address_mask - offset) // size + 1)
    return count if high >= MASK32 else min(count, (high + 1 - offset) // size)
