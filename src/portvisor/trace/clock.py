"""Clocks for recording and replay: what a device was told is what it is told again.

While an event is served (an access, a timer, an input) a recorded clock stands still, so that one time a record
is all that a replay needs. Until recording begins it stands at its start: boards are built at that moment.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Protocol

from portvisor.ports import Clock, Timer, VirtualClock, WallClock
from portvisor.trace._tap import Recorder

CAPACITY = 1 << 18
"""Records in a batch at most."""


class TimerSink(Protocol):
    """Told about the timers of the devices."""

    def timer_fired(self, name: str, fire: Callable[[], None]) -> None:
        """Call `fire` as an event."""
        ...


class _Recorded(Clock):
    """Timers made before recording began are the board's; their expiry is an event."""

    def __init__(self) -> None:
        super().__init__()
        self.core = Recorder(CAPACITY)
        """Where events go; here because it also keeps the time of the event that is being served."""
        self._board_timers: dict[int, Timer] = {}
        self._sink: TimerSink | None = None

    def timer(self, callback: Callable[[], None], name: str = "") -> Timer:
        made = super().timer(callback, name)
        if self._sink is None:
            self._board_timers[id(made)] = made
        return made

    def _fire(self) -> None:
        timer = self._heap[0][2]
        if self._sink is not None and id(timer) in self._board_timers:
            self._sink.timer_fired(timer.name, super()._fire)
        else:
            super()._fire()


class RecordingWallClock(_Recorded, WallClock):
    """The host's monotonic clock, from 0 at the moment recording begins."""

    def __init__(self) -> None:
        super().__init__()
        setattr(self, "now", self.core.now)  # noqa: B010  # the compiled function itself: devices ask often

    def begin(self, sink: TimerSink) -> None:
        """Start to run and to record."""
        self._sink = sink
        self.rewind(0)

    def rewind(self, target: int) -> None:
        super().rewind(target)
        self.core.set_source(self._start)


class RecordingVirtualClock(_Recorded, VirtualClock):
    """A clock moved by hand, recorded. It stands still during an event anyway."""

    def begin(self, sink: TimerSink) -> None:
        """Start to record."""
        self._sink = sink
        self.core.set_source(self.now)


RecordingClock = RecordingWallClock | RecordingVirtualClock


class ReplayClock(Clock):
    """Set to each record's time; timers expire when a record says so, and at no other moment."""

    def __init__(self, start: int = 0) -> None:
        super().__init__()
        self._now = start

    def now(self) -> int:
        return self._now

    def idle_until(self, deadline: int) -> float:
        return 0.0

    def rewind(self, target: int) -> None:
        self._now = target

    def expire(self, name: str) -> str | None:
        """Run the earliest timer if it is due and has this name; else what is wrong."""
        deadline = self.next_deadline()
        if deadline is None:
            return "no timer is armed"
        if deadline > self._now:
            return f"the earliest timer ({self._heap[0][2].name}) is due at {deadline} ns"
        if self._heap[0][2].name != name:
            return f"the timer that is due is {self._heap[0][2].name}"
        self._fire()
        return None

    def due(self, name: str) -> Timer | None:
        """The timer of this name that is due first, whatever else is due before."""
        waiting = [(time, order, timer) for time, order, timer in self._heap if timer.deadline == time <= self._now]
        return next((timer for _, _, timer in sorted(waiting, key=lambda one: one[:2]) if timer.name == name), None)

    def fire(self, timer: Timer) -> None:
        """Run a timer out of turn."""
        heapq.heappush(self._heap, (-1, -1, timer))
        self._fire()
