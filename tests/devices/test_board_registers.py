"""A board's own registers hold what is written."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from devices.pci.board import empty_space
from portvisor.devices.board_registers import BoardRegisters
from portvisor.ports import PortSpace
from portvisor.testing import DeviceSuite

BLOCKS = ((0x600, 0x20), (0x800, 0x20), (0x880, 4), (0xCA0, 6))


class TestSuite(DeviceSuite):
    def make(self) -> BoardRegisters:
        return BoardRegisters(BLOCKS)


def make() -> PortSpace:
    space = empty_space()
    space.attach(BoardRegisters(BLOCKS))
    return space


def test_ranges_and_their_name() -> None:
    board = BoardRegisters(BLOCKS, name="cpld")
    assert [str(owned) for owned in board.ports] == [
        "0600-061f : cpld", "0800-081f : cpld", "0880-0883 : cpld", "0ca0-0ca5 : cpld",
    ]  # fmt: skip
    assert board.name == "cpld"


def test_zero_after_reset() -> None:
    space = make()
    space.write(0x600, 1, 0x55)
    (board,) = space.devices()
    board.reset()
    assert space.read(0x600, 1) == 0


def test_every_byte_is_its_own() -> None:
    space = make()
    ports = [port for base, length in BLOCKS for port in range(base, base + length)]
    for index, port in enumerate(ports):
        space.write(port, 1, index + 1)
    assert [space.read(port, 1) for port in ports] == [index + 1 & 0xFF for index in range(len(ports))]


ACCESSES = st.tuples(
    st.sampled_from([0x600, 0x61E, 0x880, 0xCA4]), st.sampled_from([1, 2, 4]), st.integers(0, 0xFFFFFFFF)
)


@settings(max_examples=30, deadline=None)
@given(st.lists(ACCESSES, max_size=20))
def test_against_a_dictionary(writes: list[tuple[int, int, int]]) -> None:
    """Wide accesses are bytes, low address first; those outside the blocks are lost."""
    space = make()
    model = {port: 0 for base, length in BLOCKS for port in range(base, base + length)}
    for port, size, value in writes:
        space.write(port, size, value & (1 << 8 * size) - 1)
        for index in range(size):
            if port + index in model:
                model[port + index] = value >> 8 * index & 0xFF
    assert {port: space.read(port, 1) for port in model} == model
