"""All that changes in the VGA: one dataclass per block of the chip, deep-copyable and comparable."""

from __future__ import annotations

from dataclasses import dataclass, field

PLANE_SIZE = 0x10000
"""Bytes in one of the four memory maps."""

Planes = list[bytearray]
"""The four maps of one 64 KiB bank."""


def empty_planes() -> Planes:
    return [bytearray(PLANE_SIZE) for _ in range(4)]


@dataclass
class DacState:
    """The palette DAC (IMS G171 and its IBM variant)."""

    mask: int = 0xFF
    address: int = 0
    reading: bool = False
    """The last index written was the one for reading (3C7)."""
    component: int = 0
    """Which of red, green and blue is next at 3C9."""
    buffer: bytearray = field(default_factory=lambda: bytearray(3))
    palette: bytearray = field(default_factory=lambda: bytearray(3 * 256))


@dataclass
class VbeState:
    """The Bochs VBE registers and the linear memory behind them."""

    index: int = 0
    id: int = 0xB0C5
    x_resolution: int = 0
    y_resolution: int = 0
    bits_per_pixel: int = 8
    enable: int = 0
    bank: int = 0
    virtual_width: int = 0
    virtual_height: int = 0
    x_offset: int = 0
    y_offset: int = 0
    memory: dict[int, bytearray] = field(default_factory=dict)
    """Linear frame buffer by 64 KiB bank; a bank exists from its first write on."""


@dataclass
class VgaState:
    """Every register, the memory, and where the beam is."""

    misc: int = 0
    feature: int = 0
    subsystem_enable: int = 1
    sequencer_index: int = 0
    sequencer: bytearray = field(default_factory=lambda: bytearray(5))
    graphics_index: int = 0
    graphics: bytearray = field(default_factory=lambda: bytearray(9))
    crtc_index: int = 0
    crtc: bytearray = field(default_factory=lambda: bytearray(25))
    attribute_index: int = 0
    """Address register of the attribute controller, with the palette address source in bit 5."""
    attribute_data: bool = False
    """The flip-flop: the next write to 3C0 is data."""
    attribute: bytearray = field(default_factory=lambda: bytearray(21))
    dac: DacState = field(default_factory=DacState)
    vbe: VbeState = field(default_factory=VbeState)
    planes: Planes = field(default_factory=empty_planes)
    upper_planes: dict[int, Planes] = field(default_factory=dict)
    """Banks 1 and up of planar memory: only the 4-bit VBE modes reach them."""
    latch: int = 0
    """The four data latches, map 0 in the low byte."""
    retrace_interrupt: bool = False
    """The vertical interrupt is pending."""
    retrace_at: int | None = None
    """Beam time (clock plus skew, ns) of the retrace that sets it; None while it is held clear or pending."""
    beam_skew: int = 0
    """Nanoseconds that the beam is ahead of the clock (see `timing`)."""
    beam_read: int = -1
    """Clock time of the last look at the beam, ns."""

    def bank_planes(self, bank: int) -> Planes:
        """The maps of a bank, made on first use."""
        if bank == 0:
            return self.planes
        if bank not in self.upper_planes:
            self.upper_planes[bank] = empty_planes()
        return self.upper_planes[bank]
