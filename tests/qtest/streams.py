"""Commands for comparisons as hypothesis strategies, weighted towards each chip's registers.

A strategy makes groups: a few commands that belong together, such as an index and its data.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, product

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Group = tuple[str, ...]
"""A few commands that belong together."""
Groups = SearchStrategy[Group]

WAIT = "wait"
"""In place of a command: until a chip is idle that works in the background of QEMU's process."""
IRQ = "irq"
"""First word of a command that drives an 8259 input: number and level follow."""
TIMES = " * "
"""Between a number and a command that is repeated."""

STEPS_NS = (1, 100, 838, 839, 1000, 5000, 100_000, 1_000_000, 54_925_439, 1_000_000_000)


# --- building blocks ------------------------------------------------------------------------------------


def run(*commands: str) -> Groups:
    """Always the same."""
    return st.just(commands)


def weighted(*choices: tuple[int, Groups]) -> Groups:
    """One of the strategies, each as often as its weight says; shrinks towards the first."""
    table = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(table) - 1).flatmap(table.__getitem__)


def weighted_values(*choices: tuple[int, SearchStrategy[int]]) -> SearchStrategy[int]:
    """As `weighted`, for numbers."""
    table = [strategy for weight, strategy in choices for _ in range(weight)]
    return st.integers(0, len(table) - 1).flatmap(table.__getitem__)


def sequence(*parts: Groups) -> Groups:
    """The commands of all parts, one after the other."""
    return st.tuples(*parts).map(lambda groups: tuple(chain.from_iterable(groups)))


def bits(mask: int = 0xFF, ones: int = 0) -> SearchStrategy[int]:
    """A number of which only the bits of `mask` vary and those of `ones` are set."""
    return st.integers(0, mask).map(lambda value: value & mask | ones)


def read(*ports: int, letter: str = "b") -> Groups:
    """An IN from one of the ports."""
    return st.sampled_from(ports).map(lambda port: (f"in{letter} {port:#x}",))


def write(port: int, values: SearchStrategy[int] | None = None, *, letter: str = "b") -> Groups:
    """An OUT of one of the values, by default any byte."""
    return (bits() if values is None else values).map(lambda value: (f"out{letter} {port:#x} {value:#x}",))


def write_any(*ports: int) -> Groups:
    """An OUT of any byte to one of the ports."""
    return weighted(*((1, write(port)) for port in ports))


def access(*ports: int) -> Groups:
    """A read or a write of a byte."""
    return weighted((len(ports), read(*ports)), *((1, write(port)) for port in ports))


def steps(*least: int) -> Groups:
    """Virtual time: from one of the numbers of ns to its double."""
    return weighted(*((1, st.integers(ns, 2 * ns - 1).map(lambda ns: (f"clock_step {ns}",))) for ns in least))


STEP = steps(*STEPS_NS)
"""Some virtual time."""


# --- 8259 pair and ELCR ---------------------------------------------------------------------------------

PIC = access(0x20, 0x21, 0xA0, 0xA1, 0x4D0, 0x4D1)
"""The interrupt inputs stay low."""


PIC_LINES_PROLOGUE = (
    *("outb 0x4d0 0", "outb 0x4d1 0"),
    *("outb 0xa0 0x11", "outb 0xa1 0x70", "outb 0xa1 0x02", "outb 0xa1 0x01"),
    *("outb 0x20 0x11", "outb 0x21 0x08", "outb 0x21 0x04", "outb 0x21 0x01"),
)
_PIC_INPUTS = tuple(irq for irq in range(16) if irq != 2)
_PIC_LOOK = tuple(
    command
    for port in (0x20, 0xA0)
    for ocw in (0x0A, 0x0B)
    for command in (f"outb {port:#x} {ocw:#x}", f"inb {port:#x}")
)
"""IRR and ISR of both."""
_NON_SPECIFIC_EOI, _SPECIFIC_EOI, _ROTATE = 0x20, 0x40, 0x80


def irq(number: int, level: int) -> str:
    """A command that drives an input of the 8259 pair, wherever a machine has it."""
    return f"{IRQ} {number} {level}"


def _poll(port: int) -> Group:
    """Poll command: acknowledges the request of highest priority."""
    return (f"outb {port:#x} 0x0c", f"inb {port:#x}")


