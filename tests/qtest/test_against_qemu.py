"""Our machine and QEMU's, driven alike. What they are known to differ in is in docs/qemu-differences.md."""

from __future__ import annotations

import random

import pytest

from qtest import known, streams
from qtest.differential import Generator, Pair, Rule, pair

pytestmark = pytest.mark.qemu

CHIPS: dict[str, tuple[Generator, tuple[str, ...], Rule | None]] = {
    "8259": (streams.pic, (), None),
    "8254": (streams.pit, (), known.REFRESH),
    "8237": (streams.dma, streams.DMA_PROLOGUE, None),
    "mc146818": (streams.rtc, streams.RTC_PROLOGUE, known.PERIODIC),
    "pci": (streams.absent_pci, streams.PCI_PROLOGUE, None),
    "8042": (streams.keyboard_controller, streams.KEYBOARD_PROLOGUE, known.KEYBOARD_STATUS),
    "misc": (streams.misc, (), None),
}


@pytest.mark.parametrize("chip", CHIPS)
def test_pc_answers_as_qemu_does(chip: str) -> None:
    generator, prologue, allowed = CHIPS[chip]
    with pair(prologue=prologue, allowed=allowed) as both:
        both.compare(generator)


def test_uart_answers_as_qemu_does() -> None:
    arguments = ("-chardev", "null,id=com1", "-device", "isa-serial,chardev=com1")
    with pair(*arguments, prologue=streams.UART_PROLOGUE) as both:
        both.compare(streams.uart)


def test_vga_registers_hold_what_qemus_hold() -> None:
    with pair("-device", "isa-vga", prologue=streams.VGA_PROLOGUE) as both:
        both.compare(streams.vga)


def test_kcs_goes_through_the_same_states() -> None:
    arguments = ("-device", "ipmi-bmc-sim,id=bmc0", "-device", "isa-ipmi-kcs,bmc=bmc0,irq=0")
    with pair(*arguments, allowed=known.KCS) as both:
        both.compare(streams.kcs)


Q35_BLOCKS: dict[str, tuple[Generator, tuple[str, ...], Rule | None]] = {
    "pm": (streams.pm_block, streams.Q35_PROLOGUE, None),
    "tco": (streams.tco, streams.TCO_PROLOGUE, known.TCO_BOOT),
}


@pytest.mark.parametrize("block", Q35_BLOCKS)
def test_q35_answers_as_qemu_does(block: str) -> None:
    generator, prologue, allowed = Q35_BLOCKS[block]
    with pair("-watchdog-action", "none", machine="q35", prologue=prologue, allowed=allowed) as both:
        both.compare(generator)


class PitPair:
    """Both 8254s with a counter that runs."""

    def __init__(self, both: Pair, chance: random.Random) -> None:
        self.machines = (both.ours, both.theirs)
        self.chance = chance
        self.number = chance.choice((0, 2))
        self.mode = chance.choice((0, 2, 3, 4))
        self.count = chance.randrange(500, 0x10000)

    def start(self) -> None:
        port = 0x40 + self.number
        for machine in self.machines:
            machine.outb(0x61, 1)
            machine.outb(0x43, self.number << 6 | 3 << 4 | self.mode << 1)
            machine.outb(port, self.count & 0xFF)
            machine.outb(port, self.count >> 8)
            machine.clock_step(2000)
            machine.take_edges()

    def step(self) -> None:
        ns = self.chance.randrange(1_000, 100_000_000)
        assert len({machine.clock_step(ns) for machine in self.machines}) == 1

    def counts(self) -> tuple[int, int]:
        """What each counter says, by latch."""
        values = []
        for machine in self.machines:
            machine.outb(0x43, self.number << 6)
            low = machine.inb(0x40 + self.number)
            values.append(low | machine.inb(0x40 + self.number) << 8)
        return values[0], values[1]

    def distance(self) -> int:
        """Clock pulses between the two counts."""
        ours, theirs = self.counts()
        turn = self.count if self.mode in (2, 3) else 0x10000
        ahead = (ours - theirs) % turn
        pulses = min(ahead, turn - ahead)
        return (pulses + 1) // 2 if self.mode == 3 else pulses


@pytest.mark.parametrize("seed", range(10))
def test_pit_counts_within_one_pulse_of_qemu(seed: int) -> None:
    with pair() as both:
        for round_number in range(5):
            pit = PitPair(both, random.Random(seed * 100 + round_number))
            assert both.difference([]) is None
            pit.start()
            edges = [0, 0]
            for _ in range(10):
                pit.step()
                what = f"mode {pit.mode} count {pit.count:#x} counter {pit.number}"
                assert pit.distance() <= 1, f"{what}: {pit.counts()}"
                for index, machine in enumerate(pit.machines):
                    edges[index] += len(machine.take_edges())
                assert abs(edges[0] - edges[1]) <= 2, f"{what}: {edges} edges of IRQ 0"
