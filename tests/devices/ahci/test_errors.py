"""AHCI 1.3.1, 6 (error reporting and recovery), and tables that make no sense; rules in the docstrings."""

from __future__ import annotations

import struct

import pytest

from devices.ahci.ahci_host import (
    BUFFERS,
    LISTS,
    RAM_BASE,
    RAM_SIZE,
    AhciHost,
    cd,
    command_fis,
    disk,
    pattern,
    started,
)
from portvisor.backends.image import MemoryImage
from portvisor.devices.ahci import registers as r
from portvisor.devices.ide.ata_disk import AtaDisk
from portvisor.devices.ide.drive import Transport
from portvisor.ports import Ram, RamRegion

READ_DMA_EXT, WRITE_DMA_EXT, IDENTIFY, CHECK_POWER, READ_QUEUED = 0x25, 0x35, 0xEC, 0xE5, 0x60
READ_SECTORS_EXT = 0x24


class BadSectors(MemoryImage):
    """Cannot read sectors from `first_bad` on."""

    first_bad = 20

    def read(self, sector: int, count: int) -> bytes:
        if sector + count > self.first_bad:
            raise OSError("bad sector")
        return super().read(sector, count)


def worn_disk(first_bad: int = 20) -> AtaDisk:
    image = BadSectors(256 * 512)
    image.write(0, pattern(256))
    image.first_bad = first_bad
    return AtaDisk(image, transport=Transport.SATA)


@pytest.fixture
def host() -> AhciHost:
    return started(disk())


# --- task file errors ----------------------------------------------------------------------------------------


def test_a_failed_command(host: AhciHost) -> None:
    """6.2.2.1: D2H FIS with ERR; TFES and DHRS; PxCI keeps the slot; the error is in TFD."""
    host.port.run(command_fis(READ_DMA_EXT, 1000, 1), [(BUFFERS, 512)])
    assert host.port.read(r.PX_TFD) == 0x1051
    assert host.port.d2h[:4] == bytes((0x34, 0x40, 0x51, 0x10))
    assert host.port.read(r.PX_IS) == r.IS_DHRS | r.IS_TFES
    assert host.port.read(r.PX_CI) == 1
    assert host.line == 1


def test_nothing_is_fetched_after_an_error(host: AhciHost) -> None:
    """6.2.2.1: the command list stops; slots issued with it or later wait."""
    host.port.prepare(0, command_fis(READ_DMA_EXT, 1000, 1), [(BUFFERS, 512)])
    host.port.prepare(1, command_fis(IDENTIFY), [(BUFFERS, 512)])
    host.port.issue(0, 1)
    host.port.issue(1)
    assert host.port.read(r.PX_CI) == 3
    assert host.ram.read(BUFFERS, 512) == bytes(512)
    assert host.port.read(r.PX_CMD) & r.CMD_CCS == 0


def test_recovery_by_clearing_st(host: AhciHost) -> None:
    """6.2.2.1: ST 0, clear errors, ST 1; no reset is needed although TFD still shows the error."""
    host.port.run(command_fis(READ_DMA_EXT, 1000, 1), [(BUFFERS, 512)])
    host.port.restart()
    assert host.port.read(r.PX_CI) == 0
    assert host.port.read(r.PX_TFD) & 1
    host.port.run(command_fis(IDENTIFY), [(BUFFERS, 512)])
    assert host.port.read(r.PX_CI) == 0
    assert host.ram.read(BUFFERS, 2) == b"\x40\x00"


def test_a_bad_sector_in_dma() -> None:
    """ATA-6: UNC, the LBA of the sector; data before it was moved."""
    host = started(worn_disk())
    host.port.run(command_fis(READ_DMA_EXT, 10, 30), [(BUFFERS, 30 * 512)])
    assert host.port.read(r.PX_TFD) == 0x4051
    assert host.port.d2h[4:7] == (20).to_bytes(3, "little")
    assert host.port.read(r.PX_IS) & r.IS_TFES


def test_a_bad_sector_in_pio() -> None:
    """5.3.11: the E_STATUS before it says busy; a D2H FIS tells the error."""
    host = started(worn_disk())
    host.port.run(command_fis(READ_SECTORS_EXT, 19, 2), [(BUFFERS, 1024)])
    assert host.ram.read(BUFFERS, 512) == pattern(20)[19 * 512 :]
    assert host.port.pio_setup[15] == 0xD0
    assert host.port.d2h[:4] == bytes((0x34, 0x40, 0x51, 0x40))
    assert host.port.read(r.PX_IS) == r.IS_PSS | r.IS_DHRS | r.IS_TFES


