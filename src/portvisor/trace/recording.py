"""A machine under observation: the port space, the wires, the clock and all that comes from the host."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from portvisor.kvm.api import InterruptSource
from portvisor.machines.pc_like import PcLike
from portvisor.machines.poweredge import PowerEdge
from portvisor.ports import WallClock
from portvisor.ports.memory import MmioWindow
from portvisor.trace.board import board_options
from portvisor.trace.clock import RecordingVirtualClock, RecordingWallClock
from portvisor.trace.effects import BOARD, watch_image, watch_memory, watch_records, watch_requests
from portvisor.trace.errors import TraceError
from portvisor.trace.filters import TraceFilter
from portvisor.trace.host import encode_call, host_calls, images, is_image, mmio_names, serial_backends
from portvisor.trace.recorder import Recorder
from portvisor.trace.schema import MMIO_DATA, Kind, Metadata
from portvisor.trace.writer import TraceWriter

VIDEO = "vga"
PIC_INPUTS = tuple(irq for irq in range(16) if irq != 2)


class Recording:
    """Records a machine from now on, into a file. The machine must have been built with a recording clock."""

    def __init__(self, machine: PcLike, path: str | Path, wanted: TraceFilter | None = None) -> None:
        """Begin.

        Raises:
            TraceError: the machine's clock cannot be recorded.
            OSError: the file cannot be written.
        """
        clock = machine.clock
        if not isinstance(clock, RecordingWallClock | RecordingVirtualClock):
            raise TraceError("the machine's clock is no recording clock")
        wanted = wanted or TraceFilter()
        metadata = Metadata(
            machine=machine.name,
            engine=machine.system.name,
            clock="wall" if isinstance(clock, WallClock) else "virtual",
            start=clock.now(),
            options=board_options(machine),
            filters=wanted.text,
        )
        self._writer = TraceWriter(path, metadata)
        self.path = self._writer.path
        self._core = clock.core
        self._core.set_cpu(machine.vcpu.rip, machine.vm.route)
        self.recorder = Recorder(clock.core, machine.ports, self._writer.write, self._writer.schema, wanted)
        self._open = True
        self._resetting = False
        self._snapshots: dict[object, int] = {}
        self._watch_wires(machine)
        self._watch_surroundings(machine)
        self._watch_host(machine)
        machine.snapshot_tap = self
        machine.before_reset.insert(0, self._reset_begins)
        machine.after_reset.append(self._reset_done)
        self.recorder.attach()
        clock.begin(self)

    # --- events ---------------------------------------------------------------------------------------

    def timer_fired(self, name: str, fire: Callable[[], None]) -> None:
        """A device's timer expires."""
        if not self._open:
            fire()
            return
        self._core.enter()
        try:
            fire()
        finally:
            self.recorder.finish(Kind.TIMER, name)

    def _reset_begins(self) -> None:
        if self._open:
            self._core.enter()
            self._resetting = True

    def _reset_done(self) -> None:
        if self._open:
            self._resetting = False
            self.recorder.finish(Kind.RESET, BOARD)

    def taken(self, identity: object) -> None:
        """A snapshot of the machine was taken."""
        if self._open:
            number = self._snapshots.setdefault(identity, len(self._snapshots) + 1)
            self.recorder.event(Kind.INPUT, BOARD, name="take", data=encode_call((number,), {}))

    def restore(self, identity: object, restore_devices: Callable[[], None]) -> None:
        """One is put back; number 0 if it was taken before the recording began."""
        if not self._open:
            restore_devices()
            return
        self._core.enter()
        try:
            restore_devices()
        finally:
            data = encode_call((self._snapshots.get(identity, 0),), {})
            self.recorder.finish(Kind.INPUT, BOARD, name="restore", data=data)

    def _watch_wires(self, machine: PcLike) -> None:
        def watch(number: int) -> Callable[[int], None]:
            name = f"IRQ{number}"

            def changed(level: int) -> None:
                if self._open:
                    self.recorder.event(Kind.IRQ, name, level)

            return changed

        for number in PIC_INPUTS:
            machine.chips.pic.input(number).watch(watch(number))
        machine.set_interrupt_source(_Acknowledge(machine.chips.pic, self))

    def acknowledged(self, source: InterruptSource) -> int:
        """The INTA cycle, as an event."""
        if not self._open:
            return source.acknowledge()
        self._core.enter()
        vector = 0
        try:
            vector = source.acknowledge()
        finally:
            self.recorder.finish(Kind.ACK, "pic", vector)
        return vector

    def _note(self, kind: Kind, device: str, value: int, name: str, data: bytes = b"") -> None:
        """What a device did outside itself; a reset brings back memory that no replay has."""
        if self._open and self._core.depth and not self._resetting:
            self.recorder.event(kind, device, value, name, data)

    def _watch_surroundings(self, machine: PcLike) -> None:
        watch_requests(machine, self._note)
        watch_memory(machine.ram, self._note)
        for name, image in images(machine):
            watch_image(name, image, self._note)
        if isinstance(machine, PowerEdge):
            watch_records(machine.options.records, self._note)
        self._mmio = machine.mmio
        self._mmio.tap = _MmioTap(self.recorder)

    def _watch_host(self, machine: PcLike) -> None:
        for device, call, owner in host_calls(machine):
            recorded = self._input(device, call, getattr(owner, call))
            setattr(owner, call, recorded)
            if call == "receive":
                self._reconnect(machine, device, recorded)

    def _reconnect(self, machine: PcLike, device: str, receive: Callable[..., None]) -> None:
        """A UART gave its backend the plain function when it was made."""
        for uart, backend in zip(machine.chips.uarts, serial_backends(machine), strict=False):
            if uart.name == device and backend is not None:
                backend.on_receive(receive)

    def _input(self, device: str, call: str, inner: Callable[..., Any]) -> Callable[..., Any]:
        def recorded(*arguments: Any, **named: Any) -> Any:
            if self._core.depth or not self._open:
                return inner(*arguments, **named)
            for medium in filter(is_image, arguments):
                watch_image(device, medium, self._note)
            self._core.enter()
            try:
                return inner(*arguments, **named)
            finally:
                self.recorder.finish(Kind.INPUT, device, name=call, data=encode_call(arguments, named))

        return recorded

    # --- the end --------------------------------------------------------------------------------------

    def close(self) -> None:
        """Stop recording and complete the file.

        Raises:
            TraceError: not all could be written; what was written before is readable.
        """
        if not self._open:
            return
        self._open = False
        self._mmio.tap = None
        self.recorder.detach()
        self._core.set_cpu(None, None)
        try:
            if self.recorder.failure is not None:
                raise self.recorder.failure
            self._writer.close()
        except OSError as error:
            raise TraceError(f"{self.path}: {error.strerror}; the trace ends where the space did") from None


