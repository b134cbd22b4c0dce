"""A virtual CPU: KVM_RUN, registers, interrupts, and being woken."""

from __future__ import annotations

import errno
import mmap
import struct
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from fcntl import ioctl

from portvisor.kvm import abi
from portvisor.kvm.abi import (
    KVM_RUN,
    KVM_SYNC_X86_REGS,
    PAGE_SIZE,
    RUN_CR8,
    RUN_IMMEDIATE_EXIT,
    RUN_READY_FOR_INTERRUPT_INJECTION,
    RUN_REQUEST_INTERRUPT_WINDOW,
    RUN_SYNC_REGS,
    RUN_SYNC_RIP,
    CpuidEntry,
    ExitReason,
    Regs,
    Sregs,
)
from portvisor.kvm.api import EngineError, InterruptSource
from portvisor.kvm.hardware import calls, posix
from portvisor.kvm.hardware.abilities import Abilities
from portvisor.kvm.hardware.power_on import PowerOnState
from portvisor.kvm.hardware.wakeup import SIGNAL, ThreadWakeup

INTR = int(ExitReason.INTR)
IRQ_WINDOW_OPEN = int(ExitReason.IRQ_WINDOW_OPEN)
EXIT_REASON_WORD = abi.RUN_EXIT_REASON // 4
VALID_REGS_QUAD = abi.RUN_KVM_VALID_REGS // 8
DIRTY_REGS_QUAD = abi.RUN_KVM_DIRTY_REGS // 8
SIGNATURE_BEFORE_CPUID = 0x600
"""EDX after RESET# as long as no CPUID gives the processor's signature: family 6 (SDM vol. 3, table 10-1)."""
COMPLETION_LIMIT = 8
"""Runs that finishing an instruction takes at most: one a piece of an access that spans pages."""


