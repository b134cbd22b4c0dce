"""The blocks of an LPC bridge that its base registers move: PM, TCO and the chipset configuration registers."""

from __future__ import annotations

from portvisor.devices.acpi_pm import AcpiPm
from portvisor.devices.rcba import LENGTH as RCBA_LENGTH
from portvisor.devices.rcba import Rcba
from portvisor.devices.tco import Tco
from portvisor.machines.machine import Machine
from portvisor.ports import PortConflictError
from portvisor.ports.memory import MmioConflictError, MmioWindow

TCO_OFFSET = 0x60
"""Of the TCO registers in the PM block."""


class LpcBlocks:
    """Puts the blocks where the bridge says; what a guest puts onto something else is not decoded."""

    def __init__(self, machine: Machine, pm: AcpiPm, tco: Tco, rcba: Rcba) -> None:
        self._machine = machine
        self._pm, self._tco, self._rcba = pm, tco, rcba
        self._window: MmioWindow | None = None

    def move_pm(self, base: int | None) -> None:
        """PMBASE has changed; None: not decoded."""
        ports = self._machine.ports
        try:
            with ports.transaction():
                ports.remap(self._pm, AcpiPm.ranges(base))
                ports.remap(self._tco, Tco.ranges(None if base is None else base + TCO_OFFSET))
        except PortConflictError as error:
            self._machine.say(f"chipset block not decoded: {error}")
            with ports.transaction():
                ports.remap(self._pm, ())
                ports.remap(self._tco, ())

    def move_rcba(self, base: int | None) -> None:
        """RCBA has changed; None: not decoded."""
        mmio = self._machine.mmio
        if self._window is not None:
            mmio.detach(self._window)
            self._window = None
        if base is None:
            return
        try:
            self._window = mmio.attach(base, RCBA_LENGTH, self._rcba, "rcba")
        except MmioConflictError as error:
            self._machine.say(f"chipset block not decoded: {error}")
