"""Chipset configuration registers of a PCH: 16 KiB of memory at RCBA.

Source: Intel C610 series PCH data sheet (330788), chapter 10 "Chipset Configuration Registers".

| offset | register | |
|---|---|---|
| 3404 | HPTC | 7 address enable (no HPET is behind it), 1:0 address select |
| 3410 | GCS | 12 FLRCSSEL, 11:10 BBS boot BIOS straps, 9 SERM, 5 NR, 4 AME, 3 SPS, 2 RPR, 0 BILD |

GCS.NR (no reboot): the TCO timer does not reset the machine. It is set after a reset, as a server's firmware
leaves it, and software may clear it (the strap that would forbid that is low). GCS.BILD can only be set and
locks BBS. Every other offset is scratch. Not modelled: what the scratch offsets and the other bits do on a
real chip.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from portvisor.ports import Device

LENGTH = 0x4000
HPTC, GCS = 0x3404, 0x3410
BILD, NO_REBOOT, BBS = 1 << 0, 1 << 5, 3 << 10
GCS_RESET = NO_REBOOT
WRITABLE = {HPTC: 0x83, GCS: 1 << 12 | BBS | 1 << 9 | NO_REBOOT | 1 << 4 | 1 << 3 | 1 << 2 | BILD}
"""Bits that software may write, of the registers that are not scratch."""


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
        data = self.state.data
        old = {register: self._dword(register) for register in WRITABLE}
        for index in range(offset, min(offset + size, LENGTH)):
            data[index] = value >> 8 * (index - offset) & 0xFF
        for register, before in old.items():
            self._settle(register, before)

    def _dword(self, offset: int) -> int:
        return int.from_bytes(self.state.data[offset : offset + 4], "little")

    def _settle(self, register: int, before: int) -> None:
        """Put back what a write may not change."""
        writable = WRITABLE[register]
        if register == GCS and before & BILD:
            writable &= ~(BBS | BILD)
        value = before & ~writable | self._dword(register) & writable
        self.state.data[register : register + 4] = value.to_bytes(4, "little")
