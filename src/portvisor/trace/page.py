"""The report of a trace as one self-contained page: no network, light and dark, drawn from sums of records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from portvisor.ports import PORT_COUNT
from portvisor.trace.advice import budget
from portvisor.trace.summary import BUCKETS, NOBODY, Summary
from portvisor.trace.terminal import head_lines

DEVICES_DRAWN = 24
TABLE_ROWS = 40
UNASSIGNED_ROWS = 400
MAP_SIDE = 256
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
nav a { margin-right: 1rem; } a { color: var(--bar); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--bar);
  outline-offset: 2px; }
.scroll { overflow: auto; max-height: 34rem; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .15rem .6rem .15rem 0; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { position: sticky; top: 0; background: var(--paper); } .n { text-align: right; } p.note { color: var(--faint); }
svg { width: 100%; height: auto; background: var(--panel); } svg text { fill: var(--ink); font-size: 11px; }
svg .bar { fill: var(--bar); } svg .warm { fill: var(--warm); } svg .axis { stroke: var(--line); }
"""

Cell = str | int | float


def _table(heads: Sequence[str], rows: Iterable[Sequence[Cell]]) -> str:
    """A table; numbers stand to the right."""
    body = []
    for row in rows:
        cells = []
        for cell in row:
            numeric = isinstance(cell, int | float)
            text = f"{cell:,}" if isinstance(cell, int) else f"{cell:,.1f}" if isinstance(cell, float) else cell
            cells.append(f"<td{' class=n' if numeric else ''}>{escape(text)}</td>")
        body.append("<tr>" + "".join(cells) + "</tr>")
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"


def _scroll(label: str, content: str) -> str:
    return f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(label)}">{content}</div>'


def _svg(width: int, height: int, label: str, content: str) -> str:
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"<title>{escape(label)}</title>{content}</svg>"
    )


def _lanes(lanes: Sequence[tuple[str, list[int]]], label: str, end: str, warm: bool = False) -> str:
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
    parts.append(f'<text x="{LABEL}" y="{height - 4}">0 s</text>')
    parts.append(f'<text x="{width - 4}" y="{height - 4}" text-anchor="end">{escape(end)}</text>')
    return _svg(width, height, label, "".join(parts))


def _timeline(summary: Summary) -> str:
    names = [name for name, _ in summary.devices.most_common(DEVICES_DRAWN)]
    lanes = [(name, summary.timeline.get(name, [])) for name in names]
    note = "Each device's bars are scaled to its own peak."
    if len(summary.devices) > DEVICES_DRAWN:
        note += f" The {DEVICES_DRAWN} busiest of {len(summary.devices)} devices are drawn."
    chart = _lanes(lanes, "Accesses by device over guest time", f"{summary.duration:.3f} s")
    rows = [(name, count, summary.device_host_ns[name] // 1000) for name, count in summary.devices.most_common()]
    table = _table(("Device", "Accesses", "Host time in µs"), rows)
    return f'<p class="note">{note}</p>{chart}<details><summary>Numbers</summary>{table}</details>'


def _port_map(summary: Summary) -> str:
    """A square of the 64 Ki ports; a line holds 256 of them."""
    scale, row_height = 3, 2
    parts = []
    for port, use in sorted(summary.ports.items()):
        row, column = divmod(port, MAP_SIDE)
        weight = min(1.0, 0.35 + 0.1 * use.accesses.bit_length() / 2)
        kind = "warm" if use.device == NOBODY else "bar"
        parts.append(
            f'<rect class="{kind}" opacity="{weight:.2f}" x="{40 + column * scale}" y="{row * row_height + 14}" '
            f'width="{scale}" height="{row_height}">'
            f"<title>{port:04x} {escape(use.device)}: {use.accesses:,}</title></rect>"
        )
    for row in range(0, MAP_SIDE, 32):
        parts.append(f'<text x="2" y="{row * row_height + 24}">{row << 8:04x}</text>')
    parts.append('<text x="40" y="11">+00</text>')
    parts.append(f'<text x="{40 + 128 * scale}" y="11">+80</text>')
    label = f"Map of the {PORT_COUNT:,} ports"
    chart = _svg(MAP_SIDE * scale + 44, MAP_SIDE * row_height + 18, label, "".join(parts))
    return f'<p class="note">Low byte of the port to the right, high byte downward.</p>{chart}'


def _latency(summary: Summary) -> str:
    if not summary.latency:
        return '<p class="note">The trace holds no handler times.</p>'
    logs = range(min(summary.latency), max(summary.latency) + 1)
    peak = max(summary.latency.values())
    parts = []
    for index, log in enumerate(logs):
        count, top = summary.latency[log], index * LANE
        width = 560 * count / peak
        parts.append(f'<text x="4" y="{top + 15}">{_ns(1 << log)} - {_ns(2 << log)}</text>')
        parts.append(f'<rect class="bar" x="{LABEL}" y="{top + 3}" width="{width:.1f}" height="{LANE - 6}"/>')
        parts.append(f'<text x="{LABEL + width + 6:.1f}" y="{top + 15}">{count:,}</text>')
    return _svg(LABEL + 660, len(logs) * LANE, "Host time of a handler", "".join(parts))


def _ns(value: int) -> str:
    for unit, factor in (("s", 10**9), ("ms", 10**6), ("µs", 10**3)):
        if value >= factor:
            return f"{value / factor:.3g} {unit}"
    return f"{value} ns"


def _interrupts(summary: Summary) -> str:
    if not summary.irqs and not summary.vectors:
        return '<p class="note">None were recorded.</p>'
    lanes = [(name, summary.irq_timeline.get(name, [])) for name, _ in summary.irqs.most_common()]
    chart = _lanes(lanes, "Rising edges by wire over guest time", f"{summary.duration:.3f} s", warm=True)
    rows: list[Sequence[Cell]] = [(name, count) for name, count in summary.irqs.most_common()]
    rows += [(f"vector {vector:#04x} acknowledged", count) for vector, count in summary.vectors.most_common()]
    return chart + _table(("Wire or vector", "Times"), rows)


def _budget(summary: Summary) -> str:
    rows = []
    for line in budget(summary)[:TABLE_ROWS]:
        use = line.use
        mean: Cell = use.host_ns // use.accesses if use.host_ns else ""
        rows.append((f"{use.port:04x}", use.device, use.reads, use.writes, f"{line.share:.1%}", mean, line.advice))
    heads = ("Port", "Device", "In", "Out", "Share", "Mean ns", "Advice")
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
        f"<body><h1>{escape(title)}</h1>{head}<nav>{links}</nav><main>{body}</main></body></html>\n"
    )


def write_page(summary: Summary, path: Path) -> None:
    """Write the page, whole or not at all."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(render_page(summary), encoding="utf-8")
    partial.replace(path)
