"""The other commands: what they print, their exit status, and one clear line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.support import run_cli
from guest_programs import load

SEED = (Path(__file__).parent.parent / "data" / "seed-ioports.txt").read_text()


def write_guest(folder: Path, name: str) -> str:
    path = folder / f"{name}.bin"
    path.write_bytes(load(name))
    return str(path)


def test_run_shows_the_guests_serial_output_and_gives_its_status(tmp_path: Path) -> None:
    result = run_cli("run", write_guest(tmp_path, "hello"), "--at", "7c00", "--engine", "software")
    assert result.status == 0x21
    assert result.output
    assert result.errors == "portvisor: guest left through the exit port with status 33\n"


def test_run_knows_the_built_in_guest() -> None:
    result = run_cli("run", "portprobe", "--at", "7c00", "--engine", "software")
    assert result.status == 0x21
    assert "8086" in result.output


def test_until_ends_a_run_that_would_not_end(tmp_path: Path) -> None:
    code = bytes.fromhex("baf803b041eeb042eeebfe")
    path = tmp_path / "ab.bin"
    path.write_bytes(code)
    result = run_cli("run", str(path), "--at", "7c00", "--engine", "software", "--until", "AB", "--timeout", "60")
    assert (result.status, result.output) == (0, "AB")


def test_a_screenshot_is_written_whole(tmp_path: Path) -> None:
    for name in ("screen.png", "screen.txt"):
        picture = tmp_path / name
        result = run_cli("run", "portprobe", "--at", "7c00", "--engine", "software", "--screenshot", str(picture))
        assert result.status == 0x21
        assert picture.stat().st_size > 0
    assert (tmp_path / "screen.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("guest", "message"),
    [
        ("clihlt", "halted with interrupts off"),
        ("triplefault", "triple fault"),
        ("spin", "time limit reached"),
    ],
)
def test_guests_that_get_stuck_end_with_one_clear_line_and_status_1(
    tmp_path: Path, guest: str, message: str
) -> None:
    path = write_guest(tmp_path, guest)
    result = run_cli("run", path, "--at", "7c00", "--engine", "software", "--no-reboot", "--timeout", "2")
    assert result.status == 1
    assert result.errors.splitlines()[0].startswith(f"portvisor: {message}")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "/nowhere.bin", "--at", "7c00"), "program /nowhere.bin: No such file or directory"),
        (("run", "--at", "7c00"), "--at needs a FILE"),
        (("run", "/nowhere.img"), "image /nowhere.img"),
        (("run", "portprobe", "--at", "9fff0"), "portprobe: 4096 bytes at 0x9fff0 leave"),
        (("run", "portprobe", "--at", "7c00", "--memory", "1M"), "2M to 3072M"),
        (("run", "portprobe", "--at", "7c00", "--serial", "tape"), "serial port 'tape': possible are stdio"),
        (("run", "portprobe", "--at", "7c00", "--when", "X=nokey"), "no key is called 'nokey'"),
        (("run", "portprobe", "--at", "7c00", "--screenshot", "a.gif"), "must end in .png or .txt"),
        (("run", "--bios", "/nowhere", "--vgabios", "/nowhere"), "firmware /nowhere"),
        (("ioports", "/nowhere"), "No such file or directory: /nowhere"),
        (("boot", "--kernel", "/nowhere", "--initrd", "/nowhere"), "kernel /nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(arguments: tuple[str, ...], message: str) -> None:
    result = run_cli(*arguments)
    assert result.status == 1, result.errors
    assert result.errors.startswith("portvisor: ")
    assert result.errors.count("\n") == 1
    assert message in result.errors


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "x", "--engine", "steam"), "'steam' is not one of"),
        (("boot", "--machine", "mainframe"), "'mainframe' is not one of"),
        (("boot", "--variant", "odd"), "'odd' is not one of"),
        (("run", "x", "--memory", "lots"), "'lots' is no size"),
        (("run", "x", "--at", "zz"), "'zz' is no hexadecimal number"),
        (("run", "x", "--when", "nothing"), "write TEXT=KEYS"),
        (("ioports",), "give one of FILE, --machine and --host"),
        (("fly",), "No such command 'fly'"),
    ],
)
def test_wrong_usage_is_status_2(arguments: tuple[str, ...], message: str) -> None:
    result = run_cli(*arguments)
    assert result.status == 2
    assert message in result.errors
    assert "Traceback" not in result.errors


def test_a_disk_smaller_than_a_sector_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tiny.img"
    path.write_bytes(b"x")
    result = run_cli("run", str(path))
    assert result.status == 1
    assert "tiny.img" in result.errors
    assert result.errors.count("\n") == 1


def test_a_kernel_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(b"hello" * 1000)
    result = run_cli("boot", "--kernel", str(path), "--initrd", str(path))
    assert result.status == 1
    assert result.errors.splitlines()[-1].startswith(f"portvisor: {path}: not a Linux kernel")


def test_ioports_prints_a_file_unchanged_and_the_map_of_a_machine() -> None:
    path = Path(__file__).parent.parent / "data" / "seed-ioports.txt"
    assert run_cli("ioports", str(path)).output == SEED
    printed = run_cli("ioports", "--machine", "pc").output
    assert "0020-0021 : pic1\n" in printed
    assert "03f8-03ff : serial\n" in printed


def test_ioports_diff_scores_and_has_a_status(tmp_path: Path) -> None:
    path = tmp_path / "listing"
    path.write_text(SEED)
    same = run_cli("ioports", str(path), "--diff", "seed")
    assert (same.status, same.output.splitlines()[-1]) == (0, "64 of 64 rows exact, 0 too many")
    path.write_text(SEED.replace("rtc0", "clock"))
    other = run_cli("ioports", str(path), "--diff", "seed")
    assert (other.status, other.output.splitlines()[-1]) == (1, "63 of 64 rows exact, 0 too many")


def test_ioports_refuses_a_malformed_line_with_its_number(tmp_path: Path) -> None:
    path = tmp_path / "listing"
    path.write_text("0000-001f : dma1\n0020-00zz : pic1\n")
    result = run_cli("ioports", str(path))
    assert result.status == 1
    assert f"{path}:2:" in result.errors


def test_engines_says_what_auto_takes() -> None:
    result = run_cli("engines")
    assert result.status == 0
    assert "auto takes:" in result.output


def test_an_unwritable_debug_file_is_one_line() -> None:
    result = run_cli("run", "portprobe", "--at", "7c00", "--debug", "/proc/nowhere")
    assert result.status == 1
    assert result.errors.count("\n") == 1


QEMU_MAP = """\
FlatView #0
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-000000000000001f (prio 0, i/o): io
  0000000000000020-0000000000000021 (prio 0, i/o): pic
  0000000000000022-0000000000000cf8 (prio 0, i/o): io @0000000000000022
  0000000000000cf9-0000000000000cf9 (prio 1, i/o): lpc-reset-control
  0000000000000cfa-000000000000ffff (prio 0, i/o): io @0000000000000cfa
