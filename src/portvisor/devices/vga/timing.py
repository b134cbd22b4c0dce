"""Where the beam is: display enable and vertical retrace from the clock and the CRT controller's timing.

Drivers spin on input status 1. Its bits follow the clock, so that software paced by the retrace runs at the
right speed, with two promises that keep a spinning driver from hanging:

* A read takes at least the 1 us that an ISA bus cycle takes: if the clock moved less since the last read, the
  beam is moved on by the rest.
* If the clock did not move at all (a virtual clock that nobody advances), the beam moves to the next change of a
  bit. Each read of a stopped clock so shows another state, and no wait takes more reads than a frame has edges.

Timings that would never end the display or the retrace are clamped to ones that do.
"""

from __future__ import annotations

from dataclasses import dataclass

from portvisor.devices.vga.geometry import Geometry, Registers
from portvisor.devices.vga.registers import (
    MISC_CLOCK_SHIFT,
    SR1_8_DOTS,
    SR1_HALF_CLOCK,
    STATUS1_BLANK,
    STATUS1_RETRACE,
)
from portvisor.ports import NS_PER_S

DOT_CLOCKS = (25_175_000, 28_322_000, 25_175_000, 25_175_000)
"""Hz by clock select (misc output bits 3:2); the two external inputs are not connected and taken as the first."""
READ_TIME = 1_000
"""ns that a read of a port takes at least."""


@dataclass(frozen=True, slots=True)
class BeamTiming:
    """One frame in dots and lines."""

    dot_clock: int
    line_dots: int
    display_dots: int
    frame_lines: int
    display_lines: int
    retrace_start: int
    retrace_end: int

    @classmethod
    def from_registers(cls, misc: int, clocking: int, crtc: Registers) -> BeamTiming:
        """Timing from misc output, the sequencer's clocking mode and the CRTC."""
        frame = Geometry.from_registers(crtc)
        dots = 8 if clocking & SR1_8_DOTS else 9
        retrace_start, retrace_end = frame.retrace_start, min(frame.retrace_end, frame.total_lines)
        if retrace_start >= frame.total_lines or retrace_end - retrace_start == frame.total_lines:
            retrace_start, retrace_end = frame.total_lines - 1, frame.total_lines
        return cls(
            dot_clock=DOT_CLOCKS[misc >> MISC_CLOCK_SHIFT & 3] >> (1 if clocking & SR1_HALF_CLOCK else 0),
            line_dots=frame.total_columns * dots,
            display_dots=min(frame.columns, frame.total_columns - 1) * dots,
            frame_lines=frame.total_lines,
            display_lines=min(frame.lines, frame.total_lines),
            retrace_start=retrace_start,
            retrace_end=retrace_end,
        )

    @property
    def frame_dots(self) -> int:
        """Dots from one top left corner to the next."""
        return self.line_dots * self.frame_lines

    def _position(self, ns: int) -> tuple[int, int]:
        """Dots since time 0 at the start of the frame, and within it."""
        dot = ns * self.dot_clock // NS_PER_S
        within = dot % self.frame_dots
        return dot - within, within

    def _time(self, dot: int) -> int:
        """First ns at which the beam has reached `dot`."""
        return -(-dot * NS_PER_S // self.dot_clock)

    def status(self, ns: int) -> int:
        """Bits 0 and 3 of input status 1."""
        line, dot = divmod(self._position(ns)[1], self.line_dots)
        status = 0 if line < self.display_lines and dot < self.display_dots else STATUS1_BLANK
        if self.retrace_start <= line < self.retrace_end:
            status |= STATUS1_RETRACE
        return status

    def next_edge(self, ns: int) -> int:
        """Time at which the beam next reaches a place where a bit can change; later than `ns`."""
        frame, within = self._position(ns)
        line, dot = divmod(within, self.line_dots)
        if line < self.display_lines and dot < self.display_dots:
            edge = line * self.line_dots + self.display_dots
        elif line + 1 < self.display_lines:
            edge = (line + 1) * self.line_dots
        else:
            later = (self.retrace_start, self.retrace_end)
            edge = min((at for at in later if at > line), default=self.frame_lines) * self.line_dots
        return self._time(frame + edge)

    def next_retrace(self, ns: int) -> int:
        """Time at which vertical retrace next begins; later than `ns`."""
        frame, within = self._position(ns)
        start = self.retrace_start * self.line_dots
        return self._time(frame + start + (self.frame_dots if within >= start else 0))
