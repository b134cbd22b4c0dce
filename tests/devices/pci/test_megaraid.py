"""MFI as drivers use it; the rule is in each test's docstring."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.pci.board import Board
from portvisor.devices.pci.megaraid import (
    ABORT,
    ABORT_NOT_POSSIBLE,
    CTRL_GET_INFO,
    CTRL_INFO_LENGTH,
    DCMD,
    DEVICE_NOT_FOUND,
    EVENT_GET_INFO,
    EVENT_WAIT,
    INIT,
    INVALID_COMMAND,
    INVALID_DCMD,
    INVALID_PARAMETER,
    LD_GET_LIST,
    LD_LIST_QUERY,
    MAX_COMMANDS,
    PD_LIST_QUERY,
    SHUTDOWN,
    STATUS_OK,
    MegaRaid,
)
from portvisor.ports import Ram, RamRegion
from portvisor.testing import DeviceSuite

PORTS, MEMORY = 0x2000, 0xE1000000
DOORBELL, OSTS, OMSK, QUEUE, CLEAR, SCRATCH, QUEUE_LOW, QUEUE_HIGH = 0x20, 0x30, 0x34, 0x40, 0xA0, 0xB0, 0xC0, 0xC4
READY, OPERATIONAL, FAULT = 0xB, 0xC, 0xF
DONT_POST, SGL64, READ, IEEE = 1, 2, 0x10, 0x20
ENABLED = 0xFFFFFFFA
"""Interrupt mask of a driver: reply and state change."""

RAM_BASE, RAM_SIZE, HIGH_BASE = 0x100000, 0x40000, 0x1_0000_0000
FRAME, QUEUE_INFO, REPLIES, PRODUCER, CONSUMER, BUFFER = (RAM_BASE + offset for offset in range(0, 0x6000, 0x1000))

Sge = tuple[int, int]


class Host:
    """A driver with frames in memory; registers through BAR 1."""

    def __init__(self) -> None:
        self.low, self.high = bytearray(RAM_SIZE), bytearray(0x10000)
        self.ram = Ram(RamRegion(RAM_BASE, memoryview(self.low)), RamRegion(HIGH_BASE, memoryview(self.high)))
        self.board = Board()
        self.raid = MegaRaid(self.ram, io_address=PORTS, memory_address=MEMORY)
        self.board.root.attach(self.raid, 4)
        self.set_command(7)

    def set_command(self, value: int) -> None:
        self.board.put(4, 4, value, 2)

    def read(self, register: int, size: int = 4) -> int:
        return self.board.mmio.read(MEMORY + register, size)

    def write(self, register: int, value: int, size: int = 4) -> None:
        self.board.mmio.write(MEMORY + register, size, value)

    @property
    def state(self) -> int:
        return self.read(SCRATCH) >> 28

    @property
    def line(self) -> int:
        return self.board.lines[0].level

    def word(self, address: int) -> int:
        return int.from_bytes(self.ram.read(address, 4), "little")

    # --- frames -------------------------------------------------------------------------------------------

    def frame(
        self, command: int, body: bytes = b"", *, context: int = 1, flags: int = 0, length: int = 0, sges: int = 0
    ) -> bytes:
        """Header and what follows at 18h."""
        head = struct.pack("<BBBBBBBB", command, 0, 0xFF, 0, 0, 0, 0, sges)
        return head + struct.pack("<QHHI", context, flags, 0, length) + body

    def send(self, frame: bytes, at: int = FRAME, *, register: int = QUEUE, count: int = 0) -> int:
        """Put a frame into memory and its address into the queue; gives the frame's status."""
        self.ram.write(at, frame.ljust(64, b"\0"))
        self.write(register, at & 0xFFFFFFFF | count << 1 | 1)
        return self.ram.read(at + 2, 1)[0]

    def init(self, entries: int = 8, *, flags: int = 0, frame_flags: int = DONT_POST) -> int:
        """INIT with the queue information at 18h."""
        self.ram.write(QUEUE_INFO, struct.pack("<IIQQQ", flags, entries, REPLIES, PRODUCER, CONSUMER))
        return self.send(self.frame(INIT, struct.pack("<Q", QUEUE_INFO), flags=frame_flags))

    def dcmd(
        self, opcode: int, sges: Sequence[Sge] = (), *, flags: int = 0, length: int = 0xFFFFFFFF, context: int = 1,
        at: int = FRAME,
    ) -> int:  # fmt: skip
        """A direct command; `flags` decides the layout of the scatter/gather list."""
        layout = "<QII" if flags & IEEE else "<QI" if flags & SGL64 else "<II"
        table = b"".join(struct.pack(layout, *(*sge, 0)[: len(layout) - 1]) for sge in sges)
        body = struct.pack("<I12s", opcode, bytes(12)) + table
        return self.send(self.frame(DCMD, body, context=context, flags=flags, length=length, sges=len(sges)), at)

    def replies(self) -> list[int]:
        return [self.word(REPLIES + 4 * index) for index in range(8)]


