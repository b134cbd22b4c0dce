"""The software CPU without anyone served: KVM_EXIT_IO and KVM_EXIT_MMIO, and how they are completed.

Rules: Documentation/virt/kvm/api.rst, KVM_RUN; the instruction is done once, whatever user space does between.
"""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from portvisor.kvm import abi
from portvisor.kvm.abi import ExitReason, Regs
from portvisor.kvm.api import EngineError
from softcpu_guest import CODE, DATA, HLT, MEMORY, PORT, Lines, SoftGuest, soft_guest

HOLE = MEMORY


@contextmanager
def unserved(code: str) -> Iterator[SoftGuest]:
    with soft_guest(code, serve=False) as guest:
        yield guest


def io_block(guest: SoftGuest) -> tuple[int, int, int, int, int]:
    """direction, size, port, count, data offset."""
    return struct.unpack_from("<BBHIQ", guest.vcpu.kvm_run, abi.RUN_IO_DIRECTION)


def mmio_block(guest: SoftGuest) -> tuple[int, int, int, int]:
    """address, data, length, is_write."""
    address, data, length, write = struct.unpack_from("<QQIB", guest.vcpu.kvm_run, abi.RUN_MMIO_PHYS_ADDR)
    return address, data, length, write


def give(guest: SoftGuest, data: bytes) -> None:
    guest.vcpu.kvm_run[abi.PIO_DATA : abi.PIO_DATA + len(data)] = data


def give_mmio(guest: SoftGuest, value: int) -> None:
    struct.pack_into("<Q", guest.vcpu.kvm_run, abi.RUN_MMIO_DATA, value)


# --- port I/O -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "size", "rax"), [("ec", 1, 0x1111_1188), ("ed", 2, 0x1111_7788), ("66ed", 4, 0x5566_7788)]
)
def test_in_leaves_at_the_instruction_and_is_completed_at_the_next_run(code: str, size: int, rax: int) -> None:
    with unserved(code + "f4") as guest:
        guest.start(rax=0x1111_1111)
        assert guest.run() == ExitReason.IO
        assert io_block(guest) == (abi.KVM_EXIT_IO_IN, size, PORT, 1, abi.PIO_DATA)
        regs = guest.vcpu.get_regs()
        assert (regs.rip, regs.rax) == (CODE, 0x1111_1111)
        give(guest, (0x5566_7788).to_bytes(4, "little"))
        assert guest.halts().rax == rax


def test_unanswered_data_of_an_in_is_zero() -> None:
    with unserved("ec ec f4") as guest:
        assert guest.run() == ExitReason.IO
        give(guest, b"\x55")
        assert guest.run() == ExitReason.IO
        assert guest.halts().rax == 0


@pytest.mark.parametrize(("code", "size"), [("ee", 1), ("ef", 2), ("66ef", 4)])
def test_out_leaves_with_its_data(code: str, size: int) -> None:
    with unserved(code + "43 f4") as guest:
        guest.start(rax=0x4433_2211)
        assert guest.run() == ExitReason.IO
        assert io_block(guest) == (abi.KVM_EXIT_IO_OUT, size, PORT, 1, abi.PIO_DATA)
        assert bytes(guest.vcpu.kvm_run[abi.PIO_DATA : abi.PIO_DATA + 4]) == b"\x11\x22\x33\x44"[:size].ljust(
            4, b"\0"
        )
        assert guest.halts().rbx == 1


def test_immediate_exit_completes_the_instruction_and_nothing_more() -> None:
    with unserved("ec 40 40 f4") as guest:
        assert guest.run() == ExitReason.IO
        give(guest, b"\x40")
        guest.vcpu.immediate_exit = True
        assert guest.run() == ExitReason.INTR
        regs = guest.vcpu.get_regs()
        assert (regs.rip, regs.rax) == (CODE + 1, 0x40)
        assert guest.run() == ExitReason.INTR
        assert guest.vcpu.get_regs() == regs
        guest.vcpu.immediate_exit = False
        assert guest.halts().rax == 0x42


def test_a_kick_completes_the_instruction_too() -> None:
    with unserved("ec 40 f4") as guest:
        assert guest.run() == ExitReason.IO
        give(guest, b"\x40")
        guest.vcpu.kick()
        assert guest.run() == ExitReason.INTR
        assert guest.vcpu.get_regs().rip == CODE + 1
        assert guest.halts().rax == 0x41


def test_moving_rip_cancels_the_completion() -> None:
    with unserved("ec 43 f4") as guest:
        assert guest.run() == ExitReason.IO
        give(guest, b"\x55")
        guest.start(rip=CODE + 1)
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (0, 1)


