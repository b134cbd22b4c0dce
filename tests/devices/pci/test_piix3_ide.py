"""PIIX3 IDE function: what firmware looks for and programs."""

from __future__ import annotations

from portvisor.devices.pci.host import PciHost
from portvisor.devices.pci.piix3_ide import Piix3Ide
from portvisor.ports import MmioSpace, PortSpace
from portvisor.testing import DeviceSuite


def attached() -> tuple[Piix3Ide, PortSpace]:
    space = PortSpace()
    host = PciHost(space, MmioSpace())
    space.attach(host)
    function = Piix3Ide()
    host.add_root(0).attach(function, 1, 1)
    return function, space


class TestPiix3IdeSuite(DeviceSuite):
    def make(self) -> Piix3Ide:
        return attached()[0]


def test_identity_and_class_are_those_of_an_ide_controller_without_bus_master() -> None:
    _, space = attached()
    space.write(0xCF8, 4, 0x80000900)
    assert space.read(0xCFC, 4) == 0x70108086
    space.write(0xCF8, 4, 0x80000908)
    assert space.read(0xCFC, 4) >> 8 == 0x010100


def test_timing_registers_hold_and_bar_4_is_absent() -> None:
    _, space = attached()
    space.write(0xCF8, 4, 0x80000940)
    space.write(0xCFC, 4, 0x80008000)
    assert space.read(0xCFC, 4) == 0x80008000
    space.write(0xCF8, 4, 0x80000920)
    space.write(0xCFC, 4, 0xFFFFFFFF)
    assert space.read(0xCFC, 4) == 0
