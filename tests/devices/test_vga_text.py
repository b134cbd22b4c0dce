"""The text screen: geometry, addresses, code page, attributes, cursor; and its rendering for a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.vga_board import MODE_3, MODE_12, Board
from portvisor.devices.vga import Cell, Cursor, TextScreen, Vga, render_ansi
from portvisor.devices.vga.geometry import map_addresses
from portvisor.devices.vga.text import CP437
from portvisor.ports import VirtualClock


@pytest.fixture
def board() -> Board:
    board = Board()
    board.set_mode(MODE_3)
    return board


def screen_of(board: Board) -> TextScreen:
    screen = board.vga.screen()
    assert screen is not None
    return screen


def test_mode_3_as_programmed_by_a_bios_is_80_by_25(board: Board) -> None:
    screen = screen_of(board)
    assert (screen.columns, screen.rows) == (80, 25)
    assert [len(line) for line in board.vga.text()] == [80] * 25


def test_text_stands_where_it_was_written(board: Board) -> None:
    board.put_text(0, 0, b"top left")
    board.put_text(24, 68, b"bottom right")
    assert board.vga.text()[0].startswith("top left ")
    assert board.vga.text()[24].endswith(" bottom right")


def test_set_text_mode_is_what_a_bios_programs() -> None:
    by_bios, direct = Board(), Vga(VirtualClock())
    by_bios.set_mode(MODE_3)
    direct.set_text_mode()
    bios = by_bios.vga.state
    assert (direct.state.misc, direct.state.sequencer, direct.state.graphics) == (
        bios.misc,
        bios.sequencer,
        bios.graphics,
    )
    assert (direct.state.crtc, direct.state.attribute, direct.state.attribute_index) == (
        bios.crtc,
        bios.attribute,
        bios.attribute_index,
    )


def test_set_text_mode_gives_a_blank_grey_on_black_screen() -> None:
    vga = Vga(VirtualClock())
    vga.set_text_mode()
    assert vga.text() == [" " * 80] * 25
    screen = vga.screen()
    assert screen is not None
    assert screen.cell(12, 40) == Cell(" ", 0x20, 7, 0, False, False)
    assert screen.palette[0:8:7] == ((0, 0, 0), (0xAA, 0xAA, 0xAA))
    assert screen.palette[6] == (0xAA, 0x55, 0x00)
    assert screen.palette[15] == (0xFF, 0xFF, 0xFF)


def test_set_text_mode_leaves_graphics_and_vbe() -> None:
    board = Board()
    board.set_mode(MODE_12)
    board.start_vbe(640, 480, 8)
    board.vga.set_text_mode()
    board.put_text(3, 4, b"back")
    assert board.vga.text()[3] == "    back".ljust(80)


def test_graphics_modes_have_no_text() -> None:
    board = Board()
    board.set_mode(MODE_12)
    assert board.vga.text() == []
    assert board.vga.screen() is None


def test_start_address_scrolls_the_screen(board: Board) -> None:
    board.put_text(3, 0, b"fourth")
    board.set_indexed(0x3D4, 0x0C, 240 >> 8)
    board.set_indexed(0x3D4, 0x0D, 240 & 0xFF)
    assert board.vga.text()[0].startswith("fourth")


def test_offset_register_sets_the_distance_of_rows(board: Board) -> None:
    board.set_indexed(0x3D4, 0x13, 64)
    board.put_text(1, 0, b"second", columns=128)
    assert board.vga.text()[1].startswith("second")


def test_rows_follow_the_character_height(board: Board) -> None:
    board.set_indexed(0x3D4, 0x09, 0x47)
    assert screen_of(board).rows == 50


def test_line_compare_restarts_at_address_0(board: Board) -> None:
    board.put_text(0, 0, b"status line")
    board.put_text(2, 0, b"window")
    board.set_indexed(0x3D4, 0x0D, 160)
    board.set_indexed(0x3D4, 0x11, 0)
    board.set_indexed(0x3D4, 0x07, 0x0F)
    board.set_indexed(0x3D4, 0x09, 0x0F)
    board.set_indexed(0x3D4, 0x18, 24 * 16 - 1 & 0xFF)
    board.set_indexed(0x3D4, 0x07, 0x1F)
    lines = board.vga.text()
    assert lines[0].startswith("window")
    assert lines[24].startswith("status line")
    assert len(lines) == 25


@pytest.mark.parametrize(
    ("mode", "underline", "expected"),
    [
        (0xE3, 0x00, [0x9FFF, 0xA000, 0xA001]),
        (0xA3, 0x00, [0x3FFF, 0x4001, 0x4003]),
        (0x83, 0x00, [0x3FFE, 0x4001, 0x4003]),
        (0xE3, 0x40, [0x7FFE, 0x8002, 0x8006]),
        (0xEB, 0x00, [0x9FFF, 0x9FFF, 0xA000]),
        (0xE3, 0x20, [0x9FFF, 0x9FFF, 0x9FFF]),
        (0xE2, 0x00, [0xBFFF, 0xA000, 0xA001]),
        (0xE1, 0x00, [0xDFFF, 0xE000, 0xE001]),
    ],
)
def test_crtc_addresses_in_byte_word_and_doubleword_mode(mode: int, underline: int, expected: list[int]) -> None:
    """Counter bits: byte mode as they are; word mode 13 or 15 on line 0; row scan bits on lines 13 and 14."""
    crtc = bytearray(25)
    crtc[0x17], crtc[0x14] = mode, underline
    assert map_addresses(crtc, 0x9FFF, 3, row_scan=3) == expected


def test_code_page_437_has_its_256_glyphs() -> None:
    assert len(CP437) == 256
    assert CP437[0x41] + CP437[0x03] + CP437[0x7F] + CP437[0xC9] + CP437[0xDB] == "A♥⌂╔█"
    assert {CP437[0x00], CP437[0x20], CP437[0xFF]} == {" "}
    assert len(set(CP437)) == 254
    assert all(character.isprintable() for character in CP437)


def test_attribute_bit_7_is_blink_or_bright_background(board: Board) -> None:
    board.put_text(0, 0, b"x", attribute=0x9E)
    assert screen_of(board).cell(0, 0) == Cell("x", 0x78, 0xE, 1, True, False)
    board.set_attribute(0x30, 0x04)
    assert screen_of(board).cell(0, 0) == Cell("x", 0x78, 0xE, 9, False, False)


def test_underline_shows_only_if_its_row_is_in_the_cell(board: Board) -> None:
    board.put_text(0, 0, b"uvw", attribute=0x01)
    board.put_text(0, 1, b"v", attribute=0x11)
    board.put_text(0, 2, b"w", attribute=0x89)
    assert not any(cell.underline for cell in screen_of(board).row(0))
    board.set_indexed(0x3D4, 0x14, 0x0D)
    assert [cell.underline for cell in screen_of(board).row(0)[:3]] == [True, False, True]


# --- cursor -----------------------------------------------------------------------------------------------------


def place_cursor(board: Board, location: int) -> None:
    board.set_indexed(0x3D4, 0x0E, location >> 8)
    board.set_indexed(0x3D4, 0x0F, location & 0xFF)


def test_cursor_location_is_a_character_address(board: Board) -> None:
    place_cursor(board, 3 * 80 + 17)
    assert screen_of(board).cursor == Cursor(3, 17, 13, 14)


def test_cursor_is_relative_to_the_start_address(board: Board) -> None:
    board.set_indexed(0x3D4, 0x0D, 80)
    place_cursor(board, 3 * 80 + 17)
    assert screen_of(board).cursor == Cursor(2, 17, 13, 14)


def test_cursor_outside_the_screen_is_none(board: Board) -> None:
    place_cursor(board, 25 * 80)
    assert screen_of(board).cursor is None


@pytest.mark.parametrize(("start", "end"), [(0x2D, 0x0E), (0x0E, 0x0D), (0x10, 0x1F)])
def test_cursor_off_upside_down_or_below_the_cell_is_none(board: Board, start: int, end: int) -> None:
    board.set_indexed(0x3D4, 0x0A, start)
    board.set_indexed(0x3D4, 0x0B, end)
    assert screen_of(board).cursor is None


def test_cursor_is_cut_to_the_cell(board: Board) -> None:
    board.set_indexed(0x3D4, 0x0A, 0)
    board.set_indexed(0x3D4, 0x0B, 0x1F)
    assert screen_of(board).cursor == Cursor(0, 0, 0, 15)


# --- any registers ------------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(crtc=st.binary(min_size=25, max_size=25), attribute=st.binary(min_size=21, max_size=21))
def test_any_crtc_contents_give_a_screen_and_a_picture(crtc: bytes, attribute: bytes) -> None:
    board = Board(vbe_memory=0)
    board.set_mode(MODE_3)
    board.vga.state.crtc[:] = crtc
    board.vga.state.attribute[:] = attribute
    screen = screen_of(board)
    assert screen.rows >= 1
    assert all(len(row) == screen.columns for row in screen.codes)
    assert board.vga.picture().width == 9 * screen.columns


# --- ANSI ---------------------------------------------------------------------------------------------------------


def plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)


def test_ansi_paints_every_row_once(board: Board) -> None:
    board.put_text(7, 0, b"hello")
    painted = render_ansi(screen_of(board))
    assert plain(painted) == "".join(board.vga.text())
    assert painted.count("\x1b[2J") == 1


def test_ansi_sends_only_rows_that_changed(board: Board) -> None:
    before = screen_of(board)
    board.put_text(7, 0, b"hello")
    painted = render_ansi(screen_of(board), before)
    assert plain(painted) == "hello" + " " * 75
    assert "\x1b[8;1H" in painted
    assert plain(render_ansi(before, before)) == ""


def test_ansi_repaints_all_when_the_size_changed(board: Board) -> None:
    before = screen_of(board)
    board.set_indexed(0x3D4, 0x09, 0x47)
    assert "\x1b[2J" in render_ansi(screen_of(board), before)


def test_ansi_swaps_red_and_blue(board: Board) -> None:
    board.put_text(0, 0, b"r", attribute=0x1C)
    assert "\x1b[0;91;44mr" in render_ansi(screen_of(board))


def test_ansi_marks_blink_and_underline(board: Board) -> None:
    board.set_indexed(0x3D4, 0x14, 0x0D)
    board.put_text(0, 0, b"b", attribute=0x81)
    assert "\x1b[0;4;5;34;40mb" in render_ansi(screen_of(board))


def test_ansi_true_colour_uses_the_guest_palette(board: Board) -> None:
    board.set_colour(0x3C, 63, 0, 21)
    board.put_text(0, 0, b"t", attribute=0x0C)
    assert "\x1b[0;38;2;255;0;85;48;2;0;0;0mt" in render_ansi(screen_of(board), true_colour=True)


def test_ansi_shows_the_cursor_in_place_or_hides_it(board: Board) -> None:
    place_cursor(board, 2 * 80 + 5)
    assert render_ansi(screen_of(board)).endswith("\x1b[3;6H\x1b[?25h")
    board.set_indexed(0x3D4, 0x0A, 0x20)
    painted = render_ansi(screen_of(board))
    assert painted.startswith("\x1b[?25l")
    assert "\x1b[?25h" not in painted
