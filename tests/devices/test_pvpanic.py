"""The convention of QEMU's pvpanic."""

from __future__ import annotations

import pytest

from devices.shared_bus import bus
from portvisor.devices.pvpanic import CRASH_LOADED, PANICKED, PvPanic
from portvisor.testing import DeviceSuite


class TestSuite(DeviceSuite):
    def make(self) -> PvPanic:
        return PvPanic(lambda event: None)


def test_a_read_says_which_events_are_understood() -> None:
    assert bus(PvPanic(lambda event: None)).read(0x505, 1) == PANICKED | CRASH_LOADED
    assert bus(PvPanic(lambda event: None, base=0x600, events=PANICKED)).read(0x600, 1) == PANICKED


@pytest.mark.parametrize(
    ("value", "told"), [(1, [PANICKED]), (2, [CRASH_LOADED]), (3, [PANICKED]), (0, []), (0xFC, [])]
)
def test_a_write_tells_one_event(value: int, told: list[int]) -> None:
    events: list[int] = []
    bus(PvPanic(events.append)).write(0x505, 1, value)
    assert events == told


def test_an_event_that_is_not_offered_is_ignored() -> None:
    events: list[int] = []
    bus(PvPanic(events.append, events=PANICKED)).write(0x505, 1, CRASH_LOADED)
    assert events == []
