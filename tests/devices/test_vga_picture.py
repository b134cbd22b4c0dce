"""Pictures of text, planar, CGA, 256-colour and VBE modes, and the PNG file."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import pytest

from devices.vga_board import FRAME_BUFFER, MODE_3, MODE_4, MODE_12, MODE_13, Board, Mode
from portvisor.devices.vga.mode3 import ega_palette

BLACK, BLUE, GREY, WHITE = (0, 0, 0), (0, 0, 0xAA), (0xAA, 0xAA, 0xAA), (0xFF, 0xFF, 0xFF)


def board_in(mode: Mode) -> Board:
    board = Board()
    board.set_mode(mode)
    board.vga.state.dac.palette[:] = ega_palette()
    return board


def row_of(board: Board, y: int, count: int) -> list[tuple[int, int, int]]:
    picture = board.vga.picture()
    return [picture.pixel(x, y) for x in range(count)]


# --- text -----------------------------------------------------------------------------------------------------


def text_board() -> Board:
    board = board_in(MODE_3)
    board.set_indexed(0x3D4, 0x0A, 0x20)
    return board


def test_text_is_720_by_400_with_9_dots_and_640_with_8() -> None:
    board = text_board()
    assert (board.vga.picture().width, board.vga.picture().height) == (720, 400)
    board.set_indexed(0x3C4, 1, 1)
    assert board.vga.picture().width == 640


def test_glyphs_come_from_the_loaded_font() -> None:
    board = text_board()
    board.load_font({0x41: bytes((0x81, 0xF0)) + bytes(14)})
    board.put_text(0, 1, b"A", attribute=0x17)
    assert row_of(board, 0, 18)[9:] == [GREY, *[BLUE] * 6, GREY, BLUE]
    assert row_of(board, 1, 18)[9:] == [GREY] * 4 + [BLUE] * 5


def test_ninth_dot_repeats_the_eighth_for_line_graphics_only() -> None:
    board = text_board()
    board.load_font({0xC4: bytes([0xFF] * 16), 0xB0: bytes([0xFF] * 16)})
    board.put_text(0, 0, b"\xc4\xb0")
    assert row_of(board, 0, 18) == [GREY] * 17 + [BLACK]
    board.set_attribute(0x30, 0x08)
    assert row_of(board, 0, 18) == [GREY] * 8 + [BLACK] + [GREY] * 8 + [BLACK]


def test_attribute_bit_3_selects_the_second_font() -> None:
    board = text_board()
    board.load_font({0x41: bytes([0xF0] * 16)})
    board.load_font({0x41: bytes([0x0F] * 16)}, block=0x2000)
    board.set_indexed(0x3C4, 3, 0x20)
    board.put_text(0, 0, b"A", attribute=0x07)
    board.put_text(0, 1, b"A", attribute=0x0F)
    assert row_of(board, 0, 18) == [GREY] * 4 + [BLACK] * 9 + [WHITE] * 4 + [BLACK]


def test_cursor_covers_its_lines_and_blinks() -> None:
    board = text_board()
    board.put_text(0, 0, b" ")
    board.set_indexed(0x3D4, 0x0A, 14)
    board.set_indexed(0x3D4, 0x0B, 15)
    picture = board.vga.picture()
    assert [picture.pixel(4, y) for y in (13, 14, 15, 16)] == [BLACK, GREY, GREY, BLACK]
    assert picture.pixel(9, 14) == BLACK
    assert board.vga.picture(blink_on=False).pixel(4, 14) == BLACK


def test_blinking_characters_vanish_in_the_off_phase() -> None:
    board = text_board()
    board.load_font({0x41: bytes([0xFF] * 16)})
    board.put_text(0, 0, b"A", attribute=0x97)
    assert board.vga.picture().pixel(0, 0) == GREY
    assert board.vga.picture(blink_on=False).pixel(0, 0) == BLUE


def test_underline_is_a_whole_row() -> None:
    board = text_board()
    board.set_indexed(0x3D4, 0x14, 0x0D)
    board.put_text(0, 0, b" ", attribute=0x01)
    assert row_of(board, 13, 10) == [BLUE] * 9 + [BLACK]
    assert row_of(board, 12, 9) == [BLACK] * 9


def test_panning_moves_text_left() -> None:
    board = text_board()
    board.load_font({0x41: bytes([0xFF] * 16)})
    board.put_text(0, 1, b"A")
    board.set_attribute(0x33, 0x00)
    assert row_of(board, 0, 18) == [BLACK] * 8 + [GREY] * 8 + [BLACK] * 2
    board.set_attribute(0x33, 0x08)
    assert row_of(board, 0, 18) == [BLACK] * 9 + [GREY] * 8 + [BLACK]


def test_preset_row_scan_scrolls_by_lines() -> None:
    board = text_board()
    board.load_font({0x41: bytes(4) + b"\xff" + bytes(11)})
    board.put_text(0, 0, b"A")
    board.set_indexed(0x3D4, 8, 4)
    assert board.vga.picture().pixel(0, 0) == GREY


# --- planar, CGA and 256 colours --------------------------------------------------------------------------------


def test_mode_12_is_640_by_480_of_16_colours() -> None:
    board = board_in(MODE_12)
    board.set_indexed(0x3C4, 2, 0x01)
    board.memory.write(0xA0000 + 80 * 479 + 79, 1, 0x01)
    board.set_indexed(0x3C4, 2, 0x0F)
    board.memory.write(0xA0000, 1, 0xA0)
    picture = board.vga.picture()
    assert (picture.width, picture.height) == (640, 480)
    assert picture.pixel(639, 479) == BLUE
    assert [picture.pixel(x, 0) for x in range(4)] == [WHITE, BLACK, WHITE, BLACK]


def test_plane_enable_masks_the_colour() -> None:
    board = board_in(MODE_12)
    board.memory.write(0xA0000, 1, 0x80)
    board.set_attribute(0x32, 0x01)
    assert board.vga.picture().pixel(0, 0) == BLUE


def test_pel_mask_masks_the_dac_address() -> None:
    board = board_in(MODE_12)
    board.memory.write(0xA0000, 1, 0x80)
    board.outb(0x3C6, 0x01)
    assert board.vga.picture().pixel(0, 0) == BLUE


def test_colour_select_replaces_dac_address_bits() -> None:
    board = board_in(MODE_12)
    board.memory.write(0xA0000, 1, 0x80)
    board.set_colour(0xBF, 63, 0, 0)
    board.set_colour(0x9F, 0, 63, 0)
    board.set_attribute(0x34, 0x08)
    assert board.vga.picture().pixel(0, 0) == (255, 0, 0)
    board.set_attribute(0x30, 0x81)
    board.set_attribute(0x34, 0x09)
    assert board.vga.picture().pixel(0, 0) == (0, 255, 0)


def test_panning_moves_graphics_left() -> None:
    board = board_in(MODE_12)
    board.memory.write(0xA0000, 2, 0x8080)
    board.set_attribute(0x33, 0x03)
    assert row_of(board, 0, 8) == [BLACK] * 5 + [WHITE] + [BLACK] * 2


def test_byte_panning_moves_graphics_by_characters() -> None:
    board = board_in(MODE_12)
    board.memory.write(0xA0002, 1, 0x80)
    board.set_indexed(0x3D4, 8, 0x40)
    assert board.vga.picture().pixel(0, 0) == WHITE


def test_split_screen_starts_at_address_0_and_can_stop_panning() -> None:
    board = board_in(MODE_12)
    board.memory.write(0xA0000, 1, 0x80)
    board.set_indexed(0x3D4, 0x0C, 0x80)
    board.set_indexed(0x3D4, 0x11, 0)
    board.set_indexed(0x3D4, 0x07, 0x2E)
    board.set_indexed(0x3D4, 0x09, 0x00)
    board.set_indexed(0x3D4, 0x18, 99)
    board.set_attribute(0x33, 0x01)
    assert [board.vga.picture().pixel(0, y) for y in (0, 99, 100)] == [BLACK, BLACK, BLACK]
    board.set_attribute(0x30, 0x21)
    assert [board.vga.picture().pixel(0, y) for y in (0, 99, 100, 101)] == [BLACK, BLACK, WHITE, BLACK]


def test_mode_13_is_320_by_200_of_256_colours() -> None:
    board = board_in(MODE_13)
    board.set_colour(0x5A, 63, 32, 1)
    board.memory.write(0xA0000 + 320 * 199 + 317, 1, 0x5A)
    picture = board.vga.picture()
    assert (picture.width, picture.height) == (320, 200)
    assert picture.pixel(317, 199) == (255, 130, 4)
    assert sum(picture.rgb) == 255 + 130 + 4


def test_unchained_256_colours_address_each_map_by_byte() -> None:
    board = board_in(MODE_13)
    for port, index, value in ((0x3C4, 4, 6), (0x3D4, 0x14, 0), (0x3D4, 0x17, 0xE3), (0x3C4, 2, 2)):
        board.set_indexed(port, index, value)
    board.memory.write(0xA0000 + 80, 1, 1)
    assert row_of(board, 1, 4) == [BLACK, BLUE, BLACK, BLACK]


def test_mode_4_interleaves_lines_and_packs_two_bits_a_pixel() -> None:
    board = board_in(MODE_4)
    for number, index in enumerate((0x13, 0x15, 0x17), 1):
        board.set_colour(index, number, 0, 0)
    board.memory.write(0xB8000, 2, 0x1BE4)
    board.memory.write(0xBA000, 1, 0x80)
    board.memory.write(0xB8050, 1, 0x40)
    picture = board.vga.picture()
    assert (picture.width, picture.height) == (320, 200)
    assert [picture.pixel(x, 0)[0] for x in range(8)] == [12, 8, 4, 0, 0, 4, 8, 12]
    assert picture.pixel(0, 1)[0] == 8
    assert picture.pixel(0, 2)[0] == 4


def test_screen_off_is_black_and_palette_access_shows_the_border() -> None:
    board = board_in(MODE_12)
    board.memory.write(0xA0000, 1, 0xFF)
    board.set_attribute(0x11, 0x01)
    board.inb(0x3DA)
    board.outb(0x3C0, 0x00)
    assert set(row_of(board, 0, 640)) == {BLUE}
    board.set_indexed(0x3C4, 1, 0x21)
    assert set(row_of(board, 0, 640)) == {BLACK}


# --- VBE ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("depth", "size", "value", "expected"),
    [
        (15, 2, 0x7C00, (255, 0, 0)),
        (15, 2, 0x0210, (0, 132, 132)),
        (16, 2, 0xF800, (255, 0, 0)),
        (16, 2, 0x0410, (0, 130, 132)),
        (16, 2, 0x07E0, (0, 255, 0)),
        (24, 4, 0x123456, (0x12, 0x34, 0x56)),
        (32, 4, 0xFF123456, (0x12, 0x34, 0x56)),
    ],
)
def test_true_colour_pixels(depth: int, size: int, value: int, expected: tuple[int, int, int]) -> None:
    board = Board()
    board.start_vbe(64, 48, depth)
    pitch, step = 64 * ((depth + 7) // 8), (depth + 7) // 8
    board.memory.write(FRAME_BUFFER + 47 * pitch + 5 * step, size, value)
    picture = board.vga.picture()
    assert (picture.width, picture.height) == (64, 48)
    assert picture.pixel(5, 47) == expected
    assert sum(picture.rgb) == sum(expected)


def test_8_bit_vbe_pixels_go_through_the_dac() -> None:
    board = Board()
    board.start_vbe(800, 600, 8)
    board.set_colour(0x80, 0, 63, 0)
    board.memory.write(FRAME_BUFFER + 800 * 599 + 799, 1, 0x80)
    assert board.vga.picture().pixel(799, 599) == (0, 255, 0)


def test_8_bit_dac_levels_are_shown_whole() -> None:
    board = Board()
    board.start_vbe(64, 64, 8, 0x20)
    board.set_colour(0, 0x81, 0x42, 0xFF)
    assert board.vga.picture().pixel(0, 0) == (0x81, 0x42, 0xFF)


def test_vbe_offsets_move_the_view() -> None:
    board = Board()
    board.start_vbe(64, 64, 32)
    board.set_vbe(6, 100)
    board.set_vbe(8, 10)
    board.set_vbe(9, 20)
    board.memory.write(FRAME_BUFFER + 4 * (21 * 100 + 12), 4, 0xFFFFFF)
    assert board.vga.picture().pixel(2, 1) == WHITE


def test_4_bit_vbe_pixels_come_from_the_maps_of_all_banks() -> None:
    board = board_in(MODE_12)
    board.start_vbe(1024, 768, 4)
    board.memory.write(0xA0000, 1, 0x40)
    board.set_vbe(5, 1)
    board.memory.write(0xA0000, 1, 0x80)
    picture = board.vga.picture()
    assert [picture.pixel(x, 0) for x in range(3)] == [BLACK, WHITE, BLACK]
    assert picture.pixel(0, 512) == WHITE
    board.set_vbe(6, 1032)
    board.set_vbe(8, 1)
    assert board.vga.picture().pixel(0, 0) == WHITE


# --- PNG ----------------------------------------------------------------------------------------------------------


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    found, at = [], 8
    while at < len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        assert struct.unpack_from(">I", data, at + 8 + length)[0] == zlib.crc32(kind + body)
        found.append((kind, body))
        at += 12 + length
    return found


def test_png_holds_the_pixels(tmp_path: Path) -> None:
    board = board_in(MODE_13)
    board.memory.write(0xA0000, 4, 0x01020407)
    picture = board.vga.picture()
    picture.save(tmp_path / "screen.png")
    chunks = png_chunks((tmp_path / "screen.png").read_bytes())
    assert [kind for kind, _ in chunks] == [b"IHDR", b"IDAT", b"IEND"]
    assert chunks[0][1] == struct.pack(">IIBBBBB", 320, 200, 8, 2, 0, 0, 0)
    lines = zlib.decompress(chunks[1][1])
    assert len(lines) == 200 * (1 + 320 * 3)
    assert b"".join(lines[961 * y + 1 : 961 * (y + 1)] for y in range(200)) == picture.rgb
    assert {lines[961 * y] for y in range(200)} == {0}


def test_png_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    picture = board_in(MODE_13).vga.picture()
    with pytest.raises(OSError, match="missing"):
        picture.save(tmp_path / "missing" / "screen.png")
    picture.save(tmp_path / "screen.png")
    assert [path.name for path in tmp_path.iterdir()] == ["screen.png"]
