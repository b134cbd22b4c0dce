"""The SCSI command set of a CD-ROM drive (MMC-3, T10/1363D; SPC-3 for INQUIRY and REQUEST SENSE).

    TEST UNIT READY       00    READ (10), (12)               28 A8    READ TOC/PMA/ATIP      43
    REQUEST SENSE         03    READ CD                       BE       READ DISC INFORMATION  51
    INQUIRY               12    READ CAPACITY                 25       MODE SENSE (10)        5A
    START STOP UNIT       1B    SEEK (10)                     2B       MECHANISM STATUS       BD
    PREVENT ALLOW REMOVAL 1E    GET CONFIGURATION             46       SET CD SPEED           BB
                                GET EVENT STATUS NOTIFICATION 4A

A disc is one session with one data track in mode 1, blocks of 2,048 bytes. Bigger images than a CD's are read
all the same; where an address is in minutes, seconds and frames it stops at 99:59:74.

Not modelled: audio, DVD structures and profiles, MODE SELECT, raw sectors (READ CD gives user data only),
mechanical delays (a loaded disc is ready at once).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from portvisor.ports import SECTOR_SIZE, BlockBackend

BLOCK_SIZE = 2048
SECTORS_PER_BLOCK = BLOCK_SIZE // SECTOR_SIZE
CDB_LENGTH = 12
MAX_BLOCKS = 1 << 32

# Operation codes
REQUEST_SENSE = 0x03
INQUIRY = 0x12
GET_CONFIGURATION = 0x46
GET_EVENT_STATUS = 0x4A
ATTENTION_EXEMPT = frozenset({REQUEST_SENSE, INQUIRY, GET_CONFIGURATION, GET_EVENT_STATUS})
"""Commands that are carried out while a unit attention is pending (SPC-3, 5.9.7; MMC-3, 4.2.3)."""

# Sense keys (SPC-3, table 27)
NO_SENSE = 0x0
NOT_READY = 0x2
MEDIUM_ERROR = 0x3
ILLEGAL_REQUEST = 0x5
UNIT_ATTENTION = 0x6

# Media events (MMC-3, table 92) and media status bits
EVENT_NONE, EVENT_EJECT_REQUEST, EVENT_NEW_MEDIA, EVENT_MEDIA_REMOVAL = range(4)
MEDIA_CLASS = 4
MEDIA_TRAY_OPEN = 0x01
MEDIA_PRESENT = 0x02

PROFILE_CD_ROM = 0x0008
LEAD_OUT = 0xAA
DATA_TRACK = 0x14
"""ADR 1 (position), control 4 (data, copying prohibited)."""
MSF_OFFSET = 150
"""Frames of the pregap: block 0 is at 00:02:00."""
LAST_MSF = 100 * 60 * 75 - 1
READ_SPEED = 4234
"""KB/s: 24 times."""
BUFFER_KB = 512


@dataclass(frozen=True, slots=True)
class Sense:
    """Why a command was not carried out."""

    key: int
    code: int
    qualifier: int = 0
    block: int | None = None
    """The bad block, for medium errors."""


GOOD = Sense(NO_SENSE, 0x00)
NO_MEDIUM_TRAY_CLOSED = Sense(NOT_READY, 0x3A, 0x01)
NO_MEDIUM_TRAY_OPEN = Sense(NOT_READY, 0x3A, 0x02)
INVALID_OPERATION = Sense(ILLEGAL_REQUEST, 0x20)
OUT_OF_RANGE = Sense(ILLEGAL_REQUEST, 0x21)
INVALID_FIELD = Sense(ILLEGAL_REQUEST, 0x24)
SAVING_NOT_SUPPORTED = Sense(ILLEGAL_REQUEST, 0x39)
REMOVAL_PREVENTED = Sense(ILLEGAL_REQUEST, 0x53, 0x02)
MEDIUM_CHANGED = Sense(UNIT_ATTENTION, 0x28)
POWERED_ON = Sense(UNIT_ATTENTION, 0x29)


class CheckConditionError(Exception):
    """A command ends with CHECK CONDITION."""

    def __init__(self, sense: Sense) -> None:
        super().__init__(sense)
        self.sense = sense


@dataclass
class CdState:
    """The logical unit."""

    sense: Sense = GOOD
    attentions: list[Sense] = field(default_factory=lambda: [POWERED_ON])
    """Unit attentions to report, each kind once."""
    event: int = EVENT_NONE
    tray_open: bool = False
    locked: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What a command sends: `data`, or `length` bytes of the disc from block `block`."""

    data: bytes = b""
    block: int = 0
    length: int = 0


