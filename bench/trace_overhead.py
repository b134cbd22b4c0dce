"""Cost of recording: a guest's IN/OUT loop on both engines, without a recorder, after one, and with one.

    python bench/trace_overhead.py [--rounds N]

Two guests execute the same loop in turns: "off" compares one whose recording has ended with one that never had any,
"on" compares rounds of one guest with and without a recorder. What is counted is the processor time of the guest's
thread in its best rounds, so that a busy host does not matter much; the medians of neighbouring rounds are shown
beside it. The writer's thread is meant for another core: its time and the ratio by the clock are shown, too. Exit
status 1 if a ratio is above its limit.
"""

from __future__ import annotations

import argparse
import mmap
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from latch import PORT, Latch
from portvisor.kvm.abi import ExitReason, Regs, Segment, Sregs
from portvisor.kvm.api import EngineError, System
from portvisor.kvm.exits import ExitHandler
from portvisor.kvm.hardware import open_hardware
from portvisor.kvm.software import open_software
from portvisor.ports import MmioSpace, PortSpace
from portvisor.trace.clock import RecordingWallClock
from portvisor.trace.filters import TraceFilter
from portvisor.trace.recorder import Recorder
from portvisor.trace.schema import Metadata
from portvisor.trace.writer import TraceWriter

OFF_LIMIT, SOFTWARE_LIMIT, KVM_LIMIT = 1.02, 1.4, 1.1
CODE, MEMORY = 0x1000, 0x10000
SOFTWARE_TURNS, KVM_TURNS = (25_000, 200_000), (500, 1000)
"""With recording off and on; on the software engine enough for more than a batch, so that the writer is at work."""
OFF_ROUNDS, ON_ROUNDS = 5, 3
"""Of each round that was asked for."""


def loop(turns: int) -> bytes:
    """mov ecx, turns; l: in al, dx; out dx, al; dec ecx; jnz l; hlt"""
    return bytes.fromhex("66b9") + turns.to_bytes(4, "little") + bytes.fromhex("ecee664975faf4")


class Cost(NamedTuple):
    """Of an access, in ns."""

    thread: float
    clock: float
    process: float


class Guest:
    """The loop on a VM of its own."""

    def __init__(self, system: System, turns: int) -> None:
        self.turns = turns
        self.ports = PortSpace()
        self.ports.attach(Latch())
        self.vm = system.create_vm()
        self.memory = mmap.mmap(-1, MEMORY)
        code = loop(turns)
        self.memory[CODE : CODE + len(code)] = code
        self.vm.set_user_memory_region(0, 0, self.memory, 0, MEMORY)
        self.vcpu = self.vm.create_vcpu(0)
        self.vcpu.set_sregs(Sregs(cs=Segment(selector=0, type=0xB)))
        self.vm.serve_ports(self.ports)
        self.exits = ExitHandler(self.vcpu.kvm_run, self.ports, MmioSpace())

    def round(self) -> Cost:
        """Once through the loop."""
        self.vcpu.set_regs(Regs(rip=CODE, rdx=PORT, rflags=2))
        process, thread, clock = time.process_time_ns(), time.thread_time_ns(), time.perf_counter_ns()
        self._run()
        clock, thread = time.perf_counter_ns() - clock, time.thread_time_ns() - thread
        accesses = 2 * self.turns
        return Cost(thread / accesses, clock / accesses, (time.process_time_ns() - process) / accesses)

    def close(self) -> None:
        """Give the VM back."""
        self.vcpu.close()
        self.vm.close()

    def _run(self) -> None:
        """The run loop of a machine."""
        run, serve, drain, write = self.vcpu.run, self.exits.io, self.vm.drain_coalesced, self.ports.write
        io = int(ExitReason.IO)
        while (reason := run()) == io:
            drain(write)
            serve()
        if reason != ExitReason.HLT:
            raise EngineError(f"unexpected exit {reason}")


class Sink:
    """The timers that this guest does not have."""

    def timer_fired(self, name: str, fire: object) -> None:
        raise AssertionError(name)


