"""Disk and CD images: files on the host, or memory.

Size rule: an image holds at least one sector of its medium (512 bytes, 2,048 for a CD). A length that is no
multiple of it is padded with zeros when the image is read or written copy-on-write (the file is not touched),
and refused for write-through, which must not change a file's length.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from enum import Enum
from types import TracebackType
from typing import Self

from portvisor.ports import SECTOR_SIZE

CD_SECTOR_SIZE = 2048
CLUSTER_SECTORS = 8
"""Unit of the copy-on-write overlay: 4 KiB."""
CLUSTER_SIZE = CLUSTER_SECTORS * SECTOR_SIZE
OVERLAY_LIMIT = 1 << 30
"""Most bytes an overlay keeps in memory by default; then writes fail as on a full disk."""

Overlay = dict[int, bytes]
"""Clusters that were written, by number."""

FOREIGN_FORMATS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "VMDK"),
    (0, b"# Disk DescriptorFile", "VMDK"),
    (0, b"vhdxfile", "VHDX"),
    (0, b"conectix", "VHD"),
    (64, b"\x7f\x10\xda\xbe", "VDI"),
    (0, b"\x00" + b"\xff" * 10 + b"\x00", "CD with raw sectors of 2,352 bytes"),
)
"""Offset, magic bytes and name of what is no raw image."""
PROBE_LENGTH = 96


class ImageError(ValueError):
    """An image that cannot be used: one line with the file, what is wrong and what is allowed."""


class ImageMode(Enum):
    """What happens to a guest's writes."""

    READ_ONLY = "read-only"
    """They fail."""
    COPY_ON_WRITE = "copy-on-write"
    """They are kept in memory and dropped at the end; the file is never touched."""
    WRITE_THROUGH = "write-through"
    """They go to the file, which nobody else may have open as an image."""


