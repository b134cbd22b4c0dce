"""INS and OUTS that are not plain moves, by the emulator: segment limits, page crossings, traps, alignment.

The CPU leaves the guest at the instruction; `StringIo` executes it over the guest's registers, page tables and
memory and hands the outcome back, so that faults and interrupted strings are as the architecture has them. A port
that nobody serves is a KVM_EXIT_IO, and the next run completes the instruction.
"""

from __future__ import annotations

import mmap
import struct
from typing import Protocol

from portvisor.kvm.abi import KVM_EXIT_IO_OUT, PIO_DATA, RUN_EXIT_REASON, RUN_IO_DIRECTION, ExitReason
from portvisor.kvm.api import EngineError, PortTables
from portvisor.kvm.emulate import IO_NEEDED, UNHANDLEABLE, Emulator, GuestException, IoRequest, MemoryOps
from portvisor.kvm.software import cpu_state
from portvisor.kvm.software.address_space import PHYSICAL_SPACE, AddressSpace
from portvisor.kvm.software.cpu_state import CpuState
from portvisor.kvm.software.vendor import BusWrite

A20 = 1 << 20
DEBUG_VECTOR = 1
PHYSICAL_BITS = PHYSICAL_SPACE.bit_length() - 1


class InterceptedCpu(CpuState, Protocol):
    """The part of `_softcpu.Cpu` that this module uses."""

    def inject_exception(self, vector: int, error_code: int, /) -> None:
        """Raise an exception in the guest before its next instruction."""
        ...

    def interrupted(self) -> bool:
        """Whether something is due between two elements."""
        ...

    def memory_written(self, start: int, end: int, /) -> None:
        """Drop translations of guest-physical memory."""
        ...


def nobody_listens(port: int, size: int, value: int) -> bool:
    """No port is listened to in front of the others."""
    return False


class StringIo:
    """Executes string instructions for one CPU.

    `tables` serves the ports; if it is None, user space does. `offer` is asked first about each write.
    """

    def __init__(self, cpu: InterceptedCpu, memory: AddressSpace, kvm_run: mmap.mmap) -> None:
        self._cpu = cpu
        self._memory = memory
        self._kvm_run = kvm_run
        self._emulator: Emulator | None = None
        self._untaken = b""
        self.tables: PortTables | None = None
        self.offer: BusWrite = nobody_listens
        self.a20_mask = -1

    @property
    def pending(self) -> bool:
        """Whether user space has an access to make."""
        return self._emulator is not None

    def forget(self) -> None:
        """The registers were replaced: there is nothing to complete."""
        self._emulator = None

    def step(self) -> bool:
        """Execute the instruction at RIP, or as much of it as can be done at once.

        Returns:
            Whether to go on; else there is a KVM_EXIT_IO in `kvm_run`.
        """
        ops = self._ops()
        emulator = Emulator(ops, intel=cpu_state.is_intel(self._cpu))
        outcome = emulator.step()
        if outcome == UNHANDLEABLE:
            raise EngineError(f"cannot emulate the string instruction: {emulator.reason}")
        cpu_state.set_regs(self._cpu, ops.regs)
        if outcome == IO_NEEDED and emulator.io is not None:
            self._emulator = emulator
            self._leave(emulator.io)
            return False
        self._deliver(emulator)
        return True

    def complete(self) -> None:
        """Finish what user space was asked for; registers may have been changed since."""
        emulator = self._emulator
        if emulator is None or emulator.io is None:
            return
        self._emulator = None
        emulator.ops = ops = self._ops()
        length = 0 if emulator.io.direction == KVM_EXIT_IO_OUT else emulator.io.size * emulator.io.count
        emulator.complete(self._kvm_run[PIO_DATA : PIO_DATA + length])
        cpu_state.set_regs(self._cpu, ops.regs)
        self._deliver(emulator)

    def _ops(self) -> MemoryOps:
        cpu = self._cpu
        ops = MemoryOps(
            cpu_state.get_regs(cpu),
            cpu_state.get_sregs(cpu),
            self._read,
            self._write,
            pio_out=self._out,
            interrupt_pending=cpu.interrupted,
            debug_registers=cpu_state.get_debug_registers(cpu),
            physical_bits=PHYSICAL_BITS,
            is_ram=self._is_ram,
        )
        if self.tables is not None:
            ops.pio_in = self.tables.read_block
        return ops

    def _leave(self, request: IoRequest) -> None:
        data = self._untaken if request.direction == KVM_EXIT_IO_OUT else bytes(request.size * request.count)
        struct.pack_into("<I", self._kvm_run, RUN_EXIT_REASON, ExitReason.IO)
        fields = request.direction, request.size, request.port, len(data) // request.size, PIO_DATA
        struct.pack_into("<BBHIQ", self._kvm_run, RUN_IO_DIRECTION, *fields)
        self._kvm_run[PIO_DATA : PIO_DATA + len(data)] = data

    def _deliver(self, emulator: Emulator) -> None:
        """Let the CPU take what the instruction ended with."""
        if emulator.exception is not None:
            self._raise(emulator.exception)
        elif emulator.debug_trap:
            cpu_state.set_dr6_bits(self._cpu, emulator.debug_trap)
            self._cpu.inject_exception(DEBUG_VECTOR, 0)

    def _raise(self, fault: GuestException) -> None:
        if fault.cr2 is not None:
            cpu_state.set_cr2(self._cpu, fault.cr2)
        self._cpu.inject_exception(fault.vector, fault.error_code or 0)

    def _out(self, port: int, size: int, data: bytes) -> bool:
        """The ports that listen in front of the others see single writes."""
        rest = bytearray()
        for start in range(0, len(data), size):
            element = data[start : start + size]
            if not self.offer(port, size, int.from_bytes(element, "little")):
                rest += element
        self._untaken = bytes(rest)
        if rest and self.tables is not None:
            self.tables.write_block(port, size, self._untaken)
        return not rest or self.tables is not None

    def _is_ram(self, address: int) -> bool:
        return self._memory.is_ram(address & self.a20_mask)

    def _read(self, address: int, length: int) -> bytes:
        return self._memory.read(address & self.a20_mask, length)

    def _write(self, address: int, data: bytes) -> None:
        address &= self.a20_mask
        if self._memory.write(address, data):
            self._cpu.memory_written(address, address + len(data))
