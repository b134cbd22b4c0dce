"""The report of a trace as one self-contained page: no network, light and dark, drawn from sums of records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from portvisor.ports import PORT_COUNT
from portvisor.trace.advice import budget
from portvisor.trace.summary import BUCKETS, NOBODY, Summary
from portvisor.trace.terminal import duration, head_lines

DEVICES_DRAWN = 24
TABLE_ROWS = 40
UNASSIGNED_ROWS = 400
PAGE_PORTS = 256
"""Ports in a line of the map."""
PAGES_DRAWN = 96
TICKS = 4
MARGIN, MAP_LINE = 44, 15
LANE = 22
LABEL = 150
CELL = 6

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --faint: #6a737d; --line: #d8dee4;
  --bar: #0b62c4; --warm: #b35900; --panel: #f6f8fa; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --faint: #9aa4af; --line: #30363d;
  --bar: #58a6ff; --warm: #e3a04f; --panel: #161b22; } }
body { margin: 0 auto; max-width: 1000px; padding: 1rem; font: 15px/1.45 system-ui, sans-serif;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; border-bottom: 1px solid var(--line); }
header p { margin: .2rem 0; overflow-wrap: anywhere; } nav { margin-top: .8rem; }
nav a { margin-right: 1rem; display: inline-block; } a { color: var(--bar); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--bar);
  outline-offset: 2px; }
.scroll { overflow: auto; max-height: 34rem; }
table { border-collapse: collapse; max-width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .15rem .9rem .15rem 0; border-bottom: 1px solid var(--line); }
th, td.n, td:nth-child(-n + 2) { white-space: nowrap; } tr:last-child td { border: 0; }
th { position: sticky; top: 0; background: var(--paper); font-weight: 600; }
.n { text-align: right; } p.note { color: var(--faint); }
svg { width: 100%; height: auto; background: var(--panel); } svg text { fill: var(--ink); font-size: 11px; }
svg .bar { fill: var(--bar); } svg .warm { fill: var(--warm); } svg .axis { stroke: var(--line); }
"""

Cell = str | int | float


