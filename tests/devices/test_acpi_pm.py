"""ACPI PM block against the PCH data sheet and ACPI 4.8."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.devices.acpi_pm import PM_TIMER_HALF, AcpiPm, tick_time, timer_ticks
from portvisor.ports import IrqLine, PortSpace, VirtualClock
from portvisor.testing import DeviceSuite


class Board:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.sci = IrqLine()
        self.slept: list[int] = []
        self.pm = AcpiPm(self.clock, self.sci, self.slept.append, 0x400)
        self.space = PortSpace()
        self.space.attach(self.pm)


class TestAcpiPmSuite(DeviceSuite):
    def make(self) -> AcpiPm:
        board = Board()
        self.clock = board.clock
        return board.pm


def test_pm_timer_counts_3_579545_mhz_in_24_bits() -> None:
    board = Board()
    assert board.space.read(0x408, 4) == 0
    board.clock.set(1_000_000_000)
    assert board.space.read(0x408, 4) == 3_579_545
    board.clock.set(10_000_000_000)
    assert board.space.read(0x408, 4) == 35_795_450 & 0xFFFFFF


def test_pm_timer_is_read_only_and_readable_by_bytes() -> None:
    board = Board()
    board.clock.set(1_000_000_000)
    board.space.write(0x408, 4, 0)
    assert bytes(board.space.read(0x408 + n, 1) for n in range(4)) == (3_579_545).to_bytes(4, "little")


def test_tmrof_is_set_when_bit_23_changes_and_cleared_by_writing_one() -> None:
    board = Board()
    board.clock.set(tick_time(PM_TIMER_HALF) - 1)
    assert board.space.read(0x400, 2) == 0
    board.clock.advance(1)
    assert board.space.read(0x400, 2) == 1
    board.space.write(0x400, 2, 1)
    assert board.space.read(0x400, 2) == 0


def test_enabled_timer_overflow_raises_the_sci_without_being_read() -> None:
    board = Board()
    board.space.write(0x404, 2, 1)
    board.space.write(0x402, 2, 1)
    board.clock.set(tick_time(PM_TIMER_HALF))
    assert board.sci.level == 1
    board.space.write(0x400, 2, 1)
    assert board.sci.level == 0
    board.clock.set(tick_time(2 * PM_TIMER_HALF))
    assert board.sci.level == 1


def test_sci_needs_sci_en() -> None:
    board = Board()
    board.space.write(0x402, 2, 0x100)
    board.pm.press_power_button()
    assert board.sci.level == 0
    board.pm.set_sci_enable(True)
    assert board.sci.level == 1
    assert board.space.read(0x404, 2) == 1


def test_power_button_sets_pwrbtn_sts() -> None:
    board = Board()
    board.pm.press_power_button()
    assert board.space.read(0x400, 2) == 1 << 8
    board.space.write(0x401, 1, 1)
    assert board.space.read(0x400, 2) == 0


def test_slp_en_passes_slp_typ_and_reads_zero() -> None:
    board = Board()
    board.space.write(0x404, 2, 0x2000 | 7 << 10 | 1)
    assert board.slept == [7]
    assert board.space.read(0x404, 2) == 7 << 10 | 1


def test_byte_write_of_slp_en_leaves_the_other_byte() -> None:
    board = Board()
    board.space.write(0x404, 1, 1)
    board.space.write(0x405, 1, 0x3C)
    assert board.slept == [7]
    assert board.space.read(0x404, 1) == 1


def test_gpe0_status_is_write_one_to_clear_and_drives_the_sci() -> None:
    board = Board()
    board.pm.set_sci_enable(True)
    board.pm.raise_gpe(33)
    assert board.space.read(0x424, 4) == 2
    assert board.sci.level == 0
    board.space.write(0x42C, 1, 2)
    assert board.sci.level == 1
    board.space.write(0x424, 1, 0xFF)
    assert (board.space.read(0x424, 4), board.sci.level) == (0, 0)


def test_pm1_sts_and_pm1_en_share_a_dword() -> None:
    board = Board()
    board.pm.press_power_button()
    board.space.write(0x400, 4, 0x01000100)
    assert board.space.read(0x400, 4) == 0x01000000


def test_software_gpe_sets_its_status() -> None:
    board = Board()
    board.space.write(0x442, 1, 2)
    assert board.space.read(0x420, 1) == 4


def test_unimplemented_offsets_read_zero() -> None:
    board = Board()
    assert [board.space.read(0x400 + offset, 4) for offset in (0x0C, 0x14, 0x18, 0x58)] == [0] * 4


def test_reserved_bits_of_proc_cnt_and_pm2_cnt_stay_zero() -> None:
    board = Board()
    board.space.write(0x410, 4, 0xFFFFFFFF)
    board.space.write(0x450, 1, 0xFF)
    assert (board.space.read(0x410, 4), board.space.read(0x450, 1)) == (0xFE, 1)


def test_the_block_follows_pmbase() -> None:
    board = Board()
    board.space.write(0x402, 2, 0x100)
    board.space.remap(board.pm, AcpiPm.ranges(0x600))
    assert board.space.read(0x602, 2) == 0x100
    assert board.space.read(0x402, 2) == 0xFFFF


def test_seabios_debug_port_probe_does_not_find_e9() -> None:
    assert Board().space.read(0x402, 1) != 0xE9


def test_register_names() -> None:
    pm = Board().pm
    assert [pm.register_name(offset, 1, False) for offset in (0, 1, 2, 9, 0x27)] == [
        "PM1_STS", "PM1_STS", "PM1_EN", "PM1_TMR", "GPE0_STS",
    ]  # fmt: skip


@settings(max_examples=200)
@given(st.integers(0, 10**15))
def test_tick_time_is_the_first_moment_of_a_tick(ticks: int) -> None:
    assert timer_ticks(tick_time(ticks)) == ticks
    assert ticks == 0 or timer_ticks(tick_time(ticks) - 1) == ticks - 1
