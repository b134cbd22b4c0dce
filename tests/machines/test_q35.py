"""The q35 board: blocks where the registers say, and nowhere before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from portvisor.kvm.api import EngineError
from portvisor.kvm.null import NullSystem, NullVcpu
from portvisor.machines.q35 import Q35, Q35Options
from portvisor.ports import VirtualClock

PMBASE, ACPI_CNTL, RCBA = 0x40, 0x44, 0xF0
LPC = 0x8000F800
GCS = 0x3410


@pytest.fixture
def board() -> Iterator[Q35]:
    with Q35(NullSystem(), Q35Options(16 << 20, base_time=0, strict=True), VirtualClock()) as machine:
        yield machine


def config(board: Q35, address: int, value: int) -> None:
    board.ports.write(0xCF8, 4, address)
    board.ports.write(0xCFC, 4, value)


def identity(board: Q35, address: int) -> int:
    board.ports.write(0xCF8, 4, address)
    return board.ports.read(0xCFC, 4)


def test_functions_of_the_chipset(board: Q35) -> None:
    assert identity(board, 0x80000000) == 0x29C08086
    assert identity(board, LPC) == 0x29188086
    assert identity(board, 0x8000FA00) == 0x29228086
    assert identity(board, 0x80001000) == 0xFFFFFFFF


def test_pm_block_is_decoded_once_it_is_enabled(board: Q35) -> None:
    config(board, LPC | PMBASE, 0x601)
    assert board.ports.read(0x604, 2) == 0xFFFF
    config(board, LPC | ACPI_CNTL, 0x80)
    assert board.ports.read(0x604, 2) == 0
    assert board.ports.read(0x672, 2) == 4
    board.reset()
    assert board.ports.read(0x604, 2) == 0xFFFF


def test_a_pm_block_on_other_ports_is_not_decoded(board: Q35) -> None:
    config(board, LPC | ACPI_CNTL, 0x80)
    config(board, LPC | PMBASE, 0x381)
    assert board.ports.read(0x3FD, 1) == 0x60
    assert board.ports.read(0x384, 2) == 0xFFFF
    config(board, LPC | PMBASE, 0x601)
    assert board.ports.read(0x604, 2) == 0


def test_watchdog_resets_the_machine_at_its_second_expiry(board: Q35) -> None:
    for register, value in ((PMBASE, 0x601), (ACPI_CNTL, 0x80), (RCBA, 0xFED1C001)):
        config(board, LPC | register, value)
    board.mmio.write(0xFED1C000 + GCS, 4, 0)
    for offset, value in ((0x12, 4), (0x08, 0), (0x00, 1)):
        board.ports.write(0x660 + offset, 2, value)
    assert isinstance(board.clock, VirtualClock)
    board.clock.advance(3_000_000_000)
    assert board.ports.read(0x664, 2) & 8
    board.clock.advance(3_000_000_000)
    assert board.ports.read(0x666, 2) & 2


def test_the_null_engine_runs_no_guest() -> None:
    with pytest.raises(EngineError, match="no CPU"):
        NullVcpu().run()
