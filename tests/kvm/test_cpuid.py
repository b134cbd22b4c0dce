"""What a guest without an APIC is told."""

from __future__ import annotations

from portvisor.kvm.abi import CpuidEntry
from portvisor.kvm.cpuid import without_apic

SIGNATURE = CpuidEntry(0x40000000, eax=0x40000001, ebx=0x4B4D564B, ecx=0x564B4D56, edx=0x4D)


def test_apic_and_what_needs_it_are_gone_and_the_rest_stays() -> None:
    entry = CpuidEntry(1, eax=0x6FB, ecx=0xFFFFFFFF, edx=0xFFFFFFFF)
    (masked,) = without_apic([entry])
    assert masked == CpuidEntry(1, eax=0x6FB, ecx=0xFFFFFFFF & ~(1 << 3 | 1 << 21 | 1 << 24), edx=0xFFFFFDFF)


def test_topology_leaves_are_left_out() -> None:
    assert without_apic([CpuidEntry(0xB), CpuidEntry(0x1F, 1), CpuidEntry(0xD)]) == [CpuidEntry(0xD)]


def test_kvms_paravirtual_leaves_are_left_out_but_another_hypervisors_are_not() -> None:
    assert without_apic([SIGNATURE, CpuidEntry(0x40000001, eax=1), CpuidEntry(0)]) == [CpuidEntry(0)]
    ours = CpuidEntry(0x40000000, ebx=1)
    assert without_apic([ours]) == [ours]