@pytest.fixture
def host() -> Host:
    """A controller that is operational, with its interrupts enabled."""
    host = Host()
    host.write(OMSK, ENABLED)
    assert host.init() == STATUS_OK
    return host


class TestSuite(DeviceSuite):
    def make(self) -> MegaRaid:
        return Host().raid


# --- registers -----------------------------------------------------------------------------------------------


def test_identity_and_bars() -> None:
    """1000:0079, RAID class; I/O of 256 bytes, memory of 16 and 256 KiB."""
    host = Host()
    assert host.board.get(4, 0) == 0x00791000
    assert host.board.get(4, 8) >> 8 == 0x010400
    assert [host.board.get(4, 0x10 + 4 * number) for number in range(4)] == [PORTS | 1, MEMORY, 0, MEMORY + 0x40000]
    assert host.board.owner(PORTS + 0xFF) == "megaraid"


def test_software_can_place_the_bars() -> None:
    raid = MegaRaid(Ram())
    board = Board()
    board.root.attach(raid, 4)
    board.put(4, 0x10, 0x3000)
    board.put(4, 4, 1, 2)
    assert board.owner(0x30B0, 4) == "megaraid"


def test_power_up_state() -> None:
    """Scratch pad 0: READY, SGE and command limits; all interrupts masked; no MSI-X in scratch pad 1."""
    host = Host()
    scratch = host.read(SCRATCH)
    assert (scratch >> 28, scratch >> 16 & 0xFF, scratch & 0xFFFF) == (READY, 0x54, MAX_COMMANDS)
    assert not scratch & 1 << 26
    assert (host.read(OMSK), host.read(OSTS), host.read(0xB4)) == (0xFFFFFFFF, 0, 0)


def test_ports_and_memory_are_the_same_registers() -> None:
    """BAR 0 and BAR 1."""
    host = Host()
    assert host.board.space.read(PORTS + SCRATCH, 4) == host.read(SCRATCH)
    host.board.space.write(PORTS + OMSK, 4, ENABLED)
    assert host.read(OMSK) == ENABLED
    assert host.read(OMSK + 1, 1) == 0xFF


def test_narrow_writes_are_ignored() -> None:
    host = Host()
    host.write(OMSK, 0, 1)
    host.write(OMSK, 0, 2)
    assert host.read(OMSK) == 0xFFFFFFFF


def test_register_names() -> None:
    raid = Host().raid
    assert raid.bar_register_name(0, 0xB0, 4, False) == "scratch pad 0"
    assert raid.register_name(2 << 16 | 0x34, 4, True) == "outbound interrupt mask"
    assert raid.register_name(1 << 16 | 0x50, 4, True) == "BAR0+50"


# --- INIT ----------------------------------------------------------------------------------------------------


def test_init_makes_it_operational() -> None:
    host = Host()
    assert host.init() == STATUS_OK
    assert host.state == OPERATIONAL


def test_polled_init_posts_nothing() -> None:
    """Flag 0: do not post in the reply queue."""
    host = Host()
    host.write(OMSK, ENABLED)
    host.init()
    assert (host.word(PRODUCER), host.read(OSTS), host.line) == (0, 0, 0)


@pytest.mark.parametrize("entries", [0, 0x10000, 0xFFFFFFFF])
def test_init_with_an_impossible_queue(entries: int) -> None:
    host = Host()
    assert host.init(entries) == INVALID_PARAMETER
    assert host.state == READY


def test_commands_before_init() -> None:
    host = Host()
    assert host.dcmd(CTRL_GET_INFO) == INVALID_COMMAND


def test_init_goes_on_at_the_producer_index() -> None:
    """The index that the host put into memory."""
    host = Host()
    host.ram.write(PRODUCER, (5).to_bytes(4, "little"))
    host.init()
    host.dcmd(SHUTDOWN, context=0x77)
    assert host.word(PRODUCER) == 6
    assert host.replies()[5] == 0x77


