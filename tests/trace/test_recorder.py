"""What the recorder notes: one record an access, pieces first, blocks with their data."""

from __future__ import annotations

import gc
import sys
import time
import weakref
from typing import NamedTuple

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.kvm.api import Route
from portvisor.ports import Device, Owner, PortRange, PortSpace
from portvisor.trace._tap import Recorder
from portvisor.trace.filters import TraceFilter, parse_filter
from portvisor.trace.pump import FLUSH_SECONDS, Pump
from portvisor.trace.recorder import Recorder as SpaceRecorder
from portvisor.trace.schema import FLAG_FAILED, Kind, Metadata
from trace_support import Row, SpaceRecording


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
        "data": None, "device": "registers", "register": "HIGH", "depth": 0, "served": None, "outcome": "done",
        "rip": None,
    }  # fmt: skip
    assert {name: out[name] for name in expected} == expected
    assert (read["kind"], read["value"], read["seq"]) == ("in", 0x42, 1)


class Interrupted(Registers):
    """Ctrl-C comes while the device is asked for a name."""

    def register_name(self, offset: int, size: int, write: bool) -> str:
        raise KeyboardInterrupt


def test_a_ctrl_c_while_a_register_is_named_is_not_lost() -> None:
    space = PortSpace()
    space.attach(Interrupted())
    recording = SpaceRecording(space)
    with pytest.raises(KeyboardInterrupt):
        space.read(0x101, 1)
        for _ in range(1000):
            pass
    assert [row["port"] for row in recording.rows()] == [0x101]


def test_the_pieces_of_a_split_access_come_before_it() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    space.write(0x100, 4, 0x44332211)
    assert [(row["port"], row["size"], row["value"], row["depth"], row["outcome"]) for row in recording.rows()] == [
        (0x100, 2, 0x2211, 1, "done"),
        (0x102, 1, 0x33, 2, "done"),
        (0x103, 1, 0x44, 2, "done"),
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


def test_the_time_of_a_block_is_measured() -> None:
    space = PortSpace()
    device = Registers()
    space.attach(device)
    recording = SpaceRecording(space)
    device.write_block = lambda offset, size, data: time.sleep(0.002)  # type: ignore[method-assign]
    space.write_block(0x100, 1, b"ab")
    recording.recorder.event(Kind.IRQ, "IRQ3", 1)
    block, edge = recording.rows()
    assert 2_000_000 <= block["host_ns"] < 4_000_000_000
    assert edge["host_ns"] == 0


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
    assert (row["value"], row["outcome"]) == (0xFF, "failed")


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


@pytest.fixture(scope="module")
def watched() -> tuple[PortSpace, Seen, PortSpace, SpaceRecording]:
    """Two equal spaces, one with an observer and one with a recorder: made once, as that takes a while."""
    seen, observed, traced = Seen(), space_with_registers(), space_with_registers()
    observed.observe(seen)
    return observed, seen, traced, SpaceRecording(traced)


@settings(max_examples=25, deadline=None)
@given(accesses=st.lists(ACCESS, max_size=20))
def test_the_recorder_sees_what_an_observer_sees(
    watched: tuple[PortSpace, Seen, PortSpace, SpaceRecording], accesses: list[tuple[bool, int, int, int]]
) -> None:
    observed, seen, traced, recording = watched
    seen.log.clear()
    recording.batches.clear()
    for write, port, size, value in accesses:
        for space in (observed, traced):
            if write:
                space.write(port, size, value)
            else:
                space.read(port, size)
    names = ("kind", "port", "size", "value", "depth")
    assert [tuple(row[name] for name in names) for row in recording.rows()] == seen.log


def test_a_block_that_fails_is_noted_as_failed() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    assert space.read_block(0x103, 1, 2) == b"\xff\xff"
    (row,) = recording.rows()
    assert (row["kind"], row["data"], row["outcome"]) == ("ins", b"\xff\xff", "failed")


def test_rip_and_route_are_those_of_the_vcpu_at_the_access() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    rip, route = bytearray(8), bytearray((Route.ENGINE,))
    recording.clock.core.set_cpu(rip, route)
    for number, kind in enumerate(Route):
        rip[:] = (0xFFFF_FFFF_8000_0000 + number).to_bytes(8, "little")
        route[0] = kind
        space.read(0x101, 1)
    recording.recorder.event(Kind.IRQ, "IRQ3", 1)
    space.read(0x7000, 1)
    assert [(row["rip"], row["served"]) for row in recording.rows()] == [
        (0xFFFF_FFFF_8000_0000, None),
        (0xFFFF_FFFF_8000_0001, "engine"),
        (0xFFFF_FFFF_8000_0002, "exit"),
        (None, "coalesced"),
        (0xFFFF_FFFF_8000_0004, "emulator"),
        (None, None),
        (0xFFFF_FFFF_8000_0004, "unassigned"),
    ]


@pytest.mark.parametrize(("rip", "route"), [(bytes(7), bytes(1)), (bytes(8), bytes(2))])
def test_what_is_no_rip_and_no_route_is_refused(rip: bytes, route: bytes) -> None:
    core = Recorder(4)
    with pytest.raises(ValueError, match="8 bytes of RIP and one of the route"):
        core.set_cpu(rip, route)


class SlowRecording(SpaceRecording):
    """Batches of four records, each of which takes a moment to write."""

    def __init__(self, space: PortSpace, pause: float, error: BaseException | None = None) -> None:
        super().__init__(space)
        self.recorder.detach()
        core = Recorder(4)
        core.set_source(lambda: 0)
        self.pause, self.error = pause, error
        self.recorder = SpaceRecorder(core, space, self._write, Metadata().schema(), TraceFilter())
        self.recorder.attach()

    def _write(self, batch: pa.RecordBatch) -> None:
        if self.error:
            raise self.error
        time.sleep(self.pause)
        self.batches.append(batch)


def test_a_slow_writer_makes_the_guest_wait_and_loses_nothing() -> None:
    space = space_with_registers()
    recording = SlowRecording(space, 0.002)
    for value in range(200):
        space.write(0x101, 1, value)
        if value % 5 == 0:
            space.write_block(0x102, 1, bytes((value, value)))
    recording.recorder.detach()
    rows = [row for batch in recording.batches for row in batch.to_pylist()]
    assert [row["seq"] for row in rows] == list(range(240))
    assert [row["value"] for row in rows if row["kind"] == "out"] == list(range(200))
    assert [row["data"] for row in rows if row["data"]] == [bytes((n, n)) for n in range(0, 200, 5)]
    assert {len(batch) for batch in recording.batches} == {4}


def test_a_writer_that_fails_does_not_hold_the_guest_up() -> None:
    space = space_with_registers()
    recording = SlowRecording(space, 0.0, OSError("disk full"))
    for value in range(100):
        space.write(0x101, 1, value)
    recording.recorder.detach()
    assert str(recording.recorder.failure) == "disk full"


def test_records_are_written_soon_even_if_nothing_more_comes() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    space.write(0x101, 1, 1)
    limit = time.monotonic() + 20
    while not recording.batches and time.monotonic() < limit:
        time.sleep(0.02)
    assert len(recording.batches[0]) == 1


def test_numbers_go_on_when_recording_begins_again() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    space.read(0x101, 1)
    recording.recorder.detach()
    space.read(0x101, 1)
    recording.recorder.attach()
    space.read(0x101, 1)
    assert [row["seq"] for row in recording.rows()] == [0, 1]


class Noted(NamedTuple):
    """An event as it is given to the recorder."""

    kind: Kind
    port: int
    size: int
    value: int
    data: bytes | None
    failed: bool
    rip: int
    route: Route


NOTED = st.builds(
    Noted, st.sampled_from(Kind), st.integers(0, 0xFFFF), st.sampled_from((1, 2, 4)), st.integers(0, 0xFFFFFFFF),
    st.none() | st.binary(max_size=8), st.booleans(), st.integers(0, (1 << 64) - 1), st.sampled_from(Route),
)  # fmt: skip
ACCESS_KINDS = (Kind.IN, Kind.OUT, Kind.INS, Kind.OUTS)


def expected_row(number: int, one: Noted) -> Row:
    access = one.kind in ACCESS_KINDS
    sized = access or one.kind in (Kind.MMIO_IN, Kind.MMIO_OUT)
    block = one.kind in (Kind.INS, Kind.OUTS) and one.data is not None
    return {
        "seq": number, "time": 0, "host_ns": 0, "vcpu": 0,
        "rip": one.rip if access and one.route is not Route.COALESCED else None,
        "kind": one.kind.name.lower(),
        "port": one.port if access else None,
        "size": one.size if sized else None,
        "count": len(one.data or b"") // one.size if block else 1,
        "value": one.value, "data": one.data, "device": "", "register": "", "depth": 0,
        "served": one.route.name.lower() if sized and one.route else None,
        "outcome": ("failed" if one.failed else "done") if sized else None,
    }  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.lists(NOTED, max_size=40))
