"""Port writes that KVM serves without going to user space: ioeventfd and coalesced ports.

Source: Documentation/virt/kvm/api.rst, KVM_IOEVENTFD and KVM_REGISTER_COALESCED_MMIO. An ioeventfd matches an
exact address, an exact length (0: any) and, if asked, a value. A coalesced zone takes a write that lies inside
it; its ring holds 169 entries, and a full ring lets the write pass.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from portvisor.kvm.api import EngineError

PORTS = 0x10000
RING_ENTRIES = 169


@dataclass(frozen=True, slots=True)
class _EventFd:
    fd: int
    port: int
    size: int
    datamatch: int | None

    def matches(self, port: int, size: int, value: int) -> bool:
        return port == self.port and self.size in (0, size) and self.datamatch in (None, value)


class IoBus:
    """The VM's in-engine listeners on ports."""

    def __init__(self) -> None:
        self._eventfds: list[_EventFd] = []
        self._zones: list[tuple[int, int]] = []
        self._ring: list[tuple[int, int, int]] = []

    def ioeventfd(self, fd: int, port: int, size: int, datamatch: int | None, deassign: bool) -> None:
        """KVM_IOEVENTFD with the PIO flag."""
        if not 0 <= port < PORTS or size not in (0, 1, 2, 4):
            raise EngineError(f"ioeventfd on port {port:#06x}, size {size}: ports are 0-FFFF, sizes 0, 1, 2 or 4")
        entry = _EventFd(fd, port, size, datamatch)
        if not deassign:
            if any(_collide(entry, other) for other in self._eventfds):
                raise EngineError(f"ioeventfd on port {port:#06x}: File exists")
            self._eventfds.append(entry)
        elif entry in self._eventfds:
            self._eventfds.remove(entry)
        else:
            raise EngineError(f"ioeventfd on port {port:#06x}: No such file or directory")

    def coalesce(self, port: int, size: int) -> None:
        """KVM_REGISTER_COALESCED_MMIO with pio=1: a zone of `size` ports."""
        if not 0 <= port < PORTS or size < 1 or port + size > PORTS:
            raise EngineError(f"coalesced ports {port:#x}+{size}: ports are 0-FFFF")
        self._zones.append((port, port + size))

    def ports(self) -> bytes:
        """One bit for each port at which something listens."""
        bits = bytearray(PORTS // 8)
        listening = [entry.port for entry in self._eventfds]
        for start, end in self._zones:
            listening.extend(range(start, end))
        for port in listening:
            bits[port // 8] |= 1 << port % 8
        return bytes(bits)

    def write(self, port: int, size: int, value: int) -> bool:
        """Offer a write; True if it was taken."""
        for entry in self._eventfds:
            if entry.matches(port, size, value):
                os.eventfd_write(entry.fd, 1)
                return True
        coalesced = any(start <= port and port + size <= end for start, end in self._zones)
        if coalesced and len(self._ring) < RING_ENTRIES:
            self._ring.append((port, size, value))
            return True
        return False

    def drain(self, write: Callable[[int, int, int], None]) -> None:
        """Give every queued write in order."""
        while self._ring:
            queued, self._ring = self._ring, []
            for port, size, value in queued:
                write(port, size, value)


def _collide(one: _EventFd, other: _EventFd) -> bool:
    return (
        one.port == other.port
        and (one.size == other.size or 0 in (one.size, other.size))
        and (one.datamatch == other.datamatch or None in (one.datamatch, other.datamatch))
    )
