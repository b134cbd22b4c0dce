"""Input status 1 and the vertical interrupt, against the CRTC timing of BIOS modes."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from devices.vga_board import MODE_3, MODE_12, Board
from portvisor.devices.vga.timing import READ_TIME, BeamTiming
from portvisor.ports import NS_PER_S, IrqLine

RETRACE = 0x08
BLANK = 0x01
MODE_3_LINE = 900 * NS_PER_S / 28_322_000
MODE_3_FRAME = 449 * MODE_3_LINE


def text_board(irq: IrqLine | None = None) -> Board:
    board = Board(irq=irq)
    board.set_mode(MODE_3)
    board.vga.state.beam_skew = 0
    return board


def test_mode_3_runs_at_70_hz_and_mode_12_at_60() -> None:
    for mode, expected in ((MODE_3, 70.09), (MODE_12, 59.94)):
        board = Board()
        board.set_mode(mode)
        timing = BeamTiming.from_registers(mode.misc, board.vga.state.sequencer[1], board.vga.state.crtc)
        assert round(timing.dot_clock / timing.frame_dots, 2) == expected


def test_retrace_bit_is_set_during_lines_412_and_413_of_mode_3() -> None:
    board = text_board()
    for line, expected in ((411, 0), (412, RETRACE), (413, RETRACE), (414, 0), (448, 0)):
        board.clock.set(int(MODE_3_FRAME + (line + 0.5) * MODE_3_LINE))
        assert board.inb(0x3DA) & RETRACE == expected, line


def test_blank_bit_follows_the_display_area() -> None:
    board = text_board()
    for line, dot, expected in ((10, 100, 0), (10, 715, 0), (10, 725, BLANK), (399, 10, 0), (400, 10, BLANK)):
        board.clock.set(board.clock.now() + int(MODE_3_FRAME))
        frames = -(-board.clock.now() // MODE_3_FRAME)
        board.clock.set(int(frames * MODE_3_FRAME + (line + dot / 900) * MODE_3_LINE))
        assert board.inb(0x3DA) & BLANK == expected, (line, dot)


def test_a_moving_clock_alone_sets_the_pace() -> None:
    board = text_board()
    rises, before = 0, RETRACE
    for step in range(1, 100_001):
        board.clock.set(step * 10_000)
        now = board.inb(0x3DA) & RETRACE
        rises += now > before
        before = now
    assert rises == 70
    assert board.vga.state.beam_skew == 0


def test_a_stopped_clock_shows_another_state_at_every_read() -> None:
    board = text_board()
    seen = [board.inb(0x3DA) for _ in range(2000)]
    assert all(first != second for first, second in pairwise(seen))


def test_a_slow_clock_passes_a_frame_in_reads_of_an_isa_cycle() -> None:
    board = text_board()
    reads = 0
    for wanted in (RETRACE, 0, RETRACE):
        while board.inb(0x3DA) & RETRACE != wanted:
            board.clock.advance(1)
            reads += 1
    assert reads <= 2 * MODE_3_FRAME / READ_TIME


@settings(max_examples=60, deadline=None)
@given(crtc=st.binary(min_size=25, max_size=25), clocking=st.integers(0, 0xFF), misc=st.integers(0, 0xFF))
def test_no_crtc_contents_hang_a_driver_that_spins(crtc: bytes, clocking: int, misc: int) -> None:
    timing = BeamTiming.from_registers(misc, clocking, crtc)
    now, seen = 0, []
    for _ in range(3 * timing.frame_lines + 8):
        later = timing.next_edge(now)
        assert later > now
        now = later
        seen.append(timing.status(now))
    assert {status & RETRACE for status in seen} == {0, RETRACE}
    assert {status & BLANK for status in seen} == {0, BLANK}


def test_status_has_no_other_bits() -> None:
    board = text_board()
    assert not {board.inb(0x3DA) for _ in range(1500)} - {0, 1, 8, 9}


# --- vertical interrupt -----------------------------------------------------------------------------------


def test_vertical_interrupt_comes_at_retrace_and_stays_until_cleared() -> None:
    irq = IrqLine()
    board = text_board(irq)
    board.set_indexed(0x3D4, 0x11, 0x1E)
    board.clock.set(int(411.9 * MODE_3_LINE))
    assert (irq.level, board.inb(0x3C2) & 0x80) == (0, 0)
    board.clock.set(int(412.1 * MODE_3_LINE))
    assert (irq.level, board.inb(0x3C2) & 0x80) == (1, 0x80)
    board.clock.advance(int(3 * MODE_3_FRAME))
    assert irq.level == 1
    board.set_indexed(0x3D4, 0x11, 0x0E)
    assert (irq.level, board.inb(0x3C2) & 0x80) == (0, 0)


def test_vertical_interrupt_rearms_when_released_again() -> None:
    irq = IrqLine()
    board = text_board(irq)
    for _ in range(3):
        board.set_indexed(0x3D4, 0x11, 0x0E)
        board.set_indexed(0x3D4, 0x11, 0x1E)
        assert irq.level == 0
        board.clock.advance(int(MODE_3_FRAME) + 1)
        assert irq.level == 1


def test_vertical_interrupt_disabled_by_bit_5_still_shows_in_status_0() -> None:
    irq = IrqLine()
    board = text_board(irq)
    board.set_indexed(0x3D4, 0x11, 0x3E)
    board.clock.advance(int(MODE_3_FRAME) + 1)
    assert irq.level == 0
    assert board.inb(0x3C2) & 0x80


def test_bios_mode_3_leaves_the_interrupt_held_clear() -> None:
    board = text_board()
    assert board.clock.next_deadline() is None


def test_spinning_past_the_retrace_on_a_stopped_clock_raises_the_interrupt() -> None:
    irq = IrqLine()
    board = text_board(irq)
    board.set_indexed(0x3D4, 0x11, 0x1E)
    while not board.inb(0x3DA) & RETRACE:
        assert irq.level == 0
    assert irq.level == 1


def test_snapshot_keeps_the_pending_retrace() -> None:
    irq = IrqLine()
    board = text_board(irq)
    board.set_indexed(0x3D4, 0x11, 0x1E)
    board.inb(0x3DA)
    board.inb(0x3DA)
    saved, deadline = board.vga.snapshot(), board.clock.next_deadline()
    board.clock.advance(int(MODE_3_FRAME))
    assert irq.level == 1
    board.clock.rewind(0)
    board.vga.restore(saved)
    assert irq.level == 0
    assert board.clock.next_deadline() == deadline


def test_reset_drops_the_interrupt() -> None:
    irq = IrqLine()
    board = text_board(irq)
    board.set_indexed(0x3D4, 0x11, 0x1E)
    board.clock.advance(int(MODE_3_FRAME) + 1)
    board.vga.reset()
    assert irq.level == 0
    assert board.clock.next_deadline() is None
