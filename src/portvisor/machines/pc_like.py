"""What front ends may rely on: a board with a keyboard and a VGA."""

from __future__ import annotations

from portvisor.devices.ps2_keyboard import Ps2Keyboard
from portvisor.devices.ps2_mouse import Ps2Mouse
from portvisor.devices.vga import Vga
from portvisor.machines.legacy import LegacyChips
from portvisor.machines.machine import Machine


class PcLike(Machine):
    """A machine with the legacy chips."""

    chips: LegacyChips

    @property
    def keyboard(self) -> Ps2Keyboard:
        """The keyboard at the first port of the keyboard controller."""
        return self.chips.keyboard_controller.keyboard

    @property
    def mouse(self) -> Ps2Mouse:
        """The mouse at the second port."""
        return self.chips.keyboard_controller.mouse

    @property
    def screen(self) -> Vga:
        """The display adapter."""
        return self.chips.vga
