"""Register numbers, bits, writable-bit masks and names of the VGA.

Source: IBM PS/2 Hardware Interface Technical Reference, "Video Subsystem".
"""

from __future__ import annotations

from typing import Final

# Offsets of the ports from 3C0. The monochrome twins of 3D4, 3D5 and 3DA are at +20h, VBE after them.
PORT_BASE: Final = 0x3C0
ATTRIBUTE: Final = 0x00
ATTRIBUTE_READ: Final = 0x01
MISC_WRITE: Final = 0x02
SUBSYSTEM_ENABLE: Final = 0x03
SEQUENCER_INDEX: Final = 0x04
SEQUENCER_DATA: Final = 0x05
PEL_MASK: Final = 0x06
PEL_READ_INDEX: Final = 0x07
PEL_WRITE_INDEX: Final = 0x08
PEL_DATA: Final = 0x09
FEATURE_READ: Final = 0x0A
MISC_READ: Final = 0x0C
GRAPHICS_INDEX: Final = 0x0E
GRAPHICS_DATA: Final = 0x0F
SWITCHED_PORTS: Final = 0x10  # from here on, misc output bit 0 chooses 3Bx or 3Dx
CRTC_INDEX: Final = 0x14
CRTC_DATA: Final = 0x15
INPUT_STATUS_1: Final = 0x1A
MONO: Final = 0x20
VBE_INDEX: Final = 0x40
VBE_DATA: Final = 0x41

# Miscellaneous output register (3C2 W, 3CC R)
MISC_COLOUR: Final = 0x01
MISC_RAM_ENABLE: Final = 0x02
MISC_CLOCK_SHIFT: Final = 2
MISC_PAGE: Final = 0x20  # 1 = even addresses of a plane are reached in odd/even modes

# Input status registers
STATUS0_INTERRUPT: Final = 0x80
STATUS0_SENSE: Final = 0x10
STATUS1_BLANK: Final = 0x01
STATUS1_RETRACE: Final = 0x08

FEATURE_MASK: Final = 0x0B

# Sequencer
SR_CLOCKING: Final = 1
SR_MAP_MASK: Final = 2
SR_FONT: Final = 3
SR_MEMORY: Final = 4
SR1_8_DOTS: Final = 0x01
SR1_HALF_CLOCK: Final = 0x08
SR1_SCREEN_OFF: Final = 0x20
SR4_EXTENDED: Final = 0x02
SR4_SEQUENTIAL: Final = 0x04  # 0 = odd/even
SR4_CHAIN4: Final = 0x08

# Graphics controller
GR_SET_RESET: Final = 0
GR_ENABLE_SET_RESET: Final = 1
GR_COMPARE: Final = 2
GR_ROTATE: Final = 3
GR_READ_MAP: Final = 4
GR_MODE: Final = 5
GR_MISC: Final = 6
GR_DONT_CARE: Final = 7
GR_BIT_MASK: Final = 8
GR5_READ_COMPARE: Final = 0x08
GR5_ODD_EVEN: Final = 0x10
GR5_INTERLEAVE: Final = 0x20
GR5_256_COLOURS: Final = 0x40
GR6_GRAPHICS: Final = 0x01
GR6_CHAIN_ODD_EVEN: Final = 0x02

# CRT controller
CR_OVERFLOW: Final = 0x07
CR_PRESET_ROW: Final = 0x08
CR_MAXIMUM_SCAN: Final = 0x09
CR_CURSOR_START: Final = 0x0A
CR_CURSOR_END: Final = 0x0B
CR_START_HIGH: Final = 0x0C
CR_START_LOW: Final = 0x0D
CR_CURSOR_HIGH: Final = 0x0E
CR_CURSOR_LOW: Final = 0x0F
CR_RETRACE_START: Final = 0x10
CR_RETRACE_END: Final = 0x11
CR_DISPLAY_END: Final = 0x12
CR_OFFSET: Final = 0x13
CR_UNDERLINE: Final = 0x14
CR_MODE: Final = 0x17
CR_LINE_COMPARE: Final = 0x18
CR7_LINE_COMPARE_8: Final = 0x10  # the one bit of 00-07 that the protect bit does not guard
CR_PROTECTED: Final = 8  # registers below this number are write protected by CR11 bit 7
CR11_INTERRUPT_RUN: Final = 0x10  # 0 = clear the vertical interrupt and hold it clear
CR11_INTERRUPT_OFF: Final = 0x20
CR11_PROTECT: Final = 0x80
CR14_COUNT_BY_4: Final = 0x20
CR14_DOUBLEWORD: Final = 0x40
CR17_MA13: Final = 0x01  # 0 = row scan bit 0 becomes memory address bit 13
CR17_MA14: Final = 0x02  # 0 = row scan bit 1 becomes memory address bit 14
CR17_HALF_LINES: Final = 0x04
CR17_COUNT_BY_2: Final = 0x08
CR17_WRAP_15: Final = 0x20
CR17_BYTE_MODE: Final = 0x40

