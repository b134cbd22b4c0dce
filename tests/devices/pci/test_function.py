"""PCI functions on a bus (PCI 3.0, chapter 6); the rule is in each test's docstring."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.pci.board import Board, Card
from portvisor.devices.pci import ROM_BAR, Bar, PciFunction, PciId
from portvisor.ports import Device, PortConflictError, PortRange
from portvisor.testing import DeviceSuite

IO, MEMORY, MASTER, INTX_DISABLE = 1, 2, 4, 0x400


class TestSuite(DeviceSuite):
    def make(self) -> Card:
        board = Board()
        card = Card({0: Bar.io(16, address=0xC000, fixed=True), 1: Bar.io(4, address=0xD000, fixed=True)})
        board.root.attach(card, 3)
        board.put(3, 4, IO, 2)
        assert len(card.ports) == 2
        return card


@pytest.fixture
def board() -> Board:
    return Board()


def plug(board: Board, bars: dict[int, Bar] | None = None, *, device: int = 3) -> Card:
    card = Card(bars)
    board.root.attach(card, device)
    return card


class TestHeader:
    def test_identity(self, board: Board) -> None:
        """6.2.1: vendor, device, revision, class; 6.2.4: subsystem."""
        plug(board)
        assert board.get(3, 0x00) == 0x56781234
        assert board.get(3, 0x08) == 0x02000003
        assert board.get(3, 0x2C) == 0x11001AF4
        assert board.get(3, 0x0E, 1) == 0

    def test_identity_is_read_only(self, board: Board) -> None:
        plug(board)
        for register in (0x00, 0x08, 0x2C):
            before = board.get(3, register)
            board.put(3, register, 0xFFFFFFFF)
            assert board.get(3, register) == before

    def test_an_instance_can_have_another_identity(self, board: Board) -> None:
        board.root.attach(PciFunction(identity=PciId(0x8086, 0x8D02, 0x010601), name="ahci"), 4)
        assert board.get(4, 0x00) == 0x8D028086

    def test_interrupt_line_is_a_scratch_register_and_the_pin_is_fixed(self, board: Board) -> None:
        """6.2.4."""
        plug(board)
        board.put(3, 0x3C, 0xFF0B, 2)
        assert board.get(3, 0x3C, 2) == 0x010B

    @pytest.mark.parametrize(
        ("bars", "bits"),
        [({}, 0), ({0: Bar.io(4)}, IO), ({0: Bar.memory(16)}, MEMORY), ({0: Bar.io(4), 2: Bar.memory64(16)}, 3)],
    )
    def test_command_offers_only_the_spaces_that_the_function_has(
        self, board: Board, bars: dict[int, Bar], bits: int
    ) -> None:
        """6.2.2: a function without I/O (memory) ranges need not implement the bit."""
        plug(board, bars)
        board.put(3, 4, 0x0003, 2)
        assert board.get(3, 4, 2) == bits

    def test_multifunction_bit_appears_with_the_second_function(self, board: Board) -> None:
        """6.2.1, header type bit 7."""
        plug(board)
        assert not board.get(3, 0x0E, 1) & 0x80
        board.root.attach(Card(), 3, 2)
        assert board.get(3, 0x0E, 1) & 0x80
        assert board.get(3, 0x00, function=2) == 0x56781234
        second = board.host.function_at(0, 3, 2)
        assert second is not None
        assert second.address == "0000:00:03.2"

    def test_multifunction_bit_does_not_depend_on_the_order_and_survives_reset(self, board: Board) -> None:
        board.root.attach(Card(), 3, 2)
        card = plug(board)
        card.reset()
        assert board.get(3, 0x0E, 1) & 0x80

    def test_a_64_bit_register_must_fit_into_the_header(self) -> None:
        with pytest.raises(ValueError, match="does not fit into the header"):
            Card({5: Bar.memory64(16)})

    def test_its_upper_half_is_no_register_of_its_own(self) -> None:
        with pytest.raises(ValueError, match="upper half of the 64-bit BAR 0"):
            Card({0: Bar.memory64(16), 1: Bar.io(4)})


class TestIoRanges:
    def test_sizing_protocol(self, board: Board) -> None:
        """6.2.5.1: write all ones, read back, the low bits that are 0 give the size."""
        plug(board, {0: Bar.io(32)})
        board.put(3, 0x10, 0xFFFFFFFF)
        assert board.get(3, 0x10) == 0xFFFFFFE1

    def test_an_unimplemented_register_reads_0(self, board: Board) -> None:
        plug(board, {0: Bar.io(32)})
        board.put(3, 0x14, 0xFFFFFFFF)
        assert board.get(3, 0x14) == 0

    def test_range_opens_with_command(self, board: Board) -> None:
        """6.2.2, bit 0: 0 disables the response to I/O accesses; state after RST# is 0."""
        card = plug(board, {0: Bar.io(32)})
        board.put(3, 0x10, 0xC000)
        assert board.owner(0xC000) == ""
        board.put(3, 4, IO, 2)
        assert [board.owner(port) for port in (0xBFFF, 0xC000, 0xC01F, 0xC020)] == ["", "card", "card", ""]
        assert board.space.read(0xC005, 1) == 0x05
        board.space.write(0xC004, 2, 0x1234)
        assert card.accesses == [("read", 0, 5, 1), ("write", 0, 4, 0x1234)]
        board.put(3, 4, 0, 2)
        assert board.owner(0xC000) == ""

    def test_range_moves_with_its_register(self, board: Board) -> None:
        plug(board, {0: Bar.io(32)})
        board.put(3, 4, IO, 2)
        board.put(3, 0x10, 0xC000)
        board.put(3, 0x10, 0xD000)
        assert (board.owner(0xC000), board.owner(0xD000)) == ("", "card")

    def test_byte_writes_move_it_too(self, board: Board) -> None:
        """3.2.2.3: any byte enables are valid."""
        plug(board, {0: Bar.io(32)})
        board.put(3, 4, IO, 2)
        board.put(3, 0x11, 0xC1, 1)
        assert board.owner(0xC100) == "card"

    def test_sizing_with_io_enabled_leaves_it_nowhere(self, board: Board) -> None:
        plug(board, {0: Bar.io(32)})
        board.put(3, 4, IO, 2)
        board.put(3, 0x10, 0xC000)
        board.put(3, 0x10, 0xFFFFFFFF)
        assert board.owner(0xC000) == ""
        assert not [owned for owned, device in board.space.ranges() if device.name == "card"]

    def test_a_fixed_range_stays_where_it_is(self, board: Board) -> None:
        plug(board, {4: Bar.io(32, address=0x3020, fixed=True)})
        board.put(3, 4, IO, 2)
        board.put(3, 0x20, 0xFFFFFFFF)
        assert board.get(3, 0x20) == 0xFFFFFFE1
        assert board.owner(0x3020) == "card"
        board.put(3, 0x20, 0xC000)
        assert board.get(3, 0x20) == 0x3021
        assert (board.owner(0x3020), board.owner(0xC000)) == ("card", "")

    def test_a_listing_shows_the_address_of_the_function(self, board: Board) -> None:
        card = plug(board, {0: Bar.io(32, name=""), 1: Bar.io(8, name="doorbells")})
        board.put(3, 4, IO, 2)
        board.put(3, 0x10, 0xC000)
        board.put(3, 0x14, 0xC100)
        assert [str(owned) for owned in card.ports] == ["c000-c01f : 0000:00:03.0", "c100-c107 : doorbells"]

    def test_register_names_tell_the_bar(self, board: Board) -> None:
        card = plug(board, {1: Bar.io(32)})
        board.put(3, 4, IO, 2)
        board.put(3, 0x14, 0xC000)
        owner = board.space.owner(0xC01C)
        assert owner is not None
        assert card.register_name(owner.offset, 1, False) == "BAR1+1c"

    def test_a_function_can_name_its_registers(self, board: Board) -> None:
        class Named(Card):
            def bar_register_name(self, bar: int, offset: int, size: int, write: bool) -> str:
                return "DOORBELL" if (bar, offset) == (1, 0x20) else ""

        card = Named({1: Bar.io(64)})
        assert card.register_name(2 << 16 | 0x20, 4, True) == "DOORBELL"
        assert card.register_name(2 << 16 | 0x24, 4, True) == "BAR1+24"

    def test_dwords_words_and_bytes_reach_the_range_whole(self, board: Board) -> None:
        card = plug(board, {0: Bar.io(32)})
        board.put(3, 0x10, 0xC000)
        board.put(3, 4, IO, 2)
        for size in (1, 2, 4):
            board.space.read(0xC004, size)
        assert card.accesses == [("read", 0, 4, 1), ("read", 0, 4, 2), ("read", 0, 4, 4)]

    def test_a_range_can_take_bytes_only(self, board: Board) -> None:
        card = plug(board, {0: Bar.io(32, sizes=(1,))})
        board.put(3, 0x10, 0xC000)
        board.put(3, 4, IO, 2)
        board.space.read(0xC004, 2)
        assert card.accesses == [("read", 0, 4, 1), ("read", 0, 5, 1)]

    def test_a_function_without_ports_is_on_the_space_for_snapshots(self, board: Board) -> None:
        assert plug(board) in board.space.devices()


