"""Port I/O of real-mode guests through KVM exits, and what KVM serves itself."""

from __future__ import annotations

import os
import struct

import pytest

from kvm_guest import CODE, DATA, PORT, Guest, guest
from portvisor.kvm import abi
from portvisor.kvm.abi import ExitReason
from portvisor.kvm.api import EngineError
from portvisor.kvm.hardware import HardwareSystem

pytestmark = pytest.mark.kvm

HLT = b"\xf4"
OUT = {1: b"\xee", 2: b"\xef", 4: b"\x66\xef"}
IN = {1: b"\xec", 2: b"\xed", 4: b"\x66\xed"}
OUTS = {1: b"\x6e", 2: b"\x6f", 4: b"\x66\x6f"}
INS = {1: b"\x6c", 2: b"\x6d", 4: b"\x66\x6d"}
REP = b"\xf3"


@pytest.mark.parametrize("size", [1, 2, 4])
def test_out(kvm: HardwareSystem, size: int) -> None:
    with guest(kvm, OUT[size] + HLT) as made:
        made.start(rax=0x84736251, rdx=PORT + 4)
        assert made.serve() == ExitReason.HLT
        assert made.recorder.log == [("out", 4, size, 0x84736251 & ((1 << 8 * size) - 1))]


@pytest.mark.parametrize("size", [1, 2, 4])
def test_in_changes_as_many_bytes_as_its_size(kvm: HardwareSystem, size: int) -> None:
    with guest(kvm, IN[size] + HLT) as made:
        made.start(rax=0x11223344)
        made.recorder.replies = [0x84736251]
        assert made.serve() == ExitReason.HLT
        mask = (1 << 8 * size) - 1
        assert made.vcpu.get_regs().rax == (0x11223344 & ~mask) | (0x84736251 & mask)


