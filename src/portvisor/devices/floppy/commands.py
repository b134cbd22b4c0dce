"""The commands that do not reach the medium: each gets its bytes and gives its result bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from portvisor.devices.floppy import registers as r
from portvisor.devices.floppy.drive import FloppyDrive
from portvisor.devices.floppy.state import NOTHING, ChipState

RECALIBRATE_STEPS = 79
"""Step pulses after which RECALIBRATE gives up."""
INVALID = bytes((r.ST0_INVALID,))


class Chip(Protocol):
    """The controller as its commands see it."""

    state: ChipState
    select_by_command: bool

    def selected(self) -> FloppyDrive | None:
        """The drive that sees what the chip drives."""
        ...

    def gate_open(self) -> bool:
        """Whether DMA requests get out."""
        ...


@dataclass(frozen=True, slots=True)
class Command:
    """An entry of the command set."""

    code: int
    name: str
    parameters: int
    variable: int = 0
    """Bits of the first byte that are the command's options."""
    run: Callable[[Chip, bytes], bytes] | None = None
    """None for those of `transfer`."""

    @property
    def names_drive(self) -> bool:
        """Whether its second byte has DS."""
        return self.run is None or self.code in (r.SENSE_DRIVE_STATUS, r.RECALIBRATE, r.SEEK, r.RELATIVE_SEEK)


def specify(chip: Chip, command: bytes) -> bytes:
    """Step rate, head unload and load times, non-DMA mode."""
    chip.state.step_and_unload, chip.state.load_and_mode = command[1], command[2]
    return b""


def sense_drive_status(chip: Chip, command: bytes) -> bytes:
    """ST3."""
    drive = chip.selected()
    chip.state.transfer.head = 1 if command[1] & r.PARAM_HDS else 0
    status = r.ST3_ONES | command[1] & (r.PARAM_HDS | r.PARAM_DS)
    if drive and drive.at_track_0:
        status |= r.ST3_T0
    if drive and drive.write_protected:
        status |= r.ST3_WP
    return bytes((status,))


def sense_interrupt(chip: Chip, _command: bytes) -> bytes:
    """ST0 and PCN of the drive with the lowest number that has a status pending."""
    state = chip.state
    for drive, status in enumerate(state.pending):
        if status != NOTHING:
            state.pending[drive] = NOTHING
            state.interrupt = False
            return bytes((status, state.cylinders[drive]))
    return INVALID


def move(chip: Chip, steps: int) -> None:
    """Step pulses to the selected drive: inwards if positive."""
    drive = chip.selected()
    if steps:
        chip.state.inwards = steps > 0
        if drive:
            drive.step(steps)


def _seek_ended(chip: Chip, drive: int, error: int = 0) -> None:
    chip.state.pending[drive] = r.ST0_SE | error | drive
    chip.state.interrupt = True


def recalibrate(chip: Chip, command: bytes) -> bytes:
    """Step outwards until TRK0#, at most 79 times."""
    drive = chip.selected()
    move(chip, -min(drive.state.cylinder if drive else RECALIBRATE_STEPS, RECALIBRATE_STEPS))
    number = command[1] & r.PARAM_DS
    chip.state.cylinders[number] = 0
    found = drive is not None and drive.at_track_0
    _seek_ended(chip, number, 0 if found else r.ST0_ABNORMAL | r.ST0_EC)
    return b""


def seek_to(chip: Chip, number: int, cylinder: int) -> bool:
    """Step by the difference to the present cylinder number; whether there is one."""
    distance = cylinder - chip.state.cylinders[number]
    move(chip, distance)
    chip.state.cylinders[number] = cylinder
    return distance != 0


def seek(chip: Chip, command: bytes) -> bytes:
    """To a cylinder."""
    number = command[1] & r.PARAM_DS
    chip.state.transfer.head = 1 if command[1] & r.PARAM_HDS else 0
    seek_to(chip, number, command[2])
    _seek_ended(chip, number)
    return b""


def relative_seek(chip: Chip, command: bytes) -> bytes:
    """By a number of cylinders; TRK0# on the way outwards ends it with an equipment check."""
    number, count = command[1] & r.PARAM_DS, command[2]
    drive = chip.selected()
    steps = count if command[0] & r.CMD_DIR else -count
    blocked = drive is not None and drive.state.cylinder + steps < 0
    if drive and blocked:
        steps = -drive.state.cylinder
    move(chip, steps)
    chip.state.cylinders[number] = (chip.state.cylinders[number] + steps) & 0xFF
    _seek_ended(chip, number, r.ST0_ABNORMAL | r.ST0_EC if blocked else 0)
    return b""


def version(_chip: Chip, _command: bytes) -> bytes:
    """Enhanced controller."""
    return bytes((r.VERSION_ENHANCED,))


def part_id(_chip: Chip, _command: bytes) -> bytes:
    """Kind and stepping of the chip."""
    return bytes((r.PART_ID_VALUE,))


def perpendicular_mode(chip: Chip, command: bytes) -> bytes:
    """GAP and WGATE; the drives' bits only with OW."""
    kept = 0 if command[1] & r.PERPENDICULAR_OW else r.PERPENDICULAR_DRIVES
    writable = r.PERPENDICULAR_MODE | r.PERPENDICULAR_DRIVES & ~kept
    chip.state.perpendicular = chip.state.perpendicular & kept | command[1] & writable
    return b""


def configure(chip: Chip, command: bytes) -> bytes:
    """Implied seek, FIFO, polling, precompensation."""
    chip.state.config, chip.state.precompensation_track = command[2] & r.CONFIG_MASK, command[3]
    return b""