# --- the doorbell --------------------------------------------------------------------------------------------


def test_doorbell_back_to_ready(host: Host) -> None:
    """7: abort, ready, MFI mode, as a driver writes to an operational controller."""
    host.dcmd(SHUTDOWN)
    host.write(DOORBELL, 7)
    assert host.state == READY
    assert (host.read(OSTS), host.line, host.read(OMSK)) == (0, 0, 0xFFFFFFFF)
    assert host.dcmd(CTRL_GET_INFO) == INVALID_COMMAND


def test_stop_and_reset(host: Host) -> None:
    """5 stops the firmware, which hears nothing then; 6 resets the adapter."""
    host.write(DOORBELL, 1 << 5)
    assert host.state == FAULT
    host.write(DOORBELL, 7)
    assert host.state == FAULT
    assert host.dcmd(CTRL_GET_INFO) == 0xFF, "the frame is not taken"
    host.write(DOORBELL, 1 << 6)
    assert host.state == READY


# --- the reply queue and interrupts --------------------------------------------------------------------------


def test_a_completion(host: Host) -> None:
    """Context into the queue, producer index, interrupt; A0 clears it."""
    assert host.dcmd(SHUTDOWN, context=0xCAFE) == STATUS_OK
    assert (host.replies()[0], host.word(PRODUCER)) == (0xCAFE, 1)
    assert (host.read(OSTS), host.line) == (1, 1)
    host.write(CLEAR, host.read(OSTS))
    assert (host.read(OSTS), host.line) == (0, 0)


def test_mask(host: Host) -> None:
    host.write(OMSK, 0xFFFFFFFF)
    host.dcmd(SHUTDOWN)
    assert (host.read(OSTS), host.line) == (1, 0)
    host.write(OMSK, ENABLED)
    assert host.line == 1


def test_do_not_post(host: Host) -> None:
    assert host.dcmd(SHUTDOWN, flags=DONT_POST) == STATUS_OK
    assert (host.word(PRODUCER), host.line) == (0, 0)


def test_queue_wrap(host: Host) -> None:
    """The producer index counts entries and starts again at 0."""
    for context in range(1, 12):
        host.dcmd(SHUTDOWN, context=context)
        assert host.word(PRODUCER) == context % 8
    assert host.replies() == [9, 10, 11, 4, 5, 6, 7, 8]
    assert host.ram.read(REPLIES + 32, 8) == bytes(8)


def test_64_bit_contexts() -> None:
    """Queue flag 1: entries of 8 bytes."""
    host = Host()
    host.init(flags=2)
    host.dcmd(SHUTDOWN, context=0x1122334455667788)
    host.dcmd(SHUTDOWN, context=0x99)
    assert host.ram.read(REPLIES, 16) == struct.pack("<QQ", 0x1122334455667788, 0x99)


def test_frame_address_ignores_the_frame_count(host: Host) -> None:
    """Inbound queue port: 4:1 is the number of further frames."""
    frame = host.frame(DCMD, struct.pack("<I", SHUTDOWN))
    assert host.send(frame, count=7) == STATUS_OK


def test_64_bit_queue_port(host: Host) -> None:
    """C4 holds the high dword; C0 starts the frame."""
    host.write(QUEUE_HIGH, 1)
    frame = host.frame(DCMD, struct.pack("<I", SHUTDOWN), context=5)
    assert host.send(frame, HIGH_BASE + 0x40, register=QUEUE_LOW) == STATUS_OK
    assert host.replies()[0] == 5


def test_no_dma_without_bus_master(host: Host) -> None:
    host.set_command(3)
    assert host.dcmd(SHUTDOWN) == 0xFF
    assert host.line == 0


# --- direct commands -----------------------------------------------------------------------------------------


def test_controller_info(host: Host) -> None:
    """Identity at 0, names at 1344 and 1424, limits at 1464."""
    assert host.dcmd(CTRL_GET_INFO, [(BUFFER, CTRL_INFO_LENGTH)], flags=READ) == STATUS_OK
    info = host.ram.read(BUFFER, CTRL_INFO_LENGTH)
    assert struct.unpack_from("<4H", info) == (0x1000, 0x0079, 0x1028, 0x1F17)
    assert info[32] == 2, "PCI Express"
    assert info[1344:1424].rstrip(b"\0").isascii()
    assert info[1424:1456].rstrip(b"\0") == b"PV000002"
    commands, sges, sectors = struct.unpack_from("<HHI", info, 1464)
    assert (commands, sges) == (MAX_COMMANDS, 0x54)
    assert sectors * 512 <= sges * 4096


