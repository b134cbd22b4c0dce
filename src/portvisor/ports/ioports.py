"""The text of `/proc/ioports`: parse, print, diff, and the resource tree behind it.

One row a resource, children two spaces further in than their parent::

    03c0-03df : vga+

The tree keeps the rules of Linux (kernel/resource.c): siblings are sorted and disjoint, a child lies inside
its parent, a request that does not fit names the resource in its way, and an insertion pushes what lies in
the new range down under it. Linux prints at most `MAX_LEVEL` levels of indent; deeper rows stay there.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from portvisor.ports.range import PORT_COUNT
from portvisor.ports.space import PortSpace

INDENT = 2
"""Spaces a level."""
MAX_LEVEL = 5
"""Deepest level that Linux still indents (MAX_IORES_LEVEL)."""
LAST_PORT = PORT_COUNT - 1
DEEPEST_LEVEL = 64
"""Most levels a listing may have; real ones have five."""

_ROW = re.compile(r"(?P<indent> *)(?P<start>[0-9a-f]{4})-(?P<end>[0-9a-f]{4}) : (?P<name>.*)", re.DOTALL)
_FORM = 'allowed is "03c0-03df : name": 4 lower-case hex digits each, 2 spaces of indent a level'


class IoportsError(ValueError):
    """A malformed listing. The text says where, what is wrong and what is allowed."""

    def __init__(self, source: str, line: int, problem: str) -> None:
        self.source = source
        self.line = line
        """Line number, from 1."""
        self.problem = problem
        super().__init__(f"{source}:{line}: {problem}")


class ResourceError(ValueError):
    """A resource that cannot exist: outside the ports, empty, or with a name that does not fit on a row."""


@dataclass(slots=True)
class Resource:
    """Ports `start` to `end` (inclusive), what they are called, and the resources inside them.

    `busy` says that a driver holds them: `request_region` may not nest inside (IORESOURCE_BUSY). A listing
    does not show it, and two resources may be equal without it.
    """

    start: int
    end: int
    name: str
    busy: bool = field(default=True, compare=False)
    children: list[Resource] = field(default_factory=list)

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end <= LAST_PORT:
            raise ResourceError(
                f"{self.start:#06x}-{self.end:#06x} : {self.name}: the first port must not be above the last, "
                f"and both must be 0000-ffff"
            )
        if not self.name.isprintable():
            raise ResourceError(
                f"{self.start:04x}-{self.end:04x} : {self.name!r}: a name must be printable text on one line"
            )

    def contains(self, other: Resource) -> bool:
        """Whether `other` lies wholly inside."""
        return self.start <= other.start and other.end <= self.end

    def overlaps(self, other: Resource) -> bool:
        """Whether the two share a port."""
        return self.start <= other.end and other.start <= self.end

    def same_range(self, other: Resource) -> bool:
        """Whether both are the same ports."""
        return (self.start, self.end) == (other.start, other.end)

    def request(self, new: Resource) -> Resource | None:
        """Put `new` directly inside (request_resource): None, or the conflicting node, and nothing changed.

        The node is this resource itself if `new` leaves its range.
        """
        if not self.contains(new):
            return self
        index = bisect_left(self.children, new.start, key=lambda child: child.end)
        if index < len(self.children) and self.children[index].overlaps(new):
            return self.children[index]
        self.children.insert(index, new)
        return None

    def request_region(self, start: int, length: int, name: str) -> Resource | None:
        """What a driver asks for (request_region): the ports, busy, inside whatever is there but not busy.

        None, or the conflicting node: the busy resource in the way, or one that only part of the region is in.
        """
        new = Resource(start, start + length - 1, name)
        parent = self
        while (conflict := parent.request(new)) is not None:
            if conflict is parent or conflict.busy:
                return conflict
            parent = conflict
        return None

    def insert(self, new: Resource) -> Resource | None:
        """Put `new` over what lies in its range (insert_resource), which becomes its children.

        None, or the conflicting node: one that `new` covers in part only.
        """
        parent = self
        while (conflict := parent.request(new)) is not None:
            if conflict is parent:
                return conflict
            if not conflict.contains(new) or conflict.same_range(new):
                return parent._push_down(new)
            parent = conflict
        return None

    def _push_down(self, new: Resource) -> Resource | None:
        covered = [child for child in self.children if child.overlaps(new)]
        for child in covered:
            if not new.contains(child):
                return child
        first = self.children.index(covered[0])
        self.children[first : first + len(covered)] = [new]
        new.children = covered
        return None

    def release_region(self, start: int, length: int) -> Resource | None:
        """Undo `request_region`: the busy resource of exactly this range, taken out; None if there is none."""
        end = start + length - 1
        for child in self.children:
            if child.start <= start and end <= child.end:
                if not child.busy:
                    return child.release_region(start, length)
                if (child.start, child.end) != (start, end):
                    return None
                self.children.remove(child)
                return child
        return None

    def walk(self, level: int = 0) -> Iterator[Row]:
        """The rows of everything inside, in the order of the listing."""
        for child in self.children:
            yield Row(level, child.start, child.end, child.name)
            yield from child.walk(level + 1)

    def __str__(self) -> str:
        return f"{self.start:04x}-{self.end:04x} : {self.name}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a listing; `level` counts from 0."""

    level: int
    start: int
    end: int
    name: str

    @property
    def indent(self) -> int:
        """Spaces before the range, as Linux prints it."""
        return INDENT * min(self.level, MAX_LEVEL)

    def __str__(self) -> str:
        return f"{' ' * self.indent}{self.start:04x}-{self.end:04x} : {self.name}"


