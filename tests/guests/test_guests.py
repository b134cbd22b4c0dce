"""The guest programs: built from their sources, and doing under QEMU what they say."""

from __future__ import annotations

import importlib.util
import re
import shutil
from pathlib import Path
from types import ModuleType

import pytest

import guest_programs
from portvisor.guest import programs
from qemu_guest import STATUS_BAD, STATUS_GOOD, Qemu, disk_arguments, needs_qemu, rom_arguments, run_qemu

PROJECT = Path(__file__).parents[2]
PC_TESTDEV_PORT = 0xE0
"""Where QEMU's pc-testdev has four scratch bytes."""


def build_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_guests", PROJECT / "tools" / "build_guests.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


SOURCES: list[Path] = build_script().sources()
IMAGES = {source.stem: source.with_suffix(".bin").read_bytes() for source in SOURCES}


class TestImages:
    @pytest.mark.skipif(not all(map(shutil.which, ("as", "ld", "objcopy"))), reason="needs binutils")
    @pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
    def test_the_bytes_are_what_the_source_gives(self, source: Path) -> None:
        assert build_script().assemble(source) == IMAGES[source.stem]

    def test_every_image_has_a_source(self) -> None:
        assert set(guest_programs.NAMES) | set(programs.NAMES) == set(IMAGES)

    @pytest.mark.parametrize("name", sorted(set(IMAGES) - {"romload"}))
    def test_every_image_is_a_boot_sector_of_whole_sectors(self, name: str) -> None:
        image = IMAGES[name]
        assert image[510:512] == b"\x55\xaa"
        assert len(image) % 512 == 0
        assert len(image) <= 8192

    def test_parameter(self) -> None:
        image = guest_programs.load("stringio")
        assert image[0x20:0x22] == b"\xf0\x02"
        changed = guest_programs.with_parameter(image, 0x1234)
        assert changed[0x20:0x22] == b"\x34\x12"
        assert changed[:0x20] + changed[0x22:] == image[:0x20] + image[0x22:]


def in_rom(name: str, directory: Path) -> list[str]:
    return rom_arguments(guest_programs.rom_image(guest_programs.load(name)), directory)


