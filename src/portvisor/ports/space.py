"""The 64 Ki I/O ports: who owns which, decode per port and size, dispatch through flat tables.

Decode rule: an access that its owner takes whole is one call. Any other access is split into halves, low
address first, down to bytes. A byte that nobody owns reads FF and ignores writes; so do bytes beyond FFFF.
"""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import repeat
from typing import NamedTuple, ParamSpec, Protocol

from portvisor.ports.device import Device
from portvisor.ports.range import ACCESS_SIZES, PORT_COUNT, PortRange

TABLE_LENGTH = PORT_COUNT + 4
"""Ports plus the bytes a dword at FFFF reaches past the end."""

ReadEntry = tuple[Callable[[int, int], int], int]
WriteEntry = tuple[Callable[[int, int, int], None], int]
P = ParamSpec("P")


class PortConflictError(ValueError):
    """Two owners for one port and access size."""


class DeviceFailureError(RuntimeError):
    """A device model raised; carries the port, the access and the device's name (`strict` spaces only)."""


class Owner(NamedTuple):
    """Who takes an access whole, and the device offset it arrives at."""

    device: Device
    range: PortRange
    offset: int


class Unassigned(NamedTuple):
    """Key of the count of accesses that nobody owns."""

    port: int
    size: int
    write: bool


class Observer(Protocol):
    """Sees every access after it was served. `owner` is None for open bus and for an access that was split.

    `depth` is 0 for what the guest did and 1 or 2 for the halves and bytes the bus split it into; the
    pieces come before their parent. A block is one call with its data.
    """

    def port_read(self, port: int, size: int, value: int, owner: Owner | None, depth: int) -> None:
        """One IN."""
        ...

    def port_write(self, port: int, size: int, value: int, owner: Owner | None, depth: int) -> None:
        """One OUT."""
        ...

    def port_read_block(self, port: int, size: int, data: bytes, owner: Owner | None) -> None:
        """One INS block."""
        ...

    def port_write_block(self, port: int, size: int, data: bytes, owner: Owner | None) -> None:
        """One OUTS block."""
        ...


class PortTap(Protocol):
    """Stands in front of the handlers: a recorder that is to cost less than an `Observer`.

    Entries of the dispatch tables pass through it when they are made; blocks are served by it.
    """

    def read_entry(self, port: int, size: int, owner: Owner | None, entry: ReadEntry) -> ReadEntry:
        """What to put in the table for IN; without an owner the access is split."""
        ...

    def write_entry(self, port: int, size: int, owner: Owner | None, entry: WriteEntry) -> WriteEntry:
        """What to put in the table for OUT."""
        ...

    def open_read(self, function: Callable[[int, int], int]) -> Callable[[int, int], int]:
        """What to call for an IN that nobody serves; the first argument is the port."""
        ...

    def open_write(self, function: Callable[[int, int, int], None]) -> Callable[[int, int, int], None]:
        """What to call for an OUT that nobody serves."""
        ...

    def read_block(self, owner: Owner, port: int, size: int, count: int) -> bytes:
        """Have the owner serve a block of INs."""
        ...

    def write_block(self, owner: Owner, port: int, size: int, data: bytes) -> None:
        """Have the owner serve a block of OUTs."""
        ...


@dataclass(frozen=True, slots=True)
class Failure:
    """A device model that raised."""

    device: str
    port: int
    size: int
    write: bool
    error: BaseException

    def __str__(self) -> str:
        kind = "write to" if self.write else "read of"
        name = type(self.error).__name__
        return f"{self.device}: {self.size}-byte {kind} port {self.port:#06x} raised {name}: {self.error}"


def _without_collector(method: Callable[P, None]) -> Callable[P, None]:
    """Tables are so many new tuples that the garbage collector would run for most of the time."""

    @wraps(method)
    def paused(*arguments: P.args, **named: P.kwargs) -> None:
        enabled = gc.isenabled()
        gc.disable()
        try:
            method(*arguments, **named)
        finally:
            if enabled:
                gc.enable()

    return paused


