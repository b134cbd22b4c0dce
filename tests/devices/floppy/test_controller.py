"""Registers, reset and control commands of the 82078 against the rules of its data sheet."""

from __future__ import annotations

import pytest

from devices.floppy.fdc_host import (
    BUSY,
    CCR,
    DIR,
    DOR,
    DSR,
    FIFO,
    MOTOR_A,
    MOTOR_B,
    MSR,
    READY,
    RESULT,
    SRA,
    SRB,
    TDR,
    Host,
    image,
)  # fmt: skip
from portvisor.devices.floppy import FloppyController, FloppyDrive, HostMode
from portvisor.devices.i8237 import DmaController
from portvisor.ports import IrqLine, Ram, RamRegion, SnapshotError
from portvisor.testing import DeviceSuite

NO_SEEK = bytes((0x80,))


class TestGeneric(DeviceSuite):
    def make(self) -> FloppyController:
        memory = Ram(RamRegion(0, memoryview(bytearray(0x10000))))
        return FloppyController(IrqLine(), DmaController(), memory, (FloppyDrive(image()), FloppyDrive()))


class TestGenericAtMode(DeviceSuite):
    def make(self) -> FloppyController:
        memory = Ram(RamRegion(0, memoryview(bytearray(0x10000))))
        return FloppyController(IrqLine(), DmaController(), memory, mode=HostMode.AT, decode_sra=False)


# --- reset ------------------------------------------------------------------------------------------------


def test_after_reset_the_chip_is_held_in_reset() -> None:
    host = Host(start=False)
    assert host.inb(DOR) == 0
    assert host.inb(MSR) == 0
    host.out(FIFO, 0x10)
    host.out(DOR, 0x0C)
    assert host.inb(MSR) == READY


def test_polling_after_reset_gives_one_interrupt_and_a_status_of_each_drive() -> None:
    host = Host(start=False)
    host.out(DOR, 0x0C)
    assert host.edges == [1]
    assert [host.command(0x08) for _ in range(5)] == [
        *(bytes((0xC0 | drive, 0)) for drive in range(4)),
        NO_SEEK,
    ]
    assert host.edges == [1, 0]


def test_software_reset_by_dsr_clears_itself() -> None:
    host = Host()
    host.out(DSR, 0x80)
    assert host.inb(MSR) == READY
    assert host.irq.level == 1
    assert host.command(0x08) == b"\xc0\x00"


def test_reset_ends_a_command_in_progress() -> None:
    host = Host()
    host.send(0x46, 0, 0)
    assert host.inb(MSR) == READY | BUSY
    host.out(DOR, 0)
    host.out(DOR, MOTOR_A)
    assert host.inb(MSR) == READY
    assert host.command(0x10) == b"\x90"


def test_software_reset_puts_configure_back_unless_locked() -> None:
    host = Host()
    host.send(0x13, 0, 0x57, 0x11)
    assert host.command(0x94) == b"\x10"
    host.out(DSR, 0x80)
    assert host.command(0x0E)[7:] == bytes((0x80, 0x07, 0x11))  # EIS and POLL are not locked
    assert host.command(0x14) == b"\x00"
    host.out(DSR, 0x80)
    assert host.command(0x0E)[7:] == bytes((0x00, 0x20, 0x00))


def test_software_reset_keeps_specify_and_the_perpendicular_drives() -> None:
    host = Host()
    host.send(0x03, 0xDF, 0x02)
    host.send(0x12, 0x80 | 0x3C | 0x03)
    host.out(DSR, 0x80)
    assert host.command(0x0E)[4:8] == bytes((0xDF, 0x02, 0x00, 0x3C))


def test_hardware_reset_clears_lock_and_interrupt() -> None:
    host = Host()
    host.command(0x94)
    host.send(0x07, 0)
    host.fdc.reset()
    assert host.irq.level == 0
    host.start()
    assert host.command(0x0E)[7:9] == b"\x00\x20"


# --- registers --------------------------------------------------------------------------------------------


def test_status_registers_in_ps2_mode() -> None:
    host = Host()
    assert host.inb(SRA) == 0x46  # no second drive, TRK0#, INDX#, WP# inactive
    assert host.inb(SRB) == 0xC1
    host.seek(3)
    assert host.inb(SRA) == 0x57  # not at track 0, DIR inwards
    host.send(0x07, 0)
    assert host.inb(SRA) == 0xC6
    host.out(DOR, MOTOR_B)
    assert host.inb(SRB) == 0xE2
    assert host.inb(SRA) & 0x12 == 0x12  # no drive answers


