"""Cost of port I/O on the software CPU: a Python device on the port space against Unicorn's own Python binding.

    python bench/software_io.py [--rounds N] [--accesses N]

The peer is the stock `unicorn` package with UC_HOOK_INSN callbacks that call the same device and nothing else.
Ours is what a machine runs: engine, port space, device. Both execute the same guest loop in turns; what is
counted is the thread's processor time, and the medians are compared, so that a busy host does not matter much.
Exit status 1 if a ratio is above its target.
"""

from __future__ import annotations

import argparse
import mmap
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from portvisor.kvm.abi import ExitReason, Regs, Segment, Sregs
from portvisor.kvm.software import SoftwareVcpu, SoftwareVm, open_software
from portvisor.ports import Device, MmioSpace, PortRange, PortSpace

unicorn: Any = import_module("unicorn")
x86: Any = import_module("unicorn.x86_const")

PORT = 0x1F0
CODE = 0x1000
DATA = 0x8000
MEMORY = 0x20000
WORDS = 256
"""One ATA sector."""


class Sink(Device):
    """Eight ports that answer at once."""

    ports = (PortRange(PORT, 8, (1, 2, 4), name="sink"),)
    SECTOR = bytes(range(256)) * 2

    def read(self, offset: int, size: int) -> int:
        return 0x50

    def write(self, offset: int, size: int, value: int) -> None:
        pass

    def read_block(self, offset: int, size: int, count: int) -> bytes:
        return self.SECTOR[: size * count]

    def write_block(self, offset: int, size: int, data: bytes) -> None:
        pass


def looped(instruction: str, setup: str = "") -> bytes:
    """l: SETUP; INSTRUCTION; dec ebx; jnz l; hlt"""
    body = bytes.fromhex(setup + instruction) + b"\x4b"
    jump = b"\x0f\x85" + (-len(body) - 6).to_bytes(4, "little", signed=True)
    return body + jump + b"\xf4"


SET_UP_STRING = "b9" + WORDS.to_bytes(4, "little").hex() + "bf" + DATA.to_bytes(4, "little").hex()
SET_UP_STRING += "be" + DATA.to_bytes(4, "little").hex()


@dataclass(frozen=True)
class Case:
    """A guest loop, how many accesses a turn of it makes, and the greatest ratio allowed."""

    name: str
    code: bytes
    accesses: int
    target: float


CASES = (
    Case("IN byte", looped("ec"), 1, 0.5),
    Case("OUT byte", looped("ee"), 1, 0.5),
    Case("IN dword", looped("ed"), 1, 0.5),
    Case("OUT dword", looped("ef"), 1, 0.5),
    Case("REP INSW 256", looped("f3666d", SET_UP_STRING), WORDS, 0.15),
    Case("REP OUTSW 256", looped("f3666f", SET_UP_STRING), WORDS, 0.15),
)


class Ours:
    """The software engine with a port space."""

    def __init__(self, code: bytes) -> None:
        self.system = open_software()
        self.vm: SoftwareVm = self.system.create_vm()
        self.memory = mmap.mmap(-1, MEMORY)
        self.memory[CODE : CODE + len(code)] = code
        self.vm.set_user_memory_region(0, 0, self.memory, 0, MEMORY)
        self.vcpu: SoftwareVcpu = self.vm.create_vcpu(0)
        space = PortSpace()
        space.attach(Sink())
        self.vm.serve_ports(space)
        self.vm.serve_memory(MmioSpace())
        sregs = Sregs(cs=Segment(0, 0xFFFFFFFF, 8, 0xB, db=1, g=1), cr0=0x11)
        for name in ("ds", "es", "fs", "gs", "ss"):
            setattr(sregs, name, Segment(0, 0xFFFFFFFF, 0x10, 3, db=1, g=1))
        self.vcpu.set_sregs(sregs)

    def run(self, turns: int) -> float:
        """Nanoseconds of processor time for so many turns of the loop."""
        self.vcpu.set_regs(Regs(rip=CODE, rdx=PORT, rbx=turns, rsp=DATA))
        start = time.thread_time_ns()
        reason = self.vcpu.run()
        taken = time.thread_time_ns() - start
        assert reason == ExitReason.HLT, reason
        return taken

    def close(self) -> None:
        self.system.close()


class Peer:
    """The stock Python binding."""

    def __init__(self, code: bytes) -> None:
        device = Sink()
        read, write = device.read, device.write
        self.uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        self.uc.mem_map(0, MEMORY)
        self.uc.mem_write(CODE, code)

        def on_in(_uc: object, port: int, size: int, _data: object) -> int:
            return read(port - PORT, size)

        def on_out(_uc: object, port: int, size: int, value: int, _data: object) -> None:
            write(port - PORT, size, value)

        self.uc.hook_add(unicorn.UC_HOOK_INSN, on_in, None, 1, 0, x86.UC_X86_INS_IN)
        self.uc.hook_add(unicorn.UC_HOOK_INSN, on_out, None, 1, 0, x86.UC_X86_INS_OUT)
        self.end = CODE + len(code) - 1

    def run(self, turns: int) -> float:
        """Nanoseconds of processor time for so many turns of the loop."""
        self.uc.reg_write(x86.UC_X86_REG_EDX, PORT)
        self.uc.reg_write(x86.UC_X86_REG_EBX, turns)
        start = time.thread_time_ns()
        self.uc.emu_start(CODE, self.end)
        return time.thread_time_ns() - start


def cost(run: Callable[[int], float], turns: int, accesses: int) -> float:
    """Nanoseconds an access."""
    return run(turns) / (turns * accesses)


def measure(case: Case, rounds: int, accesses: int) -> bool:
    """Print one line; whether the target is met."""
    ours, peer = Ours(case.code), Peer(case.code)
    turns = max(1, accesses // case.accesses)
    samples: tuple[list[float], list[float]] = ([], [])
    cost(ours.run, 10, 1), cost(peer.run, 10, 1)
    for _ in range(rounds):
        samples[0].append(cost(ours.run, turns, case.accesses))
        samples[1].append(cost(peer.run, turns, case.accesses))
    ours.close()
    mine, theirs = map(statistics.median, samples)
    ratio = mine / theirs
    passed = ratio <= case.target
    verdict = "PASS" if passed else "FAIL"
    print(f"{case.name:14} {mine:8.1f} ns  binding {theirs:8.1f} ns  ratio {ratio:5.3f} <= {case.target} {verdict}")
    return passed


def main() -> int:
    """Run all cases."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--accesses", type=int, default=20_000, help="accesses in a round")
    arguments = parser.parse_args()
    results = [measure(case, arguments.rounds, arguments.accesses) for case in CASES]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