class TestMemoryRanges:
    def test_memory_range(self, board: Board) -> None:
        """6.2.2, bit 1."""
        card = plug(board, {1: Bar.memory(0x1000)})
        board.put(3, 0x14, 0xFE000000)
        assert board.mmio.read(0xFE000004, 4) == 0xFFFFFFFF
        board.put(3, 4, MEMORY, 2)
        assert board.mmio.read(0xFE000004, 4) == 0x14
        board.mmio.write(0xFE000FFC, 4, 7)
        assert card.accesses == [("read", 1, 4, 4), ("write", 1, 0xFFC, 7)]

    def test_memory64_range_above_4_gib(self, board: Board) -> None:
        card = plug(board, {2: Bar.memory64(0x4000)})
        board.put(3, 4, MEMORY, 2)
        board.put(3, 0x18, 0x40000000)
        board.put(3, 0x1C, 0x00000008)
        assert board.mmio.read(0x8_40000008, 4) == 0x28
        assert [window.base for window in board.mmio.windows] == [0x8_40000000]
        assert card.accesses == [("read", 2, 8, 4)]

    def test_a_quadword_is_two_transfers(self, board: Board) -> None:
        """The bus has 32 data lines."""
        card = plug(board, {1: Bar.memory(0x1000)})
        board.put(3, 0x14, 0xFE000000)
        board.put(3, 4, MEMORY, 2)
        assert board.mmio.read(0xFE000000, 8) == 0x14_00000010
        board.mmio.write(0xFE000000, 8, 0x2_00000001)
        assert card.accesses[2:] == [("write", 1, 0, 1), ("write", 1, 4, 2)]

    def test_expansion_rom(self, board: Board) -> None:
        """6.2.5.2: the ROM answers if both its enable bit and COMMAND.MEM are set."""
        board.root.attach(PciFunction(rom=b"\x55\xaa" + bytes(3000), name="rom"), 5)
        board.put(5, 0x30, 0xFFFFFFFE)
        assert board.get(5, 0x30) == 0xFFFFF000
        board.put(5, 0x30, 0xFE000000)
        board.put(5, 4, MEMORY, 2)
        assert board.mmio.read(0xFE000000, 2) == 0xFFFF
        board.put(5, 0x30, 0xFE000001)
        assert board.mmio.read(0xFE000000, 2) == 0xAA55
        assert board.mmio.read(0xFE000FFE, 2) == 0xFFFF

    def test_a_rom_register_without_content_reads_ones(self, board: Board) -> None:
        board.root.attach(PciFunction(bars={ROM_BAR: Bar.rom(0x800)}, name="rom"), 5)
        board.put(5, 0x30, 0xFE000001)
        board.put(5, 4, MEMORY, 2)
        assert board.mmio.read(0xFE000000, 4) == 0xFFFFFFFF


