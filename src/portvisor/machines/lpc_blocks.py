"""The blocks of an LPC bridge that its base registers move: PM, TCO, GPIO, chipset configuration registers."""

from __future__ import annotations

from portvisor.devices.acpi_pm import AcpiPm
from portvisor.devices.pch_gpio import PchGpio
from portvisor.devices.rcba import LENGTH as RCBA_LENGTH
from portvisor.devices.rcba import Rcba
from portvisor.devices.tco import Tco
from portvisor.machines.machine import Machine
from portvisor.ports import Device, PortConflictError
from portvisor.ports.memory import MmioConflictError, MmioWindow

TCO_OFFSET = 0x60
"""Of the TCO registers in the PM block."""


class LpcBlocks:
    """Puts the blocks where the bridge says; what a guest puts onto something else is not decoded."""

    def __init__(self, machine: Machine, pm: AcpiPm, tco: Tco, rcba: Rcba, gpio: PchGpio | None = None) -> None:
        self._machine = machine
        self._pm, self._tco, self._rcba, self._gpio = pm, tco, rcba, gpio
        self._window: MmioWindow | None = None

    def move_pm(self, base: int | None) -> None:
        """PMBASE has changed; None: not decoded."""
        ports = self._machine.ports
        try:
            with ports.transaction():
                ports.remap(self._pm, AcpiPm.ranges(base))
                ports.remap(self._tco, Tco.ranges(None if base is None else base + TCO_OFFSET))
        except PortConflictError as error:
            self._undecode(error, self._pm, self._tco)

    def move_gpio(self, base: int | None) -> None:
        """GPIOBASE has changed; None: not decoded."""
        if self._gpio is None:
            return
        try:
            self._machine.ports.remap(self._gpio, self._gpio.ranges(base))
        except PortConflictError as error:
            self._undecode(error, self._gpio)

    def _undecode(self, error: PortConflictError, *devices: Device) -> None:
        """A guest has put a block onto another device's ports: no data sheet says what happens then."""
        self._machine.say(f"chipset block not decoded: {error}")
        with self._machine.ports.transaction():
            for device in devices:
                self._machine.ports.remap(device, ())

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
