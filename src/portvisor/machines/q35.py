"""A board like QEMU's q35: an ICH9 whose blocks are where the client or firmware programs them.

Host bridge (Q35 MCH) at 00:00.0, LPC bridge at 00:1f.0, AHCI at 00:1f.2, fw_cfg at 510. After RESET# neither
PMBASE nor RCBA is decoded. Not modelled: SMBus (00:1f.3), PCIEXBAR, HPET, I/O APIC.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from portvisor.devices.acpi_pm import SOFT_OFF, AcpiPm
from portvisor.devices.ahci import Ahci
from portvisor.devices.ahci.hba import ICH9_AHCI
from portvisor.devices.fw_cfg import FwCfg, Key
from portvisor.devices.ide.drive import Drive
from portvisor.devices.pci.config import PciId
from portvisor.devices.pci.function import PciFunction
from portvisor.devices.pci.host import PciHost
from portvisor.devices.pci.ich_lpc import ICH9_LPC, IchLpc, LpcBases
from portvisor.devices.rcba import Rcba
from portvisor.devices.tco import Tco
from portvisor.kvm.api import System
from portvisor.machines import cmos
from portvisor.machines.legacy import ISA_IRQS, LegacyChips, LegacyOptions
from portvisor.machines.lpc_blocks import LpcBlocks
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.pc import MIB, SHADOW_BASE, VGA_HOLE, check_memory
from portvisor.machines.pc_like import PcLike
from portvisor.ports import CharBackend, Clock

SCI_IRQ = 9
AHCI_PORTS = 6
ACPI_ENABLE, ACPI_DISABLE = 2, 3
"""Values at APM_CNT."""
MCH = PciId(0x8086, 0x29C0, 0x060000)


@dataclass(frozen=True, slots=True)
class Q35Options:
    """What the machine is made of. Sizes in bytes."""

    memory: int = 128 * MIB
    serial: Sequence[CharBackend | None] = (None,)
    drives: Sequence[Drive | None] = (None,) * AHCI_PORTS
    """Drives on the AHCI controller, made with Transport.SATA."""
    boot: Sequence[str] = ("disk", "cdrom")
    base_time: float = field(default_factory=time.time)
    strict: bool = False


class Q35(PcLike):
    """The board."""

    name = "q35"

    def __init__(self, system: System, options: Q35Options, clock: Clock | None = None) -> None:
        """Build it.

        Raises:
            GuestFileError: the memory size does not fit the board.
            EngineError: the engine refuses the virtual machine.
        """
        check_memory(options.memory)
        super().__init__(system, options.memory, clock, strict=options.strict)
        self.options = options
        self.add_ram(0, 0, VGA_HOLE)
        self.add_ram(SHADOW_BASE, SHADOW_BASE, options.memory - SHADOW_BASE)
        legacy = LegacyOptions(options.base_time, options.serial, on_apm_control=self._smi_command)
        self.chips = LegacyChips(self, legacy)
        cmos.fill(self.chips.rtc.cmos, options.memory, boot=options.boot)
        self._add_chipset()
        self._add_pci()
        self.fw_cfg = self.attach(FwCfg(self.ram))
        self.fw_cfg.add_integer(Key.RAM_SIZE, options.memory, 8)
        self.fw_cfg.add_integer(Key.NB_CPUS, 1, 2)
        self.fw_cfg.add_integer(Key.MAX_CPUS, 1, 2)
        self.reset()

    def _add_chipset(self) -> None:
        self.pm = self.attach(AcpiPm(self.clock, self.chips.irq(SCI_IRQ), self._sleep))
        self.rcba = Rcba()
        self.devices.append(self.rcba)
        self.tco = self.attach(Tco(self.clock, self.watchdog_expired, lambda: self.rcba.no_reboot))
        blocks = LpcBlocks(self, self.pm, self.tco, self.rcba)
        bases = LpcBases(blocks.move_pm, lambda base: None, blocks.move_rcba)
        isa_irqs = {irq: self.chips.irq(irq) for irq in ISA_IRQS}
        self.lpc = IchLpc(isa_irqs, bases, identity=ICH9_LPC)

    def _add_pci(self) -> None:
        self.pci = self.attach(PciHost(self.ports, self.mmio))
        root = self.pci.add_root(0, lines=self.lpc.pirqs[:4])
        self.sata = Ahci(self.ram, self.options.drives, identity=ICH9_AHCI, legacy_bars=False, name="sata")
        host_bridge = PciFunction(identity=MCH, name="mch")
        for slot, number, function in ((0, 0, host_bridge), (0x1F, 0, self.lpc), (0x1F, 2, self.sata)):
            root.attach(function, slot, number)
            self.devices.append(function)

    def _smi_command(self, value: int) -> None:
        """A write to APM_CNT: what the firmware's SMI handler does on a real board."""
        if value in (ACPI_ENABLE, ACPI_DISABLE):
            self.pm.set_sci_enable(value == ACPI_ENABLE)

    def _sleep(self, sleep_type: int) -> None:
        """SLP_EN. S5 is 7 to the chip; QEMU's tables use 0 for it."""
        if sleep_type in (SOFT_OFF, 0):
            self.request_stop(Outcome(End.POWER_OFF))
        else:
            self.say(f"guest asked for sleep type {sleep_type}; only soft-off (7 or 0) is supported")

    def watchdog_expired(self) -> None:
        """The second expiry of the TCO timer."""
        self.request_reset("TCO watchdog")
