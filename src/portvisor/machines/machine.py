"""What every board has: a VM, memory, the port space, a clock, devices, and the run loop.

Everything runs in one thread. The engine comes back for exits it does not serve itself, when an alarm
goes off (the next timer, or the next look at the host's inputs), and when it is kicked.
"""

from __future__ import annotations

import mmap
import select
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

from portvisor.kvm.abi import ExitReason, Sregs
from portvisor.kvm.api import EngineError, InterruptSource, System
from portvisor.kvm.describe import describe_exit
from portvisor.kvm.exits import ExitHandler
from portvisor.machines.outcome import End, Outcome
from portvisor.ports import (
    Clock,
    Device,
    DeviceFailureError,
    Failure,
    MmioSpace,
    PortSpace,
    Ram,
    RamRegion,
    WallClock,
)

FOUR_GIB = 1 << 32
SHADOW_END, SHADOWED_FIRMWARE = 0x100000, 0x20000
EXIT_IO, EXIT_MMIO = int(ExitReason.IO), int(ExitReason.MMIO)
"""Plain integers: comparing with an enum member on every exit costs more than reading the exit."""
INPUT_POLL_NS = 10_000_000
"""How often a busy guest's host inputs are looked at."""
IDLE_POLL_S = 1.0
"""Longest sleep of a halted machine, so that a stop request from a signal handler is seen."""

AnyDevice = TypeVar("AnyDevice", bound=Device)


class HostInput(Protocol):
    """A file descriptor whose bytes go to a device, polled by the run loop."""

    def fileno(self) -> int:
        """The descriptor; negative once it is closed."""
        ...

    def on_readable(self) -> None:
        """Take what has come. Never blocks."""
        ...


class SnapshotTap(Protocol):
    """Told about the snapshots of a machine, to record them."""

    def taken(self, identity: object) -> None:
        """A snapshot was taken."""
        ...

    def restore(self, identity: object, restore_devices: Callable[[], None]) -> None:
        """A snapshot is being put back: have the devices restored."""
        ...


@dataclass(frozen=True, slots=True)
class Rom:
    """Firmware that RESET# brings back: `data` at `base`, in guest RAM."""

    base: int
    data: bytes


