"""`kvm_compat` against the emulator of the running kernel: the same exits, registers and memory, step by step."""

from __future__ import annotations

import mmap
import struct
import time
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from portvisor.kvm import abi
from portvisor.kvm.emulate import IO_NEEDED, PROPAGATE_FAULT, Emulator, FlatMemory, MemoryOps, decode
from portvisor.kvm.hardware import open_hardware
from support import require_kvm

pytestmark = pytest.mark.kvm

MEMORY = 0x40000
WATCHDOG_NS = 20_000_000_000
CODE = 0x1000
STACK = 0x0F00
HANDLERS = 0x600
HLT = 0xF4
DF = 0x400
RF = 1 << 16
COMPARED = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rip", "rflags")


class KvmVcpu:
    """A vCPU in real mode on /dev/kvm; every exception ends at a HLT that tells its vector."""

    def __init__(self) -> None:
        self.system = open_hardware()
        self.vm = self.system.create_vm()
        self.memory = mmap.mmap(-1, MEMORY)
        self.vm.set_user_memory_region(0, 0, self.memory, 0, MEMORY)
        self.vcpu = self.vm.create_vcpu(0)
        self.run_page = self.vcpu.kvm_run
        self.reset_sregs = self.vcpu.get_sregs()
        self.reset_sregs.cs.base = self.reset_sregs.cs.selector = 0

    def set_state(self, regs: abi.Regs, sregs: abi.Sregs) -> None:
        self.vcpu.set_sregs(sregs)
        self.vcpu.set_regs(regs)

    def run(self) -> int:
        self.vcpu.set_alarm(time.monotonic_ns() + WATCHDOG_NS)
        reason = self.vcpu.run()
        self.vcpu.set_alarm(None)
        return reason

    def complete_only(self) -> None:
        """Finish what is pending and execute nothing."""
        self.vcpu.immediate_exit = True
        assert self.run() == abi.ExitReason.INTR
        self.vcpu.immediate_exit = False

    def io(self) -> tuple[int, int, int, int, int]:
        """Direction, size, port, count, where the data lies."""
        fields = struct.unpack_from("<BBHIQ", self.run_page, abi.RUN_IO_DIRECTION)
        return fields[0], fields[1], fields[2], fields[3], fields[4]

    def close(self) -> None:
        self.vcpu.close()
        self.vm.close()
        self.system.close()


@pytest.fixture(scope="module")
def vcpu() -> Iterator[KvmVcpu]:
    require_kvm()
    machine = KvmVcpu()
    yield machine
    machine.close()


PATTERN = bytes((at * 7 + (at >> 8) * 3) & 0xFF for at in range(MEMORY))


def image(code: bytes) -> bytearray:
    """Interrupt table, handlers, code with a HLT behind it, data that tells addresses apart."""
    memory = bytearray(PATTERN)
    for vector in range(32):
        struct.pack_into("<HH", memory, 4 * vector, HANDLERS + vector, 0)
        memory[HANDLERS + vector] = HLT
    memory[CODE : CODE + len(code) + 1] = code + bytes((HLT,))
    return memory


def answer(index: int, length: int) -> bytes:
    return bytes((index * 31 + at * 5 + 1) & 0xFF for at in range(length))


def compared(regs: abi.Regs) -> dict[str, str]:
    return {name: hex(getattr(regs, name)) for name in COMPARED}


