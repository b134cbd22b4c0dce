"""Alarms, kicks, Ctrl-C and other threads on the software CPU: `run()` comes back, and nothing is lost.

Times are upper bounds for a busy host; what is exact is that nothing comes early.
"""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from portvisor.kvm.abi import ExitReason
from softcpu_guest import CODE, SoftGuest, soft_guest

MS = 1_000_000
SPIN = "eb fe"
OUT_LOOP = "ee eb fd"
LONG_MS = 10_000


def ns() -> int:
    return time.monotonic_ns()


@contextmanager
def spinning(code: str = SPIN) -> Iterator[SoftGuest]:
    with soft_guest(code) as guest:
        guest.vcpu.set_alarm(ns() + LONG_MS * MS)
        yield guest


@pytest.mark.parametrize("code", [SPIN, OUT_LOOP, "f390 ebfc", "0f31 ebfc"])
def test_an_alarm_ends_a_guest_that_spins(code: str) -> None:
    with spinning(code) as guest:
        alarm = ns() + 20 * MS
        guest.vcpu.set_alarm(alarm)
        assert guest.vcpu.run() == ExitReason.INTR
        assert alarm <= ns() < alarm + 1000 * MS


def test_alarms_come_promptly() -> None:
    late = []
    with spinning() as guest:
        for _ in range(30):
            alarm = ns() + 2 * MS
            guest.vcpu.set_alarm(alarm)
            assert guest.vcpu.run() == ExitReason.INTR
            late.append(ns() - alarm)
    assert min(late) >= 0
    assert statistics.median(late) < 10 * MS


@pytest.mark.parametrize("past", [0, -5, 1])
def test_an_alarm_in_the_past_goes_off_at_once_and_once(past: int) -> None:
    with soft_guest("43 f4") as guest:
        guest.vcpu.set_alarm(past)
        assert guest.vcpu.run() == ExitReason.INTR
        assert guest.vcpu.get_regs().rbx == 0
        assert guest.vcpu.run() == ExitReason.HLT


def test_an_alarm_that_passes_outside_run_goes_off_at_the_next() -> None:
    with soft_guest("43 f4") as guest:
        guest.vcpu.set_alarm(ns() + 2 * MS)
        time.sleep(0.03)
        assert guest.vcpu.run() == ExitReason.INTR


def test_alarms_move_both_ways_and_can_be_taken_back() -> None:
    with spinning() as guest:
        start = ns()
        guest.vcpu.set_alarm(start + 5 * MS)
        guest.vcpu.set_alarm(start + 60 * MS)
        assert guest.vcpu.run() == ExitReason.INTR
        assert ns() >= start + 60 * MS
        guest.vcpu.set_alarm(ns() + LONG_MS * MS)
        guest.vcpu.set_alarm(ns() + 5 * MS)
        start = ns()
        assert guest.vcpu.run() == ExitReason.INTR
        assert ns() < start + LONG_MS * MS
        guest.vcpu.set_alarm(ns() + 5 * MS)
        guest.vcpu.set_alarm(None)
        timer = threading.Timer(0.08, guest.vcpu.kick)
        timer.start()
        start = ns()
        assert guest.vcpu.run() == ExitReason.INTR
        assert ns() >= start + 60 * MS
        timer.join()


def test_a_handler_may_set_the_alarm() -> None:
    with spinning("ee eb fe") as guest:

        def write(_offset: int, _size: int, _value: int) -> None:
            guest.vcpu.set_alarm(ns() + 5 * MS)

        guest.bench.on_write = write
        start = ns()
        assert guest.vcpu.run() == ExitReason.INTR
        assert 5 * MS <= ns() - start < LONG_MS * MS


@pytest.mark.parametrize("time_", [1 << 62, 1 << 63, 1 << 80])
def test_a_far_alarm_is_no_error(time_: int) -> None:
    with soft_guest("f4") as guest:
        guest.vcpu.set_alarm(time_)
        assert guest.vcpu.run() == ExitReason.HLT


def test_a_kick_from_another_thread_ends_a_guest_that_spins() -> None:
    with spinning() as guest:
        timer = threading.Timer(0.02, guest.vcpu.kick)
        timer.start()
        assert guest.vcpu.run() == ExitReason.INTR
        timer.join()


