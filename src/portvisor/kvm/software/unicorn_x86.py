"""The `unicorn` package as x86 processor: loading, checking, and the table of operations over `_softcpu`."""

from __future__ import annotations

import mmap
import platform
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from portvisor.kvm.abi import RUN_APIC_BASE, RUN_INTERNAL_DATA, CpuidEntry, Sregs
from portvisor.kvm.api import EngineError, InterruptSource, MemoryBus, PortTables
from portvisor.kvm.software import cpu_state, cpuid
from portvisor.kvm.software.address_space import AddressSpace
from portvisor.kvm.software.string_io import A20, StringIo, nobody_listens
from portvisor.kvm.software.vendor import BusWrite, VendorOps

if TYPE_CHECKING:
    from portvisor.kvm.software import _softcpu

UNICORN_VERSION = (2, 1, 4)
"""The only version whose layout `_softcpu` knows."""
CPU_MODEL_QEMU64 = 0
CODE_BUFFER_SIZE = 128 << 20
"""Room for translations; when it is full, all are dropped."""
EXIT_STRING_IO = 1000
"""`_softcpu`: the guest is at an INS or OUTS for the emulator."""


@dataclass(slots=True)
class Processor:
    """A `_softcpu.Cpu` and what is kept beside it."""

    cpu: _softcpu.Cpu
    memory: AddressSpace
    kvm_run: mmap.mmap
    string_io: StringIo
    a20: bool = True
    tsc_khz: int = cpuid.TSC_KHZ
    tsc_source: Callable[[], int] | None = None


def _unicorn_library() -> tuple[str, tuple[int, int, int]]:
    """Path and version of the installed library."""
    from unicorn.unicorn_py3.unicorn import uclib

    version = uclib.uc_version(None, None)
    return uclib._name, (version >> 24 & 255, version >> 16 & 255, version >> 8 & 255)


def hardware_setup() -> None:
    """Load the extension and the one version of unicorn that it knows."""
    needed = ".".join(map(str, UNICORN_VERSION))
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise EngineError(
            f"the software engine needs Linux on x86-64, this is {sys.platform} on {platform.machine()}"
        )
    try:
        from portvisor.kvm.software import _softcpu
    except ImportError as error:
        raise EngineError(f"the software engine's C extension is not built: {error}") from error
    try:
        path, found = _unicorn_library()
    except (ImportError, AttributeError) as error:
        raise EngineError(f"the software engine needs the package unicorn=={needed}: {error}") from error
    if found != UNICORN_VERSION:
        raise EngineError(
            f"the software engine needs unicorn {needed}, found {'.'.join(map(str, found))} at {path}"
        )
    try:
        _softcpu.load(path, EngineError)
    except OSError as error:
        raise EngineError(
            f"the software engine cannot use {path}: {error}; need the unicorn {needed} wheel"
        ) from error


def vm_init(kvm_run: mmap.mmap) -> Processor:
    """A processor with our CPUID and no memory."""
    from portvisor.kvm.software import _softcpu

    cpu = _softcpu.Cpu(kvm_run, CPU_MODEL_QEMU64, CODE_BUFFER_SIZE)
    memory = AddressSpace(cpu)
    processor = Processor(cpu, memory, kvm_run, StringIo(cpu, memory, kvm_run))
    vcpu_after_set_cpuid(processor, cpuid.supported())
    vcpu_reset(processor)
    return processor


def vm_destroy(processor: Processor) -> None:
    """Give everything back."""
    processor.cpu.close()
    processor.tsc_source = None
    serve_ports(processor, None)


def set_memory_region(
    processor: Processor, slot: int, gpa: int, memory: mmap.mmap, offset: int, size: int, readonly: bool
) -> None:
    """Map or, with size 0, unmap a slot."""
    processor.memory.set_region(slot, gpa, memory, offset, size, readonly)


def vcpu_reset(processor: Processor) -> None:
    """RESET#. The A20 gate is not in the CPU."""
    processor.cpu.reset()
    processor.string_io.forget()
    cpu_state.after_reset(processor.cpu)
    processor.cpu.set_a20(processor.a20)
    _set_apic_base(processor, Sregs().apic_base)


def vcpu_run(processor: Processor) -> int:
    """Into the guest until it has to be left."""
    if processor.memory.changed:
        processor.memory.settle()
    processor.string_io.complete()
    return processor.cpu.run()


def get_sregs(processor: Processor) -> Sregs:
    """KVM_GET_SREGS. There is no APIC, its base is only kept."""
    sregs = cpu_state.get_sregs(processor.cpu)
    (sregs.apic_base,) = struct.unpack_from("<Q", processor.kvm_run, RUN_APIC_BASE)
    return sregs


def set_sregs(processor: Processor, sregs: Sregs) -> None:
    """KVM_SET_SREGS."""
    cpu_state.set_sregs(processor.cpu, sregs)
    _set_apic_base(processor, sregs.apic_base)


