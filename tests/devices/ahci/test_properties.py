"""Whatever a guest does to an AHCI adapter; the rule is in each test's docstring."""

from __future__ import annotations

import struct

from hypothesis import given, settings
from hypothesis import strategies as st

from devices.ahci.ahci_host import (
    ABAR,
    BUFFERS,
    FISES,
    HIGH_BASE,
    LISTS,
    RAM_BASE,
    RAM_SIZE,
    TABLES,
    AhciHost,
    cd,
    command_fis,
    control_fis,
    disk,
    pattern,
    started,
)
from portvisor.devices.ahci import registers as r

READ_DMA_EXT, READ_SECTORS_EXT, READ_QUEUED, IDENTIFY = 0x25, 0x24, 0x60, 0xEC


class Watched(AhciHost):
    """An adapter whose memory accesses are counted."""

    def __init__(self) -> None:
        super().__init__(disk(64), None, cd(4))
        self.accesses = 0
        read, write = self.ram.read, self.ram.write

        def counted_read(address: int, length: int) -> bytes:
            self.accesses += 1
            assert length <= 0x10000
            return read(address, length)

        def counted_write(address: int, data: bytes | bytearray | memoryview) -> None:
            self.accesses += 1
            write(address, data)

        self.ram.read, self.ram.write = counted_read, counted_write  # type: ignore[method-assign]


ADDRESSES = st.sampled_from(
    [0, LISTS, FISES, TABLES, BUFFERS, RAM_BASE + RAM_SIZE - 64, HIGH_BASE, 0xFFFFFFFF, 0xFFFF_FFFF_FFFF_FF00]
) | st.integers(0, (1 << 64) - 1)
COMMANDS = st.sampled_from(
    [
        0x08,
        0x20,
        0x24,
        0x25,
        0x29,
        0x30,
        0x34,
        0x35,
        0x40,
        0x60,
        0x61,
        0x90,
        0xA0,
        0xA1,
        0xC6,
        0xE5,
        0xE6,
        0xEC,
        0xEF,
    ]
) | st.integers(0, 255)
FRAMES = st.one_of(
    st.builds(command_fis, COMMANDS, st.integers(0, 300), st.integers(0, 200), st.integers(0, 0xFFFF)),
    st.builds(control_fis, st.booleans()),
    st.binary(min_size=20, max_size=20),
)
REGISTERS = st.sampled_from(
    [r.GHC, r.IS]
    + [0x100 + port * 0x80 + offset for port in range(4) for offset in range(0, 0x40, 4)]
    + [
        0x100 + port * 0x80 + offset
        for port in (0, 2)
        for offset in (r.PX_CI, r.PX_CMD, r.PX_SACT)
        for _ in range(6)
    ]
)
VALUES = st.sampled_from([0, 1, 0x11, 0x19, 0xFFFFFFFF, 1 << 31, LISTS, FISES]) | st.integers(0, 0xFFFFFFFF)
STEPS = st.one_of(
    st.tuples(st.just("register"), REGISTERS, VALUES, st.sampled_from([1, 2, 4, 4, 4])),
    st.tuples(st.just("command"), st.integers(0, 2), FRAMES, st.integers(0, 0x7FF), st.binary(max_size=12)),
    st.tuples(st.just("regions"), ADDRESSES, st.integers(0, 0xFFFFFFFF), st.integers(0, 65_535)),
    st.tuples(st.just("bus master"), st.booleans()),
)


def _step(host: Watched, step: tuple[object, ...]) -> None:
    ports = host.ports()
    match step:
        case ("register", int(register), int(value), int(size)):
            host.board.mmio.write(ABAR + register, size, value & (1 << 8 * size) - 1)
            host.board.mmio.read(ABAR + register, size)
        case ("command", int(number), bytes(frame), int(flags), bytes(packet)):
            port = ports[number]
            port.prepare(0, frame, [(BUFFERS, 0x10000), (BUFFERS + 0x10000, 0x10000)], flags=flags, packet=packet)
            port.issue(0)
        case ("regions", int(address), int(count), int(length)):
            host.ram.write(LISTS + 2, length.to_bytes(2, "little"))
            host.ram.write(TABLES + 0x80, struct.pack("<QII", address, 0, count))
            ports[0].issue(0)
        case ("bus master", bool(allowed)):
            host.set_command(7 if allowed else 3)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_any_guest(steps: list[tuple[object, ...]]) -> None:
    """No write raises, no doorbell works without bound, and the port comes back after an HBA reset."""
    host = Watched()
    for driver, number in zip(host.ports(), range(3), strict=True):
        if number != 1:
            driver.start()
    for step in steps:
        before = host.accesses
        _step(host, step)
        assert host.accesses - before < 200_000
    host.set_command(7)
    host.write(r.GHC, r.GHC_HR)
    host.port.start()
    host.port.run(command_fis(IDENTIFY), [(BUFFERS, 512)])
    assert host.port.read(r.PX_CI) == 0
    assert host.ram.read(BUFFERS, 2) == b"\x40\x00"


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.integers(1, 700).map(lambda half: 2 * half), min_size=1, max_size=40),
    st.integers(0, 40),
    st.integers(1, 20),
    st.sampled_from([READ_DMA_EXT, READ_SECTORS_EXT, READ_QUEUED]),
)
def test_any_scattering_gives_the_same_bytes(lengths: list[int], lba: int, count: int, command: int) -> None:
    """4.2.3.3: the regions together hold what the command moves, as far as they reach."""
    host = started(disk(64))
    regions, place = [], BUFFERS
    for length in lengths:
        regions.append((place, length))
        place += length + 6
    frame = command_fis(command, lba, 0, count) if command == READ_QUEUED else command_fis(command, lba, count)
    host.port.write(r.PX_SACT, 1 if command == READ_QUEUED else 0)
    host.port.run(frame, regions)
    wanted = pattern(lba + count)[lba * 512 :]
    got = b"".join(host.ram.read(address, length) for address, length in regions)
    reach = min(len(got), len(wanted))
    assert got[:reach] == wanted[:reach]
    assert host.ram.read(place - 6, 6) == bytes(6)
    assert (host.port.read(r.PX_TFD) & 0x80 == 0) == (len(got) >= len(wanted))