"""


def test_ioports_qemu_shows_both_maps_and_has_a_status(tmp_path: Path) -> None:
    path = tmp_path / "mtree"
    path.write_text(QEMU_MAP)
    result = run_cli("ioports", "--qemu", str(path))
    assert result.status == 1
    rows = [line.split() for line in result.output.splitlines()]
    assert ["=", "0020-0021", "pic", "pic1"] in rows
    assert ["+", "0040-0043", "-", "timer0", "unexplained"] in rows
    assert rows[-1][1:4] == ["portvisor-system-x86_64", "-machine", "q35"]


def test_ioports_qemu_refuses_what_it_cannot_compare(tmp_path: Path) -> None:
    path = tmp_path / "mtree"
    path.write_text(QEMU_MAP.replace("(prio 0, i/o): pic", "pic"))
    result = run_cli("ioports", "--qemu", str(path))
    assert result.status == 1
    assert f"{path}:5: " in result.errors
    assert "expected" in result.errors
    path.write_text(QEMU_MAP.replace("lpc-reset-control", "piix9-reset-control"))
    result = run_cli("ioports", "--qemu", str(path))
    assert result.status == 2
    assert "--machine" in result.errors


def test_ioports_prints_the_map_of_q35() -> None:
    assert "00f0-00f0 : fpu\n" in run_cli("ioports", "--machine", "q35").output
