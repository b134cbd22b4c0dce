"""The screen, by its keys: filter, pause, sort, detail, sizes, and a machine that ends."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import pytest
from textual import events
from textual.pilot import Pilot
from textual.widgets import Static

from live_support import PORTS, FakeSource, snapshot_at
from portvisor.live.port_screen import PortScreen
from portvisor.live.protocol import Access, Detail, Ended, RegisterRow, Snapshot
from portvisor.live.screen import FilterField, Lines, TopApp

WIDE, NARROW = (140, 40), (80, 24)
Steps = Callable[["Look"], Awaitable[None]]


class Look:
    """A screen in a test."""

    def __init__(self, app: TopApp, source: FakeSource, pilot: Pilot[None]) -> None:
        self.app, self.source, self.pilot = app, source, pilot
        self.second = 0.0

    async def feed(self, seconds: float = 1.0, resets: int = 0) -> None:
        """The next snapshot."""
        self.second += seconds
        await self.say(snapshot_at(self.second, resets))

    async def say(self, message: Snapshot | Detail | Ended) -> None:
        await self.source.queue.put(message)
        await self.pilot.pause()
        await self.pilot.pause()

    async def press(self, *keys: str) -> None:
        await self.pilot.press(*keys)
        await self.pilot.pause()

    @property
    def table(self) -> Lines:
        return self.app.screen_stack[0].query_one(Lines)

    @property
    def keys(self) -> list[int | str]:
        return [line.key for line in self.table.lines]

    def rows(self) -> list[list[str]]:
        """What the table shows."""
        return [[cell.plain.strip() for cell in self.table.get_row_at(row)] for row in range(self.table.row_count)]

    def titles(self) -> list[str]:
        return [str(column.label).strip() for column in self.table.ordered_columns]

    def text(self, name: str) -> str:
        """The text of a part of the screen that is seen."""
        return str(self.app.screen.query_one(name, Static).render())

    def screen_text(self) -> list[str]:
        """All lines of the screen."""
        width, height = self.app.size
        strips = self.app.screen._compositor.render_strips()
        assert len(strips) == height
        lines = ["".join(segment.text for segment in strip) for strip in strips]
        assert {len(line) for line in lines} <= {width}
        return lines


def look(steps: Steps, size: tuple[int, int] = WIDE, *, fed: bool = True) -> None:
    """Run steps on a screen."""

    async def run() -> None:
        source = FakeSource()
        app = TopApp(source, every=60.0)
        async with app.run_test(size=size) as pilot:
            seen = Look(app, source, pilot)
            if fed:
                await seen.feed()
                await seen.feed()
            await steps(seen)

    asyncio.run(run())


def test_ports_come_by_rate_with_device_and_register() -> None:
    async def steps(seen: Look) -> None:
        rows = {row[0]: dict(zip(seen.titles(), row, strict=True)) for row in seen.rows()}
        assert [row[0] for row in seen.rows()][2:] == ["0071", "01f0", "0cfc", "0080"]
        assert set(seen.keys[:2]) == {0x3F8, 0x3FD}
        com = rows["03f8"]
        assert (com["device"], com["register"], com["⇄"], com["▼access/s"]) == ("uart0", "RBR / THR", "→", "9,000")
        assert (com["bytes/s"], com["cpu"], com["mean"]) == ("9.0k", "0.9%", "1.0µs")
        assert com["share"].endswith("49.0%")
        assert rows["03fd"]["⇄"] == "←"
        assert rows["0071"]["⇄"] == "⇄"
        assert rows["01f0"]["bytes/s"] == "25.6k"
        assert rows["0080"]["register"] == "nobody answers"

    look(steps)


def test_the_head_names_the_machine_and_sums_up() -> None:
    async def steps(seen: Look) -> None:
        await seen.feed(resets=2)
        head = seen.text("#head")
        assert "pc on software" in head
        assert "pid 4711" in head
        assert "portvisor run disk.img --live" in head
        assert "● LIVE" in head
        assert "18,371 access/s" in head
        assert "2 resets" in head
        assert "IRQ0 18" in head
        assert "guest 0:03" in head

    look(steps)


def test_it_says_that_it_measures_before_there_are_rates() -> None:
    async def steps(seen: Look) -> None:
        assert "measuring" in seen.text("#empty")
        await seen.feed()
        assert "measuring" in seen.text("#empty")
        await seen.feed()
        assert len(seen.rows()) == len(PORTS)
        assert not seen.app.query_one("#empty").display

    look(steps, fed=False)


def test_an_idle_machine_is_said_to_be_idle() -> None:
    async def steps(seen: Look) -> None:
        await seen.say(Snapshot(1, 1, 0, 0))
        await seen.say(Snapshot(2_000_000_000, 2_000_000_000, 0, 0))
        assert "no port has been used" in seen.text("#empty")

    look(steps, fed=False)


@pytest.mark.parametrize(
    ("typed", "ports"),
    [
        ("uart", [0x3F8, 0x3FD]),
        ("3f", [0x3F8, 0x3FD]),
        ("0x71", [0x71]),
        ("70-1ff", [0x71, 0x80, 0x1F0]),
        ("sec", [0x71]),
        ("UART thr", [0x3F8]),
        ("uart rtc", []),
        ("", [port for port, *_ in PORTS]),
    ],
)
def test_typing_filters_at_once(typed: str, ports: list[int]) -> None:
    async def steps(seen: Look) -> None:
        keys = {" ": "space", "-": "minus"}
        await seen.press("slash", *(keys.get(letter, letter) for letter in typed))
        assert seen.app.query_one(FilterField).value == typed
        assert sorted(map(int, seen.keys)) == sorted(ports)
        await seen.press("enter")
        await seen.feed()
        assert sorted(map(int, seen.keys)) == sorted(ports)
        assert ("filter" in seen.text("#head")) == bool(typed)
        await seen.press("escape")
        assert len(seen.keys) == len(PORTS)

    look(steps)


def test_a_filter_that_nothing_passes_says_so() -> None:
    async def steps(seen: Look) -> None:
        await seen.press("slash", "x", "y", "z")
        assert "nothing matches" in seen.text("#empty")
        await seen.press("backspace", "backspace", "backspace")
        assert len(seen.keys) == len(PORTS)

    look(steps)


def test_letters_that_are_commands_can_be_typed_into_the_filter() -> None:
    async def steps(seen: Look) -> None:
        await seen.press("slash", "q", "s", "r", "space")
        assert seen.app.is_running
        assert seen.app.query_one(FilterField).value == "qsr "
        assert "PAUSED" not in seen.text("#head")

    look(steps)


def test_letters_typed_right_after_the_slash_are_the_filters() -> None:
    async def steps(seen: Look) -> None:
        for key, letter in (("slash", "/"), ("r", "r"), ("t", "t"), ("slash", "/")):
            seen.app.post_message(events.Key(key, letter))
        await seen.pilot.pause()
        await seen.pilot.pause()
        assert seen.app.query_one(FilterField).value == "rt/"

    look(steps)


def test_pause_keeps_the_screen_and_the_curve_goes_on() -> None:
    async def steps(seen: Look) -> None:
        before = seen.rows()
        await seen.press("space")
        await seen.feed(1.0)
        await seen.feed(0.25)
        assert seen.rows() == before
        assert "PAUSED" in seen.text("#head")
        await seen.press("s")
        assert {tuple(row[:1]) for row in seen.rows()} == {tuple(row[:1]) for row in before}
        await seen.press("space")
        assert "LIVE" in seen.text("#head")
        assert len(seen.table.lines[0].history) == 4 - 1
        assert "guest 0:03" in seen.text("#head")

    look(steps)


def test_sorting_goes_through_the_columns_and_back() -> None:
    async def steps(seen: Look) -> None:
        orders = {}
        for _ in range(8):
            name = next(title for title in seen.titles() if title[0] in "▼▲")
            orders[name] = [int(key) for key in seen.keys]
            await seen.press("s")
        assert orders["▲port"] == sorted(port for port, *_ in PORTS)
        assert orders["▼bytes/s"][0] == 0x1F0
        assert orders["▼cpu"][:2] == [0x3F8, 0x1F0]
        assert orders["▼mean"][0] == 0x1F0
        assert orders["▲device"][0] == 0x80
        assert orders["▲register"][-1] == 0x80
        assert set(orders["▼access/s"][:2]) == {0x3F8, 0x3FD}
        assert "▼access/s" in seen.titles()
        await seen.press("r")
        assert seen.keys[0] == 0x80
        await seen.press("S")
        assert any(title.startswith("▲register") for title in seen.titles())

    look(steps)


def test_a_click_on_a_title_sorts_and_a_second_turns_round() -> None:
    async def steps(seen: Look) -> None:
        assert seen.titles()[0] == "port"
        await seen.pilot.click(Lines, offset=(2, 0))
        await seen.pilot.pause()
        assert seen.titles()[0] == "▲port"
        await seen.pilot.click(Lines, offset=(2, 0))
        await seen.pilot.pause()
        assert seen.titles()[0] == "▼port"
        assert seen.keys[0] == 0xCFC

    look(steps)


def test_the_cursor_stays_on_its_line_when_the_order_changes() -> None:
    async def steps(seen: Look) -> None:
        await seen.press("down", "down")
        selected = seen.table.selected
        assert selected is not None
        await seen.press("r")
        assert seen.table.selected is not None
        assert seen.table.selected.key == selected.key
        await seen.feed()
        assert seen.table.selected.key == selected.key

    look(steps)


def test_a_cursor_that_was_not_moved_stays_at_the_top() -> None:
    async def steps(seen: Look) -> None:
        await seen.press("r")
        assert seen.table.cursor_row == 0
        await seen.press("end")
        last = seen.keys[-1]
        await seen.press("r")
        assert seen.table.selected is not None
        assert seen.table.selected.key == last
        await seen.press("home", "r")
        assert seen.table.cursor_row == 0

    look(steps)


def test_devices_have_a_table_of_their_own_and_lead_to_their_ports() -> None:
    async def steps(seen: Look) -> None:
        await seen.press("tab")
        assert seen.keys[0] == "uart0"
        assert sorted(map(str, seen.keys)) == ["(nobody)", "ide0", "pci", "rtc", "uart0"]
        first = dict(zip(seen.titles(), seen.rows()[0], strict=True))
        assert (first["ports"], first["in/s"], first["out/s"], first["▼access/s"]) == (
            "2",
            "9,000",
            "9,000",
            "18,000",
        )
        await seen.press("enter")
        assert sorted(map(int, seen.keys)) == [0x3F8, 0x3FD]
        assert "device uart0" in seen.text("#head")
        await seen.press("escape")
        assert "uart0" in seen.keys
        await seen.press("tab")
        assert len(seen.keys) == len(PORTS)

    look(steps)


@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_enter_shows_a_port_with_registers_and_last_values(size: tuple[int, int]) -> None:
    async def steps(seen: Look) -> None:
        await seen.press("slash", "7", "1", "enter", "enter")
        assert isinstance(seen.app.screen, PortScreen)
        assert seen.source.requests[-1] == 0x71
        assert "port 0071  rtc  Seconds" in seen.text("#title")
        assert "300 access/s" in seen.text("#title")
        last = [
            Access(5, 0x59, 1, False, False, "Minutes"),
            Access(6, 0x41, 1, True, False, "Seconds"),
            Access(7, 0xBEEF, 2, True, True, ""),
        ]
        await seen.say(Detail(0x71, [RegisterRow("Minutes", False, 30), RegisterRow("Seconds", True, 10)], last))
        await seen.feed()
        screen = "\n".join(seen.screen_text())
        registers = [line.split() for line in seen.screen_text() if "Minutes" in line and "30" in line]
        assert registers[0][:5] == ["←", "in", "Minutes", "30", "75.0%"]
        assert re.search(r"beef +block.*41 +A.*59 +Y +Minutes", screen, re.DOTALL)
        assert "peak 300 access/s" in screen
        assert "█" in screen
        await seen.press("tab", "slash", "s", "r")
        assert isinstance(seen.app.screen, PortScreen)
        await seen.press("escape")
        assert seen.keys == [0x71]
        seen.app._ask()
        assert seen.source.requests[-1] is None

    look(steps, size)


def test_the_details_of_another_port_are_not_shown() -> None:
    async def steps(seen: Look) -> None:
        await seen.press("enter")
        await seen.say(Detail(0x99, [RegisterRow("WRONG", False, 1)], []))
        assert "WRONG" not in "\n".join(seen.screen_text())

    look(steps)


def test_a_paused_port_screen_keeps_its_values() -> None:
    async def steps(seen: Look) -> None:
        await seen.press("enter", "space")
        port = seen.source.requests[-1]
        assert port is not None
        await seen.say(Detail(port, [RegisterRow("LATER", False, 1)], []))
        screen = "\n".join(seen.screen_text())
        assert "LATER" not in screen
        assert "PAUSED" in screen
        await seen.press("space")
        await seen.say(Detail(port, [RegisterRow("LATER", False, 1)], []))
        assert "LATER" in "\n".join(seen.screen_text())

    look(steps)


@pytest.mark.parametrize(("why", "shown"), [("powered off", "ended: powered off"), ("x" * 256, "ended: xxx")])
def test_the_end_is_said_and_the_screen_stays(why: str, shown: str) -> None:
    async def steps(seen: Look) -> None:
        before = seen.rows()
        await seen.say(Ended(why))
        assert seen.app.is_running
        assert shown in seen.text("#head")
        assert "■ ENDED" in seen.text("#head")
        assert seen.rows() == before
        await seen.press("s", "slash", "u", "a", "enter")
        assert len(seen.keys) == 2
        await seen.press("enter")
        assert isinstance(seen.app.screen, PortScreen)
        assert "■ ENDED" in seen.text("#head")

    look(steps)


def test_a_machine_that_does_not_answer_is_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(seen: Look) -> None:
        seen.app._heard -= 1000
        seen.app._ask()
        await seen.pilot.pause()
        assert "NOT ANSWERING" in seen.text("#head")
        await seen.feed()
        assert "LIVE" in seen.text("#head")

    look(steps)


def test_q_leaves_from_the_table_and_from_a_port() -> None:
    async def steps(seen: Look) -> None:
        await seen.press("q")
        assert not seen.app.is_running

    async def from_port(seen: Look) -> None:
        await seen.press("enter", "q")
        assert not seen.app.is_running

    look(steps)
    look(from_port)


@pytest.mark.parametrize("size", [(80, 24), (100, 30), (140, 40), (220, 60), (40, 12), (20, 6)])
def test_every_size_shows_what_fits(size: tuple[int, int]) -> None:
    async def steps(seen: Look) -> None:
        width = seen.app.size.width
        if width >= 80:
            assert seen.table.virtual_size.width <= width
            assert not seen.table.show_horizontal_scrollbar
            lines = seen.screen_text()
            assert any("03f8  uart0" in line and "9,000" in line for line in lines)
            assert "q Quit" in lines[-1]
        await seen.press("tab")
        assert seen.keys
        await seen.press("tab", "enter", "escape")

    look(steps, size)


def test_resizing_brings_columns_and_takes_them() -> None:
    async def steps(seen: Look) -> None:
        assert "mean" in seen.titles()
        await seen.pilot.resize_terminal(80, 24)
        await seen.pilot.pause()
        assert "mean" not in seen.titles()
        assert not seen.table.show_horizontal_scrollbar
        assert len(seen.rows()) == len(PORTS)
        await seen.pilot.resize_terminal(200, 50)
        await seen.pilot.pause()
        assert "mean" in seen.titles()
        assert seen.table.virtual_size.width <= 200

    look(steps)


def test_sorting_by_a_column_that_a_narrow_screen_hides_does_no_harm() -> None:
    async def steps(seen: Look) -> None:
        while not any("▼mean" in title for title in seen.titles()):
            await seen.press("s")
        await seen.pilot.resize_terminal(80, 24)
        await seen.pilot.pause()
        await seen.feed()
        assert len(seen.rows()) == len(PORTS)
        await seen.press("s")
        assert any(title[0] in "▼▲" for title in seen.titles())

    look(steps)


def test_names_are_text_and_no_markup() -> None:
    async def steps(seen: Look) -> None:
        first, second = snapshot_at(1), snapshot_at(2)
        for one in (first, second):
            one.ports[0] = one.ports[0]._replace(
                device="[red]x[/]", read_register="[/b]", write_register="[link=x]"
            )
        await seen.say(first)
        await seen.say(second)
        await seen.press("r", "r")
        assert any(row[1] == "[red]x[/]" for row in seen.rows())
        await seen.press("slash", *"red", "enter", "enter")
        assert "[red]x[/]" in seen.text("#title")
        await seen.say(Ended("[bold]off[/]"))
        assert "[bold]off[/]" in seen.text("#head")

    look(steps, fed=False)
