"""An engine without a CPU: boards are built on it to be driven from outside, over qtest or by a test."""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from portvisor.kvm.abi import PAGE_SIZE, CpuidEntry, Regs, Sregs
from portvisor.kvm.api import EngineError, InterruptSource, MemoryBus, PortTables, Route

RUN_SIZE = 3 * PAGE_SIZE
"""kvm_run, its page of port data, and the ring of coalesced accesses."""


class NullVcpu:
    """Registers that hold what is put there; interrupts stay with their source."""

    def __init__(self) -> None:
        self.kvm_run = memoryview(bytearray(RUN_SIZE))
        self.immediate_exit = False
        self.rip: memoryview | None = None
        self.reset()

    def run(self) -> int:
        raise EngineError("this machine has no CPU: it is driven from outside")

    def kick(self) -> None:
        pass

    def set_alarm(self, host_time: int | None) -> None:
        pass

    def set_interrupt_source(self, source: InterruptSource | None) -> None:
        pass

    def interrupt_changed(self) -> None:
        pass

    def interrupt(self, vector: int) -> None:
        raise EngineError("this machine has no CPU that takes an interrupt")

    def get_regs(self) -> Regs:
        return self._regs

    def set_regs(self, regs: Regs) -> None:
        self._regs = regs

    def get_sregs(self) -> Sregs:
        return self._sregs

    def set_sregs(self, sregs: Sregs) -> None:
        self._sregs = sregs

    def set_cpuid2(self, entries: Sequence[CpuidEntry]) -> None:
        pass

    def set_a20(self, enabled: bool) -> None:
        pass

    def reset(self) -> None:
        self._regs = Regs(rip=0xFFF0, rflags=2)
        self._sregs = Sregs()

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Slot:
    """Memory at a guest-physical address."""

    base: int
    view: memoryview
    readonly: bool


class NullVm:
    """The memory map; ports and unmapped memory are served by whoever drives the machine."""

    def __init__(self) -> None:
        self.slots: dict[int, Slot] = {}
        self.route = bytearray((Route.UNKNOWN,))

    def set_user_memory_region(
        self, slot: int, guest_phys_addr: int, memory: mmap.mmap, offset: int, size: int, readonly: bool = False
    ) -> None:
        if size == 0:
            self.slots.pop(slot, None)
        else:
            self.slots[slot] = Slot(guest_phys_addr, memoryview(memory)[offset : offset + size], readonly)

    def create_vcpu(self, vcpu_id: int) -> NullVcpu:
        return NullVcpu()

    def serve_ports(self, tables: PortTables) -> bool:
        return True

    def serve_memory(self, bus: MemoryBus) -> bool:
        return True

    def memory_written(self, start: int, end: int) -> None:
        pass

    def register_coalesced_pio(self, port: int, size: int) -> bool:
        return False

    def drain_coalesced(self, write: Callable[[int, int, int], None]) -> None:
        pass

    def ioeventfd(
        self, fd: int, port: int, size: int, datamatch: int | None = None, deassign: bool = False
    ) -> None:
        raise EngineError("this engine has no ioeventfd")

    def create_irqchip(self) -> None:
        raise EngineError("this engine has no interrupt controller")

    def create_pit2(self) -> None:
        raise EngineError("this engine has no timer")

    def irq_line(self, irq: int, level: int) -> None:
        raise EngineError("this engine has no interrupt controller")

    def close(self) -> None:
        self.slots.clear()


class NullSystem:
    """Makes virtual machines without a CPU."""

    name = "null"

    def check_extension(self, capability: int) -> int:
        return 0

    def create_vm(self) -> NullVm:
        return NullVm()

    def get_supported_cpuid(self) -> list[CpuidEntry]:
        return []

    def close(self) -> None:
        pass
