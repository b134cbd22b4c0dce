"""Watchdog timer of a BMC.

Source: IPMI 2.0 revision 1.1, chapter 27.

It counts down from an initial value in steps of 100 ms. Some seconds before the end it can raise an interrupt
(pre-timeout); at the end it carries out its action. Not modelled: pre-timeout by SMI or NMI (the event is
logged all the same).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from portvisor.devices.ipmi_codes import COMMAND_SPECIFIC, INVALID_FIELD, Refusal, need
from portvisor.ports import NS_PER_S, Clock

COUNT_NS = NS_PER_S // 10
DONT_LOG, RUNNING, USE_MASK = 1 << 7, 1 << 6, 7
ACTION_MASK, ACTIONS = 7, ("none", "reset", "power down", "power cycle")
PRETIMEOUT_SHIFT, PRETIMEOUT_MASK = 4, 7
MESSAGING = 3
"""Pre-timeout interrupt: the system interface's own; 0 none, 1 SMI, 2 NMI."""
USES = range(1, 6)
NEVER_SET = COMMAND_SPECIFIC
"""Completion code of Reset Watchdog Timer before any Set Watchdog Timer."""


@dataclass
class WatchdogState:
    """Settings; times in ns of the clock. `expires` is None while the timer is stopped at `left`."""

    use: int = 0
    action: int = 0
    pretimeout: int = 0
    expired_flags: int = 0
    initial: int = 0
    left: int = 0
    expires: int | None = None
    configured: bool = False
    warned: bool = False
    """The pre-timeout has been reached."""

    @property
    def pretimeout_interrupt(self) -> int:
        """How the pre-timeout is announced."""
        return self.action >> PRETIMEOUT_SHIFT & PRETIMEOUT_MASK


class WatchdogTimer:
    """The timer's commands; `state` is set by the BMC that it belongs to."""

    def __init__(
        self,
        state: WatchdogState,
        clock: Clock,
        on_pretimeout: Callable[[], None],
        on_expiry: Callable[[], None],
        on_set: Callable[[], None],
    ) -> None:
        """`on_set` is called by Set Watchdog Timer, which withdraws the pre-timeout interrupt."""
        self.state = state
        self._clock = clock
        self._on_pretimeout = on_pretimeout
        self._on_expiry = on_expiry
        self._on_set = on_set
        self._timer = clock.timer(self._due, "bmc-watchdog")

    def commands(self) -> dict[int, Callable[[bytes], bytes]]:
        """Handlers by command code."""
        return {0x22: self._restart, 0x24: self._set, 0x25: self._get}

    def stop(self) -> None:
        """The host was reset: nobody has set the timer since. The expiration flags stay."""
        state = self.state
        state.left = self._left()
        state.expires = None
        state.configured = state.warned = False
        self.rearm()

    def rearm(self) -> None:
        """Bring the clock's timer in line with the state."""
        state = self.state
        if state.expires is None:
            self._timer.disarm()
        elif state.pretimeout_interrupt and not state.warned:
            self._timer.arm(state.expires - state.pretimeout * NS_PER_S)
        else:
            self._timer.arm(state.expires)

    def _left(self) -> int:
        expires = self.state.expires
        return self.state.left if expires is None else max(0, expires - self._clock.now())

    def _start(self) -> None:
        self.state.warned = False
        self.state.expires = self._clock.now() + self.state.initial
        if self.state.initial:
            self.rearm()
        else:
            self._expire()

    def _set(self, data: bytes) -> bytes:
        need(data, 6)
        state = self.state
        interrupt = data[1] >> PRETIMEOUT_SHIFT & PRETIMEOUT_MASK
        if data[0] & USE_MASK not in USES or data[1] & ACTION_MASK >= len(ACTIONS) or interrupt > MESSAGING:
            raise Refusal(INVALID_FIELD)
        goes_on = data[0] & RUNNING and state.expires is not None
        state.use, state.action, state.pretimeout = data[0] & (DONT_LOG | USE_MASK), data[1] & 0x77, data[2]
        state.expired_flags &= ~data[3]
        state.initial = state.left = struct.unpack_from("<H", data, 4)[0] * COUNT_NS
        state.configured = True
        self._on_set()
        if goes_on:
            self._start()
        else:
            state.expires, state.warned = None, False
            self.rearm()
        return b""

    def _restart(self, data: bytes) -> bytes:
        if not self.state.configured:
            raise Refusal(NEVER_SET)
        if not self.state.warned:
            self._start()
        return b""

    def _get(self, data: bytes) -> bytes:
        state = self.state
        running = RUNNING if state.expires is not None else 0
        head = bytes((state.use | running, state.action, state.pretimeout, state.expired_flags))
        return head + struct.pack("<HH", state.initial // COUNT_NS, -(-self._left() // COUNT_NS))

    def _due(self) -> None:
        state = self.state
        if state.pretimeout_interrupt and not state.warned:
            state.warned = True
            self._on_pretimeout()
            self.rearm()
        else:
            self._expire()

    def _expire(self) -> None:
        state = self.state
        state.expires, state.left, state.warned = None, 0, False
        state.expired_flags |= 1 << (state.use & USE_MASK)
        self.rearm()
        self._on_expiry()
