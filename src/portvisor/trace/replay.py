"""Feed a trace to the device models, without a CPU, and compare what they answer.

Every event of the file is done again at its recorded time: accesses, expiring timers, acknowledge cycles, inputs of
the host, resets, snapshots. What devices read from guest memory and from images comes from the file. Compared are
the value of every IN, the vector of every acknowledge, and everything that an event causes, in order: interrupt
edges, what devices write to guest memory and images, requests for a reset or power-off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from portvisor.devices.erst import RecordStore
from portvisor.machines.pc_like import PcLike
from portvisor.machines.poweredge import PowerEdge
from portvisor.machines.snapshot import restore_devices
from portvisor.ports import ACCESS_SIZES, SECTOR_SIZE, BlockBackend, Snapshot
from portvisor.trace.board import build_board
from portvisor.trace.clock import ReplayClock
from portvisor.trace.effects import (
    BOARD,
    DIGEST,
    FAILED,
    FLUSH,
    LENGTH,
    MEMORY,
    READ,
    RECORDS,
    WRITE,
    digest,
    digest_of_records,
    host_error,
    watch_requests,
)
from portvisor.trace.errors import TraceError
from portvisor.trace.filters import TraceFilter, parse_filter
from portvisor.trace.host import ImageMaker, decode_call, host_calls, images
from portvisor.trace.reader import Trace
from portvisor.trace.schema import KIND_NAMES, MMIO_DATA, Kind, Metadata

BLOCK_MAX = 1 << 24
"""Bytes of a block at most: a segment's worth is 64 KiB."""
TIMERS_MAX = 10_000
"""Expiries between two accesses of a foreign trace at most; a guest may have set a timer to 1 MHz."""
CONTEXT = 8
"""Events shown before a divergence."""
PIC_INPUTS = tuple(irq for irq in range(16) if irq != 2)
EFFECTS = {"irq": Kind.IRQ, "dma": Kind.DMA, "disk": Kind.DISK, "request": Kind.REQUEST}
ANSWERS = ("dma", "disk")

