"""The ACPI tables of the `poweredge` board, written from its device objects.

Which node makes which row of /proc/ioports is told in docs/listing.md. The order of the nodes below LPC0
matters: Linux numbers PNP devices in that order, and 00:06 and 00:09 are in the listing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from portvisor.devices.acpi_pm import SOFT_OFF
from portvisor.devices.erst import (
    ATTRIBUTES,
    BEGIN_CLEAR,
    BEGIN_DUMMY_WRITE,
    BEGIN_READ,
    BEGIN_WRITE,
    BUSY,
    COUNT,
    CURRENT_ID,
    END,
    EXECUTE,
    LENGTH,
    NEXT_ID,
    OFFSET,
    OPCODE,
    RANGE,
    RECORD_ID,
    STATUS,
)
from portvisor.guest.acpi import aml
from portvisor.guest.acpi.loader import Tables
from portvisor.guest.acpi.tables import (
    SYSTEM_IO,
    SYSTEM_MEMORY,
    Blob,
    Block,
    ErstEntry,
    FixedHardware,
    Gas,
    erst,
    facs,
    fadt,
    madt,
    rsdt,
    table,
)
from portvisor.machines import poweredge_layout as layout
from portvisor.ports import Device, PortRange

READ_REGISTER, READ_REGISTER_VALUE, WRITE_REGISTER, WRITE_REGISTER_VALUE = 0, 1, 2, 3
GET_COMMAND_STATUS, GET_RECORD_ID, SET_RECORD_ID, GET_RECORD_COUNT = 7, 8, 9, 10
SET_RECORD_OFFSET, EXECUTE_OPERATION, CHECK_BUSY = 4, 5, 6
GET_RANGE, GET_RANGE_LENGTH, GET_RANGE_ATTRIBUTES = 13, 14, 15
PM1_EVT, PM1_CNT, PM_TMR, PROC_CNT, GPE0, PM2_CNT = 0x00, 0x04, 0x08, 0x10, 0x20, 0x50
P_BLK_LENGTH = 6
BOARD_RESOURCES = "PNP0C02"


class Variant(Enum):
    """How the tables name things that Linux prints differently today than when the listing was made."""

    HONEST = "honest"
    """Truthful nodes; 61 of 64 rows."""
    EXACT = "exact"
    """The BMC's node is called "pnp 00:09", so that ipmi_si's rows come out as in the listing; 63 of 64."""


@dataclass(frozen=True, slots=True)
class AcpiDevices:
    """The device objects whose addresses go into the tables."""

    dma: Device
    rtc: Device
    pic: Device
    pit: Device
    port61: Device
    fpu: Device
    uarts: tuple[Device, ...]
    gpio: Device
    board: Device
    kcs: Device
    erst_registers: int
    processors: int = 1


def _io(device: Device, *names: str) -> list[bytes]:
    """IO descriptors of a device's ranges, of those with these names if any are given."""
    chosen = [owned for owned in device.ports if not names or owned.name in names]
    return [aml.io(base, length) for base, length in _merged(chosen)]


def _first_range(device: Device) -> bytes:
    """IO descriptor of a device's main range, without its aliases and extensions."""
    main = device.ports[0]
    return aml.io(main.base, main.length)


def _merged(ranges: Iterable[PortRange]) -> list[tuple[int, int]]:
    """(base, length) of adjoining or overlapping ranges as one."""
    spans: list[list[int]] = []
    for owned in sorted(ranges, key=lambda one: one.base):
        if spans and owned.base <= spans[-1][1]:
            spans[-1][1] = max(spans[-1][1], owned.last + 1)
        else:
            spans.append([owned.base, owned.last + 1])
    return [(first, end - first) for first, end in spans]


def _node(name: str, hid: str, resources: Iterable[bytes], cid: str = "", uid: int = 0, *more: bytes) -> bytes:
    terms = [aml.assign("_HID", aml.hardware_id(hid))]
    if cid:
        terms.append(aml.assign("_CID", aml.hardware_id(cid)))
    if uid:
        terms.append(aml.assign("_UID", aml.integer(uid)))
    terms.append(aml.assign("_CRS", aml.resources(resources)))
    return aml.device(name, *terms, *more)