def test_the_answer_to_one_instruction_is_not_given_to_another() -> None:
    with unserved("ec f4") as guest:
        assert guest.run() == ExitReason.IO
        give(guest, b"\x55")
        guest.place(CODE, b"\xed")  # in ax, dx in its place
        assert guest.run() == ExitReason.IO
        assert io_block(guest)[1] == 2
        give(guest, b"\x66\x77")
        assert guest.halts().rax == 0x7766


def test_reset_forgets_the_instruction() -> None:
    with unserved("ec f4") as guest:
        assert guest.run() == ExitReason.IO
        guest.vcpu.reset()
        guest.real_mode()
        guest.place(CODE, HLT)
        assert guest.halts() == Regs(rip=CODE + 1, rsp=0x8000, rdx=PORT)


def test_an_interrupt_waits_for_the_completion() -> None:
    with unserved("fb 90 ec 43 f4") as guest:  # sti; nop; in; inc bx; hlt
        guest.vector(0x20, DATA)
        guest.place(DATA, b"\x89\xc1\xf4")  # mov cx, ax; hlt
        lines = Lines(guest.vcpu)
        assert guest.run() == ExitReason.IO
        lines.request(0x20)
        give(guest, b"\x55")
        regs = guest.halts()
        assert (regs.rcx, regs.rbx) == (0x55, 0)  # between IN and INC


