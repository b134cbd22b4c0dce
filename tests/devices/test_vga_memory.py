"""The memory window against a slow model that follows the data sheet bit by bit, and its rules one by one."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.vga_board import MODE_3, MODE_12, MODE_13, Board, Mode

WINDOWS = {0: (0xA0000, 0x20000), 1: (0xA0000, 0x10000), 2: (0xB0000, 0x8000), 3: (0xB8000, 0x8000)}


@dataclass
class SlowVga:
    """Byte accesses as the text of the data sheet has them, one bit of one map at a time."""

    misc: int
    map_mask: int
    memory_mode: int
    graphics: list[int]
    maps: list[dict[int, int]] = field(default_factory=lambda: [{}, {}, {}, {}])
    latches: list[int] = field(default_factory=lambda: [0] * 4)

    def _offset(self, address: int) -> int | None:
        base, length = WINDOWS[self.graphics[6] >> 2 & 3]
        return address - base if base <= address < base + length else None

    def _map_address(self, offset: int) -> int:
        if self.memory_mode & 8:
            return (offset >> 2 << 2) % 0x10000 + (offset >> 16)
        address = offset % 0x10000
        if self.graphics[6] & 2:
            page = 0 if self.misc & 0x20 else 1
            address = address // 2 * 2 + (offset >> 16 if self.graphics[6] >> 2 & 3 == 0 else page)
        return address

    def _written_maps(self, offset: int) -> list[int]:
        if self.memory_mode & 8:
            reached = {offset % 4}
        elif self.memory_mode & 4:
            reached = {0, 1, 2, 3}
        else:
            reached = {0, 2} if offset % 2 == 0 else {1, 3}
        return [number for number in sorted(reached) if self.map_mask >> number & 1]

    def _data_bit(self, number: int, bit: int, value: int) -> int:
        """What one bit of one map becomes."""
        graphics, latch = self.graphics, self.latches[number] >> bit & 1
        mode, function = graphics[5] & 3, graphics[3] >> 3 & 3
        rotated = value >> (bit + (graphics[3] & 7)) % 8 & 1
        mask = graphics[8] >> bit & 1
        if mode == 1:
            return latch
        if mode == 0:
            data = graphics[0] >> number & 1 if graphics[1] >> number & 1 else rotated
        elif mode == 2:
            data = value >> number & 1
        else:
            data = graphics[0] >> number & 1
            mask &= rotated
        result = (data, data & latch, data | latch, data ^ latch)[function]
        return result if mask else latch

    def write(self, address: int, value: int) -> None:
        offset = self._offset(address)
        if offset is None:
            return
        for number in self._written_maps(offset):
            byte = sum(self._data_bit(number, bit, value) << bit for bit in range(8))
            self.maps[number][self._map_address(offset)] = byte

    def read(self, address: int) -> int:
        offset = self._offset(address)
        if offset is None:
            return 0xFF
        at = self._map_address(offset)
        self.latches = [one.get(at, 0) for one in self.maps]
        if self.graphics[5] & 8:
            return sum(self._matches(bit) << bit for bit in range(8))
        if self.memory_mode & 8:
            return self.latches[offset % 4]
        if self.graphics[5] & 0x10:
            return self.latches[self.graphics[4] // 2 * 2 + offset % 2]
        return self.latches[self.graphics[4]]

    def _matches(self, bit: int) -> bool:
        return all(
            self.latches[number] >> bit & 1 == self.graphics[2] >> number & 1
            for number in range(4)
            if self.graphics[7] >> number & 1
        )


@st.composite
def memory_setups(draw: st.DrawFn) -> SlowVga:
    """Any registers, but often those of a usual mode, so that the fast paths are met."""
    graphics = [draw(st.integers(0, mask)) for mask in (15, 15, 15, 0x1F, 3, 0x7B, 15, 15, 255)]
    misc = draw(st.sampled_from((0x43, 0x63)))
    kind = draw(st.sampled_from(("text", "planar", "chain 4", "any")))
    if kind == "any":
        return SlowVga(misc, draw(st.integers(0, 15)), draw(st.sampled_from((0, 4, 8, 12))), graphics)
    graphics[1], graphics[3], graphics[8] = 0, 0, 0xFF
    graphics[5] = graphics[5] & 8 if draw(st.booleans()) else 0
    if kind == "text":
        graphics[5] |= 0x10
        graphics[6] = graphics[6] & 0xC | 2
        return SlowVga(misc, draw(st.sampled_from((3, 9, 7))), 0, graphics)
    graphics[6] &= 0xD
    if kind == "planar":
        return SlowVga(misc, draw(st.sampled_from((0, 1, 2, 4, 8, 6, 15))), 4, graphics)
    return SlowVga(misc, draw(st.sampled_from((15, 15, 5))), draw(st.sampled_from((8, 12))), graphics)


ADDRESSES = st.builds(
    lambda base, offset: base + offset,
    st.sampled_from((0xA0000, 0xA8000, 0xAFFF8, 0xB0000, 0xB7FF8, 0xB8000, 0xBFFF0)),
    st.integers(0, 9),
)
ACCESSES = st.lists(
    st.tuples(st.booleans(), ADDRESSES, st.sampled_from((1, 2, 4, 8)), st.integers(0, (1 << 64) - 1)),
    min_size=1,
    max_size=24,
)


def program(board: Board, setup: SlowVga) -> None:
    board.outb(0x3C2, setup.misc)
    board.set_indexed(0x3C4, 2, setup.map_mask)
    board.set_indexed(0x3C4, 4, setup.memory_mode)
    for index, value in enumerate(setup.graphics):
        board.set_indexed(0x3CE, index, value)


def play(board: Board, slow: SlowVga, accesses: list[tuple[bool, int, int, int]]) -> None:
    for write, address, size, value in accesses:
        if write:
            board.memory.write(address, size, value & (1 << 8 * size) - 1)
            for step in range(size):
                slow.write(address + step, value >> 8 * step & 0xFF)
        else:
            expected = sum(slow.read(address + step) << 8 * step for step in range(size))
            assert board.memory.read(address, size) == expected


def same_maps(board: Board, slow: SlowVga) -> None:
    for plane, expected in zip(board.vga.state.planes, slow.maps, strict=True):
        whole = bytearray(0x10000)
        for at, value in expected.items():
            whole[at] = value
        assert plane == whole


@settings(max_examples=400, deadline=None)
@given(setup=memory_setups(), seed=st.binary(min_size=64, max_size=64), accesses=ACCESSES)
def test_any_mode_behaves_as_the_data_sheet_says(
    setup: SlowVga, seed: bytes, accesses: list[tuple[bool, int, int, int]]
) -> None:
    board = Board(vbe_memory=0)
    for place, value in enumerate(seed):
        number, at = place & 3, (0, 0x7FF8, 0x8000, 0xFFF8)[place >> 2 & 3] + (place >> 4)
        board.vga.state.planes[number][at] = setup.maps[number][at] = value
    program(board, setup)
    play(board, setup, accesses)
    same_maps(board, setup)


@settings(max_examples=60, deadline=None)
@given(first=memory_setups(), second=memory_setups(), one=ACCESSES, two=ACCESSES)
def test_mode_changes_keep_maps_and_latches(
    first: SlowVga,
    second: SlowVga,
    one: list[tuple[bool, int, int, int]],
    two: list[tuple[bool, int, int, int]],
) -> None:
    board = Board(vbe_memory=0)
    program(board, first)
    play(board, first, one)
    second.maps, second.latches = first.maps, first.latches
    program(board, second)
    play(board, second, two)
    program(board, first)
    first.latches = second.latches
    play(board, first, one)
    same_maps(board, first)


# --- single rules -----------------------------------------------------------------------------------------


def board_in(mode: Mode) -> Board:
    board = Board()
    board.set_mode(mode)
    return board


def test_text_goes_to_even_addresses_of_maps_0_and_1() -> None:
    board = board_in(MODE_3)
    board.memory.write(0xB8002, 2, 0x1E41)
    assert (board.vga.state.planes[0][2], board.vga.state.planes[1][2]) == (0x41, 0x1E)
    assert not any(board.vga.state.planes[0][3:])


def test_page_bit_0_moves_text_to_odd_addresses() -> None:
    board = board_in(MODE_3)
    board.outb(0x3C2, 0x47)
    board.memory.write(0xB8002, 2, 0x1E41)
    assert (board.vga.state.planes[0][3], board.vga.state.planes[1][3]) == (0x41, 0x1E)


def test_mode_3_answers_at_b8000_only() -> None:
    board = board_in(MODE_3)
    for address in (0xA0000, 0xB0000):
        board.memory.write(address, 2, 0x1234)
        assert board.memory.read(address, 2) == 0xFFFF
    assert not any(board.vga.state.planes[0])


def test_b8000_is_memory_that_reads_back() -> None:
    board = board_in(MODE_3)
    for pattern in (0xAA55, 0x55AA):
        board.memory.write(0xB8000, 2, pattern)
        board.memory.write(0xB8002, 2, pattern ^ 0xFFFF)
        assert board.memory.read(0xB8000, 4) == (pattern ^ 0xFFFF) << 16 | pattern


def test_an_access_over_the_end_of_the_window_floats_beyond_it() -> None:
    board = board_in(MODE_3)
    board.memory.write(0xBFFFE, 4, 0x44434241)
    assert board.memory.read(0xBFFFE, 4) == 0xFFFF4241


def test_ram_enable_off_takes_the_memory_away() -> None:
    board = board_in(MODE_3)
    board.outb(0x3C2, 0x65)
    board.memory.write(0xB8000, 2, 0x0741)
    assert board.memory.read(0xB8000, 2) == 0xFFFF
    board.outb(0x3C2, 0x67)
    assert board.memory.read(0xB8000, 2) == 0


def test_fonts_load_into_map_2_alone() -> None:
    board = board_in(MODE_3)
    board.load_font({0x41: bytes(range(16))})
    assert board.vga.state.planes[2][0x41 * 32 : 0x41 * 32 + 16] == bytes(range(16))
    assert not any(any(board.vga.state.planes[plane]) for plane in (0, 1, 3))


def test_chain_4_spreads_pixels_over_the_maps_at_every_fourth_address() -> None:
    board = board_in(MODE_13)
    board.memory.write(0xA0004, 4, 0x14131211)
    assert [plane[4] for plane in board.vga.state.planes] == [0x11, 0x12, 0x13, 0x14]
    assert board.memory.read(0xA0006, 1) == 0x13


def test_write_mode_1_copies_latches() -> None:
    board = board_in(MODE_12)
    for plane, value in enumerate((0x11, 0x22, 0x44, 0x88)):
        board.vga.state.planes[plane][5] = value
    board.set_indexed(0x3CE, 5, 1)
    board.memory.read(0xA0005, 1)
    board.memory.write(0xA0100, 1, 0xFF)
    assert [plane[0x100] for plane in board.vga.state.planes] == [0x11, 0x22, 0x44, 0x88]


def test_write_mode_2_paints_a_colour_through_the_bit_mask() -> None:
    board = board_in(MODE_12)
    board.set_indexed(0x3CE, 5, 2)
    board.set_indexed(0x3CE, 8, 0x18)
    board.memory.read(0xA0000, 1)
    board.memory.write(0xA0000, 1, 0x0A)
    assert [plane[0] for plane in board.vga.state.planes] == [0, 0x18, 0, 0x18]


def test_write_mode_3_uses_the_data_as_bit_mask() -> None:
    board = board_in(MODE_12)
    board.set_indexed(0x3CE, 0, 0x05)
    board.set_indexed(0x3CE, 5, 3)
    board.memory.read(0xA0000, 1)
    board.memory.write(0xA0000, 1, 0xC3)
    assert [plane[0] for plane in board.vga.state.planes] == [0xC3, 0, 0xC3, 0]


def test_write_mode_3_goes_through_the_alu() -> None:
    board = board_in(MODE_12)
    board.memory.write(0xA0000, 1, 0x0F)
    board.memory.read(0xA0000, 1)
    board.set_indexed(0x3CE, 0, 0x0F)
    board.set_indexed(0x3CE, 3, 0x18)
    board.set_indexed(0x3CE, 5, 3)
    board.memory.write(0xA0000, 1, 0x3C)
    assert board.vga.state.planes[0][0] == 0x33


def test_wide_text_accesses_respect_the_page_bit() -> None:
    board = board_in(MODE_3)
    board.outb(0x3C2, 0x47)
    board.memory.write(0xB8000, 8, 0x0444034302420141)
    assert board.vga.state.planes[0][:8] == b"\0A\0B\0C\0D"
    assert board.vga.state.planes[1][:8] == b"\0\x01\0\x02\0\x03\0\x04"
    assert board.memory.read(0xB8000, 8) == 0x0444034302420141


def test_set_reset_replaces_the_data_in_enabled_maps() -> None:
    board = board_in(MODE_12)
    board.set_indexed(0x3CE, 0, 0x01)
    board.set_indexed(0x3CE, 1, 0x03)
    board.memory.write(0xA0000, 1, 0x5A)
    assert [plane[0] for plane in board.vga.state.planes] == [0xFF, 0x00, 0x5A, 0x5A]


@pytest.mark.parametrize(("function", "expected"), [(0, 0x3C), (1, 0x0C), (2, 0x3F), (3, 0x33)])
def test_alu_combines_data_with_the_latch(function: int, expected: int) -> None:
    board = board_in(MODE_12)
    board.memory.write(0xA0000, 1, 0x0F)
    board.memory.read(0xA0000, 1)
    board.set_indexed(0x3CE, 3, function << 3)
    board.memory.write(0xA0000, 1, 0x3C)
    assert board.vga.state.planes[2][0] == expected


def test_rotate_turns_the_data_right() -> None:
    board = board_in(MODE_12)
    board.set_indexed(0x3CE, 3, 3)
    board.memory.write(0xA0000, 1, 0x81)
    assert board.vga.state.planes[0][0] == 0x30


def test_read_mode_1_compares_colours_and_ignores_uncared_maps() -> None:
    board = board_in(MODE_12)
    for plane, value in enumerate((0b1100, 0b1010, 0, 0xFF)):
        board.vga.state.planes[plane][0] = value
    board.set_indexed(0x3CE, 2, 0x03)
    board.set_indexed(0x3CE, 5, 8)
    board.set_indexed(0x3CE, 7, 0x07)
    assert board.memory.read(0xA0000, 1) == 0b1000
    board.set_indexed(0x3CE, 7, 0)
    assert board.memory.read(0xA0000, 1) == 0xFF
