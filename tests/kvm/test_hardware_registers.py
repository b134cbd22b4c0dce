"""Registers, CPUID and reset of a KVM vCPU."""

from __future__ import annotations

import dataclasses
import struct
from fcntl import ioctl

import pytest

from kvm_guest import CODE, DATA, PORT, Guest, guest, real_mode
from portvisor.kvm import abi
from portvisor.kvm.abi import CpuidEntry, ExitReason, Regs, Segment, Sregs
from portvisor.kvm.api import EngineError
from portvisor.kvm.hardware import HardwareSystem, HardwareVcpu
from portvisor.kvm.hardware.power_on import KVM_GET_MSRS, KVM_SET_MSRS

pytestmark = pytest.mark.kvm

HLT = b"\xf4"
MSR_SYSENTER_CS = 0x174
MSR_KVM_SYSTEM_TIME = 0x4B564D01
DISTINCT = Regs.unpack(
    struct.pack("<18Q", *(0x1111_1111_1111_1111 * number for number in range(1, 16)), 7, CODE, 2)
)


@pytest.fixture(params=["sync_regs", "ioctls"])
def engine(kvm: HardwareSystem, request: pytest.FixtureRequest) -> HardwareSystem:
    """KVM with and without KVM_CAP_SYNC_REGS."""
    if request.param == "ioctls":
        kvm._abilities = dataclasses.replace(kvm._abilities, sync_regs=0)
    return kvm


def msr(vcpu: HardwareVcpu, index: int, value: int | None = None) -> int:
    """Read an MSR, or write it first."""
    table = bytearray(struct.pack("<IIIIQ", 1, 0, index, 0, value or 0))
    assert ioctl(vcpu.fileno(), KVM_GET_MSRS if value is None else KVM_SET_MSRS, table, True) == 1
    return int.from_bytes(table[16:], "little")


def hardware(made: Guest) -> HardwareVcpu:
    assert isinstance(made.vcpu, HardwareVcpu)
    return made.vcpu


def test_a_new_vcpu_has_the_power_on_state(engine: HardwareSystem) -> None:
    vm = engine.create_vm()
    vcpu = vm.create_vcpu(0)
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    vm.close()
    assert (regs.rip, regs.rflags) == (0xFFF0, 2)
    assert (sregs.cs.selector, sregs.cs.base) == (0xF000, 0xFFFF0000)


def test_registers_come_back_as_they_were_set(engine: HardwareSystem) -> None:
    with guest(engine, HLT) as made:
        made.vcpu.set_regs(DISTINCT)
        assert made.vcpu.get_regs() == DISTINCT
        assert made.vcpu.run() == ExitReason.HLT
        assert made.vcpu.get_regs() == dataclasses.replace(DISTINCT, rip=CODE + 1)


def test_special_registers_come_back_as_they_were_set(engine: HardwareSystem) -> None:
    with guest(engine, HLT) as made:
        sregs = real_mode(es=Segment(base=0x12340, selector=0x1234), fs=Segment(base=0x50000, selector=0x5000))
        sregs.idt.base, sregs.idt.limit = 0x400, 0x1FF
        sregs.cr2 = 0x1234
        made.vcpu.set_sregs(sregs)
        assert made.vcpu.get_sregs() == sregs


def test_cr8_is_not_lost_at_the_next_run(engine: HardwareSystem) -> None:
    with guest(engine, HLT) as made:
        made.vcpu.set_sregs(dataclasses.replace(real_mode(), cr8=5))
        assert made.vcpu.run() == ExitReason.HLT
        assert made.vcpu.get_sregs().cr8 == 5


def test_the_guest_sees_and_changes_registers(engine: HardwareSystem) -> None:
    with guest(engine, b"\x66\x01\xd8" + HLT) as made:  # add eax, ebx
        for number in range(3):
            made.start(rax=40, rbx=number)
            assert made.vcpu.run() == ExitReason.HLT
            assert made.vcpu.get_regs().rax == 40 + number


def test_registers_read_between_runs_are_those_of_the_exit(engine: HardwareSystem) -> None:
    with guest(engine, b"\xee\x40\xee\x40" + HLT) as made:  # out dx, al; inc ax; ...
        for expected in (0, 1):
            assert made.vcpu.run() == ExitReason.IO
            assert made.vcpu.get_regs().rax == expected
        assert made.vcpu.run() == ExitReason.HLT
        assert made.vcpu.get_regs().rax == 2


