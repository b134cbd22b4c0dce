"""Our machine and QEMU's, driven alike. What they are known to differ in is in docs/qemu-differences.md."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qtest import streams
from qtest.chips import CHIPS
from qtest.differential import OPERATIONS, Chip, Pair, pair

pytestmark = pytest.mark.qemu


@pytest.mark.parametrize("name", CHIPS)
def test_a_chip_answers_as_qemus_does(name: str) -> None:
    with pair(name, CHIPS[name]) as both:
        both.compare()
        assert both.compared >= OPERATIONS


def test_a_difference_shrinks_to_the_shortest_stream_and_is_printed_as_a_test() -> None:
    chip = Chip(streams.weighted((9, streams.PIC), (1, streams.read(0x43))))
    with pair("8254", chip) as both, pytest.raises(AssertionError) as caught:
        both.compare()
    text = str(caught.value)
    assert "both.check([\n        ('inb 0x43',),\n        ])" in text
    program = text[text.index("from qtest.chips") :].partition("\nassert")[0]
    scope: dict[str, object] = {}
    exec(program, scope)
    again = scope["test_again"]
    assert callable(again)
    with pytest.raises(AssertionError, match="inb 0x43"):
        again()


class PitPair:
    """Both 8254s with a counter that runs."""

    def __init__(self, both: Pair, number: int, mode: int, count: int) -> None:
        self.machines = (both.ours, both.theirs)
        self.number, self.mode, self.count = number, mode, count
        self.edges = [0, 0]

    def start(self) -> None:
        port = 0x40 + self.number
        for machine in self.machines:
            machine.outb(0x61, 1)
            machine.outb(0x43, self.number << 6 | 3 << 4 | self.mode << 1)
            machine.outb(port, self.count & 0xFF)
            machine.outb(port, self.count >> 8)
            machine.clock_step(2000)
            machine.take_edges()

    def step(self, ns: int) -> None:
        assert len({machine.clock_step(ns) for machine in self.machines}) == 1
        for index, machine in enumerate(self.machines):
            self.edges[index] += len(machine.take_edges())

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


@pytest.fixture(scope="module")
def pits() -> Iterator[Pair]:
    with pair("8254", CHIPS["8254"]) as both:
        yield both


@settings(max_examples=100, derandomize=True, deadline=None)
@given(
    number=st.sampled_from((0, 2)),
    mode=st.sampled_from((0, 2, 3, 4)),
    count=st.integers(500, 0xFFFF),
    steps=st.lists(st.integers(1_000, 100_000_000), min_size=1, max_size=10),
)
def test_pit_counts_within_one_pulse_of_qemu(
    pits: Pair, number: int, mode: int, count: int, steps: list[int]
) -> None:
    pits.check([])
    pit = PitPair(pits, number, mode, count)
    pit.start()
    for ns in steps:
        pit.step(ns)
        assert pit.distance() <= 1, f"{pit.counts()}"
        assert abs(pit.edges[0] - pit.edges[1]) <= 2, f"{pit.edges} edges of IRQ 0"
