"""The convention of QEMU's isa-debug-exit."""

from __future__ import annotations

import pytest

from portvisor.devices.debug_exit import DebugExit
from portvisor.ports import PortSpace
from portvisor.testing import DeviceSuite


class TestSuite(DeviceSuite):
    def make(self) -> DebugExit:
        return DebugExit(lambda status: None)


@pytest.mark.parametrize(("value", "status"), [(0, 1), (1, 3), (0x10, 0x21), (0xFFFFFFFF, 0x1FFFFFFFF)])
def test_status_is_twice_the_value_plus_one(value: int, status: int) -> None:
    stops: list[int] = []
    space = PortSpace(strict=True)
    space.attach(DebugExit(stops.append))
    space.write(0xF4, 4, value)
    assert stops == [status]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_a_write_of_any_size_is_one_exit(size: int) -> None:
    stops: list[int] = []
    space = PortSpace(strict=True)
    space.attach(DebugExit(stops.append, base=0x501, length=4))
    space.write(0x501, size, 5)
    assert stops == [11]


def test_reads_do_not_exit() -> None:
    stops: list[int] = []
    space = PortSpace(strict=True)
    space.attach(DebugExit(stops.append))
    assert space.read(0xF4, 1) == 0
    assert stops == []
