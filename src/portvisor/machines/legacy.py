"""The chips that every PC has at the same ports, wired up; boards add what differs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from portvisor.devices.apm import Apm
from portvisor.devices.dma_pages import DmaPages
from portvisor.devices.fpu_error import FpuError
from portvisor.devices.i8042 import I8042
from portvisor.devices.i8237 import DmaController
from portvisor.devices.i8254 import Pit
from portvisor.devices.i8259 import PicPair
from portvisor.devices.mc146818 import Rtc
from portvisor.devices.port61 import Port61
from portvisor.devices.port92 import Port92
from portvisor.devices.reset_control import ResetControl
from portvisor.devices.uart16550 import Uart16550
from portvisor.devices.vga import MEMORY_BASE, MEMORY_LENGTH, Vga
from portvisor.kvm.cpuid import without_apic
from portvisor.machines.machine import Machine
from portvisor.ports import CharBackend, IrqLine, SharedIrq

COM_PORTS = ((0x3F8, 4), (0x2F8, 3), (0x3E8, 4), (0x2E8, 3))
"""Base and IRQ of COM1 to COM4."""
COPROCESSOR_REST = range(0xF1, 0x100)
"""Ports of a PC AT's coprocessor beside the error register at F0."""
ISA_IRQS = tuple(irq for irq in range(16) if irq != 2)


@dataclass(frozen=True, slots=True)
class LegacyOptions:
    """What a board's set of legacy chips looks like."""

    base_time: float
    """Unix time at clock 0."""
    serial: Sequence[CharBackend | None]
    """Backends of the UARTs, COM1 first; as many UARTs as entries."""
    on_apm_control: Callable[[int], None] | None = None
    """Gets what is written to APM_CNT, which raises an SMI on a real board."""
    coprocessor_block: bool = False
    """Answer the coprocessor's ports up to FF, not only F0, which is all that PIIX3 and ICH9 decode."""
    full_reset: bool = True
    """The reset control register has FULL_RST."""
    pch_aliases: bool = False
    """Decode the aliases of a PCH (8254 at 50-53 ...)."""
    extended_cmos: bool = True
    mono_ports: bool = True


class LegacyChips:
    """PICs, timer, RTC, DMA, keyboard controller, UARTs, VGA and the ports around them."""

    def __init__(self, machine: Machine, options: LegacyOptions) -> None:
        self.machine = machine
        clock = machine.clock
        self.pic = machine.attach(PicPair(IrqLine(self._intr, "INTR"), aliases=options.pch_aliases))
        self._shared: dict[int, SharedIrq] = {}
        self._a20 = [False, True]
        machine.set_interrupt_source(self.pic)
        machine.vcpu.set_cpuid2(without_apic(machine.system.get_supported_cpuid()))
        self.pit = machine.attach(Pit(clock, self.irq(0), alias=options.pch_aliases))
        self.port61 = machine.attach(Port61(clock, self.pit, aliases=options.pch_aliases))
        self.dma = machine.attach(DmaController(alias=options.pch_aliases))
        self.dma_pages = machine.attach(DmaPages(self.dma, aliases=options.pch_aliases))
        self.port92 = machine.attach(Port92(self._reset("port 92"), self._fast_a20))
        self.fpu = machine.attach(FpuError(self.irq(13), () if options.coprocessor_block else COPROCESSOR_REST))
        self.apm = machine.attach(Apm(options.on_apm_control))
        self.reset_control = machine.attach(
            ResetControl(
                lambda kind: machine.request_reset(f"reset control ({kind})"), full_reset=options.full_reset
            )
        )
        self.rtc = machine.attach(
            Rtc(clock, self.irq(8), options.base_time, extended=options.extended_cmos, aliases=options.pch_aliases)
        )
        self.keyboard_controller = machine.attach(
            I8042(clock, self.irq(1), self.irq(12), self._reset("keyboard controller"), self._keyboard_a20)
        )
        self.uarts = [
            machine.attach(Uart16550(self.irq(irq), clock, backend, base=base, name=f"uart{index}"))
            for index, (backend, (base, irq)) in enumerate(zip(options.serial, COM_PORTS, strict=False))
        ]
        self.vga = machine.attach(Vga(clock, mono_ports=options.mono_ports))
        machine.mmio.attach(MEMORY_BASE, MEMORY_LENGTH, self.vga, "vga memory")

    def _intr(self, _level: int) -> None:
        self.machine.vcpu.interrupt_changed()

    def irq(self, number: int) -> IrqLine:
        """A new driver for an interrupt input; drivers of one input are OR-ed."""
        if number not in self._shared:
            self._shared[number] = SharedIrq(self.pic.input(number))
        return self._shared[number].input(f"IRQ{number}")

    def _reset(self, reason: str) -> Callable[[], None]:
        return lambda: self.machine.request_reset(reason)

    def _fast_a20(self, enable: bool) -> None:
        self._gate_a20(0, enable)

    def _keyboard_a20(self, enable: bool) -> None:
        self._gate_a20(1, enable)

    def _gate_a20(self, gate: int, enable: bool) -> None:
        """A20 is the OR of two gates; the engine is told of changes only."""
        before = any(self._a20)
        self._a20[gate] = enable
        if any(self._a20) != before:
            self.machine.vcpu.set_a20(not before)
