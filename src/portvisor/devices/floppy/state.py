"""Everything that the controller remembers."""

from __future__ import annotations

from dataclasses import dataclass, field

from portvisor.devices.floppy.drive import DriveState
from portvisor.devices.floppy.registers import CONFIG_EFIFO, DSR_DEFAULT

COMMAND, EXECUTION, RESULT = range(3)
"""Phases."""
DRIVES = 4
"""Drives that the chip addresses."""
NOTHING = -1
"""No status is pending."""


@dataclass
class TransferState:
    """A command that reaches the medium."""

    code: int = 0
    multi_track: bool = False
    skip: bool = False
    non_dma: bool = False
    drive: int = 0
    """DS of the command."""
    head: int = 0
    """Level of HDSEL."""
    c: int = 0
    h: int = 0
    r: int = 0
    n: int = 0
    eot: int = 0
    fill: int = 0
    """D of the FORMAT commands."""
    left: int = 0
    """Sectors until the command ends by itself; 0 for no such limit."""
    passed: int = 0
    """Sectors that READ TRACK has read."""
    st0: int = 0
    st1: int = 0
    st2: int = 0
    opened: bool = False
    """A sector is being exchanged with the host."""
    last: bool = False
    """It ends the command."""
    data: bytearray = field(default_factory=bytearray)
    position: int = 0
    """Bytes of `data` that the host has taken."""
    wanted: int = 0
    """Bytes that the host has to give for a sector."""


@dataclass
class ChipState:
    """The controller and its drives."""

    dor: int = 0
    unit: int = 0
    """The drive that DOR or a command has named last."""
    tdr: int = 0
    dsr: int = DSR_DEFAULT
    """Data rate and precompensation."""
    config: int = CONFIG_EFIFO
    precompensation_track: int = 0
    locked: bool = False
    perpendicular: int = 0
    step_and_unload: int = 0
    load_and_mode: int = 0
    """HLT and ND of SPECIFY."""
    last_sector: int = 0
    """EOT of the last transfer or SC of the last FORMAT."""
    power: int = 0
    option: int = 0
    specifications: list[int] = field(default_factory=lambda: [0] * DRIVES)
    cylinders: list[int] = field(default_factory=lambda: [0] * DRIVES)
    """PCN of each drive."""
    pending: list[int] = field(default_factory=lambda: [NOTHING] * DRIVES)
    """ST0 for SENSE INTERRUPT STATUS."""
    interrupt: bool = False
    inwards: bool = False
    """Level of DIR."""
    phase: int = COMMAND
    command: bytearray = field(default_factory=bytearray)
    results: bytearray = field(default_factory=bytearray)
    """Result bytes still to be read."""
    transfer: TransferState = field(default_factory=TransferState)
    drives: list[DriveState | None] = field(default_factory=list)
