"""Disk images: modes, size rule, locks, errors, copy-on-write against a plain reference."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.backends.image import (
    CD_SECTOR_SIZE,
    CLUSTER_SIZE,
    FileImage,
    ImageError,
    ImageMode,
    MemoryImage,
)
from portvisor.ports import SECTOR_SIZE, BlockBackend

NOBODY = 65_534


def pattern(sectors: int, seed: int = 0) -> bytes:
    return b"".join(((seed + index) & 0xFFFF).to_bytes(2, "little") * 256 for index in range(sectors))


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "disk.img"
    path.write_bytes(pattern(20))
    return path


def test_both_kinds_are_block_backends(disk: Path) -> None:
    with FileImage(disk) as image:
        backends: list[BlockBackend] = [image, MemoryImage(SECTOR_SIZE)]
    assert len(backends) == 2


class TestModes:
    def test_copy_on_write_is_the_default_and_never_touches_the_file(self, disk: Path) -> None:
        with FileImage(disk) as image:
            assert not image.read_only
            image.write(3, b"\xaa" * 1024)
            image.flush()
            assert image.read(2, 4) == pattern(20)[1024:1536] + b"\xaa" * 1024 + pattern(20)[2560:3072]
        assert disk.read_bytes() == pattern(20)
        with FileImage(disk) as image:
            assert image.read(0, 20) == pattern(20)

    def test_copy_on_write_works_on_a_file_without_write_permission(self, disk: Path) -> None:
        disk.chmod(0o444)
        with FileImage(disk) as image:
            image.write(0, b"x" * 512)
            assert image.read(0, 1) == b"x" * 512

    def test_read_only_refuses_writes(self, disk: Path) -> None:
        with FileImage(disk, ImageMode.READ_ONLY) as image:
            assert image.read_only
            with pytest.raises(OSError, match="read-only"):
                image.write(0, b"x" * 512)
            assert image.read(0, 20) == pattern(20)

    def test_write_through_reaches_the_file(self, disk: Path) -> None:
        with FileImage(disk, ImageMode.WRITE_THROUGH) as image:
            image.write(19, b"\x55" * 512)
            image.flush()
            assert disk.read_bytes()[19 * 512 :] == b"\x55" * 512
            assert image.read(19, 1) == b"\x55" * 512
        assert disk.stat().st_size == 20 * 512

    def test_flush_is_an_fsync_only_where_the_file_is_written(
        self, disk: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        synced: list[int] = []
        monkeypatch.setattr(os, "fsync", synced.append)
        for mode in ImageMode:
            with FileImage(disk, mode) as image:
                image.flush()
        assert len(synced) == 1

    def test_short_writes_are_finished(self, disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write = os.pwrite
        monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: write(fd, bytes(data[:100]), offset))
        with FileImage(disk, ImageMode.WRITE_THROUGH) as image:
            image.write(1, pattern(3, 77))
        assert disk.read_bytes()[512:2048] == pattern(3, 77)

    def test_full_overlay_is_an_error_and_changes_nothing(self, disk: Path) -> None:
        with FileImage(disk, overlay_limit=CLUSTER_SIZE) as image:
            image.write(0, b"a" * 512)
            with pytest.raises(OSError, match="overlay is full"):
                image.write(7, b"b" * 1024)
            assert image.read(7, 2) == pattern(20)[7 * 512 : 9 * 512]
            image.write(7, b"c" * 512)
            assert image.read(7, 1) == b"c" * 512

    def test_rollback_brings_a_checkpoint_back(self, disk: Path) -> None:
        with FileImage(disk) as image:
            image.write(4, b"a" * 512)
            checkpoint = image.checkpoint()
            image.write(4, b"b" * 512)
            image.write(12, b"b" * 512)
            image.rollback(checkpoint)
            assert image.read(4, 1) == b"a" * 512
            assert image.read(12, 1) == pattern(20)[12 * 512 : 13 * 512]


class TestSizeRule:
    @pytest.mark.parametrize("mode", list(ImageMode))
    def test_less_than_a_sector_is_refused(self, tmp_path: Path, mode: ImageMode) -> None:
        path = tmp_path / "small.img"
        path.write_bytes(b"x" * 511)
        with pytest.raises(
            ImageError, match=r"small\.img: is 511 bytes long; the least is one sector of 512 bytes"
        ):
            FileImage(path, mode)

    @pytest.mark.parametrize("mode", [ImageMode.READ_ONLY, ImageMode.COPY_ON_WRITE])
    def test_a_rest_is_padded_with_zeros_in_memory_only(self, tmp_path: Path, mode: ImageMode) -> None:
        path = tmp_path / "odd.img"
        path.write_bytes(b"x" * 700)
        with FileImage(path, mode) as image:
            assert image.sectors == 2
            assert image.read(1, 1) == b"x" * 188 + b"\0" * 324
            assert image.read(0, 2) == b"x" * 700 + b"\0" * 324
        assert path.stat().st_size == 700

    def test_padded_sector_is_written_copy_on_write(self, tmp_path: Path) -> None:
        path = tmp_path / "odd.img"
        path.write_bytes(b"x" * 700)
        with FileImage(path) as image:
            image.write(1, b"y" * 512)
            assert image.read(0, 2) == b"x" * 512 + b"y" * 512

    def test_write_through_refuses_a_rest(self, tmp_path: Path) -> None:
        path = tmp_path / "odd.img"
        path.write_bytes(b"x" * 700)
        with pytest.raises(
            ImageError, match=r"700 bytes long; write-through needs a multiple of 512 \(188 bytes over\)"
        ):
            FileImage(path, ImageMode.WRITE_THROUGH)

    def test_cd_images_count_in_blocks_of_2048(self, tmp_path: Path) -> None:
        path = tmp_path / "cd.iso"
        path.write_bytes(b"x" * (3 * 2048 + 512))
        with FileImage(path, ImageMode.READ_ONLY, sector_size=CD_SECTOR_SIZE) as image:
            assert image.sectors == 16
            assert image.read(12, 4) == b"x" * 512 + b"\0" * 1536
        path.write_bytes(b"x" * 2047)
        with pytest.raises(ImageError, match="one sector of 2048 bytes"):
            FileImage(path, sector_size=CD_SECTOR_SIZE)


class TestErrors:
    def test_missing(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"none\.img: cannot be opened for reading: No such file or directory"):
            FileImage(tmp_path / "none.img")

    def test_directory(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match="is a directory; a regular file or a block device is needed"):
            FileImage(tmp_path)

    def test_fifo_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(ImageError, match="is not a file"):
            FileImage(tmp_path / "fifo")

    def test_socket(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "s"))
            with pytest.raises(ImageError, match="cannot be opened"):
                FileImage(tmp_path / "s")

    def test_name_with_a_null(self) -> None:
        with pytest.raises(ImageError, match="null"):
            FileImage("a\0b")

    def test_no_permission(self) -> None:
        """Root may read and write anything, so it becomes somebody else for the test."""
        before = os.geteuid()
        with tempfile.TemporaryDirectory() as folder:
            disk = Path(folder) / "disk"
            disk.write_bytes(bytes(SECTOR_SIZE))
            Path(folder).chmod(0o755)
            try:
                for mode, image_mode, purpose in (
                    (0o444, ImageMode.WRITE_THROUGH, "writing"),
                    (0, ImageMode.COPY_ON_WRITE, "reading"),
                ):
                    os.seteuid(before)
                    disk.chmod(mode)
                    os.seteuid(NOBODY if before == 0 else before)
                    with pytest.raises(ImageError, match=f"cannot be opened for {purpose}: Permission denied"):
                        FileImage(disk, image_mode)
            finally:
                os.seteuid(before)

    @pytest.mark.parametrize(
        ("start", "name"),
        [
            (b"QFI\xfb", "qcow2"),
            (b"KDMV", "VMDK"),
            (b"vhdxfile", "VHDX"),
            (b"\0" * 64 + b"\x7f\x10\xda\xbe", "VDI"),
            (b"\0" + b"\xff" * 10 + b"\0", "CD with raw sectors"),
        ],
    )
    def test_other_formats_are_named(self, tmp_path: Path, start: bytes, name: str) -> None:
        path = tmp_path / "image"
        path.write_bytes(start.ljust(4096, b"\0"))
        with pytest.raises(ImageError, match=f"is in {name}.*only raw images"):
            FileImage(path)

    def test_errors_leave_no_descriptor_open(self, tmp_path: Path) -> None:
        (tmp_path / "small").write_bytes(b"")
        before = len(os.listdir("/proc/self/fd"))
        for path in (tmp_path, tmp_path / "small", tmp_path / "none"):
            with pytest.raises(ImageError):
                FileImage(path)
        assert len(os.listdir("/proc/self/fd")) == before

    @pytest.mark.parametrize(("sector", "count"), [(20, 1), (19, 2), (-1, 1), (1 << 60, 1)])
    def test_outside_the_image(self, disk: Path, sector: int, count: int) -> None:
        for image in (FileImage(disk), MemoryImage(pattern(20))):
            with pytest.raises(OSError, match="not in the image"):
                image.read(sector, count)
            with pytest.raises(OSError, match="not in the image"):
                image.write(sector, b"x" * 512 * count)

    def test_no_sectors_at_all(self, disk: Path) -> None:
        for image in (FileImage(disk), MemoryImage(pattern(20))):
            assert image.read(20, 0) == b""
            image.write(20, b"")

    def test_file_that_shrinks(self, disk: Path) -> None:
        with FileImage(disk) as image:
            os.truncate(disk, 512)
            with pytest.raises(OSError, match="became shorter"):
                image.read(0, 2)

    def test_closed(self, disk: Path) -> None:
        image = FileImage(disk)
        image.close()
        image.close()
        with pytest.raises(OSError, match="closed"):
            image.read(0, 1)


class TestLocks:
    def test_one_writer(self, disk: Path) -> None:
        with FileImage(disk, ImageMode.WRITE_THROUGH):
            for mode in (ImageMode.WRITE_THROUGH, ImageMode.COPY_ON_WRITE, ImageMode.READ_ONLY):
                with pytest.raises(ImageError, match="by another machine; one writer or any number of readers"):
                    FileImage(disk, mode)
        FileImage(disk, ImageMode.WRITE_THROUGH).close()

    def test_any_number_of_readers_and_no_writer_beside_them(self, disk: Path) -> None:
        with (
            FileImage(disk),
            FileImage(disk, ImageMode.READ_ONLY),
            FileImage(disk),
            pytest.raises(ImageError, match="in use by another machine"),
        ):
            FileImage(disk, ImageMode.WRITE_THROUGH)

    def test_lock_holds_against_another_process(self, disk: Path) -> None:
        with FileImage(disk, ImageMode.WRITE_THROUGH):
            child = os.fork()
            if child == 0:
                try:
                    fd = os.open(disk, os.O_RDWR)
                    import fcntl

                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    os._exit(0)
                os._exit(1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


Writes = st.lists(st.tuples(st.integers(0, 36), st.integers(1, 20), st.integers(0, 255)), max_size=12)


@settings(max_examples=60, deadline=None)
@given(writes=Writes, size=st.integers(512, 37 * 512))
def test_copy_on_write_equals_a_plain_array(
    writes: list[tuple[int, int, int]], size: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("cow") / "disk"
    path.write_bytes(os.urandom(size))
    sectors = -(-size // 512)
    reference = bytearray(path.read_bytes().ljust(sectors * 512, b"\0"))
    with FileImage(path) as image:
        for sector, count, value in writes:
            start = sector % sectors
            length = min(count, sectors - start)
            data = bytes((value,)) * 512 * length
            image.write(start, data)
            reference[start * 512 : start * 512 + len(data)] = data
            assert image.read(start, length) == data
        assert image.read(0, sectors) == reference
        for sector in range(sectors):
            assert image.read(sector, 1) == reference[sector * 512 : sector * 512 + 512]


class TestMemoryImage:
    def test_size_or_content(self) -> None:
        assert MemoryImage(1024).read(0, 2) == bytes(1024)
        assert MemoryImage(b"x" * 600).read(1, 1) == b"x" * 88 + bytes(424)

    def test_writes(self) -> None:
        image = MemoryImage(pattern(4))
        image.write(1, b"z" * 1024)
        image.flush()
        assert image.data == pattern(4)[:512] + b"z" * 1024 + pattern(4)[1536:]
        assert not image.read_only

    def test_read_only(self) -> None:
        image = MemoryImage(512, read_only=True)
        assert image.read_only
        with pytest.raises(OSError, match="read-only"):
            image.write(0, b"x" * 512)

    @pytest.mark.parametrize("content", [0, 511, b"", b"x"])
    def test_too_small(self, content: bytes | int) -> None:
        with pytest.raises(ImageError, match="least is one sector"):
            MemoryImage(content)
