"""Traces of format 1 in the words of the present one: no RIP was noted then, and not how an access came."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from portvisor.trace.schema import COLUMNS, NEW_IN_2, WORD

ACCESS_KINDS = pa.array(["in", "out", "ins", "outs", "mmio_in", "mmio_out"])
NEEDED = ["kind", "served"]
"""Columns that the new ones are made from."""


def columns_of_1(wanted: list[str] | None) -> list[str] | None:
    """What to read of a file of format 1 to have these columns."""
    if wanted is None:
        return None
    return [name for name in wanted if name not in (*NEW_IN_2, *NEEDED)] + NEEDED


def upgraded_schema(schema: pa.Schema) -> pa.Schema:
    """The present columns, in order, with the types that the file has."""
    fields = [pa.field(name, kind) for name, kind, _ in COLUMNS]
    kept = [schema.field(one.name) if _is_kept(one.name) else one for one in fields]
    return pa.schema(kept, metadata=schema.metadata)


def upgrade(batch: pa.RecordBatch, wanted: list[str] | None) -> pa.RecordBatch:
    """A batch of format 1 with the present columns, or those wanted."""
    kind, served = _plain(batch["kind"]), _plain(batch["served"])
    made = {
        "rip": pa.nulls(batch.num_rows, pa.uint64()),
        "served": pc.if_else(pc.equal(served, "unassigned"), served, None).cast(pa.string()).dictionary_encode(),
        "outcome": pc.if_else(pc.is_in(kind, ACCESS_KINDS), _outcome(served), None).dictionary_encode(),
    }
    names = wanted or [name for name, _, _ in COLUMNS]
    arrays = [batch[name] if _is_kept(name) else made[name] for name in names]
    fields = [
        pa.field(name, array.type if _is_kept(name) else pa.uint64() if name == "rip" else WORD)
        for name, array in zip(names, arrays, strict=True)
    ]
    return pa.RecordBatch.from_arrays(
        [array.cast(one.type) for array, one in zip(arrays, fields, strict=True)], schema=pa.schema(fields)
    )


def _outcome(served: pa.Array) -> pa.Array:
    return pc.if_else(pc.is_in(served, pa.array(["split", "failed"])), served, "done")


def _is_kept(name: str) -> bool:
    return name != "served" and name not in NEW_IN_2


def _plain(column: pa.Array) -> pa.Array:
    return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
