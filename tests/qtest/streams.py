"""Random commands, weighted towards each chip's registers."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

STEPS_NS = (1, 100, 838, 839, 1000, 5000, 100_000, 1_000_000, 54_925_439, 1_000_000_000)


def access(chance: Random, ports: Sequence[int]) -> list[str]:
    """A read or a write of a byte."""
    port = chance.choice(ports)
    if chance.random() < 0.5:
        return [f"inb {port:#x}"]
    return [f"outb {port:#x} {chance.getrandbits(8):#x}"]


def step(chance: Random) -> list[str]:
    """Some virtual time."""
    base = chance.choice(STEPS_NS)
    return [f"clock_step {base + chance.randrange(base)}"]


def pic(chance: Random) -> list[str]:
    """8259 pair and ELCR; the interrupt inputs stay low."""
    return access(chance, (0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1))


TICK_STEPS = ("clock_step 2515",)
"""Three ticks: the 8254 takes a count over with the next pulse of its clock, QEMU's at once."""


def pit(chance: Random) -> list[str]:
    """Control words, status by read-back, gate and output of counter 2 at port 61."""
    kind = chance.random()
    if kind < 0.4:
        return counter(chance)
    if kind < 0.6:
        return [f"outb 0x61 {chance.getrandbits(2):#x}", *TICK_STEPS, "inb 0x61"]
    number = chance.randrange(3)
    return [f"outb 0x43 {0xE0 | 2 << number:#x}", f"inb {0x40 + number:#x}"]


def counter(chance: Random) -> list[str]:
    """Set counter 1 or 2 up: control word and a count that does not end within the stream."""
    number, access_mode, mode = chance.choice((1, 2)), chance.choice((2, 3)), chance.choice((0, 3))
    control = number << 6 | access_mode << 4 | mode << 1
    low = [f"outb {0x40 + number:#x} {chance.getrandbits(8):#x}"] if access_mode == 3 else []
    return [
        f"outb 0x43 {control:#x}",
        *low,
        f"outb {0x40 + number:#x} {0x80 | chance.getrandbits(7):#x}",
        *TICK_STEPS,
    ]


DMA_PAGES = (0x81, 0x82, 0x83, 0x87, 0x89, 0x8A, 0x8B, 0x8F)
"""The page registers of the seven channels and refresh."""


def dma(chance: Random) -> list[str]:
    """8237 pair and page registers."""
    kind = chance.random()
    if kind < 0.6:
        return dma_register(chance)
    if kind < 0.8:
        port = chance.choice((0x08, 0x0B, 0x0E, 0xD0, 0xD6, 0xDC))
        return (
            ["inb 0x8", "inb 0xd0"] if chance.random() < 0.3 else [f"outb {port:#x} {dma_command(chance, port):#x}"]
        )
    page = chance.choice(DMA_PAGES)
    return [f"outb {page:#x} {chance.getrandbits(8):#x}", f"inb {page:#x}"]


def dma_register(chance: Random) -> list[str]:
    """An address or count register, written or read as a pair of bytes."""
    register = chance.randrange(16)
    port, clear = (register, 0x0C) if register < 8 else (0xC0 + 2 * (register - 8), 0xD8)
    if chance.random() < 0.5:
        return [f"outb {clear:#x} 0", f"inb {port:#x}", f"inb {port:#x}"]
    return [f"outb {clear:#x} 0", *(f"outb {port:#x} {chance.getrandbits(8):#x}" for _ in range(2))]


def dma_command(chance: Random, port: int) -> int:
    """Anything but memory-to-memory transfers, which QEMU refuses."""
    return chance.getrandbits(8) & (0x04 if port in (0x08, 0xD0) else 0xFF)


DMA_PROLOGUE = (
    *("outb 0xd 0", "outb 0xda 0"),
    *(f"outb {port:#x} 0" for port in (*range(8), *range(0xC0, 0xD0, 2)) for _ in range(2)),
    *(f"outb {port:#x} 0" for port in DMA_PAGES),
)
"""RESET leaves the address and page registers as they are."""

