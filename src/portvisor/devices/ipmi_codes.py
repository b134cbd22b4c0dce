"""What IPMI commands share: completion codes, the exception that carries one, and reservations.

Source: IPMI 2.0 revision 1.1, 5.2 (table 5-2), 31.4 and 33.11 (reservations).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

OK = 0x00
INVALID_COMMAND, INVALID_LUN, OUT_OF_SPACE, RESERVATION_CANCELED = 0xC1, 0xC2, 0xC4, 0xC5
BAD_LENGTH, OUT_OF_RANGE, TOO_MANY_BYTES, NOT_PRESENT, INVALID_FIELD = 0xC7, 0xC9, 0xCA, 0xCB, 0xCC
COMMAND_SPECIFIC = 0x80
"""The first code whose meaning the command defines."""

WHOLE_RECORD = 0xFF
"""As a count of bytes: up to the end of the record."""


class Refusal(Exception):  # noqa: N818 - a completion code, not an error of ours
    """A request that is answered with a completion code only."""

    def __init__(self, code: int) -> None:
        super().__init__(f"completion code {code:#04x}")
        self.code = code


@dataclass
class Reservation:
    """A repository's reservation ID: partial reads and erasure need the one in force."""

    current: int = 0
    """The ID in force, 0 for none."""
    last: int = 0

    def make(self) -> bytes:
        """A new one, as a Reserve command answers it; the one before ends."""
        self.current = self.last = self.last % 0xFFFF + 1
        return struct.pack("<H", self.current)

    def cancel(self) -> None:
        """End the one in force."""
        self.current = 0

    def check(self, wanted: int) -> None:
        """Refuse any ID but the one in force."""
        if not wanted or wanted != self.current:
            raise Refusal(RESERVATION_CANCELED)


def need(data: bytes, length: int) -> None:
    """Refuse a request with less than `length` bytes of data."""
    if len(data) < length:
        raise Refusal(BAD_LENGTH)


def part(record: bytes, offset: int, count: int) -> bytes:
    """`count` bytes of a record, fewer at its end; `WHOLE_RECORD` asks for all that is left."""
    if offset > len(record):
        raise Refusal(OUT_OF_RANGE)
    end = len(record) if count == WHOLE_RECORD else offset + count
    return record[offset:end]
