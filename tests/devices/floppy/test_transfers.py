"""Data commands of the 82078 against the rules and tables of its data sheet."""

from __future__ import annotations

import errno

import pytest

from devices.floppy.fdc_host import (
    BUSY,
    CCR,
    DOR,
    FIFO,
    FROM_MEMORY,
    MOTOR_A,
    MSR,
    READ,
    READY,
    TO_MEMORY,
    WRITE,
    Host,
    content,
    image,
)  # fmt: skip
from portvisor.backends.image import MemoryImage
from portvisor.devices.floppy import DriveKind, FloppyDrive, HostMode

MT, SK = 0x80, 0x20
READ_TRACK, READ_ID, READ_DELETED, WRITE_DELETED, VERIFY = 0x42, 0x4A, 0x4C, 0x49, 0x56
FORMAT, FORMAT_AND_WRITE = 0x4D, 0xED
ABNORMAL = 0x40
EN, DE, ND, NW, MA = 0x80, 0x20, 0x04, 0x02, 0x01
CM, DD, WC = 0x40, 0x20, 0x10


def non_dma(host: Host) -> None:
    host.send(0x03, 0xDF, 0x03)


def take(host: Host) -> bytes:
    """All that the FIFO has in the execution phase of a read."""
    data = bytearray()
    while host.inb(MSR) == 0xF0:
        data.append(host.inb(FIFO))
    return bytes(data)


# --- read -------------------------------------------------------------------------------------------------


def test_read_by_dma() -> None:
    host = Host()
    host.program(TO_MEMORY, 1024)
    host.send(READ, 0, 0, 0, 3, 2, 18, 0x1B, 0xFF)
    assert host.irq.level == 1
    assert host.inb(MSR) == 0xD0
    assert host.buffer(1024) == host.sector(2, 2)
    assert [host.inb(FIFO) for _ in range(6)] == [0, 0, 0, 0, 0, 5]
    assert host.irq.level == 1
    assert host.inb(FIFO) == 2
    assert host.irq.level == 0  # by the last result byte
    assert host.inb(0x08) & 0x04  # terminal count on channel 2


@pytest.mark.parametrize("kib", [160, 180, 320, 360, 720, 1200, 1440, 1680, 2880])
def test_all_of_a_medium_of_each_format(kib: int) -> None:
    host = Host(image(kib * 2))
    layout = host.drive.format
    assert layout
    host.out(CCR, layout.rate)
    data = bytearray()
    for cylinder in range(layout.cylinders):
        host.seek(cylinder)
        for head in range(layout.heads):
            length = layout.sectors * 512
            assert host.read((cylinder, head, 1), length, eot=layout.sectors)[:3] == bytes((head << 2, 0, 0))
            data += host.buffer(length)
    assert data == content(kib * 2)


RESULT_TABLE = [
    # multi-track, head, last sector read, then C, H, R of the result
    (False, 0, 17, (4, 0, 18)),
    (False, 0, 18, (5, 0, 1)),
    (False, 1, 17, (4, 1, 18)),
    (False, 1, 18, (5, 1, 1)),
    (True, 0, 17, (4, 0, 18)),
    (True, 0, 18, (4, 1, 1)),
    (True, 1, 17, (4, 1, 18)),
    (True, 1, 18, (5, 0, 1)),
]


@pytest.mark.parametrize(("multi", "head", "last", "expected"), RESULT_TABLE)
def test_result_phase_table(multi: bool, head: int, last: int, expected: tuple[int, int, int]) -> None:
    host = Host()
    host.seek(4)
    result = host.read((4, head, last), 512, code=READ | (MT if multi else 0))
    assert tuple(result[3:6]) == expected
    assert result[0] & 0xC0 == 0


def test_multi_track_goes_on_at_the_other_side() -> None:
    host = Host()
    host.seek(2)
    assert host.read((2, 0, 18), 1024, code=READ | MT) == bytes((4, 0, 0, 2, 1, 2, 2))
    assert host.buffer(1024) == host.sector(2 * 36 + 17, 2)


