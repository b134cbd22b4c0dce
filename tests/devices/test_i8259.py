"""8259A pair against the rules of the Intel data sheet (231468), each test named after one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.shared_bus import bus
from portvisor.devices.i8259 import PicPair
from portvisor.ports import IrqLine
from portvisor.testing import DeviceSuite


class TestGeneric(DeviceSuite):
    def make(self) -> PicPair:
        return PicPair(IrqLine(), aliases=True)


class Board:
    """A PIC pair on a port space, with short words for what tests do to it."""

    def __init__(self, *, aliases: bool = False) -> None:
        self.intr = IrqLine()
        self.pic = PicPair(self.intr, aliases=aliases)
        self.space = bus(self.pic)

    def out(self, port: int, *values: int) -> None:
        for value in values:
            self.space.write(port, 1, value)

    def inb(self, port: int) -> int:
        return self.space.read(port, 1)

    def init(self, icw4: int = 0x01, icw1: int = 0x11, slave_icw4: int = 0x01) -> None:
        """The PC's initialization: bases 08 and 70, slave on IR2, nothing masked."""
        self.out(0x20, icw1)
        self.out(0x21, 0x08, 0x04, icw4)
        self.out(0xA0, icw1)
        self.out(0xA1, 0x70, 0x02, slave_icw4)

    def raise_irq(self, *irqs: int) -> None:
        for irq in irqs:
            self.pic.input(irq).set(1)

    def lower_irq(self, *irqs: int) -> None:
        for irq in irqs:
            self.pic.input(irq).set(0)

    def irr(self, port: int = 0x20) -> int:
        self.out(port, 0x0A)
        return self.inb(port)

    def isr(self, port: int = 0x20) -> int:
        self.out(port, 0x0B)
        return self.inb(port)


@pytest.fixture
def board() -> Board:
    board = Board()
    board.init()
    return board


class TestInitialization:
    def test_int_stays_low_until_the_sequence_is_complete(self) -> None:
        board = Board()
        board.raise_irq(1)
        assert not board.pic.pending
        board.out(0x20, 0x11)
        board.lower_irq(1)
        board.raise_irq(1)
        for icw in (0x08, 0x04):
            board.out(0x21, icw)
            assert not board.pic.pending
        board.out(0x21, 0x01)
        assert board.pic.pending

    def test_icw1_clears_the_edge_sense_so_a_line_that_is_high_must_rise_again(self) -> None:
        board = Board()
        board.raise_irq(3)
        board.init()
        assert board.irr() == 0
        board.lower_irq(3)
        board.raise_irq(3)
        assert board.irr() == 0x08

    def test_icw1_clears_imr_isr_priority_special_mask_and_selects_irr(self, board: Board) -> None:
        board.out(0x21, 0xAA)
        board.raise_irq(0)
        board.pic.acknowledge()
        board.out(0x20, 0xC3, 0x68, 0x0B)
        board.out(0x20, 0x11)
        board.out(0x21, 0x08, 0x04, 0x01)
        assert board.inb(0x21) == 0
        board.raise_irq(4, 7)
        assert board.inb(0x20) == 0x90, "IRR is what A0 = 0 reads"
        assert board.isr() == 0
        assert board.pic.acknowledge() == 0x0C, "IR7 has the lowest priority again"

    def test_icw2_takes_the_upper_five_bits(self) -> None:
        board = Board()
        board.out(0x20, 0x11)
        board.out(0x21, 0x37, 0x04, 0x01)
        board.raise_irq(1)
        assert board.pic.acknowledge() == 0x31

    def test_sngl_skips_icw3(self) -> None:
        board = Board()
        board.out(0x20, 0x13)
        board.out(0x21, 0x40, 0x01, 0x5A)
        assert board.inb(0x21) == 0x5A, "the third write is OCW1"

    def test_without_ic4_the_sequence_ends_after_icw3_and_icw4_is_zero(self) -> None:
        board = Board()
        board.init(icw4=0x03)
        board.out(0x20, 0x10)
        board.out(0x21, 0x08, 0x04, 0x5A)
        assert board.inb(0x21) == 0x5A
        board.raise_irq(0)
        board.pic.acknowledge()
        assert board.isr() == 0x01, "AEOI is off"

    def test_imr_reads_back_at_a0_1(self, board: Board) -> None:
        board.out(0x21, 0xFB)
        board.out(0xA1, 0x9E)
        assert (board.inb(0x21), board.inb(0xA1)) == (0xFB, 0x9E)

    def test_icw1_with_ltim_senses_all_inputs_by_level(self) -> None:
        board = Board()
        board.raise_irq(5)
        board.init(icw1=0x19)
        assert board.pic.acknowledge() == 0x0D
        board.out(0x20, 0x20)
        assert board.pic.pending, "still high, so it asks again"


