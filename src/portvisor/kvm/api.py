"""What both engines offer, in KVM's words: System -> Vm -> Vcpu, named after the ioctls.

`Vcpu.run()` returns an exit reason of `abi.ExitReason`; the details are in `Vcpu.kvm_run`, which has the
layout of `struct kvm_run` on both engines, so that one run loop drives both.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from enum import IntEnum
from typing import Protocol

from portvisor.kvm.abi import CpuidEntry, Regs, Sregs

PortRead = tuple[Callable[[int, int], int], int]
PortWrite = tuple[Callable[[int, int, int], None], int]


class EngineError(RuntimeError):
    """The engine cannot be had, or the guest did what it cannot run. The text is one line for the user."""


class PortTables(Protocol):
    """A flat port map (`ports.PortSpace` is one): tables indexed by `size >> 1` and port, updated in place."""

    reads: tuple[list[PortRead], list[PortRead], list[PortRead]]
    writes: tuple[list[PortWrite], list[PortWrite], list[PortWrite]]

    def read_block(self, port: int, size: int, count: int) -> bytes:
        """`count` INs from one port, little endian."""
        ...

    def write_block(self, port: int, size: int, data: bytes) -> None:
        """`len(data) // size` OUTs to one port."""
        ...

    def failed(self, port: int, size: int, write: bool, error: BaseException) -> int:
        """Report a handler that raised; the value its read has."""
        ...


class MemoryBus(Protocol):
    """Where accesses to guest-physical addresses without memory go (`ports.MmioSpace` is one)."""

    def read(self, address: int, size: int) -> int:
        """A read of 1, 2, 4 or 8 bytes."""
        ...

    def write(self, address: int, size: int, value: int) -> None:
        """A write of 1, 2, 4 or 8 bytes."""
        ...


class Route(IntEnum):
    """How a port access came to be served."""

    UNKNOWN = 0
    ENGINE = 1
    """The guest stayed in the engine, which called the handler."""
    EXIT = 2
    """The guest was left (KVM_EXIT_IO)."""
    COALESCED = 3
    """The engine had queued the write; the guest is elsewhere by now."""
    EMULATOR = 4
    """The engine had the instruction done by our emulator."""


class InterruptSource(Protocol):
    """A PIC as a vCPU sees it."""

    @property
    def pending(self) -> bool:
        """Level of INTR."""
        ...

    def acknowledge(self) -> int:
        """The INTA cycle: the vector (0-255) to deliver."""
        ...


class Vcpu(Protocol):
    """One virtual CPU; all calls from the thread that runs it, but `kick`, which any thread may call."""

    kvm_run: memoryview
    """`struct kvm_run` and, one page further, the data of port I/O (KVM_PIO_PAGE_OFFSET)."""
    rip: memoryview | None
    """8 bytes: while a port access is served, the guest's RIP as the engine has it; None: not to be had cheaply."""
    immediate_exit: bool
    """Complete the pending I/O at the next `run()` and come back with INTR without executing the guest."""

    def run(self) -> int:
        """Execute the guest until something needs user space; the `abi.ExitReason`.

        INTR (10) stands for EINTR: kicked, the alarm went off, or a signal came.
        """
        ...

    def kick(self) -> None:
        """Make `run()` return INTR soon, from any thread or signal handler."""
        ...

    def set_alarm(self, host_time: int | None) -> None:
        """`run()` returns INTR no later than this `time.monotonic_ns()`; None for no alarm.

        May be called from a handler that the engine calls while it runs.
        """
        ...

    def set_interrupt_source(self, source: InterruptSource | None) -> None:
        """Connect a PIC in user space: the engine acknowledges and injects by itself when the guest can take it."""
        ...

    def interrupt_changed(self) -> None:
        """Tell the engine that the source's `pending` may have changed. Cheap; allowed inside a handler."""
        ...

    def interrupt(self, vector: int) -> None:
        """KVM_INTERRUPT: inject one vector; only when `ready_for_interrupt_injection` in kvm_run is set."""
        ...

    def get_regs(self) -> Regs:
        """KVM_GET_REGS."""
        ...

    def set_regs(self, regs: Regs) -> None:
        """KVM_SET_REGS."""
        ...

    def get_sregs(self) -> Sregs:
        """KVM_GET_SREGS."""
        ...

    def set_sregs(self, sregs: Sregs) -> None:
        """KVM_SET_SREGS."""
        ...

    def set_cpuid2(self, entries: Sequence[CpuidEntry]) -> None:
        """KVM_SET_CPUID2."""
        ...

    def set_a20(self, enabled: bool) -> None:
        """A20M#: with False, address bit 20 reads 0. KVM has no such pin and ignores it."""
        ...

    def reset(self) -> None:
        """INIT/RESET#: CS:IP F000:FFF0 with base FFFF0000, as after power-on."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...


class Vm(Protocol):
    """One virtual machine."""

    route: bytearray
    """One byte: the `Route` of the access that is being served, kept up by the engine."""

    def set_user_memory_region(
        self, slot: int, guest_phys_addr: int, memory: mmap.mmap, offset: int, size: int, readonly: bool = False
    ) -> None:
        """KVM_SET_USER_MEMORY_REGION: map `size` bytes of `memory` from `offset`. Size 0 removes the slot."""
        ...

    def create_vcpu(self, vcpu_id: int) -> Vcpu:
        """KVM_CREATE_VCPU."""
        ...

    def serve_ports(self, tables: PortTables) -> bool:
        """Offer to serve ports without an exit. False: the engine will leave with KVM_EXIT_IO instead."""
        ...

    def serve_memory(self, bus: MemoryBus) -> bool:
        """Offer to serve unmapped memory without an exit. False: KVM_EXIT_MMIO instead."""
        ...

    def memory_written(self, start: int, end: int) -> None:
        """User space (device DMA, a loader) wrote guest-physical [start, end): drop translations of it."""
        ...

    def register_coalesced_pio(self, port: int, size: int) -> bool:
        """KVM_REGISTER_COALESCED_MMIO with pio=1; False if the engine cannot. Drained by `drain_coalesced`."""
        ...

    def drain_coalesced(self, write: Callable[[int, int, int], None]) -> None:
        """Give every queued write (port, size, value) in order. Call it before any exit is handled."""
        ...

    def ioeventfd(
        self, fd: int, port: int, size: int, datamatch: int | None = None, deassign: bool = False
    ) -> None:
        """KVM_IOEVENTFD on a port."""
        ...

    def create_irqchip(self) -> None:
        """KVM_CREATE_IRQCHIP: PIC (and APICs) in the engine.

        Raises:
            EngineError: this engine has none.
        """
        ...

    def create_pit2(self) -> None:
        """KVM_CREATE_PIT2.

        Raises:
            EngineError: this engine has none.
        """
        ...

    def irq_line(self, irq: int, level: int) -> None:
        """KVM_IRQ_LINE."""
        ...

    def close(self) -> None:
        """Give everything back, vCPUs included."""
        ...


class System(Protocol):
    """`/dev/kvm`, or what stands for it."""

    name: str
    """"kvm" or "software"."""

    def check_extension(self, capability: int) -> int:
        """KVM_CHECK_EXTENSION."""
        ...

    def create_vm(self) -> Vm:
        """KVM_CREATE_VM."""
        ...

    def get_supported_cpuid(self) -> list[CpuidEntry]:
        """KVM_GET_SUPPORTED_CPUID."""
        ...

    def close(self) -> None:
        """Give everything back."""
        ...
