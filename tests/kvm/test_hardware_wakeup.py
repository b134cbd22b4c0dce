"""Alarms, kicks and Ctrl-C: KVM_RUN comes back, and no wake-up is lost.

Times are upper bounds for a busy host; what is exact is that nothing comes early and everything comes.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kvm_guest import CODE, Guest, guest
from portvisor.kvm.abi import RUN_EXIT_REASON, ExitReason, Regs, Segment, Sregs
from portvisor.kvm.hardware import HardwareSystem, posix
from portvisor.kvm.hardware.wakeup import HEARTBEAT_NS, SIGNAL

pytestmark = pytest.mark.kvm

SPIN = b"\xeb\xfe"
"""jmp $"""
OUT_LOOP = b"\xee\xeb\xfd"
HLT = b"\xf4"
MS = 1_000_000
LONG = 5_000 * MS
"""An alarm that only goes off when the test has failed."""


@contextmanager
def after(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Call from another thread in a while."""
    timer = threading.Timer(seconds, action)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()


def in_thread(action: Callable[[], None]) -> None:
    """Run to the end in a thread of its own; a failure there is the test's."""
    failures: list[BaseException] = []

    def caught() -> None:
        try:
            action()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=caught)
    thread.start()
    thread.join(20)
    assert not thread.is_alive()
    if failures:
        raise failures[0]


def ns() -> int:
    return time.monotonic_ns()


def word(made: Guest, offset: int) -> int:
    return int.from_bytes(made.vcpu.kvm_run[offset : offset + 4], "little")


# --- alarms -------------------------------------------------------------------------------------------------


def test_an_alarm_ends_a_guest_that_spins(kvm: HardwareSystem) -> None:
    with guest(kvm, SPIN) as made:
        alarm = ns() + 30 * MS
        made.vcpu.set_alarm(alarm)
        assert made.vcpu.run() == ExitReason.INTR
        assert alarm <= ns() < alarm + 500 * MS
        assert word(made, RUN_EXIT_REASON) == ExitReason.INTR


def test_alarms_come_promptly(kvm: HardwareSystem) -> None:
    late = []
    with guest(kvm, SPIN) as made:
        for _ in range(25):
            alarm = ns() + 3 * MS
            made.vcpu.set_alarm(alarm)
            assert made.vcpu.run() == ExitReason.INTR
            late.append(ns() - alarm)
    assert min(late) >= 0
    assert statistics.median(late) < 20 * MS


@pytest.mark.parametrize("past", [0, -1, 1])
def test_an_alarm_in_the_past_goes_off_at_once(kvm: HardwareSystem, past: int) -> None:
    with guest(kvm, SPIN) as made:
        made.vcpu.set_alarm(past)
        start = ns()
        assert made.vcpu.run() == ExitReason.INTR
        assert ns() - start < 500 * MS


def test_an_alarm_goes_off_once(kvm: HardwareSystem) -> None:
    with guest(kvm, SPIN) as made:
        made.vcpu.set_alarm(ns())
        assert made.vcpu.run() == ExitReason.INTR
        start = ns()
        with after(2.5 * HEARTBEAT_NS / 1e9, made.vcpu.kick):
            assert made.vcpu.run() == ExitReason.INTR
        assert ns() - start > 2 * HEARTBEAT_NS


def test_an_alarm_that_passes_outside_run_goes_off_at_the_next(kvm: HardwareSystem) -> None:
    with guest(kvm, OUT_LOOP) as made:
        assert made.vcpu.run() == ExitReason.IO
        made.vcpu.set_alarm(ns() + MS)
        time.sleep(0.01)
        assert made.vcpu.run() == ExitReason.INTR


def test_a_taken_back_alarm_does_not_go_off(kvm: HardwareSystem) -> None:
    with guest(kvm, SPIN) as made:
        made.vcpu.set_alarm(ns() + 5 * MS)
        made.vcpu.set_alarm(None)
        with after(0.06, made.vcpu.kick):
            start = ns()
            assert made.vcpu.run() == ExitReason.INTR
            assert ns() - start > 40 * MS


def test_an_alarm_that_is_moved_later_goes_off_then(kvm: HardwareSystem) -> None:
    with guest(kvm, SPIN) as made:
        start = ns()
        for delay in (5, 60):
            made.vcpu.set_alarm(start + delay * MS)
        assert made.vcpu.run() == ExitReason.INTR
        assert ns() >= start + 60 * MS