class TestRequests:
    def test_vectors_of_master_and_slave(self, board: Board) -> None:
        board.raise_irq(4)
        assert board.pic.acknowledge() == 0x0C
        board.out(0x20, 0x20)
        board.raise_irq(12)
        assert board.pic.acknowledge() == 0x74

    def test_an_edge_asks_once(self, board: Board) -> None:
        board.raise_irq(4)
        board.pic.acknowledge()
        board.out(0x20, 0x20)
        assert not board.pic.pending
        board.lower_irq(4)
        board.raise_irq(4)
        assert board.pic.pending

    def test_imr_holds_a_request_back_without_forgetting_it(self, board: Board) -> None:
        board.out(0x21, 0x10)
        board.raise_irq(4)
        assert not board.pic.pending
        assert board.irr() == 0x10
        board.out(0x21, 0x00)
        assert board.pic.acknowledge() == 0x0C

    def test_fixed_priority_is_ir0_highest(self, board: Board) -> None:
        board.raise_irq(7, 3, 0)
        assert board.pic.acknowledge() == 0x08
        board.out(0x20, 0x20)
        assert board.pic.acknowledge() == 0x0B

    def test_slave_levels_rank_between_ir1_and_ir3(self, board: Board) -> None:
        board.raise_irq(3, 8, 1)
        vectors = []
        for _ in range(3):
            vectors.append(board.pic.acknowledge())
            board.out(0xA0, 0x20)
            board.out(0x20, 0x20)
        assert vectors == [0x09, 0x70, 0x0B]

    def test_fully_nested_lower_waits_and_higher_interrupts(self, board: Board) -> None:
        board.raise_irq(3)
        board.pic.acknowledge()
        board.raise_irq(4)
        assert not board.pic.pending
        board.raise_irq(1)
        assert board.pic.acknowledge() == 0x09
        assert board.isr() == 0x0A

    def test_a_level_in_service_does_not_interrupt_itself(self, board: Board) -> None:
        board.raise_irq(3)
        board.pic.acknowledge()
        board.lower_irq(3)
        board.raise_irq(3)
        assert not board.pic.pending
        board.out(0x20, 0x20)
        assert board.pic.pending

    def test_input_that_falls_before_inta_withdraws_the_request(self, board: Board) -> None:
        board.raise_irq(5)
        board.lower_irq(5)
        assert board.irr() == 0
        assert not board.pic.pending

    def test_intr_is_a_level(self, board: Board) -> None:
        board.raise_irq(5, 6)
        assert board.intr.level == 1
        board.pic.acknowledge()
        assert board.intr.level == 0, "IR6 waits for the end of IR5"
        board.out(0x20, 0x20)
        assert board.intr.level == 1


class TestSpurious:
    def test_inta_without_request_gives_ir7_and_no_isr_bit(self, board: Board) -> None:
        assert board.pic.acknowledge() == 0x0F
        assert board.isr() == 0

    def test_real_ir7_sets_the_isr_bit(self, board: Board) -> None:
        board.raise_irq(7)
        assert board.pic.acknowledge() == 0x0F
        assert board.isr() == 0x80

    def test_level_input_that_falls_at_the_slave_during_inta_gives_slave_ir7(self, board: Board) -> None:
        """The master has acknowledged IR2, then the slave finds nothing: ISR2 is set, slave ISR is not."""
        board.raise_irq(11)
        board.pic.state.slave.edges = 0
        assert board.pic.acknowledge() == 0x77
        assert board.isr(0x20) == 0x04
        assert board.isr(0xA0) == 0


