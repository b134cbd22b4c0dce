"""The differences to QEMU that docs/qemu-differences.md records, as rules for comparisons."""

from __future__ import annotations

from collections.abc import Sequence

from portvisor.qtest.client import Answer
from qtest.differential import Rule

REFRESH_TOGGLE = 0x10
SEEK_COMPLETE = 0x10
KEYBOARD_A2, KEYBOARD_SYS = 0x08, 0x04
PERIODIC_FLAG = 0x40
BOOT_STS = 0x04
KCS_COMMAND = 0x08


def only_bits(mask: int, *reads: str) -> Rule:
    """The last commands are `reads` and the replies differ in bits of `mask` only."""

    def rule(commands: Sequence[str], mine: Answer, other: Answer) -> bool:
        if tuple(commands[-len(reads) :]) != reads or mine.edges != other.edges:
            return False
        return (int(mine.reply, 16) ^ int(other.reply, 16)) & ~mask == 0

    return rule


def any_of(*rules: Rule) -> Rule:
    """One of the rules allows it."""
    return lambda commands, mine, other: any(rule(commands, mine, other) for rule in rules)


REFRESH = only_bits(REFRESH_TOGGLE, "inb 0x61")
KEYBOARD_STATUS = only_bits(KEYBOARD_A2 | KEYBOARD_SYS, "inb 0x64")
PERIODIC = only_bits(PERIODIC_FLAG, "outb 0x70 0xc", "inb 0x71")
TCO_BOOT = only_bits(BOOT_STS, "inw 0x666")
IDE = any_of(only_bits(SEEK_COMPLETE, "inb 0x1f7"), only_bits(SEEK_COMPLETE, "inb 0x3f6"))
KCS = any_of(only_bits(KCS_COMMAND, "inb 0xca3"), only_bits(0xFF, "inb 0xca2"))
"""C/D#, and the values of the dummy bytes."""
