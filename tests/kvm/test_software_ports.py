"""IN, OUT, INS and OUTS on the software CPU, served without an exit: register effects, blocks, failures.

Rules: Intel SDM volume 2A (IN, INS, OUT, OUTS) and volume 1 chapter 19 (input/output).
"""

from __future__ import annotations

import mmap
import os
import sys

import pytest

from portvisor.kvm.abi import ExitReason, Segment, Sregs
from portvisor.ports import DeviceFailureError, PortRange
from softcpu_guest import CODE, DATA, HLT, IO_MAP, MEMORY, PORT, STACK, Lines, SoftGuest, soft_guest

ALL_ONES = 0xFFFF_FFFF_FFFF_FFFF
WORD = 0x8877_6655


# --- one access ---------------------------------------------------------------------------------------------

# (mode, code, size, RAX after a read of 88776655h into all ones)
READS = [
    ("real", "ec", 1, 0xFFFF_FFFF_FFFF_FF55),
    ("real", "ed", 2, 0xFFFF_FFFF_FFFF_6655),
    ("real", "66ed", 4, WORD),
    ("real", "f3ec", 1, 0xFFFF_FFFF_FFFF_FF55),  # REP is ignored
    ("32", "ec", 1, 0xFFFF_FFFF_FFFF_FF55),
    ("32", "66ed", 2, 0xFFFF_FFFF_FFFF_6655),
    ("32", "ed", 4, WORD),
    ("16", "ed", 2, 0xFFFF_FFFF_FFFF_6655),
    ("vm86", "66ed", 4, WORD),
    ("64", "ec", 1, 0xFFFF_FFFF_FFFF_FF55),
    ("64", "66ed", 2, 0xFFFF_FFFF_FFFF_6655),
    ("64", "ed", 4, WORD),  # a 32-bit result clears the upper half
    ("64", "48ed", 4, WORD),  # REX.W changes nothing
    ("compat", "ed", 4, WORD),
]


def enter(guest: SoftGuest, mode: str, **registers: int) -> None:
    """Put the guest into a mode by its short name."""
    if mode == "real":
        guest.real_mode(**registers)
    elif mode in ("16", "32"):
        guest.protected_mode(bits=int(mode), **registers)
    elif mode == "vm86":
        guest.virtual_8086(**registers)
        guest.place(IO_MAP, bytes(0x2000))  # every port is allowed
    else:
        guest.long_mode(compat=mode == "compat", **registers)


@pytest.mark.parametrize(("mode", "code", "size", "rax"), READS)
def test_in_changes_the_accumulator_by_its_size(mode: str, code: str, size: int, rax: int) -> None:
    with soft_guest(bytes.fromhex(code) + HLT) as guest:
        guest.bench.replies = [WORD]
        enter(guest, mode, rax=ALL_ONES)
        guest.handler(13, HLT)  # where HLT is privileged
        regs = guest.halts()
        assert guest.bench.log == [("in", 0, size, WORD)]
        assert regs.rax == rax
        assert (regs.rcx, regs.rdi, regs.rdx) == (0, 0, PORT)


@pytest.mark.parametrize(("mode", "code", "size"), [(mode, code, size) for mode, code, size, _ in READS])
def test_out_sends_the_accumulator_by_its_size(mode: str, code: str, size: int) -> None:
    out = bytes.fromhex(code[:-2]) + bytes([bytes.fromhex(code)[-1] | 2])
    with soft_guest(out + HLT) as guest:
        enter(guest, mode, rax=0xFFFF_FFFF_0000_0000 | WORD)
        guest.handler(13, HLT)  # where HLT is privileged
        regs = guest.halts()
        assert guest.bench.log == [("out", 0, size, WORD & ((1 << 8 * size) - 1))]
        assert regs.rax == 0xFFFF_FFFF_0000_0000 | WORD


