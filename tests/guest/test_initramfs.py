"""newc archives, read back by cpio; module order and refusals."""

from __future__ import annotations

import lzma
import struct
import subprocess
from pathlib import Path

import pytest

from portvisor.guest.cpio import Archive
from portvisor.guest.errors import GuestFileError
from portvisor.guest.initramfs import InitramfsPlan, build
from portvisor.guest.modules import ModuleTree
from support import require_program


def module(name: str, depends: str = "", release: str = "6.1.0-test", softdep: str = "") -> bytes:
    """A relocatable ELF file with nothing but a .modinfo section."""
    info = f"name={name}\0depends={depends}\0vermagic={release} SMP\0".encode()
    if softdep:
        info += f"softdep=pre: {softdep}\0".encode()
    names = b"\0.modinfo\0.shstrtab\0"
    body = info + names
    table = 64 + len(body)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 1, 62, 1, 0, 0, table, 0, 64, 0, 0, 64, 3, 2)
    empty = bytes(64)
    modinfo = struct.pack("<IIQQQQIIQQ", 1, 1, 0, 0, 64, len(info), 0, 0, 1, 0)
    strings = struct.pack("<IIQQQQIIQQ", 10, 3, 0, 0, 64 + len(info), len(names), 0, 0, 1, 0)
    return header + body + empty + modinfo + strings


@pytest.fixture
def tree(tmp_path: Path) -> ModuleTree:
    folder = tmp_path / "6.1.0-test"
    folder.mkdir()
    for name, data in {
        "a.ko": module("a", "b,c-x", softdep="d nowhere"),
        "b.ko": module("b"),
        "c_x.ko.xz": lzma.compress(module("c_x", "b")),
        "d.ko": module("d"),
        "other.ko": module("other", release="5.10.0-old"),
        "broken.ko": b"not ELF",
        "needs.ko": module("needs", "built,gone"),
    }.items():
        (folder / name).write_bytes(data)
    (folder / "modules.builtin").write_text("kernel/lib/built.ko\n")
    return ModuleTree(folder)


def test_modules_come_in_an_order_that_insmod_can_follow(tree: ModuleTree) -> None:
    assert [one.name for one in tree.with_dependencies(["a"])] == ["b", "c_x", "d", "a"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("gone", "kernel 6.1.0-test has no module 'gone'"),
        ("needs", "has no module 'gone'"),
        ("other", r"other\.ko: made for kernel 5\.10\.0-old, this one is 6\.1\.0-test"),
        ("broken", r"broken\.ko: no kernel module"),
    ],
)
def test_modules_that_cannot_be_had_are_one_line(tree: ModuleTree, name: str, message: str) -> None:
    with pytest.raises(GuestFileError, match=message):
        tree.with_dependencies([name])


def test_a_folder_without_modules_is_refused(tmp_path: Path) -> None:
    with pytest.raises(GuestFileError, match="no kernel modules there"):
        ModuleTree(tmp_path)


def test_cpio_reads_the_archive(tmp_path: Path) -> None:
    require_program("cpio", "cpio")
    archive = Archive()
    archive.file("etc/deep/file", b"content\n", 0o600)
    archive.symlink("bin/sh", "busybox")
    archive.directory("empty")
    archive.file("etc/deep/file", b"replaced\n", 0o640)
    run = subprocess.run(
        ["cpio", "--quiet", "-i", "-v", "--no-preserve-owner"],
        cwd=tmp_path, input=archive.build(), capture_output=True, timeout=30, check=True,
    )  # fmt: skip
    assert sorted(run.stderr.decode().split()) == ["bin", "bin/sh", "empty", "etc", "etc/deep", "etc/deep/file"]
    assert (tmp_path / "etc/deep/file").read_bytes() == b"replaced\n"
    assert (tmp_path / "etc/deep/file").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "bin/sh").readlink() == Path("busybox")


def test_the_same_plan_gives_the_same_bytes(tree: ModuleTree, tmp_path: Path) -> None:
    busybox = tmp_path / "busybox"
    busybox.write_bytes(b"#!")
    plan = InitramfsPlan(modules=["a"], spare_modules=["d", "b"], script="exec sh", files={"bin/x": b"y"})
    first = build(busybox, tree, plan)
    assert build(busybox, tree, plan) == first
    assert b"insmod /lib/modules/c_x.ko" in first
    assert first.count(b"lib/modules/d.ko\0") == 1


def test_a_missing_busybox_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(GuestFileError, match=r"busybox .*No such file"):
        build(tmp_path / "none", None, InitramfsPlan())