def _end_of_interrupt(number: int, ocw2: int) -> Group:
    slave = (f"outb 0xa0 {ocw2 | (number & 7 if ocw2 & _SPECIFIC_EOI else 0):#x}",) if number >= 8 else ()
    level = 2 if number >= 8 else number
    return (*slave, *_PIC_LOOK, f"outb 0x20 {ocw2 | (level if ocw2 & _SPECIFIC_EOI else 0):#x}", *_PIC_LOOK)


def _pic_requests(parts: tuple[list[int], bool, int]) -> Group:
    """Inputs rise, are acknowledged by polling in order of priority, fall, and are ended."""
    numbers, level_triggered, ocw2 = parts
    elcr = sum(1 << number for number in numbers) & 0xDEF8 if level_triggered else 0
    commands = [f"outb 0x4d0 {elcr & 0xFF:#x}", f"outb 0x4d1 {elcr >> 8:#x}"]
    commands += [irq(number, 1) for number in numbers]
    commands += _PIC_LOOK
    for number in sorted(numbers, key=lambda number: (2.0 + number / 16 if number >= 8 else float(number))):
        commands += [*_poll(0x20), *(_poll(0xA0) if number >= 8 else ()), *_PIC_LOOK, irq(number, 0), *_PIC_LOOK]
        commands += _end_of_interrupt(number, ocw2)
    return tuple(commands)


PIC_LINES = weighted(
    (
        6,
        st.tuples(
            st.lists(st.sampled_from(_PIC_INPUTS), min_size=1, max_size=3, unique=True),
            st.booleans(),
            st.sampled_from((_NON_SPECIFIC_EOI, _NON_SPECIFIC_EOI | _SPECIFIC_EOI)),
        ).map(_pic_requests),
    ),
    (1, run(*_poll(0x20))),
    (1, run(*_poll(0xA0))),
    (1, read(0x21, 0xA1)),
)
"""The inputs, edge and level triggered: no edge falls before it is acknowledged, which QEMU would keep."""


# --- 8254 -----------------------------------------------------------------------------------------------

TICK_STEPS = ("clock_step 2515",)
"""Three ticks: the 8254 takes a count over with the next pulse of its clock, QEMU's at once."""


def _counter(number: int, access_mode: int, mode: int, bcd: int) -> Groups:
    """Set counter 1 or 2 up: control word and a count that does not end within the stream."""
    port = 0x40 + number
    control = run(f"outb 0x43 {number << 6 | access_mode << 4 | mode << 1 | bcd:#x}")
    low = write(port) if access_mode == 3 else run()
    return sequence(control, low, write(port, bits(0x7F, 0x80)), run(*TICK_STEPS))


PIT = weighted(
    (2, st.integers(0, 2).map(lambda number: (f"outb 0x43 {0xE0 | 2 << number:#x}", f"inb {0x40 + number:#x}"))),
    (1, sequence(write(0x61, bits(0x03)), run(*TICK_STEPS, "inb 0x61"))),
    (2, weighted(*((1, _counter(*kind)) for kind in product((1, 2), (2, 3), range(8), (0, 1))))),
)
"""Control words, status by read-back, gate and output of counter 2 at port 61."""


# --- 8237 pair and page registers -----------------------------------------------------------------------

DMA_PAGES = (0x81, 0x82, 0x83, 0x87, 0x89, 0x8A, 0x8B, 0x8F)
"""The page registers of the seven channels and refresh."""
DMA_PROLOGUE = (
    *("outb 0xd 0", "outb 0xda 0"),
    *(f"outb {port:#x} 0" for port in (*range(8), *range(0xC0, 0xD0, 2)) for _ in range(2)),
    *(f"outb {port:#x} 0" for port in DMA_PAGES),
)
"""RESET leaves the address and page registers as they are."""
_DMA_REGISTERS = ((0x0C, tuple(range(8))), (0xD8, tuple(range(0xC0, 0xD0, 2))))
"""The port that clears the byte pointer, and the address and count registers."""


def _dma_pair(clear: int, port: int) -> Groups:
    """An address or count register, written or read as a pair of bytes."""
    return weighted(*((1, sequence(run(f"outb {clear:#x} 0"), half, half)) for half in (read(port), write(port))))


