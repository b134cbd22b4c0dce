"""Port 92 against the PCH data sheet, "PORT92 - INIT Register"."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from devices.shared_bus import bus
from portvisor.devices.port92 import ALT_A20_GATE, INIT_NOW, Port92
from portvisor.ports import PortSpace
from portvisor.testing import DeviceSuite


class TestPort92Suite(DeviceSuite):
    def make(self) -> Port92:
        return Port92(lambda: None, lambda gate: None)


class Board:
    """The chip with both of its wires in the test's hands."""

    def __init__(self) -> None:
        self.resets = 0
        self.gates: list[bool] = []
        self.chip = Port92(self._reset, self.gates.append)
        self.space: PortSpace = bus(self.chip)

    def _reset(self) -> None:
        self.resets += 1

    def write(self, *values: int) -> None:
        for value in values:
            self.space.write(0x92, 1, value)


def test_init_now_resets_on_its_rising_edge_only() -> None:
    """INIT_NOW: the transition from 0 to 1 resets the CPU."""
    board = Board()
    board.write(1, 1, 0, 3, 2)
    assert board.resets == 2


def test_alt_a20_gate_is_told_and_closed_by_a_reset() -> None:
    """ALT_A20_GATE: default 0."""
    board = Board()
    board.write(ALT_A20_GATE)
    board.chip.reset()
    assert board.gates == [True, False]


@given(st.lists(st.integers(0, 0xFF), min_size=1))
def test_the_register_reads_as_written_and_counts_edges(values: list[int]) -> None:
    """All bits are read/write; INIT_NOW acts once for each time that it becomes 1."""
    board = Board()
    board.write(*values)
    assert board.space.read(0x92, 1) == values[-1]
    assert board.gates[-1] is bool(values[-1] & ALT_A20_GATE)
    edges = zip([0, *values[:-1]], values, strict=True)
    assert board.resets == sum(bool(new & ~old & INIT_NOW) for old, new in edges)