def test_event_info(host: Host) -> None:
    """Newest, oldest, cleared, shutdown and boot sequence numbers."""
    host.dcmd(EVENT_GET_INFO, [(BUFFER, 20)])
    assert struct.unpack("<5I", host.ram.read(BUFFER, 20)) == (1, 1, 0, 1, 1)


@pytest.mark.parametrize(
    ("opcode", "size_word", "count_word"), [(PD_LIST_QUERY, 0, 1), (LD_LIST_QUERY, 0, 1), (LD_GET_LIST, 1, 0)]
)
def test_empty_lists(host: Host, opcode: int, size_word: int, count_word: int) -> None:
    """Drives and targets: size and count; volumes: count and a reserved word."""
    host.ram.write(BUFFER, b"\xff" * 4096)
    assert host.dcmd(opcode, [(BUFFER, 4096)]) == STATUS_OK
    assert host.word(BUFFER + 4 * count_word) == 0
    assert host.word(BUFFER + 4 * size_word) == (0 if opcode == LD_GET_LIST else 8)


def test_unknown_opcode(host: Host) -> None:
    assert host.dcmd(0x0BADF00D) == INVALID_DCMD


@pytest.mark.parametrize("flags", [0, SGL64, IEEE, IEEE | SGL64])
def test_scatter_lists(host: Host, flags: int) -> None:
    """32-bit, 64-bit (12 bytes) and IEEE (16 bytes) elements."""
    whole = host.raid._controller_info()
    host.dcmd(CTRL_GET_INFO, [(BUFFER, 10), (BUFFER + 0x400, 300), (BUFFER + 0x1000, 3000)], flags=flags)
    assert host.ram.read(BUFFER, 12) == whole[:10] + bytes(2)
    assert host.ram.read(BUFFER + 0x400, 302) == whole[10:310] + bytes(2)
    assert host.ram.read(BUFFER + 0x1000, len(whole) - 310) == whole[310:]


def test_buffers_above_4_gib(host: Host) -> None:
    host.dcmd(EVENT_GET_INFO, [(HIGH_BASE, 20)], flags=SGL64)
    assert host.ram.read(HIGH_BASE, 4) == b"\x01\0\0\0"


def test_data_length_limits_the_reply(host: Host) -> None:
    host.dcmd(CTRL_GET_INFO, [(BUFFER, 4096)], length=6)
    assert host.ram.read(BUFFER, 8) == struct.pack("<4H", 0x1000, 0x0079, 0x1028, 0)


# --- event wait and abort ------------------------------------------------------------------------------------


def wait_for_event(host: Host, at: int = FRAME + 0x100, context: int = 0x55) -> None:
    assert host.dcmd(EVENT_WAIT, context=context, at=at) == 0xFF, "pending"


def abort(host: Host, address: int, context: int) -> int:
    body = struct.pack("<IIQ", context, 0, address)
    return host.send(host.frame(ABORT, body, context=0x66))


def test_an_event_wait_stays_pending(host: Host) -> None:
    wait_for_event(host)
    assert (host.word(PRODUCER), host.line) == (0, 0)


def test_abort_of_an_event_wait(host: Host) -> None:
    """Both come back through the reply queue: the wait with its status as it was, then the abort."""
    wait_for_event(host)
    assert abort(host, FRAME + 0x100, 0x55) == STATUS_OK
    assert host.replies()[:2] == [0x55, 0x66]
    assert host.ram.read(FRAME + 0x102, 1) == b"\xff"
    assert abort(host, FRAME + 0x100, 0x55) == ABORT_NOT_POSSIBLE


@pytest.mark.parametrize(("address", "context"), [(FRAME + 0x100, 0x54), (FRAME + 0x140, 0x55)])
def test_abort_of_something_else(host: Host, address: int, context: int) -> None:
    """Frame and context have to match."""
    wait_for_event(host)
    assert abort(host, address, context) == ABORT_NOT_POSSIBLE


def test_the_number_of_waits_is_bounded(host: Host) -> None:
    for index in range(MAX_COMMANDS):
        host.write(QUEUE, FRAME + 0x100 | 1) if index else wait_for_event(host)
    assert host.dcmd(EVENT_WAIT) == INVALID_PARAMETER


