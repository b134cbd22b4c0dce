"""Guest memory on the software CPU: slots, ROM, devices, and code that changes under the CPU's feet.

Rules: Documentation/virt/kvm/api.rst (KVM_SET_USER_MEMORY_REGION); Intel SDM volume 3, 11.6 (self-modifying
code: a store to code is seen by the processor that made it, whatever mapping it used).
"""

from __future__ import annotations

import mmap
import threading
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portvisor.kvm.abi import ExitReason
from portvisor.kvm.api import EngineError
from softcpu_guest import CODE, DATA, HLT, MEMORY, PAGES, SoftGuest, soft_guest

ROM = 0x100000


class Registers:
    """Memory-mapped registers that log."""

    def __init__(self) -> None:
        self.log: list[tuple[str, int, int, int]] = []

    def mmio_read(self, offset: int, size: int) -> int:
        self.log.append(("read", offset, size, 0))
        return 0x8877_6655_4433_2211 >> 8 * offset

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self.log.append(("write", offset, size, value))


# --- devices ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "access"),
    [
        ("a001000400", ("read", 1, 1, 0)),
        ("66a102000400", ("read", 2, 2, 0)),
        ("a104000400", ("read", 4, 4, 0)),
        ("a201000400", ("write", 1, 1, 0x78)),
        ("66a302000400", ("write", 2, 2, 0x5678)),
        ("a304000400", ("write", 4, 4, 0x1234_5678)),
        ("c7052000040001000000", ("write", 0x20, 4, 1)),
    ],
)
def test_what_is_no_memory_is_served_by_the_bus(code: str, access: tuple[str, int, int, int]) -> None:
    with soft_guest(code + "f4") as guest:
        registers = Registers()
        guest.mmio.attach(MEMORY, 0x1000, registers, "registers")
        guest.protected_mode(rax=0x1234_5678)
        rax = guest.halts().rax
        assert registers.log == [access]
        if access[0] == "read":
            size = access[2]
            data = (0x8877_6655_4433_2211 >> 8 * access[1]) & ((1 << 8 * size) - 1)
            assert rax == 0x1234_5678 & ~((1 << 8 * size) - 1) | data


@pytest.mark.parametrize("address", [MEMORY, 0xFFFF_F000, 0xFEC0_0000, 0xE000_0000])
def test_unclaimed_addresses_read_ones_and_ignore_writes(address: int) -> None:
    with soft_guest(
        b"\xa3" + address.to_bytes(4, "little") + b"\xa1" + address.to_bytes(4, "little") + HLT
    ) as guest:
        guest.protected_mode(rax=5)
        assert guest.halts().rax == 0xFFFF_FFFF


def test_addresses_above_4_gib_reach_the_bus() -> None:
    with soft_guest("a100f01f0000000000 f4") as guest:  # mov eax, [1FF000h]
        registers = Registers()
        guest.mmio.attach(0x12_3400_0000, 0x1000, registers, "registers")
        guest.long_mode()
        guest.place(PAGES + 0x2000, (PAGES + 0x3007).to_bytes(8, "little"))
        for page in range(512):
            entry = 0x12_3400_0007 if page == 0x1FF else page << 12 | 7
            guest.place(PAGES + 0x3000 + 8 * page, entry.to_bytes(8, "little"))
        assert guest.halts().rax == 0x4433_2211
        assert registers.log == [("read", 0, 4, 0)]


@pytest.mark.parametrize("code", ["a100000400", "a300000400"])
def test_what_a_register_raises_comes_out_of_run(code: str) -> None:
    class Broken:
        def mmio_read(self, offset: int, size: int) -> int:
            raise KeyboardInterrupt

        def mmio_write(self, offset: int, size: int, value: int) -> None:
            raise KeyboardInterrupt

    with soft_guest(code + "eb00 43 f4") as guest:
        guest.mmio.attach(MEMORY, 0x1000, Broken(), "broken")
        guest.protected_mode()
        with pytest.raises(KeyboardInterrupt):
            guest.run()
        assert guest.halts().rbx == 1


# --- slots --------------------------------------------------------------------------------------------------


