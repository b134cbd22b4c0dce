"""The screen of `portvisor top`: one table of ports or devices, kept up to date while the machine runs."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import ClassVar, Protocol

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.coordinate import Coordinate
from textual.widgets import DataTable, Footer, Input, Static

from portvisor.live.choose import Test, chosen, compile_filter
from portvisor.live.columns import ACCESSES, DEVICES, GAP, PORTS, Column, cells, fitted, heading
from portvisor.live.errors import LiveError
from portvisor.live.head import Status, head
from portvisor.live.port_screen import PortScreen
from portvisor.live.protocol import Detail, Ended, Hello, Message, Snapshot
from portvisor.live.rates import Line, Rates, View

FIRST_SECONDS = 0.3
"""Until the second snapshot, so that rates are there at once."""
SILENT_INTERVALS = 3
"""Without an answer for so long, the machine is said not to answer."""
SCROLLBAR = 1
MOVING_KEYS = frozenset({"up", "down", "j", "k", "pageup", "pagedown", "home", "end"})
TABLE_ACTIONS = frozenset({"other_table", "filter", "sort", "reverse", "leave"})
BY_RATE = (ACCESSES, True)
"""Column and whether the greatest comes first."""


class Source(Protocol):
    """Where messages come from: a `Connection`."""

    hello: Hello

    def request(self, watch: int | None = None) -> None:
        """Ask for a snapshot."""
        ...

    def messages(self) -> AsyncIterator[Message]:
        """What comes."""
        ...


class Lines(DataTable[Text]):
    """The table. Its rows keep their place; what is in them changes.

    The cursor stays at the top until it is moved; from then on it stays on its line, up to the key Home.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter", "select_cursor", "Detail"),
        Binding("j", "cursor_down", show=False),
        Binding("k", "cursor_up", show=False),
        Binding("home", "scroll_top", show=False),
        Binding("end", "scroll_bottom", show=False),
    ]

    def __init__(self) -> None:
        super().__init__(cursor_type="row", cell_padding=0, zebra_stripes=False)
        self.lines: list[Line] = []
        self._follows = False
        self._columns: tuple[Column, ...] = ()
        self._titles: list[Text] = []

    @property
    def selected(self) -> Line | None:
        """The line under the cursor."""
        return self.lines[self.cursor_row] if 0 <= self.cursor_row < len(self.lines) else None

    def show(self, columns: tuple[Column, ...], titles: list[Text], lines: list[Line]) -> None:
        """Put lines into the table."""
        present = self.selected if self._follows else None
        if columns != self._columns or titles != self._titles:
            self._make_columns(columns, titles)
        for row, line in enumerate(lines[: self.row_count]):
            self._update(row, cells(columns, line))
        for line in lines[self.row_count :]:
            self.add_row(*cells(columns, line))
        while self.row_count > len(lines):
            self.remove_row(self.coordinate_to_cell_key(Coordinate(self.row_count - 1, 0)).row_key)
        self.lines = lines
        if present is not None:
            row = next((row for row, line in enumerate(lines) if line.key == present.key), self.cursor_row)
            self.move_cursor(row=row, animate=False)

    def on_key(self, event: events.Key) -> None:
        if event.key in MOVING_KEYS:
            self._follows = event.key != "home"

    def on_click(self) -> None:
        self._follows = True

    def _make_columns(self, columns: tuple[Column, ...], titles: list[Text]) -> None:
        self.clear(columns=True)
        self._columns, self._titles = columns, titles
        for column, title in zip(columns, titles, strict=True):
            self.add_column(Text.assemble(title, " " * GAP), width=column.width + GAP, key=column.name)

    def _update(self, row: int, new: list[Text]) -> None:
        for index, cell in enumerate(new):
            place = Coordinate(row, index)
            if self.get_cell_at(place) != cell:
                self.update_cell_at(place, cell)


