"""The contract every device model keeps: integers, offsets, no thread, no wall clock, no global."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from portvisor.ports.range import PortRange


@dataclass
class NoState:
    """State of a device that keeps none."""


class SnapshotError(ValueError):
    """A snapshot of another device class or state version."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A device's state at one moment; owns its data."""

    device: str
    version: int
    state: Any


class Device:
    """Base of every device on the port space.

    A subclass declares `ports`, keeps all that changes in the dataclass `State` (as `self.state`) and
    implements `read` and `write`. Offsets are `PortRange.offset` plus the distance from the range's base.
    A handler never raises for anything a guest does.
    """

    name: str = ""
    """Instance name in messages and traces; defaults to the class name in lower case."""
    ports: Sequence[PortRange] = ()
    """Ranges at attach time; `PortSpace.remap` replaces them."""
    REGISTERS: ClassVar[Mapping[int, str]] = {}
    """Data-sheet names by offset, for traces and `explain`; override `register_name` where one is not enough."""
    STATE_VERSION: ClassVar[int] = 1
    State: ClassVar[type[Any]] = NoState
    state: Any

    def __init__(self) -> None:
        if not self.name:
            self.name = type(self).__name__.lower()
        self.state = self.State()

    def reset(self) -> None:
        """What RESET# does. The default puts a fresh `State` in place."""
        self.state = self.State()

    def read(self, offset: int, size: int) -> int:
        """Value of a read of `size` bytes (1, 2 or 4); bits above the size are dropped by the bus."""
        return (1 << 8 * size) - 1

    def write(self, offset: int, size: int, value: int) -> None:
        """A write of `size` bytes; `value` is already cut to the size."""

    def read_block(self, offset: int, size: int, count: int) -> bytes:
        """`count` reads of one port, little endian: what REP INS asks for. Override to serve it at once."""
        return b"".join(
            (self.read(offset, size) & ((1 << 8 * size) - 1)).to_bytes(size, "little") for _ in range(count)
        )

    def write_block(self, offset: int, size: int, data: bytes) -> None:
        """`len(data) // size` writes to one port: what REP OUTS asks for."""
        for start in range(0, len(data), size):
            self.write(offset, size, int.from_bytes(data[start : start + size], "little"))

    def register_name(self, offset: int, size: int, write: bool) -> str:
        """Name of the register that an access reaches, as the data sheet has it; "" if unknown."""
        return self.REGISTERS.get(offset, "")

    def snapshot(self) -> Snapshot:
        """An exact copy of the state."""
        return Snapshot(type(self).__name__, self.STATE_VERSION, copy.deepcopy(self.state))

    def restore(self, snapshot: Snapshot) -> None:
        """Put a snapshot back, then let `restored` re-arm timers and lines.

        Raises:
            SnapshotError: the snapshot is of another class or version.
        """
        if snapshot.device != type(self).__name__ or snapshot.version != self.STATE_VERSION:
            raise SnapshotError(
                f"{self.name}: snapshot is of {snapshot.device} version {snapshot.version}, "
                f"need {type(self).__name__} version {self.STATE_VERSION}"
            )
        self.state = copy.deepcopy(snapshot.state)
        self.restored()

    def restored(self) -> None:
        """Called after `restore`: bring timers, interrupt lines and port maps in line with the state."""
