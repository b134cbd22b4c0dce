"""One AHCI port: its registers, the command list, FISes, and the drive at the other end of the link.

Source: AHCI 1.3.1, 3.3 (registers), 4.2 (structures), 5.3 (port state machine), 6.2 (errors), 10 (software).

Commands are carried out the moment PxCI is written, in slot order, so PxCI reads 0 again at once; a command
that fails stays in PxCI with TFES until ST is cleared. Not modelled: port multipliers, power management
states, FIS-based switching, hot plug while running, DMA Setup and auto-activate FISes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from portvisor.devices.ahci import registers as r
from portvisor.devices.ide.drive import DATA_IN, DATA_OUT, IDLE, Drive
from portvisor.devices.ide.registers import (
    DEVICE,
    ERR,
    FEATURES,
    LBA_HIGH,
    LBA_LOW,
    LBA_MID,
    SECTOR_COUNT,
    TaskFile,
)
from portvisor.ports import GuestMemory

CHUNK = 0x10000
"""Bytes moved between drive and memory at once."""
PRDS_AT_ONCE = 128

H2D_LAYOUT = (
    (3, FEATURES, False), (4, LBA_LOW, False), (5, LBA_MID, False), (6, LBA_HIGH, False),
    (8, LBA_LOW, True), (9, LBA_MID, True), (10, LBA_HIGH, True), (11, FEATURES, True),
    (12, SECTOR_COUNT, False), (13, SECTOR_COUNT, True),
)  # fmt: skip
"""(byte in the FIS, register, in its previous value) of a Register - Host to Device FIS."""


@dataclass
class PortState:
    """The port's registers."""

    clb: int = 0
    fb: int = 0
    interrupts: int = 0
    enabled: int = 0
    command: int = r.CMD_SUD | r.CMD_POD
    tfd: int = r.TFD_NO_DEVICE
    signature: int = r.SIG_NONE
    control: int = 0
    error: int = 0
    active: int = 0
    issued: int = 0


