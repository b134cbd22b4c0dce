"""LPC bridge of an ICH9 or a C610 PCH: PCI interrupt router and the bases of the chipset's own blocks.

Source: Intel C610 series PCH data sheet (330788), chapter 12 "LPC Interface Bridge Registers (D31:F0)"; the
ICH9 (316972, chapter 13) has the same map.

| offset | register | |
|---|---|---|
| 40 | PMBASE | 15:7 base of the PM block, bit 0 reads 1 |
| 44 | ACPI_CNTL | 7 ACPI_EN, 2:0 SCI_IRQ_SEL |
| 48 | GPIOBASE | 15:7 base of the GPIO block, bit 0 reads 1 |
| 4C | GC | 4 GPIO_EN, 0 GLE |
| 60-63, 68-6B | PIRQA-D, PIRQE-H | 7 routed to no ISA interrupt, 3:0 IRQ |
| 64 | SIRQ_CNTL | |
| 80-8F | LPC I/O decode | |
| A0-AF | GEN_PMCON_1-3, PMIR ... | |
| D0, D4, D8 | FWH decode | |
| DC | BIOS_CNTL | 0 BIOSWE, 1 BLE, 5 SMM_BWP |
| E0 | FDCAP | vendor specific capability: feature detection |
| F0 | RCBA | 31:14 base of the chipset configuration block, 0 enable |

A board passes the values that its firmware would have programmed as `settings`; after RESET# they are in
place at once. Not modelled: LPC decode (the devices decode what the board gives them), SMIs, ROM protection,
SCI_IRQ_SEL (the board wires the SCI), GPIO lockdown, contents of the feature vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from portvisor.devices.pci.config import COMMAND, STATUS, STATUS_DEVSEL_MEDIUM, STATUS_ERRORS, PciId
from portvisor.devices.pci.function import PciFunction
from portvisor.devices.pci.pirq import PIRQ_DISABLED, PIRQ_WRITABLE, PirqRouter
from portvisor.ports import IrqLine

PMBASE, ACPI_CNTL, GPIOBASE, GC = 0x40, 0x44, 0x48, 0x4C
PIRQA, SIRQ_CNTL, PIRQE = 0x60, 0x64, 0x68
FDCAP, RCBA = 0xE0, 0xF0
ACPI_EN, GPIO_EN, RCBA_EN, IO_INDICATOR = 1 << 7, 1 << 4, 1, 1
BASE_MASK, RCBA_MASK = 0xFF80, 0xFFFFC000
PIRQ_OFFSETS = (*range(PIRQA, PIRQA + 4), *range(PIRQE, PIRQE + 4))
COMMAND_RESET, COMMAND_WRITABLE = 0x0007, 0x0140
CAPABILITY_VENDOR, FEATURE_DETECTION = 0x09, bytes((0x0C, 0x10)) + bytes(8)
"""FDLEN, FDVER and two feature vectors."""

REGISTERS_HELD = (
    (SIRQ_CNTL, 1, 0x10, 0xFF),
    (0x6C, 2, 0x00F8, 0xFFFF),  # LPC_IBDF
    (0x80, 2, 0x0000, 0x1377),  # LPC_I/O_DEC
    (0x82, 2, 0x0000, 0x3F0F),  # LPC_EN
    (0x84, 4, 0x00000000, 0x00FCFFFD),  # GEN1_DEC
    (0x88, 4, 0x00000000, 0x00FCFFFD),  # GEN2_DEC
    (0x8C, 4, 0x00000000, 0x00FCFFFD),  # GEN3_DEC
    (0x90, 4, 0x00000000, 0x00FCFFFD),  # GEN4_DEC
    (0xA0, 2, 0x0000, 0x5EFF),  # GEN_PMCON_1
    (0xA2, 1, 0x00, 0x00),  # GEN_PMCON_2
    (0xA4, 2, 0x0000, 0xFFFF),  # GEN_PMCON_3
    (0xD0, 4, 0x00112233, 0xFFFFFFFF),  # FWH_SEL1
    (0xD4, 2, 0x4567, 0xFFFF),  # FWH_SEL2
    (0xD8, 2, 0xFFCF, 0x7FFF),  # FWH_DEC_EN1
    (0xDC, 1, 0x20, 0x0F),  # BIOS_CNTL
)
"""(offset, size, reset value, writable bits)."""


@dataclass(frozen=True, slots=True)
class LpcSettings:
    """Register values right after RESET#. The chip's own are the defaults."""

    pmbase: int = IO_INDICATOR
    acpi_cntl: int = 0
    gpiobase: int = IO_INDICATOR
    gc: int = 0
    rcba: int = 0
    pirqs: tuple[int, ...] = (PIRQ_DISABLED,) * len(PIRQ_OFFSETS)


@dataclass(frozen=True, slots=True)
class LpcBases:
    """Who is told where a block has moved; None stands for "not decoded"."""

    pm: Callable[[int | None], None]
    gpio: Callable[[int | None], None]
    rcba: Callable[[int | None], None]


