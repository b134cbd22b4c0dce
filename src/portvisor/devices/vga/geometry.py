"""What the CRT controller's registers say: sizes in characters and lines, and the memory address of each fetch.

Source: IBM PS/2 VGA, "CRT Controller Registers"; the table of byte, word and doubleword addressing there. In
doubleword mode that table puts counter bits 12 and 13 on the two lowest address lines; real chips put 14 and 15
there, which is what fits the host's chain-4 addresses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from portvisor.devices.vga.registers import (
    CR14_COUNT_BY_4,
    CR14_DOUBLEWORD,
    CR17_BYTE_MODE,
    CR17_COUNT_BY_2,
    CR17_HALF_LINES,
    CR17_MA13,
    CR17_MA14,
    CR17_WRAP_15,
    CR_DISPLAY_END,
    CR_LINE_COMPARE,
    CR_MAXIMUM_SCAN,
    CR_MODE,
    CR_OFFSET,
    CR_OVERFLOW,
    CR_PRESET_ROW,
    CR_RETRACE_END,
    CR_RETRACE_START,
    CR_START_HIGH,
    CR_START_LOW,
    CR_UNDERLINE,
)

Registers = bytes | bytearray


class ScanLine(NamedTuple):
    """One displayed line: where its fetches start."""

    address: int
    """CRTC address counter (before byte/word/doubleword mapping) of its first character."""
    row_scan: int
    """Line within the character row."""
    split: bool
    """Below the line-compare split."""


@dataclass(frozen=True, slots=True)
class Geometry:
    """The frame. Lines count from 0 at the top of the display area; ends are exclusive."""

    columns: int
    total_columns: int
    lines: int
    total_lines: int
    retrace_start: int
    retrace_end: int
    line_compare: int
    row_lines: int
    repeat: int
    preset_row: int
    start: int
    pitch: int

    @classmethod
    def from_registers(cls, crtc: Registers) -> Geometry:
        """Decode the CRTC; any register contents give a frame with at least one line and column."""
        overflow, scan = crtc[CR_OVERFLOW], crtc[CR_MAXIMUM_SCAN]
        unit = 2 if crtc[CR_MODE] & CR17_HALF_LINES else 1
        retrace = crtc[CR_RETRACE_START] | (overflow & 0x04) << 6 | (overflow & 0x80) << 2
        retrace_lines = (crtc[CR_RETRACE_END] - retrace) & 0xF or 0x10
        compare = crtc[CR_LINE_COMPARE] | (overflow & 0x10) << 4 | (scan & 0x40) << 3
        display_end = crtc[CR_DISPLAY_END] | (overflow & 0x02) << 7 | (overflow & 0x40) << 3
        total = crtc[0x06] | (overflow & 0x01) << 8 | (overflow & 0x20) << 4
        return cls(
            columns=crtc[0x01] + 1,
            total_columns=crtc[0x00] + 5,
            lines=(display_end + 1) * unit,
            total_lines=(total + 2) * unit,
            retrace_start=retrace * unit,
            retrace_end=(retrace + retrace_lines) * unit,
            line_compare=compare * unit,
            row_lines=(scan & 0x1F) + 1,
            repeat=2 if scan & 0x80 else 1,
            preset_row=crtc[CR_PRESET_ROW] & 0x1F,
            start=crtc[CR_START_HIGH] << 8 | crtc[CR_START_LOW],
            pitch=crtc[CR_OFFSET] * 2,
        )

    def scan_lines(self) -> list[ScanLine]:
        """Every displayed line from the top, as the row scan and address counters run."""
        found = []
        address, row, phase, split = self.start, self.preset_row, 0, False
        for line in range(self.lines):
            found.append(ScanLine(address & 0xFFFF, row, split))
            phase += 1
            if phase == self.repeat:
                phase = 0
                row = (row + 1) & 0x1F
                if row == self.row_lines & 0x1F:
                    row = 0
                    address += self.pitch
            if line == self.line_compare:
                address, row, phase, split = 0, 0, 0, True
        return found


def text_rows(lines: list[ScanLine]) -> list[ScanLine]:
    """The first scan line of each row of characters."""
    found: list[ScanLine] = []
    before: ScanLine | None = None
    for line in lines:
        if before is None or line.row_scan < before.row_scan or line[::2] != before[::2]:
            found.append(line)
        before = line
    return found


def map_addresses(crtc: Registers, address: int, count: int, row_scan: int) -> list[int]:
    """Addresses within a map of `count` fetches from address counter `address` on."""
    mode, underline = crtc[CR_MODE], crtc[CR_UNDERLINE]
    slow = 2 if underline & CR14_COUNT_BY_4 else 1 if mode & CR17_COUNT_BY_2 else 0
    counters = [(address + (step >> slow)) & 0xFFFF for step in range(count)]
    if underline & CR14_DOUBLEWORD:
        counters = [at << 2 & 0xFFFC | at >> 14 for at in counters]
    elif not mode & CR17_BYTE_MODE:
        wrap = 15 if mode & CR17_WRAP_15 else 13
        counters = [at << 1 & 0xFFFE | at >> wrap & 1 for at in counters]
    replaced, substitute = 0, 0
    if not mode & CR17_MA13:
        replaced, substitute = 0x2000, (row_scan & 1) << 13
    if not mode & CR17_MA14:
        replaced, substitute = replaced | 0x4000, substitute | (row_scan & 2) << 13
    if replaced:
        counters = [at & ~replaced | substitute for at in counters]
    return counters
