"""The least PC that boots stock SeaBIOS: i440FX-like bridges, legacy chips, fw_cfg, two IDE channels and
a floppy disk controller."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from portvisor.devices.debug_exit import DebugExit
from portvisor.devices.debugcon import DebugConsole
from portvisor.devices.fw_cfg import FwCfg, Key
from portvisor.devices.ide.ata_disk import AtaDisk
from portvisor.devices.ide.atapi_cd import AtapiCd
from portvisor.devices.ide.channel import PRIMARY, SECONDARY, IdeChannel
from portvisor.devices.ide.drive import Drive
from portvisor.devices.pci.host import PciHost
from portvisor.devices.pci.i440fx import I440Fx
from portvisor.devices.pci.piix3 import Piix3, slot_route
from portvisor.devices.pci.piix3_ide import Piix3Ide
from portvisor.guest.errors import GuestFileError
from portvisor.kvm.abi import Regs, Segment, Sregs
from portvisor.kvm.api import System
from portvisor.machines import cmos
from portvisor.machines.floppy import attach_floppy, drives_of
from portvisor.machines.legacy import ISA_IRQS, LegacyChips, LegacyOptions
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.pc_like import PcLike
from portvisor.ports import BlockBackend, CharBackend, Clock

MIB = 1 << 20
MEMORY_MIN, MEMORY_MAX = 2 * MIB, 3072 * MIB
VGA_HOLE, SHADOW_BASE = 0xA0000, 0xC0000
VBE_BASE = 0xE0000000
"""Where SeaBIOS's VGA BIOS for an ISA card looks for the linear frame buffer."""
FIRMWARE_UNIT = 0x10000
FIRMWARE_MAX = 4 * MIB
PROGRAM_TOP = VGA_HOLE
BOOT_DRIVE = 0x80


@dataclass(frozen=True, slots=True)
class Program:
    """A flat real-mode program, started at `address` (CS 0) without firmware."""

    data: bytes
    address: int
    label: str = "program"


@dataclass(frozen=True, slots=True)
class PcOptions:
    """What the machine is made of. Sizes in bytes."""

    memory: int = 64 * MIB
    firmware: bytes = b""
    firmware_label: str = "firmware"
    vga_bios: bytes = b""
    program: Program | None = None
    disks: Sequence[BlockBackend] = ()
    """At most three with a CD, else four: primary master, primary slave, secondary slave, secondary master."""
    cdrom: BlockBackend | None = None
    floppies: Sequence[BlockBackend | None] = ()
    """Media of the drives A and B; there is no drive without one."""
    serial: Sequence[CharBackend | None] = (None, None)
    on_debug: Callable[[bytes], None] | None = None
    """Gets what firmware writes to its debug port."""
    base_time: float = field(default_factory=time.time)
    boot: Sequence[str] = ("disk", "cdrom")
    strict: bool = False


def check_memory(size: int, least: int = MEMORY_MIN, most: int = MEMORY_MAX) -> None:
    """Refuse a memory size that the board cannot have.

    Raises:
        GuestFileError: out of range or not a multiple of 64 KiB.
    """
    if not least <= size <= most or size % 0x10000:
        raise GuestFileError(
            f"memory of {size} bytes: {least // MIB}M to {most // MIB}M in steps of 64K are possible"
        )


def check_firmware(data: bytes, label: str) -> None:
    """Refuse what cannot be a BIOS image.

    Raises:
        GuestFileError: its size is not a multiple of 64 KiB up to 4 MiB.
    """
    if not data or len(data) % FIRMWARE_UNIT or len(data) > FIRMWARE_MAX:
        raise GuestFileError(f"{label}: {len(data)} bytes; a BIOS image is a multiple of 64K up to 4M")


