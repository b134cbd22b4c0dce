"""Debug console of virtual machines: a port that firmware writes its messages to.

Source: the convention of Bochs (port E9) and of QEMU's isa-debugcon (SeaBIOS uses port 402).

    offset  read            write
    0       E9: "present"   one character

Not modelled: input.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from portvisor.ports import Device, PortRange

PRESENT = 0xE9


class DebugConsole(Device):
    """Passes every byte written to `sink`.

    Args:
        sink: gets the characters, a block of REP OUTS at once.
        base: the port; 402 for SeaBIOS, E9 for Bochs' convention.
    """

    REGISTERS: ClassVar[Mapping[int, str]] = {0: "DEBUG"}

    def __init__(self, sink: Callable[[bytes], None], *, base: int = 0x402, name: str = "debugcon") -> None:
        self.name = name
        super().__init__()
        self.ports = (PortRange(base, 1, name=name),)
        self._sink = sink

    def read(self, offset: int, size: int) -> int:
        return PRESENT

    def write(self, offset: int, size: int, value: int) -> None:
        self._sink(bytes((value,)))

    def read_block(self, offset: int, size: int, count: int) -> bytes:
        return bytes((PRESENT,)) * count

    def write_block(self, offset: int, size: int, data: bytes) -> None:
        self._sink(bytes(data))