def new_tree() -> Resource:
    """An empty I/O space: the root, 0000-ffff, which no listing shows."""
    return Resource(0, LAST_PORT, "PCI IO", busy=False)


def render(tree: Resource) -> str:
    """The listing of everything inside `tree`, as `/proc/ioports` has it."""
    return "".join(f"{row}\n" for row in tree.walk())


# --- parsing ----------------------------------------------------------------------------------------


def parse(text: str, source: str = "ioports") -> Resource:
    """The tree of a listing. A newline at the very end may be missing.

    A listing does not show what is busy: rows without rows inside are taken to be.

    Args:
        text: what `cat /proc/ioports` printed.
        source: what to call it in errors: a file name.

    Raises:
        IoportsError: a row is malformed or in a place where Linux cannot have it.
    """
    root = new_tree()
    open_nodes = [root]
    lines = text.removesuffix("\n").split("\n") if text else []
    _refuse_hidden(lines, source)
    for number, line in enumerate(lines, 1):
        try:
            _place(line, open_nodes)
        except ResourceError as error:
            raise IoportsError(source, number, str(error)) from None
    return root


def load(path: Path | str) -> Resource:
    """`parse` a file, `/proc/ioports` for one.

    Raises:
        IoportsError: malformed, or not UTF-8.
        OSError: unreadable.
    """
    data = Path(path).read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise IoportsError(str(path), line, f"byte {data[error.start]:#04x} is not UTF-8 text") from None
    return parse(text, str(path))


def _refuse_hidden(lines: Sequence[str], source: str) -> None:
    """Without CAP_SYS_ADMIN Linux prints every range as zeros."""
    if len(lines) > 1 and all(line.lstrip(" ").startswith("0000-0000 : ") for line in lines):
        raise IoportsError(
            source, 1, "every range is 0000-0000: Linux hides the ports from ordinary users; read it as root"
        )


def _place(line: str, open_nodes: list[Resource]) -> None:
    """Add the row to the tree; `open_nodes` is the path of the row before it, the root first."""
    match = _ROW.fullmatch(line)
    if match is None:
        raise ResourceError(f"{line!r} is not a row; {_FORM}")
    spaces = len(match["indent"])
    deepest = min(len(open_nodes) - 1, MAX_LEVEL) * INDENT
    if spaces % INDENT or spaces > deepest:
        raise ResourceError(
            f"indent of {spaces} spaces; allowed here are "
            + ", ".join(str(allowed) for allowed in range(0, deepest + 1, INDENT))
        )
    new = Resource(int(match["start"], 16), int(match["end"], 16), match["name"])
    level = spaces // INDENT
    if level == MAX_LEVEL:
        level = _level_below_indent(new, open_nodes)
    if level > DEEPEST_LEVEL:
        raise ResourceError(f"{new} is more than {DEEPEST_LEVEL} levels deep")
    parent = open_nodes[level]
    conflict = _append(new, parent)
    if conflict:
        raise ResourceError(conflict)
    del open_nodes[level + 1 :]
    open_nodes.append(new)


def _level_below_indent(new: Resource, open_nodes: Sequence[Resource]) -> int:
    """The level of a row with the deepest indent: the first whose open node the row is not inside."""
    for level in range(MAX_LEVEL, len(open_nodes) - 1):
        if not open_nodes[level + 1].contains(new):
            return level
    return len(open_nodes) - 1


def _append(new: Resource, parent: Resource) -> str:
    """Put `new` last into `parent`; what is wrong with that, or ""."""
    if not parent.contains(new):
        return f"{new} leaves its parent {parent}; a child must lie inside"
    if parent.children:
        previous = parent.children[-1]
        if new.overlaps(previous):
            return f"{new} overlaps {previous} of the same level; siblings must be disjoint"
        if new.start < previous.start:
            return f"{new} comes after {previous}; siblings must be sorted by port"
    parent.children.append(new)
    parent.busy = False
    return ""


# --- the map of a port space ------------------------------------------------------------------------


def from_port_space(space: PortSpace) -> Resource:
    """The map of a `PortSpace`: a row for each named range, ranges inside others below them.

    Ranges of one device and name that touch or overlap (one for each access size, say) are one row. A range
    that lies in another only in part is cut at the other's end, so that every owned port is on a row.
    """
    tree = new_tree()
    for start, end, name in sorted(_merged_ranges(space), key=lambda item: (item[0], -item[1])):
        _insert_cut(tree, start, end, name)
    return tree


