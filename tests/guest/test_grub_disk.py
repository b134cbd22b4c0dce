"""The GRUB disk: its layout, and that GRUB boots from it under QEMU."""

from __future__ import annotations

import io
import tarfile
from itertools import pairwise
from pathlib import Path

import pytest

from portvisor.guest import grub_disk, programs
from portvisor.guest.grub_disk import MENU, GrubError, build_grub_disk, write_grub_disk
from portvisor.guest.packages import PackageCache, PackageError
from qemu_guest import STATUS_GOOD, Qemu, needs_qemu

SECTOR = 512
DOWN, UP, ENTER, ESCAPE = b"\x1b[B", b"\x1b[A", b"\r", b"\x1b"


def fake_cache(directory: Path, mkimage: str = "") -> PackageCache:
    """A cache with a boot.img of zeros and a grub-mkimage that is a shell script."""
    cache = PackageCache(directory)
    for name, path, content in (
        ("grub-pc-bin", "usr/lib/grub/i386-pc/boot.img", bytes(510) + b"\x55\xaa"),
        ("grub-common", "usr/bin/grub-mkimage", f"#!/bin/sh\n{mkimage}\n".encode()),
    ):
        file = directory / "packages" / name / "1" / path
        file.parent.mkdir(parents=True)
        file.write_bytes(content)
        file.chmod(0o755)
        manifest = f'{{"name": "{name}", "version": "1", "architecture": "x", "sha256": "", "depends": []}}'
        (directory / "packages" / name / "manifest.json").write_text(manifest)
    return cache


WRITES_CORE = """
while [ "$1" != -o ]; do [ "$1" != -m ] || memdisk=$2; shift; done
{ head -c 1024 /dev/zero; cat "$memdisk"; } > "$2"
"""


@pytest.fixture
def cache(tmp_path: Path) -> PackageCache:
    return fake_cache(tmp_path / "cache", WRITES_CORE)


def entry(disk: bytes, index: int) -> tuple[int, int, int, int]:
    """(flag, type, first sector, sectors) of a partition."""
    raw = disk[0x1BE + 16 * index :][:16]
    return raw[0], raw[4], int.from_bytes(raw[8:12], "little"), int.from_bytes(raw[12:16], "little")


class TestLayout:
    def test_boot_sector_fields(self, cache: PackageCache) -> None:
        disk = build_grub_disk(cache=cache)
        assert disk[510:512] == b"\x55\xaa"
        assert disk[0x5C:0x64] == (1).to_bytes(8, "little")
        assert disk[0x66:0x68] == b"\x90\x90"

    def test_the_core_image_knows_where_its_rest_is(self, cache: PackageCache) -> None:
        disk = build_grub_disk(cache=cache)
        assert disk[SECTOR + 0x1F4 : SECTOR + 0x1FC] == (2).to_bytes(8, "little")

    def test_the_menu_is_in_the_core_image(self, cache: PackageCache) -> None:
        disk = build_grub_disk("set timeout=1\n", cache=cache)
        with tarfile.open(fileobj=io.BytesIO(disk[3 * SECTOR : 2048 * SECTOR])) as memdisk:
            menu = memdisk.extractfile("boot/grub/grub.cfg")
            assert menu
            assert menu.read() == b"set timeout=1\n"

    def test_partition_1_is_the_program_and_knows_its_place(self, cache: PackageCache) -> None:
        disk = build_grub_disk(cache=cache)
        assert entry(disk, 0) == (0x80, 0xDA, 2048, 8)
        assert entry(disk, 1) == (0, 0, 0, 0)
        assert disk[2048 * SECTOR :][:4096] == programs.at_sector(programs.load("portprobe"), 2048)
        assert len(disk) == 2 << 20

    def test_partition_2_is_an_archive(self, cache: PackageCache) -> None:
        disk = build_grub_disk(files={"/vmlinuz": b"kernel" * 1000, "a/b": b""}, cache=cache)
        flag, kind, start, sectors = entry(disk, 1)
        assert (flag, kind, start) == (0, 0xDA, 4096)
        with tarfile.open(fileobj=io.BytesIO(disk[start * SECTOR :][: sectors * SECTOR])) as archive:
            assert archive.getnames() == ["a/b", "vmlinuz"]

    def test_the_same_input_gives_the_same_bytes(self, cache: PackageCache) -> None:
        files = {"b": b"1", "a": b"2"}
        assert build_grub_disk(files=files, cache=cache) == build_grub_disk(
            files=dict(reversed(files.items())), cache=cache
        )

    def test_nothing_overlaps(self, cache: PackageCache) -> None:
        disk = build_grub_disk(program=bytes(2048 * SECTOR), files={"x": bytes(5000)}, cache=cache)
        ends = [(entry(disk, index)[2], sum(entry(disk, index)[2:])) for index in range(2)]
        assert all(end <= start for (_, end), (start, _) in pairwise(ends))
        assert ends[-1][1] * SECTOR <= len(disk)


