"""PC16550D data sheet, "Registers"; the rule is in each test's docstring."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.devices.uart16550 import (
    FCR,
    IER,
    IIR,
    LCR,
    LSR,
    LSR_BI,
    LSR_DR,
    LSR_FE,
    LSR_FIFO_ERROR,
    LSR_OE,
    LSR_PE,
    LSR_TEMT,
    LSR_THRE,
    MCR,
    MCR_DTR,
    MCR_LOOP,
    MCR_OUT1,
    MCR_OUT2,
    MCR_RTS,
    MSR,
    MSR_CTS,
    MSR_DCD,
    MSR_DCTS,
    MSR_DDCD,
    MSR_DDSR,
    MSR_DSR,
    MSR_RI,
    MSR_TERI,
    RBR,
    SCR,
    THR,
    Uart16550,
)
from portvisor.ports import BufferedChar, IrqLine, PortSpace, VirtualClock
from portvisor.testing import DeviceSuite

NONE, MODEM, THRE, DATA, LINE, TIMEOUT = 0x01, 0x00, 0x02, 0x04, 0x06, 0x0C
FIFOS = 0xC0
CHARACTER_8N1_115200 = 10 * 16 * 1_000_000_000 // 1_843_200


SPACE = PortSpace(strict=True)


def empty_space() -> PortSpace:
    """One port space for all tests of this module: making its tables anew takes longer than a test."""
    for device in SPACE.devices():
        SPACE.detach(device)
    return SPACE


class Port:
    """A serial port at work, and everything around it."""

    def __init__(self, *, timed: bool = False, flow_control: bool = True, input_queue: int = 65_536) -> None:
        self.clock = VirtualClock()
        self.edges: list[int] = []
        self.irq = IrqLine(self.edges.append, "irq4")
        self.far = BufferedChar()
        self.uart = Uart16550(
            self.irq, self.clock, self.far, timed=timed, flow_control=flow_control, input_queue=input_queue
        )
        self.space = empty_space()
        self.space.attach(self.uart)

    def get(self, register: int) -> int:
        return self.space.read(0x3F8 + register, 1)

    def put(self, register: int, value: int) -> None:
        self.space.write(0x3F8 + register, 1, value)

    def open(self, *, ier: int = 0, fcr: int = 0, divisor: int = 1) -> None:
        """8N1, DTR, RTS and the interrupt gate on."""
        self.put(LCR, 0x80)
        self.put(0, divisor & 0xFF)
        self.put(1, divisor >> 8)
        self.put(LCR, 0x03)
        self.put(MCR, MCR_DTR | MCR_RTS | MCR_OUT2)
        self.put(FCR, fcr)
        self.put(IER, ier)

    @property
    def cause(self) -> int:
        """IIR without the FIFO bits, read without the side effect of a read."""
        return self.uart.state.iir


@pytest.fixture
def port() -> Port:
    return Port()


class TestSuite(DeviceSuite):
    def make(self) -> Uart16550:
        self.clock = VirtualClock()
        return Uart16550(IrqLine(), self.clock, BufferedChar())


class TestTimedSuite(DeviceSuite):
    def make(self) -> Uart16550:
        self.clock = VirtualClock()
        return Uart16550(IrqLine(), self.clock, BufferedChar(), base=0x2F8, timed=True)


class TestReset:
    def test_registers_after_master_reset(self, port: Port) -> None:
        """Reset table: IER, FCR, LCR, MCR 0; IIR 01; LSR 60; MSR inputs without deltas."""
        port.open(ier=0x0F, fcr=0x01)
        port.far.type(b"x")
        port.uart.reset()
        port.get(RBR)
        assert (port.get(IER), port.get(LCR), port.get(MCR)) == (0, 0, 0)
        assert port.get(IIR) == NONE
        assert port.get(LSR) == LSR_THRE | LSR_TEMT
        assert port.get(MSR) == MSR_DCD | MSR_DSR | MSR_CTS

    def test_interrupt_pin_is_low_after_master_reset(self, port: Port) -> None:
        """Reset table: INTR low."""
        port.open(ier=0x02)
        assert port.irq.level == 1
        port.uart.reset()
        assert port.irq.level == 0

    def test_divisor_survives_master_reset(self, port: Port) -> None:
        """The reset table does not list the divisor latches: they keep their value."""
        port.open(divisor=0x0123)
        port.uart.reset()
        port.put(LCR, 0x80)
        assert (port.get(0), port.get(1)) == (0x23, 0x01)

    def test_input_not_yet_read_survives_and_is_not_lost_twice(self, port: Port) -> None:
        port.far.type(b"ab")
        port.uart.reset()
        port.uart.reset()
        assert bytes([port.get(RBR), port.get(RBR)]) == b"ab"


class TestRegisters:
    def test_scratch_reads_back(self, port: Port) -> None:
        """SCR: SCR holds data and controls nothing."""
        port.put(SCR, 0xA5)
        assert port.get(SCR) == 0xA5

    def test_ier_keeps_its_low_four_bits(self, port: Port) -> None:
        """IER: bits 4-7 are always 0."""
        port.put(IER, 0xFF)
        assert port.get(IER) == 0x0F

    def test_mcr_keeps_its_low_five_bits(self, port: Port) -> None:
        """MCR: bits 5-7 are permanently 0."""
        port.put(MCR, 0xFF)
        assert port.get(MCR) == 0x1F

    def test_dlab_switches_offsets_0_and_1_to_the_divisor(self, port: Port) -> None:
        """LCR: DLAB = 1 reaches DLL and DLM, DLAB = 0 the buffers and IER."""
        port.put(IER, 0x05)
        port.put(LCR, 0x80)
        port.put(0, 0x0C)
        port.put(1, 0xAB)
        assert (port.get(0), port.get(1)) == (0x0C, 0xAB)
        port.put(LCR, 0x03)
        assert port.get(IER) == 0x05
        assert port.far.sent == b""

    def test_lcr_bf_opens_no_other_bank(self, port: Port) -> None:
        """A 16550 has no enhanced feature register: LCR = BF is DLAB and nothing else."""
        before = port.get(IIR)
        port.put(LCR, 0xBF)
        assert port.get(IIR) == before

    def test_lsr_is_not_changed_by_writes(self, port: Port) -> None:
        port.put(LSR, 0x00)
        assert port.get(LSR) == LSR_THRE | LSR_TEMT

    def test_iir_bits_7_and_6_follow_fcr_0(self, port: Port) -> None:
        """IIR: set when FCR0 = 1."""
        assert port.get(IIR) & FIFOS == 0
        port.put(FCR, 0x01)
        assert port.get(IIR) & FIFOS == FIFOS
        port.put(FCR, 0x00)
        assert port.get(IIR) & FIFOS == 0

    def test_register_names_know_direction_and_dlab(self, port: Port) -> None:
        uart = port.uart
        assert (uart.register_name(0, 1, False), uart.register_name(0, 1, True)) == ("RBR", "THR")
        assert (uart.register_name(2, 1, False), uart.register_name(2, 1, True)) == ("IIR", "FCR")
        port.put(LCR, 0x80)
        assert (uart.register_name(0, 1, True), uart.register_name(1, 1, False)) == ("DLL", "DLM")
        assert uart.register_name(5, 1, False) == "LSR"


class TestTransmitter:
    def test_characters_go_out_in_order(self, port: Port) -> None:
        port.open()
        for value in b"hello":
            port.put(THR, value)
        assert port.far.sent == b"hello"

    def test_rep_outsb_goes_out_at_once(self, port: Port) -> None:
        port.open()
        port.space.write_block(0x3F8, 1, b"block")
        assert port.far.sent == b"block"

    def test_rep_outsb_to_the_divisor_is_not_sent(self, port: Port) -> None:
        port.put(LCR, 0x80)
        port.space.write_block(0x3F8, 1, b"\x01\x02")
        assert port.get(0) == 2
        assert port.far.sent == b""

    def test_enabling_etbei_with_thr_empty_interrupts_at_once(self, port: Port) -> None:
        """IIR: THRE interrupt whenever THR is empty and IER1 is set."""
        port.open(ier=0x02)
        assert port.irq.level == 1
        assert port.get(IIR) == THRE

    def test_reading_iir_clears_the_thre_interrupt(self, port: Port) -> None:
        """Interrupt control functions: reset by reading IIR (if source of interrupt) or writing THR."""
        port.open(ier=0x02)
        assert port.get(IIR) == THRE
        assert port.irq.level == 0
        assert port.get(IIR) == NONE

    def test_reading_iir_leaves_thre_pending_if_it_is_not_the_source(self, port: Port) -> None:
        """Interrupt control functions: only "if source of interrupt"."""
        port.open(ier=0x03)
        port.far.type(b"x")
        assert port.get(IIR) == DATA
        port.get(RBR)
        assert port.get(IIR) == THRE

    def test_writing_thr_withdraws_and_raises_the_interrupt_anew(self, port: Port) -> None:
        """THR written: interrupt reset; THR empties: a new edge."""
        port.open(ier=0x02)
        port.edges.clear()
        port.put(THR, 0x41)
        assert port.edges == [0, 1]

    def test_a_block_makes_one_edge(self, port: Port) -> None:
        port.open(ier=0x02)
        port.get(IIR)
        port.edges.clear()
        port.space.write_block(0x3F8, 1, b"0123456789abcdef")
        assert port.edges == [1]

    def test_enabling_an_enabled_etbei_raises_nothing_new(self, port: Port) -> None:
        port.open(ier=0x02)
        port.get(IIR)
        port.put(IER, 0x02)
        assert port.irq.level == 0


class TestTimedTransmitter:
    def test_a_character_takes_its_time(self) -> None:
        """Baud generator: divisor 1 at 1.8432 MHz is 115200 baud; 8N1 has ten bits."""
        port = Port(timed=True)
        port.open()
        port.put(THR, 0x41)
        port.clock.advance(CHARACTER_8N1_115200 - 1)
        assert port.far.sent == b""
        port.clock.advance(1)
        assert port.far.sent == b"A"

    @pytest.mark.parametrize(
        ("lcr", "half_bits"), [(0x03, 20), (0x07, 22), (0x0B, 22), (0x00, 14), (0x04, 15), (0x1E, 22)]
    )
    def test_character_length_follows_lcr(self, lcr: int, half_bits: int) -> None:
        """LCR: start, 5-8 data, parity, 1 / 1.5 (5 bits) / 2 stop bits."""
        port = Port(timed=True)
        port.open(divisor=12)
        port.put(LCR, lcr)
        port.put(THR, 0x41)
        time = half_bits * 16 * 12 * 1_000_000_000 // (2 * 1_843_200)
        port.clock.advance(time - 1)
        assert port.far.sent == b""
        port.clock.advance(1)
        assert port.far.sent == b"A"

    def test_thre_rises_when_the_shift_register_takes_the_character_and_temt_when_it_is_done(self) -> None:
        """LSR: THRE is set when THR moves into the shift register; TEMT needs both empty."""
        port = Port(timed=True)
        port.open()
        port.put(THR, 0x41)
        assert port.get(LSR) & (LSR_THRE | LSR_TEMT) == LSR_THRE
        port.put(THR, 0x42)
        assert port.get(LSR) & (LSR_THRE | LSR_TEMT) == 0
        port.clock.advance(CHARACTER_8N1_115200)
        assert port.get(LSR) & (LSR_THRE | LSR_TEMT) == LSR_THRE
        port.clock.advance(CHARACTER_8N1_115200)
        assert port.get(LSR) & (LSR_THRE | LSR_TEMT) == LSR_THRE | LSR_TEMT
        assert port.far.sent == b"AB"

    def test_thre_interrupt_comes_when_the_fifo_has_emptied(self) -> None:
        """FIFO interrupt mode, B: the interrupt occurs when the XMIT FIFO is empty."""
        port = Port(timed=True)
        port.open(ier=0x02, fcr=0x01)
        port.get(IIR)
        for value in b"abc":
            port.put(THR, value)
        port.clock.advance(2 * CHARACTER_8N1_115200 - 1)
        assert port.irq.level == 0
        port.clock.advance(1)
        assert port.irq.level == 1  # "c" went from the FIFO into the shift register
        assert port.get(IIR) == FIFOS | THRE
        port.clock.advance(CHARACTER_8N1_115200)
        assert port.far.sent == b"abc"

    def test_without_fifos_a_second_character_replaces_the_one_in_thr(self) -> None:
        port = Port(timed=True)
        port.open()
        for value in b"abc":
            port.put(THR, value)
        port.clock.advance(5 * CHARACTER_8N1_115200)
        assert port.far.sent == b"ac"

    def test_fifo_holds_sixteen_characters_behind_the_shift_register(self) -> None:
        port = Port(timed=True)
        port.open(fcr=0x01)
        for value in range(20):
            port.put(THR, value)
        port.clock.advance(20 * CHARACTER_8N1_115200)
        assert port.far.sent == bytes(range(17))

    def test_resetting_the_transmit_fifo_does_not_stop_the_shift_register(self) -> None:
        """FCR, bit 2: clears the FIFO; the shift register is not cleared."""
        port = Port(timed=True)
        port.open(fcr=0x01)
        for value in b"abc":
            port.put(THR, value)
        port.put(FCR, 0x05)
        assert port.get(LSR) & LSR_THRE
        port.clock.advance(5 * CHARACTER_8N1_115200)
        assert port.far.sent == b"a"

    def test_a_snapshot_in_mid_character_finishes_it(self) -> None:
        port = Port(timed=True)
        port.open()
        port.put(THR, 0x41)
        port.clock.advance(1000)
        saved = port.uart.snapshot()
        port.uart.reset()
        port.clock.advance(1000)
        port.uart.restore(saved)
        port.clock.set(CHARACTER_8N1_115200)
        assert port.far.sent == b"A"


class TestReceiver:
    def test_data_ready_until_read(self, port: Port) -> None:
        """LSR, bit 0: set by a complete character, reset by reading all data."""
        port.open()
        port.far.type(b"x")
        assert port.get(LSR) & LSR_DR
        assert port.get(RBR) == ord("x")
        assert not port.get(LSR) & LSR_DR

    def test_data_interrupt_until_read(self, port: Port) -> None:
        """Interrupt control functions: received data available, reset by reading RBR."""
        port.open(ier=0x01)
        port.far.type(b"x")
        assert port.irq.level == 1
        assert port.get(IIR) == DATA
        assert port.irq.level == 1
        port.get(RBR)
        assert port.irq.level == 0

    @pytest.mark.parametrize(("fcr", "level"), [(0x01, 1), (0x41, 4), (0x81, 8), (0xC1, 14)])
    def test_data_interrupt_at_the_trigger_level(self, fcr: int, level: int) -> None:
        """FCR, bits 6 and 7: trigger levels 1, 4, 8, 14; cleared as soon as the FIFO drops below."""
        port = Port()
        port.open(ier=0x01, fcr=fcr)
        port.far.type(bytes(level - 1))
        assert port.irq.level == 0
        port.far.type(b"!")
        assert port.irq.level == 1
        assert port.get(IIR) == FIFOS | DATA
        port.get(RBR)
        assert port.irq.level == 0

    def test_timeout_after_four_character_times(self, port: Port) -> None:
        """FIFO interrupt mode, A: a character in the FIFO, and nothing received or read for four characters."""
        port.open(ier=0x01, fcr=0xC1)
        port.far.type(b"ab")
        port.clock.advance(4 * CHARACTER_8N1_115200 - 1)
        assert port.irq.level == 0
        port.clock.advance(1)
        assert port.get(IIR) == FIFOS | TIMEOUT
        assert port.irq.level == 1

    def test_a_read_clears_the_timeout_and_starts_it_anew(self, port: Port) -> None:
        """FIFO interrupt mode, A: cleared, and the timer reset, when the CPU reads one character."""
        port.open(ier=0x01, fcr=0xC1)
        port.far.type(b"ab")
        port.clock.advance(4 * CHARACTER_8N1_115200)
        port.get(RBR)
        assert port.irq.level == 0
        port.clock.advance(4 * CHARACTER_8N1_115200)
        assert port.get(IIR) == FIFOS | TIMEOUT

    def test_a_new_character_starts_the_timeout_anew(self, port: Port) -> None:
        """FIFO interrupt mode, A: reset after a new character is received."""
        port.open(ier=0x01, fcr=0xC1)
        port.far.type(b"a")
        port.clock.advance(3 * CHARACTER_8N1_115200)
        port.far.type(b"b")
        port.clock.advance(3 * CHARACTER_8N1_115200)
        assert port.irq.level == 0
        port.clock.advance(CHARACTER_8N1_115200)
        assert port.irq.level == 1

    def test_no_timeout_without_fifos_or_without_characters(self, port: Port) -> None:
        port.open(ier=0x01, fcr=0xC1)
        port.far.type(b"a")
        port.get(RBR)
        assert port.clock.next_deadline() is None
        port.open(ier=0x01, fcr=0x00)
        port.far.type(b"a")
        assert port.clock.next_deadline() is None

    def test_overrun_with_fifo_keeps_the_old_characters(self) -> None:
        """LSR, bit 1: with a full FIFO the next character is lost; OE at once."""
        port = Port(flow_control=False)
        port.open(fcr=0x01)
        port.far.type(bytes(range(18)))
        assert port.get(LSR) & LSR_OE
        assert [port.get(RBR) for _ in range(16)] == list(range(16))
        assert not port.get(LSR) & LSR_DR

    def test_overrun_without_fifo_destroys_the_old_character(self) -> None:
        """LSR, bit 1: the data in RBR was not read before the next character was transferred into it."""
        port = Port(flow_control=False)
        port.open()
        port.far.type(b"a")
        port.far.type(b"b")
        assert port.get(LSR) & (LSR_OE | LSR_DR) == LSR_OE | LSR_DR
        assert port.get(RBR) == ord("b")

    def test_overrun_is_a_line_status_interrupt_cleared_by_reading_lsr(self) -> None:
        """Interrupt control functions: receiver line status, highest priority, reset by reading LSR."""
        port = Port(flow_control=False)
        port.open(ier=0x05)
        port.far.type(b"ab")
        assert port.get(IIR) == LINE
        port.get(LSR)
        assert port.get(IIR) == DATA

    def test_reading_lsr_clears_the_error_bits_only(self) -> None:
        """LSR: bits 1-4 are reset whenever the CPU reads LSR."""
        port = Port(flow_control=False)
        port.open()
        port.far.type(b"ab")
        assert port.get(LSR) == LSR_THRE | LSR_TEMT | LSR_OE | LSR_DR
        assert port.get(LSR) == LSR_THRE | LSR_TEMT | LSR_DR

    def test_an_error_shows_when_its_character_is_at_the_top(self, port: Port) -> None:
        """LSR, bits 2-4 in FIFO mode: revealed when the associated character is at the top of the FIFO."""
        port.open(ier=0x04, fcr=0x01)
        port.far.type(b"a")
        port.uart.receive_bad(0x62, LSR_PE)
        assert port.get(LSR) & (LSR_PE | LSR_FIFO_ERROR) == LSR_FIFO_ERROR
        assert port.irq.level == 0
        port.get(RBR)
        assert port.irq.level == 1
        assert port.get(LSR) & LSR_PE
        assert port.irq.level == 0

    def test_lsr_7_falls_when_no_error_is_left(self, port: Port) -> None:
        """LSR, bit 7: cleared when the CPU reads LSR, if there are no subsequent errors in the FIFO."""
        port.open(fcr=0x01)
        port.uart.receive_bad(0x61, LSR_FE)
        port.uart.receive_bad(0x62, LSR_PE)
        assert port.get(LSR) & (LSR_FIFO_ERROR | LSR_FE) == LSR_FIFO_ERROR | LSR_FE
        assert port.get(LSR) & (LSR_FIFO_ERROR | LSR_FE) == LSR_FIFO_ERROR
        port.get(RBR)
        assert port.get(LSR) & (LSR_FIFO_ERROR | LSR_PE) == LSR_FIFO_ERROR | LSR_PE
        assert not port.get(LSR) & LSR_FIFO_ERROR

    def test_lsr_7_is_0_without_fifos(self, port: Port) -> None:
        """LSR, bit 7: a 0 in the 16450 mode."""
        port.open()
        port.uart.receive_bad(0x61, LSR_PE)
        assert port.get(LSR) & (LSR_FIFO_ERROR | LSR_PE) == LSR_PE

    def test_a_break_is_one_zero_character(self, port: Port) -> None:
        """LSR, bit 4: when a break occurs only one zero character is loaded."""
        port.open(ier=0x04, fcr=0x01)
        port.uart.receive_break()
        assert port.get(IIR) == FIFOS | LINE
        assert port.get(LSR) & (LSR_BI | LSR_DR) == LSR_BI | LSR_DR
        assert port.get(RBR) == 0
        assert not port.get(LSR) & LSR_DR

    def test_fcr_bit_1_empties_the_receiver(self, port: Port) -> None:
        """FCR, bit 1: clears all bytes in the RCVR FIFO."""
        port.open(ier=0x01, fcr=0x01)
        port.far.type(b"abc")
        port.put(FCR, 0x03)
        assert not port.get(LSR) & LSR_DR
        assert port.irq.level == 0
        assert port.clock.next_deadline() is None

    def test_changing_fcr_0_empties_the_fifos(self, port: Port) -> None:
        """FCR, bit 0: data is cleared when changing from FIFO mode to 16450 mode and vice versa."""
        port.open(fcr=0x01)
        port.far.type(b"abc")
        port.put(FCR, 0x00)
        assert not port.get(LSR) & LSR_DR
        port.far.type(b"d")
        port.put(FCR, 0x01)
        assert not port.get(LSR) & LSR_DR

    def test_fcr_bits_need_bit_0(self, port: Port) -> None:
        """FCR, bit 0: must be 1 when other FCR bits are written or they will not be programmed."""
        port.open(fcr=0x01, ier=0x01)
        port.put(FCR, 0xC0)
        port.put(FCR, 0x01)
        port.far.type(b"a")
        assert port.cause == DATA

    def test_fcr_bit_1_alone_empties_it_not_a_change_of_trigger(self, port: Port) -> None:
        """FCR, bits 6 and 7 can be changed at any time."""
        port.open(ier=0x01, fcr=0xC1)
        port.far.type(b"abcd")
        port.put(FCR, 0x41)
        assert port.cause == DATA
        assert port.get(RBR) == ord("a")

    def test_only_parity_and_framing_can_damage_a_character(self, port: Port) -> None:
        port.open(fcr=0x01)
        port.uart.receive_bad(0x161, 0xFF)
        assert port.get(LSR) & (LSR_OE | LSR_PE | LSR_FE | LSR_BI) == LSR_PE | LSR_FE
        assert port.get(RBR) == 0x61

    def test_the_timeout_is_over_once_it_fired(self, port: Port) -> None:
        port.open(ier=0x01, fcr=0xC1)
        port.far.type(b"a")
        port.clock.advance(4 * CHARACTER_8N1_115200)
        assert port.uart.state.timeout_at is None
        assert port.clock.next_deadline() is None


class TestInputQueue:
    def test_pasted_text_arrives_whole(self, port: Port) -> None:
        port.open(fcr=0x01)
        text = bytes(range(256)) * 4
        port.far.type(text)
        received = bytearray()
        while port.get(LSR) & LSR_DR:
            received.append(port.get(RBR))
        assert received == text

    def test_without_fifos_too(self, port: Port) -> None:
        port.open()
        port.far.type(b"hello")
        assert bytes(port.get(RBR) for _ in range(5)) == b"hello"

    def test_emptying_the_receiver_lets_the_next_ones_in(self, port: Port) -> None:
        port.open(fcr=0x01)
        port.far.type(bytes(range(20)))
        port.put(FCR, 0x03)
        assert [port.get(RBR) for _ in range(4)] == [16, 17, 18, 19]

    def test_the_queue_is_bounded(self) -> None:
        port = Port(input_queue=10)
        port.open(fcr=0x01)
        port.far.type(bytes(100))
        assert len(port.uart.state.waiting) == 10
        assert len(port.uart.state.receiver) == 16
        assert port.get(LSR) & LSR_OE

    def test_timed_input_arrives_one_character_at_a_time(self) -> None:
        port = Port(timed=True)
        port.open()
        port.far.type(b"ab")
        assert not port.get(LSR) & LSR_DR
        port.clock.advance(CHARACTER_8N1_115200)
        assert port.get(RBR) == ord("a")
        assert not port.get(LSR) & LSR_DR
        port.clock.advance(CHARACTER_8N1_115200)
        assert port.get(RBR) == ord("b")

    def test_timed_input_without_flow_control_overruns_on_its_way(self) -> None:
        port = Port(timed=True, flow_control=False)
        port.open(fcr=0x01)
        port.far.type(bytes(range(18)))
        port.clock.advance(16 * CHARACTER_8N1_115200)
        assert not port.get(LSR) & LSR_OE
        port.clock.advance(CHARACTER_8N1_115200)
        assert port.get(LSR) & LSR_OE


class TestInterruptGate:
    def test_out2_gates_the_line(self, port: Port) -> None:
        """IBM PC/AT serial adapter: OUT2 enables the interrupt driver."""
        port.open(ier=0x02)
        port.put(MCR, MCR_DTR | MCR_RTS)
        assert port.irq.level == 0
        assert port.cause == THRE
        port.put(MCR, MCR_OUT2)
        assert port.irq.level == 1

    def test_loop_mode_shuts_the_gate(self, port: Port) -> None:
        """MCR, bit 4: the four modem control output pins are forced to their inactive state."""
        port.open(ier=0x02)
        port.put(MCR, MCR_OUT2 | MCR_LOOP)
        assert port.irq.level == 0

    def test_priority_order(self) -> None:
        """Interrupt control functions: line status, data, timeout, THRE, modem status."""
        port = Port(flow_control=False)
        port.open(ier=0x0F)
        port.uart.set_modem_inputs(0)
        assert port.cause == THRE
        port.far.type(b"ab")
        assert port.cause == LINE
        port.get(LSR)
        assert port.cause == DATA
        port.get(RBR)
        assert port.get(IIR) == THRE
        assert port.get(IIR) == MODEM
        port.get(MSR)
        assert port.get(IIR) == NONE

    def test_timeout_outranks_thre(self, port: Port) -> None:
        port.open(ier=0x03, fcr=0xC1)
        port.far.type(b"a")
        port.clock.advance(4 * CHARACTER_8N1_115200)
        assert port.cause == TIMEOUT

    @pytest.mark.parametrize("ier", [0x0F & ~bit for bit in (0x01, 0x02, 0x04, 0x08)])
    def test_each_enable_bit_gates_its_own_source(self, ier: int) -> None:
        """IER: bit 0 data and timeout, bit 1 THRE, bit 2 line status, bit 3 modem status."""
        port = Port(flow_control=False)
        port.open(ier=ier, fcr=0xC1)
        port.far.type(b"a")
        port.clock.advance(4 * CHARACTER_8N1_115200)
        port.uart.receive_break()
        port.get(RBR)
        port.clock.advance(4 * CHARACTER_8N1_115200)
        port.uart.set_modem_inputs(0)
        port.put(THR, 0x41)
        causes = []
        for register in (LSR, RBR, IIR, MSR):
            causes.append(port.cause)
            port.get(register)
        full = [LINE, TIMEOUT, THRE, MODEM]
        missing = {0x0E: TIMEOUT, 0x0D: THRE, 0x0B: LINE, 0x07: MODEM}[ier]
        assert missing not in causes
        assert set(full) - {missing} <= set(causes)
        assert port.cause == NONE

    def test_enabling_another_source_raises_no_thre(self, port: Port) -> None:
        port.open(ier=0x02)
        port.get(IIR)
        port.put(IER, 0x03)
        assert port.get(IIR) == NONE

    def test_a_disabled_source_leaves_its_status(self, port: Port) -> None:
        """IER: disabling an interrupt inhibits IIR and INTR; LSR and MSR stay."""
        port.open(ier=0x00)
        port.far.type(b"a")
        assert port.get(IIR) == NONE
        assert port.get(LSR) & LSR_DR


class TestModem:
    @pytest.mark.parametrize(
        ("inputs", "delta"),
        [
            (MSR_DCD | MSR_DSR, MSR_DCTS),
            (MSR_DCD | MSR_CTS, MSR_DDSR),
            (MSR_DSR | MSR_CTS, MSR_DDCD),
        ],
    )
    def test_a_change_sets_its_delta_until_msr_is_read(self, port: Port, inputs: int, delta: int) -> None:
        """MSR: bits 0, 1, 3 tell that the input has changed since the CPU last read MSR."""
        port.uart.set_modem_inputs(inputs)
        assert port.get(MSR) == inputs | delta
        assert port.get(MSR) == inputs

    def test_ring_tells_its_trailing_edge_only(self, port: Port) -> None:
        """MSR, bit 2: RI# has changed from a low to a high state, that is ringing has stopped."""
        quiet = MSR_DCD | MSR_DSR | MSR_CTS
        port.uart.set_modem_inputs(quiet | MSR_RI)
        assert port.get(MSR) == quiet | MSR_RI
        port.uart.set_modem_inputs(quiet)
        assert port.get(MSR) == quiet | MSR_TERI

    def test_delta_is_an_interrupt_cleared_by_reading_msr(self, port: Port) -> None:
        """Interrupt control functions: modem status, reset by reading MSR."""
        port.open(ier=0x08)
        port.uart.set_modem_inputs(0)
        assert port.irq.level == 1
        assert port.get(IIR) == MODEM
        port.get(MSR)
        assert port.irq.level == 0


