"""Opening and closing the software engine: what it depends on is checked, and all is given back."""

from __future__ import annotations

import gc
import mmap
import subprocess
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from portvisor.kvm import abi
from portvisor.kvm.abi import CpuidEntry, ExitReason
from portvisor.kvm.api import EngineError, MemoryBus, PortTables, System, Vcpu, Vm
from portvisor.kvm.software import cpuid, open_software, unicorn_x86
from portvisor.kvm.software.unicorn_x86 import unicorn_x86_ops
from softcpu_guest import soft_guest

OPEN_CLOSE_TURNS = 1500


def resident_kib() -> int:
    """Resident memory of this process."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))


def thread_count() -> int:
    """Threads of this process, Python's and others."""
    return len(list(Path("/proc/self/task").iterdir()))


def test_it_is_the_interface_of_the_hardware_engine() -> None:
    system: System = open_software()
    vm: Vm = system.create_vm()
    vcpu: Vcpu = vm.create_vcpu(0)
    assert system.name == "software"
    assert len(vcpu.kvm_run) >= abi.PIO_DATA + abi.PIO_DATA_SIZE
    assert system.check_extension(abi.KVM_CAP_IMMEDIATE_EXIT) == 1
    assert system.check_extension(abi.KVM_CAP_IRQCHIP) == 0
    assert [entry.function for entry in system.get_supported_cpuid()][:2] == [0, 1]
    system.close()


def test_another_version_of_unicorn_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unicorn_x86, "_unicorn_library", lambda: ("/lib/libunicorn.so", (2, 1, 3)))
    with pytest.raises(EngineError, match=r"needs unicorn 2\.1\.4, found 2\.1\.3 at /lib/libunicorn\.so"):
        open_software()


def test_a_missing_unicorn_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "unicorn.unicorn_py3.unicorn", None)
    with pytest.raises(EngineError, match=r"needs the package unicorn==2\.1\.4"):
        open_software()


def test_a_missing_extension_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "portvisor.kvm.software._softcpu", None)
    monkeypatch.delattr("portvisor.kvm.software._softcpu", raising=False)
    with pytest.raises(EngineError, match="C extension is not built"):
        open_software()


@pytest.mark.parametrize(("platform", "machine"), [("win32", "AMD64"), ("linux", "aarch64"), ("darwin", "x86_64")])
def test_another_platform_is_one_line(monkeypatch: pytest.MonkeyPatch, platform: str, machine: str) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(EngineError, match=f"this is {platform} on {machine}"):
        open_software()