Record = dict[str, Any]
Effect = tuple[str, str, int, str, bytes | int]
"""Kind, device, value, name, and what tells its content: length of what was read, digest of what was written."""


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where trace and models part."""

    record: Record
    what: str
    context: tuple[Record, ...]


@dataclass(slots=True)
class DivergenceGroup:
    """Divergences of one kind of access."""

    device: str
    access: str
    what: str
    """What the first one was."""
    times: int = 0


@dataclass(slots=True)
class ReplayResult:
    """What a replay found."""

    events: int = 0
    compared: int = 0
    """Values, vectors and lists of effects that were compared."""
    divergences: int = 0
    first: Divergence | None = None
    by_access: dict[tuple[str, str], DivergenceGroup] = field(default_factory=dict)
    """Divergences by device and access."""

    def groups(self) -> list[DivergenceGroup]:
        """Kinds of divergences, most frequent first."""
        return sorted(self.by_access.values(), key=lambda one: -one.times)


class ReplayImage:
    """An image whose content comes from the trace."""

    def __init__(self, replay: Replay, sectors: int, read_only: bool, name: str = "") -> None:
        self.sectors = sectors
        self.read_only = read_only
        self.name = name
        self._replay = replay

    def read(self, sector: int, count: int) -> bytes:
        return self._replay.answer("disk", self.name, sector, count * SECTOR_SIZE)

    def write(self, sector: int, data: bytes) -> None:
        self._replay.absorb(self.name, sector, WRITE, digest(data))

    def flush(self) -> None:
        self._replay.absorb(self.name, 0, FLUSH)


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

    def __init__(self, metadata: Metadata, device: str | None = None, images: Sequence[BlockBackend] = ()) -> None:
        """Build the machine.

        Args:
            metadata: of the trace.
            device: compare this device's answers only; everything is fed all the same.
            images: for a foreign trace, which holds no sectors, those of its drives, in order.

        Raises:
            TraceError: the machine cannot be built.
        """
        self.device = device
        self._foreign = metadata.source != "portvisor"
        self._wanted = parse_filter([metadata.filters]) if metadata.filters else TraceFilter()
        self.result = ReplayResult()
        self.clock = ReplayClock(metadata.start)
        self._answers: dict[str, deque[Record]] = {kind: deque() for kind in ANSWERS}
        self._effects: list[Effect] = []
        self._resetting = False
        self._snapshots: dict[int, tuple[Snapshot, ...]] = {}
        self._recent: deque[Record] = deque(maxlen=CONTEXT)
        self.machine: PcLike = build_board(
            metadata, self.clock, _handed_out(images) if images else partial(ReplayImage, self)
        )
        self._connect()
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

    def _connect(self) -> None:
        """Put the trace in the place of everything around the devices."""
        machine = self.machine
        self._calls = {(name, call): getattr(owner, call) for name, call, owner in host_calls(machine)}
        self._calls |= {(BOARD, "take"): self._take, (BOARD, "restore"): self._restore}
        setattr(machine.ram, "read", self._read_memory)  # noqa: B010  # devices hold this very object
        setattr(machine.ram, "write", self._write_memory)  # noqa: B010
        for name, image in images(machine):
            if isinstance(image, ReplayImage):
                image.name = name
        if isinstance(machine, PowerEdge):
            self._connect_records(machine.options.records)
        watch_requests(machine, self._requested, obey=False)
        for number in PIC_INPUTS:
            machine.chips.pic.input(number).watch(self._watch(f"IRQ{number}"))

    def _connect_records(self, store: RecordStore) -> None:
        inner = store.replace

        def replace(records: Mapping[int, bytes]) -> None:
            self.absorb(RECORDS, 0, WRITE, digest_of_records(records))
            inner(records)

        setattr(store, "replace", replace)  # noqa: B010

    # --- what devices do outside themselves -----------------------------------------------------------

    def _watch(self, name: str) -> Callable[[int], None]:
        return lambda level: self._effects.append(("irq", name, level, "", 0))

    def _requested(self, kind: Kind, device: str, value: int, name: str, data: bytes = b"") -> None:
        self._effects.append((kind.name.lower(), device, value & 0xFFFFFFFF, name, data))

    def _read_memory(self, address: int, length: int) -> bytes:
        return self.answer("dma", MEMORY, address, length)

    def _write_memory(self, address: int, data: bytes | bytearray | memoryview) -> None:
        if not self._resetting:
            self._effects.append(("dma", MEMORY, address & 0xFFFFFFFF, WRITE, digest(data)))

    def _next(self, kind: str, device: str, where: int, what: str) -> Record | None:
        """The record of what a device does now, if it did that then."""
        waiting = self._answers[kind]
        if waiting:
            record = waiting[0]
            if record["value"] == where and record["device"] == device and record["register"].startswith(what):
                return waiting.popleft()
        return None

    def answer(self, kind: str, device: str, where: int, length: int) -> bytes:
        """What a device reads from memory or an image now; zeros if it read something else then.

        Raises:
            OSError: the host failed then.
        """
        where &= 0xFFFFFFFF
        self._effects.append((kind, device, where, READ, length))
        record = self._next(kind, device, where, READ)
        if record is not None and record["register"].endswith(FAILED):
            raise host_error()
        data = bytes(record["data"] or b"") if record else b""
        return data if len(data) == length else bytes(length)

    def absorb(self, device: str, where: int, what: str, content: bytes = b"") -> None:
        """What a device writes to an image or has it flush.

        Raises:
            OSError: the host failed then.
        """
        where &= 0xFFFFFFFF
        self._effects.append(("disk", device, where, what, content))
        record = self._next("disk", device, where, what)
        if record is not None and record["register"].endswith(FAILED):
            raise host_error()

    def _take(self, number: int) -> None:
        self._snapshots[number] = tuple(device.snapshot() for device in self.machine.devices)

    def _restore(self, number: int) -> None:
        if number not in self._snapshots:
            raise TraceError("a snapshot is put back that was taken before the recording began: replay ends here")
        restore_devices(self.machine, self._snapshots[number])

    # --- for whoever plays events without records -------------------------------------------------------

    def provide(self, kind: str, device: str, where: int, name: str, data: bytes) -> None:
        """What the next event's device gets from memory or an image: a piece of kind dma or disk."""
        self._answers[kind].append({"device": device, "value": where & 0xFFFFFFFF, "register": name, "data": data})

    def take_effects(self) -> list[str]:
        """What the last event caused, as `describe_effects` puts it; what was provided for it is gone."""
        seen = describe_effects(self._effects)
        self._effects.clear()
        for waiting in self._answers.values():
            waiting.clear()
        return seen

    def host_call(self, device: str, call: str) -> Callable[..., object]:
        """A call of the host on a device.

        Raises:
            KeyError: there is none.
        """
        found: Callable[..., object] = self._calls[device, call]
        return found

    # --- events ----------------------------------------------------------------------------------------

    def run(self, records: Iterator[Record]) -> ReplayResult:
        """Do all events; the result counts every divergence and keeps the first one."""
        for record, pieces in events(records):
            self.event(record, pieces)
        return self.result

    def event(self, record: Record, pieces: list[Record]) -> None:
        """Do one event.

        Raises:
            TraceError: it is damaged.
        """
        action = self._actions.get(record["kind"])
        if action is None:
            raise TraceError(
                f"record {record['seq']}: kind {record['kind']!r}; possible are {', '.join(KIND_NAMES)}"
            )
        if record["port"] is not None and record["size"] not in ACCESS_SIZES:
            raise TraceError(f"record {record['seq']}: an access of {record['size']} bytes")
        for kind, waiting in self._answers.items():
            waiting.clear()
            waiting.extend(piece for piece in pieces if piece["kind"] == kind and is_answer(piece))
        self._effects.clear()
        if self._foreign:
            self._let_time_pass(record["time"])
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
                wrong = wrong or self._compare_effects(pieces)
            if wrong:
                self._diverged(record, wrong)
        self._recent.append(record)

    def _let_time_pass(self, target: int) -> None:
        """A foreign trace has no records of timers: they expire when they are due."""
        for _ in range(TIMERS_MAX):
            deadline = self.clock.next_deadline()
            if deadline is None or deadline > target:
                return
            self.clock.rewind(max(self.clock.now(), deadline))
            self.clock.run_due()

    def _compares(self, record: Record) -> bool:
        if self.device is None:
            return True
        return self._name_of(record) == self.device

    def _name_of(self, record: Record) -> str:
        """The device of ours that an event is about."""
        if self._foreign and record["port"] is not None:
            owner = self.machine.ports.owner(record["port"], record["size"])
            return owner.device.name if owner else ""
        return str(record["device"])

    def _compare_effects(self, pieces: list[Record]) -> str | None:
        recorded = effects_of(pieces)
        replayed = [one for one in self._effects if self._was_recorded(one)]
        if recorded == replayed:
            return None
        edges = [[one for one in effects if one[0] == "irq"] for effects in (recorded, replayed)]
        if edges[0] != edges[1]:
            return f"interrupt edges: recorded {_edges(edges[0])}, replayed {_edges(edges[1])}"
        place = next(
            (i for i, pair in enumerate(zip(recorded, replayed, strict=False)) if pair[0] != pair[1]), None
        )
        place = min(len(recorded), len(replayed)) if place is None else place
        return f"recorded {_describe_effect(recorded, place)}, replayed {_describe_effect(replayed, place)}"

    def _was_recorded(self, effect: Effect) -> bool:
        """Whether the recording's filter let such pieces pass."""
        return self._wanted.wants_kind(EFFECTS[effect[0]]) and self._wanted.wants_device(effect[1])

    def _diverged(self, record: Record, what: str) -> None:
        self.result.divergences += 1
        name = self._name_of(record) or "(nobody)"
        port = "" if record["port"] is None else f" {record['port']:04x}"
        access = f"{record['kind']}{port} {record['register']}".strip()
        group = self.result.by_access.setdefault((name, access), DivergenceGroup(name, access, what))
        group.times += 1
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
        positional, named = decode_call(record["data"], partial(ReplayImage, self, name=record["device"]))
        call(*positional, **named)
        return None

    def _mmio_in(self, record: Record) -> str | None:
        address, value = _mmio(record)
        return _differs("value", value, self.machine.mmio.read(address, record["size"]))

    def _mmio_out(self, record: Record) -> str | None:
        address, value = _mmio(record)
        self.machine.mmio.write(address, record["size"], value)
        return None

    def reset(self) -> None:
        """RESET#; what devices then put into memory is no effect."""
        self._resetting = True
        self.machine.reset()
        self._resetting = False

    def _reset(self, _record: Record) -> str | None:
        self.reset()
        return None


