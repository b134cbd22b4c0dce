"""The seed's server: a Dell PowerEdge of the C610 generation, at the addresses of its /proc/ioports."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from portvisor.backends.records import MemoryRecords
from portvisor.devices.acpi_pm import SOFT_OFF, AcpiPm
from portvisor.devices.ahci import Ahci, AhciAddress
from portvisor.devices.ahci.hba import SATA_AHCI, SSATA_AHCI
from portvisor.devices.bmc import Bmc
from portvisor.devices.board_registers import BoardRegisters
from portvisor.devices.debugcon import DebugConsole
from portvisor.devices.erst import RANGE_LENGTH, REGISTERS_LENGTH, Erst, RecordStore
from portvisor.devices.fw_cfg import FwCfg, Key
from portvisor.devices.ide.ata_disk import DISK_IDENTITY, AtaDisk
from portvisor.devices.ide.drive import Drive, Transport
from portvisor.devices.ide.identify import Identity
from portvisor.devices.ipmi_kcs import IpmiKcs
from portvisor.devices.pch_gpio import PchGpio
from portvisor.devices.pci.bridge import PciBridge
from portvisor.devices.pci.bus import PciBus
from portvisor.devices.pci.config import (
    COMMAND,
    COMMAND_IO,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    COMMAND_PARITY,
    COMMAND_SERR,
    MEMORY_BASE,
    PRIMARY_BUS,
    PciId,
)
from portvisor.devices.pci.function import PciFunction
from portvisor.devices.pci.host import PciHost
from portvisor.devices.pci.ich_lpc import IchLpc, LpcBases
from portvisor.devices.pci.megaraid import MegaRaid
from portvisor.devices.rcba import LENGTH as RCBA_LENGTH
from portvisor.devices.rcba import Rcba
from portvisor.devices.tco import Tco
from portvisor.guest import smbios
from portvisor.guest.acpi.loader import Tables
from portvisor.guest.errors import GuestFileError
from portvisor.guest.linux import E820, E820Entry, LinuxGuest, Loader
from portvisor.kvm.api import System
from portvisor.machines import cmos
from portvisor.machines import poweredge_layout as layout
from portvisor.machines.legacy import ISA_IRQS, LegacyChips, LegacyOptions
from portvisor.machines.lpc_blocks import LpcBlocks
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.pc import MIB, SHADOW_BASE, VGA_HOLE, check_firmware, check_memory
from portvisor.machines.pc_like import PcLike
from portvisor.machines.poweredge_acpi import AcpiDevices, Variant, build
from portvisor.ports import BlockBackend, CharBackend, Clock

MEMORY_MIN, MEMORY_MAX = 128 * MIB, 3072 * MIB
WHOLE_SHADOW = 0x40000
"""All of C0000-FFFFF: SeaBIOS copies the lower half itself only on host bridges that it knows."""
ERST_BASE = 0xFED20000
ERST_LENGTH = REGISTERS_LENGTH + RANGE_LENGTH
RSDP_ADDRESS, TABLES_ADDRESS, SMBIOS_ADDRESS = 0xE0000, 0xE0040, 0xF0000
RESERVED_LOW = 0x9FC00
ACPI_ENABLE, ACPI_DISABLE = 2, 3
"""Values at SMI_CMD (APM_CNT)."""

HOST_BRIDGE = PciId(0x8086, 0x2F00, 0x060000, revision=2, subsystem_vendor=0x1AF4, subsystem=0x1100)
"""By this subsystem stock SeaBIOS knows that it may ask fw_cfg."""
ROOT_PORTS = (PciId(0x8086, 0x2F02, 0x060400, revision=2), PciId(0x8086, 0x2F04, 0x060400, revision=2))
ROOT_PORT_COMMAND = COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER | COMMAND_PARITY | COMMAND_SERR
"""Bus master is set from the start, as a server's firmware does; SeaBIOS does not set it on bridges."""
SPSR = PciId(0x8086, 0x8D7C, 0xFF0000, revision=5)


