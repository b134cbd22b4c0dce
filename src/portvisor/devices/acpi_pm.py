"""ACPI fixed hardware of an ICH/PCH: PM1, PM timer, processor control, GPE0, SMI control, PM2.

Source: Intel C610 series PCH data sheet (330788), 12.8 "Power Management I/O Registers"; ACPI 6.4, 4.8.

| offset | register | |
|---|---|---|
| 00 | PM1_STS | 16, write 1 to clear: 0 TMROF, 4 BM, 5 GBL, 8 PWRBTN, 10 RTC, 11 PRBTNOR, 15 WAK |
| 02 | PM1_EN | 16: 0 TMROF, 5 GBL, 8 PWRBTN, 10 RTC |
| 04 | PM1_CNT | 32: 0 SCI_EN, 1 BM_RLD, 2 GBL_RLS, 12:10 SLP_TYP, 13 SLP_EN (write only) |
| 08 | PM1_TMR | 32, read only: 24 bits at 3.579545 MHz |
| 10 | PROC_CNT | 32: 3:1 THRM duty, 4 THTL_EN, 7:5 THTL_DTY; 14 LVL2, 15 LVL3 read 0 |
| 20, 28 | GPE0_STS, GPE0_EN | 64 each, status write 1 to clear |
| 30, 34 | SMI_EN, SMI_STS | 32, status write 1 to clear |
| 42 | GPE_CNTL | 8: 1 SWGPE |
| 50 | PM2_CNT | 8: 0 ARB_DIS |

The block starts at PMBASE; `move` follows the LPC bridge. Not modelled: SMIs (SMI_EN is kept, ACPI enable
and disable through APM_CNT act on SCI_EN directly), entering C-states by reading LVL2/LVL3, throttling of
the CPU, ALT_GP_SMI, device activity.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from portvisor.ports import NS_PER_S, Clock, Device, IrqLine, PortRange

PM1_STS, PM1_CNT, PM1_TMR, PROC_CNT = 0x00, 0x04, 0x08, 0x10
GPE0_STS, GPE0_STS_HI, GPE0_EN, GPE0_EN_HI = 0x20, 0x24, 0x28, 0x2C
SMI_EN, SMI_STS, GPE_CNTL, PM2_CNT = 0x30, 0x34, 0x40, 0x50
BLOCK_LENGTH = 0x60
"""Up to the TCO registers."""

TMROF, BM, GBL, PWRBTN, RTC, PRBTNOR, WAK = 1, 1 << 4, 1 << 5, 1 << 8, 1 << 10, 1 << 11, 1 << 15
PM1_STS_MASK = TMROF | BM | GBL | PWRBTN | RTC | PRBTNOR | WAK
PM1_EN_MASK = TMROF | GBL | PWRBTN | RTC
SCI_EN, BM_RLD, GBL_RLS, SLP_EN = 1, 1 << 1, 1 << 2, 1 << 13
SLP_TYP_SHIFT, SLP_TYP_MASK = 10, 7
PM1_CNT_MASK = SCI_EN | BM_RLD | SLP_TYP_MASK << SLP_TYP_SHIFT
PROC_CNT_MASK = 0xFE
SWGPE_CTRL = 1 << 17
"""GPE_CNTL bit 1, in the dword at 40."""
SWGPE_STS = 1 << 2
PM2_CNT_MASK = 1
APMC_EN, APM_STS, GBL_SMI_EN, EOS = 1 << 5, 1 << 5, 1, 1 << 1

PM_TIMER_HZ = 3_579_545
PM_TIMER_MASK = 0xFFFFFF
PM_TIMER_HALF = 0x800000
"""TMROF is set whenever bit 23 changes, each half turn."""
SOFT_OFF = 7
"""SLP_TYP of S5."""


def timer_ticks(ns: int) -> int:
    """PM timer ticks up to a time, rounded down."""
    return ns * PM_TIMER_HZ // NS_PER_S


def tick_time(ticks: int) -> int:
    """The first ns at which `timer_ticks` gives `ticks`."""
    return -(-ticks * NS_PER_S // PM_TIMER_HZ)


class AcpiPm(Device):
    """The PM block of an LPC bridge."""

    name = "acpi-pm"
    REGISTERS: ClassVar = {
        0x00: "PM1_STS", 0x02: "PM1_EN", 0x04: "PM1_CNT", 0x08: "PM1_TMR", 0x10: "PROC_CNT", 0x14: "LVL2",
        0x15: "LVL3", 0x20: "GPE0_STS", 0x28: "GPE0_EN", 0x30: "SMI_EN", 0x34: "SMI_STS", 0x42: "GPE_CNTL",
        0x50: "PM2_CNT",
    }  # fmt: skip

    @dataclass
    class State:
        """Registers; `half_turns` is how many half turns of the timer TMROF has accounted for."""

        pm1_sts: int = 0
        pm1_en: int = 0
        pm1_cnt: int = 0
        proc_cnt: int = 0
        gpe0_sts: int = 0
        gpe0_en: int = 0
        smi_en: int = 0
        smi_sts: int = 0
        gpe_cntl: int = 0
        pm2_cnt: int = 0
        half_turns: int = 0

    state: State

    def __init__(
        self, clock: Clock, sci: IrqLine, on_sleep: Callable[[int], None], base: int | None = None
    ) -> None:
        """A block at `base` (None: not decoded yet). `on_sleep` gets SLP_TYP when SLP_EN is written."""
        super().__init__()
        self._clock = clock
        self._sci = sci
        self._on_sleep = on_sleep
        self._overflow = clock.timer(self._on_overflow, "pm-timer")
        self.ports = self.ranges(base)

    @staticmethod
    def ranges(base: int | None) -> tuple[PortRange, ...]:
        """The block's ports for a PMBASE, none if it is not decoded."""
        return () if base is None else (PortRange(base, BLOCK_LENGTH, {1, 2, 4}, "ACPI PM"),)

    def reset(self) -> None:
        self.state = self.State(half_turns=self._half_turns_now())
        self._update()

    def restored(self) -> None:
        self._update()

    # --- access: every register is reached through its dword ------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if offset == PM1_TMR and size == 4:
            return timer_ticks(self._clock.now()) & PM_TIMER_MASK
        return self._read_dword(offset & ~3) >> 8 * (offset & 3)

    def write(self, offset: int, size: int, value: int) -> None:
        shift = 8 * (offset & 3)
        self._write_dword(offset & ~3, value << shift, ((1 << 8 * size) - 1) << shift)

    def register_name(self, offset: int, size: int, write: bool) -> str:
        while offset not in self.REGISTERS and offset & 7:
            offset -= 1
        return self.REGISTERS.get(offset, "")

    def _read_dword(self, index: int) -> int:
        state = self.state
        if index == PM1_STS:
            self._account_overflows()
            return state.pm1_sts | state.pm1_en << 16
        if index == PM1_TMR:
            return timer_ticks(self._clock.now()) & PM_TIMER_MASK
        values = {
            PM1_CNT: state.pm1_cnt,
            PROC_CNT: state.proc_cnt,
            GPE0_STS: state.gpe0_sts & 0xFFFFFFFF,
            GPE0_STS_HI: state.gpe0_sts >> 32,
            GPE0_EN: state.gpe0_en & 0xFFFFFFFF,
            GPE0_EN_HI: state.gpe0_en >> 32,
            SMI_EN: state.smi_en,
            SMI_STS: state.smi_sts,
            GPE_CNTL: state.gpe_cntl,
            PM2_CNT: state.pm2_cnt,
        }
        return values.get(index, 0)

    def _write_dword(self, index: int, value: int, lanes: int) -> None:
        """Write the bytes of a dword that `lanes` selects."""
        state = self.state
        written = value & lanes
        if index == PM1_STS:
            self._account_overflows()
            state.pm1_sts &= ~(written & 0xFFFF)
            state.pm1_en = (state.pm1_en & ~(lanes >> 16) | written >> 16) & PM1_EN_MASK
        elif index == PM1_CNT:
            self._write_control(written, lanes)
        elif index == PROC_CNT:
            state.proc_cnt = (state.proc_cnt & ~lanes | written) & PROC_CNT_MASK
        elif index in (GPE0_STS, GPE0_STS_HI):
            state.gpe0_sts &= ~(written << (0 if index == GPE0_STS else 32))
        elif index in (GPE0_EN, GPE0_EN_HI):
            shift = 0 if index == GPE0_EN else 32
            state.gpe0_en = state.gpe0_en & ~(lanes << shift) | written << shift
        elif index == SMI_EN:
            state.smi_en = (state.smi_en & ~lanes | written) & ~EOS | EOS
        elif index == SMI_STS:
            state.smi_sts &= ~written
        elif index == GPE_CNTL:
            state.gpe_cntl = (state.gpe_cntl & ~lanes | written) & SWGPE_CTRL
            if written & SWGPE_CTRL:
                state.gpe0_sts |= SWGPE_STS
        elif index == PM2_CNT:
            state.pm2_cnt = (state.pm2_cnt & ~lanes | written) & PM2_CNT_MASK
        self._update()

    def _write_control(self, written: int, lanes: int) -> None:
        state = self.state
        state.pm1_cnt = (state.pm1_cnt & ~lanes | written) & PM1_CNT_MASK
        if written & GBL_RLS:
            state.smi_sts |= 1 << 2
        if written & SLP_EN:
            self._on_sleep(state.pm1_cnt >> SLP_TYP_SHIFT & SLP_TYP_MASK)

    # --- the timer and the SCI --------------------------------------------------------------------------

    def _half_turns_now(self) -> int:
        return timer_ticks(self._clock.now()) // PM_TIMER_HALF

    def _account_overflows(self) -> None:
        turns = self._half_turns_now()
        if turns != self.state.half_turns:
            self.state.half_turns = turns
            self.state.pm1_sts |= TMROF

    def _on_overflow(self) -> None:
        self._account_overflows()
        self._update()

    def _update(self) -> None:
        state = self.state
        if state.pm1_en & TMROF:
            self._overflow.arm(tick_time((state.half_turns + 1) * PM_TIMER_HALF))
        else:
            self._overflow.disarm()
        events = state.pm1_sts & state.pm1_en or state.gpe0_sts & state.gpe0_en
        self._sci.set(1 if events and state.pm1_cnt & SCI_EN else 0)

    # --- what the board does to it ------------------------------------------------------------------------

    def set_sci_enable(self, enable: bool) -> None:
        """ACPI mode on or off, as the firmware's SMI handler would switch it."""
        self.state.pm1_cnt = self.state.pm1_cnt & ~SCI_EN | (SCI_EN if enable else 0)
        self._update()

    def press_power_button(self) -> None:
        """PWRBTN#: a short press."""
        self.state.pm1_sts |= PWRBTN
        self._update()

    def rtc_alarm(self) -> None:
        """IRQ 8 asserted."""
        self.state.pm1_sts |= RTC
        self._update()

    def raise_gpe(self, number: int) -> None:
        """Set one GPE0 status bit (0-63)."""
        self.state.gpe0_sts |= 1 << number
        self._update()
