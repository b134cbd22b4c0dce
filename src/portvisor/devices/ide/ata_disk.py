"""An ATA hard disk (T13/1410D ATA-6; queued commands: Serial ATA 2.6, clause 13.6) over a `BlockBackend`.

    command                        code      command                     code
    READ SECTOR(S) (EXT)           20 21 24  WRITE SECTOR(S) (EXT)       30 31 34
    READ MULTIPLE (EXT)            C4 29     WRITE MULTIPLE (EXT, FUA)   C5 39 CE
    READ DMA (EXT) *               C8 C9 25  WRITE DMA (EXT, FUA) *      CA CB 35 3D
    READ FPDMA QUEUED *            60        WRITE FPDMA QUEUED *        61
    READ LOG EXT *                 2F
    READ VERIFY SECTOR(S) (EXT)    40 41 42  FLUSH CACHE (EXT)           E7 EA
    SET MULTIPLE MODE              C6        INITIALIZE DEVICE PARAMS    91
    READ NATIVE MAX ADDRESS (EXT)  F8 27     IDENTIFY DEVICE             EC
    RECALIBRATE, SEEK              1x 7x     and those in drive.py
    * only on Transport.SATA; aborted elsewhere

Addresses are CHS, LBA28 or LBA48. A transfer is streamed one DRQ block at a time (a DMA command in blocks of
64 KiB), so a count of 65,536 sectors needs no more memory than one. An address outside the medium fails
before any data moves, with IDNF and the first such address in the registers. The host's read errors are UNC,
its write errors ABRT.

Not modelled: SMART, security, host protected area (READ NATIVE MAX ADDRESS answers, SET MAX is aborted),
READ/WRITE BUFFER, microcode download, power-up in standby; of the logs only the directory and the queued
error log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

from portvisor.devices.ide.drive import (
    DATA_IN,
    DISABLE_LOOK_AHEAD,
    DISABLE_WRITE_CACHE,
    ENABLE_LOOK_AHEAD,
    ENABLE_WRITE_CACHE,
    POWER_ACTIVE,
    Drive,
    DriveState,
    Transport,
)
from portvisor.devices.ide.identify import IdentifyWords, Identity
from portvisor.devices.ide.registers import (
    ABRT,
    COMMAND,
    DEVICE,
    DEVICE_HEAD,
    DEVICE_LBA,
    DRDY,
    DSC,
    IDNF,
    LBA28_SECTORS,
    LBA48_SECTORS,
    LBA_LOW,
    LBA_MID,
    SECTOR_COUNT,
    UNC,
)
from portvisor.ports import SECTOR_SIZE, BlockBackend

MAX_MULTIPLE = 16
"""Largest DRQ block of READ/WRITE MULTIPLE in sectors (IDENTIFY word 47)."""
DMA_BLOCK = 128
"""Sectors moved at once by a DMA command."""
QUEUE_DEPTH = 32
IDENTIFY_DEVICE = 0xEC
LOG_DIRECTORY, LOG_QUEUED_ERROR = 0x00, 0x10
DEVICE_FUA = 0x80
"""Force unit access, in Device of WRITE FPDMA QUEUED."""
MAX_CYLINDERS, MAX_HEADS, MAX_SECTORS = 16_383, 16, 63
"""Largest default translation (IDENTIFY words 1, 3 and 6)."""

DISK_IDENTITY = Identity(model="PORTVISOR HARDDISK", serial="PV00000001", firmware="1.0")


@dataclass(frozen=True, slots=True)
class Access:
    """What sets one read or write command apart from the others."""

    write: bool = False
    ext: bool = False
    multiple: bool = False
    dma: bool = False
    queued: bool = False
    through: bool = False
    """Force unit access: on stable storage before the command completes."""
    verify: bool = False
    """Read without moving data to the host."""


ACCESSES = {
    0x20: Access(),
    0x21: Access(),
    0x24: Access(ext=True),
    0x25: Access(ext=True, dma=True),
    0x29: Access(ext=True, multiple=True),
    0x30: Access(write=True),
    0x31: Access(write=True),
    0x34: Access(write=True, ext=True),
    0x35: Access(write=True, ext=True, dma=True),
    0x39: Access(write=True, ext=True, multiple=True),
    0x3D: Access(write=True, ext=True, dma=True, through=True),
    0x40: Access(verify=True),
    0x41: Access(verify=True),
    0x42: Access(ext=True, verify=True),
    0x60: Access(ext=True, dma=True, queued=True),
    0x61: Access(write=True, ext=True, dma=True, queued=True),
    0xC4: Access(multiple=True),
    0xC5: Access(write=True, multiple=True),
    0xC8: Access(dma=True),
    0xC9: Access(dma=True),
    0xCA: Access(write=True, dma=True),
    0xCB: Access(write=True, dma=True),
    0xCE: Access(write=True, ext=True, multiple=True, through=True),
}


@dataclass(frozen=True, slots=True)
class Geometry:
    """A CHS translation."""

    cylinders: int
    heads: int
    sectors: int

    @classmethod
    def default(cls, total: int) -> Geometry:
        """The translation a disk of `total` sectors comes up with: never more than the disk holds."""
        sectors = min(MAX_SECTORS, total)
        heads = min(MAX_HEADS, total // sectors)
        return cls(min(MAX_CYLINDERS, total // (heads * sectors)), heads, sectors)

    @property
    def capacity(self) -> int:
        """Sectors that the translation reaches."""
        return self.cylinders * self.heads * self.sectors

    def to_lba(self, cylinder: int, head: int, sector: int) -> int | None:
        """The sector's number, None if there is no such address. Sectors of a track count from 1."""
        if cylinder >= self.cylinders or head >= self.heads or not 1 <= sector <= self.sectors:
            return None
        return (cylinder * self.heads + head) * self.sectors + sector - 1

    def to_chs(self, lba: int) -> tuple[int, int, int]:
        """Cylinder, head and sector of a sector's number."""
        track, sector = divmod(lba, self.sectors)
        return track // self.heads, track % self.heads, sector + 1


