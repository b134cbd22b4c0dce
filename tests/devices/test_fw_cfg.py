"""QEMU's fw_cfg specification; the rule is in each test's docstring."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.devices.fw_cfg import FILE_NAME_MAX, FwCfg, KernelImage, Key
from portvisor.ports import PortSpace, Ram, RamRegion
from portvisor.testing import DeviceSuite

ERROR, READ, SKIP, SELECT, WRITE = 1, 2, 4, 8, 16
REQUEST = 0x100


SPACE = PortSpace(strict=True)


def empty_space() -> PortSpace:
    """One port space for all tests of this module: making its tables anew takes longer than a test."""
    for device in SPACE.devices():
        SPACE.detach(device)
    return SPACE


class Board:
    """A device with 64 KiB of memory, driven as firmware does."""

    def __init__(self, base: int = 0x510) -> None:
        self.memory = bytearray(b"\xcc" * 0x10000)
        self.device = FwCfg(Ram(RamRegion(0, memoryview(self.memory))), base=base)
        self.space = empty_space()
        self.space.attach(self.device)
        self.base = base

    def select(self, key: int) -> None:
        self.space.write(self.base, 2, key)

    def data(self, count: int) -> bytes:
        return bytes(self.space.read(self.base + 1, 1) for _ in range(count))

    def dma(self, control: int, length: int, address: int, request: int = REQUEST) -> int:
        """Run a request; gives the control word that the device leaves."""
        self.memory[request : request + 16] = struct.pack(">IIQ", control, length, address)
        swapped = struct.unpack("<II", struct.pack(">Q", request))
        self.space.write(self.base + 4, 4, swapped[0])
        self.space.write(self.base + 8, 4, swapped[1])
        return int.from_bytes(self.memory[request : request + 4], "big")


@pytest.fixture
def board() -> Board:
    return Board()


class TestSuite(DeviceSuite):
    def make(self) -> FwCfg:
        device = FwCfg(Ram(RamRegion(0, memoryview(bytearray(0x1000)))))
        device.add_file("etc/writable", bytes(64), on_write=lambda content: None)
        return device


class TestDataRegister:
    def test_signature(self, board: Board) -> None:
        """Key 0000: "QEMU"."""
        board.select(Key.SIGNATURE)
        assert board.data(4) == b"QEMU"

    def test_interface_id(self, board: Board) -> None:
        """Key 0001: bit 0 traditional interface, bit 1 DMA."""
        board.select(Key.ID)
        assert board.data(4) == b"\x03\0\0\0"

    def test_without_dma_the_id_says_so_and_the_ports_are_open(self) -> None:
        device = FwCfg(Ram(), dma=False)
        space = PortSpace(strict=True)
        space.attach(device)
        space.write(0x510, 2, Key.ID)
        assert space.read(0x511, 1) == 1
        assert space.owner(0x514, 4) is None

    def test_reads_past_the_end_give_zeros(self, board: Board) -> None:
        """Data register: all reads beyond the item's size return 00."""
        board.device.add_item(Key.UUID, b"\x11\x22")
        board.select(Key.UUID)
        assert board.data(4) == b"\x11\x22\0\0"

    def test_an_unknown_item_reads_zeros(self, board: Board) -> None:
        board.select(0x3ABC)
        assert board.data(3) == bytes(3)

    def test_the_write_mode_bit_of_a_selector_selects_the_same_item(self, board: Board) -> None:
        """Selector register: bit 14 tells of writes through the data register, which are ignored."""
        board.select(0x4000 | Key.SIGNATURE)
        assert board.data(4) == b"QEMU"

    def test_selecting_rewinds(self, board: Board) -> None:
        """Selector register: setting it sets the data offset to zero."""
        board.select(Key.SIGNATURE)
        board.data(2)
        board.select(Key.SIGNATURE)
        assert board.data(1) == b"Q"

    def test_string_input_is_the_same_as_single_reads(self, board: Board) -> None:
        board.device.add_item(Key.UUID, bytes(range(1, 17)))
        board.select(Key.UUID)
        assert board.space.read_block(0x511, 1, 5) == bytes(range(1, 6))
        assert board.data(1) == b"\x06"
        assert board.space.read_block(0x511, 1, 20) == bytes(range(7, 17)) + bytes(10)

    def test_data_writes_are_ignored(self, board: Board) -> None:
        """Writes to the data register are treated as no-ops."""
        board.device.add_file("etc/w", b"old", on_write=lambda content: None)
        board.select(0x20)
        board.space.write(0x511, 1, 0x41)
        assert board.data(3) == b"old"

    def test_byte_write_to_the_selector_is_ignored(self, board: Board) -> None:
        """The selector has a width of 16 bits."""
        board.select(Key.ID)
        board.space.write(0x510, 1, 0)
        assert board.data(1) == b"\x03"

    def test_base_can_be_moved(self) -> None:
        board = Board(base=0x9510)
        board.select(Key.SIGNATURE)
        assert board.data(4) == b"QEMU"

    def test_the_signature_is_selected_after_reset(self, board: Board) -> None:
        board.select(Key.ID)
        board.data(1)
        board.device.reset()
        assert board.data(4) == b"QEMU"

    def test_the_selector_is_write_only(self, board: Board) -> None:
        assert board.space.read(0x510, 2) == 0xFFFF
        assert board.data(1) == b"Q"

    @pytest.mark.parametrize(
        ("key", "value"),
        [
            (Key.UUID, 0x02),
            (Key.RAM_SIZE, 0x03),
            (Key.NOGRAPHIC, 0x04),
            (Key.NB_CPUS, 0x05),
            (Key.KERNEL_ADDR, 0x07),
            (Key.KERNEL_SIZE, 0x08),
            (Key.INITRD_ADDR, 0x0A),
            (Key.INITRD_SIZE, 0x0B),
            (Key.NUMA, 0x0D),
            (Key.BOOT_MENU, 0x0E),
            (Key.MAX_CPUS, 0x0F),
            (Key.KERNEL_ENTRY, 0x10),
            (Key.KERNEL_DATA, 0x11),
            (Key.INITRD_DATA, 0x12),
            (Key.CMDLINE_ADDR, 0x13),
            (Key.CMDLINE_SIZE, 0x14),
            (Key.CMDLINE_DATA, 0x15),
            (Key.SETUP_ADDR, 0x16),
            (Key.SETUP_SIZE, 0x17),
            (Key.SETUP_DATA, 0x18),
            (Key.FILE_DIR, 0x19),
            (Key.ACPI_TABLES, 0x8000),
            (Key.SMBIOS_ENTRIES, 0x8001),
            (Key.IRQ0_OVERRIDE, 0x8002),
            (Key.E820_TABLE, 0x8003),
        ],
    )
    def test_well_known_selectors(self, key: Key, value: int) -> None:
        """qemu_fw_cfg.h of the public kernel interface; 8000 and up are x86's own."""
        assert key == value


