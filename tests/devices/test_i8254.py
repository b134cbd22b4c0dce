"""8254 against the rules of the Intel data sheet (231164), and against a model of it that counts every pulse."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.shared_bus import bus
from portvisor.devices.i8254 import FREQUENCY, MINIMUM_GAP, Pit, pulse_time, pulses
from portvisor.ports import NS_PER_S, Clock, IrqLine, VirtualClock
from portvisor.testing import DeviceSuite


class TestGeneric(DeviceSuite):
    def make(self) -> Pit:
        self.clock = VirtualClock()
        return Pit(self.clock, IrqLine(), alias=True)


class Bench:
    """A timer whose clock is moved pulse by pulse."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.irq0 = IrqLine()
        self.rises: list[int] = []
        self.pit = Pit(self.clock, self.irq0, alias=True)
        self.irq0.watch(lambda level: self.rises.append(pulses(self.clock.now())) if level else None)
        self.space = bus(self.pit)
        self.pulse = 0

    def step(self, count: int = 1) -> None:
        self.pulse += count
        self.clock.set(pulse_time(self.pulse))

    def control(self, counter: int, mode: int, rw: int = 3, bcd: int = 0) -> None:
        self.space.write(0x43, 1, counter << 6 | rw << 4 | mode << 1 | bcd)

    def count(self, counter: int, value: int) -> None:
        self.space.write(0x40 + counter, 1, value & 0xFF)
        self.space.write(0x40 + counter, 1, value >> 8)

    def start(self, counter: int, mode: int, count: int, bcd: int = 0) -> None:
        self.control(counter, mode, bcd=bcd)
        self.count(counter, count)

    def read(self, counter: int) -> int:
        low = self.space.read(0x40 + counter, 1)
        return low | self.space.read(0x40 + counter, 1) << 8

    def out(self, counter: int) -> int:
        return self.pit.output(counter)

    def trace(self, counter: int, steps: int) -> list[tuple[int, int]]:
        """(count, OUT) after each of the next pulses."""
        result = []
        for _ in range(steps):
            self.step()
            result.append((self.read(counter), self.out(counter)))
        return result

    def outs(self, counter: int, steps: int) -> str:
        return "".join(str(out) for _, out in self.trace(counter, steps))


@pytest.fixture
def bench() -> Bench:
    return Bench()


class TestTime:
    def test_a_second_has_1193182_pulses(self) -> None:
        assert pulses(NS_PER_S) == FREQUENCY == 1_193_182
        assert pulses(NS_PER_S - 1) == FREQUENCY - 1

    @given(st.integers(0, 10**16))
    def test_pulse_time_is_the_first_nanosecond_of_a_pulse(self, pulse: int) -> None:
        assert pulses(pulse_time(pulse)) == pulse
        assert pulse == 0 or pulses(pulse_time(pulse) - 1) == pulse - 1

    def test_count_is_the_elapsed_pulses_and_does_not_drift(self, bench: Bench) -> None:
        bench.start(0, 2, 0)
        bench.clock.set(3600 * NS_PER_S)
        loaded = 1
        assert bench.read(0) == 0x10000 - (pulses(3600 * NS_PER_S) - loaded) % 0x10000


