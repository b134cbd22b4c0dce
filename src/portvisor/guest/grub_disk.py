"""A disk that boots GRUB 2 with a BIOS, made from Debian's GRUB packages: no root, no devices, no mounts.

Layout, in sectors of 512 bytes::

    0       boot.img with the partition table
    1...    core.img: GRUB with its modules; the menu is in a tar archive inside it, the memdisk
    2048    partition 1: a guest program, for `set root=(hd0,msdos1)` and `chainloader +1`
    4096    partition 2, if there are files: a tar archive, which GRUB reads as a file system

The same packages give the same bytes.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from portvisor.guest.errors import GuestFileError
from portvisor.guest.packages import PackageCache
from portvisor.guest.programs import at_sector, load
from portvisor.ports import SECTOR_SIZE

MENU = """\
serial --unit=0 --speed=115200
terminal_input console serial
terminal_output console serial
set timeout=5
set default=0
menuentry "portprobe: what do the ports answer?" {
    set root=(hd0,msdos1)
    chainloader +1
}
menuentry "Say hello" {
    echo "Hello from GRUB."
    sleep 2
}
menuentry "Reboot" {
    reboot
}
menuentry "Switch off" {
    halt
}
"""
"""The menu by default, on the screen and on COM1; the command line (key c) has `inb`, `outb`, `lspci`, `date`."""

MODULES = (
    "biosdisk",
    "part_msdos",
    "memdisk",
    "tar",
    "normal",
    "configfile",
    "serial",
    "terminal",
    "echo",
    "sleep",
    "test",
    "true",
    "read",
    "ls",
    "cat",
    "help",
    "reboot",
    "halt",
    "chain",
    "linux",
    "linux16",
    "iorw",
    "memrw",
    "date",
    "cmosdump",
    "lspci",
    "setpci",
    "lsacpi",
    "lsmmap",
)

FIRST_PARTITION = 2048
SECOND_PARTITION = 4096
_ALIGNMENT = 2048
_GRUB = "usr/lib/grub/i386-pc"
_LIBRARIES = {
    "libdevmapper.so": "libdevmapper1.02.1",
    "liblzma.so": "liblzma5",
    "libselinux.so": "libselinux1",
    "libudev.so": "libudev1",
    "libpcre2-8.so": "libpcre2-8-0",
}
"""Which package has a library that grub-mkimage may miss."""

# boot.img: fields that an installer fills (GRUB manual, "BIOS installation"; offsets from the image itself)
_BPB_END = 0x5A
_BOOT_DRIVE_CHECK = 0x66
_NOP_NOP = b"\x90\x90"
_KERNEL_SECTOR = 0x5C
_CORE_SECTOR = 1

# diskboot.img, the first sector of core.img: where the rest of it is
_BLOCK_LIST = SECTOR_SIZE - 12

_PARTITION_TABLE = 0x1BE
_PARTITION_TYPE = 0xDA  # data without a file system
_SIGNATURE = b"\x55\xaa"


class GrubError(GuestFileError):
    """The disk cannot be made. The text is one line for the user."""


def build_grub_disk(
    menu: str = MENU,
    program: bytes | None = None,
    files: Mapping[str, bytes] | None = None,
    cache: PackageCache | None = None,
) -> bytes:
    """The bytes of the disk.

    Args:
        menu: GRUB's configuration (grub.cfg).
        program: boot sector and what it loads, for partition 1; by default `portprobe`.
        files: path -> content, for partition 2: a kernel as `(hd0,msdos2)/vmlinuz`.
        cache: where the packages grub-pc-bin and grub-common come from.

    Raises:
        PackageError: the packages cannot be had.
        GrubError: GRUB's tools fail, or something does not fit.
    """
    cache = cache or PackageCache()
    core = _core_image(menu, cache)
    boot = cache.file("grub-pc-bin", f"{_GRUB}/boot.img").read_bytes()
    partitions = [(FIRST_PARTITION, at_sector(program or load("portprobe"), FIRST_PARTITION))]
    if files:
        partitions.append((SECOND_PARTITION, _tar(files)))
    return _assemble(boot, core, partitions)


def write_grub_disk(
    path: Path,
    menu: str = MENU,
    program: bytes | None = None,
    files: Mapping[str, bytes] | None = None,
    cache: PackageCache | None = None,
) -> None:
    """Write what `build_grub_disk` makes to a file: whole or not at all.

    Raises:
        PackageError, GrubError: as for `build_grub_disk`.
        OSError: the file cannot be written.
    """
    image = build_grub_disk(menu, program, files, cache)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        unfinished.write_bytes(image)
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


# --- layout -----------------------------------------------------------------------------------------


def _assemble(boot: bytes, core: bytes, partitions: Sequence[tuple[int, bytes]]) -> bytes:
    if len(boot) != SECTOR_SIZE or boot[-2:] != _SIGNATURE:
        raise GrubError("grub-pc-bin: boot.img is not a boot sector")
    if _CORE_SECTOR + _sectors(core) > FIRST_PARTITION:
        raise GrubError(f"GRUB's core image of {len(core)} bytes does not fit before sector {FIRST_PARTITION}")
    places = [*partitions, (_aligned_end(partitions[-1]), b"")]
    for (start, content), (following, _) in pairwise(places):
        if start + _sectors(content) > following:
            raise GrubError(f"the program of {len(content)} bytes does not fit before sector {following}")
    image = bytearray(places[-1][0] * SECTOR_SIZE)
    image[:SECTOR_SIZE] = _boot_sector(boot, partitions)
    for start, content in [(_CORE_SECTOR, _located(core)), *partitions]:
        image[start * SECTOR_SIZE : start * SECTOR_SIZE + len(content)] = content
    return bytes(image)


def _sectors(content: bytes) -> int:
    return -(-len(content) // SECTOR_SIZE)


def _aligned_end(partition: tuple[int, bytes]) -> int:
    start, content = partition
    return -(-(start + _sectors(content)) // _ALIGNMENT) * _ALIGNMENT


def _boot_sector(boot: bytes, partitions: Sequence[tuple[int, bytes]]) -> bytes:
    """boot.img as on a hard disk: it loads `_CORE_SECTOR` from the drive that the BIOS names."""
    sector = bytearray(boot)
    sector[_KERNEL_SECTOR : _KERNEL_SECTOR + 8] = _CORE_SECTOR.to_bytes(8, "little")
    sector[_BOOT_DRIVE_CHECK : _BOOT_DRIVE_CHECK + 2] = _NOP_NOP
    table = bytearray(4 * 16)
    for index, (start, content) in enumerate(partitions):
        table[index * 16 : (index + 1) * 16] = _partition_entry(start, _sectors(content), active=index == 0)
    sector[_PARTITION_TABLE : _PARTITION_TABLE + len(table)] = table
    return bytes(sector)


def _partition_entry(start: int, sectors: int, active: bool) -> bytes:
    """An entry of the MBR's table by LBA; the CHS fields say "beyond CHS"."""
    beyond = b"\xfe\xff\xff"
    flag = b"\x80" if active else b"\x00"
    return (
        flag
        + beyond
        + bytes([_PARTITION_TYPE])
        + beyond
        + start.to_bytes(4, "little")
        + sectors.to_bytes(4, "little")
    )


