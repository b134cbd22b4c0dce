"""The emulator as its caller sees it: return codes, completion, interference, misuse."""

from __future__ import annotations

from dataclasses import fields

import pytest

from kvm.emulate.machine import CODE, Machine
from portvisor.kvm.emulate import (
    ARCHITECTURE,
    CONTINUE,
    DEVIATIONS,
    IO_NEEDED,
    KVM,
    PROPAGATE_FAULT,
    READ_FIRST,
    RETURN_CODES,
    UNHANDLEABLE,
    Deviations,
    Emulator,
    GuestException,
    PendingIoError,
)

COM1 = 0x3F8
INSB, REP_INSB, REP_OUTSB = b"\x6c", b"\xf3\x6c", b"\xf3\x6e"
IN_AL, OUT_AL = b"\xec", b"\xee"
RF = 1 << 16


def pending(code: bytes, mode: str = "long", **regs: int) -> Machine:
    """A machine whose instruction waits for user space."""
    machine = Machine(mode, regs, code=code, served=False)
    assert machine.emulator.step() == IO_NEEDED
    return machine


def test_return_codes_have_kvm_names() -> None:
    assert RETURN_CODES == {0: "CONTINUE", 1: "UNHANDLEABLE", 2: "PROPAGATE_FAULT", 5: "IO_NEEDED"}
    assert (CONTINUE, UNHANDLEABLE, PROPAGATE_FAULT, IO_NEEDED) == (0, 1, 2, 5)


# --- completion ---------------------------------------------------------------------------------------
def test_registers_at_the_exit_of_in_are_untouched() -> None:
    machine = Machine("long", code=IN_AL, served=False)
    before = machine.registers()
    assert machine.emulator.step() == IO_NEEDED
    assert machine.registers() == before
    assert not machine.emulator.finished


def test_registers_at_the_exit_of_out_are_written_back() -> None:
    machine = pending(OUT_AL)
    assert machine.regs.rip == CODE + 1
    assert machine.emulator.finished
    assert machine.emulator.complete() == CONTINUE
    assert machine.regs.rip == CODE + 1


def test_at_the_exit_of_rep_outs_the_elements_are_gone() -> None:
    machine = pending(REP_OUTSB, rsi=0x3FFE, rcx=5)
    assert (machine.regs.rcx, machine.regs.rsi, machine.regs.rip) == (3, 0x4000, CODE)
    assert machine.regs.rflags & RF


def test_completion_does_not_go_on() -> None:
    """immediate_exit: finish the pending access, execute nothing more."""
    machine = pending(REP_INSB, rdi=0x2FFE, rcx=5)
    assert machine.emulator.complete(b"\x01\x02") == CONTINUE
    assert (machine.regs.rcx, machine.regs.rdi, machine.regs.rip) == (3, 0x3000, CODE)
    assert not machine.emulator.finished
    assert machine.emulator.io is None
    assert machine.emulator.step() == IO_NEEDED
    assert machine.emulator.io is not None
    assert machine.emulator.io.count == 3


def test_in_merges_with_the_register_as_it_is_at_completion() -> None:
    machine = pending(IN_AL, rax=0)
    machine.regs.rax = 0xAABB_CCDD
    machine.regs.rdx = 0x9999
    assert machine.emulator.complete(b"\x55") == CONTINUE
    assert machine.regs.rax == 0xAABB_CC55


def test_rcx_lowered_while_pending() -> None:
    machine = pending(REP_INSB, rcx=2)
    machine.regs.rcx = 1
    assert machine.emulator.complete(b"\x0a\x0b") == CONTINUE
    assert (machine.regs.rcx, machine.regs.rdi) == (0, 0x2001)
    assert machine.memory[0x2000:0x2002] == b"\x0a\x00"
    assert machine.emulator.finished


def test_rcx_raised_while_pending() -> None:
    machine = pending(REP_INSB, rcx=3)
    machine.regs.rcx = 8192
    assert machine.emulator.complete(b"\x0a\x0b\x0c") == CONTINUE
    assert (machine.regs.rcx, machine.regs.rdi) == (8189, 0x2003)
    assert not machine.emulator.finished
    assert machine.emulator.step() == IO_NEEDED


