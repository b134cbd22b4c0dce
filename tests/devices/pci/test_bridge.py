"""PCI-to-PCI Bridge Architecture Specification 1.2; the rule is in each test's docstring."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.pci.board import Board, Card
from portvisor.devices.pci import Bar, PciBridge
from portvisor.testing import DeviceSuite

IO, MEMORY, MASTER = 1, 2, 4


class TestSuite(DeviceSuite):
    def make(self) -> PciBridge:
        board = Board()
        bridge = PciBridge(bars={0: Bar.io(16, address=0xC000, fixed=True)}, name="bridge")
        board.root.attach(bridge, 2)
        board.put(2, 4, IO, 2)
        return bridge


class Behind:
    """A card behind a bridge at 00:02.0, whose bus is numbered 5."""

    def __init__(self, bridge: PciBridge | None = None) -> None:
        self.board = Board()
        self.bridge = bridge or PciBridge(name="bridge")
        self.board.root.attach(self.bridge, 2)
        self.card = Card({0: Bar.io(32), 1: Bar.memory(0x1000)})
        self.bridge.secondary_bus.attach(self.card, 1)
        self.board.put(2, 0x18, 0x00050500)

    def open(self) -> None:
        """Windows 2000-2FFF and FE000000-FE0FFFFF, the card at their starts."""
        board = self.board
        board.put(2, 0x1C, 0x2020, 2)
        board.put(2, 0x20, 0xFE00FE00)
        board.put(2, 4, IO | MEMORY, 2)
        board.put(1, 0x10, 0x2000, bus=5)
        board.put(1, 0x14, 0xFE000000, bus=5)
        board.put(1, 4, IO | MEMORY | MASTER, 2, bus=5)


@pytest.fixture
def behind() -> Behind:
    return Behind()


class TestHeader:
    def test_type_1(self, behind: Behind) -> None:
        """Header type 01, class 0604."""
        assert behind.board.get(2, 0x0E, 1) == 1
        assert behind.board.get(2, 0x0A, 2) == 0x0604

    def test_registers_after_reset(self) -> None:
        board = Board()
        board.root.attach(PciBridge(name="bridge"), 2)
        assert board.get(2, 0x18) == 0
        assert board.get(2, 0x1C, 2) == 0

    def test_io_window_registers_keep_their_high_nibble(self, behind: Behind) -> None:
        """I/O base: low nibble 0 = 16-bit addresses, read-only."""
        behind.board.put(2, 0x1C, 0xFFFF, 2)
        assert behind.board.get(2, 0x1C, 2) == 0xF0F0

    def test_prefetchable_window_is_64_bit(self, behind: Behind) -> None:
        """Prefetchable base: low nibble 1 = 64-bit addresses."""
        behind.board.put(2, 0x24, 0xFFFFFFFF)
        assert behind.board.get(2, 0x24) == 0xFFF1FFF1

    @pytest.mark.parametrize(
        ("register", "value"),
        [(0x18, 0xF8FFFFFF), (0x20, 0xFFF0FFF0), (0x28, 0xFFFFFFFF), (0x2C, 0xFFFFFFFF), (0x30, 0), (0x34, 0)],
    )
    def test_writable_bits(self, behind: Behind, register: int, value: int) -> None:
        behind.board.put(2, register, 0xFFFFFFFF)
        assert behind.board.get(2, register) == value

    def test_a_hard_wired_window_ignores_writes(self) -> None:
        board = Board()
        board.root.attach(PciBridge(io_window=(0x2000, 0x4FFF), name="bridge"), 2)
        board.put(2, 0x1C, 0xF0F0, 2)
        assert board.get(2, 0x1C, 2) == 0x4020

    @pytest.mark.parametrize("window", [(0x2000, 0x2FFE), (0x2001, 0x2FFF), (0x3000, 0x2FFF), (0xF000, 0x10FFF)])
    def test_a_hard_wired_window_is_made_of_4k_blocks(self, window: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="is not made of 4 KiB blocks"):
            PciBridge(io_window=window, name="bridge")


class TestConfigurationRouting:
    def test_secondary_bus(self, behind: Behind) -> None:
        """Type 1 configuration: type 1 for the secondary bus becomes type 0 there."""
        assert behind.board.get(1, 0, bus=5) == 0x56781234
        assert behind.card.address == "0000:05:01.0"

    def test_renumbering(self, behind: Behind) -> None:
        behind.board.put(2, 0x18, 0x00070700)
        assert behind.board.get(1, 0, bus=5) == 0xFFFFFFFF
        assert behind.board.get(1, 0, bus=7) == 0x56781234

    def test_unnumbered_bridge_forwards_nothing(self, behind: Behind) -> None:
        """Secondary bus number 0 after reset: nothing behind answers, and bus 0 is as before."""
        behind.bridge.reset()
        assert behind.board.get(1, 0) == 0xFFFFFFFF
        assert behind.board.get(2, 0) != 0xFFFFFFFF

    def test_two_levels_need_the_subordinate_number(self, behind: Behind) -> None:
        """Type 1 configuration: forwarded if secondary < bus <= subordinate."""
        inner = PciBridge(name="inner")
        behind.bridge.secondary_bus.attach(inner, 3)
        inner.secondary_bus.attach(Card(name="deep"), 4)
        behind.board.put(3, 0x18, 0x00060605, bus=5)
        assert behind.board.get(4, 0, bus=6) == 0xFFFFFFFF
        behind.board.put(2, 0x1A, 6, 1)
        assert behind.board.get(4, 0, bus=6) == 0x56781234

    def test_a_bridge_must_be_attached_before_what_is_behind_it(self) -> None:
        with pytest.raises(ValueError, match="attach the bridge first"):
            PciBridge(name="loose").secondary_bus.attach(Card(), 0)

    @given(
        writes=st.lists(st.tuples(st.sampled_from([2, 3]), st.integers(0, 255), st.integers(0, 255)), max_size=10)
    )
    @settings(max_examples=50, deadline=None)
    def test_any_numbering_is_safe(self, writes: list[tuple[int, int, int]]) -> None:
        behind = Behind()
        behind.board.root.attach(PciBridge(name="sibling"), 3)
        for device, secondary, subordinate in writes:
            behind.board.put(device, 0x19, secondary, 1)
            behind.board.put(device, 0x1A, subordinate, 1)
        reachable = behind.card in behind.board.host.functions()
        assert reachable == (behind.bridge.secondary != 0)


class TestForwarding:
    def test_io_inside_the_window(self, behind: Behind) -> None:
        """I/O addresses between base and limit are forwarded."""
        behind.open()
        assert behind.board.owner(0x2000) == "card"
        behind.board.put(1, 0x10, 0x3000, bus=5)
        assert behind.board.owner(0x3000) == ""
        behind.board.put(2, 0x1C, 0x3020, 2)
        assert behind.board.owner(0x3000) == "card"

    def test_limit_below_base_closes_the_window(self, behind: Behind) -> None:
        """no I/O transactions are forwarded."""
        behind.open()
        behind.board.put(2, 0x1C, 0x1020, 2)
        assert behind.board.owner(0x2000) == ""

    def test_io_needs_the_bridges_command_bit(self, behind: Behind) -> None:
        """Command, bit 0."""
        behind.open()
        behind.board.put(2, 4, MEMORY, 2)
        assert behind.board.owner(0x2000) == ""
        assert behind.board.mmio.read(0xFE000000, 1) == 0x10

    def test_memory_inside_the_window(self, behind: Behind) -> None:
        """Memory base and limit."""
        behind.open()
        assert behind.board.mmio.read(0xFE000000, 1) == 0x10
        behind.board.put(1, 0x14, 0xFE100000, bus=5)
        assert behind.board.mmio.read(0xFE100000, 1) == 0xFF
        behind.board.put(2, 0x22, 0xFE10, 2)
        assert behind.board.mmio.read(0xFE100000, 1) == 0x10

    def test_prefetchable_window_above_4_gib(self, behind: Behind) -> None:
        """Prefetchable base and limit with their upper halves."""
        card = Card({0: Bar.memory64(0x1000)}, name="far")
        behind.bridge.secondary_bus.attach(card, 2)
        behind.open()
        behind.board.put(2, 0x24, 0x00100010)
        behind.board.put(2, 0x28, 8)
        behind.board.put(2, 0x2C, 8)
        behind.board.put(2, 0x10, 0x00100000, bus=5)
        behind.board.put(2, 0x14, 8, bus=5)
        behind.board.put(2, 4, MEMORY, 2, bus=5)
        assert behind.board.mmio.read(0x8_00100000, 1) == 0x00

    def test_isa_enable_blocks_aliases(self, behind: Behind) -> None:
        """Bridge control, bit 2: blocks x100-x3FF of every 1 KiB block in the first 64 KiB."""
        behind.open()
        behind.board.put(1, 0x10, 0x2100, bus=5)
        assert behind.board.owner(0x2100) == "card"
        behind.board.put(2, 0x3E, 0x0004, 2)
        assert behind.board.owner(0x2100) == ""
        behind.board.put(1, 0x10, 0x2400, bus=5)
        assert behind.board.owner(0x2400) == "card"

    def test_dma_needs_the_bridges_master_bit(self, behind: Behind) -> None:
        """Command, bit 2: upstream transactions."""
        behind.open()
        assert not behind.card.bus_master
        behind.board.put(2, 4, IO | MEMORY | MASTER, 2)
        assert behind.card.bus_master

    def test_listing_follows_the_bus_number(self, behind: Behind) -> None:
        behind.open()
        behind.board.put(2, 0x18, 0x00020200)
        assert [str(owned) for owned in behind.card.ports] == ["2000-201f : 0000:02:01.0"]


class TestReset:
    def test_secondary_bus_reset(self, behind: Behind) -> None:
        """Bridge control, bit 6: forces RST# on the secondary bus; the bridge's own registers stay."""
        behind.open()
        behind.board.put(2, 0x3E, 0x0040, 2)
        assert behind.board.get(1, 4, 2, bus=5) == 0
        assert behind.board.owner(0x2000) == ""
        assert behind.board.get(2, 0x1C, 2) == 0x2020

    def test_holding_the_bit_resets_once(self, behind: Behind) -> None:
        behind.board.put(2, 0x3E, 0x0040, 2)
        behind.board.put(1, 0x3C, 9, 1, bus=5)
        behind.board.put(2, 0x3E, 0x0040, 2)
        assert behind.board.get(1, 0x3C, 1, bus=5) == 9

    def test_reset_goes_through(self, behind: Behind) -> None:
        behind.open()
        behind.bridge.reset()
        assert behind.card.command == 0
        assert behind.board.owner(0x2000) == ""

    def test_restore_in_any_order(self, behind: Behind) -> None:
        behind.open()
        saved = [device.snapshot() for device in (behind.card, behind.bridge)]
        behind.bridge.reset()
        for device, snapshot in zip((behind.card, behind.bridge), saved, strict=True):
            device.restore(snapshot)
        assert behind.board.owner(0x2000) == "card"
        assert behind.board.get(1, 0, bus=5) == 0x56781234


class TestInterrupts:
    @pytest.mark.parametrize(("device", "line"), [(0, 2), (1, 3), (2, 0), (3, 1)])
    def test_pins_swizzle(self, behind: Behind, device: int, line: int) -> None:
        """Interrupt routing: (device + pin) mod 4 is the bridge's pin."""
        card = Card(name="other")
        if device == 1:
            card = behind.card
        else:
            behind.bridge.secondary_bus.attach(card, device)
        card.intx.set(1)
        assert [index for index, wire in enumerate(behind.board.lines) if wire.level] == [line]
