"""A vCPU at an exit, in words: why it stopped, where, the instruction bytes there, the registers."""

from __future__ import annotations

import struct

from portvisor.kvm import abi
from portvisor.kvm.abi import ExitReason, Regs, Segment, Sregs
from portvisor.kvm.api import Vcpu
from portvisor.kvm.paging import EFER_LMA, ReadPhysical, translate

CR0_PE = 1 << 0
RFLAGS_VM = 1 << 17
INSTRUCTION_MAX = 15
MEANING = {
    ExitReason.HLT: "the guest halted",
    ExitReason.SHUTDOWN: "triple fault: an exception while delivering a double fault",
    ExitReason.FAIL_ENTRY: "the CPU refused the guest's state",
    ExitReason.INTERNAL_ERROR: "the engine cannot go on",
    ExitReason.UNKNOWN: "for a reason that the engine does not know",
}
SUBERRORS = {
    1: "an instruction that it cannot emulate",
    2: "two exceptions at once",
    3: "an exit while delivering an event",
    4: "an exit of the CPU that it does not know",
}
"""KVM_INTERNAL_ERROR_*."""
EMULATION = 1
EMULATION_BYTES = abi.RUN_UNION + 16
"""emulation_failure.insn_size and, behind it, insn_bytes; valid if bit 0 of the flags at RUN_INTERNAL_DATA is."""
NAMES_64 = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
NAMES_32 = NAMES_64[:8]
PER_LINE = 4


def describe_exit(vcpu: Vcpu, read: ReadPhysical) -> str:
    """A few lines about a vCPU that came back from `run`.

    Args:
        vcpu: of either engine.
        read: reads guest-physical memory and never raises (`ports.Ram.read`).
    """
    regs, sregs = vcpu.get_regs(), vcpu.get_sregs()
    lines = [f"{_reason(vcpu.kvm_run)} at {_place(regs, sregs)}, {_mode(regs, sregs)}"]
    lines.append(f"code {_code(regs, sregs, read)}")
    lines += _registers(regs, sregs)
    lines.append("  ".join(_segment(name, getattr(sregs, name)) for name in ("cs", "ss", "ds", "es")))
    lines.append(
        f"CR0={sregs.cr0:08x} CR2={sregs.cr2:08x} CR3={sregs.cr3:08x} CR4={sregs.cr4:08x} EFER={sregs.efer:x}  "
        f"GDT={sregs.gdt.base:08x}+{sregs.gdt.limit:x} IDT={sregs.idt.base:08x}+{sregs.idt.limit:x}"
    )
    return "\n".join(lines)


def _reason(run: memoryview) -> str:
    (number,) = struct.unpack_from("<I", run, abi.RUN_EXIT_REASON)
    try:
        reason = ExitReason(number)
    except ValueError:
        return f"exit {number}"
    text = f"KVM_EXIT_{reason.name}"
    if reason in MEANING:
        text += f": {MEANING[reason]}"
    if reason == ExitReason.INTERNAL_ERROR:
        text += f": {_suberror(run)}"
    if reason == ExitReason.FAIL_ENTRY:
        (hardware,) = struct.unpack_from("<Q", run, abi.RUN_FAIL_ENTRY_REASON)
        text += f" (reason {hardware:#x})"
    return text


def _suberror(run: memoryview) -> str:
    number, words = struct.unpack_from("<II", run, abi.RUN_INTERNAL_SUBERROR)
    text = SUBERRORS.get(number, f"suberror {number}")
    (flags,) = struct.unpack_from("<Q", run, abi.RUN_INTERNAL_DATA)
    if number != EMULATION:
        data = struct.unpack_from(f"<{min(words, 16)}Q", run, abi.RUN_INTERNAL_DATA)
        return text + (f" ({' '.join(f'{word:#x}' for word in data)})" if data else "")
    if words and flags & 1:
        size = min(run[EMULATION_BYTES], INSTRUCTION_MAX)
        text += f" ({run[EMULATION_BYTES + 1 : EMULATION_BYTES + 1 + size].hex(' ')})"
    return text


def _mode(regs: Regs, sregs: Sregs) -> str:
    if not sregs.cr0 & CR0_PE:
        return "real mode"
    if regs.rflags & RFLAGS_VM:
        return "virtual-8086 mode"
    width = 64 if _is_64(sregs) else 32 if sregs.cs.db else 16
    return f"{width}-bit mode, CPL {sregs.ss.dpl}"


def _is_64(sregs: Sregs) -> bool:
    return bool(sregs.efer & EFER_LMA and sregs.cs.l)


def _linear(regs: Regs, sregs: Sregs) -> int:
    return regs.rip if _is_64(sregs) else (sregs.cs.base + regs.rip) & 0xFFFF_FFFF


def _place(regs: Regs, sregs: Sregs) -> str:
    if _is_64(sregs):
        return f"RIP {regs.rip:016x}"
    digits = 8 if sregs.cs.db else 4
    return f"{sregs.cs.selector:04x}:{regs.rip:0{digits}x} (linear {_linear(regs, sregs):08x})"


def _code(regs: Regs, sregs: Sregs, read: ReadPhysical) -> str:
    """The bytes at CS:RIP, up to the first that is not mapped."""
    start = _linear(regs, sregs)
    mask = (1 << 64) - 1 if _is_64(sregs) else 0xFFFF_FFFF
    data = bytearray()
    for offset in range(INSTRUCTION_MAX):
        physical = translate(sregs, start + offset & mask, read)
        if physical is None:
            break
        data += read(physical, 1)
    return data.hex(" ") if data else "not mapped"


def _registers(regs: Regs, sregs: Sregs) -> list[str]:
    if _is_64(sregs):
        shown = [f"{name.upper():3}={getattr(regs, name):016x}" for name in NAMES_64]
    else:
        shown = [f"E{name[1:].upper()}={getattr(regs, name) & 0xFFFF_FFFF:08x}" for name in NAMES_32]
    lines = [" ".join(shown[start : start + PER_LINE]) for start in range(0, len(shown), PER_LINE)]
    lines[-1] += f" FLAGS={regs.rflags:08x}"
    return lines


def _segment(name: str, segment: Segment) -> str:
    return f"{name.upper()}={segment.selector:04x} {segment.base:08x}+{segment.limit:x}"
