"""System event log of a BMC.

Source: IPMI 2.0 revision 1.1, chapters 31 (SEL commands) and 32 (record formats).

A record has 16 bytes: ID, type, and for types below E0 a timestamp that the log itself sets. Not modelled:
Delete SEL Entry, Partial Add SEL Entry and allocation information (SEL Info says so).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from portvisor.devices.ipmi_codes import (
    INVALID_FIELD,
    NOT_PRESENT,
    OUT_OF_SPACE,
    Refusal,
    Reservation,
    need,
    part,
)

CAPACITY = 512
RECORD_LENGTH = 16
VERSION = 0x51
RESERVE_SUPPORTED, OVERFLOW = 1 << 1, 1 << 7
SYSTEM_EVENT, NOT_TIMESTAMPED = 0x02, 0xE0
GENERATOR_BMC, EVENT_REVISION = 0x0020, 0x04
UNSPECIFIED_TIME = 0xFFFFFFFF
FIRST_ENTRY, LAST_ENTRY = 0x0000, 0xFFFF
LARGEST_ID = 0xFFFE
GET_ERASURE_STATUS, INITIATE_ERASE, ERASURE_COMPLETED = 0x00, 0xAA, 0x01


@dataclass
class SelState:
    """The log. `time_offset` is how many seconds Set SEL Time has moved the clock."""

    records: list[bytes] = field(default_factory=list)
    next_id: int = 1
    time_offset: int = 0
    added: int = UNSPECIFIED_TIME
    erased: int = UNSPECIFIED_TIME
    overflow: bool = False
    reservation: Reservation = field(default_factory=Reservation)


class EventLog:
    """The log's commands; `state` is set by the BMC that it belongs to."""

    def __init__(self, state: SelState, base_time: Callable[[], int]) -> None:
        """`base_time` gives Unix time."""
        self.state = state
        self._base_time = base_time

    def commands(self) -> dict[int, Callable[[bytes], bytes]]:
        """Handlers by command code."""
        return {
            0x40: self._info,
            0x42: lambda data: self.state.reservation.make(),
            0x43: self._get_entry,
            0x44: self._add_entry,
            0x47: self._clear,
            0x48: lambda data: struct.pack("<I", self.time()),
            0x49: self._set_time,
        }

    def time(self) -> int:
        """Seconds since 1970 by the log's clock."""
        return (self._base_time() + self.state.time_offset) & 0xFFFFFFFF

    def event(self, sensor_type: int, event_type: int, event_data: bytes) -> bytes:
        """An event of the BMC itself as a record (32.1), with the ID of one that is not in the log."""
        body = struct.pack("<IHBBBB", self.time(), GENERATOR_BMC, EVENT_REVISION, sensor_type, 0, event_type)
        return struct.pack("<HB", LAST_ENTRY, SYSTEM_EVENT) + body + event_data[:3].ljust(3, b"\xff")

    def add(self, record: bytes) -> bytes:
        """Append what `event` made; gives it with its ID, or as it was if the log is full."""
        try:
            self._append(record[2], record[3:])
        except Refusal:
            return record
        return self.state.records[-1]

    def _append(self, record_type: int, body: bytes) -> int:
        state = self.state
        if len(state.records) >= CAPACITY:
            state.overflow = True
            raise Refusal(OUT_OF_SPACE)
        record_id = state.next_id
        state.next_id = record_id % LARGEST_ID + 1
        state.records.append(struct.pack("<HB", record_id, record_type) + body)
        state.added = self.time()
        state.reservation.cancel()
        return record_id

    def _info(self, data: bytes) -> bytes:
        state = self.state
        free = (CAPACITY - len(state.records)) * RECORD_LENGTH
        support = RESERVE_SUPPORTED | (OVERFLOW if state.overflow else 0)
        return struct.pack("<BHHIIB", VERSION, len(state.records), free, state.added, state.erased, support)

    def _get_entry(self, data: bytes) -> bytes:
        need(data, 6)
        reservation, wanted, offset, count = struct.unpack_from("<HHBB", data)
        if offset or reservation:
            self.state.reservation.check(reservation)
        index = self._find(wanted)
        records = self.state.records
        following = records[index + 1 : index + 2]
        after = int.from_bytes(following[0][:2], "little") if following else LAST_ENTRY
        return struct.pack("<H", after) + part(records[index], offset, count)

    def _find(self, wanted: int) -> int:
        records = self.state.records
        if records and wanted in (FIRST_ENTRY, LAST_ENTRY):
            return 0 if wanted == FIRST_ENTRY else len(records) - 1
        head = struct.pack("<H", wanted)
        for index, record in enumerate(records):
            if record.startswith(head):
                return index
        raise Refusal(NOT_PRESENT)

    def _add_entry(self, data: bytes) -> bytes:
        need(data, RECORD_LENGTH)
        record_type, body = data[2], bytearray(data[3:RECORD_LENGTH])
        if record_type < NOT_TIMESTAMPED:
            struct.pack_into("<I", body, 0, self.time())
        return struct.pack("<H", self._append(record_type, bytes(body)))

    def _clear(self, data: bytes) -> bytes:
        need(data, 6)
        self.state.reservation.check(int.from_bytes(data[:2], "little"))
        if data[2:5] != b"CLR" or data[5] not in (GET_ERASURE_STATUS, INITIATE_ERASE):
            raise Refusal(INVALID_FIELD)
        if data[5] == INITIATE_ERASE:
            self.state.records.clear()
            self.state.overflow = False
            self.state.erased = self.time()
            self.state.reservation.cancel()
        return bytes([ERASURE_COMPLETED])

    def _set_time(self, data: bytes) -> bytes:
        need(data, 4)
        self.state.time_offset += int.from_bytes(data[:4], "little") - self.time()
        return b""
