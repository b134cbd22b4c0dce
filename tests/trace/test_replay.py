"""Replay of every board is exact: all its devices, disks, resets, snapshots, host inputs, failures of the host."""

from __future__ import annotations

import errno
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import guest_programs
from devices.ahci.ahci_host import ABAR, BUFFERS, PortDriver, command_fis
from machines.boot_support import grub_image, run_until, stock_bios
from machines.server_support import Server, settled
from portvisor.backends.image import MemoryImage
from portvisor.backends.records import MemoryRecords
from portvisor.devices.ide.ata_disk import AtaDisk
from portvisor.devices.ide.atapi_cd import AtapiCd
from portvisor.devices.ide.drive import Transport
from portvisor.devices.ide.identify import Identity
from portvisor.kvm.api import System
from portvisor.kvm.null import NullSystem
from portvisor.kvm.select import open_soft
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.pc import MIB, Pc, PcOptions, Program
from portvisor.machines.pc_like import PcLike
from portvisor.machines.poweredge import PowerEdge, PowerEdgeOptions
from portvisor.machines.q35 import Q35, Q35Options
from portvisor.machines.snapshot import restore, take
from portvisor.ports import ACCESS_SIZES, BufferedChar, Clock
from portvisor.trace.clock import RecordingVirtualClock, RecordingWallClock
from portvisor.trace.errors import TraceError
from portvisor.trace.filters import parse_filter
from portvisor.trace.reader import Trace
from portvisor.trace.recording import Recording
from portvisor.trace.replay import Replay, ReplayResult, replay
from trace_support import recorded_pc

ORIGIN = 0x7C00
WATCHDOG_S = 20.0
LIMIT_S = 120.0
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def engine() -> Iterator[System]:
    system = open_soft()
    yield system
    system.close()


def exact(path: Path) -> ReplayResult:
    """The replay, which must not differ anywhere."""
    result = replay(Trace(path))
    assert result.first is None, result.first
    return result


def kinds(path: Path) -> Counter[str]:
    return Counter(Trace(path).table()["kind"].to_pylist())


def inputs(path: Path) -> Counter[str]:
    """Calls of the host, by device and call."""
    rows = Trace(path).records()
    return Counter(f"{row['device']}.{row['register']}" for row in rows if row["kind"] == "input")


# --- boards that a test drives --------------------------------------------------------------------------------


def sata_disk() -> AtaDisk:
    image = MemoryImage(bytes(range(256)) * 512)
    return AtaDisk(image, Identity("REPLAYED DISK", "R1", "2"), Transport.SATA)


def pc(clock: Clock) -> PcLike:
    disks = [MemoryImage(bytes(range(256)) * 512), MemoryImage(1 << 16, read_only=True)]
    serial = (BufferedChar(), BufferedChar())
    cdrom = MemoryImage(64 * 2048)
    return Pc(NullSystem(), PcOptions(16 * MIB, disks=disks, cdrom=cdrom, serial=serial, base_time=5), clock)


def poweredge(clock: Clock) -> PcLike:
    options = PowerEdgeOptions(
        128 * MIB, sata=[MemoryImage(1 << 20)], ssata=[MemoryImage(1 << 18)],
        serial=(BufferedChar(), BufferedChar()), firmware=bytes(0x10000), vga_bios=b"vga" * 512, base_time=5,
    )  # fmt: skip
    return PowerEdge(NullSystem(), options, clock)


def q35(clock: Clock) -> PcLike:
    drives = (sata_disk(), None, AtapiCd(MemoryImage(64 * 2048), transport=Transport.SATA), None, None, None)
    return Q35(NullSystem(), Q35Options(16 * MIB, (BufferedChar(),), drives, base_time=5), clock)


BOARDS: dict[str, Callable[[Clock], PcLike]] = {"pc": pc, "poweredge": poweredge, "q35": q35}


@contextmanager
def recorded(name: str, path: Path, words: str = "") -> Iterator[PcLike]:
    """A board without a CPU under observation, on a virtual clock."""
    with BOARDS[name](RecordingVirtualClock()) as machine:
        recording = Recording(machine, path, parse_filter([words]))
        yield machine
        recording.close()
        assert machine.failures == []


