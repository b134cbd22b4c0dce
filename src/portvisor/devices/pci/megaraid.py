"""LSI MegaRAID SAS 2108 ("gen2"): a RAID controller that speaks MFI, without volumes behind it.

Source: LSI's public mfi register names (inbound queue, doorbells, scratch pads) as the BSD and Linux drivers
use them; no data sheet is public.

| offset | register | |
|---|---|---|
| 20 | inbound doorbell | 0 abort, 1 ready, 2 MFI mode: back to READY; 5 stop, 6 reset the adapter |
| 30 | outbound interrupt status | 0 reply posted, 2 state change |
| 34 | outbound interrupt mask | 1 disables |
| 40 | inbound queue port | frame address, 4:1 further frames, 0 set |
| C0, C4 | inbound queue port, 64 bits | low dword, which starts the frame, and high dword |
| A0 | outbound doorbell clear | writing 1 clears the bits of the interrupt status |
| B0 | scratch pad 0 | 31:28 firmware state, 23:16 SGEs, 15:0 commands |
| B4 | scratch pad 1 | 0: no MSI-X |

The registers are at BAR 0 (I/O, 256 bytes) and BAR 1 (memory, 16 KiB); they are dwords, other writes are
ignored. BAR 3 (256 KiB) holds nothing. Frames: INIT, DCMD (controller info, drive and volume lists, events,
cache flush, shutdown), ABORT, and SCSI or block I/O, which ends with "device not found". A frame is carried out
when its address is written; an aborted event wait is posted with the status it was sent with (FF).

Not modelled: volumes and drives, MSI-X, firmware flash, fusion (MPT) mode, host diagnostic registers, and a
reply queue that the host does not empty (the entries are overwritten).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.devices.pci.bar import Bar
from portvisor.devices.pci.config import PciId
from portvisor.devices.pci.function import PciFunction
from portvisor.ports import GuestMemory

DOORBELL, OSTS, OMSK, INBOUND, DOORBELL_CLEAR, SCRATCH_0 = 0x20, 0x30, 0x34, 0x40, 0xA0, 0xB0
INBOUND_LOW, INBOUND_HIGH = 0xC0, 0xC4
DOORBELL_ABORT, DOORBELL_READY, DOORBELL_STOP, DOORBELL_RESET = 1 << 0, 1 << 1, 1 << 5, 1 << 6
OSTS_REPLY, OSTS_CHANGE = 1, 1 << 2
OSTS_BITS = OSTS_REPLY | OSTS_CHANGE
STATE_READY, STATE_OPERATIONAL, STATE_FAULT, STATE_SHIFT = 0xB, 0xC, 0xF, 28
MAX_SGE, MAX_COMMANDS = 0x54, 0x3F0
MAX_ARMS, MAX_SPANS, MAX_ARRAYS, MAX_VOLUMES = 32, 8, 128, 64
MAX_REQUEST_SECTORS, MEMORY_MIB = MAX_SGE * 8, 512
"""A request has at most MAX_SGE pages of 4 KiB."""
FRAME_MASK = ~0x3F

INIT, DCMD, ABORT = 0x00, 0x05, 0x06
IO_COMMANDS = (0x01, 0x02, 0x03, 0x04)
STATUS_OK, INVALID_COMMAND, INVALID_DCMD, INVALID_PARAMETER = 0x00, 0x01, 0x02, 0x03
ABORT_NOT_POSSIBLE, DEVICE_NOT_FOUND = 0x05, 0x0C
CMD_STATUS, SGE_COUNT, CONTEXT, FLAGS, DATA_LENGTH = 2, 7, 8, 16, 20
FLAG_DONT_POST, FLAG_SGL64, FLAG_IEEE = 1, 1 << 1, 1 << 5
OPCODE, DCMD_SGL, INIT_QUEUE_INFO, ABORT_CONTEXT, ABORT_FRAME = 0x18, 0x28, 0x18, 0x18, 0x20
QUEUE_INFO = struct.Struct("<IIQQQ")
"""Flags, entries, reply queue, producer index, consumer index."""
QUEUE_CONTEXT64 = 1 << 1
LARGEST_QUEUE = 0xFFFF

CTRL_GET_INFO, CACHE_FLUSH, SHUTDOWN = 0x01010000, 0x01101000, 0x01050000
EVENT_GET_INFO, EVENT_WAIT = 0x01040100, 0x01040500
PD_LIST_QUERY, LD_GET_LIST, LD_LIST_QUERY = 0x02010100, 0x03010000, 0x03010100
CTRL_INFO_LENGTH = 2384
HOST_INTERFACE, DEVICE_INTERFACE, TOPOLOGY, PRODUCT_NAME, SERIAL_NUMBER = 32, 104, 1340, 1344, 1424
LIMITS, MEMORY_SIZE = 1464, 1488
"""Places in the controller information."""
HOST_PCIE, DEVICE_SAS_3G = 1 << 1, 1 << 1
LIST_HEADER, DRIVE_LIST_LENGTH, VOLUME_LIST_LENGTH, TARGET_LIST_LENGTH = 8, 8 + 24, 8 + 64 * 16, 8 + 3 + 64


@dataclass(slots=True)
class Frame:
    """A command frame in guest memory."""

    address: int
    data: bytes

    @property
    def flags(self) -> int:
        """The header's flags."""
        return struct.unpack_from("<H", self.data, FLAGS)[0]  # type: ignore[no-any-return]

    def u32(self, offset: int) -> int:
        """A dword of the frame."""
        return struct.unpack_from("<I", self.data, offset)[0]  # type: ignore[no-any-return]

    def u64(self, offset: int) -> int:
        """A quadword of the frame."""
        return struct.unpack_from("<Q", self.data, offset)[0]  # type: ignore[no-any-return]


