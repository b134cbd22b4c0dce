"""Random programs of one I/O instruction in every mode, and what comes of each on each executor.

The executors are the emulator alone and any engine (`System`). Behind the instruction stands UD2, so that each
program ends in an exception; a handler in ring 0 halts, and its stack frame tells the rest.
"""

from __future__ import annotations

import mmap
import random
import struct
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kvm.emulate.machine import MEMORY_SIZE, TABLES, TSS, Machine
from portvisor.kvm import abi
from portvisor.kvm.api import PortTables, System
from portvisor.kvm.emulate import (
    CONTINUE,
    PROPAGATE_FAULT,
    Deviations,
    Emulator,
    GuestException,
)
from portvisor.kvm.emulate.state import MODE_BITS

UD2 = b"\x0f\x0b"
UD_VECTOR, PF_VECTOR = 6, 14
WITH_ERROR_CODE = (8, 10, 11, 12, 13, 14, 17)
WATCHDOG_NS = 20_000_000_000
REAL_HANDLERS = 0x600
STACK = 0xF00
FRAMES = slice(0xE00, STACK)
"""Where exceptions push."""
GDT, IDT, HANDLERS = 0x70000, 0x71000, 0x72000
CODE32, DATA32, CODE64 = 0x08, 0x10, 0x18
DESCRIPTORS = (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF)
DF, RF = 0x400, 1 << 16
MODES = {  # name: mode, privilege levels, kinds of page tables
    "real": ("real", (0,), (None,)),
    "flat": ("protected32", (0, 3), (None,)),
    "flat16": ("protected16", (0, 3), (None,)),
    "vm86": ("vm86", (3,), (None, "legacy")),
    "paged": ("protected32", (0, 3), ("legacy", "pae")),
    "paged16": ("protected16", (0, 3), ("legacy",)),
    "compat": ("compat32", (0, 3), (None,)),
    "compat16": ("compat16", (0, 3), (None,)),
    "long": ("long", (0, 3), (None,)),
}
OPCODES = (0x6C, 0x6D, 0x6E, 0x6F) * 3 + (0xE4, 0xE5, 0xE6, 0xE7, 0xEC, 0xED, 0xEE, 0xEF)
PREFIXES = (0x66, 0x67, 0xF3, 0xF3, 0xF3, 0xF2, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65)
REX = (0x40, 0x41, 0x48, 0x4F)
OFFSETS = (0x2000, 0x2FFC, 0x2FFD, 0x2FFF, 0x3000, 0x3001, 0x3003, 0x4FFE, 0x7FFE, 0xFFFE, 0xFFFF, 0x1_0000)
COUNTS = (0, 0, 1, 2, 3, 4, 5, 9, 40)
PORTS = (0x3F8, 0x3F8, 0x3F8, 0x3FD, 0x3FF, 0x70, 0xFFFD, 0xFFFF)
LIMITS = (104 + 0x2000, 104 + 0x2000, 104 + 0x2000, 104 + 0x7F, 104 + 0x80, 0x67, 0x66)
PATTERN = bytes((at * 7 + (at >> 8) * 3) & 0xFF for at in range(0x5E000))


@dataclass(frozen=True)
class Program:
    """Everything that a run depends on."""

    mode: str
    code: bytes
    regs: Mapping[str, int]
    setup: Mapping[str, Any]
    """Arguments of `Machine`."""
    tss_limit: int

    def __str__(self) -> str:
        regs = ", ".join(f"{name}={value:#x}" for name, value in self.regs.items())
        return f"{self.mode} {self.code.hex(' ')} {regs} {dict(self.setup)} TSS limit {self.tss_limit:#x}"


@dataclass
class Outcome:
    """The end of a program. `error` is 0 where there is none."""

    vector: int
    rip: int
    error: int = 0
    cr2: int = 0
    regs: dict[str, int] = field(default_factory=dict)
    reads: list[tuple[int, int]] = field(default_factory=list)
    """(port, size) of each element."""
    writes: list[tuple[int, int, bytes]] = field(default_factory=list)
    memory: bytes = b""

    def differences(self, other: Outcome) -> list[str]:
        """The names of what is not equal."""
        return [name for name in self.__dataclass_fields__ if getattr(self, name) != getattr(other, name)]


# --- programs -----------------------------------------------------------------------------------------------