def _set_apic_base(processor: Processor, base: int) -> None:
    struct.pack_into("<Q", processor.kvm_run, RUN_APIC_BASE, base)


def handle_exit(processor: Processor, reason: int) -> int:
    """Give a string instruction to the emulator."""
    if reason != EXIT_STRING_IO:
        raise EngineError(f"the software engine left the guest for an unknown reason ({reason})")
    return int(processor.string_io.step())


def vcpu_after_set_cpuid(processor: Processor, entries: Sequence[CpuidEntry]) -> None:
    """Show these leaves; translate and time accordingly."""
    version = cpuid.find(entries, cpuid.LEAF_FEATURES).eax
    cpu_state.set_features(processor.cpu, cpuid.vendor_string(entries), version, cpuid.feature_words(entries))
    processor.cpu.set_cpuid(b"".join(entry.pack() for entry in entries))
    processor.tsc_khz = cpuid.tsc_khz(entries)
    processor.cpu.set_tsc(processor.tsc_khz, processor.tsc_source)


def inject_exception(processor: Processor, vector: int, error_code: int | None) -> None:
    """Raise an exception in the guest before its next instruction."""
    processor.cpu.inject_exception(vector, error_code or 0)


def save_state(processor: Processor) -> bytes:
    """All registers; not in the middle of an instruction."""
    if processor.string_io.pending:
        raise EngineError("an instruction is under way: run() with immediate_exit first")
    return processor.cpu.save_state()


def restore_state(processor: Processor, state: bytes) -> None:
    """Put them back."""
    processor.cpu.restore_state(state)
    processor.string_io.forget()


def set_a20(processor: Processor, on: bool) -> None:
    """The A20 gate."""
    processor.a20 = on
    processor.cpu.set_a20(on)
    processor.string_io.a20_mask = -1 if on else ~A20


def set_tsc_source(processor: Processor, source: Callable[[], int] | None) -> None:
    """Let a function give the TSC; None: the host's monotonic clock at the rate of CPUID."""
    processor.tsc_source = source
    processor.cpu.set_tsc(processor.tsc_khz, source)


def describe_internal_error(processor: Processor) -> str:
    """The library's words for the error that the last run() ended with."""
    from unicorn.unicorn_py3.unicorn import uclib

    (error,) = struct.unpack_from("<Q", processor.kvm_run, RUN_INTERNAL_DATA)
    regs, sregs = cpu_state.get_regs(processor.cpu), cpu_state.get_sregs(processor.cpu)
    where = f"CS:RIP {sregs.cs.selector:04x}:{regs.rip:x} (base {sregs.cs.base:x})"
    return f"unicorn cannot go on at {where}: {uclib.uc_strerror(error).decode()}"


def set_io_bus(processor: Processor, ports: bytes, write: BusWrite | None) -> None:
    """Who is offered the writes to these ports first."""
    processor.string_io.offer = write or nobody_listens
    processor.cpu.set_io_bus(ports, write)


def serve_ports(processor: Processor, tables: PortTables | None) -> None:
    """Serve ports from tables, or leave with KVM_EXIT_IO."""
    processor.cpu.serve_ports(tables)
    processor.string_io.tables = tables


def serve_memory(processor: Processor, bus: MemoryBus | None) -> None:
    """Serve accesses to no memory from a bus, or leave with KVM_EXIT_MMIO."""
    processor.cpu.serve_memory(bus)
    processor.memory.bus = bus


def _set_interrupt_source(processor: Processor, source: InterruptSource | None) -> None:
    processor.cpu.set_interrupt_source(source)


unicorn_x86_ops = VendorOps(
    name="unicorn_x86",
    hardware_setup=hardware_setup,
    get_supported_cpuid=cpuid.supported,
    vm_init=vm_init,
    vm_destroy=vm_destroy,
    set_memory_region=set_memory_region,
    memory_written=lambda processor, start, end: processor.cpu.memory_written(start, end),
    serve_ports=serve_ports,
    serve_memory=serve_memory,
    set_io_bus=set_io_bus,
    vcpu_reset=vcpu_reset,
    vcpu_run=vcpu_run,
    handle_exit=handle_exit,
    vcpu_kick=lambda processor: processor.cpu.kick(),
    set_hv_timer=lambda processor, host_time: processor.cpu.set_alarm(host_time),
    get_regs=lambda processor: cpu_state.get_regs(processor.cpu),
    set_regs=lambda processor, regs: cpu_state.set_regs(processor.cpu, regs),
    get_sregs=get_sregs,
    set_sregs=set_sregs,
    vcpu_after_set_cpuid=vcpu_after_set_cpuid,
    set_interrupt_source=_set_interrupt_source,
    request_irq=lambda processor: processor.cpu.interrupt_changed(),
    inject_irq=lambda processor, vector: processor.cpu.interrupt(vector),
    inject_exception=inject_exception,
    set_tsc_source=set_tsc_source,
    set_a20=set_a20,
    save_state=save_state,
    restore_state=restore_state,
    describe_internal_error=describe_internal_error,
)
