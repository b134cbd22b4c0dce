"""From the attribute controller's colours to RGB: palette registers, colour select, PEL mask and DAC.

Source: IBM PS/2 VGA, "Attribute Controller Registers", "Video Digital-to-Analog Converter".
"""

from __future__ import annotations

from collections.abc import Iterable

from portvisor.devices.vga.registers import (
    AR10_SELECT_54,
    AR_COLOUR_SELECT,
    AR_MODE,
    AR_OVERSCAN,
    AR_PLANE_ENABLE,
    GR5_256_COLOURS,
    GR_MODE,
)
from portvisor.devices.vga.state import VgaState
from portvisor.devices.vga.vbe import EIGHT_BIT_DAC

Rgb = tuple[int, int, int]
ColourTables = tuple[bytes, bytes, bytes]
"""Red, green and blue (0-255) of each pixel value: three tables for `bytes.translate`."""


def dac_tables(state: VgaState) -> ColourTables:
    """Tables for pixel values that go to the DAC as they are (8 bits a pixel)."""
    return _through_dac(state, range(256))


def colour_tables(state: VgaState) -> ColourTables:
    """Tables for the pixel values of the present VGA mode: 4 bits through the palette registers, or 8 bits."""
    if state.graphics[GR_MODE] & GR5_256_COLOURS:
        return dac_tables(state)
    enabled = state.attribute[AR_PLANE_ENABLE] & 0xF
    return _through_dac(state, (_palette(state, value & enabled) for value in range(16)))


def text_palette(state: VgaState) -> tuple[Rgb, ...]:
    """RGB of the 16 attribute colours."""
    red, green, blue = colour_tables(state)
    return tuple(zip(red[:16], green[:16], blue[:16], strict=True))


def overscan(state: VgaState) -> Rgb:
    """RGB of the border."""
    red, green, blue = _through_dac(state, (state.attribute[AR_OVERSCAN],))
    return red[0], green[0], blue[0]


def _palette(state: VgaState, value: int) -> int:
    """DAC address of a 4-bit attribute colour."""
    select, colour = state.attribute[AR_COLOUR_SELECT], state.attribute[value]
    if state.attribute[AR_MODE] & AR10_SELECT_54:
        colour = colour & 0xF | (select & 3) << 4
    return colour | (select >> 2 & 3) << 6


def _through_dac(state: VgaState, indices: Iterable[int]) -> ColourTables:
    dac = state.dac
    entries = [3 * (index & dac.mask) for index in indices]
    wide = state.vbe.enable & EIGHT_BIT_DAC
    levels = dac.palette if wide else bytes((level << 2 | level >> 4) & 0xFF for level in dac.palette)
    red, green, blue = (bytes(levels[at + part] for at in entries).ljust(256, b"\0") for part in range(3))
    return red, green, blue
