"""Rows: single step, I/O breakpoints, interrupts between elements."""

from __future__ import annotations

from typing import Any

from kvm.emulate.case import ALL_MODES, PROTECTED, Case, in_modes

RAX = 0x1122_3344_5566_7788
IN_AL = {"rax": RAX & ~0xFF | 1}
COM1 = 0x3F8
TF = 0x100
BS = 0x4000
DE = 1 << 3
IO, LEN2, LEN4 = 0b10 << 16, 0b01 << 18, 0b11 << 18
ENABLE0, GLOBAL0 = 1, 2


def breakpoint0(address: int, control: int, **setup: Any) -> dict[str, Any]:
    return {"cr4": DE, "debug_registers": {0: address, 7: control}, **setup}


SINGLE_STEP = in_modes(
    ALL_MODES,
    Case("TF: trap after IN", "", "in al, dx", after=IN_AL, trap=BS, setup={"flags": TF}),
    Case("TF: trap after OUT", "", "out dx, al", trap=BS, setup={"flags": TF}),
    Case(
        "TF: trap after one element of INS",
        "",
        "rep insw",
        {"rcx": 3},
        {"rcx": 2, "rdi": 0x2002},
        paused=True,
        trap=BS,
        stored={0x2000: "01 02"},
        reads=((COM1, 2, 1),),
        setup={"flags": TF},
    ),
    Case(
        "TF: trap after one element of OUTS",
        "",
        "rep outsb",
        {"rcx": 3},
        {"rcx": 2, "rsi": 0x3001},
        paused=True,
        trap=BS,
        writes=((COM1, 1, "00"),),
        setup={"flags": TF},
    ),
    Case(
        "TF: the last element ends the instruction",
        "",
        "rep insb",
        {"rcx": 1},
        {"rcx": 0, "rdi": 0x2001},
        trap=BS,
        stored={0x2000: "01"},
        setup={"flags": TF},
    ),
    Case("TF: trap with rCX = 0", "", "rep insb", {"rcx": 0}, trap=BS, setup={"flags": TF}),
    Case("TF: no trap after a fault", "", "lock in al, dx", fault="#UD", setup={"flags": TF}),
    Case(
        "TF: trap after the exit of IN",
        "",
        "in al, dx",
        after=IN_AL,
        trap=BS,
        exit=("in", 1, COM1, 1, ""),
        setup={"flags": TF},
    ),
    Case(
        "TF: trap after the exit of OUT",
        "",
        "out dx, al",
        trap=BS,
        exit=("out", 1, COM1, 1, "88"),
        setup={"flags": TF},
    ),
    Case(
        "TF: one element an exit",
        "",
        "rep insb",
        {"rcx": 3},
        {"rcx": 2, "rdi": 0x2001},
        paused=True,
        trap=BS,
        stored={0x2000: "01"},
        exit=("in", 1, COM1, 1, ""),
        setup={"flags": TF},
    ),
)

BREAKPOINTS = (
    *in_modes(
        ALL_MODES,
        Case("hit", "", "in al, dx", after=IN_AL, trap=1, setup=breakpoint0(COM1, ENABLE0 | IO)),
        Case("globally enabled", "", "out dx, al", trap=1, setup=breakpoint0(COM1, GLOBAL0 | IO)),
        Case(
            "trap after each element",
            "",
            "rep insb",
            {"rcx": 3},
            {"rcx": 2, "rdi": 0x2001},
            paused=True,
            trap=1,
            stored={0x2000: "01"},
            reads=((COM1, 1, 1),),
            setup=breakpoint0(COM1, ENABLE0 | IO),
        ),
        Case("rCX = 0: no access, no trap", "", "rep insb", {"rcx": 0}, setup=breakpoint0(COM1, ENABLE0 | IO)),
    ),
    *in_modes(
        "long",
        Case("CR4.DE clear", "", "out dx, al", setup=breakpoint0(COM1, ENABLE0 | IO, cr4=0)),
        Case("disabled", "", "out dx, al", setup=breakpoint0(COM1, IO)),
        Case("another port", "", "out dx, al", setup=breakpoint0(COM1 + 1, ENABLE0 | IO)),
        Case("another type", "", "out dx, al", setup=breakpoint0(COM1, ENABLE0 | 0b11 << 16)),
        Case("a wide access touches it", "", "out dx, eax", trap=1, setup=breakpoint0(COM1 + 3, ENABLE0 | IO)),
        Case(
            "a wide range is touched",
            "",
            "out dx, al",
            {"rdx": COM1 + 3},
            trap=1,
            setup=breakpoint0(COM1, ENABLE0 | IO | LEN4),
        ),
        Case("a wide range is aligned", "", "out dx, al", trap=1, setup=breakpoint0(COM1 + 1, ENABLE0 | IO | LEN2)),
        Case(
            "a wide range ends", "", "out dx, al", {"rdx": COM1 + 2}, setup=breakpoint0(COM1, ENABLE0 | IO | LEN2)
        ),
        Case("with TF", "", "out dx, al", trap=BS | 1, setup=breakpoint0(COM1, ENABLE0 | IO, flags=TF)),
        Case(
            "breakpoint 3",
            "",
            "out dx, al",
            trap=8,
            setup={"cr4": DE, "debug_registers": {3: COM1, 7: 1 << 6 | 0b10 << 28}},
        ),
    ),
)

INTERRUPTS = (
    *in_modes(
        ALL_MODES,
        Case(
            "an interrupt stops INS after a block",
            "",
            "rep insb",
            {"rdi": 0x2FFE, "rcx": 5},
            {"rdi": 0x3000, "rcx": 3},
            paused=True,
            stored={0x2FFE: "01 02"},
            reads=((COM1, 1, 2),),
            setup={"interrupt": True},
        ),
        Case(
            "an interrupt stops OUTS after a block",
            "",
            "rep outsb",
            {"rsi": 0x3FFE, "rcx": 5},
            {"rsi": 0x4000, "rcx": 3},
            paused=True,
            writes=((COM1, 1, "00 00"),),
            setup={"interrupt": True},
        ),
        Case(
            "no pause when nothing is left",
            "",
            "rep insb",
            {"rcx": 2},
            {"rdi": 0x2002, "rcx": 0},
            stored={0x2000: "01 02"},
            setup={"interrupt": True},
        ),
        Case(
            "no pause without REP",
            "",
            "insb",
            after={"rdi": 0x2001},
            stored={0x2000: "01"},
            setup={"interrupt": True},
        ),
    ),
    *in_modes(
        f"{PROTECTED} long",
        Case(
            "a step stops after 4096 elements",
            "",
            "rep outsb",
            {"rcx": 5000, "rsi": 0x3800},
            {"rcx": 904, "rsi": 0x4800},
            paused=True,
            writes=((COM1, 1, "00" * 0x800), (COM1, 1, "00" * 0x800)),
        ),
    ),
)

CASES = (*SINGLE_STEP, *BREAKPOINTS, *INTERRUPTS)
