"""Foreign logs in, reports of them, comparison, and files that are no traces."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from cli.support import run_cli
from portvisor.trace.compare import compare
from portvisor.trace.errors import TraceError
from portvisor.trace.export import export_csv, export_perfetto
from portvisor.trace.importers import import_log
from portvisor.trace.page import render_page
from portvisor.trace.reader import Trace
from portvisor.trace.replay import replay
from portvisor.trace.summary import summarise

KVM = """\
# tracer: nop
 qemu-system-x86-77  [001]  100.000001: kvm_exit:             reason IO
 qemu-system-x86-77  [001]  100.000002: kvm_pio:              pio_write at 0x70 size 1 count 1 val 0x8f
 CPU 0/KVM 77 [001]  100.000003: kvm:kvm_pio: pio_read at 0x71 size 1 count 1 val 0x0
 qemu-system-x86-77  [001]  100.000004: kvm_pio:              pio_write at 0x402 size 1 count 20 val 0x41 (...)
"""
QEMU = """\
77@1700000000.000001:cpu_out addr 0x70(b) value 143
77@1700000000.000002:memory_region_ops_write cpu 0 mr 0x55 addr 0x70 value 0x8f size 1 name 'rtc'
cpu_in addr 0x71(b) value 0
"""
REGIONS = """\
memory_region_ops_write cpu 0 mr 0x55 addr 0x70 value 0x8f size 1 name 'rtc'
memory_region_ops_read cpu 0 mr 0x55 addr 0xfed00000 value 0x1 size 4 name 'hpet'
memory_region_ops_read cpu 1 mr 0x55 addr 0x71 value 0x0 size 1 name 'rtc'
"""
QTEST = """\
[I 0.000000] OPENED
[R +0.000010] outb 0x70 0x8f
[S +0.000011] OK
[R +0.000012] clock_step 5000000
[S +0.000013] OK 5000000
[S +0.000014] IRQ raise 8
[R +0.000015] inb 0x71
[S +0.000016] OK 0x0000
"""


def imported(folder: Path, text: str, kind: str = "auto") -> Trace:
    source, target = folder / "log.txt", folder / f"log{len(list(folder.iterdir()))}.parquet"
    source.write_text(text)
    import_log(source, target, kind)
    return Trace(target)


def short(trace: Trace) -> list[tuple[object, ...]]:
    names = ("time", "kind", "port", "size", "value", "count")
    return [tuple(row[name] for name in names) for row in trace.records()]


def test_kvm_lines_of_trace_cmd_and_perf_are_read(tmp_path: Path) -> None:
    assert short(imported(tmp_path, KVM)) == [
        (0, "out", 0x70, 1, 0x8F, 1),
        (1000, "in", 0x71, 1, 0, 1),
        (2000, "outs", 0x402, 1, 0x41, 20),
    ]


def test_qemu_cpu_lines_win_over_memory_region_lines(tmp_path: Path) -> None:
    assert short(imported(tmp_path, QEMU)) == [(0, "out", 0x70, 1, 0x8F, 1), (1000, "in", 0x71, 1, 0, 1)]


def test_qemu_memory_region_lines_above_the_ports_are_left_out(tmp_path: Path) -> None:
    rows = list(imported(tmp_path, REGIONS).records())
    assert [(row["port"], row["vcpu"], row["device"]) for row in rows] == [(0x70, 0, "rtc"), (0x71, 1, "rtc")]


def test_a_qtest_log_has_values_from_the_answers_and_time_from_the_clock(tmp_path: Path) -> None:
    rows = list(imported(tmp_path, QTEST).records())
    assert [(row["kind"], row["device"], row["value"]) for row in rows] == [
        ("out", "", 0x8F),
        ("irq", "IRQ8", 1),
        ("in", "", 0),
    ]
    assert rows[1]["time"] - rows[0]["time"] == 5_000_000 - 10_000


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        (
            "x kvm_pio: pio_write at 70 size 1",
            "auto",
            "log.txt:1: 'x kvm_pio: pio_write at 70 size 1': expected pio_",
        ),
        ("x kvm_pio: pio_read at 0x12345 size 1 count 1 val 0x0", "kvm", "expected a port of 0 to 0xffff"),
        ("x kvm_pio: pio_read at 0x70 size 3 count 1 val 0x0", "kvm", "expected a size of 1, 2 or 4"),
        ("x kvm_pio: pio_read at 0x70 size 1 count 1 val 0x100", "kvm", "expected a value of 1 bytes"),
        ("cpu_in addr 0x70(b) value 1\ncpu_in addr 0x70(q) value 1", "qemu", "log.txt:2: "),
        ("outb 0x70", "qtest", "expected inb|inw|inl PORT or outb|outw|outl PORT VALUE"),
        ("inb 0x70", "qtest", "expected the answer to the last in"),
        ("inb 0x70\nOK", "qtest", "log.txt:2: 'OK': expected OK 0xVALUE"),
        ("nothing here", "auto", "no line of a known log: kvm, qemu, qtest"),
        ("nothing here", "kvm", "no port access in it, read as kvm"),
    ],
)
def test_a_malformed_log_names_file_line_and_what_was_expected(
    tmp_path: Path, text: str, kind: str, message: str
) -> None:
    with pytest.raises(TraceError) as error:
        imported(tmp_path, text, kind)
    assert message in str(error.value)
    assert [one.name for one in tmp_path.iterdir()] == ["log.txt"]


def test_a_foreign_trace_is_replayed_against_our_board(tmp_path: Path) -> None:
    trace = imported(tmp_path, KVM)
    assert replay(trace, machine="pc").divergences == 0
    wrong = imported(tmp_path, KVM.replace("val 0x0", "val 0x55"))
    result = replay(wrong, machine="pc", device="rtc")
    assert result.divergences == 1
    with pytest.raises(TraceError, match="machine"):
        replay(trace)


def test_the_report_of_a_small_trace_is_this_one(tmp_path: Path) -> None:
    trace = imported(tmp_path, REGIONS)
    output = run_cli("report", str(trace.path)).output
    lines = [line.rstrip() for line in output.splitlines()]
    assert lines == [
        f"{trace.path}: source qemu",
        "2 records, 2 port accesses in 0.000 s guest time",
        "",
        "Devices over time (0.000 s)",
        "device  accesses  host \u00b5s  time",
        "rtc            2        0  \u2588",
        "",
        "Exit budget",
        "  port  device  register  in  out  share  mean ns  advice",
        "0x0070  rtc                0    1  50.0%",
        "0x0071  rtc                1    0  50.0%",
    ]


def test_names_from_a_file_are_escaped_in_the_page(tmp_path: Path) -> None:
    trace = imported(tmp_path, REGIONS.replace("'rtc'", "'<script>alert(1)</script>[bold]'"))
    page = render_page(summarise(trace))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    assert "[bold]" in run_cli("report", str(trace.path)).output


def test_diff_passes_over_polling_and_finds_a_changed_write(tmp_path: Path) -> None:
    poll = "x kvm_pio: pio_read at 0x64 size 1 count 1 val 0x1c\n"
    write = "x kvm_pio: pio_write at 0x64 size 1 count 1 val {}\n"
    once = imported(tmp_path, poll + write.format("0xaa") + poll)
    often = imported(tmp_path, poll * 30 + write.format("0xaa") + poll * 7)
    other = imported(tmp_path, poll + write.format("0xab") + poll)
    assert not any(one.differs for one in compare(once, often))
    (found,) = compare(once, other)
    assert found.differs
    assert found.hunk_count == 1
    assert [step.value for step in found.hunks[0].left + found.hunks[0].right] == [0xAA, 0xAB]


def test_exports_hold_every_record(tmp_path: Path) -> None:
    trace = imported(tmp_path, QTEST)
    assert export_csv(trace, tmp_path / "t.csv") == 3
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert [row["kind"] for row in rows] == ["out", "irq", "in"]
    assert export_perfetto(trace, tmp_path / "t.json") == 3
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    assert sorted(event["ph"] for event in events) == ["C", "M", "M", "X", "X"]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1", b"hello world, no trace"])
def test_what_is_no_trace_is_refused_with_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad"
    path.write_bytes(content)
    result = run_cli("report", str(path))
    assert result.status == 1
    assert result.errors.startswith(f"portvisor: {path}: neither Parquet nor an Arrow stream")
    assert result.errors.count("\n") == 1