class TestErrors:
    def test_a_program_too_long(self, cache: PackageCache) -> None:
        with pytest.raises(GrubError, match=r"^the program of 1049088 bytes does not fit before sector 4096$"):
            build_grub_disk(program=bytes(2049 * SECTOR), files={"x": b""}, cache=cache)

    def test_a_menu_too_long(self, cache: PackageCache) -> None:
        with pytest.raises(GrubError, match=r"^GRUB's core image of \d+ bytes does not fit before sector 2048$"):
            build_grub_disk("#" * (1 << 20), cache=cache)

    def test_a_file_name_too_long(self, cache: PackageCache) -> None:
        with pytest.raises(GrubError, match=r"cannot be on the disk: name is too long$"):
            build_grub_disk(files={"x" * 300: b""}, cache=cache)

    def test_mkimage_fails(self, tmp_path: Path) -> None:
        cache = fake_cache(tmp_path, "echo cannot find module >&2; exit 1")
        with pytest.raises(GrubError, match=r"^grub-mkimage: cannot find module$"):
            build_grub_disk(cache=cache)

    def test_a_library_that_no_package_is_known_for(self, tmp_path: Path) -> None:
        says = "error while loading shared libraries: libodd.so.1: cannot open shared object file"
        cache = fake_cache(tmp_path, f"echo '{says}' >&2; exit 127")
        with pytest.raises(GrubError, match=r"^grub-mkimage: error while loading .* libodd\.so\.1"):
            build_grub_disk(cache=cache)

    def test_a_missing_library_comes_from_its_package(self, tmp_path: Path) -> None:
        says = "error while loading shared libraries: libdevmapper.so.1.02.1: cannot open shared object file"
        script = f'case "$LD_LIBRARY_PATH" in *devmapper*) {WRITES_CORE} ;; *) echo "{says}" >&2; exit 127 ;; esac'
        cache = fake_cache(tmp_path, script)
        library = tmp_path / "packages" / "libdevmapper1.02.1" / "1" / "lib" / "libdevmapper.so.1.02.1"
        library.parent.mkdir(parents=True)
        library.write_text("")
        manifest = tmp_path / "packages" / "grub-common" / "manifest.json"
        copy = tmp_path / "packages" / "libdevmapper1.02.1" / "manifest.json"
        copy.write_text(manifest.read_text().replace("grub-common", "libdevmapper1.02.1"))
        assert build_grub_disk(cache=cache)[510:512] == b"\x55\xaa"

    def test_a_file_is_written_whole_or_not_at_all(self, cache: PackageCache, tmp_path: Path) -> None:
        disk = tmp_path / "grub.img"
        write_grub_disk(disk, cache=cache)
        before = disk.read_bytes()
        with pytest.raises(GrubError):
            write_grub_disk(disk, "#" * (1 << 20), cache=cache)
        assert disk.read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "grub.img"]


@pytest.fixture(scope="module")
def real_cache() -> PackageCache:
    cache = PackageCache()
    try:
        cache.root("grub-pc-bin")
        cache.root("grub-common")
    except PackageError as error:
        pytest.skip(str(error))
    return cache


