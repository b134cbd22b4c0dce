"""Debian's own floppy driver on the controller of the machine `pc`, started through SeaBIOS and GRUB."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pytest

from machines.boot_support import run_until, stock_bios
from machines.server_support import COMMAND_LINE, MIB, compile_static, kernel
from portvisor.backends.image import MemoryImage
from portvisor.guest.debian import build_initramfs
from portvisor.guest.initramfs import InitramfsPlan
from portvisor.guest.linux import LinuxGuest
from portvisor.guest.linux_disk import linux_disk
from portvisor.kvm.select import open_engine
from portvisor.machines.outcome import End
from portvisor.machines.pc import Pc, PcOptions
from portvisor.ports import BufferedChar

pytestmark = [pytest.mark.slow, pytest.mark.guest]

LIMIT_S = 400.0
SCRIPT = """dmesg | grep -i -E 'floppy|FDC' | sed 's/^/LOG /'
grep floppy /proc/ioports | sed 's/^/PORTS /'
for drive in fd0 fd1; do echo "HASH $drive $(sha256sum < /dev/$drive)"; done
printf 'written by Linux' | dd of=/dev/fd0 bs=512 seek=1000 conv=sync,fsync 2>/dev/null
echo 1 > /proc/sys/vm/drop_caches
dd if=/dev/fd0 bs=512 skip=1000 count=1 2>/dev/null | head -c 16 | sed 's/^/BACK /'
echo
/bin/fdformat; echo "FORMAT $?"
grep floppy /proc/interrupts | sed 's/^/IRQ /'
echo FLOPPIES DONE
sleep 1000
"""


def medium(kib: int) -> MemoryImage:
    return MemoryImage(random.Random(kib).randbytes(kib * 1024))


def test_debians_driver_reads_writes_and_formats(tmp_path: Path) -> None:
    bios, vga = stock_bios()
    plan = InitramfsPlan(("floppy",), (), SCRIPT, {"bin/fdformat": compile_static("fdformat.c", tmp_path)})
    guest = LinuxGuest(kernel().image.read_bytes(), build_initramfs(kernel(), plan), COMMAND_LINE)
    console = BufferedChar()
    disks = (medium(1440), medium(1200))
    hashes = [hashlib.sha256(bytes(disk.data)).hexdigest() for disk in disks]
    system = open_engine("software")
    options = PcOptions(
        memory=256 * MIB,
        firmware=bios,
        vga_bios=vga,
        serial=(console, None),
        disks=[MemoryImage(linux_disk(guest))],
        floppies=disks,
    )
    with Pc(system, options) as machine:
        outcome = run_until(machine, lambda: b"FLOPPIES DONE\r\n" in console.sent, LIMIT_S)
        assert not machine.failures
    system.close()
    text = console.sent.decode("latin-1")
    assert outcome.end is End.CONDITION, text[-2000:]
    assert "Floppy drive(s): fd0 is 1.44M, fd1 is 1.2M" in text
    assert "FDC 0 is a S82078B" in text
    for name, digest in zip(("fd0", "fd1"), hashes, strict=True):
        assert f"HASH {name} {digest}" in text
    assert "PORTS 03f4-03f5 : floppy" in text
    assert "FORMAT 0" in text
    assert "I/O error" not in text
    assert "BACK written by Linux" in text
    assert disks[0].data[512_000:512_016] == b"written by Linux"
    assert disks[1].data == b"\xf6" * len(disks[1].data)
