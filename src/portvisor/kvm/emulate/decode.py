"""Decoder for the sixteen I/O opcodes with all their prefixes, in 16-, 32- and 64-bit code.

Source: Intel SDM vol. 2, "IN", "INS", "OUT", "OUTS" and section 2.1 (prefixes), 2.2.1 (REX).

    E4 ib  IN AL,imm8     E5 ib  IN eAX,imm8     EC  IN AL,DX    ED  IN eAX,DX
    E6 ib  OUT imm8,AL    E7 ib  OUT imm8,eAX    EE  OUT DX,AL   EF  OUT DX,eAX
    6C     INSB           6D     INSW/INSD       6E  OUTSB       6F  OUTSW/OUTSD

Bit 0 of the opcode: AX or EAX instead of AL. Bit 1: out. Bit 3 of Ex: port in DX instead of imm8.
"""

from __future__ import annotations

from dataclasses import dataclass

from portvisor.kvm.emulate.errors import (
    EmulateError,
    InstructionTooLongError,
    NotIoInstructionError,
    TruncatedInstructionError,
)
from portvisor.kvm.emulate.x86 import MASK16, MASK32, MASK64

MAX_LENGTH = 15
"""Bytes of the longest legal instruction, prefixes included."""

OPERAND_SIZE_PREFIX = 0x66
ADDRESS_SIZE_PREFIX = 0x67
LOCK_PREFIX = 0xF0
REPNE_PREFIX = 0xF2
REP_PREFIX = 0xF3
SEGMENT_PREFIXES = {0x26: "es", 0x2E: "cs", 0x36: "ss", 0x3E: "ds", 0x64: "fs", 0x65: "gs"}
PREFIX_NAMES = {
    OPERAND_SIZE_PREFIX: "operand size",
    ADDRESS_SIZE_PREFIX: "address size",
    LOCK_PREFIX: "lock",
    REPNE_PREFIX: "repne",
    REP_PREFIX: "rep",
    **SEGMENT_PREFIXES,
}
REX_FIRST, REX_LAST = 0x40, 0x4F
REX_W = 1 << 3

OPCODE_WIDE = 1 << 0
OPCODE_OUT = 1 << 1
IMMEDIATE_OPCODES = frozenset((0xE4, 0xE5, 0xE6, 0xE7))
DX_OPCODES = frozenset((0xEC, 0xED, 0xEE, 0xEF))
STRING_OPCODES = frozenset((0x6C, 0x6D, 0x6E, 0x6F))
IO_OPCODES = IMMEDIATE_OPCODES | DX_OPCODES | STRING_OPCODES

ADDRESS_MASKS = {2: MASK16, 4: MASK32, 8: MASK64}
CODE_BITS = (16, 32, 64)


@dataclass(frozen=True, slots=True)
class Instruction:
    """A decoded I/O instruction."""

    code: bytes
    """The whole encoding."""
    bits: int
    """Width of the code it was decoded for: 16, 32 or 64."""
    opcode: int
    out: bool
    string: bool
    size: int
    """Operand size in bytes: 1, 2 or 4."""
    address_size: int
    """Address size in bytes: 2, 4 or 8. Matters to string instructions only."""
    address_mask: int
    immediate: int | None
    """imm8; None if the port is in DX."""
    segment: str
    """Segment of the memory operand: "es" for INS, "ds" or the override for OUTS."""
    repeat: bool
    """A string instruction with F2 or F3; elsewhere these prefixes are ignored."""
    rep_prefix: int
    """The last F2 or F3, 0 if none."""
    lock: bool
    rex: int
    """The REX prefix that counts, 0 if none."""
    length: int

    @property
    def prefixes(self) -> bytes:
        """The bytes before the opcode."""
        return self.code[: self.length - (2 if self.immediate is not None else 1)]


