"""pvpanic: a port by which a guest tells its host that its kernel has crashed.

Source: the convention of QEMU's pvpanic (ISA variant, port 505).

| bit | read | write |
|---|---|---|
| 0 | PANICKED is understood | the guest has panicked |
| 1 | CRASH_LOADED is understood | the guest has panicked and goes on with a crash kernel |

Bits that are not understood are ignored. Not modelled: the PCI variant.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from portvisor.ports import Device, PortRange

PORT = 0x505
PANICKED, CRASH_LOADED = 1 << 0, 1 << 1


class PvPanic(Device):
    """The port.

    Args:
        on_event: told PANICKED or CRASH_LOADED; of both the first counts.
        base: the port.
        events: which events are understood.
    """

    name = "pvpanic"
    REGISTERS: ClassVar = {0: "PVPANIC"}

    def __init__(
        self, on_event: Callable[[int], None], *, base: int = PORT, events: int = PANICKED | CRASH_LOADED
    ) -> None:
        super().__init__()
        self._on_event = on_event
        self._events = events & (PANICKED | CRASH_LOADED)
        self.ports = (PortRange(base, 1, name="pvpanic"),)

    def read(self, offset: int, size: int) -> int:
        return self._events

    def write(self, offset: int, size: int, value: int) -> None:
        happened = value & self._events
        if happened:
            self._on_event(PANICKED if happened & PANICKED else CRASH_LOADED)
