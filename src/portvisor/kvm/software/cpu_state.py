"""KVM's register structures out of, and into, Unicorn's CPU state (`CPUX86State` of 2.1.4, byte offsets).

`hflags` is Unicorn's digest of the registers that translation depends on; whoever writes those registers
writes it too. The offsets that the C half needs as well are checked there when the engine is opened.
"""

from __future__ import annotations

import struct
from typing import Protocol

from portvisor.kvm.abi import Dtable, Regs, Segment, Sregs
from portvisor.kvm.api import EngineError

ENV_HFLAGS = 176
ENV_SEGMENTS = 184  # es cs ss ds fs gs ldt tr gdt idt
ENV_CONTROL = 424  # cr0 to cr8
ENV_EFER = 592
ENV_CR8 = 5556  # v_tpr
ENV_DEBUG = 5400  # dr0 to dr7
ENV_VENDOR = 5616
ENV_VERSION = 5628
ENV_FEATURES = 5632

GENERAL = struct.Struct("<18Q")
"""Sixteen registers in the order of their encoding, RIP, RFLAGS."""
ENCODING_ORDER = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{n}" for n in range(8, 16)))
SEGMENT = struct.Struct("<I4xQII")
"""SegmentCache: selector, base, limit, flags (the second dword of a descriptor)."""
SEGMENT_ORDER = ("es", "cs", "ss", "ds", "fs", "gs", "ldt", "tr")
TABLE_ORDER = ("gdt", "idt")
CONTROL = struct.Struct("<9Q")
DEBUG = struct.Struct("<8Q")
INTEL = b"GenuineIntel"
DWORD = struct.Struct("<I")
QWORD = struct.Struct("<Q")

DESC_TYPE_SHIFT = 8
DESC_S = 1 << 12
DESC_DPL_SHIFT = 13
DESC_P = 1 << 15
DESC_AVL = 1 << 20
DESC_L = 1 << 21
DESC_B = 1 << 22
DESC_G = 1 << 23
TSS_BUSY = 2
"""Bit of a TSS's type. Unicorn keeps TR without it, KVM and the architecture with it."""

CR0_PE = 1 << 0
CR0_MP_EM_TS = 0b1110
CR0_ET = 1 << 4
CR0_PG = 1 << 31
CR4_PAE = 1 << 5
CR4_OSFXSR = 1 << 9
CR4_SMAP = 1 << 21
EFER_LME = 1 << 8
EFER_LMA = 1 << 10
RFLAGS_RESERVED = 1 << 1
RFLAGS_VM = 1 << 17

HF_CPL = 3
HF_CS32 = 1 << 4
HF_SS32 = 1 << 5
HF_ADDSEG = 1 << 6
HF_PE = 1 << 7
HF_MP_SHIFT = 8  # from CR0's MP, EM and TS to theirs
HF_LMA = 1 << 14
HF_CS64 = 1 << 15
HF_OSFXSR = 1 << 22
HF_SMAP = 1 << 23
HF_MP_EM_TS = CR0_MP_EM_TS << HF_MP_SHIFT
HF_SIZES = HF_CS32 | HF_SS32 | HF_ADDSEG | HF_CS64
HF_COMPUTED = HF_CPL | HF_SIZES | HF_PE | HF_MP_EM_TS | HF_LMA | HF_OSFXSR | HF_SMAP


class CpuState(Protocol):
    """The part of `_softcpu.Cpu` that this module uses."""

    queued_vector: int

    def eflags(self) -> int:
        """EFLAGS whole, also while the guest runs."""
        ...

    def read_state(self, offset: int, size: int, /) -> bytes:
        """Bytes of CPUX86State."""
        ...

    def write_state(self, offset: int, data: bytes, /) -> None:
        """Change bytes of CPUX86State."""
        ...

    def flush(self, translations: bool, /) -> None:
        """Forget the TLB and, if asked, all translated code."""
        ...


def get_regs(cpu: CpuState) -> Regs:
    """KVM_GET_REGS."""
    *general, rip, _ = GENERAL.unpack(cpu.read_state(0, GENERAL.size))
    return Regs(**dict(zip(ENCODING_ORDER, general, strict=True)), rip=rip, rflags=cpu.eflags())


