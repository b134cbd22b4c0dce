"""Port-space dispatch must not get slower with more ranges: 2,000 against 1, within 10 %.

.venv/bin/python bench/dispatch.py
"""

from __future__ import annotations

import statistics
import sys
import time

from portvisor.ports import Device, PortRange, PortSpace

ACCESSES, ROUNDS, LIMIT = 200_000, 9, 1.10
PORT = 0x300


class Register(Device):
    def __init__(self, base: int) -> None:
        super().__init__()
        self.ports = (PortRange(base, 4, {1, 2, 4}, "register"),)
        self.value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value


def space_with(count: int) -> PortSpace:
    space = PortSpace()
    space.attach(Register(PORT))
    for index in range(1, count):
        space.attach(Register(0x1000 + 8 * index))
    return space


def nanoseconds(space: PortSpace) -> float:
    """Per access, half of them reads."""
    read, write = space.read, space.write
    start = time.process_time_ns()
    for _ in range(ACCESSES // 2):
        write(PORT, 1, 5)
        read(PORT, 1)
    return (time.process_time_ns() - start) / ACCESSES


def main() -> int:
    few, many = space_with(1), space_with(2000)
    pairs = [(nanoseconds(few), nanoseconds(many)) for _ in range(ROUNDS)]
    one, two_thousand = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = two_thousand / one
    verdict = "PASS" if ratio <= LIMIT else "FAIL"
    print(f"1 range {one:.0f} ns, 2,000 ranges {two_thousand:.0f} ns: {ratio:.2f}x (limit {LIMIT}) {verdict}")
    return verdict == "FAIL"


if __name__ == "__main__":
    sys.exit(main())