def test_a_kick_before_run_counts_once() -> None:
    with soft_guest("43 f4") as guest:
        guest.vcpu.kick()
        guest.vcpu.kick()
        assert guest.vcpu.run() == ExitReason.INTR
        assert guest.vcpu.get_regs().rip == CODE
        assert guest.vcpu.run() == ExitReason.HLT


@pytest.mark.parametrize("code", [SPIN, OUT_LOOP])
def test_no_kick_of_many_is_lost(code: str) -> None:
    with spinning(code) as guest:
        ready, turns = threading.Semaphore(0), 200

        def kick() -> None:
            for _ in range(turns):
                ready.acquire()
                guest.vcpu.kick()

        thread = threading.Thread(target=kick)
        thread.start()
        start = ns()
        for _ in range(turns):
            ready.release()
            assert guest.vcpu.run() == ExitReason.INTR
        assert ns() - start < LONG_MS * MS
        thread.join()


def test_kicking_a_closed_cpu_is_harmless() -> None:
    with soft_guest("f4") as guest:
        vcpu = guest.vcpu
    vcpu.kick()


def test_ctrl_c_ends_a_guest_that_spins() -> None:
    with spinning() as guest:
        timer = threading.Timer(0.03, lambda: os.kill(os.getpid(), signal.SIGINT))
        timer.start()
        start = ns()
        with pytest.raises(KeyboardInterrupt):
            guest.vcpu.run()
        assert ns() - start < LONG_MS * MS
        timer.join()
        guest.vcpu.kick()
        assert guest.vcpu.run() == ExitReason.INTR


def test_a_signal_handler_runs_while_the_guest_spins_and_may_kick() -> None:
    with spinning() as guest:
        calls = []

        def handler(number: int, _frame: object) -> None:
            calls.append(number)
            guest.vcpu.kick()

        before = signal.signal(signal.SIGUSR1, handler)
        timer = threading.Timer(0.02, lambda: os.kill(os.getpid(), signal.SIGUSR1))
        try:
            timer.start()
            assert guest.vcpu.run() == ExitReason.INTR
        finally:
            timer.join()
            signal.signal(signal.SIGUSR1, before)
        assert calls == [signal.SIGUSR1]


def test_other_threads_go_on_while_the_guest_spins() -> None:
    """A thread that sleeps five times gets the lock back each time, and then kicks the guest."""
    with spinning() as guest:

        def sleep_and_kick() -> None:
            for _ in range(5):
                time.sleep(0.001)
            guest.vcpu.kick()

        watchdog = ns() + 20_000 * MS
        guest.vcpu.set_alarm(watchdog)
        thread = threading.Thread(target=sleep_and_kick)
        thread.start()
        assert guest.vcpu.run() == ExitReason.INTR
        thread.join()
        assert ns() < watchdog


def test_a_guest_may_run_in_any_thread_one_after_the_other() -> None:
    with soft_guest("43 f4" * 8) as guest:
        seen = []

        def run() -> None:
            seen.append(guest.halts().rbx)

        for _ in range(4):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
            run()
        assert seen == list(range(1, 9))


def test_two_machines_in_one_thread_keep_apart() -> None:
    with spinning() as one, spinning() as other:
        one.vcpu.set_alarm(ns() + 5 * MS)
        other.vcpu.kick()
        assert other.vcpu.run() == ExitReason.INTR
        assert one.vcpu.run() == ExitReason.INTR
        other.vcpu.set_alarm(ns() + 5 * MS)
        assert other.vcpu.run() == ExitReason.INTR


def test_a_handler_may_run_another_machine() -> None:
    with soft_guest("ec 43 f4") as outer, soft_guest("b0 77 e6 f0 f4") as inner:
        outer.bench.on_read = lambda _offset, _size: inner.halts().rax
        regs = outer.halts()
        assert (regs.rax, regs.rbx) == (0x77, 1)


def test_two_machines_run_in_two_threads() -> None:
    def work(results: list[int]) -> None:
        with soft_guest("66b9a0860100 43 67e2fc ee f4") as guest:  # ecx = 100000: inc bx; loop
            results.append(guest.halts().rbx)

    results: list[int] = []
    threads = [threading.Thread(target=work, args=(results,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [100_000 & 0xFFFF] * 2
