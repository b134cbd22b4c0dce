"""The ready operations table: spans, wrap-around, MMIO, one translation a page."""

from __future__ import annotations

import pytest

from kvm.emulate.machine import PAGE, TABLES, Machine
from portvisor.kvm.abi import Regs, Sregs
from portvisor.kvm.emulate import (
    CONTINUE,
    IO_NEEDED,
    Emulator,
    FlatMemory,
    GuestException,
    MemoryOps,
    initial_state,
)


def test_flat_memory_reads_ones_and_drops_writes_beyond_its_end() -> None:
    buffer = bytearray(b"\x01\x02\x03\x04")
    memory = FlatMemory(buffer)
    assert memory.read(2, 4) == b"\x03\x04\xff\xff"
    assert memory.read(1 << 40, 2) == b"\xff\xff"
    memory.write(3, b"\xaa\xbb")
    memory.write(1 << 40, b"\xcc")
    assert buffer == b"\x01\x02\x03\xaa"


def test_reads_and_writes_gather_pages() -> None:
    machine = Machine("long", aliases={0x7000_0000_0000: 0x4000, 0x7000_0000_1000: 0x9000})
    machine.ops.write(0x7000_0000_0FFE, b"abcd", 1)
    assert machine.memory[0x4FFE:0x5000] == b"ab"
    assert machine.memory[0x9000:0x9002] == b"cd"
    assert machine.ops.read(0x7000_0000_0FFE, 4, 4) == b"abcd"


def test_a_write_checks_every_page_before_it_stores() -> None:
    machine = Machine("long", pages={0x3000: "none"})
    with pytest.raises(GuestException) as caught:
        machine.ops.write(0x2FFE, b"abcd", 4)
    assert caught.value == GuestException(14, 2, 0x3000)
    assert machine.memory[0x2FFE:0x3000] == bytes(2)


def test_long_transfers_span_many_pages() -> None:
    machine = Machine("long")
    data = bytes(range(256)) * 40
    machine.ops.write(0x2800, data, 1)
    assert machine.ops.read(0x2800, len(data), 1) == data == bytes(machine.memory[0x2800 : 0x2800 + len(data)])


def test_a_read_of_the_tss_ignores_the_privilege_level() -> None:
    machine = Machine("long", cpl=3, pages={0x5000: "super"}, memory={0x5000: b"\x12\x34"})
    assert machine.ops.read_std(0x5000, 2) == b"\x12\x34"
    with pytest.raises(GuestException):
        machine.ops.read(0x5000, 2, 2)


def test_a_read_of_the_tss_wraps_at_4_gib_outside_long_mode() -> None:
    legacy = Machine("protected32", aliases={0xFFFF_F000: 0x4000}, memory={0x4FFF: b"\x12", 0: b"\x34"})
    assert legacy.ops.read_std(0xFFFF_FFFF, 2) == b"\x12\x34"
    long = Machine(
        "long", aliases={0xFFFF_F000: 0x4000, 1 << 32: 0x5000}, memory={0x4FFF: b"\x12", 0x5000: b"\x56"}
    )
    assert long.ops.read_std(0xFFFF_FFFF, 2) == b"\x12\x56"


def test_segments_control_and_debug_registers() -> None:
    regs, sregs = Regs(), Sregs(cr0=0x11, cr4=0x22, efer=0x33)
    flat = FlatMemory(bytearray(16))
    ops = MemoryOps(regs, sregs, flat.read, flat.write, debug_registers=tuple(range(8)))
    assert (ops.cr0, ops.cr4, ops.efer, ops.get_dr(7)) == (0x11, 0x22, 0x33, 7)
    assert ops.get_segment("tr") is sregs.tr


@pytest.mark.parametrize(("mode", "cpl", "expected"), [("real", None, 0), ("vm86", None, 3), ("long", 2, 2)])
def test_cpl(mode: str, cpl: int | None, expected: int) -> None:
    machine = Machine(mode, cpl=cpl)
    assert machine.ops.cpl == expected


class Recorder:
    """Guest-physical memory that logs; the page at 5000 is a device."""

    def __init__(self) -> None:
        self.flat = FlatMemory(bytearray(0x10000))
        self.reads: list[tuple[int, int]] = []
        self.writes: list[tuple[int, bytes]] = []

    def read(self, address: int, length: int) -> bytes:
        self.reads.append((address, length))
        return self.flat.read(address, length)

    def write(self, address: int, data: bytes) -> None:
        self.writes.append((address, bytes(data)))
        self.flat.write(address, data)


def recorded(code: str, **regs: int) -> Recorder:
    """One step in 32-bit protected mode without paging."""
    state, sregs = initial_state("protected32")
    for name, value in {"rip": 0x1000, **regs}.items():
        setattr(state, name, value)
    recorder = Recorder()
    ops = MemoryOps(
        state,
        sregs,
        recorder.read,
        recorder.write,
        pio_in=lambda port, size, count: bytes(range(1, size * count + 1)),
        pio_out=lambda port, size, data: True,
        is_ram=lambda address: address & ~0xFFF != 0x5000,
    )
    assert Emulator(ops).step(bytes.fromhex(code)) == CONTINUE
    return recorder


def test_ram_is_written_in_one_piece() -> None:
    assert recorded("f3 66 6d", rdi=0x2000, rcx=3).writes == [(0x2000, bytes(range(1, 7)))]


def test_mmio_is_written_element_by_element() -> None:
    writes = recorded("f3 66 6d", rdi=0x5000, rcx=3).writes
    assert writes == [(0x5000, b"\x01\x02"), (0x5002, b"\x03\x04"), (0x5004, b"\x05\x06")]


def test_mmio_is_read_element_by_element() -> None:
    assert recorded("f3 6f", rsi=0x5000, rcx=2).reads == [(0x5000, 4), (0x5004, 4)]
    assert recorded("f3 6f", rsi=0x2000, rcx=2).reads == [(0x2000, 8)]


def test_one_translation_and_one_write_a_page() -> None:
    machine = Machine("long", {"rcx": 512})
    reads: list[int] = []
    walker = machine.ops._paging
    original = walker._read

    def counting(address: int, length: int) -> bytes:
        reads.append(address)
        return original(address, length)

    walker._read = counting
    assert machine.emulator.step(bytes.fromhex("f3 66 6d")) == CONTINUE
    assert len([address for address in reads if address >= TABLES]) == 4
    assert machine.log.reads == [(0x3F8, 2, 512)]


def test_a_probe_is_not_remembered_beyond_the_exit() -> None:
    """User space may remap the page while the IN is pending."""
    machine = Machine("long", {"rcx": 4}, served=False)
    assert machine.emulator.step(bytes.fromhex("f3 6c")) == IO_NEEDED
    assert machine.tables is not None
    machine.tables.map(0x2000, 0x4000, 7)
    assert machine.emulator.complete(b"\x01\x02\x03\x04") == CONTINUE
    assert machine.memory[0x4000:0x4004] == b"\x01\x02\x03\x04"
    assert machine.memory[0x2000 : 0x2000 + PAGE] == bytes(PAGE)
