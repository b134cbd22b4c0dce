"""The Bochs VBE extension ("dispi"): 16-bit index at 1CE, 16-bit data at 1CF, and a linear frame buffer.

Source: the interface description of the Bochs/plex86 VGABIOS project (ids B0C0-B0C5).

    0 id              5 bank of the A0000 window (64 KiB)    A memory size in 64 KiB
    1 x resolution    6 virtual width
    2 y resolution    7 virtual height (read only: what the memory allows)
    3 bits per pixel  8 x offset
    4 enable          9 y offset

Resolution and depth can be written while the display engine is disabled only. A mode that does not fit into the
memory is refused: the enable bit stays 0. With "get capabilities" set in register 4, registers 1-3 read their
largest values. Memory comes into being bank by bank as the guest writes to it.

Not modelled: separate read and write banks, 32 KiB banks and DDC of later Bochs versions. The linear memory is not
the memory of the four maps seen in another order: the 4-bit modes use the maps, all others the linear memory.
"""

from __future__ import annotations

from portvisor.devices.vga.state import VbeState

BANK_SIZE = 0x10000
DEFAULT_MEMORY = 16 << 20
"""Bytes of video memory that Bochs and the vgabios images expect."""
MAX_MEMORY = 256 << 20

MAX_X = 16000
MAX_Y = 12000
MAX_DEPTH = 32
DEPTHS = frozenset((4, 8, 15, 16, 24, 32))

FIRST_ID = 0xB0C0
LAST_ID = 0xB0C5

REG_ID = 0
REG_X = 1
REG_Y = 2
REG_DEPTH = 3
REG_ENABLE = 4
REG_BANK = 5
REG_VIRTUAL_WIDTH = 6
REG_VIRTUAL_HEIGHT = 7
REG_X_OFFSET = 8
REG_Y_OFFSET = 9
REG_MEMORY = 0xA

ENABLED = 0x01
GET_CAPABILITIES = 0x02
EIGHT_BIT_DAC = 0x20
LINEAR = 0x40
KEEP_MEMORY = 0x80
ENABLE_MASK = ENABLED | GET_CAPABILITIES | EIGHT_BIT_DAC | LINEAR | KEEP_MEMORY


def line_bytes(pixels: int, depth: int) -> int:
    """Bytes from one line to the next: of each map with 4 bits a pixel, else of linear memory."""
    return (pixels + 7) // 8 if depth == 4 else pixels * ((depth + 7) // 8)


class LinearMemory:
    """Video memory as the linear frame buffer shows it: an `MmioHandler` for wherever the machine maps it."""

    def __init__(self, size: int) -> None:
        self.size = size
        """Bytes; offsets beyond read ones and ignore writes."""
        self.banks: dict[int, bytearray] = {}
        self.touched = True
        """Set by every write, for whoever redraws."""

    def mmio_read(self, offset: int, size: int) -> int:
        if offset + size > self.size:
            return (1 << 8 * size) - 1
        return int.from_bytes(self.read(offset, size), "little")

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        at = offset & 0xFFFF
        if offset + size > self.size:
            return
        if at + size > BANK_SIZE:
            for step in range(size):
                self.mmio_write(offset + step, 1, value >> 8 * step & 0xFF)
            return
        bank = self.banks.get(offset >> 16)
        if bank is None:
            bank = self.banks[offset >> 16] = bytearray(BANK_SIZE)
        self.touched = True
        bank[at : at + size] = (value & (1 << 8 * size) - 1).to_bytes(size, "little")

    def read(self, offset: int, length: int) -> bytes:
        """Bytes from `offset`; banks never written and addresses beyond the end read 0."""
        data = bytearray()
        while len(data) < length:
            at = offset + len(data) & 0xFFFF
            piece = min(length - len(data), BANK_SIZE - at)
            bank = self.banks.get(offset + len(data) >> 16)
            data += bank[at : at + piece] if bank is not None else bytes(piece)
        return bytes(data)