@pytest.fixture(scope="module")
def disk(real_cache: PackageCache, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("grub") / "grub.img"
    write_grub_disk(path, files={"greeting": b"read from a tar archive\n"}, cache=real_cache)
    return path


def machine(disk: Path, directory: Path, *arguments: str) -> Qemu:
    return Qemu(["-drive", f"file={disk},format=raw,snapshot=on", *arguments], directory)


def to_menu(guest: Qemu) -> None:
    guest.expect("Switch off")
    guest.expect("will be executed automatically")


@pytest.mark.guest
@pytest.mark.qemu
@needs_qemu
class TestBoots:
    def test_building_twice_gives_the_same_bytes(self, disk: Path, real_cache: PackageCache) -> None:
        files = {"greeting": b"read from a tar archive\n"}
        assert build_grub_disk(files=files, cache=real_cache) == disk.read_bytes()

    def test_the_menu_is_on_the_serial_line_and_keys_move_the_selection(self, disk: Path, tmp_path: Path) -> None:
        with machine(disk, tmp_path) as guest:
            to_menu(guest)
            guest.send(DOWN)
            guest.expect("*Say hello")
            guest.send(DOWN)
            guest.expect("*Reboot")
            guest.send(UP)
            guest.expect("*Say hello")
            guest.send(ENTER)
            guest.expect("Hello from GRUB.")

    def test_the_menu_is_on_the_screen_and_the_keyboard_moves_it(self, disk: Path, tmp_path: Path) -> None:
        with machine(disk, tmp_path) as guest:
            to_menu(guest)
            guest.press("down")
            guest.expect("*Say hello")
            cells = guest.memory(0xB8000, 80 * 25 * 2)
            rows = [cells[start : start + 160 : 2].decode("latin-1") for start in range(0, len(cells), 160)]
            assert "GNU GRUB" in rows[1]
            assert "*Say hello" in rows[5]
            guest.press("ret")
            guest.expect("Hello from GRUB.")

    def test_portprobe_from_its_partition(self, disk: Path, tmp_path: Path) -> None:
        with machine(disk, tmp_path) as guest:
            to_menu(guest)
            guest.send(ENTER)
            guest.expect("portvisor portprobe, entered from a BIOS, drive 80")
            guest.expect("\r\ndone\r\n")
            assert guest.finish() == STATUS_GOOD

    def test_the_time_out_boots_the_first_entry(self, disk: Path, tmp_path: Path) -> None:
        with machine(disk, tmp_path) as guest:
            guest.expect("portvisor portprobe")

    def test_reboot_and_switch_off(self, disk: Path, tmp_path: Path) -> None:
        with machine(disk, tmp_path) as guest:
            to_menu(guest)
            guest.send(DOWN + DOWN)
            guest.expect("*Reboot")
            guest.send(ENTER)
            to_menu(guest)
            guest.send(DOWN + DOWN + DOWN)
            guest.expect("*Switch off")
            guest.send(ENTER)
            assert guest.finish() == 0

    def test_ports_and_files_at_the_prompt(self, disk: Path, tmp_path: Path) -> None:
        with machine(disk, tmp_path) as guest:
            to_menu(guest)
            guest.send(b"c")
            guest.expect("grub> ")
            guest.send(b"inb 0x21\r")
            guest.expect("0xb8")
            guest.expect("grub> ")
            guest.send(b"cat (hd0,msdos2)/greeting\r")
            guest.expect("read from a tar archive")
            guest.expect("grub> ")
            guest.send(b"lspci\r")
            guest.expect("8086:1237")


def test_the_menu_names_only_modules_that_are_built_in() -> None:
    commands = {line.split()[0] for line in MENU.splitlines() if line.startswith(("    ", "serial", "terminal"))}
    modules = {"chainloader": "chain", "terminal_input": "terminal", "terminal_output": "terminal", "set": "normal"}
    assert {modules.get(command, command) for command in commands} <= set(grub_disk.MODULES)
