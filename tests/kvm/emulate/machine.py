"""A vCPU to test the emulator on: small memory, real page tables, a TSS, a port that counts, logs."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import ClassVar

from portvisor.kvm.abi import Regs
from portvisor.kvm.emulate import Emulator, FlatMemory, MemoryOps, Step, initial_state
from portvisor.kvm.emulate.state import MODE_BITS

MEMORY_SIZE = 0xC0000
PAGE = 0x1000
TSS = 0x60000
TABLES = 0x80000
CODE = 0x1000
DATA_IN = 0x2000
DATA_OUT = 0x3000
TSS_LIMIT = 104 + 0x2000
"""TSS, bitmap for all ports, final byte."""

START = {
    "rax": 0x1122_3344_5566_7788,
    "rbx": 0xB0B0_B0B0_B0B0_B0B0,
    "rdx": 0x3F8,
    "rdi": DATA_IN,
    "rsi": DATA_OUT,
    "rsp": 0x5000,
    "r8": 0x0808_0808_0808_0808,
    "r15": 0x1515_1515_1515_1515,
    "rip": CODE,
}
PAGED_MODES = ("compat16", "compat32", "long")
P, RW, US, PS, NX = 1, 2, 4, 0x80, 1 << 63
PAGE_FLAGS = {"rw": P | RW | US, "ro": P | US, "super": P | RW, "super-ro": P, "nx": P | RW | US | NX, "none": 0}


class PageTables:
    """Page tables with 4 KiB pages, built in guest memory from TABLES on."""

    LAYOUTS: ClassVar = {
        "legacy": ((22, 12), 4, 10),
        "pae": ((30, 21, 12), 8, 9),
        "long": ((39, 30, 21, 12), 8, 9),
        "long5": ((48, 39, 30, 21, 12), 8, 9),
    }

    def __init__(self, memory: bytearray, kind: str) -> None:
        self.memory = memory
        self.shifts, self.width, self.index_bits = self.LAYOUTS[kind]
        self.kind = kind
        self.root = TABLES
        self.free = TABLES + PAGE

    def entry_address(self, table: int, linear: int, shift: int) -> int:
        bits = 2 if self.kind == "pae" and shift == 30 else self.index_bits
        return table + self.width * (linear >> shift & (1 << bits) - 1)

    def read(self, address: int) -> int:
        return int.from_bytes(self.memory[address : address + self.width], "little")

    def write(self, address: int, entry: int) -> None:
        self.memory[address : address + self.width] = entry.to_bytes(self.width, "little")

    def path(self, linear: int) -> list[int]:
        """Addresses of the entries from the root to the page; missing tables are made."""
        table = self.root
        addresses = []
        for shift in self.shifts:
            address = self.entry_address(table, linear, shift)
            addresses.append(address)
            if shift == self.shifts[-1]:
                break
            if not self.read(address) & P:
                rights = P if self.kind == "pae" and shift == 30 else P | RW | US
                self.write(address, self.free | rights)
                self.free += PAGE
            table = self.read(address) & 0xF_FFFF_F000
        return addresses

    def map(self, linear: int, physical: int, flags: int) -> None:
        self.write(self.path(linear)[-1], physical | flags if flags else 0)


@cache
def identity_tables(kind: str) -> tuple[bytes, int]:
    """Tables that map everything below TABLES onto itself, and where the next one may go."""
    memory = bytearray(MEMORY_SIZE)
    tables = PageTables(memory, kind)
    for page in range(0, TABLES, PAGE):
        tables.map(page, page, PAGE_FLAGS["rw"])
    return bytes(memory[TABLES : tables.free]), tables.free


@dataclass
class Log:
    """What the ports saw."""

    reads: list[tuple[int, int, int]] = field(default_factory=list)
    """(port, size, count)"""
    writes: list[tuple[int, int, bytes]] = field(default_factory=list)


class Machine:
    """One vCPU. The port that answers reads gives the bytes 01, 02, 03, ... in turn."""

    def __init__(
        self,
        mode: str,
        regs: Mapping[str, int] | None = None,
        *,
        code: bytes = b"",
        cpl: int | None = None,
        iopl: int = 0,
        flags: int = 0,
        cr0: int = 0,
        cr4: int = 0,
        efer: int = 0,
        segments: Mapping[str, Mapping[str, int]] | None = None,
        memory: Mapping[int, bytes] | None = None,
        paging: str | None = None,
        pages: Mapping[int, str] | None = None,
        aliases: Mapping[int, int] | None = None,
        closed: Iterable[int] = (),
        map_base: int = 104,
        served: bool = True,
        interrupt: bool = False,
        debug_registers: Mapping[int, int] | None = None,
        kvm_compat: bool = False,
        read_first: bool = False,
        intel: bool = False,
        steps: list[Step] | None = None,
    ) -> None:
        self.mode = mode
        self.memory = bytearray(MEMORY_SIZE)
        self.regs, self.sregs = initial_state(mode, cpl, iopl)
        for name, value in {**START, **(regs or {})}.items():
            setattr(self.regs, name, value)
        self.regs.rflags |= flags
        self.sregs.cr0 |= cr0
        self.sregs.cr4 |= cr4
        self.sregs.efer |= efer
        self._make_tss(closed, map_base)
        self.tables = self._make_tables(paging, pages or {}, aliases or {})
        for name, values in (segments or {}).items():
            for attribute, value in values.items():
                setattr(getattr(self.sregs, name), attribute, value)
        self.memory[CODE : CODE + len(code)] = code
        for address, data in (memory or {}).items():
            self.memory[address : address + len(data)] = data
        self.log = Log()
        self.served = served
        self.interrupt = interrupt
        self.tape = 0
        flat = FlatMemory(self.memory)
        registers = [0] * 8
        for index, value in (debug_registers or {}).items():
            registers[index] = value
        self.ops = MemoryOps(
            self.regs,
            self.sregs,
            flat.read,
            flat.write,
            pio_in=self.pio_in,
            pio_out=self.pio_out,
            interrupt_pending=lambda: self.interrupt,
            debug_registers=registers,
        )
        self.emulator = Emulator(self.ops, kvm_compat=kvm_compat, read_first=read_first, intel=intel, steps=steps)

    def _make_tss(self, closed: Iterable[int], map_base: int) -> None:
        struct.pack_into("<H", self.memory, TSS + 0x66, map_base)
        self.memory[TSS + map_base + 0x2000] = 0xFF
        for port in closed:
            self.memory[TSS + map_base + port // 8] |= 1 << port % 8
        self.sregs.tr.base = TSS
        self.sregs.tr.limit = TSS_LIMIT

    def _make_tables(
        self, paging: str | None, pages: Mapping[int, str], aliases: Mapping[int, int]
    ) -> PageTables | None:
        if self.mode in PAGED_MODES:
            paging = "long5" if paging == "long5" else "long"
        elif paging is None and (pages or aliases):
            paging = "legacy"
        if paging is None:
            return None
        tables = PageTables(self.memory, paging)
        image, tables.free = identity_tables(paging)
        self.memory[TABLES : TABLES + len(image)] = image
        for linear, physical in aliases.items():
            tables.map(linear, physical, PAGE_FLAGS["rw"])
        for linear, kind in pages.items():
            physical = (aliases or {}).get(linear, linear)
            tables.map(linear, physical, PAGE_FLAGS[kind])
        self.sregs.cr0 |= 1 << 31
        self.sregs.cr3 = tables.root
        if paging == "pae":
            self.sregs.cr4 |= 1 << 5
        if paging == "long5":
            self.sregs.cr4 |= 1 << 12
        return tables

    @property
    def bits(self) -> int:
        return MODE_BITS[self.mode]

    def take(self, length: int) -> bytes:
        """The next bytes of the tape."""
        data = bytes((self.tape + index + 1) & 0xFF for index in range(length))
        self.tape += length
        return data

    def pio_in(self, port: int, size: int, count: int) -> bytes | None:
        if not self.served:
            return None
        self.log.reads.append((port, size, count))
        return self.take(size * count)

    def pio_out(self, port: int, size: int, data: bytes) -> bool:
        if self.served:
            self.log.writes.append((port, size, data))
        return self.served

    def registers(self) -> dict[str, int]:
        return {name: getattr(self.regs, name) for name in Regs.__slots__}
