"""One row of a test table, and what runs it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kvm.emulate.machine import TABLES, TSS, Machine
from portvisor.kvm.abi import KVM_EXIT_IO_OUT
from portvisor.kvm.emulate import CONTINUE, IO_NEEDED, PROPAGATE_FAULT, RETURN_CODES, assemble

RF = 1 << 16
ALL_MODES = "real vm86 protected16 protected32 compat16 compat32 long"
PROTECTED = "protected16 protected32 compat16 compat32"
LEGACY = f"real vm86 {PROTECTED}"
CODE16 = "real vm86 protected16 compat16"
CODE32 = "protected32 compat32"


@dataclass(frozen=True)
class Case:
    """A rule, a mode, an instruction, where it starts, what must come of it; nothing else may change."""

    rule: str
    mode: str
    code: str
    """Assembly, or hexadecimal bytes after "hex:"."""
    regs: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, int] = field(default_factory=dict)
    """Registers that end up with other values; rip and RF are implied by the outcome."""
    fault: str = ""
    """The exception, as `str(GuestException)` has it; empty for none."""
    paused: bool = False
    """The string instruction stops between elements."""
    reads: tuple[tuple[int, int, int], ...] | None = None
    """(port, size, count) of every port read; None: not looked at."""
    writes: tuple[tuple[int, int, str], ...] | None = None
    """(port, size, bytes) of every port write; None: not looked at."""
    exit: tuple[str, int, int, int, str] | None = None
    """(direction, size, port, count, data) of the first exit; None: there may be none."""
    stored: Mapping[int, str] = field(default_factory=dict)
    """Guest memory that changed, by physical address; tables and TSS are not looked at."""
    trap: int = 0
    unhandleable: str = ""
    setup: Mapping[str, Any] = field(default_factory=dict)
    """Arguments of `Machine`."""

    def __str__(self) -> str:
        return f"{self.rule} [{self.mode}: {self.code}]"


def in_modes(modes: str, *cases: Case) -> Iterable[Case]:
    """The same rows in several modes."""
    for mode in modes.split():
        for case in cases:
            yield Case(**{**case.__dict__, "mode": mode})


def machine_code(text: str, bits: int) -> bytes:
    return bytes.fromhex(text[4:]) if text.startswith("hex:") else assemble(text, bits)


def memory_changes(before: bytes, after: bytes) -> dict[int, int]:
    """Bytes that changed outside of page tables and TSS."""
    if before[:TSS] == after[:TSS]:
        return {}
    return {at: after[at] for at in range(TSS) if before[at] != after[at]}


def run_case(case: Case) -> None:
    machine = Machine(case.mode, case.regs, **{"served": case.exit is None, **case.setup})
    code = machine_code(case.code, machine.bits)
    start = machine.regs.rip + (machine.sregs.cs.base if case.mode != "long" else 0)
    if start + len(code) <= TABLES:
        machine.memory[start : start + len(code)] = code
    before, memory = machine.registers(), bytes(machine.memory)
    emulator = machine.emulator
    result = emulator.step()
    if case.exit is not None:
        assert result == IO_NEEDED
        result = complete(machine, case.exit)
    expected = {**before, **case.after}
    if case.unhandleable:
        assert case.unhandleable in emulator.reason
    elif case.fault:
        assert (RETURN_CODES[result], str(emulator.exception)) == (RETURN_CODES[PROPAGATE_FAULT], case.fault)
        expected["rflags"] |= RF
    else:
        assert (RETURN_CODES[result], str(emulator.exception)) == (RETURN_CODES[CONTINUE], "None")
        assert emulator.finished is not case.paused
        if case.paused:
            expected["rflags"] |= RF
        else:
            expected["rflags"] &= ~RF
            expected.setdefault("rip", 0)
            if "rip" not in case.after:
                expected["rip"] = before["rip"] + len(code)
    assert {name: hex(value) for name, value in machine.registers().items()} == {
        name: hex(value) for name, value in expected.items()
    }
    assert emulator.debug_trap == case.trap
    if case.reads is not None:
        assert machine.log.reads == list(case.reads)
    if case.writes is not None:
        assert machine.log.writes == [(port, size, bytes.fromhex(data)) for port, size, data in case.writes]
    after = bytearray(memory)
    for address, data in case.stored.items():
        after[address : address + len(bytes.fromhex(data))] = bytes.fromhex(data)
    assert memory_changes(memory, bytes(machine.memory)) == memory_changes(memory, bytes(after))


def complete(machine: Machine, expected: tuple[str, int, int, int, str]) -> int:
    """Check the exit and answer it from the tape."""
    request = machine.emulator.io
    assert request is not None
    direction = "out" if request.direction == KVM_EXIT_IO_OUT else "in"
    exit_ = (direction, request.size, request.port, request.count, request.data.hex(" "))
    assert exit_ == expected
    return machine.emulator.complete(b"" if direction == "out" else machine.take(request.size * request.count))