class TestMode0:
    """Interrupt on terminal count."""

    def test_out_falls_with_the_control_word_without_a_pulse(self, bench: Bench) -> None:
        assert bench.out(2) == 1
        bench.control(2, 0)
        assert bench.out(2) == 0

    def test_out_rises_n_plus_1_pulses_after_the_write(self, bench: Bench) -> None:
        bench.start(2, 0, 4)
        assert bench.trace(2, 7) == [(4, 0), (3, 0), (2, 0), (1, 0), (0, 1), (0xFFFF, 1), (0xFFFE, 1)]

    def test_count_0_is_65536(self, bench: Bench) -> None:
        bench.start(2, 0, 0)
        bench.step(65536)
        assert (bench.read(2), bench.out(2)) == (1, 0)
        bench.step()
        assert (bench.read(2), bench.out(2)) == (0, 1)

    def test_gate_low_pauses_and_leaves_out_alone(self, bench: Bench) -> None:
        bench.start(2, 0, 4)
        bench.step(2)
        bench.pit.set_gate(2, 0)
        assert bench.trace(2, 3) == [(3, 0)] * 3
        bench.pit.set_gate(2, 1)
        assert bench.trace(2, 3) == [(2, 0), (1, 0), (0, 1)]

    def test_count_written_with_gate_low_is_loaded_and_takes_n_pulses_from_the_gate(self, bench: Bench) -> None:
        bench.pit.set_gate(2, 0)
        bench.start(2, 0, 4)
        assert bench.trace(2, 2) == [(4, 0), (4, 0)]
        bench.pit.set_gate(2, 1)
        assert bench.trace(2, 4) == [(3, 0), (2, 0), (1, 0), (0, 1)]

    def test_new_count_is_loaded_on_the_next_pulse_and_out_falls(self, bench: Bench) -> None:
        bench.start(2, 0, 2)
        bench.step(5)
        bench.count(2, 3)
        assert bench.out(2) == 0
        assert bench.trace(2, 4) == [(3, 0), (2, 0), (1, 0), (0, 1)]

    def test_first_of_two_bytes_stops_the_count_and_out_falls(self, bench: Bench) -> None:
        bench.start(2, 0, 2)
        bench.step(3)
        assert bench.out(2) == 1
        bench.space.write(0x42, 1, 3)
        assert bench.out(2) == 0
        assert bench.trace(2, 2) == [(0, 0), (0, 0)]
        bench.space.write(0x42, 1, 0)
        assert bench.trace(2, 4) == [(3, 0), (2, 0), (1, 0), (0, 1)]

    def test_gate_does_not_restart_a_count_stopped_by_the_first_byte(self, bench: Bench) -> None:
        bench.start(2, 0, 9)
        bench.step(3)
        bench.space.write(0x42, 1, 3)
        bench.pit.set_gate(2, 0)
        bench.pit.set_gate(2, 1)
        assert bench.trace(2, 2) == [(7, 0), (7, 0)]


class TestMode1:
    """Hardware retriggerable one-shot."""

    def test_out_falls_on_the_pulse_after_the_trigger_for_n_pulses(self, bench: Bench) -> None:
        bench.pit.set_gate(2, 0)
        bench.start(2, 1, 3)
        bench.step(2)
        assert bench.out(2) == 1
        bench.pit.set_gate(2, 1)
        assert bench.out(2) == 1
        assert bench.trace(2, 5) == [(3, 0), (2, 0), (1, 0), (0, 1), (0xFFFF, 1)]

    def test_gate_low_does_not_stop_the_pulse_and_a_new_trigger_extends_it(self, bench: Bench) -> None:
        bench.pit.set_gate(2, 0)
        bench.start(2, 1, 3)
        bench.pit.set_gate(2, 1)
        bench.step(2)
        bench.pit.set_gate(2, 0)
        bench.pit.set_gate(2, 1)
        assert bench.outs(2, 5) == "00011"

    def test_new_count_waits_for_the_next_trigger(self, bench: Bench) -> None:
        bench.pit.set_gate(2, 0)
        bench.start(2, 1, 2)
        bench.pit.set_gate(2, 1)
        bench.step()
        bench.count(2, 4)
        assert bench.outs(2, 3) == "011"
        bench.pit.set_gate(2, 0)
        bench.pit.set_gate(2, 1)
        assert bench.outs(2, 5) == "00001"

    def test_trigger_before_a_count_was_written_does_nothing(self, bench: Bench) -> None:
        bench.pit.set_gate(2, 0)
        bench.control(2, 1)
        bench.pit.set_gate(2, 1)
        assert bench.outs(2, 3) == "111"


