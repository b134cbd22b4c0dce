"""Stock SeaBIOS, GRUB and portprobe on the machine `pc`, on both engines."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from machines.boot_support import grub_image, run_until, stock_bios
from portvisor.backends.image import MemoryImage
from portvisor.guest.programs import load_program
from portvisor.kvm.api import System
from portvisor.kvm.select import open_engine
from portvisor.machines.outcome import End
from portvisor.machines.pc import MIB, Pc, PcOptions, Program
from portvisor.ports import BlockBackend, BufferedChar
from support import require_kvm

pytestmark = pytest.mark.guest
LIMIT_S = 120.0
PORTPROBE_STATUS = 0x21
VARYING = re.compile(r"^.*(PIT counter|CMOS (date|time)).*$", re.MULTILINE)


@pytest.fixture(params=["software", pytest.param("kvm", marks=pytest.mark.kvm)])
def engine(request: pytest.FixtureRequest) -> Iterator[System]:
    if request.param == "kvm":
        require_kvm()
    system = open_engine(request.param)
    yield system
    system.close()


class Board:
    """A `pc` with firmware, and what it printed."""

    def __init__(self, engine: System, *disks: BlockBackend) -> None:
        bios, vga = stock_bios()
        self.serial = BufferedChar()
        self.log = bytearray()
        options = PcOptions(
            memory=64 * MIB, firmware=bios, vga_bios=vga, disks=disks,
            serial=(self.serial, None), on_debug=self.log.extend,
        )  # fmt: skip
        self.machine = Pc(engine, options)

    def screen_shows(self, text: str) -> bool:
        return any(text in line for line in self.machine.screen.text())

    def serial_shows(self, text: str) -> bool:
        return text.encode() in self.serial.sent

    def __enter__(self) -> Board:
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.close()


def test_seabios_reaches_the_hard_disk(engine: System) -> None:
    with Board(engine, MemoryImage(1 << 20)) as board:
        outcome = run_until(board.machine, lambda: board.screen_shows("Booting from Hard Disk"), LIMIT_S)
        assert outcome.end is End.CONDITION, board.log.decode("latin-1")
        assert board.screen_shows("SeaBIOS (version")
        assert b"PORTVISOR HARDDISK" in board.log
        assert b"Timeout" not in board.log
        assert not board.machine.failures


def test_seabios_finds_an_iso_drive_without_a_medium_to_boot(engine: System) -> None:
    bios, vga = stock_bios()
    log = bytearray()
    options = PcOptions(
        memory=64 * MIB, firmware=bios, vga_bios=vga, cdrom=MemoryImage(64 * 2048), on_debug=log.extend
    )
    with Pc(engine, options) as machine:
        run_until(machine, lambda: b"DVD/CD" in log and b"Booting from DVD/CD" in log, LIMIT_S)
    assert b"ATAPI" in log or b"DVD/CD" in log, log.decode("latin-1")


def check_grub(engine: System) -> None:
    """The menu comes up on screen and serial port; keys on both move the selection."""
    with Board(engine, MemoryImage(grub_image())) as board:
        machine = board.machine

        def selected() -> str:
            rows = [line for line in machine.screen.text() if line.lstrip("\u2502| ").startswith("*")]
            return rows[0].strip("\u2502|* ") if rows else ""

        assert run_until(machine, lambda: bool(selected()), LIMIT_S).end is End.CONDITION
        first = selected()
        assert board.serial_shows("GNU GRUB")
        machine.keyboard.tap("down")
        assert run_until(machine, lambda: selected() not in ("", first), LIMIT_S).end is End.CONDITION
        second = selected()
        board.serial.type(b"\x1b[B")
        assert run_until(machine, lambda: selected() not in ("", second), LIMIT_S).end is End.CONDITION
        assert not machine.failures


def test_grub_shows_its_menu_and_keys_move_the_selection() -> None:
    system = open_engine("software")
    try:
        check_grub(system)
    finally:
        system.close()


@pytest.mark.slow
@pytest.mark.kvm
def test_grub_does_the_same_on_kvm() -> None:
    """Half a minute where KVM emulates instructions: GRUB unpacks itself."""
    require_kvm()
    system = open_engine("kvm")
    try:
        check_grub(system)
    finally:
        system.close()


def table_of(text: str) -> str:
    """portprobe's table without the rows that tell time."""
    return VARYING.sub("", text.replace("\r", ""))


@pytest.fixture(scope="module")
def tables() -> dict[str, str]:
    return {}


@pytest.mark.parametrize("firmware", [False, True], ids=["raw", "bios"])
def test_portprobe_prints_the_same_table_on_every_engine(
    engine: System, firmware: bool, tables: dict[str, str]
) -> None:
    probe = load_program("portprobe")
    serial = BufferedChar()
    disk = MemoryImage(probe.ljust(1 << 20, b"\0"))
    bios, vga = stock_bios() if firmware else (b"", b"")
    options = PcOptions(
        firmware=bios,
        vga_bios=vga,
        disks=[disk],
        serial=(serial, None),
        program=None if firmware else Program(probe, 0x7C00, "portprobe"),
    )
    with Pc(engine, options) as machine:
        outcome = machine.run(LIMIT_S)
        assert outcome.status == PORTPROBE_STATUS, outcome
        assert not machine.failures
    text = bytes(serial.sent).decode("latin-1")
    assert "PORTVISOR HARDDISK" in text
    assert "8086:1237" in text.replace(" ", ":") or "8086" in text
    key = "bios" if firmware else "raw"
    tables.setdefault(key, table_of(text))
    assert table_of(text) == tables[key]
