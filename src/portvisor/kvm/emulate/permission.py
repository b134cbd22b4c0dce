"""May this code touch this port? CPL against IOPL, then the I/O permission bitmap of the TSS.

Source: Intel SDM vol. 1, sections 19.5.1 (IOPL) and 19.5.2 (I/O permission bit map); vol. 3, 8.2.1 and 8.7 (TSS).
"""

from __future__ import annotations

from typing import Any

from portvisor.kvm.abi import Segment
from portvisor.kvm.emulate.deviations import ARCHITECTURE, Deviations
from portvisor.kvm.emulate.errors import GuestException, general_protection
from portvisor.kvm.emulate.mode import REAL, VM86
from portvisor.kvm.emulate.ops import EmulateOps
from portvisor.kvm.emulate.trace import Step
from portvisor.kvm.emulate.x86 import EFER_LMA, MASK32, MASK64, RFLAGS_IOPL_SHIFT, TSS32_AVAILABLE, TSS32_BUSY

MAP_BASE_OFFSET = 0x66
"""Offset of the I/O map base address, in the 32-bit and in the 64-bit TSS."""
TSS_MINIMUM_LIMIT = 0x67


def check_io_permission(
    ops: EmulateOps,
    mode: int,
    port: int,
    size: int,
    deviations: Deviations = ARCHITECTURE,
    steps: list[Step] | None = None,
) -> None:
    """Return if the access is allowed.

    Raises:
        GuestException: #GP(0) if it is not; #PF if the TSS cannot be read.
    """
    if mode == REAL:
        if steps is not None:
            steps.append(Step("permission", "real mode: every port is allowed", {"allowed": True}))
        return
    iopl = ops.regs.rflags >> RFLAGS_IOPL_SHIFT & 3
    if mode != VM86 and ops.cpl <= iopl:
        if steps is not None:
            text = f"CPL {ops.cpl} <= IOPL {iopl}: every port is allowed"
            steps.append(Step("permission", text, {"allowed": True, "cpl": ops.cpl, "iopl": iopl}))
        return
    figures: dict[str, Any] | None = None
    if steps is not None:
        figures = {"cpl": ops.cpl, "iopl": iopl, "vm86": mode == VM86, "port": port, "size": size}
    try:
        denial = _bitmap_denial(ops, port, size, deviations, figures)
    except GuestException as fault:
        if steps is not None and figures is not None:
            steps.append(_bitmap_step(figures, f"reading the TSS faults: {fault}"))
        if deviations.tss_fault_is_gp:
            raise general_protection() from fault
        raise
    if steps is not None and figures is not None:
        steps.append(_bitmap_step(figures, denial))
    if denial:
        raise general_protection()


def _tss_denial(tr: Segment, deviations: Deviations) -> str:
    """Why this task register has no I/O bitmap at all; empty if it has."""
    if tr.unusable or not tr.present:
        return "TR holds no TSS"
    if not deviations.tss_type_unchecked and tr.type not in (TSS32_AVAILABLE, TSS32_BUSY):
        return f"TSS type {tr.type:#x} has no I/O bitmap"
    if tr.limit < TSS_MINIMUM_LIMIT:
        return f"TSS limit {tr.limit:#x} is below {TSS_MINIMUM_LIMIT:#x}"
    return ""


def _bitmap_denial(
    ops: EmulateOps, port: int, size: int, deviations: Deviations, figures: dict[str, Any] | None
) -> str:
    """Why the bitmap forbids the access; empty if it allows it. What was read goes into `figures`."""
    tr = ops.get_segment("tr")
    if figures is not None:
        figures |= {"tss_base": tr.base, "tss_limit": tr.limit, "tss_type": tr.type}
    denial = _tss_denial(tr, deviations)
    if denial:
        return denial
    linear_mask = MASK64 if ops.efer & EFER_LMA else MASK32
    map_base = int.from_bytes(ops.read_std(tr.base + MAP_BASE_OFFSET & linear_mask, 2), "little")
    offset = map_base + (port >> 3)
    if figures is not None:
        figures |= {"map_base": map_base, "map_offset": offset}
    last = offset if deviations.tss_limit_first_byte else offset + 1
    if last > tr.limit:
        return f"map byte {last:#x} lies beyond the TSS limit {tr.limit:#x}"
    word = ops.read_std(tr.base + offset & linear_mask, 2)
    mask = (1 << size) - 1 << (port & 7)
    if figures is not None:
        figures |= {"map_address": tr.base + offset & linear_mask, "map_bytes": word.hex(" "), "mask": mask}
    if int.from_bytes(word, "little") & mask:
        return f"bits {mask:#06x} of map word {int.from_bytes(word, 'little'):#06x} are not all clear"
    return ""


def _bitmap_step(figures: dict[str, Any], denial: str) -> Step:
    who = "virtual-8086 mode" if figures["vm86"] else f"CPL {figures['cpl']} > IOPL {figures['iopl']}"
    if "map_bytes" in figures:
        who += f": TSS byte {figures['map_offset']:#x} = {figures['map_bytes']}"
    verdict = denial or "the bitmap allows it"
    return Step("permission", f"{who}: {verdict}", figures | {"allowed": not denial})