def events(records: Iterator[Record]) -> Iterator[tuple[Record, list[Record]]]:
    """Every event with its pieces."""
    pieces: list[Record] = []
    for record in records:
        if record["depth"] or record["kind"] in EFFECTS:
            pieces.append(record)
        else:
            yield record, pieces
            pieces = []


def effects_of(pieces: Iterable[Record]) -> list[Effect]:
    """What an event caused, from its pieces."""
    return [_effect_of(piece) for piece in pieces if piece["kind"] in EFFECTS]


def describe_effects(effects: list[Effect]) -> list[str]:
    """What an event caused, for a person."""
    return [_describe_effect(effects, place) for place in range(len(effects))]


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


def _edges(edges: list[Effect]) -> str:
    return ", ".join(f"{name} {'up' if level else 'down'}" for _, name, level, _, _ in edges) or "none"


def is_answer(piece: Record) -> bool:
    """Whether the device took something from it: data, or success and failure of an image."""
    return bool(piece["kind"] == "disk" or piece["register"] == READ)


def _effect_of(piece: Record) -> Effect:
    kind, name, data = piece["kind"], piece["register"], bytes(piece["data"] or b"")
    if kind == "irq":
        return kind, piece["device"], piece["value"], "", 0
    what = name.removesuffix(FAILED)
    content: bytes | int = data
    if what == READ:
        content = int.from_bytes(data[: LENGTH.size], "little") if name.endswith(FAILED) else len(data)
    return kind, piece["device"], piece["value"], what, content