class TestEndOfInterrupt:
    def test_non_specific_eoi_ends_the_highest_in_service(self, board: Board) -> None:
        board.raise_irq(5)
        board.pic.acknowledge()
        board.raise_irq(1)
        board.pic.acknowledge()
        board.out(0x20, 0x20)
        assert board.isr() == 0x20

    def test_specific_eoi_ends_the_named_level(self, board: Board) -> None:
        board.raise_irq(5)
        board.pic.acknowledge()
        board.raise_irq(1)
        board.pic.acknowledge()
        board.out(0x20, 0x65)
        assert board.isr() == 0x02

    def test_slave_needs_an_eoi_at_both_chips(self, board: Board) -> None:
        board.raise_irq(10)
        board.pic.acknowledge()
        assert (board.isr(0x20), board.isr(0xA0)) == (0x04, 0x04)
        board.out(0xA0, 0x20)
        assert (board.isr(0x20), board.isr(0xA0)) == (0x04, 0x00)
        board.out(0x20, 0x62)
        assert board.isr(0x20) == 0

    def test_aeoi_leaves_nothing_in_service(self) -> None:
        board = Board()
        board.init(icw4=0x03)
        board.raise_irq(3)
        board.pic.acknowledge()
        assert board.isr() == 0
        board.raise_irq(6)
        assert board.pic.acknowledge() == 0x0E

    def test_aeoi_slave_with_two_requests_makes_two_edges_on_ir2(self) -> None:
        board = Board()
        board.init(icw4=0x03, slave_icw4=0x03)
        board.raise_irq(9, 12)
        assert [board.pic.acknowledge(), board.pic.acknowledge()] == [0x71, 0x74]
        assert not board.pic.pending


class TestRotation:
    def test_rotate_on_non_specific_eoi_makes_the_served_level_lowest(self, board: Board) -> None:
        board.raise_irq(2 + 1)
        board.pic.acknowledge()
        board.out(0x20, 0xA0)
        board.raise_irq(0, 4)
        assert board.pic.acknowledge() == 0x0C, "IR4 is now the highest"

    def test_rotate_on_specific_eoi(self, board: Board) -> None:
        board.raise_irq(3)
        board.pic.acknowledge()
        board.out(0x20, 0xE3)
        assert board.isr() == 0
        board.raise_irq(0, 4)
        assert board.pic.acknowledge() == 0x0C

    def test_set_priority_changes_the_order_without_an_eoi(self, board: Board) -> None:
        board.out(0x20, 0xC4)
        board.raise_irq(4, 0, 6)
        vectors = []
        for _ in range(3):
            vectors.append(board.pic.acknowledge() & 7)
            board.out(0x20, 0x20)
        assert vectors == [6, 0, 4]

    def test_nesting_follows_the_rotated_order(self, board: Board) -> None:
        board.out(0x20, 0xC4)
        board.raise_irq(0)
        board.pic.acknowledge()
        board.raise_irq(3)
        assert not board.pic.pending
        board.raise_irq(5)
        assert board.pic.pending

    def test_rotate_in_aeoi_mode_until_cleared(self) -> None:
        board = Board()
        board.init(icw4=0x03)
        board.out(0x20, 0x80)
        board.raise_irq(0)
        board.pic.acknowledge()
        board.lower_irq(0)
        board.raise_irq(0, 7)
        assert board.pic.acknowledge() == 0x0F
        board.out(0x20, 0x00)
        board.lower_irq(7)
        board.raise_irq(7)
        assert board.pic.acknowledge() == 0x08
        assert board.pic.state.master.lowest == 7, "no rotation any more"


class TestSpecialMaskMode:
    def test_masking_the_level_in_service_enables_lower_levels(self, board: Board) -> None:
        board.raise_irq(3)
        board.pic.acknowledge()
        board.raise_irq(6)
        board.out(0x21, 0x08)
        assert not board.pic.pending
        board.out(0x20, 0x68)
        assert board.pic.acknowledge() == 0x0E

    def test_non_specific_eoi_does_not_end_a_masked_level(self, board: Board) -> None:
        board.raise_irq(3)
        board.pic.acknowledge()
        board.out(0x21, 0x08)
        board.out(0x20, 0x68, 0x20)
        assert board.isr() == 0x08
        board.out(0x20, 0x63)
        assert board.isr() == 0

    def test_esmm_0_leaves_the_mode_alone_and_esmm_1_smm_0_ends_it(self, board: Board) -> None:
        board.out(0x20, 0x68, 0x28)
        assert board.pic.state.master.special_mask
        board.out(0x20, 0x48)
        assert not board.pic.state.master.special_mask