def test_rcx_zeroed_while_pending() -> None:
    machine = pending(REP_INSB, rcx=3)
    machine.regs.rcx = 0
    assert machine.emulator.complete(b"\x0a\x0b\x0c") == CONTINUE
    assert machine.emulator.finished
    assert machine.memory[0x2000] == 0


def test_rdi_moved_while_pending() -> None:
    machine = pending(REP_INSB, rcx=4)
    machine.regs.rdi = 0x4FFE
    assert machine.emulator.complete(b"\x01\x02\x03\x04") == CONTINUE
    assert machine.memory[0x4FFE:0x5002] == b"\x01\x02\x03\x04"
    assert machine.regs.rdi == 0x5002


def test_rdi_moved_to_where_only_a_part_fits() -> None:
    machine = Machine("long", {"rcx": 4}, code=REP_INSB, served=False, pages={0x5000: "none"})
    assert machine.emulator.step() == IO_NEEDED
    machine.regs.rdi = 0x4FFE
    assert machine.emulator.complete(b"\x01\x02\x03\x04") == PROPAGATE_FAULT
    assert machine.emulator.exception == GuestException(14, 2, 0x5000)
    assert (machine.regs.rcx, machine.regs.rdi) == (2, 0x5000)
    assert machine.emulator.io is None


def test_the_page_vanishes_while_pending() -> None:
    machine = pending(REP_INSB, rcx=4)
    assert machine.tables is not None
    machine.tables.map(0x2000, 0, 0)
    assert machine.emulator.complete(b"\x01\x02\x03\x04") == PROPAGATE_FAULT
    assert machine.emulator.exception == GuestException(14, 2, 0x2000)
    assert (machine.regs.rcx, machine.regs.rip) == (4, CODE)


@pytest.mark.parametrize("code", [IN_AL, REP_INSB])
def test_rip_moved_while_pending_drops_the_in(code: bytes) -> None:
    machine = pending(code, rcx=2)
    before = machine.registers()
    machine.regs.rip = 0x1800
    assert machine.emulator.complete(bytes(2 if code == REP_INSB else 1)) == CONTINUE
    assert machine.registers() == {**before, "rip": 0x1800}
    assert "rIP was changed" in machine.emulator.reason
    assert not machine.emulator.finished


def test_cs_base_counts_for_a_moved_rip() -> None:
    machine = pending(IN_AL, mode="real")
    machine.sregs.cs.base = 0x10
    assert machine.emulator.complete(b"\x55") == CONTINUE
    assert "rIP was changed" in machine.emulator.reason


def test_rip_moved_while_an_out_is_pending_is_left_alone() -> None:
    machine = pending(OUT_AL)
    machine.regs.rip = 0x1800
    assert machine.emulator.complete() == CONTINUE
    assert machine.regs.rip == 0x1800


def test_cancel_forgets_the_exit() -> None:
    machine = pending(IN_AL)
    machine.emulator.cancel()
    assert machine.emulator.io is None
    assert machine.emulator.step() == IO_NEEDED


def test_permission_is_not_checked_again_at_completion() -> None:
    machine = Machine("long", cpl=3, code=IN_AL, served=False)
    assert machine.emulator.step() == IO_NEEDED
    machine.sregs.tr.present = 0
    assert machine.emulator.complete(b"\x55") == CONTINUE


def test_a_string_goes_on_where_it_stopped() -> None:
    machine = Machine("long", {"rcx": 5, "rdi": 0x2FFE}, code=REP_INSB, interrupt=True)
    assert machine.emulator.step() == CONTINUE
    assert not machine.emulator.finished
    machine.interrupt = False
    assert machine.emulator.step() == CONTINUE
    assert machine.emulator.finished
    assert machine.memory[0x2FFE:0x3003] == b"\x01\x02\x03\x04\x05"
    assert not machine.regs.rflags & RF


# --- outcome ------------------------------------------------------------------------------------------
def test_the_outcome_of_one_step_does_not_leak_into_the_next() -> None:
    machine = Machine("long", code=b"\xf0\xec\xec")
    assert machine.emulator.step() == PROPAGATE_FAULT
    assert machine.emulator.exception is not None
    machine.regs.rip += 2
    assert machine.emulator.step() == CONTINUE
    assert machine.emulator.exception is None
    assert machine.emulator.finished


