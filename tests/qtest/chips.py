"""The chips that are compared with QEMU's."""

from __future__ import annotations

from qtest import known, streams
from qtest.differential import Chip

SERIAL = ("-chardev", "null,id=com1", "-device", "isa-serial,chardev=com1")
KCS = ("-device", "ipmi-bmc-sim,id=bmc0", "-device", "isa-ipmi-kcs,bmc=bmc0,irq=0")
WATCHDOG = ("-watchdog-action", "none")

CHIPS: dict[str, Chip] = {
    "8259": Chip(streams.PIC),
    "8254": Chip(streams.PIT, allowed=known.REFRESH),
    "8237": Chip(streams.DMA, streams.DMA_PROLOGUE),
    "mc146818": Chip(streams.RTC, streams.RTC_PROLOGUE, known.PERIODIC),
    "pci": Chip(streams.PCI, streams.PCI_PROLOGUE),
    "8042": Chip(streams.KEYBOARD, streams.KEYBOARD_PROLOGUE, known.KEYBOARD_STATUS),
    "misc": Chip(streams.MISC),
    "16550": Chip(streams.UART, streams.UART_PROLOGUE, arguments=SERIAL),
    "vga": Chip(streams.VGA, streams.VGA_PROLOGUE, arguments=("-device", "isa-vga")),
    "kcs": Chip(streams.KCS, allowed=known.KCS, arguments=KCS),
    "pm": Chip(streams.PM, streams.Q35_PROLOGUE, arguments=WATCHDOG, machine="q35"),
    "tco": Chip(streams.TCO, streams.TCO_PROLOGUE, known.TCO_BOOT, WATCHDOG, "q35"),
}
