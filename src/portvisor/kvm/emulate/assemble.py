"""Assembly text of the I/O instructions, both ways, in Intel syntax as NASM writes it.

    in al, dx      in eax, 0x71     out 0x80, al     out dx, ax
    insb insw insd outsb outsw outsd     (insl and outsl are taken for insd and outsd)

Before the mnemonic, in any order: lock, rep (repe, repz), repne (repnz), a segment (`fs` or `fs:`),
o16, o32, a16, a32, a64, rex, rex.w. They are emitted as written.
"""

from __future__ import annotations

import re

from portvisor.kvm.emulate.decode import (
    ADDRESS_SIZE_PREFIX,
    CODE_BITS,
    LOCK_PREFIX,
    OPCODE_OUT,
    OPCODE_WIDE,
    OPERAND_SIZE_PREFIX,
    REP_PREFIX,
    REPNE_PREFIX,
    REX_FIRST,
    REX_W,
    SEGMENT_PREFIXES,
    Instruction,
)
from portvisor.kvm.emulate.errors import AssemblyError, EmulateError

IN_IMMEDIATE, IN_DX, INS = 0xE4, 0xEC, 0x6C

_PREFIX_BYTES = {
    "lock": LOCK_PREFIX,
    **dict.fromkeys(("rep", "repe", "repz"), REP_PREFIX),
    **dict.fromkeys(("repne", "repnz"), REPNE_PREFIX),
    **{name: byte for byte, name in SEGMENT_PREFIXES.items()},
}
_OPERAND_WORDS = {"o16": 2, "o32": 4, "data16": 2, "data32": 4}
_ADDRESS_WORDS = {"a16": 2, "a32": 4, "a64": 8, "addr16": 2, "addr32": 4}
_REX_WORDS = {"rex": REX_FIRST, "rex.w": REX_FIRST | REX_W}
_PREFIX_WORDS = {*_PREFIX_BYTES, *_OPERAND_WORDS, *_ADDRESS_WORDS, *_REX_WORDS}

_STRING_SIZES = {"b": 1, "w": 2, "d": 4, "l": 4}
_STRING = re.compile(r"(ins|outs)([bwdl])")
_ACCUMULATORS = {"al": 1, "ax": 2, "eax": 4}
_ACCUMULATOR_NAMES = {size: name for name, size in _ACCUMULATORS.items()}
_SIZE_SUFFIXES = {1: "b", 2: "w", 4: "d"}
_NUMBER = re.compile(r"(?P<hex>[0-9][0-9a-f]*)h|0x(?P<x>[0-9a-f]+)|0b(?P<b>[01]+)|(?P<dec>[0-9]+)")


def _number(text: str) -> int | None:
    match = _NUMBER.fullmatch(text)
    if match is None:
        return None
    for group, base in (("hex", 16), ("x", 16), ("b", 2), ("dec", 10)):
        if match[group] is not None:
            return int(match[group], base)
    return None


def _split(text: str) -> tuple[list[str], str, list[str]]:
    """Prefix words, mnemonic, operands."""
    words = text.partition(";")[0].lower().split()
    prefixes = []
    while words and words[0].rstrip(":") in _PREFIX_WORDS:
        prefixes.append(words.pop(0).rstrip(":"))
    if not words:
        raise AssemblyError(f"no instruction in {text!r}: in, out, insb/w/d or outsb/w/d is needed")
    operands = " ".join(words[1:])
    return prefixes, words[0], [part.strip() for part in operands.split(",")] if operands else []


def _accumulator(name: str, text: str) -> int:
    """Operand size by register."""
    if name == "rax":
        raise AssemblyError(f"{text!r}: there is no 64-bit port access; al, ax or eax")
    if name not in _ACCUMULATORS:
        raise AssemblyError(f"{text!r}: data register {name!r} is none of al, ax, eax")
    return _ACCUMULATORS[name]


def _port(name: str, text: str) -> int | None:
    """The immediate, or None for DX."""
    if name == "dx":
        return None
    value = _number(name)
    if value is None:
        raise AssemblyError(f"{text!r}: port {name!r} is neither dx nor a number")
    if value > 0xFF:
        raise AssemblyError(f"{text!r}: port {name} does not fit into one byte (0-0xff); put it into dx")
    return value