class FilterField(Input):
    """What lines must contain; they follow every letter."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("enter,down", "submit", "Keep"),
        Binding("escape", "app.leave", "Clear"),
    ]

    def __init__(self) -> None:
        super().__init__(placeholder="port, device or register; 3f8-3ff", compact=True)


class TopApp(App[None]):
    """Shows one machine.

    Args:
        source: the machine.
        every: seconds between two snapshots.
    """

    ENABLE_COMMAND_PALETTE = False
    CSS = """
    Screen { layers: base; }
    #head { height: 4; padding: 0 1; background: $surface; }
    Lines { height: 1fr; scrollbar-size: 1 1; background: $background; padding: 0 1; }
    Lines > .datatable--header { background: $panel; color: $text-muted; }
    Lines > .datatable--cursor { background: $primary 40%; }
    Lines > .datatable--hover { background: $primary 15%; }
    FilterField { display: none; height: 1; padding: 0 1; background: $panel; }
    #empty { display: none; height: 1fr; content-align: center middle; color: $text-muted; }
    #empty.open { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "other_table", "Switch", priority=True),
        Binding("space", "pause", "Pause"),
        # first of all, so that a key typed right after it is for the filter already
        Binding("slash", "filter", "Filter", key_display="/", priority=True),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", show=False),
        Binding("r", "reverse", "Reverse"),
        Binding("escape", "leave", show=False),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, source: Source, every: float = 1.0) -> None:
        super().__init__()
        self._source, self._every = source, every
        self._rates = Rates()
        self._view = View()
        self._columns: tuple[Column, ...] = PORTS
        self._sorting: dict[tuple[Column, ...], tuple[str, bool]] = {
            PORTS: (ACCESSES, True),
            DEVICES: (ACCESSES, True),
        }
        self._filter: Test = compile_filter("")
        self._device: str | None = None
        self._status = Status(source.hello)
        self._detail: PortScreen | None = None
        self._heard = time.monotonic()

    def compose(self) -> ComposeResult:
        yield Static(id="head")
        yield Lines()
        yield Static(id="empty")
        yield FilterField()
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.title = "portvisor top"
        self.query_one(Lines).focus()
        self.run_worker(self._listen(), exit_on_error=True)
        self._source.request()
        self.set_timer(FIRST_SECONDS, self._ask)
        self.set_interval(self._every, self._ask)
        self._draw()

    # --- the machine ----------------------------------------------------------------------------------

    def _ask(self) -> None:
        self._source.request(self._detail.port if self._detail else None)
        silent = time.monotonic() - self._heard > SILENT_INTERVALS * max(1.0, self._every)
        if silent != self._status.silent:
            self._status.silent = silent
            self._draw_head()

    async def _listen(self) -> None:
        try:
            async for message in self._source.messages():
                self.take(message)
        except LiveError as error:
            self.take(Ended(str(error)))

    def take(self, message: Message) -> None:
        """Something came."""
        self._heard = time.monotonic()
        match message:
            case Snapshot():
                self._status.silent = False
                view = self._rates.feed(message)
                if not self._status.paused and (view.measured or not self._view.measured):
                    self._view = view
                    self._draw()
            case Detail() if self._detail and self._detail.port == message.port and not self._status.paused:
                self._detail.show_detail(message)
            case Ended():
                self._status.ended = message.why
                self._status.silent = False
                self._draw_head()

    # --- drawing --------------------------------------------------------------------------------------

    def _draw(self) -> None:
        self._draw_head()
        self._draw_table()
        if self._detail:
            self._detail.show_line(self._line_of(self._detail.port))

    def _line_of(self, port: int) -> Line | None:
        return next((line for line in self._view.ports if line.key == port), None)

    def _draw_head(self) -> None:
        lines = head(self._status, self._view, self._columns is PORTS, self._device, self.size.width - 2)
        for screen in self.screen_stack:
            for widget in screen.query("#head").results(Static):
                widget.update(lines)

    def _draw_table(self) -> None:
        name, descending = self._sorting[self._columns]
        columns = fitted(self._columns, self.size.width - 2 - SCROLLBAR)
        column = next(one for one in self._columns if one.name == name)
        lines = self._view.ports if self._columns is PORTS else self._view.devices
        shown = chosen(lines, column, descending, self._filter, self._device if self._columns is PORTS else None)
        titles = [heading(one, name, descending) for one in columns]
        main = self.screen_stack[0]
        main.query_one(Lines).show(columns, titles, shown)
        self._draw_empty(not shown, bool(lines))

    def _draw_empty(self, is_empty: bool, has_lines: bool) -> None:
        main = self.screen_stack[0]
        note = main.query_one("#empty", Static)
        if not self._view.measured:
            note.update("measuring …")
        elif has_lines:
            note.update("nothing matches the filter; Esc clears it")
        else:
            note.update("no port has been used since you look on; the guest may be idle")
        note.set_class(is_empty, "open")
        main.query_one(Lines).display = not is_empty

    def on_resize(self, _event: events.Resize) -> None:
        self.call_after_refresh(self._draw)

    # --- keys -----------------------------------------------------------------------------------------

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Over a port's screen the keys of the table mean nothing; in the filter / is a letter."""
        if action == "filter" and isinstance(self.focused, FilterField):
            return False
        return self._detail is None or action not in TABLE_ACTIONS

    def action_other_table(self) -> None:
        """Ports instead of devices, or the other way round."""
        self._device = None
        self._show_table(DEVICES if self._columns is PORTS else PORTS)

    def _show_table(self, columns: tuple[Column, ...]) -> None:
        self._columns = columns
        self._draw()
        self.query_one(Lines).move_cursor(row=0, animate=False)

    def action_pause(self) -> None:
        """Keep the screen as it is, or go on."""
        self._status.paused = not self._status.paused
        if not self._status.paused:
            self._view = self._rates.view if self._rates.view.measured else self._view
        self._draw()

    def action_sort(self, step: int) -> None:
        """Sort by the next column."""
        names = [column.name for column in fitted(self._columns, self.size.width - 2 - SCROLLBAR) if column.order]
        present = self._sorting[self._columns][0]
        place = names.index(present) if present in names else -1
        self._sort_by(names[(place + step) % len(names)])

    def _sort_by(self, name: str) -> None:
        column = next(one for one in self._columns if one.name == name)
        self._sorting[self._columns] = (name, not column.ascending)
        self._draw_table()

    def action_reverse(self) -> None:
        """The other way round."""
        name, descending = self._sorting[self._columns]
        self._sorting[self._columns] = (name, not descending)
        self._draw_table()

    def on_data_table_header_selected(self, event: DataTable.HeaderSelected) -> None:
        name = str(event.column_key.value)
        if name == self._sorting[self._columns][0]:
            self.action_reverse()
        elif any(one.name == name and one.order for one in self._columns):
            self._sort_by(name)

    def action_filter(self) -> None:
        """Type what lines must contain."""
        field = self.query_one(FilterField)
        field.display = True
        self.screen.set_focus(field)

    def on_input_changed(self, event: Input.Changed) -> None:
        self._filter = compile_filter(event.value)
        self._status.filter = event.value.strip()
        self._draw()

    def on_input_submitted(self, _event: Input.Submitted) -> None:
        self._close_filter()

    def _close_filter(self) -> None:
        self.screen.set_focus(self.query_one(Lines))
        self.query_one(FilterField).display = False

    def action_leave(self) -> None:
        """Out of the filter, or out of a device's ports."""
        field = self.query_one(FilterField)
        if field.value or field.display:
            field.value = ""
            self._close_filter()
        elif self._device is not None:
            self._device = None
            self._show_table(DEVICES)

    def on_data_table_row_selected(self, _event: DataTable.RowSelected) -> None:
        line = self.query_one(Lines).selected
        if line is None:
            return
        if isinstance(line.key, int):
            self._open_port(line)
        else:
            self._device = line.key
            self._show_table(PORTS)

    def _open_port(self, line: Line) -> None:
        assert isinstance(line.key, int)
        self._detail = PortScreen(line.key, line)
        self.push_screen(self._detail, self._port_closed)
        self._source.request(line.key)
        self.call_after_refresh(self._draw_head)

    def _port_closed(self, _result: None) -> None:
        self._detail = None
        self._draw()
