"""The PCI interrupt router of Intel's ISA and LPC bridges: PIRQ inputs to ISA interrupts.

Source: Intel 82371SB (PIIX3) data sheet (290550), "PIRQRC[A:D]"; Intel C610 series PCH data sheet (330788),
"PIRQ[n]_ROUT". One register an input: bit 7 set disconnects it; bits 3:0 name the ISA interrupt, of which 0, 1,
2, 8 and 13 are reserved and connect nothing. A routed interrupt is level: the PIC's ELCR has to agree.

The registers are in the bridge's configuration space, and so is what is remembered; a router has no state of
its own beside the levels of its inputs. Not modelled: routing to an I/O APIC.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from portvisor.ports import IrqLine

PIRQ_DISABLED = 0x80
PIRQ_IRQ = 0x0F
PIRQ_WRITABLE = PIRQ_DISABLED | PIRQ_IRQ
ROUTABLE = frozenset({3, 4, 5, 6, 7, 9, 10, 11, 12, 14, 15})


class PirqRouter:
    """Inputs PIRQA# and on, and where they lead.

    Args:
        register: the value of the configuration register at an offset.
        offsets: offset of each input's register.
        isa_irqs: a driver of each ISA interrupt that PCI may be routed to; those missing lead nowhere.
    """

    def __init__(
        self, register: Callable[[int], int], offsets: Sequence[int], isa_irqs: Mapping[int, IrqLine]
    ) -> None:
        self._register = register
        self._offsets = tuple(offsets)
        self._isa_irqs = {irq: line for irq, line in isa_irqs.items() if irq in ROUTABLE}
        self.inputs = tuple(
            IrqLine(self._input_changed, f"PIRQ{chr(ord('A') + number)}#") for number in range(len(offsets))
        )
        """PIRQA#, PIRQB# ...; 1 is asserted."""

    def route(self, pirq: int) -> int | None:
        """ISA interrupt that an input, counted from 0, is connected to; None if to nothing."""
        value = self._register(self._offsets[pirq])
        irq = value & PIRQ_IRQ
        return None if value & PIRQ_DISABLED or irq not in ROUTABLE else irq

    def _input_changed(self, _level: int) -> None:
        self.drive()

    def drive(self) -> None:
        """Drive every ISA interrupt with the OR of the inputs routed to it."""
        asserted = {self.route(number) for number, line in enumerate(self.inputs) if line.level}
        for irq, line in self._isa_irqs.items():
            line.set(irq in asserted)