def test_an_alarm_that_is_moved_earlier_goes_off_then(kvm: HardwareSystem) -> None:
    def work() -> None:  # a thread without heartbeat
        with guest(kvm, SPIN) as made:
            made.vcpu.set_alarm(ns())
            assert made.vcpu.run() == ExitReason.INTR
            start = ns()
            for delay in (LONG, 10 * MS):
                made.vcpu.set_alarm(start + delay)
            assert made.vcpu.run() == ExitReason.INTR
            assert ns() - start < LONG

    in_thread(work)


def test_moving_an_alarm_later_needs_no_system_call(kvm: HardwareSystem, monkeypatch: pytest.MonkeyPatch) -> None:
    armed: list[int] = []
    arm = posix.ThreadTimer.arm

    def count(timer: posix.ThreadTimer, host_time: int, interval: int = 0) -> None:
        armed.append(host_time)
        arm(timer, host_time, interval)

    with guest(kvm, SPIN) as made:
        made.vcpu.set_alarm(ns())
        assert made.vcpu.run() == ExitReason.INTR
        monkeypatch.setattr(posix.ThreadTimer, "arm", count)
        start = ns()
        for delay in range(100):
            made.vcpu.set_alarm(start + 30 * MS + delay * 100_000)
        assert armed == [start + 30 * MS]
        assert made.vcpu.run() == ExitReason.INTR
        assert ns() >= start + 39 * MS


def test_an_alarm_set_by_a_handler_ends_a_busy_guest(kvm: HardwareSystem) -> None:
    with guest(kvm, OUT_LOOP) as made:
        chance = random.Random(1)
        for _ in range(150):
            alarm = ns() + chance.randrange(300_000)
            made.vcpu.set_alarm(alarm)
            exits = 0
            while made.vcpu.run() == ExitReason.IO:
                exits += 1
                assert exits < 500_000
            assert ns() >= alarm


