"""The few C library calls that Python has no function for: timers that signal one thread, and tgkill.

Source: POSIX.1-2017 timer_create(), Linux timer_create(2) (SIGEV_THREAD_ID), tgkill(2).
"""

from __future__ import annotations

import ctypes
import os
import time

SIGEV_THREAD_ID = 4
TIMER_ABSTIME = 1
SIG_IGN = 1
LATEST = (1 << 62) - 1
"""Later than any time a host reaches; what timers are limited to, in ns."""
NS_PER_S = 1_000_000_000


class _SigEvent(ctypes.Structure):
    """struct sigevent, the SIGEV_THREAD_ID arm of its union."""

    _fields_ = (
        ("sigev_value", ctypes.c_void_p),
        ("sigev_signo", ctypes.c_int),
        ("sigev_notify", ctypes.c_int),
        ("sigev_notify_thread_id", ctypes.c_int),
        ("padding", ctypes.c_byte * 44),
    )


class _ITimerSpec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


_libc = ctypes.CDLL(None, use_errno=True)
_timer_create = _libc.timer_create
_timer_create.argtypes = (ctypes.c_int, ctypes.POINTER(_SigEvent), ctypes.POINTER(ctypes.c_void_p))
_timer_settime = _libc.timer_settime
_timer_settime.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_ITimerSpec), ctypes.c_void_p)
_timer_delete = _libc.timer_delete
_timer_delete.argtypes = (ctypes.c_void_p,)
_tgkill = _libc.tgkill
_tgkill.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int)
_signal = _libc.signal
_signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
_signal.restype = ctypes.c_void_p


class ThreadTimer:
    """A timer on CLOCK_MONOTONIC that sends a signal to one thread of this process."""

    def __init__(self, signum: int, thread: int) -> None:
        """`thread` is the kernel's id (`threading.get_native_id()`)."""
        event = _SigEvent(None, signum, SIGEV_THREAD_ID, thread)
        self._timer = ctypes.c_void_p()
        self._spec = _ITimerSpec()
        if _timer_create(time.CLOCK_MONOTONIC, event, self._timer):
            raise OSError(ctypes.get_errno(), "timer_create")

    def arm(self, host_time: int, interval: int = 0) -> None:
        """Signal at `time.monotonic_ns() == host_time` (at once if that is past), then every `interval` ns."""
        spec = self._spec
        spec.value_s, spec.value_ns = divmod(min(max(host_time, 1), LATEST), NS_PER_S)
        spec.interval_s, spec.interval_ns = divmod(interval, NS_PER_S)
        _timer_settime(self._timer, TIMER_ABSTIME, spec, None)

    def delete(self) -> None:
        """Give the timer back; it signals no more."""
        _timer_delete(self._timer)


def signal_thread(thread: int, signum: int) -> None:
    """tgkill(2): send a signal to a thread of this process by the kernel's id. A thread that ended is no error."""
    _tgkill(os.getpid(), thread, signum)


def set_disposition(signum: int, disposition: int | None) -> int | None:
    """signal(3) from any thread, where `signal.signal` wants the main one: SIG_IGN, or what a call before gave."""
    before: int | None = _signal(signum, disposition)
    return before
