"""IBM VGA with the Bochs VBE extension: ports, memory window A0000-BFFFF, vertical interrupt.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem" (VGA); the FreeVGA text; for the DAC
the Inmos IMS G171 data sheet; for VBE see `vbe`.

    3C0    attribute address/data (flip-flop)   3C9        DAC data
    3C1 R  attribute data                       3CA R      feature control
    3C2    misc output (W), input status 0 (R)  3CC R      misc output
    3C3    video subsystem enable               3CE, 3CF   graphics controller
    3C4,5  sequencer                            3x4, 3x5   CRT controller
    3C6    DAC mask                             3xA        input status 1 (R), feature control (W)
    3C7,8  DAC read/write index, state (3C7 R)  1CE, 1CF   VBE index and data (16 bits)

x is D with misc output bit 0 set, else B; the half that is not selected does not answer. A word at an even port is
two bytes, low first: index and data in one OUT.

Not modelled: the sequencer's resets and the CRTC's hardware reset (bits are kept, nothing stops), light pen and EGA
meaning of CRTC 10/11, display-enable and cursor skew, byte panning of text, the diagnostic bits of input status 1,
the external dot clocks, and any border in pictures. Input status 0 always senses a colour monitor. RESET# clears
the memory too. Registers that do not exist read 0, ports that do not exist FF.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from portvisor.devices.vga import dac, planar
from portvisor.devices.vga.mode3 import load_mode3
from portvisor.devices.vga.picture import Picture, render
from portvisor.devices.vga.planar import MemoryMode, floating_read, floating_write
from portvisor.devices.vga.registers import (
    AR_INDEX_MASK,
    AR_PAS,
    ATTRIBUTE,
    ATTRIBUTE_MASKS,
    ATTRIBUTE_NAMES,
    ATTRIBUTE_READ,
    CR7_LINE_COMPARE_8,
    CR11_INTERRUPT_OFF,
    CR11_INTERRUPT_RUN,
    CR11_PROTECT,
    CR_CURSOR_LOW,
    CR_CURSOR_START,
    CR_OVERFLOW,
    CR_PROTECTED,
    CR_RETRACE_END,
    CRTC_DATA,
    CRTC_INDEX,
    CRTC_MASKS,
    CRTC_NAMES,
    FEATURE_MASK,
    FEATURE_READ,
    GRAPHICS_DATA,
    GRAPHICS_INDEX,
    GRAPHICS_MASKS,
    GRAPHICS_NAMES,
    INPUT_STATUS_1,
    MISC_COLOUR,
    MISC_RAM_ENABLE,
    MISC_READ,
    MISC_WRITE,
    MONO,
    PEL_DATA,
    PEL_MASK,
    PEL_READ_INDEX,
    PEL_WRITE_INDEX,
    PORT_BASE,
    PORT_NAMES,
    READ_WRITE_NAMES,
    SEQUENCER_DATA,
    SEQUENCER_INDEX,
    SEQUENCER_MASKS,
    SEQUENCER_NAMES,
    SR_CLOCKING,
    SR_MAP_MASK,
    SR_MEMORY,
    STATUS0_INTERRUPT,
    STATUS0_SENSE,
    SUBSYSTEM_ENABLE,
    SWITCHED_PORTS,
    VBE_DATA,
    VBE_INDEX,
    VBE_NAMES,
)
from portvisor.devices.vga.state import VgaState, empty_planes
from portvisor.devices.vga.text import TextScreen, read_text
from portvisor.devices.vga.timing import READ_TIME, BeamTiming
from portvisor.devices.vga.vbe import BANK_SIZE, DEFAULT_MEMORY, EIGHT_BIT_DAC, MAX_MEMORY, LinearMemory, Vbe
from portvisor.ports import Clock, Device, IrqLine, PortRange

MEMORY_BASE = 0xA0000
"""Guest-physical address of the memory window."""
MEMORY_LENGTH = 0x20000
"""Bytes of the memory window, whichever part of it the mode decodes."""

_VBE_PORT = 0x1CE
_WINDOW_64K = 0x10000
_CACHED_PATHS = 1024
"""Register settings whose memory paths are kept; drawing code switches between a few hundred."""

_Paths = tuple[planar.ReadPath, planar.WritePath]


class Vga(Device):
    """A VGA. It is also the `MmioHandler` of A0000-BFFFF; `linear` is that of the VBE frame buffer.

    Args:
        clock: drives the beam, and so input status 1 and the vertical interrupt.
        irq: the vertical interrupt; IBM's VGA has it on IRQ 2, most boards leave it open.
        mono_ports: answer at 3B4, 3B5 and 3BA while misc output bit 0 is 0.
        vbe_memory: bytes of VBE video memory, a multiple of 64 KiB; 0 leaves VBE out.

    Raises:
        ValueError: `vbe_memory` is not a multiple of 64 KiB, or more than 256 MiB.
    """

    name = "vga"
    State: ClassVar[type[VgaState]] = VgaState
    state: VgaState

    def __init__(
        self,
        clock: Clock,
        *,
        irq: IrqLine | None = None,
        mono_ports: bool = True,
        vbe_memory: int = DEFAULT_MEMORY,
    ) -> None:
        if vbe_memory % BANK_SIZE or not 0 <= vbe_memory <= MAX_MEMORY:
            raise ValueError(
                f"VBE memory of {vbe_memory:#x} bytes, must be a multiple of 64 KiB and at most 256 MiB"
            )
        self.ports = _port_ranges(mono_ports, vbe_memory > 0)
        self._clock = clock
        self._irq = irq or IrqLine()
        self._retrace_timer = clock.timer(self._retrace, "vga retrace")
        self._vbe = Vbe(vbe_memory)
        self._timing: BeamTiming | None = None
        self._touched = True
        self._generation = 0
        self._memory_read: planar.ReadPath = floating_read
        self._memory_write: planar.WritePath = floating_write
        self._planar_paths: dict[tuple[int, int, int, int, bytes], _Paths] = {}
        self._readers = self._read_table()
        self._writers = self._write_table()
        super().__init__()
        self._rebuild()

    # --- for front ends -----------------------------------------------------------------------------

    @property
    def linear(self) -> LinearMemory:
        """The VBE frame buffer, to be mapped where the firmware expects it (the vgabios images: E0000000)."""
        return self._vbe.linear

    @property
    def generation(self) -> int:
        """A number that grows when anything that may change the picture was written since the last look."""
        if self._touched or self.linear.touched:
            self._touched = self.linear.touched = False
            self._generation += 1
        return self._generation

    def screen(self) -> TextScreen | None:
        """The text screen with attributes and cursor; None in a graphics mode."""
        return read_text(self.state)

    def text(self) -> list[str]:
        """The lines of the text screen in full width; empty in a graphics mode."""
        screen = read_text(self.state)
        return screen.lines() if screen else []

    def picture(self, *, blink_on: bool = True) -> Picture:
        """The display area as an image, in any mode."""
        return render(self.state, blink_on=blink_on)

    def set_text_mode(self) -> None:
        """Enter mode 3 (80x25) with a blank screen, as a video BIOS would; no font is loaded."""
        load_mode3(self.state)
        self._rebuild()

    # --- device -------------------------------------------------------------------------------------

    def reset(self) -> None:
        super().reset()
        self._rebuild()

    def restored(self) -> None:
        self._rebuild()

    def _rebuild(self) -> None:
        """Bring everything that is derived from the state in line with it."""
        self._vbe.attach(self.state.vbe)
        self._touched = True
        self._timing = None
        self._planar_paths.clear()
        self._memory_changed()
        self._update_interrupt()

    def read(self, offset: int, size: int) -> int:
        if size == 2 and offset < VBE_INDEX:
            return self.read(offset, 1) | self.read(offset + 1, 1) << 8
        return self._readers[offset]() if self._decodes(offset) else 0xFF

    def write(self, offset: int, size: int, value: int) -> None:
        if size == 2 and offset < VBE_INDEX:
            self.write(offset, 1, value & 0xFF)
            self.write(offset + 1, 1, value >> 8)
        elif self._decodes(offset):
            self._touched = True
            self._writers[offset](value)

    def _decodes(self, offset: int) -> bool:
        state = self.state
        if not state.subsystem_enable:
            return offset == SUBSYSTEM_ENABLE or offset >= VBE_INDEX
        if offset < SWITCHED_PORTS or offset >= VBE_INDEX:
            return True
        return (offset < MONO) == bool(state.misc & MISC_COLOUR)

    def register_name(self, offset: int, size: int, write: bool) -> str:
        place = offset & 0x1F if offset < VBE_INDEX else offset
        if size == 1 or place == VBE_DATA:
            name = self._indexed_name(place)
            if name:
                return name
        if place in READ_WRITE_NAMES:
            return READ_WRITE_NAMES[place][write]
        return PORT_NAMES.get(place, "")

    def _indexed_name(self, place: int) -> str:
        state = self.state
        indexed = {
            SEQUENCER_DATA: (state.sequencer_index, SEQUENCER_NAMES),
            GRAPHICS_DATA: (state.graphics_index, GRAPHICS_NAMES),
            CRTC_DATA: (state.crtc_index, CRTC_NAMES),
            ATTRIBUTE_READ: (state.attribute_index & AR_INDEX_MASK, ATTRIBUTE_NAMES),
            VBE_DATA: (state.vbe.index, VBE_NAMES),
        }
        index, names = indexed.get(place, (0, ()))
        return names[index] if index < len(names) else ""

    def _read_table(self) -> list[Callable[[], int]]:
        table: list[Callable[[], int]] = [_floating] * (VBE_DATA + 1)
        table[ATTRIBUTE] = lambda: self.state.attribute_index
        table[ATTRIBUTE_READ] = self._read_attribute
        table[MISC_WRITE] = self._read_status0
        table[SUBSYSTEM_ENABLE] = lambda: self.state.subsystem_enable
        table[SEQUENCER_INDEX] = lambda: self.state.sequencer_index
        table[SEQUENCER_DATA] = lambda: _indexed(self.state.sequencer, self.state.sequencer_index)
        table[PEL_MASK] = lambda: self.state.dac.mask
        table[PEL_READ_INDEX] = lambda: dac.dac_state(self.state.dac)
        table[PEL_WRITE_INDEX] = lambda: self.state.dac.address
        table[PEL_DATA] = lambda: dac.read_data(self.state.dac)
        table[FEATURE_READ] = lambda: self.state.feature
        table[MISC_READ] = lambda: self.state.misc
        table[GRAPHICS_INDEX] = lambda: self.state.graphics_index
        table[GRAPHICS_DATA] = lambda: _indexed(self.state.graphics, self.state.graphics_index)
        for half in (0, MONO):
            table[half + CRTC_INDEX] = lambda: self.state.crtc_index
            table[half + CRTC_DATA] = lambda: _indexed(self.state.crtc, self.state.crtc_index)
            table[half + INPUT_STATUS_1] = self._read_status1
        table[VBE_INDEX] = lambda: self.state.vbe.index
        table[VBE_DATA] = self._vbe.read
        return table

    def _write_table(self) -> list[Callable[[int], None]]:
        table: list[Callable[[int], None]] = [_ignored] * (VBE_DATA + 1)
        table[ATTRIBUTE] = self._write_attribute
        table[MISC_WRITE] = self._write_misc
        table[SUBSYSTEM_ENABLE] = self._write_subsystem_enable
        table[SEQUENCER_INDEX] = self._write_sequencer_index
        table[SEQUENCER_DATA] = self._write_sequencer
        table[PEL_MASK] = self._write_pel_mask
        table[PEL_READ_INDEX] = lambda value: dac.start_reading(self.state.dac, value)
        table[PEL_WRITE_INDEX] = lambda value: dac.start_writing(self.state.dac, value)
        table[PEL_DATA] = self._write_pel_data
        table[GRAPHICS_INDEX] = self._write_graphics_index
        table[GRAPHICS_DATA] = self._write_graphics
        for half in (0, MONO):
            table[half + CRTC_INDEX] = self._write_crtc_index
            table[half + CRTC_DATA] = self._write_crtc
            table[half + INPUT_STATUS_1] = self._write_feature
        table[VBE_INDEX] = self._write_vbe_index
        table[VBE_DATA] = self._write_vbe
        return table

    # --- general registers --------------------------------------------------------------------------

    def _write_misc(self, value: int) -> None:
        self.state.misc = value
        self._memory_changed()
        self._timing_changed()

    def _write_subsystem_enable(self, value: int) -> None:
        self.state.subsystem_enable = value & 1
        self._memory_changed()

    def _write_feature(self, value: int) -> None:
        self.state.feature = value & FEATURE_MASK

    def _read_status0(self) -> int:
        return STATUS0_SENSE | (STATUS0_INTERRUPT if self.state.retrace_interrupt else 0)

    def _read_status1(self) -> int:
        state, now = self.state, self._clock.now()
        state.attribute_data = False
        self._keep_beam_moving(now)
        state.beam_read = now
        return self._beam_timing().status(now + state.beam_skew)

    def _keep_beam_moving(self, now: int) -> None:
        """Keep the promises that `timing` makes to drivers that spin."""
        state = self.state
        moved = now - state.beam_read
        if moved == 0:
            state.beam_skew = self._beam_timing().next_edge(now + state.beam_skew) - now
        elif 0 < moved < READ_TIME:
            state.beam_skew += READ_TIME - moved
        else:
            return
        if state.retrace_at is None:
            return
        if state.retrace_at <= now + state.beam_skew:
            self._retrace()
        else:
            self._update_interrupt()

    # --- attribute controller -----------------------------------------------------------------------

    def _read_attribute(self) -> int:
        return _indexed(self.state.attribute, self.state.attribute_index & AR_INDEX_MASK)

    def _write_attribute(self, value: int) -> None:
        state = self.state
        is_data, state.attribute_data = state.attribute_data, not state.attribute_data
        if not is_data:
            state.attribute_index = value & (AR_INDEX_MASK | AR_PAS)
            return
        index = state.attribute_index & AR_INDEX_MASK
        locked = index < 0x10 and state.attribute_index & AR_PAS
        if index < len(ATTRIBUTE_MASKS) and not locked:
            state.attribute[index] = value & ATTRIBUTE_MASKS[index]

    # --- sequencer and graphics controller ----------------------------------------------------------

    def _write_sequencer_index(self, value: int) -> None:
        self.state.sequencer_index = value & 0x07

    def _write_sequencer(self, value: int) -> None:
        state = self.state
        index = state.sequencer_index
        if index >= len(SEQUENCER_MASKS):
            return
        state.sequencer[index] = value & SEQUENCER_MASKS[index]
        if index == SR_CLOCKING:
            self._timing_changed()
        else:
            self._memory_changed()

    def _write_graphics_index(self, value: int) -> None:
        self.state.graphics_index = value & 0x0F

    def _write_graphics(self, value: int) -> None:
        state = self.state
        index = state.graphics_index
        if index < len(GRAPHICS_MASKS):
            state.graphics[index] = value & GRAPHICS_MASKS[index]
            self._memory_changed()

    # --- CRT controller -----------------------------------------------------------------------------

    def _write_crtc_index(self, value: int) -> None:
        self.state.crtc_index = value & 0x1F

    def _write_crtc(self, value: int) -> None:
        crtc, index = self.state.crtc, self.state.crtc_index
        if index >= len(CRTC_MASKS):
            return
        if index < CR_PROTECTED and crtc[CR_RETRACE_END] & CR11_PROTECT:
            if index != CR_OVERFLOW:
                return
            value = crtc[index] & ~CR7_LINE_COMPARE_8 | value & CR7_LINE_COMPARE_8
        crtc[index] = value & CRTC_MASKS[index]
        if not CR_CURSOR_START <= index <= CR_CURSOR_LOW:
            self._timing_changed()

    def _beam_timing(self) -> BeamTiming:
        if self._timing is None:
            state = self.state
            self._timing = BeamTiming.from_registers(state.misc, state.sequencer[SR_CLOCKING], state.crtc)
        return self._timing

    def _timing_changed(self) -> None:
        """The frame or the interrupt's control bits are others now."""
        self._timing = None
        state = self.state
        if not state.crtc[CR_RETRACE_END] & CR11_INTERRUPT_RUN:
            state.retrace_interrupt = False
            state.retrace_at = None
        elif not state.retrace_interrupt:
            state.retrace_at = self._beam_timing().next_retrace(self._clock.now() + state.beam_skew)
        self._update_interrupt()

    def _retrace(self) -> None:
        self.state.retrace_interrupt = True
        self.state.retrace_at = None
        self._update_interrupt()

    def _update_interrupt(self) -> None:
        """Bring the line and the timer in line with the state."""
        state = self.state
        off = state.crtc[CR_RETRACE_END] & CR11_INTERRUPT_OFF
        self._irq.set(state.retrace_interrupt and not off)
        if state.retrace_at is None:
            self._retrace_timer.disarm()
        else:
            self._retrace_timer.arm(state.retrace_at - state.beam_skew)

    # --- DAC and VBE --------------------------------------------------------------------------------

    def _write_pel_mask(self, value: int) -> None:
        self.state.dac.mask = value

    def _write_pel_data(self, value: int) -> None:
        wide = self.state.vbe.enable & EIGHT_BIT_DAC
        dac.write_data(self.state.dac, value & (dac.EIGHT_BITS if wide else dac.SIX_BITS))

    def _write_vbe_index(self, value: int) -> None:
        self.state.vbe.index = value

    def _write_vbe(self, value: int) -> None:
        if self._vbe.write(value):
            self._clear_video_memory()
        self._memory_changed()

    def _clear_video_memory(self) -> None:
        state = self.state
        if self._vbe.planar:
            state.planes = empty_planes()
            state.upper_planes.clear()
            self._planar_paths.clear()
        else:
            state.vbe.memory.clear()

    # --- memory -------------------------------------------------------------------------------------

    def mmio_read(self, offset: int, size: int) -> int:
        """A read of the window; `offset` counts from A0000."""
        return self._memory_read(offset, size)

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """A write to the window; `offset` counts from A0000."""
        self._touched = True
        self._memory_write(offset, size, value)

    def _memory_changed(self) -> None:
        """Registers changed: choose the paths at the next access, for a guest sets many in a row."""
        self._memory_read = self._first_read
        self._memory_write = self._first_write

    def _first_read(self, offset: int, size: int) -> int:
        self._choose_paths()
        return self._memory_read(offset, size)

    def _first_write(self, offset: int, size: int, value: int) -> None:
        self._choose_paths()
        self._memory_write(offset, size, value)

    def _choose_paths(self) -> None:
        state = self.state
        if not state.misc & MISC_RAM_ENABLE or not state.subsystem_enable:
            self._memory_read, self._memory_write = floating_read, floating_write
        elif self._vbe.enabled and not self._vbe.planar:
            self._memory_read, self._memory_write = self._bank_paths()
        else:
            self._memory_read, self._memory_write = self._map_paths()

    def _map_paths(self) -> _Paths:
        """Access to the four maps, as the registers have it."""
        state, sequencer = self.state, self.state.sequencer
        bank = state.vbe.bank if self._vbe.planar else 0
        key = (bank, state.misc, sequencer[SR_MAP_MASK], sequencer[SR_MEMORY], bytes(state.graphics))
        paths = self._planar_paths.get(key)
        if paths is None:
            mode = MemoryMode.from_registers(state.misc, sequencer, state.graphics)
            planes = state.bank_planes(bank)
            paths = planar.read_path(mode, planes, state), planar.write_path(mode, planes, state)
            if len(self._planar_paths) >= _CACHED_PATHS:
                self._planar_paths.clear()
            self._planar_paths[key] = paths
        return paths

    def _bank_paths(self) -> _Paths:
        """A0000-AFFFF as the selected bank of the linear memory."""
        linear, start = self.linear, self.state.vbe.bank * BANK_SIZE

        def read(offset: int, size: int) -> int:
            if offset + size > _WINDOW_64K:
                return floating_read(offset, size)
            return linear.mmio_read(start + offset, size)

        def write(offset: int, size: int, value: int) -> None:
            if offset + size <= _WINDOW_64K:
                linear.mmio_write(start + offset, size, value)

        return read, write


def _port_ranges(mono_ports: bool, vbe: bool) -> tuple[PortRange, ...]:
    ranges = [PortRange(PORT_BASE, 0x20, sizes=(1, 2), name="vga+")]
    if mono_ports:
        ranges.append(PortRange(0x3B4, 2, sizes=(1, 2), name="vga+ mono", offset=MONO + CRTC_INDEX))
        ranges.append(PortRange(0x3BA, 1, name="vga+ mono", offset=MONO + INPUT_STATUS_1))
    if vbe:
        ranges.append(PortRange(_VBE_PORT, 2, sizes=(2,), name="vbe", offset=VBE_INDEX))
        ranges.append(PortRange(_VBE_PORT + 1, 2, sizes=(2,), name="vbe", offset=VBE_DATA))
    return tuple(ranges)


def _floating() -> int:
    return 0xFF


def _ignored(_value: int) -> None:
    """A write to a port that is read only or not there."""


def _indexed(registers: bytearray, index: int) -> int:
    return registers[index] if index < len(registers) else 0