def test_write_protection_and_side_in_status_a() -> None:
    host = Host(image(read_only=True), second=FloppyDrive())
    host.command(0x04, 0x04)
    assert host.inb(SRA) == 0x0C


def test_status_registers_are_not_driven_in_at_mode() -> None:
    host = Host(mode=HostMode.AT)
    assert (host.inb(SRA), host.inb(SRB)) == (0xFF, 0xFF)
    assert host.inb(DIR) == 0xFF  # disk change, and seven bits that others drive


def test_tape_select_is_kept() -> None:
    host = Host()
    host.out(TDR, 0xFF)
    assert host.inb(TDR) == 0xFF
    host.out(TDR, 0)
    assert host.inb(TDR) == 0xFC


@pytest.mark.parametrize(("rate", "low"), [(0, 0xF8), (1, 0xFB), (2, 0xFD), (3, 0xFE)])
def test_dir_shows_the_rate_of_ccr_and_high_density(rate: int, low: int) -> None:
    host = Host()
    host.out(CCR, rate)
    assert host.inb(DIR) == low
    host.out(CCR, 0)
    host.out(DSR, rate)
    assert host.inb(DIR) == low


def test_disk_change_until_a_step_with_a_medium() -> None:
    host = Host()
    assert host.inb(DIR) & 0x80
    host.command(0x07, 0)  # at track 0: no step
    assert host.inb(DIR) & 0x80
    host.seek(1)
    assert not host.inb(DIR) & 0x80
    host.fdc.insert(0, None)
    host.seek(5)
    assert host.inb(DIR) & 0x80
    host.fdc.insert(0, image())
    host.seek(5)  # no step
    assert host.inb(DIR) & 0x80
    host.seek(4)
    assert not host.inb(DIR) & 0x80


def test_no_disk_change_from_a_drive_that_is_not_selected() -> None:
    host = Host()
    host.out(DOR, 0x0C)
    assert not host.inb(DIR) & 0x80
    host.out(DOR, MOTOR_B)
    assert not host.inb(DIR) & 0x80


def test_dma_gate_cuts_off_the_interrupt_in_at_mode_only() -> None:
    for mode, level in ((HostMode.AT, 0), (HostMode.PS2, 1)):
        host = Host(mode=mode)
        host.out(DOR, MOTOR_A & ~0x08)
        host.send(0x07, 0)
        assert host.irq.level == level
        host.out(DOR, MOTOR_A)
        assert host.irq.level == 1


def test_a_fifo_that_has_nothing_reads_0_and_a_full_one_takes_nothing() -> None:
    host = Host()
    assert host.inb(FIFO) == 0
    host.send(0x10)
    host.out(FIFO, 0x08)
    assert host.inb(MSR) == RESULT
    assert host.results() == b"\x90"


def test_insert_refuses_a_drive_that_is_not_there() -> None:
    host = Host()
    with pytest.raises(ValueError, match="no floppy drive 1"):
        host.fdc.insert(1, None)
    with pytest.raises(ValueError, match="no floppy drive 2"):
        host.fdc.insert(2, None)


def test_snapshot_of_other_drives_is_refused() -> None:
    host = Host()
    saved = Host(second=FloppyDrive()).fdc.snapshot()
    with pytest.raises(SnapshotError, match="other drives"):
        host.fdc.restore(saved)


# --- control commands -------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [0x00, 0x01, 0x0B, 0x11, 0x19, 0x1D, 0x25, 0x82, 0x1E, 0xFF])
def test_invalid_commands_have_one_result_and_no_interrupt(first: int) -> None:
    host = Host()
    edges = list(host.edges)
    assert host.command(first) == NO_SEEK
    assert host.edges == edges


def test_version_and_part() -> None:
    host = Host()
    assert host.command(0x10) == b"\x90"
    assert host.command(0x18) == b"\x41"


def test_dump_registers() -> None:
    host = Host()
    host.seek(7)
    host.send(0x03, 0xA1, 0x34)
    host.send(0x12, 0x80 | 0x14 | 0x01)
    host.send(0x13, 0, 0x5A, 0x20)
    host.read((7, 0, 1), 512, eot=9)
    assert host.command(0x0E) == bytes((7, 0, 0, 0, 0xA1, 0x34, 9, 0x15, 0x5A, 0x20))


