"""`System -> Vm -> Vcpu` over a table of vendor operations."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Sequence

from portvisor.kvm import abi
from portvisor.kvm.api import EngineError, InterruptSource, MemoryBus, PortTables, Route
from portvisor.kvm.software.io_bus import IoBus
from portvisor.kvm.software.unicorn_x86 import unicorn_x86_ops
from portvisor.kvm.software.vendor import Processor, VendorOps

RUN_PAGES = 3
"""`struct kvm_run`, the data of port I/O, and the page of the coalesced ring (kept in the engine here)."""
CAPABILITIES = {
    abi.KVM_CAP_COALESCED_MMIO: abi.KVM_COALESCED_MMIO_PAGE_OFFSET,
    abi.KVM_CAP_IOEVENTFD: 1,
    abi.KVM_CAP_READONLY_MEM: 1,
    abi.KVM_CAP_IMMEDIATE_EXIT: 1,
    abi.KVM_CAP_COALESCED_PIO: 1,
}
LAST_KVM_EXIT = 255
"""Reasons above this one belong to the vendor."""


def open_software(ops: VendorOps = unicorn_x86_ops) -> SoftwareSystem:
    """The software engine.

    Raises:
        EngineError: what the back end needs is not there.
    """
    return SoftwareSystem(ops)


class SoftwareSystem:
    """What stands for `/dev/kvm`."""

    name = "software"

    def __init__(self, ops: VendorOps) -> None:
        self.ops = ops
        self._vms: list[SoftwareVm] = []
        ops.hardware_setup()

    def check_extension(self, capability: int) -> int:
        return CAPABILITIES.get(capability, 0)

    def create_vm(self) -> SoftwareVm:
        vm = SoftwareVm(self.ops, self._vms.remove)
        self._vms.append(vm)
        return vm

    def get_supported_cpuid(self) -> list[abi.CpuidEntry]:
        return self.ops.get_supported_cpuid()

    def close(self) -> None:
        for vm in list(self._vms):
            vm.close()


class SoftwareVm:
    """One virtual machine with at most one vCPU."""

    def __init__(self, ops: VendorOps, closed: Callable[[SoftwareVm], None]) -> None:
        self._ops = ops
        self._closed = closed
        self._run = mmap.mmap(-1, RUN_PAGES * abi.PAGE_SIZE)
        self._processor: Processor | None = ops.vm_init(self._run)
        self._vcpu: SoftwareVcpu | None = None
        self._bus = IoBus()
        self.route = bytearray((Route.EXIT,))

    def _open(self) -> Processor:
        if self._processor is None:
            raise EngineError("the virtual machine is closed")
        return self._processor

    def set_user_memory_region(
        self, slot: int, guest_phys_addr: int, memory: mmap.mmap, offset: int, size: int, readonly: bool = False
    ) -> None:
        self._ops.set_memory_region(self._open(), slot, guest_phys_addr, memory, offset, size, readonly)

    def create_vcpu(self, vcpu_id: int) -> SoftwareVcpu:
        if vcpu_id or self._vcpu is not None:
            raise EngineError("the software engine has one virtual CPU a machine, number 0")
        self._vcpu = SoftwareVcpu(self._ops, self._open(), self._run, self.route)
        return self._vcpu

    def serve_ports(self, tables: PortTables) -> bool:
        self._ops.serve_ports(self._open(), tables)
        self.route[0] = Route.ENGINE
        return True

    def serve_memory(self, bus: MemoryBus) -> bool:
        self._ops.serve_memory(self._open(), bus)
        return True

    def memory_written(self, start: int, end: int) -> None:
        self._ops.memory_written(self._open(), start, end)

    def register_coalesced_pio(self, port: int, size: int) -> bool:
        self._bus.coalesce(port, size)
        self._ops.set_io_bus(self._open(), self._bus.ports(), self._bus.write)
        return True

    def drain_coalesced(self, write: Callable[[int, int, int], None]) -> None:
        before, self.route[0] = self.route[0], Route.COALESCED
        try:
            self._bus.drain(write)
        finally:
            self.route[0] = before

    def ioeventfd(
        self, fd: int, port: int, size: int, datamatch: int | None = None, deassign: bool = False
    ) -> None:
        self._bus.ioeventfd(fd, port, size, datamatch, deassign)
        self._ops.set_io_bus(self._open(), self._bus.ports(), self._bus.write)

    def create_irqchip(self) -> None:
        raise EngineError("the software engine has no interrupt controllers of its own: connect a PIC")

    def create_pit2(self) -> None:
        raise EngineError("the software engine has no timer of its own: attach a PIT to its ports")

    def irq_line(self, irq: int, level: int) -> None:
        raise EngineError("the software engine has no interrupt controllers of its own: connect a PIC")

    def close(self) -> None:
        if self._processor is None:
            return
        self._ops.vm_destroy(self._processor)
        self._processor = self._vcpu = None
        self._closed(self)


class SoftwareVcpu:
    """The virtual CPU.

    Handlers run inside `run()`, in its thread, with the guest at the instruction that called them. What they
    raise comes out of `run()`; the instruction counts as done. `get_regs` is allowed in a port handler,
    `set_regs` only while the guest is stopped.
    """

    def __init__(self, ops: VendorOps, processor: Processor, run: mmap.mmap, route: bytearray) -> None:
        self._ops = ops
        self._processor: Processor | None = processor
        self._route = route
        self.kvm_run = memoryview(run)
        self.rip: memoryview | None = self.kvm_run[abi.RUN_SYNC_RIP : abi.RUN_SYNC_RIP + 8]

    def _open(self) -> Processor:
        if self._processor is None:
            raise EngineError("the virtual CPU is closed")
        return self._processor

    @property
    def immediate_exit(self) -> bool:
        """Complete the pending I/O at the next `run()` and come back with INTR without executing the guest."""
        return bool(self.kvm_run[abi.RUN_IMMEDIATE_EXIT])

    @immediate_exit.setter
    def immediate_exit(self, value: bool) -> None:
        self.kvm_run[abi.RUN_IMMEDIATE_EXIT] = value

    def run(self) -> int:
        processor = self._open()
        while (reason := self._ops.vcpu_run(processor)) > LAST_KVM_EXIT:
            if not self._emulate(processor, reason):
                (reason,) = struct.unpack_from("<I", self.kvm_run, abi.RUN_EXIT_REASON)
                break
        return reason

    def _emulate(self, processor: Processor, reason: int) -> bool:
        before, self._route[0] = self._route[0], Route.EMULATOR
        try:
            return bool(self._ops.handle_exit(processor, reason))
        finally:
            self._route[0] = before

    def kick(self) -> None:
        if self._processor is not None:
            self._ops.vcpu_kick(self._processor)

    def set_alarm(self, host_time: int | None) -> None:
        """As in `api.Vcpu`. An alarm counts once: it is off again when `run()` has returned INTR for it."""
        self._ops.set_hv_timer(self._open(), host_time)

    def set_interrupt_source(self, source: InterruptSource | None) -> None:
        self._ops.set_interrupt_source(self._open(), source)

    def interrupt_changed(self) -> None:
        self._ops.request_irq(self._open())

    def interrupt(self, vector: int) -> None:
        self._ops.inject_irq(self._open(), vector)

    def inject_exception(self, vector: int, error_code: int | None = None) -> None:
        """Raise an exception in the guest before its next instruction (KVM_SET_VCPU_EVENTS)."""
        self._ops.inject_exception(self._open(), vector, error_code)

    def get_regs(self) -> abi.Regs:
        return self._ops.get_regs(self._open())

    def set_regs(self, regs: abi.Regs) -> None:
        self._ops.set_regs(self._open(), regs)

    def get_sregs(self) -> abi.Sregs:
        return self._ops.get_sregs(self._open())

    def set_sregs(self, sregs: abi.Sregs) -> None:
        self._ops.set_sregs(self._open(), sregs)

    def set_cpuid2(self, entries: Sequence[abi.CpuidEntry]) -> None:
        self._ops.vcpu_after_set_cpuid(self._open(), entries)

    def set_tsc_source(self, source: Callable[[], int] | None) -> None:
        """Let a function give the guest's TSC; None: the host's monotonic clock at the rate that CPUID tells."""
        self._ops.set_tsc_source(self._open(), source)

    def set_a20(self, enabled: bool) -> None:
        """The A20 gate: while off, bit 20 of every physical address is 0."""
        self._ops.set_a20(self._open(), enabled)

    def save_state(self) -> bytes:
        """All registers (FPU, MSRs and TSC included) of the stopped CPU; for this engine only."""
        return self._ops.save_state(self._open())

    def restore_state(self, state: bytes) -> None:
        """Undo everything since `save_state`; memory is the caller's (`Vm.memory_written`)."""
        self._ops.restore_state(self._open(), state)

    def describe_internal_error(self) -> str:
        """One line about the INTERNAL_ERROR that `run()` returned."""
        return self._ops.describe_internal_error(self._open())

    def reset(self) -> None:
        self._ops.vcpu_reset(self._open())

    def close(self) -> None:
        self._processor = None
