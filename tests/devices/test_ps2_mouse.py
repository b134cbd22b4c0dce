"""PS/2 mouse against the IBM PS/2 Hardware Interface Technical Reference, "Mouse", and the IntelliMouse."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.devices.ps2_mouse import (
    BUTTON_4,
    BUTTON_5,
    BUTTON_LEFT,
    BUTTON_MIDDLE,
    BUTTON_RIGHT,
    MouseState,
    Ps2Mouse,
)
from portvisor.ports import NS_PER_S, VirtualClock

MS = NS_PER_S // 1000


class Board:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.mouse = Ps2Mouse(self.clock)

    def codes(self) -> bytes:
        result = bytearray()
        while self.mouse.has_output():
            result.append(self.mouse.pop())
        return bytes(result)

    def send(self, *values: int) -> bytes:
        answer = b""
        for value in values:
            self.mouse.receive(value)
            answer += self.codes()
        return answer

    def packet(self) -> bytes:
        """What comes within a sampling period of the default rate."""
        self.clock.advance(10 * MS)
        return self.codes()


@pytest.fixture
def board() -> Board:
    return Board()


@pytest.fixture
def streaming() -> Board:
    board = Board()
    assert board.send(0xF4) == b"\xfa"
    return board


class TestPackets:
    def test_movement_in_two_complement_with_sign_bits(self, streaming: Board) -> None:
        streaming.mouse.move(5, -3)
        assert streaming.packet() == bytes((0x28, 5, 0xFD))
        streaming.mouse.move(-1, 2)
        assert streaming.packet() == bytes((0x18, 0xFF, 2))

    def test_buttons(self, streaming: Board) -> None:
        for buttons, first in (
            (BUTTON_LEFT, 0x09),
            (BUTTON_RIGHT, 0x0A),
            (BUTTON_MIDDLE, 0x0C),
            (7, 0x0F),
            (0, 0x08),
        ):
            streaming.mouse.move(buttons=buttons)
            assert streaming.packet() == bytes((first, 0, 0))

    def test_press_and_release(self, streaming: Board) -> None:
        streaming.mouse.press(BUTTON_LEFT)
        assert streaming.packet() == bytes((0x09, 0, 0))
        streaming.mouse.press(BUTTON_RIGHT)
        assert streaming.packet() == bytes((0x0B, 0, 0))
        streaming.mouse.release(BUTTON_LEFT)
        assert streaming.packet() == bytes((0x0A, 0, 0))

    def test_overflow_is_flagged_and_the_count_limited(self, streaming: Board) -> None:
        streaming.mouse.move(300, -300)
        assert streaming.packet() == bytes((0x08 | 0x40 | 0x80 | 0x20, 0xFF, 0x00))
        streaming.mouse.move(1, 0)
        assert streaming.packet() == bytes((0x08, 1, 0)), "what overflowed is lost"

    def test_no_news_no_packet(self, streaming: Board) -> None:
        streaming.mouse.move(0, 0)
        assert streaming.packet() == b""

    def test_reporting_is_off_until_f4(self, board: Board) -> None:
        board.mouse.move(1, 1)
        assert board.packet() == b""
        board.send(0xF4)
        assert board.packet() == b"", "movement before is forgotten"


class TestSampling:
    @pytest.mark.parametrize("rate", [10, 20, 40, 60, 80, 100, 200])
    def test_at_most_one_packet_in_a_sampling_period(self, streaming: Board, rate: int) -> None:
        streaming.send(0xF3, rate)
        period = NS_PER_S // rate
        streaming.mouse.move(1, 0)
        assert streaming.codes() == bytes((0x08, 1, 0))
        streaming.mouse.move(1, 0)
        streaming.mouse.move(1, 0)
        streaming.clock.advance(period - 1)
        assert streaming.codes() == b""
        streaming.clock.advance(1)
        assert streaming.codes() == bytes((0x08, 2, 0))

    def test_movement_adds_up_until_the_packet_was_read(self, streaming: Board) -> None:
        streaming.mouse.move(1, 0)
        streaming.clock.advance(50 * MS)
        streaming.mouse.move(1, 0)
        streaming.mouse.move(1, 0)
        assert streaming.codes() == bytes((0x08, 1, 0, 0x08, 2, 0))

    def test_rate_is_one_of_seven(self, board: Board) -> None:
        assert board.send(0xF3, 15) == b"\xfa\xfe"
        assert board.send(40) == b"\xfa"
        assert board.mouse.state.rate == 40


class TestScalingAndResolution:
    @pytest.mark.parametrize(
        ("count", "scaled"),
        [(0, 0), (1, 1), (2, 1), (3, 3), (4, 6), (5, 9), (6, 12), (7, 14), (-1, -1), (-4, -6), (-9, -18)],
    )
    def test_2_to_1_scaling(self, streaming: Board, count: int, scaled: int) -> None:
        streaming.send(0xE7)
        streaming.mouse.move(count, 1)
        assert streaming.packet()[1] == scaled & 0xFF

    def test_1_to_1_takes_it_back(self, streaming: Board) -> None:
        streaming.send(0xE7, 0xE6)
        streaming.mouse.move(9, 0)
        assert streaming.packet()[1] == 9

    def test_read_data_is_not_scaled(self, board: Board) -> None:
        board.send(0xE7)
        board.mouse.move(9, 0)
        assert board.send(0xEB) == b"\xfa\x08\x09\x00"

    def test_resolution_is_0_to_3(self, board: Board) -> None:
        assert board.send(0xE8, 3) == b"\xfa\xfa"
        assert board.send(0xE8, 4) == b"\xfa\xfe"


class TestModes:
    def test_remote_mode_sends_only_when_asked(self, streaming: Board) -> None:
        streaming.send(0xF0)
        streaming.mouse.move(7, 8)
        assert streaming.packet() == b""
        assert streaming.send(0xEB) == b"\xfa\x08\x07\x08"
        assert streaming.send(0xEB) == b"\xfa\x08\x00\x00"

    def test_stream_mode_again(self, streaming: Board) -> None:
        streaming.send(0xF0, 0xEA)
        streaming.mouse.move(7, 8)
        assert streaming.packet() == b"\x08\x07\x08"

    def test_wrap_mode_echoes_all_but_reset_and_reset_wrap(self, streaming: Board) -> None:
        assert streaming.send(0xEE) == b"\xfa"
        assert streaming.send(0x00, 0xF2, 0xE9, 0xF4, 0xEE) == b"\x00\xf2\xe9\xf4\xee"
        streaming.mouse.move(1, 1)
        assert streaming.packet() == b""
        assert streaming.send(0xEC) == b"\xfa"
        assert streaming.send(0xF2) == b"\xfa\x00"

    def test_reset_leaves_wrap_mode(self, board: Board) -> None:
        board.send(0xEE)
        assert board.send(0xFF) == b"\xfa\xaa\x00"
        assert board.send(0xF2) == b"\xfa\x00"


class TestStatus:
    def test_after_reset(self, board: Board) -> None:
        assert board.send(0xE9) == bytes((0xFA, 0x00, 2, 100))

    def test_bits(self, board: Board) -> None:
        board.send(0xF4, 0xE7, 0xE8, 0, 0xF3, 200)
        board.mouse.press(BUTTON_LEFT)
        board.codes()
        assert board.send(0xE9) == bytes((0xFA, 0x20 | 0x10 | 0x04, 0, 200))
        board.mouse.move(buttons=BUTTON_RIGHT)
        board.send(0xF0, 0xF5, 0xE6)
        assert board.send(0xE9) == bytes((0xFA, 0x40 | 0x01, 0, 200))
        board.mouse.move(buttons=BUTTON_MIDDLE)
        assert board.send(0xE9)[1] == 0x40 | 0x02


class TestCommands:
    def test_reset_answers_at_once_with_self_test_and_id(self, board: Board) -> None:
        assert board.send(0xFF) == b"\xfa\xaa\x00"

    def test_reset_restores_everything(self, board: Board) -> None:
        board.send(0xF3, 200, 0xF3, 100, 0xF3, 80, 0xE7, 0xE8, 0, 0xF0, 0xF4)
        board.send(0xFF)
        assert board.mouse.state == MouseState(last_sent=0x00)

    def test_set_defaults(self, streaming: Board) -> None:
        streaming.send(0xF3, 10, 0xE8, 0, 0xE7)
        assert streaming.send(0xF6) == b"\xfa"
        assert streaming.send(0xE9) == bytes((0xFA, 0x00, 2, 100))

    def test_disable_reporting(self, streaming: Board) -> None:
        assert streaming.send(0xF5) == b"\xfa"
        streaming.mouse.move(1, 1)
        assert streaming.packet() == b""

    def test_invalid_command_gets_fe_and_the_second_in_a_row_fc(self, board: Board) -> None:
        assert board.send(0x00, 0x00, 0x00) == b"\xfe\xfc\xfe"
        assert board.send(0xF2, 0xE5) == b"\xfa\x00\xfe"

    def test_invalid_parameter_twice_ends_the_command(self, board: Board) -> None:
        assert board.send(0xF3, 1, 2) == b"\xfa\xfe\xfc"
        assert board.send(0xF2) == b"\xfa\x00"

    def test_a_command_in_place_of_a_parameter_is_taken(self, board: Board) -> None:
        assert board.send(0xF3, 0xFF) == b"\xfa\xfa\xaa\x00"

    def test_resend_repeats_the_last_byte(self, board: Board) -> None:
        board.send(0xE9)
        assert board.send(0xFE) == bytes((100,))

    def test_a_command_drops_the_packet_on_its_way(self, streaming: Board) -> None:
        streaming.mouse.move(1, 2)
        assert streaming.mouse.pop() == 0x08
        assert streaming.send(0xF2) == b"\xfa\x00"

    def test_no_packet_while_a_parameter_is_expected(self, streaming: Board) -> None:
        streaming.send(0xE8)
        streaming.mouse.move(1, 2)
        assert streaming.packet() == b""


class TestWheel:
    def knock(self, board: Board, *rates: int) -> int:
        for rate in rates:
            board.send(0xF3, rate)
        return board.send(0xF2)[1]

    def test_200_100_80_unlocks_the_wheel(self, streaming: Board) -> None:
        assert self.knock(streaming, 200, 100, 80) == 3
        streaming.mouse.move(1, 2, wheel=-1)
        assert streaming.codes() == b"\x08\x01\x02\xff"
        streaming.clock.advance(20 * MS)
        streaming.mouse.move(wheel=3)
        assert streaming.codes() == b"\x08\x00\x00\x03"

    def test_200_200_80_unlocks_five_buttons(self, streaming: Board) -> None:
        assert self.knock(streaming, 200, 200, 80) == 4
        streaming.mouse.move(buttons=BUTTON_4 | BUTTON_5 | BUTTON_LEFT, wheel=-1)
        assert streaming.codes() == b"\x09\x00\x00\x3f"

    def test_other_orders_do_not(self, board: Board) -> None:
        assert self.knock(board, 100, 200, 80) == 0

    def test_without_it_wheel_and_side_buttons_are_no_news(self, streaming: Board) -> None:
        streaming.mouse.move(buttons=BUTTON_4, wheel=1)
        assert streaming.packet() == b""

    def test_wheel_is_limited_to_four_bits(self, streaming: Board) -> None:
        self.knock(streaming, 200, 100, 80)
        streaming.mouse.move(wheel=100)
        assert streaming.codes()[3] == 7
        streaming.clock.advance(20 * MS)
        streaming.mouse.move(wheel=-100)
        assert streaming.codes()[3] == 0xF8

    def test_read_data_has_the_fourth_byte(self, board: Board) -> None:
        self.knock(board, 200, 100, 80)
        board.mouse.move(wheel=2)
        assert board.send(0xEB) == b"\xfa\x08\x00\x00\x02"


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.integers(-60, 60), st.integers(-60, 60)), max_size=20), st.integers(1, 30))
    def test_no_movement_is_lost_if_the_guest_reads(self, moves: list[tuple[int, int]], pause: int) -> None:
        board = Board()
        board.send(0xF4)
        x = y = 0
        for dx, dy in moves:
            board.mouse.move(dx, dy)
            board.clock.advance(pause * MS)
            sent = _sum(board.codes())
            x, y = x + sent[0], y + sent[1]
        board.clock.advance(NS_PER_S)
        sent = _sum(board.codes())
        assert (x + sent[0], y + sent[1]) == (sum(dx for dx, _ in moves), sum(dy for _, dy in moves))

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 255), max_size=60))
    def test_any_bytes_are_safe_and_reset_always_works(self, values: list[int]) -> None:
        board = Board()
        for value in values:
            board.mouse.receive(value)
            board.mouse.move(1, 1)
            assert len(board.mouse.state.replies) + len(board.mouse.state.data) <= 9
        board.codes()
        assert board.send(0xFF) == b"\xfa\xaa\x00"


def _sum(codes: bytes) -> tuple[int, int]:
    x = y = 0
    for first, dx, dy in zip(codes[::3], codes[1::3], codes[2::3], strict=True):
        x += dx - (first << 4 & 0x100)
        y += dy - (first << 3 & 0x100)
    return x, y