def _merged_ranges(space: PortSpace) -> list[tuple[int, int, str]]:
    merged: dict[tuple[int, str], list[tuple[int, int]]] = {}
    for owned, device in space.ranges():
        spans = merged.setdefault((id(device), owned.name or device.name), [])
        if spans and owned.base <= spans[-1][1] + 1:
            spans[-1] = (spans[-1][0], max(spans[-1][1], owned.last))
        else:
            spans.append((owned.base, owned.last))
    return [(start, end, name) for (_, name), spans in merged.items() for start, end in spans]


def _insert_cut(parent: Resource, start: int, end: int, name: str) -> None:
    """Add a range in pieces: below each child that it meets, and between them."""
    for child in [child for child in parent.children if child.start <= end and start <= child.end]:
        if start < child.start:
            parent.request(Resource(start, child.start - 1, name))
        _insert_cut(child, max(start, child.start), min(end, child.end), name)
        start = child.end + 1
    if start <= end:
        parent.request(Resource(start, end, name))


# --- diff -------------------------------------------------------------------------------------------


class Difference(Enum):
    """How a row of the listing compares with the row expected."""

    EQUAL = "equal"
    NAME = "name differs"
    RANGE = "range differs"
    INDENT = "indent differs"
    MISSING = "missing"
    EXTRA = "extra"


@dataclass(frozen=True, slots=True)
class RowDiff:
    """A pair of rows, or a row without partner."""

    expected: Row | None
    actual: Row | None

    @property
    def difference(self) -> Difference:
        """The weightiest difference: a row whose name and indent differ is `NAME`."""
        if self.expected is None:
            return Difference.EXTRA
        if self.actual is None:
            return Difference.MISSING
        if (self.expected.start, self.expected.end) != (self.actual.start, self.actual.end):
            return Difference.RANGE
        if self.expected.name != self.actual.name:
            return Difference.NAME
        return Difference.EQUAL if self.expected.indent == self.actual.indent else Difference.INDENT


@dataclass(frozen=True, slots=True)
class Diff:
    """Two listings row by row, in the order of the ports."""

    rows: tuple[RowDiff, ...]

    @property
    def identical(self) -> bool:
        """Whether the two listings are the same text."""
        return all(row.difference is Difference.EQUAL for row in self.rows)

    @property
    def expected(self) -> int:
        """How many rows were expected."""
        return sum(row.expected is not None for row in self.rows)

    def count(self, *differences: Difference) -> int:
        """How many rows have one of the differences."""
        return sum(row.difference in differences for row in self.rows)

    def score(self, ignore_indent: bool = False) -> str:
        """Rows that are equal, of those expected: "61 of 64"."""
        good = [Difference.EQUAL, Difference.INDENT] if ignore_indent else [Difference.EQUAL]
        return f"{self.count(*good)} of {self.expected}"


def diff(expected: Resource, actual: Resource) -> Diff:
    """Compare two trees row by row.

    Rows are paired by what they share, the closest first: everything; range and name; range; name with
    overlapping ports; name. A row is in one pair only; what stays alone is missing or extra.
    """
    wanted, found = list(expected.walk()), list(actual.walk())
    pairs: dict[int, int] = {}
    for key in _PAIRING:
        _pair(wanted, found, pairs, key)
    rows = [RowDiff(row, found[pairs[index]] if index in pairs else None) for index, row in enumerate(wanted)]
    paired = set(pairs.values())
    rows += [RowDiff(None, row) for index, row in enumerate(found) if index not in paired]
    return Diff(tuple(sorted(rows, key=_place_in_listing)))


def _place_in_listing(pair: RowDiff) -> tuple[int, int, int]:
    row = pair.expected or pair.actual
    assert row is not None
    return (row.start, -row.end, row.level)


_PAIRING: tuple[Callable[[Row], Hashable], ...] = (
    lambda row: (row.indent, row.start, row.end, row.name),
    lambda row: (row.start, row.end, row.name),
    lambda row: (row.indent, row.start, row.end),
    lambda row: (row.start, row.end),
    lambda row: (row.name, row.indent, row.start),
    lambda row: (row.name, row.indent, row.end),
    lambda row: (row.name, row.indent),
    lambda row: row.name,
)


def _pair(
    wanted: Sequence[Row], found: Sequence[Row], pairs: dict[int, int], key: Callable[[Row], Hashable]
) -> None:
    """Pair the rows that are still alone and have the same key, in listing order."""
    taken = set(pairs.values())
    waiting: dict[Hashable, list[int]] = defaultdict(list)
    for index, row in enumerate(found):
        if index not in taken:
            waiting[key(row)].append(index)
    for index, row in enumerate(wanted):
        if index not in pairs and waiting[key(row)]:
            pairs[index] = waiting[key(row)].pop(0)
