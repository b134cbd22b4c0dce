"""`explain`: what it tells, and what it says about bad input."""

from __future__ import annotations

import json
from typing import Any

import pytest

from portvisor.kvm.abi import Regs
from portvisor.kvm.emulate import AssemblyError, EmulateError, ModeError, explain, initial_state
from portvisor.kvm.emulate.explain import TSS_ADDRESS, SparseMemory
from portvisor.kvm.emulate.state import MODE_NAMES


def kinds(text: str, mode: str = "long", **more: Any) -> list[str]:
    return [step.kind for step in explain(text, mode, **more).steps]


def test_an_allowed_in_of_a_device_in_the_kernel() -> None:
    told = explain(
        "in al, dx", "protected32", {"rdx": 0x60, "rax": 0x1200}, cpl=3, open_ports=[0x60], served={0x60: 0x9C}
    )
    assert [step.kind for step in told.steps] == ["decode", "permission", "port", "done"]
    decode, permission, port, done = (step.data for step in told.steps)
    assert (decode["bytes"], decode["opcode"], decode["operand_size"]) == ("ec", 0xEC, 1)
    assert permission["tss_base"] == TSS_ADDRESS
    assert (permission["map_base"], permission["map_offset"], permission["map_bytes"]) == (0x68, 0x74, "fe ff")
    assert permission["mask"] == 1
    assert port == {"direction": "in", "port": 0x60, "size": 1, "count": 1, "data": "9c"}
    assert done["rip"] == 0x1001
    assert {name: (change.before, change.after) for name, change in told.registers.items()} == {
        "rax": (0x1200, 0x129C),
        "rip": (0x1000, 0x1001),
    }
    assert (told.result, told.finished, told.exits) == ("CONTINUE", True, [])


def test_a_denied_in() -> None:
    told = explain("in al, dx", "vm86", {"rdx": 0x61})
    assert [step.kind for step in told.steps] == ["decode", "permission", "fault"]
    assert told.steps[1].text.startswith("virtual-8086 mode: TSS byte 0x74 = ff ff: ")
    assert told.steps[1].data["allowed"] is False
    assert str(told.exception) == "#GP(0)"
    assert told.result == "PROPAGATE_FAULT"
    assert list(told.registers) == ["rflags"]


def test_an_exit_and_its_answer() -> None:
    told = explain("rep insw", "real", {"rdx": 0x1F0, "rcx": 2}, answer=0x1234)
    assert [step.kind for step in told.steps] == ["decode", "permission", "exit", "answer", "memory", "done"]
    assert [(request.port, request.size, request.count) for request in told.exits] == [(0x1F0, 2, 2)]
    assert told.memory == {0x2000: b"\x34\x12\x34\x12"}
    assert (told.registers["rcx"].after, told.registers["rdi"].after) == (0, 0x2004)


def test_outs_shows_the_data_in_the_exit() -> None:
    told = explain("fs outsw", "long", {"rdx": 0x80}, memory={0x3000: b"\xcd\xab"})
    assert told.exits[0].data == b"\xcd\xab"
    memory = next(step for step in told.steps if step.kind == "memory")
    assert (memory.data["segment"], memory.data["linear"], memory.data["data"]) == ("fs", 0x3000, "cd ab")


def test_long_strings_take_rounds() -> None:
    told = explain("rep insb", "long", {"rcx": 10000})
    assert told.finished
    assert sum(request.count for request in told.exits) == 10000
    cut = explain("rep insb", "long", {"rcx": 10000}, max_rounds=2)
    assert (cut.finished, cut.result, len(cut.exits)) == (False, "CONTINUE", 2)


def test_kvm_compat_shows_in_the_exits() -> None:
    exits = explain("rep outsb", "long", {"rcx": 3}, kvm_compat=True).exits
    assert [request.count for request in exits] == [1, 1, 1]


def test_read_first_and_intel_are_passed_on() -> None:
    regs, sregs = initial_state("protected32")
    sregs.es.unusable = 1
    assert "exit" in [step.kind for step in explain("insb", sregs=sregs, regs=regs, read_first=True).steps]
    high = {"rcx": 1 << 40}
    assert explain("a32 rep insb", "long", high, intel=True).registers["rcx"].after == 0
    assert "rcx" not in explain("a32 rep insb", "long", high).registers


def test_other_steps() -> None:
    assert kinds("rep insb", regs={"rcx": 0}) == ["decode", "permission", "count", "done"]
    assert kinds("lock insb") == ["decode", "fault"]
    assert explain("in al, dx", "long", {"rflags": 0x102}).debug_trap == 0x4000


def test_too_long_an_instruction() -> None:
    told = explain("66 " * 15 + "ed", "long")
    assert (told.instruction, str(told.exception)) == ("", "#GP(0)")
    assert str(told).startswith("66 66 ")


def test_bytes_hexadecimal_text_and_assembly_are_the_same() -> None:
    assert explain(b"\x66\xed").to_dict() == explain("66 ED").to_dict() == explain("in ax, dx").to_dict()


def test_without_code_the_instruction_at_rip_is_fetched() -> None:
    regs, sregs = initial_state("real")
    regs.rip, regs.rdx, sregs.cs.base = 0x100, 0x60, 0x7000
    told = explain(None, sregs=sregs, regs=regs, memory={0x7100: bytes.fromhex("66 ed 90")})
    assert (told.instruction, told.code, told.finished) == ("in eax, dx", b"\x66\xed", True)
    with pytest.raises(EmulateError, match="not an I/O instruction: opcode 90 in 90"):
        explain(None, sregs=sregs, regs=regs, memory={0x7100: b"\x90"})