@pytest.mark.parametrize("code", ["e4f4", "e5f4", "66e5f4", "e6f4", "e7f4", "66e7f4"])
def test_an_immediate_port_is_a_byte(code: str) -> None:
    with soft_guest(bytes.fromhex(code) + HLT) as guest:
        guest.ports.remap(guest.bench, [PortRange(0xF4, 1, (1, 2, 4))])
        guest.start(rdx=0xFFFF)
        guest.halts()
        assert [offset for _, offset, _, _ in guest.bench.log] == [0]


@pytest.mark.parametrize(("reply", "al"), [(-1, 0xFF), (0x1_0000_0080, 0x80), (True, 1), (256, 0)])
def test_what_a_handler_gives_is_cut_to_the_size(reply: int, al: int) -> None:
    with soft_guest("ec f4") as guest:
        guest.bench.replies = [reply]
        assert guest.halts().rax == al


def test_flags_do_not_change() -> None:
    with soft_guest("ec ee f4") as guest:
        guest.start(rflags=0xCD7 & ~0x100)
        assert guest.halts().rflags == 0xCD7 & ~0x100


def test_the_last_port_and_beyond_read_ones() -> None:
    with soft_guest("66ed f4") as guest:
        guest.start(rdx=0xFFFF)
        assert guest.halts().rax == 0xFFFF_FFFF


@pytest.mark.parametrize("code", ["f0ec", "f0ef", "f06c", "f0f36f", "66f0ed"])
def test_a_locked_access_is_an_invalid_opcode(code: str) -> None:
    with soft_guest(bytes.fromhex(code) + b"\xeb\xfe") as guest:
        guest.vector(6, DATA)
        guest.place(DATA, HLT)
        guest.start(rdi=0x9000, rcx=1)
        regs = guest.halts()
        assert not guest.bench.log
        assert guest.word(regs.rsp, 2) == CODE  # at the first prefix


def test_a_handler_may_move_its_own_port() -> None:
    with soft_guest("ee ee ba0003 ee f4") as guest:  # out twice; mov dx, 300h; out
        bench = guest.bench

        def write(offset: int, size: int, value: int) -> None:
            bench.log.append(("out", offset, size, value))
            guest.ports.remap(bench, [PortRange(0x300, 1)])

        bench.on_write = write
        guest.ports.remap(bench, [PortRange(PORT, 1)])
        guest.start(rax=7)
        guest.halts()
        assert bench.log == [("out", 0, 1, 7)] * 2  # the second one found nobody


# --- strings ------------------------------------------------------------------------------------------------

INS = {1: b"\x6c", 2: b"\x6d", 4: b"\x66\x6d"}
OUTS = {1: b"\x6e", 2: b"\x6f", 4: b"\x66\x6f"}


@pytest.mark.parametrize("size", [1, 2, 4])
def test_ins_and_outs_move_one_element(size: int) -> None:
    with soft_guest(INS[size] + OUTS[size] + HLT) as guest:
        guest.bench.replies = [WORD]
        guest.place(0x9000, bytes(range(1, 9)))
        guest.start(rdi=DATA, rsi=0x9001, rcx=5)
        regs = guest.halts()
        assert guest.memory[DATA : DATA + 4] == WORD.to_bytes(4, "little")[:size] + bytes(4 - size)
        assert (regs.rdi, regs.rsi, regs.rcx) == (DATA + size, 0x9001 + size, 5)
        assert guest.bench.log[1] == ("out", 0, size, int.from_bytes(bytes(range(2, 2 + size)), "little"))


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("mode", ["real", "32", "64", "compat"])
def test_rep_ins_is_one_block_for_each_page(mode: str, size: int) -> None:
    code = {"32": {2: b"\x66\x6d", 4: b"\x6d"}, "64": {2: b"\x66\x6d", 4: b"\x6d"}}
    code["compat"] = code["32"]
    count, start = 3000 // size, DATA + 0x800 + size
    with soft_guest(b"\xf3" + code.get(mode, INS).get(size, INS[size]) + HLT) as guest:
        data = guest.bench.stream
        enter(guest, mode, rdi=start, rcx=count)
        regs = guest.halts()
        assert guest.memory[start : start + size * count] == data[: size * count]
        assert not any(guest.memory[start + size * count : start + size * count + 64])
        assert (regs.rdi, regs.rcx, regs.rip) == (start + size * count, 0, CODE + len(guest_code(guest)))
        first = 0x1000 - start % 0x1000
        assert [len(block) for *_, block in guest.bench.blocks] == [first, size * count - first]
        assert not guest.bench.log


