"""What is counted: everything that reaches a device or nobody, with bytes, values and registers."""

from __future__ import annotations

import gc
import sys
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.live._count import Counters, Tap
from portvisor.live.counters import LiveCounters
from portvisor.live.protocol import NOBODY, Access, RegisterRow, Totals
from portvisor.ports import Device, PortRange, PortSpace
from trace_support import SpaceRecording

BASE = 0x100


class Registers(Device):
    """An index and a data port, a word port, and one that fails; offset 1 is named by the index."""

    name = "registers"
    ports = (PortRange(BASE, 4), PortRange(BASE + 8, 8, (1, 2, 4), offset=8))
    REGISTERS = {0: "INDEX", 2: "STATUS", 3: "BROKEN", 8: "FIFO"}  # noqa: RUF012

    def __init__(self) -> None:
        super().__init__()
        self.index = 0
        self.written: list[int] = []

    def register_name(self, offset: int, size: int, write: bool) -> str:
        return f"DATA[{self.index}]" if offset == 1 else super().register_name(offset, size, write)

    def read(self, offset: int, size: int) -> int:
        if offset == 3:
            raise RuntimeError("broken")
        return 0x1234567A

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == 0:
            self.index = value
        self.written.append(value)


def make() -> tuple[PortSpace, LiveCounters]:
    space = PortSpace()
    space.attach(Registers())
    counters = LiveCounters(space)
    counters.attach()
    return space, counters


def port(counters: LiveCounters, number: int) -> Totals:
    return next((row.totals for row in counters.ports(100)[0] if row.port == number), Totals())


def test_a_ctrl_c_while_a_register_is_named_is_not_lost() -> None:
    """A port's own screen asks the device at each access."""
    space, counters = make()
    device = space.owner(BASE + 1, 1)
    assert device is not None

    def interrupted(offset: int, size: int, write: bool) -> str:
        raise KeyboardInterrupt

    counters.watch(BASE + 1)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(device.device, "register_name", interrupted)
        space.read(BASE + 1, 1)
        for _ in range(1000):
            pass
    assert port(counters, BASE + 1).reads == 1


def test_accesses_and_bytes_are_added_by_port_and_by_device() -> None:
    space, counters = make()
    assert space.read(BASE + 2, 1) == 0x7A
    space.write(BASE, 1, 3)
    space.write(BASE, 1, 4)
    space.read(BASE + 8, 4)
    assert port(counters, BASE)[:3] == (0, 2, 2)
    assert port(counters, BASE + 2)[:3] == (1, 0, 1)
    assert port(counters, BASE + 8)[:3] == (1, 0, 4)
    assert counters.devices()["registers"][:3] == (2, 2, 7)


def test_the_time_in_handlers_is_that_of_the_handlers() -> None:
    class Slow(Device):
        name = "slow"
        ports = (PortRange(BASE, 1),)

        def read(self, offset: int, size: int) -> int:
            return sum(range(20_000))

    space = PortSpace()
    space.attach(Slow())
    counters = LiveCounters(space)
    counters.attach()
    for _ in range(20):
        space.read(BASE, 1)
    ns = counters.devices()["slow"].ns
    assert 20 * 20_000 < ns < 5_000_000_000  # more than 1 ns an addition


def test_a_split_access_counts_as_its_pieces() -> None:
    space, counters = make()
    space.read(BASE, 2)
    assert (port(counters, BASE).reads, port(counters, BASE + 1).reads) == (1, 1)
    assert counters.devices()["registers"].accesses == 2


def test_ports_that_nobody_owns_are_counted_as_such() -> None:
    space, counters = make()
    space.read(0x9999, 1)
    space.write(0x9999, 2, 1)
    space.write(0xFFFF, 4, 1)
    assert counters.devices()[NOBODY].accesses == 3
    assert port(counters, 0x9999)[:3] == (1, 1, 3)
    assert counters.ports(100)[0][0].device == NOBODY


def test_a_block_is_one_access_with_all_its_bytes() -> None:
    space, counters = make()
    assert len(space.read_block(BASE + 8, 2, 256)) == 512
    space.write_block(BASE + 8, 4, bytes(range(16)))
    assert port(counters, BASE + 8)[:3] == (1, 1, 528)
    first, second = counters.last(BASE + 8)
    assert first == Access(0, 0x567A, 2, False, True, "")
    assert second == Access(1, 0x03020100, 4, True, True, "")