def test_restart_forgets_the_waits(host: Host) -> None:
    wait_for_event(host)
    host.write(DOORBELL, 7)
    host.init()
    assert abort(host, FRAME + 0x100, 0x55) == ABORT_NOT_POSSIBLE


# --- I/O -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [1, 2, 3, 4])
def test_io_to_any_target(host: Host, command: int) -> None:
    """LD read, LD write, LD SCSI, PD SCSI: no device there."""
    assert host.send(host.frame(command, context=9)) == DEVICE_NOT_FOUND
    assert host.replies()[0] == 9


def test_unknown_command(host: Host) -> None:
    assert host.send(host.frame(0x33)) == INVALID_COMMAND


# --- snapshots and hostile guests ----------------------------------------------------------------------------


def test_restore_drives_the_line(host: Host) -> None:
    wait_for_event(host)
    host.dcmd(SHUTDOWN)
    saved = host.raid.snapshot()
    host.raid.reset()
    assert (host.line, host.raid.state.firmware) == (0, READY)
    host.raid.restore(saved)
    host.set_command(7)
    assert host.line == 1
    assert abort(host, FRAME + 0x100, 0x55) == STATUS_OK


@pytest.mark.parametrize("address", [0, 0x80000000, 0xFFFFFFC0])
def test_frames_outside_ram(host: Host, address: int) -> None:
    """They read ones: an unknown command; flag 0 is set, so nothing is posted."""
    before = bytes(host.low)
    host.write(QUEUE, address | 1)
    assert bytes(host.low) == before
    assert host.line == 0


def test_queue_outside_ram() -> None:
    host = Host()
    host.ram.write(QUEUE_INFO, struct.pack("<IIQQQ", 0, 0xFFFF, (1 << 64) - 4, (1 << 64) - 1, 0))
    host.send(host.frame(INIT, struct.pack("<Q", QUEUE_INFO)))
    before = bytes(host.low), bytes(host.high)
    host.send(host.frame(1))
    host.ram.write(FRAME, before[0][:64])
    assert (bytes(host.low), bytes(host.high)) == before


ADDRESSES = st.sampled_from([0, FRAME, REPLIES, BUFFER, RAM_BASE + RAM_SIZE - 8, HIGH_BASE, (1 << 64) - 4]) | (
    st.integers(0, (1 << 64) - 1)
)
STEPS = st.one_of(
    st.tuples(
        st.just("register"),
        st.sampled_from([DOORBELL, OSTS, OMSK, QUEUE, CLEAR, SCRATCH, QUEUE_LOW, QUEUE_HIGH, 0x41, 0x3FF]),
        st.sampled_from([0, 7, 0x20, 0x40, FRAME | 1]) | st.integers(0, 0xFFFFFFFF),
    ),
    st.tuples(st.just("init"), ADDRESSES, st.integers(0, 0x20000)),
    st.tuples(
        st.just("dcmd"),
        st.sampled_from([CTRL_GET_INFO, EVENT_GET_INFO, EVENT_WAIT, PD_LIST_QUERY, LD_GET_LIST, LD_LIST_QUERY]),
        st.lists(st.tuples(ADDRESSES, st.integers(0, 0xFFFFFFFF)), max_size=3),
    ),
    st.tuples(st.just("frame"), st.binary(max_size=64), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(STEPS, max_size=25))
def test_any_guest(steps: list[tuple[str, object, object]]) -> None:
    """Nothing raises, memory accesses per doorbell are bounded, and a reset brings the controller back."""
    host = Host()
    accesses = 0
    write = host.ram.write

    def counted(address: int, data: bytes | bytearray | memoryview) -> None:
        nonlocal accesses
        accesses += 1
        write(address, data)

    host.raid._memory = Ram(*host.ram.regions)
    host.raid._memory.write = counted  # type: ignore[method-assign]
    for step in steps:
        accesses = 0
        match step:
            case ("register", int(register), int(value)):
                host.write(register, value)
                host.read(register)
            case ("init", int(address), int(entries)):
                host.ram.write(QUEUE_INFO, struct.pack("<IIQQQ", entries >> 16, entries, address, address, 0))
                host.send(host.frame(INIT, struct.pack("<Q", QUEUE_INFO)))
            case ("dcmd", int(opcode), list(sges)):
                host.dcmd(opcode, sges, flags=SGL64)
            case ("frame", bytes(data), _):
                host.send(data)
        assert accesses < 300
    host.write(DOORBELL, 0x40)
    assert host.state == READY
    assert host.init() == STATUS_OK
