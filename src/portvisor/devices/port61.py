"""System control port B (61): the timer's speaker channel, the refresh toggle and the sources of NMI.

Source: Intel PCH data sheet, "NMI_SC - NMI Status and Control Register (LPC I/F)"; IBM PS/2 Hardware Interface
Technical Reference, "System Control Port B".

Register (offset: port, bits)
    0: 61   0 TIM_CNT2_EN (GATE 2), 1 SPKR_DAT_EN, 2 PCI_SERR_EN (1 = off), 3 IOCHK_NMI_EN (1 = off),
            4 REF_TOGGLE, 5 TMR2_OUT_STS, 6 IOCHK_NMI_STS, 7 SERR_NMI_STS; 7:4 are read-only

A source that is switched off is also cleared: software acknowledges an NMI by setting and clearing its bit.
Bit 4 toggles with every DRAM refresh request, 18 pulses of the timer's clock (15.09 us), whatever counter 1
is programmed to. The NMI mask in port 70 is the RTC's; the board combines both.

Not modelled: the refresh itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from portvisor.devices.i8254 import FREQUENCY, Pit
from portvisor.ports import NS_PER_S, Clock, Device, IrqLine, PortRange

TIM_CNT2_EN = 0x01
SPKR_DAT_EN = 0x02
PCI_SERR_EN = 0x04
IOCHK_NMI_EN = 0x08
REF_TOGGLE = 0x10
TMR2_OUT_STS = 0x20
IOCHK_NMI_STS = 0x40
SERR_NMI_STS = 0x80
WRITABLE = 0x0F

REFRESH_PULSES = 18
SPEAKER_COUNTER = 2
ALIASES = (0x63, 0x65, 0x67)


class Port61(Device):
    """System control port B.

    Args:
        clock: the clock of `pit`.
        pit: the timer whose counter 2 is gated and read here.
        nmi: raised while SERR# or IOCHK# is latched.
        on_speaker: told whenever the guest connects or disconnects OUT 2 and the speaker.
        aliases: also answer at 63, 65 and 67, as a PCH does.
    """

    REGISTERS: ClassVar[dict[int, str]] = {0: "NMI_SC"}

    @dataclass
    class State:
        """The writable bits and the latched NMI sources."""

        control: int = 0
        sources: int = 0

    state: State

    def __init__(
        self,
        clock: Clock,
        pit: Pit,
        nmi: IrqLine | None = None,
        on_speaker: Callable[[bool], None] | None = None,
        *,
        aliases: bool = False,
    ) -> None:
        super().__init__()
        self.nmi = nmi or IrqLine(name="NMI")
        self.on_speaker = on_speaker
        self._now = clock.now
        self._pit = pit
        self._speaker_out = pit.counters[SPEAKER_COUNTER].out
        port = PortRange(0x61, 1, name="port61")
        self.ports = (port, *(port.at(base) for base in ALIASES)) if aliases else (port,)
        pit.set_gate(SPEAKER_COUNTER, 0)

    def read(self, offset: int, size: int) -> int:
        state = self.state
        value = state.control | state.sources
        pulse = self._now() * FREQUENCY // NS_PER_S
        if self._speaker_out(pulse):
            value |= TMR2_OUT_STS
        if pulse // REFRESH_PULSES & 1:
            value |= REF_TOGGLE
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        changed = (self.state.control ^ value) & WRITABLE
        self.state.control = value & WRITABLE
        if changed & TIM_CNT2_EN:
            self._pit.set_gate(SPEAKER_COUNTER, value & TIM_CNT2_EN)
        if changed & SPKR_DAT_EN and self.on_speaker:
            self.on_speaker(bool(value & SPKR_DAT_EN))
        self._latch(0)

    # --- NMI sources --------------------------------------------------------------------------------------

    def system_error(self) -> None:
        """SERR# was asserted."""
        self._latch(SERR_NMI_STS)

    def io_check(self) -> None:
        """IOCHK# was asserted."""
        self._latch(IOCHK_NMI_STS)

    def _latch(self, sources: int) -> None:
        """Add sources, drop those that are switched off, and drive NMI."""
        state = self.state
        state.sources |= sources
        if state.control & PCI_SERR_EN:
            state.sources &= ~SERR_NMI_STS
        if state.control & IOCHK_NMI_EN:
            state.sources &= ~IOCHK_NMI_STS
        self.nmi.set(state.sources)

    # --- life ---------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """All writable bits 0: GATE 2 low, speaker off, both NMI sources on."""
        if self.state.control & SPKR_DAT_EN and self.on_speaker:
            self.on_speaker(False)
        super().reset()
        self._pit.set_gate(SPEAKER_COUNTER, 0)
        self.nmi.set(0)

    def restored(self) -> None:
        self.nmi.set(self.state.sources)
