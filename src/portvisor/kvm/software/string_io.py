"""INS and OUTS that are not plain moves, by the emulator: segment limits, page crossings, traps, alignment.

The CPU leaves the guest at the instruction; `StringIo` executes it over the guest's registers, page tables and
memory and hands the outcome back, so that faults and interrupted strings are as the architecture has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from portvisor.kvm.api import EngineError, PortTables
from portvisor.kvm.emulate import PROPAGATE_FAULT, UNHANDLEABLE, Emulator, GuestException, MemoryOps
from portvisor.kvm.software import cpu_state
from portvisor.kvm.software.address_space import PHYSICAL_SPACE, AddressSpace
from portvisor.kvm.software.cpu_state import CpuState

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


class StringIo:
    """Executes string instructions on served ports for one CPU."""

    def __init__(
        self, cpu: InterceptedCpu, memory: AddressSpace, tables: PortTables, offer: Callable[[int, int, int], bool]
    ) -> None:
        self._cpu = cpu
        self._memory = memory
        self._tables = tables
        self._offer = offer
        self.a20_mask = -1

    def step(self) -> None:
        """Execute the instruction at RIP, or as much of it as can be done at once."""
        cpu = self._cpu
        ops = MemoryOps(
            cpu_state.get_regs(cpu),
            cpu_state.get_sregs(cpu),
            self._read,
            self._write,
            pio_in=self._tables.read_block,
            pio_out=self._out,
            interrupt_pending=cpu.interrupted,
            debug_registers=cpu_state.get_debug_registers(cpu),
            physical_bits=PHYSICAL_BITS,
            is_ram=self._is_ram,
        )
        emulator = Emulator(ops, intel=cpu_state.is_intel(cpu))
        outcome = emulator.step()
        if outcome == UNHANDLEABLE:
            raise EngineError(f"cannot emulate the string instruction: {emulator.reason}")
        cpu_state.set_regs(cpu, ops.regs)
        if outcome == PROPAGATE_FAULT and emulator.exception is not None:
            self._raise(emulator.exception)
        elif emulator.debug_trap:
            cpu_state.set_dr6_bits(cpu, emulator.debug_trap)
            cpu.inject_exception(DEBUG_VECTOR, 0)

    def _raise(self, fault: GuestException) -> None:
        if fault.cr2 is not None:
            cpu_state.set_cr2(self._cpu, fault.cr2)
        self._cpu.inject_exception(fault.vector, fault.error_code or 0)

    def _out(self, port: int, size: int, data: bytes) -> bool:
        """The ports that listen in front of the others see single writes."""
        rest = bytearray()
        for start in range(0, len(data), size):
            element = data[start : start + size]
            if not self._offer(port, size, int.from_bytes(element, "little")):
                rest += element
        if rest:
            self._tables.write_block(port, size, bytes(rest))
        return True

    def _is_ram(self, address: int) -> bool:
        return self._memory.is_ram(address & self.a20_mask)

    def _read(self, address: int, length: int) -> bytes:
        return self._memory.read(address & self.a20_mask, length)

    def _write(self, address: int, data: bytes) -> None:
        address &= self.a20_mask
        if self._memory.write(address, data):
            self._cpu.memory_written(address, address + len(data))
