"""Cost of a port access on /dev/kvm: an OUT exit to a Python device against a bare C loop.

    python bench/kvm_exit.py [--rounds N] [--exits N]

The C loop does nothing but KVM_RUN and look at the exit; the Python side is what a machine runs: the engine's
`run`, the exit handler, the port space, a device. Both take turns in short rounds on VMs of their own, what is
counted is the thread's processor time, and the medians are compared, so that a busy host does not matter much.
Exit status 1 if a ratio is above the target.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from latch import PORT, Latch
from portvisor.kvm import abi
from portvisor.kvm.abi import ExitReason, Regs, Segment, Sregs
from portvisor.kvm.api import EngineError
from portvisor.kvm.exits import ExitHandler
from portvisor.kvm.hardware import HardwareSystem, HardwareVcpu, HardwareVm, open_hardware
from portvisor.ports import MmioSpace, PortSpace

TARGET = 1.25
CODE = 0x1000
MEMORY = 0x10000
INNER = 1000
"""Accesses a run of a guest that counts by itself."""
ENDLESS_OUT = bytes.fromhex("eeebfd")
"""l: out dx, al; jmp l"""
ENDLESS_IN = bytes.fromhex("ecebfd")
"""l: in al, dx; jmp l"""


def counted(instruction: str) -> bytes:
    """mov ecx, INNER; l: INSTRUCTION; dec ecx; jnz l; hlt"""
    body = bytes.fromhex(instruction) + bytes.fromhex("6649")
    return bytes.fromhex("66b9") + INNER.to_bytes(4, "little") + body + bytes((0x75, 254 - len(body), 0xF4))


C_LOOP = r"""
#include <stdint.h>
#include <sys/ioctl.h>
#include <linux/kvm.h>
long serve(int vcpu, struct kvm_run *run, uint8_t *device, long exits)
{
    for (long i = 0; i < exits; i++) {
        if (ioctl(vcpu, KVM_RUN, 0) || run->exit_reason != KVM_EXIT_IO || run->io.port != 0x2F0)
            return i;
        uint8_t *data = (uint8_t *)run + run->io.data_offset;
        if (run->io.direction == KVM_EXIT_IO_OUT)
            *device = *data;
        else
            *data = *device;
    }
    return exits;
}
"""


class Guest:
    """A VM with one program in real mode."""

    def __init__(self, system: HardwareSystem, code: bytes) -> None:
        self.memory = mmap.mmap(-1, MEMORY)
        self.memory[CODE : CODE + len(code)] = code
        self.vm: HardwareVm = system.create_vm()
        self.vm.set_user_memory_region(0, 0, self.memory, 0, MEMORY)
        self.vcpu: HardwareVcpu = self.vm.create_vcpu(0)
        self.vcpu.set_sregs(Sregs(cs=Segment(base=0, selector=0, type=0xB)))
        self.restart()
        ports = PortSpace()
        ports.attach(Latch())
        self.write_port = ports.write
        self.exits = ExitHandler(self.vcpu.kvm_run, ports, MmioSpace())

    def restart(self) -> None:
        """Start the program anew."""
        self.vcpu.set_regs(Regs(rip=CODE, rdx=PORT, rax=0x41))

    def serve(self, exits: int) -> None:
        """The loop of a machine, for that many exits."""
        run, serve_io, drain, write = self.vcpu.run, self.exits.io, self.vm.drain_coalesced, self.write_port
        port_exit = int(ExitReason.IO)
        for _ in range(exits):
            if run() != port_exit:
                raise EngineError("unexpected exit")
            drain(write)
            serve_io()

    def run_to_halt(self) -> None:
        """Run a program that ends by itself, serving what it leaves for."""
        self.restart()
        run, serve_io, drain, write = self.vcpu.run, self.exits.io, self.vm.drain_coalesced, self.write_port
        while (reason := run()) == ExitReason.IO:
            drain(write)
            serve_io()
        drain(write)
        if reason != ExitReason.HLT:
            raise EngineError(f"unexpected exit {reason}")


def compile_loop(directory: str) -> ctypes.CDLL:
    """The C side, built by the host's compiler."""
    source, library = Path(directory, "loop.c"), Path(directory, "loop.so")
    source.write_text(C_LOOP)
    subprocess.run(["cc", "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return ctypes.CDLL(str(library))


def c_side(loop: ctypes.CDLL, guest: Guest) -> Callable[[int], None]:
    """The C loop over a guest's vCPU."""
    run = ctypes.addressof(ctypes.c_char.from_buffer(guest.vcpu.kvm_run))
    device = ctypes.create_string_buffer(1)
    loop.serve.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_long)
    loop.serve.restype = ctypes.c_long

    def serve(exits: int) -> None:
        if loop.serve(guest.vcpu.fileno(), run, device, exits) != exits:
            raise EngineError("unexpected exit in the C loop")

    return serve


def measure(sides: dict[str, tuple[Callable[[int], None], int]], rounds: int) -> dict[str, float]:
    """Median ns an access of each side; sides take turns."""
    taken: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, (serve, count) in sides.items():
            start = time.thread_time_ns()
            serve(count)
            taken[name].append((time.thread_time_ns() - start) / count)
    return {name: statistics.median(times) for name, times in taken.items()}


def to_halt(guest: Guest) -> tuple[Callable[[int], None], int]:
    """A side that runs INNER accesses."""
    return (lambda _count: guest.run_to_halt()), INNER


def sides_of(system: HardwareSystem, loop: ctypes.CDLL, exits: int) -> dict[str, tuple[Callable[[int], None], int]]:
    """Everything that is measured."""
    sides: dict[str, tuple[Callable[[int], None], int]] = {
        "OUT exit, C loop": (c_side(loop, Guest(system, ENDLESS_OUT)), exits),
        "OUT exit, Python device": (Guest(system, ENDLESS_OUT).serve, exits),
        "IN exit, C loop": (c_side(loop, Guest(system, ENDLESS_IN)), exits),
        "IN exit, Python device": (Guest(system, ENDLESS_IN).serve, exits),
    }
    sides["guest NOP"] = to_halt(Guest(system, counted("90")))
    coalesced = Guest(system, counted("ee"))
    if coalesced.vm.register_coalesced_pio(PORT, 1):
        sides["OUT, coalesced, drained"] = to_halt(coalesced)
    if system.check_extension(abi.KVM_CAP_IOEVENTFD):
        event = os.eventfd(0, os.EFD_CLOEXEC)
        doorbell = Guest(system, counted("ee"))
        doorbell.vm.ioeventfd(event, PORT, 1)
        sides["OUT, ioeventfd"] = to_halt(doorbell)
    return sides


def report(medians: dict[str, float]) -> bool:
    """Print the figures; whether the target is met."""
    for name, ns in medians.items():
        print(f"{name:26s} {ns:9.0f} ns")
    met = True
    for kind in ("OUT", "IN"):
        ratio = medians[f"{kind} exit, Python device"] / medians[f"{kind} exit, C loop"]
        met = met and ratio <= TARGET
        verdict = "PASS" if ratio <= TARGET else "FAIL"
        print(f"{kind} exit, Python / C: {ratio:.3f} (target {TARGET}) {verdict}")
    return met


def main(arguments: Iterable[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=200, help="turns of each side (default 200)")
    parser.add_argument("--exits", type=int, default=200, help="exits a turn (default 200)")
    options = parser.parse_args(None if arguments is None else list(arguments))
    try:
        system = open_hardware()
    except EngineError as error:
        print(f"kvm_exit: {error}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as directory:
        loop = compile_loop(directory)
        met = report(measure(sides_of(system, loop, options.exits), options.rounds))
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