def test_a_check_condition() -> None:
    """6.2.2.1, for a packet: the sense key is in Error 7:4; REQUEST SENSE after ST was cleared."""
    host = started(cd())
    packet = command_fis(0xA0, 0xFFFE00, device=0)
    host.port.run(packet, flags=1 << 5, packet=bytes(12))
    assert host.port.read(r.PX_TFD) >> 12 == 6, "unit attention after power-on"
    assert host.port.read(r.PX_IS) & r.IS_TFES
    host.port.restart()
    host.port.run(packet, [(BUFFERS, 18)], flags=1 << 5, packet=bytes((3, 0, 0, 0, 18)).ljust(12, b"\0"))
    assert host.ram.read(BUFFERS + 2, 1)[0] & 0xF == 6


# --- errors of queued commands -------------------------------------------------------------------------------


def test_a_queued_command_that_is_not_accepted(host: AhciHost) -> None:
    """6.2.2.2: a D2H FIS with ERR; PxCI and PxSACT show the tag."""
    host.port.prepare(2, command_fis(READ_QUEUED, 1000, 2 << 3, 1), [(BUFFERS, 512)])
    host.port.write(r.PX_SACT, 1 << 2)
    host.port.issue(2)
    assert (host.port.read(r.PX_CI), host.port.read(r.PX_SACT)) == (4, 4)
    assert host.port.read(r.PX_IS) == r.IS_DHRS | r.IS_TFES
    assert host.port.d2h[2:4] == bytes((0x51, 0x10))


def test_a_queued_command_that_fails_later() -> None:
    """6.2.2.2: a Set Device Bits FIS with ERR and no tag; PxSACT keeps the tag; others wait."""
    host = started(worn_disk(first_bad=128))
    count = 129
    for tag in (0, 1):
        host.port.prepare(tag, command_fis(READ_QUEUED, 0, tag << 3, count), [(BUFFERS, count * 512)])
    host.port.write(r.PX_SACT, 3)
    host.port.issue(0, 1)
    assert (host.port.read(r.PX_CI), host.port.read(r.PX_SACT)) == (2, 3)
    assert host.port.sdb == bytes((0xA1, 0x40, 0x51, 0x40)) + bytes(4)
    assert host.port.read(r.PX_TFD) == 0x4051
    assert host.port.read(r.PX_IS) == r.IS_SDBS | r.IS_TFES
    host.port.restart()
    assert (host.port.read(r.PX_CI), host.port.read(r.PX_SACT)) == (0, 0)


# --- regions that are too short ------------------------------------------------------------------------------


def test_overflow(host: AhciHost) -> None:
    """3.3.5, OFS: the drive has more data than the regions hold; nothing beyond them is written."""
    host.port.run(command_fis(READ_DMA_EXT, 0, 2), [(BUFFERS, 600)])
    assert host.port.read(r.PX_IS) == r.IS_OFS
    assert host.ram.read(BUFFERS, 700) == pattern(2)[:600] + bytes(100)
    assert host.port.moved() == 600
    assert host.port.read(r.PX_CI) == 1
    assert host.port.read(r.PX_TFD) & 0x88 == 0x88


@pytest.mark.parametrize("way", ["clo", "comreset"])
def test_recovery_from_an_overflow(host: AhciHost, way: str) -> None:
    """6.2.2.1: BSY or DRQ is set, so the port needs CLO or a COMRESET before ST."""
    host.port.run(command_fis(READ_DMA_EXT, 0, 2), [(BUFFERS, 512)])
    host.port.restart()
    host.port.run(command_fis(IDENTIFY), [(BUFFERS, 512)])
    assert host.port.read(r.PX_CI) == 1
    host.port.write(r.PX_CMD, r.CMD_FRE)
    if way == "clo":
        host.port.write(r.PX_CMD, r.CMD_FRE | r.CMD_CLO)
    else:
        host.port.write(r.PX_SCTL, 1)
        host.port.write(r.PX_SCTL, 0)
    host.port.restart()
    host.port.run(command_fis(IDENTIFY), [(BUFFERS, 512)])
    assert host.port.read(r.PX_CI) == 0
    assert host.ram.read(BUFFERS, 2) == b"\x40\x00"


def test_a_write_without_enough_data_does_not_reach_the_medium(host: AhciHost) -> None:
    """6.1.5: the drive goes on waiting; no OFS."""
    host.ram.write(BUFFERS, b"\xee" * 512)
    host.port.run(command_fis(WRITE_DMA_EXT, 0, 1), [(BUFFERS, 500)], flags=1 << 6)
    assert host.port.read(r.PX_CI) == 1
    assert host.port.read(r.PX_IS) == 0
    drive = host.hba.drives[0]
    assert isinstance(drive, AtaDisk)
    assert drive.backend.read(0, 1) == pattern(1)