class TestMode2:
    """Rate generator."""

    def test_out_is_low_for_one_pulse_when_the_count_is_1(self, bench: Bench) -> None:
        bench.start(2, 2, 3)
        assert bench.out(2) == 1
        assert bench.trace(2, 7) == [(3, 1), (2, 1), (1, 0), (3, 1), (2, 1), (1, 0), (3, 1)]

    def test_gate_low_raises_out_at_once_and_its_rise_reloads(self, bench: Bench) -> None:
        bench.start(2, 2, 3)
        bench.step(3)
        assert bench.out(2) == 0
        bench.pit.set_gate(2, 0)
        assert bench.out(2) == 1
        assert bench.trace(2, 2) == [(1, 1), (1, 1)]
        bench.pit.set_gate(2, 1)
        assert bench.trace(2, 4) == [(3, 1), (2, 1), (1, 0), (3, 1)]

    def test_new_count_takes_effect_at_the_end_of_the_period(self, bench: Bench) -> None:
        bench.start(2, 2, 4)
        bench.step(2)
        bench.count(2, 2)
        assert bench.trace(2, 6) == [(2, 1), (1, 0), (2, 1), (1, 0), (2, 1), (1, 0)]

    def test_trigger_takes_the_new_count_at_once(self, bench: Bench) -> None:
        bench.start(2, 2, 9)
        bench.step(2)
        bench.count(2, 3)
        bench.pit.set_gate(2, 0)
        bench.pit.set_gate(2, 1)
        assert bench.trace(2, 3) == [(3, 1), (2, 1), (1, 0)]

    def test_first_byte_of_a_new_count_changes_nothing(self, bench: Bench) -> None:
        bench.start(2, 2, 3)
        bench.step()
        bench.space.write(0x42, 1, 9)
        assert bench.trace(2, 4) == [(2, 1), (1, 0), (3, 1), (2, 1)]

    def test_forbidden_count_of_1_holds_out_high(self, bench: Bench) -> None:
        bench.start(2, 2, 1)
        assert bench.outs(2, 4) == "1111"


class TestMode3:
    """Square wave."""

    def test_even_count_halves_and_counts_by_two(self, bench: Bench) -> None:
        bench.start(2, 3, 4)
        assert bench.trace(2, 9) == [
            (4, 1), (2, 1), (4, 0), (2, 0), (4, 1), (2, 1), (4, 0), (2, 0), (4, 1),
        ]  # fmt: skip

    def test_odd_count_is_high_for_one_pulse_more(self, bench: Bench) -> None:
        bench.start(2, 3, 5)
        assert bench.trace(2, 10) == [
            (4, 1), (2, 1), (0, 1), (4, 0), (2, 0), (4, 1), (2, 1), (0, 1), (4, 0), (2, 0),
        ]  # fmt: skip

    def test_new_count_takes_effect_at_the_end_of_the_half_cycle(self, bench: Bench) -> None:
        bench.start(2, 3, 8)
        bench.step(2)
        bench.count(2, 4)
        assert bench.outs(2, 8) == "11001100"

    def test_gate_low_raises_out_and_its_rise_begins_a_high_half(self, bench: Bench) -> None:
        bench.start(2, 3, 4)
        bench.step(3)
        assert bench.out(2) == 0
        bench.pit.set_gate(2, 0)
        assert bench.out(2) == 1
        bench.step(5)
        bench.pit.set_gate(2, 1)
        assert bench.outs(2, 6) == "110011"

    def test_mode_bits_6_and_7_are_modes_2_and_3(self, bench: Bench) -> None:
        bench.start(2, 6, 3)
        assert bench.outs(2, 4) == "1101"
        bench.start(2, 7, 4)
        assert bench.outs(2, 4) == "1100"


