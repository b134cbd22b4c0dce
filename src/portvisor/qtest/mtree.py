"""The I/O space in what QEMU's monitor prints for `info mtree -f`.

A flat view is a block of text; the one whose address space (AS) is "I/O" lists every port once::

    FlatView #0
     AS "I/O", root: io
     Root memory region: io
      0000000000000020-0000000000000021 (prio 0, i/o): pic
      0000000000000022-000000000000003f (prio 0, i/o): io @0000000000000022

Rows of the root region itself (`io`) are ports that nobody owns.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from portvisor.ports.range import PORT_COUNT

_VIEW = re.compile(r"FlatView #\d+")
_SPACE = re.compile(r' AS "(?P<name>[^"]*)", root: .*')
_ROOT = re.compile(r" Root memory region: (?P<name>.+)")
_ROW = re.compile(
    r"  (?P<start>[0-9a-f]{16})-(?P<end>[0-9a-f]{16}) \(prio -?\d+, [^)]*\): (?P<name>.+?)(?: @[0-9a-f]{16})?"
)
_SPACE_NAME = "I/O"
_ROW_FORM = '"  0000000000000020-0000000000000021 (prio 0, i/o): pic"'


class MtreeError(ValueError):
    """A malformed file. The text says where, what is there and what was expected."""

    def __init__(self, source: str, line: int, problem: str) -> None:
        self.line = line
        """Line number, from 1."""
        super().__init__(f"{source}:{line}: {problem}")


@dataclass(frozen=True, slots=True)
class Region:
    """Ports `start` to `end` (inclusive) of one of QEMU's memory regions."""

    start: int
    end: int
    name: str


def parse_mtree(text: str, source: str = "info mtree -f") -> tuple[Region, ...]:
    """The owned ports of the I/O space, in order.

    Args:
        text: what the monitor printed; a prompt or other lines around it do not matter.
        source: what to call it in errors: a file name.

    Raises:
        MtreeError: there is no I/O space in it, or a row of it is malformed.
    """
    lines = text.splitlines()
    start = _io_view(lines, source)
    regions: list[Region] = []
    root = ""
    expected = 0
    for number, line in _body(lines, start):
        if found := _ROOT.fullmatch(line):
            root = found["name"]
        elif not _SPACE.fullmatch(line):
            region = _row(line, source, number)
            if region.start != expected:
                raise MtreeError(
                    source, number, f"the row starts at {region.start:#06x}, expected {expected:#06x}, where "
                    "the row before ends"
                )  # fmt: skip
            expected = region.end + 1
            regions.append(region)
    if expected != PORT_COUNT:
        raise MtreeError(
            source, _last(lines, start), f"the I/O space ends before port {expected:#06x}, expected are rows up to "
            f"{PORT_COUNT - 1:#06x}"
        )  # fmt: skip
    return tuple(region for region in regions if region.name != root)


def load_mtree(path: Path | str) -> tuple[Region, ...]:
    """`parse_mtree` of a file.

    Raises:
        MtreeError: malformed.
        OSError: unreadable.
    """
    return parse_mtree(Path(path).read_text(encoding="utf-8", errors="backslashreplace"), str(path))


def _io_view(lines: list[str], source: str) -> int:
    """Index of the line that names the I/O space."""
    for index, line in enumerate(lines):
        found = _SPACE.fullmatch(line)
        if found and found["name"] == _SPACE_NAME:
            return index
    raise MtreeError(
        source,
        max(1, len(lines)),
        f"the end is reached without a line ' AS \"{_SPACE_NAME}\", root: io'; "
        "expected is the output of `info mtree -f` in QEMU's monitor",
    )


def _body(lines: list[str], start: int) -> Iterator[tuple[int, str]]:
    """The lines of the view from `start` on, with their numbers; an empty line or the next view ends it."""
    for index in range(start, len(lines)):
        if not lines[index].strip() or _VIEW.fullmatch(lines[index]):
            return
        yield index + 1, lines[index]


def _last(lines: list[str], start: int) -> int:
    return max(number for number, _ in _body(lines, start))


def _row(line: str, source: str, number: int) -> Region:
    found = _ROW.fullmatch(line)
    if not found:
        raise MtreeError(source, number, f"{line[:80]!r} is not a row; expected is something like {_ROW_FORM}")
    start, end = int(found["start"], 16), int(found["end"], 16)
    if not start <= end < PORT_COUNT:
        raise MtreeError(
            source, number, f"ports {start:#x}-{end:#x}; expected is a first port not above the last, both at most "
            f"{PORT_COUNT - 1:#x}"
        )  # fmt: skip
    return Region(start, end, found["name"])