class HardwareVcpu:
    """One KVM vCPU.

    The thread that calls `run` first is the one whose wake-ups it gets.
    """

    def __init__(self, fd: int, abilities: Abilities, memory: object) -> None:
        """`memory` is what keeps the guest's memory in place; it lives as long as the vCPU."""
        self._fd = fd
        self._memory = memory
        self._map = mmap.mmap(fd, abilities.run_size)
        self._view = memoryview(self._map)
        self.kvm_run = self._view[: abi.PIO_DATA + abi.PIO_DATA_SIZE]
        self._words = self.kvm_run.cast("I")
        self._quads = self.kvm_run.cast("Q")
        self._closed = False
        self._closing = threading.RLock()
        self._wakeup: ThreadWakeup | None = None
        self._kicked = False
        self._disturbed = False
        self._immediate_exit = False
        self._timer: posix.ThreadTimer | None = None
        self._alarm: int | None = None
        self._armed: int | None = None
        self._source: InterruptSource | None = None
        self._attention = True
        """`run` has to look at what is not done at every entry: the thread, the interrupt source."""
        self._signature = SIGNATURE_BEFORE_CPUID
        self._synced = abilities.sync_regs & KVM_SYNC_X86_REGS
        self.rip = self.kvm_run[RUN_SYNC_RIP : RUN_SYNC_RIP + 8] if self._synced else None
        if self._synced:
            self._start_sync()
        self._power_on = PowerOnState(fd, abilities.msrs)

    def fileno(self) -> int:
        """The vCPU's file descriptor, for ioctls that have no method here."""
        return self._fd

    def page(self, number: int) -> memoryview:
        """A page of the mapping."""
        return self._view[number * PAGE_SIZE : (number + 1) * PAGE_SIZE]

    # --- running ------------------------------------------------------------------------------------

    def run(self) -> int:
        while True:
            if self._attention:
                self._attend()
            try:
                ioctl(self._fd, KVM_RUN)  # without an argument: an int one costs more than the whole call
            except OSError as error:
                if self._stays_out(error):
                    return INTR
                continue
            reason = self._words[EXIT_REASON_WORD]
            if reason != IRQ_WINDOW_OPEN or self._source is None:
                return reason

    def _attend(self) -> None:
        if self._wakeup is None:
            self._bind()
        self._attention = False  # before looking, so that a change from elsewhere is not forgotten
        if self._source is not None and self._inject(self._source):
            self._attention = True
        self.kvm_run[RUN_REQUEST_INTERRUPT_WINDOW] = self._attention

    def _inject(self, source: InterruptSource) -> bool:
        """Deliver an interrupt if there is one and the guest can take it; whether one still waits."""
        if source.pending and self.kvm_run[RUN_READY_FOR_INTERRUPT_INJECTION]:
            self.interrupt(source.acknowledge())
        return source.pending

    def _bind(self) -> None:
        """Make the calling thread the one that alarms and kicks signal."""
        wakeup = ThreadWakeup.of_this_thread()
        wakeup.join(self, self._fd)
        self._timer = posix.ThreadTimer(SIGNAL, wakeup.thread)
        self._wakeup = wakeup
        self._rearm()

    # --- being woken --------------------------------------------------------------------------------

    def _stays_out(self, error: OSError) -> bool:
        """After KVM_RUN failed: whether `run` has to return INTR; False to go on with the guest.

        The order matters: signals are taken before the flags are looked at, so that a kick which comes between
        leaves another signal for the next KVM_RUN.
        """
        if error.errno != errno.EINTR:
            raise EngineError(f"KVM_RUN: {error.strerror}") from error
        assert self._wakeup is not None
        ours = self._disturbed
        self._disturbed = False
        if self._wakeup.take():
            ours = True
            self._wakeup.share(self)
        if self._alarm_due() or self._kicked or self._immediate_exit or not ours:
            self.kvm_run[RUN_IMMEDIATE_EXIT] = self._immediate_exit
            self._kicked = False
            self._words[EXIT_REASON_WORD] = INTR
            return True
        self.kvm_run[RUN_IMMEDIATE_EXIT] = 0
        return False

    def _alarm_due(self) -> bool:
        """Whether the alarm has gone off; if it is later than the timer was armed for, arm it again."""
        now = time.monotonic_ns()
        if self._armed is not None and now >= self._armed:
            self._armed = None
        if self._alarm is not None and now >= self._alarm:
            self._alarm = None
            return True
        self._rearm()
        return False

    def _rearm(self) -> None:
        """Have the timer signal at the alarm or before: an early signal costs less than a call for each change."""
        alarm = self._alarm
        if alarm is not None and self._timer is not None and (self._armed is None or alarm < self._armed):
            self._armed = alarm
            self._timer.arm(alarm)

    def set_alarm(self, host_time: int | None) -> None:
        self._alarm = host_time
        self._rearm()

    def kick(self) -> None:
        with self._closing:
            if self._closed or self._kicked:
                return
            self._kicked = True
            self.kvm_run[RUN_IMMEDIATE_EXIT] = 1
            if self._wakeup is not None:
                posix.signal_thread(self._wakeup.thread, SIGNAL)

    def disturb(self) -> None:
        """Another vCPU of this thread took the signal: look after the alarm at the next `run`."""
        self._disturbed = True
        self.kvm_run[RUN_IMMEDIATE_EXIT] = 1

    @property
    def immediate_exit(self) -> bool:
        return self._immediate_exit

    @immediate_exit.setter
    def immediate_exit(self, value: bool) -> None:
        self._immediate_exit = value
        self.kvm_run[RUN_IMMEDIATE_EXIT] = value or self._kicked

    # --- interrupts ---------------------------------------------------------------------------------

    def set_interrupt_source(self, source: InterruptSource | None) -> None:
        self._source = source
        self._attention = True

    def interrupt_changed(self) -> None:
        self._attention = True

    def interrupt(self, vector: int) -> None:
        if not 0 <= vector <= 255:
            raise EngineError(f"interrupt vector {vector} is not one of 0-255")
        calls.call(self._fd, abi.KVM_INTERRUPT, struct.pack("<I", vector), what=f"KVM_INTERRUPT {vector:#x}")
        self.kvm_run[RUN_READY_FOR_INTERRUPT_INJECTION] = 0

    # --- registers ----------------------------------------------------------------------------------
    # The general registers travel in struct kvm_run: 144 bytes that KVM copies at every exit. The special
    # ones do not: collecting them costs KVM more than an occasional ioctl, and SET_SREGS can refuse.

    def get_regs(self) -> Regs:
        if self._synced:
            return Regs.unpack(self.kvm_run, RUN_SYNC_REGS)
        return Regs.unpack(self._fetch_regs())

    def _fetch_regs(self) -> bytearray:
        return calls.fetch(self._fd, abi.KVM_GET_REGS, bytearray(Regs.LAYOUT.size), what="KVM_GET_REGS")

    def _start_sync(self) -> None:
        """From now on the registers in struct kvm_run are the vCPU's."""
        self.kvm_run[RUN_SYNC_REGS : RUN_SYNC_REGS + Regs.LAYOUT.size] = self._fetch_regs()
        self._quads[VALID_REGS_QUAD] = self._synced

    def set_regs(self, regs: Regs) -> None:
        if self._synced:
            self.kvm_run[RUN_SYNC_REGS : RUN_SYNC_REGS + Regs.LAYOUT.size] = regs.pack()
            self._quads[DIRTY_REGS_QUAD] = self._synced
        else:
            calls.call(self._fd, abi.KVM_SET_REGS, regs.pack(), what="KVM_SET_REGS")
        self._flags_unknown()

    def get_sregs(self) -> Sregs:
        return Sregs.unpack(calls.fetch(self._fd, abi.KVM_GET_SREGS, bytearray(Sregs.SIZE), what="KVM_GET_SREGS"))

    def set_sregs(self, sregs: Sregs) -> None:
        calls.call(self._fd, abi.KVM_SET_SREGS, sregs.pack(), what="KVM_SET_SREGS")
        self._quads[RUN_CR8 // 8] = sregs.cr8  # KVM_RUN loads it from here
        self._flags_unknown()

    def _flags_unknown(self) -> None:
        """What KVM_RUN reported about interrupts is out of date; let it open a window when there is one."""
        self.kvm_run[RUN_READY_FOR_INTERRUPT_INJECTION] = 0

    def set_cpuid2(self, entries: Sequence[CpuidEntry]) -> None:
        table = struct.pack("<II", len(entries), 0) + b"".join(entry.pack() for entry in entries)
        calls.fetch(self._fd, abi.KVM_SET_CPUID2, bytearray(table), what=f"CPUID of {len(entries)} entries")
        for entry in entries:
            if entry.function == 1:
                self._signature = entry.eax

    def set_a20(self, enabled: bool) -> None:
        """KVM has no A20 mask: nothing happens."""

    # --- reset --------------------------------------------------------------------------------------

    def reset(self) -> None:
        self._finish_instruction()
        self.set_sregs(Sregs())
        self.set_regs(Regs(rip=0xFFF0, rdx=self._signature))
        self._power_on.restore()
        self._attention = True

    def _finish_instruction(self) -> None:
        """Complete I/O that KVM waits for, so that it does not complete into the state after the reset."""
        before = self.kvm_run[RUN_IMMEDIATE_EXIT]
        self.kvm_run[RUN_IMMEDIATE_EXIT] = 1
        for _ in range(COMPLETION_LIMIT):
            try:
                ioctl(self._fd, KVM_RUN)
            except OSError:
                break
        self.kvm_run[RUN_IMMEDIATE_EXIT] = before

    # --- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        with self._closing:
            if not self._closed:
                self._closed = True
                self._release()
        with suppress(BufferError):  # somebody still holds a view; the mapping goes with the last
            self._map.close()

    def _release(self) -> None:
        if self._timer is not None:
            self._timer.delete()
            self._timer = None
        if self._wakeup is not None:
            self._wakeup.leave(self)
        calls.close(self._fd)
        self._fd = -1
        for view in (self._words, self._quads, self.kvm_run, self._view):
            view.release()