C610_LPC = PciId(0x8086, 0x8D44, 0x060100, revision=5)
ICH9_LPC = PciId(0x8086, 0x2918, 0x060100, revision=2)


class IchLpc(PciFunction):
    """The bridge; attach it at 00:1f.0, and give `pirqs` to the root bus as its interrupt lines.

    Args:
        isa_irqs: a driver of each ISA interrupt that PCI may be routed to.
        bases: told of every move of a block, also after a reset and a restored snapshot.
        settings: register values after RESET#.
        identity: which chip it is.
    """

    ID: ClassVar[PciId] = C610_LPC
    CONFIG_REGISTERS: ClassVar = {
        PMBASE: "PMBASE", ACPI_CNTL: "ACPI_CNTL", GPIOBASE: "GPIOBASE", GC: "GC", PIRQA: "PIRQA_ROUT",
        PIRQA + 1: "PIRQB_ROUT", PIRQA + 2: "PIRQC_ROUT", PIRQA + 3: "PIRQD_ROUT", SIRQ_CNTL: "SIRQ_CNTL",
        PIRQE: "PIRQE_ROUT", PIRQE + 1: "PIRQF_ROUT", PIRQE + 2: "PIRQG_ROUT", PIRQE + 3: "PIRQH_ROUT",
        0x6C: "LPC_IBDF", 0x80: "LPC_I/O_DEC", 0x82: "LPC_EN", 0x84: "GEN1_DEC", 0x88: "GEN2_DEC",
        0x8C: "GEN3_DEC", 0x90: "GEN4_DEC", 0xA0: "GEN_PMCON_1", 0xA2: "GEN_PMCON_2", 0xA4: "GEN_PMCON_3",
        0xD0: "FWH_SEL1", 0xD4: "FWH_SEL2", 0xD8: "FWH_DEC_EN1", 0xDC: "BIOS_CNTL", FDCAP: "FDCAP", RCBA: "RCBA",
    }  # fmt: skip

    def __init__(
        self,
        isa_irqs: Mapping[int, IrqLine],
        bases: LpcBases,
        settings: LpcSettings | None = None,
        *,
        identity: PciId | None = None,
        name: str = "lpc",
    ) -> None:
        super().__init__(identity=identity, name=name)
        settings = settings or LpcSettings()
        self.router = PirqRouter(lambda offset: self.state.config[offset], PIRQ_OFFSETS, isa_irqs)
        self._bases = bases
        self.pirqs = self.router.inputs
        """The inputs PIRQA# to PIRQH#; 1 is asserted."""
        self.define(COMMAND, 2, COMMAND_RESET, COMMAND_WRITABLE)
        self.define(STATUS, 2, STATUS_DEVSEL_MEDIUM, clears=STATUS_ERRORS)
        self.add_capability(CAPABILITY_VENDOR, FEATURE_DETECTION, offset=FDCAP)
        self.define(PMBASE, 4, settings.pmbase | IO_INDICATOR, BASE_MASK)
        self.define(ACPI_CNTL, 1, settings.acpi_cntl, ACPI_EN | 7)
        self.define(GPIOBASE, 4, settings.gpiobase | IO_INDICATOR, BASE_MASK)
        self.define(GC, 1, settings.gc, GPIO_EN | 1)
        self.define(RCBA, 4, settings.rcba, RCBA_MASK | RCBA_EN)
        for pirq_offset, value in zip(PIRQ_OFFSETS, settings.pirqs, strict=True):
            self.define(pirq_offset, 1, value, PIRQ_WRITABLE)
        for offset, size, value, writable in REGISTERS_HELD:
            self.define(offset, size, value, writable)

    # --- the blocks' bases -------------------------------------------------------------------------------

    def announce_bases(self) -> None:
        """Tell the board where the blocks are now; it does so once after wiring everything up."""
        config = self.state.config
        pm = self._register(PMBASE, 2) & BASE_MASK
        gpio = self._register(GPIOBASE, 2) & BASE_MASK
        rcba = self._register(RCBA, 4)
        self._bases.pm(pm if config[ACPI_CNTL] & ACPI_EN and pm else None)
        self._bases.gpio(gpio if config[GC] & GPIO_EN and gpio else None)
        self._bases.rcba(rcba & RCBA_MASK if rcba & RCBA_EN else None)

    # --- changes --------------------------------------------------------------------------------------------

    def config_written(self, offset: int, size: int) -> None:
        if PIRQA <= offset < PIRQE + 4:
            self.router.drive()
        elif PMBASE <= offset <= GC or offset >= RCBA:
            self.announce_bases()

    def reset(self) -> None:
        super().reset()
        self.router.drive()
        self.announce_bases()

    def restored(self) -> None:
        super().restored()
        self.router.drive()
        self.announce_bases()