def _describe_effect(effects: list[Effect], place: int) -> str:
    if place >= len(effects):
        return "nothing more"
    kind, device, value, name, content = effects[place]
    if kind == "irq":
        return f"{device} {'up' if value else 'down'}"
    if kind == "request":
        return f"request for {name}"
    where = f"{device} {name} at {value:#x}"
    if isinstance(content, int):
        return f"{where}, {content} bytes"
    if len(content) != DIGEST.size:
        return where
    length, tag = DIGEST.unpack(content)
    return f"{where}, {length} bytes with digest {tag.hex()}"


def replay(trace: Trace, device: str | None = None, machine: str | None = None) -> ReplayResult:
    """Replay a trace.

    Args:
        trace: the file.
        device: compare this device only.
        machine: a board for a foreign trace, which names none.

    Raises:
        TraceError: it cannot be replayed.
    """
    return Replay(with_machine(trace.metadata, machine), device).run(trace.records())


def _handed_out(images: Sequence[BlockBackend]) -> ImageMaker:
    left = iter(images)
    return lambda sectors, read_only: next(left)


def with_machine(metadata: Metadata, machine: str | None) -> Metadata:
    """The description of a foreign trace, with a board that it is held against."""
    return foreign_board(metadata, machine)


def foreign_board(
    metadata: Metadata, machine: str | None, memory: int | None = None, images: Sequence[BlockBackend] = ()
) -> Metadata:
    """The description of a foreign trace with its board; of one of ours as it is.

    Args:
        metadata: what the file says.
        machine: the board's name, if the file has none.
        memory: bytes of RAM; None for the board's default.
        images: its disks.
    """
    if metadata.source == "portvisor":
        return metadata
    described = [{"sectors": one.sectors, "read_only": one.read_only} for one in images]
    options: dict[str, Any] = {"disks": described, "sata": described}
    if memory is not None:
        options["memory"] = memory
    name = metadata.machine or machine or ""
    return Metadata(source=metadata.source, machine=name, start=metadata.start, options=options)