def test_the_last_values_are_kept_in_order_and_cut_to_their_size() -> None:
    space, counters = make()
    for value in range(20):
        space.write(BASE, 1, value)
    space.read(BASE, 1)
    last = counters.last(BASE)
    assert [access.number for access in last] == list(range(5, 21))
    assert [access.value for access in last] == [*range(5, 20), 0x7A]
    assert last[-1].write is False


def test_a_device_that_raises_is_counted_and_its_error_passes() -> None:
    space, counters = make()
    failures: list[object] = []
    space.on_failure = failures.append
    assert space.read(BASE + 3, 1) == 0xFF
    assert len(failures) == 1
    assert counters.last(BASE + 3) == [Access(0, 0xFF, 1, False, False, "")]


def test_registers_of_a_watched_port_are_named_as_they_are_at_the_access() -> None:
    space, counters = make()
    space.write(BASE, 1, 4)
    space.read(BASE + 1, 1)
    counters.watch(BASE + 1)
    space.read(BASE + 1, 1)
    space.write(BASE, 1, 9)
    space.write(BASE + 1, 1, 1)
    space.write(BASE + 1, 1, 2)
    assert counters.registers(BASE + 1) == [RegisterRow("DATA[9]", True, 2), RegisterRow("DATA[4]", False, 1)]
    assert [access.register for access in counters.last(BASE + 1)] == ["", "DATA[4]", "DATA[9]", "DATA[9]"]
    counters.unwatch(BASE + 1)
    space.read(BASE + 1, 1)
    assert counters.registers(BASE + 1) == []
    assert {access.register for access in counters.last(BASE + 1)} == {""}


def test_a_watched_block_has_its_register_too() -> None:
    space, counters = make()
    counters.watch(BASE + 8)
    space.read_block(BASE + 8, 1, 4)
    assert counters.registers(BASE + 8) == [RegisterRow("FIFO", False, 1)]
    assert counters.last(BASE + 8)[0].register == "FIFO"


def test_two_viewers_may_watch_one_port() -> None:
    space, counters = make()
    counters.watch(BASE)
    counters.watch(BASE)
    counters.unwatch(BASE)
    space.write(BASE, 1, 1)
    assert counters.registers(BASE) == [RegisterRow("INDEX", True, 1)]
    counters.unwatch(BASE)
    counters.unwatch(BASE)
    assert counters.registers(BASE) == []


def test_names_without_end_are_counted_together() -> None:
    space, counters = make()
    counters.watch(BASE + 1)
    for index in range(1500):
        space.write(BASE, 1, index & 0xFF)
        space.reads[0][BASE + 1][0](1, 1)
    device = space.devices()[0]
    assert isinstance(device, Registers)
    for index in range(3000):
        device.index = index
        space.read(BASE + 1, 1)
    rows = counters.registers(BASE + 1)
    assert len(rows) <= 1024
    assert sum(row.accesses for row in rows) == 4500


def test_a_name_that_fails_does_not_disturb_the_guest() -> None:
    class Nameless(Registers):
        def register_name(self, offset: int, size: int, write: bool) -> str:
            raise RuntimeError("no name")

    space = PortSpace()
    space.attach(Nameless())
    counters = LiveCounters(space)
    counters.attach()
    counters.watch(BASE)
    space.write(BASE, 1, 1)
    assert counters.ports(1)[0][0].write_register == ""
    assert counters.registers(BASE) == [RegisterRow("", True, 1)]


def test_nothing_is_counted_before_and_after_and_the_tables_are_as_before() -> None:
    space = PortSpace()
    space.attach(Registers())
    reads, writes = [list(table) for table in space.reads], [list(table) for table in space.writes]
    counters = LiveCounters(space)
    space.read(BASE, 1)
    counters.attach()
    space.read(BASE, 1)
    counters.detach()
    space.read(BASE, 1)
    assert port(counters, BASE).reads == 1
    assert [list(table) for table in space.reads] == reads
    assert [list(table) for table in space.writes] == writes
    counters.attach()
    space.read(BASE, 1)
    assert port(counters, BASE).reads == 2