class Machine:
    """A board without chips. Subclasses add them; `run` executes the guest."""

    name = "machine"

    def __init__(
        self,
        system: System,
        memory: int,
        clock: Clock | None = None,
        *,
        extra_memory: int = 0,
        strict: bool = False,
    ) -> None:
        self.system = system
        self.clock = clock or WallClock()
        self.ports = PortSpace(strict=strict)
        self.ports.on_failure = self._device_failed
        self.mmio = MmioSpace()
        self.mmio.on_error = self._mmio_failed
        self.failures: list[str] = []
        self.on_message: Callable[[str], None] | None = None
        """Told one line when something worth a user's attention happens."""
        self.memory_size = memory
        self.vm = system.create_vm()
        self._memory = mmap.mmap(-1, memory + extra_memory)
        self._slots = 0
        self._regions: list[RamRegion] = []
        self.ram = Ram()
        self._shadow: list[Rom] = []
        self.devices: list[Device] = []
        self.inputs: list[HostInput] = []
        self.visitors: list[HostInput] = []
        """Polled like `inputs`, but they give the guest nothing: a halted machine does not wait for them."""
        self.before_reset: list[Callable[[], None]] = []
        self.after_reset: list[Callable[[], None]] = []
        self.reset_limit: int | None = None
        """Stop with `End.RESET` instead of the reset after this many; None reboots for ever."""
        self.resets = 0
        self.powered_off: Outcome | None = None
        """How the machine was switched off, until a reset or a restored snapshot switches it on."""
        self.snapshot_tap: SnapshotTap | None = None
        self._stop: Outcome | None = None
        self._reset_wanted: str | None = None
        self._interrupts: InterruptSource | None = None
        self._closed = False
        self.vcpu = self.vm.create_vcpu(0)
        self.clock.on_earlier_deadline = self._retime
        self._serving_ports = self.vm.serve_ports(self.ports)
        self._serving_memory = self.vm.serve_memory(self.mmio)
        self._exits = ExitHandler(self.vcpu.kvm_run, self.ports, self.mmio)
        self._limit: int | None = None
        self._coalescing = False

    # --- building -----------------------------------------------------------------------------------

    def add_ram(self, base: int, offset: int, size: int) -> None:
        """Map `size` bytes of the machine's memory from `offset` at guest-physical `base`."""
        self.vm.set_user_memory_region(self._slots, base, self._memory, offset, size)
        self._slots += 1
        self._regions.append(RamRegion(base, memoryview(self._memory)[offset : offset + size]))
        self.ram = Ram(*self._regions)
        self.ram.on_write = self.vm.memory_written

    def add_rom(self, base: int, data: bytes) -> None:
        """Map read-only memory with `data`, padded to whole pages, at guest-physical `base`."""
        size = -(-len(data) // mmap.PAGESIZE) * mmap.PAGESIZE
        rom = mmap.mmap(-1, size)
        rom[: len(data)] = data
        self.vm.set_user_memory_region(self._slots, base, rom, 0, size, readonly=True)
        self._slots += 1

    def add_shadow(self, base: int, data: bytes) -> None:
        """Put `data` in RAM at `base`, now and at every reset: shadowed firmware."""
        self._shadow.append(Rom(base, data))
        self.ram.write(base, data)

    def add_firmware(self, image: bytes, shadowed: int = SHADOWED_FIRMWARE) -> None:
        """A BIOS image: ROM that ends at 4 GiB, and its last `shadowed` bytes in RAM below 1 MiB."""
        self.add_rom(FOUR_GIB - len(image), image)
        shadow = image[-shadowed:]
        self.add_shadow(SHADOW_END - len(shadow), shadow)

    def attach(self, device: AnyDevice) -> AnyDevice:
        """Put a device on the port space and into the machine's reset and snapshot lists."""
        self.ports.attach(device)
        self.devices.append(device)
        return device

    def set_interrupt_source(self, source: InterruptSource) -> None:
        """Connect the PIC to the vCPU."""
        self._interrupts = source
        self.vcpu.set_interrupt_source(source)

    def coalesce(self, port: int, size: int = 1) -> None:
        """Let writes to a write-only port queue up in the engine, where it can."""
        if not self._serving_ports:
            self._coalescing = self.vm.register_coalesced_pio(port, size) or self._coalescing

    # --- what devices ask for -------------------------------------------------------------------------

    def request_reset(self, reason: str) -> None:
        """Reset the whole board as soon as the vCPU is between two blocks of instructions."""
        self._reset_wanted = reason
        self.vcpu.kick()

    def request_stop(self, outcome: Outcome) -> None:
        """End the run. The first request counts. Allowed in a signal handler."""
        if self._stop is None:
            self._stop = outcome
        self.vcpu.kick()

    def say(self, text: str) -> None:
        """One line for the user."""
        if self.on_message:
            self.on_message(text)

    def _device_failed(self, failure: Failure) -> None:
        self._note_failure(str(failure))

    def _mmio_failed(self, what: str, error: BaseException) -> None:
        self._note_failure(f"{what} raised {type(error).__name__}: {error}")
        if self.ports.strict:
            raise DeviceFailureError(self.failures[-1]) from error

    def _note_failure(self, text: str) -> None:
        if text not in self.failures:
            self.failures.append(text)
            self.say(f"device failure: {text}")

    # --- running --------------------------------------------------------------------------------------

    @property
    def outcome(self) -> Outcome | None:
        """How the last run ended; None before its end."""
        return self._stop

    def reset(self) -> None:
        """RESET#: every device and the vCPU; shadowed firmware comes back, other RAM stays."""
        self.powered_off = None
        for hook in self.before_reset:
            hook()
        for device in self.devices:
            device.reset()
        for rom in self._shadow:
            self.ram.write(rom.base, rom.data)
        self.vcpu.reset()
        self.vcpu.set_sregs(Sregs())
        for hook in self.after_reset:
            hook()

    def run(self, limit: float | None = None) -> Outcome:
        """Execute the guest until it ends, or for `limit` seconds.

        Returns:
            How it ended. A second call goes on after TIME_LIMIT and CONDITION; a machine that is switched
            off stays so until it is reset.
        """
        if self.powered_off is not None:
            return self.powered_off
        self._limit = None if limit is None else time.monotonic_ns() + int(limit * 1e9)
        self._stop = None
        try:
            while self._stop is None:
                self._between_runs()
                if self._stop is None:
                    self._run_until_attention()
        except KeyboardInterrupt:
            self._stop = Outcome(End.INTERRUPTED)
        except DeviceFailureError as error:
            self._stop = Outcome(End.DEVICE, detail=str(error))
        except EngineError as error:
            self._stop = Outcome(End.ENGINE, detail=str(error))
        if self._stop.end is End.POWER_OFF:
            self.powered_off = self._stop
        return self._stop

    def _between_runs(self) -> None:
        if self._reset_wanted is not None:
            self._reset_now(self._reset_wanted)
        if self._limit is not None and time.monotonic_ns() >= self._limit:
            self._stop = self._stop or Outcome(End.TIME_LIMIT)
        self.clock.run_due()
        self._poll_inputs(0.0)
        self._retime()

    def _reset_now(self, reason: str) -> None:
        self._reset_wanted = None
        if self.reset_limit is not None and self.resets >= self.reset_limit:
            self._stop = self._stop or Outcome(End.RESET, detail=reason)
            return
        self.resets += 1
        self.reset()

    def _retime(self) -> None:
        self.vcpu.set_alarm(self._alarm_time())

    def _alarm_time(self) -> int | None:
        times = []
        if self._limit is not None:
            times.append(self._limit)
        if self.inputs or self.visitors:
            times.append(time.monotonic_ns() + INPUT_POLL_NS)
        deadline = self.clock.next_deadline()
        if deadline is not None and isinstance(self.clock, WallClock):
            times.append(self.clock.host_time(deadline))
        return min(times) if times else None

    def _run_until_attention(self) -> None:
        """Serve exits until something other than the guest needs care."""
        run, serve_io, serve_mmio = self.vcpu.run, self._exits.io, self._exits.mmio
        drain = self.vm.drain_coalesced if self._coalescing else None
        write = self.ports.write
        while True:
            reason = run()
            if drain:
                drain(write)
            if reason == EXIT_IO:
                serve_io()
            elif reason == EXIT_MMIO:
                serve_mmio()
            else:
                self._other_exit(reason)
                return
            if self._stop is not None or self._reset_wanted is not None:
                return

    def _other_exit(self, reason: int) -> None:
        if reason in (ExitReason.INTR, ExitReason.IRQ_WINDOW_OPEN):
            return
        if self._stop is not None or self._reset_wanted is not None:
            return
        if reason == ExitReason.HLT:
            self._halted()
        elif reason == ExitReason.SHUTDOWN:
            self._triple_fault()
        else:
            self._stop = Outcome(End.ENGINE, detail=describe_exit(self.vcpu, self.ram.read))

    def _triple_fault(self) -> None:
        if self.reset_limit is None or self.resets < self.reset_limit:
            self._reset_now("triple fault")
        else:
            self._stop = Outcome(End.SHUTDOWN, detail=describe_exit(self.vcpu, self.ram.read))

    def _halted(self) -> None:
        if not self.vcpu.get_regs().rflags & 0x200:
            self._stop = Outcome(End.HALTED, detail=describe_exit(self.vcpu, self.ram.read))
            return
        while not self._wakeable():
            if self._limit is not None and time.monotonic_ns() >= self._limit:
                return
            deadline = self.clock.next_deadline()
            if deadline is None and not self.inputs:
                self._stop = Outcome(End.IDLE)
                return
            self._sleep_until(deadline)

    def _wakeable(self) -> bool:
        pending = self._interrupts is not None and self._interrupts.pending
        return pending or self._stop is not None or self._reset_wanted is not None

    def _sleep_until(self, deadline: int | None) -> None:
        timeout = IDLE_POLL_S
        if deadline is not None:
            timeout = min(timeout, max(0.0, self._seconds_to(deadline)))
        if self._limit is not None:
            timeout = min(timeout, max(0.0, (self._limit - time.monotonic_ns()) / 1e9))
        self._poll_inputs(timeout)
        self.clock.run_due()

    def _seconds_to(self, deadline: int) -> float:
        """Host time until a clock deadline; a virtual clock jumps there at once."""
        return self.clock.idle_until(deadline)

    def _poll_inputs(self, timeout: float) -> None:
        self.inputs[:] = [one for one in self.inputs if one.fileno() >= 0]
        live = [*self.inputs, *self.visitors]
        if not live:
            if timeout > 0:
                time.sleep(timeout)
            return
        readable, _, _ = select.select(live, [], [], timeout)
        for one in readable:
            one.on_readable()

    # --- the end --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Give the VM and its memory back. The system stays open."""
        if not self._closed:
            self._closed = True
            self.clock.on_earlier_deadline = None
            self.vcpu.close()
            self.vm.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def warn(text: str) -> None:
    """A message to the user's terminal, apart from the guest's output."""
    print(f"portvisor: {text}", file=sys.stderr)
