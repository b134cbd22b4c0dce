"""The test device of kvm-unit-tests: what it does was found out with QEMU 7.2's."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.shared_bus import bus
from portvisor.devices.pc_testdev import MEMORY_LENGTH, PcTestdev
from portvisor.ports import IrqLine, PortSpace
from portvisor.testing import DeviceSuite


class TestGeneric(DeviceSuite):
    def make(self) -> PcTestdev:
        return PcTestdev({number: IrqLine() for number in range(16)})


class Board:
    def __init__(self) -> None:
        self.edges: list[tuple[int, int]] = []
        self.lines = {number: IrqLine(self._watch(number)) for number in range(16)}
        self.device = PcTestdev(self.lines)
        self.space: PortSpace = bus(self.device)

    def _watch(self, number: int) -> Callable[[int], None]:
        return lambda level: self.edges.append((number, level))


@pytest.fixture
def board() -> Board:
    return Board()


def test_the_port_keeps_32_bits_in_any_size(board: Board) -> None:
    space = board.space
    assert space.read(0xE0, 4) == 0
    space.write(0xE0, 4, 0x12345678)
    assert [space.read(0xE0 + index, 1) for index in range(4)] == [0x78, 0x56, 0x34, 0x12]
    space.write(0xE1, 1, 0xAA)
    space.write(0xE2, 2, 0xBBCC)
    assert space.read(0xE0, 4) == 0xBBCCAA78
    assert space.read(0xE1, 2) == 0xCCAA


def test_the_byte_port_has_the_same_bits(board: Board) -> None:
    board.space.write(0xE0, 4, 0x12345678)
    assert board.space.read(0xE8, 4) == 0x12345678
    board.space.write(0xE9, 1, 0x99)
    assert board.space.read(0xE0, 4) == 0x12349978


def test_an_access_over_an_edge_is_split(board: Board) -> None:
    board.space.write(0xE0, 4, 0x55123499)
    assert board.space.read(0xE2, 4) == 0x00005512
    assert board.space.read(0xE7, 2) == 0x9900


def test_flush_page_reads_0(board: Board) -> None:
    board.space.write(0xE4, 4, 0x1000)
    assert board.space.read(0xE4, 4) == 0


def test_any_value_but_0_raises_a_line(board: Board) -> None:
    board.space.write(0x2005, 1, 2)
    board.space.write(0x2005, 1, 1)
    board.space.write(0x2005, 1, 0)
    assert board.edges == [(5, 1), (5, 0)]
    assert board.space.read(0x2005, 1) == 0


def test_a_dword_drives_four_lines(board: Board) -> None:
    board.space.write(0x2008, 4, 0x01000101)
    assert board.edges == [(8, 1), (9, 1), (11, 1)]


def test_lines_beyond_the_isa_bus_do_nothing(board: Board) -> None:
    board.space.write(0x2017, 1, 1)
    board.space.write(0x2018, 1, 1)
    assert not board.edges


def test_reset_leaves_everything(board: Board) -> None:
    board.space.write(0xE0, 4, 0x12345678)
    board.space.write(0x2003, 1, 1)
    board.device.reset()
    assert board.space.read(0xE0, 4) == 0x12345678
    assert board.lines[3].level == 1


def test_restored_drives_the_lines(board: Board) -> None:
    board.space.write(0x2003, 1, 1)
    saved = board.device.snapshot()
    board.space.write(0x2003, 1, 0)
    board.device.restore(saved)
    assert board.edges == [(3, 1), (3, 0), (3, 1)]


def test_memory_ends_where_it_ends(board: Board) -> None:
    board.device.mmio_write(MEMORY_LENGTH - 2, 4, 0x11223344)
    assert board.device.mmio_read(MEMORY_LENGTH - 2, 4) == 0x3344
    assert len(board.device.state.memory) == MEMORY_LENGTH


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, MEMORY_LENGTH - 8), st.sampled_from([1, 2, 4, 8]), st.integers(0, 2**64 - 1)))
)
def test_memory_keeps_bytes(writes: list[tuple[int, int, int]]) -> None:
    device = PcTestdev({})
    model = bytearray(MEMORY_LENGTH)
    for offset, size, value in writes:
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        device.mmio_write(offset, size, int.from_bytes(data, "little"))
        model[offset : offset + size] = data
        assert device.mmio_read(offset, size) == int.from_bytes(data, "little")
    assert device.state.memory == model


def test_register_names(board: Board) -> None:
    assert [board.device.register_name(offset, 1, True) for offset in (0, 4, 8, 0x1F)] == [
        "I/O port",
        "flush page",
        "I/O port, byte",
        "IRQ line 15",
    ]
