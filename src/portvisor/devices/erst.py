"""APEI error record serialization: the firmware's half, behind port B2.

Source: ACPI 6.4, 18.5 (ERST) and UEFI 2.9, appendix N.2 (CPER record header).

The operating system's half is the ERST table: its actions read and write a page of registers in reserved
memory, and two of them write port B2 (APM_CNT), which stands for the SMI of a real machine:

| value at B2 | does |
|---|---|
| 9C EXECUTE | the operation in OPCODE on the record at RANGE + OFFSET or with the id in RECORD_ID |
| 9D NEXT_ID | puts the next record's id into CURRENT_ID, all ones after the last |

| register (u64, offset in the page) | |
|---|---|
| 00 OPCODE | 0 write, 1 read, 2 clear, 3 end, 11 dummy write (the ERST action's number) |
| 08 OFFSET, 10 RECORD_ID | operands |
| 18 BUSY, 20 STATUS | always 0; 0 ok, 1 no space, 3 failed, 4 store empty, 5 not found |
| 28 CURRENT_ID, 30 COUNT | for GET_RECORD_IDENTIFIER and GET_RECORD_COUNT |
| 38 RANGE, 40 LENGTH, 48 ATTRIBUTES | the error log address range |

The page is guest memory and goes into a snapshot with it; how far NEXT_ID has come is the device's own state.
The records themselves are as little part of a snapshot as the content of a disk. A device without ports: the
APM chip calls `command`.

Not modelled: NVRAM attributes (the range is ordinary memory), slow stores (BUSY never reads 1).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from portvisor.ports import Device, GuestMemory

REGISTERS_LENGTH = 0x1000
RANGE_LENGTH = 0x2000
OPCODE, OFFSET, RECORD_ID, BUSY, STATUS, CURRENT_ID, COUNT, RANGE, LENGTH, ATTRIBUTES = range(0, 0x50, 8)

EXECUTE, NEXT_ID = 0x9C, 0x9D
BEGIN_WRITE, BEGIN_READ, BEGIN_CLEAR, END, BEGIN_DUMMY_WRITE = 0, 1, 2, 3, 11
SUCCESS, NO_SPACE, FAILED, EMPTY, NOT_FOUND = 0, 1, 3, 4, 5

CPER_SIGNATURE = b"CPER"
CPER_HEADER_LENGTH = 128
CPER_LENGTH_OFFSET, CPER_ID_OFFSET = 20, 96
NO_RECORD = (1 << 64) - 1
CAPACITY = 64
"""Records a store holds; a further one is refused with NO_SPACE."""


class RecordStore(Protocol):
    """Where records outlive the machine. `replace` stores all of them at once or raises OSError."""

    @property
    def records(self) -> Mapping[int, bytes]:
        """Records by id, in the order they were written."""
        ...

    def replace(self, records: Mapping[int, bytes]) -> None:
        """Make `records` the store's content."""
        ...


class Erst(Device):
    """The record store behind port B2."""

    name = "erst"

    @dataclass
    class State:
        """`cursor` is how many ids NEXT_ID has given since it last gave all ones."""

        cursor: int = 0

    state: State

    def __init__(self, memory: GuestMemory, store: RecordStore, registers: int) -> None:
        """`registers` is the guest-physical address of the register page; the log range follows it."""
        super().__init__()
        self._memory = memory
        self._store = store
        self._registers = registers

    @property
    def range_base(self) -> int:
        """Guest-physical address of the error log range."""
        return self._registers + REGISTERS_LENGTH

    def reset(self) -> None:
        """Put the register page into its first state; the records stay."""
        super().reset()
        self._memory.write(self._registers, bytes(REGISTERS_LENGTH))
        self._set(RANGE, self.range_base)
        self._set(LENGTH, RANGE_LENGTH)
        self._publish()

    def restored(self) -> None:
        """The store may hold other records than when the snapshot was taken."""
        self._set(COUNT, len(self._store.records))

    def command(self, value: int) -> bool:
        """A write of `value` to APM_CNT; False if it is not for the store."""
        if value == EXECUTE:
            self._set(STATUS, self._execute())
        elif value == NEXT_ID:
            self._advance()
        else:
            return False
        return True

    def _get(self, register: int) -> int:
        return int.from_bytes(self._memory.read(self._registers + register, 8), "little")

    def _set(self, register: int, value: int) -> None:
        self._memory.write(self._registers + register, value.to_bytes(8, "little"))

    def _publish(self) -> None:
        records = self._store.records
        self._set(COUNT, len(records))
        self._set(CURRENT_ID, next(iter(records), NO_RECORD))

    def _advance(self) -> None:
        ids = list(self._store.records)
        cursor = self.state.cursor
        at_end = cursor >= len(ids)
        self._set(CURRENT_ID, NO_RECORD if at_end else ids[cursor])
        self.state.cursor = 0 if at_end else cursor + 1

    def _execute(self) -> int:
        opcode = self._get(OPCODE)
        try:
            if opcode in (BEGIN_WRITE, BEGIN_DUMMY_WRITE):
                return self._write(store=opcode == BEGIN_WRITE)
            if opcode == BEGIN_READ:
                return self._read()
            if opcode == BEGIN_CLEAR:
                return self._clear()
        except OSError:
            return FAILED
        return FAILED

    def _write(self, *, store: bool) -> int:
        offset = self._get(OFFSET)
        if offset > RANGE_LENGTH - CPER_HEADER_LENGTH:
            return FAILED
        data = self._memory.read(self.range_base + offset, RANGE_LENGTH - offset)
        length = int.from_bytes(data[CPER_LENGTH_OFFSET : CPER_LENGTH_OFFSET + 4], "little")
        if not data.startswith(CPER_SIGNATURE) or not CPER_HEADER_LENGTH <= length <= len(data):
            return FAILED
        record_id = int.from_bytes(data[CPER_ID_OFFSET : CPER_ID_OFFSET + 8], "little")
        if record_id in (0, NO_RECORD):
            return FAILED
        records = dict(self._store.records)
        if record_id not in records and len(records) >= CAPACITY:
            return NO_SPACE
        if store:
            records[record_id] = data[:length]
            self._store.replace(records)
            self._publish()
        return SUCCESS

    def _read(self) -> int:
        records = self._store.records
        if not records:
            return EMPTY
        wanted, offset = self._get(RECORD_ID), self._get(OFFSET)
        if wanted in (0, NO_RECORD):
            wanted = next(iter(records))
        data = records.get(wanted)
        if data is None:
            return NOT_FOUND
        if offset > RANGE_LENGTH - len(data):
            return FAILED
        self._memory.write(self.range_base + offset, data)
        return SUCCESS

    def _clear(self) -> int:
        records = dict(self._store.records)
        if not records:
            return EMPTY
        wanted = self._get(RECORD_ID)
        if wanted not in records:
            return NOT_FOUND
        already_given = list(records).index(wanted) < self.state.cursor
        del records[wanted]
        self._store.replace(records)
        self.state.cursor -= already_given
        self._publish()
        return SUCCESS