def test_end_of_cylinder_without_terminal_count() -> None:
    host = Host()
    assert host.read((0, 0, 18), 1024) == bytes((ABNORMAL, EN, 0, 1, 0, 1, 2))
    assert host.buffer(512) == host.sector(17)
    assert host.read((0, 0, 1), 65536, code=READ | MT)[:2] == bytes((ABNORMAL, EN))


def test_terminal_count_inside_a_sector() -> None:
    host = Host()
    host.bytes[0x1000 + 100] = 0xA5
    assert host.read((0, 0, 5), 100) == bytes((0, 0, 0, 0, 0, 6, 2))
    assert host.buffer(100) == host.sector(4)[:100]
    assert host.bytes[0x1000 + 100] == 0xA5


@pytest.mark.parametrize(
    ("chrn", "st2"),
    [
        ((0, 0, 19, 2), 0),
        ((0, 0, 0, 2), 0),
        ((0, 1, 1, 2), 0),
        ((0, 0, 1, 3), 0),
        ((0, 0, 1, 0), 0),
        ((1, 0, 1, 2), WC),
    ],
)
def test_an_id_that_is_not_on_the_track(chrn: tuple[int, int, int, int], st2: int) -> None:
    host = Host()
    host.program(TO_MEMORY, 512)
    assert host.command(READ, 0, *chrn, 18, 0x1B, 0xFF) == bytes((ABNORMAL, ND, st2, *chrn))


@pytest.mark.parametrize("case", ["rate", "side", "outside"])
def test_no_address_mark(case: str) -> None:
    host = Host(image(360))
    host.out(CCR, 0 if case == "rate" else 2)
    head = 1 if case == "side" else 0
    if case == "outside":
        host.seek(41)
    assert host.read((0, head, 1), 512, eot=9)[:3] == bytes((ABNORMAL | head << 2, MA, 0))
    assert host.command(READ_ID, head << 2)[:3] == bytes((ABNORMAL | head << 2, MA, 0))


