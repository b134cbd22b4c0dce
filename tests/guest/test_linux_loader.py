"""Kernel files and the Linux boot protocol: against boot.rst, with kernels made here."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import struct

import lz4.block
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.guest.errors import GuestFileError
from portvisor.guest.kernel_image import LZ4_LEGACY_MAGIC, decompress, parse_bzimage, parse_vmlinux
from portvisor.guest.linux import (
    BOOT_PARAMS_ADDRESS,
    COMMAND_LINE_ADDRESS,
    E820,
    E820Entry,
    LinuxGuest,
    Loader,
)
from portvisor.ports import Ram, RamRegion

MIB = 1 << 20
MAP = [E820Entry(0, 0x9FC00, E820.RAM), E820Entry(MIB, 31 * MIB, E820.RAM)]


def elf64(entry: int = 0x1000000, address: int = 0x1000000, data: bytes = b"\x90" * 64, memory: int = 256) -> bytes:
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, entry, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    program = struct.pack("<IIQQQQQQ", 1, 5, 120, 0xFFFFFFFF81000000, address, len(data), memory, 4096)
    return header + program + data


def elf32(entry: int = 0x200000, data: bytes = b"\xf4") -> bytes:
    header = struct.pack("<16sHHIIIIIHHHHHH", b"\x7fELF\x01\x01\x01", 2, 3, 1, entry, 52, 0, 0, 52, 32, 1, 0, 0, 0)
    program = struct.pack("<IIIIIIII", 1, 84, 0xC0200000, 0x200000, len(data), len(data), 5, 4096)
    return header + program + data


def lz4_legacy(data: bytes) -> bytes:
    block = lz4.block.compress(data, store_size=False)
    return LZ4_LEGACY_MAGIC.to_bytes(4, "little") + struct.pack("<I", len(block)) + block


def bzimage(payload: bytes, protocol: int = 0x20F) -> bytes:
    setup = bytearray(1024)
    setup[0x1F1] = 1
    struct.pack_into("<H", setup, 0x1FE, 0xAA55)
    setup[0x201] = 0x6A
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", setup, 0x206, protocol)
    struct.pack_into("<I", setup, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<H", setup, 0x236, 1)
    struct.pack_into("<II", setup, 0x248, 512, len(payload))
    struct.pack_into("<I", setup, 0x260, 4 * MIB)
    return bytes(setup) + bytes(512) + payload


PACKERS = {
    "none": lambda data: data,
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "bzip2": bz2.compress,
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data),
    "lz4": lz4_legacy,
}


@pytest.mark.parametrize("packer", PACKERS)
def test_every_compression_is_unpacked_even_with_bytes_behind_it(packer: str) -> None:
    image = parse_bzimage(bzimage(PACKERS[packer](elf64()) + bytes(8)), "k")
    assert image.payload_format == packer
    kernel = image.unpack()
    assert (kernel.entry, kernel.bits) == (0x1000000, 64)
    assert kernel.segments[0].data == b"\x90" * 64


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "k: not a Linux kernel"),
        (b"MZ" + bytes(2000), "k: not a Linux kernel"),
        (bzimage(b"x" * 100)[:-50], "k: truncated: 1586 bytes, its header promises 1636"),
        (bzimage(b"", protocol=0x204), r"k: boot protocol 2\.04, 2\.08 or later"),
    ],
)
def test_what_is_no_bzimage_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(GuestFileError, match=message):
        parse_bzimage(data, "k")


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (b"\x89LZO\0\r\n\x1a\n", "unknown way .*894c5a4f"),
        (b"\xfd7zXZ\0broken", "xz payload is broken"),
        (b"\x1f\x8bbroken", "gzip payload is broken"),
        (b"\x28\xb5\x2f\xfdbroken", "zstd payload is broken"),
        (LZ4_LEGACY_MAGIC.to_bytes(4, "little") + b"\x04\0\0\0abcd", "lz4 payload is broken"),
    ],
)
def test_a_broken_payload_is_one_line(payload: bytes, message: str) -> None:
    with pytest.raises(GuestFileError, match=message):
        decompress(payload)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x7fELF", "not an ELF file"),
        (elf64()[:100], "program headers lie beyond"),
        (elf64()[:150], "segment 0 lies beyond"),
        (elf64(memory=0), "nothing to load"),
    ],
)
def test_a_broken_vmlinux_is_one_line(data: bytes, message: str) -> None:
    with pytest.raises(GuestFileError, match=message):
        parse_vmlinux(data, "v")


@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 200))
def test_no_file_content_raises_anything_else(noise: bytes, start: int) -> None:
    base = elf64()
    for parse, data in ((parse_vmlinux, base[:start] + noise), (parse_bzimage, bzimage(b"")[:start] + noise)):
        with contextlib.suppress(GuestFileError):
            parse(data, "f")


def machine(size: int = 32 * MIB) -> Ram:
    return Ram(RamRegion(0, memoryview(bytearray(size))))


def load(guest: LinuxGuest, size: int = 32 * MIB, rsdp: int = 0) -> tuple[Ram, object]:
    memory = machine(size)
    return memory, Loader(memory, size, guest, MAP, rsdp).load()


def test_boot_params_of_a_64_bit_kernel() -> None:
    guest = LinuxGuest(bzimage(gzip.compress(elf64())), b"initrd", "console=ttyS0")
    memory, entry = load(guest, rsdp=0xE0000)
    params = memory.read(BOOT_PARAMS_ADDRESS, 4096)
    assert struct.unpack_from("<Q", params, 0x70)[0] == 0xE0000
    assert params[0x202:0x206] == b"HdrS"
    assert params[0x210] == 0xFF
    assert params[0x1E8] == 2
    assert struct.unpack_from("<QQI", params, 0x2D0 + 20) == (MIB, 31 * MIB, 1)
    image, size = struct.unpack_from("<II", params, 0x218)
    assert memory.read(image, size) == b"initrd"
    assert image % 4096 == 0
    assert memory.read(COMMAND_LINE_ADDRESS, 14) == b"console=ttyS0\0"
    assert (params[0x0F], params[0x07], params[0x0E]) == (1, 80, 25)
    regs, sregs = entry.regs, entry.sregs  # type: ignore[attr-defined]
    assert (regs.rip, regs.rsi) == (0x1000000, BOOT_PARAMS_ADDRESS)
    assert (sregs.cs.selector, sregs.cs.l, sregs.ds.selector) == (0x10, 1, 0x18)
    assert sregs.efer == 0x500


def test_page_tables_map_the_first_4_gib_one_to_one() -> None:
    memory, entry = load(LinuxGuest(elf64()))
    cr3 = entry.sregs.cr3  # type: ignore[attr-defined]

    def step(table: int, index: int) -> int:
        return int.from_bytes(memory.read(table + 8 * index, 8), "little")

    for address in (0, 0x1000000, 0x40000000, 0xFEC00000):
        directory_pointer = step(cr3, 0)
        directory = step(directory_pointer & ~0xFFF, address >> 30)
        page = step(directory & ~0xFFF, address >> 21 & 0x1FF)
        assert page & ~0x1FFFFF == address & ~0x1FFFFF
        assert page & 0x83 == 0x83


def test_bss_is_cleared() -> None:
    memory = machine()
    memory.write(0x1000000, b"\xaa" * 4096)
    Loader(memory, 32 * MIB, LinuxGuest(elf64()), MAP).load()
    assert memory.read(0x1000000, 256) == b"\x90" * 64 + bytes(192)
    assert memory.read(0x1000100, 1) == b"\xaa"


def test_a_32_bit_kernel_starts_in_flat_protected_mode() -> None:
    memory, entry = load(LinuxGuest(elf32()))
    sregs = entry.sregs  # type: ignore[attr-defined]
    assert (entry.regs.rip, sregs.cr0 & 0x80000001, sregs.cs.db) == (0x200000, 1, 1)  # type: ignore[attr-defined]
    assert memory.read(0x200000, 1) == b"\xf4"


def test_a_kernel_the_host_cannot_unpack_unpacks_itself() -> None:
    memory, entry = load(LinuxGuest(bzimage(b"\x89LZOxxxx")))
    assert entry.regs.rip == 0x100200  # type: ignore[attr-defined]
    assert memory.read(0x100200, 8) == b"\x89LZOxxxx"


@pytest.mark.parametrize(
    ("guest", "size", "message"),
    [
        (LinuxGuest(elf64()), 16 * MIB, "kernel: needs memory up to 17 MiB, the machine has 16 MiB"),
        (LinuxGuest(elf64(), bytes(20 * MIB)), 32 * MIB, "initramfs: 20971520 bytes do not fit"),
        (LinuxGuest(elf64(), b"", "x" * 2048), 32 * MIB, "command line has 2048 bytes, 2047 are allowed"),
        (LinuxGuest(bzimage(b"\x89LZO")), 4 * MIB, "kernel: needs memory up to 5 MiB, the machine has 4 MiB"),
        (LinuxGuest(b"hello", kernel_label="notes.txt"), 32 * MIB, "notes.txt: not a Linux kernel"),
    ],
)
def test_what_does_not_fit_is_one_line(guest: LinuxGuest, size: int, message: str) -> None:
    with pytest.raises(GuestFileError, match=message):
        load(guest, size)
