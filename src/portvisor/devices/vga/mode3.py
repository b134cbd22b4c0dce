"""Mode 3 (80x25 text, colour) as a video BIOS leaves it, for kernels that are started without one.

Source: IBM PS/2 VGA, "BIOS parameter table, mode 3+": 720x400, 9x16 characters.
"""

from __future__ import annotations

from portvisor.devices.vga.registers import AR_PAS
from portvisor.devices.vga.state import VgaState

MISC = 0x67
SEQUENCER = bytes.fromhex("0300030002")
GRAPHICS = bytes.fromhex("0000000000100e0fff")
CRTC = bytes.fromhex("5f4f5082 5581bf1f 004f0d0e 00000000 9c8e8f28 1f96b9a3 ff")
ATTRIBUTE = bytes.fromhex("000102030405140738393a3b3c3d3e3f 0c000f0800")
BLANK = 0x20
GREY_ON_BLACK = 0x07
TEXT_BYTES = 0x8000
"""Of each map, what a 32 KiB window at B8000 reaches."""


def ega_palette() -> bytes:
    """The 64 EGA colours in the DAC's first entries: two bits a component, `rgbRGB`."""
    levels = bytearray(3 * 256)
    for colour in range(64):
        for part in range(3):
            strong, weak = colour >> 2 - part & 1, colour >> 5 - part & 1
            levels[3 * colour + part] = strong * 0x2A + weak * 0x15
    return bytes(levels)


def load_mode3(state: VgaState) -> None:
    """Set all registers, the palette and a blank screen; the font map stays as it is."""
    state.misc = MISC
    state.subsystem_enable = 1
    state.vbe.enable = 0
    state.sequencer[:] = SEQUENCER
    state.graphics[:] = GRAPHICS
    state.crtc[:] = CRTC
    state.attribute[:] = ATTRIBUTE
    state.attribute_index = AR_PAS
    state.attribute_data = False
    state.dac.mask = 0xFF
    state.dac.palette[:] = ega_palette()
    for plane, value in ((0, BLANK), (1, GREY_ON_BLACK)):
        state.planes[plane][0:TEXT_BYTES:2] = bytes((value,)) * (TEXT_BYTES // 2)