def test_rom_is_read_and_its_writes_go_to_the_bus_only() -> None:
    with soft_guest("c605050010009a a005001000 f4") as guest:  # mov byte [100005h], 9Ah; mov al, [100005h]
        rom = mmap.mmap(-1, 0x1000)
        rom[5] = 0x42
        registers = Registers()
        guest.mmio.attach(ROM, 0x1000, registers, "flash")
        guest.vm.set_user_memory_region(1, ROM, rom, 0, 0x1000, readonly=True)
        guest.protected_mode()
        assert guest.halts().rax & 0xFF == 0x42
        assert rom[5] == 0x42
        assert registers.log == [("write", 5, 1, 0x9A)]


def test_code_runs_from_rom() -> None:
    with soft_guest("f4") as guest:
        rom = mmap.mmap(-1, 0x1000)
        rom[:2] = b"\x43" + HLT
        guest.vm.set_user_memory_region(1, ROM, rom, 0, 0x1000, readonly=True)
        guest.protected_mode(rip=ROM)
        assert guest.halts().rbx == 1


def test_a_slot_can_be_moved_replaced_and_removed() -> None:
    with soft_guest("a000001000 f4") as guest:
        one, two = mmap.mmap(-1, 0x2000), mmap.mmap(-1, 0x1000)
        one[0], one[0x1000], two[0] = 1, 2, 3
        seen = []
        for arguments in (
            (1, ROM, one, 0, 0x1000),
            (1, ROM, one, 0x1000, 0x1000),
            (1, ROM, two, 0, 0x1000),
            (1, ROM + 0x5000, two, 0, 0x1000),
            (1, 0, two, 0, 0),
        ):
            guest.vm.set_user_memory_region(*arguments)
            guest.protected_mode()
            seen.append(guest.halts().rax & 0xFF)
        assert seen == [1, 2, 3, 0xFF, 0xFF]


def test_code_in_a_replaced_slot_is_translated_anew() -> None:
    with soft_guest("f4") as guest:
        for number, code in enumerate((b"\x43" + HLT, b"\x41" + HLT)):
            memory = mmap.mmap(-1, 0x1000)
            memory[:2] = code
            guest.vm.set_user_memory_region(1, ROM, memory, 0, 0x1000)
            guest.protected_mode(rip=ROM)
            regs = guest.halts()
            assert (regs.rbx, regs.rcx) == ((1, 0), (0, 1))[number]


def test_the_same_buffer_may_be_mapped_twice() -> None:
    with soft_guest("c6050000100077 a000201000 f4") as guest:
        memory = mmap.mmap(-1, 0x1000)
        guest.vm.set_user_memory_region(1, ROM, memory, 0, 0x1000)
        guest.vm.set_user_memory_region(2, ROM + 0x2000, memory, 0, 0x1000)
        guest.protected_mode()
        assert guest.halts().rax == 0x77


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((1, 0x1000, 0, 0x1000), "memory slot 1 at 0x1000.*overlaps slot 0"),
        ((1, ROM + 1, 0, 0x1000), "not a multiple of 4096"),
        ((1, ROM, 0x10, 0x1000), "not a multiple of 4096"),
        ((1, ROM, 0, 0x4000), "not inside 0x2000 bytes"),
        ((1, ROM, -0x1000, 0x1000), "not inside 0x2000 bytes"),
        ((1, 1 << 40, 0, 0x1000), "physical addresses"),
    ],
)
def test_impossible_slots_are_refused_in_one_line(arguments: tuple[int, int, int, int], text: str) -> None:
    slot, gpa, offset, size = arguments
    with soft_guest("43 f4") as guest:
        with pytest.raises(EngineError, match=text):
            guest.vm.set_user_memory_region(slot, gpa, mmap.mmap(-1, 0x2000), offset, size)
        assert guest.halts().rbx == 1


def test_a_buffer_without_write_access_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("rom") / "rom"
    path.write_bytes(bytes(0x1000))
    with soft_guest("f4") as guest, path.open("rb") as file:
        rom = mmap.mmap(file.fileno(), 0x1000, access=mmap.ACCESS_READ)
        with pytest.raises(EngineError, match="ACCESS_COPY"):
            guest.vm.set_user_memory_region(1, ROM, rom, 0, 0x1000, readonly=True)
        copy = mmap.mmap(file.fileno(), 0x1000, access=mmap.ACCESS_COPY)
        guest.vm.set_user_memory_region(1, ROM, copy, 0, 0x1000, readonly=True)


