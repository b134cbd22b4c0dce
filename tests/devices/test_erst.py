"""ACPI 6.4, 18.5, and CPER records (UEFI 2.9, N.2.1); the rule is in each test's docstring."""

from __future__ import annotations

import struct
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.backends.records import MemoryRecords
from portvisor.devices.apm import Apm
from portvisor.devices.erst import (
    ATTRIBUTES,
    BEGIN_CLEAR,
    BEGIN_DUMMY_WRITE,
    BEGIN_READ,
    BEGIN_WRITE,
    BUSY,
    CAPACITY,
    COUNT,
    CURRENT_ID,
    EMPTY,
    END,
    EXECUTE,
    FAILED,
    LENGTH,
    NEXT_ID,
    NO_RECORD,
    NO_SPACE,
    NOT_FOUND,
    OFFSET,
    OPCODE,
    RANGE,
    RANGE_LENGTH,
    RECORD_ID,
    REGISTERS_LENGTH,
    STATUS,
    SUCCESS,
    Erst,
)
from portvisor.ports import Device, PortSpace, Ram, RamRegion
from portvisor.testing import DeviceSuite

REGISTERS = 0xFED20000
SIZE = REGISTERS_LENGTH + RANGE_LENGTH


def cper(record_id: int, length: int = 200, fill: int = 0) -> bytes:
    """A record: signature, length and id in their places (table N-1)."""
    data = bytearray([fill]) * length
    data[:4] = b"CPER"
    struct.pack_into("<I", data, 20, length)
    struct.pack_into("<Q", data, 96, record_id)
    return bytes(data)


class Failing(MemoryRecords):
    """A store on a full disk."""

    def replace(self, records: Mapping[int, bytes]) -> None:
        raise OSError(28, "No space left on device")


class Platform:
    """Does what an operating system does with the actions of the ERST table."""

    def __init__(self, store: MemoryRecords | None = None) -> None:
        self.memory = bytearray(b"\xcc" * (SIZE + 0x2000))
        self.ram = Ram(RamRegion(REGISTERS - 0x1000, memoryview(self.memory)))
        self.store = store or MemoryRecords()
        self.erst = Erst(self.ram, self.store, REGISTERS)
        self.erst.reset()

    def get(self, register: int) -> int:
        return int.from_bytes(self.ram.read(REGISTERS + register, 8), "little")

    def set(self, register: int, value: int) -> None:
        self.ram.write(REGISTERS + register, value.to_bytes(8, "little"))

    def operate(self, opcode: int, offset: int = 0, record_id: int = 0) -> int:
        """Begin, offset, id, execute, busy, status, end."""
        self.set(OPCODE, opcode)
        self.set(OFFSET, offset)
        self.set(RECORD_ID, record_id)
        assert self.erst.command(EXECUTE)
        assert self.get(BUSY) == 0
        status = self.get(STATUS)
        self.set(OPCODE, END)
        return status

    def write(self, record: bytes, offset: int = 0, opcode: int = BEGIN_WRITE) -> int:
        self.ram.write(self.get(RANGE) + offset, record)
        return self.operate(opcode, offset)

    def read(self, record_id: int, offset: int = 0) -> tuple[int, bytes]:
        status = self.operate(BEGIN_READ, offset, record_id)
        data = self.ram.read(self.get(RANGE) + offset, RANGE_LENGTH - offset)
        return status, data[: int.from_bytes(data[20:24], "little")]

    def next_id(self) -> int:
        """GET_RECORD_IDENTIFIER: the doorbell, then the register."""
        assert self.erst.command(NEXT_ID)
        return self.get(CURRENT_ID)

    def ids(self) -> list[int]:
        """All ids, as far as all ones."""
        found: list[int] = []
        while (one := self.next_id()) != NO_RECORD:
            assert len(found) <= CAPACITY
            found.append(one)
        return found


@pytest.fixture
def platform() -> Platform:
    return Platform()


class TestSuite(DeviceSuite):
    def make(self) -> Device:
        return Platform().erst


def test_after_reset(platform: Platform) -> None:
    """GET_ERROR_LOG_ADDRESS_RANGE, _LENGTH, _ATTRIBUTES; no records, so the id is all ones."""
    assert platform.get(RANGE) == REGISTERS + REGISTERS_LENGTH
    assert platform.get(LENGTH) == RANGE_LENGTH
    assert [platform.get(register) for register in (ATTRIBUTES, BUSY, STATUS, COUNT)] == [0, 0, 0, 0]
    assert platform.get(CURRENT_ID) == NO_RECORD
    assert platform.next_id() == NO_RECORD


def test_only_its_own_doorbell_values(platform: Platform) -> None:
    """Port B2 has other users."""
    assert [value for value in range(256) if platform.erst.command(value)] == [EXECUTE, NEXT_ID]


