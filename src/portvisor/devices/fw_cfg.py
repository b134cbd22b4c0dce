"""Firmware configuration device: named blobs that a virtual machine hands to its firmware.

Source: QEMU's public specification "Firmware Configuration (fw_cfg) Device", which SeaBIOS, OVMF and Linux
follow.

    port  size     access  register
    +0    2        W       selector: which item; its data offset becomes 0
    +1    1        R       data: the next byte of the item; 0 after its end
    +4    4        R/W     DMA address, bits 63:32, big endian; reads the signature "QEMU"
    +8    4        R/W     DMA address, bits 31:0, big endian; a write starts; reads the signature " CFG"

Memory at the DMA address: control (32 bits), length (32 bits), address (64 bits), all big endian.

Not modelled: writes through the data register (the specification dropped them), the memory-mapped variant.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

from portvisor.ports import Device, GuestMemory, PortRange

SELECTOR = 0
DATA = 1
DMA_HIGH = 4
DMA_LOW = 8

DMA_SIGNATURE = b"QEMU CFG"

CONTROL_ERROR = 0x01
CONTROL_READ = 0x02
CONTROL_SKIP = 0x04
CONTROL_SELECT = 0x08
CONTROL_WRITE = 0x10

ID_TRADITIONAL = 0x01
ID_DMA = 0x02

WRITE_MODE = 0x4000
"""Bit of a selector that once announced writes through the data register; it does not matter to reads."""
FIRST_FILE = 0x20
FILE_LIMIT = 0x4000 - FIRST_FILE
"""Bits 14 and 15 of a selector are flags, so that files end below 4000h."""
FILE_NAME_MAX = 55
"""Characters of a file's name; its field has 56 bytes and ends with a NUL."""

CHUNK = 0x100000
"""Bytes moved at a time, so that a guest's length never becomes an allocation."""

_ZEROS = memoryview(bytes(CHUNK))
_REQUEST = struct.Struct(">IIQ")
_DIRECTORY_ENTRY = struct.Struct(">IHH56s")


class Key(IntEnum):
    """Selectors with a fixed meaning."""

    SIGNATURE = 0x00
    ID = 0x01
    UUID = 0x02
    RAM_SIZE = 0x03
    NOGRAPHIC = 0x04
    NB_CPUS = 0x05
    MACHINE_ID = 0x06
    KERNEL_ADDR = 0x07
    KERNEL_SIZE = 0x08
    KERNEL_CMDLINE = 0x09
    INITRD_ADDR = 0x0A
    INITRD_SIZE = 0x0B
    BOOT_DEVICE = 0x0C
    NUMA = 0x0D
    BOOT_MENU = 0x0E
    MAX_CPUS = 0x0F
    KERNEL_ENTRY = 0x10
    KERNEL_DATA = 0x11
    INITRD_DATA = 0x12
    CMDLINE_ADDR = 0x13
    CMDLINE_SIZE = 0x14
    CMDLINE_DATA = 0x15
    SETUP_ADDR = 0x16
    SETUP_SIZE = 0x17
    SETUP_DATA = 0x18
    FILE_DIR = 0x19
    ACPI_TABLES = 0x8000
    SMBIOS_ENTRIES = 0x8001
    IRQ0_OVERRIDE = 0x8002
    E820_TABLE = 0x8003
    HPET = 0x8004


@dataclass(frozen=True, slots=True)
class KernelImage:
    """A kernel for direct boot, cut up as the boot protocol loads it; addresses are guest-physical."""

    setup: bytes
    setup_address: int
    kernel: bytes
    kernel_address: int
    command_line: bytes
    command_line_address: int
    initrd: bytes = b""
    initrd_address: int = 0


