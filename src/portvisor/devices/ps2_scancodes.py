"""Scan codes of the 104/105-key PS/2 keyboard, and the translation in the keyboard controller.

Source: IBM PS/2 Hardware Interface Technical Reference, "Keyboard (101- and 102-key)", scan code sets 1-3;
Microsoft "Keyboard Scan Code Specification".

Keys have the names of the Linux input subsystem (KEY_ENTER is "enter"), in lower case.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

BREAK = 0xF0
"""Set 2 and 3: the next code is of a key that was released."""
EXTENDED = 0xE0
EXTENDED_1 = 0xE1


class KeyType(IntEnum):
    """What set 3 sends for a key."""

    TYPEMATIC_MAKE_BREAK = 0
    TYPEMATIC = 1
    MAKE_BREAK = 2
    MAKE = 3


@dataclass(frozen=True, slots=True)
class Key:
    """One key: its code in set 2 (after E0 if extended), its code in set 3 and its default type there."""

    set2: int
    set3: int
    key_type: KeyType = KeyType.TYPEMATIC
    extended: bool = False


TRANSLATION = bytes.fromhex(
    "ff 43 41 3f 3d 3b 3c 58 64 44 42 40 3e 0f 29 59 "
    "65 38 2a 70 1d 10 02 5a 66 71 2c 1f 1e 11 03 5b "
    "67 2e 2d 20 12 05 04 5c 68 39 2f 21 14 13 06 5d "
    "69 31 30 23 22 15 07 5e 6a 72 32 24 16 08 09 5f "
    "6b 33 25 17 18 0b 0a 60 6c 34 35 26 27 19 0c 61 "
    "6d 73 28 74 1a 0d 62 6e 3a 36 1c 1b 75 2b 63 76 "
    "55 56 77 78 79 7a 0e 7b 7c 4f 7d 4b 47 7e 7f 6f "
    "52 53 50 4c 4d 48 01 45 57 4e 51 4a 37 49 46 54 "
)
"""Set 1 code for each set 2 code below 80 (the controller's table); of those above, 83 and 84 change too."""
TRANSLATION_HIGH = {0x83: 0x41, 0x84: 0x54}


def translate(code: int) -> int:
    """The set 1 code that the controller makes of one set 2 code; E0, E1 and replies stay as they are."""
    return TRANSLATION[code] if code < 0x80 else TRANSLATION_HIGH.get(code, code)


def translate_sequence(codes: bytes) -> bytes:
    """Set 1 for a whole set 2 sequence: F0 becomes bit 7 of the code that follows."""
    result = bytearray()
    release = 0
    for code in codes:
        if code == BREAK:
            release = 0x80
        else:
            result.append(translate(code) | release)
            release = 0
    return bytes(result)


_MAKE, _BOTH, _TYPE = KeyType.MAKE, KeyType.MAKE_BREAK, KeyType.TYPEMATIC

KEYS: dict[str, Key] = {
    "esc": Key(0x76, 0x08, _MAKE),
    "1": Key(0x16, 0x16),
    "2": Key(0x1E, 0x1E),
    "3": Key(0x26, 0x26),
    "4": Key(0x25, 0x25),
    "5": Key(0x2E, 0x2E),
    "6": Key(0x36, 0x36),
    "7": Key(0x3D, 0x3D),
    "8": Key(0x3E, 0x3E),
    "9": Key(0x46, 0x46),
    "0": Key(0x45, 0x45),
    "minus": Key(0x4E, 0x4E),
    "equal": Key(0x55, 0x55),
    "backspace": Key(0x66, 0x66),
    "tab": Key(0x0D, 0x0D),
    "q": Key(0x15, 0x15),
    "w": Key(0x1D, 0x1D),
    "e": Key(0x24, 0x24),
    "r": Key(0x2D, 0x2D),
    "t": Key(0x2C, 0x2C),
    "y": Key(0x35, 0x35),
    "u": Key(0x3C, 0x3C),
    "i": Key(0x43, 0x43),
    "o": Key(0x44, 0x44),
    "p": Key(0x4D, 0x4D),
    "leftbrace": Key(0x54, 0x54),
    "rightbrace": Key(0x5B, 0x5B),
    "enter": Key(0x5A, 0x5A),
    "leftctrl": Key(0x14, 0x11, _BOTH),
    "a": Key(0x1C, 0x1C),
    "s": Key(0x1B, 0x1B),
    "d": Key(0x23, 0x23),
    "f": Key(0x2B, 0x2B),
    "g": Key(0x34, 0x34),
    "h": Key(0x33, 0x33),
    "j": Key(0x3B, 0x3B),
    "k": Key(0x42, 0x42),
    "l": Key(0x4B, 0x4B),
    "semicolon": Key(0x4C, 0x4C),
    "apostrophe": Key(0x52, 0x52),
    "grave": Key(0x0E, 0x0E),
    "leftshift": Key(0x12, 0x12, _BOTH),
    "backslash": Key(0x5D, 0x5C),
    "z": Key(0x1A, 0x1A),
    "x": Key(0x22, 0x22),
    "c": Key(0x21, 0x21),
    "v": Key(0x2A, 0x2A),
    "b": Key(0x32, 0x32),
    "n": Key(0x31, 0x31),
    "m": Key(0x3A, 0x3A),
    "comma": Key(0x41, 0x41),
    "dot": Key(0x49, 0x49),
    "slash": Key(0x4A, 0x4A),
    "rightshift": Key(0x59, 0x59, _BOTH),
    "kpasterisk": Key(0x7C, 0x7E, _MAKE),
    "leftalt": Key(0x11, 0x19, _BOTH),
    "space": Key(0x29, 0x29),
    "capslock": Key(0x58, 0x14, _BOTH),
    "f1": Key(0x05, 0x07, _MAKE),
    "f2": Key(0x06, 0x0F, _MAKE),
    "f3": Key(0x04, 0x17, _MAKE),
    "f4": Key(0x0C, 0x1F, _MAKE),
    "f5": Key(0x03, 0x27, _MAKE),
    "f6": Key(0x0B, 0x2F, _MAKE),
    "f7": Key(0x83, 0x37, _MAKE),
    "f8": Key(0x0A, 0x3F, _MAKE),
    "f9": Key(0x01, 0x47, _MAKE),
    "f10": Key(0x09, 0x4F, _MAKE),
    "numlock": Key(0x77, 0x76, _MAKE),
    "scrolllock": Key(0x7E, 0x5F, _MAKE),
    "kp7": Key(0x6C, 0x6C, _MAKE),
    "kp8": Key(0x75, 0x75, _MAKE),
    "kp9": Key(0x7D, 0x7D, _MAKE),
    "kpminus": Key(0x7B, 0x84, _MAKE),
    "kp4": Key(0x6B, 0x6B, _MAKE),
    "kp5": Key(0x73, 0x73, _MAKE),
    "kp6": Key(0x74, 0x74, _MAKE),
    "kpplus": Key(0x79, 0x7C, _TYPE),
    "kp1": Key(0x69, 0x69, _MAKE),
    "kp2": Key(0x72, 0x72, _MAKE),
    "kp3": Key(0x7A, 0x7A, _MAKE),
    "kp0": Key(0x70, 0x70, _MAKE),
    "kpdot": Key(0x71, 0x71, _MAKE),
    "102nd": Key(0x61, 0x13),
    "f11": Key(0x78, 0x56, _MAKE),
    "f12": Key(0x07, 0x5E, _MAKE),
    "kpenter": Key(0x5A, 0x79, _MAKE, True),
    "rightctrl": Key(0x14, 0x58, _MAKE, True),
    "kpslash": Key(0x4A, 0x77, _MAKE, True),
    "sysrq": Key(0x7C, 0x57, _MAKE, True),
    "rightalt": Key(0x11, 0x39, _MAKE, True),
    "home": Key(0x6C, 0x6E, _MAKE, True),
    "up": Key(0x75, 0x63, _TYPE, True),
    "pageup": Key(0x7D, 0x6F, _MAKE, True),
    "left": Key(0x6B, 0x61, _TYPE, True),
    "right": Key(0x74, 0x6A, _TYPE, True),
    "end": Key(0x69, 0x65, _MAKE, True),
    "down": Key(0x72, 0x60, _TYPE, True),
    "pagedown": Key(0x7A, 0x6D, _MAKE, True),
    "insert": Key(0x70, 0x67, _MAKE, True),
    "delete": Key(0x71, 0x64, _TYPE, True),
    "pause": Key(0x77, 0x62, _MAKE, True),
    "leftmeta": Key(0x1F, 0x8B, _MAKE, True),
    "rightmeta": Key(0x27, 0x8C, _MAKE, True),
    "compose": Key(0x2F, 0x8D, _MAKE, True),
}

NAVIGATION = frozenset(("insert", "home", "pageup", "delete", "end", "pagedown", "up", "left", "down", "right"))
"""The gray keys that pretend to be keypad keys without Shift and NumLock."""

_SHIFTED = dict(
    zip(
        '!@#$%^&*()_+{}:"~|<>?',
        (
            *"1234567890",
            "minus",
            "equal",
            "leftbrace",
            "rightbrace",
            "semicolon",
            "apostrophe",
            "grave",
            "backslash",
            "comma",
            "dot",
            "slash",
        ),
        strict=True,
    )
)
_PLAIN = {
    " ": "space",
    "\n": "enter",
    "\t": "tab",
    "\b": "backspace",
    "\x1b": "esc",
    "-": "minus",
    "=": "equal",
    "[": "leftbrace",
    "]": "rightbrace",
    ";": "semicolon",
    "'": "apostrophe",
    "`": "grave",
    "\\": "backslash",
    ",": "comma",
    ".": "dot",
    "/": "slash",
}


def key_of(character: str) -> tuple[str, bool]:
    """(key, with Shift) that types a character on the US layout.

    Raises:
        ValueError: no key types it.
    """
    if character in _SHIFTED:
        return _SHIFTED[character], True
    if character in _PLAIN:
        return _PLAIN[character], False
    if character.isascii() and character.isalnum():
        return character.lower(), character.isupper()
    raise ValueError(f"no key of the US layout types {character!r}")
