"""Two /proc/ioports listings side by side, as a table."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from portvisor.ports.ioports import Diff, Difference, Row

MARKS = {
    Difference.EQUAL: ("=", "green"),
    Difference.INDENT: ("≈", "yellow"),
    Difference.NAME: ("≠", "yellow"),
    Difference.RANGE: ("≠", "yellow"),
    Difference.MISSING: ("-", "red"),
    Difference.EXTRA: ("+", "red"),
}


def _text(row: Row | None) -> Text:
    return Text(str(row) if row else "")


def print_diff(
    console: Console,
    difference: Diff,
    *,
    left: str,
    right: str,
    device_of: Callable[[Row], str] | None = None,
    only_different: bool = False,
) -> None:
    """Print row by row, with the device that models a row where `device_of` knows it."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("", min_width=1, no_wrap=True)
    table.add_column(left, no_wrap=True)
    table.add_column(right, no_wrap=True)
    if device_of:
        table.add_column("device", style="dim", no_wrap=True)
    for pair in difference.rows:
        if only_different and pair.difference is Difference.EQUAL:
            continue
        mark, style = MARKS[pair.difference]
        cells: list[Text | str] = [Text(mark, style=style), _text(pair.expected), _text(pair.actual)]
        if device_of:
            row = pair.expected or pair.actual
            cells.append(device_of(row) if row else "")
        table.add_row(*cells)
    console.print(table)


def print_score(console: Console, difference: Diff) -> None:
    """One line: exact rows of those expected, and rows too many."""
    extra = difference.count(Difference.EXTRA)
    console.print(f"{difference.score()} rows exact, {extra} too many")