def guest_code(guest: SoftGuest) -> bytes:
    """The code up to and with HLT."""
    return guest.memory[CODE : guest.memory.find(HLT, CODE) + 1]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_rep_outs_is_one_block_for_each_page(size: int) -> None:
    count, start = 3000 // size, 0x9000 - 8 * size
    with soft_guest(b"\xf3" + OUTS[size] + HLT) as guest:
        data = bytes(number * 7 & 0xFF for number in range(size * count))
        guest.place(start, data)
        guest.start(rsi=start, rcx=count)
        regs = guest.halts()
        assert b"".join(block for *_, block in guest.bench.blocks) == data
        assert [len(block) for *_, block in guest.bench.blocks] == [8 * size, size * (count - 8)]
        assert (regs.rsi, regs.rcx) == (start + size * count, 0)


def test_rep_with_a_count_of_zero_does_nothing() -> None:
    with soft_guest("f36d f36f f4") as guest:
        guest.start(rdi=DATA, rsi=DATA)
        regs = guest.halts()
        assert not guest.bench.log
        assert not guest.bench.blocks
        assert (regs.rdi, regs.rsi) == (DATA, DATA)


def test_an_element_across_two_pages_is_whole() -> None:
    with soft_guest("66f36d f4") as guest:  # rep insd
        stream = guest.bench.stream
        guest.start(rdi=DATA + 0xFF6, rcx=5)
        guest.halts()
        assert guest.memory[DATA + 0xFF6 : DATA + 0x100A] == stream[:20]
        assert [len(data) for *_, data in guest.bench.blocks][:2] == [8, 4]


def test_with_the_direction_flag_elements_go_down_one_by_one() -> None:
    with soft_guest("fd f36d f4") as guest:
        guest.bench.replies = [0x1111, 0x2222, 0x3333]
        guest.start(rdi=DATA, rcx=3)
        regs = guest.halts()
        assert guest.memory[DATA - 4 : DATA + 2] == bytes.fromhex("333322221111")
        assert regs.rdi == DATA - 6


def test_a_16_bit_pointer_wraps_within_its_segment() -> None:
    with soft_guest("f36d f4") as guest:
        stream = guest.bench.stream
        sregs = guest.vcpu.get_sregs()
        sregs.es.base = 0x10000
        guest.vcpu.set_sregs(sregs)
        guest.start(rdi=0xABCD_FFF8, rcx=0x7777_0006)
        regs = guest.halts()
        assert guest.memory[0x1FFF8:0x20000] == stream[:8]
        assert guest.memory[0x10000:0x10004] == stream[8:12]
        assert (regs.rdi, regs.rcx) == (0xABCD_0004, 0x7777_0000)


def test_a_32_bit_address_size_in_long_mode_clears_the_upper_halves() -> None:
    with soft_guest("67f36d f4") as guest:  # rep insd by EDI and ECX
        guest.long_mode(rdi=0x1_0000_0000 | DATA, rcx=0x5_0000_0004)
        regs = guest.halts()
        assert (regs.rdi, regs.rcx) == (DATA + 16, 0)


@pytest.mark.parametrize(
    ("prefix", "segment"), [("26", "es"), ("2e", "cs"), ("36", "ss"), ("3e", "ds"), ("64", "fs")]
)
def test_outs_takes_the_segment_of_its_prefix(prefix: str, segment: str) -> None:
    with soft_guest(bytes.fromhex(prefix) + b"\xf3\x6e" + HLT) as guest:
        sregs = guest.vcpu.get_sregs()
        for number, name in enumerate(("es", "cs", "ss", "ds", "fs")):
            getattr(sregs, name).base = 0x10000 + 0x1000 * number if name != "cs" else 0
            guest.place(0x10000 + 0x1000 * number, name.encode() * 2)
        guest.place(0, b"cscs")
        guest.vcpu.set_sregs(sregs)
        guest.start(rsi=0, rcx=4)
        guest.halts()
        assert b"".join(block for *_, block in guest.bench.blocks) == segment.encode() * 2


