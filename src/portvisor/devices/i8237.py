"""The PC's two 8237A DMA controllers: byte channels 0-3, and word channels 5-7 behind the cascade channel 4.

Source: Intel 8237A data sheet (231466); wiring and aliases: Intel PCH data sheet, "DMA I/O Registers" and
"DMA Operation (D31:F0)".

Registers (offset: port, name); controller 2 has the same ones at C0 + 2n, each also at the odd port
    0, 2, 4, 6: base and current address of channel 0-3 (two bytes through the first/last flip-flop)
    1, 3, 5, 7: base and current count (transfers - 1)
    8: command (write), status (read; the read clears the TC bits)
    9: request            A: single mask         B: mode
    C: clear flip-flop    D: master clear (write), temporary register (read)
    E: clear all masks    F: all masks (a PCH lets them be read)

Address of a transfer: channels 0-3 page << 16 | address; channels 5-7 (page & FE) << 16 | address << 1, counted
in words. Nothing carries into the page, so an address wraps within 64 KiB, or 128 KiB.

A device drives DREQ with `request` and moves its bytes with `transfer`, all that it has at once: what the
controller would do one DACK at a time. It ends at terminal count (TC), as EOP would tell the device. A device that
has to wait for its channel learns through `connect` that it is ready.

Not modelled: the order of simultaneous requests (fixed and rotating priority), timing (compressed, extended
write), DACK polarity, memory-to-memory (a PCH has none; its temporary register reads 0), and block transfers
by a software request (the request is only seen in the status).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from portvisor.devices.dma_pages import PageSource, no_pages
from portvisor.ports import Device, GuestMemory, PortRange

# Registers
STATUS = COMMAND = 0x8
REQUEST, SINGLE_MASK, MODE, CLEAR_FLIP_FLOP, MASTER_CLEAR, CLEAR_MASKS, ALL_MASKS = range(0x9, 0x10)
TEMPORARY = MASTER_CLEAR
# Command
COMMAND_DISABLE = 0x04
COMMAND_DREQ_LOW = 0x40
# Request and single mask
CHANNEL = 0x03
SET_BIT = 0x04
# Mode
MODE_TYPE = 0x0C
TYPE_VERIFY, TYPE_WRITE, TYPE_READ = 0x00, 0x04, 0x08
MODE_AUTO_INIT = 0x10
MODE_DECREMENT = 0x20
MODE_SELECT = 0xC0
SELECT_CASCADE = 0xC0

CASCADE_CHANNEL = 4
ALL_CHANNELS = 0x0F
CONTROLLER_2 = 0x20
"""Offset of the second controller's registers."""
OPEN_BUS = 0xFF

WRITE_NAMES = {
    COMMAND: "command",
    REQUEST: "request",
    SINGLE_MASK: "single mask",
    MODE: "mode",
    CLEAR_FLIP_FLOP: "clear flip-flop",
    MASTER_CLEAR: "master clear",
    CLEAR_MASKS: "clear masks",
    ALL_MASKS: "all masks",
}
READ_NAMES = {STATUS: "status", TEMPORARY: "temporary", ALL_MASKS: "all masks"}


@dataclass
class ChannelState:
    """Everything that one channel remembers."""

    base_address: int = 0
    base_count: int = 0
    address: int = 0
    count: int = 0
    mode: int = 0


@dataclass
class ControllerState:
    """Everything that one 8237A remembers."""

    channels: list[ChannelState] = field(default_factory=lambda: [ChannelState() for _ in range(4)])
    command: int = 0
    terminal_counts: int = 0
    requests: int = 0
    """Software requests."""
    lines: int = 0
    """Levels of DREQ3-DREQ0."""
    masks: int = ALL_CHANNELS
    flip_flop: bool = False
    """The next byte of an address or count is the high one."""


@dataclass(frozen=True, slots=True)
class DmaTransfer:
    """What a transfer did."""

    data: bytes
    """What the device gets (mode: read); empty in the other modes."""
    length: int
    """Bytes that were transferred."""
    terminal_count: bool
    """The channel's count ran out with the last of them."""


