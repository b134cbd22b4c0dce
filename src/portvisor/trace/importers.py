"""Other systems' logs of port accesses as traces.

* kvm: `kvm_pio` lines of `trace-cmd report` or `perf script`
  (`pio_write at 0x70 size 1 count 1 val 0x8f`). Of a block only the first value is in the log.
* qemu: the log of `-trace` with `memory_region_ops_read`/`_write`, or with `cpu_in`/`cpu_out`. If both are there,
  the latter count. Memory-region lines above FFFF are of memory-mapped devices and are left out. A read is logged
  with all 64 bits that the region's function returned; the guest gets those of the access.
* qtest: the log of a qtest session (`-qtest-log`), with the answers; `clock_step` moves the time, IRQ lines count.

Lines about anything else are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from portvisor.ports import ACCESS_SIZES, NS_PER_S, PORT_COUNT, BlockBackend, VirtualClock
from portvisor.trace.board import build_board
from portvisor.trace.errors import TraceError
from portvisor.trace.schema import Metadata
from portvisor.trace.writer import TraceWriter

BATCH = 1 << 14
STEP_NS = 1000
"""Time between two accesses where the log has none."""
LINE_SHOWN = 80

KVM_PIO = re.compile(
    r"pio_(?P<way>read|write) at (?P<port>0x[0-9a-f]+) size (?P<size>\d+) count (?P<count>\d+)"
    r"(?: val (?P<value>0x[0-9a-f]+))?",
    re.IGNORECASE,
)
KVM_EXPECTED = "pio_read|pio_write at 0xPORT size N count N val 0xVALUE"
KVM_TIME = re.compile(r"\s(\d+)\.(\d{1,9}):")
CPU_IO = re.compile(r"cpu_(?P<way>in|out) addr (?P<port>0x[0-9a-f]+)\((?P<size>[bwl])\) value (?P<value>\d+)")
CPU_EXPECTED = "cpu_in|cpu_out addr 0xPORT(b|w|l) value N"
REGION_OPS = re.compile(
    r"memory_region_ops_(?P<way>read|write) cpu (?P<cpu>-?\d+) mr \S+ addr (?P<port>0x[0-9a-f]+) "
    r"value (?P<value>0x[0-9a-f]+) size (?P<size>\d+)(?: name '(?P<name>[^']*)')?"
)
REGION_EXPECTED = "memory_region_ops_read|write cpu N mr 0xMR addr 0xPORT value 0xVALUE size N"
QEMU_TIME = re.compile(r"^\d+@(\d+)\.(\d{1,9}):")
QTEST_TIME = re.compile(r"^\[(?P<who>[RSI]) \+(?P<s>\d+)\.(?P<f>\d{1,9})\]\s*(?P<rest>.*)$")
QTEST_IO = re.compile(r"(?P<way>in|out)(?P<size>[bwl])\b(?P<rest>.*)$")
UNASSIGNED = "io"
"""QEMU's region behind all others."""
LETTERS = {"b": 1, "w": 2, "l": 4}


@dataclass(slots=True)
class Access:
    """One line of a log."""

    time: int
    kind: str
    port: int | None
    size: int | None
    value: int
    count: int = 1
    device: str = ""
    vcpu: int = 0
    register: str = ""


