"""Choosing an engine: by name, or by measuring how fast `/dev/kvm` executes guest code."""

from __future__ import annotations

import mmap
import time
from dataclasses import dataclass

from portvisor.kvm.abi import ExitReason, Regs, Segment, Sregs
from portvisor.kvm.api import EngineError, System

ENGINES = ("auto", "kvm", "software")
FAST_ENOUGH = 50e6
"""Guest instructions per second from which KVM is preferred: a KVM that emulates does a few million."""
LOOPS = 100_000
MEASURE_LIMIT_NS = 1_000_000_000
CODE_BASE = 0x1000
COUNT_DOWN = bytes.fromhex("66b9") + LOOPS.to_bytes(4, "little") + bytes.fromhex("67e2fdf4")
"""mov ecx, LOOPS; l: loop l (by ECX); hlt"""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What `auto` found out about `/dev/kvm`."""

    rate: float
    """Guest instructions per second; 0 if KVM cannot be used."""
    reason: str
    """One line for the user."""

    @property
    def fast(self) -> bool:
        """Whether KVM is the better engine here."""
        return self.rate >= FAST_ENOUGH


def open_kvm() -> System:
    """`/dev/kvm`.

    Raises:
        EngineError: it is missing, or may not be opened; the text says what to do.
    """
    from portvisor.kvm.hardware import open_hardware

    return open_hardware()


def open_soft() -> System:
    """The software CPU.

    Raises:
        EngineError: the `unicorn` package is not the version that the C extension was written for.
    """
    from portvisor.kvm.software import open_software

    return open_software()


def measure(system: System) -> float:
    """Instructions per second of a loop in real mode; 0 if it does not come to its end in a second."""
    memory = mmap.mmap(-1, 0x10000)
    memory[CODE_BASE : CODE_BASE + len(COUNT_DOWN)] = COUNT_DOWN
    vm = system.create_vm()
    try:
        vm.set_user_memory_region(0, 0, memory, 0, len(memory))
        vcpu = vm.create_vcpu(0)
        vcpu.set_sregs(Sregs(cs=Segment(base=0, selector=0, type=0xB)))
        vcpu.set_regs(Regs(rip=CODE_BASE))
        start = time.monotonic_ns()
        vcpu.set_alarm(start + MEASURE_LIMIT_NS)
        reason = vcpu.run()
        taken = time.monotonic_ns() - start
        vcpu.close()
    finally:
        vm.close()
    return LOOPS / taken * 1e9 if reason == ExitReason.HLT else 0.0


def measure_kvm() -> Measurement:
    """Try `/dev/kvm` and time it."""
    try:
        system = open_kvm()
    except EngineError as error:
        return Measurement(0.0, str(error))
    try:
        rate = measure(system)
    except (EngineError, OSError) as error:
        return Measurement(0.0, f"/dev/kvm does not run guests: {error}")
    finally:
        system.close()
    speed = f"{rate / 1e6:.0f} million guest instructions a second"
    verdict = "fast" if rate >= FAST_ENOUGH else "slow: it emulates instructions"
    return Measurement(rate, f"/dev/kvm executes {speed} ({verdict})")


def open_engine(name: str) -> System:
    """Open the engine called `name`: "kvm", "software", or "auto" for the faster one.

    Raises:
        EngineError: no such engine, or it cannot be had here.
    """
    if name == "auto":
        name = "kvm" if measure_kvm().fast else "software"
    if name == "kvm":
        return open_kvm()
    if name == "software":
        return open_soft()
    raise EngineError(f"no engine is called {name!r}; there are {', '.join(ENGINES)}")