class TestMode4:
    """Software triggered strobe."""

    def test_strobe_comes_n_plus_1_pulses_after_the_write_for_one_pulse_once(self, bench: Bench) -> None:
        bench.start(2, 4, 3)
        assert bench.out(2) == 1
        assert bench.trace(2, 6) == [(3, 1), (2, 1), (1, 1), (0, 0), (0xFFFF, 1), (0xFFFE, 1)]
        bench.step(0x10000 - 2)
        assert (bench.read(2), bench.out(2)) == (0, 1), "the wrap is no strobe"

    def test_gate_low_pauses(self, bench: Bench) -> None:
        bench.start(2, 4, 2)
        bench.step()
        bench.pit.set_gate(2, 0)
        assert bench.outs(2, 3) == "111"
        bench.pit.set_gate(2, 1)
        assert bench.outs(2, 3) == "101"

    def test_gate_has_no_effect_on_a_strobe_that_has_begun(self, bench: Bench) -> None:
        bench.start(2, 4, 2)
        bench.step(3)
        bench.pit.set_gate(2, 0)
        assert bench.out(2) == 0
        bench.step()
        assert bench.out(2) == 1
        bench.pit.set_gate(2, 1)
        assert bench.outs(2, 3) == "111"

    def test_new_count_in_the_strobe_does_not_cut_it_short(self, bench: Bench) -> None:
        bench.start(2, 4, 1)
        bench.step(2)
        bench.count(2, 2)
        assert bench.out(2) == 0
        assert bench.outs(2, 4) == "1101"

    def test_new_count_retriggers_and_its_first_byte_does_not(self, bench: Bench) -> None:
        bench.start(2, 4, 3)
        bench.step(2)
        bench.space.write(0x42, 1, 2)
        assert bench.trace(2, 1) == [(1, 1)]
        bench.space.write(0x42, 1, 0)
        assert bench.trace(2, 4) == [(2, 1), (1, 1), (0, 0), (0xFFFF, 1)]


class TestMode5:
    """Hardware triggered strobe."""

    def test_strobe_comes_n_plus_1_pulses_after_the_trigger(self, bench: Bench) -> None:
        bench.pit.set_gate(2, 0)
        bench.start(2, 5, 3)
        assert bench.outs(2, 6) == "111111"
        bench.pit.set_gate(2, 1)
        assert bench.outs(2, 5) == "11101"

    def test_retrigger_starts_over(self, bench: Bench) -> None:
        bench.pit.set_gate(2, 0)
        bench.start(2, 5, 3)
        bench.pit.set_gate(2, 1)
        bench.step(3)
        bench.pit.set_gate(2, 0)
        bench.pit.set_gate(2, 1)
        assert bench.outs(2, 5) == "11101"


class TestBcd:
    def test_counts_in_four_decades(self, bench: Bench) -> None:
        bench.start(2, 0, 0x1000, bcd=1)
        bench.step(2)
        assert bench.read(2) == 0x0999
        bench.step(999)
        assert (bench.read(2), bench.out(2)) == (0, 1)
        bench.step()
        assert bench.read(2) == 0x9999

    def test_count_0_is_10000(self, bench: Bench) -> None:
        bench.start(2, 2, 0, bcd=1)
        bench.step(2)
        assert bench.read(2) == 0x9999
        bench.step(9998)
        assert (bench.read(2), bench.out(2)) == (1, 0)


class TestReadWriteFormats:
    def test_lsb_only_writes_the_low_byte_and_clears_the_high(self, bench: Bench) -> None:
        bench.control(2, 0, rw=1)
        bench.space.write(0x42, 1, 0x34)
        bench.step()
        assert [bench.space.read(0x42, 1) for _ in range(2)] == [0x34, 0x34]
        assert bench.pit.counters[2].count(bench.pulse) == 0x0034

    def test_msb_only_writes_the_high_byte_and_clears_the_low(self, bench: Bench) -> None:
        bench.control(2, 0, rw=2)
        bench.space.write(0x42, 1, 0x12)
        bench.step()
        assert [bench.space.read(0x42, 1) for _ in range(2)] == [0x12, 0x12]
        assert bench.pit.counters[2].count(bench.pulse) == 0x1200

    def test_reads_of_the_control_port_float(self, bench: Bench) -> None:
        assert bench.space.read(0x43, 1) == 0xFF

    def test_50_to_53_are_the_same_chip(self, bench: Bench) -> None:
        bench.space.write(0x53, 1, 0xB0)
        bench.space.write(0x52, 1, 0x34)
        bench.space.write(0x42, 1, 0x12)
        bench.step()
        assert bench.space.read(0x52, 1) == 0x34
        assert bench.space.read(0x42, 1) == 0x12


