"""RIP and route of recorded accesses on both engines, and traces of the format that had neither."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kvm_guest import CODE, DATA, PORT, guest
from portvisor.kvm.abi import ExitReason
from portvisor.kvm.api import Route
from portvisor.kvm.hardware import HardwareSystem, open_hardware
from portvisor.ports import PortSpace
from portvisor.trace import summary
from portvisor.trace.errors import TraceError
from portvisor.trace.reader import Trace
from portvisor.trace.schema import COLUMNS, Kind, Metadata
from portvisor.trace.writer import TraceWriter
from softcpu_guest import DATA as SOFT_DATA
from softcpu_guest import soft_guest
from support import require_kvm
from trace_support import Row, SpaceRecording

ACCESSES = bytes.fromhex("ec 90 ee 66ed 6c f4")
"""in al, dx; nop; out dx, al; in eax, dx; insb; hlt"""
PLACES = [CODE, CODE + 2, CODE + 3, CODE + 5]


def brief(rows: list[Row]) -> list[tuple[str, int | None, str]]:
    return [(row["kind"], row["rip"], row["served"]) for row in rows]


def test_on_the_software_engine_rip_is_that_of_the_instruction() -> None:
    with soft_guest(ACCESSES) as made:
        recording = SpaceRecording(made.ports)
        recording.clock.core.set_cpu(made.vcpu.rip, made.vm.route)
        made.real_mode(rdi=SOFT_DATA)
        made.halts()
        rows = recording.rows()
        recording.recorder.detach()
    assert [row["rip"] for row in rows] == PLACES
    assert {row["served"] for row in rows} == {"engine"}


def test_in_long_mode_rip_has_64_bits_and_a_block_is_one_access() -> None:
    with soft_guest("90 f3 66 6d f4") as made:  # nop; rep insw; hlt
        recording = SpaceRecording(made.ports)
        recording.clock.core.set_cpu(made.vcpu.rip, made.vm.route)
        made.long_mode(rdi=SOFT_DATA, rcx=8)
        made.halts()
        (row,) = recording.rows()
        recording.recorder.detach()
    assert (row["kind"], row["count"], row["rip"], row["served"]) == ("ins", 8, CODE + 1, "engine")


def test_a_string_that_crosses_a_page_is_served_by_the_emulator() -> None:
    with soft_guest("90 6d f4") as made:  # insd across a page
        recording = SpaceRecording(made.ports)
        recording.clock.core.set_cpu(made.vcpu.rip, made.vm.route)
        made.protected_mode(rdi=SOFT_DATA + 0xFFE)
        made.halts()
        rows = recording.rows()
        recording.recorder.detach()
    assert brief(rows) == [("ins", CODE + 1, "emulator")]


def test_unassigned_and_split_accesses_have_the_rip_of_their_instruction() -> None:
    with soft_guest("ba00e0 ec baef02 ed f4") as made:  # in al from E000h; in ax from 2EFh, half of it nobody's
        recording = SpaceRecording(made.ports)
        recording.clock.core.set_cpu(made.vcpu.rip, made.vm.route)
        made.real_mode()
        made.halts()
        rows = recording.rows()
        recording.recorder.detach()
    assert [(row["port"], row["depth"], row["rip"], row["served"], row["outcome"]) for row in rows] == [
        (0xE000, 0, CODE + 3, "unassigned", "done"),
        (0x2EF, 1, CODE + 7, "unassigned", "done"),
        (0x2F0, 1, CODE + 7, "engine", "done"),
        (0x2EF, 0, CODE + 7, "engine", "split"),
    ]


@pytest.fixture
def kvm() -> Iterator[HardwareSystem]:
    require_kvm()
    system = open_hardware()
    yield system
    system.close()


@pytest.mark.kvm
def test_on_kvm_rip_comes_with_the_exit(kvm: HardwareSystem) -> None:
    with guest(kvm, ACCESSES) as made:
        recording = SpaceRecording(made.ports)
        if made.vcpu.rip is None:
            pytest.skip("needs KVM_CAP_SYNC_REGS")
        recording.clock.core.set_cpu(made.vcpu.rip, made.vm.route)
        made.start(rdi=DATA)
        assert made.serve() == ExitReason.HLT
        rows = recording.rows()
        recording.recorder.detach()
        recording.clock.core.set_cpu(None, None)
    assert {row["served"] for row in rows} == {"exit"}
    first, out, second, string = (row["rip"] for row in rows)
    assert [first, second, string] == [PLACES[0], *PLACES[2:]]
    assert out in (PLACES[1], PLACES[1] + 1), "KVM's emulator leaves with RIP behind an OUT"


@pytest.mark.kvm
def test_on_kvm_a_coalesced_write_has_no_rip(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\xee\xee\xec\xf4") as made:
        if not made.vm.register_coalesced_pio(PORT, 1):
            pytest.skip("needs KVM_CAP_COALESCED_PIO")
        recording = SpaceRecording(made.ports)
        recording.clock.core.set_cpu(made.vcpu.rip, made.vm.route)
        assert made.serve() == ExitReason.HLT
        rows = recording.rows()
        recording.recorder.detach()
        recording.clock.core.set_cpu(None, None)
    assert brief(rows) == [
        ("out", None, "coalesced"),
        ("out", None, "coalesced"),
        ("in", CODE + 2 if made.vcpu.rip is not None else None, "exit"),
    ]


# --- format 1 -----------------------------------------------------------------------------------------------------


def old_trace(path: Path, version: int = 1) -> list[Row]:
    """A file of format 1; its records as they are expected to be read."""
    space = PortSpace()
    recording = SpaceRecording(space)
    space.read(0x70, 2)
    recording.recorder.event(Kind.IRQ, "IRQ3", 1)
    space.write(0x71, 1, 5)
    rows = recording.rows()
    schema = Metadata(version=version).schema()
    kept = [field for field in schema if field.name not in ("rip", "outcome")]
    words = {"served": ["unassigned", "device", "failed"]}
    columns = [words.get(one.name) or [row[one.name] for row in rows] for one in kept]
    arrays = [
        pa.array(column).dictionary_encode().cast(one.type) if pa.types.is_dictionary(one.type)
        else pa.array(column, one.type)
        for one, column in zip(kept, columns, strict=True)
    ]  # fmt: skip
    table = pa.Table.from_arrays(arrays, schema=pa.schema(kept, metadata=schema.metadata))
    if path.suffix == ".arrows":
        with path.open("wb") as file, pa.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    else:
        pq.write_table(table, path)
    rows[0]["served"], rows[1]["served"], rows[2]["served"] = "unassigned", None, None
    rows[0]["outcome"], rows[1]["outcome"], rows[2]["outcome"] = "done", None, "failed"
    return rows


@pytest.mark.parametrize("name", ["old.parquet", "old.arrows"])
def test_a_trace_of_format_1_reads_without_rip(tmp_path: Path, name: str) -> None:
    expected = old_trace(tmp_path / name)
    trace = Trace(tmp_path / name)
    assert list(trace.records()) == expected
    assert trace.table().to_pylist() == expected
    assert trace.table().schema.names == [name for name, _, _ in COLUMNS]
    assert [batch.to_pylist() for batch in trace.batches(["outcome", "port"])] == [
        [{"outcome": row["outcome"], "port": row["port"]} for row in expected]
    ]
    assert summary.summarise(trace).unassigned == {(0x70, 2, "in"): 1}
    assert not summary.summarise(trace).places


def test_another_format_is_refused_with_its_number(tmp_path: Path) -> None:
    old_trace(tmp_path / "t.parquet", version=3)
    with pytest.raises(TraceError, match="trace format 3; this portvisor reads 1 and 2"):
        Trace(tmp_path / "t.parquet")


def test_places_with_most_accesses_are_kept_when_there_are_many(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(summary, "PLACES_COUNTED", 40)
    monkeypatch.setattr(summary, "PLACES_KEPT", 2)
    space = PortSpace()
    recording = SpaceRecording(space)
    rip = bytearray(8)
    recording.clock.core.set_cpu(rip, bytearray((Route.ENGINE,)))
    path = tmp_path / "places.arrows"
    with TraceWriter(path, Metadata()) as writer:
        for number in range(20):
            for place in (7, 7, 7, 9, 9, *range(100 + 30 * number, 130 + 30 * number)):
                rip[:] = place.to_bytes(8, "little")
                space.read(0x70, 1)
            recording.recorder.flush()
            writer.write(recording.batches.pop())
    recording.recorder.detach()
    assert summary.summarise(Trace(path)).places == {(7, 0x70): 60, (9, 0x70): 40}