def _drives(images: Sequence[BlockBackend], ports: int) -> list[Drive | None]:
    """A disk a port, as far as there are images."""
    if len(images) > ports:
        raise GuestFileError(f"{len(images)} disks on a controller with {ports} ports")
    disks: list[Drive | None] = [
        AtaDisk(image, Identity(DISK_IDENTITY.model, f"PV{number:08d}", DISK_IDENTITY.firmware), Transport.SATA)
        for number, image in enumerate(images, start=1)
    ]
    return disks + [None] * (ports - len(disks))


@dataclass(frozen=True, slots=True)
class PowerEdgeOptions:
    """What the machine is made of. Sizes in bytes."""

    memory: int = 512 * MIB
    variant: Variant = Variant.HONEST
    linux: LinuxGuest | None = None
    """Boot this kernel without firmware."""
    firmware: bytes = b""
    """A BIOS image that boots from a disk; it gets the ACPI tables and the memory map through fw_cfg."""
    vga_bios: bytes = b""
    on_debug: Callable[[bytes], None] | None = None
    """Gets what firmware writes to port E9 (402 is PM1_EN here, so SeaBIOS keeps its debug port shut)."""
    serial: Sequence[CharBackend | None] = (None, None)
    sata: Sequence[BlockBackend] = ()
    """Disks on the AHCI controller 00:1f.2."""
    ssata: Sequence[BlockBackend] = ()
    """Disks on the AHCI controller 00:11.4."""
    records: RecordStore = field(default_factory=MemoryRecords)
    """Where the error records of ERST are kept."""
    base_time: float = field(default_factory=time.time)
    strict: bool = False


