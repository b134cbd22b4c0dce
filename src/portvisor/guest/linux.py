"""Direct boot of Linux: what goes where in guest memory, and the CPU state at the entry point.

Source: Documentation/arch/x86/boot.rst (32-bit and 64-bit boot protocol) and zero-page.rst.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from portvisor.guest.errors import GuestFileError
from portvisor.guest.kernel_image import ELF_MAGIC, HEADER_START, BzImage, Vmlinux, parse_bzimage, parse_vmlinux
from portvisor.kvm.abi import Dtable, Regs, Segment, Sregs
from portvisor.ports import GuestMemory

GDT_ADDRESS = 0x6000
BOOT_PARAMS_ADDRESS = 0x10000
COMMAND_LINE_ADDRESS = 0x20000
COMMAND_LINE_MAX = 2047
PAGE_TABLES_ADDRESS = 0x70000
MAPPED_GIB = 4
KERNEL_ADDRESS = 0x100000
ENTRY_64 = 0x200
"""Distance of the 64-bit entry point from the load address."""
PAGE = 4096
INITRD_MAX = 0x7FFFFFFF

BOOT_CS, BOOT_DS = 0x10, 0x18
CR0_PE, CR0_PG = 1, 1 << 31
CR4_PAE = 1 << 5
EFER_LME, EFER_LMA = 1 << 8, 1 << 10
PTE_PRESENT_WRITE, PTE_PAGE_SIZE = 3, 1 << 7

# boot_params offsets
ACPI_RSDP_ADDR = 0x070
E820_ENTRIES, E820_TABLE, E820_MAX = 0x1E8, 0x2D0, 128
VID_MODE = 0x1FA
TYPE_OF_LOADER, LOADFLAGS = 0x210, 0x211
CODE32_START = 0x214
RAMDISK_IMAGE, RAMDISK_SIZE = 0x218, 0x21C
CMD_LINE_PTR = 0x228
LOADED_HIGH, UNDEFINED_LOADER = 1, 0xFF
VID_MODE_NORMAL = 0xFFFF


class E820(IntEnum):
    """Types of an address range."""

    RAM = 1
    RESERVED = 2
    ACPI = 3
    NVS = 4


@dataclass(frozen=True, slots=True)
class E820Entry:
    """One range of the memory map."""

    base: int
    length: int
    kind: E820


@dataclass(frozen=True, slots=True)
class Entry:
    """CPU state at the kernel's first instruction."""

    regs: Regs
    sregs: Sregs


@dataclass(frozen=True, slots=True)
class LinuxGuest:
    """What to boot."""

    kernel: bytes
    initrd: bytes = b""
    command_line: str = ""
    kernel_label: str = "kernel"
    initrd_label: str = "initramfs"


def screen_info() -> bytes:
    """screen_info for VGA text mode 3, 80x25, as the BIOS would have left it."""
    info = bytearray(0x40)
    info[0x06], info[0x07] = 3, 80
    struct.pack_into("<H", info, 0x0A, 3)
    info[0x0E], info[0x0F] = 25, 1
    struct.pack_into("<H", info, 0x10, 16)
    return bytes(info)