RTC_PROLOGUE = (
    *("outb 0x70 0xb", "outb 0x71 0x82", "outb 0x70 0xa", "outb 0x71 0x76"),
    *(
        command
        for index, value in enumerate((0x50, 0, 0x59, 0, 0x23, 0, 6, 0x28, 2, 0x20))
        for command in (f"outb 0x70 {index:#x}", f"outb 0x71 {value:#x}")
    ),
    *("outb 0x70 0xb", "outb 0x71 0x02", "outb 0x70 0xa", "outb 0x71 0x26", "outb 0x70 0xc", "inb 0x71"),
)
"""A known time, divider chain and no interrupts: the clock runs on through RESET."""

KEYBOARD_PROLOGUE = ("outb 0x64 0xaa", "inb 0x60", "outb 0x64 0x60", "outb 0x60 0x07")

UART_PROLOGUE = (
    *("outb 0x3fb 0x83", "outb 0x3f8 0x01", "outb 0x3f9 0x00", "outb 0x3fb 0x03"),
    *("outb 0x3fa 0x07", "outb 0x3fa 0x01", "inb 0x3f8", "inb 0x3fd", "outb 0x3fc 0x08"),
)
"""What has not been read survives our RESET (docs/qemu-differences.md)."""

PCI_PROLOGUE = ("outl 0xcf8 0",)


def rtc(chance: Random) -> list[str]:
    """MC146818: time, alarm, RAM; register A with a running divider; time passing."""
    kind = chance.random()
    if kind < 0.2:
        return step(chance)
    index = chance.choice((*range(6), 7, 8, 9, 0x0A, 0x0B, 0x0C, 0x0D, chance.randrange(0x40, 0x80)))
    if kind < 0.7:
        return [f"outb 0x70 {index:#x}", "inb 0x71"]
    if index in RTC_TIME:
        return [f"outb 0x70 {index:#x}", "inb 0x71"]
    write = [f"outb 0x70 {index:#x}", f"outb 0x71 {rtc_value(chance, index):#x}"]
    return ["outb 0x70 0xc", "inb 0x71", *write] if index == 0x0B else write


RTC_TIME = (0, 2, 4, 7, 8, 9)
"""Set before the stream only: QEMU starts its second anew with every write."""
RTC_ALARM_MOST = {1: 60, 3: 60, 5: 24}
"""Values of the alarm registers."""


def rtc_value(chance: Random, index: int) -> int:
    """A legal value of a register."""
    if index == 0x0A:
        return 0x20 | chance.randrange(16)
    if index == 0x0B:
        return 0x02 | chance.getrandbits(8) & 0x30  # 24 hours, BCD, no SET, no PIE
    if index not in RTC_ALARM_MOST:
        return chance.getrandbits(8)
    value = chance.randrange(RTC_ALARM_MOST[index])
    return value // 10 << 4 | value % 10 if chance.random() < 0.7 else 0xC0


def uart(chance: Random) -> list[str]:
    """16550A at COM1."""
    kind = chance.random()
    if kind < 0.15:
        return step(chance)
    if kind < 0.3:
        return [f"outb 0x3fb {chance.getrandbits(8) & 0xBF:#x}"]  # no break
    if kind < 0.4:
        return [f"outb 0x3fc {chance.getrandbits(8) & 0xEF | 0x08:#x}"]  # no loop mode, OUT2 opens the gate
    if kind < 0.5:
        return [f"outb 0x3fa {chance.getrandbits(8) & 0xC2 | 0x01:#x}"]  # FIFOs stay on
    if kind < 0.75:
        return [f"inb {chance.randrange(0x3F8, 0x400):#x}"]
    return [f"outb {chance.choice((0x3F8, 0x3F9, 0x3FD, 0x3FE, 0x3FF)):#x} {chance.getrandbits(8):#x}"]


