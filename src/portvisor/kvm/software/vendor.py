"""The table of what a processor back end does, named after Linux's `struct kvm_x86_ops`.

`open_software` chooses one table; `machine.py` calls nothing but its entries. Another CPU core is one more
module that fills in a `VendorOps`.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from portvisor.kvm.abi import CpuidEntry, Regs, Sregs
from portvisor.kvm.api import InterruptSource, MemoryBus, PortTables

Processor: TypeAlias = Any
"""What `vm_init` made: the back end's own object for one VM and its CPU."""
BusWrite: TypeAlias = Callable[[int, int, int], bool]


@dataclass(frozen=True, slots=True)
class VendorOps:
    """One processor back end. Every entry but the first three takes the `Processor`."""

    name: str
    hardware_setup: Callable[[], None]
    """Load and check what the back end depends on; raises EngineError."""
    get_supported_cpuid: Callable[[], list[CpuidEntry]]

    vm_init: Callable[[mmap.mmap], Processor]
    """A processor and its empty address space; the buffer is `struct kvm_run` with its data page."""
    vm_destroy: Callable[[Processor], None]
    set_memory_region: Callable[[Processor, int, int, mmap.mmap, int, int, bool], None]
    memory_written: Callable[[Processor, int, int], None]
    serve_ports: Callable[[Processor, PortTables | None], None]
    serve_memory: Callable[[Processor, MemoryBus | None], None]
    set_io_bus: Callable[[Processor, bytes, BusWrite | None], None]
    """Ports (one bit each) whose writes are offered to a function first, as KVM's PIO bus does."""

    vcpu_reset: Callable[[Processor], None]
    vcpu_run: Callable[[Processor], int]
    """Into the guest once; the back end's exit reason."""
    handle_exit: Callable[[Processor, int], int]
    """An exit that is not KVM's own: 1 to go on, 0 to go to user space with the `exit_reason` of `kvm_run`."""
    vcpu_kick: Callable[[Processor], None]
    set_hv_timer: Callable[[Processor, int | None], None]
    """`Vcpu.set_alarm`."""
    get_regs: Callable[[Processor], Regs]
    set_regs: Callable[[Processor, Regs], None]
    get_sregs: Callable[[Processor], Sregs]
    set_sregs: Callable[[Processor, Sregs], None]
    vcpu_after_set_cpuid: Callable[[Processor, Sequence[CpuidEntry]], None]
    set_interrupt_source: Callable[[Processor, InterruptSource | None], None]
    request_irq: Callable[[Processor], None]
    """The interrupt source's level may have changed."""
    inject_irq: Callable[[Processor, int], None]
    inject_exception: Callable[[Processor, int, int | None], None]
    set_tsc_source: Callable[[Processor, Callable[[], int] | None], None]
    set_a20: Callable[[Processor, bool], None]
    save_state: Callable[[Processor], bytes]
    restore_state: Callable[[Processor, bytes], None]
    describe_internal_error: Callable[[Processor], str]
