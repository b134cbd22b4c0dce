"""A virtual machine: memory slots, vCPUs, and what KVM serves without leaving the kernel."""

from __future__ import annotations

import ctypes
import mmap
import struct

from portvisor.kvm import abi
from portvisor.kvm.abi import PAGE_SIZE
from portvisor.kvm.api import EngineError, MemoryBus, PortTables, Route
from portvisor.kvm.hardware import calls
from portvisor.kvm.hardware.abilities import Abilities
from portvisor.kvm.hardware.coalesced import CoalescedRing, Write
from portvisor.kvm.hardware.vcpu import HardwareVcpu

MEMORY_REGION = struct.Struct("<IIQQQ")
"""struct kvm_userspace_memory_region: slot, flags, guest_phys_addr, memory_size, userspace_addr."""
COALESCED_ZONE = struct.Struct("<QII")
"""struct kvm_coalesced_mmio_zone: addr, size, pio."""
IOEVENTFD = struct.Struct("<QQIiI36x")
"""struct kvm_ioeventfd: datamatch, addr, len, fd, flags."""
IRQ_LEVEL = struct.Struct("<II")
"""struct kvm_irq_level: irq, level."""
PIT_CONFIG = struct.Struct("<I60x")
"""struct kvm_pit_config: flags."""
KVM_PIT_SPEAKER_DUMMY = 1
"""Port 61h in KVM too: its bits 4 and 5 belong to the PIT."""
_NO_RING = memoryview(bytes(8)).cast("I")


