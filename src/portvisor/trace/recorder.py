"""Notes every port access of a machine: the compiled taps in the port tables, and names."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from portvisor.ports import PORT_COUNT, Device, Owner, PortSpace, ReadEntry, WriteEntry
from portvisor.trace import _tap
from portvisor.trace.filters import TraceFilter
from portvisor.trace.pump import Pump
from portvisor.trace.schema import FLAG_FAILED, FLAG_SPLIT, FLAG_UNASSIGNED, Kind

TapKey = tuple[Device | None, int, int, int, bool]
"""Device, its offset, port, size, direction."""


class Recorder:
    """The tap of one port space; gives a batch to `write` whenever it has one, in another thread."""

    def __init__(
        self,
        core: _tap.Recorder,
        space: PortSpace,
        write: Callable[[pa.RecordBatch], None],
        schema: pa.Schema,
        wanted: TraceFilter,
    ) -> None:
        """`write` must not refer to the space."""
        self.core = core
        self.wanted = wanted
        self._space = space
        self._devices: dict[str, int] = {"": 0}
        self._taps: dict[TapKey, _tap.Tap] = {}
        self.core.register("")
        self._wanted_kinds = {kind: wanted.wants_kind(kind) for kind in Kind}
        self._pump = Pump(core, write, schema, self._devices)
        self._given_up: weakref.finalize[[], Recorder] | None = None

    @property
    def failure(self) -> BaseException | None:
        """What `write` raised; nothing is written after that."""
        return self._pump.failure

    def attach(self) -> None:
        """Stand in front of the handlers."""
        self._pump.start()
        self._given_up = weakref.finalize(self, self.core.close)
        self._space.tap(self)

    def detach(self) -> None:
        """Give the tables back and write what waits."""
        self._space.tap(None)
        self._taps.clear()
        if self._given_up is not None:
            self._given_up.detach()
        self._pump.stop()

    def flush(self) -> None:
        """Have written what waits."""
        self.core.flush()

    # --- the tables -----------------------------------------------------------------------------------

    def read_entry(self, port: int, size: int, owner: Owner | None, entry: ReadEntry) -> ReadEntry:
        if not self._wanted_access(Kind.IN, port, size, owner):
            return entry
        return (self._tap_of(owner, port, size, entry[0], write=False), entry[1])

    def write_entry(self, port: int, size: int, owner: Owner | None, entry: WriteEntry) -> WriteEntry:
        if not self._wanted_access(Kind.OUT, port, size, owner):
            return entry
        return (self._tap_of(owner, port, size, entry[0], write=True), entry[1])  # type: ignore[return-value]

    def open_read(self, function: Callable[[int, int], int]) -> Callable[[int, int], int]:
        return self._open_tap(function, write=False) if self._wants_open(Kind.IN) else function

    def open_write(self, function: Callable[[int, int, int], None]) -> Callable[[int, int, int], None]:
        return self._open_tap(function, write=True) if self._wants_open(Kind.OUT) else function  # type: ignore[return-value]

    def _wants_open(self, kind: Kind) -> bool:
        return self._wanted_kinds[kind] and self.wanted.wants_device("")

    def _open_tap(self, function: Callable[..., Any], *, write: bool) -> _tap.Tap:
        ports = bytearray(b"\xff" if not self.wanted.ports else b"\0") * (PORT_COUNT // 8)
        for port in self.wanted.ports:
            for start in range(max(0, port - 3), port + 1):
                ports[start >> 3] |= 1 << (start & 7)
        ports += b"\0"
        return _tap.Tap(self.core, function, None, 0, 0, 0, 0, FLAG_UNASSIGNED, write, bytes(ports))

    def _wanted_access(self, kind: Kind, port: int, size: int, owner: Owner | None) -> bool:
        if port >= PORT_COUNT or not self._wanted_kinds[kind]:
            return False
        return self.wanted.wants_ports(port, size) and self.wanted.wants_device(owner.device.name if owner else "")

    def _tap_of(
        self, owner: Owner | None, port: int, size: int, function: Callable[..., Any], *, write: bool
    ) -> _tap.Tap:
        """The one that was made before, if so: with observers an entry is asked for at every access."""
        key = (owner.device if owner else None, owner.offset if owner else 0, port, size, write)
        made = self._taps.get(key)
        if made is None:
            made = self._taps[key] = self._new_tap(owner, port, size, function, write)
        return made

    def _new_tap(
        self, owner: Owner | None, port: int, size: int, function: Callable[..., Any], write: bool
    ) -> _tap.Tap:
        if owner is None:
            return _tap.Tap(self.core, function, None, port, size, 0, 0, FLAG_SPLIT, write, None)
        device = owner.device
        namer, register = None, 0
        if type(device).register_name is not Device.register_name:
            namer = device.register_name
        else:
            register = self.core.register(device.REGISTERS.get(owner.offset, ""))
        number = self.device(device.name)
        return _tap.Tap(self.core, function, namer, port, size, number, register, 0, write, None)

    # --- blocks and other events ----------------------------------------------------------------------

    def read_block(self, owner: Owner, port: int, size: int, count: int) -> bytes:
        serve = owner.device.read_block
        if not self._wanted_access(Kind.INS, port, size, owner):
            return bytes(serve(owner.offset, size, count))
        self.core.enter()
        data, flags = b"", FLAG_FAILED
        try:
            data = bytes(serve(owner.offset, size, count))
            flags = 0
        finally:
            data = data[: size * count].ljust(size * count, b"\xff")
            self._block(Kind.INS, owner, port, size, data, flags)
        return data

    def write_block(self, owner: Owner, port: int, size: int, data: bytes) -> None:
        if not self._wanted_access(Kind.OUTS, port, size, owner):
            owner.device.write_block(owner.offset, size, data)
            return
        self.core.enter()
        flags = FLAG_FAILED
        try:
            owner.device.write_block(owner.offset, size, data)
            flags = 0
        finally:
            self._block(Kind.OUTS, owner, port, size, data, flags)

    def _block(self, kind: Kind, owner: Owner, port: int, size: int, data: bytes, flags: int) -> None:
        name = owner.device.register_name(owner.offset, size, kind is Kind.OUTS)
        value = int.from_bytes(data[:size], "little")
        number, register = self.device(owner.device.name), self.core.register(name)
        self.core.leave(kind, port, size, value, number, register, bytes(data), flags)

    def event(self, kind: Kind, device: str, value: int = 0, name: str = "", data: bytes = b"") -> None:
        """Note what is no access and takes no time."""
        if self._wanted_kinds[kind] and self.wanted.wants_device(device):
            number, register = self.device(device), self.core.register(name)
            self.core.event(kind, 0, 0, value & 0xFFFFFFFF, number, register, bytes(data) if data else None)

    def finish(
        self, kind: Kind, device: str, value: int = 0, name: str = "", data: bytes = b"", size: int = 0
    ) -> None:
        """Note the event that `core.enter` began."""
        if self._wanted_kinds[kind] and self.wanted.wants_device(device):
            number, register = self.device(device), self.core.register(name)
            self.core.leave(kind, 0, size, value & 0xFFFFFFFF, number, register, bytes(data) if data else None)
        else:
            self.core.abandon()

    def device(self, name: str) -> int:
        """The number of a device's name."""
        return self._devices.setdefault(name, len(self._devices))
