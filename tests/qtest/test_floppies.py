"""Floppy drives on the server's command line, in QEMU's notation."""

from __future__ import annotations

from pathlib import Path

import pytest

from portvisor.qtest.client import QmpFailureError, QtestClient
from portvisor.qtest.devices import Builder
from portvisor.qtest.options import OptionError, parse

SIZE = 1440 * 1024


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    path = tmp_path / "a.img"
    path.write_bytes(b"first sector".ljust(SIZE, b"\0"))
    return path


def cmos(*arguments: str) -> tuple[int, int]:
    """Drive types and equipment that a command line leads to."""
    builder = Builder(parse(arguments), lambda events: None)
    try:
        board = builder.build()
        assert board.pc
        content = board.pc.chips.rtc.cmos
        return content[0x10], content[0x14]
    finally:
        builder.close()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("-nodefaults", (0x00, 0x06)),
        ("", (0x50, 0x07)),
        ("-nodefaults -fda DISK", (0x40, 0x07)),
        ("-nodefaults -fdb DISK", (0x04, 0x07)),
        ("-nodefaults -drive if=floppy,file=DISK,format=raw", (0x40, 0x07)),
        ("-nodefaults -drive if=none,id=a,file=DISK -device floppy,drive=a,unit=1", (0x04, 0x07)),
        ("-nodefaults -device floppy -device floppy,drive-type=144", (0x54, 0x47)),
        ("-M q35 -nodefaults", (0x00, 0x06)),
        ("-M q35 -device isa-fdc,id=f -device floppy,drive-type=120", (0x20, 0x07)),
        ("-M q35 -drive if=floppy,file=DISK", (0x40, 0x07)),
    ],
)
def test_drives(disk: Path, arguments: str, expected: tuple[int, int]) -> None:
    assert cmos(*arguments.replace("DISK", str(disk)).split()) == expected


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ("-M q35 -device floppy", "No 'floppy-bus' bus found"),
        ("-M none -fda DISK", "machine 'none' has no floppy drives"),
        ("-device isa-fdc", "cannot have one more floppy controller"),
        ("-device floppy,unit=2", "'unit' cannot be '2'"),
        ("-device floppy -device floppy -device floppy", "unit 0 is in use"),
        ("-fda DISK -device floppy,unit=0", "unit 0 is in use"),
        ("-device floppy,drive=b", "drive 'b' not found"),
        ("-device floppy,drive-type=360", "'drive-type' cannot be '360'"),
        ("-device floppy,write-cache=on", "Property 'write-cache' not found"),
        ("-M q35 -device isa-fdc,dma=1", "Property 'dma' not found"),
        ("-drive if=none,id=a,file=DISK -device floppy,drive=a,drive-type=120", "does not fit a MB_1_2 drive"),
    ],
)
def test_refused_by_name(disk: Path, arguments: str, problem: str) -> None:
    with pytest.raises(OptionError, match=problem):
        cmos(*arguments.replace("DISK", str(disk)).split())


def test_an_image_of_another_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.img"
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(OptionError, match="1048576 bytes are no floppy disk"):
        cmos("-fda", str(path))


def test_a_client_writes_a_sector_of_the_file(disk: Path) -> None:
    with QtestClient(("-machine", "pc", "-nodefaults", "-m", "16", "-fda", str(disk))) as machine:
        machine.intercept_irqs()
        for port, value in ((0xD6, 0xC0), (0xD4, 0), (0xB, 0x4A), (4, 0), (4, 0x10), (5, 0xFF), (5, 1), (0xA, 2)):
            machine.outb(port, value)
        machine.memset(0x1000, 512, 0xA5)
        machine.outb(0x3F7, 0)
        for value in (0x45, 0, 0, 0, 2, 2, 18, 0x1B, 0xFF):
            machine.outb(0x3F5, value)
        assert machine.take_edges() == [(6, 1)]
        assert [machine.inb(0x3F5) for _ in range(7)] == [0, 0, 0, 0, 0, 3, 2]
    assert disk.read_bytes() == b"first sector".ljust(512, b"\0") + b"\xa5" * 512 + bytes(SIZE - 1024)


EMPTY = ("-machine", "pc", "-device", "floppy,id=floppy0")


def seek(machine: QtestClient, cylinder: int) -> None:
    """As a client does that finds the controller enabled after RESET."""
    for value in (0x0F, 0, cylinder):
        assert machine.inb(0x3F4) & 0xC0 == 0x80
        machine.outb(0x3F5, value)
    assert machine.irq[6] == 1
    machine.outb(0x3F5, 8)
    assert [machine.inb(0x3F5), machine.inb(0x3F5)] == [0x20, cylinder]
    assert machine.irq[6] == 0


def changed(machine: QtestClient) -> bool:
    return bool(machine.inb(0x3F7) & 0x80)


def result(machine: QtestClient, *command: int) -> list[int]:
    """A command's result; the interrupt stays until its last byte."""
    for value in command:
        machine.outb(0x3F5, value)
    bytes_read = []
    while machine.inb(0x3F4) & 0xC0 == 0xC0:
        assert machine.irq[6] == 1
        bytes_read.append(machine.inb(0x3F5))
    assert machine.irq[6] == 0
    return bytes_read


def test_media_come_and_go_by_qmp(disk: Path) -> None:
    with QtestClient(EMPTY) as machine:
        machine.intercept_irqs()
        seek(machine, 1)
        assert changed(machine)
        assert result(machine, 0xE6, 0, 0, 0, 1, 2, 1, 0x1B, 0xFF)[:2] == [0x40, 0x01]
        machine.qmp("blockdev-change-medium", id="floppy0", filename=str(disk), format="raw")
        seek(machine, 1)
        assert changed(machine)  # no step
        seek(machine, 0)
        assert not changed(machine)
        assert result(machine, 0x0A, 0) == [0, 0, 0, 0, 0, 1, 2]
        machine.qmp("blockdev-change-medium", id="floppy0", filename=str(disk))  # the same file again
        machine.qmp("eject", id="floppy0")
        seek(machine, 5)
        assert changed(machine)
        assert result(machine, 0x4A, 0)[:2] == [0x40, 0x01]


def test_media_that_cannot_be_had(disk: Path, tmp_path: Path) -> None:
    with QtestClient(("-machine", "pc", "-fda", str(disk))) as machine:
        for arguments, problem in (
            ({"id": "floppy1", "filename": str(disk)}, "Device 'floppy1' not found"),
            ({"device": "floppy0", "id": "floppy0", "filename": str(disk)}, "exactly one of"),
            ({"device": "floppy0"}, "'filename' is missing"),
            ({"device": "floppy0", "filename": str(tmp_path / "none")}, "No such file"),
            ({"device": "floppy0", "filename": str(disk), "format": "qcow2"}, "'format' does not accept"),
            ({"device": "floppy0", "filename": str(disk), "speed": 1}, "'speed' is unexpected"),
        ):
            with pytest.raises(QmpFailureError, match=problem):
                machine.qmp("blockdev-change-medium", **arguments)
        machine.qmp(
            "blockdev-change-medium", device="floppy0", filename=str(disk), **{"read-only-mode": "read-only"}
        )
        machine.outb(0x3F5, 4)
        machine.outb(0x3F5, 0)
        assert machine.inb(0x3F5) == 0x78  # write-protected
