"""Recording machines: exact replay, files that survive a kill, equal recordings of equal runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.support import run_cli
from guest_programs import load
from portvisor.kvm.api import System
from portvisor.kvm.select import open_kvm, open_soft
from portvisor.machines.pc import Pc, PcOptions, Program
from portvisor.ports import BufferedChar
from portvisor.trace.clock import RecordingVirtualClock
from portvisor.trace.errors import TraceError
from portvisor.trace.reader import Trace
from portvisor.trace.recording import Recording
from portvisor.trace.replay import Replay, replay
from portvisor.trace.summary import summarise
from support import require_kvm
from trace_support import BASE_TIME, record_seabios

ENDLESS_OUT = bytes.fromhex("bae900b041eeebfd")
"""mov dx, E9; mov al, 'A'; l: out dx, al; jmp l"""


@pytest.fixture(scope="module")
def engine() -> Iterator[System]:
    system = open_soft()
    yield system
    system.close()


@pytest.fixture(scope="module")
def seabios(engine: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trace") / "seabios.parquet"
    record_seabios(engine, path)
    return path


def test_a_seabios_boot_replays_exactly(seabios: Path) -> None:
    result = replay(Trace(seabios))
    assert result.first is None
    assert result.events > 3000
    assert not seabios.with_name(seabios.name + ".arrows").exists()


def test_host_inputs_and_interrupts_are_in_the_trace(seabios: Path) -> None:
    table = Trace(seabios).table()
    kinds = set(table["kind"].to_pylist())
    assert {"in", "out", "ins", "irq", "ack", "timer", "input", "dma", "disk"} <= kinds
    calls = [(row["device"], row["register"], row["data"]) for row in table.to_pylist() if row["kind"] == "input"]
    assert calls == [("uart0", "receive", b'[[{"hex": "6f6b"}], {}]'), ("keyboard", "tap", b'[["a"], {}]')]


def test_every_access_of_a_boot_tells_where_it_came_from(seabios: Path) -> None:
    rows = [row for row in Trace(seabios).records() if row["port"] is not None]
    assert all(row["rip"] is not None for row in rows)
    assert {row["served"] for row in rows} <= {"engine", "emulator", "unassigned"}
    assert {row["outcome"] for row in rows} <= {"done", "split"}
    report = run_cli("report", str(seabios)).output
    assert "How accesses were served" in report
    assert "Where in the guest" in report


@pytest.mark.kvm
def test_a_seabios_boot_on_kvm_replays_exactly(tmp_path: Path) -> None:
    require_kvm()
    system = open_kvm()
    path = tmp_path / "kvm.parquet"
    try:
        record_seabios(system, path)
    finally:
        system.close()
    result = replay(Trace(path))
    assert result.first is None
    assert result.events > 3000
    ways = summarise(Trace(path)).served
    assert ways["exit"] > 1000
    assert ways["coalesced"] > 100, "SeaBIOS writes its messages to port 402h"


@pytest.mark.slow
@pytest.mark.guest
def test_a_debian_boot_on_the_server_is_small_and_replays_exactly(tmp_path: Path) -> None:
    path = tmp_path / "debian.parquet"
    booted = run_cli("boot", "--engine", "software", "--trace", str(path), timeout=400)
    assert "61 of 64 rows exact" in booted.output, booted.errors
    assert path.stat().st_size <= 4 << 20
    trace = Trace(path)
    assert trace.metadata.machine == "poweredge"
    result = replay(trace)
    assert result.first is None
    assert result.events > 10_000


def tampered(path: Path, target: Path, row: int, value: int) -> dict[str, object]:
    """A copy with one value changed; the record as it was."""
    table = Trace(path).table()
    record: dict[str, object] = table.slice(row, 1).to_pylist()[0]
    values = table["value"].to_pylist()
    values[row] = value
    index = table.schema.get_field_index("value")
    changed = table.set_column(index, "value", pa.array(values, pa.uint32()))
    pq.write_table(changed.replace_schema_metadata(Trace(path).schema.metadata), target)
    return record


def test_a_value_that_differs_is_found_and_shown(seabios: Path, tmp_path: Path) -> None:
    rows = Trace(seabios).table().to_pylist()
    number = next(i for i, row in enumerate(rows) if i > 500 and row["kind"] == "in" and row["device"] == "pci")
    copy = tmp_path / "changed.parquet"
    record = tampered(seabios, copy, number, int(rows[number]["value"]) ^ 1)
    result = replay(Trace(copy))
    assert result.divergences == 1
    assert result.first is not None
    assert result.first.record["seq"] == record["seq"]
    shown = run_cli("replay", str(copy))
    assert shown.status == 1
    assert f">>> #{record['seq']}" in shown.output
    assert run_cli("replay", str(copy), "--device", "rtc").status == 0
    assert run_cli("replay", str(copy), "--device", "nothing").status == 1


def test_report_diff_and_exports_of_a_boot(seabios: Path, tmp_path: Path) -> None:
    report = run_cli("report", str(seabios))
    assert report.status == 0
    for words in ("machine pc, engine software", "Exit budget", "debugcon", "IRQ0", "Unassigned ports"):
        assert words in report.output
    assert run_cli("diff", str(seabios), str(seabios)).status == 0
    page, text, events = (tmp_path / name for name in ("page.html", "all.csv", "all.json"))
    assert run_cli("report", str(seabios), "--html", str(page)).status == 0
    assert "src=" not in page.read_text()
    assert run_cli("export", str(seabios), str(text)).status == 0
    assert len(text.read_text().splitlines()) == Trace(seabios).table().num_rows + 1
    assert run_cli("export", str(seabios), str(events)).status == 0


def record_hello(engine: System, path: Path) -> None:
    """A small guest on a virtual clock: nothing of the host is in it."""
    options = PcOptions(
        program=Program(load("stringio"), 0x7C00), serial=(BufferedChar(), None), base_time=BASE_TIME
    )  # fmt: skip
    with Pc(engine, options, RecordingVirtualClock()) as machine:
        recording = Recording(machine, path)
        machine.run(30.0)
        recording.close()


def test_two_recordings_of_one_deterministic_run_are_equal(engine: System, tmp_path: Path) -> None:
    tables = []
    for name in ("one.parquet", "two.parquet"):
        record_hello(engine, tmp_path / name)
        tables.append(Trace(tmp_path / name).table().drop_columns(["host_ns"]))
    assert tables[0].num_rows > 10
    assert tables[0].to_pylist() == tables[1].to_pylist()
    assert replay(Trace(tmp_path / "one.parquet")).first is None


def _holds_batches(growing: Path) -> bool:
    """Whether a whole batch is there and the next one has begun."""
    if not growing.exists() or growing.stat().st_size < 1 << 16:
        return False
    trace = Trace(growing)
    return trace.table().num_rows > 10_000


def test_a_recording_that_is_killed_loses_no_finished_batch(tmp_path: Path) -> None:
    guest, path = tmp_path / "endless.bin", tmp_path / "killed.parquet"
    guest.write_bytes(ENDLESS_OUT)
    command = (
        "import sys; from portvisor.cli.main import main; sys.argv[1:] = sys.argv[1:]; main()",
        "run", str(guest), "--at", "7c00", "--engine", "software", "--serial", "none", "--trace", str(path),
        "--timeout", "60",
    )  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, "-c", *command], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        growing = tmp_path / "killed.parquet.arrows"
        limit = time.monotonic() + 40
        while not _holds_batches(growing) and time.monotonic() < limit:
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
    assert not path.exists()
    trace = Trace(path)
    assert not trace.finished
    table = trace.table()
    assert table.num_rows > 10_000
    assert table["seq"].to_pylist() == list(range(table.num_rows))
    assert run_cli("report", str(path)).status == 0


def test_a_disk_that_is_full_does_not_stop_the_guest_and_is_told_at_the_end(tmp_path: Path) -> None:
    guest, path = tmp_path / "endless.bin", tmp_path / "full.parquet"
    guest.write_bytes(ENDLESS_OUT)
    limited = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20));"
        "from portvisor.cli.main import main; main()",
        "run", str(guest), "--at", "7c00", "--engine", "software", "--serial", "none", "--trace", str(path),
        "--timeout", "2",
    )  # fmt: skip
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", *limited], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.endswith("; the trace ends where the space did\n"), done.stderr
    assert not path.exists()
    assert not Trace(path).finished


def test_a_machine_goes_on_after_its_recording_has_ended(engine: System, tmp_path: Path) -> None:
    options = PcOptions(program=Program(load("stringio"), 0x7C00), base_time=BASE_TIME)
    with Pc(engine, options, RecordingVirtualClock()) as machine:
        recording = Recording(machine, tmp_path / "t.parquet")
        recording.close()
        machine.reset()
        outcome = machine.run(30.0)
        assert machine.clock.now() >= 0
        assert outcome.status, outcome
    assert Trace(tmp_path / "t.parquet").table().num_rows == 0


@pytest.mark.parametrize(
    ("column", "value"), [("size", 3), ("count", 1 << 31), ("kind", "nothing"), ("port", None), ("register", "rm")]
)
def test_a_damaged_record_is_refused_with_its_number(seabios: Path, column: str, value: object) -> None:
    records = list(Trace(seabios).records())
    kind = {"count": "ins", "register": "input"}.get(column, "in")
    number = next(i for i, record in enumerate(records) if record["kind"] == kind and record["depth"] == 0)
    records[number][column] = value
    with pytest.raises(TraceError, match=f"record {records[number]['seq']}: "):
        Replay(Trace(seabios).metadata).run(iter(records))


def test_a_filter_needs_a_file_and_a_wrong_one_says_what_is_possible(tmp_path: Path) -> None:
    common = ("run", "portprobe", "--at", "7c00", "--engine", "software", "--serial", "none")
    alone = run_cli(*common, "--trace-filter", "dir=in")
    assert (alone.status, alone.errors) == (1, "portvisor: --trace-filter needs --trace FILE\n")
    wrong = run_cli(*common, "--trace", str(tmp_path / "t.parquet"), "--trace-filter", "dir=up")
    assert wrong.status == 1
    assert "'up' is not one of in, out" in wrong.errors


@pytest.mark.guest
def test_a_run_that_waits_for_text_and_presses_keys_replays_exactly(tmp_path: Path) -> None:
    """The script's own timer is no event of the board; the keys it presses are."""
    trace = tmp_path / "t.parquet"
    program = Path(__file__).parent.parent / "guests" / "kbd.bin"
    arguments = ("run", str(program), "--at", "7c00", "--engine", "software", "--timeout", "60")
    done = run_cli(*arguments, "--when", "kbd: ready=a,b,esc", "--trace", str(trace))
    assert done.status == 0x21, done.output + done.errors
    replayed = run_cli("replay", str(trace))
    assert replayed.status == 0, replayed.output