@pytest.mark.parametrize("size", [1, 2, 4])
def test_rep_ins_leaves_once_for_each_block(size: int) -> None:
    code = {1: "f36c", 2: "f36d", 4: "66f36d"}[size]
    start, count = DATA + 0xF00, 1000 // size
    with unserved(code + "f4") as guest:
        guest.start(rdi=start, rcx=count)
        data, sent = bytes(range(250)) * 4, 0
        counts = []
        while guest.run() == ExitReason.IO:
            _, _, _, elements, _ = io_block(guest)
            counts.append(elements)
            give(guest, data[sent : sent + elements * size])
            sent += elements * size
        regs = guest.vcpu.get_regs()
        assert guest.memory[start : start + 1000] == data
        assert counts == [0x100 // size, count - 0x100 // size]
        assert (regs.rdi, regs.rcx) == (start + 1000, 0)


def test_registers_change_with_the_completion_of_a_block_only() -> None:
    with unserved("f36c f4") as guest:
        guest.start(rdi=DATA, rcx=100)
        assert guest.run() == ExitReason.IO
        regs = guest.vcpu.get_regs()
        assert (regs.rip, regs.rdi, regs.rcx) == (CODE, DATA, 100)
        guest.vcpu.immediate_exit = True
        give(guest, bytes(range(100)))
        assert guest.run() == ExitReason.INTR
        regs = guest.vcpu.get_regs()
        assert (regs.rdi, regs.rcx) == (DATA + 100, 0)
        assert guest.memory[DATA : DATA + 100] == bytes(range(100))


def test_a_count_that_user_space_lowers_is_kept_to() -> None:
    with unserved("f36c f4") as guest:
        guest.start(rdi=DATA, rcx=100)
        assert guest.run() == ExitReason.IO
        give(guest, b"\x77" * 100)
        regs = guest.vcpu.get_regs()
        regs.rcx = 2
        guest.vcpu.set_regs(regs)
        regs = guest.halts()
        assert guest.memory[DATA : DATA + 4] == b"\x77\x77\0\0"
        assert (regs.rcx, regs.rdi) == (0, DATA + 2)


@pytest.mark.parametrize("code", ["f36e", "6e6e6e6e6e"])
def test_outs_leaves_for_every_element_once(code: str) -> None:
    with unserved(code + "f4") as guest:
        guest.place(DATA, b"abcde")
        guest.start(rsi=DATA, rcx=5)
        seen = b""
        while guest.run() == ExitReason.IO:
            seen += bytes(guest.vcpu.kvm_run[abi.PIO_DATA : abi.PIO_DATA + 1])
        assert seen == b"abcde"
        assert guest.vcpu.get_regs().rsi == DATA + 5


def test_rep_ins_of_single_elements_loses_and_doubles_none() -> None:
    with unserved("fd f36c f4") as guest:  # downwards: one by one
        guest.start(rdi=DATA + 9, rcx=10)
        number = 0
        while guest.run() == ExitReason.IO:
            number += 1
            give(guest, bytes([number]))
        assert guest.memory[DATA : DATA + 10] == bytes(range(10, 0, -1))


@pytest.mark.parametrize("code", ["ee40", "ec40", "6e40", "ee9040"])
def test_an_alarm_at_any_moment_neither_repeats_nor_loses_an_access(code: str) -> None:
    """Each access is seen once and in order, wherever between exit and completion the alarm goes off."""
    dice = random.Random(code)
    with unserved(code * 20 + "f4") as guest:
        for _ in range(400):
            guest.place(CODE, bytes.fromhex(code) * 20 + HLT)  # translated anew: the window is wider
            guest.start(rsi=DATA)
            seen = []
            reason = ExitReason.IO
            while reason != ExitReason.HLT:
                guest.vcpu.set_alarm(time.monotonic_ns() + dice.randrange(60_000))
                reason = ExitReason(guest.vcpu.run())
                if reason == ExitReason.IO:
                    seen.append(guest.vcpu.get_regs().rip)
            assert seen == [CODE + at * len(bytes.fromhex(code)) for at in range(20)]


# --- strings that the emulator executes: here an element across two pages -------------------------------------

ACROSS = DATA + 0xFFE


def crossing(guest: SoftGuest, **registers: int) -> None:
    guest.protected_mode(rdi=ACROSS, rsi=ACROSS, rcx=2, **registers)
    guest.place(ACROSS, b"untouched")


def test_an_ins_of_the_emulator_is_completed_at_the_next_run() -> None:
    with unserved("f36d f4") as guest:
        crossing(guest)
        assert guest.run() == ExitReason.IO
        direction, size, port, count, _ = io_block(guest)
        assert (direction, size, port, count) == (abi.KVM_EXIT_IO_IN, 4, PORT, 1)
        assert guest.vcpu.kvm_run[abi.RUN_EXIT_REASON] == ExitReason.IO
        regs = guest.vcpu.get_regs()
        assert (regs.rip, regs.rcx, regs.rdi) == (CODE, 2, ACROSS)
        assert guest.memory[ACROSS : ACROSS + 9] == b"untouched"
        give(guest, b"abcd")
        assert guest.run() == ExitReason.IO
        give(guest, b"efgh")
        regs = guest.halts()
        assert (regs.rcx, regs.rdi) == (0, ACROSS + 8)
        assert guest.memory[ACROSS : ACROSS + 9] == b"abcdefghd"


def test_immediate_exit_completes_an_ins_of_the_emulator_and_nothing_more() -> None:
    with unserved("f36d f4") as guest:
        crossing(guest)
        assert guest.run() == ExitReason.IO
        with pytest.raises(EngineError, match="an instruction is under way"):
            guest.vcpu.save_state()
        give(guest, b"abcd")
        guest.vcpu.immediate_exit = True
        assert guest.run() == ExitReason.INTR
        regs = guest.vcpu.get_regs()
        assert (regs.rip, regs.rcx, regs.rdi) == (CODE, 1, ACROSS + 4)
        guest.vcpu.save_state()


@pytest.mark.parametrize(
    ("change", "stored"), [({"rcx": 0}, b""), ({"rip": CODE + 2}, b""), ({"rdi": DATA}, b"abcd")]
)
def test_registers_may_change_while_the_emulator_waits(change: dict[str, int], stored: bytes) -> None:
    with unserved("f36d f4") as guest:
        crossing(guest)
        assert guest.run() == ExitReason.IO
        give(guest, b"abcd")
        regs = guest.vcpu.get_regs()
        regs.rcx = 1
        for name, value in change.items():
            setattr(regs, name, value)
        guest.vcpu.set_regs(regs)
        regs = guest.halts()
        assert guest.memory[DATA : DATA + len(stored)] == stored
        assert guest.memory[ACROSS : ACROSS + 9] == b"untouched"
        assert regs.rip == CODE + 3


def test_an_outs_of_the_emulator_leaves_with_its_data() -> None:
    with unserved("6f f4") as guest:
        crossing(guest)
        assert guest.run() == ExitReason.IO
        assert io_block(guest)[:4] == (abi.KVM_EXIT_IO_OUT, 4, PORT, 1)
        assert bytes(guest.vcpu.kvm_run[abi.PIO_DATA : abi.PIO_DATA + 4]) == b"unto"
        assert guest.halts().rsi == ACROSS + 4


def test_reset_forgets_what_the_emulator_waits_for() -> None:
    with unserved("f36d f4") as guest:
        crossing(guest)
        assert guest.run() == ExitReason.IO
        give(guest, b"abcd")
        guest.vcpu.reset()
        crossing(guest, rip=CODE + 2)
        guest.halts()
        assert guest.memory[ACROSS : ACROSS + 9] == b"untouched"


def test_a_doorbell_takes_what_the_emulator_writes() -> None:
    with unserved("f36f f4") as guest:
        crossing(guest)
        doorbell = os.eventfd(0, os.EFD_NONBLOCK)
        guest.vm.ioeventfd(doorbell, PORT, 4, datamatch=int.from_bytes(b"unto", "little"))
        assert guest.run() == ExitReason.IO
        assert bytes(guest.vcpu.kvm_run[abi.PIO_DATA : abi.PIO_DATA + 4]) == b"uche"
        guest.halts()
        assert os.eventfd_read(doorbell) == 1
        os.close(doorbell)


def test_a_fault_of_the_completion_is_delivered() -> None:
    """User space takes the destination's segment away meanwhile."""
    with unserved("6d f4") as guest:
        crossing(guest)
        guest.handler(13, bytes.fromhex("58 5b f4"))
        assert guest.run() == ExitReason.IO
        sregs = guest.vcpu.get_sregs()
        sregs.es.limit, sregs.es.g = 0xFF, 0
        guest.vcpu.set_sregs(sregs)
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (0, CODE)


def test_exits_and_completions_work_in_long_mode() -> None:
    with unserved("ed ef 48ffc3 f4") as guest:
        guest.long_mode(rax=-1 & (2**64 - 1))
        assert guest.run() == ExitReason.IO
        give(guest, b"\x44\x33\x22\x11")
        assert guest.run() == ExitReason.IO
        assert bytes(guest.vcpu.kvm_run[abi.PIO_DATA : abi.PIO_DATA + 4]) == b"\x44\x33\x22\x11"
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (0x1122_3344, 1)


def test_single_step_traps_behind_a_completed_instruction() -> None:
    with unserved("ec 43 f4") as guest:
        guest.vector(1, DATA)
        guest.place(DATA, b"\xf4")
        guest.start(rflags=0x102)
        assert guest.run() == ExitReason.IO
        give(guest, b"\x55")
        regs = guest.halts()
        assert (regs.rax, regs.rbx) == (0x55, 0)
        assert guest.word(regs.rsp, 2) == CODE + 1


# --- memory-mapped I/O --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "size", "rax"),
    [("67a000000400", 1, 0x1111_1188), ("67a100000400", 2, 0x1111_7788), ("6667a100000400", 4, 0x5566_7788)],
)
def test_a_load_from_no_memory_is_an_mmio_exit(code: str, size: int, rax: int) -> None:
    with unserved(code + "f4") as guest:
        guest.start(rax=0x1111_1111)
        assert guest.run() == ExitReason.MMIO
        assert mmio_block(guest) == (HOLE, 0, size, 0)
        assert guest.vcpu.get_regs().rip == CODE
        give_mmio(guest, 0x5566_7788)
        assert guest.halts().rax == rax


