"""Ports and registers of the VGA. Rules are those of IBM's "Video Subsystem" unless a test says otherwise."""

from __future__ import annotations

import pytest

from devices.vga_board import MODE_3, MODE_13, Board
from portvisor.devices.vga import Vga
from portvisor.devices.vga.registers import (
    ATTRIBUTE_MASKS,
    CRTC_MASKS,
    GRAPHICS_MASKS,
    SEQUENCER_MASKS,
)
from portvisor.ports import Device, IrqLine, PortSpace, VirtualClock
from portvisor.testing import DeviceSuite


class TestVgaDevice(DeviceSuite):
    def make(self) -> Device:
        self.clock = VirtualClock()
        return Vga(self.clock)


class TestVgaInTextMode(DeviceSuite):
    """Colour ports selected, memory on, interrupt line connected."""

    def make(self) -> Device:
        self.clock = VirtualClock()
        vga = Vga(self.clock, irq=IrqLine())
        vga.set_text_mode()
        return vga


class TestVgaWithoutExtras(DeviceSuite):
    def make(self) -> Device:
        self.clock = VirtualClock()
        return Vga(self.clock, mono_ports=False, vbe_memory=0)


@pytest.fixture
def board() -> Board:
    board = Board()
    board.outb(0x3C2, 0x67)
    return board


# --- construction and decode ------------------------------------------------------------------------------


def test_the_range_of_the_listing_is_named_vga_plus() -> None:
    assert str(Vga(VirtualClock()).ports[0]) == "03c0-03df : vga+"


def test_optional_ports_can_be_left_out() -> None:
    space = PortSpace()
    space.attach(Vga(VirtualClock(), mono_ports=False, vbe_memory=0))
    assert [str(owned) for owned, _ in space.ranges()] == ["03c0-03df : vga+"]


@pytest.mark.parametrize("size", [-0x10000, 0x1234, 512 << 20])
def test_vbe_memory_must_be_whole_banks(size: int) -> None:
    with pytest.raises(ValueError, match=r"must be a multiple of 64 KiB and at most 256 MiB"):
        Vga(VirtualClock(), vbe_memory=size)


def test_misc_bit_0_selects_3dx_or_3bx(board: Board) -> None:
    board.set_indexed(0x3D4, 0x0F, 0x42)
    assert board.inb(0x3B5) == 0xFF
    board.outb(0x3C2, 0x66)
    assert board.inb(0x3D5) == 0xFF
    assert board.inb(0x3B5) == 0x42
    board.outb(0x3D5, 0x99)
    assert board.inb(0x3B5) == 0x42


def test_the_unselected_status_port_does_not_reset_the_flip_flop(board: Board) -> None:
    board.outb(0x3C0, 0x10)
    board.inb(0x3BA)
    board.outb(0x3C0, 0x41)
    assert board.get_attribute(0x10) == 0x41


def test_undecoded_ports_float(board: Board) -> None:
    assert {board.inb(port) for port in (0x3CB, 0x3CD, 0x3D0, 0x3D8, 0x3D9, 0x3DF)} == {0xFF}


def test_subsystem_enable_off_leaves_only_its_own_port(board: Board) -> None:
    board.outb(0x3C3, 0)
    assert board.inb(0x3CC) == 0xFF
    assert board.memory.read(0xB8000, 1) == 0xFF
    assert board.inb(0x3C3) == 0
    board.outb(0x3C3, 1)
    assert board.inb(0x3CC) == 0x67


def test_a_word_out_writes_index_and_data_at_once(board: Board) -> None:
    board.outw(0x3D4, 0x120E)
    assert board.inb(0x3D4) == 0x0E
    assert board.inb(0x3D5) == 0x12


def test_a_word_in_reads_index_and_data_at_once(board: Board) -> None:
    board.outw(0x3C4, 0x0F02)
    assert board.inw(0x3C4) == 0x0F02


# --- general registers --------------------------------------------------------------------------------------


def test_misc_output_is_written_at_3c2_and_read_at_3cc(board: Board) -> None:
    assert board.inb(0x3CC) == 0x67


def test_feature_control_is_written_at_3da_and_read_at_3ca(board: Board) -> None:
    board.outb(0x3DA, 0xFF)
    assert board.inb(0x3CA) == 0x0B


def test_reset_selects_mono_ports_and_turns_memory_off(board: Board) -> None:
    board.vga.reset()
    assert board.inb(0x3CC) == 0
    assert board.inb(0x3D4) == 0xFF
    assert board.memory.read(0xA0000, 4) == 0xFFFFFFFF


