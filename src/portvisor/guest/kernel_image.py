"""Linux kernel files: bzImage and its compressed payload, and vmlinux (ELF).

Source: Documentation/arch/x86/boot.rst (the setup header) and the ELF specification.
"""

from __future__ import annotations

import bz2
import lzma
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import lz4.block
import zstandard

from portvisor.guest.errors import GuestFileError

SETUP_SECTS, HEADER_START = 0x1F1, 0x1F1
BOOT_FLAG, BOOT_FLAG_MAGIC = 0x1FE, 0xAA55
JUMP_LENGTH = 0x201
HEADER_MAGIC, HEADER_MAGIC_VALUE = 0x202, b"HdrS"
PROTOCOL_VERSION = 0x206
INITRD_ADDR_MAX = 0x22C
XLOADFLAGS, XLF_KERNEL_64 = 0x236, 1
PAYLOAD_OFFSET, PAYLOAD_LENGTH = 0x248, 0x24C
INIT_SIZE = 0x260
OLDEST_PROTOCOL = 0x0208
SECTOR = 512
DEFAULT_SETUP_SECTS = 4

ELF_MAGIC = b"\x7fELF"
ELFCLASS32, ELFCLASS64 = 1, 2
PT_LOAD = 1
LZ4_LEGACY_MAGIC = 0x184C2102
LZ4_LEGACY_BLOCK = 8 << 20
LARGEST_KERNEL = 512 << 20


@dataclass(frozen=True, slots=True)
class Segment:
    """A PT_LOAD segment: file data and zero fill at a physical address."""

    address: int
    data: bytes
    memory_size: int

    @property
    def end(self) -> int:
        """First address after the segment in memory."""
        return self.address + self.memory_size


@dataclass(frozen=True, slots=True)
class Vmlinux:
    """An unpacked kernel."""

    entry: int
    bits: int
    segments: tuple[Segment, ...]

    @property
    def end(self) -> int:
        """First address after everything loaded."""
        return max(segment.end for segment in self.segments)


@dataclass(frozen=True, slots=True)
class BzImage:
    """A compressed kernel with its setup header."""

    header: bytes
    """Bytes 1F1 up to the header's end, to be copied to boot_params."""
    body: bytes
    """The protected-mode part, to be loaded at 1 MiB."""
    protocol: int
    kernel_64: bool
    initrd_max: int
    init_size: int
    payload: bytes

    @property
    def payload_format(self) -> str | None:
        """Name of the payload's compression, None if the host cannot unpack it."""
        if self.payload.startswith(ELF_MAGIC):
            return "none"
        return next((name for magic, name, _ in FORMATS if self.payload.startswith(magic)), None)

    def unpack(self) -> Vmlinux:
        """Decompress the payload on the host.

        Raises:
            GuestFileError: an unknown or broken compression.
        """
        return parse_vmlinux(self.unpacked_payload(), "the kernel's payload")

    def unpacked_payload(self) -> bytes:
        """The ELF file inside.

        Raises:
            GuestFileError: an unknown or broken compression.
        """
        return decompress(self.payload)


def _field(data: bytes, layout: str, offset: int) -> int:
    value: int = struct.unpack_from(layout, data, offset)[0]
    return value


def parse_bzimage(data: bytes, label: str) -> BzImage:
    """Read a bzImage.

    Raises:
        GuestFileError: it is none, is truncated, or speaks a boot protocol before 2.08.
    """
    if len(data) < INIT_SIZE + 8 or data[HEADER_MAGIC : HEADER_MAGIC + 4] != HEADER_MAGIC_VALUE:
        raise GuestFileError(f"{label}: not a Linux kernel (no bzImage header and no ELF header)")
    protocol = _field(data, "<H", PROTOCOL_VERSION)
    if protocol < OLDEST_PROTOCOL:
        raise GuestFileError(
            f"{label}: boot protocol {protocol >> 8}.{protocol & 0xFF:02d}, 2.08 or later is needed"
        )
    start = ((data[SETUP_SECTS] or DEFAULT_SETUP_SECTS) + 1) * SECTOR
    payload_start = start + _field(data, "<I", PAYLOAD_OFFSET)
    payload_end = payload_start + _field(data, "<I", PAYLOAD_LENGTH)
    if payload_end > len(data):
        raise GuestFileError(f"{label}: truncated: {len(data)} bytes, its header promises {payload_end}")
    return BzImage(
        header=data[HEADER_START : HEADER_MAGIC + data[JUMP_LENGTH]],
        body=data[start:],
        protocol=protocol,
        kernel_64=bool(_field(data, "<H", XLOADFLAGS) & XLF_KERNEL_64),
        initrd_max=_field(data, "<I", INITRD_ADDR_MAX),
        init_size=_field(data, "<I", INIT_SIZE),
        payload=data[payload_start:payload_end],
    )


