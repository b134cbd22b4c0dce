"""A driver for tests: command lists and FIS areas in memory, registers through BAR 5."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from devices.pci.board import Board
from portvisor.backends.image import MemoryImage
from portvisor.devices.ahci import Ahci, AhciAddress
from portvisor.devices.ahci import registers as r
from portvisor.devices.ide.ata_disk import AtaDisk
from portvisor.devices.ide.atapi_cd import AtapiCd
from portvisor.devices.ide.drive import Drive, Transport
from portvisor.ports import Ram, RamRegion

ABAR = 0xE0000000
BARS = {0: (0x3060, 8), 1: (0x3080, 4), 2: (0x3068, 8), 3: (0x3084, 4), 4: (0x3020, 32)}
INDEX, DATA = 0x3030, 0x3034
DEVICE, FUNCTION = 0x1F, 2

RAM_BASE, RAM_SIZE = 0x100000, 0x100000
HIGH_BASE, HIGH_SIZE = 0x1_0000_0000, 0x10000
LISTS, FISES, TABLES, BUFFERS = RAM_BASE, RAM_BASE + 0x8000, RAM_BASE + 0x10000, RAM_BASE + 0x40000
TABLE_SIZE = 0x1000

Prd = tuple[int, int]
"""(address, bytes) of a physical region."""


def pattern(sectors: int) -> bytes:
    """Sectors that differ from each other and from empty memory in every byte."""
    return b"".join(struct.pack("<H", number & 0xFFFF ^ 0xA55A) * 256 for number in range(sectors))


def disk(sectors: int = 256) -> AtaDisk:
    image = MemoryImage(sectors * 512)
    image.write(0, pattern(sectors))
    return AtaDisk(image, transport=Transport.SATA)


def cd(blocks: int = 20) -> AtapiCd:
    image = MemoryImage(blocks * 2048)
    image.write(0, pattern(blocks * 4))
    return AtapiCd(image, transport=Transport.SATA)


def command_fis(command: int, lba: int = 0, count: int = 0, features: int = 0, device: int = 0x40) -> bytes:
    """Register - Host to Device FIS with C set (Serial ATA 10.5.5)."""
    low, high = lba.to_bytes(6, "little")[:3], lba.to_bytes(6, "little")[3:]
    head = bytes((0x27, 0x80, command, features & 0xFF))
    address = low + bytes((device,)) + high + bytes((features >> 8,))
    return head + address + bytes((count & 0xFF, count >> 8)) + bytes(6)


def control_fis(srst: bool) -> bytes:
    """Register - Host to Device FIS with C clear: Device Control."""
    return bytes((0x27, 0x00, *bytes(13), 0x04 if srst else 0, *bytes(4)))


class PortDriver:
    """One port, with its command list, received FIS area and a table per slot."""

    def __init__(self, host: AhciHost, number: int) -> None:
        self.host = host
        self.number = number
        self.lists, self.fises = LISTS + 0x400 * number, FISES + 0x100 * number

    def read(self, register: int) -> int:
        return self.host.read(0x100 + 0x80 * self.number + register)

    def write(self, register: int, value: int) -> None:
        self.host.write(0x100 + 0x80 * self.number + register, value)

    # --- bringing the port up and down ----------------------------------------------------------------------

    def addresses(self) -> None:
        for register, value in ((r.PX_CLB, self.lists), (r.PX_FB, self.fises)):
            self.write(register, value & 0xFFFFFFFF)
            self.write(register + 4, value >> 32)

    def start(self, enabled: int = r.IE_MASK) -> None:
        """10.3.1: addresses, FRE, clear errors, ST, interrupts."""
        self.addresses()
        self.write(r.PX_CMD, r.CMD_FRE)
        self.write(r.PX_SERR, 0xFFFFFFFF)
        self.write(r.PX_IS, 0xFFFFFFFF)
        self.write(r.PX_CMD, r.CMD_FRE | r.CMD_ST)
        self.write(r.PX_IE, enabled)

    def restart(self) -> None:
        """6.2.2.1: clear ST, then errors, then set ST again."""
        self.write(r.PX_CMD, r.CMD_FRE)
        self.write(r.PX_SERR, 0xFFFFFFFF)
        self.write(r.PX_IS, 0xFFFFFFFF)
        self.write(r.PX_CMD, r.CMD_FRE | r.CMD_ST)

    # --- commands -------------------------------------------------------------------------------------------

    def table(self, slot: int) -> int:
        return TABLES + TABLE_SIZE * slot

    def prepare(
        self,
        slot: int,
        fis: bytes,
        regions: Sequence[Prd] = (),
        *,
        flags: int = 0,
        packet: bytes = b"",
        interrupt: bool = False,
    ) -> None:
        """Fill in a command header and its table; `interrupt` sets the I bit of the last region."""
        ram, table = self.host.ram, self.table(slot)
        header = struct.pack("<HHIQ", 5 | flags, len(regions), 0, table).ljust(32, b"\0")
        ram.write(self.lists + 32 * slot, header)
        ram.write(table, fis.ljust(0x40, b"\0") + packet.ljust(0x40, b"\0"))
        for index, (address, length) in enumerate(regions):
            last = interrupt and index == len(regions) - 1
            entry = struct.pack("<QII", address, 0, length - 1 | (1 << 31 if last else 0))
            ram.write(table + 0x80 + 16 * index, entry)

    def issue(self, *slots: int) -> None:
        self.write(r.PX_CI, sum(1 << slot for slot in slots))

    def run(self, fis: bytes, regions: Sequence[Prd] = (), *, flags: int = 0, packet: bytes = b"") -> None:
        """One command in slot 0."""
        self.prepare(0, fis, regions, flags=flags, packet=packet)
        self.issue(0)

    def moved(self, slot: int = 0) -> int:
        """PRDBC of a slot's header."""
        return int.from_bytes(self.host.ram.read(self.lists + 32 * slot + 4, 4), "little")

    # --- what came back -------------------------------------------------------------------------------------

    def received(self, place: int, length: int) -> bytes:
        return self.host.ram.read(self.fises + place, length)

    @property
    def d2h(self) -> bytes:
        return self.received(0x40, 20)

    @property
    def pio_setup(self) -> bytes:
        return self.received(0x20, 20)

    @property
    def sdb(self) -> bytes:
        return self.received(0x58, 8)

    def forget(self) -> None:
        """Empty the received FIS area and clear the interrupts."""
        self.host.ram.write(self.fises, bytes(256))
        self.write(r.PX_IS, 0xFFFFFFFF)