class Port:
    """A port and its drive."""

    def __init__(
        self,
        state: PortState,
        drive: Drive | None,
        memory: GuestMemory,
        may_dma: Callable[[], bool],
        changed: Callable[[], None],
    ) -> None:
        self.state = state
        self.drive = drive
        self._memory = memory
        self._may_dma = may_dma
        self._changed = changed

    # --- resets ----------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """After an HBA reset: the link comes up and the drive sends its signature."""
        if self.drive:
            self.drive.power_on()
            self._link_up()

    def _link_up(self) -> None:
        """The link is established (10.4.2): SERR says so, and the drive's first D2H FIS carries its signature."""
        state = self.state
        state.error |= r.SERR_DIAG_X | r.SERR_DIAG_N
        state.interrupts |= r.IS_FROM_SERR
        self._post_signature()

    def _post_signature(self) -> None:
        state, drive = self.state, self.drive
        assert drive is not None
        count, low, mid, high = drive.SIGNATURE
        state.signature = high << 24 | mid << 16 | low << 8 | count
        self._take_status(drive.state.registers)
        self._receive(r.RX_D2H, self._d2h_fis(drive.state.registers, interrupt=False))

    def _comreset(self, control: int) -> None:
        """PxSCTL.DET was written (3.3.11): 1 holds the link in reset, 4 takes it offline, 0 lets it come up."""
        state = self.state
        before = state.control & r.SCTL_DET
        state.control = control & 0xFFF
        detect = control & r.SCTL_DET
        if detect == before:
            return
        if detect in (r.DET_COMRESET, r.DET_OFFLINE):
            state.signature, state.tfd = r.SIG_NONE, r.TFD_NO_DEVICE
        elif self.drive:
            self.drive.power_on()
            self._link_up()

    # --- registers -------------------------------------------------------------------------------------------

    def read(self, offset: int) -> int:
        """A dword of the port's registers."""
        state = self.state
        values = {
            r.PX_CLB: state.clb & 0xFFFFFFFF,
            r.PX_CLBU: state.clb >> 32,
            r.PX_FB: state.fb & 0xFFFFFFFF,
            r.PX_FBU: state.fb >> 32,
            r.PX_IS: state.interrupts,
            r.PX_IE: state.enabled,
            r.PX_CMD: self._command(),
            r.PX_TFD: state.tfd,
            r.PX_SIG: state.signature,
            r.PX_SSTS: self._link_status(),
            r.PX_SCTL: state.control,
            r.PX_SERR: state.error,
            r.PX_SACT: state.active,
            r.PX_CI: state.issued,
        }
        return values.get(offset, 0)

    def _command(self) -> int:
        command = self.state.command
        running = (r.CMD_CR if command & r.CMD_ST else 0) | (r.CMD_FR if command & r.CMD_FRE else 0)
        return command | running

    def _link_status(self) -> int:
        detect = self.state.control & r.SCTL_DET
        if detect == r.DET_OFFLINE:
            return r.SSTS_OFFLINE
        return r.SSTS_LINK_UP if self.drive and detect != r.DET_COMRESET else r.SSTS_NO_DEVICE

    def write(self, offset: int, value: int) -> None:
        """Write a dword of the port's registers."""
        state = self.state
        if offset == r.PX_CLB:
            state.clb = state.clb & ~0xFFFFFFFF | value & ~0x3FF
        elif offset == r.PX_CLBU:
            state.clb = state.clb & 0xFFFFFFFF | value << 32
        elif offset == r.PX_FB:
            state.fb = state.fb & ~0xFFFFFFFF | value & ~0xFF
        elif offset == r.PX_FBU:
            state.fb = state.fb & 0xFFFFFFFF | value << 32
        elif offset == r.PX_IS:
            state.interrupts &= ~(value & ~r.IS_FROM_SERR)
        elif offset == r.PX_IE:
            state.enabled = value & r.IE_MASK
        elif offset == r.PX_CMD:
            self._write_command(value)
        elif offset == r.PX_SCTL:
            self._comreset(value)
        elif offset == r.PX_SERR:
            self._clear_error(value)
        elif offset == r.PX_SACT:
            state.active |= value if state.command & r.CMD_ST else 0
        elif offset == r.PX_CI:
            state.issued |= value if state.command & r.CMD_ST else 0
            self.process()
        self._changed()

    def _write_command(self, value: int) -> None:
        state = self.state
        was_started = state.command & r.CMD_ST
        kept = state.command & ~(r.CMD_WRITABLE | r.CMD_ICC)
        state.command = kept | value & r.CMD_WRITABLE | r.CMD_SUD | r.CMD_POD
        if value & r.CMD_CLO:
            state.tfd &= ~0x88
        if was_started and not value & r.CMD_ST:
            state.issued = state.active = 0
            state.command &= ~r.CMD_CCS

    def _clear_error(self, value: int) -> None:
        state = self.state
        state.error &= ~value
        if not state.error & r.SERR_DIAG_X:
            state.interrupts &= ~r.IS_PCS
        if not state.error & r.SERR_DIAG_N:
            state.interrupts &= ~r.IS_PRCS

    # --- commands --------------------------------------------------------------------------------------------

    def process(self) -> None:
        """Carry out what is issued, lowest slot first, until a command fails."""
        state = self.state
        while state.issued and state.command & r.CMD_ST and not state.tfd & ERR and self._may_dma():
            slot = (state.issued & -state.issued).bit_length() - 1
            state.command = state.command & ~r.CMD_CCS | slot << r.CMD_CCS_SHIFT
            if not self._execute(slot):
                return

    def _execute(self, slot: int) -> bool:
        """One command; False if it failed and stays issued."""
        state = self.state
        header_address = state.clb + r.HEADER_LENGTH * slot
        header = self._memory.read(header_address, r.HEADER_LENGTH)
        flags = int.from_bytes(header[0:4], "little")
        table = int.from_bytes(header[8:16], "little") & ~0x7F
        fis = self._memory.read(table, 20)
        if self.drive is None or fis[0] != r.FIS_H2D:
            state.interrupts |= r.IS_IFS
            return False
        if not fis[1] & r.FIS_COMMAND:
            self._device_control(fis)
            state.issued &= ~(1 << slot)
            return True
        moved = self._run_command(self.drive, fis, flags, table)
        self._memory.write(header_address + 4, moved.to_bytes(4, "little"))
        return self._finish(self.drive, fis[2], slot)

    def _device_control(self, fis: bytes) -> None:
        """SRST set and cleared by two control FISes (10.4.1); the second brings the signature."""
        drive = self.drive
        assert drive is not None
        if fis[15] & r.CONTROL_SRST:
            drive.hold_reset()
            self._take_status(drive.state.registers)
        else:
            drive.software_reset()
            self._post_signature()

    def _run_command(self, drive: Drive, fis: bytes, flags: int, table: int) -> int:
        """Hand the FIS to the drive and move its data; the bytes moved."""
        registers = drive.state.registers
        for place, register, previous in H2D_LAYOUT:
            (registers.previous if previous else registers.current)[register] = fis[place]
        registers.current[DEVICE] = fis[7]
        drive.execute(fis[2])
        if flags & r.HEADER_ATAPI and drive.state.phase == DATA_OUT:
            drive.write_data(self._memory.read(table + r.TABLE_ACMD, r.PACKET_LENGTH))
        return self._move_data(drive, self._regions(table, flags >> 16))

    def _regions(self, table: int, count: int) -> Iterator[tuple[int, int]]:
        """(address, length) of the physical regions, read as they are needed."""
        for first in range(0, count, PRDS_AT_ONCE):
            batch = min(PRDS_AT_ONCE, count - first)
            data = self._memory.read(table + r.TABLE_PRDT + r.PRD_LENGTH * first, r.PRD_LENGTH * batch)
            for start in range(0, len(data), r.PRD_LENGTH):
                address = int.from_bytes(data[start : start + 8], "little") & ~1
                length = (int.from_bytes(data[start + 12 : start + 16], "little") & 0x3FFFFF | 1) + 1
                yield address, length

    def _move_data(self, drive: Drive, regions: Iterator[tuple[int, int]]) -> int:
        """Scatter or gather until the drive or the regions end."""
        moved = 0
        for address, length in regions:
            done = 0
            while done < length:
                step = self._step(drive, address + done, min(CHUNK, length - done))
                if not step:
                    return moved
                done += step
                moved += step
        return moved

    def _step(self, drive: Drive, address: int, length: int) -> int:
        if drive.state.phase == DATA_IN:
            data = drive.read_data(length)
            self._memory.write(address, data)
            return len(data)
        if drive.state.phase == DATA_OUT:
            room = len(drive.state.buffer) - drive.state.position
            return drive.write_data(self._memory.read(address, min(length, room)))
        return 0

    def _finish(self, drive: Drive, command: int, slot: int) -> bool:
        """Report the end of a command: FIS, interrupt, PxCI and PxSACT."""
        state = self.state
        registers = drive.state.registers
        if drive.state.phase != IDLE:
            drive.hold_reset()
            drive.software_reset()
            state.interrupts |= r.IS_IFS
            return False
        self._take_status(registers)
        failed = bool(registers.status & ERR)
        if command in r.NCQ_COMMANDS and not failed:
            tag = registers.current[SECTOR_COUNT] >> 3
            state.issued &= ~(1 << slot)
            state.active &= ~(1 << tag)
            self._receive(r.RX_SDB, self._sdb_fis(registers, 1 << tag))
            state.interrupts |= r.IS_SDBS
            return True
        self._receive(r.RX_D2H, self._d2h_fis(registers, interrupt=True))
        state.interrupts |= r.IS_DHRS
        if failed:
            state.interrupts |= r.IS_TFES
            return False
        state.issued &= ~(1 << slot)
        return True

    # --- FISes to the host -----------------------------------------------------------------------------------

    def _take_status(self, registers: TaskFile) -> None:
        self.state.tfd = registers.error << 8 | registers.status

    def _receive(self, place: int, fis: bytes) -> None:
        if self.state.command & r.CMD_FRE and self._may_dma():
            self._memory.write(self.state.fb + place, fis)

    @staticmethod
    def _d2h_fis(registers: TaskFile, *, interrupt: bool) -> bytes:
        now, before = registers.current, registers.previous
        head = (r.FIS_D2H, r.FIS_INTERRUPT if interrupt else 0, registers.status, registers.error)
        low = (now[LBA_LOW], now[LBA_MID], now[LBA_HIGH], now[DEVICE])
        high = (before[LBA_LOW], before[LBA_MID], before[LBA_HIGH], 0)
        return bytes((*head, *low, *high, now[SECTOR_COUNT], before[SECTOR_COUNT], 0, 0, 0, 0, 0, 0))

    @staticmethod
    def _sdb_fis(registers: TaskFile, completed: int) -> bytes:
        head = bytes((r.FIS_SDB, r.FIS_INTERRUPT, registers.status & 0x77, registers.error))
        return head + completed.to_bytes(4, "little")