def ports_of(machine: PcLike) -> list[int]:
    """Ports that somebody answers; without fw_cfg's DMA address, where a random one asks for gigabytes."""
    dma = range(machine.fw_cfg.ports[0].base + 4, machine.fw_cfg.ports[0].base + 12)  # type: ignore[attr-defined]
    owned = {port for owned, _ in machine.ports.ranges() for port in range(owned.base, owned.last + 1)}
    return sorted(owned - set(dma))


def disturb(machine: PcLike, chance: random.Random) -> None:
    """Something that is no access: time, a host's input, a reset, an acknowledge cycle, other memory."""
    clock = machine.clock
    assert isinstance(clock, RecordingVirtualClock)
    what = chance.randrange(10)
    if what < 4:
        clock.advance(chance.choice((1000, 20_000, 400_000)))
    elif what == 4:
        machine.mouse.move(chance.randrange(-99, 99), chance.randrange(-99, 99), chance.randrange(8))
    elif what == 5:
        machine.keyboard.tap(chance.choice(("a", "up", "pause", "leftshift")))
    elif what == 6:
        machine.chips.uarts[0].receive(chance.randbytes(chance.randrange(1, 20)))
    elif what == 7:
        region = machine.ram.regions[0]
        place = chance.randrange(len(region.view) - 4096)
        region.view[place : place + 4096] = chance.randbytes(4096)
    elif what == 8:
        source = machine._interrupts
        if source is not None and source.pending:
            source.acknowledge()
    elif what == 9 and chance.random() < 0.1:
        machine.reset()


