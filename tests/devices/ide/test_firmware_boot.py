"""Stock SeaBIOS starts an El Torito CD and a disk from these drives, and reads them for the boot program."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from machines.boot_support import stock_bios
from portvisor.backends.image import MemoryImage
from portvisor.kvm.api import System
from portvisor.kvm.select import open_engine
from portvisor.machines.outcome import End
from portvisor.machines.pc import MIB, Pc, PcOptions
from support import require_kvm

pytestmark = pytest.mark.guest

LIMIT_S = 120.0
BLOCK = 2048
CATALOG, BOOT_BLOCK, TEXT_FIRST, TEXT_COUNT = 19, 20, 21, 8
PACKET_OFFSET = 0x40


def boot_code(block: int, count: int, unit: int) -> bytes:
    """Read `count` units from `block` with INT 13h AH=42h to 8000, print the last unit on port E9, halt."""
    text = 0x8000 + (count - 1) * unit
    code = bytes.fromhex("31c0 8ed8 8ec0") + b"\xbe" + (0x7C00 + PACKET_OFFSET).to_bytes(2, "little")
    code += bytes.fromhex("b442 cd13 720c") + b"\xbe" + text.to_bytes(2, "little")
    code += bytes.fromhex("ac 84c0 7404 e6e9 ebf7 fa f4")
    packet = bytes((16, 0)) + count.to_bytes(2, "little") + bytes.fromhex("0080 0000") + block.to_bytes(8, "little")
    return code.ljust(PACKET_OFFSET, b"\0") + packet


def el_torito() -> bytes:
    """A CD with a boot catalog (El Torito 1.0), a no-emulation boot program and a text for it to print."""
    disc = bytearray(64 * BLOCK)

    def put(block: int, data: bytes) -> None:
        disc[block * BLOCK : block * BLOCK + len(data)] = data

    put(16, b"\x01CD001\x01")
    put(17, (b"\x00CD001\x01" + b"EL TORITO SPECIFICATION").ljust(0x47, b"\0") + CATALOG.to_bytes(4, "little"))
    put(18, b"\xffCD001\x01")
    validation = bytearray(b"\x01".ljust(30, b"\0") + b"\x55\xaa")
    words = sum(int.from_bytes(validation[index : index + 2], "little") for index in range(0, 32, 2))
    validation[28:30] = (-words & 0xFFFF).to_bytes(2, "little")
    put(CATALOG, bytes(validation) + b"\x88\0\0\0\0\0\x04\0" + BOOT_BLOCK.to_bytes(4, "little"))
    put(BOOT_BLOCK, boot_code(TEXT_FIRST, TEXT_COUNT, BLOCK))
    put(TEXT_FIRST + TEXT_COUNT - 1, b"read from the CD\0")
    return bytes(disc)


def boot_disk() -> bytes:
    """A disk whose boot sector reads 24 sectors."""
    disk = bytearray(1 << 20)
    disk[:510] = boot_code(100, 24, 512).ljust(510, b"\0")
    disk[510:512] = b"\x55\xaa"
    disk[123 * 512 : 123 * 512 + 19] = b"read from the disk\0"
    return bytes(disk)


@pytest.fixture(params=["software", pytest.param("kvm", marks=pytest.mark.kvm)])
def engine(request: pytest.FixtureRequest) -> Iterator[System]:
    if request.param == "kvm":
        require_kvm()
    system = open_engine(request.param)
    yield system
    system.close()


def boot(engine: System, text: bytes, boot_order: tuple[str, ...]) -> None:
    bios, vga = stock_bios()
    log = bytearray()
    options = PcOptions(
        memory=64 * MIB, firmware=bios, vga_bios=vga, on_debug=log.extend, boot=boot_order,
        disks=(MemoryImage(boot_disk()),), cdrom=MemoryImage(el_torito(), read_only=True),
    )  # fmt: skip
    with Pc(engine, options) as machine:
        outcome = machine.run(LIMIT_S)
        assert outcome.end is End.HALTED, log.decode("latin-1")
        assert not machine.failures
    assert log.endswith(text)


def test_cd(engine: System) -> None:
    boot(engine, b"read from the CD", ("cdrom", "disk"))


def test_disk(engine: System) -> None:
    boot(engine, b"read from the disk", ("disk", "cdrom"))
