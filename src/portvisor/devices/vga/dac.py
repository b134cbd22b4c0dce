"""The palette DAC: 256 colours of three 6-bit components behind ports 3C6-3C9.

Source: Inmos IMS G171 data sheet ("Microprocessor interface"); IBM PS/2 VGA, "Video Digital-to-Analog
Converter". There is one address register: a read cycle fetches the colour ahead into the buffer and steps the
address, so that 3C8 reads one more than what was written to 3C7. The Bochs VBE enable bit 5 makes the
components 8 bits wide.
"""

from __future__ import annotations

from portvisor.devices.vga.state import DacState

STATE_WRITING = 0x00
STATE_READING = 0x03
SIX_BITS = 0x3F
EIGHT_BITS = 0xFF


def start_reading(dac: DacState, index: int) -> None:
    """A write to 3C7."""
    dac.address = index
    dac.component = 0
    dac.reading = True
    _fetch(dac)


def start_writing(dac: DacState, index: int) -> None:
    """A write to 3C8."""
    dac.address = index
    dac.component = 0
    dac.reading = False


def dac_state(dac: DacState) -> int:
    """A read of 3C7: which of the two indices was written last."""
    return STATE_READING if dac.reading else STATE_WRITING


def read_data(dac: DacState) -> int:
    """A read of 3C9: red, green, blue, then the next colour."""
    value = dac.buffer[dac.component]
    if dac.component < 2:
        dac.component += 1
        return value
    dac.component = 0
    if dac.reading:
        _fetch(dac)
    return value


def write_data(dac: DacState, value: int) -> None:
    """A write to 3C9; the third component stores the colour and steps the address."""
    dac.buffer[dac.component] = value
    if dac.component < 2:
        dac.component += 1
        return
    dac.component = 0
    at = 3 * dac.address
    dac.palette[at : at + 3] = dac.buffer
    dac.address = (dac.address + 1) & 0xFF


def _fetch(dac: DacState) -> None:
    at = 3 * dac.address
    dac.buffer[:] = dac.palette[at : at + 3]
    dac.address = (dac.address + 1) & 0xFF
