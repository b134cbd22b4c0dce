"""The report of a trace for a terminal."""

from __future__ import annotations

from collections import Counter

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from portvisor.trace.advice import budget
from portvisor.trace.summary import BUCKETS, NOBODY, Summary

BARS = " ▁▂▃▄▅▆▇█"
SPARK_WIDTH = 48
ROWS = 15


def sparkline(counts: list[int], width: int = SPARK_WIDTH) -> str:
    """A timeline in one line; any count above 0 shows."""
    cells = [0] * width
    for index, count in enumerate(counts):
        cells[index * width // len(counts)] += count
    top = max(cells, default=0)
    return "".join(BARS[0 if not cell else max(1, cell * (len(BARS) - 1) // top)] for cell in cells)


def head_lines(summary: Summary) -> list[str]:
    """What the trace is of."""
    meta = summary.metadata
    what = f"machine {meta.machine}, engine {meta.engine}"
    if meta.source != "portvisor":
        what = f"source {meta.source}" + (f", named after machine {meta.machine}" if meta.machine else "")
    state = "" if summary.finished else " (not completed: the recording was cut off, or goes on)"
    lines = [
        f"{summary.path}: {what}{state}",
        f"{summary.records:,} records, {summary.accesses:,} port accesses in {summary.duration:.3f} s guest time",
    ]
    if meta.filters:
        lines.append(f"recorded with the filter {meta.filters}")
    return lines


def print_report(console: Console, summary: Summary, rows: int = ROWS) -> None:
    """All tables."""
    for line in head_lines(summary):
        console.print(escape(line), soft_wrap=True, highlight=False)
    for table in (
        _devices(summary),
        _registers(summary, rows),
        _budget(summary, rows),
        _served(summary),
        _places(summary, rows),
        _latency(summary),
        _interrupts(summary),
        _unassigned(summary, rows),
    ):
        if table.row_count:
            console.print()
            console.print(table)


def _table(title: str, *columns: tuple[str, bool]) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name, number in columns:
        table.add_column(name, justify="right" if number else "left", no_wrap=name != "advice")
    return table


def _devices(summary: Summary) -> Table:
    table = _table(
        f"Devices over time ({summary.duration:.3f} s)",
        ("device", False), ("accesses", True), ("host µs", True), ("time", False),
    )  # fmt: skip
    for device, count in summary.devices.most_common():
        spark = sparkline(summary.timeline.get(device, [0] * BUCKETS))
        host = f"{summary.device_host_ns[device] / 1000:,.0f}"
        table.add_row(_device(device), f"{count:,}", host, Text(spark, style="cyan"))
    return table


def _registers(summary: Summary, rows: int) -> Table:
    table = _table("Busiest registers", ("device", False), ("register", False), ("kind", False), ("accesses", True))
    for (device, register, kind), count in summary.registers.most_common(rows):
        table.add_row(escape(device), escape(register), kind, f"{count:,}")
    return table


def _budget(summary: Summary, rows: int) -> Table:
    table = _table(
        "Exit budget",
        ("port", True), ("device", False), ("register", False), ("in", True), ("out", True), ("share", True),
        ("mean ns", True), ("advice", False),
    )  # fmt: skip
    for line in budget(summary)[:rows]:
        use = line.use
        mean = f"{use.host_ns / use.accesses:,.0f}" if use.host_ns else ""
        table.add_row(
            f"{use.port:#06x}", _device(use.device), escape(_busiest(use.registers)), f"{use.reads:,}",
            f"{use.writes:,}", f"{line.share:.1%}", mean, Text(line.advice, style="green"),
        )  # fmt: skip
    return table


def _served(summary: Summary) -> Table:
    table = _table("How accesses were served", ("served", False), ("accesses", True), ("share", True))
    total = sum(summary.served.values())
    for name, count in summary.served.most_common():
        table.add_row(name, f"{count:,}", f"{count / total:.1%}")
    return table


def _places(summary: Summary, rows: int) -> Table:
    table = _table("Where in the guest", ("RIP", True), ("port", True), ("device", False), ("accesses", True))
    for (rip, port), count in summary.places.most_common(rows):
        table.add_row(f"{rip:#x}", f"{port:#06x}", _device(summary.ports[port].device), f"{count:,}")
    return table


def _latency(summary: Summary) -> Table:
    table = _table("Host time of a handler", ("from", True), ("to", True), ("accesses", True), ("", False))
    peak = max(summary.latency.values(), default=1)
    for log in range(min(summary.latency, default=0), max(summary.latency, default=-1) + 1):
        count = summary.latency[log]
        bar = "█" * max(int(count > 0), count * SPARK_WIDTH // peak)
        table.add_row(duration(1 << log), duration(2 << log), f"{count:,}", Text(bar, style="cyan"))
    return table


def duration(ns: int) -> str:
    """Nanoseconds in the unit that fits."""
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if ns >= factor:
            return f"{ns / factor:.3g} {unit}"
    return f"{ns} ns"


def _device(name: str) -> Text:
    return Text(name, style="yellow" if name == NOBODY else "")


def _busiest(registers: Counter[str]) -> str:
    """The register that is used most at a port."""
    return registers.most_common(1)[0][0] if registers else ""


def _interrupts(summary: Summary) -> Table:
    table = _table("Interrupts", ("wire or vector", False), ("times", True), ("time", False))
    for name, count in summary.irqs.most_common():
        spark = sparkline(summary.irq_timeline.get(name, [0] * BUCKETS))
        table.add_row(escape(name), f"{count:,}", Text(spark, style="yellow"))
    for vector, count in summary.vectors.most_common():
        table.add_row(f"vector {vector:#04x} acknowledged", f"{count:,}", "")
    return table


def _unassigned(summary: Summary, rows: int) -> Table:
    table = _table("Unassigned ports", ("port", True), ("size", True), ("kind", False), ("times", True))
    for (port, size, kind), count in summary.unassigned.most_common(rows):
        table.add_row(f"{port:#06x}", str(size), kind, f"{count:,}")
    left = len(summary.unassigned) - rows
    if left > 0:
        table.add_row("", "", f"and {left} more", "")
    return table