class _Log:
    """A file with its line numbers, for messages."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.number = 0
        self.line = ""
        self.last = -STEP_NS

    def lines(self) -> Iterator[str]:
        """Every line without its end."""
        with self.path.open(encoding="utf-8", errors="replace") as file:
            for self.number, line in enumerate(file, start=1):
                self.line = line.rstrip("\r\n")
                yield self.line

    def wrong(self, expected: str) -> TraceError:
        """The error for the present line."""
        shown = self.line if len(self.line) <= LINE_SHOWN else self.line[:LINE_SHOWN] + "..."
        return TraceError(f"{self.path}:{self.number}: {shown!r}: expected {expected}")

    def time(self, found: re.Match[str] | None) -> int:
        """Time from (seconds, fraction), else a step after the last one."""
        if found:
            self.last = int(found[1]) * NS_PER_S + int(found[2].ljust(9, "0"))
        else:
            self.last += STEP_NS
        return self.settle(self.last)

    def settle(self, time: int) -> int:
        """A time as a trace can hold it."""
        if time >= 1 << 63:
            raise self.wrong("a time below 2^63 ns")
        self.last = time
        return time

    def checked(self, access: Access) -> Access:
        """Refuse what no x86 can do."""
        if access.port is None or access.port >= PORT_COUNT:
            raise self.wrong("a port of 0 to 0xffff")
        if access.size not in ACCESS_SIZES:
            raise self.wrong("a size of 1, 2 or 4")
        if access.value >> 8 * access.size:
            raise self.wrong(f"a value of {access.size} bytes")
        return access


def _kvm(log: _Log) -> Iterator[Access]:
    for line in log.lines():
        if "kvm_pio" not in line:
            continue
        found = KVM_PIO.search(line)
        if not found:
            raise log.wrong(KVM_EXPECTED)
        count = int(found["count"])
        if not 1 <= count <= 1 << 20:
            raise log.wrong("a count of 1 or more")
        kind = ("in" if found["way"] == "read" else "out") + ("s" if count > 1 else "")
        value = int(found["value"] or "0", 16)
        time = log.time(KVM_TIME.search(line))
        yield log.checked(Access(time, kind, int(found["port"], 16), int(found["size"]), value, count))


def _qemu(log: _Log) -> Iterator[Access]:
    has_cpu_lines = any(CPU_IO.search(line) for line in log.lines())
    for line in log.lines():
        if "cpu_in " in line or "cpu_out " in line:
            yield _cpu_line(log, line)
        elif "memory_region_ops_" in line and not has_cpu_lines:
            access = _region_line(log, line)
            if access is not None:
                yield access


def _cpu_line(log: _Log, line: str) -> Access:
    found = CPU_IO.search(line)
    if not found:
        raise log.wrong(CPU_EXPECTED)
    time = log.time(QEMU_TIME.match(line))
    size = LETTERS[found["size"]]
    return log.checked(Access(time, found["way"], int(found["port"], 16), size, int(found["value"])))


def _region_line(log: _Log, line: str) -> Access | None:
    found = REGION_OPS.search(line)
    if not found:
        raise log.wrong(REGION_EXPECTED)
    port = int(found["port"], 16)
    if port >= PORT_COUNT:
        return None
    kind = "in" if found["way"] == "read" else "out"
    time, cpu = log.time(QEMU_TIME.match(line)), max(0, int(found["cpu"])) & 0xFF
    size, value, name = int(found["size"]), int(found["value"], 16), found["name"] or ""
    if kind == "in":
        value &= (1 << 8 * size) - 1
    return log.checked(Access(time, kind, port, size, value, 1, "" if name == UNASSIGNED else name, cpu))


class _Qtest:
    """A session: a command, and the answer to it."""

    def __init__(self, log: _Log) -> None:
        self._log = log
        self._waiting: Access | None = None
        self._stepping = False
        self._clock: int | None = None

    def accesses(self) -> Iterator[Access]:
        """What the session did."""
        for line in self._log.lines():
            found = QTEST_TIME.match(line)
            text = found["rest"] if found else line.strip()
            seconds, fraction = (found["s"], found["f"]) if found else ("", "")
            yield from self._line(text, seconds, fraction)
        if self._waiting is not None:
            raise self._log.wrong("the answer to the last in (OK 0xVALUE)")

    def _line(self, text: str, seconds: str, fraction: str) -> Iterator[Access]:
        words = text.split()
        if not words:
            return
        io = QTEST_IO.fullmatch(text)
        if io:
            access = self._command(io, words, self._time(seconds, fraction))
            if access.kind == "out":
                yield access
            else:
                self._waiting = access
        elif words[0] in ("clock_step", "clock_set"):
            self._stepping = True
        elif words[0] == "IRQ" and len(words) == 3 and words[1] in ("raise", "lower") and words[2].isdecimal():
            time = self._time(seconds, fraction)
            yield Access(time, "irq", None, None, int(words[1] == "raise"), 1, f"IRQ{words[2]}")
        elif words[0] == "OK":
            yield from self._answer(words)
        elif words[0] in ("FAIL", "ERR"):
            self._waiting, self._stepping = None, False

    def _time(self, seconds: str, fraction: str) -> int:
        log = self._log
        if self._clock is not None:
            log.last = max(self._clock, log.last + 1)
        elif seconds:
            log.last = int(seconds) * NS_PER_S + int(fraction.ljust(9, "0"))
        else:
            log.last += STEP_NS
        return log.settle(log.last)

    def _command(self, io: re.Match[str], words: list[str], time: int) -> Access:
        expected = "inb|inw|inl PORT or outb|outw|outl PORT VALUE"
        wanted = 2 if io["way"] == "in" else 3
        if len(words) != wanted or self._waiting is not None:
            raise self._log.wrong(expected if self._waiting is None else "the answer to the in before (OK 0xVALUE)")
        try:
            numbers = [int(word, 0) for word in words[1:]]
        except ValueError:
            raise self._log.wrong(expected) from None
        size = LETTERS[io["size"]]
        value = numbers[1] & ((1 << 8 * size) - 1) if len(numbers) > 1 else 0
        return self._log.checked(Access(time, io["way"], numbers[0], size, value))

    def _answer(self, words: list[str]) -> Iterator[Access]:
        if self._stepping:
            self._stepping = False
            if len(words) > 1 and words[1].isdecimal():
                self._clock = int(words[1])
        elif self._waiting is not None:
            access, self._waiting = self._waiting, None
            try:
                access.value = int(words[1], 0) & ((1 << 8 * (access.size or 4)) - 1)
            except (IndexError, ValueError):
                raise self._log.wrong("OK 0xVALUE, the answer to an in") from None
            yield access


PARSERS: dict[str, Callable[[_Log], Iterator[Access]]] = {
    "kvm": _kvm,
    "qemu": _qemu,
    "qtest": lambda log: _Qtest(log).accesses(),
}
MARKS = {
    "kvm": re.compile(r"kvm_pio"),
    "qemu": re.compile(r"cpu_(in|out) addr|memory_region_ops_(read|write)"),
    "qtest": re.compile(r"^(\[[RS] \+[\d.]+\]\s*)?(in|out)[bwl] "),
}


def detect(path: Path) -> str:
    """Which format a log has.

    Raises:
        TraceError: none that is known.
    """
    for line in _Log(path).lines():
        for name, mark in MARKS.items():
            if mark.search(line):
                return name
    raise TraceError(f"{path}: no line of a known log: {', '.join(PARSERS)}")


class _Namer:
    """Names accesses after a board of ours, as its ports are after a reset."""

    def __init__(self, machine: str) -> None:
        self._space = build_board(Metadata(machine=machine), VirtualClock(), _no_image).ports

    def __call__(self, access: Access) -> Access:
        if access.port is not None and access.size is not None:
            owner = self._space.owner(access.port, access.size)
            if owner is not None:
                write = access.kind in ("out", "outs")
                access.device = owner.device.name
                access.register = owner.device.register_name(owner.offset, access.size, write)
        return access


def _no_image(_sectors: int, _read_only: bool) -> BlockBackend:
    raise ValueError("a board for names has no images")


def import_log(source: Path, target: Path, kind: str = "auto", machine: str = "") -> int:
    """Turn a log into a trace; the number of its records.

    Args:
        source: the log.
        target: the trace.
        kind: the log's format.
        machine: a board of ours after which devices and registers are named; what it has not keeps the log's name.

    Raises:
        TraceError: a line is malformed (with file, number and what was expected), or none is about a port.
        OSError: a file cannot be read or written.
    """
    name = detect(source) if kind == "auto" else kind
    parse = PARSERS[name](_Log(source))
    if machine:
        parse = map(_Namer(machine), parse)
    first = next(parse, None)
    if first is None:
        raise TraceError(f"{source}: no port access in it, read as {name}")
    count = 0
    origin = first.time
    with TraceWriter(target, Metadata(source=name, machine=machine)) as writer:
        waiting = [first]
        for access in parse:
            if len(waiting) == BATCH:
                writer.write(_batch(waiting, count, origin, writer.schema))
                count += len(waiting)
                waiting = []
            waiting.append(access)
        writer.write(_batch(waiting, count, origin, writer.schema))
    return count + len(waiting)


def _batch(accesses: list[Access], start: int, origin: int, schema: pa.Schema) -> pa.RecordBatch:
    size = len(accesses)
    columns: dict[str, list[object]] = {
        "seq": list(range(start, start + size)),
        "time": [one.time - origin for one in accesses],
        "host_ns": [0] * size,
        "vcpu": [one.vcpu for one in accesses],
        "kind": [one.kind for one in accesses],
        "port": [one.port for one in accesses],
        "size": [one.size for one in accesses],
        "count": [one.count for one in accesses],
        "value": [one.value for one in accesses],
        "data": [None] * size,
        "device": [one.device for one in accesses],
        "register": [one.register for one in accesses],
        "depth": [0] * size,
        "rip": [None] * size,
        "served": ["unassigned" if one.port is not None and not one.device else None for one in accesses],
        "outcome": [None if one.port is None else "done" for one in accesses],
    }
    arrays = [_array(columns[field.name], field.type) for field in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _array(values: list[object], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(values, pa.string()).dictionary_encode().cast(kind)
    return pa.array(values, kind)
