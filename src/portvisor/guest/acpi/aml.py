"""ACPI Machine Language, as much as describing devices takes. Every function returns bytes.

Source: ACPI 6.4, chapter 20 (AML grammar) and 6.4 (resource data types).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable
from enum import IntEnum

NAME_SEGMENT = re.compile(r"[A-Z_][A-Z0-9_]{0,3}")
EISA_ID = re.compile(r"[A-Z]{3}[0-9A-F]{4}")

ZERO_OP, ONE_OP, NAME_OP = b"\x00", b"\x01", b"\x08"
BYTE_PREFIX, WORD_PREFIX, DWORD_PREFIX, STRING_PREFIX, QWORD_PREFIX = b"\x0a", b"\x0b", b"\x0c", b"\x0d", b"\x0e"
SCOPE_OP, BUFFER_OP, PACKAGE_OP, METHOD_OP = b"\x10", b"\x11", b"\x12", b"\x14"
DUAL_NAME_PREFIX, MULTI_NAME_PREFIX = b"\x2e", b"\x2f"
DEVICE_OP, PROCESSOR_OP = b"\x5b\x82", b"\x5b\x83"
RETURN_OP = b"\xa4"


class AmlError(ValueError):
    """Something that AML cannot say."""


def package_length(content: bytes) -> bytes:
    """PkgLength and the content it covers (20.2.4); the length counts its own bytes."""
    size = len(content)
    if size + 1 < 1 << 6:
        return bytes([size + 1]) + content
    for extra in (1, 2, 3):
        total = size + 1 + extra
        if total < 1 << 4 + 8 * extra:
            return bytes([extra << 6 | total & 0xF]) + (total >> 4).to_bytes(extra, "little") + content
    raise AmlError(f"a package of {size} bytes: AML allows 2^28")


def name(path: str) -> bytes:
    """NameString (20.2.2): `\\` for the root, `^` for the parent, segments separated by dots."""
    rest = path.lstrip("\\^")
    prefix = path[: len(path) - len(rest)].encode()
    segments = rest.split(".") if rest else []
    for segment in segments:
        if not NAME_SEGMENT.fullmatch(segment):
            raise AmlError(f"{path!r}: {segment!r} is no AML name (A-Z, 0-9 and _, at most four)")
    body = b"".join(segment.ljust(4, "_").encode() for segment in segments)
    if len(segments) <= 1:
        return prefix + (body or ZERO_OP)
    if len(segments) == 2:
        return prefix + DUAL_NAME_PREFIX + body
    return prefix + MULTI_NAME_PREFIX + bytes([len(segments)]) + body


def integer(value: int) -> bytes:
    """The shortest ComputationalData for an integer."""
    if value in (0, 1):
        return ONE_OP if value else ZERO_OP
    for prefix, size in ((BYTE_PREFIX, 1), (WORD_PREFIX, 2), (DWORD_PREFIX, 4), (QWORD_PREFIX, 8)):
        if 0 <= value < 1 << 8 * size:
            return prefix + value.to_bytes(size, "little")
    raise AmlError(f"{value} does not fit 64 bits")


def string(text: str) -> bytes:
    """A string constant: ASCII 01-7F."""
    return STRING_PREFIX + text.encode("ascii") + b"\0"


def eisa_id(text: str) -> bytes:
    """An EISA id such as PNP0A08, packed into a DWord (19.6.36)."""
    if not EISA_ID.fullmatch(text):
        raise AmlError(f"{text!r} is no EISA id (three letters, four hex digits)")
    letters = [ord(letter) - 0x40 for letter in text[:3]]
    packed = letters[0] << 26 | letters[1] << 21 | letters[2] << 16 | int(text[3:], 16)
    return DWORD_PREFIX + packed.to_bytes(4, "big")


def hardware_id(text: str) -> bytes:
    """_HID or _CID value: packed if it is an EISA id, else a string."""
    return eisa_id(text) if text.startswith("PNP") and EISA_ID.fullmatch(text) else string(text)


def assign(path: str, value: bytes) -> bytes:
    """Name (path, value)."""
    return NAME_OP + name(path) + value


def scope(path: str, *terms: bytes) -> bytes:
    """Scope (path) { terms }."""
    return SCOPE_OP + package_length(name(path) + b"".join(terms))


def device(path: str, *terms: bytes) -> bytes:
    """Device (path) { terms }."""
    return DEVICE_OP + package_length(name(path) + b"".join(terms))


def processor(path: str, processor_id: int, block: int, block_length: int) -> bytes:
    """Processor (path, id, P_BLK address, P_BLK length) {}: the old form, the only one with a P_BLK."""
    return PROCESSOR_OP + package_length(name(path) + struct.pack("<BIB", processor_id, block, block_length))


def method(path: str, *terms: bytes, arguments: int = 0) -> bytes:
    """Method (path, arguments, NotSerialized) { terms }."""
    return METHOD_OP + package_length(name(path) + bytes([arguments]) + b"".join(terms))


def returns(value: bytes) -> bytes:
    """Return (value)."""
    return RETURN_OP + value


def package(*elements: bytes) -> bytes:
    """Package () { elements }."""
    return PACKAGE_OP + package_length(bytes([len(elements)]) + b"".join(elements))


def buffer(data: bytes) -> bytes:
    """Buffer () { data }."""
    return BUFFER_OP + package_length(integer(len(data)) + data)


# --- resource descriptors (6.4.2, 6.4.3) ------------------------------------------------------------------


class SpaceType(IntEnum):
    """Resource type of an address space descriptor."""

    MEMORY = 0
    IO = 1
    BUS_NUMBER = 2


FIXED_RANGE = 0x0C  # _MAF and _MIF: both ends fixed
POSITIVE_PRODUCER = 0x00
ENTIRE_RANGE = 0x03  # _RNG: ISA and non-ISA addresses
READ_WRITE = 0x01
END_TAG = b"\x79\x00"


def io(base: int, length: int, last_base: int | None = None) -> bytes:
    """IO (Decode16, base, last_base, 1, length)."""
    return struct.pack("<BBHHBB", 0x47, 1, base, base if last_base is None else last_base, 1, length)


def irq_no_flags(*lines: int) -> bytes:
    """IRQNoFlags () {lines}: edge, active high. Without lines: present, but disabled."""
    return struct.pack("<BH", 0x22, sum(1 << line for line in lines))


def irq_level(*lines: int) -> bytes:
    """IRQ (Level, ActiveLow, Shared) {lines}: what a PCI interrupt needs."""
    return struct.pack("<BHB", 0x23, sum(1 << line for line in lines), 0x18)


def dma(channel: int) -> bytes:
    """DMA (Compatibility, NotBusMaster, Transfer8) {channel}; channel 4 is the cascade."""
    return struct.pack("<BBB", 0x2A, 1 << channel, 0)


def memory32_fixed(base: int, length: int) -> bytes:
    """Memory32Fixed (ReadWrite, base, length)."""
    return struct.pack("<BHBII", 0x86, 9, READ_WRITE, base, length)


def word_space(kind: SpaceType, first: int, last: int) -> bytes:
    """WordBusNumber or WordIO, fixed, producer: a bus window [first, last]."""
    flags = ENTIRE_RANGE if kind is SpaceType.IO else 0
    body = struct.pack(
        "<BBBHHHHH", kind, FIXED_RANGE | POSITIVE_PRODUCER, flags, 0, first, last, 0, last - first + 1
    )
    return struct.pack("<BH", 0x88, len(body)) + body


def dword_memory(first: int, last: int) -> bytes:
    """DWordMemory, fixed, producer, not cacheable, read-write: a memory window [first, last]."""
    body = struct.pack("<BBBIIIII", SpaceType.MEMORY, FIXED_RANGE, READ_WRITE, 0, first, last, 0, last - first + 1)
    return struct.pack("<BH", 0x87, len(body)) + body


def resources(descriptors: Iterable[bytes]) -> bytes:
    """ResourceTemplate () { descriptors }."""
    return buffer(b"".join(descriptors) + END_TAG)
