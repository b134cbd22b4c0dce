"""The mode that a vCPU is in, as far as I/O instructions care."""

from __future__ import annotations

from enum import IntEnum

from portvisor.kvm.abi import Segment
from portvisor.kvm.emulate.errors import ModeError
from portvisor.kvm.emulate.x86 import CR0_PE, CR0_PG, EFER_LMA, RFLAGS_VM


class Mode(IntEnum):
    """KVM's X86EMUL_MODE_*. Compatibility mode is PROT16 or PROT32."""

    REAL = 0
    VM86 = 1
    PROT16 = 2
    PROT32 = 3
    PROT64 = 4


REAL, VM86, PROT16, PROT32, PROT64 = (int(mode) for mode in Mode)
"""The same as plain integers, for the paths where speed matters."""

CODE_BITS = (16, 16, 16, 32, 64)
"""Default width of code by mode."""


def current_mode(cr0: int, efer: int, rflags: int, cs: Segment) -> int:
    """The `Mode` that these registers stand for.

    Raises:
        ModeError: no CPU can be in such a state; the text says why.
    """
    if efer & EFER_LMA:
        if cr0 & (CR0_PE | CR0_PG) != CR0_PE | CR0_PG:
            raise ModeError("impossible mode: EFER.LMA is set, CR0.PE or CR0.PG is clear")
        if rflags & RFLAGS_VM:
            raise ModeError("impossible mode: RFLAGS.VM is set in long mode (EFER.LMA is set)")
        if not cs.l:
            return PROT32 if cs.db else PROT16
        if cs.db:
            raise ModeError("impossible mode: CS.L and CS.D are both set")
        return PROT64
    if not cr0 & CR0_PE:
        if cr0 & CR0_PG:
            raise ModeError("impossible mode: CR0.PG is set, CR0.PE is clear")
        if rflags & RFLAGS_VM:
            raise ModeError("impossible mode: RFLAGS.VM is set, CR0.PE is clear")
        return REAL
    if rflags & RFLAGS_VM:
        return VM86
    return PROT32 if cs.db else PROT16
