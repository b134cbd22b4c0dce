"""One port in detail: its curve, its registers as they are really reached, and its last accesses."""

from __future__ import annotations

from typing import ClassVar

from rich.table import Table
from rich.text import Text
from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Static

from portvisor.live import words
from portvisor.live.columns import CURVE_STYLE
from portvisor.live.protocol import NOBODY, Access, Detail
from portvisor.live.rates import Line

CURVE_HEIGHT = 4
IN, OUT = ("← in", "green"), ("→ out", "magenta")


class PortScreen(Screen[None]):
    """Opened with Enter on a port."""

    CSS = """
    PortScreen { background: $background; }
    PortScreen #head { height: 4; padding: 0 1; background: $surface; }
    #title { height: 3; padding: 1 1 0 1; }
    #curve { height: 5; padding: 0 1; }
    #parts { height: 1fr; }
    #parts VerticalScroll { width: 1fr; padding: 1 1 0 1; scrollbar-size: 1 1; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,enter,backspace", "dismiss", "Back"),
    ]

    def __init__(self, port: int, line: Line) -> None:
        super().__init__()
        self.port = port
        self._line = line
        self._detail: Detail | None = None

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Static(id="title")
        yield Static(id="curve")
        with Horizontal(id="parts"):
            with VerticalScroll():
                yield Static(id="registers")
            with VerticalScroll():
                yield Static(id="last")
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self._draw()

    def on_resize(self, _event: events.Resize) -> None:
        self._draw()

    def show_line(self, line: Line | None) -> None:
        """New rates; None if the port is no longer among those told."""
        if line is not None:
            self._line = line
        self._draw()

    def show_detail(self, detail: Detail) -> None:
        """New registers and accesses."""
        self._detail = detail
        self._draw()

    def _draw(self) -> None:
        if not self.is_mounted:
            return
        self.query_one("#title", Static).update(_title(self.port, self._line))
        self.query_one("#curve", Static).update(_curve(self._line, self.size.width - 2))
        self.query_one("#registers", Static).update(_registers(self._detail))
        self.query_one("#last", Static).update(_last(self._detail))


def _title(port: int, line: Line) -> Text:
    register = "" if line.device == NOBODY else line.register
    name = Text.assemble((f"port {port:04x}", "bold"), "  ", (line.device, "bold cyan"), "  ", (register, "italic"))
    rates = Text.assemble(
        (words.rate(line.rate), "bold"), " access/s   ",
        ("← ", "green"), f"{words.rate(line.reads)} in   ",
        ("→ ", "magenta"), f"{words.rate(line.writes)} out   ",
        f"{words.volume(line.volume)} byte/s   ",
        f"{words.percent(line.share)} of all   ",
        f"{words.duration(line.mean_ns)} each   ",
        (f"{line.total:,} so far", "dim"),
    )  # fmt: skip
    return Text("\n").join([name, rates])


def _curve(line: Line, width: int) -> Text:
    bars = words.curve(line.history, width, CURVE_HEIGHT)
    top = words.rate(max(line.history[-width:] if width > 0 else (), default=0.0))
    scale = Text(f"peak {top} access/s; one column a look", "dim")
    return Text("\n").join([*(Text(row, CURVE_STYLE) for row in bars), scale])


def _table(title: str, *columns: tuple[str, bool]) -> Table:
    table = Table(
        title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, header_style="dim"
    )
    for name, right in columns:
        table.add_column(name, justify="right" if right else "left", no_wrap=True, overflow="ellipsis")
    return table


def _registers(detail: Detail | None) -> Table:
    table = _table("Registers since you look", ("", False), ("register", False), ("times", True), ("share", True))
    rows = detail.registers if detail else []
    everything = sum(row.accesses for row in rows)
    for row in rows:
        table.add_row(
            Text(*(OUT if row.write else IN)),
            Text(row.register or "(no name)", "italic"),
            f"{row.accesses:,}",
            words.percent(row.accesses / everything),
        )
    if not rows:
        table.add_row("", Text("none yet", "dim"), "", "")
    return table


def _last(detail: Detail | None) -> Table:
    table = _table("Last values, newest first", ("", False), ("value", True), ("", False), ("register", False))
    for access in reversed(detail.last if detail else []):
        value = Text(f"{access.value:0{2 * access.size}x}", "bold")
        table.add_row(Text(*(OUT if access.write else IN)), value, _letter(access), Text(access.register, "italic"))
    return table


def _letter(access: Access) -> Text:
    """The value as a letter, and that it was only the first of a block."""
    letter = chr(access.value)[:1] if access.size == 1 and 0x21 <= access.value < 0x7F else " "
    return Text(f"{letter} block" if access.block else letter, "dim")
