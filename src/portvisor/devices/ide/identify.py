"""The 256 words of IDENTIFY DEVICE and IDENTIFY PACKET DEVICE (T13/1410D ATA-6, 8.15 and 8.16)."""

from __future__ import annotations

from dataclasses import dataclass

CHECKSUM_SIGNATURE = 0xA5
WORDS = 256


@dataclass(frozen=True, slots=True)
class Identity:
    """What a drive says it is.

    Attributes:
        model: words 27-46, at most 40 printable ASCII characters.
        serial: words 10-19, at most 20.
        firmware: words 23-26, at most 8.
    """

    model: str
    serial: str
    firmware: str

    def __post_init__(self) -> None:
        for name, text, limit in (
            ("model", self.model, 40),
            ("serial number", self.serial, 20),
            ("firmware revision", self.firmware, 8),
        ):
            if len(text) > limit or not (text.isascii() and text.isprintable()):
                raise ValueError(f"drive {name} {text!r}: at most {limit} printable ASCII characters")


class IdentifyWords:
    """The words while they are being filled in."""

    def __init__(self, identity: Identity) -> None:
        self._words = [0] * WORDS
        self._text(10, 20, identity.serial)
        self._text(23, 8, identity.firmware)
        self._text(27, 40, identity.model)

    def __setitem__(self, index: int, value: int) -> None:
        self._words[index] = value & 0xFFFF

    def wide(self, index: int, length: int, value: int) -> None:
        """A number of `length` words, lowest word first."""
        for position in range(length):
            self[index + position] = value >> 16 * position

    def _text(self, index: int, length: int, text: str) -> None:
        """ASCII, padded with spaces, the first character in the upper byte of the first word (clause 3.2.9)."""
        data = text.encode("ascii").ljust(length)
        for position in range(0, length, 2):
            self[index + position // 2] = data[position] << 8 | data[position + 1]

    def finish(self) -> bytearray:
        """All 512 bytes, with the integrity word: signature A5 and a sum of all bytes that is 0."""
        data = bytearray(b"".join(word.to_bytes(2, "little") for word in self._words))
        data[510] = CHECKSUM_SIGNATURE
        data[511] = -sum(data[:511]) & 0xFF
        return data
