"""Rows: who may touch a port."""

from __future__ import annotations

from typing import Any

from kvm.emulate.case import ALL_MODES, PROTECTED, Case, in_modes
from kvm.emulate.machine import TSS

RAX = 0x1122_3344_5566_7788
IN_AL = {"rax": RAX & ~0xFF | 1}
IN_AX = {"rax": RAX & ~0xFFFF | 0x201}
IN_EAX = {"rax": 0x0403_0201}
CHECKED = f"vm86 {PROTECTED} long"
RING3 = f"{PROTECTED} long"
NUMBER = {"al": 1, "ax": 2, "eax": 4}


def tss(**values: int) -> dict[str, Any]:
    return {"segments": {"tr": values}}


def user(**setup: Any) -> dict[str, Any]:
    """CPL 3 above IOPL 0: the bitmap decides. In VM86 mode it always does."""
    return {"cpl": 3, **setup}


LEVELS = (
    Case("real mode: no check", "real", "in al, dx", after=IN_AL, setup={"closed": [0x3F8]}),
    Case("real mode: no TSS needed", "real", "in al, dx", after=IN_AL, setup=tss(present=0, unusable=1)),
    *in_modes(
        RING3,
        *(
            Case(
                f"CPL {cpl} <= IOPL {iopl}: allowed" if cpl <= iopl else f"CPL {cpl} > IOPL {iopl}: bitmap",
                "",
                "in al, dx",
                after=IN_AL if cpl <= iopl else {},
                fault="" if cpl <= iopl else "#GP(0)",
                reads=((0x3F8, 1, 1),) if cpl <= iopl else (),
                setup={"cpl": cpl, "iopl": iopl, "closed": [0x3F8]},
            )
            for cpl, iopl in ((0, 0), (0, 3), (1, 0), (1, 1), (2, 1), (2, 2), (3, 0), (3, 2), (3, 3))
        ),
    ),
    *in_modes(
        "vm86",
        *(
            Case(
                f"VM86: IOPL {iopl} does not matter",
                "",
                "in al, dx",
                fault="#GP(0)",
                setup={"iopl": iopl, "closed": [0x3F8]},
            )
            for iopl in range(4)
        ),
        Case("VM86: the bitmap allows", "", "in al, dx", after=IN_AL, setup={"iopl": 0}),
    ),
)

BITMAP = (
    *in_modes(
        CHECKED,
        Case("clear bit: IN allowed", "", "in al, dx", after=IN_AL, setup=user()),
        Case("clear bit: OUT allowed", "", "out dx, al", writes=((0x3F8, 1, "88"),), setup=user()),
        Case("set bit: IN denied", "", "in al, dx", fault="#GP(0)", reads=(), setup=user(closed=[0x3F8])),
        Case("set bit: OUT denied", "", "out dx, al", fault="#GP(0)", writes=(), setup=user(closed=[0x3F8])),
        Case("set bit: IN imm8 denied", "", "in al, 0x60", fault="#GP(0)", setup=user(closed=[0x60])),
        Case("set bit: INS denied", "", "insb", fault="#GP(0)", reads=(), setup=user(closed=[0x3F8])),
        Case("set bit: OUTS denied", "", "outsb", fault="#GP(0)", writes=(), setup=user(closed=[0x3F8])),
        Case("set bit: REP INS denied", "", "rep insb", {"rcx": 5}, fault="#GP(0)", setup=user(closed=[0x3F8])),
        Case(
            "the check comes before rCX = 0",
            "",
            "rep insb",
            {"rcx": 0},
            fault="#GP(0)",
            setup=user(closed=[0x3F8]),
        ),
        Case("rCX = 0 with an open port", "", "rep outsb", {"rcx": 0}, setup=user()),
        Case("word: the second bit counts", "", "in ax, dx", fault="#GP(0)", setup=user(closed=[0x3F9])),
        Case("dword: the last bit counts", "", "in eax, dx", fault="#GP(0)", setup=user(closed=[0x3FB])),
        Case("dword: the bit after it does not", "", "in eax, dx", after=IN_EAX, setup=user(closed=[0x3FC])),
        Case("byte: the next bit does not", "", "in al, dx", after=IN_AL, setup=user(closed=[0x3F9])),
        Case("the bit before does not", "", "in ax, dx", after=IN_AX, setup=user(closed=[0x3F7])),
        Case(
            "the bits may lie in two bytes",
            "",
            "in ax, dx",
            {"rdx": 0x3F7},
            fault="#GP(0)",
            setup=user(closed=[0x3F8]),
        ),
        Case(
            "port FFFF: the final byte is read, not tested",
            "",
            "in al, dx",
            {"rdx": 0xFFFF},
            IN_AL,
            setup=user(),
        ),
        Case("a word at FFFF meets the final FF", "", "in ax, dx", {"rdx": 0xFFFF}, fault="#GP(0)", setup=user()),
        Case("a dword at FFFD meets it", "", "in eax, dx", {"rdx": 0xFFFD}, fault="#GP(0)", setup=user()),
        Case("a dword at FFFC does not", "", "in eax, dx", {"rdx": 0xFFFC}, IN_EAX, setup=user()),
        Case("map base 0: the TSS is the bitmap", "", "in al, dx", {"rdx": 0}, IN_AL, setup=user(map_base=0)),
        Case("LOCK: #UD before the check", "", "lock in al, dx", fault="#UD", reads=(), setup=user(closed=[0x3F8])),
        Case(
            "the check comes before the segment",
            "",
            "insb",
            fault="#GP(0)",
            reads=(),
            setup=user(closed=[0x3F8], pages={0x2000: "none"}),
        ),
    ),
)

