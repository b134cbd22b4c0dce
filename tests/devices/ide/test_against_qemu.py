"""The same commands to our channel and to QEMU's, through its qtest port: same outcome, same data, same disk.

QEMU runs no guest here; it answers port accesses. Left out is what the two are known to differ in:
* strings and speeds of the identify data; the address registers after a command (QEMU leaves the next
  sector's address, drives leave the last one's);
* which bit a missing sector is reported with, how much of a transfer past the end is done, CHS addresses
  beyond the translation (QEMU takes them), READ VERIFY and SEEK (QEMU looks at nothing);
* the lead-out's control bits, the session of READ TOC format 1, where the next session would start;
* replies of odd length (QEMU never ends them);
* unit attentions (QEMU has none for power-on and for a tray that was open).
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest

from devices.ide.ata_host import COUNT, DEVICE, STATUS, AtaDriver, AtaHost, Result
from portvisor.backends.image import CD_SECTOR_SIZE, FileImage, MemoryImage
from portvisor.devices.ide import AtaDisk, AtapiCd
from portvisor.devices.ide.registers import BSY
from portvisor.qtest.client import QtestClient
from qtest.qemu_reference import stopped_qemu

SECTORS = 2200
CHS_SECTORS = 2 * 16 * 63
BLOCKS = 300
TIMEOUT = 30.0
RANDOM_COMMANDS = 120
LETTERS = {1: "b", 2: "w", 4: "l"}

pytestmark = pytest.mark.qemu


class QtestPorts:
    """Port accesses over QEMU's qtest protocol, many lines a round trip."""

    def __init__(self, machine: QtestClient) -> None:
        self._ask_all = machine.ask_all

    def read(self, port: int, size: int) -> int:
        return int.from_bytes(self.read_block(port, size, 1), "little")

    def write(self, port: int, size: int, value: int) -> None:
        self.write_block(port, size, value.to_bytes(size, "little"))

    def read_block(self, port: int, size: int, count: int) -> bytes:
        replies = self._ask_all([f"in{LETTERS[size]} {port:#x}"] * count)
        return b"".join(int(reply, 16).to_bytes(size, "little") for reply in replies)

    def write_block(self, port: int, size: int, data: bytes) -> None:
        steps = range(0, len(data), size)
        values = (int.from_bytes(data[step : step + size], "little") for step in steps)
        self._ask_all(f"out{LETTERS[size]} {port:#x} {value:#x}" for value in values)


class QemuDriver(AtaDriver):
    """QEMU reads its image in the background, so BSY has to be waited for."""

    def get(self, register: int) -> int:
        if register == STATUS:
            deadline = time.monotonic() + TIMEOUT
            while self.alternate_status & BSY:
                assert time.monotonic() < deadline, "QEMU's drive stays busy"
        return super().get(register)


class Pair:
    """Both channels: a disk as master, a CD as slave."""

    def __init__(self, qemu: QemuDriver, ours: AtaHost, medium: MemoryImage) -> None:
        self.qemu = qemu
        self.ours = ours
        self.medium = medium


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("qemu")
    disk, disc = folder / "disk.img", folder / "disc.iso"
    content = random.Random(1).randbytes(SECTORS * 512)
    disk.write_bytes(content)
    disc.write_bytes(random.Random(2).randbytes(BLOCKS * 2048))
    drives = (
        *("-drive", f"file={disk},format=raw,if=none,id=disk,snapshot=on"),
        *("-device", "ide-hd,drive=disk,bus=ide.0,unit=0"),
        *("-drive", f"file={disc},format=raw,if=none,id=disc,media=cdrom"),
        *("-device", "ide-cd,drive=disc,bus=ide.0,unit=1"),
    )
    with stopped_qemu("-machine", "pc", "-nodefaults", *drives) as machine:
        medium = MemoryImage(content)
        cd = AtapiCd(FileImage(disc, sector_size=CD_SECTOR_SIZE))
        yield Pair(QemuDriver(QtestPorts(machine)), AtaHost(AtaDisk(medium), cd), medium)


def outcome(result: Result) -> tuple[bool, bytes]:
    return result.good, result.data if result.good else b""


def without_lead_out_control(cdb: list[int], result: Result) -> tuple[bool, bytes]:
    good, data = outcome(result)
    return good, data.replace(b"\0\x16\xaa\0", b"\0\x14\xaa\0") if cdb[0] == 0x43 else data


def words(driver: AtaDriver, code: int, device: int) -> list[int]:
    driver.put(DEVICE, 0xA0 | device << 4)
    data = driver.data_in(code).data
    return [int.from_bytes(data[index : index + 2], "little") for index in range(0, 512, 2)]


def test_signatures_after_software_reset(pair: Pair) -> None:
    for device in (0xA0, 0xB0):
        seen = []
        for driver in (pair.qemu, pair.ours):
            driver.software_reset()
            driver.put(DEVICE, device)
            seen.append((driver.block(), driver.get(STATUS)))
        assert seen[0] == seen[1]


def test_identify_words_that_guests_take_sizes_from(pair: Pair) -> None:
    qemu, ours = words(pair.qemu, 0xEC, 0), words(pair.ours, 0xEC, 0)
    for index in (1, 3, 6, 47, *range(54, 59), 60, 61, *range(100, 104)):
        assert ours[index] == qemu[index], f"word {index}"
    assert words(pair.ours, 0xA1, 1)[0] == words(pair.qemu, 0xA1, 1)[0]