class TestConflicts:
    def test_a_range_on_another_device_stays_unmapped_and_is_recorded(self, board: Board) -> None:
        card = plug(board, {0: Bar.io(32), 1: Bar.io(4)})
        board.put(3, 4, IO, 2)
        board.put(3, 0x14, 0xC100)
        board.put(3, 0x10, 0xCE0)
        assert board.owner(0xCFC) == "pci"
        assert board.owner(0xC100) == "card"
        assert len(card.conflicts) == 1
        assert "card" in card.conflicts[0]
        assert "pci" in card.conflicts[0]
        assert board.host.mapper.conflicts == {card: card.conflicts}

    def test_it_is_mapped_when_the_other_function_moves_away(self, board: Board) -> None:
        first = plug(board, {0: Bar.io(32)})
        second = Card({0: Bar.io(32)}, name="second")
        board.root.attach(second, 4)
        for device in (3, 4):
            board.put(device, 4, IO, 2)
            board.put(device, 0x10, 0xC000)
        assert board.owner(0xC000) == "card"
        assert second.conflicts
        board.put(3, 0x10, 0xC100)
        assert board.owner(0xC000) == "second"
        assert not first.conflicts
        assert not second.conflicts

    def test_two_ranges_of_one_function_on_one_place(self, board: Board) -> None:
        card = plug(board, {0: Bar.io(16), 1: Bar.io(16)})
        board.put(3, 4, IO, 2)
        board.put(3, 0x10, 0xC000)
        board.put(3, 0x14, 0xC000)
        assert len(card.ports) == 1
        assert len(card.conflicts) == 1

    def test_memory_conflicts_too(self, board: Board) -> None:
        card = plug(board, {0: Bar.memory(0x1000)})
        second = Card({0: Bar.memory(0x1000)}, name="second")
        board.root.attach(second, 4)
        for device in (3, 4):
            board.put(device, 4, MEMORY, 2)
            board.put(device, 0x10, 0xFE000000)
        assert second.conflicts
        board.put(3, 4, 0, 2)
        assert not second.conflicts
        board.mmio.read(0xFE000000, 4)
        assert not card.accesses
        assert second.accesses

    def test_conflicts_from_the_start_are_errors(self, board: Board) -> None:
        class Legacy(PciFunction):
            def port_ranges(self) -> tuple[PortRange, ...]:
                return (PortRange(0xCFC, 1, name="legacy"),)

        legacy = Legacy(name="legacy")
        with pytest.raises(PortConflictError, match=r"legacy.*pci"):
            board.root.attach(legacy, 5)
        assert legacy not in board.space.devices()
        assert board.get(5, 0) == 0xFFFFFFFF

    def test_a_refused_function_leaves_nothing_behind(self, board: Board) -> None:
        card = plug(board, {0: Bar.memory(0x1000)})
        board.put(3, 0x10, 0xFE001000)
        board.put(3, 4, MEMORY, 2)
        wired = {0: Bar.memory(0x1000, address=0xFE000000, fixed=True)}
        wired |= {1: Bar.memory(0x1000, address=0xFE001000, fixed=True)}
        refused = Card(wired, name="refused")
        refused.define(4, 2, MEMORY, MEMORY)
        with pytest.raises(PortConflictError, match="overlaps"):
            board.root.attach(refused, 5)
        assert [window.base for window in board.mmio.windows] == [0xFE001000]
        assert board.host.mapper.conflicts == {}
        assert refused not in board.space.devices()
        assert not card.conflicts


