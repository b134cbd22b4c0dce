"""The same commands to our machine and to QEMU's: every reply and interrupt edge compared.

A stream starts with a reset of both. Hypothesis generates the streams and shrinks one that shows a difference;
the failure prints a test that runs the shortest one again. The streams are the same in every run: their seeds
are the numbers 0, 1, ...
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count, groupby
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from portvisor.qtest.client import Answer, QtestClient
from qtest.qemu_reference import qemu_client
from qtest.streams import IDE_SECTORS, IRQ, TIMES, WAIT, Group, Groups

OPERATIONS = int(os.environ.get("PORTVISOR_QTEST_OPERATIONS", "20000"))
"""Commands that a test compares at least; more find rarer differences."""
GROUPS = 60
"""Groups of a stream."""
EXAMPLES = 25
"""Streams of one seed."""
BUSY_POLLS = 1_000_000
DISK_FILE = "DISK"
"""Stands for an image of random bytes in the arguments of a chip."""
IDE_SIZE = IDE_SECTORS * 512
BASE_ARGUMENTS = ("-nodefaults", "-m", "16", "-rtc", "base=2020-02-28T23:59:50,clock=vm")

PROLOGUE = (
    *("outb 0x43 0x30", "outb 0x40 0xff", "outb 0x40 0xff"),
    *("outb 0x43 0x70", "outb 0x41 0xff", "outb 0x41 0xff"),
    *("outb 0x43 0xb0", "outb 0x42 0xff", "outb 0x42 0xff"),
    *("outb 0x61 0x00", "clock_step 5000"),
)
"""Runs after each reset without comparison: the 8254 has no defined state before it is programmed."""

Rule = Callable[[Sequence[str], Sequence[Answer], Answer], bool]
"""(commands up to the one in question, our answers to them, QEMU's): whether the difference is a recorded one."""


@dataclass(frozen=True)
class Busy:
    """A chip that works in the background of QEMU's process: what "wait" in a group waits for."""

    poll: str
    mask: int
    """Bits of the reply that say that it is busy."""


@dataclass(frozen=True)
class Chip:
    """What a comparison needs to know of a chip."""

    groups: Groups
    """Its commands."""
    prologue: Sequence[str] = ()
    """Brings both into the same state after a reset."""
    allowed: Rule | None = None
    arguments: Sequence[str] = ()
    """More for the command line."""
    machine: str = "pc"
    busy: Busy | None = None
    disk_size: int = IDE_SIZE
    """Bytes of DISK_FILE."""


@dataclass
class Difference:
    """The first command whose answers differ, as the last one of a stream."""

    chip: str
    stream: list[Group]
    ours: Answer
    theirs: Answer

    def __str__(self) -> str:
        groups = "".join(f"        {group!r},\n" for group in self.stream)
        return (
            f"{self.chip}: ours {self.ours}, QEMU {self.theirs} at the end of this stream; to run it again:\n\n"
            "from qtest.chips import CHIPS\n"
            "from qtest.differential import pair\n\n\n"
            "def test_again() -> None:\n"
            f"    with pair({self.chip!r}, CHIPS[{self.chip!r}]) as both:\n"
            f"        both.check([\n{groups}        ])\n"
        )


def streams(groups: Groups) -> SearchStrategy[list[Group]]:
    """Long streams that shrink well: each of many places is a group or, at its simplest, empty."""
    place = st.integers(0, 15).flatmap(lambda filled: groups if filled else st.just(()))
    return st.tuples(*[place] * GROUPS).map(lambda places: [group for group in places if group])


@dataclass
class Pair:
    """Both machines."""

    name: str
    chip: Chip
    ours: QtestClient
    theirs: QtestClient
    compared: int = field(default=0, init=False)
    """Commands whose answers were compared."""

    def __post_init__(self) -> None:
        for machine in (self.ours, self.theirs):
            machine.irq_command(0, 0)  # finds the PICs, which takes commands
            machine.intercept_irqs()

    def difference(self, stream: Sequence[Group]) -> Difference | None:
        """Reset both, run the stream on both; None if all answers are the same."""
        for machine in (self.ours, self.theirs):
            machine.reset()
            self._answers(machine, [(*PROLOGUE, *self.chip.prologue)])
        commands = [command for group in stream for command in group]
        ours, theirs = (self._answers(machine, stream) for machine in (self.ours, self.theirs))
        self.compared += len(commands)
        allowed = self.chip.allowed
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            if mine != other and not (allowed and allowed(commands[: index + 1], ours[: index + 1], other)):
                return Difference(self.name, _head(stream, index + 1), mine, other)
        return None

    def _answers(self, machine: QtestClient, stream: Sequence[Group]) -> list[Answer]:
        """One answer a command."""
        commands = [_own(machine, command) for group in stream for command in group]
        if self.chip.busy is None:
            return machine.exchange(commands)
        answers: list[Answer] = []
        for kind, some in groupby(commands, key=_kind):
            if kind == WAIT:
                answers[-1] = _late(answers[-1], _wait_until_idle(machine, self.chip.busy))
                answers += [Answer("", ())] * len(list(some))
            elif kind == TIMES:
                answers += [_repeated(machine, command) for command in some]
            else:
                answers += machine.exchange(some)
        return answers

    def check(self, stream: Sequence[Group]) -> None:
        """Fail with the difference, if there is one."""
        found = self.difference(stream)
        assert found is None, str(found)

    def compare(self, operations: int = OPERATIONS) -> None:
        """Check generated streams; fails with the shortest one that shows a difference."""
        for number in count():
            if self.compared >= operations:
                return
            self._compare_some(number)

    def _compare_some(self, number: int) -> None:
        @seed(number)
        @settings(
            max_examples=EXAMPLES,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
        )
        @given(streams(self.chip.groups))
        def check(stream: list[Group]) -> None:
            self.check(stream)

        check()


def _own(machine: QtestClient, command: str) -> str:
    """A command as the machine knows it."""
    word, *numbers = command.split(" ")
    return machine.irq_command(*map(int, numbers)) if word == IRQ else command


def _kind(command: str) -> str:
    return WAIT if command == WAIT else TIMES if TIMES in command else ""


def _late(answer: Answer, edges: list[tuple[int, int]]) -> Answer:
    return answer._replace(edges=(*answer.edges, *edges))


def _repeated(machine: QtestClient, command: str) -> Answer:
    """A command many times over, which count as one."""
    times, _, repeated = command.partition(TIMES)
    answers = machine.exchange([repeated] * int(times))
    edges = tuple(edge for answer in answers for edge in answer.edges)
    return Answer(" ".join(answer.reply for answer in answers), edges)


def _wait_until_idle(machine: QtestClient, busy: Busy) -> list[tuple[int, int]]:
    """The interrupt changes meanwhile."""
    edges: list[tuple[int, int]] = []
    for _ in range(BUSY_POLLS):
        (answer,) = machine.exchange([busy.poll])
        edges += answer.edges
        if not int(answer.reply, 16) & busy.mask:
            return edges
    raise AssertionError(f"{busy.poll}: busy for ever")


def _head(stream: Sequence[Group], length: int) -> list[Group]:
    """The groups up to command `length`, which becomes the last one, and the wait for it."""
    commands = [command for group in stream for command in group]
    if commands[length : length + 1] == [WAIT]:
        length += 1
    head: list[Group] = []
    for group in stream:
        if length <= 0:
            break
        head.append(group[:length])
        length -= len(group)
    return head


@contextmanager
def pair(name: str, chip: Chip) -> Iterator[Pair]:
    """Start both machines."""
    with TemporaryDirectory(prefix="qtest-disk-") as folder:
        disk = Path(folder) / "disk"
        disk.write_bytes(Random(0).randbytes(chip.disk_size))
        own = [word.replace(f"file={DISK_FILE},", f"file={disk},") for word in chip.arguments]
        everything = ("-machine", chip.machine, *BASE_ARGUMENTS, *own)
        with QtestClient(everything) as ours, qemu_client(everything) as theirs:
            yield Pair(name, chip, ours, theirs)
