"""The writer's side of a recording: a thread that makes Arrow batches of what the recorder has noted.

The columns are laid out by compiled code and written by Arrow's, both without the interpreter lock; the guest's
thread gives it up for a fraction of a millisecond a batch.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Mapping

import pyarrow as pa

from portvisor.trace import _tap
from portvisor.trace.schema import COLUMNS, KIND_NAMES, OUTCOMES, SERVED

FLUSH_SECONDS = 0.5
"""What was noted is written after this time at the latest."""

Column = tuple[int, int, int, int]
"""Start and length of the content, start of the validity bits, nulls; the last two 0 where nothing is null."""


class Pump:
    """Takes batches out of a recorder until it is closed, and gives them to `write`, in a thread of its own."""

    def __init__(
        self,
        core: _tap.Recorder,
        write: Callable[[pa.RecordBatch], None],
        schema: pa.Schema,
        devices: Mapping[str, int],
    ) -> None:
        self._core = core
        self._write = write
        self._schema = schema
        self._names: dict[str, Mapping[str, int]] = {"device": devices, "register": core.registers}
        self._arrays = {
            "kind": pa.array(KIND_NAMES), "served": pa.array(SERVED), "outcome": pa.array(OUTCOMES)
        }  # fmt: skip
        self._thread: threading.Thread | None = None
        self.failure: BaseException | None = None
        """Why nothing more is written."""

    def start(self) -> None:
        """Begin to write."""
        self._core.open()
        self._thread = threading.Thread(target=self._run, name="trace writer", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Write what waits, and end."""
        self._core.close()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # they are the guest's thread's
        while True:
            try:
                taken = self._core.next(FLUSH_SECONDS)
                if taken is None:
                    return
                if self.failure is None:
                    self._write(self._batch(*taken))
            except BaseException as error:
                self.failure = self.failure or error
            taken = None

    def _batch(
        self, batch: _tap.Batch, rows: int, start: int, length: int, columns: list[Column]
    ) -> pa.RecordBatch:
        memory = pa.py_buffer(batch)
        arrays = []
        for (name, kind, _), (place, size, valid, nulls) in zip(COLUMNS, columns, strict=True):
            buffers = [memory.slice(valid, rows // 8 + 1) if nulls else None, memory.slice(place, size)]
            if pa.types.is_dictionary(kind):
                numbers = pa.Array.from_buffers(kind.index_type, rows, buffers, nulls)
                arrays.append(pa.DictionaryArray.from_arrays(numbers, self._dictionary(name), safe=False))
            else:
                if name == "data":
                    buffers.append(memory.slice(start, length))
                arrays.append(pa.Array.from_buffers(kind, rows, buffers, nulls))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)

    def _dictionary(self, column: str) -> pa.Array:
        """The names of a column; made anew only when there are more of them."""
        names = self._names.get(column)
        known = self._arrays.get(column)
        if names is not None and (known is None or len(known) != len(names)):
            known = self._arrays[column] = pa.array(tuple(names), pa.string())
        return known
