"""Commands for the floppy controller, and what it is known to differ in from QEMU's.

A group is made with a `random.Random` whose numbers hypothesis chooses, and can shrink.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from hypothesis import strategies as st

from portvisor.qtest.client import Answer
from qtest import known
from qtest.differential import DISK_FILE, Chip, Rule
from qtest.streams import Groups

CYLINDERS, SECTOR_SIZE = 80, 512
BUFFER = 0x1000
LONGEST = 4
"""Sectors of a transfer."""
SE, EN_ABNORMAL, EN = 0x20, 0x40, 0x80
FIFO_DONE = ("inb 0x3f4", "inb 0x3f1")
"""Marks the end of the data of a transfer without DMA."""
READ_ID_NS = 25_000_000
"""QEMU lets READ ID take 20 ms."""
CONFIGURE_EIS = 0x40

READ_RESULT, READ_STATUS = "inb 0x3f5", "inb 0x3f4"
LAST_PARAMETER = "outb 0x3f5 0xff"
"""DTL, which ends the commands that transfer data."""


def command(*values: int) -> list[str]:
    """The bytes of a command, the status after each."""
    return [line for value in values for line in (f"outb 0x3f5 {value:#x}", READ_STATUS)]


def results(count: int) -> list[str]:
    """The result bytes, and the status after the last."""
    return [*[READ_RESULT] * count, READ_STATUS]


SENSE = (*command(0x08), *results(2))
CONFIGURE = tuple(command(0x13, 0, CONFIGURE_EIS | 0x17, 0))
RECALIBRATE = (*command(0x07, 0), *SENSE)
PROLOGUE = (
    *("outb 0x3f2 0", "outb 0x3f2 0x1c", *SENSE * 4),
    *(*command(0x03, 0xDF, 0x02), *CONFIGURE, *command(0x14), *results(1)),
    *(*RECALIBRATE, *command(0x0F, 0, 1), *SENSE, *RECALIBRATE),
    *("outb 0xd 0", "outb 0xda 0", "outb 0xd6 0xc0", "outb 0xd4 0", "outb 0x81 0", "outb 0xb 0x46"),
    f"memset {BUFFER:#x} {LONGEST * SECTOR_SIZE:#x} 0",
)
"""Out of reset with all statuses taken, drive A at cylinder 0 without disk change, DMA through the cascade."""


def seek(cylinder: int) -> list[str]:
    """SEEK and its status."""
    return [*command(0x0F, 0, cylinder), *SENSE]


def dma(mode: int, length: int) -> list[str]:
    """Channel 2 for a transfer at BUFFER."""
    return [
        *("outb 0xa 6", f"outb 0xb {mode:#x}", "outb 0xc 0"),
        *(f"outb 0x4 {BUFFER & 0xFF:#x}", f"outb 0x4 {BUFFER >> 8:#x}"),
        *(f"outb 0x5 {length - 1 & 0xFF:#x}", f"outb 0x5 {length - 1 >> 8:#x}"),
        "outb 0xa 2",
    ]


@dataclass(frozen=True)
class Medium:
    """What is in the drive: sectors on a track, data rate in CCR."""

    sectors: int
    rate: int
    read_only: bool = False


class Transfer:
    """A random READ, WRITE or VERIFY of some sectors that are on the medium."""

    def __init__(self, chance: Random, medium: Medium) -> None:
        self.chance, self.medium = chance, medium
        self.cylinder, self.head = chance.randrange(CYLINDERS), chance.randrange(2)
        self.record = chance.randint(1, medium.sectors)
        self.multi_track = chance.random() < 0.5
        room = medium.sectors - self.record + 1 + (medium.sectors if self.multi_track and not self.head else 0)
        self.count = chance.randint(1, min(LONGEST, room))

    def command(self, code: int, eot: int | None = None) -> list[str]:
        """The command, without its data."""
        first = code | (0x80 if self.multi_track else 0)
        where = (self.head << 2, self.cylinder, self.head, self.record)
        return command(first, *where, 2, eot or self.medium.sectors, 0x1B)

    def read(self) -> list[str]:
        """By DMA."""
        length = self.count * SECTOR_SIZE
        at = BUFFER + self.chance.randrange(length)
        return [
            *dma(0x46, length),
            *self.command(0x46),
            LAST_PARAMETER,
            *results(7),
            f"readb {at:#x}",
            *self.home(),
        ]

    def write(self) -> list[str]:
        """By DMA, then read back."""
        length = self.count * SECTOR_SIZE
        fill = f"memset {BUFFER:#x} {length:#x} {self.chance.getrandbits(8):#x}"
        written = [fill, *dma(0x4A, length), *self.command(0x45), LAST_PARAMETER, *results(7)]
        return [*written, *self.home(), *self.read()]

    def verify(self) -> list[str]:
        """Up to EOT; QEMU's goes on to the next cylinder if it starts at side 1 with MT."""
        self.multi_track &= self.head == 0
        return [*self.command(0x56, self.record), LAST_PARAMETER, *results(7), *self.home()]

    def home(self) -> list[str]:
        """To a known cylinder: QEMU's head goes on with the C of the result."""
        return seek(self.cylinder)

    def without_dma(self) -> list[str]:
        """A sector read through the FIFO; QEMU's writes do not come to an end."""
        self.multi_track = False
        data = [READ_STATUS, *[READ_RESULT] * SECTOR_SIZE, *FIFO_DONE]
        run = [*self.command(0x46, self.record), LAST_PARAMETER, *data, *results(7)]
        return [*command(0x03, 0xDF, 0x03), *run, *self.home(), *command(0x03, 0xDF, 0x02)]