def test_ins_ignores_a_segment_prefix() -> None:
    with soft_guest("64f36c f4") as guest:
        sregs = guest.vcpu.get_sregs()
        sregs.fs.base = 0x20000
        guest.vcpu.set_sregs(sregs)
        stream = guest.bench.stream
        guest.start(rdi=DATA, rcx=8)
        guest.halts()
        assert guest.memory[DATA : DATA + 8] == stream[:8]


def test_single_step_traps_after_every_element() -> None:
    with soft_guest("f36c f4") as guest:
        guest.vector(1, 0x9000)
        guest.place(0x9000, bytes.fromhex("2eff060091 cf"))  # inc word cs:[9100h]; iret
        guest.bench.replies = [1, 2, 3]
        guest.start(rdi=DATA, rcx=3, rflags=0x102)
        guest.halts()
        assert guest.memory[DATA : DATA + 3] == b"\1\2\3"
        assert guest.word(0x9100, 2) == 3


def test_code_that_ins_overwrites_is_translated_anew() -> None:
    # call 5000h; mov di, 5000h; mov cx, 2; rep insb; call 5000h; hlt
    with soft_guest("e8fd3f bf0050 b90200 f36c e8f23f f4") as guest:
        guest.place(DATA, bytes.fromhex("4090c3"))  # inc ax; nop; ret
        guest.bench.stream = bytes.fromhex("4b4b")  # dec bx; dec bx
        guest.start()
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (1, 0xFFFE)


def test_a_block_may_come_short_or_wrong() -> None:
    with soft_guest("f36c f4") as guest:
        guest.vm.serve_ports(BrokenBlocks(guest))
        guest.start(rdi=DATA, rcx=8)
        with pytest.raises(ValueError, match=r"size \* count"):
            guest.run()


class BrokenBlocks:
    """Port tables whose blocks are too short and whose failures go up."""

    def __init__(self, guest: SoftGuest) -> None:
        self.reads, self.writes = guest.ports.reads, guest.ports.writes

    def read_block(self, port: int, size: int, count: int) -> bytes:
        return bytes(size * count - 1)

    def write_block(self, port: int, size: int, data: bytes) -> None:
        raise AssertionError

    def failed(self, port: int, size: int, write: bool, error: BaseException) -> int:
        raise error


# --- what is not a plain move: faults and traps of string instructions (SDM volume 2A, INS; 2B, OUTS) ------------


def with_segment(guest: SoftGuest, name: str, segment: Segment) -> None:
    sregs = guest.vcpu.get_sregs()
    setattr(sregs, name, segment)
    guest.vcpu.set_sregs(sregs)


def fault_of(guest: SoftGuest, vector: int = 13) -> tuple[int, int]:
    """Error code and EIP of a fault in 32-bit protected mode."""
    guest.handler(vector, bytes.fromhex("58 5b f4"))  # pop eax; pop ebx; hlt
    regs = guest.halts()
    return regs.rax, regs.rbx


@pytest.mark.parametrize(
    ("segment", "done"),
    [
        (Segment(DATA, 7, 0x10, 3, db=1), 4),  # two words more than the limit allows
        (Segment(DATA, 8, 0x10, 3, db=1), 4),  # half a word more
        (Segment(DATA, 0xFFF, 0x10, 7, db=1), 0),  # expand-down: the wrong side
        (Segment(DATA, 0xFFFF, 0x10, 1, db=1), 0),  # read-only
        (Segment(DATA, 0xFFFF, 8, 0xB, db=1), 0),  # code
        (Segment(unusable=1), 0),  # null
    ],
)
def test_ins_beyond_its_segment_faults_with_exact_registers(segment: Segment, done: int) -> None:
    with soft_guest("66f36d eb fe") as guest:
        stream = guest.bench.stream
        guest.protected_mode(rcx=6)
        guest.place(DATA, b"\xee" * 16)
        with_segment(guest, "es", segment)
        assert fault_of(guest) == (0, CODE)
        regs = guest.vcpu.get_regs()
        assert (regs.rcx, regs.rdi) == (6 - done, 2 * done)
        assert guest.memory[DATA : DATA + 16] == stream[: 2 * done] + b"\xee" * (16 - 2 * done)
        assert sum(len(data) for *_, data in guest.bench.blocks) == 2 * done


