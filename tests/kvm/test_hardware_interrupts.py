"""Interrupts of a PIC in user space: each delivered once, and only when the guest can take it.

A KVM that emulates looks for interrupts every few hundred instructions only, so the guests here spin or wait
where they expect one.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kvm_guest import CODE, DATA, Guest, guest, real_mode
from portvisor.kvm.abi import (
    RUN_READY_FOR_INTERRUPT_INJECTION,
    RUN_REQUEST_INTERRUPT_WINDOW,
    ExitReason,
)
from portvisor.kvm.api import EngineError
from portvisor.kvm.hardware import HardwareSystem

pytestmark = pytest.mark.kvm

VECTOR = 0x28
COUNTER = 0x4000
RETURN_IP = 0x4002
HANDLER = b"\xff\x06\x00\x40\x58\xa3\x02\x40\x50\xcf"
"""inc word [COUNTER]; pop ax; mov [RETURN_IP], ax; push ax; iret"""
HLT = b"\xf4"
STI, CLI, NOP, OUT = b"\xfb", b"\xfa", b"\x90", b"\xee"
SPIN = b"\xb9\xe8\x03\xe2\xfe"
"""mov cx, 1000; loop $"""


def wait_for(count: int) -> bytes:
    """l: cmp word [COUNTER], count; jne l"""
    return b"\x83\x3e\x00\x40" + bytes((count,)) + b"\x75\xf9"


class Pic:
    """Vectors that wait, first come first served."""

    def __init__(self, log: list[tuple[str, int, int, int]]) -> None:
        self.waiting: list[int] = []
        self.acknowledged: list[int] = []
        self.log = log

    @property
    def pending(self) -> bool:
        return bool(self.waiting)

    def acknowledge(self) -> int:
        vector = self.waiting.pop(0)
        self.acknowledged.append(vector)
        self.log.append(("ack", 0, 0, vector))
        return vector


class Board:
    """A guest with a handler and a PIC."""

    def __init__(self, made: Guest) -> None:
        self.guest = made
        self.pic = Pic(made.recorder.log)
        made.vcpu.set_interrupt_source(self.pic)
        for vector in range(VECTOR, VECTOR + 8):
            made.vector(vector, DATA)
        made.place(DATA, HANDLER)

    def load(self, code: bytes) -> None:
        self.guest.place(CODE, code)
        self.guest.start()

    def raise_irq(self, *vectors: int) -> None:
        self.pic.waiting += vectors
        self.guest.vcpu.interrupt_changed()

    def word(self, address: int) -> int:
        return int.from_bytes(self.guest.memory[address : address + 2], "little")

    def order(self) -> list[str]:
        return [kind for kind, *_ in self.guest.recorder.log]


@pytest.fixture
def board(kvm: HardwareSystem) -> Iterator[Board]:
    with guest(kvm, HLT) as made:
        yield Board(made)


def test_it_comes_once_when_the_window_opens(board: Board) -> None:
    board.load(CLI + SPIN + STI + NOP + wait_for(1) + HLT)
    board.raise_irq(VECTOR)
    assert board.guest.serve() == ExitReason.HLT
    assert board.pic.acknowledged == [VECTOR]
    assert board.word(COUNTER) == 1


def test_it_does_not_come_in_the_shadow_of_sti(board: Board) -> None:
    board.load(CLI + STI + NOP + wait_for(1) + HLT)
    board.raise_irq(VECTOR)
    assert board.guest.serve() == ExitReason.HLT
    assert board.word(RETURN_IP) >= CODE + 3


def test_it_waits_as_long_as_if_is_clear(board: Board) -> None:
    board.load(CLI + OUT + OUT + SPIN + STI + OUT + OUT + HLT)
    board.raise_irq(VECTOR)
    assert board.guest.serve() == ExitReason.HLT
    assert board.order() == ["out", "out", "out", "ack", "out"]


def test_nothing_is_acknowledged_before_the_guest_can_take_it(board: Board) -> None:
    board.load(CLI + OUT + HLT)
    board.raise_irq(VECTOR)
    assert board.guest.serve() == ExitReason.HLT
    assert board.pic.acknowledged == []
    assert board.pic.pending


def test_one_that_a_device_raises_comes_before_the_next_instruction(board: Board) -> None:
    board.load(STI + NOP + OUT + OUT + HLT)
    assert board.guest.exit() == ExitReason.IO
    assert board.guest.vcpu.kvm_run[RUN_READY_FOR_INTERRUPT_INJECTION]
    board.guest.exits.io()
    board.raise_irq(VECTOR)
    assert board.guest.serve() == ExitReason.HLT
    assert board.order() == ["out", "ack", "out"]
    assert board.word(RETURN_IP) == CODE + 3


def test_sti_hlt_halts_first(board: Board) -> None:
    board.load(CLI + SPIN + STI + HLT + OUT + HLT)
    board.raise_irq(VECTOR)
    assert board.guest.serve() == ExitReason.HLT
    assert board.order() == []
    assert board.guest.serve() == ExitReason.HLT
    assert board.order() == ["ack", "out"]
    assert board.word(COUNTER) == 1


def test_a_request_that_falls_is_not_acknowledged(board: Board) -> None:
    board.load(CLI + OUT + STI + NOP + NOP + HLT)
    board.raise_irq(VECTOR)
    assert board.guest.exit() == ExitReason.IO
    assert board.guest.vcpu.kvm_run[RUN_REQUEST_INTERRUPT_WINDOW]
    board.pic.waiting.clear()
    board.guest.vcpu.interrupt_changed()
    assert board.guest.serve() == ExitReason.HLT
    assert board.word(COUNTER) == 0
    assert not board.guest.vcpu.kvm_run[RUN_REQUEST_INTERRUPT_WINDOW]


def test_several_come_one_after_the_other(board: Board) -> None:
    board.load(CLI + NOP + STI + wait_for(4) + HLT)
    vectors = [VECTOR + 3, VECTOR, VECTOR + 7, VECTOR]
    board.raise_irq(*vectors)
    assert board.guest.serve() == ExitReason.HLT
    assert board.pic.acknowledged == vectors
    assert board.word(COUNTER) == len(vectors)


def test_a_pending_in_is_completed_before_the_handler_runs(board: Board) -> None:
    board.guest.recorder.replies = [0x5A]
    board.load(STI + NOP + b"\xec\x88\xc3" + HLT)  # in al, dx; mov bl, al
    board.guest.place(DATA, b"\xff\x06\x00\x40\x88\xc7\xcf")  # inc word [COUNTER]; mov bh, al; iret
    assert board.guest.exit() == ExitReason.IO
    board.guest.exits.io()
    board.raise_irq(VECTOR)
    assert board.guest.serve() == ExitReason.HLT
    assert board.word(COUNTER) == 1
    assert board.guest.vcpu.get_regs().rbx == 0x5A5A


def test_none_is_lost_and_none_is_doubled(board: Board) -> None:
    count = 500
    board.load(STI + b"\xb9" + count.to_bytes(2, "little") + OUT + b"\xe2\xfd" + HLT)  # l: out; loop l
    while (reason := board.guest.exit()) == ExitReason.IO:
        board.guest.exits.io()
        board.raise_irq(VECTOR)
    assert reason == ExitReason.HLT
    assert len(board.pic.acknowledged) == count
    assert board.word(COUNTER) == count


def test_a_kick_between_request_and_window_does_not_lose_it(board: Board) -> None:
    board.load(CLI + OUT + SPIN + STI + wait_for(1) + HLT)
    board.raise_irq(VECTOR)
    assert board.guest.exit() == ExitReason.IO
    board.guest.vcpu.kick()
    assert board.guest.vcpu.run() == ExitReason.INTR
    assert board.guest.serve() == ExitReason.HLT
    assert board.word(COUNTER) == 1


def test_an_injected_one_survives_a_kick(board: Board) -> None:
    board.load(STI + NOP + OUT + wait_for(2) + HLT)
    assert board.guest.exit() == ExitReason.IO
    board.raise_irq(VECTOR, VECTOR + 1)
    board.guest.vcpu.kick()
    assert board.guest.vcpu.run() == ExitReason.INTR
    assert board.pic.acknowledged == [VECTOR]
    assert not board.guest.vcpu.kvm_run[RUN_READY_FOR_INTERRUPT_INJECTION]
    assert board.guest.serve() == ExitReason.HLT
    assert board.word(COUNTER) == 2


def test_flags_reported_before_registers_were_set_are_not_believed(board: Board) -> None:
    board.load(STI + NOP + OUT + HLT)
    assert board.guest.exit() == ExitReason.IO
    board.load(CLI + OUT + HLT)  # starts with IF clear
    board.raise_irq(VECTOR)
    assert board.guest.serve() == ExitReason.HLT
    assert board.pic.acknowledged == []


def test_without_a_source_a_window_exit_is_the_callers(kvm: HardwareSystem) -> None:
    with guest(kvm, CLI + SPIN + STI + NOP + wait_for(1) + HLT) as made:
        made.vector(VECTOR, DATA)
        made.place(DATA, HANDLER)
        made.vcpu.immediate_exit = True
        assert made.vcpu.run() == ExitReason.INTR
        made.vcpu.immediate_exit = False
        made.vcpu.kvm_run[RUN_REQUEST_INTERRUPT_WINDOW] = 1
        assert made.exit() == ExitReason.IRQ_WINDOW_OPEN
        made.vcpu.kvm_run[RUN_REQUEST_INTERRUPT_WINDOW] = 0
        made.vcpu.interrupt(VECTOR)
        assert made.exit() == ExitReason.HLT
        assert made.memory[COUNTER] == 1


def test_a_vector_above_ff_is_refused(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made, pytest.raises(EngineError, match="vector 256"):
        made.vcpu.interrupt(256)


# --- PIC and PIT in KVM -------------------------------------------------------------------------------------

PIC_AT_20 = bytes.fromhex("b011e620 b020e621 b004e621 b001e621 b000e621")
"""ICW1-4: edge, vectors from 20h, slave on IR2, 8086 mode; all unmasked."""
END = b"\xee\xeb\xfe"
"""out dx, al; jmp $"""


def in_kernel(kvm: HardwareSystem, code: bytes) -> Guest:
    try:
        return Guest(kvm, code, irqchip=True)
    except EngineError as error:
        pytest.skip(f"needs interrupt controllers in KVM: {error}")


def test_the_kernels_pit_is_read_without_an_exit(kvm: HardwareSystem) -> None:
    made = in_kernel(kvm, b"\xe4\x40\xe4\x61" + END)  # in al, 40h; in al, 61h
    assert made.exit() == ExitReason.IO
    made.exits.io()
    assert made.recorder.log == [("out", 0, 1, made.vcpu.get_regs().rax & 0xFF)]
    made.close()


def test_an_irq_line_reaches_the_guest_through_the_kernels_pic(kvm: HardwareSystem) -> None:
    made = in_kernel(kvm, PIC_AT_20 + STI + END)
    made.vector(0x24, DATA)
    made.place(DATA, b"\xb0\x77\xee\xb0\x20\xe6\x20\xcf")  # mov al, 77h; out dx, al; EOI; iret
    assert made.exit() == ExitReason.IO
    made.exits.io()
    for count in (1, 2):
        made.vm.irq_line(4, 1)
        made.vm.irq_line(4, 0)
        assert made.exit() == ExitReason.IO
        made.exits.io()
        assert made.recorder.written() == [0, *[0x77] * count]
    made.close()


def test_the_kernels_pit_interrupts(kvm: HardwareSystem) -> None:
    timer = bytes.fromhex("b034e643 b0a9e640 b004e640")  # channel 0, mode 2, 1193: 1 kHz
    made = in_kernel(kvm, PIC_AT_20 + timer + STI + b"\xeb\xfe")
    made.vector(0x20, DATA)
    made.place(DATA, b"\xff\x06\x00\x40\xb0\x20\xe6\x20\x83\x3e\x00\x40\x05\x75\x01\xee\xcf")
    assert made.exit() == ExitReason.IO  # the handler's out dx, al at its fifth call
    assert made.memory[COUNTER] == 5
    made.close()


def test_interrupt_controllers_come_before_vcpus(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made:
        with pytest.raises(EngineError, match="before the first vCPU"):
            made.vm.create_irqchip()
        with pytest.raises(EngineError, match="needs create_irqchip first"):
            made.vm.create_pit2()


def test_reset_leaves_the_kernels_local_apic_usable(kvm: HardwareSystem) -> None:
    made = in_kernel(kvm, PIC_AT_20 + STI + END)
    made.vcpu.reset()
    made.vcpu.set_sregs(real_mode())
    made.start()
    made.vector(0x24, DATA)
    made.place(DATA, b"\xb0\x77\xee\xcf")
    assert made.exit() == ExitReason.IO
    made.exits.io()
    made.vm.irq_line(4, 1)
    assert made.exit() == ExitReason.IO
    made.exits.io()
    assert made.recorder.written() == [0, 0x77]
    made.close()