class _MmioTap:
    """Memory-mapped registers. Video memory is not noted: it is much, and no port's answer depends on it."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def read(self, window: MmioWindow, address: int, size: int) -> int:
        if window.name.startswith(VIDEO):
            return window.handler.mmio_read(address - window.base, size)
        self._recorder.core.enter()
        value = (1 << 8 * size) - 1
        try:
            value &= window.handler.mmio_read(address - window.base, size)
        finally:
            self._finish(Kind.MMIO_IN, window, address, size, value)
        return value

    def write(self, window: MmioWindow, address: int, size: int, value: int) -> None:
        if window.name.startswith(VIDEO):
            window.handler.mmio_write(address - window.base, size, value)
            return
        self._recorder.core.enter()
        try:
            window.handler.mmio_write(address - window.base, size, value)
        finally:
            self._finish(Kind.MMIO_OUT, window, address, size, value)

    def _finish(self, kind: Kind, window: MmioWindow, address: int, size: int, value: int) -> None:
        device, name = mmio_names(window, address - window.base, size, kind is Kind.MMIO_OUT)
        self._recorder.finish(kind, device, value, name, MMIO_DATA.pack(address, value), size)


class _Acknowledge:
    """The PIC, with its acknowledge cycles noted."""

    def __init__(self, source: InterruptSource, recording: Recording) -> None:
        self._source, self._recording = source, recording

    @property
    def pending(self) -> bool:
        return self._source.pending

    def acknowledge(self) -> int:
        return self._recording.acknowledged(self._source)