@pytest.mark.parametrize(("prefix", "name", "vector"), [("", "ds", 13), ("36", "ss", 12), ("2e", "cs", 13)])
def test_outs_beyond_its_segment_faults_before_the_port(prefix: str, name: str, vector: int) -> None:
    with soft_guest(prefix + "6e ebfe") as guest:
        guest.protected_mode(rsi=0x20000)
        kind = 0xB if name == "cs" else 3
        with_segment(guest, name, Segment(0, 0x1FFFF, 8 if name == "cs" else 0x10, kind, db=1))
        if name == "ss":
            guest.start(rsi=0x20000, rsp=0x8000)
        assert fault_of(guest, vector) == (0, CODE)
        assert not guest.bench.log


def test_a_word_at_the_end_of_a_real_mode_segment_is_a_fault() -> None:
    with soft_guest("6d ebfe") as guest:
        guest.vector(13, DATA)
        guest.place(DATA, HLT)
        guest.start(rdi=0xFFFF)
        regs = guest.halts()
        assert guest.word(regs.rsp, 2) == CODE
        assert not guest.bench.log


def test_a_misaligned_element_can_be_checked() -> None:
    with soft_guest("66f36d ebfe") as guest:
        guest.protected_mode(ring=3)
        sregs = guest.vcpu.get_sregs()
        sregs.cr0 |= 1 << 18  # AM
        guest.vcpu.set_sregs(sregs)
        guest.start(rdi=DATA + 1, rcx=2, rflags=0x43002)  # AC, IOPL 3
        assert fault_of(guest, 17) == (0, CODE)
        assert not guest.bench.log


def test_the_second_page_of_an_element_may_fault() -> None:
    with soft_guest("f36d ebfe") as guest:
        guest.long_mode(rdi=0x1FFFF8 - 2, rcx=4)  # the last two bytes of the third dword are not mapped
        guest.vm.set_user_memory_region(1, 0x1FF000, mmap.mmap(-1, 0x1000), 0, 0x1000)
        guest.handler(14, bytes.fromhex("58 0f20d3 f4"))  # pop rax; mov rbx, cr2; hlt
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (2, 0x200000)
        assert (regs.rcx, regs.rdi) == (2, 0x1FFFFE)
        assert sum(len(data) for *_, data in guest.bench.blocks) == 8


def test_an_io_breakpoint_traps_behind_each_element() -> None:
    with soft_guest("f36c f4") as guest:
        # mov dr0, port; cr4.de; dr7: I/O, one byte, enabled
        setup = "b8f0020000 0f23c0 0f20e0 83c808 0f22e0 b802000200 0f23f8 f36c f4"
        guest.place(CODE, bytes.fromhex(setup))
        guest.protected_mode(rdi=DATA, rcx=2)
        guest.handler(1, bytes.fromhex("43 cf"))  # inc ebx; iret
        assert guest.halts().rbx == 2


def test_ins_into_a_device_writes_it_once_and_reads_the_port_once() -> None:
    with soft_guest("f36d f4") as guest:
        writes: list[tuple[int, int, int]] = []

        class Window:
            def mmio_read(self, offset: int, size: int) -> int:
                return 0

            def mmio_write(self, offset: int, size: int, value: int) -> None:
                writes.append((offset, size, value))

        guest.mmio.attach(MEMORY, 0x1000, Window(), "window")
        guest.bench.stream = bytes([0, 0, 0, 0, 1, 2, 3, 4, 0, 0, 0, 0])
        guest.protected_mode(rdi=MEMORY, rcx=3)
        guest.halts()
        assert writes == [(0, 4, 0), (4, 4, 0x04030201), (8, 4, 0)]