class Controller:
    """One 8237A; `unit` is the size of its transfers in bytes."""

    __slots__ = ("state", "unit")

    def __init__(self, state: ControllerState, unit: int) -> None:
        self.state = state
        self.unit = unit

    # --- registers ------------------------------------------------------------------------------------

    def read(self, register: int) -> int:
        """A read of one of the 16 registers."""
        state = self.state
        if register < STATUS:
            channel = state.channels[register >> 1]
            return self._byte(channel.count if register & 1 else channel.address)
        if register == STATUS:
            value = state.terminal_counts | self.pending() << 4
            state.terminal_counts = 0
            return value
        if register == ALL_MASKS:
            return state.masks
        return 0 if register == TEMPORARY else OPEN_BUS

    def write(self, register: int, value: int) -> None:
        """A write to one of the 16 registers."""
        state = self.state
        if register < COMMAND:
            self._write_channel(state.channels[register >> 1], register & 1, value)
        elif register == COMMAND:
            state.command = value
        elif register == REQUEST:
            state.requests = _set_channel_bit(state.requests, value)
        elif register == SINGLE_MASK:
            state.masks = _set_channel_bit(state.masks, value)
        elif register == MODE:
            state.channels[value & CHANNEL].mode = value & ~CHANNEL
        elif register == CLEAR_FLIP_FLOP:
            state.flip_flop = False
        elif register == MASTER_CLEAR:
            self._master_clear()
        else:
            state.masks = 0 if register == CLEAR_MASKS else value & ALL_CHANNELS

    def _byte(self, value: int) -> int:
        self.state.flip_flop = not self.state.flip_flop
        return value & 0xFF if self.state.flip_flop else value >> 8

    def _write_channel(self, channel: ChannelState, is_count: int, value: int) -> None:
        """One byte of an address or count goes into the base and the current register."""
        high = self.state.flip_flop
        self.state.flip_flop = not high
        old = channel.base_count if is_count else channel.base_address
        new = old & 0x00FF | value << 8 if high else old & 0xFF00 | value
        if is_count:
            channel.base_count = channel.count = new
        else:
            channel.base_address = channel.address = new

    def _master_clear(self) -> None:
        state = self.state
        state.command = state.terminal_counts = state.requests = 0
        state.masks = ALL_CHANNELS
        state.flip_flop = False

    # --- service --------------------------------------------------------------------------------------

    def pending(self) -> int:
        """Channels that ask for service."""
        state = self.state
        lines = state.lines ^ ALL_CHANNELS if state.command & COMMAND_DREQ_LOW else state.lines
        return lines | state.requests

    def serves(self, index: int) -> bool:
        """Whether a request of the channel would be honoured."""
        state = self.state
        return not state.command & COMMAND_DISABLE and not state.masks >> index & 1

    def transfer(self, index: int, page: int, memory: GuestMemory, data: bytes, length: int) -> DmaTransfer:
        """Move up to `length` bytes, or to terminal count."""
        channel = self.state.channels[index]
        units = min(length // self.unit, channel.count + 1)
        kind = channel.mode & MODE_TYPE
        taken = bytearray()
        left, start = units, 0
        while left:
            step = min(left, channel.address + 1 if channel.mode & MODE_DECREMENT else 0x10000 - channel.address)
            stop = start + step * self.unit
            if kind == TYPE_WRITE:
                self._store(channel, page, memory, data[start:stop], step)
            elif kind == TYPE_READ:
                taken += self._load(channel, page, memory, step)
            self._move(channel, step)
            left -= step
            start = stop
        done = units > 0 and self._count_down(index, units)
        return DmaTransfer(bytes(taken), units * self.unit, done)

    def _first_byte(self, channel: ChannelState, page: int, units: int) -> int:
        """Guest-physical address of the lowest of the bytes at and after the current address."""
        lowest = channel.address - (units - 1 if channel.mode & MODE_DECREMENT else 0)
        return (page & ~(self.unit - 1)) << 16 | lowest * self.unit

    def _store(self, channel: ChannelState, page: int, memory: GuestMemory, data: bytes, units: int) -> None:
        data = data if len(data) == units * self.unit else data.ljust(units * self.unit, b"\xff")
        if channel.mode & MODE_DECREMENT:
            data = _reverse_units(data, self.unit)
        memory.write(self._first_byte(channel, page, units), data)

    def _load(self, channel: ChannelState, page: int, memory: GuestMemory, units: int) -> bytes:
        data = memory.read(self._first_byte(channel, page, units), units * self.unit)
        return _reverse_units(data, self.unit) if channel.mode & MODE_DECREMENT else data

    @staticmethod
    def _move(channel: ChannelState, units: int) -> None:
        step = -units if channel.mode & MODE_DECREMENT else units
        channel.address = (channel.address + step) & 0xFFFF

    def _count_down(self, index: int, units: int) -> bool:
        """Take `units` from the count; at terminal count reload or mask the channel."""
        state = self.state
        channel = state.channels[index]
        if units <= channel.count:
            channel.count -= units
            return False
        bit = 1 << index
        state.terminal_counts |= bit
        state.requests &= ~bit
        if channel.mode & MODE_AUTO_INIT:
            channel.address, channel.count = channel.base_address, channel.base_count
        else:
            channel.count = 0xFFFF
            state.masks |= bit
        return True


def _set_channel_bit(bits: int, value: int) -> int:
    """Request and single mask: bits 1:0 choose the channel, bit 2 is the value."""
    bit = 1 << (value & CHANNEL)
    return bits | bit if value & SET_BIT else bits & ~bit


def _reverse_units(data: bytes, unit: int) -> bytes:
    """The bytes or words in the opposite order."""
    if unit == 1:
        return data[::-1]
    result = bytearray(data)
    result[0::2], result[1::2] = data[-2::-2], data[-1::-2]
    return bytes(result)


class DmaController(Device):
    """Both controllers. The page registers are `dma_pages.DmaPages`.

    Args:
        alias: answer at 10-1F as at 00-0F, as a PCH does.
    """

    name = "dma"

    @dataclass
    class State:
        """Controller 1 (channels 0-3) and controller 2 (channels 4-7)."""

        controllers: list[ControllerState] = field(default_factory=lambda: [ControllerState(), ControllerState()])

    state: State

    def __init__(self, *, alias: bool = False) -> None:
        super().__init__()
        self.page_of: PageSource = no_pages
        """Page register of a channel; `DmaPages` puts itself here."""
        self._services: dict[int, Callable[[], None]] = {}
        first, second = self.state.controllers
        self._controllers = (Controller(first, 1), Controller(second, 2))
        self.ports = (
            PortRange(0x00, 0x20 if alias else 0x10, name="dma1"),
            PortRange(0xC0, 0x20, name="dma2", offset=CONTROLLER_2),
        )

    # --- registers --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if offset < CONTROLLER_2:
            return self._controllers[0].read(offset & 0x0F)
        return self._controllers[1].read((offset - CONTROLLER_2) >> 1)

    def write(self, offset: int, size: int, value: int) -> None:
        if offset < CONTROLLER_2:
            self._controllers[0].write(offset & 0x0F, value)
        else:
            self._controllers[1].write((offset - CONTROLLER_2) >> 1, value)
        for channel, service in self._services.items():
            controller, index = self._find(channel)
            if controller.state.lines >> index & 1 and self.ready(channel):
                service()

    def register_name(self, offset: int, size: int, write: bool) -> str:
        """As in the data sheet, with the number of the controller and the channel."""
        number, register = (1, offset & 0x0F) if offset < CONTROLLER_2 else (2, (offset - CONTROLLER_2) >> 1)
        if register < COMMAND:
            kind = "count" if register & 1 else "address"
            return f"DMA{number} channel {(number - 1) * 4 + (register >> 1)} {kind}"
        name = (WRITE_NAMES if write else READ_NAMES).get(register, "")
        return f"DMA{number} {name}" if name else ""

    # --- devices ----------------------------------------------------------------------------------------

    def connect(self, channel: int, service: Callable[[], None]) -> None:
        """Call `service` after every write that leaves the channel ready while its DREQ is up.

        Raises:
            ValueError: no device can be on this channel.
        """
        self._find(channel)
        self._services[channel] = service

    def request(self, channel: int, level: int = 1) -> None:
        """Drive a device's DREQ (channel 0-3 or 5-7).

        Raises:
            ValueError: no device can be on this channel.
        """
        controller, index = self._find(channel)
        bit = 1 << index
        state = controller.state
        state.lines = state.lines | bit if level else state.lines & ~bit

    def ready(self, channel: int) -> bool:
        """Whether the channel would be served: unmasked, enabled, and channels 0-3 through the cascade.

        Raises:
            ValueError: no device can be on this channel.
        """
        controller, index = self._find(channel)
        cascaded = controller is self._controllers[1] or self._cascade_open()
        mode = controller.state.channels[index].mode
        return cascaded and controller.serves(index) and mode & MODE_SELECT != SELECT_CASCADE

    def transfer(
        self, channel: int, memory: GuestMemory, data: bytes = b"", length: int | None = None
    ) -> DmaTransfer:
        """Move a device's bytes in the direction that the guest programmed, up to terminal count.

        Args:
            channel: 0-3 (bytes) or 5-7 (words; an odd byte at the end stays).
            memory: where the guest's buffer is.
            data: what the device offers; stored in mode "write".
            length: how many bytes the device offers or wants; default `len(data)`. What is missing in `data`
                is stored as FF, the floating bus.

        Raises:
            ValueError: no device can be on this channel.
        """
        controller, index = self._find(channel)
        if not self.ready(channel):
            return DmaTransfer(b"", 0, False)
        wanted = len(data) if length is None else length
        return controller.transfer(index, self.page_of(channel), memory, data, wanted)

    def _find(self, channel: int) -> tuple[Controller, int]:
        if channel not in range(8) or channel == CASCADE_CHANNEL:
            raise ValueError(f"DMA channel {channel}: devices can have 0-3 and 5-7 (4 is the cascade)")
        return self._controllers[channel >> 2], channel & 3

    def _cascade_open(self) -> bool:
        second = self._controllers[1]
        return second.serves(0) and second.state.channels[0].mode & MODE_SELECT == SELECT_CASCADE

    # --- life -------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """RESET is a master clear of both chips; the DREQ inputs stay as they are driven."""
        lines = [controller.state.lines for controller in self._controllers]
        super().reset()
        for state, level in zip(self.state.controllers, lines, strict=True):
            state.lines = level
        self.restored()

    def restored(self) -> None:
        for controller, state in zip(self._controllers, self.state.controllers, strict=True):
            controller.state = state
