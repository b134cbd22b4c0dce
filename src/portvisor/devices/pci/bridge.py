"""PCI-to-PCI bridge: a type 1 header, a bus behind it, and windows that forward addresses.

Source: PCI-to-PCI Bridge Architecture Specification 1.2.

    18 primary, 19 secondary, 1A subordinate bus    1C/1D I/O base and limit (4 KiB)
    20/22 memory base and limit (1 MiB)             24/26 prefetchable base and limit, 28/2C upper halves
    3E bridge control: 2 ISA enable, 6 secondary bus reset

Not modelled: VGA enable (legacy VGA ports are not a BAR), subtractive decode, a range that only half lies in
a window (it is not forwarded at all), the discard timers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from portvisor.devices.pci.bar import Bar
from portvisor.devices.pci.bus import SecondaryBus
from portvisor.devices.pci.config import (
    BRIDGE_CONTROL,
    BRIDGE_ROM_BASE,
    COMMAND_IO,
    COMMAND_MEMORY,
    FIRST_CAPABILITY,
    HEADER_BRIDGE,
    IO_BASE,
    IO_LIMIT,
    MEMORY_BASE,
    MEMORY_LIMIT,
    PREFETCHABLE_BASE,
    PREFETCHABLE_BASE_UPPER,
    PREFETCHABLE_LIMIT,
    PREFETCHABLE_LIMIT_UPPER,
    PRIMARY_BUS,
    SECONDARY_BUS,
    SECONDARY_LATENCY_TIMER,
    SECONDARY_STATUS,
    STATUS_ERRORS,
    SUBORDINATE_BUS,
    TYPE1_NAMES,
    PciId,
)
from portvisor.devices.pci.function import PciFunction

CONTROL_ISA_ENABLE = 0x04
CONTROL_SECONDARY_RESET = 0x40
CONTROL_WRITABLE = 0x0F7F
CONTROL_DISCARD_STATUS = 0x0400

IO_GRANULE = 0x1000
MEMORY_GRANULE = 0x100000
PREFETCHABLE_64BIT = 0x1
ISA_ALIAS_BITS = 0x300
ISA_LIMIT = 0x10000


class PciBridge(PciFunction):
    """A bridge; what lies behind it is attached to `secondary_bus`.

    Args:
        identity: what it says it is; class 0604.
        io_window: hard-wires the I/O window to (first, last) port; None lets software set it.
        bars, interrupt_pin, name: as for `PciFunction`; a bridge has BAR 0 and 1.
    """

    ID: ClassVar[PciId] = PciId(0x8086, 0x244E, 0x060401)
    HEADER: ClassVar[int] = HEADER_BRIDGE
    ROM_REGISTER: ClassVar[int] = BRIDGE_ROM_BASE
    BAR_COUNT: ClassVar[int] = 2
    HEADER_NAMES: ClassVar[Mapping[int, str]] = TYPE1_NAMES

    def __init__(
        self,
        *,
        identity: PciId | None = None,
        io_window: tuple[int, int] | None = None,
        bars: Mapping[int, Bar] | None = None,
        interrupt_pin: int = 0,
        name: str = "",
    ) -> None:
        super().__init__(bars=bars, identity=identity, interrupt_pin=interrupt_pin, name=name)
        self.secondary_bus = SecondaryBus(self)
        for register in (PRIMARY_BUS, SECONDARY_BUS, SUBORDINATE_BUS):
            self.define(register, 1, 0, 0xFF)
        self.define(SECONDARY_LATENCY_TIMER, 1, 0, 0xF8)
        self.define(SECONDARY_STATUS, 2, 0, clears=STATUS_ERRORS)
        self._define_windows(io_window)
        self.define(BRIDGE_CONTROL, 2, 0, CONTROL_WRITABLE & ~CONTROL_DISCARD_STATUS, CONTROL_DISCARD_STATUS)

    def _define_windows(self, io_window: tuple[int, int] | None) -> None:
        if io_window is None:
            self.define(IO_BASE, 1, 0, 0xF0)
            self.define(IO_LIMIT, 1, 0, 0xF0)
        else:
            first, last = io_window
            if first % IO_GRANULE or (last + 1) % IO_GRANULE or not 0 <= first < last < ISA_LIMIT:
                raise ValueError(f"{self.name}: I/O window {first:#x}-{last:#x} is not made of 4 KiB blocks")
            self.define(IO_BASE, 1, first >> 8)
            self.define(IO_LIMIT, 1, last >> 8 & 0xF0)
        for register in (MEMORY_BASE, MEMORY_LIMIT):
            self.define(register, 2, 0, 0xFFF0)
        for register in (PREFETCHABLE_BASE, PREFETCHABLE_LIMIT):
            self.define(register, 2, PREFETCHABLE_64BIT, 0xFFF0)
        for register in (PREFETCHABLE_BASE_UPPER, PREFETCHABLE_LIMIT_UPPER):
            self.define(register, 4, 0, 0xFFFFFFFF)

    def _command_bits(self, interrupt_pin: int) -> int:
        return super()._command_bits(interrupt_pin) | COMMAND_IO | COMMAND_MEMORY

    # --- numbers ------------------------------------------------------------------------------------------

    @property
    def secondary(self) -> int:
        """Number of the bus behind the bridge."""
        return self.state.config[SECONDARY_BUS]

    @property
    def subordinate(self) -> int:
        """Highest bus number behind the bridge."""
        return self.state.config[SUBORDINATE_BUS]

    # --- windows ------------------------------------------------------------------------------------------

    def passes_io(self, base: int, length: int) -> bool:
        """Whether ports are forwarded to the secondary side."""
        if not self.command & COMMAND_IO:
            return False
        config = self.state.config
        low = (config[IO_BASE] & 0xF0) << 8
        high = ((config[IO_LIMIT] & 0xF0) << 8) + IO_GRANULE
        if config[BRIDGE_CONTROL] & CONTROL_ISA_ENABLE and base < ISA_LIMIT and base & ISA_ALIAS_BITS:
            return False
        return low <= base and base + length <= high

    def passes_memory(self, base: int, length: int) -> bool:
        """Whether memory addresses are forwarded to the secondary side."""
        if not self.command & COMMAND_MEMORY:
            return False
        return any(low <= base and base + length <= high for low, high in self._memory_windows())

    def _memory_windows(self) -> tuple[tuple[int, int], tuple[int, int]]:
        low = self._granules(MEMORY_BASE)
        high = self._granules(MEMORY_LIMIT) + MEMORY_GRANULE
        prefetchable_low = self._granules(PREFETCHABLE_BASE) | self._register(PREFETCHABLE_BASE_UPPER, 4) << 32
        prefetchable_high = self._granules(PREFETCHABLE_LIMIT) | self._register(PREFETCHABLE_LIMIT_UPPER, 4) << 32
        return (low, high), (prefetchable_low, prefetchable_high + MEMORY_GRANULE)

    def _granules(self, register: int) -> int:
        return (self._register(register, 2) & 0xFFF0) << 16

    # --- configuration space --------------------------------------------------------------------------------

    def config_write(self, offset: int, size: int, value: int) -> None:
        old_control = self.state.config[BRIDGE_CONTROL]
        super().config_write(offset, size, value)
        if PRIMARY_BUS <= offset < FIRST_CAPABILITY:
            self._topology_changed()
        if self.state.config[BRIDGE_CONTROL] & ~old_control & CONTROL_SECONDARY_RESET:
            self._reset_secondary()

    def command_written(self) -> None:
        super().command_written()
        self._topology_changed()

    def _topology_changed(self) -> None:
        if self.bus is not None:
            self.bus.host.renumber()
            self.secondary_bus.update_mappings()

    def _reset_secondary(self) -> None:
        for function in self.secondary_bus.functions.values():
            function.reset()

    def reset(self) -> None:
        """RST# goes through to the secondary bus."""
        super().reset()
        self._reset_secondary()
