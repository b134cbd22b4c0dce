"""Advanced power management control and status, B2 and B3: how software asks the firmware's SMI handler.

Source: Intel C610 series PCH data sheet (330788), 12.8.2 "APM I/O Decode Register".

| port | register | |
|---|---|---|
| B2 | APM_CNT | holds what was written; a write raises an SMI |
| B3 | APM_STS | scratch |

Not modelled: the SMI; `on_control` does what its handler would do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.ports import Device, PortRange

APM_CNT, APM_STS = 0, 1


class Apm(Device):
    """The two registers."""

    ports = (PortRange(0xB2, 2, name="apm"),)
    REGISTERS: ClassVar = {APM_CNT: "APM_CNT", APM_STS: "APM_STS"}

    @dataclass
    class State:
        """Both values."""

        values: list[int] = field(default_factory=lambda: [0, 0])

    state: State

    def __init__(self, on_control: Callable[[int], None] | None = None) -> None:
        super().__init__()
        self._on_control = on_control

    def read(self, offset: int, size: int) -> int:
        return self.state.values[offset]

    def write(self, offset: int, size: int, value: int) -> None:
        self.state.values[offset] = value
        if offset == APM_CNT and self._on_control:
            self._on_control(value)
