"""KVM's user-space ABI: ioctl numbers, capabilities, and the structures that both engines use.

Source: Linux UAPI `linux/kvm.h` and `asm/kvm.h` (x86), Documentation/virt/kvm/api.rst; numbers only.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import ClassVar

# --- ioctls -------------------------------------------------------------------------------------------
KVM_GET_API_VERSION = 0xAE00
KVM_CREATE_VM = 0xAE01
KVM_CHECK_EXTENSION = 0xAE03
KVM_GET_VCPU_MMAP_SIZE = 0xAE04
KVM_GET_SUPPORTED_CPUID = 0xC008AE05
KVM_CREATE_VCPU = 0xAE41
KVM_GET_DIRTY_LOG = 0x4010AE42
KVM_SET_USER_MEMORY_REGION = 0x4020AE46
KVM_SET_TSS_ADDR = 0xAE47
KVM_SET_IDENTITY_MAP_ADDR = 0x4008AE48
KVM_CREATE_IRQCHIP = 0xAE60
KVM_IRQ_LINE = 0x4008AE61
KVM_REGISTER_COALESCED_MMIO = 0x4010AE67
KVM_UNREGISTER_COALESCED_MMIO = 0x4010AE68
KVM_IRQFD = 0x4020AE76
KVM_CREATE_PIT2 = 0x4040AE77
KVM_IOEVENTFD = 0x4040AE79
KVM_RUN = 0xAE80
KVM_GET_REGS = 0x8090AE81
KVM_SET_REGS = 0x4090AE82
KVM_GET_SREGS = 0x8138AE83
KVM_SET_SREGS = 0x4138AE84
KVM_INTERRUPT = 0x4004AE86
KVM_SET_SIGNAL_MASK = 0x4004AE8B
KVM_SET_CPUID2 = 0x4008AE90
KVM_SET_GUEST_DEBUG = 0x4048AE9B
KVM_GET_VCPU_EVENTS = 0x8040AE9F
KVM_SET_VCPU_EVENTS = 0x4040AEA0
KVM_ENABLE_CAP_VM = 0x4068AEA3

# --- capabilities -------------------------------------------------------------------------------------
KVM_CAP_IRQCHIP = 0
KVM_CAP_USER_MEMORY = 3
KVM_CAP_SET_TSS_ADDR = 4
KVM_CAP_EXT_CPUID = 7
KVM_CAP_COALESCED_MMIO = 15
KVM_CAP_PIT2 = 33
KVM_CAP_IOEVENTFD = 36
KVM_CAP_SET_IDENTITY_MAP_ADDR = 37
KVM_CAP_SYNC_REGS = 74
KVM_CAP_READONLY_MEM = 81
KVM_CAP_IMMEDIATE_EXIT = 136
KVM_CAP_COALESCED_PIO = 162

KVM_API_VERSION = 12
KVM_MEM_READONLY = 1 << 1
KVM_IOEVENTFD_FLAG_DATAMATCH = 1 << 0
KVM_IOEVENTFD_FLAG_PIO = 1 << 1
KVM_IOEVENTFD_FLAG_DEASSIGN = 1 << 2
KVM_SYNC_X86_REGS = 1 << 0
KVM_SYNC_X86_SREGS = 1 << 1


class ExitReason(IntEnum):
    """KVM_EXIT_*: why KVM_RUN came back."""

    UNKNOWN = 0
    EXCEPTION = 1
    IO = 2
    HYPERCALL = 3
    DEBUG = 4
    HLT = 5
    MMIO = 6
    IRQ_WINDOW_OPEN = 7
    SHUTDOWN = 8
    FAIL_ENTRY = 9
    INTR = 10
    INTERNAL_ERROR = 17
    SYSTEM_EVENT = 24


KVM_EXIT_IO_IN = 0
KVM_EXIT_IO_OUT = 1

# --- struct kvm_run: byte offsets ---------------------------------------------------------------------
RUN_REQUEST_INTERRUPT_WINDOW = 0  # u8
RUN_IMMEDIATE_EXIT = 1  # u8
RUN_EXIT_REASON = 8  # u32
RUN_READY_FOR_INTERRUPT_INJECTION = 12  # u8
RUN_IF_FLAG = 13  # u8
RUN_FLAGS = 14  # u16
RUN_CR8 = 16  # u64
RUN_APIC_BASE = 24  # u64
RUN_UNION = 32
RUN_IO_DIRECTION = 32  # u8
RUN_IO_SIZE = 33  # u8
RUN_IO_PORT = 34  # u16
RUN_IO_COUNT = 36  # u32
RUN_IO_DATA_OFFSET = 40  # u64
RUN_MMIO_PHYS_ADDR = 32  # u64
RUN_MMIO_DATA = 40  # u8[8]
RUN_MMIO_LEN = 48  # u32
RUN_MMIO_IS_WRITE = 52  # u8
RUN_INTERNAL_SUBERROR = 32  # u32
RUN_INTERNAL_NDATA = 36  # u32
RUN_INTERNAL_DATA = 40  # u64[16]
RUN_FAIL_ENTRY_REASON = 32  # u64
RUN_KVM_VALID_REGS = 288  # u64
RUN_KVM_DIRTY_REGS = 296  # u64
RUN_SYNC_REGS = 304  # struct kvm_regs
RUN_SYNC_RIP = RUN_SYNC_REGS + 16 * 8
RUN_SYNC_SREGS = 448  # struct kvm_sregs
PAGE_SIZE = 4096
KVM_PIO_PAGE_OFFSET = 1
KVM_COALESCED_MMIO_PAGE_OFFSET = 2
PIO_DATA = PAGE_SIZE * KVM_PIO_PAGE_OFFSET
"""Where `run.io.data_offset` points on x86."""
PIO_DATA_SIZE = PAGE_SIZE


@dataclass(slots=True)
class Regs:
    """struct kvm_regs: general registers, RIP and RFLAGS (64 bits each)."""

    rax: int = 0
    rbx: int = 0
    rcx: int = 0
    rdx: int = 0
    rsi: int = 0
    rdi: int = 0
    rsp: int = 0
    rbp: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = 0
    r13: int = 0
    r14: int = 0
    r15: int = 0
    rip: int = 0
    rflags: int = 2

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<18Q")

    def pack(self) -> bytes:
        """The structure's bytes."""
        return self.LAYOUT.pack(*(getattr(self, name) for name in self.__slots__))

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Regs:
        """From the structure's bytes."""
        return cls(*cls.LAYOUT.unpack_from(data, offset))


