"""What a vCPU is at power-on besides its registers, kept so that RESET# can bring it back.

KVM has no call that resets a vCPU. So everything it lets user space read is read when the vCPU is made, and
written back at a reset: FPU, debug registers, XCR0, pending events, local APIC, MSRs. The last matter most:
a guest's paravirtual clock lives in an MSR that names a page of its memory, and goes on writing there.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fcntl import ioctl

from portvisor.kvm import abi

STATE_BLOCKS = (
    (0x81A0AE8C, 0x41A0AE8D, 416),  # KVM_GET_FPU, KVM_SET_FPU
    (0x8080AEA1, 0x4080AEA2, 128),  # KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS
    (0x8188AEA6, 0x4188AEA7, 392),  # KVM_GET_XCRS, KVM_SET_XCRS
    (abi.KVM_GET_VCPU_EVENTS, abi.KVM_SET_VCPU_EVENTS, 64),
    (0x8400AE8E, 0x4400AE8F, 1024),  # KVM_GET_LAPIC, KVM_SET_LAPIC: only with an interrupt controller in KVM
    (0x8004AE98, 0x4004AE99, 4),  # KVM_GET_MP_STATE, KVM_SET_MP_STATE
)
KVM_GET_MSRS = 0xC008AE88
KVM_SET_MSRS = 0x4008AE89
MSR_ENTRY = struct.Struct("<I4xQ")
"""struct kvm_msr_entry."""


class PowerOnState:
    """A copy of a fresh vCPU's state."""

    def __init__(self, vcpu_fd: int, msrs: Sequence[int]) -> None:
        self._fd = vcpu_fd
        self._blocks: list[tuple[int, bytes]] = []
        for get, put, size in STATE_BLOCKS:
            block = bytearray(size)
            if self._accepted(get, block):
                self._blocks.append((put, bytes(block)))
        self._msrs = [entry for index in msrs if (entry := self._read_msr(index)) is not None]

    def restore(self) -> None:
        """Write it all back. What the guest's CPUID does not let it have any more is left alone."""
        for put, block in self._blocks:
            self._accepted(put, bytearray(block))
        for entry in self._msrs:
            self._accepted(KVM_SET_MSRS, self._one_msr(entry))

    def _read_msr(self, index: int) -> bytes | None:
        table = self._one_msr(MSR_ENTRY.pack(index, 0))
        return bytes(table[8:]) if self._accepted(KVM_GET_MSRS, table) else None

    @staticmethod
    def _one_msr(entry: bytes) -> bytearray:
        return bytearray(struct.pack("<II", 1, 0) + entry)

    def _accepted(self, request: int, block: bytearray) -> bool:
        try:
            done = ioctl(self._fd, request, block, True)
        except OSError:
            return False
        return done == 1 if request == KVM_GET_MSRS else True