class Recorded:
    """A guest that is recorded into a file of a temporary folder."""

    def __init__(self, guest: Guest, folder: str) -> None:
        self.guest, self.path = guest, Path(folder, "trace.arrows")
        self.clock = RecordingWallClock()
        self.clock.core.set_cpu(guest.vcpu.rip, guest.vm.route)
        self.clock.begin(Sink())

    def round(self) -> Cost:
        """Once through the loop, recorded. What is not written by then is written before the next round."""
        writer = TraceWriter(self.path, Metadata())
        recorder = Recorder(self.clock.core, self.guest.ports, writer.write, writer.schema, TraceFilter())
        recorder.attach()
        cost = self.guest.round()
        recorder.detach()
        if recorder.failure is not None:
            raise recorder.failure
        writer.close()
        self.path.unlink()
        return cost


def off_ratio(system: System, turns: int, pairs: int) -> tuple[float, float, float]:
    """A guest after a recording against one that never had any: ns of both, and the median of the ratios.

    Where two VMs lie in memory makes a difference, so there are several pairs, whose sides swap places.
    """
    costs: list[tuple[float, float]] = []
    for number in range(pairs):
        guests = Guest(system, turns), Guest(system, turns)
        never, after = guests if number % 2 else guests[::-1]
        with tempfile.TemporaryDirectory() as folder:
            Recorded(after, folder).round()
        never.round()
        taken = [(never.round().thread, after.round().thread) for _ in range(OFF_ROUNDS)]
        costs.append((min(one for one, _ in taken), min(two for _, two in taken)))
        for guest in guests:
            guest.close()
    ratio = statistics.median(two / one for one, two in costs)
    return min(one for one, _ in costs), min(two for _, two in costs), ratio


def on_ratios(system: System, turns: int, rounds: int) -> tuple[list[Cost], list[Cost]]:
    """Rounds of one guest, without and with a recorder."""
    guest = Guest(system, turns)
    plain, traced = [], []
    with tempfile.TemporaryDirectory() as folder:
        recorded = Recorded(guest, folder)
        guest.round(), recorded.round()
        for _ in range(rounds * ON_ROUNDS):
            plain.append(guest.round())
            traced.append(recorded.round())
    guest.close()
    return plain, traced


def verdict(name: str, before: float, after: float, ratio: float, limit: float) -> bool:
    """Print a line; whether the limit is kept."""
    passed = ratio <= limit
    word = "PASS" if passed else "FAIL"
    print(f"{name:24} {before:8.1f} ns -> {after:8.1f} ns an access, ratio {ratio:5.3f} <= {limit} {word}")
    return passed


def compare(title: str, system: System, turns: tuple[int, int], rounds: int, limit: float) -> bool:
    """Measure one engine."""
    kept = verdict(f"{title}, recording off", *off_ratio(system, turns[0], rounds), OFF_LIMIT)
    plain, traced = on_ratios(system, turns[1], rounds)
    system.close()
    median = statistics.median(two.thread / one.thread for one, two in zip(plain, traced, strict=True))
    clock = statistics.median(two.clock / one.clock for one, two in zip(plain, traced, strict=True))
    before, after = (min(cost.thread for cost in side) for side in (plain, traced))
    kept = verdict(f"{title}, recording on", before, after, after / before, limit) and kept
    writer = statistics.median(cost.process - cost.thread for cost in traced)
    print(f"{'':24} median {median:5.3f}, by the clock {clock:5.3f}; the writer takes {writer:.0f} ns meanwhile")
    return kept


def main() -> int:
    """Both engines."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21)
    rounds = parser.parse_args().rounds
    kept = compare("software", open_software(), SOFTWARE_TURNS, rounds, SOFTWARE_LIMIT)
    try:
        kvm = open_hardware()
    except EngineError as error:
        print(f"kvm: not measured ({error})", file=sys.stderr)
        return 1
    return 0 if compare("kvm", kvm, KVM_TURNS, rounds, KVM_LIMIT) and kept else 1


if __name__ == "__main__":
    sys.exit(main())
