"""A text screen as ECMA-48 (ANSI) control sequences, for a terminal front end."""

from __future__ import annotations

from portvisor.devices.vga.text import Cell, TextScreen

_HIDE_CURSOR = "\x1b[?25l"
_SHOW_CURSOR = "\x1b[?25h"
_CLEAR = "\x1b[2J"
_PLAIN = "\x1b[0m"
_SGR_COLOUR = (0, 4, 2, 6, 1, 5, 3, 7)
"""VGA colours have blue in bit 0 and red in bit 2, SGR colours the other way round."""


def render_ansi(screen: TextScreen, previous: TextScreen | None = None, *, true_colour: bool = False) -> str:
    """Sequences that paint `screen` at the terminal's top left corner and place the cursor.

    Args:
        screen: what to show.
        previous: what the terminal shows already: only rows that differ are sent. None repaints all.
        true_colour: send the guest's own palette as 24-bit colours instead of the terminal's 16.
    """
    parts = [_HIDE_CURSOR]
    if previous is None or not _comparable(screen, previous, true_colour):
        parts.append(_PLAIN + _CLEAR)
        previous = None
    for row in range(screen.rows):
        if previous is None or _row(screen, row) != _row(previous, row):
            parts.append(f"\x1b[{row + 1};1H{_paint(screen, screen.row(row), true_colour)}")
    if screen.cursor:
        parts.append(f"\x1b[{screen.cursor.row + 1};{screen.cursor.column + 1}H{_SHOW_CURSOR}")
    return "".join(parts)


def _comparable(screen: TextScreen, previous: TextScreen, true_colour: bool) -> bool:
    """Whether equal codes and attributes look equal on both."""
    return (
        (screen.columns, screen.rows, screen.blinks, screen.underlines)
        == (previous.columns, previous.rows, previous.blinks, previous.underlines)
    ) and (not true_colour or screen.palette == previous.palette)


def _row(screen: TextScreen, row: int) -> tuple[bytes, bytes]:
    return screen.codes[row], screen.attributes[row]


def _paint(screen: TextScreen, cells: list[Cell], true_colour: bool) -> str:
    parts = []
    before = ""
    for cell in cells:
        style = _style(screen, cell, true_colour)
        if style != before:
            parts.append(style)
            before = style
        parts.append(cell.character)
    return "".join(parts) + _PLAIN


def _style(screen: TextScreen, cell: Cell, true_colour: bool) -> str:
    codes = ["0"]
    if cell.underline:
        codes.append("4")
    if cell.blink:
        codes.append("5")
    if true_colour:
        for layer, colour in ((38, cell.foreground), (48, cell.background)):
            red, green, blue = screen.palette[colour]
            codes.append(f"{layer};2;{red};{green};{blue}")
    else:
        codes.append(str(_sgr(30, 90, cell.foreground)))
        codes.append(str(_sgr(40, 100, cell.background)))
    return f"\x1b[{';'.join(codes)}m"


def _sgr(dark: int, bright: int, colour: int) -> int:
    return (bright if colour & 8 else dark) + _SGR_COLOUR[colour & 7]
