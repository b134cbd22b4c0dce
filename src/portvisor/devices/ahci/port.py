"""One AHCI port: its registers, the command list, FISes, and the drive at the other end of the link.

Source: AHCI 1.3.1, 3.3 (registers), 4.2 (structures), 5.3 (port state machine), 6.2 (errors), 10 (software).

Commands are carried out the moment PxCI is written, in slot order, so PxCI reads 0 again at once. What ends
otherwise:

* A command that fails sets TFES; it stays in PxCI (a queued one that the drive had accepted in PxSACT), and
  nothing more is fetched until ST is cleared.
* A command whose regions end before its data leaves the drive busy (OFS if it was reading) until the host
  clears BSY with CLO or resets the link.
* A drive that does not answer (asleep, or SRST is held) leaves BSY set.

Not modelled: port multipliers, power management states, FIS-based switching, hot plug while running, DMA Setup
and auto-activate FISes (queued commands move their data without them).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from portvisor.devices.ahci import fis
from portvisor.devices.ahci import registers as r
from portvisor.devices.ahci.prdt import Regions
from portvisor.devices.ide.atapi_cd import PACKET
from portvisor.devices.ide.drive import DATA_IN, DATA_OUT, IDLE, Drive
from portvisor.devices.ide.registers import BSY, DRDY, DRQ, DSC, ERR, SECTOR_COUNT, TaskFile
from portvisor.ports import GuestMemory

QUEUED = (0x60, 0x61)
"""READ and WRITE FPDMA QUEUED."""
DRIVE_SPEED = 2
"""Generation that the drives' IDENTIFY data names (3.0 Gb/s)."""
LINK_DOWN = (r.DET_COMRESET, r.DET_OFFLINE)
PACKET_BYTES = 16
"""Length of a command table's ACMD field."""


