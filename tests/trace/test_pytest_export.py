"""Stretches of a trace as pytest files: they pass, they fail when the device is altered, they need nothing else."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.support import SOURCE, run_cli
from devices.ahci.ahci_host import ABAR, BUFFERS, PortDriver, command_fis
from portvisor.backends.image import MemoryImage
from portvisor.devices.ahci import Ahci
from portvisor.devices.i8042 import I8042
from portvisor.devices.i8254 import Pit
from portvisor.devices.i8259 import PicPair
from portvisor.devices.ide.ata_disk import AtaDisk
from portvisor.devices.ide.channel import IdeChannel
from portvisor.devices.ide.drive import Transport
from portvisor.devices.mc146818 import Rtc
from portvisor.devices.uart16550 import Uart16550
from portvisor.kvm.null import NullSystem
from portvisor.machines.pc import MIB, Pc, PcOptions
from portvisor.machines.pc_like import PcLike
from portvisor.machines.q35 import Q35, Q35Options
from portvisor.ports import BufferedChar, Device
from portvisor.trace.clock import RecordingVirtualClock
from portvisor.trace.errors import TraceError
from portvisor.trace.pytest_export import ExportedTest, Stretch, export_pytest
from portvisor.trace.reader import Trace
from portvisor.trace.recording import Recording

MS = 1_000_000


def record_pc(path: Path) -> None:
    """A timer, an alarm, a terminal, a disk and a keyboard at work, one after the other, twice."""
    clock = RecordingVirtualClock()
    disks = [MemoryImage(bytes(range(256)) * 64)]
    options = PcOptions(4 * MIB, disks=disks, serial=(BufferedChar(), None), base_time=1_000_000_000)
    with Pc(NullSystem(), options, clock) as machine:
        recording = Recording(machine, path)
        for _ in range(2):
            for work in (use_pit, use_rtc, use_uart, use_ide, use_keyboard):
                work(machine, clock)
        recording.close()


def outs(machine: PcLike, *pairs: tuple[int, int]) -> None:
    for port, value in pairs:
        machine.ports.write(port, 1, value)


def use_pit(machine: PcLike, clock: RecordingVirtualClock) -> None:
    outs(machine, (0x20, 0x11), (0x21, 8), (0x21, 4), (0x21, 1), (0x21, 0))
    outs(machine, (0x43, 0x34), (0x40, 0xA9), (0x40, 0x04), (0x61, 3))
    for _ in range(3):
        clock.advance(MS)
        machine.ports.read(0x40, 1)
        machine.ports.read(0x61, 1)
        source = machine._interrupts
        if source is not None and source.pending:
            source.acknowledge()
            outs(machine, (0x20, 0x20))


def use_rtc(machine: PcLike, clock: RecordingVirtualClock) -> None:
    outs(machine, (0x70, 0x0B), (0x71, 0x42), (0x70, 0x0C))
    for _ in range(3):
        machine.ports.read(0x71, 1)
        clock.advance(MS)
    outs(machine, (0x70, 0x00))
    machine.ports.read(0x71, 1)


def use_uart(machine: PcLike, clock: RecordingVirtualClock) -> None:
    outs(machine, (0x3FC, 0x0B), (0x3F9, 3), (0x3F8, 0x41))
    machine.chips.uarts[0].receive(b"hi")
    for _ in range(4):
        clock.advance(MS)
        for port in (0x3FA, 0x3FD, 0x3F8):
            machine.ports.read(port, 1)


def use_ide(machine: PcLike, clock: RecordingVirtualClock) -> None:
    for command in (0xEC, 0x20, 0x30):
        outs(machine, (0x1F2, 1), (0x1F3, 5), (0x1F4, 0), (0x1F5, 0), (0x1F6, 0xE0), (0x1F7, command))
        if command == 0x30:
            machine.ports.write_block(0x1F0, 2, b"written!" * 64)
        else:
            machine.ports.read_block(0x1F0, 2, 256)
        machine.ports.read(0x1F7, 1)
        clock.advance(MS)


def use_keyboard(machine: PcLike, clock: RecordingVirtualClock) -> None:
    outs(machine, (0x64, 0x60), (0x60, 0x45))
    machine.keyboard.tap("a", "b")
    machine.mouse.move(5, 5)
    for _ in range(6):
        clock.advance(MS)
        machine.ports.read(0x64, 1)
        machine.ports.read(0x60, 1)


def record_q35(path: Path) -> None:
    """A disk read and written by DMA."""
    drives = (AtaDisk(MemoryImage(bytes(range(256)) * 64), transport=Transport.SATA), *(None,) * 5)
    with Q35(NullSystem(), Q35Options(4 * MIB, (None,), drives, base_time=0), RecordingVirtualClock()) as machine:
        recording = Recording(machine, path)
        for offset, value in ((0x24, ABAR), (0x04, 6)):
            machine.ports.write(0xCF8, 4, 0x8000FA00 | offset)
            machine.ports.write(0xCFC, 4, value)

        class Host:
            ram = machine.ram

            @staticmethod
            def read(register: int) -> int:
                return machine.mmio.read(ABAR + register, 4)

            @staticmethod
            def write(register: int, value: int) -> None:
                machine.mmio.write(ABAR + register, 4, value)

        driver = PortDriver(Host(), 0)  # type: ignore[arg-type]
        driver.start()
        driver.run(command_fis(0x25, lba=3, count=2), [(BUFFERS, 1024)])
        driver.read(0x10)
        driver.run(command_fis(0x35, lba=9, count=1), [(BUFFERS, 512)], flags=1 << 6)
        driver.read(0x10)
        recording.close()


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trace]:
    folder = tmp_path_factory.mktemp("export")
    record_pc(folder / "pc.parquet")
    record_q35(folder / "q35.parquet")
    return {name: Trace(folder / f"{name}.parquet") for name in ("pc", "q35")}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def export(trace: Trace, device: str, path: Path, first: int = 0) -> tuple[ExportedTest, Callable[[], None]]:
    made = export_pytest(trace, device, Stretch(first), path)
    return made, getattr(load(path), f"test_{device}")


DEVICES = [
    ("pc", "pit", Pit), ("pc", "rtc", Rtc), ("pc", "uart0", Uart16550), ("pc", "ide0", IdeChannel),
    ("pc", "i8042", I8042), ("pc", "pic", PicPair), ("q35", "sata", Ahci),
]  # fmt: skip


def alter(kind: type[Device], device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a device answer with one bit wrong."""
    method = {"sata": "bar_read", "pic": "acknowledge"}.get(device, "read")
    genuine = getattr(kind, method)
    monkeypatch.setattr(kind, method, lambda self, *arguments: genuine(self, *arguments) ^ 1)


