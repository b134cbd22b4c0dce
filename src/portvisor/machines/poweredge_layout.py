"""Where everything of the seed's server sits: the addresses of its /proc/ioports in one place."""

from __future__ import annotations

from portvisor.devices.pci.ich_lpc import ACPI_EN, GPIO_EN, RCBA_EN, LpcSettings
from portvisor.ports import PortRange

PMBASE, GPIOBASE, RCBA = 0x400, 0x500, 0xFED1C000
KCS_BASE, KCS_SPACING = 0xCA8, 4
FW_CFG_BASE = 0x510
FW_CFG_HOLE = PortRange(FW_CFG_BASE, 12, name="fw_cfg")
BOARD_BLOCKS = ((0x600, 0x20), (0x800, 0x20), (0x880, 4), (0xCA0, 6))
SCI_IRQ = 9
PCI_IRQS = (10, 11)
"""ISA interrupts that the PIRQs are routed to: A, C, E, G to the first, the others to the second."""

LPC_SETTINGS = LpcSettings(
    pmbase=PMBASE | 1,
    acpi_cntl=ACPI_EN,
    gpiobase=GPIOBASE | 1,
    gc=GPIO_EN,
    rcba=RCBA | RCBA_EN,
    pirqs=PCI_IRQS * 4,
)

ROOT_WINDOWS = ((0x0000, 0x03BB), (0x03E0, 0x0CF7), (0x03BC, 0x03DF), (0x1000, 0x7FFF))
"""I/O windows of bus 00, in the order that keeps Linux 5.16 and later from merging them."""
SECOND_ROOT, SECOND_ROOT_WINDOW = 0x80, (0x8000, 0xFFFF)
MEMORY_WINDOW = (0xE0000000, 0xFEBFFFFF)
RAID_BUS, RAID_WINDOW, RAID_PORTS = 2, (0x2000, 0x2FFF), 0x2000
RAID_MEMORY_WINDOW = (0xE1000000, 0xE10FFFFF)

SATA_BARS = {0: (0x3060, 8), 1: (0x3080, 4), 2: (0x3068, 8), 3: (0x3084, 4), 4: (0x3020, 32)}
SSATA_BARS = {0: (0x3070, 8), 1: (0x3088, 4), 2: (0x3078, 8), 3: (0x308C, 4), 4: (0x3040, 32)}
SATA_ABAR, SSATA_ABAR = 0xE0000000, 0xE0001000