class TestLoop:
    def test_linux_autoconfiguration(self, port: Port) -> None:
        """MCR = LOOP | OUT2 | RTS must read as DCD and CTS."""
        port.put(MCR, 0x1A)
        assert port.get(MSR) & 0xF0 == 0x90

    @given(mcr=st.integers(0, 0x0F))
    def test_outputs_loop_to_inputs(self, mcr: int) -> None:
        """MCR, bit 4: RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD."""
        port = Port()
        port.put(MCR, MCR_LOOP | mcr)
        msr = port.get(MSR)
        assert bool(msr & MSR_CTS) == bool(mcr & MCR_RTS)
        assert bool(msr & MSR_DSR) == bool(mcr & MCR_DTR)
        assert bool(msr & MSR_RI) == bool(mcr & MCR_OUT1)
        assert bool(msr & MSR_DCD) == bool(mcr & MCR_OUT2)

    def test_transmitted_data_is_received_and_does_not_leave(self, port: Port) -> None:
        """MCR, bit 4: data that is transmitted is immediately received; SOUT is marking."""
        port.open()
        port.put(MCR, MCR_LOOP)
        port.put(THR, 0x5A)
        assert port.get(LSR) & LSR_DR
        assert port.get(RBR) == 0x5A
        assert port.far.sent == b""

    def test_a_block_loops_too(self, port: Port) -> None:
        port.open(fcr=0x01)
        port.put(MCR, MCR_LOOP)
        port.space.write_block(0x3F8, 1, b"loop")
        assert bytes(port.get(RBR) for _ in range(4)) == b"loop"

    def test_the_line_from_outside_is_disconnected(self, port: Port) -> None:
        """MCR, bit 4: SIN is disconnected."""
        port.put(MCR, MCR_LOOP)
        port.far.type(b"x")
        assert not port.get(LSR) & LSR_DR

    def test_a_second_looped_character_overruns_without_fifos(self, port: Port) -> None:
        """LSR, bit 1: a character that was not read is destroyed by the next one."""
        port.open()
        port.put(FCR, 0)
        port.put(MCR, MCR_LOOP)
        port.put(THR, 1)
        port.put(THR, 2)
        assert port.get(LSR) & LSR_OE
        assert port.get(RBR) == 2

    def test_a_break_does_not_loop(self, port: Port) -> None:
        """LCR, bit 6: acts only on SOUT and has no effect on the transmitter logic."""
        port.open()
        port.put(MCR, MCR_LOOP)
        port.put(LCR, 0x43)
        assert not port.get(LSR) & (LSR_BI | LSR_FE | LSR_DR)

    def test_modem_status_interrupt_works_from_mcr(self, port: Port) -> None:
        """MCR: the modem control interrupts' sources are the lower four bits of MCR."""
        port.open(ier=0x08)
        port.put(MCR, MCR_LOOP)
        port.get(MSR)
        port.put(MCR, MCR_LOOP | MCR_RTS)
        assert port.get(IIR) == MODEM

    def test_timed_loop(self) -> None:
        port = Port(timed=True)
        port.open()
        port.put(MCR, MCR_LOOP)
        port.put(THR, 0x5A)
        assert not port.get(LSR) & LSR_DR
        port.clock.advance(CHARACTER_8N1_115200)
        assert port.get(RBR) == 0x5A


