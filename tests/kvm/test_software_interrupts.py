"""Interrupts on the software CPU: windows, shadows, HLT, KVM_INTERRUPT, and sources that misbehave.

Rules: Intel SDM volume 3, 6.8 (enabling and disabling interrupts) and 6.8.3 (masking by MOV SS).
"""

from __future__ import annotations

import pytest

from portvisor.kvm import abi
from portvisor.kvm.abi import ExitReason
from portvisor.kvm.api import EngineError
from softcpu_guest import CODE, DATA, HLT, MEMORY, Lines, SoftGuest, soft_guest

VECTOR = 0x20
IRET = b"\xcf"


def with_handler(guest: SoftGuest, code: bytes = HLT) -> Lines:
    """A PIC with nothing to say, and a handler of VECTOR."""
    guest.vector(VECTOR, DATA)
    guest.place(DATA, code)
    return Lines(guest.vcpu)


def return_address(guest: SoftGuest) -> int:
    """Where the interrupt came: IP on the stack."""
    return guest.word(guest.vcpu.get_regs().rsp, 2)


def test_a_pending_interrupt_is_taken_before_the_first_instruction() -> None:
    with soft_guest("43 f4") as guest:
        lines = with_handler(guest)
        lines.request(VECTOR)
        guest.start(rflags=0x202)
        assert guest.halts().rbx == 0
        assert return_address(guest) == CODE
        assert lines.acknowledged == [VECTOR]


def test_with_if_clear_nothing_is_acknowledged() -> None:
    with soft_guest("43 f4") as guest:
        lines = with_handler(guest)
        lines.request(VECTOR)
        assert guest.halts().rbx == 1
        assert lines.acknowledged == []


def test_sti_lets_one_more_instruction_through() -> None:
    with soft_guest("fb 43 43 f4") as guest:
        with_handler(guest).request(VECTOR)
        assert guest.halts().rbx == 1
        assert return_address(guest) == CODE + 2


def test_sti_cli_lets_nothing_in() -> None:
    with soft_guest("fb fa 43 43 f4") as guest:
        lines = with_handler(guest)
        lines.request(VECTOR)
        assert guest.halts().rbx == 2
        assert lines.acknowledged == []