class TestLatch:
    def test_latched_count_holds_until_it_is_read(self, bench: Bench) -> None:
        bench.start(2, 0, 0x1234)
        bench.step()
        bench.space.write(0x43, 1, 0x80)
        bench.step(10)
        assert bench.read(2) == 0x1234
        assert bench.read(2) == 0x122A

    def test_a_second_latch_before_the_read_is_ignored(self, bench: Bench) -> None:
        bench.start(2, 0, 100)
        bench.step()
        bench.space.write(0x43, 1, 0x80)
        bench.step()
        bench.space.write(0x43, 1, 0x80)
        assert bench.read(2) == 100

    def test_a_control_word_drops_the_latch(self, bench: Bench) -> None:
        bench.start(2, 0, 100)
        bench.step()
        bench.space.write(0x43, 1, 0x80)
        bench.start(2, 0, 50)
        bench.step()
        assert bench.read(2) == 50


class TestReadBack:
    def test_latches_the_count_of_several_counters(self, bench: Bench) -> None:
        bench.start(0, 2, 100)
        bench.start(2, 2, 200)
        bench.step()
        bench.space.write(0x43, 1, 0xC0 | 0x10 | 0x0A)
        bench.step(5)
        assert (bench.read(0), bench.read(2)) == (100, 200)

    def test_status_has_out_null_count_and_the_programming(self, bench: Bench) -> None:
        bench.start(2, 3, 4)
        bench.space.write(0x43, 1, 0xE8)
        assert bench.space.read(0x42, 1) == 0x80 | 0x40 | 0x36, "null count until the pulse that loads"
        bench.step()
        bench.space.write(0x43, 1, 0xE8)
        assert bench.space.read(0x42, 1) == 0x80 | 0x36
        bench.step(2)
        bench.space.write(0x43, 1, 0xE8)
        assert bench.space.read(0x42, 1) == 0x36

    def test_status_of_bcd_lsb_only(self, bench: Bench) -> None:
        bench.control(2, 4, rw=1, bcd=1)
        bench.space.write(0x43, 1, 0xE8)
        assert bench.space.read(0x42, 1) == 0x80 | 0x40 | 0x19

    @pytest.mark.parametrize("mode", range(8))
    def test_status_has_the_mode_as_written(self, bench: Bench, mode: int) -> None:
        """Status byte: D5-D0 are the programmed mode exactly as written in the last control word."""
        bench.control(2, mode)
        bench.space.write(0x43, 1, 0xE8)
        assert bench.space.read(0x42, 1) >> 1 & 7 == mode

    def test_null_count_of_a_new_count_lasts_until_it_is_loaded(self, bench: Bench) -> None:
        bench.start(2, 2, 4)
        bench.step(2)
        bench.count(2, 6)
        statuses = []
        for _ in range(4):
            bench.space.write(0x43, 1, 0xE8)
            statuses.append(bench.space.read(0x42, 1) >> 6 & 1)
            bench.step()
        assert statuses == [1, 1, 1, 0]

    def test_status_is_read_before_the_count(self, bench: Bench) -> None:
        bench.start(2, 2, 0x1234)
        bench.step()
        bench.space.write(0x43, 1, 0xC8)
        assert [bench.space.read(0x42, 1) for _ in range(3)] == [0xB4, 0x34, 0x12]

    def test_latched_status_holds_until_it_is_read(self, bench: Bench) -> None:
        bench.start(2, 2, 4)
        bench.space.write(0x43, 1, 0xE8)
        bench.step(3)
        bench.space.write(0x43, 1, 0xE8)
        assert bench.space.read(0x42, 1) == 0x80 | 0x40 | 0x34


