"""A paused machine in a file: everything that was there comes back, and damage is noticed."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from portvisor.guest.errors import GuestFileError
from portvisor.kvm.abi import Regs, Segment
from portvisor.kvm.null import NullSystem
from portvisor.kvm.select import open_engine
from portvisor.machines import paused
from portvisor.machines.catalogue import make_bare
from portvisor.machines.pc import MIB, Pc, PcOptions, Program


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("paused") / "machine"
    system = open_engine("software")
    options = PcOptions(memory=2 * MIB, program=Program(b"\xf4", 0x7C00), base_time=0)
    with Pc(system, options) as machine:
        machine.ram.write(0x12345, b"here")
        machine.vcpu.set_regs(Regs(rax=1 << 63, rip=0x1234, rflags=0x3002))
        sregs = machine.vcpu.get_sregs()
        sregs.tr = Segment(0x2000, 0x67, 0x28, 0xB, s=0)
        machine.vcpu.set_sregs(sregs)
        paused.save(machine, path)
    system.close()
    return path


def test_registers_and_memory_come_back(saved: Path) -> None:
    found = paused.load(saved)
    assert found.machine == "pc"
    assert (found.regs.rax, found.regs.rip, found.regs.rflags) == (1 << 63, 0x1234, 0x3002)
    assert (found.sregs.tr.base, found.sregs.tr.limit, found.sregs.tr.selector) == (0x2000, 0x67, 0x28)
    assert found.sregs.interrupt_bitmap == bytes(32)
    low = found.memory[0]
    assert low[0x12345:0x12349] == b"here"
    assert sum(map(len, found.memory.values())) <= 2 * MIB
    assert not list(saved.parent.glob("*.part"))


def test_the_port_map_is_that_of_the_machine(saved: Path) -> None:
    ports = paused.load(saved).ports
    with make_bare("pc", NullSystem()) as board:
        for access in ((0x60, 1, False), (0x1F0, 2, True), (0xCF8, 4, True), (0x1234, 1, False), (0x61, 4, False)):
            assert ports.get(paused.access_key(*access)) == paused.describe_owner(board.ports, *access)
    assert ports["in 1f0/2"] == "ide0 (01f0-01f7 : ide0), register Data"


@pytest.mark.parametrize("damage", ["no archive", "no state", "no json", "fields", "format", "missing", "cut"])
def test_a_damaged_file_is_one_clear_line(saved: Path, tmp_path: Path, damage: str) -> None:
    path = tmp_path / "damaged"
    state = json.loads(zipfile.ZipFile(saved).read(paused.STATE))
    if damage == "no archive":
        path.write_bytes(b"PK")
    elif damage == "cut":
        path.write_bytes(saved.read_bytes()[:-100])
    elif damage != "missing":
        with zipfile.ZipFile(path, "w") as archive:
            if damage == "format":
                archive.writestr(paused.STATE, json.dumps({**state, "format": 99}))
            elif damage == "fields":
                archive.writestr(paused.STATE, json.dumps({**state, "regs": {"eax": 1}}))
            else:
                archive.writestr("other" if damage == "no state" else paused.STATE, "{")
    with pytest.raises(GuestFileError) as caught:
        paused.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with make_bare("pc", NullSystem()) as board, pytest.raises(GuestFileError, match="No such file or directory"):
        paused.save(board, tmp_path / "no" / "file")
