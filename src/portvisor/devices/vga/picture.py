"""The screen as a picture: text with the loaded font, planar, CGA and 256-colour graphics, and VBE modes.

The picture is the display area in the mode's own pixels: no border, lines that the CRTC repeats are drawn once in
graphics modes, and each pixel of a half-rate mode once. Source: IBM PS/2 VGA, "Modes of operation", "Graphics mode
register", "Horizontal PEL panning"; `vbe` for the VBE modes.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from portvisor.devices.vga.colours import ColourTables, Rgb, colour_tables, dac_tables, overscan
from portvisor.devices.vga.geometry import Geometry, ScanLine, map_addresses, text_rows
from portvisor.devices.vga.png import encode_png
from portvisor.devices.vga.registers import (
    AR10_LINE_GRAPHICS,
    AR10_PAN_TOP_ONLY,
    AR_MODE,
    AR_PANNING,
    AR_PAS,
    CR17_MA13,
    CR17_MA14,
    CR_MODE,
    CR_PRESET_ROW,
    CR_UNDERLINE,
    GR5_256_COLOURS,
    GR5_INTERLEAVE,
    GR_MODE,
    SR1_8_DOTS,
    SR1_SCREEN_OFF,
    SR4_EXTENDED,
    SR_CLOCKING,
    SR_FONT,
    SR_MEMORY,
)
from portvisor.devices.vga.state import PLANE_SIZE, VbeState, VgaState
from portvisor.devices.vga.text import Cell, Cursor, TextScreen, is_text, read_text
from portvisor.devices.vga.vbe import ENABLED, LinearMemory, line_bytes

GLYPH_STRIDE = 32
"""Bytes from one character's pattern to the next in map 2."""
FONT_OFFSETS = (0x0000, 0x4000, 0x8000, 0xC000, 0x2000, 0x6000, 0xA000, 0xE000)
LINE_GRAPHICS = range(0xC0, 0xE0)
"""Codes whose ninth dot repeats the eighth, so that lines join."""

