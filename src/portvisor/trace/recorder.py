"""Notes every port access of a machine: the compiled taps in the port tables, names, and batches for the file."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import pyarrow as pa

from portvisor.ports import PORT_COUNT, Device, Owner, PortSpace, ReadEntry, WriteEntry
from portvisor.trace import _tap
from portvisor.trace.filters import TraceFilter
from portvisor.trace.schema import (
    ACCESSES,
    FLAG_SPLIT,
    FLAG_UNASSIGNED,
    KIND_NAMES,
    SERVED,
    SIZED,
    Kind,
)

SINGLE = array("I", [1]).tobytes()
NO_NAMES = b"\0\0"

TapKey = tuple[Device | None, int, int, bool]


class Recorder:
    """The tap of one port space; gives a batch to `write` whenever it has one."""

    def __init__(
        self,
        core: _tap.Recorder,
        space: PortSpace,
        write: Callable[[pa.RecordBatch], None],
        schema: pa.Schema,
        wanted: TraceFilter,
        on_first: Callable[[], None],
    ) -> None:
        self.core = core
        core.set_hooks(on_first, self.flush)
        self.wanted = wanted
        self._space = space
        self._write = write
        self._schema = schema
        self._devices: dict[str, int] = {"": 0}
        self._blobs: list[bytes] = []
        self._taps: dict[TapKey, _tap.Tap] = {}
        self.core.register("")
        self._wanted_kinds = {kind: wanted.wants_kind(kind) for kind in Kind}

    def attach(self) -> None:
        """Stand in front of the handlers."""
        self._space.tap(self)

    def detach(self) -> None:
        """Give the tables back and write what waits."""
        self._space.tap(None)
        self._taps.clear()
        self.flush()

    # --- the tables -----------------------------------------------------------------------------------

    def read_entry(self, port: int, size: int, owner: Owner | None, entry: ReadEntry) -> ReadEntry:
        if not self._wanted_access(Kind.IN, port, size, owner):
            return entry
        return (self._tap(owner, port, entry[0], write=False), entry[1])

    def write_entry(self, port: int, size: int, owner: Owner | None, entry: WriteEntry) -> WriteEntry:
        if not self._wanted_access(Kind.OUT, port, size, owner):
            return entry
        return (self._tap(owner, port, entry[0], write=True), entry[1])  # type: ignore[return-value]

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
        return _tap.Tap(self.core, function, None, NO_NAMES, 0, 0, 0, FLAG_UNASSIGNED, write, bytes(ports))

    def _wanted_access(self, kind: Kind, port: int, size: int, owner: Owner | None) -> bool:
        if port >= PORT_COUNT or not self._wanted_kinds[kind]:
            return False
        return self.wanted.wants_ports(port, size) and self.wanted.wants_device(owner.device.name if owner else "")

    def _tap(self, owner: Owner | None, port: int, function: Callable[..., Any], *, write: bool) -> _tap.Tap:
        delta, first = (port - owner.offset, owner.range.offset) if owner else (0, 0)
        key: TapKey = (owner.device if owner else None, delta, first, write)
        made = self._taps.get(key)
        if made is None:
            namer, ids = self._names(owner)
            device = self.device(owner.device.name) if owner else 0
            flags = 0 if owner else FLAG_SPLIT
            made = _tap.Tap(self.core, function, namer, ids, delta, first, device, flags, write, None)
            self._taps[key] = made
        return made

    def _names(self, owner: Owner | None) -> tuple[Callable[[int, int, bool], str] | None, bytes]:
        """How to name a register: a function of the device, or a fixed list by offset."""
        if owner is None:
            return None, NO_NAMES
        device = owner.device
        if type(device).register_name is not Device.register_name:
            return device.register_name, NO_NAMES
        offsets = range(owner.range.offset, owner.range.offset + owner.range.length)
        numbers = (self.core.register(device.REGISTERS.get(offset, "")) for offset in offsets)
        return None, array("H", numbers).tobytes()

    # --- blocks and other events ----------------------------------------------------------------------

    def read_block(self, owner: Owner, port: int, size: int, count: int) -> bytes:
        serve = owner.device.read_block
        if not self._wanted_access(Kind.INS, port, size, owner):
            return bytes(serve(owner.offset, size, count))
        self.core.enter()
        data = b""
        try:
            data = bytes(serve(owner.offset, size, count))
        finally:
            data = data[: size * count].ljust(size * count, b"\xff")
            self._block(Kind.INS, owner, port, size, data)
        return data

    def write_block(self, owner: Owner, port: int, size: int, data: bytes) -> None:
        if not self._wanted_access(Kind.OUTS, port, size, owner):
            owner.device.write_block(owner.offset, size, data)
            return
        self.core.enter()
        try:
            owner.device.write_block(owner.offset, size, data)
        finally:
            self._block(Kind.OUTS, owner, port, size, data)

    def _block(self, kind: Kind, owner: Owner, port: int, size: int, data: bytes) -> None:
        name = owner.device.register_name(owner.offset, size, kind is Kind.OUTS)
        value = int.from_bytes(data[:size], "little")
        register = self.core.register(name)
        self.core.leave(kind, port, size, value, self.device(owner.device.name), register, self._blob(data))

    def event(self, kind: Kind, device: str, value: int = 0, name: str = "", data: bytes = b"") -> None:
        """Note what is no access and takes no time."""
        if self._wanted_kinds[kind] and self.wanted.wants_device(device):
            blob = self._blob(data) if data else 0
            number = self.device(device)
            self.core.event(kind, 0, 0, value & 0xFFFFFFFF, number, self.core.register(name), blob)

    def finish(
        self, kind: Kind, device: str, value: int = 0, name: str = "", data: bytes = b"", size: int = 0
    ) -> None:
        """Note the event that `core.enter` began."""
        if self._wanted_kinds[kind] and self.wanted.wants_device(device):
            blob = self._blob(data) if data else 0
            number = self.device(device)
            self.core.leave(kind, 0, size, value & 0xFFFFFFFF, number, self.core.register(name), blob)
        else:
            self.core.abandon()

    def device(self, name: str) -> int:
        """The number of a device's name."""
        return self._devices.setdefault(name, len(self._devices))

    def _blob(self, data: bytes) -> int:
        self._blobs.append(bytes(data))
        return len(self._blobs)

    # --- batches ----------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what waits."""
        count, *columns = self.core.take()
        blobs, self._blobs = self._blobs, []
        if count:
            self._write(self._batch(count, columns, blobs))

    def _batch(self, count: int, columns: list[bytes], blobs: list[bytes]) -> pa.RecordBatch:
        seq, time, value, host_ns, blob, port, device, register, size, kind, depth, flags = columns
        data, counts = _block_columns(count, blob, blobs, kind, size)
        is_access = _flags_of(kind, ACCESSES)
        arrays = [
            _numbers(pa.int64(), count, seq),
            _numbers(pa.int64(), count, time),
            _numbers(pa.uint32(), count, host_ns),
            _numbers(pa.uint8(), count, bytes(count)),
            _named(kind, pa.int8(), count, KIND_NAMES),
            _numbers(pa.uint16(), count, port, is_access),
            _numbers(pa.uint8(), count, size, _flags_of(kind, SIZED)),
            counts,
            _numbers(pa.uint32(), count, value),
            data,
            _named(device, pa.int16(), count, tuple(self._devices)),
            _named(register, pa.int16(), count, tuple(self.core.registers)),
            _numbers(pa.uint8(), count, depth),
            _named(flags, pa.int8(), count, SERVED),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


_MASKS: dict[tuple[Kind, ...], bytes] = {
    wanted: bytes(kind in wanted for kind in range(256)) for wanted in (ACCESSES, SIZED)
}


def _flags_of(kinds: bytes, wanted: tuple[Kind, ...]) -> pa.Array | None:
    """Which records are of the wanted kinds; None if all are."""
    marks = kinds.translate(_MASKS[wanted])
    if 0 not in marks:
        return None
    return _numbers(pa.uint8(), len(marks), marks).cast(pa.bool_())


def _numbers(kind: pa.DataType, count: int, content: bytes, valid: pa.Array | None = None) -> pa.Array:
    """A column of numbers from their bytes, null where not `valid`."""
    mask = None if valid is None else valid.buffers()[1]
    return pa.Array.from_buffers(kind, count, [mask, pa.py_buffer(content)])


def _named(numbers: bytes, kind: pa.DataType, count: int, names: tuple[str, ...]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(_numbers(kind, count, numbers), pa.array(names, pa.string()), safe=False)


def _block_columns(
    count: int, blob: bytes, blobs: list[bytes], kinds: bytes, sizes: bytes
) -> tuple[pa.Array, pa.Array]:
    """The columns `data` and `count`."""
    if not blobs:
        return pa.nulls(count, pa.binary()), _numbers(pa.uint32(), count, SINGLE * count)
    data: list[bytes | None] = [None] * count
    counts = [1] * count
    for row, number in enumerate(memoryview(blob).cast("I")):
        if number:
            data[row] = blobs[number - 1]
            if kinds[row] in (Kind.INS, Kind.OUTS):
                counts[row] = len(blobs[number - 1]) // sizes[row]
    return pa.array(data, pa.binary()), pa.array(counts, pa.uint32())
