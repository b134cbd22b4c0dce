"""100,000 random port accesses: nothing raises, on a fresh board and on one that firmware has set up."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from machines.boot_support import run_until, stock_bios
from portvisor.backends.image import MemoryImage
from portvisor.kvm.api import System
from portvisor.kvm.null import NullSystem
from portvisor.kvm.select import open_engine
from portvisor.machines.catalogue import MACHINES, make_bare
from portvisor.machines.machine import Machine
from portvisor.machines.pc import MIB, Pc, PcOptions
from portvisor.ports import ACCESS_SIZES

ACCESSES = 100_000
SEED = 0x0DDBA11
BLOCK = 64


def owned_ports(machine: Machine) -> list[int]:
    """Ports that somebody answers, at present."""
    return sorted({port for owned, _ in machine.ports.ranges() for port in range(owned.base, owned.last + 1)})


def storm(machine: Machine, seed: int) -> None:
    """Half of the accesses go to owned ports, half anywhere; some are strings. The map may move under them."""
    chance = random.Random(seed)
    space = machine.ports
    ports = owned_ports(machine)
    for index in range(ACCESSES):
        if index % 5000 == 0:
            ports = owned_ports(machine) or [0]
        port = chance.choice(ports) if chance.random() < 0.5 else chance.randrange(0x10000)
        size = chance.choice(ACCESS_SIZES)
        kind = chance.random()
        if kind < 0.45:
            assert 0 <= space.read(port, size) < 1 << 8 * size
        elif kind < 0.95:
            space.write(port, size, chance.choice((0, 0xFFFFFFFF, chance.getrandbits(32))))
        elif kind < 0.975:
            assert len(space.read_block(port, size, BLOCK)) == size * BLOCK
        else:
            space.write_block(port, size, chance.randbytes(size * BLOCK))


def check(machine: Machine) -> None:
    sizes = [len(region.view) for region in machine.ram.regions]
    storm(machine, SEED)
    assert machine.failures == []
    assert [len(region.view) for region in machine.ram.regions] == sizes
    machine.reset()
    assert machine.failures == []


@pytest.mark.parametrize("name", MACHINES)
def test_a_fresh_board_survives(name: str) -> None:
    with make_bare(name, NullSystem()) as machine:
        check(machine)


@pytest.mark.guest
@pytest.mark.parametrize("make", [NullSystem, lambda: open_engine("software")], ids=["null", "software"])
def test_a_board_that_firmware_has_set_up_survives(make: Callable[[], System]) -> None:
    bios, vga = stock_bios()
    system = make()
    options = PcOptions(memory=32 * MIB, firmware=bios, vga_bios=vga, disks=[MemoryImage(MIB)], base_time=0)
    with Pc(system, options) as machine:
        if system.name == "software":
            run_until(machine, lambda: any("Booting from" in line for line in machine.screen.text()), 60)
        check(machine)
    system.close()