class AhciHost:
    """An adapter at 00:1f.2 with the seed's addresses, and memory below and above 4 GiB."""

    def __init__(self, *drives: Drive | None, fixed: bool = True) -> None:
        self.low, self.high = bytearray(RAM_SIZE), bytearray(HIGH_SIZE)
        self.ram = Ram(RamRegion(RAM_BASE, memoryview(self.low)), RamRegion(HIGH_BASE, memoryview(self.high)))
        self.board = Board()
        self.hba = Ahci(self.ram, drives or (disk(),), address=AhciAddress(BARS, ABAR) if fixed else None)
        self.board.root.attach(self.hba, DEVICE, FUNCTION)
        self.set_command(0x7)
        self.port = PortDriver(self, 0)

    def set_command(self, value: int) -> None:
        self.board.put(DEVICE, 4, value, 2, function=FUNCTION)

    def config(self, register: int, size: int = 4) -> int:
        return self.board.get(DEVICE, register, size, function=FUNCTION)

    @property
    def line(self) -> int:
        """The board's interrupt line that the adapter's INTA# is wired to."""
        return self.board.lines[DEVICE % 4].level

    def read(self, register: int, size: int = 4) -> int:
        return self.board.mmio.read(ABAR + register, size)

    def write(self, register: int, value: int, size: int = 4) -> None:
        self.board.mmio.write(ABAR + register, size, value)

    def ports(self) -> list[PortDriver]:
        return [PortDriver(self, number) for number in range(len(self.hba.drives))]


def started(*drives: Drive | None, enabled: int = r.IE_MASK) -> AhciHost:
    """A host whose ports with a drive are running and whose interrupts are on."""
    host = AhciHost(*drives)
    for driver, drive in zip(host.ports(), host.hba.drives, strict=True):
        if drive:
            driver.start(enabled)
    host.write(r.GHC, r.GHC_IE | r.GHC_AE)
    return host
