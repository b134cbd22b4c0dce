"""Cost of being looked on by `portvisor top`: a guest's IN/OUT loop, plain, with --live, and with a viewer.

    python bench/live_overhead.py [--rounds N]

All three share one VM, one device and one loop, in turns; what is counted is the thread's processor time, and
medians are compared. Exit status 1 if a ratio is above its target.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

from portvisor.kvm.select import open_soft
from portvisor.live.counters import LiveCounters
from portvisor.live.protocol import MAX_PORTS, Snapshot, encode
from portvisor.machines.catalogue import make_bare
from trace_overhead import Guest

TARGET = 1.5
OFF_TARGET = 1.05
LOOKS = 50


def measure(rounds: int) -> tuple[float, float, float]:
    """Medians of an access in ns: before, with a viewer, and after it has left."""
    guest = Guest()
    counters = LiveCounters(guest.ports)
    samples: tuple[list[float], list[float], list[float]] = ([], [], [])
    steps: tuple[Callable[[], None], ...] = (lambda: None, counters.attach, counters.detach)
    guest.round()
    for _ in range(rounds):
        for step, times in zip(steps, samples, strict=True):
            step()
            times.append(guest.round())
    plain, watched, after = map(statistics.median, samples)
    return plain, watched, after


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
    plain, watched, after = measure(parser.parse_args().rounds)
    print(f"IN/OUT loop, software engine: {plain:.0f} ns an access")
    print(f"after a viewer has left: {after:.0f} ns, {after / plain:.2f}x (target: at most {OFF_TARGET}x)")
    print(f"with a viewer:           {watched:.0f} ns, {watched / plain:.2f}x (target: at most {TARGET}x)")
    print(f"a snapshot: {snapshot_ms(100):.2f} ms with 100 ports, {snapshot_ms(1024):.2f} ms with 1,024")
    print(f"the first viewer's coming, and the last one's going: {attach_ms():.0f} ms each")
    return 0 if watched / plain <= TARGET and after / plain <= OFF_TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
