"""Base of every PCI function: configuration space, base address registers, interrupt pin.

Source: PCI Local Bus Specification 3.0, chapter 6 and 2.2.6 (interrupt pins).

A function is a `Device` on the port space. Its I/O ranges come and go with COMMAND and the base address
registers; accesses reach `bar_read` and `bar_write`, those to memory ranges as well. Ports that a function
has beside its BARs (`port_ranges`) reach `port_read` and `port_write`.

Not modelled: bus parity, special cycles, latency timers (the registers hold values), BIST.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from portvisor.devices.pci.bar import ROM_BAR, SMALLEST_ROM, Bar, BarKind
from portvisor.devices.pci.config import (
    BAR0,
    CACHE_LINE_SIZE,
    CAPABILITIES_POINTER,
    CLASS_CODE,
    COMMAND,
    COMMAND_INTX_DISABLE,
    COMMAND_IO,
    COMMAND_MASTER,
    COMMAND_MEMORY,
    COMMAND_PARITY,
    COMMAND_SERR,
    CONFIG_SIZE,
    DEVICE_ID,
    FIRST_CAPABILITY,
    HEADER_MULTIFUNCTION,
    HEADER_TYPE,
    INTERRUPT_LINE,
    INTERRUPT_PIN,
    LATENCY_TIMER,
    REVISION_ID,
    ROM_BASE,
    STATUS,
    STATUS_CAPABILITIES,
    STATUS_ERRORS,
    STATUS_INTERRUPT,
    SUBSYSTEM_ID,
    SUBSYSTEM_VENDOR_ID,
    TYPE0_NAMES,
    VENDOR_ID,
    ConfigLayout,
    PciId,
)
from portvisor.ports import Device, IrqLine, PortRange

if TYPE_CHECKING:
    from portvisor.devices.pci.bus import PciBus

BAR_SHIFT = 16
"""Device offset of a port: (BAR number + 1) << 16 | offset in the BAR; below 10000h are the other ports."""


class BarMemory:
    """A memory range of a function as the memory-mapped space sees it. A quadword is two PCI transfers."""

    def __init__(self, function: PciFunction, bar: int) -> None:
        self.function = function
        self.bar = bar

    def mmio_read(self, offset: int, size: int) -> int:
        """A guest read."""
        if size > 4:
            return self.mmio_read(offset, 4) | self.mmio_read(offset + 4, 4) << 32
        return self.function.bar_read(self.bar, offset, size)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """A guest write."""
        if size > 4:
            self.mmio_write(offset, 4, value & 0xFFFFFFFF)
            self.mmio_write(offset + 4, 4, value >> 32)
        else:
            self.function.bar_write(self.bar, offset, size, value)


class PciFunction(Device):
    """One function of a PCI device.

    A subclass says what it is with `ID`, declares its own registers with `self.layout.define` in its
    constructor (before it is attached to a bus), and reacts to writes in `config_written`.

    Args:
        bars: base address registers by number (0-5; `ROM_BAR` for a ROM without content).
        identity: replaces `ID`.
        interrupt_pin: 0 for none, 1-4 for INTA# to INTD#.
        rom: content of the expansion ROM.
        name: instance name.
    """

    ID: ClassVar[PciId] = PciId(0xFFFF, 0xFFFF, 0)
    HEADER: ClassVar[int] = 0
    ROM_REGISTER: ClassVar[int] = ROM_BASE
    BAR_COUNT: ClassVar[int] = 6
    HEADER_NAMES: ClassVar[Mapping[int, str]] = TYPE0_NAMES
    CONFIG_REGISTERS: ClassVar[Mapping[int, str]] = {}
    """Data-sheet names of the function's own configuration registers, by offset."""

    @dataclass
    class State:
        """Configuration space as the guest reads it."""

        config: bytearray = field(default_factory=lambda: bytearray(CONFIG_SIZE))

    state: State

    def __init__(
        self,
        *,
        bars: Mapping[int, Bar] | None = None,
        identity: PciId | None = None,
        interrupt_pin: int = 0,
        rom: bytes = b"",
        name: str = "",
    ) -> None:
        self.name = name
        super().__init__()
        self.layout = ConfigLayout()
        self.bars = dict(bars or {})
        self.rom = rom
        if rom:
            self.bars[ROM_BAR] = Bar.rom(max(SMALLEST_ROM, 1 << (len(rom) - 1).bit_length()))
        self.bar_memory = {
            number: BarMemory(self, number) for number, bar in self.bars.items() if bar.kind is not BarKind.IO
        }
        self.intx = IrqLine(self._interrupt_changed, f"{self.name} INTx#")
        """What the function drives its interrupt pin with; 1 is asserted."""
        self.bus: PciBus | None = None
        self.device_number = 0
        self.function_number = 0
        self._pin = IrqLine()
        self._last_capability = 0
        self._next_capability = FIRST_CAPABILITY
        self._define_header(identity or self.ID, interrupt_pin)
        self._define_bars()
        self._load_initial()

    # --- construction -----------------------------------------------------------------------------------

    def _define_header(self, identity: PciId, interrupt_pin: int) -> None:
        define = self.layout.define
        define(VENDOR_ID, 2, identity.vendor)
        define(DEVICE_ID, 2, identity.device)
        define(COMMAND, 2, 0, self._command_bits(interrupt_pin))
        define(STATUS, 2, 0, clears=STATUS_ERRORS)
        define(REVISION_ID, 1, identity.revision)
        define(CLASS_CODE, 3, identity.class_code)
        define(CACHE_LINE_SIZE, 1, 0, 0xFF)
        define(LATENCY_TIMER, 1, 0, 0xF8)
        define(HEADER_TYPE, 1, self.HEADER)
        define(INTERRUPT_LINE, 1, 0, 0xFF)
        define(INTERRUPT_PIN, 1, interrupt_pin)
        if not self.HEADER:
            define(SUBSYSTEM_VENDOR_ID, 2, identity.subsystem_vendor)
            define(SUBSYSTEM_ID, 2, identity.subsystem)

    def _command_bits(self, interrupt_pin: int) -> int:
        bits = COMMAND_MASTER | COMMAND_PARITY | COMMAND_SERR
        kinds = {bar.kind for bar in self.bars.values()}
        if BarKind.IO in kinds:
            bits |= COMMAND_IO
        if kinds - {BarKind.IO}:
            bits |= COMMAND_MEMORY
        if interrupt_pin:
            bits |= COMMAND_INTX_DISABLE
        return bits

    def _define_bars(self) -> None:
        for number, bar in self.bars.items():
            last = number + bar.width // 4 - 1
            if not (number >= 0 and last < self.BAR_COUNT) and number != ROM_BAR:
                raise ValueError(f"{self.name}: BAR {number} ({bar.kind.value}) does not fit into the header")
            if last != number and last in self.bars:
                raise ValueError(f"{self.name}: BAR {last} is the upper half of the 64-bit BAR {number}")
            self.layout.define(self.bar_register(number), bar.width, bar.address | bar.flags, bar.writable)

    def bar_register(self, number: int) -> int:
        """Offset of a base address register in configuration space."""
        return self.ROM_REGISTER if number == ROM_BAR else BAR0 + 4 * number

    def define(self, offset: int, size: int, value: int = 0, writable: int = 0, clears: int = 0) -> None:
        """Declare a register: its reset value, the bits software may write, the bits it clears by writing 1."""
        self.layout.define(offset, size, value, writable, clears)
        self._load_initial()

    def add_capability(self, identifier: int, body: bytes, *, writable: bytes = b"", offset: int = 0) -> int:
        """Append to the capabilities list; gives the offset.

        Args:
            identifier: capability ID (PCI 3.0, appendix H).
            body: what follows the two bytes ID and next pointer.
            writable: mask for `body`; missing bytes are read-only.
            offset: where to put it, a multiple of 4 from 40h on; 0 for behind the last one.
        """
        offset = offset or self._next_capability
        if offset < FIRST_CAPABILITY or offset % 4 or offset + 2 + len(body) > CONFIG_SIZE:
            raise ValueError(f"{self.name}: a capability of {2 + len(body)} bytes does not fit at {offset:#x}")
        layout = self.layout
        layout.define(offset, 2, identifier)
        for index, value in enumerate(body):
            layout.define(offset + 2 + index, 1, value, writable[index] if index < len(writable) else 0)
        layout.initial[self._last_capability + 1 if self._last_capability else CAPABILITIES_POINTER] = offset
        layout.initial[STATUS] |= STATUS_CAPABILITIES
        self._last_capability = offset
        self._next_capability = max(self._next_capability, offset + 2 + len(body) + 3 & ~3)
        self._load_initial()
        return offset

    def set_multifunction(self) -> None:
        """Tell software to look for functions 1-7 of this device."""
        self.layout.initial[HEADER_TYPE] |= HEADER_MULTIFUNCTION
        self.state.config[HEADER_TYPE] |= HEADER_MULTIFUNCTION

    def _load_initial(self) -> None:
        self.state.config[:] = self.layout.initial

    # --- place on a bus ---------------------------------------------------------------------------------

    def attached(self, bus: PciBus, device_number: int, function_number: int) -> None:
        """Called by the bus: from now on the function is reachable and maps its ranges."""
        self.bus = bus
        self.device_number = device_number
        self.function_number = function_number
        pin = self.layout.initial[INTERRUPT_PIN]
        if pin:
            self._pin = bus.interrupt_input(device_number, pin - 1, self.intx.name)

    @property
    def address(self) -> str:
        """Where the function is, as Linux writes it: "0000:00:1f.2"; its name while it is nowhere."""
        if self.bus is None:
            return self.name
        return f"0000:{self.bus.number:02x}:{self.device_number:02x}.{self.function_number}"

    # --- configuration space ------------------------------------------------------------------------------

    def config_read(self, offset: int, size: int) -> int:
        """A configuration read of 1, 2 or 4 bytes inside a dword."""
        return int.from_bytes(self.state.config[offset : offset + size], "little")

    def config_write(self, offset: int, size: int, value: int) -> None:
        """A configuration write of 1, 2 or 4 bytes inside a dword."""
        config = self.state.config
        self.layout.apply(config, offset, size, value)
        if self._settle_bars(offset) or (offset < STATUS and offset + size > COMMAND):
            self.command_written()
        self.config_written(offset, size)

    def config_written(self, offset: int, size: int) -> None:
        """Called after every configuration write; `self.state.config` holds the new value."""

    def config_register_name(self, offset: int) -> str:
        """Name of the configuration register at `offset`, or the offset."""
        name = self.CONFIG_REGISTERS.get(offset) or self.HEADER_NAMES.get(offset)
        return name or f"config {offset:02x}"

    def command_written(self) -> None:
        """Called after a write that may move, open or close the function's ranges, or gate its interrupt."""
        self._interrupt_changed(self.intx.level)
        self.update_mappings()

    def _settle_bars(self, offset: int) -> bool:
        """Whether `offset` lies in a base address register; a fixed one is put right."""
        for number, bar in self.bars.items():
            register = self.bar_register(number)
            if register <= offset < register + bar.width:
                self._set_bar(register, bar, bar.settle(self._register(register, bar.width)))
                return True
        return False

    def _set_bar(self, register: int, bar: Bar, value: int) -> None:
        self.state.config[register : register + bar.width] = value.to_bytes(bar.width, "little")

    def _register(self, offset: int, size: int) -> int:
        return int.from_bytes(self.state.config[offset : offset + size], "little")

    @property
    def command(self) -> int:
        """The COMMAND register."""
        config = self.state.config
        return config[COMMAND] | config[COMMAND + 1] << 8

    @property
    def bus_master(self) -> bool:
        """Whether the function may start DMA: its COMMAND allows it, and that of every bridge above."""
        upstream = self.bus is None or self.bus.masters_allowed()
        return bool(self.command & COMMAND_MASTER) and upstream

    # --- ranges -------------------------------------------------------------------------------------------

    def bar_address(self, number: int) -> int | None:
        """Where a base address register puts its range, if COMMAND opens it; None if nowhere."""
        bar = self.bars[number]
        if not self.command & (COMMAND_IO if bar.kind is BarKind.IO else COMMAND_MEMORY):
            return None
        return bar.decode(self._register(self.bar_register(number), bar.width))

    def wanted_ports(self) -> tuple[PortRange, ...]:
        """All I/O ranges in the present state."""
        ranges = list(self.port_ranges())
        for number, bar in self.bars.items():
            if bar.kind is BarKind.IO:
                base = self.bar_address(number)
                if base is not None and self._reachable(BarKind.IO, base, bar.size):
                    label = bar.name or self.address
                    ranges.append(PortRange(base, bar.size, bar.sizes, label, number + 1 << BAR_SHIFT))
        return tuple(ranges)

    def wanted_memory(self) -> dict[int, int]:
        """Base address of every memory range in the present state, by BAR number."""
        wanted = {}
        for number in self.bar_memory:
            base = self.bar_address(number)
            if base is not None and self._reachable(BarKind.MEMORY, base, self.bars[number].size):
                wanted[number] = base
        return wanted

    def _reachable(self, kind: BarKind, base: int, length: int) -> bool:
        return self.bus is not None and self.bus.forwards(kind is BarKind.IO, base, length)

    def port_ranges(self) -> tuple[PortRange, ...]:
        """Ports beside the BARs in the present state, such as an IDE channel's legacy ports; offsets below 10000h.

        Call `update_mappings` when the answer changes.
        """
        return ()

    def update_mappings(self) -> None:
        """Bring the port space and the memory-mapped space in line with the state."""
        if self.bus is not None:
            self.bus.host.mapper.update(self)

    @property
    def conflicts(self) -> tuple[str, ...]:
        """Ranges that stay unmapped because another device has their addresses; empty if all is well."""
        return () if self.bus is None else self.bus.host.mapper.conflicts_of(self)

    # --- accesses -----------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        bar = offset >> BAR_SHIFT
        return self.bar_read(bar - 1, offset & 0xFFFF, size) if bar else self.port_read(offset, size)

    def write(self, offset: int, size: int, value: int) -> None:
        bar = offset >> BAR_SHIFT
        if bar:
            self.bar_write(bar - 1, offset & 0xFFFF, size, value)
        else:
            self.port_write(offset, size, value)

    def bar_read(self, bar: int, offset: int, size: int) -> int:
        """A read in a BAR's range; the default serves the expansion ROM and reads ones elsewhere."""
        if bar == ROM_BAR and self.rom:
            return int.from_bytes(self.rom[offset : offset + size].ljust(size, b"\xff"), "little")
        return (1 << 8 * size) - 1

    def bar_write(self, bar: int, offset: int, size: int, value: int) -> None:
        """A write in a BAR's range."""

    def port_read(self, offset: int, size: int) -> int:
        """A read of a port from `port_ranges`."""
        return (1 << 8 * size) - 1

    def port_write(self, offset: int, size: int, value: int) -> None:
        """A write to a port from `port_ranges`."""

    def register_name(self, offset: int, size: int, write: bool) -> str:
        bar = offset >> BAR_SHIFT
        if not bar:
            return super().register_name(offset, size, write)
        return (
            self.bar_register_name(bar - 1, offset & 0xFFFF, size, write) or f"BAR{bar - 1}+{offset & 0xFFFF:02x}"
        )

    def bar_register_name(self, bar: int, offset: int, size: int, write: bool) -> str:
        """Name of a register in a BAR's range; "" if unknown."""
        return ""

    # --- interrupt ------------------------------------------------------------------------------------------

    def _interrupt_changed(self, level: int) -> None:
        """Show the pin's request in STATUS; drive the wire unless COMMAND forbids it."""
        config = self.state.config
        if level:
            config[STATUS] |= STATUS_INTERRUPT
        else:
            config[STATUS] &= ~STATUS_INTERRUPT & 0xFF
        self._pin.set(level and not self.command & COMMAND_INTX_DISABLE)

    # --- life cycle -------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """RST#: registers as after power-on, ranges closed, interrupt withdrawn."""
        self.state = self.State()
        self._load_initial()
        self.intx.set(0)
        self.command_written()

    def restored(self) -> None:
        self.intx.set(self.state.config[STATUS] & STATUS_INTERRUPT)
        self.command_written()
