"""PS/2 mouse, with the wheel of the IntelliMouse and the five buttons of the IntelliMouse Explorer.

Source: IBM PS/2 Hardware Interface Technical Reference, "Mouse"; the wheel: Microsoft IntelliMouse, unlocked by
sample rates 200, 100, 80 (ID 3) and 200, 200, 80 (ID 4).

Commands: E6/E7 scaling 1:1/2:1, E8 resolution, E9 status, EA stream mode, EB read data, EC leave wrap mode,
EE wrap mode, F0 remote mode, F2 identify, F3 sample rate, F4/F5 reporting on/off, F6 defaults, FE resend,
FF reset. All else gets FE, and the next one that is wrong again FC.

Packet: byte 1 = 7 Y overflow, 6 X overflow, 5 Y sign, 4 X sign, 3 always 1, 2-0 middle, right, left button;
byte 2 = X, byte 3 = Y; with a wheel byte 4 = Z, in ID 4 with buttons 5 and 4 in bits 5 and 4.

In stream mode at most one packet leaves in a sampling period, and none while the one before is not read;
movement adds up in counters of 9 bits, whose overflow is flagged and lost.

Not modelled: movement does not depend on the resolution (the host moves by counts, not by millimetres).
"""

from __future__ import annotations

from dataclasses import dataclass

from portvisor.devices.ps2 import (
    ACK,
    DISABLE,
    ENABLE,
    READ_ID,
    RESEND,
    RESET,
    SELF_TEST_PASSED,
    SET_DEFAULTS,
    SET_RATE,
    Ps2Device,
    Ps2State,
)
from portvisor.ports import NS_PER_S, Clock

SCALING_1_TO_1 = 0xE6
SCALING_2_TO_1 = 0xE7
SET_RESOLUTION = 0xE8
STATUS_REQUEST = 0xE9
SET_STREAM = 0xEA
READ_DATA = 0xEB
RESET_WRAP = 0xEC
SET_WRAP = 0xEE
SET_REMOTE = 0xF0
ERROR = 0xFC
FIRST_COMMAND = SCALING_1_TO_1
"""Bytes from here on are commands, even where a parameter is expected."""

SAMPLE_RATES = (10, 20, 40, 60, 80, 100, 200)
RATE_KNOCKS: dict[tuple[int, ...], int] = {(200, 100, 80): 3, (200, 200, 80): 4}
ID_STANDARD, ID_WHEEL, ID_FIVE_BUTTONS = 0, 3, 4

BUTTON_LEFT = 0x01
BUTTON_RIGHT = 0x02
BUTTON_MIDDLE = 0x04
BUTTON_4 = 0x08
BUTTON_5 = 0x10
THREE_BUTTONS = 0x07
ALL_BUTTONS = 0x1F
# Packet, byte 1
ALWAYS_1 = 0x08
X_SIGN = 0x10
Y_SIGN = 0x20
X_OVERFLOW = 0x40
Y_OVERFLOW = 0x80
# Status, byte 1
STATUS_REMOTE = 0x40
STATUS_ENABLED = 0x20
STATUS_SCALING = 0x10

ACCELERATED = (0, 1, 1, 3, 6, 9)
"""2:1 scaling of up to 5 counts; more are doubled."""


@dataclass
class MouseState(Ps2State):
    """Everything that the mouse remembers."""

    device_id: int = ID_STANDARD
    remote: bool = False
    wrap: bool = False
    reporting: bool = False
    scaling: bool = False
    resolution: int = 2
    rate: int = 100
    last_rates: tuple[int, ...] = ()
    x: int = 0
    y: int = 0
    z: int = 0
    buttons: int = 0
    reported_buttons: int = 0
    wrong: bool = False
    """The last command got FE."""
    sample_at: int | None = None
    """Clock time (ns) before which no other packet leaves."""


