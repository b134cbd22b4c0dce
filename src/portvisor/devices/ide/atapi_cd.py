"""An ATAPI CD-ROM drive: the PACKET protocol (T13/1410D ATA-6, 8.23, 9.8) in front of the commands of mmc.py.

    command                    code    command                   code
    PACKET                     A0      DEVICE RESET              08
    IDENTIFY PACKET DEVICE     A1      NOP (always aborted)      00
    IDENTIFY DEVICE and READ SECTORS (EC, 20) are aborted with the packet signature; and those in drive.py

    phase of PACKET       DRQ  Interrupt Reason (Sector Count)  interrupt
    command packet         1   1: C/D                           no (IDENTIFY word 0: DRQ within 50 us)
    data to host           1   2: I/O                           for each DRQ block
    end                    0   3: C/D, I/O                      yes

In PIO a DRQ block is as long as the host's byte count limit allows, and Byte Count says how long; with a limit
of 0 a command that has data is aborted. The disc is read one block at a time, so the length of a transfer
costs no memory.

Not modelled: overlapped commands, data from the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.devices.ide.drive import DATA_OUT, Drive, DriveState, Transport
from portvisor.devices.ide.identify import IdentifyWords, Identity
from portvisor.devices.ide.mmc import (
    CDB_LENGTH,
    ILLEGAL_REQUEST,
    NOT_READY,
    CdRom,
    CdState,
    CheckConditionError,
    Reply,
    Sense,
)
from portvisor.devices.ide.registers import ABRT, FEATURES, SECTOR_COUNT
from portvisor.ports import BlockBackend

PACKET = 0xA0
DEVICE_RESET = 0x08
PACKET_DMA = 0x01
PACKET_OVERLAP = 0x02
"""Bits of Features for PACKET."""

# Interrupt Reason (7.14.6)
REASON_COMMAND = 0x01
REASON_TO_HOST = 0x02

WHOLE_BLOCK = 0xFFFE
"""Longest PIO DRQ block in bytes; a limit of FFFF means this."""
DMA_BLOCK = 0x10000

CD_IDENTITY = Identity(model="PORTVISOR CD-ROM", serial="PV00000002", firmware="1.0")


@dataclass
class PacketState(DriveState):
    """The drive's registers, its logical unit and the reply that is being sent."""

    cd: CdState = field(default_factory=CdState)
    byte_limit: int = 0
    reply: bytes = b""
    block: int = 0
    """First block of the disc to send, if `reply` is empty."""
    length: int = 0
    """Bytes of the whole reply."""
    sent: int = 0


