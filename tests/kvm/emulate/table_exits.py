"""Rows: nobody in the kernel claims the port: what user space sees, and what completion does."""

from __future__ import annotations

from kvm.emulate.case import ALL_MODES, Case, in_modes

RAX = 0x1122_3344_5566_7788
COM1 = 0x3F8
DF = 0x400
SOURCE = {"memory": {0x3000: bytes.fromhex("11 22 33 44 55 66 77 88")}}

CASES = tuple(
    in_modes(
        ALL_MODES,
        Case("IN AL", "", "in al, dx", after={"rax": RAX & ~0xFF | 1}, exit=("in", 1, COM1, 1, "")),
        Case("IN AX", "", "in ax, dx", after={"rax": RAX & ~0xFFFF | 0x201}, exit=("in", 2, COM1, 1, "")),
        Case("IN EAX", "", "in eax, 0x71", after={"rax": 0x0403_0201}, exit=("in", 4, 0x71, 1, "")),
        Case("OUT AL", "", "out 0x80, al", exit=("out", 1, 0x80, 1, "88")),
        Case("OUT EAX", "", "out dx, eax", exit=("out", 4, COM1, 1, "88 77 66 55")),
        Case("INSB", "", "insb", after={"rdi": 0x2001}, stored={0x2000: "01"}, exit=("in", 1, COM1, 1, "")),
        Case("OUTSW", "", "outsw", after={"rsi": 0x3002}, exit=("out", 2, COM1, 1, "11 22"), setup=SOURCE),
        Case(
            "REP INS keeps its count",
            "",
            "rep insd",
            {"rcx": 2},
            {"rcx": 0, "rdi": 0x2008},
            stored={0x2000: "01 02 03 04 05 06 07 08"},
            exit=("in", 4, COM1, 2, ""),
        ),
        Case(
            "REP INS exits page by page",
            "",
            "rep insb",
            {"rdi": 0x2FFE, "rcx": 5},
            {"rdi": 0x3000, "rcx": 3},
            paused=True,
            stored={0x2FFE: "01 02"},
            exit=("in", 1, COM1, 2, ""),
        ),
        Case(
            "REP INS with DF=1",
            "",
            "rep insw",
            {"rdi": 0x2004, "rcx": 2},
            {"rdi": 0x2000, "rcx": 0},
            stored={0x2002: "03 04 01 02"},
            exit=("in", 2, COM1, 2, ""),
            setup={"flags": DF},
        ),
        Case(
            "REP OUTS keeps its count",
            "",
            "rep outsw",
            {"rcx": 3},
            {"rcx": 0, "rsi": 0x3006},
            exit=("out", 2, COM1, 3, "11 22 33 44 55 66"),
            setup=SOURCE,
        ),
        Case(
            "REP OUTS exits page by page",
            "",
            "rep outsb",
            {"rsi": 0x3FFF, "rcx": 3},
            {"rsi": 0x4000, "rcx": 2},
            paused=True,
            exit=("out", 1, COM1, 1, "00"),
        ),
        Case(
            "REP OUTS with DF=1",
            "",
            "rep outsb",
            {"rsi": 0x3002, "rcx": 3},
            {"rsi": 0x2FFF, "rcx": 0},
            exit=("out", 1, COM1, 3, "33 22 11"),
            setup=SOURCE | {"flags": DF},
        ),
    )
)
