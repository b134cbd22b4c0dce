"""Stores of error records: content, format, atomic replacement, privacy, errors."""

from __future__ import annotations

import os
import stat
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.backends.char import BackendError
from portvisor.backends.records import LARGEST_FILE, MAGIC, FileRecords, MemoryRecords
from portvisor.devices.erst import Erst, RecordStore
from portvisor.ports import Ram


def cper(record_id: int, length: int = 200, fill: int = 0) -> bytes:
    data = bytearray([fill]) * length
    data[:4] = b"CPER"
    struct.pack_into("<I", data, 20, length)
    struct.pack_into("<Q", data, 96, record_id)
    return bytes(data)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "records"


def test_both_are_record_stores(path: Path) -> None:
    stores: list[RecordStore] = [MemoryRecords(), FileRecords(path)]
    for store in stores:
        Erst(Ram(), store, 0)
        assert store.records == {}


def test_memory_keeps_its_own_copy() -> None:
    store = MemoryRecords()
    records = {1: cper(1)}
    store.replace(records)
    records[2] = cper(2)
    assert store.records == {1: cper(1)}


# --- files ---------------------------------------------------------------------------------------------------


def test_no_file_before_the_first_record(path: Path) -> None:
    FileRecords(path)
    assert not path.exists()


def test_records_survive(path: Path) -> None:
    """In the order they were written, byte for byte."""
    records = {9: cper(9, 128), 3: cper(3, 5000, 0xAA), 5: cper(5)}
    FileRecords(path).replace(records)
    again = FileRecords(path)
    assert again.records == records
    assert list(again.records) == [9, 3, 5]


def test_clearing_all_leaves_an_empty_store(path: Path) -> None:
    store = FileRecords(path)
    store.replace({1: cper(1)})
    store.replace({})
    assert path.read_bytes() == MAGIC
    assert FileRecords(path).records == {}


def test_private(path: Path) -> None:
    """A crash dump is nobody else's business, whatever the umask and the old file's mode."""
    path.write_bytes(MAGIC)
    path.chmod(0o644)
    before = os.umask(0)
    try:
        FileRecords(path).replace({1: cper(1)})
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_nothing_else_is_left_in_the_folder(path: Path) -> None:
    store = FileRecords(path)
    for record_id in range(1, 4):
        store.replace({record_id: cper(record_id)})
    assert os.listdir(path.parent) == [path.name]


def test_a_symbolic_link_is_followed(path: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(path)
    FileRecords(link).replace({1: cper(1)})
    assert link.is_symlink()
    assert FileRecords(path).records == {1: cper(1)}


@pytest.mark.parametrize("call", ["fsync", "replace", "open"])
def test_a_failed_write_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """The old file and the old records stay, and no partial file."""
    store = FileRecords(path)
    store.replace({1: cper(1)})
    before = path.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    if call == "open":
        monkeypatch.setattr("tempfile.mkstemp", full)
    elif call == "replace":
        monkeypatch.setattr(Path, "replace", full)
    else:
        monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        store.replace({1: cper(1), 2: cper(2)})
    monkeypatch.undo()
    assert store.records == {1: cper(1)}
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


# --- what is no store ----------------------------------------------------------------------------------------

BROKEN = {
    "not a record store": b"#!/bin/sh\necho precious\n",
    "empty file": b"",
    "other version": MAGIC.replace(b"1", b"2"),
    "cut off": MAGIC + cper(1)[:-1],
    "cut off in the header": MAGIC + cper(1)[:60],
    "signature": MAGIC + b"CPEX" + cper(1)[4:],
    "length 0": MAGIC + cper(1)[:20] + bytes(4) + cper(1)[24:],
    "trailing bytes": MAGIC + cper(1) + b"x",
    "id 0": MAGIC + cper(0),
    "id all ones": MAGIC + cper((1 << 64) - 1),
    "an id twice": MAGIC + cper(1) + cper(1),
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN.keys())
def test_foreign_files_are_refused_and_stay(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(BackendError, match=r"^record store .*(not a record store|broken record at byte \d+)"):
        FileRecords(path)
    assert path.read_bytes() == content


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    for place in (tmp_path, fifo, Path("/dev/zero")):
        with pytest.raises(BackendError, match="not a regular file"):
            FileRecords(place)


def test_a_file_that_is_too_large(path: Path) -> None:
    path.write_bytes(MAGIC)
    os.truncate(path, LARGEST_FILE + 1)
    with pytest.raises(BackendError, match="larger than 16 MiB"):
        FileRecords(path)


def test_a_missing_folder(path: Path) -> None:
    with pytest.raises(BackendError, match="there is no folder"):
        FileRecords(path / "records")


def test_a_path_through_a_file(path: Path) -> None:
    path.write_bytes(MAGIC)
    with pytest.raises(BackendError, match=r"Not a directory|there is no folder"):
        FileRecords(path / "records")


def test_an_unreadable_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(MAGIC)

    def denied(self: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(BackendError, match="Permission denied"):
        FileRecords(path)


def test_a_folder_without_write_permission(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(BackendError, match="its folder is not writable"):
        FileRecords(path)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=600))
def test_any_content_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    path = tmp_path_factory.mktemp("records") / "records"
    path.write_bytes(MAGIC + content)
    try:
        records = FileRecords(path).records
    except BackendError:
        return
    assert b"".join(records.values()) == content
