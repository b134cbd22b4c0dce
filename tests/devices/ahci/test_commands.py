"""Commands through an AHCI port: AHCI 1.3.1, 4.2, 5.3 and 5.6, Serial ATA 10.5; rules in the docstrings."""

from __future__ import annotations

import struct
from collections.abc import Sequence

import pytest

from devices.ahci.ahci_host import (
    BUFFERS,
    HIGH_BASE,
    LISTS,
    TABLES,
    AhciHost,
    Prd,
    cd,
    command_fis,
    disk,
    pattern,
    started,
)
from portvisor.devices.ahci import registers as r
from portvisor.devices.ide.atapi_cd import AtapiCd

READ_DMA_EXT, WRITE_DMA_EXT, READ_SECTORS_EXT, WRITE_SECTORS_EXT = 0x25, 0x35, 0x24, 0x34
READ_MULTIPLE_EXT, IDENTIFY, IDENTIFY_PACKET, PACKET = 0x29, 0xEC, 0xA1, 0xA0
READ_QUEUED, WRITE_QUEUED = 0x60, 0x61
ATAPI, WRITE = 1 << 5, 1 << 6


def gather(host: AhciHost, regions: Sequence[Prd]) -> bytes:
    return b"".join(host.ram.read(address, length) for address, length in regions)


def media(host: AhciHost, sector: int, count: int) -> bytes:
    drive = host.hba.drives[0]
    assert drive is not None
    return bytes(drive.backend.read(sector, count))  # type: ignore[attr-defined]


@pytest.fixture
def host() -> AhciHost:
    return started(disk())


# --- PIO data-in ---------------------------------------------------------------------------------------------


def test_identify_through_scattered_regions(host: AhciHost) -> None:
    """4.2.3.3: the data fills the regions in order; PRDBC counts it."""
    regions = [(BUFFERS, 2), (BUFFERS + 0x1000, 100), (BUFFERS + 0x500, 410)]
    host.port.run(command_fis(IDENTIFY), regions)
    data = gather(host, regions)
    assert data[:2] == b"\x40\x00"
    assert sum(data) % 256 == 0, "the integrity word makes the sum 0"
    assert host.port.moved() == 512
    assert host.port.read(r.PX_CI) == 0
    assert host.ram.read(BUFFERS + 2, 2) == bytes(2)


def test_pio_data_in_ends_with_a_pio_setup_fis(host: AhciHost) -> None:
    """Serial ATA 10.5.11, AHCI 5.3.11: I and D set, Status 58, E_STATUS 50, count; PSS and no D2H FIS."""
    host.port.forget()
    host.port.run(command_fis(IDENTIFY), [(BUFFERS, 512)])
    setup = host.port.pio_setup
    assert setup[:4] == bytes((0x5F, 0x60, 0x58, 0x00))
    assert (setup[15], int.from_bytes(setup[16:18], "little")) == (0x50, 512)
    assert host.port.d2h == bytes(20)
    assert host.port.read(r.PX_IS) == r.IS_PSS
    assert host.port.read(r.PX_TFD) == 0x50


def test_a_pio_setup_fis_for_every_drq_block(host: AhciHost) -> None:
    """Serial ATA 11: READ SECTORS has blocks of one sector; the last FIS has the final status."""
    host.port.run(command_fis(READ_SECTORS_EXT, 5, 3), [(BUFFERS, 3 * 512)])
    assert host.ram.read(BUFFERS, 3 * 512) == pattern(8)[5 * 512 :]
    setup = host.port.pio_setup
    assert (setup[15], setup[16:18]) == (0x50, b"\x00\x02")
    assert host.port.moved() == 3 * 512


def test_pio_blocks_of_several_sectors(host: AhciHost) -> None:
    """CAP.PMD: READ MULTIPLE after SET MULTIPLE MODE."""
    host.port.run(command_fis(0xC6, count=4))
    host.port.run(command_fis(READ_MULTIPLE_EXT, 0, 6), [(BUFFERS, 6 * 512)])
    assert host.ram.read(BUFFERS, 6 * 512) == pattern(6)
    assert int.from_bytes(host.port.pio_setup[16:18], "little") == 2 * 512


