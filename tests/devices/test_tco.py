"""TCO watchdog against the PCH data sheet, and the sequence Linux's driver probes it with."""

from __future__ import annotations

from portvisor.devices.tco import TICK_NS, Tco
from portvisor.ports import PortSpace, VirtualClock
from portvisor.testing import DeviceSuite


class Board:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.no_reboot = False
        self.expiries = 0
        self.tco = Tco(self.clock, self.expired, lambda: self.no_reboot, 0x460)
        self.space = PortSpace()
        self.space.attach(self.tco)

    def expired(self) -> None:
        self.expiries += 1

    def start(self, ticks: int) -> None:
        self.space.write(0x472, 2, ticks)
        self.space.write(0x460, 2, 1)
        self.space.write(0x468, 2, 0)


class TestTcoSuite(DeviceSuite):
    def make(self) -> Tco:
        board = Board()
        self.clock = board.clock
        return board.tco


def test_tmr_holds_ten_bits_and_resets_to_four() -> None:
    board = Board()
    assert board.space.read(0x472, 2) == 4
    board.space.write(0x472, 2, 0xFFFF)
    assert board.space.read(0x472, 2) == 0x3FF


def test_count_runs_down_in_ticks_of_0_6_s() -> None:
    board = Board()
    board.start(50)
    assert board.space.read(0x460, 2) == 50
    board.clock.advance(TICK_NS * 10)
    assert board.space.read(0x460, 2) == 40


def test_halted_counter_does_not_run_and_resumes_where_it_was() -> None:
    board = Board()
    board.start(50)
    board.clock.advance(TICK_NS * 10)
    board.space.write(0x468, 2, 1 << 11)
    board.clock.advance(TICK_NS * 100)
    assert board.space.read(0x460, 2) == 40
    board.space.write(0x468, 2, 0)
    board.clock.advance(TICK_NS * 5)
    assert board.space.read(0x460, 2) == 35


def test_second_expiry_resets_the_machine() -> None:
    board = Board()
    board.start(10)
    board.clock.advance(TICK_NS * 10)
    assert (board.space.read(0x464, 2), board.expiries) == (1 << 3, 0)
    board.clock.advance(TICK_NS * 10)
    assert (board.space.read(0x466, 2), board.expiries) == (1 << 1, 1)


def test_reload_before_the_second_expiry_saves_the_machine() -> None:
    board = Board()
    board.start(10)
    for _ in range(5):
        board.clock.advance(TICK_NS * 15)
        board.space.write(0x460, 2, 1)
    assert board.expiries == 0
    assert board.space.read(0x466, 2) == 0


def test_timeout_stays_until_it_is_cleared() -> None:
    """TCO1_STS bit 3: software clears it by writing 1; TCO_RLD reloads only."""
    board = Board()
    board.start(10)
    board.clock.advance(TICK_NS * 10)
    board.space.write(0x460, 2, 1)
    assert board.space.read(0x464, 2) == 1 << 3
    board.space.write(0x464, 2, 1 << 3)
    assert board.space.read(0x464, 2) == 0


def test_data_registers_set_their_status_bits() -> None:
    """TCO1_STS bit 1 SW_TCO_SMI: TCO_DAT_IN was written; bit 2 TCO_INT: TCO_DAT_OUT was."""
    board = Board()
    board.space.write(0x462, 1, 0x55)
    assert board.space.read(0x464, 2) == 1 << 1
    board.space.write(0x463, 1, 0xAA)
    assert board.space.read(0x464, 2) == 1 << 1 | 1 << 2


def test_no_reboot_keeps_the_machine_up() -> None:
    board = Board()
    board.no_reboot = True
    board.start(10)
    board.clock.advance(TICK_NS * 20)
    assert (board.space.read(0x466, 2), board.expiries) == (2, 0)


def test_second_to_survives_the_reset_with_boot_sts() -> None:
    board = Board()
    board.start(10)
    board.clock.advance(TICK_NS * 20)
    board.tco.reset()
    assert board.space.read(0x466, 2) == 6
    board.space.write(0x466, 2, 6)
    assert board.space.read(0x466, 2) == 0
    board.clock.advance(TICK_NS * 100)
    assert board.expiries == 1


def test_lock_is_sticky() -> None:
    board = Board()
    board.space.write(0x468, 2, 1 << 12)
    board.space.write(0x468, 2, 0)
    assert board.space.read(0x468, 2) == 1 << 12
    board.tco.reset()
    assert board.space.read(0x468, 2) == 1 << 11


def test_reserved_reload_values_are_ignored() -> None:
    board = Board()
    board.start(50)
    board.space.write(0x472, 2, 1)
    board.space.write(0x460, 2, 1)
    assert board.space.read(0x460, 2) == 50


def test_the_drivers_probe_sequence() -> None:
    """Clears status, programs 30 s = 50 ticks, must read 50 back."""
    board = Board()
    for port, value in ((0x464, 8), (0x466, 2), (0x466, 4), (0x472, 0x32)):
        board.space.write(port, 2, value)
    assert board.space.read(0x472, 2) == 0x32


def test_bytes_of_a_word_register_are_separate() -> None:
    board = Board()
    board.space.write(0x462, 1, 0x12)
    board.space.write(0x463, 1, 0x34)
    assert board.space.read(0x462, 2) == 0x3412


def test_dword_access_reaches_two_registers() -> None:
    board = Board()
    board.space.write(0x470, 4, 0x00770000 | 2)
    assert board.space.read(0x470, 4) == 0x00770002


def test_restore_keeps_the_expiry() -> None:
    board = Board()
    board.start(10)
    saved = board.tco.snapshot()
    board.space.write(0x468, 2, 1 << 11)
    board.tco.restore(saved)
    board.clock.advance(TICK_NS * 20)
    assert board.expiries == 1
