"""Error records of the ERST device: in memory, or in a file of the user's that is always written whole.

The file is the records one after the other, each with its own length inside (UEFI 2.9, N.2.1: "CPER" at 0,
length at 20, id at 96), behind one line that names the format. Only its owner may read it: a crash dump holds
whatever was in the guest's memory.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

from portvisor.backends.char import BackendError

MAGIC = b"portvisor error records 1\n"
SIGNATURE = b"CPER"
HEADER_LENGTH, LENGTH_OFFSET, ID_OFFSET = 128, 20, 96
RESERVED_IDS = (0, (1 << 64) - 1)
"""Ids that stand for "the first record" and "no record"."""
LARGEST_FILE = 16 << 20


class MemoryRecords:
    """Records that last as long as the machine."""

    def __init__(self) -> None:
        self.records: Mapping[int, bytes] = {}

    def replace(self, records: Mapping[int, bytes]) -> None:
        """Keep other records."""
        self.records = dict(records)


class FileRecords(MemoryRecords):
    """Records in a file; it is made with the first record. A symbolic link is followed.

    Raises:
        BackendError: the file is there but cannot be read, or is no record store; its folder is missing or
            not writable.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path).resolve()
        try:
            content = self._content()
        except OSError as error:
            raise BackendError(f"record store {self.path}: {error.strerror}") from None
        if not self.path.parent.is_dir():
            raise BackendError(f"record store {self.path}: there is no folder {self.path.parent}")
        if not os.access(self.path.parent, os.W_OK):
            raise BackendError(f"record store {self.path}: its folder is not writable")
        self.records = self._parse(content)

    def _content(self) -> bytes:
        try:
            status = self.path.stat()
        except FileNotFoundError:
            return MAGIC
        if not stat.S_ISREG(status.st_mode):
            raise BackendError(f"record store {self.path}: not a regular file")
        if status.st_size > LARGEST_FILE:
            raise BackendError(f"record store {self.path}: larger than {LARGEST_FILE >> 20} MiB")
        return self.path.read_bytes()

    def _parse(self, content: bytes) -> dict[int, bytes]:
        if not content.startswith(MAGIC):
            raise BackendError(f"record store {self.path}: not a record store of portvisor")
        records, place = {}, len(MAGIC)
        while place < len(content):
            length = int.from_bytes(content[place + LENGTH_OFFSET : place + LENGTH_OFFSET + 4], "little")
            record = content[place : place + length]
            record_id = int.from_bytes(record[ID_OFFSET : ID_OFFSET + 8], "little")
            sound = record.startswith(SIGNATURE) and length >= HEADER_LENGTH and len(record) == length
            if not sound or record_id in RESERVED_IDS or record_id in records:
                raise BackendError(f"record store {self.path}: broken record at byte {place}")
            records[record_id] = record
            place += length
        return records

    def replace(self, records: Mapping[int, bytes]) -> None:
        """Write all records to a new file and put it in the old one's place.

        Raises:
            OSError: the host cannot write it; the old file and the old records stay.
        """
        handle, partial = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(MAGIC + b"".join(records.values()))
                file.flush()
                os.fsync(file.fileno())
            Path(partial).replace(self.path)
        except BaseException:
            Path(partial).unlink(missing_ok=True)
            raise
        super().replace(records)
        self._flush_folder()

    def _flush_folder(self) -> None:
        """Put the new name on stable storage too; a crash dump is written when the host may be next."""
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