class HardwareVm:
    """One KVM virtual machine."""

    def __init__(self, fd: int, abilities: Abilities) -> None:
        self._fd = fd
        self._abilities = abilities
        self._slots: dict[int, memoryview] = {}
        self._vcpus: list[HardwareVcpu] = []
        self._ring: CoalescedRing | None = None
        self._ring_indices = _NO_RING
        self.route = bytearray((Route.EXIT,))
        self._write_memory: Write = _drop

    # --- memory -------------------------------------------------------------------------------------

    def set_user_memory_region(
        self, slot: int, guest_phys_addr: int, memory: mmap.mmap, offset: int, size: int, readonly: bool = False
    ) -> None:
        what = f"memory slot {slot} at {guest_phys_addr:#x}+{size:#x}"
        if offset < 0 or size < 0 or offset + size > len(memory):
            raise EngineError(f"{what}: {offset:#x}+{size:#x} is not inside {len(memory):#x} bytes of memory")
        if (guest_phys_addr | offset | size) % PAGE_SIZE:
            raise EngineError(f"{what}, offset {offset:#x}: not a multiple of {PAGE_SIZE} bytes")
        if readonly and not self._abilities.readonly_memory:
            raise EngineError(f"{what}: this KVM has no read-only memory (KVM_CAP_READONLY_MEM)")
        flags = abi.KVM_MEM_READONLY if readonly else 0
        address = _address(memory, what) + offset if size else 0
        region = MEMORY_REGION.pack(slot, flags if size else 0, guest_phys_addr, size, address)
        calls.call(self._fd, abi.KVM_SET_USER_MEMORY_REGION, region, what=what)
        self._hold(slot, memory if size else None)

    def _hold(self, slot: int, memory: mmap.mmap | None) -> None:
        """Keep the mapping from being closed while the guest sees it."""
        before = self._slots.pop(slot, None)
        if memory is not None:
            self._slots[slot] = memoryview(memory)
        if before is not None:
            before.release()

    def memory_written(self, start: int, end: int) -> None:
        pass  # the CPU sees to it

    # --- vCPUs --------------------------------------------------------------------------------------

    def create_vcpu(self, vcpu_id: int) -> HardwareVcpu:
        fd = calls.call(self._fd, abi.KVM_CREATE_VCPU, vcpu_id, what=f"vCPU {vcpu_id}")
        vcpu = HardwareVcpu(fd, self._abilities, self._slots)
        self._vcpus.append(vcpu)
        if self._ring is None and self._abilities.coalesced_mmio:
            self._ring = CoalescedRing(vcpu.page(abi.KVM_COALESCED_MMIO_PAGE_OFFSET))
            self._ring_indices = self._ring.indices
        return vcpu

    # --- served in the kernel -------------------------------------------------------------------------

    def serve_ports(self, tables: PortTables) -> bool:
        return False

    def serve_memory(self, bus: MemoryBus) -> bool:
        return False

    def register_coalesced_pio(self, port: int, size: int) -> bool:
        if not self._abilities.coalesced_pio:
            return False
        zone = COALESCED_ZONE.pack(port, size, 1)
        calls.call(self._fd, abi.KVM_REGISTER_COALESCED_MMIO, zone, what=f"coalesced port {port:#06x}")
        return True

    def register_coalesced_mmio(self, address: int, size: int, write: Write) -> bool:
        """Queue writes to unmapped memory (a frame buffer) for `drain_coalesced`.

        `write` (address, size, value) gets them, of all windows; False if KVM cannot.
        """
        if not self._abilities.coalesced_mmio:
            return False
        zone = COALESCED_ZONE.pack(address, size, 0)
        calls.call(self._fd, abi.KVM_REGISTER_COALESCED_MMIO, zone, what=f"coalesced memory {address:#x}")
        self._write_memory = write
        return True

    def drain_coalesced(self, write: Write) -> None:
        indices = self._ring_indices
        if indices[0] != indices[1] and self._ring is not None:
            self.route[0] = Route.COALESCED
            try:
                self._ring.drain(write, self._write_memory)
            finally:
                self.route[0] = Route.EXIT

    def ioeventfd(
        self, fd: int, port: int, size: int, datamatch: int | None = None, deassign: bool = False
    ) -> None:
        what = f"ioeventfd on port {port:#06x}"
        if not self._abilities.ioeventfd:
            raise EngineError(f"{what}: this KVM has none (KVM_CAP_IOEVENTFD)")
        flags = abi.KVM_IOEVENTFD_FLAG_PIO
        if datamatch is not None:
            flags |= abi.KVM_IOEVENTFD_FLAG_DATAMATCH
        if deassign:
            flags |= abi.KVM_IOEVENTFD_FLAG_DEASSIGN
        request = IOEVENTFD.pack(datamatch or 0, port, size, fd, flags)
        calls.call(self._fd, abi.KVM_IOEVENTFD, request, what=what)

    def create_irqchip(self) -> None:
        if not self._abilities.irqchip:
            raise EngineError("this KVM has no interrupt controllers (KVM_CAP_IRQCHIP)")
        if self._vcpus:
            raise EngineError("interrupt controllers in KVM have to be made before the first vCPU")
        calls.call(self._fd, abi.KVM_CREATE_IRQCHIP, what="KVM_CREATE_IRQCHIP")

    def create_pit2(self) -> None:
        if not self._abilities.pit:
            raise EngineError("this KVM has no interval timer (KVM_CAP_PIT2)")
        config = PIT_CONFIG.pack(KVM_PIT_SPEAKER_DUMMY)
        calls.call(self._fd, abi.KVM_CREATE_PIT2, config, what="KVM_CREATE_PIT2 (needs create_irqchip first)")

    def irq_line(self, irq: int, level: int) -> None:
        calls.call(self._fd, abi.KVM_IRQ_LINE, IRQ_LEVEL.pack(irq, level), what=f"interrupt line {irq}")

    # --- the end ------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._ring is not None:
            self._ring_indices = _NO_RING
            self._ring.release()
            self._ring = None
        for vcpu in self._vcpus:
            vcpu.close()
        self._vcpus.clear()
        calls.close(self._fd)
        self._fd = -1
        for memory in self._slots.values():
            memory.release()
        self._slots.clear()


def _address(memory: mmap.mmap, what: str) -> int:
    try:
        return ctypes.addressof(ctypes.c_char.from_buffer(memory))
    except TypeError:
        raise EngineError(f"{what}: memory must be mapped writable or ACCESS_COPY") from None


def _drop(_address: int, _size: int, _value: int) -> None:
    """Coalesced memory that nobody registered."""