@dataclass
class PortState:
    """The port's registers, and what its state machine remembers."""

    clb: int = 0
    fb: int = 0
    interrupts: int = 0
    enabled: int = 0
    command: int = r.CMD_SUD | r.CMD_POD
    tfd: int = r.TFD_NO_DEVICE
    signature: int = r.SIG_NONE
    control: int = 0
    speed: int = 0
    error: int = 0
    active: int = 0
    issued: int = 0
    halted: bool = False
    """A fatal error (6.2.2): no command is fetched until ST is cleared."""
    in_reset: bool = False
    """A control FIS has set SRST."""
    held: bytes = b""
    """The first D2H FIS after a reset, while it cannot be posted."""


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

    # --- the link ----------------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """After an HBA reset: the link comes up and the drive sends its signature."""
        if self.drive:
            self._link_up(self.drive)

    def _link_up(self, drive: Drive) -> None:
        """The link is established (10.4.2): SERR says so, and the drive's first D2H FIS carries its signature."""
        state = self.state
        drive.power_on()
        limit = state.control >> r.SSTS_SPEED_SHIFT & r.SCTL_SPEED
        state.speed = min(limit or DRIVE_SPEED, DRIVE_SPEED)
        state.error |= r.SERR_DIAG_X | r.SERR_DIAG_N
        state.interrupts |= r.IS_FROM_SERR
        self._post_signature(drive)

    def _link_down(self) -> None:
        state = self.state
        state.signature, state.tfd = r.SIG_NONE, r.TFD_NO_DEVICE
        state.in_reset, state.held = False, b""
        if self.drive:
            state.error |= r.SERR_DIAG_N
            state.interrupts |= r.IS_PRCS

    def _post_signature(self, drive: Drive) -> None:
        state = self.state
        count, low, mid, high = drive.SIGNATURE
        state.signature = high << 24 | mid << 16 | low << 8 | count
        self._take_status(drive.state.registers)
        state.held = fis.d2h(drive.state.registers, interrupt=False)
        self._post_held()

    def _post_held(self) -> None:
        if self.state.held and self._can_post():
            self._receive(r.RX_D2H, self.state.held)
            self.state.held = b""

    def _write_control(self, value: int) -> None:
        """PxSCTL.DET (3.3.11): 1 holds the link in reset, 4 takes it offline, 0 lets it come up."""
        state = self.state
        was_down = state.control & r.SCTL_DET in LINK_DOWN
        state.control = value & r.SCTL_MASK
        down = state.control & r.SCTL_DET in LINK_DOWN
        if down and not was_down:
            self._link_down()
        elif was_down and not down and self.drive:
            self._link_up(self.drive)

    def _link_status(self) -> int:
        detect = self.state.control & r.SCTL_DET
        if detect == r.DET_OFFLINE:
            return r.SSTS_OFFLINE
        if self.drive is None or detect == r.DET_COMRESET:
            return r.SSTS_NO_DEVICE
        return r.SSTS_ACTIVE | self.state.speed << r.SSTS_SPEED_SHIFT | r.SSTS_DETECTED

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
            self._write_control(value)
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
        state.command = state.command & ~r.CMD_WRITABLE | value & r.CMD_WRITABLE
        if value & r.CMD_CLO and not was_started:
            state.tfd &= ~(BSY | DRQ)
        if was_started and not value & r.CMD_ST:
            state.issued = state.active = 0
            state.halted = False
            state.command &= ~r.CMD_CCS
        self._post_held()

    def _clear_error(self, value: int) -> None:
        state = self.state
        state.error &= ~value
        if not state.error & r.SERR_DIAG_X:
            state.interrupts &= ~r.IS_PCS
        if not state.error & r.SERR_DIAG_N:
            state.interrupts &= ~r.IS_PRCS

    # --- commands --------------------------------------------------------------------------------------------

    def process(self) -> None:
        """Post and carry out what waits, lowest slot first, until a command fails or does not end."""
        state = self.state
        self._post_held()
        while state.issued and self._may_fetch():
            slot = (state.issued & -state.issued).bit_length() - 1
            state.command = state.command & ~r.CMD_CCS | slot << r.CMD_CCS_SHIFT
            self._execute(slot)

    def _may_fetch(self) -> bool:
        state = self.state
        ready = state.command & r.CMD_ST and not state.halted and not state.tfd & (BSY | DRQ)
        return bool(ready) and self._may_dma()

    def _execute(self, slot: int) -> None:
        """Fetch one command and send it to the drive; at its end the slot is free unless it failed."""
        state = self.state
        header_address = state.clb + r.HEADER_LENGTH * slot
        header = self._memory.read(header_address, r.HEADER_LENGTH)
        flags = int.from_bytes(header[0:4], "little")
        table = int.from_bytes(header[8:16], "little") & ~0x7F
        sent = self._memory.read(table, fis.H2D_LENGTH)
        if sent[0] != r.FIS_H2D:
            self._halt(r.IS_IFS)
            return
        state.tfd |= BSY
        if self.drive is None or state.control & r.SCTL_DET in LINK_DOWN:
            return
        if not sent[1] & r.FIS_COMMAND:
            self._device_control(self.drive, sent[15], flags, slot)
        elif not state.in_reset:
            self._command_fis(self.drive, sent, flags, slot, header_address, table)

    def _device_control(self, drive: Drive, control: int, flags: int, slot: int) -> None:
        """SRST set and cleared by two control FISes (10.4.1); the second brings the signature.

        Without the header's C bit the port stays busy until the drive sends a FIS.
        """
        state = self.state
        released = state.in_reset and not control & r.CONTROL_SRST
        if control & r.CONTROL_SRST:
            drive.hold_reset()
            state.in_reset = True
        elif released:
            state.in_reset = False
            drive.software_reset()
            self._post_signature(drive)
        if flags & r.HEADER_CLEAR_BUSY:
            state.tfd &= ~BSY
        if flags & r.HEADER_CLEAR_BUSY or released:
            state.issued &= ~(1 << slot)

    def _command_fis(
        self, drive: Drive, sent: bytes, flags: int, slot: int, header_address: int, table: int
    ) -> None:
        registers = drive.state.registers
        command = fis.take_command(sent, registers)
        registers.status |= BSY
        drive.execute(command)
        registers = drive.state.registers
        if registers.status & BSY:
            return
        queued = command in QUEUED and not registers.status & ERR
        if queued:
            self._accept(registers, slot)
        regions, announced = None, False
        if drive.state.phase != IDLE:
            regions = Regions(self._memory, table, flags >> 16)
            announced = self._move_data(drive, regions, flags, table)
            self.state.interrupts |= r.IS_DPS if regions.interrupts else 0
        if not queued:
            moved = regions.moved if regions else 0
            self._memory.write(header_address + 4, moved.to_bytes(4, "little"))
        if drive.state.phase != IDLE:
            self._unfinished(drive)
        elif queued:
            self._finish_queued(registers)
        else:
            self._finish(drive, slot, announced)

    # --- data --------------------------------------------------------------------------------------------------

    def _move_data(self, drive: Drive, regions: Regions, flags: int, table: int) -> bool:
        """Move blocks until the drive or the regions end; whether a PIO Setup FIS has told the final status."""
        announced = False
        while drive.state.phase != IDLE:
            packet = drive.state.phase == DATA_OUT and drive.state.command == PACKET
            if drive.state.dma and not packet:
                if not self._move_block(drive, regions):
                    return False
                continue
            setup = self._pio_setup(drive)
            if flags & r.HEADER_ATAPI and drive.state.phase == DATA_OUT:
                flags &= ~r.HEADER_ATAPI
                drive.write_data(self._memory.read(table + r.TABLE_ACMD, PACKET_BYTES))
                complete = True
            else:
                complete = self._move_block(drive, regions)
            announced = self._send_setup(drive, setup)
            if not complete:
                return False
        return announced

    @staticmethod
    def _pio_setup(drive: Drive) -> bytearray:
        """The FIS that announces the present DRQ block; it carries the drive's interrupt, if there is one."""
        state = drive.state
        interrupt, state.interrupt = state.interrupt, False
        count = len(state.buffer) - state.position
        to_host = state.phase == DATA_IN
        return fis.pio_setup(state.registers, to_host=to_host, interrupt=interrupt, count=count)

    def _send_setup(self, drive: Drive, setup: bytearray) -> bool:
        """Complete a PIO Setup FIS with the status after its data; whether that ends the command (5.3.11).

        A PIO data-in command ends with it. In all other cases the drive is busy, and another FIS follows.
        """
        state = drive.state
        ends = state.phase == IDLE and not state.interrupt and not state.registers.status & ERR
        setup[fis.E_STATUS] = state.registers.status if ends else BSY | DRDY | DSC
        self._receive(r.RX_PIO_SETUP, bytes(setup))
        if setup[1] & r.FIS_INTERRUPT:
            self.state.interrupts |= r.IS_PSS
        return ends

    def _move_block(self, drive: Drive, regions: Regions) -> bool:
        """Scatter or gather the present DRQ block; False if the regions end first, or there is nothing to move."""
        left = len(drive.state.buffer) - drive.state.position
        to_host = drive.state.phase == DATA_IN
        if not left:
            return False
        while left:
            step = min(left, regions.room)
            if not step:
                return False
            if to_host:
                self._memory.write(regions.address, drive.read_data(step))
            else:
                drive.write_data(self._memory.read(regions.address, step))
            regions.advance(step)
            left -= step
        return True

    # --- the end of a command ------------------------------------------------------------------------------------

    def _unfinished(self, drive: Drive) -> None:
        """The regions hold less than the command moves (6.1.5): the drive waits with its data."""
        self.state.tfd = drive.state.registers.error << 8 | drive.state.registers.status | BSY
        if drive.state.phase == DATA_IN:
            self.state.interrupts |= r.IS_OFS

    def _accept(self, registers: TaskFile, slot: int) -> None:
        """The drive has queued a command: a D2H FIS without interrupt frees the slot, the tag stays active."""
        state = self.state
        self._receive(r.RX_D2H, fis.d2h(registers, interrupt=False, status=DRDY | DSC))
        state.tfd = DRDY | DSC
        state.issued &= ~(1 << slot)

    def _finish_queued(self, registers: TaskFile) -> None:
        """A Set Device Bits FIS ends a queued command; after an error its tag stays active."""
        state = self.state
        failed = registers.status & ERR
        tag = 0 if failed else 1 << (registers.current[SECTOR_COUNT] >> 3)
        state.active &= ~tag
        self._receive(r.RX_SDB, fis.set_device_bits(registers, tag))
        state.tfd = registers.error << 8 | registers.status & r.SDB_STATUS
        state.interrupts |= r.IS_SDBS
        if failed:
            self._halt(r.IS_TFES)

    def _finish(self, drive: Drive, slot: int, announced: bool) -> None:
        """Report the end of a command by a D2H FIS, unless a PIO Setup FIS already has."""
        state, registers = self.state, drive.state.registers
        self._take_status(registers)
        if not announced:
            interrupt, drive.state.interrupt = drive.state.interrupt, False
            self._receive(r.RX_D2H, fis.d2h(registers, interrupt=interrupt))
            state.interrupts |= r.IS_DHRS if interrupt else 0
        if registers.status & ERR:
            self._halt(r.IS_TFES)
        else:
            state.issued &= ~(1 << slot)

    def _halt(self, cause: int) -> None:
        self.state.interrupts |= cause
        self.state.halted = True

    # --- FISes to the host -----------------------------------------------------------------------------------

    def _take_status(self, registers: TaskFile) -> None:
        self.state.tfd = registers.error << 8 | registers.status

    def _can_post(self) -> bool:
        return bool(self.state.command & r.CMD_FRE) and self._may_dma()

    def _receive(self, place: int, received: bytes) -> None:
        if self._can_post():
            self._memory.write(self.state.fb + place, received)