def storm(machine: PcLike, seed: int, accesses: int) -> None:
    """Accesses to owned ports and memory-mapped registers, with disturbances between them."""
    chance = random.Random(seed)
    space, ports = machine.ports, ports_of(machine)
    for index in range(accesses):
        if index % 500 == 0:
            ports = ports_of(machine)
        port, size = chance.choice(ports), chance.choice(ACCESS_SIZES)
        value = chance.choice((0, 0xFFFFFFFF, chance.getrandbits(32), chance.getrandbits(8)))
        kind = chance.random()
        if kind < 0.4:
            space.read(port, size)
        elif kind < 0.8:
            space.write(port, size, value & (1 << 8 * size) - 1)
        elif kind < 0.83:
            space.read_block(port, size, 16)
        elif kind < 0.86:
            space.write_block(port, size, chance.randbytes(16 * size))
        elif kind < 0.92:
            windows = [one for one in machine.mmio.windows if not one.name.startswith("v")]
            if windows:
                window = chance.choice(windows)
                address = window.base + chance.randrange(window.length // 4) * 4
                if chance.random() < 0.5:
                    machine.mmio.read(address, 4)
                else:
                    machine.mmio.write(address, 4, value)
        else:
            disturb(machine, chance)


@pytest.mark.parametrize("name", BOARDS)
@settings(max_examples=4, deadline=None, derandomize=True)
@given(seed=st.integers(0, 1 << 32))
def test_whatever_is_done_to_a_board_replays_exactly(
    name: str, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("storm") / "t.parquet"
    with recorded(name, path) as machine:
        storm(machine, seed, 1500)
    result = exact(path)
    assert result.events > 1000
    assert result.compared == result.events


# --- what only some traces have -------------------------------------------------------------------------------


class Failing(MemoryImage):
    """An image whose host fails at odd sectors."""

    def read(self, sector: int, count: int) -> bytes:
        if sector % 2:
            raise OSError(errno.EIO, "bad sector")
        return super().read(sector, count)

    def write(self, sector: int, data: bytes) -> None:
        if sector % 2:
            raise OSError(errno.ENOSPC, "full")
        super().write(sector, data)

    def flush(self) -> None:
        raise OSError(errno.EIO, "lost")


def ata(machine: PcLike, command: int, sector: int) -> None:
    for offset, value in ((2, 1), (3, sector), (4, 0), (5, 0), (6, 0xE0), (7, command)):
        machine.ports.write(0x1F0 + offset, 1, value)


def test_what_the_host_of_a_disk_answers_is_in_the_trace(tmp_path: Path) -> None:
    """READ, WRITE and FLUSH CACHE, with success and with failure; the status that follows is replayed."""
    path = tmp_path / "t.parquet"
    options = PcOptions(16 * MIB, disks=[Failing(1 << 16)], base_time=0)
    with Pc(NullSystem(), options, RecordingVirtualClock()) as machine:
        recording = Recording(machine, path)
        for sector in (2, 3):
            ata(machine, 0x20, sector)
            machine.ports.read_block(0x1F0, 2, 256)
            machine.ports.read(0x1F7, 1)
            ata(machine, 0x30, sector)
            machine.ports.write_block(0x1F0, 2, b"x" * 512)
            machine.ports.read(0x1F7, 1)
        ata(machine, 0xE7, 0)
        machine.ports.read(0x1F7, 1)
        recording.close()
    pieces = [(row["register"], row["value"]) for row in Trace(path).records() if row["kind"] == "disk"]
    assert pieces == [
        ("read", 2), ("write", 2), ("read failed", 3), ("write failed", 3), ("flush failed", 0),
    ]  # fmt: skip
    exact(path)


def test_a_device_that_writes_other_data_to_a_disk_is_found(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with recorded("pc", path) as machine:
        ata(machine, 0x30, 7)
        machine.ports.write_block(0x1F0, 2, b"x" * 512)
    records = list(Trace(path).records())
    block = next(record for record in records if record["kind"] == "outs")
    block["data"] = b"y" + block["data"][1:]
    result = Replay(Trace(path).metadata).run(iter(records))
    assert result.first is not None
    assert re.match(r"recorded ide0\.0 write at 0x7, 512 bytes with digest", result.first.what)


def test_a_disc_that_is_changed_replays_exactly(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with recorded("pc", path) as machine:
        drive = machine.ide[1].drives[0]  # type: ignore[attr-defined]
        for _ in range(2):
            machine.ports.write(0x176, 1, 0xA0)
            machine.ports.write(0x177, 1, 0xA0)
            machine.ports.write_block(0x170, 2, bytes((0x28, 0, 0, 0, 0, 3, 0, 0, 1, 0, 0, 0)))
            machine.ports.read_block(0x170, 2, 1024)
            machine.ports.read(0x177, 1)
            assert drive.cd.eject(force=True)
            drive.cd.insert(MemoryImage(b"other disc " * 9000))
    assert inputs(path) == {"ide1.0.eject": 2, "ide1.0.insert": 2}
    exact(path)


@pytest.mark.parametrize("words", ["kind=in,out", "device=pit,uart*", "dir=in", "kind=in,out,timer,input,ack"])
def test_what_a_filter_left_out_is_no_divergence(words: str, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    with recorded("pc", path, words) as machine:
        machine.ports.write(0x21, 1, 0)
        machine.ports.write(0x3F9, 1, 3)
        machine.ports.write(0x3F8, 1, 0x41)
        machine.ports.read(0x21, 1)
    assert Trace(path).metadata.filters == words
    exact(path)


def test_a_snapshot_from_before_the_recording_is_refused(tmp_path: Path, engine: System) -> None:
    path = tmp_path / "t.parquet"
    options = PcOptions(4 * MIB, program=Program(b"\xeb\xfe", ORIGIN), base_time=0)
    with Pc(engine, options, RecordingVirtualClock()) as machine:
        early = take(machine)
        recording = Recording(machine, path)
        restore(machine, early)
        recording.close()
    with pytest.raises(TraceError, match="before the recording began"):
        replay(Trace(path))


# --- guests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("b040 e670 e471 fec0 88c4 b040 e670 88e0 e671 3c03 7406 b0fe e664 ebfe e6f4 f4", "keyboard controller"),
        ("b040 e670 e471 fec0 88c4 b040 e670 88e0 e671 3c03 7406 b001 e692 ebfe e6f4 f4", "port 92"),
        (
            "b040 e670 e471 fec0 88c4 b040 e670 88e0 e671 3c03 740b baf90c b002 ee b006 ee ebfe e6f4 f4",
            "reset control (system)",
        ),
    ],
)
def test_resets_in_the_middle_replay_exactly(engine: System, code: str, reason: str, tmp_path: Path) -> None:
    """The guest counts its resets in CMOS 40h and leaves at the third start."""
    path = tmp_path / "t.parquet"
    options = PcOptions(4 * MIB, program=Program(bytes.fromhex(code), ORIGIN), base_time=0)
    with recorded_pc(engine, path, options) as machine:
        assert machine.run(WATCHDOG_S).end is End.GUEST_EXIT
        assert machine.resets == 2
    exact(path)
    rows = list(Trace(path).records())
    assert [row["register"] for row in rows if row["kind"] == "request"] == [f"reset: {reason}"] * 2 + [
        "guest exit"
    ]
    assert kinds(path)["reset"] == 2


def test_a_triple_fault_in_the_middle_replays_exactly(engine: System, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    options = PcOptions(4 * MIB, program=Program(guest_programs.load("triplefault"), ORIGIN), base_time=0)
    with recorded_pc(engine, path, options) as machine:
        machine.reset_limit = 2
        assert machine.run(WATCHDOG_S).end is End.SHUTDOWN
    exact(path)
    assert kinds(path)["reset"] == 2


@pytest.mark.guest
def test_snapshots_in_the_middle_replay_exactly(engine: System, tmp_path: Path) -> None:
    """SeaBIOS: taken at the first line of its log, put back once the disk boots, run to there again."""
    bios, vga = stock_bios()
    path = tmp_path / "t.parquet"
    log = bytearray()

    def stop_at_first_line(data: bytes) -> None:
        if not log.count(b"\n"):
            log.extend(data)
            if log.count(b"\n"):
                machine.request_stop(Outcome(End.CONDITION))

    options = PcOptions(
        firmware=bios, vga_bios=vga, disks=[MemoryImage(1 << 20)], serial=(BufferedChar(), None),
        on_debug=stop_at_first_line,
    )  # fmt: skip

    def shows(text: str) -> Callable[[], bool]:
        return lambda: any(text in line for line in machine.screen.text())

    with recorded_pc(engine, path, options) as machine:
        assert machine.run(LIMIT_S).end is End.CONDITION
        early = take(machine)
        for _ in range(2):
            assert run_until(machine, shows("Booting from Hard"), LIMIT_S).end is End.CONDITION
            restore(machine, early)
            assert not shows("Booting from Hard")()
        assert run_until(machine, shows("Booting from Hard"), LIMIT_S).end is End.CONDITION
    assert inputs(path) == {"board.take": 1, "board.restore": 2}
    exact(path)


@pytest.mark.guest
def test_grub_from_an_ide_disk_replays_exactly(engine: System, tmp_path: Path) -> None:
    bios, vga = stock_bios()
    path = tmp_path / "t.parquet"
    serial = BufferedChar()
    options = PcOptions(
        firmware=bios,
        vga_bios=vga,
        disks=[MemoryImage(grub_image())],
        serial=(serial, None),
        on_debug=bytearray().extend,
    )
    with recorded_pc(engine, path, options) as machine:
        assert run_until(machine, lambda: b"GNU GRUB" in serial.sent, LIMIT_S).end is End.CONDITION
        before = len(serial.sent)
        machine.keyboard.tap("down")
        serial.type(b"\x1b[A")
        assert run_until(machine, lambda: len(serial.sent) > before + 20, LIMIT_S).end is End.CONDITION
    exact(path)
    found = kinds(path)
    assert found["disk"] > 10
    assert found["ins"] > 10


BUSY_BOOT = settled(
    """
load psmouse 2>/dev/null
for d in sda sdb; do n=0; while [ ! -b /dev/$d ] && [ $n -lt 50 ]; do sleep 0.1; n=$((n+1)); done; done
if ! grep -q again /dev/sda /dev/sdb; then
  dd if=/dev/urandom of=/dev/sda bs=64k count=8 seek=1 2>/dev/null; dd if=/dev/sda of=/dev/sdb bs=64k 2>/dev/null
  echo again | dd of=/dev/sda conv=sync 2>/dev/null; sync; echo 3 > /proc/sys/vm/drop_caches
  echo "DISK $(sha256sum < /dev/sdb)"
  cat /sys/class/rtc/rtc0/since_epoch
  stty -F /dev/ttyS1 raw -echo; exec 4<> /dev/ttyS1; echo LISTEN; read -t 20 line <&4; echo "SECOND $line"
  rmmod iTCO_wdt; insmod /lib/modules/iTCO_wdt.ko heartbeat=4; sleep 0.3
  exec 3> /dev/watchdog; echo ARMED; sleep 60
fi
echo SECOND-START
"""
)


@pytest.mark.slow
@pytest.mark.guest
def test_debian_with_disks_a_watchdog_and_a_second_start_replays_exactly(tmp_path: Path) -> None:
    """AHCI disks written and read back, serial input, keys, mouse, the TCO watchdog's reset, then power-off."""
    path = tmp_path / "t.parquet"
    sata, ssata = [MemoryImage(1 << 20)], [MemoryImage(2 << 20)]
    with Server(BUSY_BOOT, clock=RecordingWallClock(), sata=sata, ssata=ssata) as server:
        recording = Recording(server.machine, path)
        assert server.run_until_says("LISTEN").end is End.CONDITION, server.text[-2000:]
        server.machine.mouse.move(10, 20, 1)
        server.machine.keyboard.type_text("hello")
        server.second.type(b"hello from the host\n")
        outcome = server.run()
        recording.close()
        text = server.text
        assert server.machine.resets == 1
    assert outcome.end is End.POWER_OFF
    assert "SECOND hello from the host" in text
    assert "SECOND-START" in text
    result = exact(path)
    assert result.events > 50_000
    rows = [row for row in Trace(path).records() if row["kind"] in ("request", "disk")]
    assert [row["register"] for row in rows if row["kind"] == "request"] == ["reset: TCO watchdog", "power off"]
    disks = Counter((row["device"], row["register"]) for row in rows if row["kind"] == "disk")
    assert {(name, what) for name in ("sata0", "ssata0") for what in ("read", "write", "flush")} <= set(disks)


@pytest.mark.slow
@pytest.mark.guest
def test_a_panic_in_the_record_store_replays_exactly(tmp_path: Path) -> None:
    script = settled(
        """
mount -t pstore pstore /sys/fs/pstore 2>/dev/null
if ls /sys/fs/pstore | grep -q dmesg-erst; then rm /sys/fs/pstore/*; poweroff -f; fi
echo c > /proc/sysrq-trigger
"""
    )
    store, path = MemoryRecords(), tmp_path / "t.parquet"
    with Server(script, words="panic=1", records=store, clock=RecordingWallClock()) as server:
        recording = Recording(server.machine, path)
        assert server.run().end is End.POWER_OFF
        recording.close()
    exact(path)
    assert any(row["device"] == "records" for row in Trace(path).records())


class Q35Host:
    """The AHCI controller of a q35 as `PortDriver` reaches it."""

    def __init__(self, machine: PcLike) -> None:
        self.machine, self.ram = machine, machine.ram
        for offset, value in ((0x24, ABAR), (0x04, 6)):
            machine.ports.write(0xCF8, 4, 0x8000FA00 | offset)
            machine.ports.write(0xCFC, 4, value)

    def read(self, register: int) -> int:
        return self.machine.mmio.read(ABAR + register, 4)

    def write(self, register: int, value: int) -> None:
        self.machine.mmio.write(ABAR + register, 4, value)


def test_dma_of_the_q35s_disk_replays_exactly(tmp_path: Path) -> None:
    """READ DMA EXT and WRITE DMA EXT: command lists and data are read from memory, data and status written."""
    path = tmp_path / "t.parquet"
    with recorded("q35", path) as machine:
        driver = PortDriver(Q35Host(machine), 0)  # type: ignore[arg-type]
        driver.start()
        driver.run(command_fis(0x25, lba=3, count=2), [(BUFFERS, 1024)])
        assert machine.ram.read(BUFFERS, 256) == bytes(range(256))
        driver.run(command_fis(0x35, lba=9, count=1), [(BUFFERS, 512)], flags=1 << 6)
        driver.run(command_fis(0xEC), [(BUFFERS, 512)])
    effects = [(row["kind"], row["register"]) for row in Trace(path).records() if row["kind"] in ("dma", "disk")]
    assert {("disk", "read"), ("disk", "write"), ("dma", "read"), ("dma", "write")} <= set(effects)
    exact(path)