def test_a_fetch_that_faults_is_told() -> None:
    regs, sregs = initial_state("protected32")
    regs.rip, sregs.cs.limit = 0x1000, 0xFFF
    told = explain(None, sregs=sregs, regs=regs)
    assert (told.code, [step.kind for step in told.steps], str(told.exception)) == (b"", ["fault"], "#GP(0)")


def test_no_code_and_no_machine() -> None:
    with pytest.raises(EmulateError, match="there is no instruction: give code, or sregs"):
        explain(None)


@pytest.mark.parametrize("mode", MODE_NAMES)
def test_every_mode_by_name_and_by_registers(mode: str) -> None:
    told = explain("rep outsb", mode, {"rcx": 2})
    assert (told.mode, told.finished) == (mode, mode != "vm86")
    regs, sregs = initial_state(mode)
    told = explain("in al, dx", sregs=sregs, regs=regs)
    assert told.mode == mode


@pytest.mark.parametrize("alias", ["compat", "Compatibility", "PROTECTED", "long64"])
def test_aliases(alias: str) -> None:
    assert explain("in al, dx", alias).mode in MODE_NAMES


def test_to_dict_is_json() -> None:
    for told in (
        explain("rep insw", "long", {"rcx": 3}),
        explain("in al, dx", "vm86"),
        explain("out 0x80, eax", "protected32", cpl=3, open_ports=range(0x80, 0x84)),
    ):
        again = json.loads(json.dumps(told.to_dict()))
        assert again["instruction"] == told.instruction
        assert len(again["steps"]) == len(told.steps)
    assert json.loads(json.dumps(explain("in al, dx", "vm86").to_dict()))["exception"]["name"] == "#GP"


def test_text_has_a_line_a_step_and_a_register() -> None:
    told = explain("in al, dx", "real")
    assert len(str(told).splitlines()) == 1 + len(told.steps) + len(told.registers)


def test_the_callers_registers_are_not_changed() -> None:
    regs = Regs(rip=0x1000, rdx=0x60)
    explain("in al, dx", "long", regs)
    assert regs == Regs(rip=0x1000, rdx=0x60)


# (arguments, keywords, the whole message)
ERRORS: tuple[tuple[tuple[Any, ...], dict[str, Any], type[EmulateError], str], ...] = (
    (("nop",), {}, AssemblyError, "'nop': 'nop' is no I/O instruction: in, out, insb/w/d, outsb/w/d"),
    (("90",), {}, EmulateError, "not an I/O instruction: opcode 90 in 90"),
    ((b"",), {}, EmulateError, "ends before the opcode: no bytes"),
    (("66 e4",), {}, EmulateError, "the port byte is missing: 66 e4"),
    (("ec 90",), {}, EmulateError, "bytes follow the instruction 'in al, dx': 90"),
    (
        ("in al, dx", "virtual"),
        {},
        ModeError,
        "unknown mode 'virtual': one of real, vm86, protected16, protected32, compat16, compat32, long",
    ),
    (("in al, dx", "real"), {"cpl": 3}, ModeError, "CPL is always 0 in real mode"),
    (("in al, dx", "vm86"), {"cpl": 0}, ModeError, "CPL is always 3 in vm86 mode"),
    (("in al, dx", "long"), {"cpl": 4}, ModeError, "CPL 4 is not 0 to 3"),
    (("in al, dx", "long"), {"iopl": 7}, ModeError, "IOPL 7 is not 0 to 3"),
    (("in al, dx", "long"), {"open_ports": [0x10000]}, EmulateError, "port 0x10000 is not in 0-0xffff"),
    (("in al, dx", "long", {"rcx": -1}), {}, EmulateError, "rcx = -0x1 does not fit into 64 bits"),
    (
        ("in al, dx", "long", {"rflags": 1 << 17}),
        {},
        EmulateError,
        "impossible mode: RFLAGS.VM is set in long mode (EFER.LMA is set)",
    ),
)


@pytest.mark.parametrize(("arguments", "keywords", "error", "message"), ERRORS, ids=lambda value: str(value)[:40])
def test_bad_input(
    arguments: tuple[Any, ...], keywords: dict[str, Any], error: type[EmulateError], message: str
) -> None:
    with pytest.raises(error) as caught:
        explain(*arguments, **keywords)
    assert str(caught.value) == message


def test_an_unknown_register_is_named_with_those_there_are() -> None:
    with pytest.raises(EmulateError, match=r"unknown register 'ecx': one of rax, rbx, rcx"):
        explain("in al, dx", "long", {"ecx": 1})


def test_contradicting_registers() -> None:
    _, sregs = initial_state("real")
    with pytest.raises(ModeError, match="mode 'long' contradicts the registers, which say 'real'"):
        explain("in al, dx", "long", sregs=sregs)
    with pytest.raises(EmulateError, match="may not be given beside sregs"):
        explain("in al, dx", sregs=sregs, cpl=0)
    sregs.cr0 |= 1 << 31
    with pytest.raises(ModeError, match=r"impossible mode: CR0.PG is set, CR0.PE is clear"):
        explain("in al, dx", sregs=sregs)


def test_sparse_memory_spans_pages() -> None:
    memory = SparseMemory()
    memory.write(0x1FFE, b"abcd")
    assert memory.read(0x1FFC, 8) == b"\0\0abcd\0\0"
