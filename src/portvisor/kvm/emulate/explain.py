"""Explain one I/O instruction: what it decodes to, who allows it, where it goes, what it changes.

print(explain("in al, dx", "protected32", {"rdx": 0x60}, cpl=3, open_ports=[0x60]))
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from portvisor.kvm.abi import KVM_EXIT_IO_OUT, Regs, Sregs
from portvisor.kvm.emulate.assemble import assemble, disassemble
from portvisor.kvm.emulate.decode import decode
from portvisor.kvm.emulate.errors import EmulateError, GuestException, InstructionTooLongError, ModeError
from portvisor.kvm.emulate.execute import CONTINUE, IO_NEEDED, RETURN_CODES, UNHANDLEABLE, Emulator, IoRequest
from portvisor.kvm.emulate.memory_ops import MemoryOps
from portvisor.kvm.emulate.mode import Mode, current_mode
from portvisor.kvm.emulate.state import MODE_BITS, build_tss, initial_state, mode_name, write_identity_tables
from portvisor.kvm.emulate.trace import Step
from portvisor.kvm.emulate.x86 import EFER_LMA, MASK64, PAGE_OFFSET, PAGE_SIZE, RFLAGS_IOPL_SHIFT

DEFAULT_REGISTERS = {"rip": 0x1000, "rdi": 0x2000, "rsi": 0x3000}
"""What registers hold that the caller does not give; the others hold 0."""
TABLES_ADDRESS = 1 << 32
"""Where the page tables of the long modes lie: beyond what they map."""
TSS_ADDRESS = 0xFFFE_0000
_HEX = re.compile(r"\s*([0-9a-f]{2}\s*)+", re.IGNORECASE)
_LONG_MODE_NAMES = {Mode.PROT16: "compat16", Mode.PROT32: "compat32", Mode.PROT64: "long"}
_MODE_NAMES = {Mode.REAL: "real", Mode.VM86: "vm86", Mode.PROT16: "protected16", Mode.PROT32: "protected32"}


@dataclass(frozen=True, slots=True)
class Change:
    """A register before and after."""

    before: int
    after: int


@dataclass(slots=True)
class Explanation:
    """All that happened to one instruction."""

    instruction: str
    """Assembly text; empty if it is too long to be one."""
    code: bytes
    mode: str
    cpl: int
    iopl: int
    steps: list[Step] = field(default_factory=list)
    exits: list[IoRequest] = field(default_factory=list)
    """The KVM_EXIT_IO that user space sees, in order."""
    result: str = ""
    """The last return code: CONTINUE or PROPAGATE_FAULT."""
    finished: bool = False
    """rIP has moved on. False with CONTINUE: there was more to do than was asked for."""
    exception: GuestException | None = None
    debug_trap: int = 0
    registers: dict[str, Change] = field(default_factory=dict)
    """The registers that changed."""
    memory: dict[int, bytes] = field(default_factory=dict)
    """Physical address -> bytes stored there, in order; with page tables of the caller's, their flags too."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        fault = self.exception
        return {
            "instruction": self.instruction,
            "code": self.code.hex(" "),
            "mode": self.mode,
            "cpl": self.cpl,
            "iopl": self.iopl,
            "steps": [step.to_dict() for step in self.steps],
            "exits": [_exit_dict(request) for request in self.exits],
            "result": self.result,
            "finished": self.finished,
            "exception": None
            if fault is None
            else {
                "name": fault.name,
                "vector": fault.vector,
                "error_code": fault.error_code,
                "cr2": fault.cr2,
            },
            "debug_trap": self.debug_trap,
            "registers": {name: [change.before, change.after] for name, change in self.registers.items()},
            "memory": {f"{address:#x}": data.hex(" ") for address, data in self.memory.items()},
        }

    def __str__(self) -> str:
        lines = [f"{self.instruction or self.code.hex(' ')} in {self.mode} mode, CPL {self.cpl}, IOPL {self.iopl}"]
        lines += [f"  {step.kind:10} {step.text}" for step in self.steps]
        lines += [
            f"  {'register':10} {name}: {change.before:#x} -> {change.after:#x}"
            for name, change in self.registers.items()
        ]
        return "\n".join(lines)


def _exit_dict(request: IoRequest) -> dict[str, Any]:
    return {
        "direction": "out" if request.direction == KVM_EXIT_IO_OUT else "in",
        "size": request.size,
        "port": request.port,
        "count": request.count,
        "data": request.data.hex(" "),
    }


