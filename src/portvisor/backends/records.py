"""Error records of the ERST device: in memory, or in a file of the user's that is always written whole.

The file is the records one after the other, each with its own length inside (UEFI 2.9, N.2.1: "CPER" at 0,
length at 20, id at 96), behind one line that names the format.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from portvisor.backends.char import BackendError

MAGIC = b"portvisor error records 1\n"
SIGNATURE = b"CPER"
HEADER_LENGTH, LENGTH_OFFSET, ID_OFFSET = 128, 20, 96
LARGEST_FILE = 16 << 20


class MemoryRecords:
    """Records that last as long as the machine."""

    def __init__(self) -> None:
        self.records: Mapping[int, bytes] = {}

    def replace(self, records: Mapping[int, bytes]) -> None:
        """Keep other records."""
        self.records = dict(records)


class FileRecords(MemoryRecords):
    """Records in a file; it is made with the first record.

    Raises:
        BackendError: the file is there but cannot be read, or is no record store.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__()
        self.path = Path(path)
        try:
            if self.path.exists() and self.path.stat().st_size > LARGEST_FILE:
                raise BackendError(f"record store {self.path}: larger than {LARGEST_FILE >> 20} MiB")
            content = self.path.read_bytes() if self.path.exists() else MAGIC
        except OSError as error:
            raise BackendError(f"record store {self.path}: {error.strerror}") from None
        if not os.access(self.path.parent, os.W_OK):
            raise BackendError(f"record store {self.path}: its folder is not writable")
        self.records = self._parse(content)

    def _parse(self, content: bytes) -> dict[int, bytes]:
        if not content.startswith(MAGIC):
            raise BackendError(f"record store {self.path}: not a record store of portvisor")
        records, place = {}, len(MAGIC)
        while place < len(content):
            length = int.from_bytes(content[place + LENGTH_OFFSET : place + LENGTH_OFFSET + 4], "little")
            record = content[place : place + length]
            if not record.startswith(SIGNATURE) or length < HEADER_LENGTH or len(record) != length:
                raise BackendError(f"record store {self.path}: broken record at byte {place}")
            records[int.from_bytes(record[ID_OFFSET : ID_OFFSET + 8], "little")] = record
            place += length
        return records

    def replace(self, records: Mapping[int, bytes]) -> None:
        """Write all records to a new file and put it in the old one's place.

        Raises:
            OSError: the host cannot write it; the old file stays.
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