def lock(chip: Chip, command: bytes) -> bytes:
    """Keep the FIFO's settings through a software reset."""
    chip.state.locked = bool(command[0] & r.CMD_LOCK)
    return bytes((chip.state.locked << 4,))


def _settings(state: ChipState) -> bytes:
    """What DUMPREG gives, and SAVE in its middle."""
    return bytes(
        (
            *state.cylinders,
            state.step_and_unload,
            state.load_and_mode,
            state.last_sector,
            state.locked << 7 | state.perpendicular,
            state.config,
            state.precompensation_track,
        )
    )


def dump_registers(chip: Chip, _command: bytes) -> bytes:
    """What the other commands have set."""
    return _settings(chip.state)


def save(chip: Chip, _command: bytes) -> bytes:
    """All that RESTORE needs."""
    state = chip.state
    return bytes((state.dsr, state.option)) + _settings(state) + bytes((state.power, 0, 0, 0))


def restore(chip: Chip, command: bytes) -> bytes:
    """What SAVE gave."""
    state = chip.state
    state.dsr, state.option = command[1] & r.DSR_KEPT, command[2] & r.OPTION_ISO
    state.cylinders[:] = command[3:7]
    state.step_and_unload, state.load_and_mode, state.last_sector = command[7:10]
    state.locked = bool(command[10] & r.CMD_LOCK)
    state.perpendicular = command[10] & (r.PERPENDICULAR_DRIVES | r.PERPENDICULAR_MODE)
    state.config, state.precompensation_track = command[11] & r.CONFIG_MASK, command[12]
    state.power = command[13]
    return b""


def option(chip: Chip, command: bytes) -> bytes:
    """ISO format."""
    chip.state.option = command[1] & r.OPTION_ISO
    return b""


def powerdown_mode(chip: Chip, command: bytes) -> bytes:
    """Kept and given back."""
    chip.state.power = command[1]
    return command[1:2]


def drive_specification(chip: Chip, command: bytes) -> bytes:
    """Drive types and data rate tables, one byte a drive, and a last byte."""
    specifications = chip.state.specifications
    for value in command[1:-1]:
        specifications[value >> r.SPECIFICATION_DRIVE_SHIFT & r.PARAM_DS] = value & r.SPECIFICATION_MASK
    return b"" if command[-1] & r.SPECIFICATION_NO_RESULT else bytes(specifications)


_TRANSFER_PARAMETERS = 8
_MFM, _MT_MFM, _ALL = r.CMD_MFM, r.CMD_MT | r.CMD_MFM, r.CMD_MT | r.CMD_MFM | r.CMD_SK
COMMANDS = (
    Command(r.READ_TRACK, "READ TRACK", _TRANSFER_PARAMETERS, _MFM),
    Command(r.SPECIFY, "SPECIFY", 2, run=specify),
    Command(r.SENSE_DRIVE_STATUS, "SENSE DRIVE STATUS", 1, run=sense_drive_status),
    Command(r.WRITE_DATA, "WRITE DATA", _TRANSFER_PARAMETERS, _MT_MFM),
    Command(r.READ_DATA, "READ DATA", _TRANSFER_PARAMETERS, _ALL),
    Command(r.RECALIBRATE, "RECALIBRATE", 1, run=recalibrate),
    Command(r.SENSE_INTERRUPT, "SENSE INTERRUPT STATUS", 0, run=sense_interrupt),
    Command(r.WRITE_DELETED, "WRITE DELETED DATA", _TRANSFER_PARAMETERS, _MT_MFM),
    Command(r.READ_ID, "READ ID", 1, _MFM),
    Command(r.READ_DELETED, "READ DELETED DATA", _TRANSFER_PARAMETERS, _ALL),
    Command(r.FORMAT_TRACK, "FORMAT TRACK", 5, _MFM),
    Command(r.DUMPREG, "DUMPREG", 0, run=dump_registers),
    Command(r.SEEK, "SEEK", 2, run=seek),
    Command(r.VERSION, "VERSION", 0, run=version),
    Command(r.PERPENDICULAR, "PERPENDICULAR MODE", 1, run=perpendicular_mode),
    Command(r.CONFIGURE, "CONFIGURE", 3, run=configure),
    Command(r.LOCK, "LOCK", 0, r.CMD_LOCK, lock),
    Command(r.VERIFY, "VERIFY", _TRANSFER_PARAMETERS, _ALL),
    Command(r.POWERDOWN, "POWERDOWN MODE", 1, run=powerdown_mode),
    Command(r.PART_ID, "PART ID", 0, run=part_id),
    Command(r.SAVE, "SAVE", 0, run=save),
    Command(r.OPTION, "OPTION", 1, run=option),
    Command(r.RESTORE, "RESTORE", 16, run=restore),
    Command(r.DRIVE_SPECIFICATION, "DRIVE SPECIFICATION", 5, run=drive_specification),
    Command(r.RELATIVE_SEEK, "RELATIVE SEEK", 2, r.CMD_DIR, relative_seek),
    Command(r.FORMAT_AND_WRITE, "FORMAT AND WRITE", 5, _MFM),
)


def _decode() -> tuple[Command | None, ...]:
    table: list[Command | None] = [None] * 256
    for command in COMMANDS:
        for first in range(256):
            if first & ~command.variable == command.code & ~command.variable:
                table[first] = command
    return tuple(table)


DECODE = _decode()
"""The command of each first byte; None if it is invalid."""


def is_complete(command: Command, received: bytearray) -> bool:
    """Whether all parameters are there."""
    if len(received) > command.parameters:
        return True
    ends_early = command.code == r.DRIVE_SPECIFICATION and len(received) > 1
    return ends_early and bool(received[-1] & r.SPECIFICATION_DONE)
