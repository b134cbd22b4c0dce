"""Host access to the four memory maps: what the graphics controller and sequencer do to a byte at A0000-BFFFF.

Source: IBM PS/2 VGA, "Graphics Controller Registers", "Sequencer Registers", "Write/Read Modes".

`MemoryMode` is the meaning of the registers for one access; `write_path` and `read_path` turn it into a function
`(offset, size, ...)` that holds all it needs in its closure. Text, font loading, linear planar copies and mode
13h have paths of their own, because guests move hundreds of kilobytes through them byte by byte; everything
else takes the general path, which is the whole logic:

    write mode 0   data rotated, replaced by set/reset where enabled, ALU with latch, bit mask
    write mode 1   latches
    write mode 2   data bits 3:0 fill the maps, ALU with latch, bit mask
    write mode 3   set/reset fills the maps, ALU with latch, bit mask AND rotated data
    read mode 0    the selected map
    read mode 1    1 where all cared-for maps equal the compare colour

Wider accesses are byte accesses in ascending order. All reads load the latches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from portvisor.devices.vga.registers import (
    GR5_ODD_EVEN,
    GR5_READ_COMPARE,
    GR6_CHAIN_ODD_EVEN,
    GR_BIT_MASK,
    GR_COMPARE,
    GR_DONT_CARE,
    GR_ENABLE_SET_RESET,
    GR_MISC,
    GR_MODE,
    GR_READ_MAP,
    GR_ROTATE,
    GR_SET_RESET,
    MISC_PAGE,
    SR4_CHAIN4,
    SR4_SEQUENTIAL,
    SR_MAP_MASK,
    SR_MEMORY,
)
from portvisor.devices.vga.state import PLANE_SIZE, Planes

WritePath = Callable[[int, int, int], None]
ReadPath = Callable[[int, int], int]

WINDOWS = ((0x00000, 0x20000), (0x00000, 0x10000), (0x10000, 0x08000), (0x18000, 0x08000))
"""Memory map select (GR6 bits 3:2): base relative to A0000, and length."""

FILL = tuple(sum(0xFF << 8 * plane for plane in range(4) if bits >> plane & 1) for bits in range(16))
"""Four bits, one a map, to four bytes."""
REPEAT = 0x01010101
EVEN_MAPS = 0b0101
ODD_MAPS = 0b1010


class Latched(Protocol):
    """Who holds the data latches."""

    latch: int


@dataclass(frozen=True, slots=True)
class MemoryMode:
    """The registers that decide what a host access does."""

    base: int
    length: int
    chain4: bool
    odd_even_write: bool
    odd_even_read: bool
    replace_a0: bool
    page: int
    map_mask: int
    write_mode: int
    rotate: int
    function: int
    set_reset: int
    enable_set_reset: int
    bit_mask: int
    read_compare: bool
    read_map: int
    compare: int
    care: int

    @classmethod
    def from_registers(cls, misc: int, sequencer: bytes | bytearray, graphics: bytes | bytearray) -> MemoryMode:
        """Decode the sequencer's, the graphics controller's and the miscellaneous output register."""
        memory, mode, select = sequencer[SR_MEMORY], graphics[GR_MODE], graphics[GR_MISC]
        base, length = WINDOWS[select >> 2 & 3]
        return cls(
            base=base,
            length=length,
            chain4=bool(memory & SR4_CHAIN4),
            odd_even_write=not memory & SR4_SEQUENTIAL,
            odd_even_read=bool(mode & GR5_ODD_EVEN),
            replace_a0=bool(select & GR6_CHAIN_ODD_EVEN),
            page=0 if misc & MISC_PAGE else 1,
            map_mask=sequencer[SR_MAP_MASK],
            write_mode=mode & 3,
            rotate=graphics[GR_ROTATE] & 7,
            function=graphics[GR_ROTATE] >> 3 & 3,
            set_reset=FILL[graphics[GR_SET_RESET]],
            enable_set_reset=FILL[graphics[GR_ENABLE_SET_RESET]],
            bit_mask=graphics[GR_BIT_MASK],
            read_compare=bool(mode & GR5_READ_COMPARE),
            read_map=graphics[GR_READ_MAP],
            compare=FILL[graphics[GR_COMPARE]],
            care=FILL[graphics[GR_DONT_CARE]],
        )

    @property
    def plain(self) -> bool:
        """Whether a written byte reaches the maps unchanged."""
        return (
            self.write_mode == 0
            and self.rotate == 0
            and self.function == 0
            and self.enable_set_reset == 0
            and self.bit_mask == 0xFF
        )

    @property
    def sequential(self) -> bool:
        """Whether host addresses are map addresses."""
        return not self.chain4 and not self.replace_a0

    @property
    def text(self) -> bool:
        """Whether A0 chooses between an even and an odd map, in a window without A16."""
        return self.replace_a0 and not self.chain4 and self.length <= PLANE_SIZE

    def locate(self, at: int) -> tuple[int, int]:
        """Map address and the maps a write reaches, for an offset into the window."""
        if self.chain4:
            return at & 0xFFFC | at >> 16, self.map_mask & 1 << (at & 3)
        address = at & 0xFFFF
        if self.replace_a0:
            address = address & 0xFFFE | (at >> 16 if self.length > PLANE_SIZE else self.page)
        maps = EVEN_MAPS << (at & 1) if self.odd_even_write else 0xF
        return address, self.map_mask & maps

    def read_plane(self, at: int) -> int:
        """The map that read mode 0 returns, for an offset into the window."""
        if self.chain4:
            return at & 3
        return self.read_map & 2 | at & 1 if self.odd_even_read else self.read_map


def write_path(mode: MemoryMode, planes: Planes, latched: Latched) -> WritePath:
    """The function that serves writes while `mode` lasts."""
    if mode.plain:
        even = [planes[plane] for plane in range(4) if mode.map_mask & EVEN_MAPS & 1 << plane]
        odd = [planes[plane] for plane in range(4) if mode.map_mask & ODD_MAPS & 1 << plane]
        if mode.text and mode.odd_even_write and len(even) == len(odd) == 1:
            return _text_write(mode, even[0], odd[0])
        if mode.sequential and not mode.odd_even_write:
            targets = even + odd
            return _plane_write(mode, targets[0]) if len(targets) == 1 else _planes_write(mode, targets)
        if mode.chain4 and mode.map_mask == 0xF and mode.length <= PLANE_SIZE:
            return _chain4_write(mode, planes)
    return _general_write(mode, planes, latched)


def read_path(mode: MemoryMode, planes: Planes, latched: Latched) -> ReadPath:
    """The function that serves reads while `mode` lasts."""
    if not mode.read_compare:
        if mode.text and mode.odd_even_read:
            return _text_read(mode, planes, latched)
        if mode.chain4 and mode.length <= PLANE_SIZE:
            return _chain4_read(mode, planes, latched)
        if mode.sequential and not mode.odd_even_read:
            return _plane_read(mode, planes, latched)
    return _general_read(mode, planes, latched)


def floating_read(_offset: int, size: int) -> int:
    """A read that nothing answers."""
    return (1 << 8 * size) - 1


def floating_write(_offset: int, _size: int, _value: int) -> None:
    """A write that nothing takes."""


# --- writes ---------------------------------------------------------------------------------------------


def _by_bytes(write_byte: Callable[[int, int], None], at: int, size: int, value: int) -> None:
    for step in range(size):
        write_byte(at + step, value >> 8 * step & 0xFF)


def _text_write(mode: MemoryMode, even: bytearray, odd: bytearray) -> WritePath:
    base, length, page = mode.base, mode.length, mode.page

    def write_byte(at: int, value: int) -> None:
        if 0 <= at < length:
            (odd if at & 1 else even)[at & 0xFFFE | page] = value

    def write(offset: int, size: int, value: int) -> None:
        at = offset - base
        if size == 2 and not at & 1:
            if 0 <= at < length:
                even[at | page] = value & 0xFF
                odd[at | page] = value >> 8 & 0xFF
        elif size == 1:
            if 0 <= at < length:
                (odd if at & 1 else even)[at & 0xFFFE | page] = value & 0xFF
        elif size > 2 and not at & 1 and 0 <= at <= length - size:
            for address in range(at | page, at + size, 2):
                even[address] = value & 0xFF
                odd[address] = value >> 8 & 0xFF
                value >>= 16
        else:
            _by_bytes(write_byte, at, size, value)

    return write


def _plane_write(mode: MemoryMode, plane: bytearray) -> WritePath:
    base, length = mode.base, mode.length

    def write_byte(at: int, value: int) -> None:
        if 0 <= at < length:
            plane[at & 0xFFFF] = value

    def write(offset: int, size: int, value: int) -> None:
        at = offset - base
        if size == 1:
            if 0 <= at < length:
                plane[at & 0xFFFF] = value & 0xFF
        else:
            _by_bytes(write_byte, at, size, value)

    return write


def _planes_write(mode: MemoryMode, targets: Planes) -> WritePath:
    base, length = mode.base, mode.length
    limit = min(length, PLANE_SIZE)

    def write_byte(at: int, value: int) -> None:
        if 0 <= at < length:
            for plane in targets:
                plane[at & 0xFFFF] = value

    def write(offset: int, size: int, value: int) -> None:
        at = offset - base
        if size == 1:
            write_byte(at, value & 0xFF)
        elif 0 <= at <= limit - size:
            data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
            for plane in targets:
                plane[at : at + size] = data
        else:
            _by_bytes(write_byte, at, size, value)

    return write


def _chain4_write(mode: MemoryMode, planes: Planes) -> WritePath:
    base, length = mode.base, mode.length
    map0, map1, map2, map3 = planes

    def write_byte(at: int, value: int) -> None:
        if 0 <= at < length:
            planes[at & 3][at & 0xFFFC] = value

    def write(offset: int, size: int, value: int) -> None:
        at = offset - base
        if size == 1:
            if 0 <= at < length:
                planes[at & 3][at & 0xFFFC] = value & 0xFF
        elif size == 4 and not at & 3 and 0 <= at < length:
            address = at & 0xFFFC
            map0[address] = value & 0xFF
            map1[address] = value >> 8 & 0xFF
            map2[address] = value >> 16 & 0xFF
            map3[address] = value >> 24 & 0xFF
        else:
            _by_bytes(write_byte, at, size, value)

    return write


def _general_write(mode: MemoryMode, planes: Planes, latched: Latched) -> WritePath:
    base, length, locate, combine = mode.base, mode.length, mode.locate, _combiner(mode)
    map0, map1, map2, map3 = planes

    def write_byte(at: int, value: int) -> None:
        if not 0 <= at < length:
            return
        address, maps = locate(at)
        data = combine(value, latched.latch)
        if maps & 1:
            map0[address] = data & 0xFF
        if maps & 2:
            map1[address] = data >> 8 & 0xFF
        if maps & 4:
            map2[address] = data >> 16 & 0xFF
        if maps & 8:
            map3[address] = data >> 24

    def write(offset: int, size: int, value: int) -> None:
        at = offset - base
        if size == 1:
            write_byte(at, value & 0xFF)
        else:
            _by_bytes(write_byte, at, size, value)

    return write


def _combiner(mode: MemoryMode) -> Callable[[int, int], int]:
    """(host byte, latches) to the four bytes that a write offers to the maps."""
    return (_combine_0(mode), lambda _value, latch: latch, _combine_2(mode), _combine_3(mode))[mode.write_mode]


def _rotated(count: int) -> bytes:
    return bytes((value >> count | value << 8 - count) & 0xFF for value in range(256))


ROTATED = tuple(_rotated(count) for count in range(8))


def _alu(function: int, data: int, latch: int) -> int:
    if function == 0:
        return data
    if function == 1:
        return data & latch
    if function == 2:
        return data | latch
    return data ^ latch


def _combine_0(mode: MemoryMode) -> Callable[[int, int], int]:
    rotated, function = ROTATED[mode.rotate], mode.function
    bits = mode.bit_mask * REPEAT
    keep, cpu = bits ^ 0xFFFFFFFF, mode.enable_set_reset ^ 0xFFFFFFFF
    replaced = mode.set_reset & mode.enable_set_reset

    def combine(value: int, latch: int) -> int:
        data = rotated[value] * REPEAT & cpu | replaced
        return _alu(function, data, latch) & bits | latch & keep

    return combine


def _combine_2(mode: MemoryMode) -> Callable[[int, int], int]:
    function, bits = mode.function, mode.bit_mask * REPEAT
    keep = bits ^ 0xFFFFFFFF

    def combine(value: int, latch: int) -> int:
        return _alu(function, FILL[value & 0xF], latch) & bits | latch & keep

    return combine


def _combine_3(mode: MemoryMode) -> Callable[[int, int], int]:
    rotated, function, bit_mask, set_reset = ROTATED[mode.rotate], mode.function, mode.bit_mask, mode.set_reset

    def combine(value: int, latch: int) -> int:
        bits = (rotated[value] & bit_mask) * REPEAT
        return _alu(function, set_reset, latch) & bits | latch & ~bits

    return combine


# --- reads ----------------------------------------------------------------------------------------------


def _collect(read_byte: Callable[[int], int], at: int, size: int) -> int:
    value = 0
    for step in range(size):
        value |= read_byte(at + step) << 8 * step
    return value


def _text_read(mode: MemoryMode, planes: Planes, latched: Latched) -> ReadPath:
    base, length, page = mode.base, mode.length, mode.page
    even, odd = planes[mode.read_map & 2], planes[mode.read_map & 2 | 1]
    map0, map1, map2, map3 = planes

    def read_byte(at: int) -> int:
        if not 0 <= at < length:
            return 0xFF
        address = at & 0xFFFE | page
        latched.latch = map0[address] | map1[address] << 8 | map2[address] << 16 | map3[address] << 24
        return odd[address] if at & 1 else even[address]

    def read(offset: int, size: int) -> int:
        at = offset - base
        if size == 2 and not at & 1 and 0 <= at < length:
            address = at | page
            latched.latch = map0[address] | map1[address] << 8 | map2[address] << 16 | map3[address] << 24
            return even[address] | odd[address] << 8
        return read_byte(at) if size == 1 else _collect(read_byte, at, size)

    return read


def _plane_read(mode: MemoryMode, planes: Planes, latched: Latched) -> ReadPath:
    base, length, plane = mode.base, mode.length, planes[mode.read_map]
    map0, map1, map2, map3 = planes

    def read_byte(at: int) -> int:
        if not 0 <= at < length:
            return 0xFF
        at &= 0xFFFF
        latched.latch = map0[at] | map1[at] << 8 | map2[at] << 16 | map3[at] << 24
        return plane[at]

    def read(offset: int, size: int) -> int:
        at = offset - base
        return read_byte(at) if size == 1 else _collect(read_byte, at, size)

    return read


def _chain4_read(mode: MemoryMode, planes: Planes, latched: Latched) -> ReadPath:
    base, length = mode.base, mode.length
    map0, map1, map2, map3 = planes

    def read_byte(at: int) -> int:
        if not 0 <= at < length:
            return 0xFF
        address = at & 0xFFFC
        latch = map0[address] | map1[address] << 8 | map2[address] << 16 | map3[address] << 24
        latched.latch = latch
        return latch >> 8 * (at & 3) & 0xFF

    def read(offset: int, size: int) -> int:
        at = offset - base
        if size == 4 and not at & 3 and 0 <= at < length:
            read_byte(at)
            return latched.latch
        return read_byte(at) if size == 1 else _collect(read_byte, at, size)

    return read


def _general_read(mode: MemoryMode, planes: Planes, latched: Latched) -> ReadPath:
    base, length, locate, read_plane = mode.base, mode.length, mode.locate, mode.read_plane
    read_compare, compare, care = mode.read_compare, mode.compare, mode.care
    map0, map1, map2, map3 = planes

    def read_byte(at: int) -> int:
        if not 0 <= at < length:
            return 0xFF
        address = locate(at)[0]
        latch = map0[address] | map1[address] << 8 | map2[address] << 16 | map3[address] << 24
        latched.latch = latch
        if not read_compare:
            return latch >> 8 * read_plane(at) & 0xFF
        differs = (latch ^ compare) & care
        return ~(differs | differs >> 8 | differs >> 16 | differs >> 24) & 0xFF

    def read(offset: int, size: int) -> int:
        at = offset - base
        return read_byte(at) if size == 1 else _collect(read_byte, at, size)

    return read
