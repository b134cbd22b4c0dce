"""Guests that check the CPU's I/O instructions from inside: string forms, ring 3, virtual 8086 mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import guest_programs
from portvisor.devices.board_registers import BoardRegisters
from portvisor.guest.programs import LOAD_ADDRESS
from portvisor.kvm.api import System
from portvisor.kvm.select import open_engine
from portvisor.machines.pc import MIB, Pc, PcOptions, Program
from portvisor.ports import BufferedChar
from support import require_kvm

WATCHDOG_S = 30.0
SCRATCH = (0x2F0, 4)


@pytest.fixture(params=["software", pytest.param("kvm", marks=pytest.mark.kvm)])
def engine(request: pytest.FixtureRequest) -> Iterator[System]:
    if request.param == "kvm":
        require_kvm()
    system = open_engine(request.param)
    yield system
    system.close()


def report(system: System, name: str) -> list[str]:
    """The lines that the guest printed."""
    serial = BufferedChar()
    program = Program(guest_programs.load(name), LOAD_ADDRESS)
    options = PcOptions(memory=4 * MIB, program=program, serial=(serial, None), base_time=0)
    with Pc(system, options) as machine:
        machine.attach(BoardRegisters([SCRATCH], "scratch"))
        outcome = machine.run(WATCHDOG_S)
        assert not machine.failures
    text = bytes(serial.sent).decode("latin-1").replace("\r", "")
    assert " good" in text, f"{outcome}: {text}"
    return text.splitlines()


def test_string_io_in_real_mode(engine: System) -> None:
    lines = report(engine, "stringio")
    assert [line for line in lines if line.startswith("BAD")] == []
    assert "stringio: 22 good, 0 bad" in lines


def test_ring_3_and_vm86_port_permission_on_the_software_engine() -> None:
    """A KVM without hardware support cannot run this one; nested KVM does."""
    system = open_engine("software")
    try:
        lines = report(system, "ring3")
    finally:
        system.close()
    assert [line for line in lines if line.startswith("BAD")] == []
    assert "ring3: 33 good, 0 bad" in lines