def _prefix_length(code: bytes, bits: int) -> int:
    """Number of bytes before the opcode."""
    for index, byte in enumerate(code[:MAX_LENGTH]):
        if byte not in PREFIX_NAMES and not (bits == 64 and REX_FIRST <= byte <= REX_LAST):
            return index
    if len(code) >= MAX_LENGTH:
        raise InstructionTooLongError(f"more than {MAX_LENGTH} bytes: {code[: MAX_LENGTH + 1].hex(' ')}")
    raise TruncatedInstructionError(f"ends before the opcode: {code.hex(' ') or 'no bytes'}")


def _last(prefixes: bytes, among: tuple[int, ...] | dict[int, str]) -> int:
    """The last prefix of a group, 0 if there is none."""
    return next((byte for byte in reversed(prefixes) if byte in among), 0)


def _operand_size(opcode: int, bits: int, toggled: bool, rex: int) -> int:
    if not opcode & OPCODE_WIDE:
        return 1
    if rex & REX_W:
        return 4
    return 2 if (bits == 16) != toggled else 4


def _address_size(bits: int, toggled: bool) -> int:
    if bits == 64:
        return 4 if toggled else 8
    return 2 if (bits == 16) != toggled else 4


def _immediate(code: bytes, index: int) -> int:
    if index >= MAX_LENGTH:
        raise InstructionTooLongError(f"more than {MAX_LENGTH} bytes: {code[: MAX_LENGTH + 1].hex(' ')}")
    if index >= len(code):
        raise TruncatedInstructionError(f"the port byte is missing: {code.hex(' ')}")
    return code[index]


def decode(code: bytes, bits: int) -> Instruction:
    """Decode the instruction at the start of `code`; bytes after it do not matter.

    Args:
        code: one instruction or more, at least one byte.
        bits: default width of the code: 16, 32 or 64.

    Raises:
        TruncatedInstructionError: more bytes are needed.
        InstructionTooLongError: it does not end within 15 bytes.
        NotIoInstructionError: another opcode.
        EmulateError: `bits` is none of 16, 32, 64.
    """
    if bits not in CODE_BITS:
        raise EmulateError(f"code width {bits} is none of 16, 32, 64")
    index = _prefix_length(code, bits)
    opcode = code[index]
    if opcode not in IO_OPCODES:
        raise NotIoInstructionError(f"not an I/O instruction: opcode {opcode:02x} in {code[:MAX_LENGTH].hex(' ')}")
    prefixes = code[:index]
    immediate = _immediate(code, index + 1) if opcode in IMMEDIATE_OPCODES else None
    # REX counts only right before the opcode; a legacy prefix after it makes it void.
    rex = prefixes[-1] if bits == 64 and prefixes and REX_FIRST <= prefixes[-1] <= REX_LAST else 0
    string = opcode in STRING_OPCODES
    out = bool(opcode & OPCODE_OUT)
    address_size = _address_size(bits, ADDRESS_SIZE_PREFIX in prefixes)
    rep_prefix = _last(prefixes, (REPNE_PREFIX, REP_PREFIX))
    override = SEGMENT_PREFIXES.get(_last(prefixes, SEGMENT_PREFIXES), "ds")
    length = index + 1 + (immediate is not None)
    return Instruction(
        code=bytes(code[:length]),
        bits=bits,
        opcode=opcode,
        out=out,
        string=string,
        size=_operand_size(opcode, bits, OPERAND_SIZE_PREFIX in prefixes, rex),
        address_size=address_size,
        address_mask=ADDRESS_MASKS[address_size],
        immediate=immediate,
        segment=override if out else "es",
        repeat=string and rep_prefix != 0,
        rep_prefix=rep_prefix,
        lock=LOCK_PREFIX in prefixes,
        rex=rex,
        length=length,
    )


_CACHE_ENTRIES = 4096
_cache: dict[int, dict[bytes, Instruction]] = {bits: {} for bits in CODE_BITS}


def decode_cached(code: bytes, bits: int) -> Instruction:
    """`decode`, remembering what it saw: a loop fetches the same bytes again and again."""
    cache = _cache[bits]
    instruction = cache.get(code)
    if instruction is None:
        instruction = decode(code, bits)
        if len(cache) >= _CACHE_ENTRIES:
            cache.clear()
        cache[code] = instruction
    return instruction
