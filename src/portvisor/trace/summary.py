"""What is in a trace, added up: one pass over the file, memory by ports and devices and not by records."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from portvisor.ports import NS_PER_S
from portvisor.trace.reader import Trace
from portvisor.trace.schema import Metadata

BUCKETS = 120
"""Columns of a timeline."""
NOBODY = "(nobody)"
FINE_BUCKET_NS = 1_000_000
"""Timelines are counted at this grain first, coarser for long traces, and drawn in `BUCKETS` columns."""
MAX_FINE = 1 << 17
PLACE = ["rip", "port", "n"]
PLACES_KEPT = 1000
PLACES_COUNTED = 1 << 18
"""Places at which those with few accesses are forgotten: an instruction that is executed often comes again."""


@dataclass(slots=True)
class PortUse:
    """Traffic of one port."""

    port: int
    device: str = ""
    reads: int = 0
    writes: int = 0
    elements: int = 0
    host_ns: int = 0
    registers: Counter[str] = field(default_factory=Counter)
    blocks: int = 0
    coalesced: int = 0
    """Writes that the engine queued up: no exits."""

    @property
    def accesses(self) -> int:
        """Accesses in both directions."""
        return self.reads + self.writes


@dataclass(slots=True)
class Summary:
    """A trace, added up."""

    path: str
    metadata: Metadata
    finished: bool
    records: int = 0
    first: int = 0
    last: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    """Accesses by how they came to be served, as far as the trace says."""
    places: Counter[tuple[int, int]] = field(default_factory=Counter)
    """Accesses by (RIP, port), as far as the trace says; the `PLACES_KEPT` with most."""
    devices: Counter[str] = field(default_factory=Counter)
    """Accesses by device."""
    device_host_ns: Counter[str] = field(default_factory=Counter)
    registers: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Accesses by (device, register, kind)."""
    ports: dict[int, PortUse] = field(default_factory=dict)
    unassigned: Counter[tuple[int, int, str]] = field(default_factory=Counter)
    """Accesses by (port, size, kind)."""
    irqs: Counter[str] = field(default_factory=Counter)
    """Rising edges by wire."""
    vectors: Counter[int] = field(default_factory=Counter)
    latency: Counter[int] = field(default_factory=Counter)
    """Accesses by the binary logarithm of the handler's time in ns."""
    timeline: dict[str, list[int]] = field(default_factory=dict)
    """Accesses by device in `BUCKETS` equal stretches of guest time."""
    irq_timeline: dict[str, list[int]] = field(default_factory=dict)

    @property
    def accesses(self) -> int:
        """Port accesses of the guest, without pieces."""
        return sum(self.devices.values())

    @property
    def duration(self) -> float:
        """Guest seconds from the first record to the last."""
        return (self.last - self.first) / NS_PER_S


COLUMNS = [
    "time", "rip", "kind", "port", "size", "count", "value", "device", "register", "depth", "served", "host_ns"
]  # fmt: skip