DMA = weighted(
    (6, weighted(*((1, _dma_pair(clear, port)) for clear, ports in _DMA_REGISTERS for port in ports))),
    (1, run("inb 0x8", "inb 0xd0")),
    (
        1,
        weighted(
            (2, write_any(0x0B, 0x0E, 0xD6, 0xDC)), (1, write(0x08, bits(0x04))), (1, write(0xD0, bits(0x04)))
        ),
    ),
    (2, weighted(*((1, sequence(write(page), read(page))) for page in DMA_PAGES))),
)
"""No memory-to-memory transfers, which QEMU refuses."""


# --- MC146818 -------------------------------------------------------------------------------------------

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
RTC_TIME = (0, 2, 4, 7, 8, 9)
"""Written under SET only: QEMU starts its second anew with every other write."""
RTC_ALARM_MOST = {1: 60, 3: 60, 5: 24}
"""Values of the alarm registers."""
_RTC_A, _RTC_B, _RTC_C, _RTC_D = 0x0A, 0x0B, 0x0C, 0x0D
_RTC_RAM = st.integers(0x40, 0x7F)


def _rtc_write(index: int, values: SearchStrategy[int]) -> Groups:
    return sequence(run(f"outb 0x70 {index:#x}"), write(0x71, values))


def _alarm(index: int) -> Groups:
    """A BCD number or "any"."""
    digits = st.integers(0, RTC_ALARM_MOST[index] - 1).map(lambda value: value // 10 << 4 | value % 10)
    return _rtc_write(index, weighted_values((2, digits), (1, st.just(0xC0))))


_RTC_LEGAL = {0: 59, 2: 59, 4: 23, 7: 28, 8: 12, 9: 99}
"""Highest value of each time register; every month has 28 days."""


def _rtc_time(index: int) -> Groups:
    """A time register written while SET keeps updates off."""
    least = 1 if index in (7, 8) else 0
    digits = st.integers(least, _RTC_LEGAL[index]).map(lambda value: value // 10 << 4 | value % 10)
    on, off = ("outb 0x70 0xb", "outb 0x71 0x82"), ("outb 0x70 0xb", "outb 0x71 0x02")
    return sequence(run("outb 0x70 0xc", "inb 0x71", *on), _rtc_write(index, digits), run("inb 0x71", *off))


RTC = weighted(
    (
        6,
        (st.sampled_from((*RTC_TIME, *RTC_ALARM_MOST, _RTC_A, _RTC_B, _RTC_C, _RTC_D)) | _RTC_RAM).map(
            lambda index: (f"outb 0x70 {index:#x}", "inb 0x71")
        ),
    ),
    (2, STEP),
    (1, weighted(*((1, _alarm(index)) for index in RTC_ALARM_MOST))),
    (1, weighted(*((1, _rtc_time(index)) for index in RTC_TIME))),
    (1, _rtc_write(_RTC_A, bits(0x0F, 0x20))),
    (1, sequence(run("outb 0x70 0xc", "inb 0x71"), _rtc_write(_RTC_B, bits(0x30, 0x02)))),
    (1, st.tuples(_RTC_RAM, bits()).map(lambda pair: (f"outb 0x70 {pair[0]:#x}", f"outb 0x71 {pair[1]:#x}"))),
)
"""Time, alarm, RAM; register A with a running divider; 24 hours, BCD, no PIE; time passing."""


# --- 16550A ---------------------------------------------------------------------------------------------

UART_PROLOGUE = (
    *("outb 0x3fb 0x83", "outb 0x3f8 0x01", "outb 0x3f9 0x00", "outb 0x3fb 0x03"),
    *("outb 0x3fa 0x07", "outb 0x3fa 0x07", "outb 0x3fa 0x01", "inb 0x3f8", "inb 0x3fd", "outb 0x3fc 0x08"),
)
"""What has not been read survives our RESET (docs/qemu-differences.md)."""
_FCR = write(0x3FA, weighted_values((1, st.just(0)), (3, bits(0xCE, 0x01))))
"""QEMU obeys the other bits without bit 0, too."""
_RBR = run("inb 0x3fd", "inb 0x3f8")
"""LSR says whether there is a character: without one RBR is undefined."""
_UART_LOOP = sequence(
    write(0x3FB, bits(0x7F)),
    run("outb 0x3f9 0"),
    write(0x3FC, bits(0xFF, 0x18)),
    weighted(
        (2, write(0x3F8)),
        (1, write(0x3FC, bits(0xFF, 0x18))),
        (1, write(0x3FB, bits(0x7F))),
        (1, _FCR),
    ),
    weighted((1, write(0x3F8)), (1, _RBR), (2, read(0x3FA, 0x3FD, 0x3FE))),
    weighted((1, _RBR), (2, read(0x3FA, 0x3FD, 0x3FE))),
    write(0x3FC, bits(0xEF, 0x08)),
    read(0x3FE),
)
"""Loop mode with its characters, breaks and modem lines; without interrupts, which OUT2 gates then.

The last read takes the modem's changes back, of which QEMU knows none."""
UART = weighted(
    (1, _RBR),
    (5, read(*range(0x3F9, 0x400))),
    (5, write_any(0x3F8, 0x3F9, 0x3FD, 0x3FE, 0x3FF)),
    (3, STEP),
    (3, write(0x3FB)),
    (2, write(0x3FC, bits(0xEF, 0x08))),
    (3, _UART_LOOP),
    (1, write(0x3FA, bits(0xC2, 0x01))),
    (1, sequence(write(0x3FB, bits(0x7F)), write(0x3F9, bits(0x0D)), _FCR)),
)
"""At COM1: OUT2 opens the gate; FIFO modes change while the transmitter's interrupt is off."""


# --- PCI configuration ----------------------------------------------------------------------------------

PCI_PROLOGUE = ("outl 0xcf8 0x80000860", "outl 0xcfc 0x80808080", "outl 0xcf8 0")
_PCI_ADDRESS = st.tuples(bits(), st.integers(8, 0x1E), bits(0xFC)).map(
    lambda parts: (f"outl 0xcf8 {1 << 31 | parts[0] << 16 | parts[1] << 11 | parts[2]:#x}",)
)
"""Bus, device and register."""
_PCI_PORTS = [(port, size, "bwxl"[size - 1]) for size in (1, 2, 4) for port in range(0xCFC, 0xD00, size)]
_PCI_FUNCTIONS = (0 << 3 | 0, 1 << 3 | 0, 1 << 3 | 1)
"""Device and function of the 440FX, the PIIX3 and its IDE controller."""
_PCI_PIIX3, _PCI_PIRQS = 1 << 3 | 0, 0x60


def _pci_select(function: int, register: int) -> Groups:
    return run(f"outl 0xcf8 {1 << 31 | function << 8 | register & 0xFC:#x}")


def _pci_present(function: int) -> Groups:
    """What is the same in both: identity, class, revision, header type; and that these are read-only."""
    parts = []
    for register, letter in ((0, "l"), (0, "w"), (2, "w"), (8, "b"), (0xA, "w"), (0xE, "b"), (0x10, "l")):
        look = run(f"in{letter} {0xCFC + (register & 3):#x}")
        parts.append((1, sequence(_pci_select(function, register), look)))
        if register < 0x10:
            store = write(0xCFC + (register & 3), bits((1 << 8 * (1 + "bwxl".index(letter))) - 1), letter=letter)
            parts.append((1, sequence(_pci_select(function, register), store, look)))
    return weighted(*parts)


def _pci_pirq(number: int) -> Groups:
    """A register that routes PIRQA# to PIRQD#: bits 6:4 are reserved."""
    port = 0xCFC + number
    return sequence(_pci_select(_PCI_PIIX3, _PCI_PIRQS), write(port, bits(0x8F)), read(port))


PCI = weighted(
    *((4, _pci_present(function)) for function in _PCI_FUNCTIONS),
    *((2, _pci_pirq(number)) for number in range(4)),
    *(
        (
            2 if data else 3,
            sequence(
                _PCI_ADDRESS,
                write(port, bits((1 << 8 * size) - 1), letter=letter) if data else run(),
                run(f"in{letter} {port:#x}", "inl 0xcf8"),
            ),
        )
        for port, size, letter in _PCI_PORTS
        for data in (False, True)
    ),
)
"""Functions that are not there, in all access sizes; of those that are, what both boards have alike."""


# --- 8042 -----------------------------------------------------------------------------------------------

KEYBOARD_PROLOGUE = ("outb 0x64 0xaa", "inb 0x60", "outb 0x64 0x60", "outb 0x60 0x07")
KEYBOARD = weighted(
    (2, sequence(write(0x64, st.sampled_from((0xA7, 0xA8))), read(0x64))),
    (
        2,
        sequence(write(0x64, st.sampled_from((0x20, 0xA9, 0xAA, 0xAB))), run("inb 0x64", "inb 0x60", "inb 0x64")),
    ),
    (
        1,
        sequence(
            run("outb 0x64 0x60"),
            write(0x60, st.sampled_from((0x07, 0x47, 0x04, 0x27, 0x67, 0x06))),
            read(0x64),
        ),
    ),
)
"""Commands without the devices behind it; every answer is read."""


# --- ports around the chips -----------------------------------------------------------------------------

PORT92_PROLOGUE = ("outb 0x92 0",)
"""RESET leaves QEMU's register as it is."""
PORT92 = weighted(
    (1, read(0x92)),
    (2, write(0x92, bits(0xFE))),
)
"""Without INIT_NOW, which resets the machine."""
MISC = weighted(
    (3, sequence(write(0xB3), read(0xB3))),
    (2, write(0x80)),
    (2, write(0xF0)),
    (2, sequence(write(0xCF9, bits(0xFB)), read(0xCF9))),
    (2, access(0xE9)),
    (2, read(0x505)),
    (1, write(0x505, bits(0xFC))),
)
"""APM, POST port, coprocessor error, reset control, debug console, pvpanic; nothing that resets or pauses."""


# --- ICH9: PM block and TCO -----------------------------------------------------------------------------

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
PM = weighted(
    (3, sequence(STEP, read(0x608, letter="l"))),
    (2, read(0x600, 0x602, 0x604, letter="w")),
    (2, sequence(write(0x602, bits(0x0521), letter="w"), read(0x602, letter="w"))),
    (1, sequence(write(0x600, bits(0xFFFF), letter="w"), read(0x600, letter="w"))),
    (2, sequence(write(0x604, bits(0x1C00, 1), letter="w"), read(0x604, letter="w"))),
)
"""PM1 status, enable and control without SLP_EN, and the timer, with time passing."""
TCO = weighted(
    (
        3,
        st.integers(1, 4).map(
            lambda count: (f"clock_step {count * 600_000_000}", "inw 0x660", "inw 0x664", "inw 0x666")
        ),
    ),
    (3, sequence(write(0x672, st.integers(4, 19), letter="w"), run("outw 0x660 1", "inw 0x660"))),
    (
        1,
        st.integers(1, 4).map(
            lambda count: (
                *("outw 0x668 0x800", "inw 0x668", f"clock_step {count * 600_000_000}", "inw 0x664"),
                *("outw 0x668 0", "inw 0x668", "outw 0x660 1", "inw 0x660"),
            )
        ),
    ),
    (1, run("outw 0x666 0x6", "inw 0x666")),
    (1, sequence(write(0x66A, bits(0x38), letter="w"), read(0x66A, letter="w"))),
    (
        4,
        weighted(
            *((1, sequence(write(register), read(register))) for register in (0x662, 0x663, 0x66C, 0x66D, 0x66E))
        ),
    ),
)
"""The TCO timer and its scratch registers, with time passing."""


# --- VGA ------------------------------------------------------------------------------------------------

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
    *(f"outw {port:#x} {index:#x}" for port, masks in VGA_BITS.items() for index in range(len(masks))),
    *(f"outb 0x3c0 {value:#x}" for index in range(0x15) for value in (index, 0)),
    *("outb 0x3c0 0x20", "inb 0x3da", "outb 0x3c6 0xff", "outb 0x3c8 0"),
)
"""All registers 0, colour addresses."""
_FLIP = "outb 0x3c0 0x20"
"""The data half of the pair that the index has begun, so that the next write is an index."""


def _vga_indexed(port: int, index: int) -> Groups:
    select = run(f"outb {port:#x} {index:#x}")
    return sequence(select, write(port + 1, bits(VGA_BITS[port][index])), run(f"inb {port + 1:#x}"))


def _vga_attribute(index: int) -> Groups:
    select = f"outb 0x3c0 {index:#x}"
    return sequence(run(select), write(0x3C0, bits(ATTRIBUTE_BITS[index])), run(select, "inb 0x3c1", _FLIP))


_COLOUR = write(0x3C9, bits(0x3F))
_VGA_COLOUR = st.tuples(bits(), sequence(_COLOUR, _COLOUR, _COLOUR)).map(
    lambda parts: (f"outb 0x3c8 {parts[0]:#x}", *parts[1], f"outb 0x3c7 {parts[0]:#x}", *["inb 0x3c9"] * 3)
)
VGA = weighted(
    *((1, _vga_indexed(port, index)) for port, masks in VGA_BITS.items() for index in range(len(masks))),
    *((1, _vga_attribute(index)) for index in range(len(ATTRIBUTE_BITS))),
    (12, _VGA_COLOUR),
    (12, read(0x3C4, 0x3CC, 0x3CE, 0x3D4)),
)
"""Indexed registers, attribute controller, DAC, general registers; no status that depends on time."""


# --- fw_cfg ---------------------------------------------------------------------------------------------

_DMA_REQUEST, _DMA_DATA = 0x1000, 0x2000
_DMA_READ, _DMA_WRITE = 0x02, 0x10
FW_CFG_PROLOGUE = (f"memset {_DMA_REQUEST:#x} 0x2000 0", "outl 0x514 0", "outw 0x510 0")
_FW_CFG_KEYS = st.sampled_from((0, 1, 2, 3, 5, 0xE, 0xF, 0x10, 0x11, 0x4000, 0x4003, 0x8000, 0xBFFF, 0xFFFF))
"""Items that both have, absent ones, and the flags of a selector."""
_FW_CFG_SELECT = write(0x510, _FW_CFG_KEYS, letter="w")


def _fw_cfg_dma(request: tuple[int, int, int, int]) -> Group:
    key, control, length, address = request
    data = (key << 16 | control).to_bytes(4, "big") + length.to_bytes(4, "big") + address.to_bytes(8, "big")
    low = int.from_bytes(_DMA_REQUEST.to_bytes(4, "big"), "little")
    start = [f"outl 0x518 {low:#x}"]
    if control & (_DMA_READ | _DMA_WRITE) == _DMA_WRITE:
        start.append("outw 0x510 0")  # where a write that is refused leaves the offset is not defined
    return (
        f"write {_DMA_REQUEST:#x} 16 0x{data.hex()}",
        *start,
        f"read {_DMA_REQUEST:#x} 16",
        f"read {address:#x} 24",
    )


FW_CFG = weighted(
    (3, sequence(_FW_CFG_SELECT, st.integers(1, 12).map(lambda count: ("inb 0x511",) * count))),
    (1, st.integers(1, 12).map(lambda count: ("inb 0x511",) * count)),
    (1, write_any(0x510, 0x511, *range(0x514, 0x51C))),
    (1, write(0x511, bits(0xFFFF), letter="w")),
    (1, read(*range(0x514, 0x51C))),
    (1, read(0x514, 0x516, 0x518, letter="w")),
    (1, read(0x514, 0x518, letter="l")),
    (
        6,
        st.tuples(
            _FW_CFG_KEYS,
            bits(0x1F),
            st.sampled_from((0, 1, 3, 4, 8, 16, 100)),
            st.integers(_DMA_DATA, _DMA_DATA + 0x100),
        ).map(_fw_cfg_dma),
    ),
)
"""Items byte by byte and by DMA (any control bits), accesses of other sizes; no reads of the selector."""


# --- IDE ------------------------------------------------------------------------------------------------

IDE_SECTORS = 64
_IDE_SETUP = ("outb 0x1f6 0xe0", "outb 0x1f2 1", "outb 0x1f7 0xc6", "inb 0x1f7")
"""Blocks of one sector for READ and WRITE MULTIPLE; after a reset QEMU has 16."""
IDE_PROLOGUE = ("outb 0x3f6 0", *_IDE_SETUP)
_IDE_REGISTERS = (0x1F2, 0x1F3, 0x1F4, 0x1F5)
_IDE_READS, _IDE_WRITES = (0x20, 0x21, 0xC4), (0x30, 0x31, 0xC5)
_IDE_NO_DATA = (0x00, 0x10, 0x40, 0x90, 0x91, 0xE1, 0xE5, 0xE7, 0xEA, 0xEF, 0xF8, 0xFF)
_IDE_RESET = ("outb 0x3f6 0x6", "outb 0x3f6 0x2", WAIT, *_IDE_SETUP)
"""Software reset without interrupts: the way out of a transfer."""


def _ide_command(code: int, lba: int, count: int) -> Group:
    address = zip((*_IDE_REGISTERS, 0x1F6), (count, lba, lba >> 8, lba >> 16, 0xE0), strict=True)
    return (*(f"outb {port:#x} {value & 0xFF:#x}" for port, value in address), f"outb 0x1f7 {code:#x}", WAIT)


def _ide_transfer(parts: tuple[int, int, int, str, int]) -> Group:
    """Whole sectors, and a reset if the transfer is left before its end."""
    code, lba, count, word, left = parts
    sizes = [256] * (count - 1) + [256 - left]
    blocks = [(f"{size}{TIMES}{word}", WAIT, "inb 0x1f7") for size in sizes]
    end = _IDE_RESET if left else ("inb 0x1f1",)
    return (*_ide_command(code, lba, count), "inb 0x1f7", *chain.from_iterable(blocks), *end)


def _ide_transfers(codes: Sequence[int], words: SearchStrategy[str]) -> Groups:
    lbas, left = st.integers(0, IDE_SECTORS - 4), st.sampled_from((0, 0, 0, 0, 1, 100, 255))
    return st.tuples(st.sampled_from(codes), lbas, st.integers(1, 3), words, left).map(_ide_transfer)


IDE = weighted(
    (4, read(0x1F7, 0x3F6)),
    *((1, sequence(write(port), read(port))) for port in _IDE_REGISTERS),
    (2, _ide_transfers(_IDE_READS, st.just("inw 0x1f0"))),
    (2, _ide_transfers(_IDE_WRITES, bits(0xFFFF).map(lambda word: f"outw 0x1f0 {word:#x}"))),
    (
        4,
        st.tuples(st.sampled_from(_IDE_NO_DATA), st.integers(0, IDE_SECTORS - 16), st.integers(1, 16)).map(
            lambda parts: (*_ide_command(*parts), "inb 0x1f7", "inb 0x3f6")
        ),
    ),
    (1, write(0x3F6, bits(0x02))),
    (1, sequence(write(0x1F6, st.sampled_from((0xE0, 0xF0, 0xA0, 0xB0))), run("inb 0x1f6", "inb 0x1f7"))),
)
"""A disk as master, no slave: PIO transfers, some left before their end; commands without data; nIEN."""


# --- KCS ------------------------------------------------------------------------------------------------

_NO_COMMAND = 0xF0
_KCS_LOOK = ("inb 0xca3", "inb 0xca2", "inb 0xca3")


def _kcs_bytes(request: Sequence[int]) -> Group:
    """A transfer of at least one byte: status and data after every step."""
    *first, last = request
    answer = ["outb 0xca2 0x68"] * 3
    steps = [
        "outb 0xca3 0x61",
        *(f"outb 0xca2 {value:#x}" for value in first),
        "outb 0xca3 0x62",
        f"outb 0xca2 {last:#x}",
    ]
    return tuple(chain.from_iterable((step, *_KCS_LOOK) for step in (*steps, *answer)))


def _kcs_abort(started: Group) -> Group:
    """GET_STATUS/ABORT, 00, the status code, and back to IDLE; the state before the 00 is not defined."""
    end = ("outb 0xca2 0", "outb 0xca2 0x68")
    return (*started, "outb 0xca3 0x60", *chain.from_iterable((step, *_KCS_LOOK) for step in end))


KCS = weighted(
    (
        4,
        st.tuples(bits(0x18), st.lists(bits(), max_size=3)).map(
            lambda parts: _kcs_bytes((parts[0], _NO_COMMAND, *parts[1]))
        ),
    ),
    (1, st.sampled_from(((), ("outb 0xca3 0x61",), ("outb 0xca3 0x61", "outb 0xca2 0x18"))).map(_kcs_abort)),
)
"""Requests with a command that no BMC has, whose answer has three bytes; requests that are given up."""
