"""Random instruction, mode, registers, page map and bitmap, against a plain element-by-element model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hypothesis import event, given, settings
from hypothesis import strategies as st

from kvm.emulate.case import ALL_MODES, RF
from kvm.emulate.machine import PAGED_MODES, TABLES, TSS, Machine
from kvm.emulate.reference import World
from portvisor.kvm.abi import KVM_EXIT_IO_OUT
from portvisor.kvm.emulate import CONTINUE, IO_NEEDED, PROPAGATE_FAULT, Instruction, Step, decode
from portvisor.kvm.emulate.state import MODE_BITS

DF = 0x400
M32 = (1 << 32) - 1
PREFIXES = (0x66, 0x67, 0xF2, 0xF3, 0xF3, 0x36, 0x3E, 0x26)
OPCODES = (0x6C, 0x6C, 0x6D, 0x6D, 0x6E, 0x6F, 0xEC, 0xED, 0xEE, 0xEF, 0xE4, 0xE7)
KINDS = ("rw", "ro", "super", "super-ro", "none")
EDGES = (0, 1, 3, 0xFFE, 0xFFF, 0x1000, 0x1002)
OFFSETS = st.builds(
    lambda page, edge: page + edge, st.sampled_from([0x2000, 0x3000, 0x4000, 0xF000]), st.sampled_from(EDGES)
)
COUNTS = st.integers(0, 12) | st.sampled_from([255, 2048, 5000])
PATTERN = bytes((at * 7 + (at >> 8)) & 0xFF for at in range(0x12000))
RIP = 0xB000
"""Out of reach of every string here."""
FUZZ = settings(max_examples=200, deadline=None)


@dataclass(frozen=True)
class Situation:
    """What one example starts from."""

    mode: str
    code: bytes
    regs: dict[str, int]
    setup: dict[str, Any]

    @property
    def instruction(self) -> Instruction:
        return decode(self.code, MODE_BITS[self.mode])

    def machine(self, **more: Any) -> Machine:
        return Machine(self.mode, self.regs, memory={0: PATTERN, RIP: self.code}, **self.setup, **more)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    mode = draw(st.sampled_from(ALL_MODES.split()))
    prefixes = draw(st.lists(st.sampled_from(PREFIXES), max_size=4))
    code = bytes([*prefixes, draw(st.sampled_from(OPCODES)), 0x70])
    if draw(st.integers(0, 19)) == 0:
        code = b"\xf0" + code
    code = decode(code, MODE_BITS[mode]).code
    cpl = draw(st.sampled_from([0, 0, 3])) if mode not in ("real", "vm86") else None
    paged = mode in PAGED_MODES or (mode != "real" and draw(st.booleans()))
    pages = {page: draw(st.sampled_from(KINDS)) for page in range(0x2000, 0x6000, 0x1000)} if paged else {}
    segments = {}
    legacy = mode in ("real", "vm86")
    limits = st.just(0xFFFF) if legacy else st.sampled_from([M32, M32, 0xFFFF, 0x3001, 0x2FFF])
    if mode != "long":
        segments = {name: {"limit": draw(limits)} for name in ("ds", "es", "ss")}
    regs = {
        "rdi": draw(OFFSETS),
        "rsi": draw(OFFSETS),
        "rcx": draw(COUNTS),
        "rip": RIP,
        "rdx": draw(st.sampled_from([0x3F8, 0x3F7, 0xFFFE, 0xFFFF])),
    }
    setup: dict[str, Any] = {
        "cpl": cpl,
        "iopl": draw(st.sampled_from([0, 3])),
        "flags": draw(st.sampled_from([0, DF, RF])),
        "closed": draw(st.sets(st.sampled_from([0x3F7, 0x3F8, 0x3FA, 0x70, 0x73, 0xFFFF]), max_size=2)),
        "pages": pages,
        "segments": segments,
    }
    if paged and mode not in PAGED_MODES:
        setup["paging"] = "legacy"
    return Situation(mode, code, regs, setup)


def world_of(situation: Situation, machine: Machine) -> World:
    setup = situation.setup
    return World(
        mode=situation.mode,
        regs=machine.registers(),
        memory=bytearray(machine.memory),
        pages=setup["pages"],
        paged=machine.tables is not None,
        cpl=machine.ops.cpl,
        iopl=setup["iopl"],
        closed=setup["closed"],
        limits={"cs": 0xFFFF if situation.mode in ("real", "vm86") else M32}
        | {name: values["limit"] for name, values in setup["segments"].items()},
        down=bool(setup["flags"] & DF),
    )


def run(machine: Machine) -> int:
    """To the end, answering exits from the tape."""
    emulator = machine.emulator
    while True:
        result = emulator.step()
        if result == IO_NEEDED:
            request = emulator.io
            assert request is not None
            if request.direction == KVM_EXIT_IO_OUT:
                machine.log.writes.append((request.port, request.size, request.data))
                result = emulator.complete()
            else:
                machine.log.reads.append((request.port, request.size, request.count))
                result = emulator.complete(machine.take(request.size * request.count))
        if result != CONTINUE or emulator.finished:
            return result


def differences(memory: bytes) -> dict[int, bytes]:
    """Pages that differ from the start image."""
    pages = range(0, len(PATTERN), 0x1000)
    return {at: memory[at : at + 0x1000] for at in pages if memory[at : at + 0x1000] != PATTERN[at : at + 0x1000]}


def outcome(machine: Machine, result: int) -> dict[str, Any]:
    registers = machine.registers()
    assert bool(registers["rflags"] & RF) == (result == PROPAGATE_FAULT)
    registers["rflags"] &= ~RF
    return {
        "fault": str(machine.emulator.exception) if result == PROPAGATE_FAULT else "",
        "registers": {name: hex(value) for name, value in registers.items()},
        "given": b"".join(data for _, _, data in machine.log.writes),
        "taken": machine.tape,
        "memory": differences(bytes(machine.memory[:TSS])),
    }


@FUZZ
@given(situations())
def test_blocks_do_what_single_elements_do(situation: Situation) -> None:
    machine = situation.machine()
    world = world_of(situation, machine)
    world.run(situation.instruction)
    world.regs["rflags"] &= ~RF
    event(world.fault.split(" ")[0] or "no fault")
    assert outcome(machine, run(machine)) == {
        "fault": world.fault,
        "registers": {name: hex(value) for name, value in world.regs.items()},
        "given": world.given,
        "taken": world.taken,
        "memory": differences(bytes(world.memory[:TSS])),
    }


@FUZZ
@given(situations())
def test_exits_end_as_ports_in_the_kernel_do(situation: Situation) -> None:
    inside, outside = situation.machine(), situation.machine(served=False)
    assert outcome(outside, run(outside)) == outcome(inside, run(inside))


@FUZZ
@given(situations())
def test_counts_and_bytes_are_conserved(situation: Situation) -> None:
    machine = situation.machine()
    before, memory = machine.registers(), bytes(machine.memory)
    result = run(machine)
    instruction = situation.instruction
    after = machine.registers()
    size = instruction.size
    given_out = sum(len(data) for _, _, data in machine.log.writes)
    if instruction.string:
        index = "rsi" if instruction.out else "rdi"
        moved = given_out if instruction.out else machine.tape
        assert moved % size == 0
        assert (after[index] - before[index]) & 0xFFFF == (-moved if before["rflags"] & DF else moved) & 0xFFFF
        if instruction.repeat:
            assert before["rcx"] - after["rcx"] == moved // size
        assert after["rax"] == before["rax"]
    if result == PROPAGATE_FAULT:
        assert after["rip"] == before["rip"]
    untouched = {"rbx", "rdx", "rsp", "rbp", *(f"r{number}" for number in range(8, 16))}
    assert all(after[name] == before[name] for name in untouched)
    changed = differences(bytes(machine.memory[:TSS])).keys() - differences(memory[:TSS]).keys()
    kinds = situation.setup["pages"]
    writable = ("rw",) if machine.ops.cpl == 3 else ("rw", "ro", "super", "super-ro")
    assert all(kinds.get(page, "rw") in writable for page in changed)
    assert memory[TSS:TABLES] == machine.memory[TSS:TABLES]


@FUZZ
@given(situations(), st.booleans())
def test_tracing_changes_nothing(situation: Situation, kvm_compat: bool) -> None:
    steps: list[Step] = []
    silent = situation.machine(kvm_compat=kvm_compat)
    traced = situation.machine(kvm_compat=kvm_compat, steps=steps)
    assert outcome(traced, run(traced)) == outcome(silent, run(silent))
    assert steps[0].kind in ("decode", "fault")
    assert steps[-1].kind in ("done", "fault")
    assert all(isinstance(step.to_dict()["text"], str) for step in steps)


@FUZZ
@given(situations())
def test_kvm_compat_agrees_when_nothing_goes_wrong(situation: Situation) -> None:
    """The deviations lie in faults, counts and block sizes, not in what a good instruction does."""
    exact, compat = situation.machine(), situation.machine(kvm_compat=True)
    result = run(exact)
    compat_result = run(compat)
    if (
        result == CONTINUE
        and compat_result == CONTINUE
        and not (situation.instruction.rep_prefix and not situation.instruction.string)
    ):
        assert outcome(compat, compat_result) == outcome(exact, result)


@FUZZ
@given(situations())
def test_read_first_only_changes_what_faults_lose(situation: Situation) -> None:
    exact, first = situation.machine(), situation.machine(read_first=True)
    expected, actual = outcome(exact, run(exact)), outcome(first, run(first))
    lost = actual.pop("taken") - expected.pop("taken")
    assert actual == expected
    instruction = situation.instruction
    ins_fault = instruction.string and not instruction.out and first.emulator.exception is not None
    assert lost in ((0, instruction.size) if ins_fault else (0,))