class FileImage:
    """A raw image: a regular file or a block device.

    The file is locked against other images of it (flock): any number of readers, or one writer.

    Args:
        path: the file.
        mode: what happens to writes.
        sector_size: the medium's own sector, 512 or 2048; `sectors` counts 512 bytes in any case.
        overlay_limit: most bytes that COPY_ON_WRITE keeps.

    Raises:
        ImageError: it is missing, not readable (or writable), no file, too small, in use or not raw.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        mode: ImageMode = ImageMode.COPY_ON_WRITE,
        *,
        sector_size: int = SECTOR_SIZE,
        overlay_limit: int = OVERLAY_LIMIT,
    ) -> None:
        self.path = os.fspath(path)
        self.mode = mode
        self._overlay: Overlay = {}
        self._overlay_limit = overlay_limit // CLUSTER_SIZE
        self._fd = self._open()
        try:
            self._lock()
            self._length = self._measure(sector_size)
            self._check_format()
        except BaseException:
            self.close()
            raise
        self._sectors = -(-self._length // sector_size) * (sector_size // SECTOR_SIZE)

    # --- opening ------------------------------------------------------------------------------------

    def _error(self, problem: str) -> ImageError:
        return ImageError(f"image {self.path}: {problem}")

    def _open(self) -> int:
        """Open without waiting (a FIFO would make us wait) and without following the file's growth."""
        access = os.O_RDWR if self.mode is ImageMode.WRITE_THROUGH else os.O_RDONLY
        try:
            fd = os.open(self.path, access | os.O_CLOEXEC | os.O_NONBLOCK)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise self._error(f"cannot be opened {self._purpose()}: {reason}") from None
        kind = os.fstat(fd).st_mode
        if not (stat.S_ISREG(kind) or stat.S_ISBLK(kind)):
            os.close(fd)
            what = "a directory" if stat.S_ISDIR(kind) else "not a file"
            raise self._error(f"is {what}; a regular file or a block device is needed")
        return fd

    def _purpose(self) -> str:
        return "for writing" if self.mode is ImageMode.WRITE_THROUGH else "for reading"

    def _lock(self) -> None:
        writer = self.mode is ImageMode.WRITE_THROUGH
        try:
            fcntl.flock(self._fd, (fcntl.LOCK_EX if writer else fcntl.LOCK_SH) | fcntl.LOCK_NB)
        except BlockingIOError:
            use = "in use" if writer else "being written"
            raise self._error(f"is {use} by another machine; one writer or any number of readers") from None
        except OSError as error:
            if writer:
                raise self._error(f"cannot be locked for writing: {error.strerror}") from None

    def _measure(self, sector_size: int) -> int:
        length = os.lseek(self._fd, 0, os.SEEK_END)
        if length < sector_size:
            raise self._error(f"is {length} bytes long; the least is one sector of {sector_size} bytes")
        if length % sector_size and self.mode is ImageMode.WRITE_THROUGH:
            raise self._error(
                f"is {length} bytes long; {self.mode.value} needs a multiple of {sector_size} "
                f"({length % sector_size} bytes over)"
            )
        return length

    def _check_format(self) -> None:
        start = os.pread(self._fd, PROBE_LENGTH, 0)
        for offset, magic, name in FOREIGN_FORMATS:
            if start.startswith(magic, offset):
                raise self._error(f"is in {name} format; only raw images are possible")

    # --- BlockBackend -------------------------------------------------------------------------------

    @property
    def sectors(self) -> int:
        """Size in sectors of 512 bytes, padding included."""
        return self._sectors

    @property
    def read_only(self) -> bool:
        """True if writes fail."""
        return self.mode is ImageMode.READ_ONLY

    def read(self, sector: int, count: int) -> bytes:
        """Sectors as the guest sees them: its own writes over the file.

        Raises:
            OSError: outside the image, closed, or the host cannot read.
        """
        self._check(sector, count)
        overlay = self._overlay
        if not overlay:
            return self._read_file(sector, count)
        parts = []
        for cluster, first, length in _clusters(sector, count):
            data = overlay.get(cluster)
            parts.append(
                self._read_file(cluster * CLUSTER_SECTORS + first, length)
                if data is None
                else data[first * SECTOR_SIZE : (first + length) * SECTOR_SIZE]
            )
        return b"".join(parts)

    def write(self, sector: int, data: bytes) -> None:
        """Whole sectors.

        Raises:
            OSError: outside the image, closed, read-only, overlay full, or the host cannot write.
        """
        self._check(sector, len(data) // SECTOR_SIZE)
        if self.mode is ImageMode.COPY_ON_WRITE:
            self._write_overlay(sector, data)
        elif self.mode is ImageMode.WRITE_THROUGH:
            self._write_file(sector, data)
        else:
            raise OSError(errno.EROFS, "image is read-only", self.path)

    def flush(self) -> None:
        """Put writes on stable storage (fsync); there is nothing to do unless WRITE_THROUGH.

        Raises:
            OSError: the host cannot.
        """
        if self.mode is ImageMode.WRITE_THROUGH:
            os.fsync(self._fd)

    # --- machine snapshots ----------------------------------------------------------------------------

    def checkpoint(self) -> Overlay:
        """The guest's writes so far, for `rollback`. COPY_ON_WRITE only: other modes have none of their own."""
        return dict(self._overlay)

    def rollback(self, checkpoint: Overlay) -> None:
        """Put the medium back to what it was at a checkpoint."""
        self._overlay = dict(checkpoint)

    # --- the file -------------------------------------------------------------------------------------

    def _check(self, sector: int, count: int) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "image is closed", self.path)
        if sector < 0 or count < 0 or sector + count > self._sectors:
            raise OSError(errno.EINVAL, f"sectors {sector}+{count} are not in the image", self.path)

    def _read_file(self, sector: int, count: int) -> bytes:
        offset, length = sector * SECTOR_SIZE, count * SECTOR_SIZE
        stored = max(0, min(length, self._length - offset))
        data = os.pread(self._fd, stored, offset)
        while len(data) < stored:
            more = os.pread(self._fd, stored - len(data), offset + len(data))
            if not more:
                raise OSError(errno.EIO, "image became shorter while it was in use", self.path)
            data += more
        return data if stored == length else data.ljust(length, b"\0")

    def _write_file(self, sector: int, data: bytes) -> None:
        left = memoryview(data)
        offset = sector * SECTOR_SIZE
        while left:
            written = os.pwrite(self._fd, left, offset)
            left, offset = left[written:], offset + written

    def _write_overlay(self, sector: int, data: bytes) -> None:
        """Replace clusters; none is changed if one cannot be read or there is no room for all."""
        staged: Overlay = {}
        start = 0
        for cluster, first, length in _clusters(sector, len(data) // SECTOR_SIZE):
            piece = data[start : start + length * SECTOR_SIZE]
            start += len(piece)
            staged[cluster] = piece if length == CLUSTER_SECTORS else self._merged(cluster, first, piece)
        fresh = sum(cluster not in self._overlay for cluster in staged)
        if fresh and len(self._overlay) + fresh > self._overlay_limit:
            raise OSError(errno.ENOSPC, "the copy-on-write overlay is full", self.path)
        self._overlay.update(staged)

    def _merged(self, cluster: int, first: int, piece: bytes) -> bytes:
        old = self._overlay.get(cluster)
        if old is None:
            base = cluster * CLUSTER_SECTORS
            old = self._read_file(base, min(CLUSTER_SECTORS, self._sectors - base))
        start = first * SECTOR_SIZE
        return old[:start] + piece + old[start + len(piece) :]

    # --- closing --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Drop the overlay and the lock. Reads and writes fail from now on."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._overlay = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _clusters(sector: int, count: int) -> Iterator[tuple[int, int, int]]:
    """The clusters of a run of sectors: (number, first sector inside it, sectors)."""
    end = sector + count
    while sector < end:
        cluster, first = divmod(sector, CLUSTER_SECTORS)
        length = min(CLUSTER_SECTORS - first, end - sector)
        yield cluster, first, length
        sector += length


class MemoryImage:
    """A medium in memory, for tests and for disks that start empty.

    Args:
        content: its bytes, padded with zeros to whole sectors, or its size in bytes.
        read_only: whether writes fail.

    Raises:
        ImageError: it is smaller than a sector.
    """

    def __init__(self, content: bytes | int, *, read_only: bool = False) -> None:
        length = content if isinstance(content, int) else len(content)
        if length < SECTOR_SIZE:
            raise ImageError(
                f"memory image: is {length} bytes long; the least is one sector of {SECTOR_SIZE} bytes"
            )
        self._sectors = -(-length // SECTOR_SIZE)
        self.data = bytearray(self._sectors * SECTOR_SIZE)
        """All bytes of the medium."""
        if not isinstance(content, int):
            self.data[:length] = content
        self._read_only = read_only

    @property
    def sectors(self) -> int:
        """Size in sectors of 512 bytes."""
        return self._sectors

    @property
    def read_only(self) -> bool:
        """True if writes fail."""
        return self._read_only

    def _check(self, sector: int, count: int) -> None:
        if sector < 0 or count < 0 or sector + count > self._sectors:
            raise OSError(errno.EINVAL, f"sectors {sector}+{count} are not in the image")

    def read(self, sector: int, count: int) -> bytes:
        """Sectors.

        Raises:
            OSError: outside the image.
        """
        self._check(sector, count)
        return bytes(self.data[sector * SECTOR_SIZE : (sector + count) * SECTOR_SIZE])

    def write(self, sector: int, data: bytes) -> None:
        """Whole sectors.

        Raises:
            OSError: outside the image, or it is read-only.
        """
        if self._read_only:
            raise OSError(errno.EROFS, "image is read-only")
        self._check(sector, len(data) // SECTOR_SIZE)
        start = sector * SECTOR_SIZE
        self.data[start : start + len(data)] = data

    def flush(self) -> None:
        """Nothing to do."""
