"""Counts every port access of a machine while somebody looks: by port and by device.

What reaches a device counts. An access that the bus splits counts as its pieces, a block (INS, OUTS) as one access
with all its bytes. A handler's time contains what it sets off, and the recorder's if a trace is recorded as well.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

from portvisor.live._count import Counters as CountersCore
from portvisor.live._count import Tap
from portvisor.live.protocol import NOBODY, Access, PortRow, RegisterRow, Totals
from portvisor.ports import ACCESS_SIZES, Owner, PortSpace, PortTap, ReadEntry, WriteEntry

WRITE, BLOCK = 1, 2
"""Flags of an access, as `_count` keeps them."""
MAX_DEVICES = 4096
MAX_NAMES = 1024
"""Registers of a watched port that are told apart."""


@dataclass(slots=True)
class Watch:
    """A port whose registers are named access by access. Number 0 is the name that is not known."""

    names: dict[str, int] = field(default_factory=lambda: {"": 0})
    counts: Counter[tuple[int, bool]] = field(default_factory=Counter)
    """Accesses by (name, write) since the watch began."""
    viewers: int = 0

    def note(self, name: str, write: bool) -> int:
        """Count an access; the name's number."""
        number = self.names.get(name)
        if number is None:
            number = len(self.names) if len(self.names) < MAX_NAMES else 0
            self.names.setdefault(name if number else "", number)
        self.counts[number, write] += 1
        return number


