"""Intel 82371SB data sheet (290550); the rule is in each test's docstring."""

from __future__ import annotations

import pytest

from devices.pci.board import Board, Card
from portvisor.devices.pci import PciHost, Piix3, slot_route
from portvisor.ports import IrqLine, MmioSpace, PortSpace
from portvisor.testing import DeviceSuite


class TestSuite(DeviceSuite):
    def make(self) -> Piix3:
        bridge = Piix3({11: IrqLine()})
        Board().root.attach(bridge, 1)
        return bridge


class South:
    def __init__(self) -> None:
        self.board = Board()
        self.isa = {irq: IrqLine(name=f"irq{irq}") for irq in range(16)}
        self.bridge = Piix3(self.isa)
        self.board.root.attach(self.bridge, 1)

    def raised(self) -> list[int]:
        return [irq for irq, line in self.isa.items() if line.level]


@pytest.fixture
def south() -> South:
    return South()


@pytest.mark.parametrize(
    ("register", "size", "value"),
    [
        (0x00, 4, 0x70008086),
        (0x04, 4, 0x02800007),
        (0x0A, 2, 0x0601),
        (0x0E, 1, 0x80),
        (0x4C, 1, 0x4D),
        (0x4E, 2, 0x0003),
        (0x60, 4, 0x80808080),
        (0x69, 1, 0x02),
        (0x70, 1, 0x80),
        (0x76, 2, 0x0404),
        (0x78, 2, 0x0002),
        (0xA0, 1, 0x08),
        (0xA8, 1, 0x0F),
    ],
)
def test_default_values(south: South, register: int, size: int, value: int) -> None:
    """The default value of each register."""
    assert south.board.get(1, register, size) == value


def test_io_memory_and_master_are_always_on(south: South) -> None:
    """PCICMD: bits 2:0 are hardwired to 1."""
    south.board.put(1, 4, 0, 2)
    assert south.board.get(1, 4, 2) == 0x0007


def test_route_registers_keep_their_bits(south: South) -> None:
    """PIRQRC: bits 6:4 are reserved."""
    south.board.put(1, 0x60, 0xFFFFFFFF)
    assert south.board.get(1, 0x60) == 0x8F8F8F8F


@pytest.mark.parametrize(
    ("register", "size", "value"),
    [(0x04, 2, 0x000F), (0x0C, 2, 0), (0x3C, 1, 0), (0x4E, 2, 0x01FF), (0x76, 2, 0x8787), (0xA2, 2, 0x01FF)],
)
def test_writable_bits(south: South, register: int, size: int, value: int) -> None:
    """Reserved bits stay 0; registers that the chip has not read 0."""
    south.board.put(1, register, (1 << 8 * size) - 1, size)
    assert south.board.get(1, register, size) == value


def test_disabled_after_reset(south: South) -> None:
    """PIRQRC, bit 7 = 1: the interrupt is not routed."""
    south.bridge.pirqs[0].set(1)
    assert south.raised() == []


@pytest.mark.parametrize("irq", [3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15])
def test_routing(south: South, irq: int) -> None:
    """PIRQRC, bits 3:0."""
    south.board.put(1, 0x62, irq, 1)
    south.bridge.pirqs[2].set(1)
    assert south.raised() == [irq]
    south.bridge.pirqs[2].set(0)
    assert south.raised() == []


@pytest.mark.parametrize("irq", [0, 1, 2, 8, 13])
def test_reserved_interrupts_connect_nothing(south: South, irq: int) -> None:
    """PIRQRC: 0000, 0001, 0010, 1000, 1101 are reserved."""
    south.board.put(1, 0x60, irq, 1)
    south.bridge.pirqs[0].set(1)
    assert south.raised() == []
    assert south.bridge.router.route(0) is None


def test_two_inputs_on_one_interrupt_are_ored(south: South) -> None:
    """PIRQRC: PIRQx# may share an ISA interrupt."""
    south.board.put(1, 0x60, 0x0B0B, 2)
    south.bridge.pirqs[0].set(1)
    south.bridge.pirqs[1].set(1)
    south.bridge.pirqs[0].set(0)
    assert south.raised() == [11]


def test_rerouting_moves_an_asserted_interrupt(south: South) -> None:
    south.board.put(1, 0x60, 10, 1)
    south.bridge.pirqs[0].set(1)
    south.board.put(1, 0x60, 11, 1)
    assert south.raised() == [11]
    south.board.put(1, 0x60, 0x80, 1)
    assert south.raised() == []


def test_reset_disconnects_and_restore_connects(south: South) -> None:
    south.board.put(1, 0x60, 10, 1)
    south.bridge.pirqs[0].set(1)
    saved = south.bridge.snapshot()
    south.bridge.reset()
    assert south.raised() == []
    south.bridge.restore(saved)
    assert south.raised() == [10]


@pytest.mark.parametrize(("device", "pin", "input_number"), [(1, 1, 0), (1, 4, 3), (2, 1, 1), (3, 1, 2), (5, 1, 0)])
def test_a_cards_pin_reaches_the_pic(device: int, pin: int, input_number: int) -> None:
    space = PortSpace(strict=True)
    host = PciHost(space, MmioSpace())
    isa = {irq: IrqLine() for irq in range(16)}
    bridge = Piix3(isa)
    root = host.add_root(lines=bridge.pirqs, route=slot_route())
    root.attach(bridge, 1)
    card = Card(interrupt_pin=pin)
    root.attach(card, device, 3)
    bridge.config_write(0x60 + input_number, 1, 11)
    card.intx.set(1)
    assert isa[11].level == 1
