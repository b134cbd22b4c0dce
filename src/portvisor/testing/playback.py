"""A board without a CPU that a test plays recorded traffic to: what `portvisor replay --pytest` writes tests for.

    board = Playback("pc")
    board.write(1_000, 0x43, 1, 0x34)
    board.write(2_000, 0x40, 1, 0x00)
    assert board.read(9_000, 0x40, 1) == 0xF8

Times are nanoseconds of the board's clock, which stands still during an access. Timers expire when the test says
so. What an access caused (interrupt edges, transfers to and from memory and images, requests for a reset) must be
asked for with `effects` before the next one, or that fails.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from portvisor.machines.pc_like import PcLike
from portvisor.ports import Device
from portvisor.trace.effects import FAILED, MEMORY, READ
from portvisor.trace.replay import Replay
from portvisor.trace.schema import Metadata


class Playback:
    """One of the machines pc, poweredge and q35.

    Args:
        machine: its name.
        options: as a trace's description has them; none are needed.
        strict: whether effects must be asked for.

    Raises:
        TraceError: the machine cannot be built.
    """

    def __init__(self, machine: str, options: Mapping[str, Any] | None = None, *, strict: bool = True) -> None:
        self._replay = Replay(Metadata(machine=machine, options=dict(options or {})))
        self.machine: PcLike = self._replay.machine
        self._strict = strict
        self._open: list[str] = []

    def device(self, name: str) -> Device:
        """A device of the board."""
        return next(device for device in self.machine.devices if device.name == name)

    def restore(self, name: str, state: object) -> None:
        """Put a device into a state."""
        device = self.device(name)
        device.state = state
        device.restored()
        self._replay.take_effects()

    # --- what devices find outside ----------------------------------------------------------------------

    def memory(self, address: int, data: bytes) -> None:
        """What the device reads from guest memory during the next event."""
        self._replay.provide("dma", MEMORY, address, READ, data)

    def image(self, drive: str, sector: int, data: bytes) -> None:
        """What a drive reads from its image during the next event."""
        self._replay.provide("disk", drive, sector, READ, data)

    def image_fails(self, drive: str, sector: int, what: str) -> None:
        """That the host cannot read, write or flush an image."""
        self._replay.provide("disk", drive, sector, what + FAILED, b"")

    # --- events -------------------------------------------------------------------------------------------

    def _do(self, time: int, action: Callable[[], Any]) -> Any:
        if self._strict:
            assert not self._open, f"not expected: {', '.join(self._open)}"
        self._replay.clock.rewind(time)
        result = action()
        self._open = self._replay.take_effects()
        return result

    def effects(self) -> list[str]:
        """What the last event caused, in order."""
        seen, self._open = self._open, []
        return seen

    def read(self, time: int, port: int, size: int) -> int:
        """IN."""
        value: int = self._do(time, lambda: self.machine.ports.read(port, size))
        return value

    def write(self, time: int, port: int, size: int, value: int) -> None:
        """OUT."""
        self._do(time, lambda: self.machine.ports.write(port, size, value))

    def read_block(self, time: int, port: int, size: int, count: int) -> bytes:
        """REP INS."""
        data: bytes = self._do(time, lambda: self.machine.ports.read_block(port, size, count))
        return data

    def write_block(self, time: int, port: int, size: int, data: bytes) -> None:
        """REP OUTS."""
        self._do(time, lambda: self.machine.ports.write_block(port, size, data))

    def mmio_read(self, time: int, address: int, size: int) -> int:
        """A read of a memory-mapped register."""
        value: int = self._do(time, lambda: self.machine.mmio.read(address, size))
        return value

    def mmio_write(self, time: int, address: int, size: int, value: int) -> None:
        """A write to a memory-mapped register."""
        self._do(time, lambda: self.machine.mmio.write(address, size, value))

    def expire(self, time: int, name: str) -> None:
        """A device's timer expires."""

        def fire() -> None:
            timer = self._replay.clock.due(name)
            assert timer is not None, f"timer {name} is not due at {time} ns"
            self._replay.clock.fire(timer)

        self._do(time, fire)

    def acknowledge(self, time: int) -> int:
        """An interrupt acknowledge cycle; the vector."""
        vector: int = self._do(time, self.machine.chips.pic.acknowledge)
        return vector

    def wire(self, time: int, number: int, level: int) -> None:
        """Another device drives an input of the interrupt controllers."""
        self._do(time, lambda: self.machine.chips.pic.input(number).set(level))
        self._open = []

    def host(self, time: int, device: str, call: str, *arguments: Any, **named: Any) -> None:
        """The host does something to a device: types, presses a key, moves the mouse."""
        self._do(time, lambda: self._replay.host_call(device, call)(*arguments, **named))

    def reset(self, time: int) -> None:
        """RESET# of the board."""
        self._do(time, self._replay.reset)