@dataclass(slots=True)
class Segment:
    """struct kvm_segment: selector and descriptor cache. `type` holds bits 3:0 of the access byte."""

    base: int = 0
    limit: int = 0xFFFF
    selector: int = 0
    type: int = 3
    present: int = 1
    dpl: int = 0
    db: int = 0
    s: int = 1
    l: int = 0  # noqa: E741 - the ABI's name
    g: int = 0
    avl: int = 0
    unusable: int = 0

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QIH10B")

    def pack(self) -> bytes:
        """The structure's bytes."""
        return self.LAYOUT.pack(*(getattr(self, name) for name in self.__slots__), 0)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Segment:
        """From the structure's bytes."""
        return cls(*cls.LAYOUT.unpack_from(data, offset)[:-1])


@dataclass(slots=True)
class Dtable:
    """struct kvm_dtable: GDTR or IDTR."""

    base: int = 0
    limit: int = 0xFFFF

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<QH6x")

    def pack(self) -> bytes:
        """The structure's bytes."""
        return self.LAYOUT.pack(self.base, self.limit)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Dtable:
        """From the structure's bytes."""
        return cls(*cls.LAYOUT.unpack_from(data, offset))


def _code_segment() -> Segment:
    return Segment(base=0xFFFF0000, selector=0xF000, type=0xB)


@dataclass(slots=True)
class Sregs:
    """struct kvm_sregs: segments, tables, control registers.

    The defaults are the state after RESET#, but for the local APIC, which is off: KVM shows it in CPUID while
    IA32_APIC_BASE enables it, and boards here have none.
    """

    cs: Segment = field(default_factory=_code_segment)
    ds: Segment = field(default_factory=Segment)
    es: Segment = field(default_factory=Segment)
    fs: Segment = field(default_factory=Segment)
    gs: Segment = field(default_factory=Segment)
    ss: Segment = field(default_factory=Segment)
    tr: Segment = field(default_factory=lambda: Segment(type=0xB, s=0))
    ldt: Segment = field(default_factory=lambda: Segment(type=2, s=0))
    gdt: Dtable = field(default_factory=Dtable)
    idt: Dtable = field(default_factory=Dtable)
    cr0: int = 0x60000010
    cr2: int = 0
    cr3: int = 0
    cr4: int = 0
    cr8: int = 0
    efer: int = 0
    apic_base: int = 0xFEE00100
    interrupt_bitmap: bytes = bytes(32)

    SEGMENTS: ClassVar[tuple[str, ...]] = ("cs", "ds", "es", "fs", "gs", "ss", "tr", "ldt")
    CONTROL: ClassVar[struct.Struct] = struct.Struct("<7Q32s")
    CONTROL_NAMES: ClassVar[tuple[str, ...]] = (
        "cr0",
        "cr2",
        "cr3",
        "cr4",
        "cr8",
        "efer",
        "apic_base",
        "interrupt_bitmap",
    )
    SIZE: ClassVar[int] = 0x138

    def pack(self) -> bytes:
        """The structure's bytes."""
        parts = [getattr(self, name).pack() for name in self.SEGMENTS]
        parts += [self.gdt.pack(), self.idt.pack()]
        parts.append(self.CONTROL.pack(*(getattr(self, name) for name in self.CONTROL_NAMES)))
        return b"".join(parts)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> Sregs:
        """From the structure's bytes."""
        step = Segment.LAYOUT.size
        segments = [Segment.unpack(data, offset + step * index) for index in range(len(cls.SEGMENTS))]
        tables = offset + step * len(cls.SEGMENTS)
        gdt = Dtable.unpack(data, tables)
        idt = Dtable.unpack(data, tables + Dtable.LAYOUT.size)
        control = cls.CONTROL.unpack_from(data, tables + 2 * Dtable.LAYOUT.size)
        sregs = cls(gdt=gdt, idt=idt)
        for name, value in (
            *zip(cls.SEGMENTS, segments, strict=True),
            *zip(cls.CONTROL_NAMES, control, strict=True),
        ):
            setattr(sregs, name, value)
        return sregs


@dataclass(slots=True)
class CpuidEntry:
    """struct kvm_cpuid_entry2."""

    function: int
    index: int = 0
    flags: int = 0
    eax: int = 0
    ebx: int = 0
    ecx: int = 0
    edx: int = 0

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<7I12x")

    def pack(self) -> bytes:
        """The structure's bytes."""
        return self.LAYOUT.pack(self.function, self.index, self.flags, self.eax, self.ebx, self.ecx, self.edx)

    @classmethod
    def unpack(cls, data: bytes | bytearray | memoryview, offset: int = 0) -> CpuidEntry:
        """From the structure's bytes."""
        return cls(*cls.LAYOUT.unpack_from(data, offset))