def random_program(name: str, dice: random.Random) -> Program:
    """A program for one of MODES."""
    mode, levels, tables = MODES[name]
    bits = MODE_BITS[mode]
    prefixes = [dice.choice(PREFIXES) for _ in range(dice.choice((0, 1, 1, 2, 2, 3)))]
    if bits == 64 and dice.random() < 0.3:
        prefixes.append(dice.choice(REX))
    if dice.random() < 0.03:
        prefixes.insert(0, 0xF0)
    opcode = dice.choice(OPCODES)
    code = bytes([*prefixes, opcode]) + (bytes([dice.choice((0x70, 0xFF))]) if 0xE4 <= opcode <= 0xE7 else b"")
    regs = {
        "rax": 0x1122_3344_5566_7788,
        "rcx": dice.choice(COUNTS),
        "rdx": dice.choice(PORTS),
        "rdi": dice.choice(OFFSETS),
        "rsi": dice.choice(OFFSETS),
        "rsp": STACK,
    }
    if bits == 64 and dice.random() < 0.1:
        regs[dice.choice(("rdi", "rsi"))] |= 0xFFFF_0000_0000_0000  # not canonical
    if bits != 64:
        regs["rax"] &= 0xFFFF_FFFF
    setup: dict[str, Any] = {
        "cpl": dice.choice(levels),
        "iopl": dice.choice((0, 0, 3)),
        "flags": DF * (dice.random() < 0.3),
        "paging": dice.choice(tables),
        "closed": [port for port in (0x3F8, 0x3FA, 0x400, 0x70, 0xFF) if dice.random() < 0.12],
        "segments": _random_segments(mode, dice),
    }
    if setup["paging"] or mode in ("compat16", "compat32", "long"):
        setup["pages"] = {
            page: dice.choice(("ro", "super", "super-ro", "none", "nx"))
            for page in (0x2000, 0x3000, 0x4000, 0x5000, 0x7000, 0x10000)
            if dice.random() < 0.3
        }
        if setup["paging"] == "legacy":
            setup["pages"] = {page: kind for page, kind in setup["pages"].items() if kind != "nx"}
    return Program(mode, code, regs, setup, dice.choice(LIMITS))


def _random_segments(mode: str, dice: random.Random) -> dict[str, dict[str, int]]:
    """Now and then a limit, a base or a type that is not flat."""
    if mode in ("vm86", "long") or dice.random() < 0.5:
        return {}
    changes: list[dict[str, int]] = [{"limit": 0x2FFF}, {"limit": 0x3003}, {"limit": 0xFFFF}, {"base": 0x10}]
    if mode != "real":
        changes += [{"type": 1}, {"unusable": 1, "present": 0}]
    return {name: dice.choice(changes) for name in ("es", "ds", "fs") if dice.random() < 0.5}


def build(program: Program, deviations: Deviations = Deviations()) -> Machine:  # noqa: B008
    """The emulator's machine for a program, with tables for an engine to take exceptions by."""
    machine = Machine(
        program.mode, program.regs, code=program.code + UD2, memory={0x2000: PATTERN}, **program.setup
    )
    machine.emulator = Emulator(machine.ops, deviations=deviations)
    sregs = machine.sregs
    sregs.tr.limit = program.tss_limit
    memory = machine.memory
    for segment in (sregs.cs, sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss):
        segment.g = int(segment.limit > 0xFFFFF)
        if program.mode in ("real", "vm86"):
            segment.selector = segment.base >> 4
    if program.mode == "real":
        sregs.idt = abi.Dtable(IDT, 0x3FF)
        for vector in range(32):
            struct.pack_into("<HH", memory, IDT + 4 * vector, REAL_HANDLERS + vector, 0)
            memory[REAL_HANDLERS + vector] = 0xF4
        return machine
    wide = program.mode in ("compat16", "compat32", "long")
    memory[GDT : GDT + 32] = b"".join(entry.to_bytes(8, "little") for entry in DESCRIPTORS)
    sregs.gdt, sregs.idt = abi.Dtable(GDT, 31), abi.Dtable(IDT, 0x1FF if wide else 0xFF)
    for vector in range(32):
        target = HANDLERS + vector
        gate = target & 0xFFFF | (CODE64 if wide else CODE32) << 16 | 0x8E00 << 32 | (target >> 16) << 48
        size = 16 if wide else 8
        memory[IDT + size * vector : IDT + size * (vector + 1)] = gate.to_bytes(size, "little")
        memory[target] = 0xF4
    if wide:
        struct.pack_into("<Q", memory, TSS + 4, STACK)
    else:
        struct.pack_into("<IH", memory, TSS + 4, STACK, DATA32)
    return machine


REGISTERS = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi")


def _registers(regs: abi.Regs, bits: int) -> dict[str, int]:
    mask = (1 << 64) - 1 if bits == 64 else (1 << 32) - 1
    return {name: getattr(regs, name) & mask for name in REGISTERS}


def _seen(memory: bytes | bytearray | mmap.mmap) -> bytes:
    """Memory without stack frames and page tables (whose accessed bits differ)."""
    return bytes(memory[: FRAMES.start]) + bytes(memory[FRAMES.stop : TABLES])


def _elements(port: int, size: int, data: bytes) -> list[tuple[int, int, bytes]]:
    return [(port, size, data[at : at + size]) for at in range(0, len(data), size)]


# --- executors ----------------------------------------------------------------------------------------------


