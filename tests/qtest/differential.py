"""The same random commands to our machine and to QEMU's: every reply and interrupt edge compared.

A stream starts with a reset of both. A difference is shrunk: commands are left out as long as it stays.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from portvisor.qtest.client import Answer, QtestClient
from qtest.qemu_reference import qemu_client

OPERATIONS = int(os.environ.get("PORTVISOR_QTEST_OPERATIONS", "20000"))
"""Commands that a test sends; more find rarer differences."""
STREAM_LENGTH = 200
SHRINK_ROUNDS = 400
BASE_ARGUMENTS = ("-nodefaults", "-m", "16", "-rtc", "base=2020-02-28T23:59:50,clock=vm")

PROLOGUE = (
    *("outb 0x43 0x30", "outb 0x40 0xff", "outb 0x40 0xff"),
    *("outb 0x43 0x70", "outb 0x41 0xff", "outb 0x41 0xff"),
    *("outb 0x43 0xb0", "outb 0x42 0xff", "outb 0x42 0xff"),
    *("outb 0x61 0x00", "clock_step 5000"),
)
"""Runs after each reset without comparison: the 8254 has no defined state before it is programmed."""

Group = tuple[str, ...]
"""A few commands that belong together."""
Stream = list[Group]
Generator = Callable[[random.Random], Sequence[str]]
"""Makes a group."""
Rule = Callable[[Sequence[str], Answer, Answer], bool]
"""(commands up to the one in question, our answer, QEMU's): whether the difference is a recorded one."""


@dataclass
class Difference:
    """The first command whose answers differ, as the last one of a stream."""

    stream: Stream
    ours: Answer
    theirs: Answer

    def __str__(self) -> str:
        commands = "".join(f"        {group!r},\n" for group in self.stream)
        return (
            f"ours {self.ours}, QEMU {self.theirs} at the end of {len(self.stream)} groups; to run it again:\n"
            f"    assert pair.difference([\n{commands}    ]) is None"
        )


class Pair:
    """Both machines."""

    def __init__(
        self, ours: QtestClient, theirs: QtestClient, allowed: Rule | None = None, prologue: Sequence[str] = ()
    ) -> None:
        self.ours, self.theirs = ours, theirs
        self.prologue = prologue
        self.allowed = allowed
        for machine in (ours, theirs):
            machine.intercept_irqs()

    def difference(self, stream: Sequence[Group]) -> Difference | None:
        """Reset both, run the stream on both; None if all answers are the same."""
        for machine in (self.ours, self.theirs):
            machine.reset()
            machine.ask_all((*PROLOGUE, *self.prologue))
        commands = [command for group in stream for command in group]
        ours, theirs = self.ours.exchange(commands), self.theirs.exchange(commands)
        for index, (mine, other) in enumerate(zip(ours, theirs, strict=True)):
            if mine != other and not (self.allowed and self.allowed(commands[: index + 1], mine, other)):
                return Difference(_head(stream, index + 1), mine, other)
        return None

    def shrink(self, found: Difference) -> Difference:
        """Leave out what the difference does not need."""
        size = max(1, len(found.stream) // 2)
        for _ in range(SHRINK_ROUNDS):
            smaller = self._without(found, size)
            if smaller is not None:
                found = smaller
            elif size == 1:
                break
            else:
                size //= 2
            size = max(1, min(size, len(found.stream) // 2))
        return found

    def _without(self, found: Difference, size: int) -> Difference | None:
        for start in range(len(found.stream) - size, -1, -size):
            shorter = self.difference(found.stream[:start] + found.stream[start + size :])
            if shorter is not None:
                return shorter
        return None

    def compare(self, generator: Generator, *, operations: int = OPERATIONS) -> None:
        """Run random streams; fails with the shortest one that shows a difference."""
        for seed in range(max(1, operations // STREAM_LENGTH)):
            chance = random.Random(seed)
            stream: Stream = []
            while sum(map(len, stream)) < STREAM_LENGTH:
                stream.append(tuple(generator(chance)))
            found = self.difference(stream)
            if found is not None:
                raise AssertionError(f"seed {seed}: {self.shrink(found)}")


def _head(stream: Sequence[Group], count: int) -> Stream:
    """The groups up to command `count`, which becomes the last one."""
    head: Stream = []
    for group in stream:
        if count <= 0:
            break
        head.append(group[:count])
        count -= len(group)
    return head


@contextmanager
def pair(
    *arguments: str, machine: str = "pc", allowed: Rule | None = None, prologue: Sequence[str] = ()
) -> Iterator[Pair]:
    """Start both machines."""
    everything = ("-machine", machine, *BASE_ARGUMENTS, *arguments)
    with QtestClient(everything) as ours, qemu_client(everything) as theirs:
        yield Pair(ours, theirs, allowed, prologue)
