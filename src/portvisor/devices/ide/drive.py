"""What all drives on an ATA cable or link have in common: registers, data phases, resets, power modes.

A drive knows nothing of ports. Whoever holds it (a legacy channel, an AHCI port) fills `state.registers`
with a command's parameters and calls `execute`. While `state.phase` is DATA_IN or DATA_OUT it then moves
the DRQ block with `read_data` or `write_data`; the last byte of a block starts the next block or ends the
command. `state.interrupt` is the INTRQ condition: at every block in PIO, once at the end otherwise.

Source: T13/1410D ATA-6, clauses 8 and 9. Commands complete at once: BSY is seen only while SRST is held.
Not modelled: the standby timer (a drive never leaves Idle by itself) and overlapped commands.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from portvisor.devices.ide.identify import IdentifyWords
from portvisor.devices.ide.registers import (
    ABRT,
    BSY,
    DIAGNOSTIC_PASSED,
    DRDY,
    DRQ,
    DSC,
    ERR,
    FEATURES,
    LBA_HIGH,
    LBA_LOW,
    LBA_MID,
    SECTOR_COUNT,
    TaskFile,
)

# Phase
IDLE = 0
DATA_IN = 1
DATA_OUT = 2

# Power mode, as CHECK POWER MODE reports it (8.9); SLEEP is never reported, a sleeping drive answers nothing
POWER_STANDBY = 0x00
POWER_IDLE = 0x80
POWER_ACTIVE = 0xFF
POWER_SLEEP = -1

# SET FEATURES subcommands (table 44)
ENABLE_WRITE_CACHE = 0x02
SET_TRANSFER_MODE = 0x03
DISABLE_LOOK_AHEAD = 0x55
DISABLE_REVERT = 0x66
DISABLE_WRITE_CACHE = 0x82
ENABLE_LOOK_AHEAD = 0xAA
ENABLE_REVERT = 0xCC

# Transfer modes (table 45): kind in bits 7:3, number in bits 2:0
PIO_DEFAULT = 0x00
PIO_FLOW_CONTROL = 0x08
MULTIWORD_DMA = 0x20
ULTRA_DMA = 0x40


class Transport(Enum):
    """How a drive is connected, which decides what it offers."""

    PIO = "parallel cable to a channel without bus master: no DMA command"
    SATA = "serial link to an AHCI port: DMA and queued commands"


@dataclass
class DriveState:
    """All that changes in a drive."""

    registers: TaskFile = field(default_factory=TaskFile)
    command: int = 0
    phase: int = IDLE
    buffer: bytearray = field(default_factory=bytearray)
    """The DRQ block that is being moved; of even length."""
    position: int = 0
    dma: bool = False
    """The present command moves its data by DMA: no interrupt per block."""
    interrupt: bool = False
    power: int = POWER_ACTIVE
    transfer_mode: int = PIO_FLOW_CONTROL
    revert: bool = False
    """SET FEATURES CCh is in force: a software reset brings the defaults back."""


class Drive(ABC):
    """A drive without its command set."""

    State: ClassVar[type[DriveState]] = DriveState
    SIGNATURE: ClassVar[tuple[int, int, int, int]]
    """Sector Count, LBA Low, LBA Mid, LBA High after a reset (9.12)."""
    RESET_STATUS: ClassVar[int]
    """Status after a reset (9.2, 9.3)."""
    state: DriveState

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self._commands = self.command_table()
        self.power_on()

    def command_table(self) -> dict[int, Callable[[], None]]:
        """Command codes and what carries them out; a code that is not here is aborted."""
        return {
            0x90: self.diagnose,
            0xE0: lambda: self._set_power(POWER_STANDBY),
            0xE1: lambda: self._set_power(POWER_IDLE),
            0xE2: lambda: self._set_power(POWER_STANDBY),
            0xE3: lambda: self._set_power(POWER_IDLE),
            0xE5: self._check_power_mode,
            0xE6: lambda: self._set_power(POWER_SLEEP),
            0xEF: self._set_features,
        }

    # --- resets -------------------------------------------------------------------------------------

    def power_on(self) -> None:
        """Power-on or hardware reset (9.1)."""
        self.adopt(self.State())
        self._post_signature()

    def adopt(self, state: DriveState) -> None:
        """Go on from a state of this class, such as one out of a snapshot."""
        self.state = state

    def hold_reset(self) -> None:
        """SRST was set (9.2): everything stops, BSY."""
        self._drop_transfer()
        self.state.interrupt = False
        self.state.registers.status = BSY

    def software_reset(self) -> None:
        """SRST was cleared again (9.2): diagnostics pass, the signature is posted, no interrupt."""
        self._drop_transfer()
        self.state.interrupt = False
        self.state.power = POWER_ACTIVE
        if self.state.revert:
            self.revert_to_defaults()
        self._post_signature()

    def diagnose(self) -> None:
        """EXECUTE DEVICE DIAGNOSTIC: passes, with the signature and an interrupt."""
        self._drop_transfer()
        self._post_signature()
        self.state.interrupt = True

    def revert_to_defaults(self) -> None:
        """Settings made by commands go back to their power-on values."""
        self.state.transfer_mode = PIO_FLOW_CONTROL
        self.state.revert = False

    def _post_signature(self) -> None:
        registers = self.state.registers
        registers.current[:] = bytes(len(registers.current))
        registers.previous[:] = bytes(len(registers.previous))
        self._post_address_signature()
        registers.error = DIAGNOSTIC_PASSED
        registers.status = self.RESET_STATUS

    def _post_address_signature(self) -> None:
        current = self.state.registers.current
        current[SECTOR_COUNT], current[LBA_LOW], current[LBA_MID], current[LBA_HIGH] = self.SIGNATURE

    # --- commands -----------------------------------------------------------------------------------

    def execute(self, command: int) -> None:
        """Carry out the command whose parameters are in `state.registers`, up to its first data block."""
        state = self.state
        if state.power == POWER_SLEEP:
            return
        self._drop_transfer()
        state.command = command
        state.interrupt = False
        state.registers.error = 0
        state.registers.status = DRDY | DSC
        self._commands.get(command, self._abort)()

    def _complete(self) -> None:
        """End of a command: ready, interrupt."""
        self._drop_transfer()
        self.state.registers.status = DRDY | DSC
        self.state.interrupt = True

    def _fail(self, error: int) -> None:
        """End of a command with Error bits."""
        self._complete()
        self.state.registers.error = error
        self.state.registers.status = DRDY | DSC | ERR

    def _abort(self) -> None:
        self._fail(ABRT)

    def _set_power(self, mode: int) -> None:
        if mode == POWER_IDLE or self.flush_medium():
            self.state.power = mode
            self._complete()
        else:
            self._abort()

    def _check_power_mode(self) -> None:
        self.state.registers.current[SECTOR_COUNT] = self.state.power & 0xFF
        self._complete()

    @abstractmethod
    def flush_medium(self) -> bool:
        """Put written data on stable storage; False if the host cannot."""

    def _set_features(self) -> None:
        subcommand = self.state.registers.current[FEATURES]
        if self.set_feature(subcommand):
            self._complete()
        else:
            self._abort()

    def set_feature(self, subcommand: int) -> bool:
        """SET FEATURES: False for a subcommand that is not supported."""
        if subcommand == SET_TRANSFER_MODE:
            return self._set_transfer_mode(self.state.registers.current[SECTOR_COUNT])
        if subcommand in (DISABLE_REVERT, ENABLE_REVERT):
            self.state.revert = subcommand == ENABLE_REVERT
            return True
        return False

    def _set_transfer_mode(self, mode: int) -> bool:
        highest = {PIO_DEFAULT: 1, PIO_FLOW_CONTROL: 4}
        if self.transport is Transport.SATA:
            highest |= {MULTIWORD_DMA: 2, ULTRA_DMA: 6}
        kind, number = mode & 0xF8, mode & 0x07
        if number > highest.get(kind, -1):
            return False
        self.state.transfer_mode = mode
        return True

    def identify_modes(self, words: IdentifyWords) -> None:
        """IDENTIFY words on what a host may do and how fast, the same for all kinds of drive."""
        mode = self.state.transfer_mode
        selected = 0x0100 << (mode & 0x07)
        words[49] = 0x0E00  # IORDY, which can be disabled; LBA
        words[51] = 0x0200  # PIO mode 2 without IORDY
        words[53] = 0x0007  # words 54-58, 64-70 and 88 are valid
        words[64] = 0x0003  # PIO modes 3 and 4
        words[67] = words[68] = 120  # ns per PIO cycle
        if self.transport is Transport.SATA:
            words[49] = 0x0F00  # and DMA
            words[63] = 0x0007 | (selected if mode & 0xF8 == MULTIWORD_DMA else 0)
            words[65] = words[66] = 120  # ns per multiword DMA cycle
            words[88] = 0x007F | (selected if mode & 0xF8 == ULTRA_DMA else 0)

    # --- data phases --------------------------------------------------------------------------------

    def _drop_transfer(self) -> None:
        state = self.state
        state.phase = IDLE
        state.position = 0
        state.dma = False
        if state.buffer:
            state.buffer = bytearray()

    def _offer(self, data: bytearray) -> None:
        """Begin a data-in block; the host is told by an interrupt in PIO."""
        self._begin_block(DATA_IN, data)
        self.state.interrupt = not self.state.dma

    def _request(self, length: int) -> None:
        """Begin a data-out block of `length` bytes."""
        self._begin_block(DATA_OUT, bytearray(length))

    def _begin_block(self, phase: int, buffer: bytearray) -> None:
        state = self.state
        state.phase = phase
        state.buffer = buffer
        state.position = 0
        state.registers.status = DRDY | DSC | DRQ

    def read_data(self, length: int) -> bytes:
        """Up to `length` bytes of the present data-in block; nothing if there is none."""
        state = self.state
        if state.phase != DATA_IN:
            return b""
        start = state.position
        data = bytes(state.buffer[start : start + length])
        state.position = start + len(data)
        if state.position == len(state.buffer):
            self.block_done()
        return data

    def write_data(self, data: bytes | memoryview) -> int:
        """Take bytes into the present data-out block; returns how many, 0 if there is no such block."""
        state = self.state
        if state.phase != DATA_OUT:
            return 0
        start = state.position
        taken = min(len(data), len(state.buffer) - start)
        state.buffer[start : start + taken] = data[:taken]
        state.position = start + taken
        if state.position == len(state.buffer):
            self.block_done()
        return taken

    def _finish_data_in(self) -> None:
        """After the last block of a PIO data-in command there is no interrupt (9.5)."""
        dma = self.state.dma
        self._drop_transfer()
        self.state.registers.status = DRDY | DSC
        if dma:
            self.state.interrupt = True

    @abstractmethod
    def block_done(self) -> None:
        """The whole of `state.buffer` was moved."""