def floppy(medium: Medium, chance: Random) -> Sequence[str]:
    """A command with its result, a register, or a reset."""
    kind = chance.random()
    transfer = Transfer(chance, medium)
    if kind < 0.15:
        return seek(chance.randrange(CYLINDERS))
    if kind < 0.35:
        return transfer.read()
    if kind < 0.5:
        return transfer.write()
    if kind < 0.55:
        return transfer.verify()
    if kind < 0.57:
        return transfer.without_dma()
    if kind < 0.65:
        return [
            *seek(chance.randrange(CYLINDERS)),
            *READ_ID_CODE,
            f"outb 0x3f5 {chance.randrange(2) << 2:#x}",
            *READ_ID,
        ]
    if kind < 0.7:
        return missing_sector(transfer)
    if kind < 0.73:
        return [f"outb 0x3f4 {0x80 | medium.rate:#x}", *SENSE * 4, *CONFIGURE, *RECALIBRATE]
    return control(chance)


READ_ID_CODE = tuple(command(0x4A))
READ_ID = (f"clock_step {READ_ID_NS}", *results(7))


def missing_sector(transfer: Transfer) -> list[str]:
    """No such address mark: the wrong data rate."""
    rate = transfer.chance.choice([rate for rate in range(4) if rate != transfer.medium.rate])
    lost = [*dma(0x46, SECTOR_SIZE), f"outb 0x3f7 {rate}", *transfer.command(0x46), LAST_PARAMETER, *results(7)]
    return [*lost, f"outb 0x3f7 {transfer.medium.rate}", *transfer.home()]


CONTROLS: tuple[tuple[str, ...], ...] = (
    (*command(0x10), *results(1)),
    (*command(0x18), *results(1)),
    (*command(0x14), *results(1)),
    (*command(0x94), *results(1)),
    (*command(0x08), *results(1)),
    RECALIBRATE,
    ("inb 0x3f1", "inb 0x3f4", "inb 0x3f5"),
)


def control(chance: Random) -> Sequence[str]:
    """A command that does not reach the medium, or registers."""
    kind = chance.random()
    if kind < 0.5:
        return chance.choice(CONTROLS)
    if kind < 0.6:
        settings = command(0x13, 0, CONFIGURE_EIS | chance.getrandbits(6), chance.getrandbits(8))
        specify = command(0x03, chance.getrandbits(8), chance.getrandbits(8) & 0xFE)
        return [*settings, *specify, *DUMPREG]
    if kind < 0.7:
        return [*command(0x04, chance.randrange(2) << 2), *results(1)]
    if kind < 0.8:
        return [*command(chance.choice((0x00, 0x01, 0x0B, 0x15, 0x1F, 0x40))), *results(1)]
    if kind < 0.9:
        return [f"outb 0x3f2 {chance.choice((0x1C, 0x3C, 0x7C)):#x}", "inb 0x3f2", "inb 0x3f1", "outb 0x3f2 0x1c"]
    return [*DUMPREG, "inb 0x3f7"]


DUMPREG = (*command(0x0E), *results(10))


def result_bits(mask: int, number: int, *before: str) -> Rule:
    """Bits of result byte `number` (from 0) after the commands `before`."""
    return known.only_bits(mask, *before, *[READ_RESULT] * (number + 1))


def read_id_at_once(commands: Sequence[str], ours: Sequence[Answer], other: Answer) -> bool:
    """READ ID ends with its last parameter; QEMU's 20 ms later."""
    mine = ours[-1]
    if tuple(commands[-3:-1]) == READ_ID_CODE:
        return mine == Answer(other.reply, ((6, 1),))
    later = tuple(edge for edge in other.edges if edge != (6, 1))
    return tuple(commands[-4:-2]) == READ_ID_CODE and mine == Answer(other.reply, later)


DIFFERENCES = known.any_of(
    read_id_at_once,
    known.only_bits(0x7F, "inb 0x3f7"),
    known.only_bits(0x03, "inb 0x3f1"),
    result_bits(SE, 0, LAST_PARAMETER),
    result_bits(SE | EN_ABNORMAL, 0, *FIFO_DONE),
    result_bits(EN, 1, *FIFO_DONE),
    result_bits(0xFF, 3, *FIFO_DONE),
    result_bits(0xFF, 5, *FIFO_DONE),
    result_bits(0xFF, 5, READ_ID[0]),
    *(result_bits(0xFF, number, *command(0x0E)) for number in (4, 5, 6)),
)


MEDIA = {
    "1.44M": Medium(18, 0),
    "720K": Medium(9, 2),
    "2.88M": Medium(36, 3),
    "write-protected": Medium(18, 0, read_only=True),
}


def groups(medium: Medium) -> Groups:
    """A command with its result, a register, or a reset."""
    return st.randoms(use_true_random=False).map(lambda chance: tuple(floppy(medium, chance)))


def chip(medium: Medium) -> Chip:
    """The controller with the medium in drive A."""
    keep = "readonly=on" if medium.read_only else "snapshot=on"
    return Chip(
        groups(medium),
        (*PROLOGUE, f"outb 0x3f7 {medium.rate}"),
        DIFFERENCES,
        (
            *("-drive", f"if=none,id=a,file={DISK_FILE},format=raw,{keep}"),
            *("-device", "floppy,drive=a,unit=0"),
        ),
        disk_size=2 * CYLINDERS * medium.sectors * SECTOR_SIZE,
    )


FLOPPIES = {f"floppy {name}": chip(medium) for name, medium in MEDIA.items()}