# --- DMA -----------------------------------------------------------------------------------------------------


def test_read_dma(host: AhciHost) -> None:
    """5.6.2: data, then a D2H FIS with I: DHRS."""
    host.port.forget()
    host.port.run(command_fis(READ_DMA_EXT, 100, 8), [(BUFFERS, 4096)])
    assert host.ram.read(BUFFERS, 4096) == pattern(108)[100 * 512 :]
    assert host.port.d2h[:4] == bytes((0x34, 0x40, 0x50, 0x00))
    assert host.port.pio_setup == bytes(20)
    assert host.port.read(r.PX_IS) == r.IS_DHRS
    assert (host.port.read(r.PX_CI), host.port.read(r.PX_TFD), host.port.moved()) == (0, 0x50, 4096)
    assert host.line == 1


def test_write_dma(host: AhciHost) -> None:
    """5.6.3: the data is gathered from the regions."""
    data = bytes(range(256)) * 6
    regions = [(BUFFERS, 1000), (BUFFERS + 0x1000, 536)]
    host.ram.write(BUFFERS, data[:1000])
    host.ram.write(BUFFERS + 0x1000, data[1000:])
    host.port.run(command_fis(WRITE_DMA_EXT, 7, 3), regions, flags=WRITE)
    assert media(host, 6, 5) == pattern(7)[6 * 512 :] + data + pattern(11)[10 * 512 :]
    assert host.port.d2h[:3] == bytes((0x34, 0x40, 0x50))
    assert host.port.moved() == 3 * 512


def test_a_transfer_of_many_blocks(host: AhciHost) -> None:
    """More than the drive moves at once, in regions that do not match."""
    regions = [(BUFFERS, 0x10002), (BUFFERS + 0x20000, 256 * 512 - 0x10002)]
    host.port.run(command_fis(READ_DMA_EXT, 0, 256), regions)
    assert gather(host, regions) == pattern(256)


def test_d2h_fis_shows_the_registers(host: AhciHost) -> None:
    """Serial ATA 10.5.6: LBA, device, exp registers and count in their bytes."""
    host.port.run(command_fis(0x27, device=0x40))
    last = host.port.d2h
    assert (last[4:7], last[7], last[8:11]) == ((255).to_bytes(3, "little"), 0x40, bytes(3))
    host.port.run(command_fis(READ_DMA_EXT, 0x10, 4), [(BUFFERS, 2048)])
    assert host.port.d2h[4:7] == (0x13).to_bytes(3, "little")
    assert host.port.d2h[11] == 0
    assert host.port.d2h[14:] == bytes(6)


def test_all_48_bits_of_the_address_reach_the_drive(host: AhciHost) -> None:
    """Serial ATA 10.5.5: bytes 4-6 and 8-10; the drive refuses the address with IDNF and shows it."""
    host.port.run(command_fis(READ_DMA_EXT, 0x123456789ABC, 0xBEEF), [(BUFFERS, 512)])
    assert host.port.d2h[2:4] == bytes((0x51, 0x10))
    assert host.port.d2h[4:7] + host.port.d2h[8:11] == (0x123456789ABC).to_bytes(6, "little")
    assert host.port.d2h[12:14] == b"\xef\xbe"


@pytest.mark.parametrize("length", [1, 512])
def test_byte_counts_are_even(host: AhciHost, length: int) -> None:
    """4.2.3.3, DBC: bit 0 counts as 1, so that a region has an even length."""
    host.port.prepare(0, command_fis(READ_DMA_EXT, 0, 1), [(BUFFERS, length), (BUFFERS + 0x1000, 512)])
    host.port.issue(0)
    assert host.ram.read(BUFFERS, length + (length & 1)) == pattern(1)[: length + (length & 1)]
    assert host.port.moved() == 512


def test_addresses_are_even(host: AhciHost) -> None:
    """4.2.3.3, DBA: bit 0 is reserved."""
    host.port.run(command_fis(READ_DMA_EXT, 0, 1), [(BUFFERS + 1, 512)])
    assert host.ram.read(BUFFERS, 514) == pattern(1) + bytes(2)


