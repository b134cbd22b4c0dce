"""One time base for PIT, PM timer, RTC and watchdogs: the host's clock, or a virtual one moved by hand."""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

NS_PER_S = 1_000_000_000


class Timer:
    """A one-shot alarm on a `Clock`. Re-armed by its owner; a periodic timer re-arms in its callback."""

    __slots__ = ("_callback", "_clock", "deadline", "name")

    def __init__(self, clock: Clock, callback: Callable[[], None], name: str) -> None:
        self._clock = clock
        self._callback = callback
        self.name = name
        self.deadline: int | None = None
        """Clock time in ns at which the callback runs; None while disarmed."""

    def arm(self, deadline: int) -> None:
        """Fire once when the clock reaches `deadline` (ns); replaces an earlier deadline."""
        if deadline != self.deadline:
            self.deadline = deadline
            self._clock._schedule(self, deadline)

    def disarm(self) -> None:
        """Do not fire."""
        self.deadline = None


class Clock:
    """Nanoseconds since the machine was made, and the timers that hang on them."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Timer]] = []
        self._sequence = 0
        self.on_earlier_deadline: Callable[[], None] | None = None
        """Called when a timer is armed ahead of all others, so that a sleeping engine can be re-timed."""

    def now(self) -> int:
        """Present time in ns. Never goes backwards."""
        raise NotImplementedError

    def idle_until(self, deadline: int) -> float:
        """What a halted machine does until `deadline`: the seconds it has to sleep."""
        raise NotImplementedError

    def rewind(self, target: int) -> None:
        """Jump to `target` ns without running timers: for restoring a snapshot only."""
        raise NotImplementedError

    def timer(self, callback: Callable[[], None], name: str = "") -> Timer:
        """A disarmed timer that will call `callback` without arguments."""
        return Timer(self, callback, name)

    def next_deadline(self) -> int | None:
        """Clock time (ns) of the earliest armed timer, or None."""
        heap = self._heap
        while heap and heap[0][2].deadline != heap[0][0]:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def run_due(self) -> None:
        """Run every timer whose deadline has come, earliest first."""
        while (deadline := self.next_deadline()) is not None and deadline <= self.now():
            self._fire()

    def _fire(self) -> None:
        timer = heapq.heappop(self._heap)[2]
        timer.deadline = None
        timer._callback()

    def _schedule(self, timer: Timer, deadline: int) -> None:
        first = self.next_deadline()
        self._sequence += 1
        heapq.heappush(self._heap, (deadline, self._sequence, timer))
        if self.on_earlier_deadline and (first is None or deadline <= first):
            self.on_earlier_deadline()


class WallClock(Clock):
    """The host's monotonic clock, from 0 at construction."""

    def __init__(self) -> None:
        super().__init__()
        self._start = time.monotonic_ns()

    def now(self) -> int:
        return time.monotonic_ns() - self._start

    def rewind(self, target: int) -> None:
        self._start = time.monotonic_ns() - target

    def idle_until(self, deadline: int) -> float:
        return (deadline - self.now()) / NS_PER_S

    def host_time(self, deadline: int) -> int:
        """`time.monotonic_ns()` at which this clock will read `deadline`."""
        return deadline + self._start


class VirtualClock(Clock):
    """A clock that moves only when told to. Timers fire at exactly their deadlines."""

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self._now = start

    def now(self) -> int:
        return self._now

    def advance(self, ns: int) -> None:
        """Move forward by `ns`, running timers on the way."""
        self.set(self._now + ns)

    def set(self, target: int) -> None:
        """Move forward to `target` ns, running timers on the way; the past is ignored."""
        while (deadline := self.next_deadline()) is not None and deadline <= target:
            self._now = max(self._now, deadline)
            self._fire()
        self._now = max(self._now, target)

    def idle_until(self, deadline: int) -> float:
        self.set(deadline)
        return 0.0

    def rewind(self, target: int) -> None:
        self._now = target