def test_an_exit_names_direction_size_port_and_count(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\xe7\x80" + HLT) as made:  # out 80h, ax
        made.start(rax=0x5A5A)
        assert made.exit() == ExitReason.IO
        io = struct.unpack_from("<BBHIQ", made.vcpu.kvm_run, abi.RUN_UNION)
        assert io == (abi.KVM_EXIT_IO_OUT, 2, 0x80, 1, abi.PIO_DATA)


def test_ports_wrap_nowhere_and_open_bus_reads_ones(kvm: HardwareSystem) -> None:
    with guest(kvm, IN[1] + HLT) as made:
        made.start(rdx=0xFFFF)
        assert made.serve() == ExitReason.HLT
        assert made.vcpu.get_regs().rax == 0xFF


@pytest.mark.parametrize("size", [1, 2, 4])
@pytest.mark.parametrize("count", [1, 7, 64])
def test_rep_ins_stores_what_the_device_gave(kvm: HardwareSystem, size: int, count: int) -> None:
    with guest(kvm, REP + INS[size] + HLT) as made:
        made.start(rdi=DATA, rcx=count)
        made.recorder.replies = [0x0403_0201 + number for number in range(count)]
        expected = made.recorder.block_reply[: size * count]
        assert made.serve() == ExitReason.HLT
        regs = made.vcpu.get_regs()
        assert (regs.rcx, regs.rdi) == (0, DATA + size * count)
        stored = made.memory[DATA : DATA + size * count]
        if count == 1:
            assert stored == 0x0403_0201.to_bytes(4, "little")[:size]
        else:
            assert stored == expected


def test_rep_insw_comes_as_blocks_with_size_and_count(kvm: HardwareSystem) -> None:
    with guest(kvm, REP + INS[2] + HLT) as made:
        made.start(rdi=DATA, rcx=256)  # one ATA sector
        assert made.serve() == ExitReason.HLT
        blocks = made.recorder.blocks
        assert {(kind, offset, size) for kind, offset, size, _ in blocks} == {("in", 0, 2)}
        assert sum(len(data) for *_, data in blocks) == 512
        assert len(blocks) < 256, "each element came alone"
        assert not made.recorder.log


@pytest.mark.parametrize("size", [1, 2, 4])
def test_rep_outs_gives_every_element_in_order(kvm: HardwareSystem, size: int) -> None:
    with guest(kvm, REP + OUTS[size] + HLT) as made:
        data = bytes(range(1, 1 + 9 * size))
        made.place(DATA, data)
        made.start(rsi=DATA, rcx=9)
        assert made.serve() == ExitReason.HLT
        singles = b"".join(value.to_bytes(width, "little") for _, _, width, value in made.recorder.log)
        blocks = b"".join(block for *_, block in made.recorder.blocks)
        assert singles + blocks == data
        regs = made.vcpu.get_regs()
        assert (regs.rcx, regs.rsi) == (0, DATA + 9 * size)


def test_immediate_exit_completes_a_pending_in(kvm: HardwareSystem) -> None:
    with guest(kvm, IN[1] + b"\x40" + HLT) as made:  # in al, dx; inc ax
        made.recorder.replies = [0x77]
        assert made.exit() == ExitReason.IO
        made.exits.io()
        made.vcpu.immediate_exit = True
        assert made.vcpu.run() == ExitReason.INTR
        assert made.vcpu.immediate_exit
        regs = made.vcpu.get_regs()
        assert (regs.rax, regs.rip) == (0x77, CODE + 1)
        made.vcpu.immediate_exit = False
        assert made.serve() == ExitReason.HLT
        assert made.vcpu.get_regs().rax == 0x78


def test_immediate_exit_completes_a_pending_string(kvm: HardwareSystem) -> None:
    with guest(kvm, INS[2] + HLT) as made:  # insw
        made.start(rdi=DATA)
        made.recorder.replies = [0xBEEF]
        assert made.exit() == ExitReason.IO
        made.exits.io()
        assert made.memory[DATA : DATA + 2] == b"\0\0"
        made.vcpu.immediate_exit = True
        assert made.vcpu.run() == ExitReason.INTR
        assert made.memory[DATA : DATA + 2] == b"\xef\xbe"


def test_a_triple_fault_is_a_shutdown(kvm: HardwareSystem) -> None:
    code = b"\x0f\x01\x1e\x00\x30\x0f\x20\xc0\x0c\x01\x0f\x22\xc0\x0f\x0b"
    with guest(kvm, code) as made:  # lidt [3000h] with limit 0; cr0.PE = 1; ud2
        assert made.exit() == ExitReason.SHUTDOWN


def test_the_engine_serves_no_ports_itself(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made:
        assert made.vm.serve_ports(made.ports) is False
        assert made.vm.serve_memory(made.mmio) is False


# --- coalesced ports --------------------------------------------------------------------------------------


def coalesce(made: Guest, port: int = PORT, size: int = 1) -> None:
    if not made.vm.register_coalesced_pio(port, size):
        pytest.skip("needs KVM_CAP_COALESCED_PIO (Linux 4.20)")


def test_coalesced_writes_do_not_exit_and_come_before_the_next_exit(kvm: HardwareSystem) -> None:
    code = b"\xee\x40\xee\x40\xee\x42\x40\xee" + HLT  # 3 x (out dx, al; inc ax), inc dx; out dx, al
    with guest(kvm, code) as made:
        coalesce(made)
        assert made.exit() == ExitReason.IO
        assert made.recorder.log == [("out", 0, 1, 0), ("out", 0, 1, 1), ("out", 0, 1, 2)]
        made.exits.io()
        assert made.recorder.log[-1] == ("out", 1, 1, 3)
        assert made.serve() == ExitReason.HLT


@pytest.mark.parametrize("count", [84, 170, 400])
def test_a_full_ring_loses_nothing(kvm: HardwareSystem, count: int) -> None:
    with guest(kvm, REP + OUTS[1] + HLT) as made:
        coalesce(made)
        data = bytes(number * 31 & 0xFF for number in range(count))
        made.place(DATA, data)
        made.start(rsi=DATA, rcx=count)
        exits = 0
        while made.exit() == ExitReason.IO:
            exits += 1
            made.exits.io()
        assert bytes(made.recorder.written()) == data
        assert exits <= count // 80


def test_reads_of_a_coalesced_port_exit_after_its_writes(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\xee\xec" + HLT) as made:
        coalesce(made)
        made.start(rax=0x41)
        assert made.serve() == ExitReason.HLT
        assert [kind for kind, *_ in made.recorder.log] == ["out", "in"]


def test_coalesced_memory_goes_to_its_writer(kvm: HardwareSystem) -> None:
    code = b"\xb8\x00\xa0\x8e\xd8\xa2\x05\x00\xa3\x08\x00" + HLT  # ds = A000h; mov [5], al; mov [8], ax
    with guest(kvm, code) as made:
        written: list[tuple[int, int, int]] = []
        registered = made.vm.register_coalesced_mmio(  # type: ignore[attr-defined]
            0xA0000, 0x10000, lambda address, size, value: written.append((address, size, value))
        )
        if not registered:
            pytest.skip("needs KVM_CAP_COALESCED_MMIO")
        assert made.serve(1) == ExitReason.HLT
        assert written == [(0xA0005, 1, 0), (0xA0008, 2, 0xA000)]


# --- ioeventfd --------------------------------------------------------------------------------------------


class Doorbell:
    """An eventfd; `rings` reads and clears its count."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    def rings(self) -> int:
        try:
            return os.eventfd_read(self.fd)
        except BlockingIOError:
            return 0


@pytest.fixture
def doorbell(kvm: HardwareSystem) -> Doorbell:
    if kvm.check_extension(abi.KVM_CAP_IOEVENTFD) <= 0:
        pytest.skip("needs KVM_CAP_IOEVENTFD")
    return Doorbell()


def test_an_ioeventfd_is_rung_without_an_exit(kvm: HardwareSystem, doorbell: Doorbell) -> None:
    with guest(kvm, b"\xee\xee\xee" + HLT) as made:
        made.vm.ioeventfd(doorbell.fd, PORT, 1)
        assert made.exit() == ExitReason.HLT
        assert doorbell.rings() == 3


def test_datamatch_rings_for_one_value_only(kvm: HardwareSystem, doorbell: Doorbell) -> None:
    with guest(kvm, b"\xef\x40\xef\x40\xef" + HLT) as made:  # 3 x out dx, ax; inc ax
        made.vm.ioeventfd(doorbell.fd, PORT, 2, datamatch=0x1001)
        made.start(rax=0x1000)
        assert made.serve() == ExitReason.HLT
        assert doorbell.rings() == 1
        assert made.recorder.written() == [0x1000, 0x1002]


def test_datamatch_of_zero_is_a_match(kvm: HardwareSystem, doorbell: Doorbell) -> None:
    with guest(kvm, b"\xee\x40\xee" + HLT) as made:
        made.vm.ioeventfd(doorbell.fd, PORT, 1, datamatch=0)
        assert made.serve() == ExitReason.HLT
        assert doorbell.rings() == 1
        assert made.recorder.written() == [1]


def test_another_size_and_reads_exit(kvm: HardwareSystem, doorbell: Doorbell) -> None:
    with guest(kvm, b"\xef\xec" + HLT) as made:
        made.vm.ioeventfd(doorbell.fd, PORT, 1)
        assert made.serve() == ExitReason.HLT
        assert doorbell.rings() == 0
        assert [kind for kind, *_ in made.recorder.log] == ["out", "in"]


def test_deassign_brings_the_exits_back(kvm: HardwareSystem, doorbell: Doorbell) -> None:
    with guest(kvm, b"\xee" + HLT) as made:
        made.vm.ioeventfd(doorbell.fd, PORT, 1, datamatch=5)
        made.vm.ioeventfd(doorbell.fd, PORT, 1, datamatch=5, deassign=True)
        made.start(rax=5)
        assert made.serve() == ExitReason.HLT
        assert doorbell.rings() == 0
        assert made.recorder.written() == [5]


def test_two_doorbells_of_one_value_are_refused(kvm: HardwareSystem, doorbell: Doorbell) -> None:
    with guest(kvm, HLT) as made:
        made.vm.ioeventfd(doorbell.fd, PORT, 1)
        with pytest.raises(EngineError, match="ioeventfd on port 0x02f0: File exists"):
            made.vm.ioeventfd(doorbell.fd, PORT, 1)