class TestIrq0:
    def test_mode_2_interrupts_at_each_period(self, bench: Bench) -> None:
        bench.start(0, 2, 1000)
        bench.step(5000)
        assert bench.rises == [1001, 2001, 3001, 4001]

    def test_programming_mode_2_is_no_interrupt(self, bench: Bench) -> None:
        bench.start(0, 2, 1000)
        bench.step(10)
        bench.control(0, 2)
        assert bench.rises == []

    def test_mode_2_does_not_drift_in_a_minute(self, bench: Bench) -> None:
        bench.start(0, 2, 11932)
        bench.clock.set(60 * NS_PER_S)
        assert len(bench.rises) == (pulses(60 * NS_PER_S) - 1) // 11932
        assert bench.rises[-1] == 1 + len(bench.rises) * 11932

    def test_mode_3_drives_the_square_wave(self, bench: Bench) -> None:
        bench.start(0, 3, 1001)
        bench.step(1 + 501)
        assert bench.irq0.level == 0
        bench.step(499)
        assert bench.irq0.level == 0
        bench.step(1)
        assert bench.irq0.level == 1
        assert bench.rises == [1002]

    def test_mode_0_interrupts_once(self, bench: Bench) -> None:
        bench.start(0, 0, 100)
        assert bench.irq0.level == 0
        bench.step(100)
        assert bench.rises == []
        bench.step(1)
        assert bench.rises == [101]
        bench.step(200_000)
        assert bench.rises == [101]

    def test_mode_0_new_count_is_a_new_interrupt(self, bench: Bench) -> None:
        bench.start(0, 0, 100)
        bench.step(150)
        bench.count(0, 50)
        assert bench.irq0.level == 0
        bench.step(100)
        assert bench.rises == [101, 201]

    def test_mode_4_interrupts_at_the_end_of_the_strobe(self, bench: Bench) -> None:
        bench.start(0, 4, 100)
        bench.step(300)
        assert bench.rises == [102]

    def test_mode_2_new_count_changes_the_next_period(self, bench: Bench) -> None:
        bench.start(0, 2, 1000)
        bench.step(500)
        bench.count(0, 100)
        bench.step(800)
        assert bench.rises == [1001, 1101, 1201]

    def test_leaving_mode_0_raises_out_as_the_control_word_says(self, bench: Bench) -> None:
        bench.control(0, 0)
        assert bench.irq0.level == 0
        bench.control(0, 4)
        assert bench.irq0.level == 1

    def test_modes_1_and_5_never_interrupt_because_gate_0_is_tied_high(self, bench: Bench) -> None:
        for mode in (1, 5):
            bench.start(0, mode, 10)
            bench.step(100)
        assert bench.rises == []
        assert bench.clock.next_deadline() is None


