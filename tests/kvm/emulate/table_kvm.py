"""Rows: what `kvm_compat` and `read_first` change; the rules name the row of the table of deviations."""

from __future__ import annotations

from typing import Any

from kvm.emulate.case import ALL_MODES, LEGACY, Case, in_modes
from kvm.emulate.machine import TSS

RAX = 0x1122_3344_5566_7788
IN_AL = {"rax": RAX & ~0xFF | 1}
COM1 = 0x3F8
DF = 0x400
AM = AC = 1 << 18


def kvm(**setup: Any) -> dict[str, Any]:
    return {"kvm_compat": True, **setup}


def first(**setup: Any) -> dict[str, Any]:
    return {"read_first": True, **setup}


def es(**values: int) -> dict[str, Any]:
    return {"segments": {"es": values}}


def tss(**values: int) -> dict[str, Any]:
    return {"cpl": 3, "segments": {"tr": values}}


LIMIT_F = {"rdi": 0xE, "rcx": 4}
CASES = (
    *in_modes(
        ALL_MODES,
        Case(
            "K1: REP IN reads rCX elements",
            "",
            "rep in al, dx",
            {"rcx": 5},
            IN_AL,
            reads=((COM1, 1, 5),),
            setup=kvm(),
        ),
        Case("K1: at least one", "", "rep in al, dx", {"rcx": 0}, IN_AL, reads=((COM1, 1, 1),), setup=kvm()),
        Case(
            "K1: the page of rDI bounds it",
            "",
            "rep in al, dx",
            {"rcx": 9, "rdi": 0x2FFD},
            IN_AL,
            reads=((COM1, 1, 3),),
            setup=kvm(),
        ),
        Case(
            "K2: bytes of the page taken for elements",
            "",
            "rep insw",
            {"rcx": 8, "rdi": 0x2FFC},
            {"rcx": 4, "rdi": 0x3004},
            paused=True,
            stored={0x2FFC: "01 02 03 04 05 06 07 08"},
            reads=((COM1, 2, 4),),
            setup=kvm(),
        ),
        Case(
            "a block holds 1024 bytes",
            "",
            "rep insb",
            {"rcx": 2000},
            {"rcx": 976, "rdi": 0x2400},
            paused=True,
            stored={0x2000: bytes((index + 1) & 0xFF for index in range(1024)).hex()},
            reads=((COM1, 1, 1024),),
            setup=kvm(),
        ),
        Case(
            "a block holds 1024 bytes: 256 dwords",
            "",
            "rep insd",
            {"rcx": 600},
            {"rcx": 344, "rdi": 0x2400},
            paused=True,
            stored={0x2000: bytes((index + 1) & 0xFF for index in range(1024)).hex()},
            reads=((COM1, 4, 256),),
            setup=kvm(),
        ),
        Case(
            "DF=1: bytes below in the page, one at a time",
            "",
            "rep insb",
            {"rcx": 9, "rdi": 0x2003},
            {"rcx": 6, "rdi": 0x2000},
            paused=True,
            stored={0x2001: "03 02 01"},
            reads=((COM1, 1, 3),),
            setup=kvm(flags=DF),
        ),
        Case(
            "OUTS goes one by one; the string ends on the next entry",
            "",
            "rep outsb",
            {"rcx": 3},
            {"rcx": 0, "rsi": 0x3003},
            paused=True,
            writes=((COM1, 1, "00"),) * 3,
            setup=kvm(),
        ),
        Case(
            "OUTS returns when rCX is a multiple of 1024",
            "",
            "rep outsb",
            {"rcx": 1026},
            {"rcx": 1024, "rsi": 0x3002},
            paused=True,
            writes=((COM1, 1, "00"),) * 2,
            setup=kvm(interrupt=True),
        ),
        Case(
            "OUTS exits one by one",
            "",
            "rep outsb",
            {"rcx": 3},
            {"rcx": 2, "rsi": 0x3001},
            paused=True,
            exit=("out", 1, COM1, 1, "00"),
            setup=kvm(),
        ),
        Case(
            "I/O breakpoints are ignored",
            "",
            "out dx, al",
            setup=kvm(cr4=8, debug_registers={0: COM1, 7: 1 | 0b10 << 16}),
        ),
        Case(
            "TF: one element",
            "",
            "rep insb",
            {"rcx": 3},
            {"rcx": 2, "rdi": 0x2001},
            paused=True,
            trap=0x4000,
            stored={0x2000: "01"},
            setup=kvm(flags=0x100),
        ),
    ),
    *in_modes(
        LEGACY.replace("real ", ""),
        Case(
            "K3: the batch is checked as one",
            "",
            "rep insb",
            LIMIT_F,
            fault="#GP(0)",
            reads=((COM1, 1, 4),),
            setup=kvm(**es(limit=0xF)),
        ),
        Case(
            "K3, architecture: two elements first",
            "",
            "rep insb",
            LIMIT_F,
            {"rdi": 0x10, "rcx": 2},
            fault="#GP(0)",
            stored={0xE: "01 02"},
            reads=((COM1, 1, 2),),
            setup=es(limit=0xF),
        ),
        Case(
            "order: the port is read although ES faults",
            "",
            "insb",
            fault="#GP(0)",
            reads=((COM1, 1, 1),),
            setup=kvm(**es(limit=0xF)),
        ),
        Case(
            "read_first: the port is read although ES faults",
            "",
            "insb",
            fault="#GP(0)",
            reads=((COM1, 1, 1),),
            setup=first(**es(limit=0xF)),
        ),
        Case(
            "read_first: the elements before it are complete",
            "",
            "rep insb",
            LIMIT_F,
            {"rdi": 0x10, "rcx": 2},
            fault="#GP(0)",
            stored={0xE: "01 02"},
            reads=((COM1, 1, 2), (COM1, 1, 1)),
            setup=first(**es(limit=0xF)),
        ),
    ),
    Case(
        "K3: no error code in real mode",
        "real",
        "rep insb",
        LIMIT_F,
        fault="#GP",
        reads=((COM1, 1, 4),),
        setup=kvm(**es(limit=0xF)),
    ),
    *in_modes(
        "vm86 protected32 compat16 compat32 long",
        Case(
            "K2: no progress, the first page is stored",
            "",
            "rep insw",
            {"rcx": 8, "rdi": 0x2FFC},
            fault="#PF(0x6) at 0x3000",
            stored={0x2FFC: "01 02 03 04"},
            reads=((COM1, 2, 4),),
            setup=kvm(cpl=3, pages={0x3000: "none"}),
        ),
        Case(
            "K2, architecture: two elements first",
            "",
            "rep insw",
            {"rcx": 8, "rdi": 0x2FFC},
            {"rcx": 6, "rdi": 0x3000},
            fault="#PF(0x6) at 0x3000",
            stored={0x2FFC: "01 02 03 04"},
            reads=((COM1, 2, 2),),
            setup={"cpl": 3, "pages": {0x3000: "none"}},
        ),
        Case(
            "operand across pages: the first part is stored",
            "",
            "insd",
            {"rdi": 0x2FFE},
            fault="#PF(0x6) at 0x3000",
            stored={0x2FFE: "01 02"},
            reads=((COM1, 4, 1),),
            setup=kvm(cpl=3, pages={0x3000: "none"}),
        ),
        Case(
            "read_first: nothing is stored across pages",
            "",
            "insd",
            {"rdi": 0x2FFE},
            fault="#PF(0x6) at 0x3000",
            reads=((COM1, 4, 1),),
            setup=first(cpl=3, pages={0x3000: "none"}),
        ),
        Case(
            "DF=1: the batch is the offset in the page",
            "",
            "rep insb",
            {"rdi": 0x3001, "rcx": 2},
            {"rdi": 0x3000, "rcx": 1},
            paused=True,
            stored={0x3001: "01"},
            reads=((COM1, 1, 1),),
            setup=kvm(cpl=3, flags=DF, pages={0x2000: "none"}),
        ),
        Case(
            "K2, DF=1: the batch runs below the page, its rest is lost",
            "",
            "rep insw",
            {"rdi": 0x3004, "rcx": 9},
            {"rdi": 0x2FFE, "rcx": 6},
            fault="#PF(0x6) at 0x2ffe",
            stored={0x3000: "05 06 03 04 01 02"},
            reads=((COM1, 2, 4),),
            setup=kvm(cpl=3, flags=DF, pages={0x2000: "none"}),
        ),
        Case(
            "K5: a fault on the TSS is #GP", "", "in al, dx", fault="#GP(0)", setup=kvm(cpl=3, pages={TSS: "none"})
        ),
        Case(
            "exit, then the page is gone",
            "",
            "insb",
            fault="#PF(0x6) at 0x2000",
            exit=("in", 1, COM1, 1, ""),
            setup=kvm(cpl=3, pages={0x2000: "none"}),
        ),
        Case(
            "read_first: exit, then the fault",
            "",
            "rep insw",
            {"rcx": 4},
            fault="#PF(0x6) at 0x2000",
            exit=("in", 2, COM1, 1, ""),
            setup=first(cpl=3, pages={0x2000: "none"}),
        ),
    ),
    *in_modes(
        "vm86 protected16 protected32 compat16 compat32 long",
        Case("K4: only the first map byte", "", "in al, dx", after=IN_AL, setup=kvm(**tss(limit=0xE7))),
        Case("K4: the first byte still counts", "", "in al, dx", fault="#GP(0)", setup=kvm(**tss(limit=0xE6))),
        Case(
            "K4: limit 67 still counts", "", "in al, dx", {"rdx": 0}, fault="#GP(0)", setup=kvm(**tss(limit=0x66))
        ),
        Case("the TSS type is not looked at", "", "in al, dx", after=IN_AL, setup=kvm(**tss(type=3))),
        Case(
            "no #AC",
            "",
            "insw",
            {"rdi": 0x2001},
            {"rdi": 0x2003},
            stored={0x2001: "01 02"},
            setup=kvm(cpl=3, cr0=AM, flags=AC),
        ),
        Case("no #AC", "", "outsw", {"rsi": 0x3001}, {"rsi": 0x3003}, setup=kvm(cpl=3, cr0=AM, flags=AC)),
    ),
)
