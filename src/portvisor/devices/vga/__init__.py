"""The VGA: the chip (`Vga`), its screen as text (`TextScreen`, `render_ansi`) and as a picture (`Picture`)."""

from portvisor.devices.vga.ansi import render_ansi
from portvisor.devices.vga.device import MEMORY_BASE, MEMORY_LENGTH, Vga
from portvisor.devices.vga.picture import Picture, render
from portvisor.devices.vga.state import VgaState
from portvisor.devices.vga.text import Cell, Cursor, TextScreen, read_text

__all__ = [
    "MEMORY_BASE",
    "MEMORY_LENGTH",
    "Cell",
    "Cursor",
    "Picture",
    "TextScreen",
    "Vga",
    "VgaState",
    "read_text",
    "render",
    "render_ansi",
]