def test_outs_from_a_device_reads_it_once() -> None:
    with soft_guest("f36f f4") as guest:
        reads: list[tuple[int, int]] = []

        class Window:
            def mmio_read(self, offset: int, size: int) -> int:
                reads.append((offset, size))
                return 0x1000 + offset

            def mmio_write(self, offset: int, size: int, value: int) -> None:
                raise AssertionError

        guest.mmio.attach(MEMORY, 0x1000, Window(), "window")
        guest.protected_mode(rsi=MEMORY, rcx=2)
        guest.halts()
        assert reads == [(0, 4), (4, 4)]
        assert [value for *_, value in guest.bench.log] == [0x1000, 0x1004]


def test_the_emulator_respects_the_a20_gate_and_doorbells() -> None:
    with soft_guest("f36f f4") as guest:
        fd = os.eventfd(0, os.EFD_NONBLOCK)
        guest.vm.ioeventfd(fd, PORT, 4, datamatch=0x04030201)
        guest.protected_mode()
        guest.vcpu.set_a20(False)
        guest.place(DATA + 0xFFD, bytes(range(1, 9)))  # misaligned across a page
        guest.start(rsi=0x100000 + DATA + 0xFFD, rcx=1)
        guest.halts()
        assert os.eventfd_read(fd) == 1
        os.close(fd)
        assert not guest.bench.log


def test_a_long_string_lets_interrupts_in() -> None:
    with soft_guest("f36c f4") as guest:
        lines = Lines(guest.vcpu)
        guest.protected_mode(rdi=DATA, rcx=0x2800)
        guest.handler(0x20, bytes.fromhex("89cb f4"))  # mov ebx, ecx; hlt

        def read_block(offset: int, size: int, count: int) -> bytes:
            lines.request(0x20)
            return bytes(size * count)

        guest.bench.read_block = read_block  # type: ignore[method-assign]
        guest.start(rdi=DATA, rcx=0x2800, rflags=0x202)
        regs = guest.halts()
        assert regs.rbx == 0x1800
        assert guest.word(regs.rsp, 4) == CODE


# --- failures -----------------------------------------------------------------------------------------------


def breaking(guest: SoftGuest, error: BaseException) -> None:
    """Let every single access to the bench raise."""

    def read(_offset: int, _size: int) -> int:
        raise error

    def write(_offset: int, _size: int, _value: int) -> None:
        raise error

    guest.bench.on_read = read
    guest.bench.on_write = write


@pytest.mark.parametrize("code", ["ec", "ee", "ed", "6c", "6e"])
def test_a_handler_that_raises_is_reported_and_the_read_is_all_ones(code: str) -> None:
    with soft_guest(bytes.fromhex(code) + HLT) as guest:
        failures: list[str] = []
        guest.ports.strict = False
        guest.ports.on_failure = lambda failure: failures.append(str(failure))
        breaking(guest, RuntimeError("broken"))
        guest.start(rdi=DATA, rsi=DATA)
        regs = guest.halts()
        assert len(failures) == 1
        assert "broken" in failures[0]
        if code == "ed":
            assert regs.rax == 0xFFFF


@pytest.mark.parametrize(("code", "length"), [("ec", 1), ("ee", 1), ("66ed", 2), ("e5f4", 2)])
def test_a_strict_space_ends_run_right_behind_the_instruction(code: str, length: int) -> None:
    with soft_guest(bytes.fromhex(code) + b"\x43" + HLT) as guest:  # ...; inc bx; hlt
        breaking(guest, RuntimeError("broken"))
        guest.ports.remap(guest.bench, [PortRange(PORT, 16, (1, 2, 4)), PortRange(0xF4, 1, (1, 2, 4))])
        with pytest.raises(DeviceFailureError, match="broken"):
            guest.run()
        regs = guest.vcpu.get_regs()
        assert (regs.rip, regs.rbx) == (CODE + length, 0)
        assert guest.halts().rbx == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_what_is_no_exception_proper_goes_straight_out(error: BaseException) -> None:
    with soft_guest("ec 43 f4") as guest:
        guest.ports.strict = False
        breaking(guest, error)
        with pytest.raises(type(error)):
            guest.run()
        regs = guest.vcpu.get_regs()
        assert (regs.rip, regs.rax, regs.rbx) == (CODE + 1, 0xFF, 0)
        assert guest.halts().rbx == 1