def test_bytes_given_by_the_caller_are_not_fetched() -> None:
    machine = Machine("long", code=b"\x90", pages={CODE: "none"})
    assert machine.emulator.step(IN_AL) == CONTINUE
    assert machine.regs.rip == CODE + 1


@pytest.mark.parametrize(
    ("code", "result", "text"),
    [
        (b"", UNHANDLEABLE, "ends before the opcode"),
        (b"\xe4", UNHANDLEABLE, "the port byte is missing"),
        (b"\x90", UNHANDLEABLE, "not an I/O instruction"),
        (b"\x66" * 15, PROPAGATE_FAULT, "#GP(0)"),
    ],
)
def test_bad_bytes_given_by_the_caller(code: bytes, result: int, text: str) -> None:
    machine = Machine("long")
    before = machine.registers()
    assert machine.emulator.step(code) == result
    assert text in (machine.emulator.reason or str(machine.emulator.exception))
    machine.regs.rflags &= ~RF
    assert machine.registers() == before


def test_a_port_that_raises_leaves_the_registers_alone() -> None:
    machine = Machine("long", {"rcx": 3}, code=REP_INSB)
    before = machine.registers()

    def broken(port: int, size: int, count: int) -> bytes:
        raise RuntimeError("device")

    machine.ops.pio_in = broken
    with pytest.raises(RuntimeError, match="device"):
        machine.emulator.step()
    assert machine.registers() == before
    machine.ops.pio_in = machine.pio_in
    assert machine.emulator.step() == CONTINUE
    assert machine.emulator.finished


# --- misuse -------------------------------------------------------------------------------------------
def test_step_while_pending() -> None:
    machine = pending(IN_AL)
    with pytest.raises(PendingIoError, match=r"call complete\(\) or cancel\(\) before step\(\)"):
        machine.emulator.step()


def test_complete_without_an_exit() -> None:
    with pytest.raises(PendingIoError, match="no I/O is pending"):
        Machine("long").emulator.complete(b"")


@pytest.mark.parametrize(
    ("code", "data", "needed"), [(REP_INSB, b"\x01", 3), (REP_INSB, b"", 3), (OUT_AL, b"\x01", 0)]
)
def test_complete_with_the_wrong_number_of_bytes(code: bytes, data: bytes, needed: int) -> None:
    machine = pending(code, rcx=3)
    with pytest.raises(
        ValueError, match=f"{needed} bytes of data are needed to complete this I/O, not {len(data)}"
    ):
        machine.emulator.complete(data)
    assert machine.emulator.complete(bytes(needed)) == CONTINUE


def test_a_port_that_gives_the_wrong_number_of_bytes() -> None:
    machine = Machine("long", {"rcx": 3}, code=REP_INSB)
    before = machine.registers()
    machine.ops.pio_in = lambda port, size, count: b"\x01"
    with pytest.raises(ValueError, match="pio_in of port 0x3f8 gave 1 bytes for 3 x 1"):
        machine.emulator.step()
    assert machine.registers() == before


# --- deviations ---------------------------------------------------------------------------------------
def test_the_table_names_every_switch_and_nothing_else() -> None:
    switches = {field.name for field in fields(Deviations)}
    assert {row.switch for row in DEVIATIONS} == switches
    assert len({row.name for row in DEVIATIONS}) == len(DEVIATIONS)
    assert [row.label for row in DEVIATIONS if row.label] == ["K1", "K2", "K3", "K4", "K5"]
    assert all(row.architecture != row.kvm for row in DEVIATIONS)


def test_the_presets() -> None:
    assert not any(getattr(ARCHITECTURE, field.name) for field in fields(Deviations))
    assert all(getattr(KVM, field.name) for field in fields(Deviations))
    assert [field.name for field in fields(Deviations) if getattr(READ_FIRST, field.name)] == ["read_first"]


def test_one_deviation_alone() -> None:
    machine = Machine("long", cpl=3, segments={"tr": {"limit": 0xE7}}, code=IN_AL)
    assert Emulator(machine.ops).step() == PROPAGATE_FAULT
    assert Emulator(machine.ops, deviations=Deviations(tss_limit_first_byte=True)).step() == CONTINUE
