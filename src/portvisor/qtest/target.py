"""A machine of ours as the qtest commands see it: ports, memory, clock, interrupt inputs."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Protocol

from portvisor.devices.i8259 import PicPair
from portvisor.kvm.null import NullVm, Slot
from portvisor.ports import MmioSpace, PortSpace, VirtualClock
from portvisor.qtest.protocol import QtestError

PIC_PATHS = ("/machine/unattached/device[0]", "/machine/unattached/device[1]")
"""Master and slave, as `qom-list` has them."""
PIC_TYPE = "child<isa-i8259>"
IOAPIC = "ioapic"
"""What clients intercept on a PC: the inputs are the ISA interrupts, by their numbers."""
DEFAULT_INPUTS = "unnamed-gpio-in"
CASCADE = 2
PROGRESS_TIMERS = 2000
"""Timers that run between two calls of `on_progress`."""
MMIO_SIZE = 4
"""Widest register access that a longer transfer is cut into."""


class DrivenMachine(Protocol):
    """A machine on the null engine, with or without an interrupt controller."""

    @property
    def ports(self) -> PortSpace:
        """Its I/O space."""
        ...

    @property
    def mmio(self) -> MmioSpace:
        """Its memory-mapped registers."""
        ...


class MachineTarget:
    """`protocol.Target` for a machine.

    Args:
        machine: what is driven.
        vm: its memory map.
        clock: its clock.
        pic: the interrupt controller whose inputs can be watched and driven; None if the machine has none.
    """

    def __init__(self, machine: DrivenMachine, vm: NullVm, clock: VirtualClock, pic: PicPair | None) -> None:
        self.port_read = machine.ports.read
        self.port_write = machine.ports.write
        self.on_irq: Callable[[int, int], None] | None = None
        """Told (number, level) of every change of an intercepted input."""
        self._mmio = machine.mmio
        self._slots = tuple(vm.slots.values())
        self._clock = clock
        self.clock_now = clock.now
        self.on_progress: Callable[[], None] | None = None
        """Called now and then during a long step; may raise to end it."""
        self._intercepted: str | None = None
        self._driving = False
        self._levels = [0] * 16
        self._inputs = {} if pic is None else {irq: pic.input(irq) for irq in range(16) if irq != CASCADE}

    # --- memory -----------------------------------------------------------------------------------------

    def _slot(self, address: int) -> Slot | None:
        for slot in self._slots:
            if slot.base <= address < slot.base + len(slot.view):
                return slot
        return None

    def _gap(self, address: int, end: int) -> int:
        """Where memory begins again, at most `end`."""
        return min([slot.base for slot in self._slots if address < slot.base < end], default=end)

    def memory_read(self, address: int, length: int) -> bytes:
        parts = []
        end = address + length
        while address < end:
            slot = self._slot(address)
            if slot:
                start = address - slot.base
                part = bytes(slot.view[start : start + end - address])
            else:
                part = self._registers_read(address, self._gap(address, end))
            parts.append(part)
            address += len(part)
        return b"".join(parts)

    def memory_write(self, address: int, data: bytes) -> None:
        view, end = memoryview(data), address + len(data)
        while view:
            slot = self._slot(address)
            if slot:
                count = min(len(view), slot.base + len(slot.view) - address)
                if not slot.readonly:
                    slot.view[address - slot.base : address - slot.base + count] = view[:count]
            else:
                count = self._gap(address, end) - address
                self._registers_write(address, view[:count])
            address += count
            view = view[count:]

    @staticmethod
    def _piece(address: int, left: int) -> int:
        """Size of the widest aligned access at an address."""
        size = MMIO_SIZE
        while size > left or address % size:
            size >>= 1
        return size

    def _windows_end(self, address: int, end: int) -> tuple[bool, int]:
        """Whether a register window is at an address, and up to where that holds."""
        for window in self._mmio.windows:
            if window.base <= address < window.base + window.length:
                return True, min(end, window.base + window.length)
            if window.base > address:
                return False, min(end, window.base)
        return False, end

    def _registers_read(self, address: int, end: int) -> bytes:
        data = bytearray()
        while address < end:
            mapped, stop = self._windows_end(address, end)
            if not mapped:
                data += b"\xff" * (stop - address)
                address = stop
            while address < stop:
                size = self._piece(address, stop - address)
                data += self._mmio.read(address, size).to_bytes(size, "little")
                address += size
        return bytes(data)

    def _registers_write(self, address: int, view: memoryview) -> None:
        end = address + len(view)
        position = address
        while position < end:
            mapped, stop = self._windows_end(position, end)
            while mapped and position < stop:
                size = self._piece(position, stop - position)
                start = position - address
                self._mmio.write(position, size, int.from_bytes(view[start : start + size], "little"))
                position += size
            position = stop

    # --- clock and interrupts ---------------------------------------------------------------------------

    def clock_step(self) -> None:
        deadline = self._clock.next_deadline()
        if deadline is not None:
            self._clock.set(deadline)

    def clock_set(self, target: int) -> None:
        clock = self._clock
        for count in itertools.count(1):
            deadline = clock.next_deadline()
            if deadline is None or deadline > target:
                break
            clock.set(deadline)
            if count % PROGRESS_TIMERS == 0 and self.on_progress:
                self.on_progress()
        clock.set(target)

    def intercept(self, path: str, outputs: bool) -> None:
        if outputs or path != IOAPIC or not self._inputs:
            raise QtestError(f"{path!r}: unknown device; only the inputs of {IOAPIC!r} can be intercepted")
        if self._intercepted not in (None, path):
            raise QtestError("IRQ intercept already enabled")
        if self._intercepted is None:
            for number, line in self._inputs.items():
                line.watch(partial(self._changed, number))
        self._intercepted = path

    def _changed(self, number: int, level: int) -> None:
        if not self._driving and self._levels[number] != level:
            self._levels[number] = level
            if self.on_irq:
                self.on_irq(number, level)

    def set_irq(self, path: str, name: str, number: int, level: int) -> None:
        if path not in PIC_PATHS or not self._inputs:
            raise QtestError(f"{path!r}: unknown device")
        irq = PIC_PATHS.index(path) * 8 + number
        if name != DEFAULT_INPUTS or number > 7 or irq not in self._inputs:
            raise QtestError(f"{path!r} has no input {number} of {name!r}")
        self._driving = True
        try:
            self._inputs[irq].set(level)
        finally:
            self._driving = False
