"""Guests for the software engine in every processor mode: code at 1000h, results in registers or at RESULT."""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from portvisor.kvm.abi import Dtable, ExitReason, Regs, Segment, Sregs
from portvisor.kvm.software import SoftwareVcpu, SoftwareVm, open_software
from portvisor.ports import Device, MmioSpace, PortRange, PortSpace

CODE = 0x1000
HANDLERS = 0x2000
"""Exception handlers of protected-mode guests: vector n at HANDLERS + 16 n."""
RESULT = 0x4000
DATA = 0x5000
STACK = 0x8000
RING0_STACK = 0x9000
GDT = 0xA000
IDT = 0xB000
TSS = 0xC000
IO_MAP = TSS + 0x68
"""The port permission bits, up to E068."""
PAGES = 0x10000
MEMORY = 0x40000
PORT = 0x2F0
WATCHDOG_NS = 10_000_000_000
HLT = b"\xf4"

CODE32, DATA32, CODE64, USER_DATA, USER_CODE32, USER_CODE64, TASK = 0x08, 0x10, 0x18, 0x20, 0x28, 0x30, 0x38
"""Selectors; the order suits SYSCALL (08, 10) and SYSRET (18+8 = 20, 18+16 = 28)."""
DESCRIPTORS = (
    0,
    0x00CF9B000000FFFF,
    0x00CF93000000FFFF,
    0x00AF9B000000FFFF,
    0x00CFF3000000FFFF,
    0x00CFFB000000FFFF,
    0x00AFFB000000FFFF,
    0x0000890000000000 | 0x20FF | TSS << 16,
    0,
)


def flat(selector: int, kind: int, **fields: int) -> Segment:
    """A 4 GiB segment."""
    return replace(Segment(0, 0xFFFFFFFF, selector, kind, db=1, g=1, dpl=selector & 3), **fields)


class Bench(Device):
    """Sixteen ports of all sizes that log single accesses and blocks and answer from a list, or do as told."""

    ports = (PortRange(PORT, 16, (1, 2, 4), name="bench"),)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, int, int, int]] = []
        self.blocks: list[tuple[str, int, int, bytes]] = []
        self.replies: list[int] = []
        self.on_read: Callable[[int, int], int] | None = None
        self.on_write: Callable[[int, int, int], None] | None = None
        self.stream = bytes(range(256)) * 64

    def read(self, offset: int, size: int) -> int:
        if self.on_read:
            return self.on_read(offset, size)
        value = self.replies.pop(0) if self.replies else 0
        self.log.append(("in", offset, size, value))
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        if self.on_write:
            self.on_write(offset, size, value)
            return
        self.log.append(("out", offset, size, value))

    def read_block(self, offset: int, size: int, count: int) -> bytes:
        data, self.stream = self.stream[: size * count], self.stream[size * count :]
        self.blocks.append(("in", offset, size, data))
        return data

    def write_block(self, offset: int, size: int, data: bytes) -> None:
        self.blocks.append(("out", offset, size, data))


class Lines:
    """An interrupt source: a list of vectors that want to be acknowledged."""

    def __init__(self, vcpu: SoftwareVcpu) -> None:
        self.waiting: list[int] = []
        self.acknowledged: list[int] = []
        self._vcpu = vcpu
        vcpu.set_interrupt_source(self)

    @property
    def pending(self) -> bool:
        return bool(self.waiting)

    def acknowledge(self) -> int:
        self.acknowledged.append(self.waiting.pop(0))
        return self.acknowledged[-1]

    def request(self, vector: int) -> None:
        self.waiting.append(vector)
        self._vcpu.interrupt_changed()


