"""Exceptions, system calls and port permission on the software CPU.

Rules: Intel SDM volume 3, chapter 6 (interrupt and exception handling), volume 2B (SYSCALL, SYSENTER,
SYSRET, SYSEXIT) and volume 1, 19.5.2 (I/O permission bit map).
"""

from __future__ import annotations

import struct

import pytest

from portvisor.kvm.abi import ExitReason, Segment
from portvisor.kvm.api import EngineError
from softcpu_guest import (
    CODE,
    CODE32,
    DATA,
    DATA32,
    HLT,
    IO_MAP,
    PORT,
    RING0_STACK,
    TSS,
    SoftGuest,
    soft_guest,
)

MSR_EFER, MSR_STAR, MSR_LSTAR, MSR_CSTAR, MSR_FMASK = 0xC0000080, 0xC0000081, 0xC0000082, 0xC0000083, 0xC0000084
MSR_SYSENTER_CS, MSR_SYSENTER_ESP, MSR_SYSENTER_EIP = 0x174, 0x175, 0x176
KERNEL = 0x7000


def wrmsr(msr: int, value: int) -> bytes:
    """mov ecx, msr; mov eax, low; mov edx, high; wrmsr (32- and 64-bit code)."""
    low, high = value & 0xFFFFFFFF, value >> 32
    return (
        b"".join(struct.pack("<BI", op, number) for op, number in ((0xB9, msr), (0xB8, low), (0xBA, high)))
        + b"\x0f\x30"
    )


def set_msrs(guest: SoftGuest, msrs: dict[int, int]) -> None:
    """Let the guest write MSRs, in the mode it is in."""
    guest.place(KERNEL - 0x800, b"".join(wrmsr(msr, value) for msr, value in msrs.items()) + HLT)
    guest.start(rip=KERNEL - 0x800)
    guest.halts()


# --- exceptions ---------------------------------------------------------------------------------------------


def test_every_divide_error_is_one() -> None:
    with soft_guest("f7f1 f7f1 f7f1 f7f1 f4") as guest:  # div cx four times
        guest.vector(0, DATA)
        guest.place(DATA, bytes.fromhex("43 89e5 83460002 cf"))  # inc bx; mov bp, sp; add word [bp], 2; iret
        assert guest.halts().rbx == 4


def test_an_invalid_opcode_is_vector_6() -> None:
    with soft_guest("40 0f0b eb fe") as guest:
        guest.vector(6, DATA)
        guest.place(DATA, HLT)
        regs = guest.halts()
        assert (regs.rax, guest.word(regs.rsp, 2)) == (1, CODE + 1)


def test_invalid_opcodes_can_come_many_times() -> None:
    with soft_guest("0f0b 0f0b 0f0b f4") as guest:
        guest.vector(6, DATA)
        guest.place(DATA, bytes.fromhex("43 89e5 83460002 cf"))
        assert guest.halts().rbx == 3


def test_int_n_returns_behind_itself() -> None:
    with soft_guest("cd41 43 f4") as guest:
        guest.vector(0x41, DATA)
        guest.place(DATA, b"\x41\xcf")
        regs = guest.halts()
        assert (regs.rcx, regs.rbx) == (1, 1)


@pytest.mark.parametrize("ring", [0, 3])
def test_a_protection_fault_has_its_error_code(ring: int) -> None:
    with soft_guest("66b85000 8ed8 eb fe") as guest:  # mov ax, 50h; mov ds, ax: beyond the GDT
        guest.protected_mode(ring=ring)
        guest.handler(13, bytes.fromhex("58 5b f4"))  # pop eax; pop ebx; hlt
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (0x50, CODE + 4)


def test_a_page_fault_tells_where_and_why() -> None:
    with soft_guest("48a300f0ff7f00000000 eb fe") as guest:  # mov [7FFFF000h], rax
        guest.long_mode()
        guest.handler(14, bytes.fromhex("58 0f20d3 f4"))  # pop rax; mov rbx, cr2; hlt
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (2, 0x7FFF_F000)


def test_privileged_instructions_fault_in_ring_3() -> None:
    with soft_guest("f4") as guest:
        guest.protected_mode(ring=3)
        guest.handler(13, HLT)
        assert guest.halts().rsp == RING0_STACK - 24