def absent_pci(chance: Random) -> list[str]:
    """Configuration of functions that are not there, in all access sizes."""
    device = chance.randrange(8, 0x1F)
    address = 1 << 31 | chance.getrandbits(8) << 16 | device << 11 | chance.getrandbits(8) & 0xFC
    size, letter = chance.choice(((1, "b"), (2, "w"), (4, "l")))
    port = 0xCFC + chance.randrange(0, 4, size)
    commands = [f"outl 0xcf8 {address:#x}", f"in{letter} {port:#x}"]
    if chance.random() < 0.3:
        commands.insert(1, f"out{letter} {port:#x} {chance.getrandbits(8 * size):#x}")
    return [*commands, "inl 0xcf8"]


def keyboard_controller(chance: Random) -> list[str]:
    """8042 commands without the devices behind it; every answer is read."""
    kind = chance.random()
    if kind < 0.4:
        return [f"outb 0x64 {chance.choice((0xA7, 0xA8)):#x}", "inb 0x64"]
    if kind < 0.8:
        return [f"outb 0x64 {chance.choice((0x20, 0xA9, 0xAA, 0xAB)):#x}", "inb 0x64", "inb 0x60", "inb 0x64"]
    return ["outb 0x64 0x60", f"outb 0x60 {chance.choice((0x07, 0x47, 0x04, 0x27, 0x67, 0x06)):#x}", "inb 0x64"]


def misc(chance: Random) -> list[str]:
    """System control port, APM ports, the POST port; no bit that resets."""
    kind = chance.random()
    if kind < 0.3:
        return [f"outb 0x92 {chance.getrandbits(8) & 0xFE:#x}", "inb 0x92"]
    if kind < 0.6:
        return [f"outb 0xb3 {chance.getrandbits(8):#x}", "inb 0xb3"]
    return [f"outb 0x80 {chance.getrandbits(8):#x}"]


Q35_PROLOGUE = (
    *("outl 0xcf8 0x8000f840", "outl 0xcfc 0x601"),
    *("outl 0xcf8 0x8000f844", "outl 0xcfc 0x80"),
    *("outl 0xcf8 0x8000f8f0", "outl 0xcfc 0xfed1c001"),
    *("outw 0x668 0x800", "outw 0x672 0x4", "outw 0x660 0x1", "writel 0xfed1f410 0x20"),
    *("outw 0x602 0", "outw 0x604 1", "outw 0x600 0xffff"),
)
"""PMBASE 600, RCBA FED1C000, the TCO timer halted, NO_REBOOT, SCI_EN, no interrupts."""

TCO_PROLOGUE = (
    *Q35_PROLOGUE,
    "outw 0x664 0x8",
    "outw 0x666 0x6",
    "outw 0x672 0x4",
    "outw 0x660 1",
    "outw 0x668 0",
    "outw 0x660 1",
)
"""The TCO timer running."""


def pm_block(chance: Random) -> list[str]:
    """PM1 status, enable and control without SLP_EN, GPE0, and the timer, with time passing."""
    kind = chance.random()
    if kind < 0.3:
        return [*step(chance), "inl 0x608"]
    if kind < 0.5:
        return [f"inw {chance.choice((0x600, 0x602, 0x604)):#x}"]
    if kind < 0.7:
        return [f"outw 0x602 {chance.getrandbits(16) & 0x0521:#x}", "inw 0x602"]
    if kind < 0.8:
        return [f"outw 0x600 {chance.getrandbits(16):#x}", "inw 0x600"]
    return [f"outw 0x604 {chance.getrandbits(16) & 0x1C00 | 1:#x}", "inw 0x604"]


