"""The IB700's watchdog: 30 s minus two for each step of the value written."""

from __future__ import annotations

import pytest

from devices.shared_bus import bus
from portvisor.devices.ib700 import NS_PER_S, WDT_START, WDT_STOP, Ib700
from portvisor.ports import PortSpace, VirtualClock
from portvisor.testing import DeviceSuite


class TestSuite(DeviceSuite):
    def make(self) -> Ib700:
        return Ib700(VirtualClock(), lambda: None)


class Board:
    """The watchdog and what it did."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.expired_at: list[int] = []
        self.device = Ib700(self.clock, lambda: self.expired_at.append(self.clock.now()))
        self.space: PortSpace = bus(self.device)


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.mark.parametrize(("value", "seconds"), [(0, 30), (1, 28), (0xE, 2), (0xF0, 30)])
def test_the_low_nibble_sets_the_time(board: Board, value: int, seconds: int) -> None:
    board.space.write(WDT_START, 1, value)
    board.clock.advance(60 * NS_PER_S)
    assert board.expired_at == [seconds * NS_PER_S]


def test_start_again_puts_the_expiry_off(board: Board) -> None:
    for _ in range(3):
        board.space.write(WDT_START, 1, 0xE)
        board.clock.advance(NS_PER_S)
    assert board.expired_at == []
    board.clock.advance(NS_PER_S)
    assert board.expired_at == [4 * NS_PER_S]


def test_stop_stops(board: Board) -> None:
    board.space.write(WDT_START, 1, 0xE)
    board.space.write(WDT_STOP, 1, 0)
    board.clock.advance(60 * NS_PER_S)
    assert board.expired_at == []


def test_a_reset_stops(board: Board) -> None:
    board.space.write(WDT_START, 1, 0xE)
    board.device.reset()
    board.clock.advance(60 * NS_PER_S)
    assert board.expired_at == []


def test_a_snapshot_keeps_the_expiry(board: Board) -> None:
    board.space.write(WDT_START, 1, 0xE)
    saved = board.device.snapshot()
    board.space.write(WDT_STOP, 1, 0)
    board.device.restore(saved)
    board.clock.advance(2 * NS_PER_S)
    assert board.expired_at == [2 * NS_PER_S]