def test_a_fault_without_a_handler_is_a_double_fault() -> None:
    with soft_guest("f7f1 eb fe") as guest:
        guest.protected_mode()
        guest.gate(0, 0, False)
        guest.place(0xB000 + 8 * 0, bytes(8))  # no gate for #DE: #GP, whose gate is missing too
        guest.place(0xB000 + 8 * 13, bytes(8))
        guest.handler(8, bytes.fromhex("58 f4"))
        assert guest.halts().rax == 0


def test_a_triple_fault_shuts_down() -> None:
    with soft_guest("f7f1 eb fe") as guest:
        guest.protected_mode()
        guest.place(0xB000, bytes(0x100))
        assert guest.run() == ExitReason.SHUTDOWN


def test_after_a_shutdown_reset_starts_again() -> None:
    with soft_guest("f7f1") as guest:
        guest.protected_mode()
        guest.place(0xB000, bytes(0x100))
        guest.run()
        guest.vcpu.reset()
        guest.place(CODE, b"\x43" + HLT)
        guest.real_mode()
        assert guest.halts().rbx == 1


def test_single_step_traps_after_each_instruction() -> None:
    with soft_guest("40 40 40 f4") as guest:
        guest.vector(1, DATA)
        guest.place(DATA, b"\x43\xcf")
        guest.start(rflags=0x102)
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (3, 3)


def test_a_breakpoint_register_traps() -> None:
    # mov eax, CODE+24; mov dr0, eax; mov eax, 1; mov dr7, eax; nop...
    code = "66b8" + (CODE + 24).to_bytes(4, "little").hex() + "0f23c0 66b801000000 0f23f8 43434343434343434343 f4"
    with soft_guest(code) as guest:
        guest.vector(1, DATA)
        guest.place(DATA, HLT)
        guest.start()
        regs = guest.halts()
        assert guest.word(regs.rsp, 2) == CODE + 24


def test_an_injected_exception_is_delivered_with_its_error_code() -> None:
    with soft_guest("43 f4") as guest:
        guest.protected_mode()
        guest.handler(14, bytes.fromhex("58 f4"))
        guest.vcpu.inject_exception(14, 6)
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (6, 0)


@pytest.mark.parametrize("vector", [-1, 32])
def test_what_is_no_exception_cannot_be_injected(vector: int) -> None:
    with soft_guest("f4") as guest, pytest.raises(EngineError, match=f"vector {vector}"):
        guest.vcpu.inject_exception(vector)


# --- system calls -------------------------------------------------------------------------------------------


def test_syscall_enters_the_kernel_and_sysret_comes_back() -> None:
    with soft_guest("0f05 48ffc3 f4") as guest:
        guest.long_mode()
        star = (CODE32 | 0x18 << 16) << 32
        set_msrs(guest, {MSR_STAR: star, MSR_LSTAR: KERNEL, MSR_FMASK: 0x4600})
        guest.place(KERNEL, bytes.fromhex("4889ce 4c89df 480f07"))  # mov rsi, rcx; mov rdi, r11; sysretq
        guest.long_mode(ring=3, rflags=0x246)
        guest.handler(13, HLT)  # HLT in ring 3
        regs = guest.halts()
        assert (regs.rsi, regs.rdi, regs.rbx) == (CODE + 2, 0x246, 1)
        assert guest.word(regs.rsp, 8) == 0  # #GP(0)
        assert guest.word(regs.rsp + 8, 8) == CODE + 5
        assert guest.word(regs.rsp + 16, 8) == 0x18 + 16 | 3


def test_syscall_loads_flat_segments_and_masks_flags() -> None:
    with soft_guest("0f05") as guest:
        guest.long_mode()
        set_msrs(guest, {MSR_STAR: (CODE32 | 0x18 << 16) << 32, MSR_LSTAR: KERNEL, MSR_FMASK: 0x600})
        guest.place(KERNEL, HLT)
        guest.long_mode(ring=3, rflags=0x642)
        regs = guest.halts()
        sregs = guest.vcpu.get_sregs()
        assert regs.rflags == 0x42
        assert (sregs.cs.selector, sregs.cs.l, sregs.cs.dpl, sregs.cs.limit) == (CODE32, 1, 0, 0xFFFFFFFF)
        assert (sregs.ss.selector, sregs.ss.dpl, sregs.ss.type) == (DATA32, 0, 3)
        assert regs.rsp == 0x8000  # SYSCALL leaves the stack alone


