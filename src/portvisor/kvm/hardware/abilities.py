"""What the host's KVM offers, asked once and used by its VMs and vCPUs."""

from __future__ import annotations

import struct
from contextlib import suppress
from dataclasses import dataclass
from fcntl import ioctl

from portvisor.kvm import abi
from portvisor.kvm.hardware import calls

KVM_GET_MSR_INDEX_LIST = 0xC004AE02


@dataclass(frozen=True, slots=True)
class Abilities:
    """Answers of `/dev/kvm`."""

    run_size: int
    """Bytes to map of a vCPU: struct kvm_run, port data, coalesced ring."""
    sync_regs: int
    """KVM_SYNC_X86_* that KVM_RUN copies to and from struct kvm_run."""
    coalesced_pio: bool
    coalesced_mmio: bool
    readonly_memory: bool
    ioeventfd: bool
    irqchip: bool
    pit: bool
    msrs: tuple[int, ...]
    """Model-specific registers that make up a vCPU's state."""

    @classmethod
    def of(cls, fd: int) -> Abilities:
        """Ask an open `/dev/kvm`.

        Raises:
            EngineError: KVM fails to answer.
        """

        def extension(capability: int) -> int:
            return calls.call(fd, abi.KVM_CHECK_EXTENSION, capability, what="KVM_CHECK_EXTENSION")

        ring = extension(abi.KVM_CAP_COALESCED_MMIO) == abi.KVM_COALESCED_MMIO_PAGE_OFFSET
        return cls(
            run_size=calls.call(fd, abi.KVM_GET_VCPU_MMAP_SIZE, what="KVM_GET_VCPU_MMAP_SIZE"),
            sync_regs=max(extension(abi.KVM_CAP_SYNC_REGS), 0),
            coalesced_pio=ring and extension(abi.KVM_CAP_COALESCED_PIO) > 0,
            coalesced_mmio=ring,
            readonly_memory=extension(abi.KVM_CAP_READONLY_MEM) > 0,
            ioeventfd=extension(abi.KVM_CAP_IOEVENTFD) > 0,
            irqchip=extension(abi.KVM_CAP_IRQCHIP) > 0,
            pit=extension(abi.KVM_CAP_PIT2) > 0,
            msrs=_msr_indices(fd),
        )


def _msr_indices(fd: int) -> tuple[int, ...]:
    header = bytearray(4)
    with suppress(OSError):  # E2BIG, with the number that there are
        ioctl(fd, KVM_GET_MSR_INDEX_LIST, header, True)
    (count,) = struct.unpack("<I", header)
    table = bytearray(struct.pack("<I", count)) + bytearray(4 * count)
    calls.fetch(fd, KVM_GET_MSR_INDEX_LIST, table, what="KVM_GET_MSR_INDEX_LIST")
    return struct.unpack_from(f"<{count}I", table, 4)