TASK_REGISTER = (
    *in_modes(
        CHECKED,
        Case("TR not present", "", "in al, dx", fault="#GP(0)", setup=user(**tss(present=0))),
        Case("TR unusable", "", "in al, dx", fault="#GP(0)", setup=user(**tss(unusable=1))),
        Case("available TSS (9)", "", "in al, dx", after=IN_AL, setup=user(**tss(type=9))),
        Case("busy TSS (B)", "", "in al, dx", after=IN_AL, setup=user(**tss(type=0xB))),
        Case("a 16-bit TSS has no bitmap (1)", "", "in al, dx", fault="#GP(0)", setup=user(**tss(type=1))),
        Case("a 16-bit TSS has no bitmap (3)", "", "in al, dx", fault="#GP(0)", setup=user(**tss(type=3))),
        Case("TSS limit below 67", "", "in al, dx", {"rdx": 0}, fault="#GP(0)", setup=user(**tss(limit=0x66))),
        Case(
            "TSS limit 67: base 66 has its two bytes",
            "",
            "in al, dx",
            {"rdx": 0},
            IN_AL,
            setup=user(**tss(limit=0x67), memory={TSS + 0x66: b"\x66\x00"}, closed=[]),
        ),
        Case("no second byte inside the limit", "", "in al, dx", fault="#GP(0)", setup=user(**tss(limit=0xE7))),
        Case("second byte on the limit", "", "in al, dx", after=IN_AL, setup=user(**tss(limit=0xE8))),
        Case("no first byte inside the limit", "", "in al, dx", fault="#GP(0)", setup=user(**tss(limit=0xE6))),
        Case(
            "map base beyond the limit: no port at all",
            "",
            "in al, dx",
            {"rdx": 0},
            fault="#GP(0)",
            setup=user(memory={TSS + 0x66: b"\xff\xff"}),
        ),
    ),
    *in_modes(
        f"vm86 {PROTECTED} long",
        Case(
            "the TSS may lie in a supervisor page",
            "",
            "in al, dx",
            after=IN_AL,
            setup=user(pages={TSS: "super-ro"}),
        ),
        Case(
            "reading the map base may fault: supervisor read",
            "",
            "in al, dx",
            fault=f"#PF(0) at {TSS + 0x66:#x}",
            reads=(),
            setup=user(pages={TSS: "none"}),
        ),
        Case(
            "reading the map may fault",
            "",
            "in al, dx",
            {"rdx": 0x8000},
            fault=f"#PF(0) at {TSS + 0x68 + 0x1000:#x}",
            setup=user(pages={TSS + 0x1000: "none"}),
        ),
        Case(
            "the second byte of the map may fault",
            "",
            "in al, dx",
            {"rdx": 8 * (0xFFF - 0x68)},
            fault=f"#PF(0) at {TSS + 0x1000:#x}",
            setup=user(pages={TSS + 0x1000: "none"}),
        ),
    ),
    *in_modes(
        RING3,
        Case("CPL 0 does not look at the TSS", "", "in al, dx", after=IN_AL, setup={"pages": {TSS: "none"}}),
    ),
    Case(
        "64-bit TSS base",
        "long",
        "in al, dx",
        after=IN_AL,
        setup=user(
            segments={"tr": {"base": 0xFFFF_8000_0000_0000}},
            aliases={0xFFFF_8000_0000_0000 + page: TSS + page for page in (0, 0x1000, 0x2000)},
        ),
    ),
    Case(
        "SMAP: the TSS read is implicit, RFLAGS.AC does not help",
        "long",
        "in al, dx",
        fault=f"#PF(0x1) at {TSS + 0x66:#x}",
        setup=user(cr4=1 << 21, flags=1 << 18),
    ),
)

OPEN_BY_DEFAULT = in_modes(ALL_MODES, Case("an open port", "", "in ax, dx", after=IN_AX, setup={}))

CASES = (*LEVELS, *BITMAP, *TASK_REGISTER, *OPEN_BY_DEFAULT)