@dataclass
class DiskState(DriveState):
    """A disk's registers and the transfer under way."""

    lba: int = 0
    """First sector of the present block."""
    remaining: int = 0
    """Sectors still to move, the present block included."""
    multiple: int = 0
    """Sectors per block of READ/WRITE MULTIPLE; 0 is disabled."""
    heads: int = 0
    sectors: int = 0
    """Translation set by INITIALIZE DEVICE PARAMETERS; 0 is the default one."""
    write_cache: bool = True
    look_ahead: bool = True
    queued_error: bytes = b""
    """Registers after the last queued command that failed, as the queued error log has them."""


class AtaDisk(Drive):
    """A hard disk with sectors of 512 bytes.

    Args:
        backend: the medium; its size must not change.
        identity: what IDENTIFY DEVICE reports.
        transport: PIO for `IdeChannel`, SATA for an AHCI port.

    Raises:
        ValueError: the medium is empty or beyond what 48 bits address.
    """

    State: ClassVar[type[DriveState]] = DiskState
    SIGNATURE = (0x01, 0x01, 0x00, 0x00)
    RESET_STATUS = DRDY | DSC
    state: DiskState

    def __init__(
        self,
        backend: BlockBackend,
        identity: Identity = DISK_IDENTITY,
        transport: Transport = Transport.PIO,
    ) -> None:
        if not 1 <= backend.sectors <= LBA48_SECTORS:
            raise ValueError(f"disk of {backend.sectors} sectors: 1 to {LBA48_SECTORS} are possible")
        self.backend = backend
        self.identity = identity
        self.sectors = backend.sectors
        self.default_geometry = Geometry.default(self.sectors)
        super().__init__(transport)

    def command_table(self) -> dict[int, Callable[[], None]]:
        table = super().command_table()
        table.update({code: partial(self._access, access) for code, access in ACCESSES.items()})
        table.update(dict.fromkeys(range(0x10, 0x20), self._complete))
        table.update(dict.fromkeys(range(0x70, 0x80), self._seek))
        table.update(
            {
                0x27: partial(self._read_native_max, True),
                0x91: self._initialize_parameters,
                0xC6: self._set_multiple_mode,
                0xE7: self._flush_cache,
                0xEA: self._flush_cache,
                0x2F: self._read_log,
                IDENTIFY_DEVICE: self._identify,
                0xF8: partial(self._read_native_max, False),
            }
        )
        return table

    # --- addresses ----------------------------------------------------------------------------------

    @property
    def geometry(self) -> Geometry:
        """The CHS translation in force."""
        heads, sectors = self.state.heads, self.state.sectors
        if not heads:
            return self.default_geometry
        return Geometry(min(0xFFFF, self.sectors // (heads * sectors)), heads, sectors)

    def _address(self, ext: bool) -> int | None:
        """The sector that the registers name, None if no CHS address is there."""
        registers = self.state.registers
        if ext:
            return registers.lba48
        device = registers.current[DEVICE]
        if device & DEVICE_LBA:
            return registers.lba28
        return self.geometry.to_lba(registers.cylinder, device & DEVICE_HEAD, registers.current[LBA_LOW])

    def _post_address(self, lba: int, ext: bool) -> None:
        """Put a sector's address into the registers, in the form the command used."""
        registers = self.state.registers
        if ext:
            registers.lba48 = lba
        elif registers.current[DEVICE] & DEVICE_LBA:
            registers.lba28 = lba
        else:
            registers.cylinder, head, registers.current[LBA_LOW] = self.geometry.to_chs(lba)
            registers.current[DEVICE] = registers.current[DEVICE] & ~DEVICE_HEAD | head & DEVICE_HEAD

    def _post_count(self, ext: bool) -> None:
        """Put the number of sectors not moved into the registers."""
        registers = self.state.registers
        registers.current[SECTOR_COUNT] = self.state.remaining & 0xFF
        if ext:
            registers.previous[SECTOR_COUNT] = self.state.remaining >> 8 & 0xFF

    def _reach(self, ext: bool) -> int:
        """Number of sectors that the form of address in the registers reaches."""
        if ext:
            return self.sectors
        if self.state.registers.current[DEVICE] & DEVICE_LBA:
            return min(self.sectors, LBA28_SECTORS)
        return self.geometry.capacity

    def _locate(self, ext: bool, count: int) -> bool:
        """Set `lba` and `remaining` from the registers; fails the command if a sector does not exist."""
        lba = self._address(ext)
        if lba is None:
            self._fail(IDNF)
            return False
        reach = self._reach(ext)
        if lba + count > reach:
            self._post_address(max(lba, reach), ext)
            self._fail(IDNF)
            return False
        self.state.lba, self.state.remaining = lba, count
        self.state.power = POWER_ACTIVE
        return True

    # --- reads and writes ---------------------------------------------------------------------------

    def _access(self, access: Access) -> None:
        if (
            (access.dma and self.transport is not Transport.SATA)
            or (access.multiple and not self.state.multiple)
            or (access.write and self.backend.read_only)
        ):
            self._abort()
        elif self._locate(access.ext, self._count(access)):
            self.state.dma = access.dma
            if access.verify:
                self._verify()
            elif access.write:
                self._request_block()
            else:
                self._offer_block()

    def _count(self, access: Access) -> int:
        registers = self.state.registers
        if access.queued:
            return registers.features16
        return registers.count48 if access.ext else registers.count28

    def _block_sectors(self) -> int:
        """Sectors in the present block."""
        state = self.state
        access = ACCESSES[state.command]
        limit = DMA_BLOCK if access.dma or access.verify else state.multiple if access.multiple else 1
        return min(limit, state.remaining)

    def _request_block(self) -> None:
        self._request(self._block_sectors() * SECTOR_SIZE)

    def _offer_block(self) -> None:
        data = self._read(self._block_sectors())
        if data is not None:
            self._offer(data)

    def _read(self, count: int) -> bytearray | None:
        """`count` sectors from `lba`; on a host error the command has failed at the first bad sector."""
        state = self.state
        data = self._try_read(state.lba, count)
        if data is not None:
            return data
        for _ in range(count - 1):
            if self._try_read(state.lba, 1) is None:
                break
            self._step(1)
        self._fail_transfer(UNC)
        return None

    def _try_read(self, lba: int, count: int) -> bytearray | None:
        try:
            data = self.backend.read(lba, count)
        except OSError:
            return None
        return bytearray(data) if len(data) == count * SECTOR_SIZE else None

    def _step(self, count: int) -> None:
        self.state.lba += count
        self.state.remaining -= count

    def block_done(self) -> None:
        state = self.state
        if state.command not in ACCESSES:  # identify data or a log: one block
            self._finish_data_in()
        elif state.phase == DATA_IN:
            self._step(self._block_sectors())
            if state.remaining:
                self._offer_block()
            else:
                self._post_end()
                self._finish_data_in()
        else:
            self._store_block()

    def _store_block(self) -> None:
        state = self.state
        access = ACCESSES[state.command]
        try:
            self.backend.write(state.lba, bytes(state.buffer))
        except OSError:
            self._fail_transfer(ABRT)
            return
        self._step(self._block_sectors())
        if state.remaining:
            self._request_block()
            state.interrupt = not state.dma
        elif self._must_flush(access) and not self.flush_medium():
            self._fail_transfer(ABRT)
        else:
            self._post_end()
            self._complete()

    def _must_flush(self, access: Access) -> bool:
        fua = access.queued and self.state.registers.current[DEVICE] & DEVICE_FUA
        return bool(access.through or fua or not self.state.write_cache)

    def _post_end(self) -> None:
        """Registers after a good transfer: nothing left, the address of the last sector."""
        access = ACCESSES[self.state.command]
        if not access.queued:
            self._post_count(access.ext)
            self._post_address(self.state.lba - 1, access.ext)

    def _fail_transfer(self, error: int) -> None:
        """End a transfer; the registers say what is left, and the address of the first bad sector."""
        access = ACCESSES[self.state.command]
        if not access.queued:
            self._post_count(access.ext)
        self._post_address(min(self.state.lba, self.sectors - 1), access.ext)
        self._fail(error)

    def _verify(self) -> None:
        while self.state.remaining:
            count = self._block_sectors()
            if self._read(count) is None:
                return
            self._step(count)
        self._post_end()
        self._complete()

    def _fail(self, error: int) -> None:
        super()._fail(error)
        access = ACCESSES.get(self.state.command)
        if access and access.queued:
            self._log_queued_error()

    def _log_queued_error(self) -> None:
        registers = self.state.registers
        now, before = registers.current, registers.previous
        tag = now[SECTOR_COUNT] >> 3
        self.state.queued_error = bytes(
            (tag, 0, registers.status, registers.error, *now[LBA_LOW:COMMAND], *before[LBA_LOW:DEVICE], 0)
        ) + bytes((now[SECTOR_COUNT], before[SECTOR_COUNT]))

    def _read_log(self) -> None:
        """READ LOG EXT of one page (Serial ATA 2.6, 13.7): byte sums are zero, as in the identify data."""
        registers = self.state.registers
        log, page = registers.current[LBA_LOW], registers.current[LBA_MID] | registers.previous[LBA_MID] << 8
        if self.transport is not Transport.SATA or page or registers.count48 != 1:
            self._abort()
        elif log == LOG_DIRECTORY:
            data = bytearray(SECTOR_SIZE)
            data[0] = data[2 * LOG_QUEUED_ERROR] = 1  # version; pages of the log
            self._offer(data)
        elif log == LOG_QUEUED_ERROR:
            data = bytearray((self.state.queued_error or b"\x80").ljust(SECTOR_SIZE, b"\0"))
            data[-1] = -sum(data) & 0xFF
            self._offer(data)
        else:
            self._abort()

    # --- commands without data ------------------------------------------------------------------------

    def _seek(self) -> None:
        if self._locate(False, 1):
            self._complete()

    def _initialize_parameters(self) -> None:
        """INITIALIZE DEVICE PARAMETERS: sectors per track in Sector Count, the last head in Device."""
        current = self.state.registers.current
        sectors, heads = current[SECTOR_COUNT], (current[DEVICE] & DEVICE_HEAD) + 1
        if not sectors or heads * sectors > self.sectors:
            self._abort()
            return
        self.state.heads, self.state.sectors = heads, sectors
        self._complete()

    def _set_multiple_mode(self) -> None:
        count = self.state.registers.current[SECTOR_COUNT]
        if count > MAX_MULTIPLE or count & (count - 1):
            self._abort()
            return
        self.state.multiple = count
        self._complete()

    def _read_native_max(self, ext: bool) -> None:
        last = self.sectors - 1
        if not ext:
            lba28 = self.state.registers.current[DEVICE] & DEVICE_LBA
            last = min(last, (LBA28_SECTORS if lba28 else self.geometry.capacity) - 1)
        self._post_address(last, ext)
        self._complete()

    def _flush_cache(self) -> None:
        if self.flush_medium():
            self._complete()
        else:
            self._abort()

    def flush_medium(self) -> bool:
        try:
            self.backend.flush()
        except OSError:
            return False
        return True

    def set_feature(self, subcommand: int) -> bool:
        state = self.state
        if subcommand in (ENABLE_WRITE_CACHE, DISABLE_WRITE_CACHE):
            state.write_cache = subcommand == ENABLE_WRITE_CACHE
            return state.write_cache or self.flush_medium()
        if subcommand in (ENABLE_LOOK_AHEAD, DISABLE_LOOK_AHEAD):
            state.look_ahead = subcommand == ENABLE_LOOK_AHEAD
            return True
        return super().set_feature(subcommand)

    def revert_to_defaults(self) -> None:
        super().revert_to_defaults()
        state = self.state
        state.multiple = state.heads = state.sectors = 0
        state.write_cache = state.look_ahead = True

    # --- IDENTIFY DEVICE ------------------------------------------------------------------------------

    def _identify(self) -> None:
        words = IdentifyWords(self.identity)
        self._identify_geometry(words)
        self.identify_modes(words)
        self._identify_features(words)
        if self.transport is Transport.SATA:
            self._identify_sata(words)
        self._offer(words.finish())

    def _identify_geometry(self, words: IdentifyWords) -> None:
        default, current = self.default_geometry, self.geometry
        words[0] = 0x0040  # ATA device, not removable
        words[1], words[3], words[6] = default.cylinders, default.heads, default.sectors
        words[2] = 0xC837  # needs no SET FEATURES to spin up; this data is complete
        words[47] = 0x8000 | MAX_MULTIPLE
        words[54], words[55], words[56] = current.cylinders, current.heads, current.sectors
        words.wide(57, 2, current.capacity)
        words[59] = 0x0100 | self.state.multiple if self.state.multiple else 0
        words.wide(60, 2, min(self.sectors, LBA28_SECTORS - 1))
        words.wide(100, 4, min(self.sectors, LBA48_SECTORS - 1))

    def _identify_features(self, words: IdentifyWords) -> None:
        state = self.state
        words[50] = 0x4000
        words[80] = 0x0070  # ATA-4, ATA-5, ATA-6
        words[81] = 0x0022  # ATA-6 as published, INCITS 361-2002
        words[82] = 0x0068  # look-ahead, write cache, power management
        words[83] = 0x7400  # FLUSH CACHE (EXT), 48-bit addresses
        words[84] = 0x4000
        words[85] = 0x0008 | 0x20 * state.write_cache | 0x40 * state.look_ahead
        words[86] = 0x3400
        words[87] = 0x4000

    def _identify_sata(self, words: IdentifyWords) -> None:
        words[75] = QUEUE_DEPTH - 1
        words[76] = 0x0106  # NCQ, 1.5 and 3.0 Gb/s
        words[80] = 0x00F0  # ATA-4 to ATA-7
        words[81] = 0x0000
        words[84] = words[87] = 0x4060  # WRITE DMA/MULTIPLE FUA EXT, general purpose logs