@pytest.mark.qemu
@needs_qemu
class TestUnderQemu:
    def test_hello(self, tmp_path: Path) -> None:
        console = tmp_path / "e9"
        image = guest_programs.load("hello")
        text, status = run_qemu([*disk_arguments(image, tmp_path), "-debugcon", f"file:{console}"], tmp_path)
        assert text.endswith("hello from port 3F8 and port E9\n")
        assert console.read_text() == "hello from port 3F8 and port E9\n"
        assert status == STATUS_GOOD

    @pytest.mark.parametrize("firmware", [True, False])
    def test_irq(self, tmp_path: Path, firmware: bool) -> None:
        options = disk_arguments(guest_programs.load("irq"), tmp_path) if firmware else in_rom("irq", tmp_path)
        text, status = run_qemu(options, tmp_path)
        assert text.endswith("irq: 100 timer interrupts\n")
        assert status == STATUS_GOOD

    @pytest.mark.parametrize("firmware", [True, False])
    def test_kbd(self, tmp_path: Path, firmware: bool) -> None:
        options = disk_arguments(guest_programs.load("kbd"), tmp_path) if firmware else in_rom("kbd", tmp_path)
        with Qemu(options, tmp_path) as machine:
            machine.expect("kbd: ready")
            machine.press("a")
            machine.expect("scan code 1E")
            machine.expect("scan code 9E")
            machine.press("up")
            for code in ("E0", "48", "E0", "C8"):
                machine.expect(f"scan code {code}")
            machine.press("esc")
            machine.expect("scan code 01")
            assert machine.finish() == STATUS_GOOD

    def test_stringio(self, tmp_path: Path) -> None:
        image = guest_programs.with_parameter(guest_programs.load("stringio"), PC_TESTDEV_PORT)
        options = rom_arguments(guest_programs.rom_image(image), tmp_path)
        text, status = run_qemu([*options, "-device", "pc-testdev"], tmp_path)
        assert text.count("ok   ") == 22
        assert text.endswith("stringio: 22 good, 0 bad\n")
        assert status == STATUS_GOOD

    def test_stringio_sees_ports_that_keep_nothing(self, tmp_path: Path) -> None:
        text, status = run_qemu(in_rom("stringio", tmp_path), tmp_path)
        assert "BAD  REP INSB\n" in text
        assert status == STATUS_BAD

    def test_ring3(self, tmp_path: Path) -> None:
        """All but LOCK with IN, which the architecture refuses and QEMU's translator does not."""
        text, _ = run_qemu(in_rom("ring3", tmp_path), tmp_path)
        bad = re.findall(r"^BAD  (.*)$", text, re.MULTILINE)
        assert all("LOCK" in name for name in bad), bad
        assert len(re.findall(r"^ok   ", text, re.MULTILINE)) == 33 - len(bad)

    def test_triplefault(self, tmp_path: Path) -> None:
        text, status = run_qemu([*in_rom("triplefault", tmp_path), "-no-reboot"], tmp_path)
        assert text == "triplefault: going down\n"
        assert status == 0

    @pytest.mark.parametrize("firmware", [True, False])
    def test_reset(self, tmp_path: Path, firmware: bool) -> None:
        options = disk_arguments(guest_programs.load("reset"), tmp_path) if firmware else in_rom("reset", tmp_path)
        text, status = run_qemu(options, tmp_path)
        assert re.findall(r"reset: .*", text) == [
            "reset: start 01, now by port 92",
            "reset: start 02, now by the keyboard controller",
            "reset: start 03, now by port CF9",
            "reset: start 04, now by a triple fault",
            "reset: start 05, done",
        ]
        assert status == STATUS_GOOD

    def test_warm(self, tmp_path: Path) -> None:
        """SeaBIOS resumes only where its copy in RAM outlives the reset, which depends on QEMU's version."""
        text, status = run_qemu(disk_arguments(guest_programs.load("warm"), tmp_path), tmp_path)
        first, last = re.findall(r"warm: (.*)", text)
        assert first == "reset with shutdown byte 0A"
        assert (last, status) in [("resumed", STATUS_GOOD), ("the firmware started over", STATUS_BAD)]

    def test_apm(self, tmp_path: Path) -> None:
        text, status = run_qemu(disk_arguments(guest_programs.load("apm"), tmp_path), tmp_path)
        assert text.endswith("apm: version 0102\napm: switching off\n")
        assert status == 0

    def test_apm_without_a_bios(self, tmp_path: Path) -> None:
        assert run_qemu(in_rom("apm", tmp_path), tmp_path) == ("apm: no APM BIOS\n", STATUS_BAD)

    @pytest.mark.parametrize("name", ["clihlt", "spin"])
    def test_a_guest_that_stops_for_good(self, tmp_path: Path, name: str) -> None:
        with (
            Qemu(in_rom(name, tmp_path), tmp_path) as machine,
            pytest.raises(AssertionError, match=r"did not come; the guest printed:\n$"),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr("qemu_guest.TIMEOUT", 2)
            machine.expect("anything")


VARYING = re.compile(r"^(PIT counter 0|CMOS date|CMOS time) .*$", re.MULTILINE)


def table(text: str) -> list[str]:
    """portprobe's rows without the clocks, from its first line on."""
    rows = VARYING.sub("", text[text.index("portvisor portprobe") :]).splitlines()
    return [row for row in rows if row]


@pytest.mark.qemu
@needs_qemu
class TestPortprobe:
    IMAGE = programs.load("portprobe")

    def test_as_a_boot_disk(self, tmp_path: Path) -> None:
        options = [*disk_arguments(self.IMAGE, tmp_path), "-rtc", "base=2021-03-04T15:06:07,clock=vm"]
        text, status = run_qemu(options, tmp_path)
        rows = table(text)
        assert rows[0] == "portvisor portprobe, entered from a BIOS, drive 80"
        for row in (
            "0020-0021            interrupt controller 1       answers",
            "0050-0053            interval timer, alias        floating",
            "0070-0071            CMOS and clock               1 of 2 answer",
            "0061                 system control B             answers",
            "0402                 debug console 402            floating",
            "0CFC-0CFF            PCI configuration data       answers",
            "IDE primary master   QEMU HARDDISK, 2048 sectors",
            "PCI 00:00.0          8086:1237 class 060000",
            "PCI 00:01.1          8086:7010 class 010180",
        ):
            assert row in rows
        assert rows[-1] == "done"
        assert "CMOS date            2021-03-04\n" in text
        assert re.search(r"^CMOS time            15:06:\d\d$", text, re.MULTILINE)
        assert re.search(r"^PIT counter 0        [0-9A-F]{4}$", text, re.MULTILINE)
        assert status == STATUS_GOOD

    def test_as_a_floppy_disk(self, tmp_path: Path) -> None:
        text, status = run_qemu(disk_arguments(self.IMAGE, tmp_path, "floppy"), tmp_path)
        assert table(text)[0] == "portvisor portprobe, entered from a BIOS, drive 00"
        assert "IDE primary master   none" in table(text)
        assert status == STATUS_GOOD

    def test_as_a_flat_binary(self, tmp_path: Path) -> None:
        text, status = run_qemu(rom_arguments(guest_programs.rom_image(self.IMAGE), tmp_path), tmp_path)
        assert table(text)[0] == "portvisor portprobe, entered from a loader, no BIOS"
        assert table(text)[-1] == "done"
        assert status == STATUS_GOOD

    def test_as_a_rom_the_table_is_the_same(self, tmp_path: Path) -> None:
        flat, _ = run_qemu(rom_arguments(guest_programs.rom_image(self.IMAGE), tmp_path), tmp_path)
        rom = b"\xff" * (guest_programs.ROM_SIZE - len(self.IMAGE)) + self.IMAGE
        text, status = run_qemu(rom_arguments(rom, tmp_path), tmp_path)
        assert table(text)[0] == "portvisor portprobe, entered from the reset vector"
        assert table(text)[1:] == table(flat)[1:]
        assert status == STATUS_GOOD

    def test_the_screen_shows_the_end_of_the_table(self, tmp_path: Path) -> None:
        """The text is in VGA memory as on COM1; 25 rows of it end with the last."""
        image = bytearray(self.IMAGE)
        exits = bytes([0xB0, programs.EXIT_GOOD, 0xE6, programs.EXIT_PORT])
        assert image.count(exits) == 1
        at = image.index(exits)
        image[at : at + 4] = b"\x90" * 4  # stay, so that the screen can be looked at
        options = disk_arguments(bytes(image), tmp_path)
        with Qemu(options, tmp_path) as machine:
            machine.expect("done\r\n")
            rows = table(machine.text)
            cells = machine.memory(0xB8000, 0x8000)
        shown = [cells[start : start + 160 : 2].decode("latin-1").rstrip(" \0") for start in range(0, 0x7F80, 160)]
        assert shown[0] == rows[0]
        assert shown[shown.index("done") - 1] == rows[-2]
        assert set(rows) <= set(shown)

    def test_an_atapi_drive(self, tmp_path: Path) -> None:
        medium = tmp_path / "medium.iso"
        medium.write_bytes(bytes(1 << 20))
        drive = ["-drive", f"file={medium},format=raw,if=ide,index=0,media=cdrom"]
        rom = guest_programs.rom_image(self.IMAGE)
        text, _ = run_qemu([*rom_arguments(rom, tmp_path), *drive], tmp_path)
        assert "IDE primary master   QEMU DVD-ROM, packet device" in table(text)

    def test_a_machine_without_pci(self, tmp_path: Path) -> None:
        options = rom_arguments(guest_programs.rom_image(self.IMAGE), tmp_path)
        text, status = run_qemu([*options, "-machine", "isapc", "-vga", "std"], tmp_path)
        assert "PCI                  no configuration mechanism 1" in table(text)
        assert status == STATUS_GOOD

    def test_in_a_partition_it_loads_the_rest_from_there(self, tmp_path: Path) -> None:
        """A boot sector elsewhere than sector 0 knows where it is from its hidden-sectors field."""
        start = 100
        moved = programs.at_sector(self.IMAGE, start)
        assert moved[0x1C:0x20] == b"\x64\x00\x00\x00"
        disk = moved[:512].ljust(start * 512, b"\0") + moved
        text, status = run_qemu(disk_arguments(disk, tmp_path), tmp_path)
        assert table(text)[-1] == "done"
        assert status == STATUS_GOOD

    def test_a_disk_that_ends_too_early(self, tmp_path: Path) -> None:
        disk = programs.at_sector(self.IMAGE, 1 << 20)[:512]
        text, status = run_qemu(disk_arguments(disk, tmp_path), tmp_path)
        assert text.endswith("boot sector: disk read error\n")
        assert status == STATUS_BAD
