"""The lines above the table: which machine, how it is, and all its traffic in sum."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from portvisor.live import words
from portvisor.live.columns import CURVE_STYLE
from portvisor.live.protocol import Hello
from portvisor.live.rates import View

WIRES = 6
"""Interrupts named at most."""
TREND = 40


@dataclass(slots=True)
class Status:
    """What there is to say beside the numbers."""

    hello: Hello
    paused: bool = False
    silent: bool = False
    ended: str | None = None
    filter: str = ""

    @property
    def badge(self) -> Text:
        """Live, paused, not answering, ended."""
        if self.ended is not None:
            return Text(" ■ ENDED ", "bold #ffffff on #b3261e")
        if self.paused:
            return Text(" ‖ PAUSED ", "bold black on yellow")
        if self.silent:
            return Text(" … NOT ANSWERING ", "bold black on yellow")
        return Text(" ● LIVE ", "bold #ffffff on #1b7f3b")


def _beside(left: Text, right: Text, width: int) -> Text:
    left.truncate(max(0, width - right.cell_len - 1), overflow="ellipsis")
    return Text.assemble(left, " " * max(1, width - left.cell_len - right.cell_len), right)


def head(status: Status, view: View, shows_ports: bool, device: str | None, width: int) -> Text:
    """Four lines."""
    return Text("\n").join(
        [
            _beside(_machine(status.hello), status.badge, width),
            _beside(traffic(view), _trend(view, width), width),
            _cut(_ending(status) or _interrupts(view), width),
            _beside(_tables(view, shows_ports), _choice(status, device), width),
        ]
    )


def _cut(text: Text, width: int) -> Text:
    text.truncate(max(0, width), overflow="ellipsis")
    return text


def _machine(hello: Hello) -> Text:
    return Text.assemble(
        (hello.machine, "bold"), (f" on {hello.engine}", "bold"), f"  pid {hello.pid}  ", (hello.command, "dim")
    )


def traffic(view: View) -> Text:
    """All rates in a line."""
    whole = view.whole
    return Text.assemble(
        (words.rate(whole.rate), "bold"), " access/s   ",
        ("← ", "green"), f"{words.rate(whole.reads)} in   ",
        ("→ ", "magenta"), f"{words.rate(whole.writes)} out   ",
        f"{words.volume(whole.volume)} byte/s   ",
        f"{words.percent(whole.load)} cpu in devices",
    )  # fmt: skip


def _trend(view: View, width: int) -> Text:
    room = min(TREND, width - 76)
    return Text(words.curve(view.whole.history, room)[0] if room >= 8 else "", CURVE_STYLE)


def _ending(status: Status) -> Text | None:
    if status.ended is None:
        return None
    return Text.assemble(("ended: ", "bold red"), (status.ended, "red"), ("   last rates stay; q leaves", "dim"))


def _interrupts(view: View) -> Text:
    text = Text.assemble(("guest ", "dim"), words.clock(view.guest_ns))
    if view.resets:
        text.append(f"   {view.resets} reset{'s' if view.resets > 1 else ''}", "yellow")
    busy = sorted(view.interrupts.items(), key=lambda pair: -pair[1])
    text.append("   interrupts/s ", "dim")
    if not any(rate for _, rate in busy):
        text.append(words.NOTHING, "dim")
    for wire, rate in busy[:WIRES]:
        if rate:
            text.append(f" {wire} ").append(words.rate(rate), "bold")
    return text


def _tables(view: View, shows_ports: bool) -> Text:
    on, off = "bold reverse", "dim"
    text = Text.assemble(
        (f" ports {view.ports_used:,} ", on if shows_ports else off), " ",
        (f" devices {len(view.devices)} ", off if shows_ports else on),
    )  # fmt: skip
    hidden = view.ports_used - len(view.ports)
    if view.measured and hidden > 0 and shows_ports:
        text.append(f"  the busiest {len(view.ports):,}", "dim")
    return text


def _choice(status: Status, device: str | None) -> Text:
    text = Text()
    if device is not None:
        text.append(f" device {device} ", "bold black on cyan")
    if status.filter:
        text.append(" ").append(f" filter {status.filter} ", "bold black on cyan")
    return text
