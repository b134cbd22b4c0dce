"""Architectural bits that the emulator tests: RFLAGS, CR0, CR4, EFER, exception vectors, descriptor types.

Source: Intel SDM vol. 3, sections 2.3-2.5 (flags and control registers), 6.3 (vectors), 3.4.5.1 (types).
"""

from __future__ import annotations

MASK16 = 0xFFFF
MASK32 = 0xFFFF_FFFF
MASK64 = 0xFFFF_FFFF_FFFF_FFFF
PAGE_SIZE = 4096
PAGE_OFFSET = PAGE_SIZE - 1

RFLAGS_FIXED = 1 << 1
RFLAGS_TF = 1 << 8
RFLAGS_DF = 1 << 10
RFLAGS_IOPL_SHIFT = 12
RFLAGS_RF = 1 << 16
RFLAGS_VM = 1 << 17
RFLAGS_AC = 1 << 18

CR0_PE = 1 << 0
CR0_ET = 1 << 4
CR0_WP = 1 << 16
CR0_AM = 1 << 18
CR0_PG = 1 << 31

CR4_DE = 1 << 3
CR4_PSE = 1 << 4
CR4_PAE = 1 << 5
CR4_LA57 = 1 << 12
CR4_SMEP = 1 << 20
CR4_SMAP = 1 << 21

EFER_LME = 1 << 8
EFER_LMA = 1 << 10
EFER_NXE = 1 << 11

DB_VECTOR = 1
UD_VECTOR = 6
SS_VECTOR = 12
GP_VECTOR = 13
PF_VECTOR = 14
AC_VECTOR = 17

VECTOR_NAMES = {
    DB_VECTOR: "#DB",
    UD_VECTOR: "#UD",
    SS_VECTOR: "#SS",
    GP_VECTOR: "#GP",
    PF_VECTOR: "#PF",
    AC_VECTOR: "#AC",
}

PF_PRESENT = 1 << 0
PF_WRITE = 1 << 1
PF_USER = 1 << 2
PF_RESERVED = 1 << 3
PF_FETCH = 1 << 4

# Bits 3:0 of a segment's type field (`abi.Segment.type`, s = 1).
TYPE_CODE = 1 << 3
TYPE_EXPAND_DOWN = 1 << 2  # data segments
TYPE_WRITABLE = 1 << 1  # data segments
TYPE_READABLE = 1 << 1  # code segments

# Types of a system segment (s = 0).
TSS32_AVAILABLE = 0x9  # in long mode: the 64-bit TSS
TSS32_BUSY = 0xB

DR6_BS = 1 << 14
