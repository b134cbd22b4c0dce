"""Intel 82371SB (PIIX3) function 0: the PCI-to-ISA bridge, with the PCI interrupt router.

Source: Intel 82371FB (PIIX) and 82371SB (PIIX3) data sheet, order number 290550.

    4C IORT  4E XBCS  60-63 PIRQRCA-D  69 TOM  6A MSTAT  70 MBIRQ0  76-77 MBDMA0-1  78 PCSC  80 APICBASE
    82 DLC  A0 SMICNTL  A2 SMIEN  A4 SEE  A8 FTMR  AA SMIREQ  AC CTLTMR  AE CTHTMR

Elsewhere: the interrupt router behind PIRQRCx (`pirq`), reset control (CF9), ELCR, the ISA devices, functions
1 (IDE) and 2 (USB).
Not modelled: system management interrupts and timers, chip select decode, type F DMA, MIRQ0 (the registers
hold values).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from portvisor.devices.pci.config import (
    CACHE_LINE_SIZE,
    COMMAND,
    INTERRUPT_LINE,
    LATENCY_TIMER,
    STATUS,
    STATUS_DEVSEL_MEDIUM,
    STATUS_ERRORS,
    STATUS_FAST_BACK_TO_BACK,
    PciId,
)
from portvisor.devices.pci.function import PciFunction
from portvisor.devices.pci.pirq import PIRQ_DISABLED, PIRQ_WRITABLE, PirqRouter
from portvisor.ports import IrqLine

PIRQRC = 0x60
PIRQ_COUNT = 4

COMMAND_RESET = 0x0007  # I/O, memory and master are always on
COMMAND_SPECIAL_CYCLES = 0x0008
STATUS_RESET = STATUS_FAST_BACK_TO_BACK | STATUS_DEVSEL_MEDIUM

REGISTERS_HELD = (
    ("IORT", 0x4C, 1, 0x4D, 0xFF),
    ("XBCS", 0x4E, 2, 0x0003, 0x01FF),
    *(
        (f"PIRQRC{letter}", PIRQRC + number, 1, PIRQ_DISABLED, PIRQ_WRITABLE)
        for number, letter in enumerate("ABCD")
    ),
    ("TOM", 0x69, 1, 0x02, 0xFE),
    ("MSTAT", 0x6A, 1, 0x00, 0xD1),
    ("MBIRQ0", 0x70, 1, 0x80, 0xEF),
    ("MBDMA0", 0x76, 1, 0x04, 0x87),
    ("MBDMA1", 0x77, 1, 0x04, 0x87),
    ("PCSC", 0x78, 2, 0x0002, 0xFFFF),
    ("APICBASE", 0x80, 1, 0x00, 0x7F),
    ("DLC", 0x82, 1, 0x00, 0x0F),
    ("SMICNTL", 0xA0, 1, 0x08, 0x1F),
    ("SMIEN", 0xA2, 2, 0x0000, 0x01FF),
    ("SEE", 0xA4, 4, 0x00000000, 0xEFFFFFFB),
    ("FTMR", 0xA8, 1, 0x0F, 0xFF),
    ("SMIREQ", 0xAA, 2, 0x0000, 0x0000),  # no request is ever made
    ("CTLTMR", 0xAC, 1, 0x00, 0xFF),
    ("CTHTMR", 0xAE, 1, 0x00, 0xFF),
)
"""(name, offset, size, reset value, writable bits)."""

MSTAT_HIGH = 0x6B
MSTAT_SERR_CLEARS = 0x80


class Piix3(PciFunction):
    """The ISA bridge; attach it at 00:01.0 and give `pirqs` to the root bus as its interrupt lines.

    Args:
        isa_irqs: a driver of each ISA interrupt that PCI may be routed to; those missing lead nowhere.
    """

    ID: ClassVar[PciId] = PciId(0x8086, 0x7000, 0x060100)
    CONFIG_REGISTERS: ClassVar[Mapping[int, str]] = {offset: name for name, offset, *_ in REGISTERS_HELD}

    def __init__(self, isa_irqs: Mapping[int, IrqLine], *, name: str = "piix3") -> None:
        super().__init__(name=name)
        offsets = range(PIRQRC, PIRQRC + PIRQ_COUNT)
        self.router = PirqRouter(lambda offset: self.state.config[offset], offsets, isa_irqs)
        self.pirqs = self.router.inputs
        """The inputs PIRQA# to PIRQD#; 1 is asserted."""
        self.define(COMMAND, 2, COMMAND_RESET, COMMAND_SPECIAL_CYCLES)
        self.define(STATUS, 2, STATUS_RESET, clears=STATUS_ERRORS)
        for register in (CACHE_LINE_SIZE, LATENCY_TIMER, INTERRUPT_LINE):
            self.define(register, 1)
        for _, offset, size, value, writable in REGISTERS_HELD:
            self.define(offset, size, value, writable)
        self.define(MSTAT_HIGH, 1, 0, clears=MSTAT_SERR_CLEARS)
        self.set_multifunction()

    def config_written(self, offset: int, size: int) -> None:
        if offset < PIRQRC + PIRQ_COUNT and offset + size > PIRQRC:
            self.router.drive()

    def reset(self) -> None:
        super().reset()
        self.router.drive()

    def restored(self) -> None:
        super().restored()
        self.router.drive()


def slot_route(first_slot: int = 1) -> Callable[[int, int], int]:
    """The usual board wiring under a PIIX: device `first_slot`'s INTA# is PIRQA#, the next one's PIRQB#."""
    return lambda device, pin: (device - first_slot + pin) % PIRQ_COUNT