class LiveCounters:
    """The tap of one port space."""

    def __init__(self, space: PortSpace) -> None:
        self._space = space
        self._core = CountersCore()
        self._devices: dict[str, int] = {NOBODY: 0}
        self._taps: dict[Hashable, Tap] = {}
        self._watches: dict[int, Watch] = {}
        self._inner: PortTap | None = None

    @property
    def attached(self) -> bool:
        """Whether accesses are counted."""
        return self._space.tapped is self

    def attach(self) -> None:
        """Stand in front of the handlers, and of a recorder that stands there. Sums go on where they were."""
        if not self.attached:
            self._inner = self._space.tapped
            self._space.tap(self)

    def detach(self) -> None:
        """Give the tables back."""
        if self.attached:
            self._space.tap(self._inner)
            self._inner = None
            self._taps.clear()

    # --- the tables -----------------------------------------------------------------------------------

    def read_entry(self, port: int, size: int, owner: Owner | None, entry: ReadEntry) -> ReadEntry:
        function, offset = self._inner.read_entry(port, size, owner, entry) if self._inner else entry
        return (function if owner is None else self._tap(owner, port, function, write=False), offset)

    def write_entry(self, port: int, size: int, owner: Owner | None, entry: WriteEntry) -> WriteEntry:
        function, offset = self._inner.write_entry(port, size, owner, entry) if self._inner else entry
        if owner is None:
            return (function, offset)
        return (self._tap(owner, port, function, write=True), offset)  # type: ignore[return-value]

    def open_read(self, function: Callable[[int, int], int]) -> Callable[[int, int], int]:
        if self._inner:
            function = self._inner.open_read(function)
        return Tap(self._core, function, 0, 0, False)

    def open_write(self, function: Callable[[int, int, int], None]) -> Callable[[int, int, int], None]:
        if self._inner:
            function = self._inner.open_write(function)
        return Tap(self._core, function, 0, 0, True)  # type: ignore[return-value]

    def _tap(self, owner: Owner, port: int, function: Callable[..., Any], *, write: bool) -> Tap:
        delta = port - owner.offset
        key = (function, owner.device, delta, write)
        made = self._taps.get(key)
        if made is None:
            made = self._taps[key] = Tap(self._core, function, delta, self._device(owner), write)
        return made

    def _device(self, owner: Owner) -> int:
        return self._devices.setdefault(owner.device.name, min(len(self._devices), MAX_DEVICES - 1))

    # --- blocks ---------------------------------------------------------------------------------------

    def read_block(self, owner: Owner, port: int, size: int, count: int) -> bytes:
        name = self._block_name(owner, port, size, write=False)
        begin, data = time.perf_counter_ns(), b""
        try:
            if self._inner:
                data = self._inner.read_block(owner, port, size, count)
            else:
                data = bytes(owner.device.read_block(owner.offset, size, count))
        finally:
            taken = time.perf_counter_ns() - begin
            value = int.from_bytes(data[:size], "little")
            self._core.block(port, self._device(owner), False, size, count, value, taken, name)
        return data

    def write_block(self, owner: Owner, port: int, size: int, data: bytes) -> None:
        name = self._block_name(owner, port, size, write=True)
        begin = time.perf_counter_ns()
        try:
            if self._inner:
                self._inner.write_block(owner, port, size, data)
            else:
                owner.device.write_block(owner.offset, size, data)
        finally:
            taken = time.perf_counter_ns() - begin
            value = int.from_bytes(data[:size], "little")
            self._core.block(port, self._device(owner), True, size, len(data) // size, value, taken, name)

    def _block_name(self, owner: Owner, port: int, size: int, *, write: bool) -> int:
        watch = self._watches.get(port)
        return watch.note(_register(owner, size, write=write), write) if watch else 0

    # --- what a viewer is told ------------------------------------------------------------------------

    def devices(self) -> dict[str, Totals]:
        """Sums of every device that was used."""
        names = tuple(self._devices)
        return {names[number]: Totals(*sums) for number, *sums in self._core.devices()}

    def ports(self, limit: int) -> tuple[list[PortRow], int]:
        """Sums of the busiest ports, and how many ports were used in all."""
        names = tuple(self._devices)
        rows, used = self._core.ports(limit)
        return [
            PortRow(port, names[device], *self.register_names(port), Totals(*sums)) for port, device, *sums in rows
        ], used

    def register_names(self, port: int) -> tuple[str, str]:
        """The registers that an IN and an OUT would reach now."""
        for size in ACCESS_SIZES:
            owner = self._space.owner(port, size)
            if owner is not None:
                return _register(owner, size, write=False), _register(owner, size, write=True)
        return "", ""

    def last(self, port: int) -> list[Access]:
        """The last accesses of a port, oldest first."""
        watch = self._watches.get(port)
        names = tuple(watch.names) if watch else ("",)
        return [
            Access(number, value, size, bool(flags & WRITE), bool(flags & BLOCK), names[name])
            for number, value, size, flags, name in self._core.last(port)
        ]

    # --- one port in detail ---------------------------------------------------------------------------

    def watch(self, port: int) -> None:
        """Name the registers of a port from now on, for one viewer more."""
        watch = self._watches.get(port)
        if watch is None:
            watch = self._watches[port] = Watch()
            self._core.watch(port, self._namer(port, watch))
        watch.viewers += 1

    def unwatch(self, port: int) -> None:
        """One viewer less."""
        watch = self._watches.get(port)
        if watch is not None:
            watch.viewers -= 1
            if watch.viewers <= 0:
                del self._watches[port]
                self._core.watch(port, None)

    def registers(self, port: int) -> list[RegisterRow]:
        """Accesses of a watched port by register, busiest first."""
        watch = self._watches.get(port)
        if watch is None:
            return []
        names = tuple(watch.names)
        return [RegisterRow(names[number], write, count) for (number, write), count in watch.counts.most_common()]

    def _namer(self, port: int, watch: Watch) -> Callable[[int, int, bool], int]:
        def named(offset: int, size: int, write: bool) -> int:
            owner = self._space.owner(port, size)
            return watch.note(_register(owner, size, write=write) if owner else "", write)

        return named


def _register(owner: Owner, size: int, *, write: bool) -> str:
    """The register's name; looking on must not fail where a device does."""
    try:
        return str(owner.device.register_name(owner.offset, size, write))
    except Exception:
        return ""