class Ps2Mouse(Ps2Device):
    """The mouse. The host moves it with `move`."""

    state: MouseState

    def __init__(self, clock: Clock, state: MouseState | None = None) -> None:
        super().__init__(clock)
        self.state = state or MouseState()
        self._sample_timer = clock.timer(self._sample, "mouse")

    # --- the host's hand --------------------------------------------------------------------------------

    def move(self, dx: int = 0, dy: int = 0, buttons: int | None = None, wheel: int = 0) -> None:
        """Move by counts (to the right and away from the user), turn the wheel by notches (towards the user).

        `buttons` are those that are down now (`BUTTON_LEFT` ...); None leaves them.
        """
        state = self.state
        state.x += dx
        state.y += dy
        state.z = max(-8, min(7, state.z + wheel))
        if buttons is not None:
            state.buttons = buttons & ALL_BUTTONS
        self._report()

    def press(self, buttons: int) -> None:
        """Push buttons down."""
        self.move(buttons=self.state.buttons | buttons)

    def release(self, buttons: int) -> None:
        """Let buttons go."""
        self.move(buttons=self.state.buttons & ~buttons)

    # --- packets ----------------------------------------------------------------------------------------

    def _visible_buttons(self) -> int:
        """The buttons that the present packet format carries."""
        state = self.state
        return state.buttons & (ALL_BUTTONS if state.device_id == ID_FIVE_BUTTONS else THREE_BUTTONS)

    def _changed(self) -> bool:
        state = self.state
        turned = state.device_id != ID_STANDARD and state.z
        return bool(state.x or state.y or turned or self._visible_buttons() != state.reported_buttons)

    def _report(self) -> None:
        """Send a packet in stream mode, if there is news and its time has come."""
        state = self.state
        streaming = state.reporting and not state.remote and not state.wrap
        if not streaming or state.data or state.sample_at is not None or not self._changed():
            return
        state.data += self._packet(scaled=state.scaling)
        state.sample_at = self.clock.now() + NS_PER_S // state.rate
        self._sample_timer.arm(state.sample_at)
        self.on_output()

    def _sample(self) -> None:
        self.state.sample_at = None
        self._report()

    def _packet(self, *, scaled: bool) -> list[int]:
        """The movement since the last packet; clears the counters."""
        state = self.state
        x, y = (_accelerate(state.x), _accelerate(state.y)) if scaled else (state.x, state.y)
        x, x_overflow = _nine_bits(x)
        y, y_overflow = _nine_bits(y)
        buttons = self._visible_buttons()
        first = ALWAYS_1 | buttons & THREE_BUTTONS
        first |= (X_SIGN if x < 0 else 0) | (Y_SIGN if y < 0 else 0)
        first |= (X_OVERFLOW if x_overflow else 0) | (Y_OVERFLOW if y_overflow else 0)
        packet = [first, x & 0xFF, y & 0xFF]
        if state.device_id == ID_WHEEL:
            packet.append(state.z & 0xFF)
        elif state.device_id == ID_FIVE_BUTTONS:
            packet.append(state.z & 0x0F | (buttons & (BUTTON_4 | BUTTON_5)) << 1)
        state.reported_buttons = buttons
        self._clear_counters()
        return packet

    def _clear_counters(self) -> None:
        self.state.x = self.state.y = self.state.z = 0

    def pop(self) -> int:
        value = super().pop()
        if not self.state.data and not self.state.replies:
            self._report()
        return value

    # --- commands ---------------------------------------------------------------------------------------

    def receive(self, value: int) -> None:
        state = self.state
        state.data.clear()
        expecting, state.expecting = state.expecting, 0
        if state.wrap and value not in (RESET, RESET_WRAP):
            self.reply(value)
        elif expecting and value < FIRST_COMMAND:
            self._parameter(expecting, value)
        elif value == RESEND:
            self.reply(state.last_sent)
        elif value in COMMANDS:
            state.wrong = False
            COMMANDS[value](self)
        else:
            self._refuse()
        self.on_output()

    def _refuse(self) -> None:
        """FE asks to send again; a second mistake in a row is an error."""
        self.reply(ERROR if self.state.wrong else RESEND)
        self.state.wrong = not self.state.wrong

    def _parameter(self, command: int, value: int) -> None:
        state = self.state
        valid = value in SAMPLE_RATES if command == SET_RATE else value <= 3
        if not valid:
            if not state.wrong:
                state.expecting = command
            self._refuse()
            return
        state.wrong = False
        if command == SET_RATE:
            self._set_rate(value)
        else:
            state.resolution = value
        self._clear_counters()
        self.reply(ACK)

    def _set_rate(self, value: int) -> None:
        state = self.state
        state.rate = value
        state.last_rates = (*state.last_rates[-2:], value)
        state.device_id = RATE_KNOCKS.get(state.last_rates, state.device_id)

    def _expect_rate(self) -> None:
        self.state.expecting = SET_RATE
        self.reply(ACK)

    def _expect_resolution(self) -> None:
        self.state.expecting = SET_RESOLUTION
        self.reply(ACK)

    def _scale_1_to_1(self) -> None:
        self.state.scaling = False
        self.reply(ACK)

    def _scale_2_to_1(self) -> None:
        self.state.scaling = True
        self.reply(ACK)

    def _status(self) -> None:
        state = self.state
        flags = (STATUS_REMOTE if state.remote else 0) | (STATUS_ENABLED if state.reporting else 0)
        flags |= STATUS_SCALING if state.scaling else 0
        buttons = (state.buttons & BUTTON_LEFT) << 2 | (state.buttons & BUTTON_RIGHT) >> 1
        buttons |= (state.buttons & BUTTON_MIDDLE) >> 1
        self.reply(ACK, flags | buttons, state.resolution, state.rate)

    def _stream(self) -> None:
        self.state.remote = False
        self._clear_counters()
        self.reply(ACK)

    def _remote(self) -> None:
        self.state.remote = True
        self._clear_counters()
        self.reply(ACK)

    def _read_data(self) -> None:
        self.reply(ACK, *self._packet(scaled=False))

    def _enter_wrap(self) -> None:
        self.state.wrap = True
        self._clear_counters()
        self.reply(ACK)

    def _leave_wrap(self) -> None:
        self.state.wrap = False
        self._clear_counters()
        self.reply(ACK)

    def _identify(self) -> None:
        self._clear_counters()
        self.reply(ACK, self.state.device_id)

    def _enable(self) -> None:
        self.state.reporting = True
        self._clear_counters()
        self.reply(ACK)

    def _disable(self) -> None:
        self.state.reporting = False
        self._clear_counters()
        self.reply(ACK)

    def _defaults(self) -> None:
        self._set_defaults()
        self.reply(ACK)

    def _set_defaults(self) -> None:
        state = self.state
        state.remote = state.wrap = state.reporting = state.scaling = False
        state.resolution = 2
        state.rate = 100
        state.sample_at = None
        self._sample_timer.disarm()
        self._clear_counters()

    def _reset(self) -> None:
        self._set_defaults()
        self.state.device_id = ID_STANDARD
        self.state.last_rates = ()
        self.reply(ACK, SELF_TEST_PASSED, ID_STANDARD)

    # --- life -------------------------------------------------------------------------------------------

    def rebind(self, state: MouseState) -> None:
        """Work on another state, as after reset and restore, and re-arm the timer from it."""
        self.state = state
        if state.sample_at is None:
            self._sample_timer.disarm()
        else:
            self._sample_timer.arm(state.sample_at)