def on_emulator(program: Program, deviations: Deviations = Deviations()) -> Outcome:  # noqa: B008
    """The emulator alone."""
    machine = build(program, deviations)
    emulator = machine.emulator
    result = CONTINUE
    while result == CONTINUE and not emulator.finished:
        result = emulator.step()
    fault = emulator.exception
    if fault is None:
        assert result == CONTINUE, emulator.reason
        fault = GuestException(UD_VECTOR)
    assert result in (CONTINUE, PROPAGATE_FAULT)
    return Outcome(
        fault.vector,
        machine.regs.rip,
        fault.error_code or 0,
        fault.cr2 or 0,
        _registers(machine.regs, machine.bits),
        [(port, size) for port, size, count in machine.log.reads for _ in range(count)],
        [element for port, size, data in machine.log.writes for element in _elements(port, size, data)],
        _seen(machine.memory),
    )


class Ports(PortTables):
    """All ports: the bytes 01, 02, 03, ... come in; what goes out is kept."""

    def __init__(self) -> None:
        self.reset()
        functions = (self._read, self._write)
        self.reads, self.writes = (  # type: ignore[assignment]
            tuple([(function, port) for port in range(0x10000)] for _ in range(3)) for function in functions
        )

    def reset(self) -> None:
        """Start over."""
        self.tape = 0
        self.seen_reads: list[tuple[int, int]] = []
        self.seen_writes: list[tuple[int, int, bytes]] = []

    def take(self, length: int) -> bytes:
        """The next bytes."""
        data = bytes((self.tape + index + 1) & 0xFF for index in range(length))
        self.tape += length
        return data

    def _read(self, port: int, size: int) -> int:
        return int.from_bytes(self.read_block(port, size, 1), "little")

    def _write(self, port: int, size: int, value: int) -> None:
        self.write_block(port, size, value.to_bytes(size, "little"))

    def read_block(self, port: int, size: int, count: int) -> bytes:
        self.seen_reads += [(port, size)] * count
        return self.take(size * count)

    def write_block(self, port: int, size: int, data: bytes) -> None:
        self.seen_writes += _elements(port, size, data)

    def failed(self, port: int, size: int, write: bool, error: BaseException) -> int:
        raise error


class OnEngine:
    """A VM that runs one program after another. Without `serve` each port access is a KVM_EXIT_IO."""

    def __init__(self, system: System, serve: bool = True) -> None:
        self.system = system
        self.vm = system.create_vm()
        self.memory = mmap.mmap(-1, MEMORY_SIZE)
        self.vm.set_user_memory_region(0, 0, self.memory, 0, MEMORY_SIZE)
        self.vcpu = self.vm.create_vcpu(0)
        self.start = self.vcpu.get_sregs()
        self.ports = Ports()
        if serve:
            self.vm.serve_ports(self.ports)

    def __call__(self, program: Program) -> Outcome:
        """Run it to its end."""
        machine = build(program)
        self.ports.reset()
        self.memory[:] = bytes(machine.memory)
        self.vm.memory_written(0, MEMORY_SIZE)
        self.vcpu.set_sregs(self._sregs(machine.sregs))
        self.vcpu.set_regs(machine.regs)
        self.vcpu.set_alarm(time.monotonic_ns() + WATCHDOG_NS)
        while (reason := self.vcpu.run()) == abi.ExitReason.IO:
            self._serve()
        self.vcpu.set_alarm(None)
        assert reason == abi.ExitReason.HLT, f"{reason} at {self.vcpu.get_regs()}: {program}"
        return self._outcome(program)

    def _sregs(self, wanted: abi.Sregs) -> abi.Sregs:
        """As the engine takes them: its own APIC base, and the type of TR that QEMU's nested SVM needs."""
        return replace(wanted, apic_base=self.start.apic_base, tr=replace(wanted.tr, type=9, selector=0x28))

    def _serve(self) -> None:
        page = self.vcpu.kvm_run
        direction, size, port, count, where = struct.unpack_from("<BBHIQ", page, abi.RUN_IO_DIRECTION)
        end = where + size * count
        if direction == abi.KVM_EXIT_IO_IN:
            page[where:end] = self.ports.read_block(port, size, count)
        else:
            self.ports.write_block(port, size, bytes(page[where:end]))

    def _outcome(self, program: Program) -> Outcome:
        regs = self.vcpu.get_regs()
        vector = regs.rip - 1 - (REAL_HANDLERS if program.mode == "real" else HANDLERS)
        width = 2 if program.mode == "real" else 8 if program.mode in ("compat16", "compat32", "long") else 4
        top = regs.rsp & 0xFFFF
        words = [
            int.from_bytes(self.memory[top + width * at : top + width * (at + 1)], "little") for at in range(2)
        ]
        coded = program.mode != "real" and vector in WITH_ERROR_CODE
        return Outcome(
            vector,
            words[coded],
            words[0] if coded else 0,
            self.vcpu.get_sregs().cr2 if vector == PF_VECTOR else 0,
            _registers(regs, MODE_BITS[program.mode]),
            self.ports.seen_reads,
            self.ports.seen_writes,
            _seen(self.memory),
        )

    def close(self) -> None:
        """Give everything back."""
        self.vcpu.close()
        self.vm.close()
        self.system.close()