def _unlzma(data: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE).decompress(data, LARGEST_KERNEL)


def _unxz(data: bytes) -> bytes:
    return lzma.LZMADecompressor(lzma.FORMAT_XZ).decompress(data, LARGEST_KERNEL)


def _unzstd(data: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def _ungzip(data: bytes) -> bytes:
    return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, LARGEST_KERNEL)


def _unbzip2(data: bytes) -> bytes:
    return bz2.BZ2Decompressor().decompress(data, LARGEST_KERNEL)


def _unlz4(data: bytes) -> bytes:
    """The legacy frame that kernels use: blocks of up to 8 MiB, each with its size before it."""
    out, place = bytearray(), 4
    while place + 4 <= len(data) and len(out) < LARGEST_KERNEL:
        size = _field(data, "<I", place)
        place += 4
        if size == 0 or place + size > len(data):
            break
        out += lz4.block.decompress(data[place : place + size], uncompressed_size=LZ4_LEGACY_BLOCK)
        place += size
    return bytes(out)


FORMATS: tuple[tuple[bytes, str, Callable[[bytes], bytes]], ...] = (
    (b"\xfd7zXZ\0", "xz", _unxz),
    (b"\x28\xb5\x2f\xfd", "zstd", _unzstd),
    (LZ4_LEGACY_MAGIC.to_bytes(4, "little"), "lz4", _unlz4),
    (b"\x1f\x8b", "gzip", _ungzip),
    (b"BZh", "bzip2", _unbzip2),
    (b"\x5d\0\0", "lzma", _unlzma),
)
BROKEN = (lzma.LZMAError, zlib.error, zstandard.ZstdError, lz4.block.LZ4BlockError, OSError, EOFError, ValueError)


def decompress(payload: bytes) -> bytes:
    """Unpack a kernel's payload by its magic number.

    Raises:
        GuestFileError: unknown format (lzo), or broken data.
    """
    if payload.startswith(ELF_MAGIC):
        return payload
    for magic, name, unpack in FORMATS:
        if payload.startswith(magic):
            try:
                return unpack(payload)
            except BROKEN as error:
                raise GuestFileError(f"the kernel's {name} payload is broken: {error}") from error
    raise GuestFileError(
        f"the kernel is compressed in an unknown way (payload starts {payload[:4].hex()}; "
        "known are xz, zstd, lz4, gzip, bzip2, lzma)"
    )


def parse_vmlinux(data: bytes, label: str) -> Vmlinux:
    """Read an ELF kernel.

    Raises:
        GuestFileError: not ELF, not x86, truncated, or nothing to load.
    """
    if len(data) < 64 or not data.startswith(ELF_MAGIC) or data[4] not in (ELFCLASS32, ELFCLASS64):
        raise GuestFileError(f"{label}: not an ELF file")
    wide = data[4] == ELFCLASS64
    entry = _field(data, "<Q" if wide else "<I", 24)
    table = _field(data, "<Q" if wide else "<I", 32 if wide else 28)
    step, count = struct.unpack_from("<HH", data, 54 if wide else 42)
    layout = struct.Struct("<IIQQQQQQ" if wide else "<IIIIIIII")
    if step < layout.size or table + step * count > len(data):
        raise GuestFileError(f"{label}: truncated: the program headers lie beyond its end")
    segments = []
    for index in range(count):
        fields = layout.unpack_from(data, table + step * index)
        kind, offset, physical = fields[0], fields[2 if wide else 1], fields[4 if wide else 3]
        file_size, memory_size = fields[5 if wide else 4], fields[6 if wide else 5]
        if kind != PT_LOAD or not memory_size:
            continue
        if offset + file_size > len(data) or file_size > memory_size or memory_size > LARGEST_KERNEL:
            raise GuestFileError(f"{label}: truncated: segment {index} lies beyond its end")
        segments.append(Segment(physical, data[offset : offset + file_size], memory_size))
    if not segments:
        raise GuestFileError(f"{label}: nothing to load (no PT_LOAD segment)")
    return Vmlinux(entry, 64 if wide else 32, tuple(segments))
