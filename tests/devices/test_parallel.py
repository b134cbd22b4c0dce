"""IBM's printer port; the rule is in each test's docstring."""

from __future__ import annotations

import pytest

from portvisor.devices.parallel import ParallelPort
from portvisor.ports import IrqLine, PortSpace
from portvisor.testing import DeviceSuite


class TestSuite(DeviceSuite):
    def make(self) -> ParallelPort:
        return ParallelPort(IrqLine(), lambda data: None)


class Printer:
    def __init__(self) -> None:
        self.paper = bytearray()
        self.edges: list[int] = []
        self.space = PortSpace(strict=True)
        self.space.attach(ParallelPort(IrqLine(self.edges.append), self.paper.extend))

    def put(self, offset: int, value: int) -> None:
        self.space.write(0x378 + offset, 1, value)

    def get(self, offset: int) -> int:
        return self.space.read(0x378 + offset, 1)


@pytest.fixture
def printer() -> Printer:
    return Printer()


@pytest.mark.parametrize("value", [0x00, 0x55, 0xAA, 0xFF])
def test_data_latch_reads_back(printer: Printer, value: int) -> None:
    """How firmware finds the port."""
    printer.put(0, value)
    assert printer.get(0) == value


def test_status_of_a_ready_printer(printer: Printer) -> None:
    """Not busy, no acknowledge, paper, selected, no error."""
    assert printer.get(1) & 0xF8 == 0xD8


def test_status_is_read_only(printer: Printer) -> None:
    before = printer.get(1)
    printer.put(1, 0)
    assert printer.get(1) == before


def test_control_reads_back_with_two_ones(printer: Printer) -> None:
    printer.put(2, 0x0C)
    assert printer.get(2) == 0xCC


def test_rising_strobe_prints_the_latch(printer: Printer) -> None:
    """STROBE is a pulse: its level prints nothing."""
    printer.put(0, ord("A"))
    printer.put(2, 0x0D)
    printer.put(0, ord("B"))
    printer.put(2, 0x0D)
    printer.put(2, 0x0C)
    assert printer.paper == b"A"
    printer.put(2, 0x0D)
    assert printer.paper == b"AB"


def test_acknowledge_interrupts_if_enabled(printer: Printer) -> None:
    """Control bit 4: an interrupt when ACK# goes from active to inactive."""
    printer.put(2, 0x0D)
    assert printer.edges == []
    printer.put(2, 0x0C)
    printer.put(2, 0x1D)
    assert printer.edges == [1, 0]


def test_in_input_direction_the_latch_is_disconnected(printer: Printer) -> None:
    """Control bit 5: data lines are inputs; nothing drives them."""
    printer.put(0, 0x12)
    printer.put(2, 0x21)
    assert printer.get(0) == 0xFF
    assert printer.paper == b""
    printer.put(2, 0x00)
    assert printer.get(0) == 0x12
