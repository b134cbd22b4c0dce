"""What devices see of guest memory (DMA), and the memory-mapped half of a device's registers."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class GuestMemory(Protocol):
    """Guest-physical memory for bus-master devices. Never raises: a hostile address reads ones."""

    def read(self, address: int, length: int) -> bytes:
        """`length` bytes at a guest-physical address; bytes that are not RAM read FF."""
        ...

    def write(self, address: int, data: Buffer) -> None:
        """Store bytes; those that do not fall into RAM are dropped."""
        ...


@dataclass(frozen=True, slots=True)
class RamRegion:
    """RAM at a guest-physical address."""

    base: int
    view: memoryview

    @property
    def end(self) -> int:
        """First address after the region."""
        return self.base + len(self.view)


class Ram:
    """`GuestMemory` over the buffers that the engine maps into the guest."""

    def __init__(self, *regions: RamRegion) -> None:
        self._regions = tuple(sorted(regions, key=lambda region: region.base))
        self.on_write: Callable[[int, int], None] | None = None
        """Told (start, end) of every device write: the software CPU drops translated code there."""

    @property
    def regions(self) -> tuple[RamRegion, ...]:
        """The regions in address order."""
        return self._regions

    def read(self, address: int, length: int) -> bytes:
        for region in self._regions:
            start = address - region.base
            if start >= 0 and start + length <= len(region.view):
                return bytes(region.view[start : start + length])
        return self._read_slow(address, length)

    def _read_slow(self, address: int, length: int) -> bytes:
        data = bytearray(b"\xff" * length)
        for region in self._regions:
            low, high = max(address, region.base), min(address + length, region.end)
            if low < high:
                data[low - address : high - address] = region.view[low - region.base : high - region.base]
        return bytes(data)

    def write(self, address: int, data: Buffer) -> None:
        for region in self._regions:
            low, high = max(address, region.base), min(address + len(data), region.end)
            if low < high:
                region.view[low - region.base : high - region.base] = data[low - address : high - address]
                if self.on_write:
                    self.on_write(low, high)


class MmioHandler(Protocol):
    """Memory-mapped registers: offsets from the window's base, sizes 1, 2, 4 or 8."""

    def mmio_read(self, offset: int, size: int) -> int:
        """Value of a read."""
        ...

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """A write."""
        ...


class MmioConflictError(ValueError):
    """Two windows claim one address."""


@dataclass(frozen=True, slots=True)
class MmioWindow:
    """A handler's place in the guest-physical address space."""

    base: int
    length: int
    handler: MmioHandler
    name: str


class MmioTap(Protocol):
    """Stands in front of the handlers, as `PortTap` does for ports."""

    def read(self, window: MmioWindow, address: int, size: int) -> int:
        """Have the window's handler serve a read."""
        ...

    def write(self, window: MmioWindow, address: int, size: int, value: int) -> None:
        """Have the window's handler serve a write."""
        ...


class MmioSpace:
    """Memory-mapped windows by address. Unclaimed addresses read ones and ignore writes."""

    def __init__(self) -> None:
        self._windows: list[MmioWindow] = []
        self._bases: list[int] = []
        self.on_error: Callable[[str, BaseException], None] | None = None
        """Told (what, error) when a handler raises; the access then reads ones."""
        self.tap: MmioTap | None = None

    @property
    def windows(self) -> tuple[MmioWindow, ...]:
        """All windows in address order."""
        return tuple(self._windows)

    def attach(self, base: int, length: int, handler: MmioHandler, name: str) -> MmioWindow:
        """Map a window.

        Raises:
            MmioConflictError: it overlaps another; both are named.
        """
        for other in self._windows:
            if base < other.base + other.length and other.base < base + length:
                raise MmioConflictError(
                    f"{name} {base:#x}+{length:#x} overlaps {other.name} {other.base:#x}+{other.length:#x}"
                )
        window = MmioWindow(base, length, handler, name)
        index = bisect_right(self._bases, base)
        self._windows.insert(index, window)
        self._bases.insert(index, base)
        return window

    def detach(self, window: MmioWindow) -> None:
        """Unmap a window."""
        index = self._windows.index(window)
        del self._windows[index]
        del self._bases[index]

    def find(self, address: int) -> MmioWindow | None:
        """The window at an address."""
        index = bisect_right(self._bases, address) - 1
        if index < 0:
            return None
        window = self._windows[index]
        return window if address < window.base + window.length else None

    def read(self, address: int, size: int) -> int:
        """A guest read of `size` bytes at a guest-physical address."""
        ones = (1 << 8 * size) - 1
        window = self.find(address)
        if window is None:
            return ones
        try:
            if self.tap is not None:
                return self.tap.read(window, address, size) & ones
            return window.handler.mmio_read(address - window.base, size) & ones
        except Exception as error:
            self._failed(f"{window.name}: {size}-byte read at {address:#x}", error)
            return ones

    def write(self, address: int, size: int, value: int) -> None:
        """A guest write of `size` bytes at a guest-physical address."""
        window = self.find(address)
        if window is None:
            return
        try:
            if self.tap is not None:
                self.tap.write(window, address, size, value)
            else:
                window.handler.mmio_write(address - window.base, size, value)
        except Exception as error:
            self._failed(f"{window.name}: {size}-byte write at {address:#x}", error)

    def _failed(self, what: str, error: BaseException) -> None:
        if self.on_error is None:
            raise error
        self.on_error(what, error)
