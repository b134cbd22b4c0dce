"""`portvisor explain`: steps, the port map, JSON, and what it refuses."""

from __future__ import annotations

import json

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