def test_through_port_b2() -> None:
    platform = Platform()
    space = PortSpace(strict=True)

    def on_control(value: int) -> None:
        platform.erst.command(value)

    space.attach(Apm(on_control))
    platform.ram.write(platform.get(RANGE), cper(5))
    platform.set(OPCODE, BEGIN_WRITE)
    space.write(0xB2, 1, EXECUTE)
    assert platform.get(STATUS) == SUCCESS
    assert list(platform.store.records) == [5]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 128), (0, RANGE_LENGTH), (0x100, 300), (RANGE_LENGTH - 128, 128)]
)
def test_write_and_read_back(platform: Platform, offset: int, length: int) -> None:
    """18.5.2.1, 18.5.2.2: the record at the offset, whole and nothing else."""
    record = cper(7, length, 0x5A)
    assert platform.write(record, offset) == SUCCESS
    assert platform.get(COUNT) == 1
    assert platform.store.records == {7: record}
    platform.ram.write(platform.get(RANGE), bytes(RANGE_LENGTH))
    assert platform.read(7, offset) == (SUCCESS, record)
    around = bytearray(platform.ram.read(platform.get(RANGE), RANGE_LENGTH))
    del around[offset : offset + length]
    assert not any(around)


def test_rewriting_an_id_replaces_the_record(platform: Platform) -> None:
    platform.write(cper(7, 200, 1))
    platform.write(cper(7, 150, 2))
    assert platform.get(COUNT) == 1
    assert platform.read(7) == (SUCCESS, cper(7, 150, 2))


@pytest.mark.parametrize("wanted", [0, NO_RECORD])
def test_reading_without_an_id_gives_the_first_record(platform: Platform, wanted: int) -> None:
    platform.write(cper(9))
    platform.write(cper(3))
    assert platform.read(wanted) == (SUCCESS, cper(9))


def test_reading_what_is_not_there(platform: Platform) -> None:
    """Command status 4, record store empty; 5, record not found."""
    assert platform.operate(BEGIN_READ, 0, 1) == EMPTY
    platform.write(cper(1))
    assert platform.operate(BEGIN_READ, 0, 2) == NOT_FOUND


def test_clear(platform: Platform) -> None:
    """18.5.2.3."""
    assert platform.operate(BEGIN_CLEAR, 0, 1) == EMPTY
    platform.write(cper(1))
    platform.write(cper(2))
    assert platform.operate(BEGIN_CLEAR, 0, 3) == NOT_FOUND
    assert platform.operate(BEGIN_CLEAR, 0, 1) == SUCCESS
    assert platform.get(COUNT) == 1
    assert platform.ids() == [2]


def test_dummy_write_stores_nothing(platform: Platform) -> None:
    """BEGIN_DUMMY_WRITE_OPERATION."""
    assert platform.write(cper(1), opcode=BEGIN_DUMMY_WRITE) == SUCCESS
    assert platform.get(COUNT) == 0


@pytest.mark.parametrize("opcode", [END, 4, 5, 255, NO_RECORD])
def test_executing_without_an_operation(platform: Platform, opcode: int) -> None:
    """EXECUTE_OPERATION outside a begin and an end fails."""
    assert platform.operate(opcode) == FAILED


# --- walking the store ---------------------------------------------------------------------------------------


def test_iteration(platform: Platform) -> None:
    """GET_RECORD_IDENTIFIER: one id after the other, all ones at the end, then from the start again."""
    for record_id in (5, 2, 9):
        platform.write(cper(record_id))
    assert platform.ids() == [5, 2, 9]
    assert platform.ids() == [5, 2, 9]


def test_clearing_while_walking_skips_nothing(platform: Platform) -> None:
    for record_id in range(1, 6):
        platform.write(cper(record_id))
    seen = []
    while (one := platform.next_id()) != NO_RECORD:
        seen.append(one)
        assert platform.operate(BEGIN_CLEAR, 0, one) == SUCCESS
    assert seen == [1, 2, 3, 4, 5]
    assert platform.get(COUNT) == 0


def test_clearing_ahead_of_the_walk(platform: Platform) -> None:
    for record_id in range(1, 5):
        platform.write(cper(record_id))
    assert platform.next_id() == 1
    platform.operate(BEGIN_CLEAR, 0, 3)
    assert platform.ids() == [2, 4]


def test_a_reset_starts_the_walk_again(platform: Platform) -> None:
    platform.write(cper(1))
    platform.write(cper(2))
    platform.next_id()
    platform.erst.reset()
    assert platform.get(COUNT) == 2
    assert platform.ids() == [1, 2]


def test_restore_goes_on_where_the_snapshot_was_taken(platform: Platform) -> None:
    """The cursor is state; the page is guest memory; the records stay as they are."""
    for record_id in (1, 2, 3):
        platform.write(cper(record_id))
    platform.next_id()
    saved = platform.erst.snapshot()
    assert platform.ids() == [2, 3]
    platform.write(cper(4))
    platform.erst.restore(saved)
    assert platform.get(COUNT) == 4
    assert platform.ids() == [2, 3, 4]


