"""Writing a trace: an Arrow stream while it grows, Parquet once it is complete.

A Parquet file has its table of contents at the end, so that one whose writer was killed is lost. Therefore batches
go to `FILE.arrows`, an Arrow IPC stream that is readable up to its last whole batch at any time; `close` turns it
into FILE and removes it. A name that ends in `.arrows` stays a stream.
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.parquet as pq

from portvisor.trace.reader import stream_batches
from portvisor.trace.schema import Metadata

STREAM_SUFFIX = ".arrows"
ROW_GROUP = 1 << 18


def stream_path(path: Path) -> Path:
    """Where the batches of an unfinished FILE are."""
    return path if path.suffix == STREAM_SUFFIX else path.with_name(path.name + STREAM_SUFFIX)


class TraceWriter:
    """A trace that is being written."""

    def __init__(self, path: str | Path, metadata: Metadata) -> None:
        """Create the file.

        Raises:
            OSError: it cannot be written.
        """
        self.path = Path(path)
        self.schema = metadata.schema()
        self._stream_path = stream_path(self.path)
        self._file = pa.OSFile(str(self._stream_path), "wb")  # unbuffered, and needs no interpreter lock
        self._stream = pa.ipc.new_stream(self._file, self.schema)
        self._rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        """Append a batch; it is readable from now on, whatever happens to this process."""
        self._stream.write_batch(batch)
        self._rows += batch.num_rows

    def close(self) -> None:
        """Complete the file.

        Raises:
            OSError: it cannot be written, or the stream does not read back whole; then the stream stays.
        """
        if self._file.closed:
            return
        self._stream.close()
        self._file.close()
        if self._stream_path != self.path:
            to_parquet(self._stream_path, self.path, self.schema, self._rows)
            self._stream_path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abandon()

    def abandon(self) -> None:
        """Leave nothing behind."""
        self._file.close()
        self._stream_path.unlink(missing_ok=True)


def to_parquet(stream: Path, target: Path, schema: pa.Schema, expected: int) -> None:
    """Turn a stream of that many records into a Parquet file, whole or not at all."""
    partial = target.with_name(target.name + ".part")
    try:
        with pq.ParquetWriter(partial, schema, compression="zstd", compression_level=6) as writer:
            waiting: list[pa.RecordBatch] = []
            rows = found = 0
            for batch in stream_batches(stream):
                waiting.append(batch)
                rows += batch.num_rows
                found += batch.num_rows
                if rows >= ROW_GROUP:
                    writer.write_table(_unified(waiting, schema))
                    waiting, rows = [], 0
            if waiting:
                writer.write_table(_unified(waiting, schema))
        if found != expected:
            raise OSError(errno.EIO, f"{stream} gave {found} of {expected} records back")
        os.replace(partial, target)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _unified(batches: list[pa.RecordBatch], schema: pa.Schema) -> pa.Table:
    table = pa.Table.from_batches(batches, schema.remove_metadata()).unify_dictionaries()
    return table.combine_chunks().replace_schema_metadata(schema.metadata)
