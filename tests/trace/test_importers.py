"""Logs as QEMU, the kernel's tracer and perf really write them; whatever is damaged is named with its line."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.support import run_cli
from portvisor.trace.errors import TraceError
from portvisor.trace.importers import detect, import_log
from portvisor.trace.reader import Trace
from portvisor.trace.replay import replay
from qemu_guest import QEMU, needs_qemu
from trace_support import Row

REAL = Path(__file__).parent.parent / "data" / "traces"
"""Beginnings of a SeaBIOS boot: QEMU 7.2 -trace memory_region_ops_*, kvm_pio of Linux 6.1 by ftrace and perf
script; and a session of QEMU's -qtest-log."""
FORMATS = {"qemu.log": "qemu", "ftrace.txt": "kvm", "perf.txt": "kvm", "qtest.log": "qtest"}
BOOT_S = 40


def rows(name: str, folder: Path, machine: str = "") -> list[Row]:
    import_log(REAL / name, folder / "t.parquet", "auto", machine)
    return list(Trace(folder / "t.parquet").records())


@pytest.mark.parametrize("name", FORMATS)
def test_a_real_log_is_known_by_its_lines(name: str) -> None:
    assert detect(REAL / name) == FORMATS[name]


@pytest.mark.parametrize("name", ["qemu.log", "ftrace.txt", "perf.txt"])
def test_a_real_boot_begins_with_the_shutdown_status(name: str, tmp_path: Path) -> None:
    """SeaBIOS reads CMOS 0F first, whoever runs it and whoever logs it."""
    first = [(row["kind"], row["port"], row["value"], row["device"]) for row in rows(name, tmp_path, "pc")[:2]]
    assert first == [("out", 0x70, 0x8F, "rtc"), ("in", 0x71, 0, "rtc")]


def test_a_real_read_is_cut_to_its_size_and_nobodys_ports_have_no_device(tmp_path: Path) -> None:
    """QEMU logs 64 ones for a byte from its region `io`, which stands for nobody."""
    found = [row for row in rows("qemu.log", tmp_path) if (row["port"], row["kind"]) == (0x402, "in")]
    assert found
    assert {(row["value"], row["device"], row["served"]) for row in found} == {(0xFF, "", "unassigned")}


def test_times_of_a_real_log_are_kept_to_the_microsecond(tmp_path: Path) -> None:
    text = (REAL / "perf.txt").read_text().splitlines()
    stamps = [round(float(re.findall(r"(\d+\.\d+):", line)[0]) * 1e6) for line in text]
    assert [row["time"] // 1000 for row in rows("perf.txt", tmp_path)] == [one - stamps[0] for one in stamps]


def test_a_block_of_a_real_kvm_log_has_its_count(tmp_path: Path) -> None:
    blocks = [
        (row["port"], row["size"], row["count"]) for row in rows("ftrace.txt", tmp_path) if row["kind"] == "ins"
    ]
    assert (0x511, 1, 4) in blocks


def test_a_real_qtest_log_with_failing_commands_is_read(tmp_path: Path) -> None:
    found = [(row["kind"], row["port"], row["value"]) for row in rows("qtest.log", tmp_path)]
    assert found == [
        ("out", 0x43, 0x34), ("out", 0x40, 0x10), ("out", 0x40, 0), ("in", 0x40, 0x10), ("out", 0x70, 0x0B),
        ("in", 0x71, 2), ("out", 0x3F8, 0x4142), ("in", 0xCFC, 0xFFFFFFFF),
    ]  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(FORMATS)),
    place=st.integers(0, 60),
    cut=st.integers(0, 90),
    put=st.sampled_from(["", "x", "0x", "-1", "99999999999999999999", " ", "\0", "\u2603", "OK", "(q)"]),
    take=st.integers(0, 12),
)
def test_a_damaged_line_is_read_or_named(
    name: str, place: int, cut: int, put: str, take: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Wherever a real line is cut and whatever is put there."""
    lines = (REAL / name).read_text().splitlines()
    index = place % len(lines)
    lines[index] = lines[index][:cut] + put + lines[index][cut + take :]
    folder = tmp_path_factory.mktemp("damaged")
    source, target = folder / "log.txt", folder / "t.parquet"
    source.write_text("\n".join(lines) + "\n")
    message = complaint(source, target, FORMATS[name])
    if message is None:
        assert Trace(target).table().num_rows > 0
        return
    found = re.match(rf"{re.escape(str(source))}:(\d+): .*: expected ", message)
    assert found, message
    assert int(found[1]) > index, "no line before the damaged one is named"
    assert not target.exists()


def complaint(source: Path, target: Path, kind: str) -> str | None:
    try:
        import_log(source, target, kind)
    except TraceError as error:
        return str(error)
    return None


@needs_qemu
@pytest.mark.qemu
def test_a_stock_qemus_boot_is_imported_replayed_and_compared(tmp_path: Path) -> None:
    """SeaBIOS on stock QEMU against our `pc`: its chips answer alike, and what differs is what differs."""
    log, disk, trace = tmp_path / "qemu.log", tmp_path / "disk.img", tmp_path / "qemu.parquet"
    disk.write_bytes(bytes(1 << 20))
    assert QEMU is not None
    command = [
        QEMU, "-accel", "tcg", "-machine", "pc", "-m", "64", "-display", "none", "-net", "none", "-vga", "none",
        "-device", "isa-vga", "-serial", "none", "-drive", f"file={disk},format=raw,if=ide",
        "-msg", "timestamp=on", "-trace", "memory_region_ops_*", "-D", str(log),
        "-chardev", f"file,id=debug,path={tmp_path / 'debug'}",
        "-device", "isa-debugcon,iobase=0x402,chardev=debug",
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            wait_for(tmp_path / "debug", "Booting from Hard Disk")
        finally:
            process.kill()
    done = run_cli("import", str(log), str(trace), "--machine", "pc")
    assert done.status == 0, done.errors
    result = replay(Trace(trace))
    differing = {device for device, _ in result.by_access}
    assert result.events > 3000
    assert not {"pic", "dma", "fpuerror", "port92", "pit"} & differing
    shown = run_cli("replay", str(trace), "--disk", str(disk))
    assert shown.status == 1
    assert "in 0608" in shown.output, "the ACPI timer that our pc has not"
    assert run_cli("diff", str(trace), str(trace)).status == 0
    assert run_cli("report", str(trace)).output.startswith(f"{trace}: source qemu, named after machine pc")


def wait_for(path: Path, text: str) -> None:
    """Until a file contains a text."""
    limit = time.monotonic() + BOOT_S
    while time.monotonic() < limit:
        if path.exists() and text in path.read_text(errors="replace"):
            return
        time.sleep(0.1)
    raise AssertionError(f"{text!r} did not come")
