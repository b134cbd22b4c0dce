"""Registers of the software CPU: every mode from reset, exact round trips, CPUID, TSC, saved states.

Rules: KVM_GET/SET_REGS and _SREGS (Documentation/virt/kvm/api.rst); Intel SDM volume 3, 9.1 (state after
reset), 20.1 (real mode); volume 2A, CPUID.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.kvm.abi import CpuidEntry, Dtable, ExitReason, Regs, Segment, Sregs
from portvisor.kvm.api import EngineError
from portvisor.kvm.software import cpuid
from softcpu_guest import CODE, DATA, HLT, SoftGuest, soft_guest

U64 = st.integers(0, 2**64 - 1)
SETTABLE_FLAGS = 0x0024_4FD5  # CF PF AF ZF SF TF IF DF OF NT AC ID


# --- round trips --------------------------------------------------------------------------------------------


def test_a_new_cpu_is_in_the_state_after_reset() -> None:
    with soft_guest("f4") as guest:
        guest.vcpu.reset()
        assert guest.vcpu.get_regs() == Regs(rip=0xFFF0, rdx=cpuid.VERSION)
        assert guest.vcpu.get_sregs() == Sregs()


@settings(max_examples=40, deadline=None)
@given(st.lists(U64, min_size=17, max_size=17), st.integers(0, 2**22))
def test_general_registers_come_back_as_they_were_set(values: list[int], flags: int) -> None:
    names = [field.name for field in fields(Regs)][:17]
    regs = Regs(**dict(zip(names, values, strict=True)), rflags=flags & SETTABLE_FLAGS | 2)
    with soft_guest("f4", serve=False) as guest:
        guest.vcpu.set_regs(regs)
        assert guest.vcpu.get_regs() == regs


SEGMENT = st.builds(
    Segment,
    base=U64,
    limit=st.integers(0, 2**32 - 1),
    selector=st.integers(0, 0xFFFF),
    type=st.integers(0, 15),
    present=st.just(1),
    dpl=st.integers(0, 3),
    db=st.integers(0, 1),
    s=st.integers(0, 1),
    l=st.integers(0, 1),
    g=st.integers(0, 1),
    avl=st.integers(0, 1),
)
TABLE = st.builds(Dtable, base=U64, limit=st.integers(0, 0xFFFF))


@settings(max_examples=40, deadline=None)
@given(
    st.lists(SEGMENT, min_size=8, max_size=8), st.lists(TABLE, min_size=2, max_size=2), U64, U64, st.integers(0, 15)
)
def test_special_registers_come_back_as_they_were_set(
    segments: list[Segment], tables: list[Dtable], cr2: int, cr3: int, cr8: int
) -> None:
    sregs = Sregs(cr0=0x11, cr2=cr2, cr3=cr3, cr4=0x20, cr8=cr8, gdt=tables[0], idt=tables[1])
    for name, segment in zip(Sregs.SEGMENTS, segments, strict=True):
        setattr(sregs, name, segment)
    sregs.tr.type |= 2  # a TSS that is loaded is busy
    with soft_guest("f4", serve=False) as guest:
        guest.vcpu.set_sregs(sregs)
        assert guest.vcpu.get_sregs() == sregs


def test_an_unusable_segment_is_not_present() -> None:
    with soft_guest("f4") as guest:
        sregs = guest.vcpu.get_sregs()
        sregs.ldt = replace(sregs.ldt, unusable=1)
        guest.vcpu.set_sregs(sregs)
        ldt = guest.vcpu.get_sregs().ldt
        assert (ldt.unusable, ldt.present) == (1, 0)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cr0": 0x80000000}, "PG without CR0.PE"),
        ({"cr0": 0x80000011, "efer": 0x500}, "without CR4.PAE"),
        ({"efer": 0x400}, "EFER.LMA"),
        ({"cr0": 0x80000011, "cr4": 0x20, "efer": 0x100}, "EFER.LMA"),
        ({"interrupt_bitmap": b"\x03".ljust(32, b"\0")}, "one interrupt"),
    ],
)
def test_impossible_special_registers_are_refused(changes: dict[str, int | bytes], text: str) -> None:
    with soft_guest("f4") as guest:
        before = guest.vcpu.get_sregs()
        with pytest.raises(EngineError, match=text):
            guest.vcpu.set_sregs(replace(Sregs(), **changes))  # type: ignore[arg-type]
        assert guest.vcpu.get_sregs() == before


# --- every mode from reset ------------------------------------------------------------------------------------


def test_the_reset_vector_is_where_execution_starts() -> None:
    with soft_guest("f4") as guest:
        guest.vcpu.reset()
        sregs = guest.vcpu.get_sregs()
        assert (sregs.cs.selector, sregs.cs.base) == (0xF000, 0xFFFF0000)
        assert guest.run() == ExitReason.INTERNAL_ERROR  # there is nothing at FFFFFFF0h
        assert "f000:fff0 (base ffff0000)" in guest.vcpu.describe_internal_error()


MODES: list[tuple[str, Callable[[SoftGuest], None], int]] = [
    # 89 C8: mov eax, ecx or mov ax, cx; then 89 04 24 or the like is avoided: operand size shows in RAX
    ("real", lambda guest: guest.real_mode(rcx=0x1122_3344_5566_7788), 0xFFFF_FFFF_FFFF_7788),
    ("16-bit protected", lambda guest: guest.protected_mode(bits=16, rcx=0x5566_7788), 0xFFFF_FFFF_FFFF_7788),
    ("32-bit protected", lambda guest: guest.protected_mode(rcx=0x5566_7788), 0x5566_7788),
    ("virtual 8086", lambda guest: guest.virtual_8086(rcx=0x5566_7788), 0xFFFF_FFFF_FFFF_7788),
    ("compatibility", lambda guest: guest.long_mode(compat=True, rcx=0x5566_7788), 0x5566_7788),
    ("64-bit", lambda guest: guest.long_mode(rcx=0x1122_3344_5566_7788), 0x5566_7788),
    ("ring 3", lambda guest: guest.protected_mode(ring=3, rcx=0x5566_7788), 0x5566_7788),
    ("64-bit ring 3", lambda guest: guest.long_mode(ring=3, rcx=0x1122_3344_5566_7788), 0x5566_7788),
]


@pytest.mark.parametrize(("enter", "rax"), [mode[1:] for mode in MODES], ids=[mode[0] for mode in MODES])
def test_every_mode_can_be_entered_from_reset(enter: Callable[[SoftGuest], None], rax: int) -> None:
    with soft_guest("89c8 f4") as guest:
        guest.vcpu.reset()
        enter(guest)
        regs = guest.vcpu.get_regs()
        regs.rax = 0xFFFF_FFFF_FFFF_FFFF
        guest.vcpu.set_regs(regs)
        guest.handler(13, HLT)  # where HLT is privileged
        assert guest.halts().rax == rax


def test_64_bit_mode_has_64_bit_registers_and_addresses() -> None:
    with soft_guest("4889c8 4c89c3 f4") as guest:  # mov rax, rcx; mov rbx, r8
        guest.long_mode(rcx=0x1122_3344_5566_7788, r8=0x99AA_BBCC_DDEE_FF00)
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (0x1122_3344_5566_7788, 0x99AA_BBCC_DDEE_FF00)


def test_unreal_mode_reaches_all_memory() -> None:
    with soft_guest("678a0500000200 f4") as guest:  # mov al, [20000h]
        sregs = Sregs(cs=Segment(selector=0, type=0xB), ds=Segment(limit=0xFFFF_FFFF, g=1))
        guest.place(0x20000, b"\x5a")
        guest.vcpu.set_sregs(sregs)
        guest.start()
        assert guest.halts().rax == 0x5A


def test_segment_bases_count() -> None:
    with soft_guest("a00000 268a260000 648a1e0000 658a3e0000 f4") as guest:
        sregs = guest.vcpu.get_sregs()
        for number, name in enumerate(("ds", "es", "fs", "gs")):
            getattr(sregs, name).base = 0x20000 + 0x100 * number
            guest.place(0x20000 + 0x100 * number, bytes([number + 1]))
        guest.vcpu.set_sregs(sregs)
        guest.start()
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (0x0201, 0x0403)


def test_bases_count_in_32_bit_mode_too_and_can_go_again() -> None:
    with soft_guest("a000000000 f4") as guest:
        guest.place(DATA, b"\x77")
        for base, al in ((DATA, 0x77), (0, guest.memory[0])):
            guest.protected_mode()
            sregs = guest.vcpu.get_sregs()
            sregs.ds.base = base
            guest.vcpu.set_sregs(sregs)
            assert guest.halts().rax & 0xFF == al


def test_registers_may_be_set_in_either_order() -> None:
    with soft_guest("f4") as guest:
        guest.virtual_8086()
        sregs = guest.vcpu.get_sregs()
        guest.vcpu.set_regs(Regs(rip=CODE, rflags=0x23002))
        guest.vcpu.set_sregs(sregs)
        guest.handler(13, HLT)
        assert guest.halts().rsp == 0x9000 - 40  # HLT faulted: the CPU was in ring 3


def test_a_guest_that_changes_modes_by_itself_shows_it() -> None:
    code = "0f011600 20 66b811000000 0f22c0 66ea" + (CODE + 22).to_bytes(4, "little").hex() + "0800 f4"
    with soft_guest(code) as guest:  # lgdt [2000h]; mov cr0, 11h; jmp far 8:next; hlt
        guest.tables(False)
        guest.place(0x2000, struct.pack("<HI", 0x47, 0xA000))
        guest.start()
        guest.halts()
        sregs = guest.vcpu.get_sregs()
        assert (sregs.cr0, sregs.cs.selector, sregs.cs.db, sregs.cs.limit) == (0x11, 8, 1, 0xFFFF_FFFF)
        assert (sregs.gdt.base, sregs.gdt.limit) == (0xA000, 0x47)


def test_ltr_and_lldt_show() -> None:
    with soft_guest("66b83800 0f00d8 f4") as guest:  # mov ax, 38h; ltr ax
        guest.protected_mode()
        sregs = guest.vcpu.get_sregs()
        sregs.tr = Segment(type=0xB, s=0)
        guest.vcpu.set_sregs(sregs)
        guest.halts()
        tr = guest.vcpu.get_sregs().tr
        assert (tr.selector, tr.base, tr.limit, tr.type) == (0x38, 0xC000, 0x20FF, 0xB)


# --- CPUID --------------------------------------------------------------------------------------------------


def guest_cpuid(guest: SoftGuest, leaf: int, subleaf: int = 0) -> tuple[int, int, int, int]:
    guest.place(CODE, b"\x0f\xa2" + HLT)
    guest.start(rax=leaf, rcx=subleaf)
    regs = guest.halts()
    return regs.rax, regs.rbx, regs.rcx, regs.rdx


def test_the_guest_sees_our_cpu_without_an_apic() -> None:
    with soft_guest("f4") as guest:
        highest, *_ = guest_cpuid(guest, 0)
        assert highest == cpuid.LEAF_FREQUENCIES
        version, _, ecx, edx = guest_cpuid(guest, 1)
        assert version == cpuid.VERSION
        assert (edx >> 9 & 1, ecx >> 21 & 1) == (0, 0)  # APIC, x2APIC
        assert (edx >> 4 & 1, ecx >> 31 & 1) == (1, 1)  # TSC, hypervisor
        brand = b"".join(struct.pack("<4I", *guest_cpuid(guest, 0x80000002 + number)) for number in range(3))
        assert brand.rstrip(b"\0") == cpuid.BRAND
        assert len(brand) == 48


def test_a_leaf_beyond_the_highest_reads_as_the_highest() -> None:
    with soft_guest("f4") as guest:
        assert guest_cpuid(guest, 0x1000) == guest_cpuid(guest, cpuid.LEAF_FREQUENCIES)
        assert guest_cpuid(guest, 0x0D) == (0, 0, 0, 0)
        assert guest_cpuid(guest, 0x80000003) != (0, 0, 0, 0)


def test_set_cpuid_shows_what_it_was_given() -> None:
    with soft_guest("f4") as guest:
        entries = [CpuidEntry(0, eax=4, ebx=1, ecx=2, edx=3), CpuidEntry(1, eax=0xA20F12, edx=0x10)]
        entries += [CpuidEntry(4, index, 1, eax=index + 10) for index in range(3)]
        guest.vcpu.set_cpuid2(entries)
        assert guest_cpuid(guest, 0) == (4, 1, 2, 3)
        assert [guest_cpuid(guest, 4, index)[0] for index in range(4)] == [10, 11, 12, 0]
        guest.vcpu.reset()
        assert guest.vcpu.get_regs().rdx == 0xA20F12


@pytest.mark.parametrize(
    ("leaf", "register", "bit", "code"),
    [
        (1, "ecx", 23, "f30fb8c1"),  # POPCNT
        (1, "ecx", 30, "0fc7f0"),  # RDRAND
        (1, "edx", 15, "0f42c1"),  # CMOV
        (0x80000001, "edx", 27, "0f01f9"),  # RDTSCP
    ],
)
def test_an_instruction_whose_feature_is_off_is_invalid(leaf: int, register: str, bit: int, code: str) -> None:
    with soft_guest(code + "f4") as guest:
        guest.protected_mode()
        guest.handler(6, b"\xbb\x06\0\0\0" + HLT)
        assert guest.halts().rbx == 0
        entries = cpuid.supported()
        for entry in entries:
            if entry.function == leaf:
                setattr(entry, register, getattr(entry, register) & ~(1 << bit))
        guest.vcpu.set_cpuid2(entries)
        guest.start()
        assert guest.halts().rbx == 6


def test_a_feature_that_does_not_exist_is_not_turned_on() -> None:
    with soft_guest("c5f877 f4") as guest:  # vzeroupper
        entries = cpuid.supported()
        entries[1].ecx = 0xFFFF_FFFF
        guest.vcpu.set_cpuid2(entries)
        guest.protected_mode()
        guest.handler(6, HLT)
        guest.halts()


# --- TSC ----------------------------------------------------------------------------------------------------


def guest_tsc(guest: SoftGuest, code: str = "0f31") -> int:
    guest.place(CODE, bytes.fromhex(code) + HLT)
    guest.start()
    regs = guest.halts()
    return regs.rdx << 32 | regs.rax


def test_the_tsc_runs_at_the_rate_that_cpuid_gives() -> None:
    with soft_guest("f4") as guest:
        denominator, numerator, crystal, _ = guest_cpuid(guest, 0x15)
        rate = crystal * numerator // denominator
        assert rate == cpuid.TSC_KHZ * 1000
        host, tsc = time.monotonic_ns(), guest_tsc(guest)
        time.sleep(0.05)
        tsc_passed, host_passed = guest_tsc(guest) - tsc, time.monotonic_ns() - host
        assert 0.05 * rate <= tsc_passed <= host_passed * rate / 1e9


def test_another_rate_can_be_given() -> None:
    with soft_guest("f4") as guest:
        entries = [replace(entry) for entry in cpuid.supported()]
        for entry in entries:
            if entry.function == 0x15:
                entry.eax, entry.ebx, entry.ecx = 2, 200, 24_000_000
        guest.vcpu.set_cpuid2(entries)
        tsc = guest_tsc(guest)
        time.sleep(0.02)
        assert guest_tsc(guest) - tsc >= 0.02 * 2_400_000_000


def test_a_function_may_give_the_tsc() -> None:
    with soft_guest("f4") as guest:
        guest.vcpu.set_tsc_source(lambda: 0x1234_5678_9ABC_DEF0)
        assert guest_tsc(guest) == 0x1234_5678_9ABC_DEF0
        assert guest_tsc(guest, "0f01f9") == 0x1234_5678_9ABC_DEF0
        guest.vcpu.set_tsc_source(None)
        assert guest_tsc(guest) < 1 << 50


def test_what_a_tsc_source_raises_comes_out_of_run() -> None:
    def source() -> int:
        raise ZeroDivisionError

    with soft_guest("0f31 eb00 f4") as guest:
        guest.vcpu.set_tsc_source(source)
        with pytest.raises(ZeroDivisionError):
            guest.run()


def test_reset_sets_the_tsc_to_zero() -> None:
    with soft_guest("f4") as guest:
        time.sleep(0.02)
        guest.vcpu.reset()
        guest.real_mode()
        assert guest_tsc(guest) < 0.02 * 1e9


# --- saved states -------------------------------------------------------------------------------------------


def test_a_saved_state_brings_everything_back() -> None:
    # fld1; movd xmm0, eax; wrmsr; hlt; then: fstp dword [5000h]; movd ebx, xmm0; rdmsr; hlt
    code = "d9e8 660f6ec0 b910000000 b974010000 ba00000000 0f30 f4 d91d00500000 660f7ec3 b974010000 0f32 f4"
    with soft_guest(code) as guest:
        guest.protected_mode(rax=0x1234)
        sregs = guest.vcpu.get_sregs()
        sregs.cr4 |= 0x200
        guest.vcpu.set_sregs(sregs)
        guest.halts()
        state, regs, sregs = guest.vcpu.save_state(), guest.vcpu.get_regs(), guest.vcpu.get_sregs()
        guest.vcpu.reset()
        guest.real_mode()
        guest.vcpu.restore_state(state)
        assert (guest.vcpu.get_regs(), guest.vcpu.get_sregs()) == (regs, sregs)
        regs = guest.halts()
        assert guest.memory[DATA : DATA + 4] == struct.pack("<f", 1.0)
        assert (regs.rbx, regs.rax) == (0x1234, 0x1234)


def test_a_saved_state_works_in_another_machine() -> None:
    with soft_guest("43 f4 43 f4") as one, soft_guest("43 f4 43 f4") as other:
        one.halts()
        other.vcpu.restore_state(one.vcpu.save_state())
        regs = other.halts()
        assert (regs.rbx, regs.rip) == (2, CODE + 4)


def test_the_tsc_goes_on_from_the_saved_state() -> None:
    with soft_guest("f4") as guest:
        time.sleep(0.02)
        before = guest_tsc(guest)
        state = guest.vcpu.save_state()
        guest.vcpu.reset()
        guest.vcpu.restore_state(state)
        assert before <= guest_tsc(guest) < before + 1_000_000_000


def test_breakpoints_survive_a_saved_state() -> None:
    code = "66b8" + (CODE + 25).to_bytes(4, "little").hex() + "0f23c0 66b801000000 0f23f8 f4 434343434343434343 f4"
    with soft_guest(code) as guest:
        guest.vector(1, DATA)
        guest.place(DATA, HLT)
        guest.start()
        guest.halts()
        guest.vcpu.restore_state(guest.vcpu.save_state())
        regs = guest.halts()
        assert guest.word(regs.rsp, 2) == CODE + 25


@pytest.mark.parametrize("state", [b"", bytes(100), bytes(10_000)])
def test_what_is_no_saved_state_is_refused(state: bytes) -> None:
    with soft_guest("f4") as guest, pytest.raises(ValueError, match="not a saved state"):
        guest.vcpu.restore_state(state)


def test_nothing_is_saved_in_the_middle_of_an_instruction() -> None:
    with soft_guest("ec f4", serve=False) as guest:
        assert guest.run() == ExitReason.IO
        with pytest.raises(EngineError, match="under way"):
            guest.vcpu.save_state()
        guest.vcpu.immediate_exit = True
        guest.run()
        guest.vcpu.immediate_exit = False
        guest.vcpu.save_state()