def _opcode(mnemonic: str, operands: list[str], text: str) -> tuple[int, int, int | None]:
    """Opcode without its size bit, operand size, immediate."""
    if mnemonic in ("in", "out"):
        out = mnemonic == "out"
        if len(operands) != 2:
            form = "out port, al/ax/eax" if out else "in al/ax/eax, port"
            raise AssemblyError(f"{text!r}: two operands are needed: {form}")
        port_name, register = operands if out else reversed(operands)
        size = _accumulator(register, text)
        immediate = _port(port_name, text)
        opcode = IN_DX if immediate is None else IN_IMMEDIATE
        return opcode | (OPCODE_OUT if out else 0), size, immediate
    if mnemonic in ("insq", "outsq"):
        raise AssemblyError(f"{text!r}: there is no 64-bit port access; {mnemonic[:-1]}b, w or d")
    match = _STRING.fullmatch(mnemonic)
    if match is None:
        raise AssemblyError(f"{text!r}: {mnemonic!r} is no I/O instruction: in, out, insb/w/d, outsb/w/d")
    if operands:
        raise AssemblyError(f"{text!r}: {mnemonic} takes no operands; the segment goes before it (fs outsb)")
    return INS | (OPCODE_OUT if match[1] == "outs" else 0), _STRING_SIZES[match[2]], None


def _address_prefix(size: int, bits: int, word: str, text: str) -> bytes:
    """What an address-size word emits."""
    default = bits // 8
    if size == default:
        return b""
    if size == 8 or (bits == 64 and size == 2):
        raise AssemblyError(f"{text!r}: {word} is not possible in {bits}-bit code")
    return bytes((ADDRESS_SIZE_PREFIX,))


def _operand_prefix(bits: int, size: int) -> bytes:
    """What an operand size emits."""
    return bytes((OPERAND_SIZE_PREFIX,)) if (size == 2) != (bits == 16) else b""


def assemble(text: str, bits: int) -> bytes:
    """The bytes of one I/O instruction.

    Args:
        text: see the module's docstring. A comment may follow a semicolon.
        bits: width of the code: 16, 32 or 64.

    Raises:
        AssemblyError: it is not one, or not possible in this mode; the text says why.
    """
    if bits not in CODE_BITS:
        raise EmulateError(f"code width {bits} is none of 16, 32, 64")
    words, mnemonic, operands = _split(text)
    opcode, size, immediate = _opcode(mnemonic, operands, text)
    code = bytearray()
    rex = b""
    for word in words:
        if word in _PREFIX_BYTES:
            code.append(_PREFIX_BYTES[word])
        elif word in _ADDRESS_WORDS:
            code += _address_prefix(_ADDRESS_WORDS[word], bits, word, text)
        elif word in _REX_WORDS:
            if bits != 64:
                raise AssemblyError(f"{text!r}: {word} is not possible in {bits}-bit code")
            rex = bytes((_REX_WORDS[word],))
        elif size != 1 and size != _OPERAND_WORDS[word]:
            raise AssemblyError(f"{text!r}: {word} contradicts the {8 * size}-bit operand")
        elif size == 1:
            code += _operand_prefix(bits, _OPERAND_WORDS[word])
    if size != 1:
        code += _operand_prefix(bits, size)
    code += rex
    code.append(opcode | (OPCODE_WIDE if size != 1 else 0))
    if immediate is not None:
        code.append(immediate)
    return bytes(code)


def disassemble(instruction: Instruction) -> str:
    """Assembly text of a decoded instruction; prefixes without effect on it are left out, but LOCK and REP."""
    parts = ["lock"] if instruction.lock else []
    if instruction.rep_prefix:
        parts.append("rep" if instruction.rep_prefix == REP_PREFIX else "repne")
    size = instruction.size
    if instruction.string:
        if instruction.address_size != instruction.bits // 8:
            parts.append(f"a{8 * instruction.address_size}")
        if instruction.out and instruction.segment != "ds":
            parts.append(instruction.segment)
        parts.append(("outs" if instruction.out else "ins") + _SIZE_SUFFIXES[size])
        return " ".join(parts)
    port = "dx" if instruction.immediate is None else f"{instruction.immediate:#x}"
    register = _ACCUMULATOR_NAMES[size]
    parts.append(f"out {port}, {register}" if instruction.out else f"in {register}, {port}")
    return " ".join(parts)