def test_a_far_alarm_is_no_error(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made:
        made.vcpu.set_alarm(1 << 70)
        assert made.vcpu.run() == ExitReason.HLT


def test_an_alarm_ends_a_hypercall_loop_in_long_mode(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\x0f\x01\xc1\xeb\xfb") as made:  # l: vmcall; jmp l
        for table, entry in ((0x8000, 0x9003), (0x9000, 0xA003), (0xA000, 0x83)):
            made.place(table, entry.to_bytes(8, "little"))
        flat = Segment(base=0, limit=0xFFFF_FFFF, selector=0x10, type=3, g=1)
        code = Segment(base=0, limit=0xFFFF_FFFF, selector=8, type=0xB, l=1, g=1)
        task = Segment(base=0, limit=0x67, selector=0x18, type=0xB, s=0)
        made.vcpu.set_sregs(
            Sregs(
                *(code, flat, flat, flat, flat, flat, task),
                cr0=0x8000_0011,
                cr3=0x8000,
                cr4=0x20,
                efer=0x500,
            )
        )
        made.vcpu.set_regs(Regs(rip=CODE, rsp=0x7000))
        made.vcpu.set_alarm(ns() + 50 * MS)
        assert made.vcpu.run() == ExitReason.INTR


# --- kicks --------------------------------------------------------------------------------------------------


def test_a_kick_ends_a_guest_that_spins(kvm: HardwareSystem) -> None:
    with guest(kvm, SPIN) as made, after(0.03, made.vcpu.kick):
        made.vcpu.set_alarm(ns() + LONG)
        start = ns()
        assert made.vcpu.run() == ExitReason.INTR
        assert 10 * MS < ns() - start < LONG


def test_kicks_come_promptly(kvm: HardwareSystem) -> None:
    kicked = 0

    def kick() -> None:
        nonlocal kicked
        kicked = ns()
        made.vcpu.kick()

    took = []
    with guest(kvm, SPIN) as made:
        for _ in range(15):
            made.vcpu.set_alarm(ns() + LONG)
            with after(0.005, kick):
                assert made.vcpu.run() == ExitReason.INTR
                took.append(ns() - kicked)
    assert min(took) >= 0
    assert statistics.median(took) < HEARTBEAT_NS / 4


def test_a_kick_before_run_counts_and_counts_once(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made:
        made.vcpu.kick()
        made.vcpu.kick()
        assert made.vcpu.run() == ExitReason.INTR
        assert made.vcpu.get_regs().rip == CODE
        assert made.vcpu.run() == ExitReason.HLT


def test_a_kick_by_a_handler_ends_the_next_run(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\xee" + HLT) as made:
        assert made.vcpu.run() == ExitReason.IO
        made.vcpu.kick()
        assert made.vcpu.run() == ExitReason.INTR
        assert made.vcpu.run() == ExitReason.HLT


def test_a_kick_completes_a_pending_in(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\xec" + HLT) as made:
        made.recorder.replies = [0x99]
        assert made.vcpu.run() == ExitReason.IO
        made.exits.io()
        made.vcpu.kick()
        assert made.vcpu.run() == ExitReason.INTR
        assert made.vcpu.get_regs().rax == 0x99


def test_a_kick_does_not_end_immediate_exit(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made:
        made.vcpu.immediate_exit = True
        made.vcpu.kick()
        assert made.vcpu.run() == ExitReason.INTR
        assert made.vcpu.run() == ExitReason.INTR
        made.vcpu.immediate_exit = False
        assert made.vcpu.run() == ExitReason.HLT


def test_ending_immediate_exit_does_not_end_a_kick(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made:
        made.vcpu.kick()
        made.vcpu.immediate_exit = True
        made.vcpu.immediate_exit = False
        assert made.vcpu.run() == ExitReason.INTR
        assert made.vcpu.run() == ExitReason.HLT


@pytest.mark.parametrize("code", [SPIN, OUT_LOOP])
def test_no_kick_of_many_is_lost(kvm: HardwareSystem, code: bytes) -> None:
    rounds = 300
    seen = threading.Semaphore(0)
    chance = random.Random(2)
    with guest(kvm, code) as made:

        def kicker() -> None:
            for _ in range(rounds):
                if chance.random() < 0.5:
                    time.sleep(chance.random() * 1e-4)
                made.vcpu.kick()
                assert seen.acquire(timeout=5)

        thread = threading.Thread(target=kicker)
        thread.start()
        for _ in range(rounds):
            made.vcpu.set_alarm(ns() + LONG)
            start = ns()
            while made.vcpu.run() == ExitReason.IO:
                pass
            assert ns() - start < LONG
            seen.release()
        thread.join()


def test_a_storm_of_kicks_does_not_pile_up(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\xb9\xff\xff\xe2\xfe" + HLT) as made:
        end = threading.Event()

        def storm() -> None:
            while not end.is_set():
                made.vcpu.kick()
                time.sleep(1e-5)

        thread = threading.Thread(target=storm)
        thread.start()
        for _ in range(100):
            made.vcpu.run()
        end.set()
        thread.join()
        runs = 0
        while made.vcpu.run() != ExitReason.HLT:
            runs += 1
            assert runs < 5


def test_a_kick_after_close_is_ignored(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made:
        assert made.vcpu.run() == ExitReason.HLT
    made.vcpu.kick()


# --- threads ------------------------------------------------------------------------------------------------


def test_a_worker_thread_is_woken(kvm: HardwareSystem) -> None:
    with guest(kvm, SPIN) as made:

        def work() -> None:
            made.vcpu.set_alarm(ns() + LONG)
            start = ns()
            assert made.vcpu.run() == ExitReason.INTR
            assert ns() - start < LONG
            made.vcpu.set_alarm(ns() + 10 * MS)
            assert made.vcpu.run() == ExitReason.INTR
            made.close()
            assert SIGNAL not in signal.pthread_sigmask(signal.SIG_BLOCK, [])

        with after(0.03, made.vcpu.kick):
            in_thread(work)


def test_two_vcpus_of_one_thread_keep_their_alarms_apart(kvm: HardwareSystem) -> None:
    def work() -> None:  # a thread without heartbeat
        with guest(kvm, SPIN) as first, guest(kvm, SPIN) as second:
            first.vcpu.set_alarm(ns())
            assert first.vcpu.run() == ExitReason.INTR
            early, late = ns() + 10 * MS, ns() + 50 * MS
            first.vcpu.set_alarm(early)
            second.vcpu.set_alarm(late)
            assert second.vcpu.run() == ExitReason.INTR
            assert ns() >= late
            with after(LONG / 1e9, first.vcpu.kick):
                assert first.vcpu.run() == ExitReason.INTR
            assert ns() < late + LONG

    in_thread(work)


def test_two_vcpus_of_one_thread_keep_their_kicks_apart(kvm: HardwareSystem) -> None:
    with guest(kvm, SPIN) as first, guest(kvm, b"\xee" + HLT) as second:
        first.vcpu.set_alarm(ns())
        assert first.vcpu.run() == ExitReason.INTR
        first.vcpu.kick()
        assert second.vcpu.run() == ExitReason.IO
        assert second.vcpu.run() == ExitReason.HLT
        first.vcpu.set_alarm(ns() + LONG)
        start = ns()
        assert first.vcpu.run() == ExitReason.INTR
        assert ns() - start < LONG


# --- other signals --------------------------------------------------------------------------------------------


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, whatever the test runner has set."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_a_guest_that_spins(kvm: HardwareSystem) -> None:
    with guest(kvm, SPIN) as made, after(0.05, lambda: os.kill(os.getpid(), signal.SIGINT)):
        made.vcpu.set_alarm(ns() + LONG)
        with pytest.raises(KeyboardInterrupt):
            made.vcpu.run()
        made.vcpu.set_alarm(ns())
        assert made.vcpu.run() == ExitReason.INTR


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_that_another_thread_received_waits_for_a_heartbeat_at_most(kvm: HardwareSystem) -> None:
    """As one that came between the interpreter's last look at signals and KVM_RUN: nothing ends the latter."""

    def receive() -> None:
        time.sleep(0.05)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        time.sleep(0.3)

    with guest(kvm, SPIN) as made:
        made.vcpu.set_alarm(ns() + LONG)
        thread = threading.Thread(target=receive)
        thread.start()
        start = ns()
        with pytest.raises(KeyboardInterrupt):
            made.vcpu.run()
        assert ns() - start < 50 * MS + 5 * HEARTBEAT_NS
        thread.join()


def test_a_handled_signal_is_an_intr(kvm: HardwareSystem) -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, _frame: calls.append(number))
    try:
        with guest(kvm, SPIN) as made, after(0.02, lambda: os.kill(os.getpid(), signal.SIGUSR1)):
            made.vcpu.set_alarm(ns() + LONG)
            start = ns()
            assert made.vcpu.run() == ExitReason.INTR
            assert ns() - start < LONG
            assert calls == [signal.SIGUSR1]
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_heartbeats_are_not_seen_by_the_caller(kvm: HardwareSystem) -> None:
    with guest(kvm, SPIN) as made:
        alarm = ns() + 3 * HEARTBEAT_NS
        made.vcpu.set_alarm(alarm)
        assert made.vcpu.run() == ExitReason.INTR
        assert ns() >= alarm


def ignored() -> bool:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("SigIgn:"):
            return bool(int(line.split()[1], 16) >> (SIGNAL - 1) & 1)
    raise AssertionError("no SigIgn")


def timers() -> str:
    table = Path("/proc/self/timers")
    return table.read_text() if table.exists() else ""


def test_closing_restores_the_signal_state(kvm: HardwareSystem) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, []), ignored(), timers()
    first, second = Guest(kvm, SPIN), Guest(kvm, SPIN)
    for made in (first, second):
        made.vcpu.set_alarm(ns())
        assert made.vcpu.run() == ExitReason.INTR
        made.vcpu.set_alarm(ns() + 1)
        made.vcpu.kick()
    assert SIGNAL in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert ignored()
    first.close()
    assert SIGNAL in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    second.close()
    second.close()
    assert (signal.pthread_sigmask(signal.SIG_BLOCK, []), ignored(), timers()) == before
    assert SIGNAL not in signal.sigpending()


def test_a_mask_that_was_there_stays_inside_run(kvm: HardwareSystem) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])
    try:
        this = threading.get_ident()  # a signal to the process may go to any thread, and end it
        with guest(kvm, SPIN) as made, after(0.01, lambda: signal.pthread_kill(this, signal.SIGUSR2)):
            alarm = ns() + 60 * MS
            made.vcpu.set_alarm(alarm)
            assert made.vcpu.run() == ExitReason.INTR
            assert ns() >= alarm
        assert signal.sigtimedwait([signal.SIGUSR2], 0) is not None
        assert signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def test_a_stray_signal_ends_neither_process_nor_run(kvm: HardwareSystem) -> None:
    def strike_unprepared_thread() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [SIGNAL])
        posix.signal_thread(threading.get_native_id(), SIGNAL)

    with guest(kvm, b"\xee" + HLT) as made:
        assert made.vcpu.run() == ExitReason.IO
        in_thread(strike_unprepared_thread)
        posix.signal_thread(threading.get_native_id(), SIGNAL)
        assert made.vcpu.run() == ExitReason.HLT