def _lpc_nodes(devices: AcpiDevices, variant: Variant) -> bytes:
    """What hangs on the LPC bus, in the order that gives Linux's PNP numbers 00:00 to 00:09."""
    uarts = [
        _node(f"UAR{index}", "PNP0501", [*_io(uart), aml.irq_no_flags(irq)], uid=index)
        for index, (uart, irq) in enumerate(zip(devices.uarts, (4, 3), strict=False), start=1)
    ]
    nodes = [
        _node("DMAC", "PNP0200", [*_io(devices.dma), aml.dma(4)], BOARD_RESOURCES),
        _node("RTC", "PNP0B00", [_first_range(devices.rtc), aml.irq_no_flags()]),
        _node("PIC", "PNP0000", [*_io(devices.pic, "pic1", "pic2"), aml.irq_no_flags(2)], BOARD_RESOURCES),
        _node("FPU", "PNP0C04", [*_io(devices.fpu), aml.irq_no_flags(13)], BOARD_RESOURCES),
        _node("TMR", "PNP0100", [*_io(devices.pit), aml.irq_no_flags(0)], BOARD_RESOURCES),
        _node("SPKR", "PNP0800", [*_io(devices.port61)], BOARD_RESOURCES),
        _node("LDRC", BOARD_RESOURCES, _board_resources(devices), uid=1),
        *uarts,
        *_bmc_nodes(devices, variant),
    ]
    return b"".join(nodes)


def _board_resources(devices: AcpiDevices) -> list[bytes]:
    """The six blocks of the listing's pnp 00:06: two for the GPIOs, four for the board's own logic.

    The PM block is left out: Linux reserves this node's ranges before ACPI's own, which would nest below it.
    """
    half = 0x40
    gpio = [aml.io(layout.GPIOBASE, half), aml.io(layout.GPIOBASE + half, half)]
    return gpio + [aml.io(owned.base, owned.length) for owned in devices.board.ports]


def _bmc_nodes(devices: AcpiDevices, variant: Variant) -> list[bytes]:
    interface = [
        aml.assign("_IFT", aml.integer(1)),
        aml.method("_SRV", aml.returns(aml.integer(0x0200))),
    ]
    registers = _io(devices.kcs)
    if variant is Variant.HONEST:
        return [_node("NIPM", "IPI0001", registers, "PNP0C01", 0, *interface)]
    stubs = [
        aml.device(f"NIP{index}", aml.assign("_HID", aml.string("pnp 00")), aml.assign("_STA", aml.integer(0)))
        for index in range(9)
    ]
    return [*stubs, _node("NIPM", "pnp 00", registers, "IPI0001", 0, *interface)]


def _interrupt_routing() -> bytes:
    """_PRT: every slot's pins on the ISA interrupts behind the PIRQs, as `RootBus` wires them."""
    entries = []
    for slot in range(32):
        for pin in range(4):
            irq = layout.PCI_IRQS[(slot + pin) % 4 % len(layout.PCI_IRQS)]
            entries.append(aml.package(*map(aml.integer, (slot << 16 | 0xFFFF, pin, 0, irq))))
    return aml.package(*entries)


def dsdt(devices: AcpiDevices, variant: Variant) -> bytes:
    """The DSDT's terms."""
    windows = [aml.word_space(aml.SpaceType.BUS_NUMBER, 0, layout.SECOND_ROOT - 1)]
    windows += [aml.word_space(aml.SpaceType.IO, first, last) for first, last in layout.ROOT_WINDOWS]
    windows += [aml.dword_memory(0xA0000, 0xBFFFF), aml.dword_memory(*layout.MEMORY_WINDOW)]
    first_root = aml.device(
        "PCI0",
        aml.assign("_HID", aml.hardware_id("PNP0A08")),
        aml.assign("_CID", aml.hardware_id("PNP0A03")),
        aml.assign("_SEG", aml.integer(0)),
        aml.assign("_BBN", aml.integer(0)),
        aml.assign("_UID", aml.integer(0)),
        aml.assign("_CRS", aml.resources(windows)),
        aml.assign("_PRT", _interrupt_routing()),
        aml.device("LPC0", aml.assign("_ADR", aml.integer(0x1F0000)), _lpc_nodes(devices, variant)),
    )
    second_windows = [
        aml.word_space(aml.SpaceType.BUS_NUMBER, layout.SECOND_ROOT, 0xFF),
        aml.word_space(aml.SpaceType.IO, *layout.SECOND_ROOT_WINDOW),
    ]
    second_root = aml.device(
        "PCI1",
        aml.assign("_HID", aml.hardware_id("PNP0A08")),
        aml.assign("_CID", aml.hardware_id("PNP0A03")),
        aml.assign("_SEG", aml.integer(0)),
        aml.assign("_BBN", aml.integer(layout.SECOND_ROOT)),
        aml.assign("_UID", aml.integer(1)),
        aml.assign("_CRS", aml.resources(second_windows)),
    )
    processors = b"".join(
        aml.processor(f"CPU{index:X}", index, layout.PMBASE + PROC_CNT, P_BLK_LENGTH)
        for index in range(devices.processors)
    )
    soft_off = aml.package(*map(aml.integer, (SOFT_OFF, SOFT_OFF, 0, 0)))
    return (
        aml.scope("\\_PR", processors) + aml.assign("\\_S5", soft_off) + aml.scope("\\_SB", first_root, second_root)
    )