# Attribute controller
AR_MODE: Final = 0x10
AR_OVERSCAN: Final = 0x11
AR_PLANE_ENABLE: Final = 0x12
AR_PANNING: Final = 0x13
AR_COLOUR_SELECT: Final = 0x14
AR_INDEX_MASK: Final = 0x1F
AR_PAS: Final = 0x20  # palette address source: 1 = the display owns the palette
AR10_LINE_GRAPHICS: Final = 0x04
AR10_BLINK: Final = 0x08
AR10_PAN_TOP_ONLY: Final = 0x20
AR10_SELECT_54: Final = 0x80

# Bits that exist; the others read 0. One entry per register.
SEQUENCER_MASKS: Final = bytes((0x03, 0x3D, 0x0F, 0x3F, 0x0E))
GRAPHICS_MASKS: Final = bytes((0x0F, 0x0F, 0x0F, 0x1F, 0x03, 0x7B, 0x0F, 0x0F, 0xFF))
CRTC_MASKS: Final = bytes.fromhex("ffffffffffffffff7fff3f7fffffffffffffffff7fffffefff")
ATTRIBUTE_MASKS: Final = bytes.fromhex("3f" * 16 + "efff3f0f0f")

PORT_NAMES: Final = {
    ATTRIBUTE: "Attribute Address/Data",
    ATTRIBUTE_READ: "Attribute Data",
    SUBSYSTEM_ENABLE: "Video Subsystem Enable",
    SEQUENCER_INDEX: "Sequencer Address",
    SEQUENCER_DATA: "Sequencer Data",
    PEL_MASK: "PEL Mask",
    PEL_WRITE_INDEX: "PEL Address Write Mode",
    PEL_DATA: "PEL Data",
    FEATURE_READ: "Feature Control",
    MISC_READ: "Miscellaneous Output",
    GRAPHICS_INDEX: "Graphics Address",
    GRAPHICS_DATA: "Graphics Data",
    CRTC_INDEX: "CRT Controller Address",
    CRTC_DATA: "CRT Controller Data",
    VBE_INDEX: "VBE Index",
    VBE_DATA: "VBE Data",
}
"""Ports that have one name in both directions."""

READ_WRITE_NAMES: Final = {
    MISC_WRITE: ("Input Status 0", "Miscellaneous Output"),
    PEL_READ_INDEX: ("DAC State", "PEL Address Read Mode"),
    INPUT_STATUS_1: ("Input Status 1", "Feature Control"),
}
"""Ports where a read and a write reach different registers."""

SEQUENCER_NAMES: Final = ("Reset", "Clocking Mode", "Map Mask", "Character Map Select", "Memory Mode")
GRAPHICS_NAMES: Final = (
    "Set/Reset",
    "Enable Set/Reset",
    "Color Compare",
    "Data Rotate",
    "Read Map Select",
    "Graphics Mode",
    "Miscellaneous",
    "Color Don't Care",
    "Bit Mask",
)
CRTC_NAMES: Final = (
    "Horizontal Total",
    "Horizontal Display-Enable End",
    "Start Horizontal Blanking",
    "End Horizontal Blanking",
    "Start Horizontal Retrace Pulse",
    "End Horizontal Retrace",
    "Vertical Total",
    "Overflow",
    "Preset Row Scan",
    "Maximum Scan Line",
    "Cursor Start",
    "Cursor End",
    "Start Address High",
    "Start Address Low",
    "Cursor Location High",
    "Cursor Location Low",
    "Vertical Retrace Start",
    "Vertical Retrace End",
    "Vertical Display-Enable End",
    "Offset",
    "Underline Location",
    "Start Vertical Blanking",
    "End Vertical Blanking",
    "CRT Mode Control",
    "Line Compare",
)
ATTRIBUTE_NAMES: Final = (
    *(f"Internal Palette {number}" for number in range(16)),
    "Attribute Mode Control",
    "Overscan Color",
    "Color Plane Enable",
    "Horizontal PEL Panning",
    "Color Select",
)
VBE_NAMES: Final = (
    "ID",
    "X Resolution",
    "Y Resolution",
    "Bits per Pixel",
    "Enable",
    "Bank",
    "Virtual Width",
    "Virtual Height",
    "X Offset",
    "Y Offset",
    "Video Memory 64K",
)