class LateClock(Clock):
    """A wall clock that a slow host serves late: time passes with every look."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0
        self.cost = 1000

    def now(self) -> int:
        self.time += self.cost
        return self.time


class TestLateness:
    def test_missed_periods_become_one_interrupt_and_the_phase_is_kept(self) -> None:
        clock = LateClock()
        clock.cost = 0
        irq0 = IrqLine()
        rises: list[int] = []
        pit = Pit(clock, irq0)
        irq0.watch(lambda level: rises.append(clock.time) if level else None)
        pit.write(3, 1, 0x34)
        pit.write(0, 1, 0xA9)
        pit.write(0, 1, 0x04)
        period = 0x4A9
        clock.time = pulse_time(1 + 5 * period + period // 2)
        clock.run_due()
        assert len(rises) == 1
        assert clock.next_deadline() == pulse_time(1 + 6 * period)

    def test_mode_3_missed_half_cycles_still_make_one_edge(self) -> None:
        clock = LateClock()
        clock.cost = 0
        irq0 = IrqLine()
        rises: list[int] = []
        pit = Pit(clock, irq0)
        irq0.watch(lambda level: rises.append(clock.time) if level else None)
        pit.write(3, 1, 0x36)
        pit.write(0, 1, 0x00)
        pit.write(0, 1, 0x10)
        for _ in range(4):
            clock.time += pulse_time(0x1000 * 3)
            before = len(rises)
            clock.run_due()
            assert len(rises) == before + 1

    def test_a_guest_that_asks_for_600_000_interrupts_cannot_hold_the_host(self) -> None:
        clock = LateClock()
        pit = Pit(clock, IrqLine())
        pit.write(3, 1, 0x34)
        pit.write(0, 1, 2)
        pit.write(0, 1, 0)
        clock.time += NS_PER_S
        clock.run_due()
        deadline = clock.next_deadline()
        assert deadline is not None
        assert deadline - clock.time > pulse_time(MINIMUM_GAP) // 2

    def test_an_edge_that_is_overdue_comes_before_the_write_that_ends_it(self) -> None:
        clock = LateClock()
        clock.cost = 0
        irq0 = IrqLine()
        rises: list[int] = []
        pit = Pit(clock, irq0)
        irq0.watch(lambda level: rises.append(clock.time) if level else None)
        pit.write(3, 1, 0x30)
        pit.write(0, 1, 100)
        pit.write(0, 1, 0)
        clock.time = pulse_time(500)
        pit.write(0, 1, 100)
        assert len(rises) == 1


class TestLife:
    def test_before_the_first_control_word_nothing_counts(self, bench: Bench) -> None:
        bench.step(1000)
        assert bench.clock.next_deadline() is None
        assert bench.irq0.level == 1

    def test_reset_stops_the_interrupt_and_keeps_the_gates(self, bench: Bench) -> None:
        bench.pit.set_gate(2, 0)
        bench.start(0, 2, 100)
        bench.pit.reset()
        bench.step(1000)
        assert bench.rises == []
        bench.start(2, 0, 1)
        assert bench.outs(2, 4) == "0000", "GATE 2 is still low"

    def test_restore_re_arms_the_interrupt_at_its_time(self, bench: Bench) -> None:
        bench.start(0, 2, 1000)
        bench.step(1500)
        saved, now = bench.pit.snapshot(), bench.clock.now()
        bench.pit.reset()
        bench.rises.clear()
        bench.clock.rewind(now)
        bench.pit.restore(saved)
        bench.step(1000)
        assert bench.rises == [2001]


class PulseModel:
    """A counter written from the data sheet's mode descriptions, one CLK pulse at a time."""

    def __init__(self) -> None:
        self.mode = 2
        self.modulus = 0x10000
        self.gate = 1
        self.out = 1
        self.register: int | None = None
        self.low: int | None = None
        self.null = True
        self.load = False
        self.running = False
        self.armed = False
        self.element = 0
        self.reload = 0
        self.strobe = False
        self.loaded = False

    def control(self, mode: int, bcd: int) -> None:
        self.mode = mode
        self.modulus = 10_000 if bcd else 0x10000
        self.out = 0 if mode == 0 else 1
        self.register = self.low = None
        self.null = True
        self.load = self.running = self.armed = self.strobe = self.loaded = False

    def byte(self, value: int) -> None:
        if self.low is None:
            self.low = value
            if self.mode == 0:
                self.running = self.load = False
                self.out = 0
            return
        raw, self.low = self.low | value << 8, None
        if self.modulus == 10_000:
            raw = int(f"{raw:04x}")
        first = self.register is None
        self.register = raw or self.modulus
        self.null = True
        if self.mode in (0, 4) or (self.mode in (2, 3) and first):
            self.load = True
            self.running = False
            self.out &= self.mode != 0

    def set_gate(self, level: int) -> None:
        rising, self.gate = level > self.gate, level
        if self.mode in (2, 3) and not level:
            self.out = 1
            self.running = False
        if rising and self.mode in (1, 2, 3, 5) and self.register is not None:
            self.load = True

    def pulse(self) -> None:
        if self.strobe:
            self.strobe = False
            self.out = 1
        if self.load:
            self._take_count()
            return
        if not self.running or (self.mode in (0, 4) and not self.gate):
            return
        if self.mode == 2:
            self._rate_generator()
        elif self.mode == 3:
            self._square_wave()
        else:
            self._count_down()

    def _take_count(self) -> None:
        assert self.register is not None
        self.load = False
        self.null = False
        self.loaded = True
        self.reload = self.register
        self.element = self.reload & ~1 if self.mode == 3 else self.reload
        self.armed = True
        self.running = bool(self.gate) or self.mode not in (2, 3)
        if self.mode == 1:
            self.out = 0
        elif self.mode in (2, 3):
            self.out = 1

    def _count_down(self) -> None:
        self.element = (self.element - 1) % self.modulus
        if self.element == 0 and self.armed:
            self.armed = False
            if self.mode in (0, 1):
                self.out = 1
            else:
                self.out = 0
                self.strobe = True

    def _rate_generator(self) -> None:
        if self.element == 1:
            self._again()
            self.out = 1
            return
        self.element -= 1
        self.out = 0 if self.element == 1 else 1

    def _square_wave(self) -> None:
        if self.element == 0:
            self.out ^= 1
            self._again()
            return
        self.element -= 2
        if self.element == 0 and not (self.reload & 1 and self.out):
            self.out ^= 1
            self._again()

    def _again(self) -> None:
        assert self.register is not None
        self.reload = self.register
        self.null = False
        self.element = self.reload & ~1 if self.mode == 3 else self.reload

    def count(self) -> int:
        value = self.element % self.modulus
        return int(str(value), 16) if self.modulus == 10_000 else value


