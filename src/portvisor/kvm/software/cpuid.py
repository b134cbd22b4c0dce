"""CPUID of the software CPU: what Unicorn's translator implements, presented as an Atom of the first generation.

That model was never subject to speculation faults, so guests skip their (slow) mitigations; its vendor makes
them read the TSC rate from leaf 15h. There is no APIC: interrupts come from a PIC through the port space.
Leaf numbers and bits: Intel SDM volume 2A, CPUID.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from portvisor.kvm.abi import CpuidEntry

VENDOR = b"GenuineIntel"
HYPERVISOR_SIGNATURE = b"portvisorSW\0"
BRAND = b"portvisor software CPU"
VERSION = 0x000106CA  # family 6, model 1Ch, stepping 10
TSC_KHZ = 1_000_000
CRYSTAL_HZ = 1_000_000
BUS_MHZ = 100
CLFLUSH_LINE = 8 << 8  # 64 bytes, in quadwords
PHYSICAL_BITS = 40
LINEAR_BITS = 48
SIGNIFICANT_INDEX = 1  # KVM_CPUID_FLAG_SIGNIFCANT_INDEX

LEAF_VENDOR = 0x00
LEAF_FEATURES = 0x01
LEAF_CACHE_DESCRIPTORS = 0x02
LEAF_CACHES = 0x04
LEAF_STRUCTURED_FEATURES = 0x07
LEAF_TSC = 0x15
LEAF_FREQUENCIES = 0x16
LEAF_HYPERVISOR = 0x40000000
LEAF_EXTENDED = 0x80000000
LEAF_EXTENDED_FEATURES = 0x80000001
LEAF_BRAND = 0x80000002
LEAF_ADVANCED_POWER = 0x80000007
LEAF_ADDRESS_SIZES = 0x80000008

INVARIANT_TSC = 1 << 8


def _bits(*positions: int) -> int:
    return sum(1 << position for position in positions)


# FPU DE PSE TSC MSR PAE MCE CX8 SEP MTRR PGE MCA CMOV PAT PSE36 CLFSH MMX FXSR SSE SSE2
FEATURES_EDX = _bits(0, 2, 3, 4, 5, 6, 7, 8, 11, 12, 13, 14, 15, 16, 17, 19, 23, 24, 25, 26)
# SSE3 SSSE3 CX16 SSE4.1 SSE4.2 MOVBE POPCNT RDRAND hypervisor
FEATURES_ECX = _bits(0, 9, 13, 19, 20, 22, 23, 30, 31)
# TSC_ADJUST: with it, Linux trusts an invariant TSC without checking it against slower clocks
STRUCTURED_EBX = _bits(1)
# SYSCALL NX PDPE1GB RDTSCP LM
EXTENDED_EDX = _bits(11, 20, 26, 27, 29)
# LAHF in 64-bit mode
EXTENDED_ECX = _bits(0)

FEATURE_WORD_LEAVES = (
    (LEAF_FEATURES, "edx"),
    (LEAF_FEATURES, "ecx"),
    (LEAF_STRUCTURED_FEATURES, "ebx"),
    (LEAF_STRUCTURED_FEATURES, "ecx"),
    (LEAF_STRUCTURED_FEATURES, "edx"),
    None,
    (LEAF_EXTENDED_FEATURES, "edx"),
    (LEAF_EXTENDED_FEATURES, "ecx"),
    (LEAF_ADVANCED_POWER, "edx"),
    (LEAF_ADDRESS_SIZES, "ebx"),
    None,
)
"""What each word of Unicorn's feature array is a copy of (`FeatureWord`, target/i386/cpu.h)."""


def _text(leaf: int, text: bytes) -> CpuidEntry:
    eax, ebx, ecx, edx = struct.unpack("<4I", text)
    return CpuidEntry(leaf, eax=eax, ebx=ebx, ecx=ecx, edx=edx)


def supported() -> list[CpuidEntry]:
    """All leaves, with everything on that works."""
    vendor = struct.unpack("<3I", VENDOR)
    hypervisor = struct.unpack("<3I", HYPERVISOR_SIGNATURE)
    brand = BRAND.ljust(48, b"\0")
    return [
        CpuidEntry(LEAF_VENDOR, eax=LEAF_FREQUENCIES, ebx=vendor[0], edx=vendor[1], ecx=vendor[2]),
        CpuidEntry(LEAF_FEATURES, eax=VERSION, ebx=CLFLUSH_LINE, ecx=FEATURES_ECX, edx=FEATURES_EDX),
        CpuidEntry(LEAF_CACHE_DESCRIPTORS, eax=1),
        CpuidEntry(LEAF_CACHES, flags=SIGNIFICANT_INDEX),
        CpuidEntry(LEAF_STRUCTURED_FEATURES, flags=SIGNIFICANT_INDEX, ebx=STRUCTURED_EBX),
        CpuidEntry(LEAF_TSC, eax=1, ebx=TSC_KHZ * 1000 // CRYSTAL_HZ, ecx=CRYSTAL_HZ),
        CpuidEntry(LEAF_FREQUENCIES, eax=TSC_KHZ // 1000, ebx=TSC_KHZ // 1000, ecx=BUS_MHZ),
        CpuidEntry(LEAF_HYPERVISOR, eax=LEAF_HYPERVISOR, ebx=hypervisor[0], ecx=hypervisor[1], edx=hypervisor[2]),
        CpuidEntry(LEAF_EXTENDED, eax=LEAF_ADDRESS_SIZES),
        CpuidEntry(LEAF_EXTENDED_FEATURES, ecx=EXTENDED_ECX, edx=EXTENDED_EDX),
        *(_text(LEAF_BRAND + index, brand[16 * index : 16 * index + 16]) for index in range(3)),
        CpuidEntry(LEAF_ADVANCED_POWER, edx=INVARIANT_TSC),
        CpuidEntry(LEAF_ADDRESS_SIZES, eax=LINEAR_BITS << 8 | PHYSICAL_BITS),
    ]


def find(entries: Sequence[CpuidEntry], leaf: int) -> CpuidEntry:
    """The leaf's first subleaf; zeros if it is not there."""
    return next((entry for entry in entries if entry.function == leaf), CpuidEntry(leaf))


def feature_words(entries: Sequence[CpuidEntry]) -> bytes:
    """Unicorn's feature array as these entries have it, without what does not work."""
    allowed = supported()
    words = [
        getattr(find(entries, leaf[0]), leaf[1]) & getattr(find(allowed, leaf[0]), leaf[1]) if leaf else 0
        for leaf in FEATURE_WORD_LEAVES
    ]
    return struct.pack(f"<{len(words)}Q", *words)


def vendor_string(entries: Sequence[CpuidEntry]) -> bytes:
    """The twelve characters of leaf 0."""
    leaf = find(entries, LEAF_VENDOR)
    return struct.pack("<3I", leaf.ebx, leaf.edx, leaf.ecx)


def tsc_khz(entries: Sequence[CpuidEntry]) -> int:
    """Rate of the TSC by leaf 15h, else by the base frequency of leaf 16h, else the default."""
    tsc = find(entries, LEAF_TSC)
    if tsc.eax and tsc.ebx and tsc.ecx:
        return tsc.ecx * tsc.ebx // tsc.eax // 1000
    return find(entries, LEAF_FREQUENCIES).eax * 1000 or TSC_KHZ