def test_impossible_special_registers_are_refused_where_they_are_set(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made, pytest.raises(EngineError, match="KVM_SET_SREGS"):
        made.vcpu.set_sregs(dataclasses.replace(real_mode(), cr0=0x8000_0000))  # PG without PE


def test_the_guest_sees_the_cpuid_it_was_given(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\x0f\xa2" + HLT) as made:
        made.vcpu.set_cpuid2(
            [CpuidEntry(0, eax=1, ebx=0x11, ecx=0x22, edx=0x33), CpuidEntry(1, eax=0x00A20F12, edx=1 << 4)]
        )
        assert made.vcpu.run() == ExitReason.HLT
        regs = made.vcpu.get_regs()
        assert (regs.rax, regs.rbx, regs.rcx, regs.rdx) == (1, 0x11, 0x22, 0x33)


def test_reset_puts_the_signature_in_edx(engine: HardwareSystem) -> None:
    with guest(engine, HLT) as made:
        made.vcpu.reset()
        assert made.vcpu.get_regs() == Regs(rip=0xFFF0, rdx=0x600)
        made.vcpu.set_cpuid2([CpuidEntry(0, eax=1), CpuidEntry(1, eax=0x00A20F12)])
        made.vcpu.reset()
        assert made.vcpu.get_regs() == Regs(rip=0xFFF0, rdx=0x00A20F12)


def test_reset_brings_back_segments_and_control_registers(engine: HardwareSystem) -> None:
    with guest(engine, b"\x0f\x01\x16\x00\x30\x66\xb8\x11\x00\x00\x00\x0f\x22\xc0" + HLT) as made:
        assert made.vcpu.run() == ExitReason.HLT  # lgdt; mov cr0 with PE
        assert made.vcpu.get_sregs().cr0 & 1
        made.vcpu.reset()
        assert made.vcpu.get_sregs() == Sregs()


def test_reset_brings_back_model_specific_registers(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made:
        vcpu = hardware(made)
        msr(vcpu, MSR_SYSENTER_CS, 0x1234)
        msr(vcpu, MSR_KVM_SYSTEM_TIME, DATA | 1)
        assert msr(vcpu, MSR_SYSENTER_CS) == 0x1234
        vcpu.reset()
        assert msr(vcpu, MSR_SYSENTER_CS) == 0
        assert msr(vcpu, MSR_KVM_SYSTEM_TIME) == 0


@pytest.mark.parametrize(
    ("code", "registers"),
    [
        (b"\xec", {}),  # in al, dx
        (b"\xf3\x6c", {"rcx": 20000, "rdi": DATA}),  # rep insb
        (b"\xf3\x6e", {"rcx": 2000, "rsi": DATA}),  # rep outsb
        (b"\xee", {}),  # out dx, al
    ],
)
def test_reset_inside_an_io_exit_leaves_nothing_of_the_instruction(
    engine: HardwareSystem, code: bytes, registers: dict[str, int]
) -> None:
    with guest(engine, code + HLT) as made:
        made.start(**registers)
        assert made.vcpu.run() == ExitReason.IO
        made.vcpu.reset()
        assert made.vcpu.get_regs() == Regs(rip=0xFFF0, rdx=0x600)
        made.vcpu.set_sregs(real_mode())
        made.place(CODE, HLT)
        made.start()
        assert made.vcpu.run() == ExitReason.HLT
        assert made.vcpu.get_regs() == Regs(rip=CODE + 1, rdx=PORT, rsp=0x8000)


def test_reset_drops_an_interrupt_that_was_not_delivered_yet(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\xfb\x90\xf4\x90\xf4") as made:  # sti; nop; hlt; nop; hlt
        made.vector(0x20, DATA)
        made.place(DATA, b"\xb0\x55" + HLT)  # mov al, 55h; hlt
        assert made.vcpu.run() == ExitReason.HLT
        assert made.vcpu.kvm_run[abi.RUN_READY_FOR_INTERRUPT_INJECTION]
        made.vcpu.interrupt(0x20)
        made.vcpu.reset()
        made.vcpu.set_sregs(real_mode())
        made.start(rflags=0x202)
        assert made.vcpu.run() == ExitReason.HLT
        assert made.vcpu.get_regs().rax == 0
