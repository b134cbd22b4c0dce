"""Which device model is behind a row of a guest's /proc/ioports."""

from __future__ import annotations

from collections.abc import Callable

from portvisor.machines.machine import Machine
from portvisor.ports import ACCESS_SIZES
from portvisor.ports.ioports import Row

WINDOW = "PCI Bus "


def owner_of_row(machine: Machine) -> Callable[[Row], str]:
    """A function from a row to the name of the device at its first port, "" for a bus window."""

    def find(row: Row) -> str:
        if row.name.startswith(WINDOW):
            return "" if row.level == 0 else "bridge window"
        for port in range(row.start, row.end + 1):
            for size in ACCESS_SIZES:
                owner = machine.ports.owner(port, size)
                if owner:
                    return owner.device.name
        return ""

    return find
