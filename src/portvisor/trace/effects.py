"""What devices do to the world around them while they serve an event, and what that world answers.

Guest memory, images, the error records' store, and the board (resets, power-off). A recording notes all of it as
pieces of the event; a replay answers from these notes and compares what the devices do with them. Of what a device
writes, only length and digest are kept: enough to see that it was the same.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any, Protocol

from portvisor.devices.erst import RecordStore
from portvisor.machines.machine import Machine
from portvisor.machines.outcome import End, Outcome
from portvisor.ports import SECTOR_SIZE, BlockBackend, Ram
from portvisor.trace.schema import Kind

MEMORY, BOARD, RECORDS = "memory", "board", "records"
READ, WRITE, FLUSH = "read", "write", "flush"
FAILED = " failed"
"""After READ, WRITE or FLUSH: the host could not."""
DIGEST = struct.Struct("<I8s")
LENGTH = struct.Struct("<I")
"""Bytes that a failed read was to bring."""
GUEST_ENDS = (End.POWER_OFF, End.GUEST_EXIT)
"""Ends of a run that a device asks for."""


class Note(Protocol):
    """Gets what happened."""

    def __call__(self, kind: Kind, device: str, value: int, name: str, data: bytes = b"") -> None: ...


def digest(data: bytes | bytearray | memoryview) -> bytes:
    """Length and digest of what was written."""
    return DIGEST.pack(len(data), blake2b(data, digest_size=8).digest())


def digest_of_records(records: Mapping[int, bytes]) -> bytes:
    """The same of a store's content."""
    return digest(b"".join(records.values()))


def _replace(owner: object, **methods: Any) -> None:
    """Put functions in place of an object's methods: devices hold this very object."""
    for name, function in methods.items():
        setattr(owner, name, function)


def watch_memory(memory: Ram, note: Note) -> None:
    """Note what devices read from guest memory and write to it."""
    inner_read, inner_write = memory.read, memory.write

    def read(address: int, length: int) -> bytes:
        data = inner_read(address, length)
        note(Kind.DMA, MEMORY, address, READ, data)
        return data

    def write(address: int, data: bytes | bytearray | memoryview) -> None:
        inner_write(address, data)
        note(Kind.DMA, MEMORY, address, WRITE, digest(data))

    _replace(memory, read=read, write=write)


def watch_image(name: str, image: BlockBackend, note: Note) -> None:
    """Note what a drive reads from an image and writes to it, and where the host failed."""
    inner_read, inner_write, inner_flush = image.read, image.write, image.flush

    def read(sector: int, count: int) -> bytes:
        try:
            data = inner_read(sector, count)
        except OSError:
            note(Kind.DISK, name, sector, READ + FAILED, LENGTH.pack(count * SECTOR_SIZE))
            raise
        note(Kind.DISK, name, sector, READ, data)
        return data

    def write(sector: int, data: bytes) -> None:
        try:
            inner_write(sector, data)
        except OSError:
            note(Kind.DISK, name, sector, WRITE + FAILED, digest(data))
            raise
        note(Kind.DISK, name, sector, WRITE, digest(data))

    def flush() -> None:
        try:
            inner_flush()
        except OSError:
            note(Kind.DISK, name, 0, FLUSH + FAILED)
            raise
        note(Kind.DISK, name, 0, FLUSH)

    _replace(image, read=read, write=write, flush=flush)


def watch_records(store: RecordStore, note: Note) -> None:
    """Note what becomes of the error records."""
    inner = store.replace

    def replace(records: Mapping[int, bytes]) -> None:
        try:
            inner(records)
        except OSError:
            note(Kind.DISK, RECORDS, 0, WRITE + FAILED, digest_of_records(records))
            raise
        note(Kind.DISK, RECORDS, 0, WRITE, digest_of_records(records))

    _replace(store, replace=replace)


def watch_requests(machine: Machine, note: Note, *, obey: bool = True) -> None:
    """Note what devices ask the board for; without `obey`, nothing else happens then."""
    inner_reset, inner_stop = machine.request_reset, machine.request_stop

    def request_reset(reason: str) -> None:
        note(Kind.REQUEST, BOARD, 0, f"reset: {reason}")
        if obey:
            inner_reset(reason)

    def request_stop(outcome: Outcome) -> None:
        if outcome.end in GUEST_ENDS:
            note(Kind.REQUEST, BOARD, outcome.status or 0, outcome.end.name.lower().replace("_", " "))
        if obey:
            inner_stop(outcome)

    _replace(machine, request_reset=request_reset, request_stop=request_stop)


def host_error() -> OSError:
    """What a failed call raises again."""
    return OSError(errno.EIO, "failed when it was recorded")