# --- indexed registers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("port", "masks"), [(0x3C4, SEQUENCER_MASKS), (0x3CE, GRAPHICS_MASKS), (0x3D4, CRTC_MASKS)]
)
def test_registers_hold_exactly_their_bits(board: Board, port: int, masks: bytes) -> None:
    order = [0x11, *(index for index in range(len(masks)) if index != 0x11)] if port == 0x3D4 else range(len(masks))
    for index in order:
        board.set_indexed(port, index, 0)
        assert board.get_indexed(port, index) == 0
        if (port, index) != (0x3D4, 0x11):
            board.set_indexed(port, index, 0xFF)
            assert board.get_indexed(port, index) == masks[index]


def test_attribute_registers_hold_exactly_their_bits(board: Board) -> None:
    for index, mask in enumerate(ATTRIBUTE_MASKS):
        board.set_attribute(index, 0xFF)
        assert board.get_attribute(index) == mask


@pytest.mark.parametrize(("port", "index"), [(0x3C4, 5), (0x3C4, 7), (0x3CE, 9), (0x3D4, 0x19), (0x3D4, 0x1F)])
def test_registers_that_do_not_exist_read_0(board: Board, port: int, index: int) -> None:
    board.set_indexed(port, index, 0xFF)
    assert board.get_indexed(port, index) == 0


@pytest.mark.parametrize(("port", "bits"), [(0x3C4, 0x07), (0x3CE, 0x0F), (0x3D4, 0x1F)])
def test_index_registers_read_back(board: Board, port: int, bits: int) -> None:
    board.outb(port, 0xFF)
    assert board.inb(port) == bits


# --- CRTC protection ------------------------------------------------------------------------------------------


def test_crtc_protect_guards_registers_0_to_7(board: Board) -> None:
    for index in range(8):
        board.set_indexed(0x3D4, index, 0x21)
    board.set_indexed(0x3D4, 0x11, 0x80)
    for index in range(8):
        board.set_indexed(0x3D4, index, 0x42)
    assert [board.get_indexed(0x3D4, index) for index in range(7)] == [0x21] * 7


def test_crtc_protect_leaves_line_compare_bit_8_writable(board: Board) -> None:
    board.set_indexed(0x3D4, 7, 0x21)
    board.set_indexed(0x3D4, 0x11, 0x80)
    board.set_indexed(0x3D4, 7, 0xFF)
    assert board.get_indexed(0x3D4, 7) == 0x31
    board.set_indexed(0x3D4, 7, 0x00)
    assert board.get_indexed(0x3D4, 7) == 0x21


def test_crtc_protect_leaves_the_other_registers_writable(board: Board) -> None:
    board.set_indexed(0x3D4, 0x11, 0x80)
    board.set_indexed(0x3D4, 0x13, 0x28)
    assert board.get_indexed(0x3D4, 0x13) == 0x28


# --- attribute controller -------------------------------------------------------------------------------------


def test_attribute_flip_flop_alternates_index_and_data(board: Board) -> None:
    board.inb(0x3DA)
    for value in (0x10, 0x0C, 0x13, 0x08):
        board.outb(0x3C0, value)
    assert board.get_attribute(0x10) == 0x0C
    assert board.get_attribute(0x13) == 0x08


def test_reading_input_status_1_resets_the_flip_flop(board: Board) -> None:
    board.outb(0x3C0, 0x11)
    board.inb(0x3DA)
    board.outb(0x3C0, 0x12)
    board.outb(0x3C0, 0x0F)
    assert board.get_attribute(0x12) == 0x0F


def test_reads_do_not_move_the_flip_flop(board: Board) -> None:
    board.inb(0x3DA)
    board.outb(0x3C0, 0x12)
    board.inb(0x3C0)
    board.inb(0x3C1)
    board.outb(0x3C0, 0x05)
    assert board.get_attribute(0x12) == 0x05


def test_attribute_index_reads_back_with_the_palette_address_source(board: Board) -> None:
    board.inb(0x3DA)
    board.outb(0x3C0, 0xFF)
    assert board.inb(0x3C0) == 0x3F


def test_palette_registers_are_locked_while_the_display_owns_them(board: Board) -> None:
    board.set_attribute(0x03, 0x15)
    board.set_attribute(0x23, 0x2A)
    assert board.get_attribute(0x03) == 0x15


def test_registers_10_and_up_are_writable_while_the_display_owns_the_palette(board: Board) -> None:
    board.set_attribute(0x33, 0x08)
    assert board.get_attribute(0x13) == 0x08


# --- DAC --------------------------------------------------------------------------------------------------------


def test_dac_write_index_steps_after_three_components(board: Board) -> None:
    board.outb(0x3C8, 0xFF)
    for level in (1, 2, 3, 4, 5, 6):
        board.outb(0x3C9, level)
    assert board.inb(0x3C8) == 1
    board.outb(0x3C7, 0xFF)
    assert [board.inb(0x3C9) for _ in range(6)] == [1, 2, 3, 4, 5, 6]


