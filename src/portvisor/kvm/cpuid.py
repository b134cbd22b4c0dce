"""CPUID for a board whose only interrupt controller is a pair of 8259s. Bits: Intel SDM volume 2A, CPUID."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from portvisor.kvm.abi import CpuidEntry

FEATURES, TOPOLOGY, EXTENDED_TOPOLOGY = 0x01, 0x0B, 0x1F
HYPERVISOR_FIRST, HYPERVISOR_LAST = 0x40000000, 0x400000FF
APIC = 1 << 9
MONITOR, X2APIC, TSC_DEADLINE = 1 << 3, 1 << 21, 1 << 24
KVM_SIGNATURE = b"KVMKVMKVM\0\0\0"


def without_apic(entries: Sequence[CpuidEntry]) -> list[CpuidEntry]:
    """The entries without local APIC, what depends on it, and KVM's paravirtual interface."""
    kept = [entry for entry in entries if entry.function not in (TOPOLOGY, EXTENDED_TOPOLOGY)]
    if any(_is_kvm_signature(entry) for entry in kept):
        kept = [one for one in kept if not HYPERVISOR_FIRST <= one.function <= HYPERVISOR_LAST]
    return [_mask(entry) if entry.function == FEATURES else entry for entry in kept]


def _is_kvm_signature(entry: CpuidEntry) -> bool:
    text = b"".join(register.to_bytes(4, "little") for register in (entry.ebx, entry.ecx, entry.edx))
    return entry.function == HYPERVISOR_FIRST and text == KVM_SIGNATURE


def _mask(entry: CpuidEntry) -> CpuidEntry:
    return dataclasses.replace(entry, edx=entry.edx & ~APIC, ecx=entry.ecx & ~(MONITOR | X2APIC | TSC_DEADLINE))
