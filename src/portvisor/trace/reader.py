"""Reading a trace: Parquet, or the Arrow stream of one that is still being written or was cut off."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from portvisor.trace.errors import TraceError
from portvisor.trace.schema import FORMAT_VERSION, Metadata
from portvisor.trace.upgrade import columns_of_1, upgrade, upgraded_schema

PARQUET_MAGIC = b"PAR1"
BATCH = 1 << 16


def stream_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Every whole batch of an Arrow stream; an unfinished last one is left out."""
    with path.open("rb") as file:
        reader = pa.ipc.open_stream(file)
        while True:
            try:
                batch = reader.read_next_batch()
            except (StopIteration, pa.ArrowInvalid, OSError):
                return
            yield batch


class Trace:
    """A trace on disk. `batches` may be called again."""

    def __init__(self, path: str | Path) -> None:
        """Open it. For FILE that does not exist, FILE.arrows is taken: its writer did not come to the end.

        Raises:
            TraceError: no trace.
            OSError: it cannot be read.
        """
        self.path = Path(path)
        unfinished = self.path.with_name(self.path.name + ".arrows")
        if not self.path.exists() and unfinished.exists():
            self.path = unfinished
        with self.path.open("rb") as file:
            magic = file.read(len(PARQUET_MAGIC))
        self.finished = magic == PARQUET_MAGIC
        try:
            if self.finished:
                self.schema = pq.read_schema(self.path)
            else:
                with self.path.open("rb") as file:
                    self.schema = pa.ipc.open_stream(file).schema
        except (pa.ArrowException, OSError, EOFError) as error:
            raise TraceError(f"{self.path}: neither Parquet nor an Arrow stream ({_line(error)})") from None
        self.metadata = Metadata.of(self.schema, str(self.path))
        self._is_old = self.metadata.version < FORMAT_VERSION
        if self._is_old:
            self.schema = upgraded_schema(self.schema)

    def batches(self, columns: list[str] | None = None) -> Iterator[pa.RecordBatch]:
        """The records in order, some thousand at a time.

        Raises:
            TraceError: the file is damaged.
        """
        if not self._is_old:
            yield from self._stored(columns)
            return
        for batch in self._stored(columns_of_1(columns)):
            yield upgrade(batch, columns)

    def _stored(self, columns: list[str] | None) -> Iterator[pa.RecordBatch]:
        if not self.finished:
            for batch in stream_batches(self.path):
                yield batch.select(columns) if columns else batch
            return
        try:
            with pq.ParquetFile(self.path) as file:
                yield from file.iter_batches(BATCH, columns=columns)
        except (pa.ArrowException, OSError) as error:
            raise TraceError(f"{self.path}: damaged ({_line(error)})") from None

    def table(self) -> pa.Table:
        """All of it, in memory."""
        batches = list(self.batches())
        plain = self.schema.remove_metadata()
        return pa.Table.from_batches([batch.replace_schema_metadata(None) for batch in batches], plain)

    def records(self) -> Iterator[dict[str, Any]]:
        """Record by record, as dictionaries by column."""
        for batch in self.batches():
            names = batch.schema.names
            columns = [_plain(column).to_pylist() for column in batch.columns]
            for values in zip(*columns, strict=True):
                yield dict(zip(names, values, strict=True))


def _plain(column: pa.Array) -> pa.Array:
    """A dictionary column as its strings, which converts many times faster."""
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column


def _line(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__
