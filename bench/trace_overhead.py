"""Cost of recording: a guest's IN/OUT loop on the software engine, with and without a recorder, in turns.

    python bench/trace_overhead.py [--rounds N]

Both share one VM, one device and one loop; what is counted is the thread's processor time, and medians are
compared. Exit status 1 if the ratio is above the target.
"""

from __future__ import annotations

import argparse
import mmap
import statistics
import sys
import tempfile
import time
from pathlib import Path

from portvisor.kvm.abi import ExitReason, Regs, Segment, Sregs
from portvisor.kvm.software import open_software
from portvisor.ports import Device, PortRange, PortSpace
from portvisor.trace.clock import RecordingWallClock
from portvisor.trace.filters import TraceFilter
from portvisor.trace.recorder import Recorder
from portvisor.trace.schema import Metadata
from portvisor.trace.writer import TraceWriter

TARGET = 1.4
PORT, CODE, MEMORY = 0x2F0, 0x1000, 0x10000
LOOPS = 50_000
LOOP = bytes.fromhex("66b9") + LOOPS.to_bytes(4, "little") + bytes.fromhex("ecee664975faf4")
"""mov ecx, LOOPS; l: in al, dx; out dx, al; dec ecx; jnz l; hlt"""


class Latch(Device):
    """A byte."""

    ports = (PortRange(PORT, 1, name="latch"),)
    REGISTERS = {0: "LATCH"}  # noqa: RUF012  # a constant of a benchmark

    def __init__(self) -> None:
        super().__init__()
        self.value = 0

    def read(self, offset: int, size: int) -> int:
        return self.value

    def write(self, offset: int, size: int, value: int) -> None:
        self.value = value


class Guest:
    """The loop on a VM of its own."""

    def __init__(self) -> None:
        self.ports = PortSpace()
        self.ports.attach(Latch())
        self.vm = open_software().create_vm()
        memory = mmap.mmap(-1, MEMORY)
        memory[CODE : CODE + len(LOOP)] = LOOP
        self.vm.set_user_memory_region(0, 0, memory, 0, MEMORY)
        self.vcpu = self.vm.create_vcpu(0)
        self.vm.serve_ports(self.ports)
        self.vcpu.set_sregs(Sregs(cs=Segment(selector=0, type=0xB)))

    def round(self) -> float:
        """Processor time of an access in ns."""
        self.vcpu.set_regs(Regs(rip=CODE, rdx=PORT, rflags=2))
        start = time.thread_time_ns()
        reason = self.vcpu.run()
        taken = time.thread_time_ns() - start
        assert reason == ExitReason.HLT, reason
        return taken / LOOPS / 2


class Sink:
    """The timers that this guest does not have."""

    def timer_fired(self, name: str, fire: object) -> None:
        raise AssertionError(name)


def measure(rounds: int) -> tuple[float, float]:
    """Medians without and with a recorder; what is written counts."""
    guest = Guest()
    clock = RecordingWallClock()
    with tempfile.TemporaryDirectory() as folder:
        metadata = Metadata()
        writer = TraceWriter(Path(folder, "trace.arrows"), metadata)
        recorder = Recorder(clock.core, guest.ports, writer.write, writer.schema, TraceFilter(), lambda: None)
        clock.begin(Sink())
        plain, traced = [], []
        guest.round()
        for _ in range(rounds):
            plain.append(guest.round())
            recorder.attach()
            traced.append(guest.round())
            recorder.detach()
        writer.close()
    return statistics.median(plain), statistics.median(traced)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    plain, traced = measure(parser.parse_args().rounds)
    ratio = traced / plain
    print(f"IN/OUT loop, software engine: {plain:.0f} ns an access, recorded {traced:.0f} ns: {ratio:.2f}x")
    print(f"target: at most {TARGET}x")
    return 0 if ratio <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