@dataclass(frozen=True, slots=True)
class Loader:
    """Puts one Linux guest into memory.

    `low_ram_top` is the end of the RAM below 4 GiB that may be used, `e820` the memory map the kernel
    gets, `rsdp` the guest-physical address of the ACPI RSDP (0 for none).
    """

    memory: GuestMemory
    low_ram_top: int
    guest: LinuxGuest
    e820: Sequence[E820Entry]
    rsdp: int = 0

    def load(self) -> Entry:
        """Kernel, initramfs, command line and boot_params; the state to start the vCPU in.

        A bzImage whose payload the host can unpack is entered as a vmlinux; any other unpacks itself.

        Raises:
            GuestFileError: something does not fit or is no kernel.
        """
        guest = self.guest
        if guest.kernel.startswith(ELF_MAGIC):
            return self._load_vmlinux(parse_vmlinux(guest.kernel, guest.kernel_label), None)
        image = parse_bzimage(guest.kernel, guest.kernel_label)
        if image.payload_format is None:
            return self._load_bzimage(image)
        return self._load_vmlinux(image.unpack(), image)

    def _load_vmlinux(self, kernel: Vmlinux, image: BzImage | None) -> Entry:
        self._check_room(kernel.end)
        initrd = self._place_initrd(kernel.end, image.initrd_max if image else INITRD_MAX)
        for segment in kernel.segments:
            self.memory.write(segment.address, segment.data.ljust(segment.memory_size, b"\0"))
        self._place_boot_params(initrd, image.header if image else b"")
        enter = entry_64 if kernel.bits == 64 else entry_32
        return enter(self.memory, kernel.entry)

    def _load_bzimage(self, image: BzImage) -> Entry:
        end = KERNEL_ADDRESS + max(len(image.body), image.init_size)
        self._check_room(end)
        initrd = self._place_initrd(end, image.initrd_max)
        self.memory.write(KERNEL_ADDRESS, image.body)
        self._place_boot_params(initrd, image.header)
        if image.kernel_64:
            return entry_64(self.memory, KERNEL_ADDRESS + ENTRY_64)
        return entry_32(self.memory, KERNEL_ADDRESS)

    def _check_room(self, end: int) -> None:
        if end > self.low_ram_top:
            raise GuestFileError(
                f"{self.guest.kernel_label}: needs memory up to {-(-end >> 20)} MiB, "
                f"the machine has {self.low_ram_top >> 20} MiB"
            )

    def _place_initrd(self, floor: int, ceiling: int) -> int:
        """Put the initramfs as high as it may lie; its address (0 for none)."""
        initrd = self.guest.initrd
        if not initrd:
            return 0
        top = min(self.low_ram_top, ceiling + 1)
        address = (top - len(initrd)) & -PAGE
        if address < floor:
            raise GuestFileError(
                f"{self.guest.initrd_label}: {len(initrd)} bytes do not fit; above the kernel there are "
                f"{max(0, top - floor)} bytes (give the machine more memory)"
            )
        self.memory.write(address, initrd)
        return address

    def _place_boot_params(self, initrd: int, header: bytes) -> None:
        line = self.guest.command_line.encode()
        if len(line) > COMMAND_LINE_MAX:
            raise GuestFileError(f"the kernel's command line has {len(line)} bytes, {COMMAND_LINE_MAX} are allowed")
        self.memory.write(COMMAND_LINE_ADDRESS, line + b"\0")
        params = bytearray(PAGE)
        params[:0x40] = screen_info()
        params[HEADER_START : HEADER_START + len(header)] = header
        struct.pack_into("<Q", params, ACPI_RSDP_ADDR, self.rsdp)
        struct.pack_into("<H", params, VID_MODE, VID_MODE_NORMAL)
        params[TYPE_OF_LOADER] = UNDEFINED_LOADER
        params[LOADFLAGS] |= LOADED_HIGH
        struct.pack_into("<I", params, CODE32_START, KERNEL_ADDRESS)
        struct.pack_into("<II", params, RAMDISK_IMAGE, initrd, len(self.guest.initrd))
        struct.pack_into("<I", params, CMD_LINE_PTR, COMMAND_LINE_ADDRESS)
        params[E820_ENTRIES] = min(len(self.e820), E820_MAX)
        for index, one in enumerate(self.e820[:E820_MAX]):
            struct.pack_into("<QQI", params, E820_TABLE + 20 * index, one.base, one.length, one.kind)
        self.memory.write(BOOT_PARAMS_ADDRESS, bytes(params))


def _flat(selector: int, *, code: bool, long_mode: bool = False) -> Segment:
    kind = 0xB if code else 3
    return Segment(0, 0xFFFFFFFF, selector, kind, db=0 if long_mode else 1, l=1 if long_mode else 0, g=1)


def _place_gdt(memory: GuestMemory, code: int) -> Dtable:
    descriptors = (0, 0, code, 0x00CF93000000FFFF)
    memory.write(GDT_ADDRESS, struct.pack("<4Q", *descriptors))
    return Dtable(GDT_ADDRESS, 8 * len(descriptors) - 1)


def _entry(rip: int, sregs: Sregs) -> Entry:
    return Entry(Regs(rip=rip, rsi=BOOT_PARAMS_ADDRESS, rsp=PAGE_TABLES_ADDRESS), sregs)


def entry_32(memory: GuestMemory, rip: int) -> Entry:
    """Protected mode, flat, paging off (boot.rst, 32-bit boot protocol)."""
    gdt = _place_gdt(memory, 0x00CF9B000000FFFF)
    data = _flat(BOOT_DS, code=False)
    sregs = Sregs(_flat(BOOT_CS, code=True), data, data, data, data, data, gdt=gdt, idt=Dtable(0, 0))
    sregs.cr0 = sregs.cr0 & ~0x60000000 | CR0_PE
    return _entry(rip, sregs)


def entry_64(memory: GuestMemory, rip: int) -> Entry:
    """Long mode with the first 4 GiB mapped one to one (boot.rst, 64-bit boot protocol)."""
    tables = PAGE_TABLES_ADDRESS
    pointers = tables + PAGE
    directories = pointers + PAGE
    memory.write(tables, struct.pack("<Q", pointers | PTE_PRESENT_WRITE).ljust(PAGE, b"\0"))
    entries = [directories + PAGE * index | PTE_PRESENT_WRITE for index in range(MAPPED_GIB)]
    memory.write(pointers, struct.pack(f"<{MAPPED_GIB}Q", *entries).ljust(PAGE, b"\0"))
    pages = [index << 21 | PTE_PRESENT_WRITE | PTE_PAGE_SIZE for index in range(512 * MAPPED_GIB)]
    memory.write(directories, struct.pack(f"<{len(pages)}Q", *pages))
    gdt = _place_gdt(memory, 0x00AF9B000000FFFF)
    data = _flat(BOOT_DS, code=False)
    sregs = Sregs(
        _flat(BOOT_CS, code=True, long_mode=True), data, data, data, data, data, gdt=gdt, idt=Dtable(0, 0)
    )
    sregs.cr0 = sregs.cr0 & ~0x60000000 | CR0_PE | CR0_PG
    sregs.cr3 = tables
    sregs.cr4 = CR4_PAE
    sregs.efer = EFER_LME | EFER_LMA
    return _entry(rip, sregs)
