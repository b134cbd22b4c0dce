"""The floppy disk controller of a PC, a CHMOS single-chip 82078 (in most of it an 82077AA), and its two drives.

Source: Intel 82077AA (290166) and 82078 (290474) data sheets: registers, "Command Set/Descriptions", "Status
Register Encoding", "Data Transfer Commands".

    offset  read                            write
    0       SRA, status A (PS/2 mode)
    1       SRB, status B (PS/2 mode)
    2       DOR, digital output             DOR
    3       TDR, tape drive                 TDR
    4       MSR, main status                DSR, data rate select
    5       FIFO                            FIFO
    7       DIR, digital input              CCR, configuration control

DOR alone selects a drive, and only with its motor on; DS of a command says whose PCN and status are meant. In AT
mode SRA and SRB are not driven and DMAGATE# of DOR cuts off IRQ and DMA request; in PS/2 mode it does nothing.
INT falls when the last result byte has been read.

Not modelled: time (a drive is at speed, a head where it was sent, a sector under it at once; so no overrun, and the
drive busy bits of MSR are never seen; in an empty drive, for whose index pulses a real controller waits, no address
mark is found at once), the read and write toggles of SRB, Model 30 mode, tape drives, perpendicular recording (the
mode is kept only), power down (kept only), FM (the MFM bit is not looked at), sectors of other than 512 bytes,
formats other than that of the medium: FORMAT refuses them with "not writable".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import ClassVar

from portvisor.devices.floppy import registers as r
from portvisor.devices.floppy.commands import DECODE, INVALID, is_complete
from portvisor.devices.floppy.drive import FloppyDrive
from portvisor.devices.floppy.media import RATE_1M, RATE_500K
from portvisor.devices.floppy.state import COMMAND, DRIVES, EXECUTION, NOTHING, RESULT, ChipState
from portvisor.devices.floppy.transfer import DMA_CHANNEL, Transfers
from portvisor.devices.i8237 import DmaController
from portvisor.ports import BlockBackend, Device, GuestMemory, IrqLine, PortRange, Snapshot, SnapshotError

BASE = 0x3F0
PORTS = 6
OPEN_BUS = 0xFF


class HostMode(Enum):
    """The chip's IDENT and MFM pins."""

    AT = "AT"
    PS2 = "PS/2"