class SoftGuest:
    """A VM on the software engine, its port space and bus connected unless `serve` is False."""

    def __init__(self, code: bytes, *, serve: bool = True) -> None:
        self.system = open_software()
        self.vm: SoftwareVm = self.system.create_vm()
        self.memory = mmap.mmap(-1, MEMORY)
        self.vm.set_user_memory_region(0, 0, self.memory, 0, MEMORY)
        self.vcpu: SoftwareVcpu = self.vm.create_vcpu(0)
        self.bench = Bench()
        self.mmio = MmioSpace()
        if serve:
            self.ports = PortSpace(strict=True)
            self.ports.attach(self.bench)
            self.vm.serve_ports(self.ports)
            self.vm.serve_memory(self.mmio)
        self.place(CODE, code)
        self.real_mode()

    # --- memory -------------------------------------------------------------------------------------

    def place(self, address: int, data: bytes) -> None:
        """Put bytes into memory, as a loader does."""
        self.memory[address : address + len(data)] = data
        self.vm.memory_written(address, address + len(data))

    def word(self, address: int, size: int = 4) -> int:
        """A number in memory."""
        return int.from_bytes(self.memory[address : address + size], "little")

    def vector(self, number: int, address: int) -> None:
        """Point an entry of the real-mode interrupt table at 0:address."""
        self.place(4 * number, address.to_bytes(4, "little"))

    # --- modes --------------------------------------------------------------------------------------

    def start(self, **registers: int) -> None:
        """Start over at CODE with these registers."""
        initial = {"rip": CODE, "rsp": STACK, "rdx": PORT, "rflags": 2} | registers
        self.vcpu.set_regs(Regs(**initial))

    def real_mode(self, **registers: int) -> None:
        """Real mode, all segments at 0."""
        self.vcpu.set_sregs(Sregs(cs=Segment(selector=0, type=0xB)))
        self.start(**registers)

    def tables(self, wide: bool) -> None:
        """GDT, a TSS with a full permission map, and an IDT whose handlers are at HANDLERS."""
        self.place(GDT, b"".join(entry.to_bytes(8, "little") for entry in DESCRIPTORS))
        task = bytearray(0x68)
        if wide:
            task[4:12] = RING0_STACK.to_bytes(8, "little")
        else:
            task[4:8], task[8:10] = RING0_STACK.to_bytes(4, "little"), DATA32.to_bytes(2, "little")
        task[0x66:0x68] = (0x68).to_bytes(2, "little")
        self.place(TSS, bytes(task) + b"\xff" * 0x1000 + b"\xff" * 0x1001)
        for number in range(0x30):
            self.gate(number, HANDLERS + 16 * number, wide)

    def gate(self, number: int, target: int, wide: bool, dpl: int = 3) -> None:
        """An interrupt gate to a ring-0 handler."""
        selector = CODE64 if wide else CODE32
        entry = target & 0xFFFF | selector << 16 | (0x8E00 | dpl << 13) << 32 | (target >> 16) << 48
        size = 16 if wide else 8
        self.place(IDT + size * number, entry.to_bytes(size, "little"))

    def handler(self, number: int, code: bytes) -> None:
        """Code of an exception handler (at most 16 bytes)."""
        assert len(code) <= 16
        self.place(HANDLERS + 16 * number, code)

    def protected_mode(self, *, bits: int = 32, ring: int = 0, **registers: int) -> None:
        """Flat protected mode without paging; 16-bit segments on request."""
        self.tables(False)
        code, data = (CODE32, DATA32) if ring == 0 else (USER_CODE32 | 3, USER_DATA | 3)
        big = int(bits == 32)
        sregs = Sregs(cs=flat(code, 0xB, db=big), gdt=Dtable(GDT, 0x47), idt=Dtable(IDT, 0x17F), cr0=0x11)
        for name in ("ds", "es", "fs", "gs", "ss"):
            setattr(sregs, name, flat(data, 3, db=big))
        sregs.tr = Segment(TSS, 0x20FF, TASK, 0xB, s=0)
        self.vcpu.set_sregs(sregs)
        self.start(**registers)

    def virtual_8086(self, **registers: int) -> None:
        """Virtual-8086 mode with IOPL 3, all segments at 0."""
        self.protected_mode()
        sregs = self.vcpu.get_sregs()
        for name in ("cs", "ds", "es", "fs", "gs", "ss"):
            setattr(sregs, name, Segment(selector=0, type=3, dpl=3))
        self.vcpu.set_sregs(sregs)
        self.start(**{"rflags": 0x23002} | registers)

    def long_mode(self, *, compat: bool = False, ring: int = 0, **registers: int) -> None:
        """Long mode, the first 2 MiB mapped one to one (user pages, writable)."""
        self.tables(True)
        for level, entry in ((0, PAGES + 0x1007), (0x1000, PAGES + 0x2007), (0x2000, 0x87)):
            self.place(PAGES + level, entry.to_bytes(8, "little"))
        selectors = {(False, 0): CODE64, (True, 0): CODE32, (False, 3): USER_CODE64 | 3, (True, 3): USER_CODE32 | 3}
        code, data = selectors[compat, ring], DATA32 if ring == 0 else USER_DATA | 3
        sregs = Sregs(
            cs=flat(code, 0xB, db=int(compat), l=int(not compat)),
            gdt=Dtable(GDT, 0x47),
            idt=Dtable(IDT, 0x2FF),
            cr0=0x80000011,
            cr3=PAGES,
            cr4=0x20,
            efer=0xD01,
        )
        for name in ("ds", "es", "fs", "gs", "ss"):
            setattr(sregs, name, flat(data, 3))
        sregs.tr = Segment(TSS, 0x20FF, TASK, 0xB, s=0)
        self.vcpu.set_sregs(sregs)
        self.start(**registers)

    # --- running --------------------------------------------------------------------------------------

    def run(self) -> ExitReason:
        """To the next exit, and for no longer than the watchdog."""
        self.vcpu.set_alarm(time.monotonic_ns() + WATCHDOG_NS)
        reason = ExitReason(self.vcpu.run())
        self.vcpu.set_alarm(None)
        return reason

    def halts(self) -> Regs:
        """Run to HLT; the registers then."""
        reason = self.run()
        assert reason == ExitReason.HLT, f"{reason!r} at {self.vcpu.get_regs()}"
        return self.vcpu.get_regs()

    def close(self) -> None:
        """Give everything back."""
        self.system.close()


@contextmanager
def soft_guest(code: bytes | str, *, serve: bool = True) -> Iterator[SoftGuest]:
    """A guest for the length of a test; code as bytes or as hexadecimal digits."""
    made = SoftGuest(bytes.fromhex(code) if isinstance(code, str) else code, serve=serve)
    try:
        yield made
    finally:
        made.close()