class TestSpecialFullyNestedMode:
    def test_higher_slave_request_passes_while_the_slave_is_in_service(self) -> None:
        board = Board()
        board.init(icw4=0x11)
        board.raise_irq(12)
        board.pic.acknowledge()
        board.raise_irq(9)
        assert board.pic.acknowledge() == 0x71

    def test_lower_slave_request_and_lower_master_levels_still_wait(self) -> None:
        board = Board()
        board.init(icw4=0x11)
        board.raise_irq(9)
        board.pic.acknowledge()
        board.raise_irq(12, 3)
        assert not board.pic.pending

    def test_without_it_the_slave_is_locked_out(self, board: Board) -> None:
        board.raise_irq(12)
        board.pic.acknowledge()
        board.raise_irq(9)
        assert not board.pic.pending


class TestPoll:
    def test_poll_acknowledges_and_gives_the_level(self, board: Board) -> None:
        board.raise_irq(5)
        board.out(0x20, 0x0C)
        assert board.inb(0x20) == 0x85
        assert board.isr() == 0x20
        assert not board.pic.pending

    def test_poll_without_request_has_bit_7_clear(self, board: Board) -> None:
        board.out(0x20, 0x0C)
        assert board.inb(0x20) == 0

    def test_poll_is_for_one_read_and_works_at_either_address(self, board: Board) -> None:
        board.out(0x21, 0x01)
        board.raise_irq(5)
        board.out(0x20, 0x0C)
        assert board.inb(0x21) == 0x85
        assert board.inb(0x21) == 0x01

    def test_polling_master_then_slave_finds_a_slave_request(self, board: Board) -> None:
        board.raise_irq(13)
        board.out(0x20, 0x0C)
        assert board.inb(0x20) == 0x82
        board.out(0xA0, 0x0C)
        assert board.inb(0xA0) == 0x85
        assert (board.isr(0x20), board.isr(0xA0)) == (0x04, 0x20)

    def test_reading_a_slave_register_is_no_edge_on_ir2(self, board: Board) -> None:
        board.raise_irq(13)
        board.out(0x20, 0x0C)
        board.inb(0x20)
        board.out(0x20, 0x20)
        board.inb(0xA1)
        assert not board.pic.pending


class TestReadback:
    def test_ocw3_keeps_its_selection_until_the_next(self, board: Board) -> None:
        board.raise_irq(1, 6)
        board.pic.acknowledge()
        assert board.isr() == 0x02
        assert board.inb(0x20) == 0x02
        assert board.irr() == 0x40
        board.out(0x20, 0x08)
        assert board.inb(0x20) == 0x40, "RR = 0 is no selection"


class TestElcr:
    def test_irq_0_1_2_8_13_are_always_edge(self, board: Board) -> None:
        board.out(0x4D0, 0xFF)
        board.out(0x4D1, 0xFF)
        assert (board.inb(0x4D0), board.inb(0x4D1)) == (0xF8, 0xDE)

    def test_level_input_asks_as_long_as_it_is_high(self, board: Board) -> None:
        board.out(0x4D1, 0x02)
        board.raise_irq(9)
        for _ in range(3):
            assert board.pic.acknowledge() == 0x71
            board.out(0xA0, 0x20)
            board.out(0x20, 0x20)
            assert board.pic.pending
        board.lower_irq(9)
        assert not board.pic.pending

    def test_switching_a_high_input_to_level_makes_a_request_and_back_drops_it(self, board: Board) -> None:
        board.out(0x20, 0x11)
        board.raise_irq(5)
        board.init()
        assert not board.pic.pending
        board.out(0x4D0, 0x20)
        assert board.pic.pending
        board.out(0x4D0, 0x00)
        assert not board.pic.pending

    def test_elcr_survives_initialization(self, board: Board) -> None:
        board.out(0x4D0, 0x20)
        board.init()
        assert board.inb(0x4D0) == 0x20


class TestCascade:
    def test_slave_with_another_id_leaves_the_bus_floating(self) -> None:
        board = Board()
        board.init()
        board.out(0xA0, 0x11)
        board.out(0xA1, 0x70, 0x05, 0x01)
        board.raise_irq(9)
        assert board.pic.acknowledge() == 0xFF

    def test_master_that_knows_no_slave_on_ir2_gives_its_own_vector(self) -> None:
        board = Board()
        board.init()
        board.out(0x20, 0x11)
        board.out(0x21, 0x08, 0x00, 0x01)
        board.raise_irq(9)
        assert board.pic.acknowledge() == 0x0A

    def test_slave_eoi_lets_its_next_request_through(self, board: Board) -> None:
        board.raise_irq(9, 12)
        assert board.pic.acknowledge() == 0x71
        board.out(0x20, 0x20)
        assert not board.pic.pending
        board.out(0xA0, 0x20)
        assert board.pic.acknowledge() == 0x74

    def test_irq2_is_not_available(self, board: Board) -> None:
        with pytest.raises(ValueError, match="IRQ 2:"):
            board.pic.input(2)
        with pytest.raises(ValueError, match="IRQ 16"):
            board.pic.input(16)


