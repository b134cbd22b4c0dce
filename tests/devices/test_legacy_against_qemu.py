"""The same accesses to our 8259 pair and keyboard controller and to QEMU's: same answers.

QEMU runs no guest here; it answers port accesses. Left out is what the two are known to differ in:
* 8259: QEMU keeps an edge whose input falls before it is acknowledged, makes no second edge on IR2 when a slave
  in AEOI mode has another request, looks again at special mask mode only with the next write, and lets a
  non-specific EOI end masked levels in that mode; it has no LTIM and no SNGL;
* 8042: status bit A2 (always 1), RAM beyond the command byte, password test, test inputs, input port bits, a
  system flag that is cleared;
* keyboard: resend, F7-F9 and FB-FD; mouse: refusals, resend, the rate before the first reset.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest

from devices.shared_bus import bus
from portvisor.devices.i8042 import I8042
from portvisor.devices.i8259 import PicPair
from portvisor.ports import IrqLine, VirtualClock
from portvisor.qtest.client import QtestClient
from qtest.qemu_reference import stopped_qemu

pytestmark = pytest.mark.qemu

ROUNDS, STEPS = 60, 50
A2 = 0x08
BASES = (0x20, 0xA0)
INPUTS = tuple(irq for irq in range(16) if irq != 2)


@pytest.fixture(scope="module")
def qemu() -> Iterator[QtestClient]:
    with stopped_qemu("-machine", "pc", "-m", "16", "-nodefaults") as machine:
        yield machine


class PicBoth:
    """Both 8259 pairs, driven alike."""

    def __init__(self, qemu: QtestClient, chance: random.Random) -> None:
        self.qemu = qemu
        self.chance = chance
        self.pic = PicPair(IrqLine())
        self.space = bus(self.pic)
        self.history: list[str] = []
        self.special = [False, False]

    def out(self, port: int, *values: int) -> None:
        for value in values:
            self.history.append(f"out {port:x},{value:02x}")
            self.qemu.outb(port, value)
            self.space.write(port, 1, value)

    def compare(self, port: int) -> None:
        theirs, ours = self.qemu.inb(port), self.space.read(port, 1)
        assert ours == theirs, f"in {port:x}: {ours:02x}, QEMU {theirs:02x}; {self.history[-30:]}"

    def line(self, irq: int, level: int) -> None:
        self.history.append(f"IRQ {irq} = {level}")
        self.qemu.set_irq(irq, level)
        self.pic.input(irq).set(level)

    def init(self) -> None:
        self.history.clear()
        for irq in INPUTS:
            self.line(irq, 0)
        for levels in (0, self.chance.getrandbits(8)):
            self.out(0x4D0, levels)
            self.out(0x4D1, levels)
            self.initialize(master_icw4=self.chance.choice((0x01, 0x03)))
        self.special = [False, False]

    def initialize(self, master_icw4: int) -> None:
        for base, icws in ((0xA0, (0x70, 0x02, 0x01)), (0x20, (0x08, 0x04, master_icw4))):
            self.out(base, 0x11)
            self.out(base + 1, *icws)

    def loses_edge(self, action: Callable[[], object]) -> bool:
        """Whether the action (tried on ours alone) withdraws an edge, which QEMU would keep."""
        saved = self.pic.snapshot()
        before = self.pic.state.master.edges, self.pic.state.slave.edges
        action()
        lost = before[0] & ~self.pic.state.master.edges & 0x04
        self.pic.restore(saved)
        return bool(lost)

    def step(self) -> None:
        chip = self.chance.choice((0, 0, 1))
        self.chance.choice((self.move_line, self.move_line, self.mask, self.command, self.mode, self.poll))(chip)
        for base in BASES:
            for selection in (0x0A, 0x0B):
                self.out(base, selection)
                self.compare(base)

    def move_line(self, _chip: int) -> None:
        irq, level = self.chance.choice(INPUTS), self.chance.getrandbits(1)
        state = (self.pic.state.master, self.pic.state.slave)[irq >> 3]
        waiting = state.edges >> (irq & 7) & 1
        if (level or not waiting) and not self.loses_edge(lambda: self.pic.input(irq).set(level)):
            self.line(irq, level)

    def mask(self, chip: int) -> None:
        value = self.chance.getrandbits(8) & self.chance.getrandbits(8)
        self.write_unless_it_loses_an_edge(BASES[chip] + 1, value)

    def command(self, chip: int) -> None:
        value = self.chance.getrandbits(8) & 0xE7
        if not (self.special[chip] and value >> 5 in (1, 5)):
            self.write_unless_it_loses_an_edge(BASES[chip], value)

    def mode(self, chip: int) -> None:
        on = self.chance.random() < 0.5
        if self.write_unless_it_loses_an_edge(BASES[chip], 0x68 if on else 0x48):
            self.special[chip] = on
            self.out(BASES[chip] + 1, (self.pic.state.master, self.pic.state.slave)[chip].imr)

    def write_unless_it_loses_an_edge(self, port: int, value: int) -> bool:
        lost = self.loses_edge(lambda: self.space.write(port, 1, value))
        if not lost:
            self.out(port, value)
        return not lost

    def poll_ours(self, base: int) -> None:
        self.space.write(base, 1, 0x0C)
        self.space.read(base, 1)

    def poll(self, chip: int) -> None:
        base = BASES[chip]
        if chip and self.loses_edge(lambda: self.poll_ours(base)):
            return
        self.out(base, 0x0C)
        self.compare(base + self.chance.getrandbits(1))


@pytest.mark.parametrize("seed", range(2))
def test_8259_pair_keeps_the_same_registers(qemu: QtestClient, seed: int) -> None:
    both = PicBoth(qemu, random.Random(seed))
    for _ in range(ROUNDS):
        both.init()
        for _ in range(STEPS):
            both.step()


CONTROLLER = (0xA7, 0xA8, 0xA9, 0xAA, 0xAB, 0xAD, 0xAE, 0xD0, 0xDD, 0xD0, 0xDF, 0xD0, 0xF1)
KEYBOARD = (
    0xEE, 0xF2, 0xF0, 0x00, 0xF0, 0x01, 0xF0, 0x00, 0xF0, 0x02, 0xF4, 0xF5, 0xF6, 0xFF, 0xED, 0x07, 0xF3, 0x20,
    0x01, 0xEF, 0xF0, 0x05, 0xFF, 0xF2,
)  # fmt: skip
MOUSE = (
    0xFF, 0xF2, 0xE6, 0xE7, 0xE8, 0x01, 0xE9, 0xEA, 0xEB, 0xEE, 0x55, 0xF2, 0xEC, 0xF0, 0xE9, 0xEA, 0xF4, 0xE9,
    0xF3, 200, 0xF3, 100, 0xF3, 80, 0xF2, 0xEB, 0xF3, 200, 0xF3, 200, 0xF3, 80, 0xF2, 0xF5, 0xF6, 0xE9, 0xFF, 0xF2,
)  # fmt: skip


class KeyboardBoth:
    """Both keyboard controllers."""

    def __init__(self, qemu: QtestClient) -> None:
        self.qemu = qemu
        self.space = bus(I8042(VirtualClock(), IrqLine(), IrqLine()))

    def check(self, *accesses: tuple[int, int]) -> None:
        """Write, then everything that can be read has to agree: status and data, byte by byte."""
        for port, value in accesses:
            self.qemu.outb(port, value)
            self.space.write(port, 1, value)
        for _ in range(20):
            theirs, ours = self.qemu.inb(0x64) & ~A2, self.space.read(0x64, 1) & ~A2
            assert ours == theirs, f"status {ours:02x}, QEMU {theirs:02x} after {accesses}"
            if not ours & 1:
                return
            theirs, ours = self.qemu.inb(0x60), self.space.read(0x60, 1)
            assert ours == theirs, f"data {ours:02x}, QEMU {theirs:02x} after {accesses}"


def test_8042_keyboard_and_mouse_give_the_same_answers(qemu: QtestClient) -> None:
    both = KeyboardBoth(qemu)
    for command in CONTROLLER:
        both.check((0x64, command))
    for control in (0x07, 0x47, 0x04, 0x34, 0x07):
        both.check((0x64, 0x60), (0x60, control))
        both.check((0x64, 0x20))
        for value in KEYBOARD:
            both.check((0x60, value))
        for value in MOUSE:
            both.check((0x64, 0xD4), (0x60, value))
        for loop in (0xD2, 0xD3):
            both.check((0x64, loop), (0x60, 0xA5))