RowReader = Callable[[ScanLine], bytes]
"""Pixel values of a scan line, without panning."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image of 8-bit RGB pixels, rows from the top."""

    width: int
    height: int
    rgb: bytes

    def pixel(self, x: int, y: int) -> Rgb:
        """The colour at a place."""
        at = 3 * (y * self.width + x)
        red, green, blue = self.rgb[at : at + 3]
        return red, green, blue

    def png(self) -> bytes:
        """The picture as a PNG file's contents."""
        return encode_png(self.width, self.height, self.rgb)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a PNG file, whole or not at all.

        Raises:
            OSError: the file cannot be written.
        """
        target = Path(path)
        part = target.with_name(f".{target.name}.part")
        try:
            part.write_bytes(self.png())
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


def render(state: VgaState, *, blink_on: bool = True) -> Picture:
    """What the monitor shows. `blink_on` is the phase of blinking characters and of the cursor."""
    if state.vbe.enable & ENABLED:
        return _render_vbe(state)
    if is_text(state):
        return _render_text(state, blink_on)
    return _render_graphics(state)


def _blanked(state: VgaState) -> Rgb | None:
    """The one colour of a screen that is turned off."""
    if state.sequencer[SR_CLOCKING] & SR1_SCREEN_OFF:
        return 0, 0, 0
    return None if state.attribute_index & AR_PAS else overscan(state)


def _coloured(width: int, height: int, pixels: bytes, tables: ColourTables) -> Picture:
    rgb = bytearray(3 * width * height)
    for part, table in enumerate(tables):
        rgb[part::3] = pixels.translate(table)
    return Picture(width, height, bytes(rgb))


# --- text -----------------------------------------------------------------------------------------------


def _render_text(state: VgaState, blink_on: bool) -> Picture:
    screen = read_text(state)
    assert screen is not None
    geometry = Geometry.from_registers(state.crtc)
    dots = 8 if state.sequencer[SR_CLOCKING] & SR1_8_DOTS else 9
    width, lines = screen.columns * dots, geometry.scan_lines()
    blank = _blanked(state)
    if blank is not None:
        return Picture(width, len(lines), bytes(blank) * (width * len(lines)))
    painter = _TextPainter(state, screen, dots, blink_on)
    first_lines = iter(text_rows(lines))
    upcoming, row = next(first_lines, None), -1
    pixels = []
    for line in lines:
        if line is upcoming:
            row, upcoming = row + 1, next(first_lines, None)
        pixels.append(painter.line(row, line.row_scan, _pan(state, line, dots)))
    return _coloured(width, len(lines), b"".join(pixels), colour_tables(state))


class _TextPainter:
    """Draws scan lines of a text screen from the font in map 2."""

    def __init__(self, state: VgaState, screen: TextScreen, dots: int, blink_on: bool) -> None:
        self._font = state.planes[2]
        self._maps = _font_maps(state)
        self._screen = screen
        self._dots = dots
        self._joins = bool(state.attribute[AR_MODE] & AR10_LINE_GRAPHICS)
        self._underline = state.crtc[CR_UNDERLINE] & 0x1F
        self._blink_on = blink_on
        self._patterns = [_Patterns(screen.decode, self._pattern, scan) for scan in range(GLYPH_STRIDE)]

    def line(self, row: int, scan: int, pan: int) -> bytes:
        """Pixel values of one scan line of a row of characters, moved left by `pan`."""
        screen = self._screen
        cells = zip(screen.codes[row], screen.attributes[row], strict=True)
        parts = list(map(self._patterns[scan].__getitem__, cells))
        if screen.cursor and screen.cursor.row == row and self._blink_on and _covers(screen.cursor, scan):
            column = screen.cursor.column
            parts[column] = bytes((screen.cell(row, column).foreground,)) * self._dots
        line = b"".join(parts)
        return line[pan:] + bytes((screen.cell(row, -1).background,)) * pan

    def _pattern(self, cell: Cell, scan: int) -> bytes:
        bits, colours = self._bits(cell, scan), (cell.background, cell.foreground)
        return bytes(colours[bits >> 8 - dot & 1] for dot in range(self._dots))

    def _bits(self, cell: Cell, scan: int) -> int:
        """Nine dots of a cell, the leftmost in bit 8."""
        if cell.blink and not self._blink_on:
            return 0
        if cell.underline and scan == self._underline:
            return 0x1FF
        base = self._maps[cell.foreground >> 3]
        bits = self._font[base + cell.code * GLYPH_STRIDE + scan]
        return bits << 1 | (bits & 1 if self._joins and cell.code in LINE_GRAPHICS else 0)


class _Patterns(dict[tuple[int, int], bytes]):
    """Pixel values of one line of a cell by (code, attribute), drawn at first use."""

    def __init__(self, decode: Callable[[int, int], Cell], draw: Callable[[Cell, int], bytes], scan: int) -> None:
        super().__init__()
        self._decode = decode
        self._draw = draw
        self._scan = scan

    def __missing__(self, key: tuple[int, int]) -> bytes:
        pattern = self[key] = self._draw(self._decode(*key), self._scan)
        return pattern


def _font_maps(state: VgaState) -> tuple[int, int]:
    """Where the fonts for attribute bit 3 = 0 and 1 start in map 2."""
    select = state.sequencer[SR_FONT] if state.sequencer[SR_MEMORY] & SR4_EXTENDED else 0
    map_b = select & 3 | (select >> 4 & 1) << 2
    map_a = select >> 2 & 3 | (select >> 5 & 1) << 2
    return FONT_OFFSETS[map_b], FONT_OFFSETS[map_a]


def _covers(cursor: Cursor, scan: int) -> bool:
    return cursor.first_line <= scan <= cursor.last_line


def _pan(state: VgaState, line: ScanLine, dots: int) -> int:
    """Pixels by which a line moves left (attribute register 13)."""
    if line.split and state.attribute[AR_MODE] & AR10_PAN_TOP_ONLY:
        return 0
    panning = state.attribute[AR_PANNING]
    if dots == 9:
        return (panning + 1) % 9 if panning < 9 else 0
    if dots == 4:
        return panning >> 1 & 3
    return panning & 7


# --- graphics -------------------------------------------------------------------------------------------


def _render_graphics(state: VgaState) -> Picture:
    geometry = Geometry.from_registers(state.crtc)
    dots = 4 if state.graphics[GR_MODE] & GR5_256_COLOURS else 8
    width = geometry.columns * dots
    lines = geometry.scan_lines()[:: _line_repeat(state, geometry)]
    blank = _blanked(state)
    if blank is not None:
        return Picture(width, len(lines), bytes(blank) * (width * len(lines)))
    read = _row_reader(state, geometry.columns + 1)
    rows = []
    for line in lines:
        pan = _pan(state, line, dots)
        rows.append(read(line)[pan : pan + width])
    return _coloured(width, len(lines), b"".join(rows), colour_tables(state))


def _line_repeat(state: VgaState, geometry: Geometry) -> int:
    """How often the CRTC shows each line of pixels."""
    selects = ~state.crtc[CR_MODE] & (CR17_MA13 | CR17_MA14)
    return geometry.repeat if selects else geometry.repeat * geometry.row_lines


def _row_reader(state: VgaState, columns: int) -> RowReader:
    mode, planes, crtc = state.graphics[GR_MODE], state.planes, state.crtc
    decode = _packed_pixels if mode & GR5_256_COLOURS else _cga_pixels if mode & GR5_INTERLEAVE else planar_pixels

    def read(line: ScanLine) -> bytes:
        top_only = line.split and state.attribute[AR_MODE] & AR10_PAN_TOP_ONLY
        byte_pan = 0 if top_only else crtc[CR_PRESET_ROW] >> 5 & 3
        places = map_addresses(crtc, line.address + byte_pan, columns, line.row_scan)
        return decode([bytes(map(plane.__getitem__, places)) for plane in planes])

    return read


def _bit_patterns(plane: int) -> list[bytes]:
    """For each byte of a map: its eight pixels, with the map's bit set where the pixel's is."""
    return [bytes((value >> 7 - dot & 1) << plane for dot in range(8)) for value in range(256)]


_PIXELS = tuple(_bit_patterns(plane) for plane in range(4))
_PAIRS_LOW = [bytes(value >> 6 - 2 * dot & 3 for dot in range(4)) for value in range(256)]
_PAIRS_HIGH = [bytes((value >> 6 - 2 * dot & 3) << 2 for dot in range(4)) for value in range(256)]


def _merge(parts: list[bytes]) -> bytes:
    """OR of equally long byte strings."""
    merged = 0
    for part in parts:
        merged |= int.from_bytes(part, "little")
    return merged.to_bytes(len(parts[0]), "little")


def planar_pixels(maps: list[bytes]) -> bytes:
    """Pixel values of consecutive bytes of the four maps, one bit a map."""
    return _merge(
        [b"".join(map(table.__getitem__, data)) for table, data in zip(_PIXELS, maps, strict=True)],
    )


def _cga_pixels(maps: list[bytes]) -> bytes:
    """Shift register interleave: maps 0, 1 in turn give bits 1:0 of four pixels each, maps 2, 3 bits 3:2."""
    low, high = bytearray(2 * len(maps[0])), bytearray(2 * len(maps[0]))
    low[0::2], low[1::2], high[0::2], high[1::2] = maps
    return _merge([b"".join(map(_PAIRS_LOW.__getitem__, low)), b"".join(map(_PAIRS_HIGH.__getitem__, high))])


def _packed_pixels(maps: list[bytes]) -> bytes:
    """256 colours: a byte of each map in turn."""
    pixels = bytearray(4 * len(maps[0]))
    for plane, data in enumerate(maps):
        pixels[plane::4] = data
    return bytes(pixels)


# --- VBE ------------------------------------------------------------------------------------------------


def _render_vbe(state: VgaState) -> Picture:
    vbe = state.vbe
    if vbe.bits_per_pixel == 4:
        return _render_vbe_planar(state)
    depth = vbe.bits_per_pixel
    pitch, pixel_size = line_bytes(vbe.virtual_width, depth), (depth + 7) // 8
    rows = _linear_rows(vbe, pitch, pixel_size)
    if depth == 8:
        return _coloured(vbe.x_resolution, vbe.y_resolution, rows, dac_tables(state))
    channels = _channels_16(rows, depth) if pixel_size == 2 else [rows[part::pixel_size] for part in (2, 1, 0)]
    rgb = bytearray(3 * vbe.x_resolution * vbe.y_resolution)
    for part, channel in enumerate(channels):
        rgb[part::3] = channel
    return Picture(vbe.x_resolution, vbe.y_resolution, bytes(rgb))


def _linear_rows(vbe: VbeState, pitch: int, pixel_size: int) -> bytes:
    """The bytes of the displayed pixels, without the rest of each line."""
    memory = LinearMemory(0)
    memory.banks = vbe.memory
    start = vbe.y_offset * pitch + vbe.x_offset * pixel_size
    length = vbe.x_resolution * pixel_size
    return b"".join(memory.read(start + row * pitch, length) for row in range(vbe.y_resolution))


def _scaled(values: list[int], bits: int) -> bytes:
    return bytes(value << 8 - bits | value >> 2 * bits - 8 for value in values)


def _channels_16(data: bytes, depth: int) -> list[bytes]:
    """Red, green and blue of pixels of 5:5:5 or 5:6:5 bits."""
    low, high = data[0::2], data[1::2]
    green_bits = depth - 10
    top = 2 if depth == 15 else 3
    red = high.translate(_scaled([value >> top & 0x1F for value in range(256)], 5))
    blue = low.translate(_scaled([value & 0x1F for value in range(256)], 5))
    upper = high.translate(bytes((value << 3) & (1 << green_bits) - 1 for value in range(256)))
    lower = low.translate(bytes(value >> 5 for value in range(256)))
    levels = _scaled([value & (1 << green_bits) - 1 for value in range(256)], green_bits)
    return [red, _merge([upper, lower]).translate(levels), blue]


def _render_vbe_planar(state: VgaState) -> Picture:
    vbe = state.vbe
    pitch, count = line_bytes(vbe.virtual_width, 4), (vbe.x_resolution + 7) // 8 + 1
    skip = vbe.x_offset & 7
    rows = []
    for row in range(vbe.y_resolution):
        start = (vbe.y_offset + row) * pitch + (vbe.x_offset >> 3)
        pixels = planar_pixels([_map_bytes(state, plane, start, count) for plane in range(4)])
        rows.append(pixels[skip : skip + vbe.x_resolution])
    return _coloured(vbe.x_resolution, vbe.y_resolution, b"".join(rows), colour_tables(state))


def _map_bytes(state: VgaState, plane: int, start: int, count: int) -> bytes:
    """Bytes of one map across its 64 KiB banks."""
    data = b""
    while len(data) < count:
        bank, at = divmod(start + len(data), PLANE_SIZE)
        planes = state.planes if bank == 0 else state.upper_planes.get(bank)
        piece = min(count - len(data), PLANE_SIZE - at)
        data += bytes(planes[plane][at : at + piece]) if planes else bytes(piece)
    return data