def test_interrupt_on_a_region(host: AhciHost) -> None:
    """3.3.5, DPS: a region with I has been filled; not one that was only begun."""
    host.port.prepare(0, command_fis(READ_DMA_EXT, 0, 2), [(BUFFERS, 512), (BUFFERS + 512, 512)], interrupt=True)
    host.port.issue(0)
    assert host.port.read(r.PX_IS) == r.IS_DHRS | r.IS_DPS
    host.port.forget()
    host.port.prepare(0, command_fis(READ_DMA_EXT, 0, 1), [(BUFFERS, 514)], interrupt=True)
    host.port.issue(0)
    assert host.port.read(r.PX_IS) == r.IS_DHRS


def test_64_bit_addresses() -> None:
    """CAP.S64A: command list, FIS area, table and data above 4 GiB."""
    host = started(disk())
    port = host.port
    port.write(r.PX_CMD, 0)
    port.lists, port.fises = HIGH_BASE, HIGH_BASE + 0x800
    port.start()
    table = HIGH_BASE + 0x1000
    host.ram.write(port.lists, struct.pack("<HHIQ", 5, 1, 0, table))
    host.ram.write(table, command_fis(READ_DMA_EXT, 9, 1))
    host.ram.write(table + 0x80, struct.pack("<QII", HIGH_BASE + 0x2000, 0, 511))
    port.issue(0)
    assert host.ram.read(HIGH_BASE + 0x2000, 512) == pattern(10)[9 * 512 :]
    assert port.d2h[0] == 0x34
    assert port.moved() == 512


def test_non_data_command(host: AhciHost) -> None:
    """5.6.1: D2H FIS only; no region is touched."""
    host.port.forget()
    host.port.run(command_fis(0xE5), [(BUFFERS, 512)])
    assert host.port.d2h[12] == 0xFF, "CHECK POWER MODE: active"
    assert host.ram.read(BUFFERS, 512) == bytes(512)
    assert host.port.moved() == 0
    assert host.port.read(r.PX_IS) == r.IS_DHRS


# --- PIO data-out --------------------------------------------------------------------------------------------


def test_pio_data_out(host: AhciHost) -> None:
    """Serial ATA 11: a PIO Setup FIS per block, I clear for the first; at the end a D2H FIS with I."""
    host.ram.write(BUFFERS, b"\xa5" * 512)
    host.port.forget()
    host.port.run(command_fis(WRITE_SECTORS_EXT, 3, 1), [(BUFFERS, 512)], flags=WRITE)
    assert media(host, 3, 1) == b"\xa5" * 512
    setup = host.port.pio_setup
    assert (setup[1], setup[15]) == (0x00, 0xD0)
    assert host.port.d2h[:3] == bytes((0x34, 0x40, 0x50))
    assert host.port.read(r.PX_IS) == r.IS_DHRS


def test_later_blocks_of_pio_data_out_interrupt(host: AhciHost) -> None:
    host.port.forget()
    host.port.run(command_fis(WRITE_SECTORS_EXT, 3, 2), [(BUFFERS, 1024)], flags=WRITE)
    assert host.port.pio_setup[1] == 0x40
    assert host.port.read(r.PX_IS) == r.IS_DHRS | r.IS_PSS


# --- several slots -------------------------------------------------------------------------------------------


def test_slots_issued_together(host: AhciHost) -> None:
    """3.3.14: every slot that is set is carried out."""
    for slot in (0, 5, 31):
        host.port.prepare(slot, command_fis(READ_DMA_EXT, slot, 1), [(BUFFERS + 512 * slot, 512)])
    host.port.issue(0, 5, 31)
    assert host.port.read(r.PX_CI) == 0
    for slot in (0, 5, 31):
        assert host.ram.read(BUFFERS + 512 * slot, 512) == pattern(slot + 1)[slot * 512 :]
        assert host.port.moved(slot) == 512


# --- queued commands -----------------------------------------------------------------------------------------


def queued(command: int, tag: int, lba: int, count: int) -> bytes:
    """FPDMA QUEUED: the count is in Features, the tag in Sector Count 7:3."""
    return command_fis(command, lba, tag << 3, count)


