"""Recordings for tests: of a port space alone, and of a SeaBIOS boot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from machines.boot_support import run_until, stock_bios
from portvisor.backends.image import MemoryImage
from portvisor.kvm.api import System
from portvisor.machines.pc import Pc, PcOptions
from portvisor.ports import BufferedChar, PortSpace
from portvisor.trace.clock import RecordingVirtualClock, RecordingWallClock
from portvisor.trace.filters import TraceFilter
from portvisor.trace.recorder import Recorder
from portvisor.trace.recording import Recording
from portvisor.trace.schema import Metadata

TICKS_NS = 400_000_000
"""Several ticks of the 18.2 Hz timer; a boot alone can be over before the first."""
LIMIT_S = 60.0
BASE_TIME = 1_700_000_000.0
Row = dict[str, Any]


class Sink:
    """Device timers of a space without a machine."""

    def timer_fired(self, name: str, fire: Callable[[], None]) -> None:
        fire()


class SpaceRecording:
    """A recorder on a port space, its records in memory."""

    def __init__(self, space: PortSpace, wanted: TraceFilter | None = None) -> None:
        self.batches: list[pa.RecordBatch] = []
        self.clock = RecordingVirtualClock()
        schema = Metadata().schema()
        self.recorder = Recorder(self.clock.core, space, self.batches.append, schema, wanted or TraceFilter())
        self.recorder.attach()
        self.clock.begin(Sink())

    def rows(self) -> list[Row]:
        """What was recorded so far."""
        self.recorder.flush()
        return [row for batch in self.batches for row in batch.to_pylist()]


@contextmanager
def recorded_pc(engine: System, path: Path, options: PcOptions) -> Iterator[Pc]:
    """A PC under observation on the host's clock."""
    with Pc(engine, options, RecordingWallClock()) as machine:
        recording = Recording(machine, path)
        try:
            yield machine
        finally:
            recording.close()


def record_seabios(engine: System, path: Path) -> None:
    """SeaBIOS up to the boot sector of an empty disk, and on until the timer has interrupted it a few times.

    A serial byte and a key come on the way.
    """
    bios, vga = stock_bios()
    serial = BufferedChar()
    options = PcOptions(firmware=bios, vga_bios=vga, disks=[MemoryImage(1 << 20)], serial=(serial, None))
    with recorded_pc(engine, path, options) as machine:
        serial.type(b"ok")
        machine.keyboard.tap("a")
        wanted = "Boot failed"  # behind the look at the disk

        def done() -> bool:
            return machine.clock.now() > TICKS_NS and any(wanted in line for line in machine.screen.text())

        run_until(machine, done, LIMIT_S)
        assert any(wanted in line for line in machine.screen.text())
