"""What a trace file holds: its columns, the kinds of records, and the description of the machine.

A record is one event. Pieces come before the event they belong to: the halves and bytes that the bus split an
access into, the interrupt edges it caused, what a device did with guest memory, disks and the board meanwhile. A
piece has a `depth` above 0, except for edges that no recorded event caused.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Self

import pyarrow as pa

from portvisor.trace.errors import TraceError

FORMAT_VERSION = 2
"""1 had neither `rip` nor `outcome`, and in `served` the words device, split, unassigned and failed."""
READABLE_VERSIONS = (1, FORMAT_VERSION)
METADATA_KEY = b"portvisor"


class Kind(IntEnum):
    """What a record is about. IN and OUT are the numbers that `_tap` writes."""

    IN = 0
    OUT = 1
    INS = 2
    OUTS = 3
    IRQ = 4
    ACK = 5
    TIMER = 6
    INPUT = 7
    RESET = 8
    DMA = 9
    DISK = 10
    MMIO_IN = 11
    MMIO_OUT = 12
    REQUEST = 13


KIND_NAMES = tuple(kind.name.lower() for kind in Kind)
ACCESSES = (Kind.IN, Kind.OUT, Kind.INS, Kind.OUTS)
READS, WRITES = (Kind.IN, Kind.INS), (Kind.OUT, Kind.OUTS)
SIZED = (*ACCESSES, Kind.MMIO_IN, Kind.MMIO_OUT)
MMIO_DATA = struct.Struct("<QQ")
"""`data` of a memory-mapped access: guest-physical address and value."""
PIECES = (Kind.IRQ, Kind.DMA, Kind.DISK, Kind.REQUEST)
"""Kinds that always belong to the next event."""

FLAG_FAILED, FLAG_UNASSIGNED, FLAG_SPLIT = 1, 2, 4
"""Of `_tap`; so are the order of the next two and of `COLUMNS`."""
SERVED = ("engine", "exit", "coalesced", "emulator", "unassigned")
OUTCOMES = ("done", "split", "failed")

# Signed numbers: pandas takes no others for categories.
WORD = pa.dictionary(pa.int8(), pa.string())
NAME = pa.dictionary(pa.int16(), pa.string())
COLUMNS = (
    ("seq", pa.int64(), "number of the record"),
    ("time", pa.int64(), "guest clock in ns, as the devices saw it"),
    ("host_ns", pa.uint32(), "host time in ns that the event took, pieces included; 0: takes none"),
    ("vcpu", pa.uint8(), "virtual CPU"),
    ("rip", pa.uint64(), "guest's RIP at a port access; null: not known"),
    ("kind", WORD, "in, out, ins, outs, irq, ack, timer, input, reset, dma, disk, mmio_in, mmio_out, request"),
    ("port", pa.uint16(), "port of an access"),
    ("size", pa.uint8(), "bytes of one element"),
    ("count", pa.uint32(), "elements; more than 1 in ins and outs"),
    ("value", pa.uint32(), "value; level of an irq, vector of an ack, address of a dma, sector of a disk"),
    ("data", pa.binary(), "content of a block, dma, disk or input; address and value of an mmio access"),
    ("device", NAME, "device; IRQn for a wire, the timer's name, the image's name"),
    ("register", NAME, "register in the data sheet's words; the call of an input"),
    ("depth", pa.uint8(), "0: what the guest did; more: a piece of a later record"),
    ("served", WORD, "how an access came to be served: engine, exit, coalesced, emulator, unassigned"),
    ("outcome", WORD, "of an access: done, split, failed"),
)


NEW_IN_2 = ("rip", "outcome")
TEXTS = ("source", "machine", "engine", "clock", "filters")
"""Fields of the description that are words."""


def _is_name(kind: pa.DataType) -> bool:
    """Whether a column can stand for a dictionary of names: another tool may have written it plainly."""
    plain = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(plain) or pa.types.is_large_string(plain))


@dataclass(frozen=True, slots=True)
class Metadata:
    """What was recorded, as far as a replay needs it."""

    source: str = "portvisor"
    machine: str = ""
    engine: str = ""
    clock: str = "wall"
    start: int = 0
    """Clock in ns when recording began."""
    options: dict[str, Any] = field(default_factory=dict)
    filters: str = ""
    version: int = FORMAT_VERSION

    def schema(self) -> pa.Schema:
        """The file's schema with this description in it."""
        text = json.dumps({name: getattr(self, name) for name in self.__slots__}, sort_keys=True)
        fields = [pa.field(name, kind) for name, kind, _ in COLUMNS]
        return pa.schema(fields, metadata={METADATA_KEY: text.encode()})

    @classmethod
    def of(cls, schema: pa.Schema, path: str) -> Self:
        """Read the description back.

        Raises:
            TraceError: the file is no trace, or one of another version.
        """
        text = (schema.metadata or {}).get(METADATA_KEY)
        if text is None:
            raise TraceError(f"{path}: an Arrow file, but no trace of portvisor (no metadata)")
        try:
            values = json.loads(text)
            made = cls(**{name: values[name] for name in cls.__slots__})
        except (ValueError, KeyError, TypeError):
            raise TraceError(f"{path}: the trace's description is damaged") from None
        if made.version not in READABLE_VERSIONS:
            readable = " and ".join(map(str, READABLE_VERSIONS))
            raise TraceError(f"{path}: trace format {made.version}; this portvisor reads {readable}")
        wrong = (not isinstance(made.options, dict), not isinstance(made.start, int))
        if any(wrong) or not all(isinstance(getattr(made, name), str) for name in TEXTS):
            raise TraceError(f"{path}: the trace's description is damaged")
        columns = [column for column in COLUMNS if made.version > 1 or column[0] not in NEW_IN_2]
        missing = [name for name, _, _ in columns if name not in schema.names]
        if missing:
            raise TraceError(f"{path}: columns are missing: {', '.join(missing)}")
        for name, kind, _ in columns:
            found = schema.field(name).type
            if found != kind and not (pa.types.is_dictionary(kind) and _is_name(found)):
                raise TraceError(f"{path}: column {name} holds {found}, expected {kind}")
        return made
