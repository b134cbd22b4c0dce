"""PCH data sheet, "Chipset Configuration Registers"; the rule is in each test's docstring."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.devices.rcba import LENGTH, Rcba
from portvisor.devices.tco import TICK_NS, Tco
from portvisor.ports import MmioSpace, PortSpace, VirtualClock
from portvisor.testing import DeviceSuite

BASE = 0xFED1C000
GCS, HPTC = BASE + 0x3410, BASE + 0x3404
NO_REBOOT, BILD, BBS = 1 << 5, 1, 3 << 10


class TestSuite(DeviceSuite):
    def make(self) -> Rcba:
        return Rcba()


class Board:
    def __init__(self) -> None:
        self.rcba = Rcba()
        self.mmio = MmioSpace()
        self.mmio.attach(BASE, LENGTH, self.rcba, "rcba")

    def read(self, address: int, size: int = 4) -> int:
        return self.mmio.read(address, size)

    def write(self, address: int, value: int, size: int = 4) -> None:
        self.mmio.write(address, size, value)


@pytest.fixture
def board() -> Board:
    return Board()


def test_what_a_driver_does_with_no_reboot(board: Board) -> None:
    """GCS bit 5: set at first; a driver clears it, reads it back, and may set it again."""
    assert board.read(GCS) == NO_REBOOT
    assert board.rcba.no_reboot
    board.write(GCS, board.read(GCS) & ~NO_REBOOT)
    assert board.read(GCS) == 0
    assert not board.rcba.no_reboot
    board.write(GCS, NO_REBOOT, 1)
    assert board.rcba.no_reboot


def test_reset_sets_no_reboot(board: Board) -> None:
    board.write(GCS, 0)
    board.rcba.reset()
    assert board.read(GCS) == NO_REBOOT


def test_no_reboot_decides_what_the_watchdog_does(board: Board) -> None:
    """TCO: the second expiry resets the machine only with NR 0."""
    clock, resets, space = VirtualClock(), [], PortSpace(strict=True)
    tco = Tco(clock, lambda: resets.append(clock.now()), lambda: board.rcba.no_reboot, 0x460)
    space.attach(tco)
    space.write(0x468, 2, 0)
    clock.advance(TICK_NS * 8)
    assert resets == []
    board.write(GCS, 0)
    clock.advance(TICK_NS * 8)
    assert len(resets) == 1


def test_writable_bits_of_gcs(board: Board) -> None:
    """12 FLRCSSEL, 11:10 BBS, 9 SERM, 5 NR, 4 AME, 3 SPS, 2 RPR, 0 BILD; the others are reserved."""
    board.write(GCS, 0xFFFFFFFE)
    assert board.read(GCS) == 0x1E3C


def test_bild_locks_the_boot_straps(board: Board) -> None:
    """GCS bit 0: can only be set, and locks BBS until the next reset."""
    board.write(GCS, BBS | BILD)
    board.write(GCS, 0)
    assert board.read(GCS) == BBS | BILD
    board.write(GCS + 1, 0, 1)
    assert board.read(GCS) == BBS | BILD
    board.rcba.reset()
    board.write(GCS, 0)
    assert board.read(GCS) == 0


def test_writable_bits_of_hptc(board: Board) -> None:
    """7 address enable, 1:0 address select."""
    board.write(HPTC, 0xFFFFFFFF)
    assert board.read(HPTC) == 0x83


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_other_offsets_hold_what_is_written(board: Board, size: int) -> None:
    value = 0x1122334455667788 & (1 << 8 * size) - 1
    board.write(BASE + 0x100, value, size)
    assert board.read(BASE + 0x100, size) == value
    assert board.read(BASE + 0x100 + size, 4) == 0


ACCESSES = st.tuples(
    st.integers(LENGTH - 0xC10, LENGTH - 1), st.sampled_from([1, 2, 4, 8]), st.integers(0, (1 << 64) - 1)
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACCESSES, max_size=20))
def test_any_access(writes: list[tuple[int, int, int]]) -> None:
    """Also at the end of the block, where bytes beyond it are lost and read 0."""
    board = Board()
    for offset, size, value in writes:
        board.write(BASE + offset, value, size)
        assert 0 <= board.read(BASE + offset, size) < 1 << 8 * size
    assert len(board.rcba.state.data) == LENGTH