class Pc(PcLike):
    """The board."""

    name = "pc"

    def __init__(self, system: System, options: PcOptions, clock: Clock | None = None) -> None:
        """Build it.

        Raises:
            GuestFileError: memory size, firmware, program or a floppy disk do not fit the board.
            EngineError: the engine refuses the virtual machine.
        """
        check_memory(options.memory)
        if options.firmware:
            check_firmware(options.firmware, options.firmware_label)
        super().__init__(system, options.memory, clock, strict=options.strict)
        self.options = options
        self.add_ram(0, 0, VGA_HOLE)
        self.add_ram(SHADOW_BASE, SHADOW_BASE, options.memory - SHADOW_BASE)
        self._add_firmware()
        self.chips = LegacyChips(self, LegacyOptions(options.base_time, options.serial, full_reset=False))
        linear = self.chips.vga.linear
        self.mmio.attach(VBE_BASE, linear.size, linear, "vbe memory")
        self._add_board_devices()
        self._add_drives()
        self.floppy = attach_floppy(self, drives_of(options.floppies))
        self.after_reset.append(self._start_program)
        self.reset()

    # --- firmware -------------------------------------------------------------------------------------

    def _add_firmware(self) -> None:
        if self.options.firmware:
            self.add_firmware(self.options.firmware)
        program = self.options.program
        if program:
            if not program.data:
                raise GuestFileError(f"{program.label}: empty")
            if program.address < 0 or program.address + len(program.data) > PROGRAM_TOP:
                raise GuestFileError(
                    f"{program.label}: {len(program.data)} bytes at {program.address:#x} leave the "
                    f"conventional memory (0-{PROGRAM_TOP - 1:x})"
                )
            self.add_shadow(program.address, program.data)

    def _start_program(self) -> None:
        """Without firmware: real mode, CS 0, at the program, as a boot sector is entered."""
        program = self.options.program
        if program is None:
            return
        flat = Segment(0, 0xFFFF, 0)
        sregs = Sregs(Segment(0, 0xFFFF, 0, type=0xB), flat, flat, flat, flat, flat)
        self.vcpu.set_sregs(sregs)
        stack = program.address if program.address >= 0x1000 else 0x7C00
        self.vcpu.set_regs(Regs(rip=program.address, rsp=stack, rdx=BOOT_DRIVE))

    # --- devices ----------------------------------------------------------------------------------------

    def _add_board_devices(self) -> None:
        options = self.options
        cmos.fill(self.chips.rtc.cmos, options.memory, boot=options.boot)
        sink = options.on_debug or (lambda data: None)
        self.attach(DebugConsole(sink, base=0x402, name="debugcon"))
        self.attach(DebugConsole(sink, base=0xE9, name="port-e9"))
        self.coalesce(0x402)
        self.coalesce(0xE9)
        self.attach(DebugExit(self._guest_exit))
        self.fw_cfg = self.attach(FwCfg(self.ram))
        self.fw_cfg.add_integer(Key.RAM_SIZE, options.memory, 8)
        self.fw_cfg.add_integer(Key.NB_CPUS, 1, 2)
        self.fw_cfg.add_integer(Key.MAX_CPUS, 1, 2)
        if options.vga_bios:
            self.fw_cfg.add_file("vgaroms/vgabios.bin", options.vga_bios)
        self.pci = self.attach(PciHost(self.ports, self.mmio))
        isa_bridge = Piix3({irq: self.chips.irq(irq) for irq in ISA_IRQS})
        root = self.pci.add_root(0, lines=isa_bridge.pirqs, route=slot_route())
        for slot, number, function in ((0, 0, I440Fx()), (1, 0, isa_bridge), (1, 1, Piix3Ide())):
            root.attach(function, slot, number)
            self.devices.append(function)

    def _add_drives(self) -> None:
        options = self.options
        most = 3 if options.cdrom else 4
        if len(options.disks) > most:
            raise GuestFileError(f"{len(options.disks)} disks: at most {most} fit beside what is there")
        disks: list[Drive | None] = [AtaDisk(image) for image in options.disks]
        disks += [None] * (4 - len(disks))
        primary_master, primary_slave, secondary_slave, secondary_master = disks
        if options.cdrom:
            secondary_master = AtapiCd(options.cdrom)
        irq = self.chips.irq
        self.ide = (
            self.attach(IdeChannel(irq(PRIMARY.irq), primary_master, primary_slave, PRIMARY)),
            self.attach(IdeChannel(irq(SECONDARY.irq), secondary_master, secondary_slave, SECONDARY)),
        )

    def _guest_exit(self, status: int) -> None:
        self.request_stop(Outcome(End.GUEST_EXIT, status))
