"""PS/2 keyboard with 104/105 keys: scan code sets 1, 2 and 3, typematic repeat, LEDs.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)".

Commands: ED LEDs, EE echo, F0 scan code set, F2 identify (AB 83), F3 typematic rate, F4 enable, F5 defaults and
disable, F6 defaults, F7-FA type of all keys, FB-FD type of single keys, FE resend, FF reset. All else gets FE.

The buffer holds 16 bytes; the key that does not fit is replaced by the overrun code (FF in set 1, else 00) and
what follows is lost until the host reads.

Not modelled: the self test takes no time and the power-on self test report is not sent; set 1 and 2 repeats of
the gray keys do not repeat the shifts around them.
"""

from __future__ import annotations

from dataclasses import dataclass, field

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
from portvisor.devices.ps2_scancodes import (
    BREAK,
    EXTENDED,
    KEYS,
    NAVIGATION,
    Key,
    KeyType,
    key_of,
    translate_sequence,
)
from portvisor.ports import NS_PER_S, Clock

SET_LEDS = 0xED
ECHO = 0xEE
SELECT_SET = 0xF0
ALL_TYPEMATIC = 0xF7
ALL_MAKE_BREAK = 0xF8
ALL_MAKE = 0xF9
ALL_TYPEMATIC_MAKE_BREAK = 0xFA
KEY_TYPEMATIC = 0xFB
KEY_MAKE_BREAK = 0xFC
KEY_MAKE = 0xFD

TYPE_OF_COMMAND = {
    ALL_TYPEMATIC: KeyType.TYPEMATIC,
    ALL_MAKE_BREAK: KeyType.MAKE_BREAK,
    ALL_MAKE: KeyType.MAKE,
    ALL_TYPEMATIC_MAKE_BREAK: KeyType.TYPEMATIC_MAKE_BREAK,
    KEY_TYPEMATIC: KeyType.TYPEMATIC,
    KEY_MAKE_BREAK: KeyType.MAKE_BREAK,
    KEY_MAKE: KeyType.MAKE,
}
KEY_TYPE_COMMANDS = (KEY_TYPEMATIC, KEY_MAKE_BREAK, KEY_MAKE)

IDENTITY = (0xAB, 0x83)
FIRST_COMMAND = SET_LEDS
"""Bytes from here on are commands, even where a parameter is expected."""

LED_SCROLL_LOCK = 0x01
LED_NUM_LOCK = 0x02
LED_CAPS_LOCK = 0x04
LEDS = 0x07

BUFFER_SIZE = 16
DEFAULT_RATE = 0x2B
"""10.9 characters a second after half a second."""
TYPEMATIC_UNITS = 240
"""Units of the typematic period in a second: 4.17 ms each."""
TYPEMATIC_DELAY_UNIT = NS_PER_S // 4
SET3_CODES = 0x90

PAUSE_MAKE = bytes.fromhex("e1 14 77 e1 f0 14 f0 77")
CTRL_BREAK_MAKE = bytes.fromhex("e0 7e e0 f0 7e")
PRINT_MAKE = bytes.fromhex("e0 12 e0 7c")
PRINT_BREAK = bytes.fromhex("e0 f0 7c e0 f0 12")
SYSRQ_CODE = 0x84
SHIFT_CODES = {"leftshift": 0x12, "rightshift": 0x59}

KEYSTROKE = NS_PER_S // 50
"""Pace of `type_text`: one key down or up every 20 ms, half of a fast typist's."""


def default_key_types() -> list[int]:
    """The type of each set 3 code after reset."""
    types = [int(KeyType.TYPEMATIC)] * SET3_CODES
    for key in KEYS.values():
        types[key.set3] = key.key_type
    return types


@dataclass
class KeyboardState(Ps2State):
    """Everything that the keyboard remembers."""

    scanning: bool = True
    scan_set: int = 2
    leds: int = 0
    rate: int = DEFAULT_RATE
    key_types: list[int] = field(default_factory=default_key_types)
    overrun: bool = False
    down: list[str] = field(default_factory=list)
    repeating: str = ""
    repeat_codes: bytes = b""
    repeat_at: int | None = None
    """Clock time (ns) of the next typematic repeat."""
    script: list[tuple[str, bool]] = field(default_factory=list)
    """What `type_text` has still to do: (key, down)."""
    script_at: int | None = None


