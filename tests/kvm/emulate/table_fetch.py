"""Rows: fetch faults, instruction length, modes that cannot be."""

from __future__ import annotations

from kvm.emulate.case import ALL_MODES, LEGACY, PROTECTED, Case, in_modes

RAX = 0x1122_3344_5566_7788
IN_AL = {"rax": RAX & ~0xFF | 1}
NXE = 1 << 11
SMEP = 1 << 20
FIFTEEN = "hex:" + "3e " * 14 + "ec"
SIXTEEN = "hex:" + "3e " * 15 + "ec"

LENGTH = (
    *in_modes(
        ALL_MODES,
        Case("15 bytes", "", FIFTEEN, after=IN_AL),
        Case("15 bytes with the port", "", "hex:" + "3e " * 13 + "e4 60", after=IN_AL, reads=((0x60, 1, 1),)),
    ),
    *in_modes(
        f"vm86 {PROTECTED} long",
        Case("16 bytes", "", SIXTEEN, fault="#GP(0)", reads=()),
        Case("the port is byte 16", "", "hex:" + "3e " * 14 + "e4 60", fault="#GP(0)", reads=()),
        Case("length comes before LOCK", "", "hex:" + "f0 " * 15 + "ec", fault="#GP(0)"),
        Case("15 bytes with LOCK", "", "hex:" + "f0 " * 14 + "ec", fault="#UD"),
    ),
    Case("16 bytes", "real", SIXTEEN, fault="#GP", reads=()),
)

LIMIT = (
    *in_modes(
        f"vm86 {PROTECTED}",
        Case("rIP beyond the limit", "", "in al, dx", fault="#GP(0)", setup={"segments": {"cs": {"limit": 0xFFF}}}),
        Case(
            "the opcode is beyond the limit",
            "",
            "rep insb",
            {"rcx": 1},
            fault="#GP(0)",
            reads=(),
            setup={"segments": {"cs": {"limit": 0x1000}}},
        ),
        Case(
            "the port byte is beyond the limit",
            "",
            "in al, 0x60",
            fault="#GP(0)",
            reads=(),
            setup={"segments": {"cs": {"limit": 0x1000}}},
        ),
    ),
    *in_modes(
        LEGACY,
        Case(
            "bytes not needed may lie beyond",
            "",
            "in al, dx",
            after=IN_AL,
            setup={"segments": {"cs": {"limit": 0x1000}}},
        ),
    ),
    *in_modes(
        "real",
        Case("rIP beyond FFFF", "", "in al, dx", {"rip": 0x1_0000}, fault="#GP"),
        Case("the instruction crosses FFFF", "", "in al, 0x60", {"rip": 0xFFFF}, fault="#GP"),
        Case("the last byte is FFFF", "", "in al, dx", {"rip": 0xFFFF}, IN_AL | {"rip": 0x1_0000}),
        Case(
            "CS base is added", "", "in al, dx", {"rip": 0x10}, IN_AL, setup={"segments": {"cs": {"base": 0x4000}}}
        ),
    ),
    Case(
        "64-bit mode has no limit",
        "long",
        "in al, dx",
        after=IN_AL,
        setup={"segments": {"cs": {"limit": 0, "base": 0x5000}}},
    ),
    Case("non-canonical rIP", "long", "in al, dx", {"rip": 0x8000_0000_0000}, fault="#GP(0)"),
    Case(
        "an instruction may wrap from FFFFFFFF to 0",
        "compat32",
        "hex:f3 6c",
        {"rip": 0xFFFF_FFFF, "rcx": 1},
        {"rip": 1, "rcx": 0, "rdi": 0x2001},
        stored={0x2000: "01"},
        setup={"aliases": {0xFFFF_F000: 0x4000}, "memory": {0x4FFF: b"\xf3", 0: b"\x6c"}},
    ),
)