class SparseMemory:
    """Guest-physical memory without end: pages of zeros, made when written."""

    def __init__(self) -> None:
        self._pages: dict[int, bytearray] = {}
        self.written: dict[int, bytes] | None = None
        """If a dict: receives what is stored below TABLES_ADDRESS."""

    def read(self, address: int, length: int) -> bytes:
        data = bytearray()
        while len(data) < length:
            at = address + len(data)
            offset = at & PAGE_OFFSET
            part = min(length - len(data), PAGE_SIZE - offset)
            page = self._pages.get(at - offset)
            data += page[offset : offset + part] if page is not None else bytes(part)
        return bytes(data)

    def write(self, address: int, data: bytes) -> None:
        if self.written is not None and address < TABLES_ADDRESS:
            self.written[address] = bytes(data)
        done = 0
        while done < len(data):
            offset = address + done & PAGE_OFFSET
            part = data[done : done + PAGE_SIZE - offset]
            page = self._pages.setdefault(address + done - offset, bytearray(PAGE_SIZE))
            page[offset : offset + len(part)] = part
            done += len(part)


def _bytes_of(code: bytes | str, bits: int) -> bytes:
    """Machine code from bytes, hexadecimal text or assembly."""
    if not isinstance(code, str):
        return bytes(code)
    return bytes.fromhex(code) if _HEX.fullmatch(code) else assemble(code, bits)


def _decoded_text(code: bytes, bits: int) -> str:
    """The instruction as text; an error if the bytes are not just one I/O instruction."""
    try:
        instruction = decode(code, bits)
    except InstructionTooLongError:
        return ""
    if len(code) > instruction.length:
        rest = code[instruction.length :].hex(" ")
        raise EmulateError(f"bytes follow the instruction {disassemble(instruction)!r}: {rest}")
    return disassemble(instruction)


def _set_registers(regs: Regs, given: Regs | Mapping[str, int] | None) -> None:
    """Take over the caller's registers; mode bits already in RFLAGS stay."""
    if isinstance(given, Regs):
        values = {name: getattr(given, name) for name in Regs.__slots__}
    else:
        values = {name.lower(): value for name, value in {**DEFAULT_REGISTERS, **(given or {})}.items()}
    for name, value in values.items():
        if name not in Regs.__slots__:
            raise EmulateError(f"unknown register {name!r}: one of {', '.join(Regs.__slots__)}")
        if not 0 <= value <= MASK64:
            raise EmulateError(f"{name} = {value:#x} does not fit into 64 bits")
        setattr(regs, name, regs.rflags | value if name == "rflags" else value)


def _given_mode(sregs: Sregs, regs: Regs, mode: str | None) -> str:
    """Name of the mode that the caller's registers stand for."""
    actual = Mode(current_mode(sregs.cr0, sregs.efer, regs.rflags, sregs.cs))
    name = (_LONG_MODE_NAMES if sregs.efer & EFER_LMA else _MODE_NAMES)[actual]
    if mode is not None and mode_name(mode) != name:
        raise ModeError(f"mode {mode!r} contradicts the registers, which say {name!r}")
    return name


def _port_value(value: int, size: int, count: int) -> bytes:
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little") * count


