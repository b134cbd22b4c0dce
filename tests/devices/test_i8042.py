"""Keyboard controller against the IBM PS/2 Hardware Interface Technical Reference."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.shared_bus import bus
from portvisor.devices.i8042 import ANSWERS, I8042
from portvisor.ports import IrqLine, VirtualClock
from portvisor.testing import DeviceSuite

OBF, SYS, A2, KEYLOCK, AUX = 0x01, 0x04, 0x08, 0x10, 0x20


class TestGeneric(DeviceSuite):
    def make(self) -> I8042:
        self.clock = VirtualClock()
        return I8042(self.clock, IrqLine(), IrqLine())


class Board:
    def __init__(self) -> None:
        self.clock = VirtualClock()
        self.irq1, self.irq12 = IrqLine(), IrqLine()
        self.edges: list[int] = []
        self.irq1.watch(lambda level: self.edges.append(1) if level else None)
        self.irq12.watch(lambda level: self.edges.append(12) if level else None)
        self.resets = 0
        self.a20: list[bool] = []
        self.chip = I8042(self.clock, self.irq1, self.irq12, self._reset, self.a20.append)
        self.space = bus(self.chip)

    def _reset(self) -> None:
        self.resets += 1

    def command(self, value: int, *parameters: int) -> None:
        self.space.write(0x64, 1, value)
        for parameter in parameters:
            self.data(parameter)

    def data(self, value: int) -> None:
        self.space.write(0x60, 1, value)

    def status(self) -> int:
        return self.space.read(0x64, 1)

    def read(self) -> int:
        return self.space.read(0x60, 1)

    def drain(self) -> list[tuple[int, bool]]:
        """(byte, from the mouse) of all that comes."""
        result = []
        while (status := self.status()) & OBF:
            result.append((self.read(), bool(status & AUX)))
            assert len(result) < 200
        return result

    def codes(self) -> bytes:
        return bytes(value for value, _ in self.drain())

    def keyboard(self, *values: int) -> bytes:
        """Commands to the keyboard, and its answer."""
        for value in values:
            self.data(value)
        return self.codes()

    def mouse(self, *values: int) -> bytes:
        answer = b""
        for value in values:
            self.command(0xD4, value)
            answer += self.codes()
        return answer


@pytest.fixture
def board() -> Board:
    return Board()


class TestStatus:
    def test_after_reset_only_the_keylock_is_open(self, board: Board) -> None:
        assert board.status() == KEYLOCK

    def test_obf_is_set_by_an_answer_and_cleared_by_reading_60(self, board: Board) -> None:
        board.command(0xAA)
        assert board.status() & OBF
        assert board.read() == 0x55
        assert not board.status() & OBF

    def test_a2_tells_the_port_of_the_last_write(self, board: Board) -> None:
        board.command(0xAE)
        assert board.status() & A2
        board.data(0xF4)
        assert not board.status() & A2

    def test_reading_the_empty_buffer_gives_the_last_byte(self, board: Board) -> None:
        board.command(0xAA)
        assert [board.read(), board.read()] == [0x55, 0x55]

    def test_system_flag_is_bit_2_of_the_command_byte(self, board: Board) -> None:
        board.command(0x60, 0x04)
        assert board.status() & SYS
        board.command(0x60, 0x00)
        assert not board.status() & SYS


class TestCommands:
    def test_self_test_answers_55_and_sets_the_system_flag(self, board: Board) -> None:
        board.command(0xAA)
        assert board.codes() == b"\x55"
        assert board.status() & SYS

    def test_interface_tests_answer_00(self, board: Board) -> None:
        board.command(0xAB)
        assert board.codes() == b"\x00"
        board.command(0xA9)
        assert board.codes() == b"\x00"

    def test_no_password_is_installed(self, board: Board) -> None:
        board.command(0xA4)
        assert board.codes() == b"\xf1"

    def test_load_password_swallows_bytes_up_to_zero(self, board: Board) -> None:
        board.command(0xA5, 0x1C, 0x32, 0x00)
        assert board.codes() == b""
        assert board.keyboard(0xEE) == b"\xee"

    def test_command_byte_reads_back(self, board: Board) -> None:
        for value in (0x61, 0x74, 0x03):
            board.command(0x60, value)
            board.command(0x20)
            assert board.codes()[0] == value

    def test_ram_bytes_1_to_31(self, board: Board) -> None:
        for index in range(1, 32):
            board.command(0x60 + index, index * 7)
        for index in range(1, 32):
            board.command(0x20 + index)
            assert board.codes() == bytes((index * 7,))

    def test_interfaces_on_and_off_are_bits_4_and_5(self, board: Board) -> None:
        values = []
        for command in (0xAD, 0xA7, 0xAE, 0xA8):
            board.command(command)
            board.command(0x20)
            values.append(board.codes()[0] & 0x30)
        assert values == [0x10, 0x30, 0x20, 0x00]

    def test_a_command_instead_of_a_parameter_drops_the_first(self, board: Board) -> None:
        board.command(0x60)
        board.command(0xAA)
        assert board.codes() == b"\x55"
        assert board.keyboard(0xEE) == b"\xee"

    def test_input_port_has_the_keyboard_unlocked(self, board: Board) -> None:
        board.command(0xC0)
        assert board.codes()[0] & 0x80

    def test_test_inputs_are_the_clocks_of_enabled_interfaces(self, board: Board) -> None:
        board.command(0xE0)
        assert board.codes() == b"\x03"
        board.command(0xAD)
        board.command(0xE0)
        assert board.codes() == b"\x02"

    def test_unread_answers_are_bounded(self, board: Board) -> None:
        for _ in range(100):
            board.command(0xAA)
        assert len(board.drain()) <= ANSWERS + 1


class TestOutputPort:
    def test_d1_drives_a20(self, board: Board) -> None:
        board.command(0xD1, 0xDD)
        board.command(0xD1, 0xDF)
        board.command(0xD1, 0xDF)
        assert board.a20 == [False, True], "told about changes"
        assert board.resets == 0

    def test_dd_and_df_drive_a20(self, board: Board) -> None:
        board.command(0xDD)
        board.command(0xDF)
        assert board.a20 == [False, True]

    def test_d0_reads_a20_reset_and_the_interrupts(self, board: Board) -> None:
        board.command(0xD0)
        assert board.codes()[0] & 0x33 == 0x03, "read when both buffers are empty"
        board.command(0xDD)
        board.chip.keyboard.tap("a")
        board.command(0xD0)
        assert board.read() == 0x1C
        assert board.read() & 0x33 == 0x11, "taken while the keyboard's byte waited"

    def test_d1_with_bit_0_low_resets(self, board: Board) -> None:
        board.command(0xD1, 0x02)
        assert board.resets == 1

    @pytest.mark.parametrize("command", range(0xF0, 0x100))
    def test_pulse_resets_if_bit_0_is_0(self, board: Board, command: int) -> None:
        board.command(command)
        assert board.resets == (0 if command & 1 else 1)


class TestLoops:
    def test_d2_is_read_as_from_the_keyboard(self, board: Board) -> None:
        board.command(0xD2, 0x5A)
        assert board.edges == [1]
        assert board.drain() == [(0x5A, False)]

    def test_d3_is_read_as_from_the_mouse_as_linux_probes_it(self, board: Board) -> None:
        for value in (0x5A, 0xA5):
            board.command(0xD3, value)
            assert board.drain() == [(value, True)]
        assert board.edges == [12, 12]

    def test_d3_interrupts_even_if_the_interface_is_off(self, board: Board) -> None:
        board.command(0xA7)
        board.command(0xD3, 0xA5)
        assert board.drain() == [(0xA5, True)]
        assert board.edges == [12]


class TestInterrupts:
    def test_irq1_is_high_while_a_keyboard_byte_waits(self, board: Board) -> None:
        board.chip.keyboard.press("a")
        assert (board.irq1.level, board.irq12.level) == (1, 0)
        board.read()
        assert board.irq1.level == 0

    def test_each_byte_is_an_edge(self, board: Board) -> None:
        assert board.keyboard(0xF2) == b"\xfa\xab\x83"
        assert board.edges == [1, 1, 1]

    def test_irq12_is_high_while_a_mouse_byte_waits(self, board: Board) -> None:
        board.command(0xD4, 0xF2)
        assert (board.irq1.level, board.irq12.level) == (0, 1)
        assert board.drain() == [(0xFA, True), (0x00, True)]
        assert board.edges == [12, 12]

    def test_interrupts_are_off_without_their_bits(self, board: Board) -> None:
        board.command(0x60, 0x00)
        board.keyboard(0xF2)
        board.mouse(0xF2)
        assert board.edges == []

    def test_enabling_the_interrupt_with_a_byte_waiting_raises_it(self, board: Board) -> None:
        board.command(0x60, 0x00)
        board.chip.keyboard.press("a")
        board.command(0x60, 0x01)
        assert board.irq1.level == 1


class TestInterfaces:
    def test_a_disabled_keyboard_keeps_its_codes(self, board: Board) -> None:
        board.command(0xAD)
        board.chip.keyboard.press("a")
        assert not board.status() & OBF
        board.command(0xAE)
        assert board.codes() == b"\x1c"

    def test_a_disabled_mouse_keeps_its_packet(self, board: Board) -> None:
        board.mouse(0xF4)
        board.command(0xA7)
        board.chip.mouse.move(1, 2)
        assert not board.status() & OBF
        board.command(0xA8)
        assert board.drain() == [(0x08, True), (1, True), (2, True)]

    def test_a_byte_to_a_device_switches_its_interface_on(self, board: Board) -> None:
        board.command(0x60, 0x30)
        assert board.keyboard(0xF2) == b"\xfa\xab\x83"
        assert board.mouse(0xF2) == b"\xfa\x00"
        board.command(0x20)
        assert board.codes() == b"\x00"

    def test_a_waiting_byte_is_not_replaced(self, board: Board) -> None:
        board.mouse(0xF4)
        board.chip.keyboard.press("a")
        board.chip.mouse.move(1, 0)
        board.command(0xAA)
        assert board.drain() == [(0x1C, False), (0x55, False), (0x08, True), (1, True), (0, True)]


class TestTranslation:
    def test_set_2_becomes_set_1(self, board: Board) -> None:
        board.command(0x60, 0x41)
        board.chip.keyboard.tap("a")
        board.chip.keyboard.tap("up")
        assert board.codes() == b"\x1e\x9e\xe0\x48\xe0\xc8"

    def test_the_break_prefix_makes_no_byte_of_its_own(self, board: Board) -> None:
        board.command(0x60, 0x41)
        board.chip.keyboard.tap("f7")
        assert board.edges == [1]
        assert board.codes() == b"\x41\xc1"

    def test_answers_of_the_keyboard_pass_but_the_id_changes(self, board: Board) -> None:
        board.command(0x60, 0x41)
        assert board.keyboard(0xED, 0x07) == b"\xfa\xfa"
        assert board.keyboard(0xFF) == b"\xfa\xaa"
        assert board.keyboard(0xF2) == b"\xfa\xab\x41"

    def test_mouse_bytes_are_not_translated(self, board: Board) -> None:
        board.command(0x60, 0x43)
        board.mouse(0xF4)
        board.chip.mouse.move(0x1C, 0x12)
        assert board.codes() == b"\x08\x1c\x12"


class TestFirmware:
    def test_seabios_finds_keyboard_without_waiting(self, board: Board) -> None:
        """Flush, AA, AB, interfaces off, keyboard reset, scan code set 2, enable: each answer is there at once."""
        assert not board.status() & OBF
        board.command(0xAA)
        assert board.codes() == b"\x55"
        board.command(0xAB)
        assert board.codes() == b"\x00"
        board.command(0x60, 0x30)
        assert board.keyboard(0xFF) == b"\xfa\xaa"
        assert board.keyboard(0xF5) == b"\xfa"
        board.command(0x60, 0x70)
        assert board.keyboard(0xF0) == b"\xfa"
        assert board.keyboard(0x02) == b"\xfa"
        board.command(0x60, 0x61)
        assert board.keyboard(0xF4) == b"\xfa"

    def test_linux_finds_both_ports(self, board: Board) -> None:
        board.command(0x20)
        control = board.codes()[0]
        board.command(0x60, control | 0x30)
        board.command(0xD3, 0x5A)
        assert board.drain() == [(0x5A, True)]
        board.command(0xA7)
        board.command(0x20)
        assert board.codes()[0] & 0x20
        board.command(0xA8)
        board.command(0x20)
        assert not board.codes()[0] & 0x20
        assert board.keyboard(0xF2) == b"\xfa\xab\x83"
        assert board.mouse(0xFF) == b"\xfa\xaa\x00"


class TestLife:
    def test_reset_empties_the_buffer_and_opens_a20(self, board: Board) -> None:
        board.command(0xDD)
        board.chip.keyboard.tap("a", "b")
        board.keyboard(0xED, 0x02)
        board.chip.keyboard.press("c")
        board.chip.reset()
        assert board.status() == KEYLOCK
        assert board.irq1.level == 0
        assert board.a20 == [False, True]
        assert board.chip.keyboard.leds == 0
        board.clock.advance(10**10)
        assert board.codes() == b"", "no key repeats any more"

    def test_restore_brings_devices_lines_and_a20_back(self, board: Board) -> None:
        board.command(0xDD)
        board.mouse(0xF4)
        board.chip.keyboard.tap("a")
        board.chip.mouse.move(3, 4)
        saved = board.chip.snapshot()
        board.chip.reset()
        board.chip.restore(saved)
        assert board.irq1.level == 1
        assert board.a20[-1] is False
        assert board.codes() == b"\x1c\xf0\x1c\x08\x03\x04"

    def test_restored_snapshot_is_not_changed_by_what_follows(self, board: Board) -> None:
        board.chip.keyboard.tap("a")
        saved = board.chip.snapshot()
        board.chip.restore(saved)
        board.codes()
        board.chip.restore(saved)
        assert board.codes() == b"\x1c\xf0\x1c"


class TestProperties:
    @settings(max_examples=60, deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from([0x60, 0x64]), st.integers(0, 255)), max_size=60), st.integers(0, 255)
    )
    def test_after_any_writes_the_controller_recovers(self, writes: list[tuple[int, int]], control: int) -> None:
        board = Board()
        for port, value in writes:
            board.space.write(port, 1, value)
            board.chip.keyboard.tap("x")
            board.chip.mouse.move(1, 1)
        board.command(0x60, 0x30)
        board.drain()
        board.command(0xAA)
        assert board.codes() == b"\x55"
        board.command(0x60, control)
        board.command(0x20)
        board.drain()
        board.command(0x60, 0x30)
        board.drain()
        assert board.keyboard(0xFF) == b"\xfa\xaa"

    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.integers(0, 3), max_size=40))
    def test_interrupt_lines_are_the_output_buffer(self, actions: list[int]) -> None:
        board = Board()
        board.mouse(0xF4)
        for action in actions:
            if action == 0:
                board.chip.keyboard.tap("a")
            elif action == 1:
                board.chip.mouse.move(1, 1)
                board.clock.advance(20_000_000)
            elif action == 2:
                board.read()
            else:
                board.command(0xAB)
            status = board.status()
            assert board.irq1.level == (status & (OBF | AUX) == OBF)
            assert board.irq12.level == (status & (OBF | AUX) == OBF | AUX)