class Requesting:
    """A register whose read raises an interrupt."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    def mmio_read(self, offset: int, size: int) -> int:
        self.lines.request(VECTOR)
        return 0

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        raise AssertionError


def test_mov_ss_lets_one_more_instruction_through() -> None:
    with soft_guest("678e1500000400 43 43 f4") as guest:  # mov ss, [40000h]; inc bx; inc bx; hlt
        guest.mmio.attach(MEMORY, 0x1000, Requesting(with_handler(guest)), "requesting")
        guest.start(rflags=0x202)
        assert guest.halts().rbx == 1
        assert return_address(guest) == CODE + 8


def test_popf_and_iret_open_the_window_at_once() -> None:
    with soft_guest("9d 43 f4") as guest:
        with_handler(guest).request(VECTOR)
        guest.place(0x8000, (0x202).to_bytes(2, "little"))
        assert guest.halts().rbx == 0
        assert return_address(guest) == CODE + 1


def test_an_interrupt_that_a_handler_raises_comes_right_behind_the_access() -> None:
    with soft_guest("ee 43 43 f4") as guest:
        lines = with_handler(guest)

        def write(_offset: int, _size: int, _value: int) -> None:
            lines.request(VECTOR)

        guest.bench.on_write = write
        guest.start(rflags=0x202)
        assert guest.halts().rbx == 0
        assert return_address(guest) == CODE + 1


@pytest.mark.parametrize("requests", [1, 2, 3])
def test_every_waiting_interrupt_is_taken_in_turn(requests: int) -> None:
    with soft_guest("fb 90 90 f4") as guest:
        lines = with_handler(guest, b"\x43" + IRET)
        lines.waiting = [VECTOR] * requests
        guest.vcpu.interrupt_changed()
        assert guest.halts().rbx == requests
        assert lines.acknowledged == [VECTOR] * requests


def test_a_request_that_falls_again_is_not_acknowledged() -> None:
    with soft_guest("fb 90 90 43 f4") as guest:
        lines = with_handler(guest)
        lines.request(VECTOR)
        lines.waiting.clear()
        assert guest.halts().rbx == 1
        assert lines.acknowledged == []


def test_halt_wakes_at_once_if_an_interrupt_is_waiting() -> None:
    with soft_guest("fb f4 43 f4") as guest:
        with_handler(guest, b"\x41" + IRET).request(VECTOR)
        regs = guest.halts()
        assert (regs.rcx, regs.rbx, regs.rip) == (1, 1, CODE + 4)


def test_halt_without_an_interrupt_leaves_behind_it() -> None:
    with soft_guest("fb f4 43 f4") as guest:
        lines = with_handler(guest, b"\x41" + IRET)
        assert guest.halts().rip == CODE + 2
        lines.request(VECTOR)
        regs = guest.halts()
        assert (regs.rcx, regs.rbx) == (1, 1)
        assert guest.word(0x8000 - 6, 2) == CODE + 2


def test_halt_with_if_clear_leaves_too() -> None:
    with soft_guest("f4") as guest:
        with_handler(guest).request(VECTOR)
        regs = guest.halts()
        assert not regs.rflags & 0x200
        assert not guest.vcpu.kvm_run[abi.RUN_IF_FLAG]


def test_flags_and_stack_are_as_the_architecture_says() -> None:
    with soft_guest("f9 fb 90 f4") as guest:  # stc
        with_handler(guest).request(VECTOR)
        regs = guest.halts()
        assert regs.rsp == 0x8000 - 6
        assert guest.word(regs.rsp + 4, 2) & 0x201 == 0x201
        assert not regs.rflags & 0x200


@pytest.mark.parametrize("mode", ["protected", "long"])
def test_interrupts_go_through_the_idt(mode: str) -> None:
    with soft_guest("90 90 eb fe") as guest:
        guest.protected_mode() if mode == "protected" else guest.long_mode()
        guest.handler(VECTOR, HLT)
        lines = Lines(guest.vcpu)
        lines.request(VECTOR)
        guest.start(rflags=0x202)
        guest.halts()
        assert lines.acknowledged == [VECTOR]
        size = 4 if mode == "protected" else 8
        assert guest.word(guest.vcpu.get_regs().rsp, size) == CODE


def test_an_interrupt_from_ring_3_switches_stacks() -> None:
    with soft_guest("eb fe") as guest:
        guest.protected_mode(ring=3, rflags=0x202)
        guest.handler(VECTOR, HLT)
        Lines(guest.vcpu).request(VECTOR)
        assert guest.halts().rsp == 0x9000 - 20


# --- KVM_INTERRUPT ------------------------------------------------------------------------------------------


def test_kvm_interrupt_is_delivered_at_the_next_run() -> None:
    with soft_guest("43 f4") as guest:
        with_handler(guest)
        guest.start(rflags=0x202)
        guest.vcpu.interrupt(VECTOR)
        assert guest.halts().rbx == 0


def test_kvm_interrupt_waits_for_the_window() -> None:
    with soft_guest("43 fb 43 43 f4") as guest:
        with_handler(guest)
        guest.vcpu.interrupt(VECTOR)
        assert guest.halts().rbx == 2


def test_a_second_kvm_interrupt_is_refused() -> None:
    with soft_guest("f4") as guest:
        guest.vcpu.interrupt(VECTOR)
        assert guest.vcpu.get_sregs().interrupt_bitmap == (1 << VECTOR).to_bytes(32, "little")
        with pytest.raises(EngineError, match="queued already"):
            guest.vcpu.interrupt(VECTOR)


@pytest.mark.parametrize("vector", [-1, 256])
def test_a_vector_that_is_none_is_refused(vector: int) -> None:
    with soft_guest("f4") as guest, pytest.raises(EngineError, match=f"vector {vector}"):
        guest.vcpu.interrupt(vector)


def test_the_run_structure_tells_whether_one_can_be_injected() -> None:
    with soft_guest("f4 fb f4") as guest:
        run = guest.vcpu.kvm_run
        guest.halts()
        assert (run[abi.RUN_READY_FOR_INTERRUPT_INJECTION], run[abi.RUN_IF_FLAG]) == (0, 0)
        guest.halts()
        assert (run[abi.RUN_READY_FOR_INTERRUPT_INJECTION], run[abi.RUN_IF_FLAG]) == (1, 1)


def test_a_requested_window_is_reported_when_it_opens() -> None:
    with soft_guest("43 fb 43 43 f4") as guest:
        guest.vcpu.kvm_run[abi.RUN_REQUEST_INTERRUPT_WINDOW] = 1
        assert guest.run() == ExitReason.IRQ_WINDOW_OPEN
        assert guest.vcpu.get_regs().rbx == 2
        assert guest.vcpu.kvm_run[abi.RUN_READY_FOR_INTERRUPT_INJECTION]
        guest.vcpu.kvm_run[abi.RUN_REQUEST_INTERRUPT_WINDOW] = 0
        assert guest.halts().rbx == 3


# --- sources that misbehave -----------------------------------------------------------------------------------


@pytest.mark.parametrize("vector", [-1, 256, "8"])
def test_a_wrong_vector_comes_out_of_run(vector: int) -> None:
    with soft_guest("fb 90 90 f4") as guest:
        with_handler(guest).request(vector)
        with pytest.raises((ValueError, TypeError)):
            guest.run()
        guest.vcpu.set_interrupt_source(None)
        guest.halts()


@pytest.mark.parametrize("name", ["pending", "acknowledge"])
def test_what_a_source_raises_comes_out_of_run(name: str) -> None:
    class Broken:
        @property
        def pending(self) -> bool:
            if name == "pending":
                raise ZeroDivisionError
            return True

        def acknowledge(self) -> int:
            raise ZeroDivisionError

    with soft_guest("fb 90 90 43 f4") as guest:
        guest.vcpu.set_interrupt_source(Broken())
        with pytest.raises(ZeroDivisionError):
            guest.run()
        assert guest.vcpu.get_regs().rip == CODE + 2
        guest.vcpu.set_interrupt_source(None)
        assert guest.halts().rbx == 1


def test_what_a_source_raises_while_halted_comes_out_of_run() -> None:
    class Broken:
        pending = property(lambda _self: 1 // 0)

        def acknowledge(self) -> int:
            return 0

    with soft_guest("fb f4") as guest:
        guest.vcpu.set_interrupt_source(Broken())
        with pytest.raises(ZeroDivisionError):
            guest.run()
