"""8042 keyboard and auxiliary device controller, with a PS/2 keyboard and a PS/2 mouse on it.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard and Auxiliary Device Controller"; IBM PC AT
Technical Reference, "Keyboard Controller".

Registers (offset: port, name)
    0: 60  output buffer (read); data for the keyboard, or the parameter of a command (write)
    4: 64  status (read); command (write)

Commands: 20-3F/60-7F read/write RAM (byte 0 is the command byte), A4 password test, A5 load password, A7/A8
auxiliary interface off/on, A9 test it, AA self test, AB test the keyboard interface, AD/AE keyboard interface
off/on, C0 read input port, D0/D1 read/write output port, D2/D3 write the output buffer as keyboard/mouse,
D4 write to the mouse, DD/DF A20 off/on, E0 read test inputs, F0-FF pulse output port (bit 0 low = reset).

Order of the output buffer: answers of the controller, keyboard, mouse; a byte is never replaced before it is
read. IRQ 1 and IRQ 12 follow OBF, so each byte is an edge. A byte to a device switches its interface on,
and the answer goes ahead of what waited there.
After reset both interfaces and interrupts are on, without translation; the devices are as after power-on.

Not modelled: time on the serial lines (answers are there at once, so IBF, time-out and parity are always 0),
passwords (none is installed; A5 and A6 have no effect), C1/C2 (input port to status), AC (diagnostic dump).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.devices.ps2_keyboard import KeyboardState, Ps2Keyboard
from portvisor.devices.ps2_mouse import MouseState, Ps2Mouse
from portvisor.devices.ps2_scancodes import BREAK, translate
from portvisor.ports import Clock, Device, IrqLine, PortRange

DATA, COMMAND = 0, 4

# Status register
OBF = 0x01
SYS = 0x04
A2 = 0x08
KEYLOCK_OPEN = 0x10
AUX_OBF = 0x20
# Command byte
CTR_KBD_INT = 0x01
CTR_AUX_INT = 0x02
CTR_SYS = 0x04
CTR_KBD_DISABLE = 0x10
CTR_AUX_DISABLE = 0x20
CTR_TRANSLATE = 0x40
CTR_RESET = CTR_KBD_INT | CTR_AUX_INT
# Output port
OUT_RESET = 0x01
OUT_A20 = 0x02
OUT_AUX_DATA = 0x04
OUT_AUX_CLOCK = 0x08
OUT_IRQ1 = 0x10
OUT_IRQ12 = 0x20
OUT_KBD_CLOCK = 0x40
OUT_KBD_DATA = 0x80
# Input port: keyboard not locked, no manufacturing jumper, both data lines idle
INPUT_PORT = 0x80 | 0x20 | 0x02 | 0x01
# Test inputs
TEST_KBD_CLOCK = 0x01
TEST_AUX_CLOCK = 0x02

READ_RAM = 0x20
WRITE_RAM = 0x60
TEST_PASSWORD = 0xA4
LOAD_PASSWORD = 0xA5
DISABLE_AUX = 0xA7
ENABLE_AUX = 0xA8
TEST_AUX = 0xA9
SELF_TEST = 0xAA
TEST_KBD = 0xAB
DISABLE_KBD = 0xAD
ENABLE_KBD = 0xAE
READ_INPUT_PORT = 0xC0
READ_OUTPUT_PORT = 0xD0
WRITE_OUTPUT_PORT = 0xD1
WRITE_KBD_BUFFER = 0xD2
WRITE_AUX_BUFFER = 0xD3
WRITE_AUX = 0xD4
DISABLE_A20 = 0xDD
ENABLE_A20 = 0xDF
READ_TEST_INPUTS = 0xE0
PULSE_OUTPUT = 0xF0

WITH_PARAMETER = (
    *range(WRITE_RAM, WRITE_RAM + 0x20),
    LOAD_PASSWORD,
    WRITE_OUTPUT_PORT,
    WRITE_KBD_BUFFER,
    WRITE_AUX_BUFFER,
    WRITE_AUX,
)
NO_PASSWORD = 0xF1
SELF_TEST_OK = 0x55
INTERFACE_OK = 0x00
RAM_SIZE = 0x20
ANSWERS = 16
"""Answers the controller holds for a guest that does not read them; more are lost."""


def _unconnected_reset() -> None:
    """Reset goes nowhere."""


def _unconnected_a20(_level: bool) -> None:
    """The A20 gate goes nowhere."""


def _reset_ram() -> bytearray:
    return bytearray((CTR_RESET, *bytes(RAM_SIZE - 1)))


class I8042(Device):
    """The controller; `keyboard` and `mouse` are the devices on it.

    Args:
        clock: for the devices' timers.
        irq1: keyboard interrupt.
        irq12: auxiliary device interrupt.
        reset: called when the guest pulls the CPU's reset line.
        a20: told when the A20 gate changes; it is open (True) after reset.
    """

    ports = (PortRange(0x60, 1, name="keyboard"), PortRange(0x64, 1, name="keyboard", offset=COMMAND))
    REGISTERS: ClassVar[dict[int, str]] = {DATA: "8042 data", COMMAND: "8042 status/command"}

    @dataclass
    class State:
        """The controller, and both devices."""

        ram: bytearray = field(default_factory=_reset_ram)
        obf: bool = False
        aux: bool = False
        data: int = 0
        command_last: bool = False
        """The last byte written went to 64 (status bit A2)."""
        expecting: int = 0
        """The command whose parameter comes next; 0 for none."""
        answers: list[tuple[int, bool]] = field(default_factory=list)
        """(byte, as the mouse) from the controller that wait for the output buffer."""
        break_code: int = 0
        """80 after F0 from a keyboard that is translated."""
        a20: bool = True
        keyboard: KeyboardState = field(default_factory=KeyboardState)
        mouse: MouseState = field(default_factory=MouseState)

    state: State

    def __init__(
        self,
        clock: Clock,
        irq1: IrqLine,
        irq12: IrqLine,
        reset: Callable[[], None] = _unconnected_reset,
        a20: Callable[[bool], None] = _unconnected_a20,
    ) -> None:
        super().__init__()
        self.irq1 = irq1
        self.irq12 = irq12
        self._reset_cpu = reset
        self._gate_a20 = a20
        self.keyboard = Ps2Keyboard(clock, self.state.keyboard)
        self.mouse = Ps2Mouse(clock, self.state.mouse)
        self.keyboard.on_output = self.mouse.on_output = self._fill

    # --- output buffer ----------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Put the next byte into the output buffer if it is empty."""
        state = self.state
        if state.obf:
            return
        control = state.ram[0]
        if state.answers:
            self._put(*state.answers.pop(0))
        elif not control & CTR_KBD_DISABLE and self._fill_from_keyboard():
            return
        elif not control & CTR_AUX_DISABLE and self.mouse.has_output():
            # Taking the byte may make the mouse report again, so the buffer has to be full before that.
            state.obf = True
            self._put(self.mouse.pop(), True)

    def _fill_from_keyboard(self) -> bool:
        state = self.state
        while self.keyboard.has_output():
            code = self.keyboard.pop()
            if not state.ram[0] & CTR_TRANSLATE:
                self._put(code, False)
                return True
            if code == BREAK:
                state.break_code = 0x80
                continue
            self._put(translate(code) | state.break_code, False)
            state.break_code = 0
            return True
        return False

    def _put(self, value: int, aux: bool) -> None:
        state = self.state
        state.data, state.aux, state.obf = value, aux, True
        self._drive()

    def _drive(self) -> None:
        """Interrupts follow the output buffer."""
        state = self.state
        control = state.ram[0]
        self.irq1.set(state.obf and not state.aux and control & CTR_KBD_INT)
        self.irq12.set(state.obf and state.aux and control & CTR_AUX_INT)

    def _answer(self, value: int, aux: bool = False) -> None:
        if len(self.state.answers) < ANSWERS:
            self.state.answers.append((value, aux))
        self._fill()

    # --- registers --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        return self._read_data() if offset == DATA else self._status()

    def _read_data(self) -> int:
        state = self.state
        value = state.data
        if state.obf:
            state.obf = state.aux = False
            self._drive()
            self._fill()
        return value

    def _status(self) -> int:
        state = self.state
        value = KEYLOCK_OPEN | state.ram[0] & SYS
        if state.obf:
            value |= OBF | AUX_OBF if state.aux else OBF
        return value | A2 if state.command_last else value

    def write(self, offset: int, size: int, value: int) -> None:
        state = self.state
        state.command_last = offset == COMMAND
        expecting, state.expecting = state.expecting, 0
        if offset == COMMAND:
            self._command(value)
        elif expecting:
            self._parameter(expecting, value)
        else:
            self.keyboard.receive(value)
            self._set_control(state.ram[0] & ~CTR_KBD_DISABLE)

    def _command(self, value: int) -> None:
        state = self.state
        if READ_RAM <= value < READ_RAM + RAM_SIZE:
            self._answer(state.ram[value - READ_RAM])
        elif value in WITH_PARAMETER:
            state.expecting = value
        elif value == SELF_TEST:
            self._set_control(state.ram[0] | CTR_SYS)
            self._answer(SELF_TEST_OK)
        elif value in ANSWER_OF_COMMAND:
            self._answer(ANSWER_OF_COMMAND[value])
        elif value in CONTROL_OF_COMMAND:
            bits, on = CONTROL_OF_COMMAND[value]
            self._set_control(state.ram[0] | bits if on else state.ram[0] & ~bits)
        elif value == READ_OUTPUT_PORT:
            self._answer(self._output_port())
        elif value in (DISABLE_A20, ENABLE_A20):
            self._set_a20(value == ENABLE_A20)
        elif value == READ_TEST_INPUTS:
            self._answer(self._test_inputs())
        elif value >= PULSE_OUTPUT and not value & OUT_RESET:
            self._reset_cpu()

    def _parameter(self, command: int, value: int) -> None:
        state = self.state
        if command == WRITE_RAM:
            self._set_control(value)
        elif command < WRITE_RAM + RAM_SIZE:
            state.ram[command - WRITE_RAM] = value
        elif command == LOAD_PASSWORD:
            state.expecting = LOAD_PASSWORD if value else 0
        elif command == WRITE_OUTPUT_PORT:
            self._write_output_port(value)
        elif command == WRITE_AUX:
            self.mouse.receive(value)
            self._set_control(state.ram[0] & ~CTR_AUX_DISABLE)
        else:
            self._answer(value, aux=command == WRITE_AUX_BUFFER)

    def _set_control(self, value: int) -> None:
        """Write the command byte: interrupts and interfaces change at once."""
        if value != self.state.ram[0]:
            self.state.ram[0] = value
            self._drive()
            self._fill()

    # --- ports of the 8042 --------------------------------------------------------------------------------

    def _output_port(self) -> int:
        state = self.state
        value = OUT_RESET | OUT_AUX_DATA | OUT_KBD_DATA
        value |= OUT_A20 if state.a20 else 0
        value |= 0 if state.ram[0] & CTR_KBD_DISABLE else OUT_KBD_CLOCK
        value |= 0 if state.ram[0] & CTR_AUX_DISABLE else OUT_AUX_CLOCK
        return value | (OUT_IRQ1 if self.irq1.level else 0) | (OUT_IRQ12 if self.irq12.level else 0)

    def _write_output_port(self, value: int) -> None:
        self._set_a20(bool(value & OUT_A20))
        if not value & OUT_RESET:
            self._reset_cpu()

    def _test_inputs(self) -> int:
        control = self.state.ram[0]
        value = 0 if control & CTR_KBD_DISABLE else TEST_KBD_CLOCK
        return value if control & CTR_AUX_DISABLE else value | TEST_AUX_CLOCK

    def _set_a20(self, level: bool) -> None:
        if level != self.state.a20:
            self.state.a20 = level
            self._gate_a20(level)

    # --- life -------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """Output buffer empty, A20 gate open, devices as after power-on."""
        closed = not self.state.a20
        super().reset()
        self._bind()
        if closed:
            self._gate_a20(True)
        self._drive()

    def restored(self) -> None:
        self._bind()
        self._gate_a20(self.state.a20)
        self._drive()

    def _bind(self) -> None:
        self.keyboard.rebind(self.state.keyboard)
        self.mouse.rebind(self.state.mouse)


ANSWER_OF_COMMAND = {
    TEST_PASSWORD: NO_PASSWORD,
    TEST_AUX: INTERFACE_OK,
    TEST_KBD: INTERFACE_OK,
    READ_INPUT_PORT: INPUT_PORT,
}
CONTROL_OF_COMMAND = {
    DISABLE_AUX: (CTR_AUX_DISABLE, True),
    ENABLE_AUX: (CTR_AUX_DISABLE, False),
    DISABLE_KBD: (CTR_KBD_DISABLE, True),
    ENABLE_KBD: (CTR_KBD_DISABLE, False),
}
