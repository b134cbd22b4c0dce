"""`portvisor explain`: steps, the port map, JSON, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.support import run_cli


def test_string_input_is_explained_down_to_the_register() -> None:
    result = run_cli("explain", "rep insw", "--mode", "real", "--reg", "rdx=1f0", "--reg", "rcx=4")
    assert result.status == 0
    text = " ".join(result.output.split())
    assert "rep insw (f3 6d; real mode" in text
    assert "exit 4 x 2 bytes from port 0x1f0" in text
    assert "0x01f0, 2 bytes: ide0 (01f0-01f7 : ide0), register Data" in text
    assert "rdi: 0x2000 -> 0x2008" in text


def test_permission_names_the_tss_byte() -> None:
    result = run_cli("explain", "in al, dx", "--mode", "protected32", "--reg", "rdx=60", "--cpl", "3")
    assert "CPL 3 > IOPL 0: TSS byte 0x74" in " ".join(result.output.split())
    assert "#GP" in result.output


def test_a_port_served_in_the_kernel_does_not_exit() -> None:
    result = run_cli("explain", "in al, dx", "--reg", "rdx=40", "--served", "40")
    assert "KVM_EXIT_IO" not in result.output


def test_json_has_steps_exits_and_port_decode() -> None:
    result = run_cli("explain", "ef", "--reg", "rdx=cf8", "--reg", "rax=80000000", "--json")
    data = json.loads(result.output)
    assert data["exits"] == [{"direction": "out", "size": 4, "port": 0xCF8, "count": 1, "data": "00 00 00 80"}]
    assert data["ports"] == [["0x0cf8, 4 bytes: pci (0cf8-0cfb : PCI conf1), register CONFIG_ADDRESS"]]


def test_a_dword_that_spans_devices_is_shown_in_pieces() -> None:
    result = run_cli("explain", "in eax, dx", "--reg", "rdx=cf9", "--json")
    (pieces,) = json.loads(result.output)["ports"]
    assert len(pieces) == 4
    assert "RST_CNT" in pieces[0]
    assert "nobody" in pieces[1]
    assert "CONFIG_DATA" in pieces[3]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("mov eax, ebx",), "mov"),
        (("90",), "not an I/O instruction"),
        (("f3",), "ends before the opcode"),
        (("in al, dx", "--reg", "rdx"), "register 'rdx': write NAME=HEX"),
        (("in al, dx", "--reg", "foo=1"), "foo"),
        (("in al, dx", "--mode", "real", "--cpl", "3"), "real"),
    ],
)
def test_bad_input_is_one_line(arguments: tuple[str, ...], message: str) -> None:
    result = run_cli("explain", *arguments)
    assert result.status == 1
    assert result.errors.startswith("portvisor: ")
    assert result.errors.count("\n") == 1
    assert message in result.errors


def test_an_unknown_mode_is_a_usage_error() -> None:
    result = run_cli("explain", "in al, dx", "--mode", "mystery")
    assert result.status == 2
    assert "Invalid value for '--mode'" in result.errors


# --- a paused machine -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A machine whose guest has set DX, CX and DI and waits at a jump; a REP INSW follows it."""
    folder = tmp_path_factory.mktemp("state")
    (folder / "guest.bin").write_bytes(bytes.fromhex("baf001 b90300 bf0090 ebfe f36d"))
    saved = folder / "state.zip"
    arguments = ("--at", "7c00", "--timeout", "0.5", "--serial", "none", "--memory", "2M", "--engine", "software")
    result = run_cli("run", str(folder / "guest.bin"), *arguments, "--save-state", str(saved))
    assert result.errors == "portvisor: time limit reached\n"
    return str(saved)


def test_the_instruction_of_a_paused_machine_is_explained(state: str) -> None:
    result = run_cli("explain", "--state", state, "--reg", "rip=7c0b", "--json")
    data = json.loads(result.output)
    assert (data["instruction"], data["code"], data["mode"], data["machine"]) == ("rep insw", "f3 6d", "real", "pc")
    assert [(request["port"], request["size"], request["count"]) for request in data["exits"]] == [(0x1F0, 2, 3)]
    assert data["registers"]["rdi"] == [0x9000, 0x9006]
    assert data["ports"] == [["0x01f0, 2 bytes: ide0 (01f0-01f7 : ide0), register Data"]]


def test_an_instruction_is_explained_on_a_paused_machine(state: str) -> None:
    text = " ".join(run_cli("explain", "outsb", "--state", state, "--reg", "rsi=7c00").output.split())
    assert "1 x 1 bytes read at linear 0x7c00 (DS)" in text
    assert "0x01f0, 1 bytes: ide0" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "at rIP 0x7c09: not an I/O instruction: opcode eb"),
        (("in al, dx", "--cpl", "3"), "--cpl, --iopl and --open with --state"),
        (("in al, dx", "--machine", "pc"), "--machine and --state"),
        (("in al, dx", "--mode", "long"), "mode 'long' contradicts the registers"),
        (("in al, dx", "--reg", "ecx=1"), "unknown register 'ecx'"),
    ],
)
def test_what_a_paused_machine_cannot_do_is_one_line(state: str, arguments: tuple[str, ...], message: str) -> None:
    result = run_cli("explain", *arguments, "--state", state)
    assert (result.status, result.errors.count("\n")) == (1, 1)
    assert message in result.errors


def test_bad_state_files_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no archive")
    for path, message in (("text", "not a machine that --save-state saved"), ("none", "No such file")):
        result = run_cli("explain", "in al, dx", "--state", str(tmp_path / path))
        assert (result.status, result.errors.count("\n")) == (1, 1)
        assert message in result.errors
    result = run_cli("run", "hello", "--at", "7c00", "--save-state", str(tmp_path / "none" / "file"))
    assert "the directory does not exist" in result.errors


def test_nothing_to_explain() -> None:
    result = run_cli("explain")
    assert result.status == 1
    assert "Give CODE, or a paused machine with --state" in result.errors