def test_columns_hold_what_was_noted(events: list[Noted]) -> None:
    batches: list[pa.RecordBatch] = []
    core = Recorder(64)
    core.register("")
    core.set_source(lambda: 0)
    pump = Pump(core, batches.append, Metadata().schema(), {"": 0})
    pump.start()
    rip, route = bytearray(8), bytearray(1)
    core.set_cpu(rip, route)
    for one in events:
        rip[:], route[0] = one.rip.to_bytes(8, "little"), one.route
        core.event(one.kind, one.port, one.size, one.value, 0, 0, one.data, FLAG_FAILED if one.failed else 0)
    pump.stop()
    for batch in batches:
        batch.validate(full=True)
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert rows == [expected_row(number, one) for number, one in enumerate(events)]


def test_with_an_observer_beside_it_the_recorder_sees_the_same() -> None:
    space = space_with_registers()
    recording = SpaceRecording(space)
    seen = Seen()
    space.observe(seen)
    space.write(0x100, 4, 0x44332211)
    space.read(0x7000, 1)
    names = ("kind", "port", "size", "value", "depth")
    assert [tuple(row[name] for name in names) for row in recording.rows()] == seen.log


def test_records_that_are_closed_over_a_writers_deadline_are_written() -> None:
    """The writer's wait is over, but it gets the interpreter lock only when the recorder was closed already."""
    space = space_with_registers()
    recording = SpaceRecording(space)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(60)
    try:
        recording.clock.advance(5)
        space.read(0x101, 1)
        deadline = time.monotonic() + 1.5 * FLUSH_SECONDS
        while time.monotonic() < deadline:
            pass
        recording.recorder.detach()
    finally:
        sys.setswitchinterval(interval)
    assert [row["port"] for batch in recording.batches for row in batch.to_pylist()] == [0x101]
