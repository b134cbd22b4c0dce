"""From sums to rates: what a viewer makes of the snapshots it gets."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from portvisor.live.protocol import Snapshot, Totals
from portvisor.ports import NS_PER_S

HISTORY = 120
"""Rates kept of every line."""


@dataclass(frozen=True, slots=True)
class Line:
    """A port or a device between two snapshots; rates are per second of the host."""

    key: int | str
    """The port, or the device's name."""
    device: str
    read_register: str = ""
    write_register: str = ""
    reads: float = 0.0
    writes: float = 0.0
    volume: float = 0.0
    """Bytes a second."""
    load: float = 0.0
    """Share of a processor's time that the handlers took."""
    share: float = 0.0
    """Of all accesses."""
    total: int = 0
    """Accesses since counting began."""
    history: tuple[float, ...] = ()
    """Accesses a second, oldest first."""
    ports: int = 0
    """Of a device: ports with traffic."""

    @property
    def rate(self) -> float:
        """Accesses a second."""
        return self.reads + self.writes

    @property
    def mean_ns(self) -> float:
        """Time in the handler, an access."""
        return self.load * NS_PER_S / self.rate if self.rate else 0.0

    @property
    def direction(self) -> str:
        """Which way the traffic of this interval goes."""
        return ("⇄" if self.writes else "←") if self.reads else ("→" if self.writes else " ")

    @property
    def register(self) -> str:
        """Names of what IN and OUT reach; one if it is the same."""
        names = [name for name in (self.read_register, self.write_register) if name]
        return names[0] if len(set(names)) == 1 else " / ".join(names)


@dataclass(frozen=True, slots=True)
class View:
    """All lines at one moment."""

    ports: tuple[Line, ...] = ()
    devices: tuple[Line, ...] = ()
    whole: Line = field(default_factory=lambda: Line("", ""))
    """All traffic."""
    interrupts: dict[str, float] = field(default_factory=dict)
    """Rising edges a second by wire."""
    guest_ns: int = 0
    resets: int = 0
    ports_used: int = 0
    measured: bool = False
    """Whether two snapshots have come, so that there are rates."""


class Rates:
    """Makes a view of each snapshot."""

    def __init__(self) -> None:
        self._last: Snapshot | None = None
        self._histories: dict[int | str, deque[float]] = {}
        self.view = View()

    def feed(self, snapshot: Snapshot) -> View:
        """The view between the last snapshot and this one."""
        last, self._last = self._last, snapshot
        if last is None or snapshot.host_ns <= last.host_ns:
            self.view = View(guest_ns=snapshot.guest_ns, resets=snapshot.resets, ports_used=snapshot.ports_used)
            return self.view
        seconds = (snapshot.host_ns - last.host_ns) / NS_PER_S
        everything, before = _sum(snapshot), _sum(last)
        whole = self._line(Line("", "all"), everything, before, seconds, 0.0)
        ports = self._ports(snapshot, last, seconds, whole.rate)
        self.view = View(
            ports=tuple(ports),
            devices=tuple(self._devices(snapshot, last, seconds, whole.rate)),
            whole=whole,
            interrupts={
                wire: max(0, count - last.interrupts.get(wire, 0)) / seconds
                for wire, count in snapshot.interrupts.items()
            },
            guest_ns=snapshot.guest_ns,
            resets=snapshot.resets,
            ports_used=snapshot.ports_used,
            measured=True,
        )
        return self.view

    def _ports(self, snapshot: Snapshot, last: Snapshot, seconds: float, everything: float) -> Iterator[Line]:
        before = {row.port: row.totals for row in last.ports}
        all_were_told = last.ports_used <= len(last.ports)
        for row in snapshot.ports:
            old = before.get(row.port, Totals() if all_were_told else row.totals)
            line = Line(row.port, row.device, row.read_register, row.write_register)
            yield self._line(line, row.totals, old, seconds, everything)

    def _devices(self, snapshot: Snapshot, last: Snapshot, seconds: float, everything: float) -> Iterator[Line]:
        ports = Counter(row.device for row in snapshot.ports)
        for name, totals in snapshot.devices.items():
            line = Line(name, name, ports=ports[name])
            yield self._line(line, totals, last.devices.get(name, Totals()), seconds, everything)

    def _line(self, line: Line, new: Totals, old: Totals, seconds: float, everything: float) -> Line:
        reads, writes, volume, ns = (max(0, now - then) / seconds for now, then in zip(new, old, strict=True))
        history = self._histories.setdefault(line.key, deque(maxlen=HISTORY))
        history.append(reads + writes)
        return replace(
            line,
            reads=reads,
            writes=writes,
            volume=volume,
            load=ns / NS_PER_S,
            share=(reads + writes) / everything if everything else 0.0,
            total=new.accesses,
            history=tuple(history),
        )


def _sum(snapshot: Snapshot) -> Totals:
    return Totals(*map(sum, zip(*snapshot.devices.values(), strict=True))) if snapshot.devices else Totals()
