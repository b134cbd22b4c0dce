"""Intel 82371SB (PIIX3) function 1: the configuration space of the IDE controller.

Source: Intel 82371FB (PIIX) and 82371SB (PIIX3) data sheet, order number 290550, section 2.3.

    40-43 IDETIM (bit 15 of each word: decode the channel)  44 SIDETIM

The channels themselves are `ide.channel.IdeChannel` devices at the ports of an AT. Not modelled: the bus
master (there is no BAR 4, and the programming interface reads 00 instead of 80), gating the channels by
IDETIM and COMMAND (they always decode), timings (the registers hold values).
"""

from __future__ import annotations

from typing import ClassVar

from portvisor.devices.pci.config import CACHE_LINE_SIZE, COMMAND, INTERRUPT_LINE, STATUS, STATUS_ERRORS, PciId
from portvisor.devices.pci.function import PciFunction

COMMAND_WRITABLE = 0x0005  # I/O space, bus master
STATUS_RESET = 0x0280  # fast back-to-back, medium DEVSEL#
IDETIM, SIDETIM = 0x40, 0x44


class Piix3Ide(PciFunction):
    """The function; attach it at 00:01.1."""

    ID: ClassVar[PciId] = PciId(0x8086, 0x7010, 0x010100)

    def __init__(self, *, name: str = "piix3-ide") -> None:
        super().__init__(name=name)
        self.define(COMMAND, 2, 0, COMMAND_WRITABLE)
        self.define(STATUS, 2, STATUS_RESET, clears=STATUS_ERRORS)
        self.define(CACHE_LINE_SIZE, 1)
        self.define(INTERRUPT_LINE, 1)
        self.define(IDETIM, 4, 0, 0xFFFFFFFF)
        self.define(SIDETIM, 1, 0, 0xFF)