def fixed_hardware() -> FixedHardware:
    """The FADT's register blocks."""
    base = layout.PMBASE
    return FixedHardware(
        pm1a_event=Block(base + PM1_EVT, 4),
        pm1a_control=Block(base + PM1_CNT, 2),
        pm2_control=Block(base + PM2_CNT, 1),
        pm_timer=Block(base + PM_TMR, 4),
        gpe0=Block(base + GPE0, 16),
        sci=layout.SCI_IRQ,
    )


def erst_entries(registers: int) -> list[ErstEntry]:
    """The serialization actions over the register page at guest-physical `registers`."""

    def register(offset: int) -> Gas:
        return Gas(SYSTEM_MEMORY, 64, registers + offset, access=4)

    def set_opcode(action: int) -> ErstEntry:
        return ErstEntry(action, WRITE_REGISTER_VALUE, register(OPCODE), action)

    doorbell = Gas(SYSTEM_IO, 8, 0xB2, access=1)
    return [
        *(set_opcode(action) for action in (BEGIN_WRITE, BEGIN_READ, BEGIN_CLEAR, END)),
        ErstEntry(SET_RECORD_OFFSET, WRITE_REGISTER, register(OFFSET)),
        ErstEntry(EXECUTE_OPERATION, WRITE_REGISTER_VALUE, doorbell, EXECUTE, 0xFF),
        ErstEntry(CHECK_BUSY, READ_REGISTER_VALUE, register(BUSY), 1, 1),
        ErstEntry(GET_COMMAND_STATUS, READ_REGISTER, register(STATUS)),
        ErstEntry(GET_RECORD_ID, WRITE_REGISTER_VALUE, doorbell, NEXT_ID, 0xFF),
        ErstEntry(GET_RECORD_ID, READ_REGISTER, register(CURRENT_ID)),
        ErstEntry(SET_RECORD_ID, WRITE_REGISTER, register(RECORD_ID)),
        ErstEntry(GET_RECORD_COUNT, READ_REGISTER, register(COUNT)),
        set_opcode(BEGIN_DUMMY_WRITE),
        ErstEntry(GET_RANGE, READ_REGISTER, register(RANGE)),
        ErstEntry(GET_RANGE_LENGTH, READ_REGISTER, register(LENGTH)),
        ErstEntry(GET_RANGE_ATTRIBUTES, READ_REGISTER, register(ATTRIBUTES)),
    ]


def build(devices: AcpiDevices, variant: Variant) -> Tables:
    """All tables of the board. The ERST's registers are at a fixed address, not in the blob."""
    blob = Blob()
    facs_offset = blob.add(facs(), align=64, summed=False)
    dsdt_offset = blob.add(table(b"DSDT", 2, dsdt(devices, variant)))
    fadt_offset = blob.add(*fadt(fixed_hardware(), facs_offset, dsdt_offset))
    madt_offset = blob.add(madt(devices.processors, sci=layout.SCI_IRQ))
    erst_table, _ = erst(erst_entries(devices.erst_registers))
    erst_offset = blob.add(erst_table)
    root = blob.add(*rsdt([fadt_offset, madt_offset, erst_offset]))
    return Tables(blob, root)