def test_the_engine_keeps_the_buffer_alive() -> None:
    with soft_guest("f4") as guest:
        memory = mmap.mmap(-1, 0x1000)
        guest.vm.set_user_memory_region(1, ROM, memory, 0, 0x1000)
        with pytest.raises(BufferError):
            memory.close()
        guest.vm.set_user_memory_region(1, 0, memory, 0, 0)
        memory.close()


def test_many_slots() -> None:
    with soft_guest("f4") as guest:
        memory = mmap.mmap(-1, 0x1000)
        for slot in range(1, 64):
            guest.vm.set_user_memory_region(slot, ROM + 0x2000 * slot, memory, 0, 0x1000)
        with pytest.raises(EngineError, match="too many"):
            guest.vm.set_user_memory_region(64, ROM + 0x2000 * 64, memory, 0, 0x1000)
        guest.halts()


# --- A20 ----------------------------------------------------------------------------------------------------


def test_the_a20_gate_folds_odd_megabytes() -> None:
    with soft_guest("a000001000 8a2500000000 f4") as guest:  # mov al, [100000h]; mov ah, [0]
        high = mmap.mmap(-1, 0x1000)
        high[0] = 0x22
        guest.vm.set_user_memory_region(1, ROM, high, 0, 0x1000)
        guest.place(0, b"\x11")
        guest.protected_mode()
        guest.place(0, b"\x11")
        assert guest.halts().rax == 0x1122
        for state, rax in ((False, 0x1111), (True, 0x1122)):
            guest.vcpu.set_a20(state)
            guest.start()
            assert guest.halts().rax == rax


def test_a_handler_may_switch_the_a20_gate() -> None:
    with soft_guest("a000001000 ee a000001000 f4") as guest:  # read, OUT, read
        high = mmap.mmap(-1, 0x1000)
        high[0] = 0x22
        guest.vm.set_user_memory_region(1, ROM, high, 0, 0x1000)

        def write(_offset: int, _size: int, _value: int) -> None:
            guest.vcpu.set_a20(False)

        guest.bench.on_write = write
        guest.protected_mode()
        guest.place(0, b"\x11")
        assert guest.halts().rax == 0x11


# --- code that changes ----------------------------------------------------------------------------------------


def call_twice(change: str) -> str:
    """call DATA; change what is there; call DATA; hlt (32-bit code)."""
    first = b"\xe8" + (DATA - CODE - 5).to_bytes(4, "little")
    middle = bytes.fromhex(change)
    second = b"\xe8" + (DATA - CODE - 10 - len(middle)).to_bytes(4, "little", signed=True)
    return (first + middle + second + HLT).hex()


def test_a_store_to_code_is_seen() -> None:
    with soft_guest(call_twice("c60500500000 41")) as guest:  # mov byte [5000h], 41h (inc ecx)
        guest.place(DATA, b"\x43\xc3")  # inc ebx; ret
        guest.protected_mode()
        regs = guest.halts()
        assert (regs.rbx, regs.rcx) == (1, 1)


def test_an_instruction_may_change_the_next_one() -> None:
    with soft_guest("c60507100000 41 43 f4") as guest:  # mov byte [1007h], 41h; inc ebx -> inc ecx
        guest.protected_mode()
        regs = guest.halts()
        assert (regs.rbx, regs.rcx) == (0, 1)


def test_a_device_that_writes_code_is_seen() -> None:
    with soft_guest(call_twice("ee")) as guest:
        guest.place(DATA, b"\x43\xc3")

        def dma(_offset: int, _size: int, _value: int) -> None:
            guest.place(DATA, b"\x41\xc3")

        guest.bench.on_write = dma
        guest.protected_mode()
        regs = guest.halts()
        assert (regs.rbx, regs.rcx) == (1, 1)