ACTION = st.one_of(
    st.tuples(st.just("put"), st.sampled_from([0, 1, 2, 3, 4, 7]), st.integers(0, 255)),
    st.tuples(st.just("get"), st.integers(0, 7), st.just(0)),
    st.tuples(st.just("type"), st.just(0), st.integers(0, 40)),
    st.tuples(st.just("modem"), st.just(0), st.integers(0, 255)),
    st.tuples(st.just("break"), st.just(0), st.just(0)),
    st.tuples(st.just("wait"), st.just(0), st.integers(0, 1_000_000)),
)


@given(
    actions=st.lists(ACTION, max_size=60),
    timed=st.booleans(),
    flow=st.booleans(),
    queue=st.sampled_from([0, 3, 1000]),
)
@settings(max_examples=150, deadline=None)
def test_invariants(actions: list[tuple[str, int, int]], timed: bool, flow: bool, queue: int) -> None:
    """Whatever a guest and the far end do: the status registers tell the truth about the FIFOs and the line."""
    port = Port(timed=timed, flow_control=flow, input_queue=queue)
    for kind, register, value in actions:
        match kind:
            case "put":
                port.put(register, value)
            case "get":
                port.get(register)
            case "type":
                port.far.type(bytes(value))
            case "modem":
                port.uart.set_modem_inputs(value)
            case "break":
                port.uart.receive_break()
            case _:
                port.clock.advance(value)
        state = port.uart.state
        assert bool(state.lsr & LSR_DR) == bool(state.receiver)
        assert len(state.receiver) <= (16 if state.fcr & 1 else 1)
        assert len(state.waiting) <= queue + 16
        assert bool(state.lsr & LSR_THRE) == (not state.transmitter)
        assert bool(state.lsr & LSR_TEMT) == (not state.transmitter and state.shifting is None)
        assert state.mcr & MCR_LOOP or state.msr & 0xF0 == state.inputs
        assert port.irq.level == int(state.iir != NONE and state.mcr & 0x18 == MCR_OUT2)
        if not timed:
            assert state.lsr & LSR_THRE
            assert not state.waiting or len(state.receiver) == (16 if state.fcr & 1 else 1)