def set_regs(cpu: CpuState, regs: Regs) -> None:
    """KVM_SET_REGS."""
    general = [getattr(regs, name) for name in ENCODING_ORDER]
    cpu.write_state(0, GENERAL.pack(*general, regs.rip, regs.rflags | RFLAGS_RESERVED))
    _compute_hflags(cpu)


def _get_segment(selector: int, base: int, limit: int, flags: int) -> Segment:
    return Segment(
        base=base,
        limit=limit,
        selector=selector & 0xFFFF,
        type=flags >> DESC_TYPE_SHIFT & 0xF,
        present=int(bool(flags & DESC_P)),
        dpl=flags >> DESC_DPL_SHIFT & 3,
        db=int(bool(flags & DESC_B)),
        s=int(bool(flags & DESC_S)),
        l=int(bool(flags & DESC_L)),
        g=int(bool(flags & DESC_G)),
        avl=int(bool(flags & DESC_AVL)),
        unusable=int(not flags & DESC_P),
    )


def _segment_flags(segment: Segment) -> int:
    if segment.unusable:
        return 0
    return (
        segment.type << DESC_TYPE_SHIFT
        | segment.dpl << DESC_DPL_SHIFT
        | (DESC_S if segment.s else 0)
        | (DESC_P if segment.present else 0)
        | (DESC_AVL if segment.avl else 0)
        | (DESC_L if segment.l else 0)
        | (DESC_B if segment.db else 0)
        | (DESC_G if segment.g else 0)
    )


def _read_segments(cpu: CpuState) -> list[tuple[int, int, int, int]]:
    count = len(SEGMENT_ORDER) + len(TABLE_ORDER)
    return list(SEGMENT.iter_unpack(cpu.read_state(ENV_SEGMENTS, count * SEGMENT.size)))


def get_sregs(cpu: CpuState) -> Sregs:
    """KVM_GET_SREGS, but for the APIC's base."""
    caches = _read_segments(cpu)
    control = CONTROL.unpack(cpu.read_state(ENV_CONTROL, CONTROL.size))
    sregs = Sregs(cr0=control[0], cr2=control[2], cr3=control[3], cr4=control[4])
    sregs.cr8 = cpu.read_state(ENV_CR8, 1)[0]
    (sregs.efer,) = QWORD.unpack(cpu.read_state(ENV_EFER, QWORD.size))
    for name, cache in zip(SEGMENT_ORDER, caches, strict=False):
        setattr(sregs, name, _get_segment(*cache))
    for name, (_, base, limit, _) in zip(TABLE_ORDER, caches[len(SEGMENT_ORDER) :], strict=True):
        setattr(sregs, name, Dtable(base, limit & 0xFFFF))
    if sregs.tr.present:
        sregs.tr.type |= TSS_BUSY
    if cpu.queued_vector >= 0:
        sregs.interrupt_bitmap = (1 << cpu.queued_vector).to_bytes(32, "little")
    return sregs


def set_sregs(cpu: CpuState, sregs: Sregs) -> None:
    """KVM_SET_SREGS, but for the APIC's base."""
    _check_control(sregs)
    caches = bytearray()
    for name in SEGMENT_ORDER:
        segment: Segment = getattr(sregs, name)
        flags = _segment_flags(segment)
        if name == "tr":
            flags &= ~(TSS_BUSY << DESC_TYPE_SHIFT)
        caches += SEGMENT.pack(segment.selector, segment.base, segment.limit, flags)
    for name in TABLE_ORDER:
        table: Dtable = getattr(sregs, name)
        caches += SEGMENT.pack(0, table.base, table.limit, 0)
    pending = int.from_bytes(sregs.interrupt_bitmap, "little")
    if pending & (pending - 1):
        raise EngineError("only one interrupt can be queued in the software CPU")
    cpu.write_state(ENV_SEGMENTS, bytes(caches))
    control = (sregs.cr0 & 0xFFFFFFFF | CR0_ET, 0, sregs.cr2, sregs.cr3, sregs.cr4 & 0xFFFFFFFF, 0, 0, 0, 0)
    cpu.write_state(ENV_CONTROL, CONTROL.pack(*control))
    cpu.write_state(ENV_EFER, QWORD.pack(sregs.efer))
    cpu.write_state(ENV_CR8, bytes((sregs.cr8 & 0xF,)))
    cpu.queued_vector = pending.bit_length() - 1
    _compute_hflags(cpu)
    cpu.flush(False)


