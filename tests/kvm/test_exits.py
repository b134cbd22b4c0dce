"""KVM_EXIT_IO and KVM_EXIT_MMIO served from a kvm_run that no engine filled in."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvm_guest import PORT, Recorder
from portvisor.kvm import abi
from portvisor.kvm.exits import ExitHandler
from portvisor.ports import Device, DeviceFailureError, Failure, MmioSpace, PortRange, PortSpace


class Bench:
    """An exit handler with a recorder and a memory bus that logs."""

    def __init__(self, *, strict: bool = False) -> None:
        self.run = memoryview(bytearray(2 * abi.PAGE_SIZE))
        self.ports = PortSpace(strict=strict)
        self.recorder = Recorder()
        self.ports.attach(self.recorder)
        self.mmio = MmioSpace()
        self.exits = ExitHandler(self.run, self.ports, self.mmio)

    def io(self, direction: int, size: int, port: int, count: int = 1, data: bytes = b"") -> bytes:
        """Serve one exit; the data page afterwards."""
        struct.pack_into("<BBHIQ", self.run, abi.RUN_UNION, direction, size, port, count, abi.PIO_DATA)
        self.run[abi.PIO_DATA : abi.PIO_DATA + len(data)] = data
        self.exits.io()
        return bytes(self.run[abi.PIO_DATA : abi.PIO_DATA + size * count])

    def memory(self, address: int, size: int, data: bytes | None = None) -> bytes:
        """Serve one MMIO exit; the data afterwards."""
        write = data is not None
        struct.pack_into("<Q8sIB", self.run, abi.RUN_UNION, address, data or b"", size, write)
        self.exits.mmio()
        return bytes(self.run[abi.RUN_MMIO_DATA : abi.RUN_MMIO_DATA + size])


@pytest.fixture(scope="module")
def shared() -> Bench:
    """For property tests, which would otherwise spend their time on making port spaces."""
    return Bench()


class Registers:
    """Memory-mapped registers over 64 bytes, with a log of accesses."""

    def __init__(self) -> None:
        self.cells = bytearray(range(64))
        self.log: list[tuple[str, int, int]] = []

    def mmio_read(self, offset: int, size: int) -> int:
        self.log.append(("read", offset, size))
        return int.from_bytes(self.cells[offset : offset + size], "little")

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self.log.append(("write", offset, size))
        self.cells[offset : offset + size] = value.to_bytes(size, "little")


class Broken(Device):
    """Raises at every access."""

    ports = (PortRange(0x100, 4, (1, 2, 4), name="broken"),)

    def read(self, offset: int, size: int) -> int:
        raise ValueError("read")

    def write(self, offset: int, size: int, value: int) -> None:
        raise ValueError("write")

    def read_block(self, offset: int, size: int, count: int) -> bytes:
        raise ValueError("read_block")


@pytest.mark.parametrize("size", [1, 2, 4])
def test_out_is_one_call_with_the_size_and_value(size: int) -> None:
    bench = Bench()
    bench.io(abi.KVM_EXIT_IO_OUT, size, PORT + 4, data=b"\x11\x82\x93\xf4")
    assert bench.recorder.log == [("out", 4, size, int.from_bytes(b"\x11\x82\x93\xf4"[:size], "little"))]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_in_stores_as_many_bytes_as_its_size(size: int) -> None:
    bench = Bench()
    bench.recorder.replies = [0xFFFF_FFFF_8765_43A1]
    bench.run[abi.PIO_DATA : abi.PIO_DATA + 8] = bytes(8)
    assert bench.io(abi.KVM_EXIT_IO_IN, size, PORT) == b"\xa1\x43\x65\x87"[:size]
    assert bytes(bench.run[abi.PIO_DATA + size : abi.PIO_DATA + 8]) == bytes(8 - size)


def test_remap_is_seen_at_the_next_exit() -> None:
    bench = Bench()
    bench.ports.remap(bench.recorder, [PortRange(0x7000, 8, (1, 2, 4), name="recorder")])
    bench.io(abi.KVM_EXIT_IO_OUT, 1, PORT, data=b"\x01")
    bench.io(abi.KVM_EXIT_IO_OUT, 1, 0x7000, data=b"\x02")
    assert bench.recorder.written() == [2]


@pytest.mark.parametrize(("size", "count"), [(1, 1024), (2, 3), (4, 256)])
def test_strings_keep_size_and_count(size: int, count: int) -> None:
    bench = Bench()
    data = bytes(index * 7 & 0xFF for index in range(size * count))
    bench.io(abi.KVM_EXIT_IO_OUT, size, PORT, count, data)
    assert bench.recorder.blocks.pop() == ("out", 0, size, data)
    expected = bench.recorder.block_reply[: size * count]
    assert bench.io(abi.KVM_EXIT_IO_IN, size, PORT, count) == expected
    assert bench.recorder.blocks == [("in", 0, size, expected)]
    assert not bench.recorder.log


def test_unassigned_ports_read_ones() -> None:
    assert Bench().io(abi.KVM_EXIT_IO_IN, 4, 0xFFFF) == b"\xff\xff\xff\xff"


def test_a_device_that_raises_is_reported_and_reads_ones() -> None:
    bench = Bench()
    failures: list[Failure] = []
    bench.ports.on_failure = failures.append
    bench.ports.attach(Broken())
    assert bench.io(abi.KVM_EXIT_IO_IN, 2, 0x102) == b"\xff\xff"
    bench.io(abi.KVM_EXIT_IO_OUT, 4, 0x100, data=bytes(4))
    assert bench.io(abi.KVM_EXIT_IO_IN, 2, 0x100, 3) == b"\xff" * 6
    assert [(failure.port, failure.size, failure.write) for failure in failures] == [
        (0x102, 2, False),
        (0x100, 4, True),
        (0x100, 2, False),
    ]


def test_a_device_that_raises_stops_a_strict_machine() -> None:
    bench = Bench(strict=True)
    bench.ports.attach(Broken())
    with pytest.raises(DeviceFailureError, match="broken: 1-byte write to port 0x0103"):
        bench.io(abi.KVM_EXIT_IO_OUT, 1, 0x103)


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_mmio_accesses_of_a_power_of_2_are_one_call(size: int) -> None:
    bench = Bench()
    registers = Registers()
    bench.mmio.attach(0xD0000, 64, registers, "registers")
    assert bench.memory(0xD0008, size) == bytes(range(8, 8 + size))
    data = bytes(range(0xF0, 0xF0 + size))
    bench.memory(0xD0010, size, data)
    assert registers.cells[16 : 16 + size] == data
    assert registers.log == [("read", 8, size), ("write", 16, size)]


@given(size=st.sampled_from([3, 5, 6, 7]), offset=st.integers(0, 56), data=st.binary(min_size=7, max_size=7))
@settings(max_examples=100, deadline=None)
def test_odd_mmio_accesses_are_split_low_address_first(shared: Bench, size: int, offset: int, data: bytes) -> None:
    bench, registers = shared, Registers()
    for window in bench.mmio.windows:
        bench.mmio.detach(window)
    bench.mmio.attach(0xD0000, 64, registers, "registers")
    assert bench.memory(0xD0000 + offset, size) == bytes(range(offset, offset + size))
    bench.memory(0xD0000 + offset, size, data[:size])
    assert registers.cells[offset : offset + size] == data[:size]
    reads = [(at, length) for kind, at, length in registers.log if kind == "read"]
    assert sum(length for _, length in reads) == size
    assert reads == sorted(reads)
    assert {length for _, length in reads} <= {1, 2, 4}


@given(
    accesses=st.lists(
        st.tuples(st.booleans(), st.sampled_from([1, 2, 4]), st.integers(0, 0xFFFF), st.integers(0, 0xFFFF_FFFF)),
        max_size=30,
    )
)
@settings(max_examples=100, deadline=None)
def test_an_exit_does_what_the_port_space_does(shared: Bench, accesses: list[tuple[bool, int, int, int]]) -> None:
    log = shared.recorder.log
    log.clear()
    replies: list[bytes] = []
    for write, size, port, value in accesses:
        nearby = PORT - 2 + port % 12
        cut = value & ((1 << 8 * size) - 1)
        if write:
            shared.io(abi.KVM_EXIT_IO_OUT, size, nearby, data=cut.to_bytes(size, "little"))
        else:
            replies.append(shared.io(abi.KVM_EXIT_IO_IN, size, nearby))
    by_exits = list(log)
    log.clear()
    for write, size, port, value in accesses:
        nearby = PORT - 2 + port % 12
        if write:
            shared.ports.write(nearby, size, value)
        else:
            assert replies.pop(0) == shared.ports.read(nearby, size).to_bytes(size, "little")
    assert by_exits == log
