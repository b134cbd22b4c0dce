"""Numbers and curves in few characters, and which lines a filter passes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_support import snapshot_at
from portvisor.live import words
from portvisor.live.rates import HISTORY, Rates


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (words.rate, 0, "·"), (words.rate, 0.25, "0.2"), (words.rate, 9.94, "9.9"), (words.rate, 9.96, "10"),
        (words.rate, 12_345.4, "12,345"), (words.rate, 999_999.4, "999,999"), (words.rate, 1_234_567, "1.23M"),
        (words.volume, 0, "·"), (words.volume, 0.2, "1"), (words.volume, 999.4, "999"),
        (words.volume, 999.6, "1.0k"),
        (words.volume, 25_600, "25.6k"), (words.volume, 256_000, "256k"), (words.volume, 3.2e6, "3.2M"),
        (words.volume, 5e13, "50T"),
        (words.percent, 0, "·"), (words.percent, 0.0004, "<0.1%"), (words.percent, 0.123, "12.3%"),
        (words.percent, 0.9996, "100%"), (words.percent, 1, "100%"),
        (words.duration, 0, "·"), (words.duration, 310, "310ns"), (words.duration, 999.6, "1.0µs"),
        (words.duration, 45_600, "45.6µs"), (words.duration, 4.5e6, "4.5ms"), (words.duration, 2e9, "2.0s"),
        (words.clock, 7_900_000_000, "0:07"), (words.clock, 3_723_000_000_000, "1:02:03"),
    ],
)  # fmt: skip
def test_numbers(function: object, value: float, text: str) -> None:
    assert callable(function)
    assert function(value) == text


def test_the_newest_value_is_at_the_right_and_none_is_lost() -> None:
    assert words.curve([0, 1, 1000], 5) == ["   ▁▇"]
    assert words.curve([5, 0], 1) == [" "]
    assert words.curve([1, 2], 2, 2) == [" ▇", "██"]
    assert words.curve([], 3) == ["   "]
    assert words.curve([1], 0) == [""]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 1e12), max_size=200), st.integers(-3, 150), st.integers(1, 6))
def test_curves_fit_their_place(values: list[float], width: int, height: int) -> None:
    rows = words.curve(values, width, height)
    assert [len(row) for row in rows] == [max(0, width)] * height


@settings(max_examples=100, deadline=None)
@given(st.floats(-1, 5), st.integers(1, 40))
def test_bars_fit_their_place(share: float, width: int) -> None:
    assert len(words.bar(share, width)) == width
    assert (words.bar(share, width).strip() != "") == (share > 0)


def test_rates_are_differences_over_the_hosts_time() -> None:
    rates = Rates()
    assert not rates.feed(snapshot_at(1)).measured
    view = rates.feed(snapshot_at(3))
    com = next(line for line in view.ports if line.key == 0x3F8)
    assert (com.reads, com.writes, com.volume, com.total) == (0, 9000, 9000, 27_000)
    assert com.load == pytest.approx(0.009)
    assert com.mean_ns == pytest.approx(1000)
    assert sum(line.share for line in view.ports) == pytest.approx(1)
    assert sum(line.share for line in view.devices) == pytest.approx(1)
    assert view.interrupts == {"IRQ0": 18}
    assert view.whole.rate == pytest.approx(sum(line.rate for line in view.ports))


def test_a_snapshot_of_the_same_moment_gives_no_rates() -> None:
    rates = Rates()
    rates.feed(snapshot_at(1))
    assert not rates.feed(snapshot_at(1)).measured


def test_sums_that_shrink_are_no_negative_rates() -> None:
    rates = Rates()
    rates.feed(snapshot_at(5))
    smaller = snapshot_at(1)
    view = rates.feed(type(smaller)(10**11, 0, 0, smaller.ports_used, smaller.devices, smaller.ports))
    assert all(line.rate == 0 for line in view.ports)


def test_ports_that_were_cut_off_before_have_no_rate_at_first() -> None:
    rates = Rates()
    first, second = snapshot_at(1), snapshot_at(2)
    missing = first.ports.pop(0)
    rates.feed(first)
    line = next(line for line in rates.feed(second).ports if line.key == missing.port)
    assert line.rate == 0


def test_a_curve_has_an_end() -> None:
    rates = Rates()
    for second in range(1, HISTORY + 50):
        rates.feed(snapshot_at(second))
    assert {len(line.history) for line in rates.view.ports} == {HISTORY}