NOTHING = Reply()


def _word(cdb: bytes, index: int) -> int:
    return int.from_bytes(cdb[index : index + 2], "big")


def _dword(cdb: bytes, index: int) -> int:
    return int.from_bytes(cdb[index : index + 4], "big")


def _with_length(body: bytes, size: int = 2) -> bytes:
    """A reply that begins with the number of bytes after that number."""
    return len(body).to_bytes(size, "big") + body


def _reject_unless(valid: bool, sense: Sense = INVALID_FIELD) -> None:
    if not valid:
        raise CheckConditionError(sense)


def msf(block: int) -> bytes:
    """A block's address as minute, second and frame."""
    frames = min(block + MSF_OFFSET, LAST_MSF)
    return bytes((frames // (60 * 75), frames // 75 % 60, frames % 75))


class CdRom:
    """A drive's logical unit. `execute` carries out one command descriptor block."""

    VENDOR, PRODUCT, REVISION = "PVISOR", "CD-ROM", "1.0"

    def __init__(self, medium: BlockBackend | None = None) -> None:
        self.medium = medium
        self.state = CdState()
        self._commands: dict[int, Callable[[bytes], Reply]] = {
            0x00: self._test_unit_ready,
            REQUEST_SENSE: self._request_sense,
            INQUIRY: self._inquiry,
            0x1B: self._start_stop,
            0x1E: self._prevent_removal,
            0x25: self._read_capacity,
            0x28: self._read10,
            0x2B: self._seek,
            0x43: self._read_toc,
            GET_CONFIGURATION: self._get_configuration,
            GET_EVENT_STATUS: self._get_event_status,
            0x51: self._read_disc_information,
            0x5A: self._mode_sense,
            0xA8: self._read12,
            0xBB: self._test_unit_ready,
            0xBD: self._mechanism_status,
            0xBE: self._read_cd,
        }

    # --- the host's side ------------------------------------------------------------------------------

    def insert(self, medium: BlockBackend) -> None:
        """Put a disc in and close the tray; what was in is gone."""
        self.medium = medium
        self.state.tray_open = False
        self._loaded()

    def eject(self, *, force: bool = False) -> bool:
        """Press the button: open the tray and take the disc out.

        If the guest locked the tray it is told of the request and False is returned, unless `force`.
        """
        if self.state.locked and not force:
            self.state.event = EVENT_EJECT_REQUEST
            return False
        self.state.tray_open = True
        self.state.locked = False
        if self.medium is not None:
            self.state.event = EVENT_MEDIA_REMOVAL
        self.medium = None
        return True

    def _loaded(self) -> None:
        self.state.event = EVENT_NEW_MEDIA
        if MEDIUM_CHANGED not in self.state.attentions:
            self.state.attentions.append(MEDIUM_CHANGED)

    # --- commands -------------------------------------------------------------------------------------

    def execute(self, cdb: bytes) -> Reply:
        """Carry out a command.

        Raises:
            CheckConditionError: it failed; the sense data is kept for REQUEST SENSE.
        """
        state = self.state
        try:
            if state.attentions and cdb[0] not in ATTENTION_EXEMPT:
                raise CheckConditionError(state.attentions.pop(0))
            command = self._commands.get(cdb[0])
            if command is None:
                raise CheckConditionError(INVALID_OPERATION)
            reply = command(cdb)
        except CheckConditionError as failure:
            state.sense = failure.sense
            raise
        state.sense = GOOD
        return reply

    def read(self, block: int, skip: int, length: int) -> bytes:
        """`length` bytes of the disc, `skip` bytes after the start of a block.

        Raises:
            CheckConditionError: the disc is gone, another one is in, or the host cannot read it.
        """
        try:
            return self._read(block, skip, length)
        except CheckConditionError as failure:
            self.state.sense = failure.sense
            raise

    def _read(self, block: int, skip: int, length: int) -> bytes:
        if self.state.attentions:
            raise CheckConditionError(self.state.attentions.pop(0))
        medium = self._ready()
        block, skip = block + skip // BLOCK_SIZE, skip % BLOCK_SIZE
        sector = block * SECTORS_PER_BLOCK
        count = -(-(skip + length) // BLOCK_SIZE) * SECTORS_PER_BLOCK
        try:
            data = medium.read(sector, min(count, medium.sectors - sector))
        except OSError:
            raise CheckConditionError(Sense(MEDIUM_ERROR, 0x11, 0x00, block)) from None
        return data.ljust(count * SECTOR_SIZE, b"\0")[skip : skip + length]

    def _ready(self) -> BlockBackend:
        if self.state.tray_open:
            raise CheckConditionError(NO_MEDIUM_TRAY_OPEN)
        if self.medium is None:
            raise CheckConditionError(NO_MEDIUM_TRAY_CLOSED)
        return self.medium

    @property
    def _present(self) -> bool:
        return self.medium is not None and not self.state.tray_open

    def _blocks(self) -> int:
        return min(-(-self._ready().sectors // SECTORS_PER_BLOCK), MAX_BLOCKS)

    def _test_unit_ready(self, _cdb: bytes) -> Reply:
        self._ready()
        return NOTHING

    def _request_sense(self, cdb: bytes) -> Reply:
        """Fixed-format sense data (SPC-3, 4.5.3); reports a unit attention if nothing else."""
        sense = self.state.sense
        if sense == GOOD and self.state.attentions:
            sense = self.state.attentions.pop(0)
        valid = sense.block is not None
        data = bytes((0x80 * valid | 0x70, 0, sense.key))
        data += (sense.block or 0).to_bytes(4, "big") + bytes((10, 0, 0, 0, 0, sense.code, sense.qualifier))
        return Reply(data.ljust(18, b"\0")[: cdb[4]])

    def _inquiry(self, cdb: bytes) -> Reply:
        _reject_unless(not cdb[1] & 0x01 and not cdb[2])
        data = bytes((0x05, 0x80, 0x00, 0x32, 31, 0, 0, 0))  # CD, removable, ATAPI, format 2
        for text, length in ((self.VENDOR, 8), (self.PRODUCT, 16), (self.REVISION, 4)):
            data += text.encode("ascii").ljust(length)
        return Reply(data[: _word(cdb, 3)])

    def _start_stop(self, cdb: bytes) -> Reply:
        """START STOP UNIT: bit 0 Start, bit 1 LoEj, bits 7:4 a power condition (of which none needs work)."""
        if cdb[4] & 0xF0:
            return NOTHING
        start, load_or_eject = cdb[4] & 0x01, cdb[4] & 0x02
        if load_or_eject and start:
            self._load_tray()
        elif load_or_eject:
            self._open_tray()
        elif start:
            self._ready()
        return NOTHING

    def _open_tray(self) -> None:
        _reject_unless(not self.state.locked, REMOVAL_PREVENTED)
        if not self.state.tray_open and self.medium is not None:
            self.state.event = EVENT_MEDIA_REMOVAL
        self.state.tray_open = True

    def _load_tray(self) -> None:
        was_open, self.state.tray_open = self.state.tray_open, False
        if was_open and self.medium is not None:
            self._loaded()

    def _prevent_removal(self, cdb: bytes) -> Reply:
        self.state.locked = bool(cdb[4] & 0x01)
        return NOTHING

    # --- the disc's content ---------------------------------------------------------------------------

    def _read_capacity(self, _cdb: bytes) -> Reply:
        return Reply((self._blocks() - 1).to_bytes(4, "big") + BLOCK_SIZE.to_bytes(4, "big"))

    def _seek(self, cdb: bytes) -> Reply:
        _reject_unless(_dword(cdb, 2) < self._blocks(), OUT_OF_RANGE)
        return NOTHING

    def _read10(self, cdb: bytes) -> Reply:
        return self._read_blocks(_dword(cdb, 2), _word(cdb, 7))

    def _read12(self, cdb: bytes) -> Reply:
        return self._read_blocks(_dword(cdb, 2), _dword(cdb, 6))

    def _read_blocks(self, block: int, count: int) -> Reply:
        _reject_unless(block + count <= self._blocks(), OUT_OF_RANGE)
        return Reply(block=block, length=count * BLOCK_SIZE)

    def _read_cd(self, cdb: bytes) -> Reply:
        """READ CD of any or mode 1 sectors: user data, or nothing at all (MMC-3, 5.16)."""
        expected, fields = cdb[1] >> 2 & 0x07, cdb[9] & 0xF8
        _reject_unless(expected in (0, 2) and fields in (0x00, 0x10) and not cdb[9] & 0x06 and not cdb[10] & 0x07)
        reply = self._read_blocks(_dword(cdb, 2), int.from_bytes(cdb[6:9], "big"))
        return reply if fields else NOTHING

    # --- about the disc -------------------------------------------------------------------------------

    def _read_toc(self, cdb: bytes) -> Reply:
        """Format in byte 2, or where older hosts have it, in the upper bits of byte 9 (SFF-8020i)."""
        blocks = self._blocks()
        kind = cdb[2] & 0x0F or cdb[9] >> 6
        as_msf = bool(cdb[1] & 0x02)
        if kind == 0:
            data = self._toc(blocks, cdb[6], as_msf)
        elif kind == 1:
            data = bytes((1, 1)) + self._toc_entry(1, 0, as_msf)
        elif kind == 2:
            data = self._full_toc(blocks, cdb[6])
        else:
            raise CheckConditionError(INVALID_FIELD)
        return Reply(_with_length(data)[: _word(cdb, 7)])

    @staticmethod
    def _toc_entry(track: int, block: int, as_msf: bool) -> bytes:
        address = b"\0" + msf(block) if as_msf else min(block, MAX_BLOCKS - 1).to_bytes(4, "big")
        return bytes((0, DATA_TRACK, track, 0)) + address

    def _toc(self, blocks: int, first_track: int, as_msf: bool) -> bytes:
        _reject_unless(first_track in (0, 1, LEAD_OUT))
        data = bytes((1, 1))
        if first_track != LEAD_OUT:
            data += self._toc_entry(1, 0, as_msf)
        return data + self._toc_entry(LEAD_OUT, blocks, as_msf)

    @staticmethod
    def _full_toc(blocks: int, first_session: int) -> bytes:
        _reject_unless(first_session <= 1)
        points = ((0xA0, b"\1\0\0"), (0xA1, b"\1\0\0"), (0xA2, msf(blocks)), (0x01, msf(0)))
        entries = (bytes((1, DATA_TRACK, 0, point, 0, 0, 0, 0)) + address for point, address in points)
        return bytes((1, 1)) + b"".join(entries)

    def _read_disc_information(self, cdb: bytes) -> Reply:
        """One complete session on a complete disc that nobody can add to."""
        self._ready()
        data = bytearray(32)
        data[0] = 0x0E  # last session complete, disc complete
        data[1] = data[2] = data[3] = data[4] = 1  # first track, sessions, first and last track of the last one
        data[5] = 0x20  # unrestricted use
        data[14:22] = b"\xff" * 8  # no lead-in to come, no lead-out possible
        return Reply(_with_length(bytes(data))[: _word(cdb, 7)])

    # --- about the drive ------------------------------------------------------------------------------

    def _mode_sense(self, cdb: bytes) -> Reply:
        control, page = cdb[2] >> 6, cdb[2] & 0x3F
        pages = {0x01: self._error_recovery_page(), 0x2A: self._capabilities_page()}
        _reject_unless(control != 3, SAVING_NOT_SUPPORTED)
        _reject_unless(page == 0x3F or page in pages)
        _reject_unless(cdb[3] == 0)
        chosen = pages.values() if page == 0x3F else (pages[page],)
        data = b"".join(body[:2] + bytes(len(body) - 2) if control == 1 else body for body in chosen)
        header = bytes((self._medium_type(), 0, 0, 0, 0, 0))
        return Reply(_with_length(header + data)[: _word(cdb, 7)])

    def _medium_type(self) -> int:
        if self.state.tray_open:
            return 0x71
        return 0x70 if self.medium is None else 0x01  # 120 mm CD-ROM, data

    @staticmethod
    def _error_recovery_page() -> bytes:
        return bytes((0x01, 10, 0, 5, 0, 0, 0, 0, 0, 0, 0, 0))  # five read retries

    def _capabilities_page(self) -> bytes:
        """C/DVD capabilities (MMC-3, 6.3.11): tray, ejects, locks; reads CD-R and CD-RW."""
        flags = 0x29 | 0x02 * self.state.locked
        data = bytes((0x2A, 18, 0x03, 0x00, 0x00, 0x00, flags, 0x00))
        for value in (READ_SPEED, 0, BUFFER_KB, READ_SPEED, 0, 0):
            data += value.to_bytes(2, "big")
        return data

    def _get_configuration(self, cdb: bytes) -> Reply:
        """Features from the starting one: all (RT 0), current (RT 1) or that one (RT 2)."""
        kind, first = cdb[1] & 0x03, _word(cdb, 2)
        _reject_unless(kind != 3)
        chosen = b""
        for code, version, persistent, current, data in self._features():
            if code < first or (kind == 1 and not current) or (kind == 2 and code != first):
                continue
            flags = version << 2 | persistent << 1 | current
            chosen += code.to_bytes(2, "big") + bytes((flags, len(data))) + data
        profile = PROFILE_CD_ROM if self._present else 0
        return Reply(_with_length(bytes(2) + profile.to_bytes(2, "big") + chosen, 4)[: _word(cdb, 7)])

    def _features(self) -> list[tuple[int, int, bool, bool, bytes]]:
        """(code, version, persistent, current, data) of each feature (MMC-3, 5.3)."""
        disc = self._present
        return [
            (0x0000, 0, True, True, PROFILE_CD_ROM.to_bytes(2, "big") + bytes((disc, 0))),  # profile list
            (0x0001, 0, True, True, (2).to_bytes(4, "big")),  # core: ATAPI
            (0x0002, 0, True, True, bytes(4)),  # morphing: events are polled
            (0x0003, 0, True, True, b"\x29\0\0\0"),  # removable medium: tray, ejects, locks
            (0x0010, 0, False, disc, BLOCK_SIZE.to_bytes(4, "big") + b"\0\1\1\0"),  # random readable
            (0x001E, 0, False, disc, bytes(4)),  # CD read
            (0x0100, 0, True, True, b""),  # power management
            (0x0105, 0, True, True, b""),  # timeout
        ]

    def _get_event_status(self, cdb: bytes) -> Reply:
        """Polled only, and of the event classes only media (MMC-3, 5.7)."""
        _reject_unless(bool(cdb[1] & 0x01))
        supported = 1 << MEDIA_CLASS
        length = _word(cdb, 7)
        if not cdb[4] & supported:
            return Reply(_with_length(bytes((0x80, supported)))[:length])
        status = MEDIA_TRAY_OPEN * self.state.tray_open | MEDIA_PRESENT * self._present
        data = _with_length(bytes((MEDIA_CLASS, supported, self.state.event, status, 0, 0)))
        if length > 4:
            self.state.event = EVENT_NONE
        return Reply(data[:length])

    def _mechanism_status(self, cdb: bytes) -> Reply:
        data = bytes((0, 0x10 * self.state.tray_open, 0, 0, 0, 0, 0, 0))
        return Reply(data[: _word(cdb, 8)])
