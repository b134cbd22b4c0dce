"""IPMI Keyboard Controller Style interface: the system interface of a BMC.

Source: IPMI 2.0 revision 1.1, chapter 9.

| port | read | write |
|---|---|---|
| data | DATA_OUT | DATA_IN (68 READ asks for the next byte) |
| status, command | 0 OBF, 1 IBF, 2 SMS_ATN, 3 C/D, 7:6 state | 60 ABORT, 61 WRITE_START, 62 END |

States (9.9): IDLE 00, READ 01, WRITE 10, ERROR 11. The BMC answers at once, so IBF is never seen set.
Not modelled: OEM bits 5:4, interrupts other than the OBF line, transfers slower than the host.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.ports import Device, IrqLine, PortRange

DATA, STATUS = 0, 1
OBF, SMS_ATN, COMMAND_BIT = 1 << 0, 1 << 2, 1 << 3
STATE_SHIFT = 6
IDLE, READ, WRITE, ERROR = range(4)
GET_STATUS_ABORT, WRITE_START, WRITE_END, READ_BYTE = 0x60, 0x61, 0x62, 0x68
NO_ERROR, ABORTED, ILLEGAL_CONTROL, LENGTH_ERROR, UNSPECIFIED = 0x00, 0x01, 0x02, 0x06, 0xFF
MESSAGE_LIMIT = 255


class IpmiKcs(Device):
    """The two registers; `execute` is the BMC: a request's bytes in, the response's bytes out."""

    name = "ipmi-kcs"
    REGISTERS: ClassVar = {DATA: "KCS_DATA", STATUS: "KCS_STATUS"}

    @dataclass
    class State:
        """Phase of the transfer; `ending` is set between WRITE_END and the last byte."""

        phase: int = IDLE
        command_written: bool = False
        output: int = 0
        output_full: bool = False
        attention: bool = False
        request: bytearray = field(default_factory=bytearray)
        response: bytearray = field(default_factory=bytearray)
        ending: bool = False
        aborting: bool = False
        error: int = NO_ERROR

    state: State

    def __init__(
        self,
        execute: Callable[[bytes], bytes],
        irq: IrqLine | None = None,
        base: int = 0xCA2,
        spacing: int = 1,
    ) -> None:
        """Registers at `base` and `base + spacing`."""
        super().__init__()
        self._execute = execute
        self._irq = irq or IrqLine()
        self.base, self.spacing = base, spacing
        self.ports = (
            PortRange(base, 1, name="ipmi kcs", offset=DATA),
            PortRange(base + spacing, 1, name="ipmi kcs", offset=STATUS),
        )

    def reset(self) -> None:
        super().reset()
        self._irq.set(0)

    def restored(self) -> None:
        self._irq.set(self.state.output_full)

    def set_attention(self, attention: bool) -> None:
        """SMS_ATN: the BMC has a message or an event for the host."""
        self.state.attention = attention

    def read(self, offset: int, size: int) -> int:
        state = self.state
        if offset == DATA:
            state.output_full = False
            self._irq.set(0)
            return state.output
        status = state.phase << STATE_SHIFT
        status |= OBF if state.output_full else 0
        status |= SMS_ATN if state.attention else 0
        return status | (COMMAND_BIT if state.command_written else 0)

    def write(self, offset: int, size: int, value: int) -> None:
        self.state.command_written = offset == STATUS
        if offset == STATUS:
            self._command(value)
        else:
            self._data(value)

    def _put(self, value: int) -> None:
        self.state.output = value
        self.state.output_full = True
        self._irq.set(1)

    def _command(self, value: int) -> None:
        state = self.state
        state.output_full = False
        if value == WRITE_START:
            state.phase = WRITE
            state.ending = state.aborting = False
            state.request.clear()
            self._put(0)
        elif value == WRITE_END and state.phase == WRITE and not state.aborting:
            state.ending = True
            self._put(0)
        elif value == GET_STATUS_ABORT:
            if state.phase in (WRITE, READ):
                state.error = ABORTED
            state.phase = WRITE
            state.aborting = True
            state.ending = False
            self._put(0)
        else:
            self._fail(ILLEGAL_CONTROL)

    def _data(self, value: int) -> None:
        state = self.state
        state.output_full = False
        if state.aborting:
            self._abort_byte()
        elif state.phase == WRITE:
            self._request_byte(value)
        elif state.phase == READ and value == READ_BYTE:
            self._next_response_byte()
        else:
            self._fail(ILLEGAL_CONTROL)

    def _abort_byte(self) -> None:
        """9.12: the byte after GET_STATUS/ABORT asks for the status, which is read like a response."""
        state = self.state
        state.aborting = False
        state.phase = READ
        state.response = bytearray()
        self._put(state.error)
        state.error = NO_ERROR

    def _request_byte(self, value: int) -> None:
        state = self.state
        if len(state.request) >= MESSAGE_LIMIT:
            self._fail(LENGTH_ERROR)
            return
        state.request.append(value)
        if not state.ending:
            self._put(0)
            return
        state.ending = False
        state.response = bytearray(self._execute(bytes(state.request)))
        state.request.clear()
        state.phase = READ
        self._next_response_byte()

    def _next_response_byte(self) -> None:
        state = self.state
        if state.response:
            self._put(state.response.pop(0))
        else:
            state.phase = IDLE
            self._put(0)

    def _fail(self, error: int) -> None:
        state = self.state
        state.phase = ERROR
        state.error = error
        state.request.clear()
        state.response.clear()
        state.ending = state.aborting = False
        self._put(0)