def tco(chance: Random) -> list[str]:
    """The TCO timer and its scratch registers, with time passing."""
    kind = chance.random()
    if kind < 0.3:
        return [f"clock_step {chance.randrange(1, 5) * 600_000_000}", "inw 0x660", "inw 0x664", "inw 0x666"]
    if kind < 0.6:
        return [f"outw 0x672 {chance.randrange(4, 20):#x}", "outw 0x660 1", "inw 0x660"]
    register = chance.choice((0x662, 0x663, 0x66C, 0x66D, 0x66E))
    return [f"outb {register:#x} {chance.getrandbits(8):#x}", f"inb {register:#x}"]


VGA_BITS = {
    0x3C4: bytes.fromhex("033d0f3f0e"),
    0x3CE: bytes.fromhex("0f0f0f1f037b0f0fff"),
    0x3D4: bytes.fromhex("ffffffffffffffff7fff3f7fffffffffff0fffff7fffffefff"),
}
"""Bits of the sequencer's, graphics controller's and CRTC's registers, by index port; no write protection."""
ATTRIBUTE_BITS = bytes.fromhex("3f" * 16 + "ef3f3f0f0f")
VGA_PROLOGUE = (
    *("outb 0x3c2 0x67", "inb 0x3da"),
    *("outw 0x3d4 0x0011",),
    *(f"outw {port:#x} {index:#x}" for port, bits in VGA_BITS.items() for index in range(len(bits))),
    *(f"outb 0x3c0 {value:#x}" for index in range(0x15) for value in (index, 0)),
    *("outb 0x3c0 0x20", "inb 0x3da", "outb 0x3c6 0xff", "outb 0x3c8 0"),
)
"""All registers 0, colour addresses."""


FLIP = ("outb 0x3c0 0x20",)
"""The data half of the pair that the index has begun, so that the next write is an index."""


def vga(chance: Random) -> list[str]:
    """Indexed registers, attribute controller, DAC and the general registers; no status that depends on time."""
    kind = chance.random()
    if kind < 0.5:
        port, bits = chance.choice(tuple(VGA_BITS.items()))
        index = chance.randrange(len(bits))
        select = f"outb {port:#x} {index:#x}"
        return [select, f"outb {port + 1:#x} {chance.getrandbits(8) & bits[index]:#x}", f"inb {port + 1:#x}"]
    if kind < 0.65:
        index = chance.randrange(0x15)
        value = chance.getrandbits(8) & ATTRIBUTE_BITS[index]
        return [f"outb 0x3c0 {index:#x}", f"outb 0x3c0 {value:#x}", f"outb 0x3c0 {index:#x}", "inb 0x3c1", *FLIP]
    if kind < 0.8:
        entry = chance.getrandbits(8)
        colours = [f"outb 0x3c9 {chance.getrandbits(6):#x}" for _ in range(3)]
        return [f"outb 0x3c8 {entry:#x}", *colours, f"outb 0x3c7 {entry:#x}", *["inb 0x3c9"] * 3]
    return [f"inb {chance.choice((0x3C4, 0x3CC, 0x3CE, 0x3D4)):#x}"]


def kcs(chance: Random) -> list[str]:
    """A request with a command that no BMC has, and its answer of three bytes: status after every step."""
    status, data = "inb 0xca3", "inb 0xca2"
    request = [chance.randrange(0x40) << 2 & 0x18, *(chance.getrandbits(8) for _ in range(chance.randrange(3)))]
    if len(request) > 1:
        request[1] = NO_COMMAND
    last = request.pop() if len(request) > 1 else NO_COMMAND
    commands = ["outb 0xca3 0x61", status, data, status]
    for value in request:
        commands += [f"outb 0xca2 {value:#x}", status, data, status]
    commands += ["outb 0xca3 0x62", status, data, status, f"outb 0xca2 {last:#x}", status, data, status]
    for _ in range(3):
        commands += ["outb 0xca2 0x68", status, data, status]
    return commands


NO_COMMAND = 0xF0
