"""How KVM_RUN is broken without losing a wake-up.

One real-time signal is blocked in a thread that runs a vCPU, and unblocked by KVM inside KVM_RUN only
(KVM_SET_SIGNAL_MASK). Sent at any other moment it stays pending and ends the next KVM_RUN at once, so
there is no window in which an alarm or a kick could get lost. No handler runs: the thread takes pending
signals off with sigtimedwait() after EINTR. The disposition is SIG_IGN, which Linux does not apply to a
blocked signal, so that one which comes too late cannot end the process.

Signals with Python handlers (Ctrl-C) are not blocked. Between the interpreter's last look at them and
KVM_RUN there is a gap of about a microsecond; a heartbeat ends KVM_RUN for one that falls into it.
"""

from __future__ import annotations

import signal
import struct
import threading
import time
from typing import Protocol

from portvisor.kvm.abi import KVM_SET_SIGNAL_MASK
from portvisor.kvm.hardware import calls, posix

SIGNAL = signal.SIGRTMIN + 6
HEARTBEAT_NS = 100_000_000
"""Longest that a Ctrl-C which came at the wrong microsecond waits."""
_SIGNALS = frozenset({SIGNAL})
_SIGNAL_MASK = struct.Struct("<IQ")
"""struct kvm_signal_mask with the kernel's sigset_t of 8 bytes."""


class Sleeper(Protocol):
    """What runs in a thread and is woken by the signal."""

    def disturb(self) -> None:
        """The signal was taken off by another of the same thread and may have been for this one."""
        ...


class _Disposition:
    """The process-wide part: the signal is ignored as long as a thread uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before: int | None = None

    def acquire(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._before = posix.set_disposition(SIGNAL, posix.SIG_IGN)

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                posix.set_disposition(SIGNAL, self._before)


_disposition = _Disposition()
_local = threading.local()


class ThreadWakeup:
    """The signal in one thread; shared by the vCPUs that run there."""

    def __init__(self) -> None:
        self.thread = threading.get_native_id()
        self._sleepers: set[Sleeper] = set()
        self._mask: set[int] = set()
        self._heartbeat: posix.ThreadTimer | None = None

    @staticmethod
    def of_this_thread() -> ThreadWakeup:
        """The calling thread's."""
        wakeup: ThreadWakeup | None = getattr(_local, "wakeup", None)
        if wakeup is None:
            wakeup = _local.wakeup = ThreadWakeup()
        return wakeup

    def join(self, sleeper: Sleeper, vcpu_fd: int) -> None:
        """Use the signal for a vCPU that this thread runs from now on."""
        if not self._sleepers:
            self._block()
        self._sleepers.add(sleeper)
        inside = sum(1 << (signum - 1) for signum in self._mask if signum != SIGNAL)
        calls.call(vcpu_fd, KVM_SET_SIGNAL_MASK, _SIGNAL_MASK.pack(8, inside), what="KVM_SET_SIGNAL_MASK")

    def leave(self, sleeper: Sleeper) -> None:
        """Undo `join`; after the last one the thread's signal state is as before."""
        self._sleepers.discard(sleeper)
        if not self._sleepers:
            self._unblock()

    def take(self) -> bool:
        """Take off pending signals; whether there were any."""
        taken = False
        while signal.sigtimedwait(_SIGNALS, 0) is not None:
            taken = True
        return taken

    def share(self, sleeper: Sleeper) -> None:
        """Let the thread's other vCPUs look for themselves what a signal that `sleeper` took was for."""
        for other in self._sleepers:
            if other is not sleeper:
                other.disturb()

    def _block(self) -> None:
        _disposition.acquire()
        self._mask = set(signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS))
        if threading.current_thread() is threading.main_thread():
            self._heartbeat = posix.ThreadTimer(SIGNAL, self.thread)
            self._heartbeat.arm(time.monotonic_ns() + HEARTBEAT_NS, HEARTBEAT_NS)

    def _unblock(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.delete()
            self._heartbeat = None
        if self.thread == threading.get_native_id():
            signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        _disposition.release()