def paged(guest: SoftGuest, *, executable_alias: bool = False) -> None:
    """Long mode with 4 KiB pages; linear 100000h is a second mapping of DATA's page."""
    guest.long_mode()
    sregs = guest.vcpu.get_sregs()
    sregs.efer |= 0x800
    guest.vcpu.set_sregs(sregs)
    guest.place(PAGES + 0x2000, (PAGES + 0x3007).to_bytes(8, "little"))
    for page in range(512):
        entry = page << 12 | 7
        if page == 0x100:
            entry = DATA | 7 | (0 if executable_alias else 1 << 63)
        guest.place(PAGES + 0x3000 + 8 * page, entry.to_bytes(8, "little"))
    guest.start()


ALIAS_STORE = "c6042500001000"  # mov byte [100000h], imm8


@pytest.mark.parametrize("executable_alias", [False, True])
@pytest.mark.parametrize("warm_up", [False, True])
def test_a_store_through_another_mapping_of_code_is_seen(executable_alias: bool, warm_up: bool) -> None:
    """Also when that mapping was written before the code was first translated, and for each further change."""
    warm = bytes.fromhex(ALIAS_STORE + "90") if warm_up else b""
    code = warm
    for opcode in (0xC3, 0x90, 0xC3):  # DATA: ret / nop; inc ebx; ret
        code += bytes.fromhex(ALIAS_STORE) + bytes([opcode])
        code += b"\xe8" + (DATA - CODE - len(code) - 5).to_bytes(4, "little")
    with soft_guest(code + HLT) as guest:
        guest.place(DATA, bytes.fromhex("90 ffc3 c3"))
        paged(guest, executable_alias=executable_alias)
        assert guest.halts().rbx == 1


def test_a_data_store_beside_code_does_not_hide_later_changes() -> None:
    """The first store through a mapping hits data in the page, the second one code."""
    code = b""
    for address, value in ((0x100800, 1), (0x100000, 0xC3)):
        code += bytes.fromhex("c60425") + address.to_bytes(4, "little") + bytes([value])
        code = b"\xe8" + (DATA - CODE - 5).to_bytes(4, "little") + code if address == 0x100800 else code
    code += b"\xe8" + (DATA - CODE - len(code) - 5).to_bytes(4, "little")
    with soft_guest(code + HLT) as guest:
        guest.place(DATA, bytes.fromhex("90 ffc3 c3"))
        paged(guest)
        assert guest.halts().rbx == 1


# A guest that writes opcodes through random mappings and runs them, against the same in Python.
STEPS = st.lists(
    st.tuples(st.sampled_from([DATA, 0x100000]), st.integers(0, 5), st.booleans()), min_size=1, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_self_modification_agrees_with_a_model(steps: list[tuple[int, int, bool]]) -> None:
    opcodes = [0x90] * 6  # nop or C3 (ret) at six places, each followed by inc ebx
    code, expected = b"", 0
    for base, place, on in steps:
        opcodes[place] = 0xC3 if on else 0x90
        code += bytes.fromhex("c60425") + (base + 3 * place).to_bytes(4, "little") + bytes([opcodes[place]])
        code += b"\xe8" + (DATA - CODE - len(code) - 5).to_bytes(4, "little")
        expected += opcodes.index(0xC3) if 0xC3 in opcodes else 6
    with soft_guest(code + HLT, serve=False) as guest:
        guest.place(DATA, bytes.fromhex("90ffc3") * 6 + b"\xc3")
        paged(guest)
        assert guest.halts().rbx == expected


def test_address_0_is_ordinary_code() -> None:
    with soft_guest("ea00000000") as guest:  # jmp far 0:0
        guest.place(0, b"\x43\xeb\x00\x43" + HLT)
        assert guest.halts().rbx == 2


def test_kicks_do_not_execute_an_instruction_twice() -> None:
    """Stops asked for by another thread come between instructions, never in the middle of a read-modify-write."""
    count = 300_000
    with soft_guest("8305 00500000 01 e2f7 f4") as guest:  # l: add dword [5000h], 1; loop l; hlt
        guest.protected_mode(rcx=count)
        done = threading.Event()

        def kick() -> None:
            while not done.is_set():
                guest.vcpu.kick()
                time.sleep(0.0003)

        thread = threading.Thread(target=kick)
        thread.start()
        stops = 0
        while (reason := guest.run()) == ExitReason.INTR:
            stops += 1
        done.set()
        thread.join()
        assert reason == ExitReason.HLT
        assert guest.word(DATA) == count
