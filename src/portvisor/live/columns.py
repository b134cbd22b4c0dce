"""The tables of `portvisor top`: which columns there are, how wide, how a line fills them, what they sort by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from rich.text import Text

from portvisor.live import words
from portvisor.live.protocol import NOBODY
from portvisor.live.rates import Line

MEDIUM, WIDE = 88, 110
"""Terminals from these widths on get the columns that a narrow one has no room for."""
GAP = 1
MIN_REGISTER, MAX_REGISTER = 15, 34
MIN_TREND = 8
BAR = 10

DIM, HOT = "dim", "bold"
CURVE_STYLE, BAR_STYLE = "#4fb3c8", "#5a86c5"
ARROWS = {"←": "green", "→": "magenta", "⇄": "yellow", " ": "dim"}
"""In, out, both, none."""

Cell = Callable[[Line, int], Text]


def _plain(take: Callable[[Line], str], style: str = "") -> Cell:
    def cell(line: Line, width: int) -> Text:
        text = take(line)
        return Text(text if len(text) <= width else text[: max(0, width - 1)] + "…", style)

    return cell


def _number(take: Callable[[Line], str], style: str = "") -> Cell:
    def cell(line: Line, width: int) -> Text:
        return Text(take(line).rjust(width), style)

    return cell


def _trend(line: Line, width: int) -> Text:
    return Text(words.curve(line.history, width)[0], CURVE_STYLE)


def _share(line: Line, width: int) -> Text:
    number = words.percent(line.share).rjust(6)
    return Text.assemble((words.bar(line.share, width - 7), BAR_STYLE), " ", number) if width > 6 else Text(number)


def _direction(line: Line, _width: int) -> Text:
    return Text(line.direction, ARROWS[line.direction])


def _register(line: Line) -> str:
    return "nobody answers" if line.device == NOBODY else line.register


def _port(line: Line) -> str:
    return f"{line.key:04x}"


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `order` gives what it sorts by."""

    name: str
    width: int
    cell: Cell
    order: Callable[[Line], float | str] | None = None
    right: bool = False
    room: int = 0
    """Width of the terminal from which on it is shown."""

    @property
    def ascending(self) -> bool:
        """Whether the smallest is the interesting one: names and ports, not rates."""
        return not self.right


ACCESSES, TREND, REGISTER = "access/s", "trend", "register"
_NUMBERS = (
    Column(ACCESSES, 9, _number(lambda line: words.rate(line.rate), HOT), lambda line: line.rate, right=True),
    Column("bytes/s", 8, _number(lambda line: words.volume(line.volume)), lambda line: line.volume, right=True),
    Column("share", 6, _share, lambda line: line.share, right=True),
    Column("cpu", 6, _number(lambda line: words.percent(line.load)), lambda line: line.load, right=True),
    Column("mean", 7, _number(lambda line: words.duration(line.mean_ns)), lambda line: line.mean_ns, True, MEDIUM),
    Column(TREND, MIN_TREND, _trend),
)
PORTS = (
    Column("port", 5, _plain(_port), lambda line: line.key),
    Column("device", 10, _plain(lambda line: line.device), lambda line: line.device),
    Column(REGISTER, MIN_REGISTER, _plain(_register, "italic"), _register),
    Column("⇄", 1, _direction),
    *_NUMBERS,
)
DEVICES = (
    Column("device", 16, _plain(lambda line: line.device), lambda line: line.device),
    Column("ports", 5, _number(lambda line: str(line.ports)), lambda line: float(line.ports), right=True),
    Column("⇄", 1, _direction),
    Column("in/s", 8, _number(lambda line: words.rate(line.reads)), lambda line: line.reads, True, WIDE),
    Column("out/s", 8, _number(lambda line: words.rate(line.writes)), lambda line: line.writes, True, WIDE),
    *_NUMBERS,
)


def fitted(columns: tuple[Column, ...], width: int) -> tuple[Column, ...]:
    """The columns for a terminal's width: what is left goes to the register's name, a bar, and the trend."""
    shown = [column for column in columns if width >= column.room]
    free = width - sum(column.width + GAP for column in shown)
    fitting = []
    for column in shown:
        extra = 0
        if column.name == REGISTER:
            extra = min(MAX_REGISTER - MIN_REGISTER, max(0, free) // 2)
        elif column.name == "share" and width >= WIDE:
            extra = BAR + 1
        elif column.name == TREND:
            extra = max(0, free)
        free -= extra
        fitting.append(replace(column, width=column.width + extra))
    return tuple(fitting)


def cells(columns: tuple[Column, ...], line: Line) -> list[Text]:
    """A line's cells; one without traffic is dim."""
    row = [column.cell(line, column.width) for column in columns]
    if not line.rate:
        for cell in row:
            cell.stylize(DIM)
    return row


def heading(column: Column, sorted_by: str, descending: bool) -> Text:
    """A column's title, with an arrow if lines are sorted by it."""
    is_sorted = column.name == sorted_by
    room = column.width - (1 if is_sorted else 0)
    title = column.name[:room] if room > 0 else column.name[:1]
    title = (("▼" if descending else "▲") + title) if is_sorted else title
    return Text(title.rjust(column.width) if column.right else title, "bold reverse" if is_sorted else "bold")