class AtapiCd(Drive):
    """A CD-ROM drive with a tray.

    Args:
        medium: the disc in it, if any; whole blocks of 2,048 bytes (a rest is padded with zeros).
        identity: what IDENTIFY PACKET DEVICE reports.
        transport: PIO for `IdeChannel`, SATA for an AHCI port.
    """

    State: ClassVar[type[DriveState]] = PacketState
    SIGNATURE = (0x01, 0x01, 0x14, 0xEB)
    RESET_STATUS = 0
    state: PacketState

    def __init__(
        self,
        medium: BlockBackend | None = None,
        identity: Identity = CD_IDENTITY,
        transport: Transport = Transport.PIO,
    ) -> None:
        self.identity = identity
        self.cd = CdRom(medium)
        """The logical unit: `insert` and `eject` are there."""
        super().__init__(transport)

    def command_table(self) -> dict[int, Callable[[], None]]:
        table = super().command_table()
        table.update(
            {
                DEVICE_RESET: self._device_reset,
                0x20: self._abort_with_signature,
                PACKET: self._packet,
                0xA1: self._identify_packet_device,
                0xEC: self._abort_with_signature,
            }
        )
        return table

    def power_on(self) -> None:
        """As for any drive; the tray stays where it is, unlocked."""
        tray_open = self.cd.state.tray_open
        super().power_on()
        self.state.cd.tray_open = tray_open

    def adopt(self, state: DriveState) -> None:
        super().adopt(state)
        self.cd.state = self.state.cd

    def flush_medium(self) -> bool:
        return True

    def execute(self, command: int) -> None:
        if command == DEVICE_RESET:
            self._device_reset()
        else:
            super().execute(command)

    def _device_reset(self) -> None:
        """DEVICE RESET is taken in any state; signature, no interrupt (8.7)."""
        self.hold_reset()
        self.software_reset()

    def _abort_with_signature(self) -> None:
        self._post_address_signature()
        self._abort()

    # --- PACKET ---------------------------------------------------------------------------------------

    def _packet(self) -> None:
        features = self.state.registers.current[FEATURES]
        dma = bool(features & PACKET_DMA)
        if features & PACKET_OVERLAP or (dma and self.transport is not Transport.SATA):
            self._abort()
            return
        self.state.byte_limit = self.state.registers.cylinder
        self.state.dma = dma
        self._set_reason(REASON_COMMAND)
        self._request(CDB_LENGTH)

    def _set_reason(self, reason: int) -> None:
        self.state.registers.current[SECTOR_COUNT] = reason

    def block_done(self) -> None:
        if self.state.phase == DATA_OUT:
            self._run_packet(bytes(self.state.buffer))
        elif self.state.command == PACKET:
            self._send_block()
        else:
            self._finish_data_in()

    def _run_packet(self, cdb: bytes) -> None:
        try:
            reply = self.cd.execute(cdb)
        except CheckConditionError as failure:
            self._check_condition(failure.sense)
            return
        self._begin_reply(reply)

    def _begin_reply(self, reply: Reply) -> None:
        state = self.state
        state.reply, state.block = reply.data, reply.block
        state.length = len(reply.data) or reply.length
        state.sent = 0
        if state.length and not state.byte_limit and not state.dma:
            self._set_reason(REASON_COMMAND | REASON_TO_HOST)
            self._abort()
            return
        self._send_block()

    def _send_block(self) -> None:
        """The next DRQ block of the reply, or the end of the command."""
        state = self.state
        length = self._block_length()
        if not length:
            self._set_reason(REASON_COMMAND | REASON_TO_HOST)
            self._complete()
            return
        try:
            data = bytearray(self._reply_part(length))
        except CheckConditionError as failure:
            self._check_condition(failure.sense)
            return
        state.sent += length
        if not state.dma:
            state.registers.cylinder = length
            data += bytes(length % 2)
        self._set_reason(REASON_TO_HOST)
        self._offer(data)

    def _block_length(self) -> int:
        """Bytes of the next block: all that is left, or as many as the host takes, an even number."""
        state = self.state
        left = state.length - state.sent
        if state.dma:
            return min(left, DMA_BLOCK)
        limit = min(state.byte_limit, WHOLE_BLOCK)
        return left if left <= limit else max(2, limit & ~1)

    def _reply_part(self, length: int) -> bytes:
        state = self.state
        if state.reply:
            return state.reply[state.sent : state.sent + length]
        return self.cd.read(state.block, state.sent, length)

    def _check_condition(self, sense: Sense) -> None:
        """Sense key in Error 7:4; ABRT where the command was refused (7.9.6)."""
        self._set_reason(REASON_COMMAND | REASON_TO_HOST)
        refused = sense.key in (ILLEGAL_REQUEST, NOT_READY)
        self._fail(sense.key << 4 | (ABRT if refused else 0))

    # --- IDENTIFY PACKET DEVICE -----------------------------------------------------------------------

    def _identify_packet_device(self) -> None:
        words = IdentifyWords(self.identity)
        words[0] = 0x85C0  # ATAPI, CD-ROM, removable, DRQ within 50 us, packets of 12 bytes
        words[80] = 0x0070  # ATA-4, ATA-5, ATA-6
        words[81] = 0x0022  # ATA-6 as published, INCITS 361-2002
        words[82] = words[85] = 0x4218  # NOP, DEVICE RESET, PACKET, power management
        words[83] = words[84] = words[87] = 0x4000
        self.identify_modes(words)
        if self.transport is Transport.SATA:
            words[76] = 0x0006  # 1.5 and 3.0 Gb/s
            words[80] = 0x00F0
            words[81] = 0x0000
        self._offer(words.finish())