def test_syscall_from_compatibility_mode_goes_to_cstar() -> None:
    with soft_guest("0f05") as guest:
        guest.long_mode()
        set_msrs(guest, {MSR_STAR: (CODE32 | 0x18 << 16) << 32, MSR_CSTAR: KERNEL})
        guest.place(KERNEL, HLT)
        guest.long_mode(compat=True, ring=3)
        assert guest.halts().rip == KERNEL + 1


def test_syscall_without_sce_is_an_invalid_opcode() -> None:
    with soft_guest("0f05") as guest:
        guest.long_mode()
        sregs = guest.vcpu.get_sregs()
        sregs.efer &= ~1
        guest.vcpu.set_sregs(sregs)
        guest.handler(6, HLT)
        regs = guest.halts()
        assert guest.word(regs.rsp, 8) == CODE


@pytest.mark.parametrize("long_mode", [False, True])
def test_sysenter_loads_what_its_msrs_say(long_mode: bool) -> None:
    with soft_guest("0f34") as guest:
        enter = guest.long_mode if long_mode else guest.protected_mode
        enter()
        set_msrs(guest, {MSR_SYSENTER_CS: CODE32, MSR_SYSENTER_ESP: 0x8800, MSR_SYSENTER_EIP: KERNEL})
        guest.place(KERNEL, HLT)
        enter(ring=3, rflags=0x202)
        regs = guest.halts()
        sregs = guest.vcpu.get_sregs()
        assert (regs.rip, regs.rsp, regs.rflags) == (KERNEL + 1, 0x8800, 2)
        assert (sregs.cs.selector, sregs.cs.dpl, sregs.cs.l) == (CODE32, 0, int(long_mode))
        assert (sregs.ss.selector, sregs.ss.dpl) == (DATA32, 0)


def test_sysexit_returns_to_ring_3() -> None:
    with soft_guest("0f34 43 f4") as guest:  # sysenter; inc ebx; hlt
        guest.protected_mode()
        set_msrs(guest, {MSR_SYSENTER_CS: CODE32, MSR_SYSENTER_ESP: 0x8800, MSR_SYSENTER_EIP: KERNEL})
        guest.place(KERNEL, b"\xba" + (CODE + 2).to_bytes(4, "little") + bytes.fromhex("b900800000 0f35"))
        guest.protected_mode(ring=3)
        guest.handler(13, HLT)
        assert guest.halts().rbx == 1


def test_sysenter_without_a_code_segment_is_a_protection_fault() -> None:
    with soft_guest("0f34") as guest:
        guest.protected_mode(ring=3)
        guest.handler(13, bytes.fromhex("58 5b f4"))
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (0, CODE)


# --- port permission ----------------------------------------------------------------------------------------


def allow(guest: SoftGuest, *ports: int) -> None:
    """Clear the ports' bits in the permission map."""
    for port in ports:
        address = IO_MAP + port // 8
        guest.place(address, bytes([guest.memory[address] & ~(1 << port % 8)]))


def enter_user(guest: SoftGuest, mode: str, **registers: int) -> None:
    """Ring 3 or virtual-8086 mode."""
    if mode == "vm86":
        guest.virtual_8086(**registers)
    elif mode == "32":
        guest.protected_mode(ring=3, **registers)
    else:
        guest.long_mode(ring=3, compat=mode == "compat", **registers)
    for vector, code in ((13, "58 5b f4"), (14, "58 5b f4"), (6, "f4")):
        guest.handler(vector, bytes.fromhex(code))


