"""I/O breakpoints: DR7 type 10b with CR4.DE.

Source: Intel SDM vol. 3, section 17.2.4 (DR7) and 17.2.5 (breakpoint ranges).
"""

from __future__ import annotations

from collections.abc import Callable

DR7 = 7
BREAKPOINTS = 4
TYPE_IO = 0b10
_LENGTHS = (1, 2, 8, 4)
"""Bytes by the LEN field."""


def io_breakpoints_hit(get_dr: Callable[[int], int], port: int, size: int) -> int:
    """DR6 bits B0-B3 of the enabled I/O breakpoints that an access touches."""
    dr7 = get_dr(DR7)
    hits = 0
    for index in range(BREAKPOINTS):
        control = dr7 >> 16 + 4 * index
        if dr7 >> 2 * index & 0b11 and control & 0b11 == TYPE_IO:
            length = _LENGTHS[control >> 2 & 0b11]
            first = get_dr(index) & -length
            if first < port + size and port < first + length:
                hits |= 1 << index
    return hits
