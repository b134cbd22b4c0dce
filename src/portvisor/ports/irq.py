"""Interrupt wires: a level that one device drives and another sees change."""

from __future__ import annotations

from collections.abc import Callable


def _unconnected(_level: int) -> None:
    """The far end of a wire that goes nowhere."""


class IrqLine:
    """One wire. `set` tells the sink only about changes, so that an edge is an edge."""

    __slots__ = ("_sink", "level", "name")

    def __init__(self, sink: Callable[[int], None] | None = None, name: str = "") -> None:
        self._sink = sink or _unconnected
        self.level = 0
        self.name = name

    def set(self, level: int) -> None:
        """Drive the wire to 0 or 1."""
        level = 1 if level else 0
        if level != self.level:
            self.level = level
            self._sink(level)

    def pulse(self) -> None:
        """A rising and a falling edge."""
        self.set(1)
        self.set(0)

    def watch(self, observer: Callable[[int], None]) -> None:
        """Let `observer` see every change before the present sink does."""
        inner = self._sink

        def both(level: int) -> None:
            observer(level)
            inner(level)

        self._sink = both


class SharedIrq:
    """Wired-OR of several drivers onto one line, as PCI interrupt pins share an input."""

    def __init__(self, target: IrqLine) -> None:
        self._target = target
        self._inputs: list[IrqLine] = []

    def input(self, name: str = "") -> IrqLine:
        """A new driver of the shared line."""
        line = IrqLine(self._update, name)
        self._inputs.append(line)
        return line

    def _update(self, _level: int) -> None:
        self._target.set(any(line.level for line in self._inputs))