def test_restore_over_a_smaller_store(platform: Platform) -> None:
    for record_id in (1, 2, 3):
        platform.write(cper(record_id))
    for _ in range(3):
        platform.next_id()
    saved = platform.erst.snapshot()
    platform.store.replace({1: cper(1)})
    platform.erst.restore(saved)
    assert platform.get(COUNT) == 1
    assert platform.next_id() == NO_RECORD
    assert platform.ids() == [1]


# --- limits and failures -------------------------------------------------------------------------------------


def test_capacity(platform: Platform) -> None:
    """Command status 1, not enough space; an id that is there can still be rewritten."""
    for record_id in range(1, CAPACITY + 1):
        assert platform.write(cper(record_id, 128)) == SUCCESS
    assert platform.write(cper(1000, 128)) == NO_SPACE
    assert platform.write(cper(1000, 128), opcode=BEGIN_DUMMY_WRITE) == NO_SPACE
    assert platform.write(cper(1, 140)) == SUCCESS
    assert platform.get(COUNT) == CAPACITY
    platform.operate(BEGIN_CLEAR, 0, 2)
    assert platform.write(cper(1000, 128)) == SUCCESS


def test_a_store_that_fails() -> None:
    """Command status 3; what was there stays."""
    store = Failing()
    store.records = {1: cper(1)}
    platform = Platform(store)
    assert platform.write(cper(2)) == FAILED
    assert platform.operate(BEGIN_CLEAR, 0, 1) == FAILED
    assert platform.get(COUNT) == 1
    assert platform.read(1) == (SUCCESS, cper(1))
    assert platform.ids() == [1]


@pytest.mark.parametrize(
    "record",
    [
        b"CPEX" + cper(1)[4:],
        cper(1)[:20] + struct.pack("<I", 127) + cper(1)[24:],
        cper(1)[:20] + struct.pack("<I", RANGE_LENGTH + 1) + cper(1)[24:],
        cper(1)[:20] + struct.pack("<I", 0xFFFFFFFF) + cper(1)[24:],
        cper(0),
        cper(NO_RECORD),
    ],
    ids=["signature", "short", "beyond the range", "huge", "id 0", "id all ones"],
)
def test_records_that_are_none(platform: Platform, record: bytes) -> None:
    """N.2.1: signature and length; ids with a meaning of their own."""
    assert platform.write(record) == FAILED
    assert platform.get(COUNT) == 0


@pytest.mark.parametrize("offset", [RANGE_LENGTH - 127, RANGE_LENGTH, 1 << 32, NO_RECORD])
def test_offsets_beyond_the_range(platform: Platform, offset: int) -> None:
    """SET_RECORD_OFFSET names a place in the range."""
    assert platform.operate(BEGIN_WRITE, offset) == FAILED
    platform.write(cper(1))
    assert platform.operate(BEGIN_READ, offset, 1) == FAILED


def test_a_record_longer_than_the_range_is_not_read(platform: Platform) -> None:
    """A store from elsewhere may hold one."""
    platform.store.replace({1: cper(1, RANGE_LENGTH + 8)})
    assert platform.operate(BEGIN_READ, 0, 1) == FAILED


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.tuples(
                st.just("register"),
                st.integers(0, REGISTERS_LENGTH - 8),
                st.sampled_from([0, 1, 2, 3, 11, 8000, NO_RECORD]) | st.integers(0, NO_RECORD),
            ),
            st.tuples(st.just("record"), st.integers(0, RANGE_LENGTH - 128), st.integers(1, 5)),
            st.tuples(st.just("command"), st.sampled_from([EXECUTE, NEXT_ID]), st.just(0)),
            st.tuples(st.just("operate"), st.sampled_from([0, 1, 2, 11]), st.integers(0, 6)),
        ),
        max_size=30,
    )
)
def test_any_register_page(steps: list[tuple[str, int, int]]) -> None:
    """Whatever is in the page: nothing is raised, no byte outside page and range changes, the store stays sound."""
    platform = Platform()
    for kind, first, second in steps:
        if kind == "register":
            platform.set(first, second)
        elif kind == "record":
            platform.ram.write(REGISTERS + REGISTERS_LENGTH + first, cper(second, 128))
        elif kind == "command":
            platform.erst.command(first)
        else:
            platform.operate(first, 0, second)
    assert bytes(platform.memory[:0x1000]) == b"\xcc" * 0x1000
    assert bytes(platform.memory[0x1000 + SIZE :]) == b"\xcc" * 0x1000
    assert len(platform.store.records) <= CAPACITY
    for record_id, record in platform.store.records.items():
        assert record.startswith(b"CPER")
        assert int.from_bytes(record[96:104], "little") == record_id
    platform.erst.reset()
    assert platform.ids() == list(platform.store.records)