def test_no_regions_at_all(host: AhciHost) -> None:
    host.port.run(command_fis(IDENTIFY))
    assert host.port.read(r.PX_TFD) & 0x80
    assert host.port.read(r.PX_IS) == r.IS_OFS | r.IS_PSS


# --- nonsense ------------------------------------------------------------------------------------------------


def test_a_frame_that_is_no_command(host: AhciHost) -> None:
    """6.1.4: the interface refuses it: IFS, fatal until ST is cleared."""
    host.port.run(bytes(20), [(BUFFERS, 512)])
    assert host.port.read(r.PX_IS) == r.IS_IFS
    assert host.port.read(r.PX_CI) == 1
    host.port.restart()
    host.port.run(command_fis(CHECK_POWER))
    assert host.port.read(r.PX_CI) == 0


@pytest.mark.parametrize("address", [0, 0x80000000, 0xFFFFFC00, 0x7FFF_FFFF_FFFF_FC00, 0xFFFF_FFFF_FFFF_FC00])
def test_a_command_list_outside_ram(host: AhciHost, address: int) -> None:
    """Memory that is not there reads ones: no FIS type."""
    host.port.write(r.PX_CLB, address & 0xFFFFFFFF)
    host.port.write(r.PX_CLBU, address >> 32)
    host.port.issue(*range(32))
    assert host.port.read(r.PX_IS) == r.IS_IFS


def test_a_fis_area_outside_ram(host: AhciHost) -> None:
    before = bytes(host.low), bytes(host.high)
    host.port.write(r.PX_CMD, 0)
    host.port.write(r.PX_FBU, 0xFFFFFFFF)
    host.port.restart()
    host.port.prepare(0, command_fis(CHECK_POWER))
    changed = bytes(host.low), bytes(host.high)
    host.port.issue(0)
    assert host.port.read(r.PX_CI) == 0
    assert bytes(host.high) == before[1]
    assert bytes(host.low) == changed[0]


def test_65535_regions_outside_ram(host: AhciHost) -> None:
    """4.2.2, PRDTL: only as many entries are read as the data needs; the rest of the table is not there."""
    host.ram.write(LISTS, struct.pack("<HHIQ", 5, 65_535, 0, RAM_BASE + RAM_SIZE - 0x100))
    host.ram.write(RAM_BASE + RAM_SIZE - 0x100, command_fis(READ_DMA_EXT, 0, 256))
    host.ram.write(RAM_BASE + RAM_SIZE - 0x80, struct.pack("<QII", 0xFFFF_FFFF_FFFF_FFFE, 0, 1) * 8)
    host.port.issue(0)
    assert host.port.read(r.PX_CI) == 0
    assert host.port.moved() == 256 * 512


def test_65535_regions_of_two_bytes(host: AhciHost) -> None:
    """4.2.2, PRDTL: an entry may be as short as 2 bytes; here the whole table lies in memory."""
    memory = bytearray(0x80 + 16 * 65_535)
    ram = Ram(*host.ram.regions, RamRegion(0x2_0000_0000, memoryview(memory)))
    host.hba.ports_of_hba[0]._memory = ram
    host.ram.write(LISTS, struct.pack("<HHIQ", 5, 65_535, 0, 0x2_0000_0000))
    memory[:20] = command_fis(READ_DMA_EXT, 0, 256)
    memory[0x80:] = struct.pack("<QII", BUFFERS, 0, 1) * 65_535
    host.port.issue(0)
    assert host.port.moved() == 2 * 65_535
    assert host.port.read(r.PX_IS) == r.IS_OFS


def test_a_region_over_the_command_list(host: AhciHost) -> None:
    """Data that overwrites the structures of its own command: the copy that was fetched counts."""
    host.port.run(command_fis(READ_DMA_EXT, 0, 64), [(LISTS, 64 * 512)])
    assert host.port.read(r.PX_CI) == 0
    assert host.ram.read(LISTS + 0x400, 512) == pattern(3)[2 * 512 :]


def test_the_a_bit_on_a_disk_command(host: AhciHost) -> None:
    """5.3: ACMD is sent only when the drive asks for data by PIO."""
    host.port.run(command_fis(READ_DMA_EXT, 0, 1), [(BUFFERS, 512)], flags=1 << 5)
    assert host.ram.read(BUFFERS, 512) == pattern(1)
    host.ram.write(BUFFERS, b"\xdd" * 512)
    host.port.run(command_fis(WRITE_DMA_EXT, 0, 1), [(BUFFERS, 512)], flags=1 << 5, packet=b"\x11" * 16)
    drive = host.hba.drives[0]
    assert isinstance(drive, AtaDisk)
    assert drive.backend.read(0, 1) == b"\xdd" * 512