@dataclass
class Queue:
    """The reply queue that INIT set up."""

    entries: int = 0
    width: int = 4
    """Bytes of an entry."""
    start: int = 0
    producer_address: int = 0
    producer: int = 0


def _empty_list(size: int, length: int) -> bytes:
    """A list that says how long it is (without a single entry) and that it has none."""
    return struct.pack("<II", size, 0).ljust(length, b"\0")


class MegaRaid(PciFunction):
    """The controller.

    Args:
        memory: guest memory.
        io_address: hard-wires BAR 0; None lets software place all BARs.
        memory_address: where BAR 1 is after a reset; BAR 3 follows 256 KiB on. Software may move both.
    """

    ID: ClassVar[PciId] = PciId(0x1000, 0x0079, 0x010400, revision=5, subsystem_vendor=0x1028, subsystem=0x1F17)
    NAMES: ClassVar = {
        DOORBELL: "inbound doorbell", OSTS: "outbound interrupt status", OMSK: "outbound interrupt mask",
        INBOUND: "inbound queue", DOORBELL_CLEAR: "outbound doorbell clear", SCRATCH_0: "scratch pad 0",
        INBOUND_LOW: "inbound queue low", INBOUND_HIGH: "inbound queue high",
    }  # fmt: skip

    @dataclass
    class State(PciFunction.State):
        """Firmware state, interrupt registers, reply queue and the event commands that wait."""

        firmware: int = STATE_READY
        status: int = 0
        mask: int = 0xFFFFFFFF
        queue_high: int = 0
        queue: Queue = field(default_factory=Queue)
        waiting: list[tuple[int, int, int]] = field(default_factory=list)
        """(frame address, context, flags) of pending EVENT_WAITs."""

    state: State

    def __init__(
        self,
        memory: GuestMemory,
        *,
        io_address: int | None = None,
        memory_address: int = 0,
        name: str = "megaraid",
    ) -> None:
        fixed = io_address is not None
        bars = {
            0: Bar.io(256, address=io_address or 0, fixed=fixed),
            1: Bar.memory(0x4000, address=memory_address),
            3: Bar.memory(0x40000, address=memory_address + 0x40000 if fixed else 0),
        }
        super().__init__(bars=bars, interrupt_pin=1, name=name)
        self._memory = memory
        self._replies: dict[int, Callable[[], bytes]] = {
            CTRL_GET_INFO: self._controller_info,
            EVENT_GET_INFO: lambda: struct.pack("<5I", 1, 1, 0, 1, 1),
            PD_LIST_QUERY: lambda: _empty_list(LIST_HEADER, DRIVE_LIST_LENGTH),
            LD_GET_LIST: lambda: bytes(VOLUME_LIST_LENGTH),
            LD_LIST_QUERY: lambda: _empty_list(LIST_HEADER, TARGET_LIST_LENGTH),
        }

    def reset(self) -> None:
        super().reset()
        self._restart()

    def restored(self) -> None:
        super().restored()
        self._update()

    def _restart(self, firmware: int = STATE_READY) -> None:
        """Firmware back to where it is after a reset, as the doorbell asks for."""
        state = self.state
        state.firmware, state.status, state.mask, state.queue_high = firmware, 0, 0xFFFFFFFF, 0
        state.queue = Queue()
        state.waiting = []
        self._update()

    def _update(self) -> None:
        self.intx.set(1 if self.state.status & OSTS_BITS & ~self.state.mask else 0)

    # --- registers ------------------------------------------------------------------------------------------

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        if bar == 3:
            return 0
        values = {
            OSTS: self.state.status,
            OMSK: self.state.mask,
            SCRATCH_0: self.state.firmware << STATE_SHIFT | MAX_SGE << 16 | MAX_COMMANDS,
        }
        return values.get(offset & ~3, 0) >> 8 * (offset & 3)

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        if bar == 3 or size != 4:
            return
        state = self.state
        if offset == DOORBELL:
            self._ring(value)
        elif offset == OMSK:
            state.mask = value
        elif offset == DOORBELL_CLEAR:
            state.status &= ~value
        elif offset == INBOUND_HIGH:
            state.queue_high = value
        elif offset in (INBOUND, INBOUND_LOW):
            high = state.queue_high << 32 if offset == INBOUND_LOW else 0
            self._accept(high | value & FRAME_MASK & 0xFFFFFFFF)
        self._update()

    def _ring(self, value: int) -> None:
        """The inbound doorbell; stopped firmware hears only a reset of the adapter."""
        state = self.state
        if value & DOORBELL_RESET:
            self._restart()
        elif value & DOORBELL_STOP:
            self._restart(STATE_FAULT)
        elif state.firmware == STATE_FAULT:
            return
        elif value & DOORBELL_READY:
            self._restart()
        elif value & DOORBELL_ABORT:
            state.waiting = []

    def bar_register_name(self, bar: int, offset: int, size: int, write: bool) -> str:
        return "" if bar == 3 else self.NAMES.get(offset & ~3, "")

    # --- frames ---------------------------------------------------------------------------------------------

    def _accept(self, address: int) -> None:
        if not self.bus_master or self.state.firmware == STATE_FAULT:
            return
        frame = Frame(address, self._memory.read(address, 64))
        status = self._execute(frame)
        if status is not None:
            self._memory.write(address + CMD_STATUS, bytes((status,)))
            self._post(frame.u64(CONTEXT), frame.flags)

    def _execute(self, frame: Frame) -> int | None:
        """Carry a frame out; its status, or None if it waits."""
        command = frame.data[0]
        if command == INIT:
            return self._init(frame)
        if self.state.firmware != STATE_OPERATIONAL:
            return INVALID_COMMAND
        if command == DCMD:
            return self._dcmd(frame)
        if command == ABORT:
            return self._abort(frame)
        return DEVICE_NOT_FOUND if command in IO_COMMANDS else INVALID_COMMAND

    def _post(self, context: int, flags: int) -> None:
        """Tell the host that a frame is done, unless it asked not to be told."""
        queue = self.state.queue
        if flags & FLAG_DONT_POST or not queue.entries:
            return
        entry = struct.pack("<Q", context)[: queue.width]
        self._memory.write(queue.start + queue.width * queue.producer, entry)
        queue.producer = (queue.producer + 1) % queue.entries
        self._memory.write(queue.producer_address, struct.pack("<I", queue.producer))
        self.state.status |= OSTS_REPLY

    def _init(self, frame: Frame) -> int:
        info = self._memory.read(frame.u64(INIT_QUEUE_INFO), QUEUE_INFO.size)
        flags, entries, start, producer_address, _ = QUEUE_INFO.unpack(info)
        if not 0 < entries <= LARGEST_QUEUE:
            return INVALID_PARAMETER
        producer = int.from_bytes(self._memory.read(producer_address, 4), "little") % entries
        width = 8 if flags & QUEUE_CONTEXT64 else 4
        self.state.queue = Queue(entries, width, start, producer_address, producer)
        self.state.firmware = STATE_OPERATIONAL
        return STATUS_OK

    def _abort(self, frame: Frame) -> int:
        """End the command whose frame is named: only event waits are ever pending."""
        wanted, context = frame.u64(ABORT_FRAME), frame.u32(ABORT_CONTEXT)
        for pending in self.state.waiting:
            if pending[0] == wanted and pending[1] & 0xFFFFFFFF == context:
                self.state.waiting.remove(pending)
                self._post(pending[1], pending[2])
                return STATUS_OK
        return ABORT_NOT_POSSIBLE

    # --- direct commands ------------------------------------------------------------------------------------

    def _dcmd(self, frame: Frame) -> int | None:
        opcode = frame.u32(OPCODE)
        if opcode == EVENT_WAIT:
            return self._wait_for_event(frame)
        if opcode in (CACHE_FLUSH, SHUTDOWN):
            return STATUS_OK
        reply = self._replies.get(opcode)
        if reply is None:
            return INVALID_DCMD
        self._scatter(frame, reply())
        return STATUS_OK

    def _wait_for_event(self, frame: Frame) -> int | None:
        """An event log that never gets another entry: the command stays pending."""
        if len(self.state.waiting) >= MAX_COMMANDS:
            return INVALID_PARAMETER
        self.state.waiting.append((frame.address, frame.u64(CONTEXT), frame.flags))
        return None

    def _controller_info(self) -> bytes:
        info = bytearray(CTRL_INFO_LENGTH)
        identity = self.ID
        ids = (identity.vendor, identity.device, identity.subsystem_vendor, identity.subsystem)
        struct.pack_into("<4H", info, 0, *ids)
        name, serial = b"PERC-like RAID controller", b"PV000002"
        info[PRODUCT_NAME : PRODUCT_NAME + len(name)] = name
        info[SERIAL_NUMBER : SERIAL_NUMBER + len(serial)] = serial
        info[HOST_INTERFACE], info[DEVICE_INTERFACE] = HOST_PCIE, DEVICE_SAS_3G
        info[TOPOLOGY : TOPOLOGY + 4] = bytes((MAX_ARMS, MAX_SPANS, MAX_ARRAYS, MAX_VOLUMES))
        struct.pack_into("<HHI", info, LIMITS, MAX_COMMANDS, MAX_SGE, MAX_REQUEST_SECTORS)
        struct.pack_into("<H", info, MEMORY_SIZE, MEMORY_MIB)
        return bytes(info)

    def _scatter(self, frame: Frame, data: bytes) -> None:
        """Put a reply into the frame's buffers, no more than DATA_LENGTH bytes of it."""
        left = memoryview(data)[: frame.u32(DATA_LENGTH)]
        for address, length in self._buffers(frame):
            piece = left[:length]
            self._memory.write(address, piece)
            left = left[len(piece) :]

    def _buffers(self, frame: Frame) -> Iterator[tuple[int, int]]:
        layout = struct.Struct("<QII" if frame.flags & FLAG_IEEE else "<QI" if frame.flags & FLAG_SGL64 else "<II")
        count = min(frame.data[SGE_COUNT], MAX_SGE)
        table = self._memory.read(frame.address + DCMD_SGL, layout.size * count)
        for index in range(count):
            fields = layout.unpack_from(table, layout.size * index)
            yield fields[0], fields[1]