@pytest.mark.parametrize(
    ("path", "text"), [("/no_such_library.so", "no_such_library"), ("libm.so.6", "uc_strerror")]
)
def test_a_library_that_is_not_unicorn_is_refused(path: str, text: str) -> None:
    code = "import sys; from portvisor.kvm.software import _softcpu; _softcpu.load(sys.argv[1], Exception)"
    environment = {"PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code, path], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("OSError: ")
    assert text in done.stderr


def test_another_processor_back_end_can_be_plugged_in() -> None:
    calls: list[str] = []

    def note(name: str) -> str:
        calls.append(name)
        return name

    ops = replace(
        unicorn_x86_ops,
        name="fake",
        hardware_setup=lambda: calls.append("hardware_setup"),
        get_supported_cpuid=lambda: [CpuidEntry(7)],
        vm_init=lambda _run: note("vm_init"),
        vm_destroy=lambda processor: calls.append(f"vm_destroy {processor}"),
        vcpu_run=lambda _processor: 1000 if calls.count("handle_exit") < 2 else int(ExitReason.HLT),
        handle_exit=lambda _processor, _reason: len(note("handle_exit")),
    )
    system = open_software(ops)
    assert system.get_supported_cpuid() == [CpuidEntry(7)]
    assert system.create_vm().create_vcpu(0).run() == ExitReason.HLT
    system.close()
    assert calls == ["hardware_setup", "vm_init", "handle_exit", "handle_exit", "vm_destroy vm_init"]


def test_an_exit_that_nobody_knows_is_an_error() -> None:
    processor = unicorn_x86.vm_init(mmap.mmap(-1, 3 * abi.PAGE_SIZE))
    with pytest.raises(EngineError, match="unknown reason"):
        unicorn_x86.handle_exit(processor, 1234)
    unicorn_x86.vm_destroy(processor)


@pytest.mark.parametrize("number", [0, 1, -1])
def test_there_is_one_cpu(number: int) -> None:
    with soft_guest("f4") as guest, pytest.raises(EngineError, match="one virtual CPU"):
        guest.vm.create_vcpu(number)


def test_there_are_no_interrupt_controllers() -> None:
    with soft_guest("f4") as guest:
        for call in (guest.vm.create_irqchip, guest.vm.create_pit2, lambda: guest.vm.irq_line(1, 1)):
            with pytest.raises(EngineError, match="software engine has no"):
                call()


def test_a_closed_machine_says_so() -> None:
    with soft_guest("f4") as guest:
        vm, vcpu = guest.vm, guest.vcpu
    calls: list[Callable[[], object]] = [vcpu.run, vcpu.get_regs, vcpu.get_sregs, vcpu.reset, vcpu.save_state]
    for call in calls:
        with pytest.raises(EngineError, match="closed"):
            call()
    with pytest.raises(EngineError, match="closed"):
        vcpu.set_alarm(5)
    with pytest.raises(EngineError, match="closed"):
        vm.memory_written(0, 1)
    vm.close()
    vcpu.close()
    with pytest.raises(EngineError, match="closed"):
        vcpu.get_regs()


class Tables:
    """Port tables that nothing else refers to."""

    def __init__(self) -> None:
        self.reads = tuple([(self.read, 0)] * 65540 for _ in range(3))
        self.writes = self.reads

    def read(self, *_: int) -> int:
        return 0

    def read_block(self, port: int, size: int, count: int) -> bytes:
        return bytes(size * count)

    def write_block(self, port: int, size: int, data: bytes) -> None:
        """Nothing."""

    def failed(self, port: int, size: int, write: bool, error: BaseException) -> int:
        return 0


def test_everything_is_released_with_the_machine() -> None:
    system = open_software()
    vm = system.create_vm()
    vcpu = vm.create_vcpu(0)
    tables: PortTables = Tables()  # type: ignore[assignment]
    vm.serve_ports(tables)
    references: list[weakref.ref[Any]] = [weakref.ref(tables), weakref.ref(vm), weakref.ref(vcpu)]
    memory = mmap.mmap(-1, 0x1000)
    vm.set_user_memory_region(0, 0, memory, 0, 0x1000)
    system.close()
    del system, vm, vcpu, tables
    gc.collect()
    assert [reference() for reference in references] == [None] * 3
    memory.close()


def test_a_machine_that_was_not_closed_is_collected() -> None:
    system = open_software()
    vm = system.create_vm()
    tables: PortTables = Tables()  # type: ignore[assignment]
    tables.machine = vm  # type: ignore[attr-defined]
    vm.serve_ports(tables)  # a cycle through the C object
    reference = weakref.ref(tables)
    del system, vm, tables
    gc.collect()
    assert reference() is None


@pytest.mark.parametrize("wrong", [object(), 5, "text"])
def test_what_is_no_port_table_is_refused(wrong: object) -> None:
    with soft_guest("f4") as guest:
        with pytest.raises((AttributeError, TypeError)):
            guest.vm.serve_ports(wrong)  # type: ignore[arg-type]
        with pytest.raises((AttributeError, TypeError)):
            guest.vm.serve_memory(wrong)  # type: ignore[arg-type]
        with pytest.raises((AttributeError, TypeError)):
            guest.vcpu.set_interrupt_source(wrong)  # type: ignore[arg-type]


def test_table_lists_must_be_lists() -> None:
    class Wrong(Tables):
        def __init__(self) -> None:
            self.reads = self.writes = ((), (), ())  # type: ignore[assignment]

    with soft_guest("f4") as guest, pytest.raises(TypeError, match="three lists"):
        guest.vm.serve_ports(Wrong())  # type: ignore[arg-type]


def test_a_table_that_is_too_short_is_a_failure_of_the_access() -> None:
    class Short(Tables):
        def failed(self, port: int, size: int, write: bool, error: BaseException) -> int:
            raise error

    with soft_guest("ec f4") as guest:
        tables = Short()
        for table in tables.reads:
            del table[16:]
        guest.vm.serve_ports(tables)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="port 0x2f0"):
            guest.run()


def test_many_machines_leave_nothing_behind() -> None:
    def turn() -> None:
        with soft_guest("ec 43 f4", serve=False) as guest:
            assert guest.run() == ExitReason.IO
            guest.halts()

    for _ in range(200):
        turn()
    gc.collect()
    before, threads = resident_kib(), thread_count()
    for _ in range(OPEN_CLOSE_TURNS):
        turn()
    gc.collect()
    assert thread_count() == threads
    grown = resident_kib() - before
    assert grown < 2 * OPEN_CLOSE_TURNS, f"{grown / OPEN_CLOSE_TURNS:.1f} KiB for each machine"


def test_supported_cpuid_is_sound() -> None:
    entries: Sequence[CpuidEntry] = cpuid.supported()
    functions = [entry.function for entry in entries]
    assert len(set(functions)) == len(functions)
    highest, extended = cpuid.find(entries, 0).eax, cpuid.find(entries, 0x80000000).eax
    assert all(
        function <= (extended if function >= 0x80000000 else highest)
        for function in functions
        if function >> 28 != 4
    )
    assert cpuid.tsc_khz(entries) == cpuid.TSC_KHZ
    assert cpuid.tsc_khz([]) == cpuid.TSC_KHZ


def test_a_bus_alone_can_be_taken_away() -> None:
    bus: MemoryBus | None = None
    with soft_guest("a100000400 f4") as guest:
        guest.protected_mode()
        unicorn_x86_ops.serve_memory(guest.vm._processor, bus)
        assert guest.run() == ExitReason.MMIO