class TestLegacyPorts:
    def test_ports_beside_the_bars(self, board: Board) -> None:
        class Channel(PciFunction):
            def port_ranges(self) -> tuple[PortRange, ...]:
                return (PortRange(0x1F0, 8, name="ide0"),) if self.command & IO else ()

            def port_read(self, offset: int, size: int) -> int:
                return 0x50 + offset

        channel = Channel(bars={4: Bar.io(16)}, name="channel")
        board.root.attach(channel, 5)
        assert board.owner(0x1F7) == ""
        board.put(5, 4, IO, 2)
        assert board.space.read(0x1F7, 1) == 0x57


class TestCapabilities:
    def test_list(self, board: Board) -> None:
        """6.7: STATUS bit 4, pointer at 34h, each entry ID and next, dword aligned, 0 ends."""
        card = Card()
        first = card.add_capability(0x01, b"\x02\x00\x00\x00\x00\x00", writable=b"\x00\x00\x03\x01")
        second = card.add_capability(0x09, b"\x05xyz!")
        board.root.attach(card, 3)
        assert board.get(3, 6, 2) == 0x10
        assert board.get(3, 0x34, 1) == first == 0x40
        assert board.get(3, first, 2) == second << 8 | 0x01
        assert board.get(3, second, 2) == 0x09
        assert second % 4 == 0
        assert second >= first + 8

    def test_writable_bits(self, board: Board) -> None:
        card = Card()
        offset = card.add_capability(0x01, bytes(6), writable=b"\x00\x00\x03")
        board.root.attach(card, 3)
        board.put(3, offset + 4, 0xFFFFFFFF)
        assert board.get(3, offset + 4) == 0x03

    def test_a_fixed_place(self, board: Board) -> None:
        card = Card()
        assert card.add_capability(0x12, bytes(6), offset=0xA8) == 0xA8
        board.root.attach(card, 3)
        assert board.get(3, 0x34, 1) == 0xA8

    @pytest.mark.parametrize(("offset", "length"), [(0x3C, 2), (0x41, 2), (0xFC, 4)])
    def test_places_that_do_not_fit(self, offset: int, length: int) -> None:
        with pytest.raises(ValueError, match="does not fit at"):
            Card().add_capability(1, bytes(length), offset=offset)


