"""Hostile guests: whatever they write, the controller stays within its contract."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from devices.floppy.fdc_host import DOR, FIFO, MOTOR_A, MSR, Host, image
from portvisor.backends.image import MemoryImage
from portvisor.devices.floppy.commands import COMMANDS

PORTS = st.sampled_from([0x3F0, 0x3F1, 0x3F2, 0x3F3, 0x3F4, 0x3F5, 0x3F7, 0x04, 0x05, 0x08, 0x0A, 0x0B, 0x0D])
ACCESS = st.tuples(st.booleans(), PORTS, st.integers(0, 255))
NEAR = st.integers(0, 4) | st.integers(0, 255)
COMMAND = st.tuples(
    st.sampled_from([command.code for command in COMMANDS]),
    *(NEAR, NEAR, NEAR, NEAR),
    st.sampled_from([2, 2, 2, 0, 255]),
    *(st.integers(0, 20) | st.integers(0, 255), NEAR, NEAR),
)
STEP = ACCESS | COMMAND.map(list)


def play(host: Host, steps: list[tuple[bool, int, int] | list[int]]) -> list[int]:
    """Carry the steps out; what was read."""
    seen = []
    for step in steps:
        if isinstance(step, list):
            for value in step:
                host.out(FIFO, value)
        elif step[0]:
            host.out(step[1], step[2])
        else:
            seen.append(host.inb(step[1]))
    return seen


@settings(max_examples=150, deadline=None)
@given(st.lists(STEP, max_size=60), st.booleans(), st.booleans())
def test_a_reset_always_brings_it_back(
    steps: list[tuple[bool, int, int] | list[int]], non_dma: bool, as_qemu: bool
) -> None:
    host = Host(as_qemu=as_qemu)
    host.send(0x03, 0xDF, 0x03 if non_dma else 0x02)
    play(host, steps)
    state = host.fdc.state
    assert len(state.command) <= 17
    assert len(state.results) <= 16
    assert len(state.transfer.data) <= 516
    host.out(DOR, 0)
    assert host.irq.level == 0
    host.out(DOR, MOTOR_A)
    assert host.inb(MSR) == 0x80
    assert host.command(0x08) == b"\xc0\x00"
    assert host.command(0x10) == b"\x90"


@settings(max_examples=100, deadline=None)
@given(st.lists(STEP, max_size=40), st.lists(STEP, max_size=40))
def test_a_snapshot_restores_to_the_same_future(
    before: list[tuple[bool, int, int] | list[int]], after: list[tuple[bool, int, int] | list[int]]
) -> None:
    host = Host()
    play(host, before)
    saved, dma = host.fdc.snapshot(), host.dma.snapshot()
    medium = host.medium
    assert isinstance(medium, MemoryImage)
    memory, disk, level = bytes(host.bytes), bytes(medium.data), host.irq.level
    first = play(host, after)
    host.bytes[:], medium.data[:] = memory, disk
    host.dma.restore(dma)
    host.fdc.restore(saved)
    assert host.irq.level == level
    assert play(host, after) == first


@settings(max_examples=60, deadline=None)
@given(st.lists(STEP, max_size=60))
def test_a_write_protected_medium_never_changes(steps: list[tuple[bool, int, int] | list[int]]) -> None:
    medium = image(read_only=True)
    before = bytes(medium.data)
    play(Host(medium), steps)
    assert medium.data == before


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 79),
    st.integers(0, 1),
    st.integers(1, 18),
    st.integers(1, 4000),
    st.booleans(),
    st.integers(0, 255),
)
def test_what_was_written_is_read_back(
    cylinder: int, head: int, record: int, length: int, multi: bool, fill: int
) -> None:
    host = Host()
    host.seek(cylinder)
    option = 0x80 if multi else 0
    data = bytes((fill + index) & 0xFF for index in range(length))
    wrote = host.write((cylinder, head, record), data, code=0x45 | option)
    host.bytes[:] = bytes(len(host.bytes))
    assert host.read((cylinder, head, record), length, code=0x46 | option) == wrote
    room = (18 - record + 1 + (18 if multi and not head else 0)) * 512
    assert host.buffer(length)[:room] == data[:room]
    assert (wrote[0] & 0xC0 == 0) is (length <= room)
