"""Chipset configuration registers of a PCH: 16 KiB of memory at RCBA.

Source: Intel C610 series PCH data sheet (330788), chapter 10 "Chipset Configuration Registers".

| offset | register | |
|---|---|---|
| 3410 | GCS | 5 NR: the TCO timer does not reset the machine; 11:10 boot BIOS straps |
| 3404 | HPTC | 7 address enable (no HPET is behind it) |

Every other offset is scratch. Not modelled: what the scratch offsets do on a real chip.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from portvisor.ports import Device

LENGTH = 0x4000
GCS, NO_REBOOT = 0x3410, 1 << 5
GCS_RESET = NO_REBOOT


def _registers() -> bytearray:
    data = bytearray(LENGTH)
    data[GCS] = GCS_RESET
    return data


class Rcba(Device):
    """The block; has no ports, the board maps it as memory."""

    name = "rcba"

    @dataclass
    class State:
        """The registers' bytes."""

        data: bytearray = field(default_factory=_registers)

    state: State

    @property
    def no_reboot(self) -> bool:
        """GCS.NR."""
        return bool(self.state.data[GCS] & NO_REBOOT)

    def mmio_read(self, offset: int, size: int) -> int:
        """A guest read."""
        return int.from_bytes(self.state.data[offset : offset + size], "little")

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        """A guest write; what leaves the block is lost."""
        end = min(offset + size, LENGTH)
        self.state.data[offset:end] = value.to_bytes(size, "little")[: end - offset]