class TestInterrupt:
    def test_pin_drives_its_line_and_status_bit_3(self, board: Board) -> None:
        """6.2.3, bit 3: reflects the state of the interrupt in the function."""
        card = plug(board)
        card.intx.set(1)
        assert [line.level for line in board.lines] == [0, 0, 0, 1]
        assert board.get(3, 6, 2) & 8
        card.intx.set(0)
        assert board.lines[3].level == 0
        assert not board.get(3, 6, 2) & 8

    def test_command_bit_10_disables_the_pin_but_not_the_status(self, board: Board) -> None:
        """6.2.2, bit 10."""
        card = plug(board)
        card.intx.set(1)
        board.put(3, 4, INTX_DISABLE, 2)
        assert board.lines[3].level == 0
        assert board.get(3, 6, 2) & 8
        board.put(3, 4, 0, 2)
        assert board.lines[3].level == 1

    def test_a_function_without_pin_has_no_disable_bit(self, board: Board) -> None:
        board.root.attach(Card(interrupt_pin=0), 3)
        board.put(3, 4, INTX_DISABLE, 2)
        assert board.get(3, 4, 2) == 0

    def test_pins_share_lines(self, board: Board) -> None:
        """2.2.6: level sensitive, wired-OR."""
        first = plug(board)
        second = plug(board, device=7)
        first.intx.set(1)
        second.intx.set(1)
        first.intx.set(0)
        assert board.lines[3].level == 1
        second.intx.set(0)
        assert board.lines[3].level == 0


class TestLifeCycle:
    def test_reset_closes_ranges_and_withdraws_the_interrupt(self, board: Board) -> None:
        card = plug(board, {0: Bar.io(32), 1: Bar.memory(0x1000)})
        board.put(3, 0x10, 0xC000)
        board.put(3, 0x14, 0xFE000000)
        board.put(3, 4, IO | MEMORY | MASTER, 2)
        card.intx.set(1)
        card.reset()
        assert board.owner(0xC000) == ""
        assert board.mmio.windows == ()
        assert board.lines[3].level == 0
        assert (board.get(3, 4), board.get(3, 0x10)) == (0, 1)

    def test_restore_brings_ranges_and_interrupt_back(self, board: Board) -> None:
        card = plug(board, {0: Bar.io(32), 1: Bar.memory(0x1000)})
        board.put(3, 0x10, 0xC000)
        board.put(3, 0x14, 0xFE000000)
        board.put(3, 4, IO | MEMORY, 2)
        card.intx.set(1)
        saved = card.snapshot()
        card.reset()
        card.restore(saved)
        assert board.owner(0xC000) == "card"
        assert board.mmio.read(0xFE000000, 1) == 0x10
        assert board.lines[3].level == 1

    def test_restore_in_any_order_when_functions_swapped_places(self, board: Board) -> None:
        cards = [plug(board, {0: Bar.io(32)}), Card({0: Bar.io(32)}, name="second")]
        board.root.attach(cards[1], 4)
        for device, base in ((3, 0xC000), (4, 0xC100)):
            board.put(device, 4, IO, 2)
            board.put(device, 0x10, base)
        saved = [card.snapshot() for card in cards]
        board.put(3, 0x10, 0xC200)
        board.put(4, 0x10, 0xC000)
        board.put(3, 0x10, 0xC100)
        for card, snapshot in zip(cards, saved, strict=True):
            card.restore(snapshot)
        assert (board.owner(0xC000), board.owner(0xC100)) == ("card", "second")
        assert board.host.mapper.conflicts == {}

    def test_bus_master_follows_command(self, board: Board) -> None:
        """6.2.2, bit 2."""
        card = plug(board)
        assert not card.bus_master
        board.put(3, 4, MASTER, 2)
        assert card.bus_master