class Ps2Keyboard(Ps2Device):
    """The keyboard. The host presses keys with `press`, `release`, `tap` and `type_text`."""

    state: KeyboardState

    def __init__(self, clock: Clock, state: KeyboardState | None = None) -> None:
        super().__init__(clock)
        self.state = state or KeyboardState()
        self._repeat_timer = clock.timer(self._repeat, "typematic")
        self._script_timer = clock.timer(self._type_next, "typing")

    # --- the host's fingers -----------------------------------------------------------------------------

    @property
    def leds(self) -> int:
        """LEDs that are lit: bit 0 Scroll Lock, 1 Num Lock, 2 Caps Lock."""
        return self.state.leds

    def press(self, key: str) -> None:
        """Push a key down (a name in `ps2_scancodes.KEYS`); it repeats until it is released.

        Raises:
            ValueError: there is no such key.
        """
        known = _key(key)
        state = self.state
        if not state.scanning or key in state.down:
            return
        codes = self._make(key, known)
        state.down.append(key)
        self._send(codes)
        if self._is_typematic(key, known):
            state.repeating = key
            state.repeat_codes = codes[-2:]
            state.repeat_at = self.clock.now() + ((state.rate >> 5 & 3) + 1) * TYPEMATIC_DELAY_UNIT
            self._repeat_timer.arm(state.repeat_at)

    def release(self, key: str) -> None:
        """Let a key go.

        Raises:
            ValueError: there is no such key.
        """
        known = _key(key)
        state = self.state
        if key not in state.down:
            return
        state.down.remove(key)
        if key == state.repeating:
            self._stop_repeating()
        if state.scanning:
            self._send(self._break(key, known))

    def tap(self, *keys: str) -> None:
        """Press keys in order and release them in reverse order: `tap("leftctrl", "c")`."""
        for key in keys:
            self.press(key)
        for key in reversed(keys):
            self.release(key)

    def type_text(self, text: str) -> None:
        """Type on the US layout, at 20 ms for each movement of a key.

        Raises:
            ValueError: no key types a character; nothing is typed.
        """
        keystrokes: list[tuple[str, bool]] = []
        for character in text:
            key, shift = key_of(character)
            around = [("leftshift", True), ("leftshift", False)] if shift else []
            keystrokes += [*around[:1], (key, True), (key, False), *around[1:]]
        self.state.script += keystrokes
        if self.state.script_at is None:
            self._type_next()

    def _type_next(self) -> None:
        state = self.state
        state.script_at = None
        if not state.script:
            return
        key, down = state.script.pop(0)
        if down:
            self.press(key)
        else:
            self.release(key)
        state.script_at = self.clock.now() + KEYSTROKE
        self._script_timer.arm(state.script_at)

    # --- scan codes -------------------------------------------------------------------------------------

    def _make(self, name: str, key: Key) -> bytes:
        if self.state.scan_set == 3:
            return bytes((key.set3,))
        return self._in_set(self._make_set2(name, key))

    def _break(self, name: str, key: Key) -> bytes:
        if self.state.scan_set == 3:
            kind = self.state.key_types[key.set3]
            silent = kind in (KeyType.TYPEMATIC, KeyType.MAKE)
            return b"" if silent else bytes((BREAK, key.set3))
        return self._in_set(self._break_set2(name, key))

    def _in_set(self, codes: bytes) -> bytes:
        return translate_sequence(codes) if self.state.scan_set == 1 else codes

    def _make_set2(self, name: str, key: Key) -> bytes:
        if name == "pause":
            return CTRL_BREAK_MAKE if self._any_down("leftctrl", "rightctrl") else PAUSE_MAKE
        if name == "sysrq":
            return self._print_screen(PRINT_MAKE, b"")
        if not key.extended:
            return bytes((key.set2,))
        before, _ = self._shifts(name)
        return before + bytes((EXTENDED, key.set2))

    def _break_set2(self, name: str, key: Key) -> bytes:
        if name == "pause":
            return b""
        if name == "sysrq":
            return self._print_screen(PRINT_BREAK, bytes((BREAK,)))
        if not key.extended:
            return bytes((BREAK, key.set2))
        _, after = self._shifts(name)
        return bytes((EXTENDED, BREAK, key.set2)) + after

    def _print_screen(self, full: bytes, prefix: bytes) -> bytes:
        """Print Screen: alone with a shift of its own, with Ctrl or Shift without it, with Alt another key."""
        if self._any_down("leftalt", "rightalt"):
            return prefix + bytes((SYSRQ_CODE,))
        if self._any_down("leftctrl", "rightctrl", *SHIFT_CODES):
            return bytes((EXTENDED,)) + prefix + bytes((KEYS["sysrq"].set2,))
        return full

    def _shifts(self, name: str) -> tuple[bytes, bytes]:
        """What a gray key sends before its make and after its break to look unshifted (or shifted)."""
        shifts = [code for shift, code in SHIFT_CODES.items() if shift in self.state.down]
        num_lock = bool(self.state.leds & LED_NUM_LOCK)
        if shifts and (name == "kpslash" or (name in NAVIGATION and not num_lock)):
            up = b"".join(bytes((EXTENDED, BREAK, code)) for code in shifts)
            down = b"".join(bytes((EXTENDED, code)) for code in reversed(shifts))
            return up, down
        if num_lock and not shifts and name in NAVIGATION:
            return bytes((EXTENDED, 0x12)), bytes((EXTENDED, BREAK, 0x12))
        return b"", b""

    def _any_down(self, *keys: str) -> bool:
        return any(key in self.state.down for key in keys)

    def _send(self, codes: bytes) -> None:
        state = self.state
        if not codes or state.overrun:
            return
        if len(state.data) + len(codes) > BUFFER_SIZE:
            state.overrun = True
            codes = b"\xff" if state.scan_set == 1 else b"\0"
        state.data += codes
        self.on_output()

    def pop(self) -> int:
        value = super().pop()
        if not self.state.data:
            self.state.overrun = False
        return value

    # --- typematic --------------------------------------------------------------------------------------

    def _is_typematic(self, name: str, key: Key) -> bool:
        if self.state.scan_set == 3:
            return self.state.key_types[key.set3] in (KeyType.TYPEMATIC, KeyType.TYPEMATIC_MAKE_BREAK)
        return name != "pause"

    def _repeat(self) -> None:
        """Send the held key again. A full buffer swallows repeats without an overrun."""
        state = self.state
        state.repeat_at = None
        if not state.repeating:
            return
        if len(state.data) + len(state.repeat_codes) <= BUFFER_SIZE:
            self._send(state.repeat_codes)
        units = (8 + (state.rate & 7)) << (state.rate >> 3 & 3)
        state.repeat_at = self.clock.now() + units * NS_PER_S // TYPEMATIC_UNITS
        self._repeat_timer.arm(state.repeat_at)

    def _stop_repeating(self) -> None:
        self.state.repeating = ""
        self.state.repeat_at = None
        self._repeat_timer.disarm()

    # --- commands ---------------------------------------------------------------------------------------

    def receive(self, value: int) -> None:
        state = self.state
        expecting, state.expecting = state.expecting, 0
        if expecting and value < FIRST_COMMAND:
            self._parameter(expecting, value)
        elif value in (SET_LEDS, SELECT_SET, SET_RATE, *KEY_TYPE_COMMANDS):
            state.expecting = value
            self.reply(ACK)
        else:
            self._command(value)
        self.on_output()

    def _command(self, value: int) -> None:
        state = self.state
        if value == ECHO:
            self.reply(ECHO)
        elif value == RESEND:
            self.reply(state.last_sent)
        elif value == READ_ID:
            self.reply(ACK, *IDENTITY)
        elif value == ENABLE:
            self._clear_buffer()
            state.scanning = True
            self.reply(ACK)
        elif value in (DISABLE, SET_DEFAULTS):
            self._set_defaults()
            state.scanning = value == SET_DEFAULTS and state.scanning
            self.reply(ACK)
        elif value in TYPE_OF_COMMAND:
            state.key_types = [int(TYPE_OF_COMMAND[value])] * SET3_CODES
            self._clear_buffer()
            self.reply(ACK)
        elif value == RESET:
            self._set_defaults()
            state.leds = 0
            state.scanning = True
            self.reply(ACK, SELF_TEST_PASSED)
        else:
            self.reply(RESEND)

    def _parameter(self, command: int, value: int) -> None:
        state = self.state
        if command == SET_LEDS:
            state.leds = value & LEDS
            self.reply(ACK)
        elif command == SET_RATE and value < 0x80:
            state.rate = value
            self.reply(ACK)
        elif command == SELECT_SET and value <= 3:
            self._select_set(value)
        elif command in KEY_TYPE_COMMANDS and value < SET3_CODES:
            state.key_types[value] = TYPE_OF_COMMAND[command]
            state.expecting = command
            self.reply(ACK)
        else:
            state.expecting = command
            self.reply(RESEND)

    def _select_set(self, value: int) -> None:
        """F0: 0 asks for the present set, 1-3 choose one."""
        if value == 0:
            self.reply(ACK, self.state.scan_set)
            return
        self._clear_buffer()
        self.state.scan_set = value
        self.reply(ACK)

    def _set_defaults(self) -> None:
        state = self.state
        self._clear_buffer()
        state.rate = DEFAULT_RATE
        state.scan_set = 2
        state.key_types = default_key_types()

    def _clear_buffer(self) -> None:
        self.state.data.clear()
        self.state.overrun = False
        self._stop_repeating()

    # --- life -------------------------------------------------------------------------------------------

    def rebind(self, state: KeyboardState) -> None:
        """Work on another state, as after reset and restore, and re-arm the timers from it."""
        self.state = state
        for timer, deadline in ((self._repeat_timer, state.repeat_at), (self._script_timer, state.script_at)):
            if deadline is None:
                timer.disarm()
            else:
                timer.arm(deadline)


def _key(name: str) -> Key:
    try:
        return KEYS[name]
    except KeyError:
        raise ValueError(f"no key {name!r}; keys are {', '.join(KEYS)}") from None