def test_perpendicular_drive_bits_need_ow() -> None:
    host = Host()
    host.send(0x12, 0x80 | 0x04)
    host.send(0x12, 0x3B)
    assert host.command(0x0E)[7] == 0x07


def test_sense_drive_status() -> None:
    host = Host(image(read_only=True))
    assert host.command(0x04, 0x00) == b"\x78"
    host.seek(2)
    assert host.command(0x04, 0x05) == b"\x6d"


def test_save_and_restore() -> None:
    host = Host()
    host.out(DSR, 0x14)
    host.seek(3)
    host.send(0x03, 0xA1, 0x34)
    host.send(0x13, 0, 0x4A, 0x20)
    host.send(0x33, 0x01)
    saved = host.command(0x2E)
    assert saved == bytes((0x14, 0x01, 3, 0, 0, 0, 0xA1, 0x34, 0, 0, 0x4A, 0x20, 0, 0, 0, 0))
    host.fdc.reset()
    host.start()
    host.send(0x4E, *saved)
    assert host.command(0x2E) == saved


def test_powerdown_mode_gives_its_parameter_back() -> None:
    assert Host().command(0x17, 0x03) == b"\x03"


def test_drive_specification() -> None:
    host = Host()
    host.send(0x8E, 0x05, 0x2A)
    assert host.command(0x80) == bytes((0x05, 0x0A, 0, 0))
    host.send(0x8E, 0xC0)
    assert host.inb(MSR) == READY
    host.send(0x8E, 0x61, 0x61, 0x61, 0x61)
    assert host.command(0x01) == bytes((0x05, 0x0A, 0, 0x01))  # five bytes are the most


# --- seeks ------------------------------------------------------------------------------------------------


def test_seek_interrupts_until_its_status_is_sensed() -> None:
    host = Host()
    host.send(0x0F, 0x04, 11)
    assert host.irq.level == 1
    assert host.inb(MSR) == READY
    assert host.command(0x08) == b"\x20\x0b"  # H is always 0 here
    assert host.irq.level == 0
    assert host.drive.state.cylinder == 11


def test_two_seeks_each_have_their_interrupt() -> None:
    host = Host(second=FloppyDrive(image()))
    host.send(0x0F, 1, 4)
    host.send(0x0F, 0, 9)
    assert host.command(0x08) == b"\x20\x09"
    assert host.irq.level == 1
    assert host.command(0x08) == b"\x21\x04"
    assert host.irq.level == 0
    assert host.command(0x08) == NO_SEEK


def test_results_of_another_command_leave_a_pending_seek_alone() -> None:
    host = Host()
    host.send(0x0F, 0, 9)
    assert host.command(0x10) == b"\x90"
    assert host.irq.level == 1
    host.out(CCR, 0)
    assert host.command(0x4A, 0)[0] == 0
    assert host.irq.level == 1
    assert host.command(0x08) == b"\x20\x09"


def test_recalibrate_goes_at_most_79_steps() -> None:
    host = Host()
    host.seek(82)
    host.send(0x07, 0)
    assert host.command(0x08) == b"\x70\x00"
    assert host.drive.state.cylinder == 3
    host.send(0x07, 0)
    assert host.command(0x08) == b"\x20\x00"
    assert host.drive.at_track_0


def test_recalibrate_of_no_drive_is_an_equipment_check() -> None:
    host = Host()
    host.out(DOR, MOTOR_B)
    host.send(0x07, 1)
    assert host.command(0x08) == b"\x71\x00"


def test_dor_selects_the_drive_that_steps() -> None:
    """DS of a command is used internally only: the user's responsibility."""
    host = Host(second=FloppyDrive(image()))
    host.send(0x0F, 1, 6)
    assert host.command(0x08) == b"\x21\x06"
    assert host.drive.state.cylinder == 6


def test_relative_seek() -> None:
    host = Host()
    host.send(0xCF, 0, 10)
    assert host.command(0x08) == b"\x20\x0a"
    host.send(0x8F, 0, 4)
    assert host.command(0x08) == b"\x20\x06"
    host.send(0x8F, 0, 7)  # meets track 0
    assert host.command(0x08) == b"\x70\x00"


def test_register_names() -> None:
    fdc = Host().fdc
    assert [fdc.register_name(offset, 1, False) for offset in (0, 4, 5, 7)] == ["SRA", "MSR", "FIFO", "DIR"]
    assert [fdc.register_name(offset, 1, True) for offset in (2, 4, 5, 7)] == ["DOR", "DSR", "FIFO", "CCR"]