COMMANDS = {
    SCALING_1_TO_1: Ps2Mouse._scale_1_to_1,
    SCALING_2_TO_1: Ps2Mouse._scale_2_to_1,
    SET_RESOLUTION: Ps2Mouse._expect_resolution,
    STATUS_REQUEST: Ps2Mouse._status,
    SET_STREAM: Ps2Mouse._stream,
    READ_DATA: Ps2Mouse._read_data,
    RESET_WRAP: Ps2Mouse._leave_wrap,
    SET_WRAP: Ps2Mouse._enter_wrap,
    SET_REMOTE: Ps2Mouse._remote,
    READ_ID: Ps2Mouse._identify,
    SET_RATE: Ps2Mouse._expect_rate,
    ENABLE: Ps2Mouse._enable,
    DISABLE: Ps2Mouse._disable,
    SET_DEFAULTS: Ps2Mouse._defaults,
    RESET: Ps2Mouse._reset,
}


def _accelerate(count: int) -> int:
    """2:1 scaling."""
    size = abs(count)
    scaled = ACCELERATED[size] if size < len(ACCELERATED) else 2 * size
    return -scaled if count < 0 else scaled


def _nine_bits(count: int) -> tuple[int, bool]:
    """A counter's value, and whether it went out of its 9 bits."""
    limited = max(-256, min(255, count))
    return limited, limited != count
