"""Real-time clock against the rules of the Motorola MC146818A data sheet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.shared_bus import bus
from portvisor.devices.mc146818 import UIP_LEAD, UPDATE_CYCLE, Rtc, to_bcd
from portvisor.ports import NS_PER_S, IrqLine, VirtualClock
from portvisor.testing import DeviceSuite

BASE = 1_700_000_000
"""Tuesday 2023-11-14 22:13:20 UTC."""
DAY = 86_400


class TestGeneric(DeviceSuite):
    def make(self) -> Rtc:
        self.clock = VirtualClock()
        return Rtc(self.clock, IrqLine(), BASE, aliases=True)


class Board:
    def __init__(self, base: float = BASE, cmos: bytes = b"", aliases: bool = True) -> None:
        self.clock = VirtualClock()
        self.irq = IrqLine()
        self.rises: list[int] = []
        self.irq.watch(lambda level: self.rises.append(self.clock.now()) if level else None)
        self.masks: list[bool] = []
        self.rtc = Rtc(self.clock, self.irq, base, cmos, aliases=aliases, on_nmi_mask=self.masks.append)
        self.space = bus(self.rtc)

    def __getitem__(self, index: int) -> int:
        self.space.write(0x70, 1, index)
        return self.space.read(0x71, 1)

    def __setitem__(self, index: int, value: int) -> None:
        self.space.write(0x70, 1, index)
        self.space.write(0x71, 1, value)

    def time(self) -> tuple[int, int, int]:
        return self[4], self[2], self[0]

    def date(self) -> tuple[int, int, int, int]:
        return self[0x32], self[9], self[8], self[7]

    def set(self, hour: int, minute: int, second: int, *, hold: bool = True) -> None:
        if hold:
            self[0x0B] = self[0x0B] | 0x80
        self[4], self[2], self[0] = hour, minute, second
        if hold:
            self[0x0B] = self[0x0B] & ~0x80

    def alarm(self, hour: int, minute: int, second: int) -> None:
        self[5], self[3], self[1] = hour, minute, second

    def acknowledge(self) -> int:
        """Read register C, which clears the flags."""
        return self[0x0C]

    def seconds(self, count: float) -> None:
        self.clock.advance(int(count * NS_PER_S))


@pytest.fixture
def board() -> Board:
    return Board()


class TestTimeOfDay:
    def test_starts_at_the_base_time_in_bcd_and_24_hours(self, board: Board) -> None:
        assert board.time() == (0x22, 0x13, 0x20)
        assert board.date() == (0x20, 0x23, 0x11, 0x14)
        assert board[6] == 3, "Tuesday; Sunday is 1"

    def test_counts_seconds_exactly_on_the_clock(self, board: Board) -> None:
        board.clock.set(NS_PER_S - 1)
        assert board[0] == 0x20
        board.clock.set(NS_PER_S)
        assert board[0] == 0x21

    def test_a_fraction_of_the_base_time_sets_the_phase(self) -> None:
        board = Board(BASE + 0.75)
        board.clock.set(NS_PER_S // 4 - 1)
        assert board[0] == 0x20
        board.clock.set(NS_PER_S // 4)
        assert board[0] == 0x21

    def test_carries_to_minute_hour_day_month_year_and_century(self) -> None:
        board = Board(datetime(1999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp())
        assert board[6] == 6
        board.seconds(1)
        assert board.time() == (0, 0, 0)
        assert board.date() == (0x20, 0x00, 0x01, 0x01)
        assert board[6] == 7

    @pytest.mark.parametrize(
        ("year", "following"), [(2023, (3, 1)), (2024, (2, 29)), (2000, (2, 29)), (1900, (3, 1)), (2100, (3, 1))]
    )
    def test_leap_years(self, year: int, following: tuple[int, int]) -> None:
        board = Board(datetime(year, 2, 28, 12, tzinfo=UTC).timestamp())
        board.seconds(DAY)
        assert (board[8], board[7]) == (to_bcd(following[0]), to_bcd(following[1]))

    @settings(max_examples=80, deadline=None)
    @given(st.integers(0, 7_000_000_000), st.lists(st.integers(1, 90 * DAY), max_size=5))
    def test_agrees_with_the_calendar_however_often_it_is_looked_at(self, base: int, jumps: list[int]) -> None:
        board = Board(base)
        expected = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=base)
        for jump in jumps:
            board.seconds(jump)
            expected += timedelta(seconds=jump)
            assert board.rtc.time() == expected
            assert board[6] == expected.isoweekday() % 7 + 1


class TestFormats:
    def test_binary_mode_counts_in_binary(self, board: Board) -> None:
        board[0x0B] = 0x06
        board.set(9, 59, 59)
        board.seconds(1)
        assert board.time() == (10, 0, 0)

    @pytest.mark.parametrize(
        ("before", "after"),
        [(0x11, 0x92), (0x92, 0x81), (0x91, 0x12), (0x12, 0x01), (0x09, 0x10)],
    )
    def test_12_hour_mode_has_pm_in_bit_7(self, board: Board, before: int, after: int) -> None:
        board[0x0B] = 0x00
        board.set(before, 0x59, 0x59)
        board.seconds(1)
        assert board[4] == after

    def test_midnight_in_12_hour_mode_begins_a_day(self, board: Board) -> None:
        board[0x0B] = 0x00
        board.set(0x91, 0x59, 0x59)
        board.seconds(1)
        assert (board[4], board[7]) == (0x12, 0x15)

    def test_bytes_are_not_converted_when_the_format_bits_change(self, board: Board) -> None:
        board[0x0B] = 0x06
        assert board.time() == (0x22, 0x13, 0x20)


class TestSet:
    def test_set_stops_updates_and_the_time_goes_on_from_what_was_written(self, board: Board) -> None:
        board[0x0B] = 0x82
        board.seconds(10)
        assert board[0] == 0x20
        board.set(0x01, 0x02, 0x03, hold=False)
        board[0x0B] = 0x02
        board.seconds(5)
        assert board.time() == (0x01, 0x02, 0x08)

    def test_set_does_not_touch_the_phase(self, board: Board) -> None:
        board.seconds(0.9)
        board.set(0x01, 0x02, 0x03)
        board.seconds(0.1)
        assert board[0] == 0x04

    def test_setting_the_date_in_any_order_is_not_disturbed_by_impossible_dates(self, board: Board) -> None:
        board[0x0B] = 0x82
        board[8], board[7], board[8] = 0x02, 0x31, 0x03
        board[0x0B] = 0x02
        board.seconds(DAY)
        assert (board[8], board[7]) == (0x04, 0x01)

    def test_any_byte_reads_back_as_written(self, board: Board) -> None:
        board[0x0B] = 0x82
        for index in (0, 2, 4, 6, 7, 8, 9, 0x32):
            for value in (0x00, 0x7F, 0xAA, 0xFF):
                board[index] = value
                assert board[index] == value

    def test_a_byte_out_of_range_is_left_at_the_next_carry(self, board: Board) -> None:
        board.set(0x22, 0x13, 0x75)
        board.seconds(1)
        assert board.time() == (0x22, 0x14, 0x00)

    def test_set_aborts_an_update_in_progress(self, board: Board) -> None:
        board.clock.set(NS_PER_S - UPDATE_CYCLE // 2)
        board[0x0B] = 0x82
        board[0x0B] = 0x02
        board.clock.set(NS_PER_S + 1)
        assert board[0] == 0x20
        assert not board[0x0A] & 0x80
        board.clock.set(2 * NS_PER_S)
        assert board[0] == 0x21

    def test_set_clears_uie(self, board: Board) -> None:
        board[0x0B] = 0x12
        board[0x0B] = 0x92
        assert board[0x0B] == 0x82


class TestDivider:
    def test_divider_reset_stops_the_clock_and_its_release_updates_after_half_a_second(self, board: Board) -> None:
        board[0x0A] = 0x76
        board.seconds(5)
        assert board[0] == 0x20
        board[0x0A] = 0x26
        start = board.clock.now()
        board.clock.set(start + NS_PER_S // 2 + UPDATE_CYCLE - 1)
        assert board[0] == 0x20
        board.clock.set(start + NS_PER_S // 2 + UPDATE_CYCLE)
        assert board[0] == 0x21
        board.seconds(1)
        assert board[0] == 0x22

    def test_rewriting_a_running_divider_changes_nothing(self, board: Board) -> None:
        board.seconds(0.7)
        board[0x0A] = 0x26
        board.seconds(0.3)
        assert board[0] == 0x21

    def test_linux_sets_the_time_with_set_and_divider_reset(self, board: Board) -> None:
        board[0x0B] = 0x82
        board[0x0A] = 0x76
        board[4], board[2], board[0] = 0x10, 0x20, 0x30
        board[0x0B] = 0x02
        board[0x0A] = 0x26
        board.seconds(0.6)
        assert board.time() == (0x10, 0x20, 0x31)


class TestUpdateInProgress:
    def test_uip_rises_244_us_before_the_update_cycle_and_falls_with_its_end(self, board: Board) -> None:
        start = NS_PER_S - UPDATE_CYCLE - UIP_LEAD
        levels = []
        for moment in (0, start - 1, start, NS_PER_S - 1, NS_PER_S):
            board.clock.set(moment)
            levels.append(board[0x0A] >> 7)
        assert levels == [0, 0, 1, 1, 0]

    def test_time_is_stable_for_244_us_after_uip_was_read_clear(self, board: Board) -> None:
        board.clock.set(NS_PER_S - UPDATE_CYCLE - UIP_LEAD - 1)
        assert not board[0x0A] & 0x80
        before = board.time()
        board.clock.advance(UIP_LEAD)
        assert board.time() == before

    def test_no_uip_while_set_or_without_divider(self, board: Board) -> None:
        board.clock.set(NS_PER_S - 1)
        board[0x0B] = 0x82
        assert not board[0x0A] & 0x80
        board[0x0B] = 0x02
        board[0x0A] = 0x76
        board.seconds(1)
        assert board[0x0A] == 0x76


class TestUpdateInterrupt:
    def test_uf_is_set_every_second_and_cleared_by_reading_c(self, board: Board) -> None:
        board.acknowledge()
        board.clock.set(NS_PER_S)
        assert board[0x0C] & 0x10
        assert not board[0x0C] & 0x10

    def test_uie_interrupts_at_each_end_of_update(self, board: Board) -> None:
        board[0x0B] = 0x12
        for second in range(1, 4):
            board.clock.set(second * NS_PER_S)
            assert board.irq.level == 1
            assert board[0x0C] & 0x90 == 0x90
            assert board.irq.level == 0
        assert board.rises == [NS_PER_S, 2 * NS_PER_S, 3 * NS_PER_S]

    def test_the_line_stays_until_c_is_read(self, board: Board) -> None:
        board[0x0B] = 0x12
        board.seconds(5)
        assert board.rises == [NS_PER_S]
        assert board.clock.next_deadline() is None, "nothing to wait for"

    def test_enabling_with_the_flag_set_interrupts_at_once(self, board: Board) -> None:
        board.seconds(1)
        board[0x0B] = 0x12
        assert board.irq.level == 1

    def test_disabling_takes_the_interrupt_back_and_keeps_the_flag(self, board: Board) -> None:
        board[0x0B] = 0x12
        board.seconds(1)
        board[0x0B] = 0x02
        assert board.irq.level == 0
        assert board[0x0C] & 0x90 == 0x10


class TestPeriodicInterrupt:
    @pytest.mark.parametrize("select", range(1, 16))
    def test_rates_of_a_32768_hz_clock(self, board: Board, select: int) -> None:
        """RS 3 is 122 us, 6 is 976.562 us, 15 is 500 ms; 1 and 2 are 3.90625 and 7.8125 ms."""
        hertz = {1: 256, 2: 128}.get(select, 65536 >> select)
        board[0x0A] = 0x20 | select
        board[0x0B] = 0x42
        board.acknowledge()
        for tick in range(1, 4):
            deadline = board.clock.next_deadline()
            assert deadline == -(-tick * NS_PER_S // hertz)
            board.clock.set(deadline)
            assert board[0x0C] & 0xC0 == 0xC0

    def test_1024_hz_does_not_drift(self, board: Board) -> None:
        board[0x0B] = 0x42
        count = 0
        while board.clock.now() < 2 * NS_PER_S:
            deadline = board.clock.next_deadline()
            assert deadline is not None
            board.clock.set(deadline)
            count += bool(board[0x0C] & 0x40)
        assert count == 2048
        assert board.clock.now() == 2 * NS_PER_S

    def test_rs_0_has_no_periodic_interrupt(self, board: Board) -> None:
        board[0x0A] = 0x20
        board[0x0B] = 0x42
        board.acknowledge()
        board.seconds(10)
        assert not board[0x0C] & 0x40
        assert board.rises == []

    def test_pf_is_set_without_pie(self, board: Board) -> None:
        board.acknowledge()
        board.seconds(0.001)
        assert board[0x0C] == 0x40

    def test_a_late_guest_gets_one_interrupt_for_the_periods_it_missed(self, board: Board) -> None:
        board[0x0B] = 0x42
        board.seconds(1)
        assert len(board.rises) == 1
        board.acknowledge()
        assert board.clock.next_deadline() == NS_PER_S + -(-NS_PER_S // 1024)


class TestAlarm:
    def test_alarm_comes_when_the_time_becomes_equal(self, board: Board) -> None:
        board.alarm(0x22, 0x14, 0x00)
        board[0x0B] = 0x22
        board.seconds(100)
        assert board.rises == [40 * NS_PER_S]
        assert board[0x0C] & 0xA0 == 0xA0

    def test_alarm_at_the_present_second_is_tomorrow(self, board: Board) -> None:
        board.alarm(0x22, 0x13, 0x20)
        board[0x0B] = 0x22
        assert board.clock.next_deadline() == DAY * NS_PER_S

    @pytest.mark.parametrize(
        ("alarm", "first", "second"),
        [
            ((0xFF, 0xFF, 0xFF), 1, 2),
            ((0xC0, 0xFF, 0x19), 59, 119),
            ((0xFF, 0x00, 0x00), 46 * 60 + 40, 106 * 60 + 40),
            ((0xFF, 0x13, 0xFF), 1, 2),
            ((0x22, 0xFF, 0x20), 60, 120),
            ((0x06, 0xFF, 0xC5), 7 * 3600 + 46 * 60 + 40, 7 * 3600 + 46 * 60 + 41),
        ],
    )
    def test_dont_care_bytes_from_c0_match_any_value(
        self, board: Board, alarm: tuple[int, int, int], first: int, second: int
    ) -> None:
        board.alarm(*alarm)
        board[0x0B] = 0x22
        assert board.clock.next_deadline() == first * NS_PER_S
        board.clock.set(first * NS_PER_S)
        assert board[0x0C] & 0x20
        assert board.clock.next_deadline() == second * NS_PER_S

    def test_alarm_that_cannot_match_never_comes(self, board: Board) -> None:
        board.alarm(0x22, 0x75, 0x00)
        board[0x0B] = 0x22
        assert board.clock.next_deadline() is None
        board.seconds(2 * DAY)
        assert not board[0x0C] & 0x20

    def test_af_is_set_without_aie_even_if_nobody_looked_at_that_second(self, board: Board) -> None:
        board.alarm(0x22, 0x14, 0x00)
        board.acknowledge()
        board.seconds(39.9)
        assert not board[0x0C] & 0x20
        board.seconds(50)
        assert board[0x0C] & 0x20

    def test_alarm_in_12_hour_mode_compares_the_pm_bit(self, board: Board) -> None:
        board[0x0B] = 0x00
        board.set(0x11, 0x59, 0x58)
        board.alarm(0x92, 0x00, 0x00)
        board[0x0B] = 0x20
        assert board.clock.next_deadline() == 2 * NS_PER_S

    def test_moving_the_time_moves_the_interrupt(self, board: Board) -> None:
        board.alarm(0x22, 0x14, 0x00)
        board[0x0B] = 0x22
        board.set(0x22, 0x13, 0x50)
        assert board.clock.next_deadline() == 10 * NS_PER_S

    @settings(max_examples=40, deadline=None)
    @given(
        st.tuples(st.integers(0, 23), st.integers(0, 59), st.integers(0, 59)),
        st.tuples(*[st.one_of(st.just(0xC0), st.integers(0, high)) for high in (23, 59, 59)]),
    )
    def test_next_alarm_is_the_first_second_that_matches(
        self, start: tuple[int, int, int], alarm: tuple[int, int, int]
    ) -> None:
        board = Board(start[0] * 3600 + start[1] * 60 + start[2])
        board[0x0B] = 0x06
        board.set(*start)
        board.alarm(*alarm)
        board[0x0B] = 0x26
        begin = start[0] * 3600 + start[1] * 60 + start[2]
        want = next(
            step
            for step in range(1, DAY + 1)
            if all(
                rule >= 0xC0 or rule == part
                for rule, part in zip(alarm, _parts(begin + step), strict=True)
            )
        )  # fmt: skip
        assert board.clock.next_deadline() == want * NS_PER_S


def _parts(second: int) -> tuple[int, int, int]:
    return second // 3600 % 24, second // 60 % 60, second % 60


class TestRegisters:
    def test_values_at_power_on(self, board: Board) -> None:
        assert (board[0x0A], board[0x0B], board[0x0D]) == (0x26, 0x02, 0x80)

    def test_c_and_d_and_uip_are_read_only(self, board: Board) -> None:
        board[0x0C], board[0x0D], board[0x0A] = 0xFF, 0x00, 0xA6
        assert board[0x0C] == 0
        assert board[0x0D] == 0x80
        assert board[0x0A] == 0x26

    def test_ram_holds_what_is_written(self, board: Board) -> None:
        for index in [*range(0x0E, 0x32), *range(0x33, 0x80)]:
            board[index] = index ^ 0x5A
        assert all(board[index] == index ^ 0x5A for index in [*range(0x0E, 0x32), *range(0x33, 0x80)])

    def test_index_is_write_only_and_bit_7_is_the_nmi_mask(self, board: Board) -> None:
        board.space.write(0x70, 1, 0x0F)
        assert board.space.read(0x70, 1) == 0xFF
        assert not board.rtc.state.nmi_masked
        board.space.write(0x70, 1, 0x8F)
        assert board.rtc.state.nmi_masked
        assert board.rtc.state.index == 0x0F
        assert board.masks == [False, True]

    def test_extended_bank_is_other_memory_and_leaves_nmi_alone(self, board: Board) -> None:
        board.space.write(0x72, 1, 0x8F)
        board.space.write(0x73, 1, 0xA5)
        assert board[0x0F] == 0
        assert board.rtc.cmos[0x8F] == 0xA5
        assert board.masks == [False]

    def test_aliases_74_to_77_and_the_index_reads_back_at_74(self, board: Board) -> None:
        board[0x40] = 0x12
        board.space.write(0x74, 1, 0xC0)
        assert board.space.read(0x74, 1) == 0x40
        assert board.space.read(0x75, 1) == 0x12
        board.space.write(0x76, 1, 0x01)
        board.space.write(0x77, 1, 0x34)
        assert board.rtc.cmos[0x81] == 0x34

    def test_without_options_only_70_and_71(self) -> None:
        rtc = Rtc(VirtualClock(), IrqLine(), extended=False)
        assert [str(owned) for owned in rtc.ports] == ["0070-0071 : rtc0"]

    def test_initial_cmos_is_there_and_the_time_bytes_come_from_the_base_time(self) -> None:
        board = Board(cmos=bytes(range(128)))
        assert board[0x15] == 0x15
        assert board.time() == (0x22, 0x13, 0x20)

    def test_register_names_follow_the_index(self, board: Board) -> None:
        board.space.write(0x70, 1, 0x0B)
        assert board.rtc.register_name(1, 1, False) == "RTC register B"
        board.space.write(0x70, 1, 0x15)
        assert board.rtc.register_name(1, 1, True) == "RTC RAM 15h"


class TestLife:
    def test_reset_clears_enables_and_flags_and_keeps_time_and_ram(self, board: Board) -> None:
        board[0x40] = 0x77
        board[0x0B] = 0x7A
        board.seconds(3)
        assert board.irq.level == 1
        board.rtc.reset()
        assert board.irq.level == 0
        assert board[0x0B] == 0x02
        assert board[0x0C] == 0
        assert board[0x40] == 0x77
        assert board.time() == (0x22, 0x13, 0x23)

    def test_restore_re_arms_the_alarm(self, board: Board) -> None:
        board.alarm(0x22, 0x14, 0x00)
        board[0x0B] = 0x22
        saved = board.rtc.snapshot()
        board.rtc.reset()
        board.rtc.restore(saved)
        board.seconds(60)
        assert board.rises == [40 * NS_PER_S]

    def test_host_can_set_the_time(self, board: Board) -> None:
        board.seconds(12.25)
        board.rtc.set_time(0)
        board.seconds(1)
        assert board.rtc.time() == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)
