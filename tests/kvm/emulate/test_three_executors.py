"""The same random programs on three executors: the emulator alone, the software engine, a real KVM.

The software engine follows the architecture. KVM is compared with the emulator that departs from it as KVM
does: with every row of `DEVIATIONS` where KVM itself emulates all guest code, and with fewer where a processor
executes IN and OUT and checks permission by itself. Nothing else may differ.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from kvm.emulate.machine import CODE
from kvm.emulate.programs import MODES, UD_VECTOR, OnEngine, Outcome, Program, on_emulator, random_program
from nested_kvm import run_nested
from portvisor.kvm.emulate import KVM, decode
from portvisor.kvm.emulate.state import MODE_BITS
from portvisor.kvm.select import open_engine
from support import require_kvm

PROGRAMS = 250
NESTED_PROGRAMS = 60
"""Some 50 ms each."""
LOCK = 0xF0
GP_VECTOR = 13

PROCESSOR_BELOW = replace(
    KVM, rep_in_reads_ahead=False, tss_limit_first_byte=False, tss_fault_is_gp=False, tss_type_unchecked=False
)
"""KVM on a processor with virtualization: IN and OUT and all permission checks are the processor's."""


def differences(
    engine: OnEngine, name: str, count: int, expected: Callable[[Program], Outcome] = on_emulator
) -> Iterator[str]:
    """One line for each program of a mode that ends otherwise than expected."""
    dice = random.Random(name)
    for _ in range(count):
        program = random_program(name, dice)
        wanted, got = expected(program), engine(program)
        fields = wanted.differences(got)
        if fields:
            details = [f"{name}: {getattr(wanted, name)!r:.300} / {getattr(got, name)!r:.300}" for name in fields]
            yield f"{program}: {'; '.join(details)}"


@pytest.fixture(scope="module", params=["served", "exits"])
def software(request: pytest.FixtureRequest) -> Iterator[OnEngine]:
    engine = OnEngine(open_engine("software"), serve=request.param == "served")
    yield engine
    engine.close()


@pytest.mark.parametrize("name", MODES)
def test_the_software_engine_agrees_with_the_emulator(software: OnEngine, name: str) -> None:
    assert list(differences(software, name, PROGRAMS)) == []


# --- /dev/kvm -------------------------------------------------------------------------------------------------


def emulates_all_code(engine: OnEngine) -> bool:
    """Whether KVM executes a plain IN by its emulator: REP makes it read ahead (K1)."""
    outcome = engine(Program("real", bytes.fromhex("f3 ec"), {"rcx": 2, "rdx": 0x3F8, "rsp": 0xF00}, {}, 0))
    return len(outcome.reads) > 1


@pytest.mark.kvm
@pytest.mark.parametrize("name", ["real", "flat", "flat16"])
def test_kvm_agrees_with_the_emulator_that_departs_as_it_does(name: str) -> None:
    """The modes that every KVM runs, with or without hardware virtualization."""
    require_kvm()
    engine = OnEngine(open_engine("kvm"))
    deviations = KVM if emulates_all_code(engine) else PROCESSOR_BELOW
    try:
        found = list(differences(engine, name, PROGRAMS, lambda program: on_emulator(program, deviations)))
    finally:
        engine.close()
    assert found == []


# --- KVM on the processor that QEMU translates ----------------------------------------------------------------


def _permitted(program: Program, at: int) -> bool:
    """Whether the IN of the same size to the same port would be executed."""
    code = program.code[:at] + bytes([program.code[at] & 1 | 0xEC])
    return on_emulator(replace(program, code=code), PROCESSOR_BELOW).vector != GP_VECTOR


def on_nested(program: Program) -> Outcome:
    """What KVM must do where QEMU is the processor.

    One difference more, by the name of "LOCK": QEMU ignores it before IN and OUT. INS and OUTS come to KVM,
    which raises #UD, but only if QEMU has found the port permitted.
    """
    wanted = on_emulator(program, PROCESSOR_BELOW)
    if program.code[0] != LOCK:
        return wanted
    plain = replace(program, code=program.code[1:])
    instruction = decode(plain.code, MODE_BITS[program.mode])
    if not instruction.string:
        outcome = on_emulator(plain, PROCESSOR_BELOW)
        executed = outcome.vector == UD_VECTOR
        return replace(outcome, rip=outcome.rip + executed, memory=wanted.memory)
    if _permitted(plain, instruction.length - 1):
        return wanted
    return replace(wanted, vector=GP_VECTOR)


INSIDE = f"""
from kvm.emulate.programs import MODES, OnEngine
from kvm.emulate.test_three_executors import differences, on_nested
from portvisor.kvm.select import open_engine

engine = OnEngine(open_engine("kvm"))
for name in MODES:
    for line in differences(engine, name, {NESTED_PROGRAMS}, on_nested):
        print("DIFFERENT", line)
    print("DONE", name, flush=True)
"""


@pytest.mark.slow
@pytest.mark.nested
@pytest.mark.qemu
def test_kvm_agrees_in_every_mode() -> None:
    """Paging, virtual-8086 and long mode need the hardware-like KVM inside QEMU."""
    result = run_nested(INSIDE, timeout=560)
    assert result.status == 0, result.console[-4000:]
    lines = result.output.splitlines()
    assert [line for line in lines if line.startswith("DIFFERENT")] == []
    assert [line for line in lines if line.startswith("DONE")] == [f"DONE {name}" for name in MODES]


def test_a_program_touches_every_outcome() -> None:
    """The comparison would be worth little if all programs ended alike."""
    for name in MODES:
        dice = random.Random(name)
        programs = [random_program(name, dice) for _ in range(PROGRAMS)]
        outcomes = [on_emulator(program) for program in programs]
        done = [outcome for outcome in outcomes if outcome.rip > CODE and outcome.vector == UD_VECTOR]
        assert len(done) > PROGRAMS / 4, name
        assert sum(bool(outcome.reads) for outcome in outcomes) > PROGRAMS / 6, name
        assert sum(bool(outcome.writes) for outcome in outcomes) > PROGRAMS / 6, name
        assert sum(outcome.vector == GP_VECTOR for outcome in outcomes) > PROGRAMS / 40, name