OPCODES = st.sampled_from([0x6C, 0x6D, 0x6E, 0x6F, 0xEC, 0xED])
PREFIXES = st.lists(st.sampled_from([0x66, 0x67, 0xF3, 0xF2, 0x26, 0x2E, 0x36, 0x3E, 0x64]), max_size=4)
NEAR = (0x2000, 0x2FFC, 0x2FFD, 0x2FFF, 0x3000, 0x3001, 0x3003, 0x7FFE, 0xFFFE, 0xFFFF, 0x1_0000)
OFFSETS = st.sampled_from(NEAR) | st.integers(0x2000, 0xFFFF)
COUNTS = st.integers(0, 9) | st.sampled_from([255, 256, 257, 600, 1023, 1024, 1025, 1300])
FUZZ = settings(
    max_examples=120,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


class Pair:
    """The same machine twice: on KVM and under the emulator."""

    def __init__(self, vcpu: KvmVcpu, code: bytes, regs: abi.Regs, sregs: abi.Sregs) -> None:
        self.vcpu = vcpu
        self.memory = image(code)
        self.regs, self.sregs = regs, sregs
        self.single = not decode(code, 32 if sregs.cs.db else 16).string
        vcpu.memory[:] = bytes(self.memory)
        vcpu.set_state(regs, sregs)
        self.flat = FlatMemory(self.memory)
        self.emulator = Emulator(MemoryOps(regs, sregs, self.flat.read, self.flat.write), kvm_compat=True)
        self.exits = 0

    def check_exit(self) -> None:
        """Both are at the same exit with the same registers."""
        request = self.emulator.io
        assert request is not None
        direction, size, port, count, where = self.vcpu.io()
        assert (direction, size, port, count) == (request.direction, request.size, request.port, request.count)
        if direction == abi.KVM_EXIT_IO_OUT:
            assert self.vcpu.run_page[where : where + size * count] == request.data
        state = self.vcpu.vcpu.get_regs()
        if self.single:
            state.rflags &= ~RF  # the fast path of the hardware back ends leaves RF to the CPU
        assert compared(state) == compared(self.regs)

    def complete(self) -> int:
        """Give both the same data."""
        request = self.emulator.io
        assert request is not None
        data = b""
        if request.direction == abi.KVM_EXIT_IO_IN:
            data = answer(self.exits, request.size * request.count)
            where = self.vcpu.io()[4]
            self.vcpu.run_page[where : where + len(data)] = data
        self.exits += 1
        return self.emulator.complete(data)

    def run(self) -> None:
        """To the HLT behind the instruction, or to that of an exception handler."""
        while True:
            result, reason = self.emulator.step(), self.vcpu.run()
            if result == IO_NEEDED:
                assert reason == abi.ExitReason.IO
                self.check_exit()
                result = self.complete()
                if result != PROPAGATE_FAULT and not self.emulator.finished:
                    continue
                reason = self.vcpu.run()
            break
        assert reason == abi.ExitReason.HLT
        self.check_end(result)

    def check_end(self, result: int) -> None:
        final = self.vcpu.vcpu.get_regs()
        if result == PROPAGATE_FAULT:
            exception = self.emulator.exception
            assert exception is not None
            assert final.rip == HANDLERS + exception.vector + 1
            pushed_ip, _, pushed_flags = struct.unpack_from("<HHH", self.vcpu.memory, STACK - 6)
            assert (pushed_ip, pushed_flags) == (self.regs.rip, self.regs.rflags & 0xFFFF)
            self.flat.write(STACK - 6, self.vcpu.memory[STACK - 6 : STACK])
            final.rip, final.rflags = self.regs.rip, self.regs.rflags
        else:
            assert self.emulator.finished
            final.rip -= 1
        assert compared(final) == compared(self.regs)
        assert self.vcpu.memory[:] == bytes(self.memory)


def start_registers(rcx: int, rdi: int, rsi: int = 0x3000, down: bool = False) -> abi.Regs:
    return abi.Regs(
        rax=0x1122334455667788, rcx=rcx, rdx=0x2F0, rdi=rdi, rsi=rsi, rsp=STACK, rip=CODE, rflags=2 | down * DF
    )


def real_mode(vcpu: KvmVcpu) -> abi.Sregs:
    return abi.Sregs.unpack(vcpu.reset_sregs.pack())


def protected_mode(vcpu: KvmVcpu) -> abi.Sregs:
    sregs = real_mode(vcpu)
    sregs.cr0 |= 1
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        kind = 0xB if name == "cs" else 3
        setattr(sregs, name, abi.Segment(limit=0xFFFF_FFFF, selector=8, type=kind, db=1, g=1))
    return sregs


@FUZZ
@given(
    prefixes=PREFIXES,
    opcode=OPCODES,
    rcx=COUNTS,
    rdi=OFFSETS,
    rsi=OFFSETS,
    down=st.booleans(),
    es_base=st.sampled_from([0, 0x10, 0x3330, 0x1_0000]),
    es_limit=st.sampled_from([0xFFFF, 0xFFFF, 0x2FFF, 0x3003, 0xFFFF_FFFF]),
)
def test_real_mode(
    vcpu: KvmVcpu,
    prefixes: list[int],
    opcode: int,
    rcx: int,
    rdi: int,
    rsi: int,
    down: bool,
    es_base: int,
    es_limit: int,
) -> None:
    sregs = real_mode(vcpu)
    sregs.es.base, sregs.es.selector, sregs.es.limit = es_base, es_base >> 4, es_limit
    Pair(vcpu, bytes([*prefixes, opcode]), start_registers(rcx, rdi, rsi, down), sregs).run()


@FUZZ
@given(prefixes=PREFIXES, opcode=OPCODES, rcx=COUNTS, rdi=OFFSETS, rsi=OFFSETS, down=st.booleans())
def test_protected_mode(
    vcpu: KvmVcpu, prefixes: list[int], opcode: int, rcx: int, rdi: int, rsi: int, down: bool
) -> None:
    Pair(vcpu, bytes([*prefixes, opcode]), start_registers(rcx, rdi, rsi, down), protected_mode(vcpu)).run()


TSS = 0x4000


def ring_3(vcpu: KvmVcpu, limit: int) -> abi.Sregs:
    """32-bit protected mode without an interrupt table: a fault ends in KVM_EXIT_SHUTDOWN."""
    sregs = protected_mode(vcpu)
    for name in ("cs", "ds", "es", "fs", "gs", "ss"):
        segment = getattr(sregs, name)
        segment.dpl, segment.selector = 3, 0xB
    sregs.tr = abi.Segment(base=TSS, limit=limit, selector=0x28, type=0xB, s=0)
    sregs.idt.limit = 0
    return sregs


@FUZZ
@given(
    code=st.sampled_from(["ec", "ed", "66 ed", "ee", "ef", "e4 31", "6c", "f3 6d", "66 6f"]),
    port=st.sampled_from([0x2F0, 0x2F6, 0x2F7, 0xFFFD, 0xFFFF]),
    closed=st.sets(st.sampled_from([0x31, 0x2EF, 0x2F0, 0x2F1, 0x2F7, 0x2F8, 0x2FA]), max_size=2),
    map_base=st.sampled_from([0x68, 0x68, 0x68, 0, 0x1000, 0xFFFF]),
    limit=st.sampled_from([0x2068, 0x2068, 0x2068, 0x67, 0x66, 0x68 + 0x5E, 0x68 + 0x5F, 0x68 + 0x5D, 0x2067]),
)
def test_permission_in_ring_3(
    vcpu: KvmVcpu, code: str, port: int, closed: set[int], map_base: int, limit: int
) -> None:
    regs = start_registers(3, 0x2000)
    regs.rdx = port
    pair = Pair(vcpu, bytes.fromhex(code), regs, ring_3(vcpu, limit))
    bitmap = bytearray(0x3100)
    for number in closed:
        bitmap[map_base % 0x1100 + number // 8] |= 1 << number % 8
    bitmap[map_base % 0x1100 + 0x2000] = 0xFF
    bitmap[0x66:0x68] = map_base.to_bytes(2, "little")
    vcpu.memory[TSS : TSS + len(bitmap)] = pair.memory[TSS : TSS + len(bitmap)] = bytes(bitmap)
    result, reason = pair.emulator.step(), vcpu.run()
    if result == IO_NEEDED:
        assert reason == abi.ExitReason.IO
        pair.check_exit()
    else:
        assert (result, reason) == (PROPAGATE_FAULT, abi.ExitReason.SHUTDOWN)
    vcpu.complete_only()


def test_user_space_lowers_rcx_while_ins_is_pending(vcpu: KvmVcpu) -> None:
    pair = Pair(vcpu, bytes.fromhex("f3 6c"), start_registers(2, 0x2000), real_mode(vcpu))
    assert (pair.emulator.step(), vcpu.run()) == (IO_NEEDED, abi.ExitReason.IO)
    pair.check_exit()
    pair.regs.rcx = 1
    vcpu.set_state(pair.regs, pair.sregs)
    pair.complete()
    assert (pair.regs.rcx, pair.regs.rdi) == (0, 0x2001)
    pair.run()


def test_immediate_exit_completes_without_going_on(vcpu: KvmVcpu) -> None:
    pair = Pair(vcpu, bytes.fromhex("f3 6c"), start_registers(1500, 0x2000), real_mode(vcpu))
    assert (pair.emulator.step(), vcpu.run()) == (IO_NEEDED, abi.ExitReason.IO)
    pair.check_exit()
    pair.complete()
    vcpu.complete_only()
    assert compared(vcpu.vcpu.get_regs()) == compared(pair.regs)
    assert (pair.regs.rcx, pair.regs.rdi, pair.regs.rip) == (476, 0x2400, CODE)
    pair.run()
