"""Configuration mechanism #1 (PCI 3.0, 3.2.2.3.2); the rule is in each test's docstring."""

from __future__ import annotations

import pytest

from devices.pci.board import Board, Card
from portvisor.devices.pci import I440Fx, PciBridge, PciFunction, PciHost, Piix3
from portvisor.ports import Device, MmioSpace, PortRange, PortSpace
from portvisor.testing import DeviceSuite


class TestSuite(DeviceSuite):
    def make(self) -> PciHost:
        host = PciHost(PortSpace(), MmioSpace())
        host.add_root().attach(PciFunction(name="card"), 3)
        return host


@pytest.fixture
def board() -> Board:
    board = Board()
    board.root.attach(Card(), 3)
    return board


class TestAddress:
    def test_enable_bit_reads_back(self, board: Board) -> None:
        """How Linux finds the mechanism: 80000000 must read back."""
        board.space.write(0xCF8, 4, 0x80000000)
        assert board.space.read(0xCF8, 4) == 0x80000000

    def test_reserved_bits_read_0(self, board: Board) -> None:
        """Bits 30:24 are reserved and 1:0 read 0."""
        board.space.write(0xCF8, 4, 0xFFFFFFFF)
        assert board.space.read(0xCF8, 4) == 0x80FFFFFC

    @pytest.mark.parametrize(
        ("port", "size"), [(0xCF8, 1), (0xCF9, 1), (0xCFA, 1), (0xCFB, 1), (0xCF8, 2), (0xCFA, 2)]
    )
    def test_only_dwords_latch(self, board: Board, port: int, size: int) -> None:
        """Byte and word accesses pass to the bus as ordinary I/O."""
        board.space.write(0xCF8, 4, 0x80001800)
        board.space.write(port, size, 0x01)
        assert board.space.read(0xCF8, 4) == 0x80001800
        assert board.space.read(port, size) == (1 << 8 * size) - 1

    def test_reset_control_can_sit_inside(self, board: Board) -> None:
        """CF9 belongs to the south bridge."""

        class Reset(Device):
            ports = (PortRange(0xCF9, 1, name="reset"),)

            def read(self, offset: int, size: int) -> int:
                return 0x02

        board.space.attach(Reset())
        assert board.space.read(0xCF9, 1) == 0x02
        board.space.write(0xCF8, 4, 0x80000000)
        assert board.space.read(0xCF8, 4) == 0x80000000

    def test_reset_clears_the_latch(self, board: Board) -> None:
        board.space.write(0xCF8, 4, 0x80001800)
        board.host.reset()
        assert board.space.read(0xCF8, 4) == 0


class TestData:
    @pytest.mark.parametrize(
        ("port", "size", "value"),
        [
            (0xCFC, 4, 0x56781234),
            (0xCFC, 2, 0x1234),
            (0xCFE, 2, 0x5678),
            (0xCFC, 1, 0x34),
            (0xCFD, 1, 0x12),
            (0xCFE, 1, 0x78),
            (0xCFF, 1, 0x56),
            (0xCFD, 2, 0x7812),
        ],
    )
    def test_all_widths_and_lanes(self, board: Board, port: int, size: int, value: int) -> None:
        board.space.write(0xCF8, 4, 0x80001800)
        assert board.space.read(port, size) == value

    def test_without_the_enable_bit_nothing_answers(self, board: Board) -> None:
        """Bit 31 = 0: the access is an ordinary I/O cycle."""
        board.space.write(0xCF8, 4, 0x00001800)
        assert board.space.read(0xCFC, 4) == 0xFFFFFFFF

    @pytest.mark.parametrize("address", [0x80002000, 0x80001900, 0x80011800])
    def test_an_absent_device_function_or_bus_reads_ones(self, board: Board, address: int) -> None:
        """6.1: reads of a device that is not there return all ones (master abort)."""
        board.space.write(0xCF8, 4, address)
        assert board.space.read(0xCFC, 4) == 0xFFFFFFFF
        assert board.space.read(0xCFE, 2) == 0xFFFF
        board.space.write(0xCFC, 4, 0)

    def test_writes_reach_the_function(self, board: Board) -> None:
        board.put(3, 0x3C, 0x0B, 1)
        assert board.get(3, 0x3C, 1) == 0x0B


class TestRoots:
    def test_two_roots(self, board: Board) -> None:
        board.root.last = 0x8F
        other = board.host.add_root(0x90)
        other.attach(Card(name="far"), 1)
        assert board.get(1, 0, bus=0x90) == 0x56781234
        assert board.get(1, 0) == 0xFFFFFFFF
        found = board.host.function_at(0x90, 1)
        assert found is not None
        assert found.address == "0000:90:01.0"

    def test_an_empty_root_reads_ones(self) -> None:
        board = Board.__new__(Board)
        board.space = PortSpace(strict=True)
        board.host = PciHost(board.space, MmioSpace())
        board.space.attach(board.host)
        board.host.add_root(0, last=0x7F)
        board.host.add_root(0x80)
        assert board.get(0, 0, bus=0x80) == 0xFFFFFFFF

    def test_roots_do_not_overlap(self, board: Board) -> None:
        with pytest.raises(ValueError, match="root bus 80-ff overlaps root bus 00-ff"):
            board.host.add_root(0x80)

    def test_bus_numbers_have_eight_bits(self, board: Board) -> None:
        with pytest.raises(ValueError, match="bus numbers are 00-ff"):
            board.host.add_root(0x100)

    def test_all_functions_by_address(self, board: Board) -> None:
        first, second = Card(name="first"), Card(name="second")
        board.root.attach(second, 3, 1)
        board.root.attach(first, 1)
        assert [function.name for function in board.host.functions()] == ["first", "card", "second"]


class TestNames:
    """What a trace calls the ports."""

    @pytest.mark.parametrize(
        ("latch", "port", "name"),
        [
            (0x80001804, 0xCFC, "0000:00:03.0 COMMAND"),
            (0x80001804, 0xCFE, "0000:00:03.0 STATUS"),
            (0x80001818, 0xCFC, "0000:00:03.0 BAR2"),
            (0x80001848, 0xCFD, "0000:00:03.0 config 49"),
            (0x80002000, 0xCFC, "CONFIG_DATA"),
            (0x00001804, 0xCFC, "CONFIG_DATA"),
            (0x80001804, 0xCF8, "CONFIG_ADDRESS"),
        ],
    )
    def test_the_data_port_is_the_register_it_reaches(self, board: Board, latch: int, port: int, name: str) -> None:
        board.space.write(0xCF8, 4, latch)
        owner = board.space.owner(port, 4 if port == 0xCF8 else 1)
        assert owner is not None
        assert board.host.register_name(owner.offset, 1, False) == name

    def test_a_bridge_has_names_of_its_own(self, board: Board) -> None:
        bridge = PciBridge(name="bridge")
        assert bridge.config_register_name(0x19) == "SECONDARY_BUS"
        assert Card().config_register_name(0x19) == "config 19"

    def test_chips_have_data_sheet_names(self) -> None:
        assert I440Fx().config_register_name(0x59) == "PAM0"
        assert Piix3({}).config_register_name(0x61) == "PIRQRCB"