def test_queued_commands_with_several_tags(host: AhciHost) -> None:
    """5.6.4: PxSACT and PxCI are clear at the end; SDBS; data of every tag."""
    port = host.port
    port.forget()
    tags = (0, 3, 17, 31)
    for tag in tags:
        port.prepare(tag, queued(READ_QUEUED, tag, tag, 2), [(BUFFERS + 1024 * tag, 1024)])
    port.write(r.PX_SACT, sum(1 << tag for tag in tags))
    port.issue(*tags)
    assert (port.read(r.PX_CI), port.read(r.PX_SACT)) == (0, 0)
    for tag in tags:
        assert host.ram.read(BUFFERS + 1024 * tag, 1024) == pattern(tag + 2)[tag * 512 :]
        assert port.moved(tag) == 0, "PRDBC is not used by queued commands (4.2.2)"
    assert port.read(r.PX_IS) == r.IS_SDBS


def test_set_device_bits_fis(host: AhciHost) -> None:
    """Serial ATA 10.5.7: A1, I, status without BSY and DRQ, error, the tags that are done."""
    host.port.prepare(4, queued(READ_QUEUED, 9, 0, 1), [(BUFFERS, 512)])
    host.port.write(r.PX_SACT, 1 << 9)
    host.port.issue(4)
    assert host.port.sdb == bytes((0xA1, 0x40, 0x50, 0x00)) + (1 << 9).to_bytes(4, "little")
    assert (host.port.read(r.PX_CI), host.port.read(r.PX_SACT)) == (0, 0)


def test_acceptance_of_a_queued_command(host: AhciHost) -> None:
    """Serial ATA 13.6.4: a D2H FIS without I, Status 50, before the data."""
    host.port.forget()
    host.port.prepare(0, queued(READ_QUEUED, 0, 0, 1), [(BUFFERS, 512)])
    host.port.write(r.PX_SACT, 1)
    host.port.issue(0)
    assert host.port.d2h[:4] == bytes((0x34, 0x00, 0x50, 0x00))


def test_queued_write(host: AhciHost) -> None:
    host.ram.write(BUFFERS, b"\x77" * 1024)
    host.port.prepare(0, queued(WRITE_QUEUED, 0, 50, 2), [(BUFFERS, 1024)], flags=WRITE)
    host.port.write(r.PX_SACT, 1)
    host.port.issue(0)
    assert media(host, 50, 2) == b"\x77" * 1024


def test_other_tags_stay_active(host: AhciHost) -> None:
    """3.3.13: a Set Device Bits FIS clears only the tags it names."""
    host.port.write(r.PX_SACT, 0b110)
    host.port.prepare(1, queued(READ_QUEUED, 1, 0, 1), [(BUFFERS, 512)])
    host.port.issue(1)
    assert host.port.read(r.PX_SACT) == 0b100


# --- packet devices ------------------------------------------------------------------------------------------


@pytest.fixture
def optical() -> AhciHost:
    host = started(cd())
    host.port.run(command_fis(PACKET, device=0), flags=ATAPI, packet=bytes(12))
    host.port.restart()
    host.port.run(command_fis(PACKET, device=0), flags=ATAPI, packet=bytes(12))
    assert host.port.read(r.PX_TFD) & 0xFF == 0x50, "TEST UNIT READY, after the unit attention of power-on"
    host.port.forget()
    return host


def packet_fis(*, dma: bool, limit: int = 0xFFFE) -> bytes:
    return command_fis(PACKET, limit << 8, features=1 if dma else 0, device=0)


READ_10 = bytes((0x28, 0, 0, 0, 0, 3, 0, 0, 2, 0, 0, 0))
"""Two blocks from block 3."""
BLOCKS_3_AND_4 = pattern(20)[12 * 512 : 20 * 512]


def test_packet_by_dma(optical: AhciHost) -> None:
    """5.6.5: ACMD goes out after a PIO Setup FIS of 12 bytes; data by DMA; a D2H FIS with I ends it."""
    optical.port.run(packet_fis(dma=True), [(BUFFERS, 4096)], flags=ATAPI, packet=READ_10)
    assert optical.ram.read(BUFFERS, 4096) == BLOCKS_3_AND_4
    setup = optical.port.pio_setup
    assert (setup[1], int.from_bytes(setup[16:18], "little")) == (0x00, 12)
    assert optical.port.d2h[:3] == bytes((0x34, 0x40, 0x50))
    assert optical.port.d2h[12] & 7 == 3, "interrupt reason: C/D and I/O"
    assert (optical.port.read(r.PX_IS), optical.port.moved()) == (r.IS_DHRS, 4096)