class TestFiles:
    def test_directory(self, board: Board) -> None:
        """Key 0019: count (BE), then size (BE 32), select (BE 16), reserved, name[56]."""
        first = board.device.add_file("etc/e820", b"x" * 20)
        second = board.device.add_file("bootorder", b"/pci\0")
        board.select(Key.FILE_DIR)
        assert struct.unpack(">I", board.data(4)) == (2,)
        assert struct.unpack(">IHH56s", board.data(64)) == (20, first, 0, b"etc/e820".ljust(56, b"\0"))
        assert struct.unpack(">IHH56s", board.data(64)) == (5, second, 0, b"bootorder".ljust(56, b"\0"))

    def test_file_content_by_its_selector(self, board: Board) -> None:
        board.select(board.device.add_file("etc/x", b"content"))
        assert board.data(7) == b"content"

    def test_files_start_at_0020(self, board: Board) -> None:
        assert [board.device.add_file(name, b"") for name in ("a", "b")] == [0x20, 0x21]

    def test_replacing_a_file_keeps_its_selector(self, board: Board) -> None:
        key = board.device.add_file("a", b"1")
        assert board.device.add_file("a", b"22") == key
        assert board.device.files() == {"a": key}
        board.select(Key.FILE_DIR)
        assert struct.unpack(">II", board.data(8)) == (1, 2)

    def test_longest_name(self, board: Board) -> None:
        board.device.add_file("n" * FILE_NAME_MAX, b"")
        with pytest.raises(ValueError, match="need 1 to 55 ASCII characters"):
            board.device.add_file("n" * (FILE_NAME_MAX + 1), b"")

    @pytest.mark.parametrize("name", ["", "größe"])
    def test_bad_names(self, board: Board, name: str) -> None:
        with pytest.raises(ValueError, match="fw_cfg file name"):
            board.device.add_file(name, b"")

    def test_kernel_items(self, board: Board) -> None:
        """Keys 07-18: address, size and data of setup, kernel, command line and initrd."""
        board.device.add_kernel(
            KernelImage(b"setup", 0x10000, b"kernel", 0x100000, b"quiet", 0x20000, b"rd", 0x7000000)
        )
        values = {
            Key.SETUP_ADDR: 0x10000,
            Key.SETUP_SIZE: 5,
            Key.KERNEL_ADDR: 0x100000,
            Key.KERNEL_SIZE: 6,
            Key.KERNEL_ENTRY: 0x100000,
            Key.CMDLINE_ADDR: 0x20000,
            Key.CMDLINE_SIZE: 6,
            Key.INITRD_ADDR: 0x7000000,
            Key.INITRD_SIZE: 2,
        }
        for key, value in values.items():
            assert board.device.content(key) == value.to_bytes(4, "little")
        assert board.device.content(Key.CMDLINE_DATA) == b"quiet\0"
        assert board.device.content(Key.SETUP_DATA) == b"setup"
        assert board.device.content(Key.KERNEL_DATA) == b"kernel"
        assert board.device.content(Key.INITRD_DATA) == b"rd"


