"""The chips that are compared with QEMU's."""

from __future__ import annotations

from qtest import known, streams
from qtest.differential import DISK_FILE, Busy, Chip
from qtest.floppy_streams import FLOPPIES
from qtest.testdev_streams import TESTDEV

SERIAL = ("-chardev", "null,id=com1", "-device", "isa-serial,chardev=com1")
KCS = ("-device", "ipmi-bmc-sim,id=bmc0", "-device", "isa-ipmi-kcs,bmc=bmc0,irq=0")
UUID = ("-uuid", "00112233-4455-6677-8899-aabbccddeeff")
DISK = (
    *("-drive", f"file={DISK_FILE},format=raw,if=none,id=disk,snapshot=on"),
    *("-device", "ide-hd,drive=disk,bus=ide.0,unit=0"),
)
BUSY = Busy("inb 0x3f6", 0x80)
MISC = ("-chardev", "null,id=log", "-device", "isa-debugcon,chardev=log", "-device", "pvpanic")
WATCHDOG = ("-watchdog-action", "none")

CHIPS: dict[str, Chip] = {
    "8259": Chip(streams.PIC),
    "8259 inputs": Chip(streams.PIC_LINES, streams.PIC_LINES_PROLOGUE),
    "8254": Chip(streams.PIT, allowed=known.PIT),
    "8237": Chip(streams.DMA, streams.DMA_PROLOGUE),
    "mc146818": Chip(streams.RTC, streams.RTC_PROLOGUE, known.PERIODIC),
    "pci": Chip(streams.PCI, streams.PCI_PROLOGUE),
    "8042": Chip(streams.KEYBOARD, streams.KEYBOARD_PROLOGUE, known.KEYBOARD_STATUS),
    "port92": Chip(streams.PORT92, streams.PORT92_PROLOGUE),
    "misc": Chip(streams.MISC, arguments=MISC),
    "16550": Chip(streams.UART, streams.UART_PROLOGUE, known.UART, arguments=SERIAL),
    "vga": Chip(streams.VGA, streams.VGA_PROLOGUE, arguments=("-device", "isa-vga")),
    "fw_cfg": Chip(streams.FW_CFG, streams.FW_CFG_PROLOGUE, arguments=UUID),
    "ide": Chip(streams.IDE, streams.IDE_PROLOGUE, known.IDE, arguments=DISK, busy=BUSY),
    "kcs": Chip(streams.KCS, allowed=known.KCS, arguments=KCS),
    "pm": Chip(streams.PM, streams.Q35_PROLOGUE, arguments=WATCHDOG, machine="q35"),
    "tco": Chip(streams.TCO, streams.TCO_PROLOGUE, known.TCO_BOOT, WATCHDOG, "q35"),
    "pc-testdev": TESTDEV,
    **FLOPPIES,
}
