"""Decode per port and size, conflicts, transactions, observers: the rules of `ports.space`."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.ports import (
    Device,
    DeviceFailureError,
    Failure,
    Owner,
    PortConflictError,
    PortRange,
    PortRangeError,
    PortSpace,
    Unassigned,
)


class Recorder(Device):
    """Logs what reaches it; byte n of its register file reads as n + `base_value`."""

    @dataclass
    class State:
        log: list[tuple[object, ...]] = field(default_factory=list)

    state: State

    def __init__(self, name: str, *ranges: PortRange, base_value: int = 0) -> None:
        self.name = name
        super().__init__()
        self.ports = ranges
        self.base_value = base_value

    def read(self, offset: int, size: int) -> int:
        self.state.log.append(("r", offset, size))
        return sum(((self.base_value + offset + n) & 0xFF) << 8 * n for n in range(size))

    def write(self, offset: int, size: int, value: int) -> None:
        self.state.log.append(("w", offset, size, value))


class BlockRecorder(Recorder):
    def read_block(self, offset: int, size: int, count: int) -> bytes:
        self.state.log.append(("rb", offset, size, count))
        return bytes(range(size * count))

    def write_block(self, offset: int, size: int, data: bytes) -> None:
        self.state.log.append(("wb", offset, size, data))


class Broken(Device):
    ports = (PortRange(0x300, 4, {1, 2}, "broken"),)

    def read(self, offset: int, size: int) -> int:
        raise ValueError("read")

    def write(self, offset: int, size: int, value: int) -> None:
        raise ValueError("write")


def space_with(*devices: Device) -> PortSpace:
    space = PortSpace()
    for device in devices:
        space.attach(device)
    return space


def test_unowned_byte_reads_ff_and_ignores_writes() -> None:
    space = PortSpace()
    space.write(0x1234, 1, 5)
    assert [space.read(0x1234, size) for size in (1, 2, 4)] == [0xFF, 0xFFFF, 0xFFFFFFFF]


def test_an_access_its_owner_takes_whole_is_one_call() -> None:
    device = Recorder("wide", PortRange(0x100, 4, {1, 2, 4}, "wide"))
    space = space_with(device)
    assert space.read(0x100, 4) == 0x03020100
    assert device.state.log == [("r", 0, 4)]


def test_an_access_nobody_takes_whole_is_split_low_address_first() -> None:
    device = Recorder("bytes", PortRange(0x100, 4, name="bytes"))
    space = space_with(device)
    space.write(0x100, 4, 0x44332211)
    assert device.state.log == [("w", 0, 1, 0x11), ("w", 1, 1, 0x22), ("w", 2, 1, 0x33), ("w", 3, 1, 0x44)]


def test_a_word_may_span_two_devices() -> None:
    low = Recorder("low", PortRange(0x100, 1, name="low"), base_value=0x11)
    high = Recorder("high", PortRange(0x101, 1, name="high"), base_value=0x22)
    assert space_with(low, high).read(0x100, 2) == 0x2211


def test_a_byte_inside_a_dword_register_may_have_another_owner() -> None:
    """CF8 takes dwords only; CF9 is reset control, by byte."""
    config = Recorder("config", PortRange(0xCF8, 4, {4}, "PCI conf1"))
    reset = Recorder("reset", PortRange(0xCF9, 1, name="reset"))
    space = space_with(config, reset)
    space.write(0xCF8, 4, 0x80000000)
    space.write(0xCF9, 1, 6)
    space.write(0xCF8, 1, 1)
    assert config.state.log == [("w", 0, 4, 0x80000000)]
    assert reset.state.log == [("w", 0, 1, 6)]


def test_a_misaligned_word_is_split() -> None:
    device = Recorder("words", PortRange(0x100, 4, {1, 2}, "words"))
    space_with(device).read(0x101, 2)
    assert device.state.log == [("r", 1, 1), ("r", 2, 1)]


def test_bytes_beyond_ffff_are_open_bus() -> None:
    device = Recorder("top", PortRange(0xFFFF, 1, name="top"), base_value=0x12)
    space = space_with(device)
    assert space.read(0xFFFF, 4) == 0xFFFFFF12
    space.write(0xFFFF, 2, 0xAA55)
    assert device.state.log[-1] == ("w", 0, 1, 0x55)


def test_an_alias_shares_the_register_file() -> None:
    device = Recorder("pit", PortRange(0x40, 4, name="timer0"), PortRange(0x50, 4, name="timer1"))
    space = space_with(device)
    space.write(0x53, 1, 0x34)
    assert device.state.log == [("w", 3, 1, 0x34)]


def test_offset_of_a_second_range_continues_the_register_file() -> None:
    device = Recorder("kbd", PortRange(0x60, 1, name="data"), PortRange(0x64, 1, name="status", offset=4))
    space = space_with(device)
    space.read(0x64, 1)
    assert device.state.log == [("r", 4, 1)]


def test_a_device_value_wider_than_the_access_is_cut() -> None:
    class Wide(Device):
        ports = (PortRange(0x10, 1, name="wide"),)

        def read(self, offset: int, size: int) -> int:
            return -1

    assert space_with(Wide()).read(0x10, 1) == 0xFF


def test_conflict_names_both_owners_and_changes_nothing() -> None:
    first = Recorder("com1", PortRange(0x3F8, 8, name="serial"))
    second = Recorder("modem", PortRange(0x3F0, 16, name="modem"))
    space = space_with(first)
    with pytest.raises(PortConflictError) as error:
        space.attach(second)
    text = str(error.value)
    assert "0x03f8" in text
    assert "com1 (03f8-03ff : serial)" in text
    assert "modem (03f0-03ff : modem)" in text
    assert space.owner(0x3F0) is None
    assert space.read(0x3F0, 1) == 0xFF
    assert [device.name for _, device in space.ranges()] == ["com1"]


def test_remap_moves_all_or_nothing() -> None:
    fixed = Recorder("fixed", PortRange(0x200, 4, name="fixed"))
    mover = Recorder("mover", PortRange(0x100, 4, name="mover"))
    space = space_with(fixed, mover)
    with pytest.raises(PortConflictError):
        space.remap(mover, [PortRange(0x300, 4, name="mover"), PortRange(0x202, 1, name="mover")])
    assert space.owner(0x100) is not None
    assert space.owner(0x300) is None
    space.remap(mover, [PortRange(0x300, 4, name="mover")])
    assert space.owner(0x100) is None
    assert space.read(0x100, 1) == 0xFF
    assert space.read(0x302, 1) == 2


def test_two_devices_swap_ports_in_one_transaction() -> None:
    one = Recorder("one", PortRange(0x100, 4, name="one"), base_value=0x10)
    two = Recorder("two", PortRange(0x200, 4, name="two"), base_value=0x20)
    space = space_with(one, two)
    with space.transaction():
        space.remap(one, [PortRange(0x200, 4, name="one")])
        space.remap(two, [PortRange(0x100, 4, name="two")])
    assert (space.read(0x100, 1), space.read(0x200, 1)) == (0x20, 0x10)


def test_a_transaction_that_raises_changes_nothing() -> None:
    one = Recorder("one", PortRange(0x100, 4, name="one"))
    space = space_with(one)
    with pytest.raises(PortConflictError), space.transaction():
        space.detach(one)
        space.attach(Recorder("twice", PortRange(1, 1, name="a"), PortRange(1, 1, name="b")))
    assert space.owner(0x100) is not None
    space.detach(one)
    assert space.owner(0x100) is None


def test_a_handler_may_move_its_own_device() -> None:
    class Mover(Device):
        ports = (PortRange(0x100, 4, name="mover"),)

        def write(self, offset: int, size: int, value: int) -> None:
            space.remap(self, [PortRange(value << 8, 4, name="mover")])

        def read(self, offset: int, size: int) -> int:
            return 0x42

    space = PortSpace()
    space.attach(Mover())
    space.write(0x100, 4, 0x05050505)
    assert space.read(0x100, 1) == 0xFF
    assert space.read(0x500, 1) == 0x42


def test_detach_leaves_other_devices() -> None:
    one = Recorder("one", PortRange(0x100, 2, name="one"))
    two = Recorder("two", PortRange(0x102, 2, name="two"))
    space = space_with(one, two)
    space.detach(one)
    assert space.read(0x100, 4) == 0x0100FFFF


def test_string_io_keeps_size_and_count() -> None:
    device = BlockRecorder("disk", PortRange(0x1F0, 2, {2}, "disk"))
    space = space_with(device)
    assert space.read_block(0x1F0, 2, 3) == bytes(range(6))
    space.write_block(0x1F0, 2, b"abcd")
    assert device.state.log == [("rb", 0, 2, 3), ("wb", 0, 2, b"abcd")]


def test_string_io_to_a_split_port_falls_back_to_single_accesses() -> None:
    device = BlockRecorder("bytes", PortRange(0x100, 2, name="bytes"))
    space = space_with(device)
    assert space.read_block(0x100, 2, 2) == b"\x00\x01\x00\x01"
    space.write_block(0x100, 2, b"\x01\x02")
    assert device.state.log[-2:] == [("w", 0, 1, 1), ("w", 1, 1, 2)]


def test_a_short_block_is_filled_with_ones() -> None:
    class Short(Recorder):
        def read_block(self, offset: int, size: int, count: int) -> bytes:
            return b"\x01"

    assert space_with(Short("short", PortRange(1, 1, name="short"))).read_block(1, 1, 3) == b"\x01\xff\xff"


def test_a_device_that_raises_is_reported_and_reads_ones() -> None:
    space = space_with(Broken())
    failures: list[Failure] = []
    space.on_failure = failures.append
    assert space.read(0x300, 2) == 0xFFFF
    space.write(0x301, 1, 0)
    assert space.read_block(0x302, 1, 2) == b"\xff\xff"
    assert [str(failure) for failure in failures] == [
        "broken: 2-byte read of port 0x0300 raised ValueError: read",
        "broken: 1-byte write to port 0x0301 raised ValueError: write",
        "broken: 1-byte read of port 0x0302 raised ValueError: read",
    ]


def test_strict_space_stops_on_a_device_that_raises() -> None:
    space = PortSpace(strict=True)
    space.attach(Broken())
    with pytest.raises(DeviceFailureError, match=r"broken: 4-byte|broken: 2-byte read of port 0x0300"):
        space.read(0x300, 4)


def test_unassigned_ports_are_counted_once_per_kind() -> None:
    space = PortSpace()
    for _ in range(3):
        space.read(0x80, 1)
    space.write(0x80, 2, 0)
    assert space.unassigned == {Unassigned(0x80, 1, False): 3, Unassigned(0x80, 2, True): 1}


class Watcher:
    def __init__(self) -> None:
        self.seen: list[tuple[object, ...]] = []

    def port_read(self, port: int, size: int, value: int, owner: Owner | None, depth: int) -> None:
        self.seen.append(("in", port, size, value, owner and owner.device.name, depth))

    def port_write(self, port: int, size: int, value: int, owner: Owner | None, depth: int) -> None:
        self.seen.append(("out", port, size, value, owner and owner.device.name, depth))

    def port_read_block(self, port: int, size: int, data: bytes, owner: Owner | None) -> None:
        self.seen.append(("ins", port, size, data, owner and owner.device.name))

    def port_write_block(self, port: int, size: int, data: bytes, owner: Owner | None) -> None:
        self.seen.append(("outs", port, size, data, owner and owner.device.name))


def test_an_observer_sees_the_access_and_the_pieces_it_was_split_into() -> None:
    device = BlockRecorder("bytes", PortRange(0x100, 1, name="bytes"), base_value=7)
    space = space_with(device)
    watcher = Watcher()
    space.observe(watcher)
    assert space.read(0x100, 2) == 0xFF07
    space.write(0x100, 1, 9)
    space.read_block(0x100, 1, 2)
    assert watcher.seen == [
        ("in", 0x100, 1, 7, "bytes", 1),
        ("in", 0x101, 1, 0xFF, None, 1),
        ("in", 0x100, 2, 0xFF07, None, 0),
        ("out", 0x100, 1, 9, "bytes", 0),
        ("ins", 0x100, 1, b"\x00\x01", "bytes"),
    ]
    space.unobserve(watcher)
    space.read(0x100, 1)
    assert len(watcher.seen) == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0xFFFF, 2), "leaves the I/O space"),
        ((-1, 2), "leaves the I/O space"),
        ((0, 0), "length 0"),
        ((0, 4, (8,)), r"sizes \[8\], allowed are 1, 2 and 4"),
        ((0, 4, ()), r"sizes \[\], allowed"),
    ],
)
def test_an_impossible_range_is_refused(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(PortRangeError, match=message):
        PortRange(*arguments)  # type: ignore[arg-type]


ranges = st.builds(
    PortRange,
    st.integers(0, 0x3F),
    st.integers(1, 8),
    st.sets(st.sampled_from([1, 2, 4]), min_size=1),
    st.just("r"),
)


def reference(owned: list[tuple[PortRange, Recorder]], port: int, size: int) -> int:
    """The decode rule written the slow way."""
    for candidate, device in owned:
        inside = candidate.base <= port and port + size - 1 <= candidate.last
        if inside and size in candidate.sizes and (port - candidate.base) % size == 0:
            return sum(((device.base_value + port - candidate.base + n) & 0xFF) << 8 * n for n in range(size))
    if size == 1:
        return 0xFF
    half = size // 2
    return reference(owned, port, half) | reference(owned, port + half, half) << 8 * half


@settings(max_examples=60, deadline=None)
@given(st.lists(ranges, max_size=6), st.lists(st.integers(0, 5), max_size=4))
def test_decode_equals_the_rule_whatever_is_mapped_and_unmapped(
    wanted: list[PortRange], removed: list[int]
) -> None:
    space = PortSpace()
    owned: list[tuple[PortRange, Recorder]] = []
    for index, one in enumerate(wanted):
        device = Recorder(f"d{index}", one, base_value=index * 16)
        try:
            space.attach(device)
        except PortConflictError:
            continue
        owned.append((one, device))
    for index in removed:
        if index < len(owned):
            space.detach(owned.pop(index)[1])
    for port in range(0x48):
        for size in (1, 2, 4):
            assert space.read(port, size) == reference(owned, port, size)
