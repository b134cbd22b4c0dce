"""TCO watchdog of an ICH/PCH ("version 2": 0.6 s ticks, reload register).

Source: Intel C610 series PCH data sheet (330788), 12.9 "System Management TCO Registers".

| offset | register | |
|---|---|---|
| 00 | TCO_RLD | 16: reads the count 9:0; any write reloads it from TCO_TMR |
| 02, 03 | TCO_DAT_IN, TCO_DAT_OUT | 8: a write sets SW_TCO_SMI, TCO_INT |
| 04 | TCO1_STS | 16, write 1 to clear: 1 SW_TCO_SMI, 2 TCO_INT, 3 TIMEOUT, 7 NEWCENTURY, 8 BIOSWR |
| 06 | TCO2_STS | 16, write 1 to clear: 0 INTRD_DET, 1 SECOND_TO, 2 BOOT |
| 08 | TCO1_CNT | 16: 8 NMI_NOW, 9 NMI2SMI_EN, 11 TCO_TMR_HLT, 12 TCO_LOCK (sticky) |
| 0A | TCO2_CNT | 16 |
| 0C-0E | TCO_MESSAGE1, TCO_MESSAGE2, TCO_WDCNT | 8 |
| 10 | SW_IRQ_GEN | 8 |
| 12 | TCO_TMR | 16: 9:0 reload value, reset 4 |

First expiry: TIMEOUT is set and the count starts again; second without a write to TCO_RLD in between:
SECOND_TO, and the machine is reset unless GCS.NO_REBOOT is set. SECOND_TO survives the reset. The counter
leaves reset halted, as a server's firmware has left it when the operating system starts (the chip's own reset
value is running). Not modelled: the SMI of the first expiry, NMIs, intruder detection, the effect of TCO_LOCK
on SMI_EN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from portvisor.ports import Clock, Device, PortRange

LENGTH = 0x20
TICK_NS = 600_000_000
COUNT_MASK = 0x3FF
TCO_RLD, TCO_DAT, TCO1_STS, TCO2_STS, TCO1_CNT, TCO2_CNT = 0x00, 0x02, 0x04, 0x06, 0x08, 0x0A
TCO_MESSAGE, TCO_WDCNT, SW_IRQ_GEN, TCO_TMR = 0x0C, 0x0E, 0x10, 0x12
SW_TCO_SMI, TCO_INT_STS, TIMEOUT, TCO1_STS_MASK = 1 << 1, 1 << 2, 1 << 3, 0x1F8F
SECOND_TO, BOOT, TCO2_STS_MASK = 1 << 1, 1 << 2, 0x1F
TMR_HLT, TCO_LOCK, TCO1_CNT_MASK = 1 << 11, 1 << 12, 0x1F00
TCO2_CNT_MASK = 0x3F
SHORTEST = 2
"""Values below this are ignored by the timer (data sheet: 0 and 1 are reserved)."""


class Tco(Device):
    """The watchdog."""

    name = "tco"
    REGISTERS: ClassVar = {
        0x00: "TCO_RLD", 0x02: "TCO_DAT_IN", 0x03: "TCO_DAT_OUT", 0x04: "TCO1_STS", 0x06: "TCO2_STS",
        0x08: "TCO1_CNT", 0x0A: "TCO2_CNT", 0x0C: "TCO_MESSAGE1", 0x0D: "TCO_MESSAGE2", 0x0E: "TCO_WDCNT",
        0x10: "SW_IRQ_GEN", 0x12: "TCO_TMR",
    }  # fmt: skip

    @dataclass
    class State:
        """Registers; `expires` is the clock time of the next expiry, None while halted.

        `expired_once`: the next expiry is the second one, unless TCO_RLD is written before.
        """

        dat: int = 0
        sts1: int = 0
        sts2: int = 0
        cnt1: int = TMR_HLT
        cnt2: int = 8
        message: int = 0
        wdcnt: int = 0
        sw_irq_gen: int = 3
        tmr: int = 4
        expires: int | None = None
        left: int = 4 * TICK_NS
        expired_once: bool = False

    state: State

    def __init__(
        self,
        clock: Clock,
        on_expiry: Callable[[], None],
        no_reboot: Callable[[], bool],
        base: int | None = None,
    ) -> None:
        """`on_expiry` resets the machine; `no_reboot` is GCS bit 5 (NR)."""
        super().__init__()
        self._clock = clock
        self._on_expiry = on_expiry
        self._no_reboot = no_reboot
        self._timer = clock.timer(self._expired, "tco")
        self.ports = self.ranges(base)

    @staticmethod
    def ranges(base: int | None) -> tuple[PortRange, ...]:
        """The ports for a TCO base (PMBASE + 60h), none if it is not decoded."""
        return () if base is None else (PortRange(base, LENGTH, {1, 2, 4}, "TCO"),)

    def reset(self) -> None:
        kept = self.state.sts2 & SECOND_TO
        self.state = self.State(sts2=kept | (BOOT if kept else 0))
        self._timer.disarm()

    def restored(self) -> None:
        if self.state.expires is None:
            self._timer.disarm()
        else:
            self._timer.arm(self.state.expires)

    def register_name(self, offset: int, size: int, write: bool) -> str:
        return self.REGISTERS.get(offset) or self.REGISTERS.get(offset & ~1, "")

    # --- access: every register is reached through its word ---------------------------------------------

    def read(self, offset: int, size: int) -> int:
        low = self._read_word(offset & ~1) >> 8 * (offset & 1)
        return low | self._read_word(offset + 2) << 16 if size == 4 else low

    def write(self, offset: int, size: int, value: int) -> None:
        if size == 1:
            shift = 8 * (offset & 1)
            self._write_word(offset & ~1, value << shift, 0xFF << shift)
            return
        self._write_word(offset, value & 0xFFFF, 0xFFFF)
        if size == 4:
            self._write_word(offset + 2, value >> 16, 0xFFFF)

    def _read_word(self, index: int) -> int:
        state = self.state
        values = {
            TCO_RLD: self._count(),
            TCO_DAT: state.dat,
            TCO1_STS: state.sts1,
            TCO2_STS: state.sts2,
            TCO1_CNT: state.cnt1,
            TCO2_CNT: state.cnt2,
            TCO_MESSAGE: state.message,
            TCO_WDCNT: state.wdcnt,
            SW_IRQ_GEN: state.sw_irq_gen,
            TCO_TMR: state.tmr,
        }
        return values.get(index, 0)

    def _write_word(self, index: int, value: int, lanes: int) -> None:
        state = self.state
        if index == TCO_RLD:
            state.expired_once = False
            self._reload()
        elif index == TCO_DAT:
            state.dat = state.dat & ~lanes | value
            state.sts1 |= (SW_TCO_SMI if lanes & 0x00FF else 0) | (TCO_INT_STS if lanes & 0xFF00 else 0)
        elif index == TCO1_STS:
            state.sts1 &= ~(value & TCO1_STS_MASK)
        elif index == TCO2_STS:
            state.sts2 &= ~(value & TCO2_STS_MASK)
        elif index == TCO1_CNT:
            self._write_control(value, lanes)
        elif index == TCO2_CNT:
            state.cnt2 = (state.cnt2 & ~lanes | value) & TCO2_CNT_MASK
        elif index == TCO_MESSAGE:
            state.message = state.message & ~lanes | value
        elif index == TCO_WDCNT:
            state.wdcnt = (state.wdcnt & ~lanes | value) & 0xFF
        elif index == SW_IRQ_GEN:
            state.sw_irq_gen = (state.sw_irq_gen & ~lanes | value) & 3
        elif index == TCO_TMR:
            state.tmr = (state.tmr & ~lanes | value) & COUNT_MASK

    def _write_control(self, value: int, lanes: int) -> None:
        state = self.state
        was_halted = state.cnt1 & TMR_HLT
        wanted = (state.cnt1 & ~lanes | value) & TCO1_CNT_MASK | state.cnt1 & TCO_LOCK
        state.cnt1 = wanted
        if wanted & TMR_HLT and not was_halted:
            self._halt()
        elif was_halted and not wanted & TMR_HLT:
            self._start(state.left)

    # --- the counter --------------------------------------------------------------------------------------

    def _count(self) -> int:
        left = self.state.left if self.state.expires is None else self.state.expires - self._clock.now()
        return min(COUNT_MASK, max(0, -(-left // TICK_NS)))

    def _reload(self) -> None:
        if self.state.tmr >= SHORTEST:
            self.state.left = self.state.tmr * TICK_NS
            if not self.state.cnt1 & TMR_HLT:
                self._start(self.state.left)

    def _start(self, left: int) -> None:
        self.state.expires = self._clock.now() + left
        self._timer.arm(self.state.expires)

    def _halt(self) -> None:
        if self.state.expires is not None:
            self.state.left = max(0, self.state.expires - self._clock.now())
        self.state.expires = None
        self._timer.disarm()

    def _expired(self) -> None:
        state = self.state
        state.expires = None
        state.sts1 |= TIMEOUT
        state.expired_once = not state.expired_once
        if state.expired_once:
            self._start(max(state.tmr, SHORTEST) * TICK_NS)
            return
        state.sts2 |= SECOND_TO
        if self._no_reboot():
            self._start(max(state.tmr, SHORTEST) * TICK_NS)
        else:
            self._on_expiry()