class _Timeline:
    """Counts in fine buckets whose width doubles whenever there are too many."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.width = FINE_BUCKET_NS
        self.counts: Counter[tuple[str, int]] = Counter()

    def add(self, names: pa.Array, times: pa.Array) -> None:
        """Count events."""
        if not len(times):
            return
        while (pc.max(times).as_py() - self.first) // self.width > MAX_FINE:
            self._coarser()
        buckets = pc.divide(pc.subtract(times, self.first), self.width)
        table = pa.table({"n": names, "b": buckets}).group_by(["n", "b"]).aggregate([([], "count_all")])
        for name, bucket, count in zip(*(table[key].to_pylist() for key in ("n", "b", "count_all")), strict=True):
            self.counts[name or NOBODY, max(0, bucket)] += count

    def _coarser(self) -> None:
        self.width *= 2
        halved: Counter[tuple[str, int]] = Counter()
        for (name, bucket), count in self.counts.items():
            halved[name, bucket // 2] += count
        self.counts = halved

    def columns(self, last: int) -> dict[str, list[int]]:
        """The counts in `BUCKETS` columns."""
        span = max(1, last - self.first + 1)
        found: dict[str, list[int]] = {}
        for (name, bucket), count in self.counts.items():
            column = min(BUCKETS - 1, bucket * self.width * BUCKETS // span)
            found.setdefault(name, [0] * BUCKETS)[column] += count
        return found


class _Places:
    """Counts by (RIP, port), in Arrow's memory and not in objects."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []
        self._rows = 0

    def add(self, accesses: pa.Table) -> None:
        """Count accesses."""
        known = accesses.filter(pc.is_valid(accesses["rip"]))
        if not known.num_rows:
            return
        part = known.group_by(["rip", "port"]).aggregate([([], "count_all")])
        self._parts.append(part.select(["rip", "port", "count_all"]).rename_columns(PLACE))
        self._rows += part.num_rows
        if self._rows > PLACES_COUNTED:
            self._parts = [self._most(PLACES_COUNTED // 4)]
            self._rows = self._parts[0].num_rows

    def _most(self, number: int) -> pa.Table:
        whole = pa.concat_tables(self._parts).group_by(["rip", "port"]).aggregate([("n", "sum")])
        order = pc.select_k_unstable(whole, number, [("n_sum", "descending")])
        return whole.take(order).select(["rip", "port", "n_sum"]).rename_columns(PLACE)

    def counts(self) -> Counter[tuple[int, int]]:
        """Those with most accesses."""
        if not self._parts:
            return Counter()
        rips, ports, counts = (column.to_pylist() for column in self._most(PLACES_KEPT).columns)
        return Counter(dict(zip(zip(rips, ports, strict=True), counts, strict=True)))


def summarise(trace: Trace) -> Summary:
    """Add a trace up.

    Raises:
        TraceError: the file is damaged.
    """
    result = Summary(str(trace.path), trace.metadata, trace.finished)
    lines: tuple[_Timeline, _Timeline] | None = None
    places = _Places()
    for batch in trace.batches(COLUMNS):
        if not batch.num_rows:
            continue
        plain = [
            column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
            for column in batch.columns
        ]
        table = pa.Table.from_arrays(plain, names=batch.schema.names)
        if lines is None:
            result.first = result.last = table["time"][0].as_py()
            lines = _Timeline(result.first), _Timeline(result.first)
        result.records += table.num_rows
        result.last = max(result.last, pc.max(table["time"]).as_py())
        _add_accesses(result, table, lines[0], places)
        _add_interrupts(result, table, lines[1])
    if lines is not None:
        result.timeline, result.irq_timeline = lines[0].columns(result.last), lines[1].columns(result.last)
    result.places = places.counts()
    return result


def _add_accesses(result: Summary, table: pa.Table, line: _Timeline, places: _Places) -> None:
    for name, count in _counted(table, ["kind"]):
        result.kinds[name] += count
    accesses = table.filter(pc.is_valid(table["port"]))
    whole = accesses.filter(pc.equal(accesses["depth"], 0))
    line.add(whole["device"].combine_chunks(), whole["time"].combine_chunks())
    keys = ["port", "size", "kind", "device", "register", "served"]
    grouped = whole.group_by(keys).aggregate([([], "count_all"), ("host_ns", "sum"), ("count", "sum")])
    for row in grouped.to_pylist():
        _add_port(result, row)
    for name, count in _counted(whole.filter(pc.is_valid(whole["served"])), ["served"]):
        result.served[name] += count
    places.add(whole)
    for port, size, kind, count in _counted(
        accesses.filter(pc.equal(accesses["served"], "unassigned")), ["port", "size", "kind"]
    ):
        result.unassigned[port, size, kind] += count
    timed = whole.filter(pc.greater(whole["host_ns"], 0))["host_ns"]
    logs = pc.floor(pc.log2(timed.cast(pa.float64())))
    for log, count in _counted(pa.table({"log": logs}), ["log"]):
        result.latency[int(log)] += count


def _add_port(result: Summary, row: dict[str, Any]) -> None:
    port, kind, device = row["port"], row["kind"], row["device"] or NOBODY
    register, count = row["register"], row["count_all"]
    use = result.ports.setdefault(port, PortUse(port, device))
    if kind in ("in", "ins"):
        use.reads += count
    else:
        use.writes += count
    if kind in ("ins", "outs"):
        use.blocks += count
    if row["served"] == "coalesced":
        use.coalesced += count
    use.elements += row["count_sum"]
    use.host_ns += row["host_ns_sum"]
    if register:
        use.registers[register] += count
        result.registers[device, register, kind] += count
    result.devices[device] += count
    result.device_host_ns[device] += row["host_ns_sum"]


def _add_interrupts(result: Summary, table: pa.Table, line: _Timeline) -> None:
    edges = table.filter(pc.and_(pc.equal(table["kind"], "irq"), pc.equal(table["value"], 1)))
    line.add(edges["device"].combine_chunks(), edges["time"].combine_chunks())
    for name, count in _counted(edges, ["device"]):
        result.irqs[name] += count
    for vector, count in _counted(table.filter(pc.equal(table["kind"], "ack")), ["value"]):
        result.vectors[vector] += count


def _counted(table: pa.Table, keys: list[str]) -> list[tuple[Any, ...]]:
    """Groups with their sizes."""
    grouped = table.group_by(keys).aggregate([([], "count_all")])
    return list(zip(*(grouped[key].to_pylist() for key in [*keys, "count_all"]), strict=True))