class FloppyController(Device):
    """The controller.

    Args:
        irq: INT, IRQ 6 in a PC.
        dma: whose channel 2 the data goes through.
        memory: what the channel reads and writes.
        drives: A and B; None where there is none.
        mode: how the registers look.
        base: address of SRA.
        decode_sra: whether SRA is at its port; many boards have another chip there.
        select_by_command: how the drives are wired: to DS of the last command (or DOR) and with motors that always
            run, as to an 8272A, instead of to DOR's drive select and motor lines.
        enabled_after_reset: RESET leaves the chip as firmware would: enabled, at 500 kb/s, all statuses taken.
    """

    name = "floppy"
    REGISTERS: ClassVar[Mapping[int, str]] = {
        r.SRA: "SRA", r.SRB: "SRB", r.DOR: "DOR", r.TDR: "TDR", r.MSR: "MSR", r.FIFO: "FIFO", r.DIR: "DIR",
    }  # fmt: skip
    WRITE_NAMES: ClassVar[Mapping[int, str]] = {r.DSR: "DSR", r.CCR: "CCR"}
    State = ChipState
    state: ChipState

    def __init__(
        self,
        irq: IrqLine,
        dma: DmaController,
        memory: GuestMemory,
        drives: Sequence[FloppyDrive | None] = (None, None),
        *,
        mode: HostMode = HostMode.PS2,
        base: int = BASE,
        decode_sra: bool = True,
        select_by_command: bool = False,
        enabled_after_reset: bool = False,
    ) -> None:
        first = r.SRA if decode_sra else r.SRB
        self.ports = (
            PortRange(base + first, PORTS - first, name="floppy", offset=first),
            PortRange(base + r.DIR, 1, name="floppy", offset=r.DIR),
        )
        super().__init__()
        self.mode = mode
        self.select_by_command = select_by_command
        self._enabled_after_reset = enabled_after_reset
        self.drives: list[FloppyDrive | None] = list(drives[:2]) + [None] * (2 - len(drives))
        self._irq = irq
        self._transfers = Transfers(self, dma, memory)
        dma.connect(DMA_CHANNEL, self._go_on)
        self._power_up()

    def _power_up(self) -> None:
        """What a fresh state lacks."""
        if self._enabled_after_reset:
            self.state.dor = r.DOR_DMAGATE | r.DOR_RESET
            self.state.dsr = RATE_500K
        self.state.drives = [drive.state if drive else None for drive in self.drives]

    def insert(self, number: int, image: BlockBackend | None) -> None:
        """Change the medium of drive 0 or 1; None takes it out.

        Raises:
            ValueError: there is no such drive, or (MediumError) the medium does not fit it.
        """
        drive = self.drives[number] if 0 <= number < len(self.drives) else None
        if drive is None:
            raise ValueError(f"there is no floppy drive {number}")
        drive.insert(image)
        self._go_on()

    # --- signals --------------------------------------------------------------------------------------

    def selected(self) -> FloppyDrive | None:
        """The drive that DOR selects: its motor must be on too. Or the one that a command selects."""
        dor = self.state.dor
        if self.select_by_command:
            return self.drives[self.state.unit] if self.state.unit < len(self.drives) else None
        number = dor & r.DOR_DRIVE_SEL
        if number >= len(self.drives) or not dor >> (r.DOR_MOT_EN_SHIFT + number) & 1:
            return None
        return self.drives[number]

    def gate_open(self) -> bool:
        """Whether interrupts and DMA requests get out."""
        return self.mode is HostMode.PS2 or bool(self.state.dor & r.DOR_DMAGATE)

    def _update_irq(self) -> None:
        self._irq.set(self.state.interrupt and self.gate_open())

    def _go_on(self) -> None:
        """Something that a command may have waited for has happened."""
        if self.state.phase == EXECUTION:
            self._transfers.run()
        self._update_irq()

    # --- life -----------------------------------------------------------------------------------------

    def reset(self) -> None:
        """RESET: held in reset until DOR lets go. Drives do not see it."""
        super().reset()
        self._power_up()
        self._transfers.stop()
        self._update_irq()

    def restore(self, snapshot: Snapshot) -> None:
        """Put a snapshot back; what is on the media is not part of it.

        Raises:
            SnapshotError: it is of another device or version, or other drives were attached.
        """
        if isinstance(snapshot.state, ChipState):
            saved = [state is not None for state in snapshot.state.drives]
            if saved != [drive is not None for drive in self.drives]:
                raise SnapshotError(f"{self.name}: snapshot was taken with other drives attached")
        super().restore(snapshot)

    def restored(self) -> None:
        for drive, state in zip(self.drives, self.state.drives, strict=True):
            if drive and state:
                drive.state = state
        self._update_irq()

    def _software_reset(self) -> None:
        """By DOR or DSR: what is not locked gets its default; a command in progress is gone."""
        state = self.state
        kept = r.CONFIG_FIFO if state.locked else 0
        state.config = state.config & kept | r.CONFIG_EFIFO & ~kept
        if not state.locked:
            state.precompensation_track = 0
        state.perpendicular &= r.PERPENDICULAR_DRIVES
        state.cylinders[:] = [0] * DRIVES
        state.pending[:] = [NOTHING] * DRIVES
        state.phase, state.interrupt = COMMAND, False
        state.command.clear()
        state.results.clear()
        self._transfers.stop()

    def _poll_drives(self) -> None:
        """What polling finds after a reset: every drive has become ready."""
        self.state.pending[:] = [r.ST0_POLLING | drive for drive in range(DRIVES)]
        self.state.interrupt = True

    # --- registers ------------------------------------------------------------------------------------

    def register_name(self, offset: int, size: int, write: bool) -> str:
        return (self.WRITE_NAMES.get(offset) if write else None) or self.REGISTERS.get(offset, "")

    def read(self, offset: int, size: int) -> int:
        if offset == r.MSR:
            return self._main_status()
        if offset == r.FIFO:
            return self._read_fifo()
        if offset == r.DOR:
            return self.state.dor
        if offset == r.TDR:
            return OPEN_BUS & ~r.TDR_TAPE_SEL | self.state.tdr
        if offset == r.DIR:
            return self._digital_input()
        if self.mode is HostMode.AT:
            return OPEN_BUS
        return self._status_a() if offset == r.SRA else self._status_b()

    def write(self, offset: int, size: int, value: int) -> None:
        state = self.state
        if offset == r.FIFO:
            self._write_fifo(value)
        elif offset == r.DOR:
            self._write_dor(value)
        elif offset == r.TDR:
            state.tdr = value & r.TDR_TAPE_SEL
        elif offset == r.DSR:
            self._write_dsr(value)
        elif offset == r.CCR:
            state.dsr = state.dsr & ~r.DSR_RATE | value & r.DSR_RATE
            self._go_on()

    def _main_status(self) -> int:
        state = self.state
        if not state.dor & r.DOR_RESET:
            return 0
        if state.phase == COMMAND:
            return r.MSR_RQM | (r.MSR_CMD_BSY if state.command else 0)
        if state.phase == RESULT:
            return r.MSR_RQM | r.MSR_DIO | r.MSR_CMD_BSY
        status = r.MSR_CMD_BSY | (r.MSR_NON_DMA if state.transfer.non_dma else 0)
        if self._transfers.fifo_ready():
            status |= r.MSR_RQM | (r.MSR_DIO if self._transfers.reads() else 0)
        return status

    def _digital_input(self) -> int:
        drive = self.selected()
        changed = r.DIR_DSKCHG if drive and drive.state.changed else 0
        if self.mode is HostMode.AT:
            return changed | OPEN_BUS & ~r.DIR_DSKCHG
        rate = self.state.dsr & r.DSR_RATE
        low_density = 0 if rate in (RATE_500K, RATE_1M) else r.DIR_HIGH_DEN
        return changed | r.DIR_ONES | rate << r.DIR_RATE_SHIFT | low_density

    def _status_a(self) -> int:
        state, drive = self.state, self.selected()
        value = r.SRA_INDX | (r.SRA_INT_PENDING if state.interrupt else 0)
        value |= 0 if self.drives[1] else r.SRA_DRV2
        value |= 0 if drive and drive.at_track_0 else r.SRA_TRK0
        value |= 0 if drive and drive.write_protected else r.SRA_WP
        return value | (r.SRA_HDSEL if state.transfer.head else 0) | (r.SRA_DIR if state.inwards else 0)

    def _status_b(self) -> int:
        dor = self.state.dor
        select = r.SRB_DRIVE_SEL_0 if dor & 1 else 0
        return r.SRB_ONES | select | dor >> r.DOR_MOT_EN_SHIFT & r.SRB_MOT_EN

    def _write_dor(self, value: int) -> None:
        before, self.state.dor = self.state.dor, value
        self.state.unit = value & r.DOR_DRIVE_SEL
        if not value & r.DOR_RESET:
            self._software_reset()
        elif not before & r.DOR_RESET:
            self._poll_drives()
        self._go_on()

    def _write_dsr(self, value: int) -> None:
        self.state.dsr = value & r.DSR_KEPT
        if value & r.DSR_SW_RESET and self.state.dor & r.DOR_RESET:
            self._software_reset()
            self._poll_drives()
        self._go_on()

    # --- phases ---------------------------------------------------------------------------------------

    def _write_fifo(self, value: int) -> None:
        state = self.state
        if not state.dor & r.DOR_RESET:
            return
        if state.phase == COMMAND:
            self._write_command(value)
        elif state.phase == EXECUTION and self._transfers.fifo_ready() and not self._transfers.reads():
            self._transfers.put(value)
            self._update_irq()

    def _write_command(self, value: int) -> None:
        state = self.state
        state.command.append(value)
        command = DECODE[state.command[0]]
        if command is None:
            self._answer(INVALID)
        elif is_complete(command, state.command):
            received = bytes(state.command)
            if command.names_drive:
                state.unit = received[1] & r.PARAM_DS
            if command.run:
                self._answer(command.run(self, received))
            else:
                self._transfers.start(command.code, received)
            self._update_irq()

    def _answer(self, results: bytes) -> None:
        """The command has ended; with results there is a result phase."""
        state = self.state
        state.results[:] = results
        if results:
            state.phase = RESULT
        else:
            self._await_command()

    def _await_command(self) -> None:
        state = self.state
        state.phase = COMMAND
        state.command.clear()

    def _read_fifo(self) -> int:
        state = self.state
        if state.phase == EXECUTION and self._transfers.fifo_ready() and self._transfers.reads():
            value = self._transfers.take()
            self._update_irq()
            return value
        return self._read_result() if state.phase == RESULT else 0

    def _read_result(self) -> int:
        """The last byte of a transfer takes its interrupt back; a seek that is still pending gets one."""
        state = self.state
        value = state.results.pop(0)
        if not state.results:
            command = DECODE[state.command[0]]
            if command and not command.run:
                state.interrupt = False
                self._update_irq()
            self._await_command()
            state.interrupt |= any(status & r.ST0_SE for status in state.pending if status != NOTHING)
            self._update_irq()
        return value
