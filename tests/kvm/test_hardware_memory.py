"""Memory slots and memory-mapped exits of KVM."""

from __future__ import annotations

import gc
import mmap
import time
from pathlib import Path

import pytest

from kvm_guest import CODE, DATA, WATCHDOG_NS, guest, real_mode
from portvisor.kvm.abi import PAGE_SIZE, ExitReason, Regs
from portvisor.kvm.api import EngineError
from portvisor.kvm.hardware import HardwareSystem, HardwareVcpu

pytestmark = pytest.mark.kvm

WINDOW = 0xD0000
IN_WINDOW = b"\xb8\x00\xd0\x8e\xd8"
"""mov ax, D000h; mov ds, ax"""
HLT = b"\xf4"


class Registers:
    """Memory-mapped registers with a log."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int, int, int]] = []

    def mmio_read(self, offset: int, size: int) -> int:
        value = 0x8877_6655_4433_2211 >> 8 * (offset & 7) & ((1 << 8 * size) - 1)
        self.log.append(("read", offset, size, value))
        return value

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self.log.append(("write", offset, size, value))


@pytest.mark.parametrize(
    ("code", "logged", "rax"),
    [
        (b"\xa0\x02\x00", ("read", 2, 1, 0x33), 0xD033),  # mov al, [2]
        (b"\xa1\x02\x00", ("read", 2, 2, 0x4433), 0x4433),  # mov ax, [2]
        (b"\x66\xa1\x04\x00", ("read", 4, 4, 0x88776655), 0x88776655),  # mov eax, [4]
        (b"\xa2\x10\x00", ("write", 0x10, 1, 0), 0xD000),  # mov [10h], al
        (b"\xa3\x10\x00", ("write", 0x10, 2, 0xD000), 0xD000),  # mov [10h], ax
        (b"\x66\xa3\x10\x00", ("write", 0x10, 4, 0xD000), 0xD000),  # mov [10h], eax
    ],
)
def test_unmapped_memory_exits(
    kvm: HardwareSystem, code: bytes, logged: tuple[str, int, int, int], rax: int
) -> None:
    with guest(kvm, IN_WINDOW + code + HLT) as made:
        registers = Registers()
        made.mmio.attach(WINDOW, PAGE_SIZE, registers, "registers")
        assert made.serve() == ExitReason.HLT
        assert registers.log == [logged]
        assert made.vcpu.get_regs().rax == rax


def test_a_dword_across_two_pages_arrives_in_pieces(kvm: HardwareSystem) -> None:
    with guest(kvm, IN_WINDOW + b"\x66\xa1\xfd\x0f" + HLT) as made:  # mov eax, [FFDh]
        registers = Registers()
        made.mmio.attach(WINDOW, 2 * PAGE_SIZE, registers, "registers")
        assert made.serve() == ExitReason.HLT
        assert sum(size for _, _, size, _ in registers.log) == 4
        assert made.vcpu.get_regs().rax == 0x11887766


def test_read_only_memory_is_read_and_its_writes_exit(kvm: HardwareSystem) -> None:
    code = IN_WINDOW + b"\xa0\x05\x00\xc6\x06\x05\x00\x77\x8a\x26\x05\x00" + HLT
    with guest(kvm, code) as made:  # mov al, [5]; mov byte [5], 77h; mov ah, [5]; hlt
        rom = mmap.mmap(-1, PAGE_SIZE)
        rom[5] = 0x42
        made.vm.set_user_memory_region(1, WINDOW, rom, 0, PAGE_SIZE, readonly=True)
        registers = Registers()
        made.mmio.attach(WINDOW, PAGE_SIZE, registers, "registers")
        assert made.serve() == ExitReason.HLT
        assert registers.log == [("write", 5, 1, 0x77)]
        assert made.vcpu.get_regs().rax == 0x4242
        assert rom[5] == 0x42


def test_a_removed_slot_is_unmapped_memory(kvm: HardwareSystem) -> None:
    with guest(kvm, IN_WINDOW + b"\xa0\x00\x00" + HLT) as made:
        extra = mmap.mmap(-1, PAGE_SIZE)
        made.vm.set_user_memory_region(1, WINDOW, extra, 0, PAGE_SIZE)
        assert made.serve() == ExitReason.HLT
        made.vm.set_user_memory_region(1, WINDOW, extra, 0, 0)
        made.start()
        assert made.exit() == ExitReason.MMIO
        extra.close()


def test_a_slot_may_start_inside_the_memory(kvm: HardwareSystem) -> None:
    with guest(kvm, IN_WINDOW + b"\xa0\x00\x00" + HLT) as made:
        extra = mmap.mmap(-1, 2 * PAGE_SIZE)
        extra[PAGE_SIZE] = 0x99
        made.vm.set_user_memory_region(1, WINDOW, extra, PAGE_SIZE, PAGE_SIZE)
        assert made.serve() == ExitReason.HLT
        assert made.vcpu.get_regs().rax == 0xD099


def test_memory_cannot_be_closed_under_the_guest(kvm: HardwareSystem) -> None:
    with guest(kvm, HLT) as made:
        with pytest.raises(BufferError):
            made.memory.close()
        memory = made.memory
    memory.close()


def test_memory_stays_as_long_as_a_vcpu_may_run(kvm: HardwareSystem) -> None:
    def only_the_vcpu() -> HardwareVcpu:
        memory = mmap.mmap(-1, 0x10000)
        memory[CODE] = HLT[0]
        vm = kvm.create_vm()
        vm.set_user_memory_region(0, 0, memory, 0, len(memory))
        vcpu = vm.create_vcpu(0)
        vcpu.set_sregs(real_mode())
        vcpu.set_regs(Regs(rip=CODE))
        return vcpu

    vcpu = only_the_vcpu()
    gc.collect()
    vcpu.set_alarm(time.monotonic_ns() + WATCHDOG_NS)
    assert vcpu.run() == ExitReason.HLT
    vcpu.close()


@pytest.mark.parametrize(
    ("address", "offset", "size", "text"),
    [
        (0xD0000, 0, 2 * PAGE_SIZE, "not inside 0x1000 bytes"),
        (0xD0000, PAGE_SIZE, PAGE_SIZE, "not inside"),
        (0xD0000, -PAGE_SIZE, PAGE_SIZE, "not inside"),
        (0xD0010, 0, PAGE_SIZE, "not a multiple of 4096"),
        (0xD0000, 0, 0x800, "not a multiple of 4096"),
        (0, 0, PAGE_SIZE, "memory slot 1 at 0x0"),  # slot 0 is there
    ],
)
def test_impossible_slots_are_refused_in_one_line(
    kvm: HardwareSystem, address: int, offset: int, size: int, text: str
) -> None:
    with guest(kvm, HLT) as made, pytest.raises(EngineError, match=text) as caught:
        made.vm.set_user_memory_region(1, address, mmap.mmap(-1, PAGE_SIZE), offset, size)
    assert "\n" not in str(caught.value)


def test_a_mapping_without_write_access_is_refused(kvm: HardwareSystem, tmp_path: Path) -> None:
    file = tmp_path / "rom"
    file.write_bytes(bytes(PAGE_SIZE))
    with guest(kvm, HLT) as made, file.open("rb") as opened:
        rom = mmap.mmap(opened.fileno(), PAGE_SIZE, access=mmap.ACCESS_READ)
        with pytest.raises(EngineError, match="ACCESS_COPY"):
            made.vm.set_user_memory_region(1, WINDOW, rom, 0, PAGE_SIZE, readonly=True)
        copy = mmap.mmap(opened.fileno(), PAGE_SIZE, access=mmap.ACCESS_COPY)
        made.vm.set_user_memory_region(1, WINDOW, copy, 0, PAGE_SIZE, readonly=True)


def test_device_writes_are_seen_by_the_guest(kvm: HardwareSystem) -> None:
    with guest(kvm, b"\xa1\x00\x30" + HLT) as made:  # mov ax, [3000h]
        made.place(DATA, b"\x34\x12")
        assert made.serve() == ExitReason.HLT
        assert made.vcpu.get_regs().rax == 0x1234