def test_packet_by_pio(optical: AhciHost) -> None:
    """A PIO Setup FIS with I for every block of the byte count limit, then a D2H FIS."""
    optical.port.run(packet_fis(dma=False, limit=2048), [(BUFFERS, 4096)], flags=ATAPI, packet=READ_10)
    assert optical.ram.read(BUFFERS, 4096) == BLOCKS_3_AND_4
    setup = optical.port.pio_setup
    assert (setup[1], setup[15], int.from_bytes(setup[16:18], "little")) == (0x60, 0xD0, 2048)
    assert optical.port.d2h[:3] == bytes((0x34, 0x40, 0x50))
    assert optical.port.read(r.PX_IS) == r.IS_DHRS | r.IS_PSS


def test_identify_packet_device(optical: AhciHost) -> None:
    optical.port.run(command_fis(IDENTIFY_PACKET, device=0), [(BUFFERS, 512)])
    assert optical.ram.read(BUFFERS, 2) == b"\xc0\x85"
    assert optical.port.read(r.PX_IS) == r.IS_PSS


def test_packet_without_the_a_bit_takes_the_cdb_from_the_regions(optical: AhciHost) -> None:
    """4.2.2, bit A: only with it the ACMD field is sent."""
    optical.ram.write(BUFFERS, READ_10)
    regions = [(BUFFERS, 12), (BUFFERS + 0x1000, 4096)]
    optical.port.run(packet_fis(dma=True), regions, packet=bytes(12))
    assert optical.ram.read(BUFFERS + 0x1000, 4096) == BLOCKS_3_AND_4


def test_device_reset_is_answered_without_interrupt(optical: AhciHost) -> None:
    """Serial ATA 11, DEVICE RESET: a D2H FIS with I clear, and the signature."""
    optical.port.run(command_fis(0x08, device=0))
    assert optical.port.d2h[:2] == b"\x34\x00"
    assert (optical.port.read(r.PX_CI), optical.port.read(r.PX_IS)) == (0, 0)


# --- where the drive does not answer -------------------------------------------------------------------------


def test_a_sleeping_drive_wakes_by_reset_only(host: AhciHost) -> None:
    """ATA-6, SLEEP: no command is answered; BSY until the link is reset."""
    host.port.run(command_fis(0xE6))
    assert host.port.read(r.PX_TFD) == 0x50
    host.port.run(command_fis(0xE5))
    assert host.port.read(r.PX_CI) == 1
    assert host.port.read(r.PX_TFD) & 0x80
    host.port.write(r.PX_CMD, r.CMD_FRE)
    host.port.write(r.PX_SCTL, 1)
    host.port.write(r.PX_SCTL, 0)
    host.port.restart()
    host.port.run(command_fis(IDENTIFY), [(BUFFERS, 512)])
    assert host.ram.read(BUFFERS, 2) == b"\x40\x00"


def test_the_tables_lie_where_the_driver_put_them(host: AhciHost) -> None:
    """4.2.2: CTBA is 128-byte aligned, bits 6:0 do not count."""
    host.port.prepare(0, command_fis(IDENTIFY), [(BUFFERS, 512)])
    host.ram.write(LISTS + 8, (TABLES | 0x7F).to_bytes(8, "little"))
    host.port.issue(0)
    assert host.ram.read(BUFFERS, 2) == b"\x40\x00"


def test_a_tray_that_opens_is_no_business_of_the_port(optical: AhciHost) -> None:
    """The drive itself reports it: NOT READY, sense key 2 in Error 7:4."""
    drive = optical.hba.drives[0]
    assert isinstance(drive, AtapiCd)
    drive.cd.eject()
    optical.port.run(packet_fis(dma=True), [(BUFFERS, 4096)], flags=ATAPI, packet=READ_10)
    assert optical.port.read(r.PX_TFD) >> 12 in (2, 6)
    assert optical.port.read(r.PX_IS) & r.IS_TFES
