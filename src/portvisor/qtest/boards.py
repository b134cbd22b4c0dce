"""The machines behind the server: boards on the null engine, without the extras that QEMU's have not."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from uuid import UUID

from portvisor.devices.floppy import FloppyController, FloppyDrive
from portvisor.devices.fw_cfg import Key
from portvisor.devices.i8259 import PicPair
from portvisor.devices.ide.channel import PRIMARY, SECONDARY, IdeChannel
from portvisor.devices.ide.drive import Drive
from portvisor.kvm.api import System
from portvisor.kvm.null import NullSystem, NullVm
from portvisor.machines.floppy import attach_floppy
from portvisor.machines.machine import Machine
from portvisor.machines.outcome import Outcome
from portvisor.machines.pc import Pc, PcOptions
from portvisor.machines.pc_like import PcLike
from portvisor.machines.q35 import Q35, Q35Options
from portvisor.ports import Clock, Device, VirtualClock
from portvisor.qtest.options import Options

VGA_DRIVER = "isa-vga"
EXTRAS = ("debugcon", "port-e9", "debug-exit", "ide0", "ide1", "floppy")
"""Devices of `Pc` that QEMU's pc has only with -device, and those that get other drives."""


class Requests(Machine):
    """Keeps what devices ask for until the server has answered the command."""

    reset_request: str | None = None
    """Why a device wants a reset."""
    stop_request: Outcome | None = None
    watchdog_pending: bool = False

    def request_reset(self, reason: str) -> None:
        self.reset_request = reason

    def request_stop(self, outcome: Outcome) -> None:
        self.stop_request = self.stop_request or outcome

    def watchdog_fired(self) -> None:
        """A watchdog has expired: what follows is a setting of the server."""
        self.watchdog_pending = True


class BareBoard(Requests):
    """Machine `none`: no memory, no devices."""

    name = "none"

    def __init__(self, system: System, clock: Clock) -> None:
        super().__init__(system, mmap.PAGESIZE, clock)


class PcBoard(Requests, Pc):
    """Machine `pc`."""


class Q35Board(Requests, Q35):
    """Machine `q35`."""

    def watchdog_expired(self) -> None:
        self.watchdog_fired()


class Board:
    """A machine, its clock and its parts by the types that the server needs."""

    def __init__(
        self,
        options: Options,
        ide: Sequence[Drive | None],
        sata: Sequence[Drive | None],
        floppies: Sequence[FloppyDrive | None] | None,
    ) -> None:
        """Build the machine that the options name; `ide` has four places, `sata` six.

        Without `floppies` there is no controller for them.

        Raises:
            GuestFileError: the memory size does not fit the board.
        """
        self.clock = VirtualClock()
        self.machine = self._make(options, ide, sata)
        self.floppy: FloppyController | None = None
        if floppies is not None and isinstance(self.machine, PcLike):
            self.floppy = attach_floppy(self.machine, floppies, as_qemu=True)
        assert isinstance(self.machine.vm, NullVm)
        self.vm = self.machine.vm

    def _make(self, options: Options, ide: Sequence[Drive | None], sata: Sequence[Drive | None]) -> Requests:
        system = NullSystem()
        serial = (None,) if options.defaults and not options.serial else ()
        if options.machine == "none":
            return BareBoard(system, self.clock)
        if options.machine == "q35":
            settings = Q35Options(options.memory, serial, sata, options.boot, options.base_time)
            q35 = Q35Board(system, settings, self.clock)
            q35.fw_cfg.add_item(Key.UUID, UUID(options.uuid).bytes)
            self._fit_vga(q35, options)
            return q35
        pc = PcBoard(
            system,
            PcOptions(options.memory, serial=serial, boot=options.boot, base_time=options.base_time),
            self.clock,
        )
        for device in [device for device in pc.devices if device.name in EXTRAS]:
            _remove(pc, device)
        irq = pc.chips.irq
        channels: list[IdeChannel] = []
        for address, master, slave in ((PRIMARY, ide[0], ide[1]), (SECONDARY, ide[2], ide[3])):
            channels.append(pc.attach(IdeChannel(irq(address.irq), master, slave, address)))
        pc.ide = (channels[0], channels[1])
        pc.fw_cfg.add_item(Key.UUID, UUID(options.uuid).bytes)
        self._fit_vga(pc, options)
        return pc

    @staticmethod
    def _fit_vga(machine: PcLike, options: Options) -> None:
        """Both boards are built with the adapter; QEMU's have it with -device isa-vga here."""
        if not any(device.get("driver") == VGA_DRIVER for device in options.devices):
            _without_vga(machine)

    @property
    def pc(self) -> PcLike | None:
        """The machine, if it has the chips of a PC."""
        return self.machine if isinstance(self.machine, PcLike) else None

    @property
    def pic(self) -> PicPair | None:
        """Its interrupt controllers."""
        return self.pc.chips.pic if self.pc else None


def _remove(machine: Machine, device: Device) -> None:
    machine.ports.detach(device)
    machine.devices.remove(device)


def _without_vga(machine: PcLike) -> None:
    vga = machine.screen
    _remove(machine, vga)
    for window in [window for window in machine.mmio.windows if window.handler is vga]:
        machine.mmio.detach(window)