@pytest.mark.parametrize("reply", ["text", None, 1.5])
def test_a_value_that_is_no_number_is_a_failure(reply: object) -> None:
    with soft_guest("ec f4") as guest:
        guest.bench.replies = [reply]  # type: ignore[list-item]
        with pytest.raises(DeviceFailureError, match="TypeError"):
            guest.run()


def test_errors_leak_no_references() -> None:
    with soft_guest("ec eb fd") as guest:
        error = RuntimeError("broken")
        breaking(guest, error)
        for _ in range(3):
            with pytest.raises(DeviceFailureError):
                guest.run()
        error.__traceback__ = None
        before = sys.getrefcount(error)
        for _ in range(50):
            with pytest.raises(DeviceFailureError):
                guest.run()
        error.__traceback__ = None
        assert sys.getrefcount(error) <= before + 1


def test_a_handler_cannot_run_or_change_the_cpu() -> None:
    with soft_guest("ec f4") as guest:
        complaints = []

        def read(_offset: int, _size: int) -> int:
            for action in (guest.vcpu.run, lambda: guest.vcpu.set_sregs(Sregs()), guest.vcpu.reset, guest.vm.close):
                try:
                    action()
                except Exception as error:
                    complaints.append(str(error))
            return 5

        guest.bench.on_read = read
        assert guest.halts().rax == 5
        assert complaints == ["the virtual CPU is running"] * 4


def test_a_handler_sees_the_registers_at_its_instruction() -> None:
    with soft_guest("40 40 f9 ec f4") as guest:  # inc ax twice; stc; in
        seen = []

        def read(_offset: int, _size: int) -> int:
            seen.append(guest.vcpu.get_regs())
            return 0

        guest.bench.on_read = read
        guest.halts()
        assert (seen[0].rip, seen[0].rax, seen[0].rflags & 1, seen[0].rsp) == (CODE + 3, 2, 1, STACK)


# --- what a handler asks for is done at once ------------------------------------------------------------------


@pytest.mark.parametrize("code", ["ee", "ec"])
def test_a_kick_in_a_handler_stops_the_guest_right_behind_the_access(code: str) -> None:
    with soft_guest(bytes.fromhex(code) + b"\x43\x43" + HLT) as guest:

        def read(_offset: int, _size: int) -> int:
            guest.vcpu.kick()
            guest.bench.log.append(("kick", 0, 0, 0))
            return 0x77

        def write(offset: int, size: int, _value: int) -> None:
            read(offset, size)

        guest.bench.on_read, guest.bench.on_write = read, write
        assert guest.run() == ExitReason.INTR
        regs = guest.vcpu.get_regs()
        assert (regs.rip, regs.rbx) == (CODE + 1, 0)
        assert regs.rax == (0x77 if code == "ec" else 0)
        assert guest.halts().rbx == 2
        assert len(guest.bench.log) == 1


def test_a_rep_outs_reaches_into_no_memory_beyond_ram() -> None:
    with soft_guest("f36e f4") as guest:
        sregs = guest.vcpu.get_sregs()
        sregs.ds.base = MEMORY - 0x10
        guest.vcpu.set_sregs(sregs)
        guest.place(MEMORY - 0x10, bytes(range(16)))
        guest.start(rsi=0, rcx=20)
        guest.halts()
        assert guest.bench.blocks == [("out", 0, 1, bytes(range(16)))]
        assert guest.bench.log == [("out", 0, 1, 0xFF)] * 4
