"""The guest's VGA text screen in the user's terminal, and the user's keys on the guest's keyboard."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import TracebackType
from typing import Self

from portvisor.backends.char import EscapeFilter, RawTerminal
from portvisor.devices.ps2_scancodes import key_of
from portvisor.devices.vga import TextScreen, render_ansi
from portvisor.machines.pc_like import PcLike

FRAME_NS = 50_000_000
READ_SIZE = 256
LEAVE_SCREEN = "\x1b[0m\x1b[?25h\x1b[?1049l"
ENTER_SCREEN = "\x1b[?1049h\x1b[2J"
GRAPHICS_NOTE = "\x1b[H\x1b[2J(the guest has switched to a graphics mode; --screenshot FILE.png shows it)"

SEQUENCES = {
    b"\x1b[A": "up", b"\x1b[B": "down", b"\x1b[C": "right", b"\x1b[D": "left", b"\x1b[H": "home",
    b"\x1b[F": "end", b"\x1b[2~": "insert", b"\x1b[3~": "delete", b"\x1b[5~": "pageup",
    b"\x1b[6~": "pagedown", b"\x1bOP": "f1", b"\x1bOQ": "f2", b"\x1bOR": "f3", b"\x1bOS": "f4",
    b"\x1b[15~": "f5", b"\x1b[17~": "f6", b"\x1b[18~": "f7", b"\x1b[19~": "f8", b"\x1b[20~": "f9",
    b"\x1b[21~": "f10", b"\x1b[23~": "f11", b"\x1b[24~": "f12",
}  # fmt: skip
"""What terminals send for keys that are no characters (ECMA-48 and xterm)."""
SINGLE = {0x1B: "esc", 0x0D: "enter", 0x0A: "enter", 0x09: "tab", 0x08: "backspace", 0x7F: "backspace"}


def decode_keys(data: bytes) -> list[tuple[str, ...]]:
    """Key strokes for what a terminal sent; what no key types is left out."""
    strokes: list[tuple[str, ...]] = []
    place = 0
    while place < len(data):
        sequence = next((one for one in SEQUENCES if data.startswith(one, place)), None)
        if sequence:
            strokes.append((SEQUENCES[sequence],))
            place += len(sequence)
            continue
        strokes += _stroke(data[place])
        place += 1
    return strokes


def _stroke(code: int) -> list[tuple[str, ...]]:
    if code in SINGLE:
        return [(SINGLE[code],)]
    if 1 <= code <= 26:
        return [("leftctrl", chr(code + 0x60))]
    try:
        key, shift = key_of(chr(code))
    except ValueError:
        return []
    return [("leftshift", key) if shift else (key,)]


class ScreenConsole:
    """A host input of the machine; draws on the machine's clock. Use it in a `with` block."""

    def __init__(self, machine: PcLike, on_command: Callable[[str], None]) -> None:
        self._machine = machine
        self._filter = EscapeFilter(on_command)
        self._terminal = RawTerminal(0, signals=False)
        self._timer = machine.clock.timer(self._draw, "screen")
        self._input = 0
        self._shown: TextScreen | None = None
        self._generation = -1

    def __enter__(self) -> Self:
        self._terminal.__enter__()
        self._write(ENTER_SCREEN)
        self._timer.arm(self._machine.clock.now() + FRAME_NS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.disarm()
        self._write(LEAVE_SCREEN)
        self._terminal.__exit__(kind, error, trace)

    def fileno(self) -> int:
        """Standard input."""
        return self._input

    def on_readable(self) -> None:
        """Pass keys on."""
        data = os.read(self._input, READ_SIZE)
        if not data:
            self._input = -1
        for stroke in decode_keys(self._filter.feed(data)):
            self._machine.keyboard.tap(*stroke)

    def _draw(self) -> None:
        vga = self._machine.screen
        if vga.generation != self._generation:
            self._generation = vga.generation
            screen = vga.screen()
            if screen is None:
                self._write(GRAPHICS_NOTE)
            else:
                self._write(render_ansi(screen, self._shown))
            self._shown = screen
        self._timer.arm(self._machine.clock.now() + FRAME_NS)

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