class TestPorts:
    def test_pch_aliases_reach_the_same_registers(self) -> None:
        board = Board(aliases=True)
        board.init()
        for base in (0x24, 0x28, 0x2C, 0x30, 0x34, 0x38, 0x3C):
            board.out(base + 1, base)
            assert board.inb(0x21) == base
        for base in (0xA4, 0xA8, 0xAC, 0xB0, 0xB4, 0xB8, 0xBC):
            board.out(base + 1, base)
            assert board.inb(0xA1) == base

    def test_without_the_flag_only_the_seed_ports_answer(self) -> None:
        names = {(owned.base, owned.last, owned.name) for owned in Board().pic.ports}
        assert names == {(0x20, 0x21, "pic1"), (0xA0, 0xA1, "pic2"), (0x4D0, 0x4D1, "elcr")}

    def test_linux_probe_reads_back_the_cascade_mask(self, board: Board) -> None:
        """Linux writes FF to the slave's and FB to the master's IMR and wants FB back."""
        board.out(0xA1, 0xFF)
        board.out(0x21, 0xFB)
        assert board.inb(0x21) == 0xFB


class TestLife:
    def test_reset_silences_the_chips_and_keeps_the_wires(self, board: Board) -> None:
        board.raise_irq(4)
        board.pic.reset()
        assert not board.pic.pending
        board.init(icw1=0x19)
        assert board.pic.acknowledge() == 0x0C, "the wire is still high"

    def test_restore_brings_intr_and_wires_back(self, board: Board) -> None:
        board.raise_irq(12)
        saved = board.pic.snapshot()
        board.pic.acknowledge()
        board.lower_irq(12)
        board.pic.restore(saved)
        assert board.pic.pending
        assert board.pic.input(12).level == 1
        assert board.pic.acknowledge() == 0x74


ACTIONS = st.one_of(
    st.tuples(st.just("line"), st.sampled_from([n for n in range(16) if n != 2]), st.integers(0, 1)),
    st.tuples(st.just("mask"), st.sampled_from([0x21, 0xA1]), st.integers(0, 255)),
    st.tuples(st.just("ocw2"), st.sampled_from([0x20, 0xA0]), st.integers(0, 255).map(lambda v: v & 0xE7)),
    st.tuples(st.just("elcr"), st.sampled_from([0x4D0, 0x4D1]), st.integers(0, 255)),
    st.tuples(st.just("inta"), st.just(0), st.just(0)),
)


class TestProperties:
    @settings(max_examples=150, deadline=None)
    @given(st.lists(ACTIONS, max_size=40))
    def test_pending_means_a_real_vector(self, actions: list[tuple[str, int, int]]) -> None:
        """INTR high: the vector is of an unmasked requesting level, and that level goes into service."""
        board = Board()
        board.init()
        for kind, where, value in actions:
            if kind == "line":
                board.pic.input(where).set(value)
            elif kind == "inta":
                self._acknowledge(board)
            else:
                board.out(where, value)

    @staticmethod
    def _acknowledge(board: Board) -> None:
        requests = board.irr(0x20) & ~board.inb(0x21), board.irr(0xA0) & ~board.inb(0xA1)
        pending = board.pic.pending
        vector = board.pic.acknowledge()
        chip = 0 if vector < 0x70 else 1
        level = vector & 7
        if pending:
            assert requests[chip] >> level & 1
            assert board.isr((0x20, 0xA0)[chip]) >> level & 1
            if chip:
                assert board.isr(0x20) & 0x04
        else:
            assert vector == 0x0F

    @settings(max_examples=100, deadline=None)
    @given(st.integers(0, 7), st.sets(st.sampled_from([0, 1, 3, 4, 5, 6, 7]), min_size=1))
    def test_service_order_is_the_rotated_order(self, lowest: int, irqs: set[int]) -> None:
        board = Board()
        board.init()
        board.out(0x20, 0xC0 | lowest)
        board.raise_irq(*irqs)
        served = []
        for _ in irqs:
            served.append(board.pic.acknowledge() - 8)
            board.out(0x20, 0x20)
        assert served == sorted(irqs, key=lambda irq: (irq - lowest - 1) & 7)
