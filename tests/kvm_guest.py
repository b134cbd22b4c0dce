"""A VM with a few bytes of real-mode code, for tests of either engine."""

from __future__ import annotations

import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager

from portvisor.kvm.abi import ExitReason, Regs, Segment, Sregs
from portvisor.kvm.api import System
from portvisor.kvm.exits import ExitHandler
from portvisor.ports import Device, MmioSpace, PortRange, PortSpace

CODE = 0x1000
DATA = 0x3000
STACK = 0x8000
MEMORY = 0x20000
PORT = 0x2F0
WATCHDOG_NS = 20_000_000_000
_spaces: list[PortSpace] = []
"""Port spaces of closed guests: making one takes longer than most tests."""


def real_mode(**segments: Segment) -> Sregs:
    """Real mode with CS at 0 (all segments are at 0 after reset but CS)."""
    sregs = Sregs(cs=Segment(base=0, selector=0, type=0xB))
    for name, segment in segments.items():
        setattr(sregs, name, segment)
    return sregs


class Recorder(Device):
    """Eight ports of every size; logs what comes, answers from `replies`, then with the port's offset."""

    ports = (PortRange(PORT, 8, (1, 2, 4), name="recorder"),)

    def __init__(self) -> None:
        super().__init__()
        self.log: list[tuple[str, int, int, int]] = []
        self.blocks: list[tuple[str, int, int, bytes]] = []
        self.replies: list[int] = []
        self.block_reply = bytes(range(256)) * 16

    def read(self, offset: int, size: int) -> int:
        value = self.replies.pop(0) if self.replies else offset
        self.log.append(("in", offset, size, value))
        return value

    def write(self, offset: int, size: int, value: int) -> None:
        self.log.append(("out", offset, size, value))

    def read_block(self, offset: int, size: int, count: int) -> bytes:
        data = self.block_reply[: size * count]
        self.block_reply = self.block_reply[size * count :]
        self.blocks.append(("in", offset, size, data))
        return data

    def write_block(self, offset: int, size: int, data: bytes) -> None:
        self.blocks.append(("out", offset, size, data))

    def written(self) -> list[int]:
        """Values of all single writes."""
        return [value for kind, _, _, value in self.log if kind == "out"]


class Guest:
    """Code at 1000h, a stack below 8000h, DX at the recorder's first port."""

    def __init__(self, system: System, code: bytes, *, irqchip: bool = False) -> None:
        self.vm = system.create_vm()
        self.memory = mmap.mmap(-1, MEMORY)
        self.memory[CODE : CODE + len(code)] = code
        self.vm.set_user_memory_region(0, 0, self.memory, 0, MEMORY)
        if irqchip:
            self.vm.create_irqchip()
            self.vm.create_pit2()
        self.vcpu = self.vm.create_vcpu(0)
        self.vcpu.set_sregs(real_mode())
        self.start()
        self.recorder = Recorder()
        self.ports = _spaces.pop() if _spaces else PortSpace(strict=True)
        self.ports.attach(self.recorder)
        self.mmio = MmioSpace()
        self.exits = ExitHandler(self.vcpu.kvm_run, self.ports, self.mmio)

    def start(self, **registers: int) -> None:
        """Start over, with these registers."""
        initial = {"rip": CODE, "rsp": STACK, "rdx": PORT} | registers
        self.vcpu.set_regs(Regs(**initial))

    def vector(self, number: int, address: int) -> None:
        """Point an entry of the real-mode interrupt table at 0:address."""
        self.memory[4 * number : 4 * number + 4] = address.to_bytes(4, "little")

    def place(self, address: int, code: bytes) -> None:
        """Put bytes into memory."""
        self.memory[address : address + len(code)] = code
        self.vm.memory_written(address, address + len(code))

    def exit(self) -> int:
        """Run to the next exit, and for no longer than the watchdog."""
        self.vcpu.set_alarm(time.monotonic_ns() + WATCHDOG_NS)
        reason = self.vcpu.run()
        self.vcpu.set_alarm(None)
        self.vm.drain_coalesced(self.ports.write)
        return reason

    def serve(self, limit: int = 100_000) -> int:
        """Run and serve port and memory exits until another exit comes."""
        for _ in range(limit):
            reason = self.exit()
            if reason == ExitReason.IO:
                self.exits.io()
            elif reason == ExitReason.MMIO:
                self.exits.mmio()
            else:
                return reason
        raise AssertionError(f"{limit} exits and no end")

    def close(self) -> None:
        """Give the VM back."""
        if self.recorder in self.ports.devices():
            self.ports.detach(self.recorder)
            _spaces.append(self.ports)
        self.vcpu.close()
        self.vm.close()


@contextmanager
def guest(system: System, code: bytes, *, irqchip: bool = False) -> Iterator[Guest]:
    """A guest for the length of a test."""
    made = Guest(system, code, irqchip=irqchip)
    try:
        yield made
    finally:
        made.close()
