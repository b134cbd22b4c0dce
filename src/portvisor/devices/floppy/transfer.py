"""The commands that reach the medium, sector by sector.

A command goes on as far as it can at once. It waits for the host (a DMA channel that is masked, the FIFO in non-DMA
mode) and for index pulses (motor off), and is taken up again by `run`.
"""

from __future__ import annotations

from portvisor.devices.floppy import registers as r
from portvisor.devices.floppy.commands import Chip, seek_to
from portvisor.devices.floppy.drive import SECTOR_CODE, FloppyDrive
from portvisor.devices.floppy.state import EXECUTION, RESULT
from portvisor.devices.i8237 import DmaController
from portvisor.ports import SECTOR_SIZE, GuestMemory

DMA_CHANNEL = 2
ID_SIZE = 4
COUNT_OF_0 = 256
"""What 0 means in a count of sectors."""

READS = frozenset((r.READ_DATA, r.READ_DELETED, r.READ_TRACK))
WRITES = frozenset((r.WRITE_DATA, r.WRITE_DELETED))
FORMATS = frozenset((r.FORMAT_TRACK, r.FORMAT_AND_WRITE))
IMPLIED_SEEKS = READS | WRITES | {r.VERIFY}


class Transfers:
    """Carries them out."""

    def __init__(self, chip: Chip, dma: DmaController, memory: GuestMemory) -> None:
        self._chip = chip
        self._dma = dma
        self._memory = memory

    # --- start and end --------------------------------------------------------------------------------

    def start(self, code: int, command: bytes) -> None:
        """Begin the execution phase of a command with all its bytes."""
        chip = self._chip
        state, t = chip.state, chip.state.transfer
        t.code = code
        t.multi_track, t.skip = bool(command[0] & r.CMD_MT), bool(command[0] & r.CMD_SK)
        t.non_dma = bool(state.load_and_mode & r.SPECIFY_ND)
        t.drive, t.head = command[1] & r.PARAM_DS, 1 if command[1] & r.PARAM_HDS else 0
        t.st0 = t.st1 = t.st2 = t.left = t.passed = 0
        t.opened = t.last = False
        self._take_parameters(code, command)
        if code in IMPLIED_SEEKS and state.config & r.CONFIG_EIS and seek_to(chip, t.drive, t.c):
            t.st0 = r.ST0_SE
        state.phase = EXECUTION
        if not t.non_dma and code in READS | WRITES | FORMATS:
            self._dma.request(DMA_CHANNEL, 1)
        self.run()

    def _take_parameters(self, code: int, command: bytes) -> None:
        state, t = self._chip.state, self._chip.state.transfer
        if code in FORMATS:
            t.multi_track = t.skip = False
            t.n, t.left, t.fill = command[2], command[3] or COUNT_OF_0, command[5]
            state.last_sector = command[3]
        elif code != r.READ_ID:
            t.c, t.h, t.r, t.n, t.eot = command[2:7]
            state.last_sector = t.eot
            if code == r.VERIFY and command[1] & r.VERIFY_EC:
                t.left = command[8] or COUNT_OF_0
            elif code == r.READ_TRACK:
                t.left = t.eot or COUNT_OF_0

    def stop(self) -> None:
        """A reset: no request is left."""
        self._dma.request(DMA_CHANNEL, 0)

    def _finish(self, code: int = 0) -> None:
        """Enter the result phase."""
        state, t = self._chip.state, self._chip.state.transfer
        t.opened = False
        t.data.clear()
        st0 = t.st0 | code | (r.ST0_H if t.head else 0) | t.drive
        state.results[:] = (st0, t.st1, t.st2, t.c, t.h, t.r, t.n)
        state.phase = RESULT
        state.interrupt = True
        self._dma.request(DMA_CHANNEL, 0)

    def _fail(self, st1: int, st2: int = 0) -> None:
        t = self._chip.state.transfer
        t.st1 |= st1
        t.st2 |= st2
        self._finish(r.ST0_ABNORMAL)

    # --- sectors --------------------------------------------------------------------------------------

    def run(self) -> None:
        """Go on as far as possible."""
        state, t = self._chip.state, self._chip.state.transfer
        while state.phase == EXECUTION:
            drive = self._chip.selected()
            if drive is None and not self._chip.select_by_command:
                return
            if drive is None or drive.image is None:
                self._fail(r.ST1_MA)
            elif not t.opened:
                self._open(drive)
            elif not self._exchange():
                return
            else:
                t.opened = False
                self._close(drive)

    def _open(self, drive: FloppyDrive) -> None:
        """Find the next sector, or end the command, or step over a sector."""
        t = self._chip.state.transfer
        if t.code == r.READ_ID:
            self._read_id(drive)
        elif t.code in WRITES | FORMATS and drive.write_protected:
            self._fail(r.ST1_NW)
        elif t.code in FORMATS:
            self._want(ID_SIZE + (SECTOR_SIZE if t.code == r.FORMAT_AND_WRITE else 0))
        elif t.code == r.READ_TRACK:
            self._open_track(drive)
        elif self._find(drive):
            self._open_sector(drive)

    def _want(self, length: int) -> None:
        t = self._chip.state.transfer
        t.opened, t.wanted = True, length
        t.data.clear()

    def _offer(self, drive: FloppyDrive, track: int, record: int) -> None:
        """Read a sector for the host."""
        t = self._chip.state.transfer
        try:
            t.data[:] = drive.read(track, t.head, record)
        except OSError:
            self._fail(r.ST1_DE, r.ST2_DD)
            return
        t.opened, t.position = True, 0

    def _track(self, drive: FloppyDrive) -> int | None:
        """The C of the IDs under the head; without any the command ends."""
        state, t = self._chip.state, self._chip.state.transfer
        track = drive.track(t.head, state.dsr & r.DSR_RATE)
        if track is None:
            self._fail(r.ST1_MA)
        return track

    def _read_id(self, drive: FloppyDrive) -> None:
        t = self._chip.state.transfer
        track = self._track(drive)
        if track is not None:
            t.c, t.h, t.r, t.n = track, t.head, drive.next_id(), SECTOR_CODE
            self._finish()

    def _find(self, drive: FloppyDrive) -> bool:
        """Look for the ID; without it the command ends."""
        t = self._chip.state.transfer
        track = self._track(drive)
        if track is None:
            return False
        found = track == t.c and t.head == t.h and t.n == SECTOR_CODE and 1 <= t.r <= drive.sectors
        if not found:
            self._fail(r.ST1_ND, 0 if track == t.c else r.ST2_WC)
        return found

    def _open_sector(self, drive: FloppyDrive) -> None:
        t = self._chip.state.transfer
        if t.code in WRITES:
            self._want(SECTOR_SIZE)
            return
        if drive.is_deleted(t.c, t.head, t.r) != (t.code == r.READ_DELETED):
            t.st2 |= r.ST2_CM
            if t.skip:
                self._after_sector(ended=False)
                return
            t.last = True
        self._offer(drive, t.c, t.r)

    def _open_track(self, drive: FloppyDrive) -> None:
        """READ TRACK: the next sector from the index hole on, whatever its ID."""
        t = self._chip.state.transfer
        track = self._track(drive)
        if track is None:
            return
        record = t.passed % drive.sectors + 1
        t.passed += 1
        if (t.c, t.h, t.r, t.n) != (track, t.head, record, SECTOR_CODE):
            t.st1 |= r.ST1_ND
        self._offer(drive, track, record)

    # --- the host -------------------------------------------------------------------------------------

    def _exchange(self) -> bool:
        """Move the sector's bytes; False if the host is not done with them."""
        t = self._chip.state.transfer
        if t.code == r.VERIFY:
            return True
        writing = t.code not in READS
        if t.non_dma:
            if (len(t.data) == t.wanted) if writing else (t.position == SECTOR_SIZE):
                return True
            self._chip.state.interrupt = True
            return False
        if not self._chip.gate_open():
            return False
        return self._dma_from_host() if writing else self._dma_to_host()

    def _dma_to_host(self) -> bool:
        t = self._chip.state.transfer
        moved = self._dma.transfer(DMA_CHANNEL, self._memory, bytes(t.data[t.position :]))
        t.position += moved.length
        t.last |= moved.terminal_count
        return moved.terminal_count or t.position == SECTOR_SIZE

    def _dma_from_host(self) -> bool:
        t = self._chip.state.transfer
        moved = self._dma.transfer(DMA_CHANNEL, self._memory, length=t.wanted - len(t.data))
        t.data += moved.data.ljust(moved.length, b"\xff")
        t.last |= moved.terminal_count
        return moved.terminal_count or len(t.data) == t.wanted

    def fifo_ready(self) -> bool:
        """Non-DMA mode: whether the FIFO wants or has a byte."""
        t = self._chip.state.transfer
        if not t.opened or not t.non_dma or t.code == r.VERIFY:
            return False
        return t.position < len(t.data) if self.reads() else len(t.data) < t.wanted

    def reads(self) -> bool:
        """The direction of the FIFO: to the host."""
        return self._chip.state.transfer.code in READS

    def take(self) -> int:
        """Non-DMA mode: the host reads a byte."""
        t = self._chip.state.transfer
        value = t.data[t.position]
        t.position += 1
        self.run()
        return value

    def put(self, value: int) -> None:
        """Non-DMA mode: the host writes a byte."""
        self._chip.state.transfer.data.append(value)
        self.run()

    # --- after a sector -------------------------------------------------------------------------------

    def _close(self, drive: FloppyDrive) -> None:
        t = self._chip.state.transfer
        if t.code in FORMATS:
            self._format(drive)
            return
        if t.code in WRITES:
            try:
                drive.write(
                    t.c, t.head, t.r, bytes(t.data.ljust(SECTOR_SIZE, b"\0")), deleted=t.code == r.WRITE_DELETED
                )
            except OSError:
                self._fail(r.ST1_NW)
                return
        if t.last and t.st2 & r.ST2_CM and not t.skip:
            self._finish()
            return
        if t.left:
            t.left -= 1
            t.last |= t.left == 0
        self._after_sector(ended=t.last)

    def _after_sector(self, *, ended: bool) -> None:
        """Go on to the next sector, or end."""
        t = self._chip.state.transfer
        more = self._advance()
        if ended or (not more and t.code == r.VERIFY and not self._counts()):
            self._finish()
        elif not more and t.code != r.READ_TRACK:
            self._fail(r.ST1_EN)

    def _counts(self) -> bool:
        """VERIFY with EC, whose count has not run out."""
        return self._chip.state.transfer.left > 0

    def _advance(self) -> bool:
        """The ID after this one; False if this was the last of the track, or of the cylinder."""
        t = self._chip.state.transfer
        if t.r != t.eot:
            t.r = (t.r + 1) & 0xFF
            return True
        t.r = 1
        if t.multi_track:
            t.h ^= 1
            t.head ^= 1
            if t.head:
                return True
        t.c = (t.c + 1) & 0xFF
        return False

    def _format(self, drive: FloppyDrive) -> None:
        """Write a sector with the ID that the host gave; the medium takes its own format only."""
        state, t = self._chip.state, self._chip.state.transfer
        unit = t.data.ljust(t.wanted, b"\xff")
        t.c, t.h, t.r, t.n = unit[:ID_SIZE]
        track = drive.track(t.head, state.dsr & r.DSR_RATE)
        fits = t.c == track and t.h == t.head and t.n == SECTOR_CODE and 1 <= t.r <= drive.sectors
        data = bytes(unit[ID_SIZE:]) if t.code == r.FORMAT_AND_WRITE else bytes((t.fill,)) * SECTOR_SIZE
        try:
            if fits:
                drive.write(t.c, t.head, t.r, data)
        except OSError:
            fits = False
        t.left -= 1
        if not fits:
            self._fail(r.ST1_NW)
        elif t.last or not t.left:
            self._finish()
