"""System control port B against the PCH's NMI_SC register description."""

from __future__ import annotations

import pytest

from devices.shared_bus import bus
from portvisor.devices.i8254 import Pit, pulse_time
from portvisor.devices.port61 import Port61
from portvisor.ports import IrqLine, VirtualClock
from portvisor.testing import DeviceSuite


class TestGeneric(DeviceSuite):
    def make(self) -> Port61:
        self.clock = VirtualClock()
        return Port61(self.clock, Pit(self.clock, IrqLine()), aliases=True)


class Board:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.pit = Pit(self.clock, IrqLine())
        self.nmi = IrqLine()
        self.speaker: list[bool] = []
        self.port = Port61(self.clock, self.pit, self.nmi, self.speaker.append)
        self.space = bus(self.pit, self.port)

    def read(self) -> int:
        return self.space.read(0x61, 1)

    def write(self, value: int) -> None:
        self.space.write(0x61, 1, value)

    def count(self, value: int) -> None:
        self.space.write(0x43, 1, 0xB0)
        self.space.write(0x42, 1, value & 0xFF)
        self.space.write(0x42, 1, value >> 8)


@pytest.fixture
def board() -> Board:
    return Board()


def test_lower_four_bits_are_read_write_and_the_others_read_only(board: Board) -> None:
    board.write(0xFF)
    assert board.read() & 0xCF == 0x0F
    board.write(0x00)
    assert board.read() & 0xCF == 0x00


def test_bit_0_is_the_gate_of_counter_2(board: Board) -> None:
    board.count(100)
    board.clock.set(pulse_time(1000))
    assert not board.read() & 0x20, "gate low: it does not count"
    board.write(0x01)
    board.clock.set(pulse_time(1099))
    assert not board.read() & 0x20
    board.clock.set(pulse_time(1100))
    assert board.read() & 0x20


def test_linux_calibration_sees_out_2_after_exactly_the_count(board: Board) -> None:
    """50 ms in mode 0 with the gate open and the speaker off, polled on bit 5."""
    board.write(0x01)
    board.count(59659)
    board.clock.set(pulse_time(59659))
    assert not board.read() & 0x20
    board.clock.set(pulse_time(59660))
    assert board.read() & 0x20


def test_refresh_toggles_every_18_pulses(board: Board) -> None:
    levels = []
    for pulse in range(0, 180, 9):
        board.clock.set(pulse_time(pulse))
        levels.append(board.read() >> 4 & 1)
    assert levels == [0, 0, 1, 1] * 5


def test_serr_raises_nmi_until_its_enable_bit_is_set(board: Board) -> None:
    board.port.system_error()
    assert board.nmi.level == 1
    assert board.read() & 0xC0 == 0x80
    board.write(0x04)
    assert board.nmi.level == 0
    board.write(0x00)
    assert board.nmi.level == 0
    assert board.read() & 0xC0 == 0


def test_iochk_raises_nmi_until_its_enable_bit_is_set(board: Board) -> None:
    board.port.io_check()
    assert board.read() & 0xC0 == 0x40
    board.write(0x08)
    assert board.nmi.level == 0
    board.port.io_check()
    assert board.nmi.level == 0, "switched off"


def test_one_source_stays_while_the_other_is_cleared(board: Board) -> None:
    board.port.system_error()
    board.port.io_check()
    board.write(0x04)
    assert board.nmi.level == 1
    assert board.read() & 0xC0 == 0x40


def test_bit_1_connects_the_speaker(board: Board) -> None:
    for value in (0x02, 0x03, 0x01):
        board.write(value)
    assert board.speaker == [True, False]


def test_aliases_reach_the_same_register() -> None:
    clock = VirtualClock()
    port = Port61(clock, Pit(clock, IrqLine()), aliases=True)
    space = bus(port)
    for alias in (0x63, 0x65, 0x67):
        space.write(alias, 1, alias & 0x0F)
        assert space.read(0x61, 1) & 0x0F == alias & 0x0F


def test_reset_closes_the_gate_and_switches_the_speaker_off(board: Board) -> None:
    board.write(0x03)
    board.port.system_error()
    board.port.reset()
    assert board.read() & 0xCF == 0
    assert board.pit.state.counters[2].gate == 0
    assert board.speaker[-1] is False
    assert board.nmi.level == 0
