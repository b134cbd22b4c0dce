"""Base address registers: what a function wants mapped, how it answers sizing, where a value puts it.

Source: PCI Local Bus Specification 3.0, 6.2.5.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum

from portvisor.ports import PORT_COUNT

BAR_IO = 0x1
BAR_MEMORY64 = 0x4
BAR_PREFETCHABLE = 0x8
ROM_ENABLE = 0x1

ROM_BAR = 6
"""Number of the expansion ROM's register beside BAR 0-5."""

DWORD = 0xFFFFFFFF
SMALLEST_IO = 4
SMALLEST_MEMORY = 16
SMALLEST_ROM = 0x800


class BarKind(Enum):
    """Address space and width of a base address register."""

    IO = "I/O"
    MEMORY = "memory"
    MEMORY64 = "64-bit memory"
    ROM = "ROM"


_SMALLEST = {
    BarKind.IO: SMALLEST_IO,
    BarKind.MEMORY: SMALLEST_MEMORY,
    BarKind.MEMORY64: SMALLEST_MEMORY,
    BarKind.ROM: SMALLEST_ROM,
}


@dataclass(frozen=True, slots=True)
class Bar:
    """A base address register. Made by `io`, `memory`, `memory64` and `rom`.

    `address` is the value after reset. With `fixed` the register answers a sizing write (all address bits 1)
    and takes no other value: the range stays at `address`, as in a chip whose board hard-wires it.
    """

    kind: BarKind
    size: int
    address: int = 0
    fixed: bool = False
    prefetchable: bool = False
    sizes: frozenset[int] = field(default=frozenset({1, 2, 4}))
    name: str = ""

    def __post_init__(self) -> None:
        smallest = _SMALLEST[self.kind]
        if self.size < smallest or self.size & (self.size - 1):
            raise ValueError(
                f"{self.kind.value} BAR of {self.size:#x} bytes: need a power of two of at least {smallest:#x}"
            )
        if self.address & (self.size - 1):
            raise ValueError(f"{self.kind.value} BAR at {self.address:#x}: not aligned to its size {self.size:#x}")

    @classmethod
    def io(
        cls, size: int, *, address: int = 0, fixed: bool = False, sizes: Iterable[int] = (1, 2, 4), name: str = ""
    ) -> Bar:
        """An I/O range; `sizes` are the accesses that the function takes whole."""
        return cls(BarKind.IO, size, address, fixed, sizes=frozenset(sizes), name=name)

    @classmethod
    def memory(cls, size: int, *, address: int = 0, fixed: bool = False, prefetchable: bool = False) -> Bar:
        """A memory range below 4 GiB."""
        return cls(BarKind.MEMORY, size, address, fixed, prefetchable)

    @classmethod
    def memory64(cls, size: int, *, address: int = 0, fixed: bool = False, prefetchable: bool = False) -> Bar:
        """A memory range anywhere; takes this register and the next."""
        return cls(BarKind.MEMORY64, size, address, fixed, prefetchable)

    @classmethod
    def rom(cls, size: int, *, address: int = 0, fixed: bool = False) -> Bar:
        """An expansion ROM."""
        return cls(BarKind.ROM, size, address, fixed)

    @property
    def width(self) -> int:
        """Bytes of configuration space that the register takes."""
        return 8 if self.kind is BarKind.MEMORY64 else 4

    @property
    def address_mask(self) -> int:
        """The address bits, which software may write."""
        return ((1 << 8 * self.width) - 1) & ~(self.size - 1)

    @property
    def writable(self) -> int:
        """All bits that software may write."""
        return self.address_mask | (ROM_ENABLE if self.kind is BarKind.ROM else 0)

    @property
    def flags(self) -> int:
        """The read-only bits that tell the kind."""
        if self.kind is BarKind.IO:
            return BAR_IO
        if self.kind is BarKind.ROM:
            return 0
        return (BAR_MEMORY64 if self.kind is BarKind.MEMORY64 else 0) | (
            BAR_PREFETCHABLE if self.prefetchable else 0
        )

    def settle(self, value: int) -> int:
        """The register after a write: a fixed one keeps its address unless it is being sized, dword by dword."""
        if not self.fixed:
            return value
        settled = value & ~self.address_mask
        for shift in range(0, 8 * self.width, 32):
            mask = self.address_mask & DWORD << shift
            settled |= mask if value & mask == mask else self.address & mask
        return settled

    def decode(self, value: int) -> int | None:
        """Address at which the register's value puts the range; None where it answers nowhere.

        That is so at 0, while the register holds a sizing pattern, for ports beyond FFFF and for a
        disabled ROM.
        """
        if self.kind is BarKind.ROM and not value & ROM_ENABLE:
            return None
        address = self.address if self.fixed else value & self.address_mask
        if address == 0 or (not self.fixed and self._is_sizing(address)):
            return None
        if self.kind is BarKind.IO and address + self.size > PORT_COUNT:
            return None
        return address

    def _is_sizing(self, address: int) -> bool:
        low_mask = self.address_mask & DWORD
        if self.kind is not BarKind.MEMORY64:
            return address == low_mask
        high_mask = self.address_mask >> 32
        return address >> 32 == high_mask or address == low_mask
