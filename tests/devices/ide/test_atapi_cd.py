"""The CD-ROM drive: PACKET protocol (T13/1410D ATA-6, 9.8) and command set (MMC-3, SPC-3)."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.ide.ata_host import (
    COMMAND,
    COUNT,
    DEVICE,
    ERROR,
    FAILED,
    FEATURES,
    HIGH,
    MID,
    READY,
    READY_DRQ,
    STATUS,
    AtaHost,
    Result,
)
from portvisor.backends.image import MemoryImage
from portvisor.devices.ide import SECONDARY, AtapiCd, IdeChannel, Transport
from portvisor.devices.ide.drive import DATA_IN, DATA_OUT, IDLE
from portvisor.devices.ide.mmc import CdRom, CheckConditionError, msf
from portvisor.devices.ide.registers import ABRT, DRQ
from portvisor.ports import Device, IrqLine
from portvisor.testing import DeviceSuite

BLOCKS = 120
CONTENT = random.Random(7).randbytes(BLOCKS * 2048)

TEST_UNIT_READY, REQUEST_SENSE, READ_CAPACITY = [0x00], [0x03, 0, 0, 0, 18], [0x25]
EJECT, LOAD, LOCK, UNLOCK = [0x1B, 0, 0, 0, 2], [0x1B, 0, 0, 0, 3], [0x1E, 0, 0, 0, 1], [0x1E, 0, 0, 0, 0]
POLL_MEDIA = [0x4A, 1, 0, 0, 0x10, 0, 0, 0, 8]


def read10(block: int, count: int) -> bytes:
    return bytes((0x28, 0)) + block.to_bytes(4, "big") + b"\0" + count.to_bytes(2, "big") + bytes(3)


def read12(block: int, count: int) -> bytes:
    return bytes((0xA8, 0)) + block.to_bytes(4, "big") + count.to_bytes(4, "big") + bytes(2)


def ready_host(drive: AtapiCd) -> AtaHost:
    """A host that has taken the power-on attention."""
    host = AtaHost(drive)
    assert host.packet(TEST_UNIT_READY).error >> 4 == 6
    return host


@pytest.fixture
def drive() -> AtapiCd:
    return AtapiCd(MemoryImage(CONTENT))


@pytest.fixture
def host(drive: AtapiCd) -> AtaHost:
    return ready_host(drive)


def sense(host: AtaHost) -> tuple[int, int, int]:
    """(key, code, qualifier) from REQUEST SENSE."""
    result = host.packet(REQUEST_SENSE)
    assert result.good
    assert result.data[0] & 0x7F == 0x70
    assert len(result.data) == result.data[7] + 8
    return result.data[2], result.data[12], result.data[13]


def assert_check(host: AtaHost, result: Result, expected: tuple[int, int, int]) -> None:
    """CHECK CONDITION with the key in Error, and the same from REQUEST SENSE."""
    assert result.status == FAILED
    assert result.error >> 4 == expected[0]
    assert host.get(COUNT) & 3 == 3
    assert sense(host) == expected


class TestCdChannel(DeviceSuite):
    def make(self) -> Device:
        return IdeChannel(IrqLine(), AtapiCd(MemoryImage(CONTENT)), AtapiCd(), SECONDARY)


class TestProtocol:
    def test_identify_packet_device(self, host: AtaHost) -> None:
        data = host.data_in(0xA1).data
        words = [int.from_bytes(data[index : index + 2], "little") for index in range(0, 512, 2)]
        assert words[0] >> 14 == 2, "ATAPI"
        assert words[0] >> 8 & 0x1F == 5, "CD-ROM"
        assert words[0] & 0x80, "removable"
        assert words[0] & 3 == 0, "12-byte packets"
        assert words[82] & 0x0218 == 0x0218, "PACKET, DEVICE RESET, power management"
        assert words[49] & 0x0200
        assert not words[49] & 0x0100
        assert words[63] == words[88] == 0
        assert sum(data) % 256 == 0

    def test_identify_device_and_read_sectors_are_aborted_with_the_signature(self, host: AtaHost) -> None:
        for code in (0xEC, 0x20):
            host.put(MID, 0)
            host.put(HIGH, 0)
            result = host.no_data(code)
            assert (result.status, result.error & ABRT) == (FAILED, ABRT)
            assert (host.get(MID), host.get(HIGH)) == (0x14, 0xEB)

    @pytest.mark.parametrize("code", [0x00, 0x24, 0x30, 0xC4, 0xC6, 0xC8, 0xE7, 0x91, 0xF8])
    def test_disk_commands_are_aborted(self, host: AtaHost, code: int) -> None:
        assert host.no_data(code).error == ABRT

    def test_phases_interrupt_reasons_and_interrupts(self, host: AtaHost) -> None:
        host.interrupts()
        host.put(MID, 0x00)
        host.put(HIGH, 0x10)
        host.put(COMMAND, 0xA0)
        assert host.interrupts() == 0, "word 0 promises DRQ without an interrupt"
        assert (host.get(STATUS) & DRQ, host.get(COUNT)) == (DRQ, 1)
        host.send(read10(3, 5))
        for length in (4096, 4096, 2048):
            assert host.interrupts() == 1
            assert host.get(STATUS) == READY_DRQ
            assert host.get(COUNT) == 2
            assert host.get(MID) | host.get(HIGH) << 8 == length
            host.words(length // 2)
        assert host.interrupts() == 1
        assert (host.get(STATUS), host.get(COUNT)) == (READY, 3)

    def test_command_without_data(self, host: AtaHost) -> None:
        host.interrupts()
        host.put(COMMAND, 0xA0)
        host.send(bytes(12))
        assert host.interrupts() == 1
        assert (host.get(STATUS), host.get(COUNT), host.get(ERROR)) == (READY, 3, 0)

    @pytest.mark.parametrize("limit", [2, 3, 512, 2047, 2048, 2050, 30_001, 0xFFFE, 0xFFFF])
    def test_any_byte_count_limit_gives_the_same_data(self, host: AtaHost, limit: int) -> None:
        result = host.packet(read10(10, 40), limit)
        assert result.good
        assert result.data == CONTENT[10 * 2048 : 50 * 2048]

    @pytest.mark.parametrize("limit", [1, 2, 7, 18, 100])
    def test_blocks_keep_to_the_limit_and_all_but_the_last_are_even(self, host: AtaHost, limit: int) -> None:
        host.put(MID, limit)
        host.put(HIGH, 0)
        host.put(COMMAND, 0xA0)
        host.send(bytes([0x12, 0, 0, 0, 35]).ljust(12, b"\0"))
        lengths = []
        while host.get(STATUS) & DRQ:
            lengths.append(host.get(MID) | host.get(HIGH) << 8)
            host.words((lengths[-1] + 1) // 2)
        assert sum(lengths) == 35
        assert all(length <= max(limit, 2) for length in lengths)
        assert all(length % 2 == 0 for length in lengths[:-1])

    def test_limit_0_aborts_commands_with_data_only(self, host: AtaHost) -> None:
        assert host.packet(TEST_UNIT_READY, 0).good
        result = host.packet(READ_CAPACITY, 0)
        assert (result.status, result.error, result.data) == (FAILED, ABRT, b"")

    def test_dma_and_overlap_are_refused(self, host: AtaHost) -> None:
        for features in (1, 2):
            host.put(FEATURES, features)
            assert host.no_data(0xA0).error == ABRT

    def test_device_reset_works_at_any_time_without_interrupt(self, host: AtaHost) -> None:
        host.interrupts()
        host.put(MID, 0)
        host.put(HIGH, 8)
        host.put(COMMAND, 0xA0)
        host.send(read10(0, 3))
        host.words(100)
        assert host.interrupts() == 1
        host.put(COMMAND, 0x08)
        assert host.irq.level == 0
        assert (host.get(ERROR), host.block(), host.get(STATUS)) == (1, [1, 1, 0x14, 0xEB], 0)
        host.no_data(0xE6)
        host.put(COMMAND, 0x08)
        assert host.packet(TEST_UNIT_READY).good

    def test_device_reset_does_not_reach_the_other_drive(self) -> None:
        host = AtaHost(AtapiCd(), AtapiCd())
        host.put(DEVICE, 0x10)
        host.put(COMMAND, 0xE7)
        host.put(DEVICE, 0x00)
        host.put(COMMAND, 0x08)
        host.put(DEVICE, 0x10)
        assert host.get(STATUS) == FAILED

    def test_sata_transfers_by_dma(self) -> None:
        drive = AtapiCd(MemoryImage(CONTENT), transport=Transport.SATA)
        for cdb in (bytes(12), read10(1, 100)):
            drive.state.registers.current[FEATURES] = 1
            drive.execute(0xA0)
            assert drive.state.phase == DATA_OUT
            assert drive.write_data(cdb) == 12
        data = bytearray()
        while drive.state.phase == DATA_IN:
            assert not drive.state.interrupt
            data += drive.read_data(5000)
        assert data == CONTENT[2048 : 101 * 2048]
        assert drive.state.phase == IDLE
        assert drive.state.interrupt
        assert drive.state.registers.status == READY


class TestSense:
    def test_power_on_attention_comes_first_and_once(self, drive: AtapiCd) -> None:
        host = AtaHost(drive)
        assert_check(host, host.packet(TEST_UNIT_READY), (6, 0x29, 0))
        assert host.packet(TEST_UNIT_READY).good

    def test_request_sense_reports_a_pending_attention(self, drive: AtapiCd) -> None:
        host = AtaHost(drive)
        assert sense(host) == (6, 0x29, 0)
        assert host.packet(TEST_UNIT_READY).good

    @pytest.mark.parametrize("cdb", [[0x12, 0, 0, 0, 36], [0x46, 0, 0, 0, 0, 0, 0, 0, 8], POLL_MEDIA])
    def test_some_commands_pass_a_pending_attention(self, drive: AtapiCd, cdb: list[int]) -> None:
        host = AtaHost(drive)
        assert host.packet(cdb).good
        assert host.packet(TEST_UNIT_READY).error >> 4 == 6

    def test_sense_is_cleared_by_reading_it_and_by_the_next_command(self, host: AtaHost) -> None:
        assert_check(host, host.packet([0xFF]), (5, 0x20, 0))
        assert sense(host) == (0, 0, 0)
        host.packet([0xFF])
        host.packet(TEST_UNIT_READY)
        assert sense(host) == (0, 0, 0)

    def test_illegal_request_has_abrt(self, host: AtaHost) -> None:
        assert host.packet([0xFF]).error == 0x54

    def test_sense_after_a_snapshot(self, drive: AtapiCd) -> None:
        host = AtaHost(drive)
        host.channel.restore(host.channel.snapshot())
        assert sense(host) == (6, 0x29, 0)
        assert sense(host) == (0, 0, 0)


class TestMedium:
    def test_no_disc(self) -> None:
        host = ready_host(AtapiCd())
        for cdb in (TEST_UNIT_READY, READ_CAPACITY, read10(0, 1), [0x43], [0x51], [0x2B], [0x1B, 0, 0, 0, 1]):
            assert_check(host, host.packet(cdb), (2, 0x3A, 1))

    def test_new_disc_is_reported_once(self, host: AtaHost, drive: AtapiCd) -> None:
        drive.cd.insert(MemoryImage(5 * 2048))
        assert_check(host, host.packet(READ_CAPACITY), (6, 0x28, 0))
        assert host.packet(READ_CAPACITY).data == bytes((0, 0, 0, 4, 0, 0, 8, 0))

    def test_new_disc_in_the_middle_of_a_read_ends_it(self, host: AtaHost, drive: AtapiCd) -> None:
        host.put(MID, 0)
        host.put(HIGH, 8)
        host.put(COMMAND, 0xA0)
        host.send(read10(0, 4))
        drive.cd.insert(MemoryImage(2048))
        host.words(1024)
        assert_check(host, host.result(), (6, 0x28, 0))

    def test_guest_ejects_and_loads(self, host: AtaHost) -> None:
        assert host.packet(EJECT).good
        assert_check(host, host.packet(TEST_UNIT_READY), (2, 0x3A, 2))
        assert host.packet(EJECT).good
        assert host.packet(LOAD).good
        assert_check(host, host.packet(TEST_UNIT_READY), (6, 0x28, 0))
        assert host.packet(read10(0, 1)).data == CONTENT[:2048]

    def test_load_of_a_closed_tray_changes_nothing(self, host: AtaHost) -> None:
        assert host.packet(LOAD).good
        assert host.packet(TEST_UNIT_READY).good

    def test_lock(self, host: AtaHost, drive: AtapiCd) -> None:
        assert host.packet(LOCK).good
        assert_check(host, host.packet(EJECT), (5, 0x53, 2))
        assert not drive.cd.eject()
        assert host.packet(POLL_MEDIA).data[4] == 1, "eject request"
        assert host.packet(TEST_UNIT_READY).good
        assert host.packet(UNLOCK).good
        assert drive.cd.eject()
        assert_check(host, host.packet(TEST_UNIT_READY), (2, 0x3A, 2))

    def test_host_may_force_a_locked_tray(self, host: AtaHost, drive: AtapiCd) -> None:
        host.packet(LOCK)
        assert drive.cd.eject(force=True)
        assert not drive.state.cd.locked
        assert drive.cd.medium is None

    def test_power_condition_is_taken(self, host: AtaHost) -> None:
        assert host.packet([0x1B, 0, 0, 0, 0x32]).good
        assert host.packet(TEST_UNIT_READY).good

    def test_tray_stays_open_over_a_reset_and_the_lock_does_not(self, host: AtaHost, drive: AtapiCd) -> None:
        host.packet(EJECT)
        host.packet(LOCK)
        host.channel.reset()
        host.packet(TEST_UNIT_READY)
        assert_check(host, host.packet(TEST_UNIT_READY), (2, 0x3A, 2))
        assert not drive.state.cd.locked

    def test_media_events(self, host: AtaHost, drive: AtapiCd) -> None:
        assert host.packet(POLL_MEDIA).data == bytes((0, 6, 4, 0x10, 0, 2, 0, 0))
        host.packet(EJECT)
        assert host.packet(POLL_MEDIA).data[4:6] == bytes((3, 1)), "media removal, tray open"
        assert host.packet(POLL_MEDIA).data[4:6] == bytes((0, 1))
        drive.cd.insert(MemoryImage(2048))
        assert host.packet(POLL_MEDIA).data[4:6] == bytes((2, 2)), "new media, present"

    def test_events_of_other_classes_and_asynchronous_ones(self, host: AtaHost) -> None:
        assert host.packet([0x4A, 1, 0, 0, 0x04, 0, 0, 0, 8]).data == bytes((0, 2, 0x80, 0x10))
        assert_check(host, host.packet([0x4A, 0, 0, 0, 0x10, 0, 0, 0, 8]), (5, 0x24, 0))

    def test_header_alone_keeps_the_event(self, host: AtaHost) -> None:
        host.packet(EJECT)
        host.packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 4])
        assert host.packet([0x4A, 1, 0, 0, 0x10, 0, 0, 0, 5]).data[4] == 3
        assert host.packet(POLL_MEDIA).data[4] == 0


class TestReads:
    @pytest.mark.parametrize("read", [read10, read12])
    def test_read(self, host: AtaHost, read: Callable[[int, int], bytes]) -> None:
        assert host.packet(read(119, 1)).data == CONTENT[119 * 2048 :]
        assert host.packet(read(5, 0)) == Result(READY, 0)
        assert_check(host, host.packet(read(119, 2)), (5, 0x21, 0))
        assert_check(host, host.packet(read(0xFFFFFFFF, 1)), (5, 0x21, 0))

    def test_length_of_4_gib_blocks_is_refused_not_tried(self, host: AtaHost) -> None:
        assert_check(host, host.packet(read12(0, 0xFFFFFFFF)), (5, 0x21, 0))

    def test_only_as_much_is_read_as_a_block_needs(self) -> None:
        class Counting(MemoryImage):
            largest = 0

            def read(self, sector: int, count: int) -> bytes:
                Counting.largest = max(Counting.largest, count)
                return super().read(sector, count)

        host = ready_host(AtapiCd(Counting(CONTENT)))
        assert host.packet(read10(0, BLOCKS), 2048).data == CONTENT
        assert Counting.largest == 4

    def test_disc_that_ends_inside_a_block(self) -> None:
        host = ready_host(AtapiCd(MemoryImage(b"x" * 2560)))
        assert host.packet(READ_CAPACITY).data[:4] == bytes((0, 0, 0, 1))
        assert host.packet(read10(0, 2)).data == b"x" * 2560 + bytes(1536)

    def test_host_error_is_a_medium_error_with_the_block(self) -> None:
        class Scratched(MemoryImage):
            def read(self, sector: int, count: int) -> bytes:
                if sector + count > 20 * 4:
                    raise OSError(errno.EIO, "scratch")
                return super().read(sector, count)

        host = ready_host(AtapiCd(Scratched(CONTENT)))
        result = host.packet(read10(18, 5))
        assert (result.status, result.error) == (FAILED, 0x30)
        assert result.data == CONTENT[18 * 2048 : 20 * 2048]
        data = host.packet(REQUEST_SENSE).data
        assert (data[0], data[2], data[12]) == (0xF0, 3, 0x11)
        assert int.from_bytes(data[3:7], "big") == 20

    def test_read_cd(self, host: AtaHost) -> None:
        assert host.packet([0xBE, 0, 0, 0, 0, 7, 0, 0, 2, 0x10]).data == CONTENT[7 * 2048 : 9 * 2048]
        assert host.packet([0xBE, 0x08, 0, 0, 0, 7, 0, 0, 1, 0x10]).data == CONTENT[7 * 2048 : 8 * 2048]
        assert host.packet([0xBE, 0, 0, 0, 0, 7, 0, 0, 2, 0x00]) == Result(READY, 0)
        for cdb in (
            [0xBE, 0x04, 0, 0, 0, 0, 0, 0, 1, 0x10],
            [0xBE, 0, 0, 0, 0, 0, 0, 0, 1, 0xF8],
            [0xBE, 0, 0, 0, 0, 0, 0, 0, 1, 0x12],
            [0xBE, 0, 0, 0, 0, 0, 0, 0, 1, 0x10, 1],
        ):
            assert_check(host, host.packet(cdb), (5, 0x24, 0))
        assert_check(host, host.packet([0xBE, 0, 0, 0, 0, 0, 1, 0, 1, 0x10]), (5, 0x21, 0))

    def test_seek(self, host: AtaHost) -> None:
        assert host.packet([0x2B, 0, 0, 0, 0, 119]).good
        assert_check(host, host.packet([0x2B, 0, 0, 0, 0, 120]), (5, 0x21, 0))

    @settings(max_examples=60, deadline=None)
    @given(block=st.integers(0, BLOCKS), count=st.integers(0, 40), limit=st.integers(1, 0xFFFF))
    def test_any_read_equals_a_slice(self, block: int, count: int, limit: int) -> None:
        host = ready_host(AtapiCd(MemoryImage(CONTENT)))
        result = host.packet(read10(block, count), max(limit, 64))
        if block + count <= BLOCKS:
            assert result.good
            assert result.data == CONTENT[block * 2048 : (block + count) * 2048]
        else:
            assert result.error >> 4 == 5


class TestInformation:
    def test_inquiry(self, host: AtaHost) -> None:
        data = host.packet([0x12, 0, 0, 0, 255]).data
        assert len(data) == data[4] + 5 == 36
        assert data[:8] == bytes((5, 0x80, 0, 0x32, 31, 0, 0, 0))
        assert data[8:] == b"PVISOR  CD-ROM          1.0 "
        assert host.packet([0x12, 0, 0, 0, 5]).data == data[:5]
        assert_check(host, host.packet([0x12, 1, 0, 0, 255]), (5, 0x24, 0))

    def test_read_capacity(self, host: AtaHost) -> None:
        assert host.packet(READ_CAPACITY).data == bytes((0, 0, 0, 119, 0, 0, 8, 0))

    @pytest.mark.parametrize(("msf_bit", "lead_out"), [(0, bytes((0, 0, 0, 120))), (2, bytes((0, 0, 3, 45)))])
    def test_toc(self, host: AtaHost, msf_bit: int, lead_out: bytes) -> None:
        data = host.packet([0x43, msf_bit, 0, 0, 0, 0, 0, 0, 100]).data
        assert int.from_bytes(data[:2], "big") == len(data) - 2 == 18
        assert data[2:4] == b"\1\1"
        assert data[4:8] == bytes((0, 0x14, 1, 0))
        assert data[8:12] == (bytes((0, 0, 2, 0)) if msf_bit else bytes(4))
        assert data[12:16] == bytes((0, 0x14, 0xAA, 0))
        assert data[16:20] == lead_out

    def test_toc_from_the_lead_out(self, host: AtaHost) -> None:
        data = host.packet([0x43, 0, 0, 0, 0, 0, 0xAA, 0, 100]).data
        assert len(data) == 12
        assert data[6] == 0xAA
        assert_check(host, host.packet([0x43, 0, 0, 0, 0, 0, 2, 0, 100]), (5, 0x24, 0))

    def test_session_information(self, host: AtaHost) -> None:
        for cdb in ([0x43, 0, 1, 0, 0, 0, 0, 0, 100], [0x43, 0, 0, 0, 0, 0, 0, 0, 100, 0x40]):
            assert host.packet(cdb).data == bytes((0, 10, 1, 1, 0, 0x14, 1, 0, 0, 0, 0, 0))

    def test_full_toc(self, host: AtaHost) -> None:
        data = host.packet([0x43, 2, 2, 0, 0, 0, 1, 0, 100]).data
        assert int.from_bytes(data[:2], "big") == len(data) - 2
        entries = [data[start : start + 11] for start in range(4, len(data), 11)]
        assert [entry[3] for entry in entries] == [0xA0, 0xA1, 0xA2, 1]
        assert all(entry[:3] + entry[4:8] == bytes((1, 0x14, 0, 0, 0, 0, 0)) for entry in entries)
        assert [entry[8:] for entry in entries] == [b"\1\0\0", b"\1\0\0", bytes((0, 3, 45)), bytes((0, 2, 0))]
        assert_check(host, host.packet([0x43, 2, 2, 0, 0, 0, 2, 0, 100]), (5, 0x24, 0))

    @pytest.mark.parametrize("kind", [3, 4, 5, 15])
    def test_other_toc_formats(self, host: AtaHost, kind: int) -> None:
        assert_check(host, host.packet([0x43, 0, kind, 0, 0, 0, 0, 0, 100]), (5, 0x24, 0))

    def test_minutes_end_at_99_59_74(self) -> None:
        assert msf(0) == bytes((0, 2, 0))
        assert msf(16) == bytes((0, 2, 16))
        assert msf(100 * 60 * 75 - 151) == bytes((99, 59, 74))
        assert msf(1 << 31) == bytes((99, 59, 74))

    def test_mode_sense_capabilities(self, host: AtaHost) -> None:
        data = host.packet([0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 100]).data
        assert int.from_bytes(data[:2], "big") == len(data) - 2
        assert data[2:8] == bytes((1, 0, 0, 0, 0, 0)), "a data disc, no block descriptor"
        assert data[8:10] == bytes((0x2A, len(data) - 10))
        assert data[10:16] == bytes((3, 0, 0, 0, 0x29, 0)), "reads CD-R and CD-RW; tray, ejects, locks"
        assert int.from_bytes(data[16:18], "big") == int.from_bytes(data[22:24], "big") == 4234, "24 times"
        host.packet(LOCK)
        assert host.packet([0x5A, 0, 0x2A, 0, 0, 0, 0, 0, 100]).data[14] == 0x2B

    def test_mode_sense_page_control(self, host: AtaHost) -> None:
        current = host.packet([0x5A, 0, 0x3F, 0, 0, 0, 0, 0, 200]).data
        changeable = host.packet([0x5A, 0, 0x7F, 0, 0, 0, 0, 0, 200]).data
        default = host.packet([0x5A, 0, 0xBF, 0, 0, 0, 0, 0, 200]).data
        assert current == default
        assert changeable[8:20] == bytes((1, 10)) + bytes(10)
        assert changeable[20:] == bytes((0x2A, 18)) + bytes(18)
        assert_check(host, host.packet([0x5A, 0, 0xFF, 0, 0, 0, 0, 0, 200]), (5, 0x39, 0))
        assert_check(host, host.packet([0x5A, 0, 0x0E, 0, 0, 0, 0, 0, 200]), (5, 0x24, 0))
        assert_check(host, host.packet([0x5A, 0, 0x01, 1, 0, 0, 0, 0, 200]), (5, 0x24, 0))

    def test_mode_sense_medium_type(self, host: AtaHost, drive: AtapiCd) -> None:
        cdb = [0x5A, 0, 1, 0, 0, 0, 0, 0, 200]
        assert host.packet(cdb).data[2] == 0x01
        host.packet(EJECT)
        assert host.packet(cdb).data[2] == 0x71
        drive.cd.eject()
        host.packet(LOAD)
        assert host.packet(cdb).data[2] == 0x70

    def features(self, data: bytes) -> dict[int, tuple[int, bytes]]:
        found = {}
        position = 8
        while position < len(data):
            code, flags, length = int.from_bytes(data[position : position + 2], "big"), *data[position + 2 :][:2]
            assert length % 4 == 0
            found[code] = (flags & 1, data[position + 4 : position + 4 + length])
            position += 4 + length
        return found

    def test_get_configuration(self, host: AtaHost) -> None:
        data = host.packet([0x46, 0, 0, 0, 0, 0, 0, 1, 0]).data
        assert int.from_bytes(data[:4], "big") == len(data) - 4
        assert data[6:8] == bytes((0, 8)), "profile CD-ROM"
        found = self.features(data)
        assert list(found) == sorted(found)
        assert {0, 1, 2, 3, 0x10, 0x1E, 0x100, 0x105} <= set(found)
        assert all(current for current, _ in found.values())
        assert found[0] == (1, bytes((0, 8, 1, 0)))
        assert data.hex(" ", 4)[18:] == (
            "00000304 00080100 00010304 00000002 00020304 00000000 00030304 29000000 "
            "00100108 00000800 00010100 001e0104 00000000 01000300 01050300"
        )

    def test_get_configuration_selects(self, host: AtaHost) -> None:
        assert list(self.features(host.packet([0x46, 2, 0, 3, 0, 0, 0, 1, 0]).data)) == [3]
        assert list(self.features(host.packet([0x46, 2, 0, 9, 0, 0, 0, 1, 0]).data)) == []
        assert min(self.features(host.packet([0x46, 0, 0, 4, 0, 0, 0, 1, 0]).data)) == 0x10
        host.packet(EJECT)
        data = host.packet([0x46, 1, 0, 0, 0, 0, 0, 1, 0]).data
        assert data[6:8] == b"\0\0"
        assert not {0x10, 0x1E} & set(self.features(data))
        assert_check(host, host.packet([0x46, 3, 0, 0, 0, 0, 0, 1, 0]), (5, 0x24, 0))

    def test_disc_information(self, host: AtaHost) -> None:
        data = host.packet([0x51, 0, 0, 0, 0, 0, 0, 0, 100]).data
        assert int.from_bytes(data[:2], "big") == len(data) - 2 == 32
        assert data[2:8] == bytes((0x0E, 1, 1, 1, 1, 0x20))
        assert data[16:24] == b"\xff" * 8

    def test_mechanism_status(self, host: AtaHost) -> None:
        cdb = [0xBD, 0, 0, 0, 0, 0, 0, 0, 0, 8]
        assert host.packet(cdb).data == bytes(8)
        host.packet(EJECT)
        assert host.packet(cdb).data == bytes((0, 0x10, 0, 0, 0, 0, 0, 0))

    def test_set_cd_speed(self, host: AtaHost) -> None:
        assert host.packet([0xBB, 0, 0xFF, 0xFF]).good

    def test_allocation_length_0_is_no_error(self, host: AtaHost) -> None:
        for cdb in ([0x12], [0x03], [0x43], [0x46], [0x51], [0x5A, 0, 1], [0xBD], POLL_MEDIA[:8]):
            assert host.packet(cdb) == Result(READY, 0)


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=12, max_size=12), st.sampled_from([0, 18, 0x28, 0x43, 0x46, 0x4A, 0x51, 0x5A, 0xBE, -1]))
def test_any_packet_is_answered_or_refused(cdb: bytes, code: int) -> None:
    """The logical unit raises nothing but check conditions, and no reply is longer than was asked for."""
    unit = CdRom(MemoryImage(CONTENT))
    unit.state.attentions.clear()
    if code >= 0:
        cdb = bytes((code,)) + cdb[1:]
    reply = None
    with contextlib.suppress(CheckConditionError):
        reply = unit.execute(cdb)
    if reply is None:
        assert unit.state.sense.key in (2, 5)
    else:
        assert len(reply.data) <= 0xFFFF
        assert reply.block * 2048 + reply.length <= len(CONTENT)