def _located(core: bytes) -> bytes:
    """core.img with its block list pointing at what follows its first sector."""
    after = _BLOCK_LIST + 8
    return core[:_BLOCK_LIST] + (_CORE_SECTOR + 1).to_bytes(8, "little") + core[after:]


def _tar(files: Mapping[str, bytes]) -> bytes:
    """A tar archive whose bytes depend on nothing but the files."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for path, content in sorted((path.lstrip("/"), content) for path, content in files.items()):
            member = tarfile.TarInfo(path)
            member.size = len(content)
            try:
                tar.addfile(member, io.BytesIO(content))
            except ValueError as error:
                raise GrubError(f"{path!r} cannot be on the disk: {error}") from None
    return archive.getvalue()


# --- grub-mkimage -----------------------------------------------------------------------------------


def _core_image(menu: str, cache: PackageCache) -> bytes:
    modules = cache.root("grub-pc-bin") / _GRUB
    program = cache.file("grub-common", "usr/bin/grub-mkimage")
    with tempfile.TemporaryDirectory() as place:
        memdisk, core = Path(place) / "memdisk.tar", Path(place) / "core.img"
        memdisk.write_bytes(_tar({"boot/grub/grub.cfg": menu.encode()}))
        options = ["-O", "i386-pc", "-d", str(modules), "-p", "(memdisk)/boot/grub", "-m", str(memdisk)]
        _run_with_libraries([str(program), *options, "-o", str(core), *MODULES], cache)
        return core.read_bytes()


def _run_with_libraries(command: Sequence[str], cache: PackageCache) -> None:
    """Run a program of a package; libraries that the host lacks come from packages too."""
    found: list[str] = []
    while True:
        path = ":".join([*found, *filter(None, [os.environ.get("LD_LIBRARY_PATH")])])
        environment = {**os.environ, "LC_ALL": "C", **({"LD_LIBRARY_PATH": path} if path else {})}
        try:
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        except OSError as error:
            raise GrubError(f"{Path(command[0]).name}: {error.strerror}") from None
        if done.returncode == 0:
            return
        message = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        directory = _library_directory(message, cache)
        if directory is None or directory in found:
            raise GrubError(f"{Path(command[0]).name}: {message.removeprefix(f'{command[0]}: ')}")
        found.append(directory)


def _library_directory(message: str, cache: PackageCache) -> str | None:
    """The directory, in a package, of the library that the loader's message misses."""
    missing = re.search(r"error while loading shared libraries: ((\S+?\.so)\.\S+):", message)
    package = _LIBRARIES.get(missing[2]) if missing else None
    if missing is None or package is None:
        return None
    for library in cache.root(package).rglob(missing[1]):
        return str(library.parent)
    return None