class Vbe:
    """The register file. `state` belongs to the VGA, which replaces it at reset and restore."""

    def __init__(self, memory_size: int) -> None:
        self.linear = LinearMemory(memory_size)
        self.attach(VbeState())

    def attach(self, state: VbeState) -> None:
        """Work on this state from now on."""
        self.state = state
        self.linear.banks = state.memory

    @property
    def enabled(self) -> bool:
        """Whether the display engine, not the VGA, makes the picture."""
        return bool(self.state.enable & ENABLED)

    @property
    def planar(self) -> bool:
        """Whether the mode uses the four maps."""
        return self.enabled and self.state.bits_per_pixel == 4

    @property
    def _map_size(self) -> int:
        """Bytes that pixels of the present depth can use."""
        return self.linear.size // 4 if self.state.bits_per_pixel == 4 else self.linear.size

    def read(self) -> int:
        """A read of the data port."""
        state, index = self.state, self.state.index
        if state.enable & GET_CAPABILITIES and REG_X <= index <= REG_DEPTH:
            return (MAX_X, MAX_Y, MAX_DEPTH)[index - REG_X]
        registers = (
            state.id,
            state.x_resolution,
            state.y_resolution,
            state.bits_per_pixel,
            state.enable,
            state.bank,
            state.virtual_width,
            state.virtual_height,
            state.x_offset,
            state.y_offset,
            self.linear.size // BANK_SIZE,
        )
        return registers[index] if index < len(registers) else 0

    def write(self, value: int) -> bool:
        """A write of the data port. True if the memory must be cleared for a new mode."""
        state, index = self.state, self.state.index
        if index == REG_ENABLE:
            return self._write_enable(value)
        if index == REG_ID:
            if FIRST_ID <= value <= LAST_ID:
                state.id = value
        elif index <= REG_DEPTH:
            self._write_mode(index, value)
        elif self.enabled:
            self._write_view(index, value)
        return False

    def _write_mode(self, index: int, value: int) -> None:
        state = self.state
        if self.enabled:
            return
        if index == REG_X and 0 < value <= MAX_X:
            state.x_resolution = value
        elif index == REG_Y and 0 < value <= MAX_Y:
            state.y_resolution = value
        elif index == REG_DEPTH and (value or 8) in DEPTHS:
            state.bits_per_pixel = value or 8

    def _write_enable(self, value: int) -> bool:
        state = self.state
        starts = bool(value & ENABLED) and not self.enabled
        if starts and not self._fits(state.x_resolution):
            value &= ~ENABLED
            starts = False
        state.enable = value & ENABLE_MASK
        if starts:
            state.bank = state.x_offset = state.y_offset = 0
            self._set_virtual_width(state.x_resolution)
        return starts and not value & KEEP_MEMORY

    def _fits(self, width: int) -> bool:
        state = self.state
        size = line_bytes(width, state.bits_per_pixel) * state.y_resolution
        return 0 < size <= self._map_size

    def _set_virtual_width(self, width: int) -> None:
        state = self.state
        state.virtual_width = width
        state.virtual_height = min(0xFFFF, self._map_size // line_bytes(width, state.bits_per_pixel))
        state.x_offset = min(state.x_offset, width - state.x_resolution)
        state.y_offset = min(state.y_offset, state.virtual_height - state.y_resolution)

    def _write_view(self, index: int, value: int) -> None:
        state = self.state
        if index == REG_BANK and value < self._map_size // BANK_SIZE:
            state.bank = value
        elif index == REG_VIRTUAL_WIDTH:
            width = max(value, state.x_resolution)
            if self._fits(width):
                self._set_virtual_width(width)
        elif index == REG_X_OFFSET and value <= state.virtual_width - state.x_resolution:
            state.x_offset = value
        elif index == REG_Y_OFFSET and value <= state.virtual_height - state.y_resolution:
            state.y_offset = value
