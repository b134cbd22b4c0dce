"""What a user reads about a vCPU that stopped."""

from __future__ import annotations

import struct
from typing import cast

import pytest

from kvm_guest import CODE, guest
from portvisor.kvm import abi
from portvisor.kvm.abi import ExitReason, Regs, Segment, Sregs
from portvisor.kvm.api import Vcpu
from portvisor.kvm.describe import describe_exit
from portvisor.kvm.hardware import HardwareSystem
from portvisor.ports import Ram, RamRegion


class Stopped:
    """As much of a vCPU as `describe_exit` looks at."""

    def __init__(self, reason: int, regs: Regs, sregs: Sregs) -> None:
        self.kvm_run = memoryview(bytearray(2 * abi.PAGE_SIZE))
        struct.pack_into("<I", self.kvm_run, abi.RUN_EXIT_REASON, reason)
        self._regs, self._sregs = regs, sregs
        self.memory = bytearray(0x10000)

    def get_regs(self) -> Regs:
        return self._regs

    def get_sregs(self) -> Sregs:
        return self._sregs

    def describe(self) -> list[str]:
        ram = Ram(RamRegion(0, memoryview(self.memory)))
        return describe_exit(cast(Vcpu, self), ram.read).splitlines()


def real_mode(reason: int) -> Stopped:
    sregs = Sregs(cs=Segment(base=0x7C0, selector=0x7C, type=0xB))
    return Stopped(reason, Regs(rip=0x12, rax=0xDEAD_BEEF_1234_5678, rflags=0x246), sregs)


def test_a_triple_fault_in_real_mode() -> None:
    stopped = real_mode(ExitReason.SHUTDOWN)
    stopped.memory[0x7D2:0x7D5] = b"\xcd\x13\xf4"
    lines = stopped.describe()
    assert lines[0].startswith("KVM_EXIT_SHUTDOWN: triple fault")
    assert lines[0].endswith("at 007c:0012 (linear 000007d2), real mode")
    assert lines[1].startswith("code cd 13 f4 00")
    assert "EAX=12345678" in lines[2]
    assert lines[3].endswith("FLAGS=00000246")
    assert lines[4].startswith("CS=007c 000007c0+ffff")
    assert "CR0=60000010" in lines[5]


def test_code_wraps_at_4g() -> None:
    stopped = Stopped(ExitReason.HLT, Regs(rip=0xFFF8), Sregs())
    stopped.memory[0] = 0xA5
    assert stopped.describe()[1] == "code ff ff ff ff ff ff ff ff a5 00 00 00 00 00 00"


@pytest.mark.parametrize(
    ("cs", "rflags", "efer", "text"),
    [
        (Segment(base=0, selector=8, type=0xB, db=0), 2, 0, "0008:00010000 (linear 00010000), 16-bit mode, CPL 3"),
        (Segment(base=0, selector=8, type=0xB, db=1), 2, 0, "0008:00010000 (linear 00010000), 32-bit mode, CPL 3"),
        (Segment(base=16, selector=1, type=3), 2 | 1 << 17, 0, "0001:10000 (linear 00010010), virtual-8086 mode"),
        (
            Segment(base=0, selector=8, type=0xB, db=1),
            2,
            0x500,
            "0008:00010000 (linear 00010000), 32-bit mode, CPL 3",
        ),
        (Segment(base=0, selector=8, type=0xB, l=1), 2, 0x500, "RIP 0000000000010000, 64-bit mode, CPL 3"),
    ],
)
def test_the_mode_is_named(cs: Segment, rflags: int, efer: int, text: str) -> None:
    sregs = Sregs(cs=cs, ss=Segment(dpl=3), cr0=1, efer=efer)
    first = Stopped(ExitReason.HLT, Regs(rip=0x10000, rflags=rflags), sregs).describe()[0]
    assert first.replace("0008:10000 ", "0008:00010000 ") == f"KVM_EXIT_HLT: the guest halted at {text}"


def test_long_mode_shows_sixteen_registers_and_code_through_the_page_tables() -> None:
    sregs = Sregs(cs=Segment(base=0, l=1), cr0=0x8000_0001, cr3=0x1000, cr4=0x20, efer=0x500)
    rip = 0xFFFF_FFFF_8000_0FFE
    stopped = Stopped(ExitReason.SHUTDOWN, Regs(rip=rip, r15=0xFEED), sregs)
    for table, index, entry in ((1, 511, 2), (2, 510, 3), (3, 0, 4), (4, 0, 5)):
        start = table * 0x1000 + index * 8
        stopped.memory[start : start + 8] = (entry * 0x1000 | 3).to_bytes(8, "little")
    stopped.memory[0x5FFE:0x6000] = b"\x0f\x0b"
    lines = stopped.describe()
    assert lines[1] == "code 0f 0b"
    assert "R15=000000000000feed" in lines[5]


def test_code_that_is_not_mapped_is_said_to_be() -> None:
    sregs = Sregs(cr0=0x8000_0001, cr3=0x1000)
    assert Stopped(ExitReason.SHUTDOWN, Regs(), sregs).describe()[1] == "code not mapped"


def test_an_emulation_failure_shows_the_bytes_that_the_engine_saw() -> None:
    stopped = real_mode(ExitReason.INTERNAL_ERROR)
    struct.pack_into("<IIQB15s", stopped.kvm_run, abi.RUN_UNION, 1, 3, 1, 3, b"\x0f\xa2\x90")
    assert "an instruction that it cannot emulate (0f a2 90) at" in stopped.describe()[0]


def test_a_hostile_length_in_an_emulation_failure_is_cut() -> None:
    stopped = real_mode(ExitReason.INTERNAL_ERROR)
    struct.pack_into("<IIQB", stopped.kvm_run, abi.RUN_UNION, 1, 3, 1, 255)
    assert f"({' '.join(['00'] * 15)})" in stopped.describe()[0]


def test_another_internal_error_shows_its_data() -> None:
    stopped = real_mode(ExitReason.INTERNAL_ERROR)
    struct.pack_into("<IIQQ", stopped.kvm_run, abi.RUN_UNION, 3, 2, 0x80000B0E, 0x31)
    assert "an exit while delivering an event (0x80000b0e 0x31) at" in stopped.describe()[0]


def test_a_refused_entry_shows_the_cpus_reason() -> None:
    stopped = real_mode(ExitReason.FAIL_ENTRY)
    struct.pack_into("<Q", stopped.kvm_run, abi.RUN_FAIL_ENTRY_REASON, 0x80000021)
    assert "the CPU refused the guest's state (reason 0x80000021) at" in stopped.describe()[0]


def test_an_unknown_exit_is_numbered() -> None:
    assert real_mode(77).describe()[0].startswith("exit 77 at 007c:0012")


@pytest.mark.kvm
def test_a_vcpu_of_kvm(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\x90\xf4") as made:
        assert made.exit() == ExitReason.HLT
        ram = Ram(RamRegion(0, memoryview(made.memory)))
        lines = describe_exit(made.vcpu, ram.read).splitlines()
        assert lines[0] == f"KVM_EXIT_HLT: the guest halted at 0000:{CODE + 2:04x} (linear 00001002), real mode"
