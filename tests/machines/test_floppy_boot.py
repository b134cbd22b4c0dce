"""Stock SeaBIOS starts from a floppy disk and reads and writes it through the controller and DMA channel 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.support import run_cli
from machines.boot_support import stock_bios
from portvisor.backends.image import MemoryImage
from portvisor.devices.floppy import DriveKind
from portvisor.guest.errors import GuestFileError
from portvisor.kvm.api import System
from portvisor.kvm.null import NullSystem
from portvisor.kvm.select import open_engine
from portvisor.machines.outcome import End
from portvisor.machines.pc import MIB, Pc, PcOptions
from portvisor.trace.reader import Trace
from portvisor.trace.replay import replay
from support import require_kvm
from trace_support import recorded_pc

LIMIT_S = 120.0
BUFFER = 0x8000
MESSAGE = b"read from the floppy disk"
WRITTEN = b"written by INT 13h"
TEXT_OFFSET = 0x100
SIZES = {360: (9, DriveKind.KB_360), 720: (9, DriveKind.MB_1_44), 1200: (15, DriveKind.MB_1_2),
         1440: (18, DriveKind.MB_1_44), 2880: (36, DriveKind.MB_2_88)}  # fmt: skip
"""KiB: sectors on a track, drive."""
CYLINDER = 33


def int13(function: int, count: int, cylinder: int, head: int, sector: int, buffer: int) -> bytes:
    """INT 13h on drive A; on an error the program halts."""
    registers = (
        *(b"\xb8", (function << 8 | count).to_bytes(2, "little")),
        *(b"\xb9", bytes((sector, cylinder)), b"\xba", bytes((0, head)), b"\xbb", buffer.to_bytes(2, "little")),
    )
    return b"".join(registers) + b"\xcd\x13\x73\x02\xfa\xf4"


def boot_disk(kib: int) -> MemoryImage:
    """Its boot sector reads the last two sectors of a cylinder, writes a sector of another, prints what it read."""
    sectors = SIZES[kib][0]
    disk = bytearray(kib * 1024)
    text = BUFFER + 512
    code = bytes.fromhex("31c0 8ed8 8ec0")
    code += int13(2, 2, CYLINDER, 1, sectors - 1, BUFFER)
    code += int13(3, 1, 39, 1, sectors, 0x7C00 + TEXT_OFFSET)
    code += b"\xbe" + text.to_bytes(2, "little") + bytes.fromhex("ac 84c0 7404 e6e9 ebf7 fa f4")
    disk[: len(code)] = code
    disk[TEXT_OFFSET : TEXT_OFFSET + len(WRITTEN)] = WRITTEN
    disk[510:512] = b"\x55\xaa"
    last = (CYLINDER * 2 + 2) * sectors - 1
    disk[last * 512 : last * 512 + len(MESSAGE)] = MESSAGE
    return MemoryImage(bytes(disk))


def boot(engine: System, kib: int) -> None:
    """Run the disk's boot sector through SeaBIOS."""
    bios, vga = stock_bios()
    log = bytearray()
    disk = boot_disk(kib)
    options = PcOptions(
        memory=64 * MIB, firmware=bios, vga_bios=vga, on_debug=log.extend, boot=("floppy", "disk"),
        floppies=(disk,), disks=(MemoryImage(1 << 20),),
    )  # fmt: skip
    with Pc(engine, options) as machine:
        outcome = machine.run(LIMIT_S)
        assert outcome.end is End.HALTED, log.decode("latin-1")
        assert not machine.failures
    assert log.endswith(MESSAGE), log.decode("latin-1")
    assert disk.read((39 * 2 + 2) * SIZES[kib][0] - 1, 1).startswith(WRITTEN)


@pytest.mark.guest
@pytest.mark.parametrize("kib", SIZES)
def test_seabios_boots_from_a_floppy_disk(kib: int) -> None:
    system = open_engine("software")
    try:
        boot(system, kib)
    finally:
        system.close()


@pytest.mark.guest
@pytest.mark.kvm
def test_seabios_boots_from_a_floppy_disk_on_kvm() -> None:
    require_kvm()
    system = open_engine("kvm")
    try:
        boot(system, 1440)
    finally:
        system.close()


def cmos_of(*kibs: int) -> tuple[int, int]:
    """Bytes 10 and 14 of the CMOS of a board with such media."""
    options = PcOptions(floppies=[MemoryImage(kib * 1024) if kib else None for kib in kibs])
    with Pc(NullSystem(), options) as machine:
        cmos = machine.chips.rtc.cmos
        return cmos[0x10], cmos[0x14]


def test_cmos_names_the_drives() -> None:
    assert cmos_of() == (0x00, 0x06)
    assert cmos_of(1440) == (0x40, 0x07)
    assert cmos_of(2880, 360) == (0x51, 0x47)
    assert cmos_of(0, 1200) == (0x02, 0x07)


def test_what_is_no_floppy_disk_is_refused() -> None:
    with pytest.raises(GuestFileError, match="floppy disk A: 1048576 bytes are no floppy disk; the sizes are"):
        cmos_of(1024)
    with pytest.raises(GuestFileError, match="3 floppy disks: at most 2"):
        cmos_of(1440, 1440, 1440)


@pytest.mark.guest
def test_command_line(tmp_path: Path) -> None:
    path = tmp_path / "a.img"
    path.write_bytes(boot_disk(1440).data)
    stock_bios()
    debug = tmp_path / "debug"
    result = run_cli(
        "run", "--floppy", f"{path},rw", "--engine", "software", "--debug", str(debug), "--timeout", "60"
    )
    assert "halted with interrupts off" in result.errors
    assert debug.read_bytes().endswith(MESSAGE)
    assert WRITTEN in path.read_bytes()[512:]


@pytest.mark.guest
def test_a_recorded_boot_replays_exactly(tmp_path: Path) -> None:
    bios, vga = stock_bios()
    path = tmp_path / "floppy.arrow"
    options = PcOptions(firmware=bios, vga_bios=vga, boot=("floppy",), floppies=(boot_disk(1440),))
    system = open_engine("software")
    with recorded_pc(system, path, options) as machine:
        assert machine.run(LIMIT_S).end is End.HALTED
    system.close()
    result = replay(Trace(path))
    assert result.divergences == 0, result.first
    assert result.compared > 1000