def test_random_disk_commands(pair: Pair) -> None:
    chance = random.Random(3)
    reads, writes = (0x20, 0x21, 0x24, 0xC4, 0x29), (0x30, 0x31, 0x34, 0xC5, 0x39)
    ext = (0x24, 0x29, 0x34, 0x39)
    for driver in (pair.qemu, pair.ours):
        driver.put(DEVICE, 0xE0)
        driver.put(COUNT, 8)
        assert driver.no_data(0xC6).good
    for step in range(RANDOM_COMMANDS):
        code = chance.choice((*reads, *writes))
        count = chance.choice((1, 2, 7, 8, 9, 30))
        lba = chance.choice((0, 1, 1000, SECTORS - count, SECTORS, chance.randrange(SECTORS)))
        lba = lba if lba + count <= SECTORS else SECTORS
        form = (
            AtaDriver.lba48
            if code in ext
            else chance.choice((AtaDriver.lba28, _chs if lba + count <= CHS_SECTORS else AtaDriver.lba28))
        )
        data = chance.randbytes(count * 512)
        block = 8 if code in (0xC4, 0x29, 0xC5, 0x39) else 1
        results = []
        for driver in (pair.qemu, pair.ours):
            form(driver, lba, count)
            results.append(_run(driver, code, data, block, writes))
        assert results[0] == results[1], (step, hex(code), lba, count, form.__name__)
    _compare_media(pair)


def _chs(driver: AtaDriver, lba: int, count: int) -> None:
    track, sector = divmod(lba, 63)
    driver.chs(track // 16, track % 16, sector + 1, count)


def _run(driver: AtaDriver, code: int, data: bytes, block: int, writes: tuple[int, ...]) -> tuple[bool, bytes]:
    if code in writes:
        return outcome(driver.data_out(code, data, block))
    result = driver.data_in(code, block)
    return result.good, result.data[: len(data)] if result.good else b""


def _compare_media(pair: Pair) -> None:
    for first in range(0, SECTORS, 100):
        pair.qemu.lba28(first, 100)
        assert pair.qemu.data_in(0x20).data == pair.medium.read(first, 100), f"sectors from {first}"


def take_attention(driver: AtaDriver) -> None:
    for _ in range(3):
        if driver.packet([0x00], device=1).good:
            return
    raise AssertionError("the CD does not become ready")


READ_ONLY_PACKETS = [
    [0x00],
    [0x25],
    [0x28, 0, 0, 0, 0, 7, 0, 0, 9],
    [0x28, 0, 0, 0, 0, 0, 0, 0, 0],
    [0x28, 0, 0, 0, 1, 43, 0, 0, 1],
    [0x28, 0, 0, 0, 1, 44, 0, 0, 1],
    [0xA8, 0, 0, 0, 0, 250, 0, 0, 0, 50],
    [0xA8, 0, 0, 0, 0, 250, 0, 0, 0, 51],
    [0xBE, 0, 0, 0, 0, 5, 0, 0, 3, 0x10],
    [0x2B, 0, 0, 0, 0, 9],
    [0x43, 0, 0, 0, 0, 0, 0, 0, 100],
    [0x43, 2, 0, 0, 0, 0, 0, 0, 100],
    [0x43, 0, 0, 0, 0, 0, 0xAA, 0, 100],
    [0x51, 0, 0, 0, 0, 0, 0, 0, 16],
    [0x1E, 0, 0, 0, 1],
    [0x1E, 0, 0, 0, 0],
    [0x5A, 0, 0xFF, 0, 0, 0, 0, 0, 100],
    [0xFE],
]


@pytest.mark.parametrize("limit", [2, 2048, 3000, 0xFFFE, 0xFFFF])
def test_packets(pair: Pair, limit: int) -> None:
    for driver in (pair.qemu, pair.ours):
        take_attention(driver)
    for cdb in READ_ONLY_PACKETS:
        if limit == 2 and cdb[0] in (0x28, 0xA8, 0xBE):
            continue
        qemu, ours = (driver.packet(cdb, limit, device=1) for driver in (pair.qemu, pair.ours))
        assert outcome(ours) == without_lead_out_control(cdb, qemu), bytes(cdb).hex()
        assert ours.error >> 4 == qemu.error >> 4
        codes = [driver.packet([0x03, 0, 0, 0, 18], device=1).data[2:14:10] for driver in (pair.qemu, pair.ours)]
        if not ours.good:
            assert codes[1] == codes[0], bytes(cdb).hex()


def test_tray(pair: Pair) -> None:
    for driver in (pair.qemu, pair.ours):
        take_attention(driver)
    for cdb in ([0x1B, 0, 0, 0, 2], [0x00], [0x1B, 0, 0, 0, 3], None, [0x00]):
        if cdb is None:
            take_attention(pair.ours)
            continue
        qemu, ours = (driver.packet(cdb, device=1) for driver in (pair.qemu, pair.ours))
        assert (ours.good, ours.error >> 4) == (qemu.good, qemu.error >> 4), bytes(cdb).hex()
