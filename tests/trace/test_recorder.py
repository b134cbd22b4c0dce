"""What the recorder notes: one record an access, pieces first, blocks with their data."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.ports import Device, Owner, PortRange, PortSpace
from portvisor.trace.filters import parse_filter
from trace_support import SpaceRecording


class Registers(Device):
    """Four byte registers, the first two also a word; offset 3 fails."""

    name = "registers"
    ports = (PortRange(0x100, 4, name="registers"), PortRange(0x100, 2, (2,), name="word"))
    REGISTERS = {0: "LOW", 1: "HIGH", 2: "STATUS"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.values = bytearray(4)

    def read(self, offset: int, size: int) -> int:
        if offset == 3:
            raise RuntimeError("broken")
        return int.from_bytes(self.values[offset : offset + size], "little")

    def write(self, offset: int, size: int, value: int) -> None:
        self.values[offset : offset + size] = value.to_bytes(size, "little")


def space_with_registers() -> PortSpace:
    space = PortSpace()
    space.attach(Registers())
    return space


def test_an_access_has_port_value_device_and_register() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    recording.clock.advance(5)
    space.write(0x101, 1, 0x42)
    assert space.read(0x101, 1) == 0x42
    out, read = recording.rows()
    expected = {
        "seq": 0, "time": 5, "vcpu": 0, "kind": "out", "port": 0x101, "size": 1, "count": 1, "value": 0x42,
        "data": None, "device": "registers", "register": "HIGH", "depth": 0, "served": "device",
    }  # fmt: skip
    assert {name: out[name] for name in expected} == expected
    assert (read["kind"], read["value"], read["seq"]) == ("in", 0x42, 1)


def test_the_pieces_of_a_split_access_come_before_it() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    space.write(0x100, 4, 0x44332211)
    assert [(row["port"], row["size"], row["value"], row["depth"], row["served"]) for row in recording.rows()] == [
        (0x100, 2, 0x2211, 1, "device"),
        (0x102, 1, 0x33, 2, "device"),
        (0x103, 1, 0x44, 2, "device"),
        (0x102, 2, 0x4433, 1, "split"),
        (0x100, 4, 0x44332211, 0, "split"),
    ]


def test_a_block_is_one_record_with_its_data() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    space.write_block(0x100, 2, b"abcd")
    assert space.read_block(0x100, 2, 3) == b"cdcdcd"
    out, read = recording.rows()
    assert (out["kind"], out["count"], out["data"], out["register"]) == ("outs", 2, b"abcd", "LOW")
    assert (read["kind"], read["count"], read["data"]) == ("ins", 3, b"cdcdcd")


def test_an_unassigned_port_reads_ones_and_has_no_device() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    space.read(0x7000, 2)
    (row,) = recording.rows()
    assert (row["port"], row["value"], row["device"], row["served"]) == (0x7000, 0xFFFF, "", "unassigned")
    assert sum(space.unassigned.values()) == 1


def test_a_device_that_fails_is_noted_with_the_value_the_guest_gets() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    assert space.read(0x103, 1) == 0xFF
    (row,) = recording.rows()
    assert (row["value"], row["served"]) == (0xFF, "failed")


def test_a_device_that_moves_is_recorded_at_its_new_ports() -> None:
    space = PortSpace()
    device = Registers()
    space.attach(device)
    recording = SpaceRecording(space)
    space.remap(device, (PortRange(0x300, 4, name="registers"),))
    space.write(0x302, 1, 7)
    space.read(0x100, 1)
    assert [(row["port"], row["device"], row["register"]) for row in recording.rows()] == [
        (0x302, "registers", "STATUS"),
        (0x100, "", ""),
    ]


def test_after_detach_nothing_is_recorded_and_the_handlers_are_the_devices_own() -> None:
    space = space_with_registers()
    before = (space.reads[0][0x101], space.writes[1][0x100], space.reads[0][0x7000])
    recording = SpaceRecording(space)
    assert space.reads[0][0x101] != before[0]
    recording.recorder.detach()
    assert (space.reads[0][0x101], space.writes[1][0x100], space.reads[0][0x7000]) == before
    space.read(0x101, 1)
    assert recording.rows() == []


@pytest.mark.parametrize(
    ("words", "ports"),
    [
        ("ports=101", [0x101, 0x100]),
        ("ports=7000-70ff dir=in", [0x7000]),
        ("device=reg*", [0x101, 0x102, 0x100]),
        ("dir=out", [0x102]),
        ("kind=irq", []),
    ],
)
def test_a_filter_lets_only_what_it_names_pass(words: str, ports: list[int]) -> None:
    space = space_with_registers()
    recording = SpaceRecording(space, parse_filter([words]))
    space.read(0x101, 1)
    space.write(0x102, 1, 1)
    space.read(0x7000, 1)
    space.read(0x100, 2)
    assert [row["port"] for row in recording.rows()] == ports


def test_a_recorder_and_its_space_are_freed() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    space.read(0x101, 1)
    gone = weakref.ref(space)
    del space, recording
    gc.collect()
    assert gone() is None


class Seen:
    """An observer, to compare with."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int, int, int, int]] = []

    def port_read(self, port: int, size: int, value: int, owner: Owner | None, depth: int) -> None:
        self.log.append(("in", port, size, value, depth))

    def port_write(self, port: int, size: int, value: int, owner: Owner | None, depth: int) -> None:
        self.log.append(("out", port, size, value, depth))

    def port_read_block(self, port: int, size: int, data: bytes, owner: Owner | None) -> None:
        self.log.append(("ins", port, size, len(data), 0))

    def port_write_block(self, port: int, size: int, data: bytes, owner: Owner | None) -> None:
        self.log.append(("outs", port, size, len(data), 0))


ACCESS = st.tuples(
    st.booleans(), st.integers(0xFC, 0x106), st.sampled_from((1, 2, 4)), st.integers(0, 0xFFFFFFFF)
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.lists(ACCESS, max_size=20))
def test_the_recorder_sees_what_an_observer_sees(accesses: list[tuple[bool, int, int, int]]) -> None:
    logs = []
    for traced in (False, True):
        space = space_with_registers()
        seen = Seen()
        recording = SpaceRecording(space) if traced else None
        if not traced:
            space.observe(seen)
        for write, port, size, value in accesses:
            if write:
                space.write(port, size, value)
            else:
                space.read(port, size)
        names = ("kind", "port", "size", "value", "depth")
        rows = recording.rows() if recording else []
        logs.append([tuple(row[name] for name in names) for row in rows] if recording else seen.log)
    assert logs[0] == [tuple(entry) for entry in logs[1]]