class PortSpace:
    """The I/O address space of one machine."""

    def __init__(self, *, strict: bool = False) -> None:
        self.strict = strict
        self.on_failure: Callable[[Failure], None] | None = None
        """Told when a device raises, unless `strict`."""
        self.unassigned: Counter[Unassigned] = Counter()
        """How often each port that nobody owns was touched."""
        self._owners: dict[int, list[Owner | None]] = {size: [None] * TABLE_LENGTH for size in ACCESS_SIZES}
        self._devices: dict[Device, tuple[PortRange, ...]] = {}
        self._pending: dict[Device, tuple[PortRange, ...] | None] | None = None
        self._observers: list[Observer] = []
        self._tap: PortTap | None = None
        self._depth = 0
        self._nobody_reads: Callable[[int, int], int] = self._open_read
        self._nobody_writes: Callable[[int, int, int], None] = self._open_write
        self.reads: tuple[list[ReadEntry], list[ReadEntry], list[ReadEntry]] = ([], [], [])
        """Flat dispatch tables, indexed by `size >> 1` and port: (function, offset). Updated in place."""
        self.writes: tuple[list[WriteEntry], list[WriteEntry], list[WriteEntry]] = ([], [], [])
        self._open_tables()

    # --- access -----------------------------------------------------------------------------------

    def read(self, port: int, size: int) -> int:
        """An IN of `size` bytes (1, 2 or 4) from `port` (0-FFFF)."""
        try:
            function, offset = self.reads[size >> 1][port]
            return function(offset, size) & ((1 << 8 * size) - 1)
        except Exception as error:
            return self.failed(port, size, False, error)

    def write(self, port: int, size: int, value: int) -> None:
        """An OUT of `size` bytes (1, 2 or 4) to `port` (0-FFFF)."""
        try:
            function, offset = self.writes[size >> 1][port]
            function(offset, size, value & ((1 << 8 * size) - 1))
        except Exception as error:
            self.failed(port, size, True, error)

    def read_block(self, port: int, size: int, count: int) -> bytes:
        """`count` INs from one port (REP INS), little endian."""
        owner = self._owners[size][port]
        if owner is None:
            return b"".join(self.read(port, size).to_bytes(size, "little") for _ in range(count))
        try:
            if self._tap is None:
                data = bytes(owner.device.read_block(owner.offset, size, count))
            else:
                data = self._tap.read_block(owner, port, size, count)
        except Exception as error:
            self.failed(port, size, False, error)
            data = b""
        data = data[: size * count].ljust(size * count, b"\xff")
        for observer in self._observers:
            observer.port_read_block(port, size, data, owner)
        return data

    def write_block(self, port: int, size: int, data: bytes) -> None:
        """`len(data) // size` OUTs to one port (REP OUTS)."""
        owner = self._owners[size][port]
        if owner is None:
            for start in range(0, len(data) - size + 1, size):
                self.write(port, size, int.from_bytes(data[start : start + size], "little"))
            return
        try:
            if self._tap is None:
                owner.device.write_block(owner.offset, size, data)
            else:
                self._tap.write_block(owner, port, size, data)
        except Exception as error:
            self.failed(port, size, True, error)
        for observer in self._observers:
            observer.port_write_block(port, size, data, owner)

    def failed(self, port: int, size: int, write: bool, error: BaseException) -> int:
        """Report a device that raised, and give the value its read has: all ones.

        Raises:
            DeviceFailureError: the space is strict.
        """
        if isinstance(error, DeviceFailureError):
            raise error
        owner = self._owners[size][port] if size in self._owners and 0 <= port < TABLE_LENGTH else None
        if owner is None:
            raise error
        failure = Failure(owner.device.name, port, size, write, error)
        if self.strict:
            raise DeviceFailureError(str(failure)) from error
        if self.on_failure:
            self.on_failure(failure)
        return (1 << 8 * size) - 1

    # --- the map ----------------------------------------------------------------------------------

    def attach(self, device: Device, ranges: Iterable[PortRange] | None = None) -> None:
        """Give a device its ports (by default those it declares).

        Raises:
            PortConflictError: a port and size has an owner; both are named and nothing changes.
        """
        with self.transaction():
            self._stage(device, device.ports if ranges is None else ranges)

    def detach(self, device: Device) -> None:
        """Take all ports from a device."""
        with self.transaction():
            self._stage(device, None)

    def remap(self, device: Device, ranges: Iterable[PortRange]) -> None:
        """Move a device to other ports: all of them or, on a conflict, none. Safe inside a handler.

        Raises:
            PortConflictError: as for `attach`.
        """
        with self.transaction():
            self._stage(device, ranges)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Collect changes of the map and make them at once at the end, so that devices may swap ports."""
        if self._pending is not None:
            yield
            return
        self._pending = {}
        try:
            yield
            staged = self._pending
        finally:
            self._pending = None
        self._commit(staged)

    def _stage(self, device: Device, ranges: Iterable[PortRange] | None) -> None:
        assert self._pending is not None
        self._pending[device] = None if ranges is None else tuple(ranges)

    def _commit(self, staged: dict[Device, tuple[PortRange, ...] | None]) -> None:
        undo: list[tuple[int, int, Owner | None]] = []
        try:
            for device in staged:
                for owned in self._devices.get(device, ()):
                    self._place(owned, None, undo)
            for device, ranges in staged.items():
                for wanted in ranges or ():
                    self._place(wanted, device, undo)
        except PortConflictError:
            for size, port, owner in reversed(undo):
                self._owners[size][port] = owner
            raise
        for device, ranges in staged.items():
            if ranges is None:
                self._devices.pop(device, None)
            else:
                self._devices[device] = ranges
                device.ports = ranges
        touched = {port for _, port, _ in undo}
        self._refresh(_reaching(touched))

    def _place(self, wanted: PortRange, device: Device | None, undo: list[tuple[int, int, Owner | None]]) -> None:
        for size in wanted.sizes:
            owners = self._owners[size]
            for port in range(wanted.base, wanted.last + 2 - size, size):
                present = owners[port]
                if device is not None and present is not None:
                    raise PortConflictError(
                        f"port {port:#06x} ({size}-byte access): {device.name} ({wanted}) and "
                        f"{present.device.name} ({present.range}) both own it"
                    )
                undo.append((size, port, present))
                owners[port] = None if device is None else Owner(device, wanted, wanted.offset + port - wanted.base)

    @_without_collector
    def _refresh(self, ports: Collection[int]) -> None:
        for size in ACCESS_SIZES:
            reads, writes = self.reads[size >> 1], self.writes[size >> 1]
            for port in ports:
                reads[port] = self._read_entry(port, size)
                writes[port] = self._write_entry(port, size)

    def _covered(self, port: int, size: int) -> bool:
        """Whether any piece of the access has an owner."""
        if port >= PORT_COUNT:
            return False
        if self._owners[size][port] is not None:
            return True
        half = size >> 1
        return bool(half) and (self._covered(port, half) or self._covered(port + half, half))

    def _read_entry(self, port: int, size: int) -> ReadEntry:
        if self._observers:
            return (self._observed_read, port)
        return self._plain_read_entry(port, size)

    def _plain_read_entry(self, port: int, size: int) -> ReadEntry:
        owner = self._owners[size][port]
        entry: ReadEntry
        if owner is not None:
            entry = (owner.device.read, owner.offset)
        elif self._covered(port, size):
            entry = (self._split_read, port)
        else:
            return (self._nobody_reads, port)
        return entry if self._tap is None else self._tap.read_entry(port, size, owner, entry)

    def _write_entry(self, port: int, size: int) -> WriteEntry:
        if self._observers:
            return (self._observed_write, port)
        return self._plain_write_entry(port, size)

    def _plain_write_entry(self, port: int, size: int) -> WriteEntry:
        owner = self._owners[size][port]
        entry: WriteEntry
        if owner is not None:
            entry = (owner.device.write, owner.offset)
        elif self._covered(port, size):
            entry = (self._split_write, port)
        else:
            return (self._nobody_writes, port)
        return entry if self._tap is None else self._tap.write_entry(port, size, owner, entry)

    @_without_collector
    def _open_tables(self) -> None:
        """All tables as if nobody owned a port."""
        open_reads: list[ReadEntry] = list(zip(repeat(self._nobody_reads), range(TABLE_LENGTH)))
        open_writes: list[WriteEntry] = list(zip(repeat(self._nobody_writes), range(TABLE_LENGTH)))
        for reads, writes in zip(self.reads, self.writes, strict=True):
            reads[:] = open_reads
            writes[:] = open_writes

    # --- decode of what no owner takes whole --------------------------------------------------------

    def _open_read(self, port: int, size: int) -> int:
        if port < PORT_COUNT:
            self.unassigned[Unassigned(port, size, False)] += 1
        return (1 << 8 * size) - 1

    def _open_write(self, port: int, size: int, value: int) -> None:
        if port < PORT_COUNT:
            self.unassigned[Unassigned(port, size, True)] += 1

    def _split_read(self, port: int, size: int) -> int:
        half = size >> 1
        low = self.read(port, half)
        return low | self.read(port + half, half) << 8 * half

    def _split_write(self, port: int, size: int, value: int) -> None:
        half = size >> 1
        self.write(port, half, value)
        self.write(port + half, half, value >> 8 * half)

    # --- observers ----------------------------------------------------------------------------------

    def observe(self, observer: Observer) -> None:
        """Let `observer` see every access from now on."""
        self._observers.append(observer)
        self._refresh(range(TABLE_LENGTH))

    def unobserve(self, observer: Observer) -> None:
        """Undo `observe`."""
        self._observers.remove(observer)
        self._refresh(range(TABLE_LENGTH))

    @property
    def tapped(self) -> PortTap | None:
        """What stands in front of all handlers."""
        return self._tap

    def tap(self, tap: PortTap | None) -> None:
        """Put `tap` in front of all handlers, or take it away again."""
        self._tap = tap
        self._nobody_reads = tap.open_read(self._open_read) if tap else self._open_read
        self._nobody_writes = tap.open_write(self._open_write) if tap else self._open_write
        if self._observers:
            self._refresh(range(TABLE_LENGTH))
            return
        self._open_tables()
        owned = {
            port for ranges in self._devices.values() for one in ranges for port in range(one.base, one.last + 1)
        }
        self._refresh(_reaching(owned))

    def _observed_read(self, port: int, size: int) -> int:
        function, offset = self._plain_read_entry(port, size)
        depth = self._depth
        self._depth = depth + 1
        try:
            value = function(offset, size) & ((1 << 8 * size) - 1)
        except Exception as error:
            value = self.failed(port, size, False, error)
        finally:
            self._depth = depth
        owner = self._owners[size][port]
        for observer in self._observers:
            observer.port_read(port, size, value, owner, depth)
        return value

    def _observed_write(self, port: int, size: int, value: int) -> None:
        function, offset = self._plain_write_entry(port, size)
        owner = self._owners[size][port]
        depth = self._depth
        self._depth = depth + 1
        try:
            function(offset, size, value)
        except Exception as error:
            self.failed(port, size, True, error)
        finally:
            self._depth = depth
        for observer in self._observers:
            observer.port_write(port, size, value, owner, depth)

    # --- looking at the map ---------------------------------------------------------------------------

    def owner(self, port: int, size: int = 1) -> Owner | None:
        """Who takes an access whole, or None if it is split or unassigned."""
        return self._owners[size][port]

    def devices(self) -> tuple[Device, ...]:
        """All attached devices, in the order they were attached."""
        return tuple(self._devices)

    def ranges(self) -> Sequence[tuple[PortRange, Device]]:
        """Every range with its device, by base address."""
        return sorted(
            ((owned, device) for device, ranges in self._devices.items() for owned in ranges),
            key=lambda pair: (pair[0].base, -pair[0].length, pair[1].name),
        )


def _reaching(ports: Iterable[int]) -> set[int]:
    """Where an access may start that touches one of these ports."""
    return {port - back for port in ports for back in range(4) if port >= back}