def test_a_sector_that_the_host_cannot_read_is_a_data_error(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()

    def fail(sector: int, count: int) -> bytes:
        raise OSError(errno.EIO, "bad disk")

    monkeypatch.setattr(host.medium, "read", fail)
    assert host.read((0, 0, 1), 512)[:3] == bytes((ABNORMAL, DE, DD))


def test_implied_seek() -> None:
    host = Host()
    host.send(0x13, 0, 0x40, 0)
    assert host.read((9, 0, 1), 512)[:4] == bytes((0x20, 0, 0, 9))
    assert host.buffer(512) == host.sector(9 * 36)
    assert host.read((9, 0, 1), 512)[0] == 0
    assert host.command(0x0E)[0] == 9
    assert host.command(0x08) == b"\x80"


# --- waiting ----------------------------------------------------------------------------------------------


def test_a_masked_dma_channel_is_waited_for() -> None:
    host = Host()
    host.program(TO_MEMORY, 512)
    host.out(0x0A, 6)
    host.send(READ, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)
    assert host.inb(MSR) == BUSY
    assert host.inb(0x08) & 0x40  # request
    host.out(0x0A, 2)
    assert host.results()[:3] == bytes(3)
    assert host.buffer(512) == host.sector(0)
    assert not host.inb(0x08) & 0x40


def test_a_closed_dma_gate_is_waited_for_in_at_mode() -> None:
    host = Host(mode=HostMode.AT)
    host.out(DOR, MOTOR_A & ~0x08)
    host.program(TO_MEMORY, 512)
    host.send(READ, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)
    assert host.inb(MSR) == BUSY
    host.out(DOR, MOTOR_A)
    assert host.results()[:3] == bytes(3)


def test_a_motor_that_is_off_is_waited_for() -> None:
    host = Host()
    host.out(DOR, 0x0C)
    host.program(TO_MEMORY, 512)
    host.send(READ, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)
    assert host.inb(MSR) == BUSY
    host.out(DOR, MOTOR_A)
    assert host.results()[:3] == bytes(3)


def test_a_motor_that_stops_inside_a_sector() -> None:
    """The FIFO gives what it has, and then waits."""
    for code, direction in ((READ, 0x40), (WRITE, 0)):
        host = Host()
        non_dma(host)
        host.send(code, 0, 0, 0, 1, 2, 1, 0x1B, 0xFF)
        host.out(DOR, 0x0C)
        for _ in range(512):
            assert host.inb(MSR) == 0xB0 | direction
            host.inb(FIFO) if direction else host.out(FIFO, 0x55)
        assert host.inb(MSR) == 0x30
        assert host.inb(FIFO) == 0
        host.out(FIFO, 0x55)
        host.out(DOR, MOTOR_A)
        assert host.results()[:2] == bytes((ABNORMAL, EN))


def test_an_empty_drive_has_no_address_marks() -> None:
    host = Host()
    host.fdc.insert(0, None)
    assert host.command(READ_ID, 0)[:2] == bytes((ABNORMAL, MA))
    assert host.read((0, 0, 1), 512)[:2] == bytes((ABNORMAL, MA))
    assert host.write((0, 0, 1), bytes(512))[:2] == bytes((ABNORMAL, MA))


def test_a_medium_that_is_taken_out_ends_the_command() -> None:
    host = Host()
    non_dma(host)
    host.send(READ, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)
    assert host.inb(FIFO) == 0
    host.fdc.insert(0, None)
    assert host.results()[:2] == bytes((ABNORMAL, MA))
    assert host.irq.level == 0


def test_wired_by_command_ds_selects_and_motors_run() -> None:
    host = Host(second=FloppyDrive(image(1440)), start=False, as_qemu=True)
    assert host.inb(DOR) == 0x0C
    assert host.command(0x08) == b"\x80"
    assert host.command(READ_ID, 0)[:2] == bytes(2)  # 500 kb/s
    host.out(CCR, 2)
    assert host.command(READ_ID, 0)[:2] == bytes((ABNORMAL, MA))
    assert host.command(READ_ID, 1) == bytes((1, 0, 0, 0, 0, 1, 2))
    host.seek(3, drive=1)
    assert host.drive.at_track_0
    assert host.command(READ_ID, 2)[:2] == bytes((ABNORMAL | 2, MA))
    host.fdc.reset()
    assert host.inb(MSR) == READY


# --- write ------------------------------------------------------------------------------------------------


def test_write_by_dma() -> None:
    host = Host()
    data = bytes(range(256)) * 4
    assert host.write((0, 1, 2), data) == bytes((4, 0, 0, 0, 1, 4, 2))
    assert host.sector(19, 2) == data


def test_the_rest_of_a_sector_is_filled_with_zeros() -> None:
    host = Host()
    assert host.write((0, 0, 2), b"\xaa" * 10)[:3] == bytes(3)
    assert host.sector(1) == b"\xaa" * 10 + bytes(502)


def test_write_protection() -> None:
    host = Host(image(read_only=True))
    assert host.write((0, 0, 1), bytes(512)) == bytes((ABNORMAL, NW, 0, 0, 0, 1, 2))
    assert host.command(FORMAT, 0, 2, 18, 0x54, 0xF6)[:2] == bytes((ABNORMAL, NW))


def test_a_sector_that_the_host_cannot_write(monkeypatch: pytest.MonkeyPatch) -> None:
    host = Host()

    def fail(sector: int, data: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(host.medium, "write", fail)
    assert host.write((0, 0, 1), bytes(512))[:3] == bytes((ABNORMAL, NW, 0))


def test_a_channel_in_the_wrong_direction_gives_the_floating_bus() -> None:
    host = Host()
    host.program(TO_MEMORY, 512)
    assert host.command(WRITE, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)[:3] == bytes(3)
    assert host.sector(0) == b"\xff" * 512
    host.program(FROM_MEMORY, 512)
    assert host.command(READ, 0, 0, 0, 2, 2, 18, 0x1B, 0xFF)[:3] == bytes(3)


# --- non-DMA mode -----------------------------------------------------------------------------------------


def test_non_dma_read_ends_at_eot_with_end_of_cylinder() -> None:
    host = Host()
    non_dma(host)
    host.send(READ, 0, 0, 0, 2, 2, 3, 0x1B, 0xFF)
    assert host.irq.level == 1
    assert take(host) == host.sector(1, 2)
    assert host.results() == bytes((ABNORMAL, EN, 0, 1, 0, 1, 2))
    assert host.irq.level == 0


def test_non_dma_write() -> None:
    host = Host()
    non_dma(host)
    host.send(WRITE, 0, 0, 0, 2, 2, 2, 0x1B, 0xFF)
    for value in range(512):
        assert host.inb(MSR) == 0xB0
        host.out(FIFO, value & 0xFF)
    assert host.results()[:2] == bytes((ABNORMAL, EN))
    assert host.sector(1) == bytes(range(256)) * 2


def test_non_dma_fifo_in_the_wrong_direction_does_nothing() -> None:
    host = Host()
    non_dma(host)
    host.send(READ, 0, 0, 0, 2, 2, 2, 0x1B, 0xFF)
    host.out(FIFO, 0x08)
    assert take(host) == host.sector(1)
    host.results()
    host.send(WRITE, 0, 0, 0, 2, 2, 2, 0x1B, 0xFF)
    assert host.inb(FIFO) == 0
    assert host.inb(MSR) == 0xB0


# --- deleted data -----------------------------------------------------------------------------------------


def with_deleted_sector() -> Host:
    """Sector 2 of track 0 has a deleted data mark."""
    host = Host()
    assert host.write((0, 0, 2), b"d" * 512, code=WRITE_DELETED)[:3] == bytes(3)
    return host


def test_read_stops_after_a_deleted_sector() -> None:
    host = with_deleted_sector()
    assert host.read((0, 0, 1), 2048) == bytes((0, 0, CM, 0, 0, 2, 2))
    assert host.buffer(1024) == host.sector(0, 2)


def test_read_with_skip_leaves_deleted_sectors_out() -> None:
    host = with_deleted_sector()
    assert host.read((0, 0, 1), 1024, code=READ | SK) == bytes((0, 0, CM, 0, 0, 4, 2))
    assert host.buffer(1024) == host.sector(0) + host.sector(2)


def test_read_deleted() -> None:
    host = with_deleted_sector()
    assert host.read((0, 0, 2), 512, code=READ_DELETED)[:3] == bytes(3)
    assert host.read((0, 0, 2), 1024, code=READ_DELETED) == bytes((0, 0, CM, 0, 0, 3, 2))
    assert host.buffer(1024) == host.sector(1, 2)
    assert host.read((0, 0, 1), 512, code=READ_DELETED | SK)[:3] == bytes((0, 0, CM))
    assert host.buffer(512) == host.sector(1)


def test_skipping_to_the_end_of_the_cylinder() -> None:
    host = Host()
    assert host.read((0, 0, 17), 512, code=READ_DELETED | SK | MT)[:3] == bytes((ABNORMAL | 0, EN, CM))


def test_a_normal_write_takes_the_mark_off() -> None:
    host = with_deleted_sector()
    host.write((0, 0, 2), b"n" * 512)
    assert host.read((0, 0, 2), 512)[:3] == bytes(3)


# --- read ID, read track, verify --------------------------------------------------------------------------


def test_read_id_gives_one_id_after_the_other() -> None:
    host = Host()
    host.seek(7)
    assert host.command(READ_ID, 4) == bytes((4, 0, 0, 7, 1, 1, 2))
    records = [host.command(READ_ID, 4)[5] for _ in range(18)]
    assert records == [*range(2, 19), 1]


def test_read_track_starts_at_the_index_and_compares_ids() -> None:
    host = Host()
    assert host.read((0, 0, 1), 9 * 512, code=READ_TRACK, eot=9)[:3] == bytes(3)
    assert host.buffer(9 * 512) == host.sector(0, 9)
    assert host.read((0, 0, 5), 2048, code=READ_TRACK, eot=4)[:3] == bytes((0, ND, 0))
    assert host.buffer(2048) == host.sector(0, 4)


def test_read_track_ends_after_eot_sectors_or_at_terminal_count() -> None:
    host = Host()
    assert host.read((0, 0, 1), 8192, code=READ_TRACK, eot=2)[:3] == bytes(3)
    assert host.read((0, 0, 1), 512, code=READ_TRACK, eot=9)[:3] == bytes(3)
    assert host.read((0, 0, 1), 65536, code=READ_TRACK, eot=0)[0] == 0  # ends all the same


VERIFY_TABLE = [
    # multi-track, EC, SC, EOT, success
    (False, False, 0xFF, 18, True),
    (False, False, 0xFF, 19, False),
    (False, True, 18, 18, True),
    (False, True, 19, 18, False),
    (False, True, 19, 19, False),
    (True, False, 0xFF, 18, True),
    (True, False, 0xFF, 19, False),
    (True, True, 36, 18, True),
    (True, True, 37, 18, False),
    (True, True, 0, 18, False),
]


@pytest.mark.parametrize(("multi", "ec", "count", "eot", "success"), VERIFY_TABLE)
def test_verify_table(multi: bool, ec: bool, count: int, eot: int, success: bool) -> None:
    host = Host()
    result = host.command(VERIFY | (MT if multi else 0), 0x80 if ec else 0, 0, 0, 1, 2, eot, 0x1B, count)
    assert (result[0] & 0xC0 == 0) is success
    assert not host.inb(0x08) & 0x40


def test_verify_needs_no_host_even_in_non_dma_mode() -> None:
    host = Host()
    non_dma(host)
    assert host.command(VERIFY, 0, 0, 0, 1, 2, 18, 0x1B, 0xFF)[:3] == bytes(3)


# --- format -----------------------------------------------------------------------------------------------


def ids(cylinder: int, head: int, records: range) -> bytes:
    return b"".join(bytes((cylinder, head, record, 2)) for record in records)


def test_format_fills_the_sectors_that_it_names() -> None:
    host = Host()
    host.seek(1)
    table = ids(1, 1, range(1, 19))
    host.bytes[0x1000 : 0x1000 + len(table)] = table
    host.program(FROM_MEMORY, len(table))
    assert host.command(FORMAT, 4, 2, 18, 0x54, 0xF6)[:3] == bytes((4, 0, 0))
    assert host.sector(36 + 18, 18) == b"\xf6" * (18 * 512)
    assert host.sector(36 + 17) == content(2880)[(36 + 17) * 512 : (36 + 18) * 512]
    assert host.command(0x0E)[6] == 18


def test_format_without_dma() -> None:
    host = Host()
    non_dma(host)
    host.send(FORMAT, 0, 2, 2, 0x54, 0xE5)
    for value in ids(0, 0, range(5, 7)):
        assert host.inb(MSR) == 0xB0
        host.out(FIFO, value)
    assert host.results()[:3] == bytes(3)
    assert host.sector(4, 2) == b"\xe5" * 1024


@pytest.mark.parametrize("unit", [(0, 0, 19, 2), (1, 0, 1, 2), (0, 1, 1, 2), (0, 0, 1, 3)])
def test_format_of_another_layout_is_refused(unit: tuple[int, ...]) -> None:
    host = Host()
    host.bytes[0x1000:0x1004] = bytes(unit)
    host.program(FROM_MEMORY, 72)
    assert host.command(FORMAT, 0, 2, 18, 0x54, 0xF6)[:3] == bytes((ABNORMAL, NW, 0))
    assert host.sector(0, 36) == content(36)


def test_format_and_write() -> None:
    host = Host()
    unit = bytes((0, 0, 3, 2)) + b"x" * 512
    host.bytes[0x1000 : 0x1000 + len(unit)] = unit
    host.program(FROM_MEMORY, len(unit))
    assert host.command(FORMAT_AND_WRITE, 0, 2, 1, 0x54, 0xF6)[:3] == bytes(3)
    assert host.sector(2) == b"x" * 512


def test_a_360k_medium_in_a_1_2_mb_drive() -> None:
    host = Host(MemoryImage(content(720)), kind=DriveKind.MB_1_2)
    host.out(CCR, 1)
    host.seek(20)
    assert host.read((10, 0, 1), 512, eot=9)[:3] == bytes(3)
    assert host.buffer(512) == host.sector(180)
