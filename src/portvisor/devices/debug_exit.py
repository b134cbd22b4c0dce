"""Exit port of virtual machines: a guest ends the run and says with which status.

Source: the convention of QEMU's isa-debug-exit (default port 501; test kernels use F4).

    offset  read   write
    0       0      end the run with status (value << 1) | 1

The status is always odd, so that it cannot be taken for the host's own success.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import ClassVar

from portvisor.ports import Device, PortRange


class DebugExit(Device):
    """Calls `stop(status)` at any write of 1, 2 or 4 bytes.

    Args:
        stop: ends the run; gets the status.
        base: first port.
        length: ports taken; a write to any of them counts.
    """

    REGISTERS: ClassVar[Mapping[int, str]] = {0: "EXIT"}

    def __init__(
        self, stop: Callable[[int], None], *, base: int = 0xF4, length: int = 4, name: str = "debug-exit"
    ) -> None:
        self.name = name
        super().__init__()
        self.ports = (PortRange(base, length, (1, 2, 4), name),)
        self._stop = stop

    def read(self, offset: int, size: int) -> int:
        return 0

    def write(self, offset: int, size: int, value: int) -> None:
        self._stop(value << 1 | 1)