def _table(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table; numbers stand to the right, and so do the heads above them."""
    body = []
    numeric: set[int] = set()
    for row in rows:
        cells = []
        for column, cell in enumerate(row):
            is_number = isinstance(cell, int | float)
            if is_number:
                numeric.add(column)
            text = f"{cell:,}" if isinstance(cell, int) else f"{cell:,.1f}" if isinstance(cell, float) else cell
            cells.append(f"<td{' class=n' if is_number else ''}>{escape(text)}</td>")
        body.append("<tr>" + "".join(cells) + "</tr>")
    head = "".join(
        f'<th scope="col"{" class=n" if column in numeric else ""}>{escape(name)}</th>'
        for column, name in enumerate(heads)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _scroll(label: str, content: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'


def _svg(width: int, height: int, label: str, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{content}</svg>"
    )


def _lanes(lanes: Sequence[tuple[str, list[int]]], label: str, seconds: float, warm: bool = False) -> str:
    """A row of bars for each name."""
    width, parts = LABEL + BUCKETS * CELL, []
    for index, (name, counts) in enumerate(lanes):
        top, peak = index * LANE, max(counts, default=0) or 1
        parts.append(f'<text x="4" y="{top + 15}">{escape(name)}</text>')
        for column, count in enumerate(counts):
            if count:
                size = max(1.5, (LANE - 4) * count / peak)
                parts.append(
                    f'<rect class="{"warm" if warm else "bar"}" x="{LABEL + column * CELL}" '
                    f'y="{top + LANE - 2 - size:.1f}" width="{CELL - 1}" height="{size:.1f}">'
                    f"<title>{escape(name)}: {count:,}</title></rect>"
                )
        parts.append(f'<line class="axis" x1="0" x2="{width}" y1="{top + LANE}" y2="{top + LANE}"/>')
    height = len(lanes) * LANE + 16
    for tick in range(TICKS + 1):
        anchor = "start" if tick == 0 else "end" if tick == TICKS else "middle"
        x = LABEL + BUCKETS * CELL * tick / TICKS
        parts.append(
            f'<text x="{x:.0f}" y="{height - 4}" text-anchor="{anchor}">{seconds * tick / TICKS:.3g} s</text>'
        )
    return _svg(width, height, label, "".join(parts))


def _timeline(summary: Summary) -> str:
    if not summary.devices:
        return '<p class="note">The trace holds no port access.</p>'
    names = [name for name, _ in summary.devices.most_common(DEVICES_DRAWN)]
    lanes = [(name, summary.timeline.get(name, [])) for name in names]
    note = "Each device's bars are scaled to its own peak."
    if len(summary.devices) > DEVICES_DRAWN:
        note += f" The {DEVICES_DRAWN} busiest of {len(summary.devices)} devices are drawn."
    chart = _lanes(lanes, "Accesses by device over guest time", summary.duration)
    rows = [(name, count, summary.device_host_ns[name] // 1000) for name, count in summary.devices.most_common()]
    table = _table(("Device", "Accesses", "Host time in µs"), rows)
    numbers = _scroll("Accesses by device", table)
    return f'<p class="note">{note}</p>{chart}<details><summary>Numbers</summary>{numbers}</details>'


def _port_map(summary: Summary) -> str:
    """A line for every 256 ports of which any was used; nearly all of the 64 Ki never are."""
    if not summary.ports:
        return '<p class="note">No port was used.</p>'
    pages = sorted({port // PAGE_PORTS for port in summary.ports})
    drawn = {page: index for index, page in enumerate(pages[:PAGES_DRAWN])}
    scale, top = (LABEL + BUCKETS * CELL - MARGIN) / PAGE_PORTS, 16
    parts = [
        f'<text x="{MARGIN + column * scale:.1f}" y="11">+{column:02x}</text>'
        for column in range(0, PAGE_PORTS, 32)
    ]
    for page, index in drawn.items():
        y = top + index * MAP_LINE
        parts.append(f'<text x="4" y="{y + 11}">{page << 8:04x}</text>')
        parts.append(f'<line class="axis" x1="0" x2="{LABEL + BUCKETS * CELL}" y1="{y}" y2="{y}"/>')
    for port, use in sorted(summary.ports.items()):
        page, column = divmod(port, PAGE_PORTS)
        if page in drawn:
            weight = min(1.0, 0.3 + 0.045 * use.accesses.bit_length())
            kind = "warm" if use.device == NOBODY else "bar"
            parts.append(
                f'<rect class="{kind}" opacity="{weight:.2f}" x="{MARGIN + column * scale:.1f}" '
                f'y="{top + drawn[page] * MAP_LINE + 2}" width="{scale:.1f}" height="{MAP_LINE - 3}">'
                f"<title>{port:04x} {escape(use.device)}: {use.accesses:,}</title></rect>"
            )
    label = f"Ports used, of all {PORT_COUNT:,}"
    note = "A line is 256 ports; lines without an access are left out. Orange: nobody answers. Stronger: more."
    if len(pages) > PAGES_DRAWN:
        note += f" The first {PAGES_DRAWN} of {len(pages)} lines are drawn."
    chart = _svg(LABEL + BUCKETS * CELL, top + len(drawn) * MAP_LINE + 4, label, "".join(parts))
    return f'<p class="note">{note}</p>{chart}'


def _latency(summary: Summary) -> str:
    if not summary.latency:
        return '<p class="note">The trace holds no handler times.</p>'
    logs = range(min(summary.latency), max(summary.latency) + 1)
    peak = max(summary.latency.values())
    parts = []
    for index, log in enumerate(logs):
        count, top = summary.latency[log], index * LANE
        width = 560 * count / peak
        parts.append(f'<text x="4" y="{top + 15}">{duration(1 << log)} - {duration(2 << log)}</text>')
        parts.append(f'<rect class="bar" x="{LABEL}" y="{top + 3}" width="{width:.1f}" height="{LANE - 6}"/>')
        parts.append(f'<text x="{LABEL + width + 6:.1f}" y="{top + 15}">{count:,}</text>')
    return _svg(LABEL + 660, len(logs) * LANE, "Host time of a handler", "".join(parts))


def _interrupts(summary: Summary) -> str:
    if not summary.irqs and not summary.vectors:
        return '<p class="note">None were recorded.</p>'
    lanes = [(name, summary.irq_timeline.get(name, [])) for name, _ in summary.irqs.most_common()]
    chart = _lanes(lanes, "Rising edges by wire over guest time", summary.duration, warm=True)
    rows: list[Sequence[Cell]] = [(name, count) for name, count in summary.irqs.most_common()]
    rows += [(f"vector {vector:#04x} acknowledged", count) for vector, count in summary.vectors.most_common()]
    return chart + _scroll("Interrupts", _table(("Wire or vector", "Times"), rows))


def _budget(summary: Summary) -> str:
    if not summary.ports:
        return '<p class="note">No port was used.</p>'
    rows = []
    for line in budget(summary)[:TABLE_ROWS]:
        use = line.use
        mean: Cell = use.host_ns // use.accesses if use.host_ns else ""
        names = ", ".join(name for name, _ in use.registers.most_common(2))
        rows.append(
            (f"{use.port:04x}", use.device, names, use.reads, use.writes, f"{line.share:.1%}", mean, line.advice)
        )
    heads = ("Port", "Device", "Registers", "In", "Out", "Share", "Mean ns", "Advice")
    return _scroll("Exit budget", _table(heads, rows))


def _served(summary: Summary) -> str:
    if not summary.served:
        return '<p class="note">The trace does not say.</p>'
    total = sum(summary.served.values())
    rows = [(name, count, f"{count / total:.1%}") for name, count in summary.served.most_common()]
    return _table(("Served", "Accesses", "Share"), rows)


def _places(summary: Summary) -> str:
    if not summary.places:
        return '<p class="note">The trace does not say.</p>'
    rows = [
        (f"{rip:#x}", f"{port:04x}", summary.ports[port].device, count)
        for (rip, port), count in summary.places.most_common(TABLE_ROWS)
    ]
    return _scroll("Where in the guest", _table(("RIP", "Port", "Device", "Accesses"), rows))


def _registers(summary: Summary) -> str:
    if not summary.registers:
        return '<p class="note">No register is named in the trace.</p>'
    rows = [(*key, count) for key, count in summary.registers.most_common(TABLE_ROWS)]
    return _scroll("Busiest registers", _table(("Device", "Register", "Kind", "Accesses"), rows))


def _unassigned(summary: Summary) -> str:
    if not summary.unassigned:
        return '<p class="note">None were touched.</p>'
    rows = [
        (f"{port:04x}", size, kind, count)
        for (port, size, kind), count in summary.unassigned.most_common(UNASSIGNED_ROWS)
    ]
    note = ""
    if len(summary.unassigned) > UNASSIGNED_ROWS:
        note = f'<p class="note">{UNASSIGNED_ROWS} of {len(summary.unassigned):,} are shown.</p>'
    return note + _scroll("Unassigned ports", _table(("Port", "Size", "Kind", "Times"), rows))


SECTIONS = (
    ("timeline", "Devices over time", _timeline),
    ("map", "Port map", _port_map),
    ("budget", "Exit budget", _budget),
    ("served", "How accesses were served", _served),
    ("places", "Where in the guest", _places),
    ("registers", "Busiest registers", _registers),
    ("latency", "Latency", _latency),
    ("interrupts", "Interrupts", _interrupts),
    ("unassigned", "Unassigned ports", _unassigned),
)


def render_page(summary: Summary) -> str:
    """The page's HTML."""
    links = "".join(f'<a href="#{key}">{escape(title)}</a>' for key, title, _ in SECTIONS)
    head = "".join(f"<p>{escape(line)}</p>" for line in head_lines(summary))
    body = "".join(
        f'<section id="{key}"><h2>{escape(title)}</h2>{draw(summary)}</section>' for key, title, draw in SECTIONS
    )
    title = f"Port traffic: {Path(summary.path).name}"
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><header><h1>{escape(title)}</h1>{head}</header>"
        f'<nav aria-label="Sections">{links}</nav><main>{body}</main></body></html>\n'
    )


def write_page(summary: Summary, path: Path) -> None:
    """Write the page, whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(render_page(summary), encoding="utf-8")
    partial.replace(path)
