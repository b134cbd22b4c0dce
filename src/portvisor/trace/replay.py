"""Feed a trace to the device models, without a CPU, and compare what they answer.

Every event of the file is done again at its recorded time: accesses, expiring timers, acknowledge cycles, inputs of
the host, resets. What devices read from guest memory and from images comes from the file. Compared are the value of
every IN, the vector of every acknowledge, and the interrupt edges that an event causes, in order.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from portvisor.machines.pc_like import PcLike
from portvisor.ports import ACCESS_SIZES
from portvisor.trace.board import build_board, host_calls
from portvisor.trace.clock import ReplayClock
from portvisor.trace.errors import TraceError
from portvisor.trace.reader import Trace
from portvisor.trace.schema import KIND_NAMES, MMIO_DATA, Metadata

BLOCK_MAX = 1 << 24
"""Bytes of a block at most: a segment's worth is 64 KiB."""
CONTEXT = 8
"""Events shown before a divergence."""
PIC_INPUTS = tuple(irq for irq in range(16) if irq != 2)
PIECES = {"irq", "dma", "disk"}

Record = dict[str, Any]
Edge = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where trace and models part."""

    record: Record
    what: str
    context: tuple[Record, ...]


@dataclass(slots=True)
class ReplayResult:
    """What a replay found."""

    events: int = 0
    compared: int = 0
    """Values, vectors and edge lists that were compared."""
    divergences: int = 0
    first: Divergence | None = None
    by_device: dict[str, int] = field(default_factory=dict)
    """Divergences by device."""


def describe_record(record: Record) -> str:
    """One line for a person."""
    kind, name = record["kind"], record["device"] or "(nobody)"
    register = f" {record['register']}" if record["register"] else ""
    head = f"#{record['seq']} {record['time'] / 1e6:.6f} ms {kind}"
    if record["port"] is None:
        return f"{head} {name}{register} {record['value']:#x}"
    width = 2 * (record["size"] or 1)
    count = f" x{record['count']}" if record["count"] != 1 else ""
    return f"{head} {record['port']:04x} {record['value']:0{width}x}{count} {name}{register}"


class Replay:
    """One pass through a trace."""

    def __init__(self, metadata: Metadata, device: str | None = None) -> None:
        """Build the machine.

        Args:
            metadata: of the trace.
            device: compare this device's answers only; everything is fed all the same.

        Raises:
            TraceError: the machine cannot be built.
        """
        self.device = device
        self._foreign = metadata.source != "portvisor"
        self.result = ReplayResult()
        self.clock = ReplayClock(metadata.start)
        self._content: dict[str, deque[Record]] = {"dma": deque(), "disk": deque()}
        self._edges: list[Edge] = []
        self.machine: PcLike = build_board(metadata, self.clock, self._read_image)
        self._calls = {(name, call): getattr(owner, call) for name, call, owner in host_calls(self.machine)}
        self._recent: deque[Record] = deque(maxlen=CONTEXT)
        setattr(self.machine.ram, "read", self._read_memory)  # noqa: B010  # devices hold this very object
        for number in PIC_INPUTS:
            self.machine.chips.pic.input(number).watch(self._watch(f"IRQ{number}"))
        known = {one.name for one in self.machine.devices}
        if device is not None and device not in known:
            raise TraceError(
                f"machine {self.machine.name} has no device {device!r}; it has {', '.join(sorted(known))}"
            )
        self._actions: dict[str, Callable[[Record], str | None]] = {
            "in": self._in,
            "out": self._out,
            "ins": self._ins,
            "outs": self._outs,
            "timer": self._timer,
            "ack": self._ack,
            "input": self._input,
            "reset": self._reset,
            "mmio_in": self._mmio_in,
            "mmio_out": self._mmio_out,
        }

    def _watch(self, name: str) -> Callable[[int], None]:
        return lambda level: self._edges.append((name, level))

    # --- what devices ask for -------------------------------------------------------------------------

    def _read_memory(self, address: int, length: int) -> bytes:
        return self._next("dma", address & 0xFFFFFFFF, length)

    def _read_image(self, sector: int, count: int) -> bytes:
        return self._next("disk", sector & 0xFFFFFFFF, count * 512)

    def _next(self, kind: str, where: int, length: int) -> bytes:
        """The content the device read at this point; ones if it read something else then."""
        waiting = self._content[kind]
        if waiting and waiting[0]["value"] == where and len(waiting[0]["data"] or b"") == length:
            return bytes(waiting.popleft()["data"])
        return b"\xff" * length

    # --- events ----------------------------------------------------------------------------------------

    def run(self, records: Iterator[Record]) -> ReplayResult:
        """Do all events; the result counts every divergence and keeps the first one."""
        pieces: list[Record] = []
        for record in records:
            if record["depth"] or record["kind"] in PIECES:
                pieces.append(record)
            else:
                self._event(record, pieces)
                pieces.clear()
        return self.result

    def _event(self, record: Record, pieces: list[Record]) -> None:
        action = self._actions.get(record["kind"])
        if action is None:
            raise TraceError(
                f"record {record['seq']}: kind {record['kind']!r}; possible are {', '.join(KIND_NAMES)}"
            )
        if record["port"] is not None and record["size"] not in ACCESS_SIZES:
            raise TraceError(f"record {record['seq']}: an access of {record['size']} bytes")
        for kind, waiting in self._content.items():
            waiting.clear()
            waiting.extend(piece for piece in pieces if piece["kind"] == kind)
        self._edges.clear()
        self.clock.rewind(record["time"])
        try:
            wrong = action(record)
        except (TypeError, ValueError, LookupError) as error:
            if isinstance(error, TraceError):
                raise
            raise TraceError(f"record {record['seq']}: damaged ({describe_error(error)})") from None
        self.result.events += 1
        if self._compares(record):
            self.result.compared += 1
            if not self._foreign:
                wrong = wrong or self._compare_edges(pieces)
            if wrong:
                self._diverged(record, wrong)
        self._recent.append(record)

    def _compares(self, record: Record) -> bool:
        if self.device is None:
            return True
        name = record["device"]
        if self._foreign and record["port"] is not None:
            owner = self.machine.ports.owner(record["port"], record["size"])
            name = owner.device.name if owner else ""
        return bool(name == self.device)

    def _compare_edges(self, pieces: list[Record]) -> str | None:
        recorded = [(piece["device"], piece["value"]) for piece in pieces if piece["kind"] == "irq"]
        if recorded == self._edges:
            return None
        return f"interrupt edges: recorded {_edges(recorded)}, replayed {_edges(self._edges)}"

    def _diverged(self, record: Record, what: str) -> None:
        self.result.divergences += 1
        name = record["device"] or "(nobody)"
        self.result.by_device[name] = self.result.by_device.get(name, 0) + 1
        if self.result.first is None:
            self.result.first = Divergence(record, what, tuple(self._recent))

    # --- kinds -----------------------------------------------------------------------------------------

    def _in(self, record: Record) -> str | None:
        value = self.machine.ports.read(record["port"], record["size"])
        return _differs("value", record["value"], value)

    def _out(self, record: Record) -> str | None:
        self.machine.ports.write(record["port"], record["size"], record["value"])
        return None

    def _ins(self, record: Record) -> str | None:
        if record["count"] * record["size"] > BLOCK_MAX:
            raise TraceError(f"record {record['seq']}: a block of {record['count']:,} elements")
        data = self.machine.ports.read_block(record["port"], record["size"], record["count"])
        expected = record["data"]
        if expected is None or data == expected:
            return None
        place = next((i for i, pair in enumerate(zip(data, expected, strict=False)) if pair[0] != pair[1]), 0)
        seen = f"recorded {_byte(expected, place)}, replayed {_byte(data, place)}"
        return f"block: byte {place} of {len(expected)}: {seen}"

    def _outs(self, record: Record) -> str | None:
        self.machine.ports.write_block(record["port"], record["size"], record["data"] or b"")
        return None

    def _timer(self, record: Record) -> str | None:
        wrong = self.clock.expire(record["device"])
        return f"timer {record['device']} expired here when recorded; now {wrong}" if wrong else None

    def _ack(self, record: Record) -> str | None:
        return _differs("vector", record["value"], self.machine.chips.pic.acknowledge())

    def _input(self, record: Record) -> str | None:
        call = self._calls.get((record["device"], record["register"]))
        if call is None:
            raise TraceError(f"record {record['seq']}: no input {record['device']}.{record['register']}")
        positional, named = json.loads(record["data"] or b"[[], {}]")
        call(*(bytes.fromhex(one["hex"]) if isinstance(one, dict) else one for one in positional), **named)
        return None

    def _mmio_in(self, record: Record) -> str | None:
        address, value = _mmio(record)
        return _differs("value", value, self.machine.mmio.read(address, record["size"]))

    def _mmio_out(self, record: Record) -> str | None:
        address, value = _mmio(record)
        self.machine.mmio.write(address, record["size"], value)
        return None

    def _reset(self, _record: Record) -> str | None:
        self.machine.reset()
        return None


def describe_error(error: BaseException) -> str:
    """What went wrong, in a few words."""
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _mmio(record: Record) -> tuple[int, int]:
    """Address and value of a memory-mapped access."""
    data = record["data"] or b""
    if len(data) != MMIO_DATA.size:
        raise TraceError(f"record {record['seq']}: damaged memory-mapped access")
    address, value = MMIO_DATA.unpack(data)
    return address, value


def _differs(what: str, recorded: int, replayed: int) -> str | None:
    return None if recorded == replayed else f"{what}: recorded {recorded:#x}, replayed {replayed:#x}"


def _byte(data: bytes, place: int) -> str:
    return f"{data[place]:02x}" if place < len(data) else "nothing"


def _edges(edges: list[Edge]) -> str:
    return ", ".join(f"{name} {'up' if level else 'down'}" for name, level in edges) or "none"


def replay(trace: Trace, device: str | None = None, machine: str | None = None) -> ReplayResult:
    """Replay a trace.

    Args:
        trace: the file.
        device: compare this device only.
        machine: a board for a foreign trace, which names none.

    Raises:
        TraceError: it cannot be replayed.
    """
    metadata = trace.metadata
    if machine and not metadata.machine:
        metadata = Metadata(source=metadata.source, machine=machine, start=metadata.start, options={})
    return Replay(metadata, device).run(trace.records())