def test_a_store_to_no_memory_is_an_mmio_exit() -> None:
    with unserved("6667a304000400 43 f4") as guest:
        guest.start(rax=0x4433_2211)
        assert guest.run() == ExitReason.MMIO
        assert mmio_block(guest) == (HOLE + 4, 0x4433_2211, 4, 1)
        assert guest.halts().rbx == 1


def test_a_read_modify_write_leaves_once_for_each_half() -> None:
    with unserved("67fe0500000400 f4") as guest:  # inc byte [40000h]
        assert guest.run() == ExitReason.MMIO
        assert mmio_block(guest)[3] == 0
        give_mmio(guest, 0x7F)
        assert guest.run() == ExitReason.MMIO
        assert mmio_block(guest) == (HOLE, 0x80, 1, 1)
        assert guest.halts().rflags & 0x800  # overflow: the flags are of one execution


def test_movs_between_devices_is_exact() -> None:
    with unserved("f3a4 f4") as guest:
        guest.protected_mode(rsi=HOLE, rdi=HOLE + 0x100, rcx=3)
        accesses = []
        while guest.run() == ExitReason.MMIO:
            address, data, _, write = mmio_block(guest)
            accesses.append((address - HOLE, write, data & 0xFF))
            if not write:
                give_mmio(guest, 0x30 + address - HOLE)
        assert accesses == [(0, 0, 0), (0x100, 1, 0x30), (1, 0, 0), (0x101, 1, 0x31), (2, 0, 0), (0x102, 1, 0x32)]


