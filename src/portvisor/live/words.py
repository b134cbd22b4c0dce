"""Numbers and curves as a viewer shows them, in few characters."""

from __future__ import annotations

from collections.abc import Sequence

from portvisor.ports import NS_PER_S

BARS = " ▁▂▃▄▅▆▇█"
STEPS = len(BARS) - 1
NOTHING = "·"
"""A rate of none."""


def rate(value: float) -> str:
    """Events a second: 0.3, 27, 12,345, 1.23M."""
    if value <= 0:
        return NOTHING
    if value < 9.95:
        return f"{value:.1f}"
    if value < 999_999.5:
        return f"{value:,.0f}"
    return f"{value / 1e6:.2f}M"


def volume(value: float) -> str:
    """Bytes a second: 512, 4.1k, 1.2M."""
    if value <= 0:
        return NOTHING
    for unit in ("", "k", "M", "G"):
        if value < 999.5:
            return f"{value:.1f}{unit}" if unit and value < 99.95 else f"{max(1.0, value):.0f}{unit}"
        value /= 1000
    return f"{value:.0f}T"


def percent(value: float) -> str:
    """A share: 12.3%, <0.1%."""
    if value <= 0:
        return NOTHING
    if value < 0.0005:
        return "<0.1%"
    return f"{value:.1%}" if value < 0.9995 else f"{value:.0%}"


def duration(ns: float) -> str:
    """A handler's time: 310ns, 1.2µs, 4.5ms."""
    if ns <= 0:
        return NOTHING
    if ns < 999.5:
        return f"{ns:.0f}ns"
    if ns < 999_950:
        return f"{ns / 1e3:.1f}µs"
    return f"{ns / 1e6:.1f}ms" if ns < 1e9 else f"{ns / 1e9:.1f}s"


def clock(ns: int) -> str:
    """A machine's time: 0:07, 12:34, 1:02:03."""
    seconds = ns // NS_PER_S
    hours, minutes = seconds // 3600, seconds // 60 % 60
    return f"{hours}:{minutes:02}:{seconds % 60:02}" if hours else f"{minutes}:{seconds % 60:02}"


def curve(values: Sequence[float], width: int, height: int = 1) -> list[str]:
    """The newest `width` values as bars, the newest at the right; any value above 0 shows.

    A bar never fills its topmost cell, so that it does not touch what is above.
    """
    shown = list(values)[-width:] if width > 0 else []
    top = max(shown, default=0.0)
    levels = [max(1, round(value / top * (height * STEPS - 1))) if value > 0 else 0 for value in shown]
    rows = []
    for row in reversed(range(height)):
        cells = (BARS[min(STEPS, max(0, level - row * STEPS))] for level in levels)
        rows.append("".join(cells).rjust(max(0, width)))
    return rows


def bar(share: float, width: int) -> str:
    """A share as a horizontal bar of eighths."""
    eighths = round(min(1.0, max(0.0, share)) * width * 8)
    if share > 0:
        eighths = max(1, eighths)
    full, rest = divmod(eighths, 8)
    return ("█" * full + (" ▏▎▍▌▋▊▉"[rest] if rest else "")).ljust(width)