class PowerEdge(PcLike):
    """The board."""

    name = "poweredge"

    def __init__(self, system: System, options: PowerEdgeOptions, clock: Clock | None = None) -> None:
        """Build it.

        Raises:
            GuestFileError: memory size or guest do not fit the board.
            EngineError: the engine refuses the virtual machine.
        """
        check_memory(options.memory, MEMORY_MIN, MEMORY_MAX)
        super().__init__(system, options.memory, clock, extra_memory=ERST_LENGTH, strict=options.strict)
        self.options = options
        self.add_ram(0, 0, VGA_HOLE)
        self.add_ram(SHADOW_BASE, SHADOW_BASE, options.memory - SHADOW_BASE)
        self.add_ram(ERST_BASE, options.memory, ERST_LENGTH)
        if options.firmware:
            check_firmware(options.firmware, "firmware")
            self.add_firmware(options.firmware, WHOLE_SHADOW)
        self.chips = LegacyChips(
            self,
            LegacyOptions(
                options.base_time,
                options.serial,
                coprocessor_block=True,
                pch_aliases=True,
                mono_ports=False,
                on_apm_control=self._smi_command,
            ),
        )
        cmos.fill(self.chips.rtc.cmos, options.memory)
        self._add_chipset()
        self._add_management()
        self._add_pci()
        self.tables = self._build_tables()
        if options.firmware:
            self._add_firmware_files()
        self._loader = self._linux_loader()
        self.after_reset.append(self._start)
        self.reset()

    # --- the chipset's own blocks ----------------------------------------------------------------------

    def _add_chipset(self) -> None:
        sci = self.chips.irq(layout.SCI_IRQ)
        self.pm = self.attach(AcpiPm(self.clock, sci, self._sleep))
        self.rcba = self.attach(Rcba())
        self.tco = self.attach(Tco(self.clock, self._watchdog_expired, lambda: self.rcba.no_reboot))
        self.gpio = self.attach(PchGpio(holes=(layout.FW_CFG_HOLE,)))
        self.board = self.attach(BoardRegisters(layout.BOARD_BLOCKS))
        blocks = LpcBlocks(self, self.pm, self.tco, self.rcba, self.gpio)
        bases = LpcBases(blocks.move_pm, blocks.move_gpio, blocks.move_rcba)
        isa_irqs = {irq: self.chips.irq(irq) for irq in ISA_IRQS}
        self.lpc = IchLpc(isa_irqs, bases, layout.LPC_SETTINGS)

    def _smi_command(self, value: int) -> None:
        """A write to APM_CNT: what the firmware's SMI handler does on a real board."""
        if self.erst.command(value):
            return
        if value in (ACPI_ENABLE, ACPI_DISABLE):
            self.pm.set_sci_enable(value == ACPI_ENABLE)

    def _sleep(self, sleep_type: int) -> None:
        if sleep_type == SOFT_OFF:
            self.request_stop(Outcome(End.POWER_OFF))
        else:
            self.say(f"guest asked for sleep type {sleep_type}; only soft-off (7) is supported")

    def _watchdog_expired(self) -> None:
        self.request_reset("TCO watchdog")

    # --- management -------------------------------------------------------------------------------------

    def _add_management(self) -> None:
        self.bmc = self.attach(Bmc(self.clock, int(self.options.base_time), self._chassis))
        self.kcs = self.attach(IpmiKcs(self.bmc.execute, base=layout.KCS_BASE, spacing=layout.KCS_SPACING))
        self.bmc.on_attention = self.kcs.set_attention
        self.erst = self.attach(Erst(self.ram, self.options.records, ERST_BASE))
        self.fw_cfg = self.attach(FwCfg(self.ram, base=layout.FW_CFG_BASE))
        self.fw_cfg.add_integer(Key.RAM_SIZE, self.options.memory, 8)
        self.fw_cfg.add_integer(Key.NB_CPUS, 1, 2)
        self.fw_cfg.add_integer(Key.MAX_CPUS, 1, 2)
        self.attach(DebugConsole(self.options.on_debug or (lambda data: None), base=0xE9, name="port-e9"))

    def _chassis(self, action: str) -> None:
        if action in ("power down", "soft off"):
            self.request_stop(Outcome(End.POWER_OFF, detail="by the BMC"))
        elif action in ("reset", "power cycle"):
            self.request_reset(f"BMC {action}")

    # --- PCI ----------------------------------------------------------------------------------------------

    def _add_pci(self) -> None:
        self.pci = self.attach(PciHost(self.ports, self.mmio))
        root = self.pci.add_root(0, last=layout.SECOND_ROOT - 1, lines=self.lpc.pirqs[:4])
        self.pci.add_root(layout.SECOND_ROOT)
        self._plug(root, PciFunction(identity=HOST_BRIDGE, name="host-bridge"), 0)
        self.first_port = PciBridge(identity=ROOT_PORTS[0], name="root-port-1")
        self._plug(root, self.first_port, 1)
        self.raid_port = PciBridge(identity=ROOT_PORTS[1], io_window=layout.RAID_WINDOW, name="root-port-2")
        for port in (self.first_port, self.raid_port):
            port.define(COMMAND, 2, COMMAND_MASTER, ROOT_PORT_COMMAND)
        self._plug(root, self.raid_port, 2)
        self.raid = MegaRaid(self.ram, io_address=layout.RAID_PORTS, memory_address=layout.RAID_MEMORY_WINDOW[0])
        self.raid_port.secondary_bus.attach(self.raid, 0)
        self.devices.append(self.raid)
        self._plug(root, PciFunction(identity=SPSR, name="spsr"), 0x11)
        sata = AhciAddress(layout.SATA_BARS, layout.SATA_ABAR)
        ssata = AhciAddress(layout.SSATA_BARS, layout.SSATA_ABAR)
        self.ssata = Ahci(
            self.ram, _drives(self.options.ssata, 4), identity=SSATA_AHCI, address=ssata, name="ssata"
        )
        self._plug(root, self.ssata, 0x11, 4)
        self._plug(root, self.lpc, 0x1F)
        self.sata = Ahci(self.ram, _drives(self.options.sata, 6), identity=SATA_AHCI, address=sata, name="sata")
        self._plug(root, self.sata, 0x1F, 2)

    def _plug(self, bus: PciBus, function: PciFunction, slot: int, number: int = 0) -> None:
        bus.attach(function, slot, number)
        self.devices.append(function)

    # --- tables and guest -----------------------------------------------------------------------------------

    def _build_tables(self) -> Tables:
        chips = self.chips
        devices = AcpiDevices(
            dma=chips.dma,
            rtc=chips.rtc,
            pic=chips.pic,
            pit=chips.pit,
            port61=chips.port61,
            fpu=chips.fpu,
            uarts=tuple(chips.uarts[:2]),
            gpio=self.gpio,
            board=self.board,
            kcs=self.kcs,
            erst_registers=ERST_BASE,
        )
        return build(devices, self.options.variant)

    def _add_firmware_files(self) -> None:
        """What SeaBIOS takes from fw_cfg: ACPI tables, memory map, VGA BIOS."""
        for name, content in self.tables.fw_cfg_files().items():
            self.fw_cfg.add_file(name, content)
        entries = [one for one in self.memory_map() if one.base >= MIB or one.base == 0]
        self.fw_cfg.add_file("etc/e820", b"".join(struct.pack("<QQI", e.base, e.length, e.kind) for e in entries))
        if self.options.vga_bios:
            self.fw_cfg.add_file("vgaroms/vgabios.bin", self.options.vga_bios)

    def memory_map(self) -> list[E820Entry]:
        """The E820 map of a boot without firmware."""
        return [
            E820Entry(0, RESERVED_LOW, E820.RAM),
            E820Entry(RESERVED_LOW, VGA_HOLE - RESERVED_LOW, E820.RESERVED),
            E820Entry(RSDP_ADDRESS, MIB - RSDP_ADDRESS, E820.RESERVED),
            E820Entry(MIB, self.options.memory - MIB, E820.RAM),
            E820Entry(layout.RCBA, RCBA_LENGTH, E820.RESERVED),
            E820Entry(ERST_BASE, ERST_LENGTH, E820.RESERVED),
        ]

    def _linux_loader(self) -> Loader | None:
        guest = self.options.linux
        if guest is None:
            return None
        return Loader(self.ram, self.options.memory, guest, self.memory_map(), RSDP_ADDRESS)

    def _start(self) -> None:
        """What firmware would have done before it starts a kernel."""
        if self._loader is None:
            return
        content, rsdp = self.tables.placed(TABLES_ADDRESS)
        self.ram.write(RSDP_ADDRESS, rsdp)
        self.ram.write(TABLES_ADDRESS, content)
        structures = (smbios.bios("1.0", "01/01/2026"), smbios.system("PowerEdge-like server", "PV000001"))
        self.ram.write(SMBIOS_ADDRESS, smbios.build(structures, SMBIOS_ADDRESS))
        self.prepare_chips()
        entry = self._loader.load()
        self.vcpu.set_sregs(entry.sregs)
        self.vcpu.set_regs(entry.regs)

    def prepare_chips(self) -> None:
        """Text mode and PCI resources: the state of the chips in which firmware starts a kernel."""
        self.chips.vga.set_text_mode()
        self._number_buses()

    def _number_buses(self) -> None:
        """Bus numbers and the memory window of the root ports, and COMMAND of everything."""
        for number, bridge in enumerate((self.first_port, self.raid_port), start=1):
            bridge.config_write(PRIMARY_BUS, 4, number << 8 | number << 16)
        first, last = layout.RAID_MEMORY_WINDOW
        self.raid_port.config_write(MEMORY_BASE, 4, first >> 16 | last & 0xFFF00000)
        for function in self.pci.functions():
            function.config_write(COMMAND, 2, COMMAND_IO | COMMAND_MEMORY | COMMAND_MASTER)
