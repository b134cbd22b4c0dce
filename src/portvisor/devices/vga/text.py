"""The screen of a text mode as characters: what stands where, in which colours, and where the cursor is.

Source: IBM PS/2 VGA, "Alphanumeric modes", "Character map select", "Cursor start/end".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from portvisor.devices.vga.colours import Rgb, text_palette
from portvisor.devices.vga.geometry import Geometry, map_addresses, text_rows
from portvisor.devices.vga.registers import (
    AR10_BLINK,
    AR_MODE,
    CR_CURSOR_END,
    CR_CURSOR_HIGH,
    CR_CURSOR_LOW,
    CR_CURSOR_START,
    CR_UNDERLINE,
    GR6_GRAPHICS,
    GR_MISC,
)
from portvisor.devices.vga.state import VgaState
from portvisor.devices.vga.vbe import ENABLED

CURSOR_OFF: Final = 0x20
ATTRIBUTE_BLINK: Final = 0x80
UNDERLINE_BITS: Final = 0x77
UNDERLINED: Final = 0x01
"""The attribute (blink and intensity aside) that is underlined, if the underline row is in the cell."""

_CONTROL_GLYPHS = " ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼"
CP437: Final = (
    _CONTROL_GLYPHS + bytes(range(0x20, 0x7F)).decode() + "⌂" + bytes(range(0x80, 0xFF)).decode("cp437") + " "
)
"""The 256 glyphs of the PC's code page as Unicode; 00 and FF are blank."""


@dataclass(frozen=True, slots=True)
class Cell:
    """One character position. Colours are attribute colours, 0-15."""

    character: str
    code: int
    foreground: int
    background: int
    blink: bool
    underline: bool


@dataclass(frozen=True, slots=True)
class Cursor:
    """The visible cursor: its cell, and the scan lines of the cell that it covers (both ends included)."""

    row: int
    column: int
    first_line: int
    last_line: int


@dataclass(frozen=True, slots=True)
class TextScreen:
    """A text screen at one moment. Two screens are equal if they look the same."""

    columns: int
    codes: tuple[bytes, ...]
    """Character codes, one string a row."""
    attributes: tuple[bytes, ...]
    """Attribute bytes, in the same shape."""
    cursor: Cursor | None
    """None if it is off or outside the screen."""
    blinks: bool
    """Attribute bit 7 means blink, not a bright background."""
    underlines: bool
    """The underline row lies within the character cell."""
    palette: tuple[Rgb, ...]
    """RGB of the 16 attribute colours."""

    @property
    def rows(self) -> int:
        """Rows of characters."""
        return len(self.codes)

    def lines(self) -> list[str]:
        """The rows as text of full width."""
        return ["".join(map(CP437.__getitem__, row)) for row in self.codes]

    def cell(self, row: int, column: int) -> Cell:
        """One position.

        Raises:
            IndexError: it is not on the screen.
        """
        return self.decode(self.codes[row][column], self.attributes[row][column])

    def row(self, row: int) -> list[Cell]:
        """The positions of a row.

        Raises:
            IndexError: it is not on the screen.
        """
        return list(map(self.decode, self.codes[row], self.attributes[row]))

    def cells(self) -> list[list[Cell]]:
        """All positions, by row."""
        return [self.row(row) for row in range(self.rows)]

    def decode(self, code: int, attribute: int) -> Cell:
        """What a character code and an attribute byte look like on this screen."""
        background, blink = attribute >> 4, False
        if self.blinks:
            background, blink = background & 7, bool(attribute & ATTRIBUTE_BLINK)
        underline = self.underlines and attribute & UNDERLINE_BITS == UNDERLINED
        return Cell(CP437[code], code, attribute & 0xF, background, blink, underline)


def is_text(state: VgaState) -> bool:
    """Whether the display is in an alphanumeric mode."""
    return not state.vbe.enable & ENABLED and not state.graphics[GR_MISC] & GR6_GRAPHICS


def read_text(state: VgaState) -> TextScreen | None:
    """The text screen, or None in a graphics mode."""
    if not is_text(state):
        return None
    crtc = state.crtc
    geometry = Geometry.from_registers(crtc)
    starts = [row.address for row in text_rows(geometry.scan_lines())]
    places = [map_addresses(crtc, start, geometry.columns, 0) for start in starts]
    characters, attributes = state.planes[0], state.planes[1]
    return TextScreen(
        columns=geometry.columns,
        codes=tuple(bytes(map(characters.__getitem__, row)) for row in places),
        attributes=tuple(bytes(map(attributes.__getitem__, row)) for row in places),
        cursor=_cursor(crtc, starts, geometry),
        blinks=bool(state.attribute[AR_MODE] & AR10_BLINK),
        underlines=crtc[CR_UNDERLINE] & 0x1F < geometry.row_lines,
        palette=text_palette(state),
    )


def _cursor(crtc: bytes | bytearray, starts: list[int], geometry: Geometry) -> Cursor | None:
    first, last = crtc[CR_CURSOR_START] & 0x1F, crtc[CR_CURSOR_END] & 0x1F
    if crtc[CR_CURSOR_START] & CURSOR_OFF or first > last or first >= geometry.row_lines:
        return None
    location = crtc[CR_CURSOR_HIGH] << 8 | crtc[CR_CURSOR_LOW]
    for row, start in enumerate(starts):
        column = (location - start) & 0xFFFF
        if column < geometry.columns:
            return Cursor(row, column, first, min(last, geometry.row_lines - 1))
    return None