def test_ins_into_a_device_reads_the_port_once() -> None:
    with unserved("6c f4") as guest:
        guest.protected_mode(rdi=HOLE)
        reads, writes = 0, []
        while (reason := guest.run()) != ExitReason.HLT:
            if reason == ExitReason.IO:
                reads += 1
                give(guest, b"\x5a")
            else:
                writes.append(mmio_block(guest)[1])
        assert reads == 1
        assert writes[-1] == 0x5A


def test_eight_bytes_of_mmio_come_as_two_halves() -> None:
    with unserved(
        "48a100f01f0000000000 48a308f01f0000000000 f4"
    ) as guest:  # mov rax, [1FF000h]; mov [1FF008h], rax
        guest.long_mode()
        seen = []
        while guest.run() == ExitReason.MMIO:
            seen.append(mmio_block(guest))
            give_mmio(guest, 0x5566_7788 if seen[-1][0] == 0x1FF000 else 0x1122_3344)
        assert seen[:2] == [(0x1FF000, 0, 4, 0), (0x1FF004, 0, 4, 0)]
        assert seen[2:] == [(0x1FF008, 0x5566_7788, 4, 1), (0x1FF00C, 0x1122_3344, 4, 1)]
        assert guest.vcpu.get_regs().rax == 0x1122_3344_5566_7788


def test_code_cannot_be_fetched_from_a_device() -> None:
    with soft_guest("eb fe") as guest:
        guest.protected_mode(rip=HOLE)
        assert guest.run() == ExitReason.INTERNAL_ERROR
        assert struct.unpack_from("<II", guest.vcpu.kvm_run, abi.RUN_INTERNAL_SUBERROR) == (1, 1)
        assert "0008:40000 " in guest.vcpu.describe_internal_error()
        assert "fetch" in guest.vcpu.describe_internal_error().lower()


# --- in front of everything: ioeventfd and coalesced ports --------------------------------------------------------


@pytest.mark.parametrize("serve", [True, False])
def test_a_write_to_a_doorbell_rings_and_goes_nowhere_else(serve: bool) -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        with soft_guest("ee b002 ee f4", serve=serve) as guest:
            guest.vm.ioeventfd(fd, PORT, 1, datamatch=1)
            guest.start(rax=1)
            if not serve:
                assert guest.run() == ExitReason.IO
            guest.halts()
            assert os.eventfd_read(fd) == 1
            assert [value for *_, value in guest.bench.log] == ([2] if serve else [])
            guest.vm.ioeventfd(fd, PORT, 1, datamatch=1, deassign=True)
            with pytest.raises(EngineError, match="No such file"):
                guest.vm.ioeventfd(fd, PORT, 1, datamatch=1, deassign=True)
    finally:
        os.close(fd)


def test_rep_outs_rings_once_for_each_element() -> None:
    fd = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        with soft_guest("f36f f4") as guest:
            guest.vm.ioeventfd(fd, PORT, 2)
            guest.start(rsi=DATA, rcx=4)
            guest.halts()
            assert os.eventfd_read(fd) == 4
            assert not guest.bench.blocks
    finally:
        os.close(fd)


def test_coalesced_writes_come_in_order_when_drained() -> None:
    with unserved("e6f0 ee ef f4") as guest:
        assert guest.vm.register_coalesced_pio(PORT, 2)
        guest.start(rax=0x1234)
        assert guest.run() == ExitReason.IO  # F0h is not coalesced
        guest.halts()
        drained: list[tuple[int, int, int]] = []
        guest.vm.drain_coalesced(lambda *access: drained.append(access))
        assert drained == [(PORT, 1, 0x34), (PORT, 2, 0x1234)]


def test_a_full_ring_lets_a_write_through() -> None:
    with unserved("ee e2fd f4") as guest:  # l: out; loop l
        guest.vm.register_coalesced_pio(PORT, 1)
        guest.start(rcx=170)
        assert guest.run() == ExitReason.IO
        drained: list[int] = []
        guest.vm.drain_coalesced(lambda _port, _size, value: drained.append(value))
        assert len(drained) == 169
        guest.halts()


def test_a_write_that_straddles_the_zone_is_not_coalesced() -> None:
    with unserved("ef f4") as guest:
        guest.vm.register_coalesced_pio(PORT, 1)
        assert guest.run() == ExitReason.IO


@pytest.mark.parametrize(("port", "size"), [(-1, 1), (0x10000, 1), (0x2F0, 3)])
def test_impossible_doorbells_are_refused(port: int, size: int) -> None:
    with unserved("f4") as guest, pytest.raises(EngineError, match="ioeventfd"):
        guest.vm.ioeventfd(0, port, size)
