"""Encodings, prefixes, sizes, length: one row a rule."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portvisor.kvm.emulate import (
    EmulateError,
    InstructionTooLongError,
    NotIoInstructionError,
    TruncatedInstructionError,
    assemble,
    decode,
    disassemble,
)
from portvisor.kvm.emulate.decode import IO_OPCODES, MAX_LENGTH, decode_cached

# (rule, width of the code, bytes, assembly, operand size, address size)
ENCODINGS = (
    ("E4 ib", 16, "e4 60", "in al, 0x60", 1, 2),
    ("E4 ib", 32, "e4 ff", "in al, 0xff", 1, 4),
    ("E4 ib", 64, "e4 00", "in al, 0x0", 1, 8),
    ("E5 ib takes AX in 16-bit code", 16, "e5 71", "in ax, 0x71", 2, 2),
    ("E5 ib takes EAX in 32-bit code", 32, "e5 71", "in eax, 0x71", 4, 4),
    ("E5 ib takes EAX in 64-bit code", 64, "e5 71", "in eax, 0x71", 4, 8),
    ("E6 ib", 16, "e6 80", "out 0x80, al", 1, 2),
    ("E6 ib", 32, "e6 80", "out 0x80, al", 1, 4),
    ("E6 ib", 64, "e6 80", "out 0x80, al", 1, 8),
    ("E7 ib", 16, "e7 80", "out 0x80, ax", 2, 2),
    ("E7 ib", 32, "e7 80", "out 0x80, eax", 4, 4),
    ("E7 ib", 64, "e7 80", "out 0x80, eax", 4, 8),
    ("EC", 16, "ec", "in al, dx", 1, 2),
    ("EC", 32, "ec", "in al, dx", 1, 4),
    ("EC", 64, "ec", "in al, dx", 1, 8),
    ("ED", 16, "ed", "in ax, dx", 2, 2),
    ("ED", 32, "ed", "in eax, dx", 4, 4),
    ("ED", 64, "ed", "in eax, dx", 4, 8),
    ("EE", 16, "ee", "out dx, al", 1, 2),
    ("EE", 32, "ee", "out dx, al", 1, 4),
    ("EE", 64, "ee", "out dx, al", 1, 8),
    ("EF", 16, "ef", "out dx, ax", 2, 2),
    ("EF", 32, "ef", "out dx, eax", 4, 4),
    ("EF", 64, "ef", "out dx, eax", 4, 8),
    ("6C", 16, "6c", "insb", 1, 2),
    ("6C", 32, "6c", "insb", 1, 4),
    ("6C", 64, "6c", "insb", 1, 8),
    ("6D", 16, "6d", "insw", 2, 2),
    ("6D", 32, "6d", "insd", 4, 4),
    ("6D", 64, "6d", "insd", 4, 8),
    ("6E", 16, "6e", "outsb", 1, 2),
    ("6E", 32, "6e", "outsb", 1, 4),
    ("6E", 64, "6e", "outsb", 1, 8),
    ("6F", 16, "6f", "outsw", 2, 2),
    ("6F", 32, "6f", "outsd", 4, 4),
    ("6F", 64, "6f", "outsd", 4, 8),
    ("66 toggles the operand size", 16, "66 ed", "in eax, dx", 4, 2),
    ("66 toggles the operand size", 32, "66 ed", "in ax, dx", 2, 4),
    ("66 toggles the operand size", 64, "66 ed", "in ax, dx", 2, 8),
    ("66 toggles the operand size", 16, "66 e7 80", "out 0x80, eax", 4, 2),
    ("66 toggles the operand size", 32, "66 6d", "insw", 2, 4),
    ("66 toggles the operand size", 64, "66 6f", "outsw", 2, 8),
    ("66 twice toggles once", 16, "66 66 ed", "in eax, dx", 4, 2),
    ("66 twice toggles once", 64, "66 66 6d", "insw", 2, 8),
    ("66 leaves byte operands alone", 16, "66 ec", "in al, dx", 1, 2),
    ("66 leaves byte operands alone", 64, "66 6e", "outsb", 1, 8),
    ("67 toggles the address size", 16, "67 6c", "a32 insb", 1, 4),
    ("67 toggles the address size", 32, "67 6c", "a16 insb", 1, 2),
    ("67 makes it 32 in 64-bit code", 64, "67 6c", "a32 insb", 1, 4),
    ("67 twice toggles once", 64, "67 67 6e", "a32 outsb", 1, 4),
    ("67 means nothing to IN", 16, "67 ec", "in al, dx", 1, 4),
    ("66 and 67 together", 16, "66 67 6d", "a32 insd", 4, 4),
    ("66 and 67 together", 32, "67 66 6d", "a16 insw", 2, 2),
    ("F3", 16, "f3 6c", "rep insb", 1, 2),
    ("F3", 64, "f3 6f", "rep outsd", 4, 8),
    ("F2 repeats as well", 32, "f2 6d", "repne insd", 4, 4),
    ("the last of F2 and F3 counts", 32, "f2 f3 6d", "rep insd", 4, 4),
    ("the last of F2 and F3 counts", 32, "f3 f2 6d", "repne insd", 4, 4),
    ("F3 on IN is ignored", 32, "f3 ec", "rep in al, dx", 1, 4),
    ("LOCK is decoded", 32, "f0 ec", "lock in al, dx", 1, 4),
    ("LOCK anywhere among the prefixes", 64, "f3 f0 66 6d", "lock rep insw", 2, 8),
    ("26", 32, "26 6e", "es outsb", 1, 4),
    ("2E", 32, "2e 6e", "cs outsb", 1, 4),
    ("36", 32, "36 6e", "ss outsb", 1, 4),
    ("3E is the default", 32, "3e 6e", "outsb", 1, 4),
    ("64", 16, "64 6f", "fs outsw", 2, 2),
    ("65", 64, "65 6f", "gs outsd", 4, 8),
    ("the last segment prefix wins", 32, "64 26 6e", "es outsb", 1, 4),
    ("the last segment prefix wins", 64, "36 65 6e", "gs outsb", 1, 8),
    ("the last segment prefix wins, one without a base too", 64, "64 36 6e", "ss outsb", 1, 8),
    ("INS ignores segment prefixes", 32, "64 6c", "insb", 1, 4),
    ("REX.W leaves 32 bits", 64, "48 ed", "in eax, dx", 4, 8),
    ("REX.W overrides 66", 64, "66 48 ed", "in eax, dx", 4, 8),
    ("REX before a legacy prefix is void", 64, "48 66 ed", "in ax, dx", 2, 8),
    ("REX without W changes nothing", 64, "66 47 6d", "insw", 2, 8),
    ("the last of several REX counts", 64, "66 48 40 ed", "in ax, dx", 2, 8),
    ("the last of several REX counts", 64, "66 40 48 ed", "in eax, dx", 4, 8),
    ("REX.W and a byte operand", 64, "4f 6c", "insb", 1, 8),
    ("REX between REP and the opcode", 64, "f3 48 6d", "rep insd", 4, 8),
    ("REX before REP is void", 64, "48 f3 66 6d", "rep insw", 2, 8),
    ("15 bytes are allowed", 16, "2e " * 14 + "ec", "in al, dx", 1, 2),
    ("15 bytes are allowed", 64, "66 " * 13 + "48 6d", "insd", 4, 8),
    ("15 bytes with the port", 32, "3e " * 13 + "e4 21", "in al, 0x21", 1, 4),
)


@pytest.mark.parametrize(
    ("rule", "bits", "code", "text", "size", "address_size"), ENCODINGS, ids=lambda value: str(value)[:48]
)
def test_encoding(rule: str, bits: int, code: str, text: str, size: int, address_size: int) -> None:
    machine_code = bytes.fromhex(code)
    instruction = decode(machine_code + b"\x90" * 3, bits)
    assert disassemble(instruction) == text, rule
    assert (instruction.size, instruction.address_size, instruction.code) == (size, address_size, machine_code)
    assert instruction.length == len(machine_code)


# (rule, width, bytes, error, part of its text)
ERRORS = (
    ("no bytes", 32, "", TruncatedInstructionError, "ends before the opcode: no bytes"),
    ("prefixes only", 32, "66 f3", TruncatedInstructionError, "ends before the opcode: 66 f3"),
    ("REX only", 64, "48", TruncatedInstructionError, "ends before the opcode: 48"),
    ("port missing", 16, "e4", TruncatedInstructionError, "the port byte is missing: e4"),
    ("port missing", 16, "66 e7", TruncatedInstructionError, "the port byte is missing: 66 e7"),
    ("40 is INC outside 64-bit code", 32, "40 ec", NotIoInstructionError, "opcode 40 in 40 ec"),
    ("another opcode", 64, "90", NotIoInstructionError, "opcode 90"),
    ("MOVSB", 64, "f3 a4", NotIoInstructionError, "opcode a4"),
    ("two-byte opcode", 64, "66 0f 6f c0", NotIoInstructionError, "opcode 0f"),
    ("16 bytes", 16, "2e " * 15 + "ec", InstructionTooLongError, "more than 15 bytes"),
    ("the port is byte 16", 16, "2e " * 14 + "e4 60", InstructionTooLongError, "more than 15 bytes"),
    ("15 prefixes are enough to know", 64, "66 " * 15, InstructionTooLongError, "more than 15 bytes"),
    ("14 prefixes are not", 64, "66 " * 14, TruncatedInstructionError, "ends before the opcode"),
    ("14 prefixes and E4 need no port byte", 64, "66 " * 14 + "e4", InstructionTooLongError, "more than 15 bytes"),
    ("width", 8, "ec", EmulateError, "code width 8 is none of 16, 32, 64"),
)


@pytest.mark.parametrize(("rule", "bits", "code", "error", "text"), ERRORS, ids=lambda value: str(value)[:40])
def test_error(rule: str, bits: int, code: str, error: type[EmulateError], text: str) -> None:
    with pytest.raises(error) as caught:
        decode(bytes.fromhex(code), bits)
    assert text in str(caught.value), rule


LEGACY_PREFIXES = (0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x2E, 0x36)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_legacy_prefixes_mean_the_same_in_every_order(bits: int) -> None:
    for chosen in itertools.combinations(LEGACY_PREFIXES, 3):
        if {0xF2, 0xF3} <= set(chosen) or {0x2E, 0x36} <= set(chosen):
            continue  # of these the last one counts
        for opcode in sorted(IO_OPCODES):
            tail = bytes((opcode, 0x21))
            texts = {disassemble(decode(bytes(order) + tail, bits)) for order in itertools.permutations(chosen)}
            assert len(texts) == 1, (chosen, opcode)


@given(st.binary(max_size=17), st.sampled_from([16, 32, 64]))
def test_any_bytes_decode_or_are_refused(code: bytes, bits: int) -> None:
    try:
        instruction = decode(code, bits)
    except EmulateError:
        return
    assert code.startswith(instruction.code)
    assert len(instruction.code) == instruction.length <= MAX_LENGTH
    assert instruction.code[len(instruction.prefixes)] == instruction.opcode


@given(
    st.lists(
        st.sampled_from((0x66, 0x67, 0xF2, 0xF3, 0xF0, 0x26, 0x2E, 0x36, 0x3E, 0x64, 0x65, 0x40, 0x48)), max_size=8
    ),
    st.sampled_from(sorted(IO_OPCODES)),
    st.sampled_from([16, 32, 64]),
)
def test_text_of_an_instruction_assembles_to_the_same_meaning(prefixes: list[int], opcode: int, bits: int) -> None:
    if bits != 64:
        prefixes = [byte for byte in prefixes if byte not in (0x40, 0x48)]
    instruction = decode(bytes([*prefixes, opcode, 0x21]), bits)
    text = disassemble(instruction)
    again = decode(assemble(text, bits), bits)
    assert disassemble(again) == text
    for name in ("out", "string", "size", "immediate", "repeat", "lock"):
        assert getattr(again, name) == getattr(instruction, name)
    if instruction.string:
        assert again.address_size == instruction.address_size
        assert again.segment == instruction.segment


def test_the_cache_answers_with_the_same_object_and_knows_widths_apart() -> None:
    code = bytes.fromhex("66 6d 90")
    assert decode_cached(code, 32) is decode_cached(code, 32)
    assert (decode_cached(code, 16).size, decode_cached(code, 32).size) == (4, 2)
