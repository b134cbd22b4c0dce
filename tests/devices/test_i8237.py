"""8237A pair against the rules of the Intel data sheet (231466) and the wiring of the PC."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.shared_bus import bus
from portvisor.devices.dma_pages import DmaPages
from portvisor.devices.i8237 import DmaController, DmaTransfer
from portvisor.ports import Ram, RamRegion
from portvisor.testing import DeviceSuite

READ, WRITE, VERIFY, AUTO, DOWN = 0x08, 0x04, 0x00, 0x10, 0x20
PAGES = {0: 0x87, 1: 0x83, 2: 0x81, 3: 0x82, 5: 0x8B, 6: 0x89, 7: 0x8A}


class TestGeneric(DeviceSuite):
    def make(self) -> DmaController:
        return DmaController(alias=True)


class Board:
    def __init__(self, *, alias: bool = False) -> None:
        self.dma = DmaController(alias=alias)
        self.pages = DmaPages(self.dma)
        self.space = bus(self.dma, self.pages)
        self.bytes = bytearray(0x100000)
        self.memory = Ram(RamRegion(0, memoryview(self.bytes)))

    def out(self, port: int, *values: int) -> None:
        for value in values:
            self.space.write(port, 1, value)

    def inb(self, port: int) -> int:
        return self.space.read(port, 1)

    def word(self, port: int) -> int:
        low = self.inb(port)
        return low | self.inb(port) << 8

    def open_cascade(self) -> None:
        self.out(0xD6, 0xC0)
        self.out(0xD4, 0x00)

    def program(self, channel: int, address: int, count: int, mode: int) -> None:
        """What a driver does: mask, mode, flip-flop, address, page, count - 1, unmask. Units, not bytes."""
        base, step = (0x00, 1) if channel < 4 else (0xC0, 2)
        index = channel & 3
        self.out(base + 0xA * step, 4 | index)
        self.out(base + 0xB * step, mode | index)
        self.out(base + 0xC * step, 0)
        self.out(base + 2 * index * step, address & 0xFF, address >> 8 & 0xFF)
        self.out(base + (2 * index + 1) * step, count - 1 & 0xFF, count - 1 >> 8)
        self.out(base + 0xA * step, index)

    def current(self, channel: int) -> tuple[int, int]:
        """(address, count) as read."""
        base, step = (0x00, 1) if channel < 4 else (0xC0, 2)
        index = channel & 3
        self.out(base + 0xC * step, 0)
        return self.word(base + 2 * index * step), self.word(base + (2 * index + 1) * step)


@pytest.fixture
def board() -> Board:
    board = Board()
    board.open_cascade()
    return board


class TestRegisters:
    def test_flip_flop_selects_low_then_high_and_is_shared_by_all_registers(self, board: Board) -> None:
        board.out(0x0C, 0)
        board.out(0x00, 0x34)
        board.out(0x02, 0x56)
        assert board.dma.state.controllers[0].channels[0].address == 0x0034
        assert board.dma.state.controllers[0].channels[1].address == 0x5600

    def test_clear_flip_flop(self, board: Board) -> None:
        board.out(0x00, 0x11)
        board.out(0x0C, 0x00)
        board.out(0x00, 0x34, 0x12)
        assert board.word(0x00) == 0x1234

    def test_base_and_current_are_written_together(self, board: Board) -> None:
        board.program(2, 0x1234, 0x100, WRITE)
        assert board.current(2) == (0x1234, 0x00FF)

    def test_masks_are_set_by_reset_and_master_clear(self, board: Board) -> None:
        assert board.inb(0x0F) == 0x0F
        board.out(0x0E, 0)
        assert board.inb(0x0F) == 0x00
        board.out(0x0D, 0)
        assert board.inb(0x0F) == 0x0F

    def test_single_mask_and_all_masks(self, board: Board) -> None:
        board.out(0x0F, 0x0A)
        assert board.inb(0x0F) == 0x0A
        board.out(0x0A, 0x01)
        board.out(0x0A, 0x06)
        assert board.inb(0x0F) == 0x0C

    def test_master_clear_clears_command_status_request_and_flip_flop(self, board: Board) -> None:
        board.program(1, 0, 1, WRITE)
        board.dma.transfer(1, board.memory, b"x")
        board.out(0x08, 0x04)
        board.out(0x09, 0x04)
        board.out(0x00, 0x11)
        board.out(0x0D, 0)
        assert board.inb(0x08) == 0
        board.out(0x00, 0x34, 0x12)
        assert board.word(0x00) == 0x1234
        board.out(0x0A, 0x00)
        assert board.dma.ready(0)

    def test_status_shows_requests_and_reading_it_clears_only_the_tc_bits(self, board: Board) -> None:
        board.program(2, 0, 1, WRITE)
        board.dma.request(3)
        board.dma.transfer(2, board.memory, b"x")
        assert board.inb(0x08) == 0x84
        assert board.inb(0x08) == 0x80
        board.dma.request(3, 0)
        assert board.inb(0x08) == 0x00

    def test_software_request_shows_until_it_is_cleared(self, board: Board) -> None:
        board.out(0x09, 0x05)
        assert board.inb(0x08) == 0x20
        board.out(0x09, 0x01)
        assert board.inb(0x08) == 0x00

    def test_dreq_sense_active_low(self, board: Board) -> None:
        board.dma.request(2)
        board.out(0x08, 0x40)
        assert board.inb(0x08) >> 4 == 0x0B

    def test_temporary_register_reads_0_and_write_only_ones_float(self, board: Board) -> None:
        assert board.inb(0x0D) == 0
        assert [board.inb(port) for port in (0x09, 0x0A, 0x0B, 0x0C, 0x0E)] == [0xFF] * 5

    def test_controller_2_has_its_registers_at_even_ports_and_odd_ones_repeat_them(self, board: Board) -> None:
        board.out(0xD8, 0)
        board.out(0xC4, 0x34)
        board.out(0xC5, 0x12)
        assert board.word(0xC4) == 0x1234

    def test_10_to_1f_repeat_controller_1_with_the_alias(self) -> None:
        board = Board(alias=True)
        board.out(0x1C, 0)
        board.out(0x14, 0x34, 0x12)
        assert board.word(0x04) == 0x1234
        assert [str(owned) for owned in board.dma.ports] == ["0000-001f : dma1", "00c0-00df : dma2"]

    def test_names(self) -> None:
        dma = DmaController()
        assert dma.register_name(0x05, 1, True) == "DMA1 channel 2 count"
        assert dma.register_name(0x20 + 0x04, 1, True) == "DMA2 channel 5 address"
        assert dma.register_name(0x08, 1, True) == "DMA1 command"
        assert dma.register_name(0x08, 1, False) == "DMA1 status"
        assert dma.register_name(0x20 + 0x16, 1, True) == "DMA2 mode"
        assert dma.register_name(0x0B, 1, False) == ""


class TestTransfers:
    def test_write_mode_stores_the_devices_bytes(self, board: Board) -> None:
        board.program(2, 0x1000, 4, WRITE)
        board.out(0x81, 0x03)
        assert board.dma.transfer(2, board.memory, b"abcd") == DmaTransfer(b"", 4, True)
        assert board.bytes[0x31000:0x31004] == b"abcd"

    def test_read_mode_gives_the_device_bytes_of_memory(self, board: Board) -> None:
        board.bytes[0x21000:0x21004] = b"wxyz"
        board.program(1, 0x1000, 4, READ)
        board.out(0x83, 0x02)
        assert board.dma.transfer(1, board.memory, length=4) == DmaTransfer(b"wxyz", 4, True)

    def test_verify_counts_and_moves_nothing(self, board: Board) -> None:
        board.program(1, 0x1000, 4, VERIFY)
        assert board.dma.transfer(1, board.memory, b"abcd") == DmaTransfer(b"", 4, True)
        assert not any(board.bytes)

    def test_transfer_stops_at_terminal_count(self, board: Board) -> None:
        board.program(1, 0x1000, 3, WRITE)
        assert board.dma.transfer(1, board.memory, b"abcdef").length == 3
        assert board.bytes[0x1000:0x1006] == b"abc\0\0\0"

    def test_several_pieces_make_one_block(self, board: Board) -> None:
        board.program(1, 0x1000, 6, WRITE)
        results = [board.dma.transfer(1, board.memory, piece) for piece in (b"ab", b"cd", b"ef")]
        assert [result.terminal_count for result in results] == [False, False, True]
        assert board.bytes[0x1000:0x1006] == b"abcdef"

    def test_current_registers_run_and_base_registers_stay(self, board: Board) -> None:
        board.program(1, 0x1000, 6, WRITE)
        board.dma.transfer(1, board.memory, b"ab")
        assert board.current(1) == (0x1002, 3)
        assert board.dma.state.controllers[0].channels[1].base_address == 0x1000

    def test_terminal_count_sets_the_mask_and_rolls_the_count_over(self, board: Board) -> None:
        board.program(1, 0x1000, 2, WRITE)
        board.dma.transfer(1, board.memory, b"ab")
        assert board.current(1) == (0x1002, 0xFFFF)
        assert board.inb(0x0F) >> 1 & 1
        assert board.dma.transfer(1, board.memory, b"cd") == DmaTransfer(b"", 0, False)

    def test_auto_initialize_reloads_and_leaves_the_mask_open(self, board: Board) -> None:
        board.program(1, 0x1000, 2, WRITE | AUTO)
        assert board.dma.transfer(1, board.memory, b"ab").terminal_count
        assert board.current(1) == (0x1000, 1)
        assert board.dma.transfer(1, board.memory, b"cd").terminal_count
        assert board.bytes[0x1000:0x1002] == b"cd"

    def test_decrement_goes_down(self, board: Board) -> None:
        board.program(1, 0x1003, 4, WRITE | DOWN)
        board.dma.transfer(1, board.memory, b"abcd")
        assert board.bytes[0x1000:0x1004] == b"dcba"
        assert board.current(1)[0] == 0x0FFF
        board.program(1, 0x1003, 4, READ | DOWN)
        assert board.dma.transfer(1, board.memory, length=4).data == b"abcd"

    def test_terminal_count_ends_a_software_request(self, board: Board) -> None:
        board.program(1, 0x1000, 1, WRITE)
        board.out(0x09, 0x05)
        board.dma.transfer(1, board.memory, b"a")
        assert board.inb(0x08) == 0x02

    def test_count_of_ffff_is_65536_transfers(self, board: Board) -> None:
        board.program(1, 0, 0x10000, WRITE)
        assert board.dma.transfer(1, board.memory, b"x" * 0x20000) == DmaTransfer(b"", 0x10000, True)

    def test_missing_bytes_are_the_floating_bus(self, board: Board) -> None:
        board.program(1, 0x1000, 4, WRITE)
        board.dma.transfer(1, board.memory, b"a", length=3)
        assert board.bytes[0x1000:0x1004] == b"a\xff\xff\0"


class TestAddressing:
    @pytest.mark.parametrize(("channel", "page_port"), PAGES.items())
    def test_each_channel_has_its_page_register(self, board: Board, channel: int, page_port: int) -> None:
        board.out(page_port, 0x04)
        board.program(channel, 0x0100, 1, WRITE)
        board.dma.transfer(channel, board.memory, b"ab")
        address = 0x40100 if channel < 4 else 0x40200
        assert board.bytes[address] == ord("a")

    def test_byte_channels_wrap_within_64_kib(self, board: Board) -> None:
        board.out(0x83, 0x01)
        board.program(1, 0xFFFE, 4, WRITE)
        board.dma.transfer(1, board.memory, b"abcd")
        assert board.bytes[0x1FFFE:0x20000] == b"ab"
        assert board.bytes[0x10000:0x10002] == b"cd"
        assert board.current(1)[0] == 0x0002

    def test_decrementing_wraps_downward(self, board: Board) -> None:
        board.out(0x83, 0x01)
        board.program(1, 0x0001, 4, WRITE | DOWN)
        board.dma.transfer(1, board.memory, b"abcd")
        assert board.bytes[0x10000:0x10002] == b"ba"
        assert board.bytes[0x1FFFE:0x20000] == b"dc"

    def test_word_channels_shift_the_address_and_ignore_page_bit_0(self, board: Board) -> None:
        board.out(0x8B, 0x03)
        board.program(5, 0x8000, 2, WRITE)
        assert board.dma.transfer(5, board.memory, b"abcd") == DmaTransfer(b"", 4, True)
        assert board.bytes[0x30000:0x30004] == b"abcd"

    def test_word_channels_wrap_within_128_kib(self, board: Board) -> None:
        board.out(0x8B, 0x02)
        board.program(5, 0xFFFF, 2, WRITE)
        board.dma.transfer(5, board.memory, b"abcd")
        assert board.bytes[0x3FFFE:0x40000] == b"ab"
        assert board.bytes[0x20000:0x20002] == b"cd"

    def test_word_channels_decrement_by_words(self, board: Board) -> None:
        board.program(5, 0x0101, 2, WRITE | DOWN)
        board.dma.transfer(5, board.memory, b"abcd")
        assert board.bytes[0x200:0x204] == b"cdab"

    def test_an_odd_byte_stays_with_the_device(self, board: Board) -> None:
        board.program(5, 0x0100, 4, WRITE)
        assert board.dma.transfer(5, board.memory, b"abc") == DmaTransfer(b"", 2, False)

    def test_addresses_without_memory_are_harmless(self, board: Board) -> None:
        board.out(0x83, 0xFF)
        board.program(1, 0, 4, READ)
        assert board.dma.transfer(1, board.memory, length=4).data == b"\xff" * 4


class TestReady:
    def test_masked_channel_is_not_served(self, board: Board) -> None:
        board.program(1, 0x1000, 4, WRITE)
        assert board.dma.ready(1)
        board.out(0x0A, 0x05)
        assert not board.dma.ready(1)

    def test_disabled_controller_serves_none(self, board: Board) -> None:
        board.program(1, 0x1000, 4, WRITE)
        board.out(0x08, 0x04)
        assert not board.dma.ready(1)

    def test_channels_0_to_3_need_the_cascade(self) -> None:
        board = Board()
        board.program(1, 0x1000, 4, WRITE)
        assert not board.dma.ready(1)
        board.open_cascade()
        assert board.dma.ready(1)
        board.out(0xD4, 0x04)
        assert not board.dma.ready(1)

    def test_channels_5_to_7_do_not(self) -> None:
        board = Board()
        board.program(5, 0x1000, 4, WRITE)
        assert board.dma.ready(5)

    def test_channel_in_cascade_mode_moves_nothing(self, board: Board) -> None:
        board.program(1, 0x1000, 4, WRITE | 0xC0)
        assert not board.dma.ready(1)
        assert board.dma.transfer(1, board.memory, b"abcd").length == 0

    @pytest.mark.parametrize("channel", [-1, 4, 8])
    def test_no_device_on_the_cascade(self, board: Board, channel: int) -> None:
        with pytest.raises(ValueError, match="0-3 and 5-7"):
            board.dma.request(channel)


class TestLife:
    def test_reset_masks_all_and_keeps_dreq(self, board: Board) -> None:
        board.dma.request(2)
        board.out(0x0E, 0)
        board.dma.reset()
        assert board.inb(0x0F) == 0x0F
        assert board.inb(0x08) == 0x40

    def test_restore(self, board: Board) -> None:
        board.program(1, 0x1000, 6, WRITE)
        board.dma.transfer(1, board.memory, b"ab")
        saved = board.dma.snapshot()
        board.dma.transfer(1, board.memory, b"cdef")
        board.dma.restore(saved)
        assert board.current(1) == (0x1002, 3)
        assert board.dma.transfer(1, board.memory, b"CDEF").terminal_count
        assert board.bytes[0x1000:0x1006] == b"abCDEF"


class TestWaitingDevice:
    def test_is_called_once_its_channel_is_ready(self, board: Board) -> None:
        calls: list[int] = []
        board.dma.connect(2, lambda: calls.append(2))
        board.program(2, 0x1000, 4, WRITE)
        assert not calls  # no request
        board.dma.request(2)
        board.out(0x0C, 0)
        assert calls == [2]

    @pytest.mark.parametrize(
        ("stop", "go"), [((0x0A, 6), (0x0A, 2)), ((0x08, 4), (0x08, 0)), ((0xD4, 4), (0xD4, 0))]
    )
    def test_waits_for_mask_enable_and_cascade(
        self, board: Board, stop: tuple[int, int], go: tuple[int, int]
    ) -> None:
        calls: list[int] = []
        board.program(2, 0x1000, 4, WRITE)
        board.out(*stop)
        board.dma.connect(2, lambda: calls.append(2))
        board.dma.request(2)
        board.out(0x0C, 0)
        assert not calls
        board.out(*go)
        assert calls == [2]

    def test_the_cascade_channel_is_refused(self, board: Board) -> None:
        with pytest.raises(ValueError, match="channel 4"):
            board.dma.connect(4, lambda: None)


class TestProperties:
    @settings(max_examples=80, deadline=None)
    @given(
        st.sampled_from(sorted(PAGES)),
        st.integers(0, 0xFFFF),
        st.integers(1, 40),
        st.booleans(),
        st.lists(st.integers(0, 50), max_size=6),
    )
    def test_what_is_written_is_read_back_in_the_same_order(
        self, channel: int, address: int, count: int, down: bool, pieces: list[int]
    ) -> None:
        """In any split into pieces, up or down, over a wrap: memory gives back what the device put there."""
        board = Board()
        board.open_cascade()
        unit = 1 if channel < 4 else 2
        direction = DOWN if down else 0
        sent = bytes(range(1, count * unit + 1))
        board.program(channel, address, count, WRITE | direction)
        at = 0
        for piece in [*pieces, len(sent)]:
            at += board.dma.transfer(channel, board.memory, sent[at : at + piece]).length
        while at < len(sent):
            at += board.dma.transfer(channel, board.memory, sent[at:]).length
        board.program(channel, address, count, READ | direction)
        assert board.dma.transfer(channel, board.memory, length=len(sent)) == DmaTransfer(sent, len(sent), True)
        assert len(board.bytes) - board.bytes.count(0) == len(sent)
