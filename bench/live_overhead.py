"""Cost of being looked on by `portvisor top`: a guest's IN/OUT loop before, with a viewer, and after it has left.

    python bench/live_overhead.py [--rounds N] [--engine software|kvm]

All three share one machine, one device and one loop, in turns; what is counted is the thread's processor time. A
ratio is the median of the rounds' ratios, so that a busy host does not matter much. Exit status 1 if one is above
its target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from latch import PORT, Latch
from portvisor.kvm.abi import Regs, Segment, Sregs
from portvisor.kvm.api import System
from portvisor.kvm.select import open_engine, open_soft
from portvisor.live.counters import LiveCounters
from portvisor.live.protocol import MAX_PORTS, Snapshot, encode
from portvisor.machines.catalogue import make_bare
from portvisor.machines.machine import Machine
from portvisor.machines.outcome import End

TARGETS = {"software": 1.5, "kvm": 1.1}
OFF_TARGET = 1.05
LOOKS = 50
CODE, MEMORY = 0x1000, 0x10000
LOOPS = {"software": 50_000, "kvm": 3_000}
LOOP = bytes.fromhex("ecee664975faf4")
"""l: in al, dx; out dx, al; dec ecx; jnz l; hlt"""


class Guest(Machine):
    """The loop on a machine with one device."""

    def __init__(self, system: System) -> None:
        super().__init__(system, MEMORY)
        self.add_ram(0, 0, MEMORY)
        self.ram.write(CODE, LOOP)
        self.attach(Latch())
        self.loops = LOOPS[system.name]

    def round(self) -> float:
        """Processor time of an access in ns."""
        self.vcpu.reset()
        self.vcpu.set_sregs(Sregs(cs=Segment(selector=0, type=0xB)))
        self.vcpu.set_regs(Regs(rip=CODE, rdx=PORT, rcx=self.loops, rflags=2))
        start = time.thread_time_ns()
        outcome = self.run()
        taken = time.thread_time_ns() - start
        assert outcome.end is End.HALTED, outcome
        return taken / self.loops / 2


def measure(system: System, rounds: int) -> tuple[float, float, float]:
    """An access in ns before; how many times as much with a viewer, and after it has left."""
    with Guest(system) as guest:
        counters = LiveCounters(guest.ports)
        samples: tuple[list[float], list[float], list[float]] = ([], [], [])
        steps: tuple[Callable[[], None], ...] = (lambda: None, counters.attach, counters.detach)
        guest.round()
        for _ in range(rounds):
            for step, times in zip(steps, samples, strict=True):
                step()
                times.append(guest.round())
    before, watched, after = samples
    ratios = ([one / plain for one, plain in zip(times, before, strict=True)] for times in (watched, after))
    with_viewer, after_it = map(statistics.median, ratios)
    return statistics.median(before), with_viewer, after_it


def snapshot_ms(ports: int) -> float:
    """Processor time of an answer that tells so many ports."""
    system = open_soft()
    with make_bare("pc", system) as machine:
        counters = LiveCounters(machine.ports)
        counters.attach()
        for port in range(ports):
            machine.ports.read(0x2000 + port, 1)
        start = time.thread_time_ns()
        for _ in range(LOOKS):
            rows, used = counters.ports(MAX_PORTS)
            encode(Snapshot(0, 0, 0, used, counters.devices(), rows))
        taken = time.thread_time_ns() - start
    system.close()
    return taken / LOOKS / 1e6


def attach_ms() -> float:
    """Processor time of putting the taps into the tables and taking them away."""
    system = open_soft()
    with make_bare("poweredge", system) as machine:
        counters = LiveCounters(machine.ports)
        start = time.thread_time_ns()
        counters.attach()
        counters.detach()
        taken = time.thread_time_ns() - start
    system.close()
    return taken / 2e6


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--engine", choices=tuple(TARGETS), default="software")
    arguments = parser.parse_args()
    system, target = open_engine(arguments.engine), TARGETS[arguments.engine]
    plain, watched, after = measure(system, arguments.rounds)
    system.close()
    print(f"IN/OUT loop, engine {arguments.engine}: {plain:.0f} ns an access")
    print(f"after a viewer has left: {after:.2f}x (target: at most {OFF_TARGET}x)")
    print(f"with a viewer:           {watched:.2f}x (target: at most {target}x)")
    print(f"a snapshot: {snapshot_ms(100):.2f} ms with 100 ports, {snapshot_ms(1024):.2f} ms with 1,024")
    print(f"the first viewer's coming, and the last one's going: {attach_ms():.0f} ms each")
    passed = watched <= target and after <= OFF_TARGET
    print("PASS" if passed else "FAIL")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
