"""F0, B2/B3 and CF9 against the PCH data sheet."""

from __future__ import annotations

import pytest

from portvisor.devices.apm import Apm
from portvisor.devices.fpu_error import FpuError
from portvisor.devices.reset_control import ResetControl
from portvisor.ports import Device, IrqLine, PortSpace
from portvisor.testing import DeviceSuite


def space_of(device: Device) -> PortSpace:
    space = PortSpace()
    space.attach(device)
    return space


class TestFpuErrorSuite(DeviceSuite):
    def make(self) -> FpuError:
        return FpuError(IrqLine())


class TestApmSuite(DeviceSuite):
    def make(self) -> Apm:
        return Apm()


class TestResetControlSuite(DeviceSuite):
    def make(self) -> ResetControl:
        return ResetControl(lambda kind: None)


@pytest.mark.parametrize("port", [0xF0, 0xF1])
def test_a_write_to_the_latch_clears_irq_13(port: int) -> None:
    line = IrqLine()
    fpu = FpuError(line)
    space = space_of(fpu)
    fpu.latch()
    space.write(0xF2, 1, 0)
    assert line.level == 1
    space.write(port, 1, 0)
    assert line.level == 0


def test_fpu_holes_belong_to_nobody() -> None:
    space = space_of(FpuError(IrqLine(), holes=range(0xF4, 0xF8)))
    assert [space.owner(port) is None for port in (0xF3, 0xF4, 0xF7, 0xF8)] == [False, True, True, False]


def test_apm_control_is_told_and_both_registers_hold() -> None:
    commands: list[int] = []
    space = space_of(Apm(commands.append))
    space.write(0xB3, 1, 0x55)
    space.write(0xB2, 1, 2)
    assert commands == [2]
    assert space.read(0xB2, 2) == 0x5502


def test_the_piix3_has_no_full_reset() -> None:
    """PIIX3, RCR: bits 7:3 are reserved."""
    kinds: list[str] = []
    space = space_of(ResetControl(kinds.append, full_reset=False))
    space.write(0xCF9, 1, 0x0A)
    assert space.read(0xCF9, 1) == 0x02
    space.write(0xCF9, 1, 0x0E)
    assert kinds == ["system"]


def test_rst_cpu_needs_a_rising_edge_and_names_the_kind() -> None:
    kinds: list[str] = []
    space = space_of(ResetControl(kinds.append))
    for value in (0x02, 0x06, 0x06, 0x02, 0x04, 0x00, 0x0E):
        space.write(0xCF9, 1, value)
    assert kinds == ["system", "CPU", "power cycle"]
    assert space.read(0xCF9, 1) == 0x0E
