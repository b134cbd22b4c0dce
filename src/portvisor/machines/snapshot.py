"""A whole machine at one moment: CPU, memory, devices, clock. Software engine only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from portvisor.kvm.api import EngineError
from portvisor.machines.machine import Machine
from portvisor.ports import Snapshot


@runtime_checkable
class SavableVcpu(Protocol):
    """A vCPU whose whole state can be taken out and put back."""

    def save_state(self) -> bytes:
        """All registers."""
        ...

    def restore_state(self, state: bytes) -> None:
        """Put them back."""
        ...


@dataclass(frozen=True, slots=True)
class MachineSnapshot:
    """What `take` found; belongs to a machine with the same devices and memory."""

    cpu: bytes
    memory: tuple[bytes, ...]
    devices: tuple[Snapshot, ...]
    now: int
    identity: object = field(default_factory=object, compare=False)
    """Tells it from every other one."""


def _savable(machine: Machine) -> SavableVcpu:
    vcpu = machine.vcpu
    if not isinstance(vcpu, SavableVcpu):
        raise EngineError(f"engine {machine.system.name} cannot save a vCPU; --engine software can")
    return vcpu


def take(machine: Machine) -> MachineSnapshot:
    """Copy a machine that is not running. What is on its disks is not part of it.

    Raises:
        EngineError: the engine cannot save its vCPU.
    """
    vcpu = _savable(machine)
    taken = MachineSnapshot(
        cpu=vcpu.save_state(),
        memory=tuple(bytes(region.view) for region in machine.ram.regions),
        devices=tuple(device.snapshot() for device in machine.devices),
        now=machine.clock.now(),
    )
    if machine.snapshot_tap is not None:
        machine.snapshot_tap.taken(taken.identity)
    return taken


def restore(machine: Machine, snapshot: MachineSnapshot) -> None:
    """Put a snapshot of this machine, or of one built alike, back.

    Raises:
        EngineError: the engine cannot restore its vCPU, or the memory differs in size.
        SnapshotError: the devices differ.
    """
    vcpu = _savable(machine)
    regions = machine.ram.regions
    if [len(region.view) for region in regions] != [len(content) for content in snapshot.memory]:
        raise EngineError("the snapshot is of a machine with other memory")
    machine.clock.rewind(snapshot.now)
    for region, content in zip(regions, snapshot.memory, strict=True):
        region.view[:] = content
        machine.vm.memory_written(region.base, region.end)
    if machine.snapshot_tap is not None:
        machine.snapshot_tap.restore(snapshot.identity, lambda: restore_devices(machine, snapshot.devices))
    else:
        restore_devices(machine, snapshot.devices)
    machine.powered_off = None
    vcpu.restore_state(snapshot.cpu)
    machine.vcpu.interrupt_changed()


def restore_devices(machine: Machine, saved: Sequence[Snapshot]) -> None:
    """Put the devices' part of a snapshot back.

    Raises:
        SnapshotError: the devices differ.
    """
    for device, snapshot in zip(machine.devices, saved, strict=True):
        device.restore(snapshot)
