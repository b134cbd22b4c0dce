"""Which lines a viewer shows, and in which order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from portvisor.live.columns import Column
from portvisor.live.rates import Line

RANGE = re.compile(r"(?:0x)?([0-9a-f]{1,4})-(?:0x)?([0-9a-f]{1,4})")
NUMBER = re.compile(r"0x[0-9a-f]{1,4}")

Test = Callable[[Line], bool]


def compile_filter(text: str) -> Test:
    """A test of lines. All words must match: a part of the port (3f8), of the device's or a register's name;
    a port (0x60); or a range of ports (3f8-3ff). Case does not matter.
    """
    tests = [_word(word) for word in text.lower().split()]
    return lambda line: all(test(line) for test in tests)


def _word(word: str) -> Test:
    if found := RANGE.fullmatch(word):
        first, last = (int(digits, 16) for digits in found.groups())
        return lambda line: isinstance(line.key, int) and first <= line.key <= last
    if NUMBER.fullmatch(word):
        return lambda line: line.key == int(word, 16)
    return lambda line: word in _searched(line)


def _searched(line: Line) -> str:
    port = f"{line.key:04x}" if isinstance(line.key, int) else ""
    return f"{port} {line.device} {line.read_register} {line.write_register}".lower()


def chosen(
    lines: Iterable[Line], column: Column, descending: bool, wanted: Test, device: str | None = None
) -> list[Line]:
    """The lines that pass, sorted; equal ones by their total, then by their key."""
    passing = [line for line in lines if wanted(line) and device in (None, line.device)]
    passing.sort(key=lambda line: (-line.total, str(line.key).rjust(5)))
    order = column.order
    if order is not None:
        passing.sort(key=order, reverse=descending)
    return passing
