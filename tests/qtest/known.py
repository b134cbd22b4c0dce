"""The differences to QEMU that docs/qemu-differences.md records, as rules for comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from portvisor.qtest.client import Answer
from qtest.differential import Rule

REFRESH_TOGGLE, OUT_2 = 0x10, 0x20
OUT_STATUS, NULL_COUNT = 0x80, 0x40
OUT_MODES = (0, 3)
"""Where QEMU has the OUT pin right."""
MODEM_DELTAS = 0x0F
DATA_READY = 0x01
DIVISOR_LATCH = 0x80
SEEK_COMPLETE = 0x10
KEYBOARD_A2, KEYBOARD_SYS = 0x08, 0x04
PERIODIC_FLAG = 0x40
BOOT_STS = 0x04
KCS_COMMAND, KCS_ABORT = 0x08, 0x60
KCS_ANSWER_MASK, KCS_ANSWER = 0xC1, 0x41
"""State (READ is 01) and OBF of the status register."""


def only_bits(mask: int, *reads: str) -> Rule:
    """The last commands are `reads` and the replies differ in bits of `mask` only."""

    def rule(commands: Sequence[str], ours: Sequence[Answer], other: Answer) -> bool:
        if tuple(commands[-len(reads) :]) != reads or ours[-1].edges != other.edges:
            return False
        return (int(ours[-1].reply, 16) ^ int(other.reply, 16)) & ~mask == 0

    return rule


def _mode_of(counter: int, commands: Sequence[str]) -> int:
    """Mode in the last control word of an 8254 counter (0-7)."""
    for command in reversed(commands):
        if command.startswith("outb 0x43 "):
            control = int(command.rpartition(" ")[2], 16)
            if control >> 6 == counter and control & 0x30:
                return control >> 1 & 7
    return 0


def _out_pin(commands: Sequence[str], ours: Sequence[Answer], other: Answer) -> bool:
    """QEMU has OUT right in modes 0 and 3 alone; NULL COUNT it never has."""
    read = commands[-1]
    if read == "inb 0x61":
        counter, bits = 2, OUT_2 | REFRESH_TOGGLE
    elif len(commands) > 1 and commands[-2].startswith("outb 0x43 0xe"):
        counter, bits = int(read[-1]), OUT_STATUS | NULL_COUNT
    else:
        return False
    different = int(ours[-1].reply, 16) ^ int(other.reply, 16)
    return _mode_of(counter, commands) not in OUT_MODES and ours[-1].edges == other.edges and not different & ~bits


def _last_written(port: int, commands: Sequence[str]) -> int:
    """The last byte that went to a port, 0 if there is none."""
    start = f"outb {port:#x} "
    return next((int(command[len(start) :], 16) for command in reversed(commands) if command.startswith(start)), 0)


def _empty_receiver(commands: Sequence[str], ours: Sequence[Answer], other: Answer) -> bool:
    """RBR right after an LSR that says that there is no character."""
    return (
        tuple(commands[-2:]) == ("inb 0x3fd", "inb 0x3f8")
        and not int(ours[-2].reply, 16) & DATA_READY
        and not _last_written(0x3FB, commands) & DIVISOR_LATCH
        and ours[-1].edges == other.edges
    )


def _kcs_dummy(commands: Sequence[str], ours: Sequence[Answer], other: Answer) -> bool:
    """DATA_OUT that is not part of an answer (the state is not READ, or OBF is clear), and the status code."""
    if tuple(commands[-2:]) != ("inb 0xca3", "inb 0xca2") or ours[-1].edges != other.edges:
        return False
    is_answer = int(ours[-2].reply, 16) & KCS_ANSWER_MASK == KCS_ANSWER
    return not is_answer or _last_written(0xCA3, commands) == KCS_ABORT


def any_of(*rules: Rule) -> Rule:
    """One of the rules allows it."""
    return lambda commands, ours, other: any(rule(commands, ours, other) for rule in rules)


UART = any_of(only_bits(MODEM_DELTAS, "inb 0x3fe"), _empty_receiver)
PIT = any_of(only_bits(REFRESH_TOGGLE, "inb 0x61"), _out_pin)
KEYBOARD_STATUS = only_bits(KEYBOARD_A2 | KEYBOARD_SYS, "inb 0x64")
PERIODIC = only_bits(PERIODIC_FLAG, "outb 0x70 0xc", "inb 0x71")
TCO_BOOT = only_bits(BOOT_STS, "inw 0x666")
IDE = any_of(only_bits(SEEK_COMPLETE, "inb 0x1f7"), only_bits(SEEK_COMPLETE, "inb 0x3f6"))
KCS = any_of(only_bits(KCS_COMMAND, "inb 0xca3"), _kcs_dummy)
"""C/D#, and the values of the dummy bytes."""