LAST = 0x1FFF
SPLIT_DATA = {"rip": LAST, "rdi": 0x5000, "rcx": 1}
PAGES = (
    *in_modes(
        "protected32 compat16 compat32 long",
        Case("absent page, CPL 0", "", "in al, dx", fault="#PF(0) at 0x1000", setup={"pages": {0x1000: "none"}}),
        Case(
            "absent page, CPL 3",
            "",
            "in al, dx",
            fault="#PF(0x4) at 0x1000",
            setup={"cpl": 3, "pages": {0x1000: "none"}},
        ),
        Case(
            "supervisor page, CPL 3",
            "",
            "in al, dx",
            fault="#PF(0x5) at 0x1000",
            setup={"cpl": 3, "pages": {0x1000: "super"}},
        ),
        Case(
            "SMEP: user page, CPL 0",
            "",
            "in al, dx",
            fault="#PF(0x11) at 0x1000",
            setup={"cr4": SMEP, "pages": {}, "paging": "legacy"},
        ),
        Case(
            "SMEP: absent page has the fetch bit",
            "",
            "in al, dx",
            fault="#PF(0x10) at 0x1000",
            setup={"cr4": SMEP, "pages": {0x1000: "none"}},
        ),
        Case(
            "SMEP: supervisor page", "", "in al, dx", after=IN_AL, setup={"cr4": SMEP, "pages": {0x1000: "super"}}
        ),
        Case(
            "the instruction crosses into an absent page",
            "",
            "rep insb",
            SPLIT_DATA,
            fault="#PF(0) at 0x2000",
            reads=(),
            setup={"pages": {0x2000: "none"}},
        ),
        Case(
            "the instruction crosses into a present page",
            "",
            "rep insb",
            SPLIT_DATA,
            {"rcx": 0, "rdi": 0x5001},
            stored={0x5000: "01"},
            setup={"pages": {0x3000: "ro"}},
        ),
        Case(
            "the port byte lies in an absent page",
            "",
            "in al, 0x60",
            {"rip": LAST},
            fault="#PF(0) at 0x2000",
            setup={"pages": {0x2000: "none"}},
        ),
        Case(
            "the next page is not needed", "", "in al, dx", {"rip": LAST}, IN_AL, setup={"pages": {0x2000: "none"}}
        ),
        Case(
            "the fetch fault comes before LOCK",
            "",
            "lock in al, dx",
            {"rip": LAST},
            fault="#PF(0) at 0x2000",
            setup={"pages": {0x2000: "none"}},
        ),
        Case(
            "15 bytes that end a page say enough",
            "",
            SIXTEEN,
            {"rip": 0x2000 - 15},
            fault="#GP(0)",
            setup={"pages": {0x2000: "none"}},
        ),
    ),
    *in_modes(
        "compat16 compat32 long",
        Case(
            "NX page, CPL 0",
            "",
            "in al, dx",
            fault="#PF(0x11) at 0x1000",
            setup={"efer": NXE, "pages": {0x1000: "nx"}},
        ),
        Case(
            "NX page, CPL 3",
            "",
            "in al, dx",
            fault="#PF(0x15) at 0x1000",
            setup={"efer": NXE, "cpl": 3, "pages": {0x1000: "nx"}},
        ),
        Case(
            "NX without NXE is reserved",
            "",
            "in al, dx",
            fault="#PF(0x9) at 0x1000",
            setup={"pages": {0x1000: "nx"}},
        ),
        Case(
            "NX does not matter to data",
            "",
            "insb",
            after={"rdi": 0x2001},
            stored={0x2000: "01"},
            setup={"efer": NXE, "pages": {0x2000: "nx"}},
        ),
    ),
)

OTHER = (
    *in_modes(
        ALL_MODES,
        Case("another instruction", "", "hex:90", unhandleable="not an I/O instruction: opcode 90"),
        Case("another instruction with REP", "", "hex:f3 a4", unhandleable="not an I/O instruction: opcode a4"),
    ),
    Case("40 is INC outside 64-bit mode", "protected32", "hex:40 ec", unhandleable="opcode 40"),
    Case(
        "VM86 in long mode",
        "compat16",
        "hex:ec",
        unhandleable="RFLAGS.VM is set in long mode",
        setup={"flags": 1 << 17},
    ),
    Case("CS.L and CS.D", "long", "hex:ec", unhandleable="CS.L and CS.D", setup={"segments": {"cs": {"db": 1}}}),
    Case("LMA without paging", "real", "hex:ec", unhandleable="EFER.LMA is set", setup={"efer": 1 << 10}),
    Case("paging in real mode", "real", "hex:ec", unhandleable="CR0.PG is set", setup={"cr0": 1 << 31}),
    Case("VM in real mode", "real", "hex:ec", unhandleable="RFLAGS.VM is set", setup={"flags": 1 << 17}),
)

CASES = (*LENGTH, *LIMIT, *PAGES, *OTHER)
