"""A contiguous stretch of I/O ports that one device answers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

PORT_COUNT = 0x10000
"""Size of the x86 I/O address space (Intel SDM vol. 1, 19.3)."""

ACCESS_SIZES = (1, 2, 4)
"""Widths in bytes of a port access; there is no 8-byte IN or OUT."""


class PortRangeError(ValueError):
    """A range that cannot exist: outside the 64 Ki ports, empty, or with an impossible access size."""


@dataclass(frozen=True, slots=True)
class PortRange:
    """`length` ports from `base`, and the access sizes the owner takes whole.

    An access is taken whole if it lies inside the range, its size is in `sizes` and it is naturally
    aligned to `base`. `offset` is the device offset of the first port, so that a device with several
    ranges (or an alias of one) still sees one register file.
    """

    base: int
    length: int
    sizes: frozenset[int] = field(default=frozenset({1}))
    name: str = ""
    offset: int = 0

    def __init__(
        self, base: int, length: int, sizes: Iterable[int] = (1,), name: str = "", offset: int = 0
    ) -> None:
        taken = frozenset(sizes)
        if length < 1:
            raise PortRangeError(f"port range at {base:#06x}: length {length}, must be 1 or more")
        if base < 0 or base + length > PORT_COUNT:
            raise PortRangeError(f"port range {base:#06x}+{length:#x} leaves the I/O space (ports 0000-ffff)")
        if not taken or not taken <= set(ACCESS_SIZES):
            raise PortRangeError(f"port range at {base:#06x}: sizes {sorted(taken)}, allowed are 1, 2 and 4")
        object.__setattr__(self, "base", base)
        object.__setattr__(self, "length", length)
        object.__setattr__(self, "sizes", taken)
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "offset", offset)

    @property
    def last(self) -> int:
        """The last port of the range."""
        return self.base + self.length - 1

    def at(self, base: int) -> PortRange:
        """The same range moved to another base."""
        return PortRange(base, self.length, self.sizes, self.name, self.offset)

    def __str__(self) -> str:
        label = f" : {self.name}" if self.name else ""
        return f"{self.base:04x}-{self.last:04x}{label}"