def test_dac_components_have_6_bits(board: Board) -> None:
    board.set_colour(7, 0xFF, 0x40, 0x3F)
    board.outb(0x3C7, 7)
    assert [board.inb(0x3C9) for _ in range(3)] == [0x3F, 0x00, 0x3F]


def test_dac_stores_nothing_before_the_third_component(board: Board) -> None:
    board.set_colour(5, 1, 2, 3)
    board.outb(0x3C8, 5)
    board.outb(0x3C9, 0x3F)
    board.outb(0x3C7, 5)
    assert [board.inb(0x3C9) for _ in range(3)] == [1, 2, 3]


def test_dac_state_tells_which_index_was_written_last(board: Board) -> None:
    board.outb(0x3C7, 0)
    assert board.inb(0x3C7) == 3
    board.outb(0x3C8, 0)
    assert board.inb(0x3C7) == 0


def test_a_new_index_restarts_at_red(board: Board) -> None:
    board.outb(0x3C8, 9)
    board.outb(0x3C9, 0x3F)
    board.set_colour(9, 1, 2, 3)
    board.outb(0x3C7, 9)
    assert board.inb(0x3C9) == 1


def test_reading_prefetches_so_the_address_is_one_ahead(board: Board) -> None:
    """IMS G171: a write to the read index loads the colour and steps the address."""
    board.outb(0x3C7, 0x20)
    assert board.inb(0x3C8) == 0x21


def test_pel_mask_is_read_write_and_ff_after_reset(board: Board) -> None:
    assert board.inb(0x3C6) == 0xFF
    board.outb(0x3C6, 0x0F)
    assert board.inb(0x3C6) == 0x0F


# --- names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "size", "write", "name"),
    [
        (0x02, 1, True, "Miscellaneous Output"),
        (0x02, 1, False, "Input Status 0"),
        (0x07, 1, False, "DAC State"),
        (0x05, 1, True, "Map Mask"),
        (0x04, 2, True, "Sequencer Address"),
        (0x15, 1, True, "Cursor Location Low"),
        (0x35, 1, True, "Cursor Location Low"),
        (0x1A, 1, False, "Input Status 1"),
        (0x41, 2, False, "Bank"),
        (0x10, 1, False, ""),
    ],
)
def test_register_names_follow_the_index(board: Board, offset: int, size: int, write: bool, name: str) -> None:
    board.outb(0x3C4, 2)
    board.outb(0x3D4, 0x0F)
    board.ports.write(0x1CE, 2, 5)
    assert board.vga.register_name(offset, size, write) == name


# --- change counter, snapshots ------------------------------------------------------------------------------------


def test_generation_grows_only_when_something_was_written(board: Board) -> None:
    before = board.vga.generation
    assert board.vga.generation == before
    board.inb(0x3DA)
    board.memory.read(0xB8000, 2)
    assert board.vga.generation == before
    board.memory.write(0xB8000, 2, 0x0741)
    after = board.vga.generation
    assert after > before
    board.set_colour(0, 0, 0, 1)
    assert board.vga.generation > after


def test_generation_sees_the_linear_frame_buffer_and_restore(board: Board) -> None:
    saved = board.vga.snapshot()
    before = board.vga.generation
    board.vga.linear.mmio_write(0, 4, 1)
    after = board.vga.generation
    assert after > before
    board.vga.restore(saved)
    assert board.vga.generation > after


def test_snapshot_owns_memory_and_restores_the_memory_paths() -> None:
    board = Board()
    board.set_mode(MODE_3)
    board.put_text(0, 0, b"before")
    saved = board.vga.snapshot()
    board.put_text(0, 0, b"after!")
    board.set_mode(MODE_13)
    board.memory.write(0xA0000, 4, 0x01020304)
    board.vga.restore(saved)
    assert board.vga.text()[0].startswith("before")
    board.put_text(0, 6, b" and on")
    assert board.vga.text()[0].startswith("before and on")
    board.vga.restore(saved)
    assert board.vga.text()[0].rstrip() == "before"


def test_snapshot_covers_vbe_memory() -> None:
    board = Board()
    board.start_vbe(64, 64, 32)
    board.vga.linear.mmio_write(0, 4, 0x112233)
    saved = board.vga.snapshot()
    board.vga.linear.mmio_write(0, 4, 0)
    board.vga.linear.mmio_write(0x50000, 4, 7)
    board.vga.restore(saved)
    assert board.vga.linear.mmio_read(0, 4) == 0x112233
    assert board.vga.snapshot() == saved