OPERATIONS = st.one_of(
    st.tuples(st.just("control"), st.integers(0, 5), st.integers(0, 1)),
    st.tuples(st.just("count"), st.integers(2, 9), st.just(0)),
    st.tuples(st.just("first byte"), st.integers(2, 9), st.just(0)),
    st.tuples(st.just("gate"), st.integers(0, 1), st.just(0)),
    st.tuples(st.just("step"), st.integers(1, 12), st.just(0)),
)


class TestAgainstThePulseModel:
    @settings(max_examples=400, deadline=None)
    @given(st.lists(OPERATIONS, max_size=30))
    def test_out_count_and_null_count_agree_at_every_pulse(self, operations: list[tuple[str, int, int]]) -> None:
        bench, model = Bench(), PulseModel()
        bench.control(2, 0)
        model.control(0, 0)
        for kind, value, extra in operations:
            if kind == "control":
                bench.control(2, value, bcd=extra)
                model.control(value, extra)
            elif kind == "gate":
                bench.pit.set_gate(2, value)
                model.set_gate(value)
            elif kind == "step":
                for _ in range(value):
                    bench.step()
                    model.pulse()
                    self._compare(bench, model)
            else:
                for byte in (value, 0)[: 2 if kind == "count" else 1]:
                    bench.space.write(0x42, 1, byte)
                    model.byte(byte)
            self._compare(bench, model)

    @staticmethod
    def _compare(bench: Bench, model: PulseModel) -> None:
        assert bench.out(2) == model.out
        assert bench.pit.state.counters[2].null_count == model.null
        if model.loaded:
            assert bench.read(2) == model.count()

    @settings(max_examples=60, deadline=None)
    @given(st.integers(0, 5), st.integers(2, 60), st.lists(st.integers(1, 300), max_size=8))
    def test_looking_rarely_gives_the_same_as_looking_often(self, mode: int, count: int, jumps: list[int]) -> None:
        bench, model = Bench(), PulseModel()
        bench.start(0, mode, count)
        model.control(mode, 0)
        model.byte(count)
        model.byte(0)
        for jump in jumps:
            bench.step(jump)
            for _ in range(jump):
                model.pulse()
            assert bench.out(0) == model.out

    @settings(max_examples=60, deadline=None)
    @given(st.sampled_from([0, 2, 3, 4]), st.lists(st.tuples(st.integers(2, 40), st.integers(0, 90)), max_size=6))
    def test_irq0_has_exactly_the_rising_edges_of_out(self, mode: int, plan: list[tuple[int, int]]) -> None:
        bench, model = Bench(), PulseModel()
        bench.control(0, mode)
        model.control(mode, 0)
        rises: list[int] = []
        before = model.out
        for count, steps in plan:
            bench.count(0, count)
            model.byte(count)
            model.byte(0)
            before = model.out
            for _ in range(steps):
                bench.step()
                model.pulse()
                if model.out > before:
                    rises.append(bench.pulse)
                before = model.out
        assert bench.rises == rises