class FwCfg(Device):
    """The firmware configuration device and its items. Items are added before the machine runs.

    Args:
        memory: guest memory for the DMA interface.
        base: first of the twelve ports.
        dma: offer the DMA interface.
    """

    REGISTERS: ClassVar[Mapping[int, str]] = {
        SELECTOR: "SELECTOR",
        DATA: "DATA",
        DMA_HIGH: "DMA_ADDRESS_HIGH",
        DMA_LOW: "DMA_ADDRESS_LOW",
    }

    @dataclass
    class State:
        """What the guest has selected, and what it has written into writable items."""

        key: int = 0
        offset: int = 0
        dma_address: int = 0
        written: dict[int, bytearray] = field(default_factory=dict)

    state: State

    def __init__(self, memory: GuestMemory, *, base: int = 0x510, dma: bool = True, name: str = "fw_cfg") -> None:
        self.name = name
        super().__init__()
        ranges = [PortRange(base, 2, (2,), name, SELECTOR), PortRange(base + DATA, 1, (1,), name, DATA)]
        if dma:
            ranges.append(PortRange(base + DMA_HIGH, 8, (1, 2, 4), f"{name} dma", DMA_HIGH))
        self.ports = tuple(ranges)
        self._memory = memory
        self._items: dict[int, bytes] = {}
        self._files: dict[str, int] = {}
        self._on_write: dict[int, Callable[[bytes], None]] = {}
        self.add_item(Key.SIGNATURE, b"QEMU")
        self.add_integer(Key.ID, ID_TRADITIONAL | (ID_DMA if dma else 0), 4)

    # --- items ----------------------------------------------------------------------------------------

    def add_item(self, key: int, data: bytes) -> None:
        """Give the item `key` its content, or another content."""
        self._items[key] = bytes(data)

    def add_integer(self, key: int, value: int, size: int) -> None:
        """An item that is a little-endian integer of `size` bytes."""
        self.add_item(key, value.to_bytes(size, "little"))

    def add_file(self, name: str, data: bytes, *, on_write: Callable[[bytes], None] | None = None) -> int:
        """Put a file into the directory, or replace it; gives its selector.

        Args:
            name: at most 55 ASCII characters, such as "etc/acpi/tables".
            data: its content.
            on_write: makes the file writable by DMA, and is told its whole content after each write.

        Raises:
            ValueError: the name is too long, empty or not ASCII, or the directory is full.
        """
        if not name or len(name) > FILE_NAME_MAX or not name.isascii():
            raise ValueError(f"fw_cfg file name {name!r}: need 1 to {FILE_NAME_MAX} ASCII characters")
        if name not in self._files:
            if len(self._files) == FILE_LIMIT:
                raise ValueError(f"fw_cfg file {name!r}: the directory is full ({FILE_LIMIT} files)")
            self._files[name] = FIRST_FILE + len(self._files)
        key = self._files[name]
        self.add_item(key, data)
        self.state.written.pop(key, None)
        if on_write is None:
            self._on_write.pop(key, None)
        else:
            self._on_write[key] = on_write
        self.add_item(Key.FILE_DIR, self._directory())
        return key

    def add_kernel(self, image: KernelImage) -> None:
        """The items from which firmware boots a kernel without a disk."""
        self._add_blob(Key.SETUP_ADDR, Key.SETUP_SIZE, Key.SETUP_DATA, image.setup_address, image.setup)
        self._add_blob(Key.KERNEL_ADDR, Key.KERNEL_SIZE, Key.KERNEL_DATA, image.kernel_address, image.kernel)
        self._add_blob(Key.INITRD_ADDR, Key.INITRD_SIZE, Key.INITRD_DATA, image.initrd_address, image.initrd)
        command_line = image.command_line + b"\0"
        self._add_blob(
            Key.CMDLINE_ADDR, Key.CMDLINE_SIZE, Key.CMDLINE_DATA, image.command_line_address, command_line
        )
        self.add_integer(Key.KERNEL_ENTRY, image.kernel_address, 4)

    def _add_blob(self, address_key: Key, size_key: Key, data_key: Key, address: int, data: bytes) -> None:
        self.add_integer(address_key, address, 4)
        self.add_integer(size_key, len(data), 4)
        self.add_item(data_key, data)

    def _directory(self) -> bytes:
        entries = [
            _DIRECTORY_ENTRY.pack(len(self._items[key]), key, 0, name.encode()) for name, key in self._files.items()
        ]
        return len(entries).to_bytes(4, "big") + b"".join(entries)

    def content(self, key: int) -> bytes:
        """What the guest reads from an item now; empty if there is none."""
        return bytes(self._content(key))

    def files(self) -> dict[str, int]:
        """Selector of every file, by name."""
        return dict(self._files)

    def _content(self, key: int) -> bytes | bytearray:
        return self.state.written.get(key) or self._items.get(key, b"")

    # --- the bus --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if offset == DATA:
            return self.read_block(DATA, 1, 1)[0]
        if offset >= DMA_HIGH:
            start = offset - DMA_HIGH
            return int.from_bytes(DMA_SIGNATURE[start : start + size], "little")
        return (1 << 8 * size) - 1

    def read_block(self, offset: int, size: int, count: int) -> bytes:
        if offset != DATA:
            return super().read_block(offset, size, count)
        state = self.state
        data = bytes(self._content(state.key)[state.offset : state.offset + count])
        state.offset += len(data)
        return data.ljust(count, b"\0")

    def write(self, offset: int, size: int, value: int) -> None:
        if offset == SELECTOR:
            self._select(value)
        elif size == 4 and offset in (DMA_HIGH, DMA_LOW):
            self._write_dma_address(offset, int.from_bytes(value.to_bytes(4, "little"), "big"))

    def _select(self, key: int) -> None:
        self.state.key = key & ~WRITE_MODE
        self.state.offset = 0

    # --- DMA ------------------------------------------------------------------------------------------

    def _write_dma_address(self, offset: int, value: int) -> None:
        state = self.state
        if offset == DMA_HIGH:
            state.dma_address = value << 32
            return
        request = state.dma_address | value
        state.dma_address = 0
        self._run_request(request)

    def _run_request(self, request: int) -> None:
        control, length, address = _REQUEST.unpack(self._memory.read(request, _REQUEST.size))
        if control & CONTROL_SELECT:
            self._select(control >> 16)
        done = True
        if control & CONTROL_READ:
            self._read_to_memory(address, length)
        elif control & CONTROL_WRITE:
            done = self._write_from_memory(address, length)
        elif control & CONTROL_SKIP:
            self._skip(length)
        self._memory.write(request, (0 if done else CONTROL_ERROR).to_bytes(4, "big"))

    def _skip(self, length: int) -> None:
        state = self.state
        state.offset = min(state.offset + length, len(self._content(state.key)))

    def _read_to_memory(self, address: int, length: int) -> None:
        """Copy from the item; past its end memory is filled with zeros."""
        state = self.state
        data = memoryview(self._content(state.key))[state.offset : state.offset + length]
        self._memory.write(address, data)
        state.offset += len(data)
        for done in range(len(data), length, CHUNK):
            self._memory.write(address + done, _ZEROS[: min(CHUNK, length - done)])

    def _write_from_memory(self, address: int, length: int) -> bool:
        """Copy into a writable item; True if all of `length` had room in one."""
        state = self.state
        notify = self._on_write.get(state.key)
        if notify is None:
            return length == 0
        content = state.written.setdefault(state.key, bytearray(self._items[state.key]))
        size = min(length, len(content) - state.offset)
        content[state.offset : state.offset + size] = self._memory.read(address, size)
        state.offset += size
        notify(bytes(content))
        return size == length
