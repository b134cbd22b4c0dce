"""Register states to start from: a vCPU in any mode with flat segments, a TSS, identity-mapped page tables."""

from __future__ import annotations

from collections.abc import Iterable

from portvisor.kvm.abi import Regs, Segment, Sregs
from portvisor.kvm.emulate.errors import EmulateError, ModeError
from portvisor.kvm.emulate.paging import PTE_P, PTE_PS, PTE_RW, PTE_US, WritePhysical
from portvisor.kvm.emulate.permission import MAP_BASE_OFFSET
from portvisor.kvm.emulate.x86 import (
    CR0_ET,
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    EFER_LME,
    MASK32,
    PAGE_SIZE,
    RFLAGS_FIXED,
    RFLAGS_IOPL_SHIFT,
    RFLAGS_VM,
    TSS32_BUSY,
)

MODE_NAMES = ("real", "vm86", "protected16", "protected32", "compat16", "compat32", "long")
"""Modes by name; `MODE_ALIASES` are accepted too."""
MODE_ALIASES = {"protected": "protected32", "compat": "compat32", "compatibility": "compat32", "long64": "long"}
MODE_BITS = {
    "real": 16,
    "vm86": 16,
    "protected16": 16,
    "protected32": 32,
    "compat16": 16,
    "compat32": 32,
    "long": 64,
}
"""Width of the code in each mode."""

TSS_SIZE = 104
IDENTITY_TABLE_BYTES = 2 * PAGE_SIZE
_LONG_MODES = ("compat16", "compat32", "long")
_GIB = 1 << 30
_PORTS = 0x10000
_CODE_TYPE, _DATA_TYPE = 0xB, 0x3


def mode_name(name: str) -> str:
    """The mode's proper name.

    Raises:
        ModeError: no such mode; the text lists them.
    """
    proper = MODE_ALIASES.get(name.lower(), name.lower())
    if proper not in MODE_NAMES:
        raise ModeError(f"unknown mode {name!r}: one of {', '.join(MODE_NAMES)}")
    return proper


def _privilege(mode: str, cpl: int | None) -> int:
    fixed = {"real": 0, "vm86": 3}.get(mode)
    if cpl is None:
        return fixed or 0
    if cpl not in range(4):
        raise ModeError(f"CPL {cpl} is not 0 to 3")
    if fixed is not None and cpl != fixed:
        raise ModeError(f"CPL is always {fixed} in {mode} mode")
    return cpl


def initial_state(mode: str, cpl: int | None = None, iopl: int = 0) -> tuple[Regs, Sregs]:
    """Registers of a vCPU in a mode: flat segments with base 0, all general registers 0.

    In the long modes CR3 is 0 and must be pointed at page tables (`write_identity_tables`).

    Args:
        mode: one of MODE_NAMES.
        cpl: privilege level; default 0, in vm86 mode 3.
        iopl: I/O privilege level in RFLAGS.

    Raises:
        ModeError: an unknown mode, or a CPL or IOPL that it cannot have.
    """
    mode = mode_name(mode)
    cpl = _privilege(mode, cpl)
    if iopl not in range(4):
        raise ModeError(f"IOPL {iopl} is not 0 to 3")
    wide = int(mode not in ("real", "vm86"))
    limit, selector = (MASK32, 8 | cpl) if wide else (0xFFFF, 0)
    d_bit = int(MODE_BITS[mode] == 32)

    def data() -> Segment:
        return Segment(limit=limit, selector=selector, type=_DATA_TYPE, dpl=cpl, g=wide, db=d_bit)

    code = data()
    code.type = _CODE_TYPE if wide else _DATA_TYPE
    code.l = int(mode == "long")
    cr0 = CR0_ET | (CR0_PE if mode != "real" else 0)
    task = Segment(type=TSS32_BUSY, s=0)
    sregs = Sregs(code, data(), data(), data(), data(), data(), task, cr0=cr0)
    if mode in _LONG_MODES:
        sregs.cr0 |= CR0_PG
        sregs.cr4 = CR4_PAE
        sregs.efer = EFER_LME | EFER_LMA
    rflags = RFLAGS_FIXED | iopl << RFLAGS_IOPL_SHIFT | (RFLAGS_VM if mode == "vm86" else 0)
    return Regs(rflags=rflags), sregs


def build_tss(open_ports: Iterable[int] = (), map_base: int = TSS_SIZE) -> bytes:
    """A 32- or 64-bit TSS, empty but for its I/O bitmap: a clear bit for each open port, the final FF byte.

    Raises:
        EmulateError: a port beyond FFFF.
    """
    bitmap = bytearray(b"\xff" * (_PORTS // 8 + 1))
    for port in open_ports:
        if not 0 <= port < _PORTS:
            raise EmulateError(f"port {port:#x} is not in 0-0xffff")
        bitmap[port >> 3] &= ~(1 << (port & 7))
    head = bytearray(map_base)
    head[MAP_BASE_OFFSET : MAP_BASE_OFFSET + 2] = map_base.to_bytes(2, "little")
    return bytes(head + bitmap)


def write_identity_tables(write: WritePhysical, base: int) -> None:
    """4-level page tables at `base` (IDENTITY_TABLE_BYTES) that map the low 4 GiB onto themselves, for all."""
    rights = PTE_P | PTE_RW | PTE_US
    pointers = base + PAGE_SIZE
    write(base, (pointers | rights).to_bytes(8, "little"))
    for index in range(4):
        write(pointers + 8 * index, (index * _GIB | rights | PTE_PS).to_bytes(8, "little"))