def test_a_device_that_moves_is_still_counted() -> None:
    space, counters = make()
    device = space.devices()[0]
    space.remap(device, [PortRange(0x400, 4)])
    space.read(0x402, 1)
    space.read(BASE + 2, 1)
    assert (port(counters, 0x402).reads, port(counters, BASE + 2).reads) == (1, 1)
    assert counters.devices()["registers"].reads == 1
    assert counters.devices()[NOBODY].reads == 1


def test_a_recorder_notes_the_same_whether_it_is_watched_or_not() -> None:
    space = PortSpace()
    space.attach(Registers())
    recording = SpaceRecording(space)
    counters = LiveCounters(space)

    def traffic() -> None:
        space.write(BASE, 1, 5)
        space.read(BASE, 2)
        space.read(0x9000, 1)
        space.read_block(BASE + 8, 2, 4)

    traffic()
    counters.attach()
    traffic()
    counters.detach()
    traffic()
    rows = recording.rows()
    plain = [{name: row[name] for name in ("port", "kind", "value", "data", "depth", "served")} for row in rows]
    third = len(plain) // 3
    assert third == 6
    assert plain[:third] == plain[third : 2 * third] == plain[2 * third :]
    assert sum(row.totals.accesses for row in counters.ports(100)[0]) == 5


def test_the_busiest_ports_come_first_and_no_more_than_wanted() -> None:
    space, counters = make()
    for number in range(300):
        for _ in range(1 + (number == 200)):
            space.read(0x2000 + number, 1)
    rows, used = counters.ports(10)
    assert used == 300
    assert [row.port for row in rows] == [0x20C8, *range(0x2000, 0x2009)]


def test_all_64_ki_ports_fit() -> None:
    space, counters = make()
    space.on_failure = lambda failure: None
    for number in range(0x10000):
        space.read(number, 1)
    rows, used = counters.ports(1024)
    assert (len(rows), used) == (1024, 0x10000)
    assert sum(totals.reads for totals in counters.devices().values()) == 0x10000


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0xF8, 0x118), st.sampled_from((1, 2, 4)), st.booleans()), max_size=60))
def test_devices_and_ports_add_up_to_the_same(accesses: list[tuple[int, int, bool]]) -> None:
    space, counters = make()
    space.on_failure = lambda failure: None
    for number, size, write in accesses:
        if write:
            space.write(number, size, 0xFFFFFFFF)
        else:
            space.read(number, size)
    rows, used = counters.ports(1 << 16)
    assert used == len(rows)
    by_port = [sum(values) for values in zip(*(row.totals[:3] for row in rows), strict=True)]
    by_device = [sum(values) for values in zip(*(sums[:3] for sums in counters.devices().values()), strict=True)]
    assert by_port == by_device
    if by_port:
        assert by_port[2] == sum(size for _, size, _ in accesses)


def test_nothing_leaks() -> None:
    def run() -> weakref.ref[LiveCounters]:
        space, counters = make()
        counters.watch(BASE)
        for _ in range(100):
            space.read(BASE, 1)
            space.write(BASE, 1, 300)
        counters.ports(10)
        counters.last(BASE)
        return weakref.ref(counters)

    reference = run()
    gc.collect()
    assert reference() is None
    value = 123_456_789
    space, _ = make()
    before = sys.getrefcount(value)
    for _ in range(1000):
        space.write(BASE + 8, 4, value)
    device = space.devices()[0]
    assert isinstance(device, Registers)
    device.written.clear()
    assert sys.getrefcount(value) <= before + 5


def test_the_compiled_part_refuses_what_cannot_be() -> None:
    core = Counters()
    with pytest.raises(ValueError, match="port"):
        core.last(0x10000)
    with pytest.raises(ValueError, match="port"):
        core.watch(-1, None)
    with pytest.raises(ValueError, match="device"):
        core.block(0, 4096, False, 1, 1, 0, 0, 0)
    with pytest.raises(ValueError, match="device"):
        Tap(core, len, 0, 4096, False)
    tap = Tap(core, lambda offset, size: 7, 0, 0, False)
    assert tap(1, 1) == 7
    with pytest.raises(TypeError, match="offset, size"):
        tap(1)
    assert tap(0x10000, 1) == 7  # beyond the last port: passed on, not counted
    assert core.ports(10)[1] == 1
