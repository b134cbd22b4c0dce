"""Which events are recorded: `ports=3f8-3ff,cf8 device=uart* dir=in kind=in,out,irq`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from portvisor.ports import PORT_COUNT
from portvisor.trace.errors import TraceError
from portvisor.trace.schema import ACCESSES, KIND_NAMES, READS, Kind

PORTS = re.compile(r"(?:0x)?([0-9a-f]{1,4})(?:-(?:0x)?([0-9a-f]{1,4}))?", re.IGNORECASE)
KEYS = "ports=, device=, dir=, kind="


@dataclass(frozen=True, slots=True)
class TraceFilter:
    """All conditions hold at once; an empty one lets everything pass."""

    ports: frozenset[int] = frozenset()
    devices: tuple[str, ...] = ()
    """Patterns with * and ?."""
    directions: frozenset[str] = frozenset()
    kinds: frozenset[Kind] = frozenset()
    text: str = field(default="", compare=False)

    def wants_kind(self, kind: Kind) -> bool:
        """Whether such records are to be written at all. `dir` concerns accesses only."""
        if self.kinds and kind not in self.kinds:
            return False
        if self.directions and kind in ACCESSES:
            return ("in" if kind in READS else "out") in self.directions
        return True

    def wants_device(self, name: str) -> bool:
        """Whether records of a device are to be written."""
        return not self.devices or any(fnmatchcase(name, pattern) for pattern in self.devices)

    def wants_ports(self, port: int, size: int) -> bool:
        """Whether an access touches a wanted port."""
        return not self.ports or any(port + byte in self.ports for byte in range(size))


def parse_filter(words: Iterable[str]) -> TraceFilter:
    """From words `key=value,value`; a word may hold several, separated by blanks.

    Raises:
        TraceError: what is wrong and what is possible.
    """
    ports: set[int] = set()
    devices: list[str] = []
    directions: set[str] = set()
    kinds: set[Kind] = set()
    text = " ".join(words)
    for word in text.split():
        key, equals, values = word.partition("=")
        items = [item for item in values.split(",") if item]
        if not equals or not items:
            raise TraceError(f"trace filter {word!r}: write key=value[,value]; keys are {KEYS}")
        if key in ("port", "ports"):
            for item in items:
                ports.update(_ports(item))
        elif key == "device":
            devices += items
        elif key == "dir":
            directions.update(_known(item, ("in", "out"), word) for item in items)
        elif key == "kind":
            kinds.update(Kind[_known(item, KIND_NAMES, word).upper()] for item in items)
        else:
            raise TraceError(f"trace filter {word!r}: no key is called {key!r}; keys are {KEYS}")
    return TraceFilter(frozenset(ports), tuple(devices), frozenset(directions), frozenset(kinds), text)


def _ports(item: str) -> range:
    match = PORTS.fullmatch(item)
    if not match:
        raise TraceError(f"trace filter: {item!r} is no port or range in hexadecimal, such as 3f8-3ff")
    first = int(match[1], 16)
    last = int(match[2] or match[1], 16)
    if last < first or last >= PORT_COUNT:
        raise TraceError(f"trace filter: ports {item}: the range is empty")
    return range(first, last + 1)


def _known(item: str, possible: tuple[str, ...], word: str) -> str:
    if item not in possible:
        raise TraceError(f"trace filter {word!r}: {item!r} is not one of {', '.join(possible)}")
    return item