def _check_control(sregs: Sregs) -> None:
    """Refuse what no processor can be in (SDM volume 3, 2.5 and 9.8.5)."""
    paging, long_mode = sregs.cr0 & CR0_PG, sregs.efer & EFER_LMA
    if paging and not sregs.cr0 & CR0_PE:
        raise EngineError("KVM_SET_SREGS: CR0.PG without CR0.PE")
    if bool(long_mode) != bool(paging and sregs.efer & EFER_LME):
        raise EngineError("KVM_SET_SREGS: EFER.LMA has to be CR0.PG and EFER.LME")
    if long_mode and not sregs.cr4 & CR4_PAE:
        raise EngineError("KVM_SET_SREGS: long mode without CR4.PAE")


def after_reset(cpu: CpuState) -> None:
    """Undo what Unicorn turns on for the sake of user programs."""
    sregs = get_sregs(cpu)
    sregs.cr4 = 0
    set_sregs(cpu, sregs)


def set_features(cpu: CpuState, vendor: bytes, version: int, features: bytes) -> None:
    """Let translation follow another CPUID."""
    cpu.write_state(ENV_VENDOR, vendor)
    cpu.write_state(ENV_VERSION, DWORD.pack(version))
    cpu.write_state(ENV_FEATURES, features)
    cpu.flush(True)


def is_intel(cpu: CpuState) -> bool:
    """Whose CPUID the guest sees: makers differ in details."""
    return cpu.read_state(ENV_VENDOR, len(INTEL)) == INTEL


def get_debug_registers(cpu: CpuState) -> tuple[int, ...]:
    """DR0 to DR7."""
    return DEBUG.unpack(cpu.read_state(ENV_DEBUG, DEBUG.size))


def set_dr6_bits(cpu: CpuState, bits: int) -> None:
    """What a debug exception reports."""
    offset = ENV_DEBUG + 6 * QWORD.size
    (dr6,) = QWORD.unpack(cpu.read_state(offset, QWORD.size))
    cpu.write_state(offset, QWORD.pack(dr6 | bits))


def set_cr2(cpu: CpuState, address: int) -> None:
    """The address of a page fault."""
    cpu.write_state(ENV_CONTROL + 2 * QWORD.size, QWORD.pack(address))


def _compute_hflags(cpu: CpuState) -> None:
    """IOPL, VM, TF, RF and AC are not in it: Unicorn takes them from EFLAGS at each block."""
    segments = dict(zip(SEGMENT_ORDER, _read_segments(cpu), strict=False))
    cr0, _, _, _, cr4, *_ = CONTROL.unpack(cpu.read_state(ENV_CONTROL, CONTROL.size))
    (efer,) = QWORD.unpack(cpu.read_state(ENV_EFER, QWORD.size))
    (hflags,) = DWORD.unpack(cpu.read_state(ENV_HFLAGS, DWORD.size))
    protected, vm86 = bool(cr0 & CR0_PE), bool(cpu.eflags() & RFLAGS_VM)
    code, stack = segments["cs"][3], segments["ss"][3]
    hflags = hflags & ~HF_COMPUTED | (cr0 & CR0_MP_EM_TS) << HF_MP_SHIFT
    if protected:
        hflags |= HF_PE | (3 if vm86 else stack >> DESC_DPL_SHIFT & 3)
    if cr4 & CR4_OSFXSR:
        hflags |= HF_OSFXSR
    if cr4 & CR4_SMAP:
        hflags |= HF_SMAP
    if efer & EFER_LMA:
        hflags |= HF_LMA
    if efer & EFER_LMA and code & DESC_L:
        hflags |= HF_CS64 | HF_CS32 | HF_SS32
    else:
        hflags |= (HF_CS32 if code & DESC_B else 0) | (HF_SS32 if stack & DESC_B else 0)
        based = any(segments[name][1] for name in ("ds", "es", "ss"))
        if not protected or vm86 or not code & DESC_B or based:
            hflags |= HF_ADDSEG
    cpu.write_state(ENV_HFLAGS, DWORD.pack(hflags))
