"""PS/2 keyboard against the IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)"."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.devices.ps2_keyboard import BUFFER_SIZE, KeyboardState, Ps2Keyboard
from portvisor.devices.ps2_scancodes import KEYS, key_of, translate, translate_sequence
from portvisor.ports import NS_PER_S, VirtualClock

MS = NS_PER_S // 1000


class Board:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.keyboard = Ps2Keyboard(self.clock)

    def codes(self) -> bytes:
        result = bytearray()
        while self.keyboard.has_output():
            result.append(self.keyboard.pop())
        return bytes(result)

    def send(self, *values: int) -> bytes:
        answer = b""
        for value in values:
            self.keyboard.receive(value)
            answer += self.codes()
        return answer

    def tap(self, *keys: str) -> str:
        self.keyboard.tap(*keys)
        return self.codes().hex(" ")


@pytest.fixture
def board() -> Board:
    return Board()


class TestScanCodeSet2:
    def test_is_the_default(self, board: Board) -> None:
        assert board.send(0xF0, 0x00) == b"\xfa\xfa\x02"

    @pytest.mark.parametrize(
        ("key", "codes"),
        [
            ("a", "1c f0 1c"),
            ("esc", "76 f0 76"),
            ("f7", "83 f0 83"),
            ("enter", "5a f0 5a"),
            ("kpenter", "e0 5a e0 f0 5a"),
            ("rightctrl", "e0 14 e0 f0 14"),
            ("rightalt", "e0 11 e0 f0 11"),
            ("leftmeta", "e0 1f e0 f0 1f"),
            ("up", "e0 75 e0 f0 75"),
            ("kp8", "75 f0 75"),
            ("102nd", "61 f0 61"),
            ("sysrq", "e0 12 e0 7c e0 f0 7c e0 f0 12"),
            ("pause", "e1 14 77 e1 f0 14 f0 77"),
        ],
    )
    def test_make_and_break_codes(self, board: Board, key: str, codes: str) -> None:
        assert board.tap(key) == codes

    def test_shift_with_a_gray_key_is_hidden(self, board: Board) -> None:
        assert board.tap("leftshift", "home") == "12 e0 f0 12 e0 6c e0 f0 6c e0 12 f0 12"
        assert board.tap("rightshift", "home") == "59 e0 f0 59 e0 6c e0 f0 6c e0 59 f0 59"

    def test_num_lock_with_a_gray_key_sends_a_shift_of_its_own(self, board: Board) -> None:
        board.send(0xED, 0x02)
        assert board.tap("home") == "e0 12 e0 6c e0 f0 6c e0 f0 12"

    def test_num_lock_and_shift_cancel(self, board: Board) -> None:
        board.send(0xED, 0x02)
        assert board.tap("leftshift", "home") == "12 e0 6c e0 f0 6c f0 12"

    def test_keypad_slash_hides_shift_even_with_num_lock(self, board: Board) -> None:
        board.send(0xED, 0x02)
        assert board.tap("kpslash") == "e0 4a e0 f0 4a"
        assert board.tap("leftshift", "kpslash") == "12 e0 f0 12 e0 4a e0 f0 4a e0 12 f0 12"

    def test_print_screen_with_ctrl_or_shift_and_with_alt(self, board: Board) -> None:
        assert board.tap("leftctrl", "sysrq") == "14 e0 7c e0 f0 7c f0 14"
        assert board.tap("leftshift", "sysrq") == "12 e0 7c e0 f0 7c f0 12"
        assert board.tap("leftalt", "sysrq") == "11 84 f0 84 f0 11"

    def test_ctrl_pause_is_break(self, board: Board) -> None:
        assert board.tap("leftctrl", "pause") == "14 e0 7e e0 f0 7e f0 14"


class TestScanCodeSet1:
    @pytest.mark.parametrize(
        ("key", "codes"),
        [
            ("a", "1e 9e"),
            ("esc", "01 81"),
            ("f7", "41 c1"),
            ("f12", "58 d8"),
            ("102nd", "56 d6"),
            ("delete", "e0 53 e0 d3"),
            ("sysrq", "e0 2a e0 37 e0 b7 e0 aa"),
            ("pause", "e1 1d 45 e1 9d c5"),
        ],
    )
    def test_make_and_break_codes(self, board: Board, key: str, codes: str) -> None:
        board.send(0xF0, 0x01)
        assert board.tap(key) == codes

    def test_is_reported(self, board: Board) -> None:
        board.send(0xF0, 0x01)
        assert board.send(0xF0, 0x00) == b"\xfa\xfa\x01"


class TestScanCodeSet3:
    def test_default_types(self, board: Board) -> None:
        """Letters repeat and make no break, modifiers make a break, function keys only a make."""
        board.send(0xF0, 0x03)
        assert board.tap("a") == "1c"
        assert board.tap("leftctrl") == "11 f0 11"
        assert board.tap("f1") == "07"
        assert board.tap("pause") == "62"

    @pytest.mark.parametrize(
        ("command", "breaks", "repeats"),
        [(0xF7, False, True), (0xF8, True, False), (0xF9, False, False), (0xFA, True, True)],
    )
    def test_type_of_all_keys(self, board: Board, command: int, breaks: bool, repeats: bool) -> None:
        board.send(0xF0, 0x03, command)
        board.keyboard.press("f1")
        board.clock.advance(510 * MS)
        board.keyboard.release("f1")
        assert board.codes().hex(" ") == "07" + " 07" * repeats + " f0 07" * breaks

    @pytest.mark.parametrize(
        ("command", "breaks", "repeats"), [(0xFB, False, True), (0xFC, True, False), (0xFD, False, False)]
    )
    def test_type_of_single_keys(self, board: Board, command: int, breaks: bool, repeats: bool) -> None:
        board.send(0xF0, 0x03, 0xFA)
        assert board.send(command, 0x07, 0x1C, 0xF4) == b"\xfa" * 4
        for key, code in (("f1", "07"), ("a", "1c")):
            board.keyboard.press(key)
            board.clock.advance(510 * MS)
            board.keyboard.release(key)
            assert board.codes().hex(" ") == code + f" {code}" * repeats + f" f0 {code}" * breaks
        assert board.tap("b") == "32 f0 32", "others are as before"

    def test_types_do_not_matter_in_set_2(self, board: Board) -> None:
        board.send(0xF9)
        assert board.tap("a") == "1c f0 1c"


class TestTypematic:
    def repeats(self, board: Board, key: str, duration: int) -> list[int]:
        """Milliseconds at which a held key sends its code."""
        times = []
        board.keyboard.press(key)
        start = board.clock.now()
        while board.clock.now() < start + duration * MS:
            if board.codes():
                times.append((board.clock.now() - start) // MS)
            deadline = board.clock.next_deadline()
            assert deadline is not None
            board.clock.set(deadline)
        board.keyboard.release(key)
        board.codes()
        return times

    def test_default_is_10_9_a_second_after_500_ms(self, board: Board) -> None:
        assert self.repeats(board, "a", 800) == [0, 500, 591, 683, 774]

    def test_fastest_is_30_a_second_after_250_ms(self, board: Board) -> None:
        board.send(0xF3, 0x00)
        assert self.repeats(board, "a", 320) == [0, 250, 283, 316]

    def test_slowest_is_2_a_second_after_a_second(self, board: Board) -> None:
        board.send(0xF3, 0x7F)
        assert self.repeats(board, "a", 1600) == [0, 1000, 1500]

    def test_only_the_last_key_repeats_and_its_release_ends_it(self, board: Board) -> None:
        board.keyboard.press("a")
        board.keyboard.press("b")
        board.codes()
        board.clock.advance(510 * MS)
        assert board.codes() == b"\x32"
        board.keyboard.release("b")
        board.codes()
        board.clock.advance(NS_PER_S)
        assert board.codes() == b""

    def test_release_of_another_key_does_not_end_it(self, board: Board) -> None:
        board.keyboard.press("a")
        board.keyboard.press("b")
        board.keyboard.release("a")
        board.codes()
        board.clock.advance(510 * MS)
        assert board.codes() == b"\x32"

    def test_extended_key_repeats_its_two_bytes(self, board: Board) -> None:
        board.keyboard.press("down")
        board.codes()
        board.clock.advance(510 * MS)
        assert board.codes() == b"\xe0\x72"

    def test_pause_does_not_repeat(self, board: Board) -> None:
        board.keyboard.press("pause")
        assert board.clock.next_deadline() is None

    def test_repeats_do_not_overrun_the_buffer(self, board: Board) -> None:
        board.keyboard.press("a")
        board.clock.advance(60 * NS_PER_S)
        assert board.codes() == b"\x1c" * BUFFER_SIZE


class TestBuffer:
    def test_the_17th_byte_is_the_overrun_code_and_the_rest_is_lost(self, board: Board) -> None:
        for key in "abcdefgh":
            board.keyboard.tap(key)
        assert board.codes() == bytes.fromhex("1c f0 1c 32 f0 32 21 f0 21 23 f0 23 24 f0 24 2b 00")

    def test_overrun_code_in_set_1_is_ff(self, board: Board) -> None:
        board.send(0xF0, 0x01)
        for key in "abcdefghij":
            board.keyboard.tap(key)
        assert board.codes()[-1] == 0xFF

    def test_after_reading_it_works_again(self, board: Board) -> None:
        for key in "abcdefgh":
            board.keyboard.tap(key)
        board.codes()
        assert board.tap("a") == "1c f0 1c"

    def test_answers_go_ahead_of_scan_codes(self, board: Board) -> None:
        board.keyboard.tap("a")
        board.keyboard.receive(0xEE)
        assert board.codes() == b"\xee\x1c\xf0\x1c"


class TestCommands:
    def test_echo(self, board: Board) -> None:
        assert board.send(0xEE) == b"\xee"

    def test_reset_answers_at_once_and_passes_the_self_test(self, board: Board) -> None:
        assert board.send(0xFF) == b"\xfa\xaa"

    def test_reset_restores_everything(self, board: Board) -> None:
        board.send(0xED, 0x07, 0xF0, 0x03, 0xF3, 0x00, 0xF9, 0xF5)
        board.send(0xFF)
        assert board.keyboard.state == KeyboardState(last_sent=0xAA)

    def test_identify(self, board: Board) -> None:
        assert board.send(0xF2) == b"\xfa\xab\x83"

    def test_leds(self, board: Board) -> None:
        assert board.send(0xED, 0x05) == b"\xfa\xfa"
        assert board.keyboard.leds == 5

    def test_no_scan_codes_while_a_parameter_is_expected(self, board: Board) -> None:
        board.send(0xED)
        board.keyboard.tap("a")
        assert board.codes() == b""
        assert board.send(0x00) == b"\xfa\x1c\xf0\x1c"

    def test_a_command_in_place_of_a_parameter_is_taken(self, board: Board) -> None:
        assert board.send(0xED, 0xF2) == b"\xfa\xfa\xab\x83"
        assert board.send(0x02) == b"\xfe"

    def test_invalid_parameter_is_asked_for_again(self, board: Board) -> None:
        assert board.send(0xF3, 0x80, 0x20) == b"\xfa\xfe\xfa"
        assert board.send(0xF0, 0x04, 0x01) == b"\xfa\xfe\xfa"

    def test_unknown_command_gets_resend(self, board: Board) -> None:
        assert board.send(0x00) == b"\xfe"
        assert board.send(0xEF, 0xF1) == b"\xfe\xfe"

    def test_resend_repeats_the_last_byte(self, board: Board) -> None:
        board.tap("a")
        assert board.send(0xFE, 0xFE) == b"\x1c\x1c"
        board.send(0xF2)
        assert board.send(0xFE) == b"\x83"

    def test_disable_stops_scanning_and_clears_the_buffer(self, board: Board) -> None:
        board.keyboard.press("a")
        assert board.send(0xF5) == b"\xfa"
        board.keyboard.release("a")
        board.keyboard.tap("b")
        assert board.codes() == b""

    def test_enable_starts_scanning(self, board: Board) -> None:
        board.send(0xF5)
        assert board.send(0xF4) == b"\xfa"
        assert board.tap("a") == "1c f0 1c"

    def test_set_defaults_keeps_scanning_as_it_is(self, board: Board) -> None:
        assert board.send(0xF6) == b"\xfa"
        assert board.tap("a") == "1c f0 1c"
        board.send(0xF5, 0xF6)
        assert board.tap("a") == ""

    def test_a_new_command_drops_the_unread_answer(self, board: Board) -> None:
        board.keyboard.receive(0xF2)
        board.keyboard.receive(0xEE)
        assert board.codes() == b"\xee"


class TestHost:
    def test_type_text_types_one_movement_every_20_ms(self, board: Board) -> None:
        board.keyboard.type_text("aB")
        times = []
        while (deadline := board.clock.next_deadline()) is not None:
            if codes := board.codes():
                times.append((board.clock.now() // MS, codes.hex(" ")))
            board.clock.set(deadline)
        assert times == [
            (0, "1c"), (20, "f0 1c"), (40, "12"), (60, "32"), (80, "f0 32"), (100, "f0 12"),
        ]  # fmt: skip

    def test_text_after_text_is_typed_in_order(self, board: Board) -> None:
        board.keyboard.type_text("ab")
        board.keyboard.type_text("c")
        result = b""
        for _ in range(100):
            result += board.codes()
            board.clock.advance(20 * MS)
        assert result == bytes.fromhex("1c f0 1c 32 f0 32 21 f0 21")

    def test_long_text_is_not_lost(self, board: Board) -> None:
        text = "The quick brown fox jumps over the lazy dog! 0123456789 ~|\\\n"
        board.keyboard.type_text(text)
        makes = []
        while (deadline := board.clock.next_deadline()) is not None:
            codes = board.codes()
            if codes and codes[0] not in (0xF0, 0x12):
                makes.append(codes[0])
            board.clock.set(deadline)
        assert makes == [KEYS[key_of(character)[0]].set2 for character in text]

    def test_unknown_key_or_character_is_an_error(self, board: Board) -> None:
        with pytest.raises(ValueError, match="no key 'ä'"):
            board.keyboard.press("ä")
        with pytest.raises(ValueError, match="US layout types 'ä'"):
            board.keyboard.type_text("aä")
        assert board.codes() == b""

    def test_pressing_a_key_that_is_down_does_nothing(self, board: Board) -> None:
        board.keyboard.press("a")
        board.keyboard.press("a")
        assert board.codes() == b"\x1c"


class TestTables:
    def test_set_1_codes_of_the_main_block_are_the_linux_key_codes(self) -> None:
        """KEY_ESC is 1 ... KEY_KPDOT is 83 in the order of the table, as set 1 has it."""
        names = [name for name, key in KEYS.items() if not key.extended and name not in ("102nd", "f11", "f12")]
        assert [translate(KEYS[name].set2) for name in names] == list(range(1, 84))

    def test_f11_f12_and_102nd(self) -> None:
        assert [translate(KEYS[name].set2) for name in ("102nd", "f11", "f12")] == [0x56, 0x57, 0x58]

    def test_codes_of_each_set_are_distinct(self) -> None:
        assert len({(key.extended, key.set2) for key in KEYS.values()}) == len(KEYS)
        assert len({key.set3 for key in KEYS.values()}) == len(KEYS)

    def test_translation_is_one_to_one_below_80_but_for_three_codes(self) -> None:
        images = [translate(code) for code in range(1, 0x80)]
        assert len(set(images)) == len(images)
        assert all(image < 0x80 for image in images)
        assert [translate(code) for code in (0x00, 0x83, 0x84)] == [0xFF, 0x41, 0x54]

    def test_replies_pass_translation(self) -> None:
        for code in (0xAA, 0xAB, 0xE0, 0xE1, 0xEE, 0xFA, 0xFE):
            assert translate_sequence(bytes((code,))) == bytes((code,))

    @pytest.mark.parametrize("character", [chr(code) for code in range(0x20, 0x7F)])
    def test_every_printable_character_has_a_key(self, character: str) -> None:
        assert key_of(character)[0] in KEYS


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from(sorted(KEYS)), st.booleans()), max_size=12))
    def test_set_1_is_the_translation_of_set_2(self, strokes: list[tuple[str, bool]]) -> None:
        results = []
        for scan_set in (1, 2):
            board = Board()
            board.send(0xF0, scan_set)
            codes = b""
            for key, down in strokes:
                (board.keyboard.press if down else board.keyboard.release)(key)
                codes += board.codes()
            results.append(codes)
        assert results[0] == translate_sequence(results[1])

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.integers(0, 255), max_size=60))
    def test_any_bytes_are_safe_and_reset_always_works(self, values: list[int]) -> None:
        board = Board()
        for value in values:
            board.keyboard.receive(value)
            board.keyboard.tap("a")
            assert len(board.keyboard.state.replies) <= 3
            assert len(board.keyboard.state.data) <= BUFFER_SIZE + 1
        board.codes()
        assert board.send(0xFF) == b"\xfa\xaa"
