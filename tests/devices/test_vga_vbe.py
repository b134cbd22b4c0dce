"""The Bochs VBE registers, bank window and linear frame buffer."""

from __future__ import annotations

import pytest

from devices.vga_board import FRAME_BUFFER, MODE_12, MODE_13, Board
from portvisor.devices.vga import Vga
from portvisor.ports import VirtualClock


@pytest.fixture
def board() -> Board:
    board = Board()
    board.set_mode(MODE_13)
    return board


def test_id_is_b0c5_and_takes_only_known_ids(board: Board) -> None:
    assert board.get_vbe(0) == 0xB0C5
    board.set_vbe(0, 0xB0C0)
    assert board.get_vbe(0) == 0xB0C0
    board.set_vbe(0, 0xB0C6)
    assert board.get_vbe(0) == 0xB0C0


def test_memory_size_is_counted_in_64_kib(board: Board) -> None:
    assert board.get_vbe(0xA) == 0x100
    assert Board(vbe_memory=4 << 20).get_vbe(0xA) == 0x40


def test_get_capabilities_shows_the_largest_values(board: Board) -> None:
    board.set_vbe(1, 800)
    board.set_vbe(4, 2)
    assert [board.get_vbe(index) for index in (1, 2, 3)] == [16000, 12000, 32]
    board.set_vbe(4, 0)
    assert board.get_vbe(1) == 800


def test_depth_0_means_8_and_odd_depths_are_ignored(board: Board) -> None:
    board.set_vbe(3, 16)
    board.set_vbe(3, 12)
    assert board.get_vbe(3) == 16
    board.set_vbe(3, 0)
    assert board.get_vbe(3) == 8


def test_resolution_is_locked_while_enabled(board: Board) -> None:
    board.start_vbe(800, 600, 16)
    board.set_vbe(1, 1024)
    board.set_vbe(3, 8)
    assert (board.get_vbe(1), board.get_vbe(3)) == (800, 16)


def test_enabling_sets_up_the_virtual_screen(board: Board) -> None:
    board.start_vbe(1024, 768, 32, 0x40)
    assert board.get_vbe(4) == 0x41
    assert [board.get_vbe(index) for index in (5, 6, 7, 8, 9)] == [0, 1024, 4096, 0, 0]


def test_a_mode_larger_than_the_memory_is_refused(board: Board) -> None:
    board.start_vbe(16000, 12000, 32, 0x40)
    assert board.get_vbe(4) == 0x40
    board.start_vbe(2048, 2048, 32)
    assert board.get_vbe(4) == 1


def test_enabling_without_a_resolution_is_refused() -> None:
    board = Board()
    board.set_vbe(4, 1)
    assert board.get_vbe(4) == 0


def test_virtual_width_sets_the_height_and_bounds_the_offsets(board: Board) -> None:
    board.start_vbe(640, 480, 8)
    board.set_vbe(6, 1000)
    assert (board.get_vbe(6), board.get_vbe(7)) == (1000, (16 << 20) // 1000)
    board.set_vbe(8, 361)
    board.set_vbe(9, 0xFFFF)
    assert (board.get_vbe(8), board.get_vbe(9)) == (0, 0)
    board.set_vbe(8, 360)
    board.set_vbe(9, 480)
    assert (board.get_vbe(8), board.get_vbe(9)) == (360, 480)
    board.set_vbe(6, 320)
    assert (board.get_vbe(6), board.get_vbe(8)) == (640, 0)


def test_virtual_width_that_leaves_too_few_lines_is_refused(board: Board) -> None:
    board.start_vbe(640, 480, 32)
    board.set_vbe(6, 0xFFFF)
    assert board.get_vbe(6) == 640


def test_the_bank_window_shows_64_kib_of_the_frame_buffer(board: Board) -> None:
    board.start_vbe(800, 600, 8)
    board.set_vbe(5, 3)
    board.memory.write(0xA1234, 4, 0x11223344)
    assert board.memory.read(FRAME_BUFFER + 0x31234, 4) == 0x11223344
    board.memory.write(FRAME_BUFFER + 0x3FFFF, 1, 0x5A)
    assert board.memory.read(0xAFFFF, 1) == 0x5A
    assert board.memory.read(0xB0000, 1) == 0xFF


def test_a_bank_beyond_the_memory_is_ignored(board: Board) -> None:
    board.start_vbe(800, 600, 8)
    board.set_vbe(5, 0xFF)
    board.set_vbe(5, 0x100)
    assert board.get_vbe(5) == 0xFF


def test_disabling_gives_the_window_back_to_the_maps(board: Board) -> None:
    board.memory.write(0xA0000, 1, 0x42)
    board.start_vbe(640, 480, 8)
    board.memory.write(0xA0000, 1, 0x99)
    board.set_vbe(4, 0)
    assert board.memory.read(0xA0000, 1) == 0x42


def test_enabling_clears_the_memory_unless_told_to_keep_it(board: Board) -> None:
    board.start_vbe(640, 480, 32)
    board.memory.write(FRAME_BUFFER, 4, 0x123456)
    board.start_vbe(640, 480, 32, 0x80)
    assert board.memory.read(FRAME_BUFFER, 4) == 0x123456
    board.start_vbe(640, 480, 32)
    assert board.memory.read(FRAME_BUFFER, 4) == 0


def test_memory_comes_into_being_bank_by_bank(board: Board) -> None:
    assert board.memory.read(FRAME_BUFFER + 0x123456, 8) == 0
    assert board.vga.state.vbe.memory == {}
    board.memory.write(FRAME_BUFFER + 0x2FFFE, 4, 0xAABBCCDD)
    assert sorted(board.vga.state.vbe.memory) == [2, 3]
    assert board.memory.read(FRAME_BUFFER + 0x2FFFE, 4) == 0xAABBCCDD


def test_the_frame_buffer_ends_at_its_size() -> None:
    linear = Vga(VirtualClock(), vbe_memory=0x20000).linear
    linear.mmio_write(0x1FFFC, 8, 0x1122334455667788)
    linear.mmio_write(0x20000, 1, 1)
    assert linear.mmio_read(0x1FFFC, 8) == 0xFFFFFFFFFFFFFFFF
    assert linear.mmio_read(0x1FFFC, 4) == 0
    assert linear.banks == {}


def test_4_bit_modes_use_the_maps_and_their_banks() -> None:
    board = Board()
    board.set_mode(MODE_12)
    board.start_vbe(1024, 768, 4)
    board.memory.write(0xA0000, 1, 0x11)
    board.set_vbe(5, 1)
    board.memory.write(0xA0000, 1, 0x22)
    assert board.memory.read(0xA0000, 1) == 0x22
    board.set_vbe(5, 0)
    assert board.memory.read(0xA0000, 1) == 0x11
    board.set_vbe(5, 0x40)
    assert board.get_vbe(5) == 0
    board.start_vbe(1024, 768, 4)
    assert board.memory.read(0xA0000, 1) == 0


def test_8_bit_dac_holds_whole_bytes(board: Board) -> None:
    board.set_vbe(4, 0x20)
    board.set_colour(1, 0xFF, 0x80, 0x41)
    board.outb(0x3C7, 1)
    assert [board.inb(0x3C9) for _ in range(3)] == [0xFF, 0x80, 0x41]


def test_bytes_at_the_vbe_ports_do_not_answer(board: Board) -> None:
    assert (board.inb(0x1CE), board.inb(0x1CF)) == (0xFF, 0xFF)