class TestDma:
    def test_signature_register(self, board: Board) -> None:
        """DMA address register reads 51 45 4D 55 20 43 46 47: "QEMU CFG"."""
        assert board.space.read(0x514, 4).to_bytes(4, "little") == b"QEMU"
        assert board.space.read(0x518, 4).to_bytes(4, "little") == b" CFG"
        assert bytes(board.space.read(0x514 + index, 1) for index in range(8)) == b"QEMU CFG"

    def test_select_and_read(self, board: Board) -> None:
        """Bit 3 selects the key in bits 31:16, bit 1 reads; 0 in control tells success."""
        assert board.dma(Key.SIGNATURE << 16 | SELECT | READ, 4, 0x200) == 0
        assert board.memory[0x200:0x205] == b"QEMU\xcc"

    def test_reads_go_on_where_the_last_ended(self, board: Board) -> None:
        board.dma(Key.SIGNATURE << 16 | SELECT | READ, 2, 0x200)
        board.dma(READ, 2, 0x300)
        assert board.memory[0x300:0x302] == b"MU"

    def test_skip(self, board: Board) -> None:
        """Bit 2 moves the offset without a transfer."""
        board.dma(Key.SIGNATURE << 16 | SELECT | SKIP, 3, 0)
        assert board.data(1) == b"U"

    @pytest.mark.parametrize("control", [0, ERROR])
    def test_a_request_without_a_command_moves_nothing(self, board: Board, control: int) -> None:
        board.select(Key.SIGNATURE)
        assert board.dma(control, 2, 0x200) == 0
        assert board.memory[0x200] == 0xCC
        assert board.data(1) == b"Q"

    def test_a_fill_longer_than_one_chunk_has_no_gaps(self) -> None:
        memory = bytearray(b"\xcc" * 0x280000)
        device = FwCfg(Ram(RamRegion(0, memoryview(memory))))
        memory[0:16] = struct.pack(">IIQ", SELECT | READ, 0x200000, 0x1000)
        device.write(8, 4, 0)
        assert memory[0x1000:0x1004] == b"QEMU"
        assert not any(memory[0x1004:0x201000])
        assert memory[0x201000] == 0xCC

    def test_reads_past_the_end_fill_with_zeros(self, board: Board) -> None:
        board.dma(Key.SIGNATURE << 16 | SELECT | READ, 8, 0x200)
        assert board.memory[0x200:0x209] == b"QEMU\0\0\0\0\xcc"

    def test_upper_half_of_the_address(self) -> None:
        """The write of bits 31:0 starts; bits 63:32 come before and are used once."""
        memory = bytearray(0x100)
        device = FwCfg(Ram(RamRegion(0x1_0000_0000, memoryview(memory))))
        space = PortSpace(strict=True)
        space.attach(device)
        memory[0:16] = struct.pack(">IIQ", SELECT | READ, 4, 0x1_0000_0040)
        space.write(0x514, 4, int.from_bytes(b"\0\0\0\1", "little"))
        space.write(0x518, 4, 0)
        assert memory[0x40:0x44] == b"QEMU"
        memory[0x40:0x44] = bytes(4)
        memory[0:16] = struct.pack(">IIQ", SELECT | READ, 4, 0x1_0000_0040)
        space.write(0x518, 4, 0)
        assert memory[0x40:0x44] == bytes(4)

    def test_write_to_a_writable_file(self, board: Board) -> None:
        """Bit 4 writes guest memory into the item."""
        told: list[bytes] = []
        key = board.device.add_file("etc/w", bytes(8), on_write=told.append)
        board.memory[0x200:0x204] = b"data"
        assert board.dma(key << 16 | SELECT | SKIP, 2, 0) == 0
        assert board.dma(WRITE, 4, 0x200) == 0
        assert told == [b"\0\0data\0\0"]
        assert board.device.content(key) == told[0]

    def test_write_to_a_read_only_item_is_an_error(self, board: Board) -> None:
        assert board.dma(Key.SIGNATURE << 16 | SELECT | WRITE, 4, 0x200) == ERROR
        assert board.dma(Key.SIGNATURE << 16 | SELECT | WRITE, 0, 0x200) == 0
        board.select(Key.SIGNATURE)
        assert board.data(4) == b"QEMU"

    def test_write_past_the_end_is_an_error_and_does_not_grow_the_item(self, board: Board) -> None:
        key = board.device.add_file("etc/w", bytes(4), on_write=lambda content: None)
        assert board.dma(key << 16 | SELECT | WRITE, 0xFFFFFFFF, 0x200) == ERROR
        assert len(board.device.content(key)) == 4

    def test_written_content_is_state_and_reset_takes_it_back(self, board: Board) -> None:
        key = board.device.add_file("etc/w", b"old!", on_write=lambda content: None)
        board.memory[0x200:0x204] = b"new!"
        board.dma(key << 16 | SELECT | WRITE, 4, 0x200)
        saved = board.device.snapshot()
        board.device.reset()
        assert board.device.content(key) == b"old!"
        board.device.restore(saved)
        assert board.device.content(key) == b"new!"

    def test_byte_writes_do_not_start(self, board: Board) -> None:
        before = bytes(board.memory)
        for index in range(8):
            board.space.write(0x514 + index, 1, 0)
        assert board.memory == before

    def test_a_request_outside_memory_is_harmless(self, board: Board) -> None:
        board.space.write(0x514, 4, 0xFFFFFFFF)
        board.space.write(0x518, 4, 0xFFFFFFFF)

    def test_a_length_of_4_gib_neither_allocates_nor_hangs(self, board: Board) -> None:
        """The guest's length is a loop bound in chunks, never an allocation."""
        assert board.dma(Key.SIGNATURE << 16 | SELECT | READ, 0xFFFFFFFF, 0x200) == 0
        assert board.memory[0x200:0x204] == b"QEMU"
        assert not any(board.memory[0x204:])


@given(
    content=st.binary(min_size=1, max_size=300),
    moves=st.lists(st.tuples(st.sampled_from(["read", "dma", "skip", "block"]), st.integers(0, 120)), max_size=12),
)
@settings(max_examples=100, deadline=None)
def test_every_way_of_reading_sees_one_stream(content: bytes, moves: list[tuple[str, int]]) -> None:
    board = Board()
    key = board.device.add_file("etc/x", content)
    board.select(key)
    offset = 0
    for kind, count in moves:
        expected = content[offset : offset + count].ljust(count, b"\0")
        match kind:
            case "read":
                assert board.data(count) == expected
            case "block":
                assert board.space.read_block(0x511, 1, count) == expected
            case "dma":
                assert board.dma(READ, count, 0x400) == 0
                assert board.memory[0x400 : 0x400 + count] == expected
            case _:
                assert board.dma(SKIP, count, 0) == 0
        offset = min(offset + count, len(content))
