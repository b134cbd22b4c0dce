"""QEMU's port map against ours: the parser of `info mtree -f`, the comparison, and both boards themselves."""

from __future__ import annotations

from contextlib import suppress
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portvisor.ports.ioports import Resource, new_tree
from portvisor.qtest.counterpart import arguments, board_name, port_map
from portvisor.qtest.mtree import MtreeError, Region, parse_mtree
from portvisor.qtest.port_map import KNOWN, Stretch, compare
from qtest.qemu_reference import stopped_qemu

VIEW = """\
FlatView #0
 AS "memory", root: system
 Root memory region: system
  0000000000000000-00000000000bffff (prio 0, ram): pc.ram

FlatView #1
 AS "I/O", root: io
 Root memory region: io
  0000000000000000-000000000000001f (prio 0, i/o): io
  0000000000000020-0000000000000021 (prio 0, i/o): pic
  0000000000000022-0000000000000070 (prio 0, i/o): io @0000000000000022
  0000000000000071-0000000000000071 (prio 1, i/o): rtc @0000000000000001
  0000000000000072-000000000000ffff (prio 0, i/o): io @0000000000000072

(qemu) quit
"""


# --- the parser -----------------------------------------------------------------------------------------


def test_the_io_space_is_found_and_what_nobody_owns_left_out() -> None:
    assert parse_mtree(VIEW) == (Region(0x20, 0x21, "pic"), Region(0x71, 0x71, "rtc"))
    assert parse_mtree(VIEW.replace("\n", "\r\n")) == parse_mtree(VIEW)


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        (' AS "I/O", root: io\n', "", 14, "expected is the output of `info mtree -f`"),
        ("0000000000000021 (prio", "00000000000000zz (prio", 10, "is not a row; expected is"),
        ("000000000000ffff (prio", "000000000001ffff (prio", 13, "both at most 0xffff"),
        ("0000000000000022-", "0000000000000024-", 11, "starts at 0x0024, expected 0x0022"),
        ("0000000000000022-", "0000000000000021-", 11, "starts at 0x0021, expected 0x0022"),
        (
            "0000000000000072-000000000000ffff (prio 0, i/o): io @0000000000000072",
            "",
            12,
            "expected are rows up to",
        ),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(old: str, new: str, line: int, words: str) -> None:
    with pytest.raises(MtreeError) as caught:
        parse_mtree(VIEW.replace(old, new), "saved.txt")
    assert str(caught.value).startswith(f"saved.txt:{line}: ")
    assert words in str(caught.value)


@given(st.text() | st.lists(st.sampled_from(VIEW.splitlines(keepends=True))).map("".join))
def test_rubbish_raises_nothing_else(text: str) -> None:
    with suppress(MtreeError):
        parse_mtree(text)


# --- the comparison -------------------------------------------------------------------------------------


def tree(*rows: tuple[int, int, str]) -> Resource:
    root = new_tree()
    for row in rows:
        root.insert(Resource(*row))
    return root


def test_stretches_have_one_owner_on_each_side() -> None:
    regions = (Region(0x40, 0x43, "pit"), Region(0x70, 0x71, "rtc"))
    stretches = compare(regions, tree((0x40, 0x41, "timer0"), (0x70, 0x71, "parallel"), (0xFFFF, 0xFFFF, "end")))
    assert stretches == [
        Stretch(0x40, 0x41, "pit", "timer0"),
        Stretch(0x42, 0x43, "pit", ""),
        Stretch(0x70, 0x71, "rtc", "parallel"),
        Stretch(0xFFFF, 0xFFFF, "", "end"),
    ]
    assert [stretch.same for stretch in stretches] == [True, False, False, False]
    assert [stretch.reason for stretch in stretches] == [None] * 4


def test_the_inner_row_owns_its_ports() -> None:
    rows = tree((0xCF8, 0xCFF, "PCI conf1"), (0xCF9, 0xCF9, "reset control"))
    regions = (
        Region(0xCF8, 0xCF8, "pci-conf-idx"),
        Region(0xCF9, 0xCF9, "lpc-reset-control"),
        Region(0xCFA, 0xCFF, "pci-conf-data"),
    )
    assert all(stretch.same for stretch in compare(regions, rows))


def test_a_known_difference_is_known_at_its_ports_only() -> None:
    assert Stretch(0x5658, 0x5658, "vmport", "").reason
    assert Stretch(0x5658, 0x5659, "vmport", "").reason is None
    assert Stretch(0x5658, 0x5658, "vmport", "fpu").reason is None


# --- QEMU itself ----------------------------------------------------------------------------------------

DEVICES = (
    *("-device", "isa-vga", "-device", "pvpanic", "-device", "ib700"),
    *("-device", "isa-debug-exit,iobase=0xf4,iosize=4"),
    *("-chardev", "null,id=a", "-device", "isa-debugcon,iobase=0xe9,chardev=a"),
    *("-chardev", "null,id=b", "-device", "isa-serial,index=1,chardev=b"),
    *("-chardev", "null,id=c", "-device", "isa-parallel,chardev=c"),
    *("-device", "ipmi-bmc-sim,id=bmc0", "-device", "isa-ipmi-kcs,bmc=bmc0"),
)


@cache
def qemu_map(machine: str, *devices: str) -> tuple[Region, ...]:
    with stopped_qemu("-machine", machine, "-nodefaults", "-m", "16", *devices) as qemu:
        return parse_mtree(qemu.qmp("human-monitor-command", **{"command-line": "info mtree -f"}))


def comparison(machine: str, *devices: str) -> list[Stretch]:
    regions = qemu_map(machine, *devices)
    return compare(regions, port_map(arguments(machine, regions)))


@pytest.mark.qemu
@pytest.mark.parametrize("devices", [(), DEVICES], ids=["bare", "devices"])
@pytest.mark.parametrize("machine", ["pc", "q35"])
def test_the_boards_differ_from_qemus_where_they_are_meant_to(machine: str, devices: tuple[str, ...]) -> None:
    assert board_name(qemu_map(machine, *devices)) == machine
    stretches = comparison(machine, *devices)
    assert sum(stretch.ports for stretch in stretches if stretch.same) > 80
    unexplained = [str(stretch) for stretch in stretches if not stretch.same and stretch.reason is None]
    assert unexplained == []


@pytest.mark.qemu
def test_no_known_difference_is_out_of_date() -> None:
    seen = [*comparison("pc", *DEVICES), *comparison("q35", *DEVICES)]
    assert [known for known in KNOWN if not any(known.covers(stretch) for stretch in seen)] == []


@pytest.mark.qemu
def test_devices_are_at_the_ports_that_qemu_gives_them() -> None:
    owners = {stretch.start: stretch for stretch in comparison("pc", *DEVICES) if stretch.same}
    assert {owners[port].ours for port in (0xE9, 0xF4, 0x2F8, 0x505, 0xCA2)} == {
        "debugcon", "debug-exit", "serial", "pvpanic", "ipmi kcs"
    }  # fmt: skip
