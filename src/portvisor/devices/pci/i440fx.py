"""Intel 82441FX (440FX) PCI and memory controller, the host bridge at 00:00.0.

Source: Intel 440FX PCIset 82441FX (PMC) data sheet, order number 290549.

    50 PMCCFG  52 DETURBO  53 DBC  54 AXC  55 DRT  57 DRAMC  58 DRAMT  59-5F PAM0-6  60-67 DRB0-7
    68 FDHC  70 MTT  71 CLT  72 SMRAM  90 ERRCMD  91 ERRSTS  93 TRC

PAM0-6 tell for thirteen segments between C0000 and FFFFF whether reads and writes reach RAM. The chip only
reports them, to `pam_changed`: what a machine does with it is its own affair, and a machine that passes
nothing has RAM there that always reads and writes.

The real chip has no subsystem ID. This one says 1AF4:1100, by which SeaBIOS and Linux know a virtual machine,
unless another identity is passed.

Not modelled: DRAM timing and sizing (the registers hold values), SMRAM's effect on memory (the register and
its lock are there), error reporting.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from portvisor.devices.pci.config import (
    CACHE_LINE_SIZE,
    COMMAND,
    INTERRUPT_LINE,
    STATUS,
    STATUS_DEVSEL_MEDIUM,
    STATUS_ERRORS,
    STATUS_FAST_BACK_TO_BACK,
    PciId,
)
from portvisor.devices.pci.function import PciFunction

PAM0 = 0x59
PAM6 = 0x5F
PAM_READ = 0x1
PAM_WRITE = 0x2

SMRAM = 0x72
SMRAM_OPEN = 0x40
SMRAM_CLOSED = 0x20
SMRAM_LOCKED = 0x10
SMRAM_ENABLE = 0x08
SMRAM_SPACE_A0000 = 0x02

COMMAND_RESET = 0x0006  # memory and master enabled
COMMAND_WRITABLE = 0x0142
STATUS_RESET = STATUS_FAST_BACK_TO_BACK | STATUS_DEVSEL_MEDIUM

REGISTERS_HELD = (
    ("PMCCFG", 0x50, 2, 0x0100, 0xFCFF),  # bits 9:8 are the host bus frequency straps
    ("DETURBO", 0x52, 1, 0x00, 0xFF),
    ("DBC", 0x53, 1, 0x80, 0xFF),
    ("AXC", 0x54, 1, 0x00, 0xFF),
    ("DRT", 0x55, 2, 0x0000, 0xFFFF),
    ("DRAMC", 0x57, 1, 0x01, 0xFF),
    ("DRAMT", 0x58, 1, 0x10, 0xFF),
    ("PAM0", PAM0, 1, 0x00, 0x30),
    *((f"PAM{number}", PAM0 + number, 1, 0x00, 0x33) for number in range(1, 7)),
    *((f"DRB{number}", 0x60 + number, 1, 0x01, 0xFF) for number in range(8)),
    ("FDHC", 0x68, 1, 0x00, 0xC0),
    ("MTT", 0x70, 1, 0x00, 0xF8),
    ("CLT", 0x71, 1, 0x10, 0x1F),
    ("SMRAM", SMRAM, 1, SMRAM_SPACE_A0000, SMRAM_OPEN | SMRAM_CLOSED | SMRAM_LOCKED | SMRAM_ENABLE),
    ("ERRCMD", 0x90, 1, 0x00, 0xFF),
    ("TRC", 0x93, 1, 0x00, 0x0E),
)
"""(name, offset, size, reset value, writable bits)."""

ERRSTS = 0x91
ERRSTS_CLEARS = 0x11


@dataclass(frozen=True, slots=True)
class PamSegment:
    """What PAM says of one memory segment."""

    base: int
    length: int
    read: bool
    """Reads reach RAM; otherwise they go to the bus, that is to ROM."""
    write: bool
    """Writes reach RAM; otherwise they are lost."""


def _segments() -> tuple[tuple[int, int, int, int], ...]:
    """(register, shift, base, length) of the thirteen segments."""
    low = [
        (PAM0 + 1 + index // 2, 4 * (index % 2), 0xC0000 + 0x4000 * index, 0x4000)
        for index in range(2 * (PAM6 - PAM0))
    ]
    return (*low, (PAM0, 4, 0xF0000, 0x10000))


SEGMENTS = _segments()


class I440Fx(PciFunction):
    """The host bridge; attach it at 00:00.0.

    Args:
        pam_changed: told of every segment whose attributes change.
        identity: replaces the virtual machine's subsystem ID.
    """

    ID: ClassVar[PciId] = PciId(0x8086, 0x1237, 0x060000, 0x02, 0x1AF4, 0x1100)
    CONFIG_REGISTERS: ClassVar[Mapping[int, str]] = {
        ERRSTS: "ERRSTS",
        **{offset: name for name, offset, *_ in REGISTERS_HELD},
    }

    def __init__(
        self,
        pam_changed: Callable[[PamSegment], None] | None = None,
        *,
        identity: PciId | None = None,
        name: str = "i440fx",
    ) -> None:
        super().__init__(identity=identity, name=name)
        self._pam_changed = pam_changed
        self.define(COMMAND, 2, COMMAND_RESET, COMMAND_WRITABLE)
        self.define(STATUS, 2, STATUS_RESET, clears=STATUS_ERRORS)
        self.define(CACHE_LINE_SIZE, 1)
        self.define(INTERRUPT_LINE, 1)
        for _, offset, size, value, writable in REGISTERS_HELD:
            self.define(offset, size, value, writable)
        self.define(ERRSTS, 1, 0, clears=ERRSTS_CLEARS)
        self._told = self.pam_segments()

    def pam_segments(self) -> tuple[PamSegment, ...]:
        """The thirteen segments as PAM has them now."""
        config = self.state.config
        return tuple(
            PamSegment(
                base,
                length,
                bool(config[register] >> shift & PAM_READ),
                bool(config[register] >> shift & PAM_WRITE),
            )
            for register, shift, base, length in SEGMENTS
        )

    def config_write(self, offset: int, size: int, value: int) -> None:
        smram = self.state.config[SMRAM]
        super().config_write(offset, size, value)
        self._guard_smram(smram)

    def _guard_smram(self, old: int) -> None:
        """D_LCK, once set, shuts D_OPEN and makes itself and the rest read-only until reset."""
        config = self.state.config
        if old & SMRAM_LOCKED:
            config[SMRAM] = old
        elif config[SMRAM] & SMRAM_LOCKED:
            config[SMRAM] &= ~SMRAM_OPEN & 0xFF

    def config_written(self, offset: int, size: int) -> None:
        if offset <= PAM6 and offset + size > PAM0:
            self._tell_pam()

    def _tell_pam(self) -> None:
        now = self.pam_segments()
        changed = [segment for segment, old in zip(now, self._told, strict=True) if segment != old]
        self._told = now
        if self._pam_changed is not None:
            for segment in changed:
                self._pam_changed(segment)

    def reset(self) -> None:
        super().reset()
        self._tell_pam()

    def restored(self) -> None:
        super().restored()
        self._tell_pam()