def explain(
    code: bytes | str | None,
    mode: str | None = None,
    regs: Regs | Mapping[str, int] | None = None,
    *,
    cpl: int | None = None,
    iopl: int = 0,
    open_ports: Iterable[int] = (),
    memory: Mapping[int, bytes] | None = None,
    sregs: Sregs | None = None,
    served: Mapping[int, int] | None = None,
    answer: int = MASK64,
    kvm_compat: bool = False,
    read_first: bool = False,
    intel: bool = False,
    max_rounds: int = 16,
) -> Explanation:
    """Execute one I/O instruction on a vCPU made for it, and tell every step.

    Without `sregs` the vCPU has flat segments, a TSS whose bitmap opens `open_ports`, and, in the long modes,
    the low 4 GiB mapped onto themselves. With `sregs` the state is the caller's: TSS and page tables then are
    what `memory` holds, and `cpl`, `iopl` and `open_ports` may not be given.

    Args:
        code: machine code, or text: assembly (`rep insw`) or hexadecimal bytes (`f3 66 6d`). None, with `sregs`:
            the instruction at CS:rIP, which is fetched from `memory`.
        mode: one of `state.MODE_NAMES`; default "long", with `sregs` what they say.
        regs: general registers by name, or all of them; see DEFAULT_REGISTERS.
        cpl: privilege level.
        iopl: I/O privilege level.
        open_ports: ports that the I/O bitmap allows.
        memory: bytes by guest-physical address; the rest is 0.
        sregs: segments and control registers instead of the defaults.
        served: ports that a device in the kernel claims, with the value that it reads as.
        answer: value of every element that user space gives to an IN.
        kvm_compat: as `Emulator`.
        read_first: as `Emulator`.
        intel: as `Emulator`.
        max_rounds: exits and pauses after which a long string instruction is left.

    Raises:
        EmulateError: not an I/O instruction, truncated, followed by more bytes, an unknown register or mode,
            an impossible state. The text is one line.
    """
    if sregs is None:
        name = mode_name(mode or "long")
        state, segments = initial_state(name, cpl, iopl)
        _set_registers(state, regs)
    elif cpl is not None or iopl or tuple(open_ports):
        raise EmulateError("cpl, iopl and open_ports may not be given beside sregs: they lie in the registers")
    else:
        state, segments = Regs(), sregs
        _set_registers(state, regs)
        name = _given_mode(sregs, state, mode)
    bits = MODE_BITS[name]
    if code is None and sregs is None:
        raise EmulateError("there is no instruction: give code, or sregs and the memory that holds it")
    machine_code = None if code is None else _bytes_of(code, bits)
    text = "" if machine_code is None else _decoded_text(machine_code, bits)
    ram = SparseMemory()
    if sregs is None:
        _install_tables(ram, segments, open_ports)
    for address, data in (memory or {}).items():
        ram.write(address, data)
    ram.written = {}
    ports = served or {}
    ops = MemoryOps(
        state,
        segments,
        ram.read,
        ram.write,
        pio_in=lambda port, size, count: _port_value(ports[port], size, count) if port in ports else None,
        pio_out=lambda port, size, data: port in ports,
    )
    explanation = Explanation(
        instruction=text,
        code=machine_code or b"",
        mode=name,
        cpl=ops.cpl,
        iopl=state.rflags >> RFLAGS_IOPL_SHIFT & 3,
        memory=ram.written,
    )
    emulator = Emulator(ops, kvm_compat=kvm_compat, read_first=read_first, intel=intel, steps=explanation.steps)
    before = {register: getattr(state, register) for register in Regs.__slots__}
    _run(emulator, machine_code, answer, max_rounds, explanation)
    if machine_code is None and explanation.steps and explanation.steps[0].kind == "decode":
        fetched = explanation.steps[0].data
        explanation.code, explanation.instruction = bytes.fromhex(fetched["bytes"]), fetched["instruction"]
    for register, old in before.items():
        new = getattr(state, register)
        if new != old:
            explanation.registers[register] = Change(old, new)
    return explanation


def _install_tables(ram: SparseMemory, segments: Sregs, open_ports: Iterable[int]) -> None:
    tss = build_tss(open_ports)
    ram.write(TSS_ADDRESS, tss)
    segments.tr.base, segments.tr.limit = TSS_ADDRESS, len(tss) - 1
    if segments.efer & EFER_LMA:
        write_identity_tables(ram.write, TABLES_ADDRESS)
        segments.cr3 = TABLES_ADDRESS


def _run(emulator: Emulator, code: bytes | None, answer: int, max_rounds: int, explanation: Explanation) -> None:
    """Step and answer until the instruction is finished, faults, or the rounds are used up."""
    result = CONTINUE
    for _ in range(max_rounds):
        result = emulator.step(code)
        if result == IO_NEEDED and emulator.io is not None:
            request = emulator.io
            explanation.exits.append(request)
            out = request.direction == KVM_EXIT_IO_OUT
            data = b"" if out else _port_value(answer, request.size, request.count)
            if not out:
                text = f"user space answers {data[: request.size].hex(' ')} to each element"
                explanation.steps.append(Step("answer", text, {"data": data.hex(" ")}))
            result = emulator.complete(data)
        if emulator.finished or result != CONTINUE or emulator.debug_trap:
            break
    if result == UNHANDLEABLE:
        raise EmulateError(emulator.reason)
    explanation.result = RETURN_CODES[result]
    explanation.finished = emulator.finished
    explanation.exception = emulator.exception
    explanation.debug_trap = emulator.debug_trap
