"""The emulator against another implementation of the instructions: registers, memory and ports agree.

Unicorn checks neither ports nor real-mode limits, so this compares successful instructions only.
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvm.emulate.machine import CODE, Machine
from portvisor.kvm.emulate import CONTINUE, decode

unicorn: Any = pytest.importorskip("unicorn")
x86: Any = unicorn.x86_const

MAPPED = 0x20000
DF = 0x400
UC_MODES = {16: unicorn.UC_MODE_16, 32: unicorn.UC_MODE_32, 64: unicorn.UC_MODE_64}
REGISTERS = {
    16: {"rax": "EAX", "rcx": "ECX", "rdx": "EDX", "rsi": "ESI", "rdi": "EDI"},
    32: {"rax": "EAX", "rcx": "ECX", "rdx": "EDX", "rsi": "ESI", "rdi": "EDI"},
    64: {"rax": "RAX", "rcx": "RCX", "rdx": "RDX", "rsi": "RSI", "rdi": "RDI"},
}
NAMES = {16: "real", 32: "protected32", 64: "long"}
LOW32 = (1 << 32) - 1


class UnicornMachine:
    """The same start state on Unicorn; the port gives 01, 02, 03, ... and logs what it gets."""

    def __init__(self, bits: int, memory: bytes, regs: dict[str, int], down: bool) -> None:
        self.bits = bits
        self.tape = 0
        self.written = b""
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, UC_MODES[bits])
        self.uc.mem_map(0, MAPPED)
        self.uc.mem_write(0, memory[:MAPPED])
        for name, register in REGISTERS[bits].items():
            self.uc.reg_write(getattr(x86, f"UC_X86_REG_{register}"), regs[name])
        self.uc.reg_write(x86.UC_X86_REG_EFLAGS, 2 | down * DF)
        self.uc.hook_add(unicorn.UC_HOOK_INSN, self._in, None, 1, 0, x86.UC_X86_INS_IN)
        self.uc.hook_add(unicorn.UC_HOOK_INSN, self._out, None, 1, 0, x86.UC_X86_INS_OUT)

    def _in(self, uc: Any, port: int, size: int, data: object) -> int:
        value = bytes((self.tape + index + 1) & 0xFF for index in range(size))
        self.tape += size
        return int.from_bytes(value, "little")

    def _out(self, uc: Any, port: int, size: int, value: int, data: object) -> None:
        self.written += (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def run(self, length: int) -> None:
        self.uc.emu_start(CODE, CODE + length)

    def registers(self) -> dict[str, int]:
        return {
            name: self.uc.reg_read(getattr(x86, f"UC_X86_REG_{register}"))
            for name, register in REGISTERS[self.bits].items()
        }


HIGH = st.sampled_from([0, 0x5555_0000, 0xAAAA_BBBB_0000_0000, 0xAAAA_BBBB_CCCC_0000])
OFFSETS = st.integers(0x2000, 0x8000) | st.sampled_from([0x2FFF, 0x3000, 0x3001, 0x3FFD, 0x7FFE])


@settings(max_examples=150, deadline=None)
@given(
    bits=st.sampled_from([16, 32, 64]),
    prefixes=st.lists(st.sampled_from([0x66, 0x67, 0xF2, 0xF3, 0x2E, 0x36, 0x26, 0x48, 0x40]), max_size=4),
    opcode=st.sampled_from([0x6C, 0x6D, 0x6E, 0x6F, 0xE4, 0xE5, 0xE6, 0xE7, 0xEC, 0xED, 0xEE, 0xEF]),
    count=st.integers(0, 40),
    offsets=st.tuples(OFFSETS, OFFSETS),
    high=HIGH,
    down=st.booleans(),
)
def test_same_registers_memory_and_ports(
    bits: int, prefixes: list[int], opcode: int, count: int, offsets: tuple[int, int], high: int, down: bool
) -> None:
    if bits != 64:
        prefixes = [byte for byte in prefixes if byte not in (0x40, 0x48)]
    code = bytes([*prefixes, opcode])
    if 0xE4 <= opcode <= 0xE7:
        code += b"\x70"
    instruction = decode(code, bits)
    high &= (1 << bits) - 1 if bits != 16 else LOW32
    high &= ~instruction.address_mask
    regs = {
        "rax": 0x1122_3344_5566_7788,
        "rcx": high | count,
        "rdx": high | 0x3F8,
        "rdi": high | offsets[0],
        "rsi": high | offsets[1],
    }
    if bits != 64:
        regs = {name: value & LOW32 for name, value in regs.items()}
    pattern = bytes((at * 7 + (at >> 8)) & 0xFF for at in range(0x10000))
    machine = Machine(NAMES[bits], regs, code=code, flags=down * DF, memory={0x2000: pattern[0x2000:]})
    memory = bytes(machine.memory)
    reference = UnicornMachine(bits, memory, regs, down)
    reference.run(len(code))
    assert machine.emulator.step() == CONTINUE
    assert machine.emulator.finished
    assert {name: hex(machine.registers()[name]) for name in regs} == {
        name: hex(value) for name, value in reference.registers().items()
    }
    assert b"".join(data for _, _, data in machine.log.writes) == reference.written
    assert machine.tape == reference.tape
    assert bytes(machine.memory[:MAPPED]) == bytes(reference.uc.mem_read(0, MAPPED))