class Doorbell(PciFunction):
    """A function with state of its own beside configuration space."""

    @dataclass
    class State(PciFunction.State):
        rung: int = 0

    state: State

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        self.state.rung += 1
        self.intx.set(1)


class TestSubclassState:
    def test_state_beside_configuration_space(self, board: Board) -> None:
        bell = Doorbell(bars={0: Bar.io(4)}, interrupt_pin=1, name="bell")
        board.root.attach(bell, 5)
        board.put(5, 0x10, 0xC000)
        board.put(5, 4, IO, 2)
        saved = bell.snapshot()
        board.space.write(0xC000, 1, 1)
        assert bell.state.rung == 1
        assert board.lines[1].level == 1
        bell.restore(saved)
        assert bell.state.rung == 0
        assert board.lines[1].level == 0
        bell.reset()
        assert bell.state == Doorbell.State(bytearray(bell.layout.initial))


class TestPlaces:
    def test_a_place_is_taken_once(self, board: Board) -> None:
        plug(board)
        with pytest.raises(ValueError, match=r"other: 00:03\.0 is taken by card"):
            board.root.attach(Card(name="other"), 3)

    def test_a_function_sits_in_one_place(self, board: Board) -> None:
        card = plug(board)
        with pytest.raises(ValueError, match=r"card is already at 0000:00:03\.0"):
            board.root.attach(card, 4)

    @pytest.mark.parametrize(("device", "function"), [(32, 0), (-1, 0), (0, 8)])
    def test_places_that_do_not_exist(self, board: Board, device: int, function: int) -> None:
        with pytest.raises(ValueError, match="no place"):
            board.root.attach(Card(), device, function)


class Blocker(Device):
    """Something on the ISA bus in the way."""

    ports = (PortRange(0xC010, 4, (1, 2, 4), "blocker"),)


WRITE = st.tuples(
    st.sampled_from([3, 4]),
    st.sampled_from([0x04, 0x10, 0x14, 0x18, 0x1C]),
    st.sampled_from([0, 1, 3, 0x400, 0xC000, 0xC008, 0xC010, 0xC020, 0xFE000000, 0xFE001000, 0xFFFFFFFF]),
)


@given(writes=st.lists(WRITE, max_size=40))
@settings(max_examples=200, deadline=None)
def test_the_map_is_what_the_registers_say(writes: list[tuple[int, int, int]]) -> None:
    """Any writes: every open range is mapped where its register says, or is in conflict; nothing else is mapped."""
    board = Board()
    board.space.attach(Blocker())
    cards = {}
    for device in (3, 4):
        bars = {0: Bar.io(32), 1: Bar.io(8), 2: Bar.memory64(0x1000)}
        cards[device] = Card(bars, name=f"card {device}")
        board.root.attach(cards[device], device)
    for device, register, value in writes:
        board.put(device, register, value)
    windows = {window.base: window.name for window in board.mmio.windows}
    expected_windows: dict[int, set[str]] = {}
    for device, card in cards.items():
        missing = 0
        for number, size in ((0, 32), (1, 8)):
            base = board.get(device, 0x10 + 4 * number) & ~3
            is_open = bool(board.get(device, 4) & IO) and 0 < base <= 0x10000 - size
            mapped = [owned for owned in card.ports if owned.offset >> 16 == number + 1]
            missing += is_open and not mapped
            assert len(mapped) <= is_open
            if mapped:
                assert mapped[0].base == base
                assert board.space.owner(base) == (card, mapped[0], mapped[0].offset)
        base = (board.get(device, 0x18) & ~0xF) | board.get(device, 0x1C) << 32
        if board.get(device, 4) & MEMORY and base not in (0, 0xFFFFF000) and base >> 32 != 0xFFFFFFFF:
            expected_windows.setdefault(base, set()).add(card.address)
            missing += windows.get(base) != card.address
        assert len(card.conflicts) == missing
    assert windows.keys() == expected_windows.keys()
    assert all(windows[base] in names for base, names in expected_windows.items())