MODES = ["vm86", "32", "64", "compat"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("code", ["ec", "ee", "ed", "6c", "6e", "f36c"])
def test_a_denied_port_is_a_protection_fault_at_the_instruction(mode: str, code: str) -> None:
    with soft_guest(bytes.fromhex(code) + b"\xeb\xfe") as guest:
        enter_user(guest, mode, rdi=DATA, rsi=DATA, rcx=4)
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (0, CODE)
        assert (regs.rdi, regs.rsi, regs.rcx) == (DATA, DATA, 4)
        assert not guest.bench.log
        assert not guest.bench.blocks


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("code", ["f36c", "f36f", "f26c", "26f36e"])
@pytest.mark.parametrize("before", ["", "90 90", "6a6c 58"])
def test_a_rep_of_nothing_needs_permission_too(mode: str, code: str, before: str) -> None:
    """The check comes before rCX is looked at; allowed, the instruction is one that does nothing."""
    before_bytes = bytes.fromhex(before)
    with soft_guest(before_bytes + bytes.fromhex(code) + b"\x0f\x0b") as guest:
        enter_user(guest, mode, rdi=DATA, rsi=DATA, rcx=0)
        assert guest.halts().rbx == CODE + len(before_bytes)
        enter_user(guest, mode, rdi=DATA, rsi=DATA, rcx=0, rbx=1)
        allow(guest, *range(PORT, PORT + 4))
        regs = guest.halts()  # of the handler of vector 6
        assert (regs.rbx, regs.rcx, regs.rdi, regs.rsi) == (1, 0, DATA, DATA)
        assert not guest.bench.log
        assert not guest.bench.blocks


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("code", ["6c", "f36c", "6d"])
def test_a_denied_ins_stores_nothing(mode: str, code: str) -> None:
    with soft_guest(bytes.fromhex(code) + b"\xeb\xfe") as guest:
        enter_user(guest, mode, rdi=DATA, rcx=4)
        guest.place(DATA, b"untouched")
        assert guest.halts().rbx == CODE
        assert guest.memory[DATA : DATA + 9] == b"untouched"


@pytest.mark.parametrize("code", ["6c", "6e", "f36c", "f36e"])
def test_permission_comes_before_the_operand(code: str) -> None:
    """Denied and unmapped: #GP, not #PF."""
    with soft_guest(bytes.fromhex(code) + b"\xeb\xfe") as guest:
        enter_user(guest, "64", rdi=1 << 40, rsi=1 << 40, rcx=4)
        guest.handler(14, HLT)
        assert guest.halts().rbx == CODE


@pytest.mark.parametrize("mode", ["real", "32", "ring 3"])
@pytest.mark.parametrize("rcx", [0, 1])
def test_a_locked_string_is_an_invalid_opcode(mode: str, rcx: int) -> None:
    with soft_guest("43 f0f36c ebfe") as guest:
        if mode == "real":
            guest.real_mode(rcx=rcx, rdi=DATA)
            guest.vector(6, DATA + 0x100)
            guest.place(DATA + 0x100, HLT)
        else:
            guest.protected_mode(rcx=rcx, rdi=DATA, ring=3 if mode == "ring 3" else 0)
            guest.handler(6, HLT)
        guest.place(DATA, b"untouched")
        regs = guest.halts()
        assert (regs.rbx, regs.rcx) == (1, rcx)
        assert guest.memory[DATA : DATA + 9] == b"untouched"
        assert not guest.bench.log


def test_permission_is_looked_at_each_time() -> None:
    """A translation made with permission is no permission."""
    with soft_guest("f36c 90 ebfb") as guest:  # again and again
        enter_user(guest, "32", rdi=DATA, rcx=2)
        allow(guest, PORT)
        seen = 0

        def close_the_map(offset: int, size: int, count: int) -> bytes:
            nonlocal seen
            seen += 1
            guest.memory[IO_MAP + PORT // 8] |= 1 << PORT % 8
            return bytes(size * count)

        guest.bench.read_block = close_the_map  # type: ignore[method-assign]
        regs = guest.halts()
        assert (regs.rbx, regs.rcx, seen) == (CODE, 0, 1)


def test_strings_of_several_modes_at_one_address() -> None:
    """Ring 0 needs none of the permission that ring 3 needs for the same bytes."""
    with soft_guest("f36c 0f0b") as guest:
        for ring, expected in ((0, 4), (3, 0), (0, 4), (3, 0)):
            guest.protected_mode(ring=ring, rdi=DATA, rcx=4)
            guest.handler(6, HLT)
            guest.handler(13, HLT)
            guest.bench.blocks.clear()
            guest.halts()
            assert sum(len(data) for *_, data in guest.bench.blocks) == expected


def test_a_breakpoint_of_the_guest_on_a_string_instruction() -> None:
    """DR0 names the instruction: #DB before it, once, and it goes on with RF set."""
    with soft_guest("f36c f4") as guest:
        setup = bytes.fromhex("b800100000 0f23c0 b801040000 0f23f8 b800100000 ffe0")  # mov dr0; mov dr7; jmp
        guest.place(KERNEL, setup)
        guest.protected_mode(rdi=DATA, rcx=3, rip=KERNEL)
        guest.handler(1, bytes.fromhex("43 814c240800000100 cf"))  # inc ebx; or dword [esp + 8], RF; iret
        regs = guest.halts()
        assert (regs.rbx, regs.rcx, regs.rdi) == (1, 0, DATA + 3)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("code", "size"), [("ec", 1), ("ee", 1), ("6c", 1), ("f36c", 1), ("ed", 2)])
def test_an_allowed_port_is_reached(mode: str, code: str, size: int) -> None:
    if code == "ed" and mode != "vm86":
        code = "66ed"
    with soft_guest(bytes.fromhex(code) + b"\x0f\x0b") as guest:
        enter_user(guest, mode, rdi=DATA, rcx=4)
        allow(guest, *range(PORT, PORT + size))
        guest.halts()
        assert len(guest.bench.log) + len(guest.bench.blocks) == 1


@pytest.mark.parametrize("denied", range(4))
def test_every_byte_of_an_access_needs_its_bit(denied: int) -> None:
    with soft_guest("ed eb fe") as guest:
        enter_user(guest, "32", rdx=PORT + 6)  # the bits lie in two bytes of the map
        allow(guest, *(PORT + 6 + number for number in range(4) if number != denied))
        assert guest.halts().rbx == CODE
        assert not guest.bench.log


def test_iopl_opens_all_ports_to_ring_3_but_not_to_vm86() -> None:
    with soft_guest("ec 0f0b") as guest:
        enter_user(guest, "32", rflags=0x3002)
        guest.halts()
        assert len(guest.bench.log) == 1
        enter_user(guest, "vm86", rflags=0x23002)
        guest.halts()
        assert len(guest.bench.log) == 1


@pytest.mark.parametrize("ring0_iopl", [0, 3])
def test_ring_0_needs_no_permission(ring0_iopl: int) -> None:
    with soft_guest("ec f4") as guest:
        guest.protected_mode(rflags=2 | ring0_iopl << 12)
        guest.halts()
        assert len(guest.bench.log) == 1


def test_a_map_beyond_the_limit_denies() -> None:
    with soft_guest("ec eb fe") as guest:
        enter_user(guest, "32")
        allow(guest, PORT)
        sregs = guest.vcpu.get_sregs()
        sregs.tr.limit = 0x68 + PORT // 8  # the second byte is outside
        guest.vcpu.set_sregs(sregs)
        assert guest.halts().rbx == CODE


def test_a_16_bit_task_has_no_map() -> None:
    with soft_guest("ec eb fe") as guest:
        enter_user(guest, "32")
        allow(guest, PORT)
        sregs = guest.vcpu.get_sregs()
        sregs.tr = Segment(TSS, 0x20FF, sregs.tr.selector, 3, s=0)
        guest.vcpu.set_sregs(sregs)
        guest.place(TSS + 2, struct.pack("<HH", RING0_STACK, DATA32))
        assert guest.halts().rbx == CODE


def test_a_page_fault_on_the_map_is_one() -> None:
    with soft_guest("ec eb fe") as guest:
        enter_user(guest, "64")
        sregs = guest.vcpu.get_sregs()
        sregs.tr.base = 0x7000_0000
        guest.vcpu.set_sregs(sregs)
        guest.handler(14, bytes.fromhex("58 5b f4"))
        # The handler's stack comes from the TSS too, so the page fault cannot be delivered.
        assert guest.run() == ExitReason.SHUTDOWN
        assert guest.vcpu.get_sregs().cr2 & ~0xFF == 0x7000_0000


def test_the_check_comes_before_a_count_of_zero_only_if_there_is_an_access() -> None:
    with soft_guest("f36c 0f0b") as guest:  # Unicorn tests the count first
        enter_user(guest, "32", rcx=0, rdi=DATA)
        guest.halts()
        assert not guest.bench.blocks


def test_virtual_8086_guests_run_with_their_own_segments() -> None:
    with soft_guest("a00000 43 cd41") as guest:  # mov al, [0]; inc bx; int 41h
        guest.virtual_8086()
        sregs = guest.vcpu.get_sregs()
        sregs.ds = Segment(DATA, 0xFFFF, DATA >> 4, 3, dpl=3)
        guest.vcpu.set_sregs(sregs)
        guest.place(DATA, b"\x77")
        guest.handler(13, HLT)
        guest.start(rflags=0x23002)
        regs = guest.halts()  # INT 41h is beyond the IDT: #GP
        assert (regs.rax & 0xFF, regs.rbx & 0xFF) == (0x77, 1)