@pytest.mark.parametrize("part", ["whole", "half"])
@pytest.mark.parametrize(("board", "device", "kind"), DEVICES, ids=[name for _, name, _ in DEVICES])
def test_the_exported_test_passes_and_fails_when_the_device_is_altered(
    board: str,
    device: str,
    kind: type[Device],
    part: str,
    traces: dict[str, Trace],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From power-on, and from the middle with the device's state written out."""
    trace = traces[board]
    first = 0 if part == "whole" else trace.table().num_rows // 2
    made, run = export(trace, device, tmp_path / f"test_{device}.py", first)
    assert made.failure is None
    assert made.checks >= 2
    run()
    text = (tmp_path / f"test_{device}.py").read_text()
    assert (f'board.restore("{device}"' in text) == (part == "half")
    alter(kind, device, monkeypatch)
    with pytest.raises(AssertionError):
        run()


def test_a_missing_interrupt_is_found(
    traces: dict[str, Trace], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, run = export(traces["pc"], "pit", tmp_path / "test_pit.py")
    monkeypatch.setattr(Pit, "_drive", lambda self, level: None)
    with pytest.raises(AssertionError):
        run()


def test_plain_pytest_runs_the_file_that_the_command_writes(traces: dict[str, Trace], tmp_path: Path) -> None:
    path = tmp_path / "test_timer.py"
    done = run_cli("replay", str(traces["pc"].path), "--device", "pit", "--from", "20", "--pytest", str(path))
    assert done.status == 0, done.errors
    assert done.output.startswith(f"{path}: ")
    environment = {**os.environ, "PYTHONPATH": str(SOURCE)}
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)],
        capture_output=True, timeout=60, check=False, cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    assert "# pit Counter 0" in path.read_text()


def test_what_cannot_be_exported_is_one_line(traces: dict[str, Trace], tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no event of ide1 between these records"):
        export_pytest(traces["pc"], "ide1", Stretch(), tmp_path / "t.py")
    for options, message in (
        (("--pytest", "t.py"), "--pytest needs --device"),
        (("--from", "3"), "--from and --to are for --pytest"),
    ):
        done = run_cli("replay", str(traces["pc"].path), *options)
        assert (done.status, message in done.errors) == (2, True)
    assert not list(tmp_path.iterdir())


def test_names_from_a_file_do_not_become_code(traces: dict[str, Trace], tmp_path: Path) -> None:
    table = traces["pc"].table()
    evil = 'x"""\nraise SystemExit("code from the file")\n#'
    names = [evil if one == "Counter 0" else one for one in table["register"].to_pylist()]
    index = table.schema.get_field_index("register")
    changed = table.set_column(index, "register", pa.array(names, pa.string()))
    path = tmp_path / "evil.parquet"
    pq.write_table(changed.replace_schema_metadata(traces["pc"].schema.metadata), path)
    made, run = export(Trace(path), "pit", tmp_path / "test_evil.py")
    assert made.failure is None
    run()
