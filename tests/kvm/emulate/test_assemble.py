"""Assembly text to bytes, and what a user is told when it is wrong."""

from __future__ import annotations

import pytest

from portvisor.kvm.emulate import AssemblyError, EmulateError, assemble

# (text, bytes in 16-bit code, in 32-bit code, in 64-bit code)
TEXTS = (
    ("in al, dx", "ec", "ec", "ec"),
    ("in ax,dx", "ed", "66 ed", "66 ed"),
    ("in eax, dx", "66 ed", "ed", "ed"),
    ("IN AL, 60h", "e4 60", "e4 60", "e4 60"),
    ("in al, 0x60 ; keyboard", "e4 60", "e4 60", "e4 60"),
    ("in eax, 113", "66 e5 71", "e5 71", "e5 71"),
    ("in al, 0b11", "e4 03", "e4 03", "e4 03"),
    ("out 0x80, al", "e6 80", "e6 80", "e6 80"),
    ("out dx, ax", "ef", "66 ef", "66 ef"),
    ("out dx, eax", "66 ef", "ef", "ef"),
    ("insb", "6c", "6c", "6c"),
    ("rep insw", "f3 6d", "f3 66 6d", "f3 66 6d"),
    ("rep insd", "f3 66 6d", "f3 6d", "f3 6d"),
    ("rep insl", "f3 66 6d", "f3 6d", "f3 6d"),
    ("repz outsb", "f3 6e", "f3 6e", "f3 6e"),
    ("repnz outsd", "f2 66 6f", "f2 6f", "f2 6f"),
    ("fs: outsw", "64 6f", "64 66 6f", "64 66 6f"),
    ("rep es outsb", "f3 26 6e", "f3 26 6e", "f3 26 6e"),
    ("lock in al, dx", "f0 ec", "f0 ec", "f0 ec"),
    ("a32 rep insb", "67 f3 6c", "f3 6c", "67 f3 6c"),
    ("o16 insb", "6c", "66 6c", "66 6c"),
    ("o16 insw", "6d", "66 6d", "66 6d"),
    ("o32 insd", "66 6d", "6d", "6d"),
    ("data16 outsb", "6e", "66 6e", "66 6e"),
)


@pytest.mark.parametrize(("text", "code16", "code32", "code64"), TEXTS)
def test_text(text: str, code16: str, code32: str, code64: str) -> None:
    assert [assemble(text, bits).hex(" ") for bits in (16, 32, 64)] == [code16, code32, code64]


@pytest.mark.parametrize(
    ("text", "bits", "code"),
    [
        ("a16 insb", 16, "6c"),
        ("a16 insb", 32, "67 6c"),
        ("addr16 outsb", 32, "67 6e"),
        ("a64 insb", 64, "6c"),
        ("rex.w insw", 64, "66 48 6d"),
        ("rex rep insd", 64, "f3 40 6d"),
    ],
)
def test_text_of_one_width(text: str, bits: int, code: str) -> None:
    assert assemble(text, bits).hex(" ") == code


# (text, width, the whole message)
ERRORS = (
    ("", 32, "no instruction in '': in, out, insb/w/d or outsb/w/d is needed"),
    ("rep", 32, "no instruction in 'rep': in, out, insb/w/d or outsb/w/d is needed"),
    ("movsb", 32, "'movsb': 'movsb' is no I/O instruction: in, out, insb/w/d, outsb/w/d"),
    ("ins", 32, "'ins': 'ins' is no I/O instruction: in, out, insb/w/d, outsb/w/d"),
    ("in al", 32, "'in al': two operands are needed: in al/ax/eax, port"),
    ("out 0x80", 32, "'out 0x80': two operands are needed: out port, al/ax/eax"),
    ("in rax, dx", 64, "'in rax, dx': there is no 64-bit port access; al, ax or eax"),
    ("in bl, dx", 64, "'in bl, dx': data register 'bl' is none of al, ax, eax"),
    ("out al, 0x80", 32, "'out al, 0x80': data register '0x80' is none of al, ax, eax"),
    ("in al, 0x100", 32, "'in al, 0x100': port 0x100 does not fit into one byte (0-0xff); put it into dx"),
    ("in al, -1", 32, "'in al, -1': port '-1' is neither dx nor a number"),
    ("in al, edx", 32, "'in al, edx': port 'edx' is neither dx nor a number"),
    ("insq", 64, "'insq': there is no 64-bit port access; insb, w or d"),
    ("insb 4", 64, "'insb 4': insb takes no operands; the segment goes before it (fs outsb)"),
    ("a16 insb", 64, "'a16 insb': a16 is not possible in 64-bit code"),
    ("a64 insb", 32, "'a64 insb': a64 is not possible in 32-bit code"),
    ("rex insb", 16, "'rex insb': rex is not possible in 16-bit code"),
    ("o16 insd", 32, "'o16 insd': o16 contradicts the 32-bit operand"),
)


@pytest.mark.parametrize(("text", "bits", "message"), ERRORS)
def test_error(text: str, bits: int, message: str) -> None:
    with pytest.raises(AssemblyError) as caught:
        assemble(text, bits)
    assert str(caught.value) == message


def test_width_must_be_one_of_three() -> None:
    with pytest.raises(EmulateError, match="code width 8 is none of 16, 32, 64"):
        assemble("insb", 8)
