"""IPMI Keyboard Controller Style interface: the system interface of a BMC.

Source: IPMI 2.0 revision 1.1, chapter 9.

| port | read | write |
|---|---|---|
| data | DATA_OUT | DATA_IN (68 READ asks for the next byte) |
| status, command | 0 OBF, 1 IBF, 2 SMS_ATN, 3 C/D#, 7:6 state | 60 GET_STATUS/ABORT, 61 WRITE_START, 62 WRITE_END |

States: 00 IDLE, 01 READ, 10 WRITE, 11 ERROR. The BMC takes every byte at once, so IBF is never seen set, and
answers each write of a transfer with a byte in DATA_OUT: a dummy in WRITE, the response's next one in READ, a
dummy at the return to IDLE. OBF is the interrupt. WRITE_START begins a new transfer in any state.

Not modelled: the OEM bits 5:4, which read 0; Set BMC Global Enables bit 0 (the interrupt is always on, as
22.1 allows).
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
NO_ERROR, ABORTED, ILLEGAL_CONTROL, LENGTH_ERROR = 0x00, 0x01, 0x02, 0x06
"""Interface status codes (table 9-4)."""
MESSAGE_LIMIT = 255
"""Bytes of a request that are taken."""


class IpmiKcs(Device):
    """The two registers; `execute` is the BMC: a request's bytes in, the response's bytes out."""

    name = "ipmi-kcs"
    REGISTERS: ClassVar = {DATA: "KCS_DATA", STATUS: "KCS_STATUS"}

    @dataclass
    class State:
        """Phase of the transfer.

        `ending` is set between WRITE_END and the last byte, `aborting` between GET_STATUS/ABORT and the byte
        that asks for the status. `error` is the status code that waits for the next GET_STATUS/ABORT.
        """

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
        """Registers at `base` and `base + spacing`; without an `irq` the interface is polled."""
        super().__init__()
        self._execute = execute
        self._has_irq = irq is not None
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

    def set_attention(self, attention: bool, interrupt: bool = True) -> None:
        """SMS_ATN: the BMC has a message or an event for the host.

        With `interrupt` the host is also told by OBF (9.12): in IDLE through a dummy byte, during a transfer
        through the one that ends it.
        """
        self.state.attention = attention
        if attention and interrupt and self._has_irq and self.state.phase == IDLE:
            self._put(0)

    def read(self, offset: int, size: int) -> int:
        state = self.state
        if offset == DATA:
            self._empty_output()
            return state.output
        status = state.phase << STATE_SHIFT
        status |= OBF if state.output_full else 0
        status |= SMS_ATN if state.attention else 0
        return status | (COMMAND_BIT if state.command_written else 0)

    def write(self, offset: int, size: int, value: int) -> None:
        self.state.command_written = offset == STATUS
        self._empty_output()
        if offset == STATUS:
            self._command(value)
        else:
            self._data(value)

    def _empty_output(self) -> None:
        self.state.output_full = False
        self._irq.set(0)

    def _put(self, value: int) -> None:
        self.state.output = value
        self.state.output_full = True
        self._irq.set(1)

    def _command(self, value: int) -> None:
        state = self.state
        if value == WRITE_START:
            state.phase = WRITE
            state.ending = state.aborting = False
            state.request.clear()
            self._put(0)
        elif value == WRITE_END and state.phase == WRITE and not (state.aborting or state.ending):
            state.ending = True
            self._put(0)
        elif value == GET_STATUS_ABORT:
            if state.phase in (WRITE, READ) and not state.aborting:
                state.error = ABORTED
            state.phase = WRITE
            state.aborting = True
            state.ending = False
            self._put(0)
        else:
            self._fail(ILLEGAL_CONTROL)

    def _data(self, value: int) -> None:
        state = self.state
        if state.aborting:
            self._abort_byte()
        elif state.phase == WRITE:
            self._request_byte(value)
        elif state.phase == READ and value == READ_BYTE:
            self._next_response_byte()
        else:
            self._fail(ILLEGAL_CONTROL)

    def _abort_byte(self) -> None:
        """The byte after GET_STATUS/ABORT asks for the status, which is read like a response of one byte."""
        state = self.state
        state.aborting = False
        state.phase = READ
        state.request.clear()
        state.response.clear()
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
