"""The legacy channel: who answers, resets, interrupts, the data register (T13/1410D ATA-6)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.ide.ata_host import (
    COMMAND,
    COUNT,
    DATA,
    DEVICE,
    ERROR,
    FAILED,
    FEATURES,
    HIGH,
    LOW,
    MID,
    READY,
    READY_DRQ,
    STATUS,
    AtaHost,
)
from portvisor.backends.image import MemoryImage
from portvisor.devices.ide import PRIMARY, SECONDARY, AtaDisk, AtapiCd, IdeChannel
from portvisor.devices.ide.registers import BSY, HOB, NIEN, SRST
from portvisor.ports import Device, IrqLine, PortSpace, SnapshotError
from portvisor.testing import DeviceSuite

SECTORS = 4000


def disk(seed: int = 0, sectors: int = SECTORS) -> AtaDisk:
    return AtaDisk(MemoryImage(b"".join((seed + index).to_bytes(4, "little") * 128 for index in range(sectors))))


def cd() -> AtapiCd:
    return AtapiCd(MemoryImage(64 * 2048))


class TestEmptyChannel(DeviceSuite):
    def make(self) -> Device:
        return IdeChannel(IrqLine())


class TestDisks(DeviceSuite):
    def make(self) -> Device:
        return IdeChannel(IrqLine(), disk(), disk(1))


class TestDiskAndCd(DeviceSuite):
    def make(self) -> Device:
        return IdeChannel(IrqLine(), disk(), cd(), SECONDARY)


class TestSlaveOnly(DeviceSuite):
    def make(self) -> Device:
        return IdeChannel(IrqLine(), None, cd())


class TestPorts:
    def test_a_pc_has_two(self) -> None:
        space = PortSpace()
        space.attach(IdeChannel(IrqLine()))
        space.attach(IdeChannel(IrqLine(), address=SECONDARY))
        assert [str(one) for one, _ in space.ranges()] == [
            "0170-0177 : ide1",
            "01f0-01f7 : ide0",
            "0376-0376 : ide1",
            "03f6-03f6 : ide0",
        ]
        assert (PRIMARY.irq, SECONDARY.irq) == (14, 15)

    def test_register_names_differ_by_direction(self) -> None:
        channel = IdeChannel(IrqLine())
        assert channel.register_name(7, 1, False) == "Status"
        assert channel.register_name(7, 1, True) == "Command"
        assert channel.register_name(1, 1, False) == "Error"
        assert channel.register_name(1, 1, True) == "Features"
        assert channel.register_name(2, 1, True) == "Sector Count"
        assert channel.register_name(8, 1, False) == "Alternate Status"
        assert channel.register_name(8, 1, True) == "Device Control"

    def test_wide_access_beside_the_data_register_is_bytes(self) -> None:
        host = AtaHost(disk())
        host.space.write(0x1F2, 4, 0x44332211)
        assert host.block() == [0x11, 0x22, 0x33, 0x44]
        assert host.space.read(0x1F2, 2) == 0x2211
        assert host.space.read(0x1F4, 4) == 0x50004433


class TestWhoAnswers:
    def test_nobody_the_bus_floats_and_bsy_is_pulled_down(self) -> None:
        host = AtaHost()
        for device in (0xA0, 0xB0):
            host.put(DEVICE, device)
            assert [host.get(register) for register in range(1, 8)] == [0x7F] * 7
            assert host.alternate_status == 0x7F
        assert host.space.read(0x1F0, 2) == 0xFF7F
        host.put(COMMAND, 0xEC)
        assert host.get(STATUS) == 0x7F
        assert not host.edges

    def test_device_0_answers_for_an_absent_device_1_with_status_00(self) -> None:
        host = AtaHost(disk())
        host.put(DEVICE, 0xB0)
        host.put(COUNT, 0x55)
        host.put(LOW, 0xAA)
        assert (host.get(COUNT), host.get(LOW), host.get(DEVICE)) == (0x55, 0xAA, 0xB0)
        assert (host.get(STATUS), host.alternate_status) == (0, 0)
        assert host.command(0xEC) == 0
        assert not host.edges

    def test_device_0_goes_on_after_device_1_was_tried(self) -> None:
        host = AtaHost(disk())
        host.put(DEVICE, 0xB0)
        host.put(DEVICE, 0xA0)
        assert host.get(STATUS) == READY
        assert host.identify()[0] == 0x0040

    def test_device_1_alone(self) -> None:
        host = AtaHost(None, disk())
        assert host.get(STATUS) == 0x7F
        host.put(DEVICE, 0xB0)
        assert host.get(STATUS) == READY

    def test_both_take_register_writes_and_the_selected_one_answers(self) -> None:
        host = AtaHost(disk(), disk(1000))
        host.lba28(7, device=1)
        assert host.data_in(0x20).data[:4] == (1007).to_bytes(4, "little")
        host.lba28(7, device=0)
        assert host.data_in(0x20).data[:4] == (7).to_bytes(4, "little")

    def test_transfer_waits_while_the_other_device_is_selected(self) -> None:
        host = AtaHost(disk(), disk(1000))
        host.lba28(3)
        assert host.command(0x20) == READY_DRQ
        host.put(DEVICE, 0xF0)
        assert host.get(STATUS) == READY
        host.put(DEVICE, 0xE0)
        assert host.get(STATUS) == READY_DRQ
        assert host.words()[:4] == (3).to_bytes(4, "little")


class TestReset:
    def test_signatures_after_power_on(self) -> None:
        host = AtaHost(disk(), cd())
        assert (host.get(ERROR), host.block(), host.get(STATUS)) == (1, [1, 1, 0, 0], READY)
        host.put(DEVICE, 0xB0)
        assert (host.get(ERROR), host.block(), host.get(STATUS)) == (1, [1, 1, 0x14, 0xEB], 0)

    def test_srst_holds_bsy_and_then_posts_the_signature_without_interrupt(self) -> None:
        host = AtaHost(disk(), cd())
        host.lba28(5, 5, device=1)
        host.control(SRST)
        assert host.get(STATUS) == BSY
        host.put(COMMAND, 0xEC)
        host.put(COUNT, 0x77)
        assert host.alternate_status == BSY
        host.control(0)
        assert host.get(DEVICE) == 0
        assert (host.get(ERROR), host.block(), host.get(STATUS)) == (1, [1, 1, 0, 0], READY)
        host.put(DEVICE, 0x10)
        assert (host.get(ERROR), host.block(), host.get(STATUS)) == (1, [1, 1, 0x14, 0xEB], 0)
        assert not host.edges

    def test_srst_stops_a_transfer_and_takes_the_interrupt_back(self) -> None:
        host = AtaHost(disk())
        host.lba28(0, 8)
        host.put(COMMAND, 0x20)
        host.words(100)
        assert host.irq.level == 1
        host.control(SRST)
        assert host.irq.level == 0
        host.control(0)
        assert host.get(STATUS) == READY
        assert host.words(1) == b"\x7f\xff"

    def test_srst_wakes_a_sleeping_drive(self) -> None:
        host = AtaHost(disk())
        assert host.no_data(0xE6).good
        host.interrupts()
        host.command(0xEC)
        assert host.get(STATUS) == READY
        assert host.interrupts() == 0
        host.software_reset()
        assert host.identify()[0] == 0x0040

    def test_reset_line_restores_power_on_state(self) -> None:
        host = AtaHost(disk())
        fresh = host.channel.snapshot()
        host.put(COUNT, 8)
        host.command(0xC6)
        host.control(NIEN)
        host.lba28(9)
        host.put(COMMAND, 0x20)
        host.channel.reset()
        assert host.channel.snapshot() == fresh
        assert host.irq.level == 0

    def test_execute_device_diagnostic_runs_both_selects_device_0_and_interrupts_once(self) -> None:
        host = AtaHost(disk(), cd())
        host.put(DEVICE, 0xB0)
        host.put(COMMAND, 0x90)
        assert host.interrupts() == 1
        assert (host.get(ERROR), host.block(), host.get(DEVICE)) == (1, [1, 1, 0, 0], 0)
        assert host.get(STATUS) == READY
        host.put(DEVICE, 0xB0)
        assert host.block() == [1, 1, 0x14, 0xEB]
        assert host.irq.level == 0

    def test_execute_device_diagnostic_works_with_an_absent_device_1_selected(self) -> None:
        host = AtaHost(disk())
        host.put(DEVICE, 0xB0)
        host.put(COMMAND, 0x90)
        assert host.interrupts() == 1
        assert host.get(STATUS) == READY


class TestInterrupts:
    def test_status_takes_the_interrupt_back_and_alternate_status_does_not(self) -> None:
        host = AtaHost(disk())
        host.put(COMMAND, 0xE7)
        assert host.irq.level == 1
        assert host.alternate_status == READY
        assert host.irq.level == 1
        assert host.get(STATUS) == READY
        assert host.irq.level == 0

    def test_command_takes_the_interrupt_back(self) -> None:
        host = AtaHost(disk())
        host.put(COMMAND, 0xE7)
        host.lba28(0)
        host.put(COMMAND, 0x30)  # data out: no interrupt before the first block
        assert host.irq.level == 0

    def test_nien_holds_the_line_but_not_the_condition(self) -> None:
        host = AtaHost(disk())
        host.control(NIEN)
        host.put(COMMAND, 0xE7)
        assert host.irq.level == 0
        host.control(0)
        assert host.irq.level == 1
        host.control(NIEN)
        assert host.irq.level == 0
        host.get(STATUS)
        host.control(0)
        assert host.irq.level == 0

    def test_only_the_selected_device_drives_the_line(self) -> None:
        host = AtaHost(disk(), disk())
        host.put(COMMAND, 0xE7)
        host.put(DEVICE, 0xB0)
        assert host.irq.level == 0
        host.get(STATUS)
        host.put(DEVICE, 0xA0)
        assert host.irq.level == 1

    def test_data_in_interrupts_at_each_block_and_not_at_the_end(self) -> None:
        host = AtaHost(disk())
        host.lba28(0, 3)
        host.put(COMMAND, 0x20)
        for _ in range(3):
            assert host.interrupts() == 1
            assert host.get(STATUS) == READY_DRQ
            host.words()
        assert host.interrupts() == 0
        assert host.get(STATUS) == READY

    def test_data_out_interrupts_after_each_block_and_not_before_the_first(self) -> None:
        host = AtaHost(disk())
        host.lba28(0, 3)
        host.put(COMMAND, 0x30)
        assert host.interrupts() == 0
        for left in (2, 1, 0):
            assert host.get(STATUS) == READY_DRQ
            host.send(bytes(510))
            assert host.interrupts() == 0
            host.send(bytes(2))
            assert host.interrupts() == 1
            assert host.get(STATUS) == (READY_DRQ if left else READY)

    def test_abort_interrupts(self) -> None:
        host = AtaHost(disk())
        host.put(COMMAND, 0xFF)
        assert host.interrupts() == 1
        assert (host.get(STATUS), host.get(ERROR)) == (FAILED, 0x04)


class TestHob:
    def test_registers_are_two_deep(self) -> None:
        host = AtaHost(disk())
        for register, value in zip((FEATURES, COUNT, LOW, MID, HIGH), range(0x10, 0x15), strict=True):
            host.put(register, value)
            host.put(register, value | 0x80)
        assert host.block() == [0x91, 0x92, 0x93, 0x94]
        host.control(HOB)
        assert host.block() == [0x11, 0x12, 0x13, 0x14]

    def test_any_command_block_write_clears_hob(self) -> None:
        host = AtaHost(disk())
        for register in range(1, 8):
            host.put(LOW, 0x12)
            host.put(LOW, 0x34)
            host.control(HOB)
            assert host.get(LOW) == 0x12
            host.put(register, 0)
            assert host.get(LOW) != 0x12

    def test_device_and_error_have_no_previous_value(self) -> None:
        host = AtaHost(disk())
        host.put(DEVICE, 0xE1)
        host.put(DEVICE, 0xE2)
        host.put(COMMAND, 0xFF)
        host.control(HOB)
        assert (host.get(DEVICE), host.get(ERROR)) == (0xE2, 0x04)


class TestDataRegister:
    @pytest.mark.parametrize("size", [2, 4])
    def test_one_block_equals_single_reads(self, size: int) -> None:
        blocks, singles = AtaHost(disk()), AtaHost(disk())
        for host in (blocks, singles):
            host.lba28(11, 3)
            host.put(COMMAND, 0x20)
        count = 3 * 512 // size + 5
        one_by_one = b"".join(singles.space.read(0x1F0, size).to_bytes(size, "little") for _ in range(count))
        assert blocks.words(count, size) == one_by_one
        assert blocks.channel.snapshot() == singles.channel.snapshot()
        assert blocks.edges == singles.edges

    @pytest.mark.parametrize("size", [2, 4])
    def test_one_block_equals_single_writes(self, size: int) -> None:
        data = bytes(range(256)) * 6
        images = MemoryImage(8 * 512), MemoryImage(8 * 512)
        blocks, singles = AtaHost(AtaDisk(images[0])), AtaHost(AtaDisk(images[1]))
        for host in (blocks, singles):
            host.lba28(2, 3)
            host.put(COMMAND, 0x30)
        blocks.send(data + b"more", size)
        for start in range(0, len(data), size):
            singles.space.write(0x1F0, size, int.from_bytes(data[start : start + size], "little"))
        assert images[0].data == images[1].data == bytes(1024) + data + bytes(3 * 512)
        assert blocks.channel.snapshot() == singles.channel.snapshot()

    def test_dword_may_span_two_blocks(self) -> None:
        host = AtaHost(disk())
        host.lba28(0x0101, 2)
        host.put(COMMAND, 0x20)
        host.words(255)
        assert host.space.read(0x1F0, 4) == 0x0102_0000
        assert host.words(1) == b"\0\0"

    def test_block_may_end_inside_a_later_drq_block(self) -> None:
        host = AtaHost(disk())
        host.lba28(0, 3)
        host.put(COMMAND, 0x20)
        expected = b"".join(index.to_bytes(4, "little") * 128 for index in range(3))
        assert host.words(300) + host.words(400) + host.words(68) == expected

    def test_byte_takes_a_whole_word(self) -> None:
        host = AtaHost(disk())
        host.lba28(0x0A0B)
        host.put(COMMAND, 0x20)
        assert [host.get(DATA) for _ in range(3)] == [0x0B, 0x00, 0x0B]
        assert host.words(253) == (0x0A0B).to_bytes(4, "little")[2:] + (0x0A0B).to_bytes(4, "little") * 126
        assert host.get(STATUS) == READY

    def test_byte_writes_take_whole_words(self) -> None:
        image = MemoryImage(512)
        host = AtaHost(AtaDisk(image))
        host.lba28(0)
        host.put(COMMAND, 0x30)
        for value in range(256):
            host.put(DATA, value)
        assert image.data == b"".join(bytes((value, 0)) for value in range(256))

    @pytest.mark.parametrize("sent", [0, 100])
    def test_reading_while_the_drive_wants_data_floats_and_disturbs_nothing(self, sent: int) -> None:
        image = MemoryImage(512)
        host = AtaHost(AtaDisk(image))
        host.lba28(0)
        host.put(COMMAND, 0x30)
        host.send(b"w" * sent)
        assert host.get(DATA) == 0x7F
        assert host.space.read(0x1F0, 4) == 0xFF7FFF7F
        assert host.words(3) == b"\x7f\xff" * 3
        host.send(b"w" * (512 - sent))
        assert image.data == b"w" * 512

    def test_writing_while_the_drive_sends_disturbs_nothing(self) -> None:
        host = AtaHost(disk())
        host.lba28(0x0234)
        host.put(COMMAND, 0x20)
        host.send(b"lost")
        assert host.words() == (0x0234).to_bytes(4, "little") * 128

    def test_without_drq_the_bus_floats_and_writes_are_lost(self) -> None:
        host = AtaHost(disk())
        before = host.channel.snapshot()
        assert host.words(2) == b"\x7f\xff" * 2
        host.send(b"lost")
        assert host.channel.snapshot() == before


class TestSnapshot:
    def test_in_the_middle_of_a_transfer(self) -> None:
        host, other = AtaHost(disk()), AtaHost(disk())
        host.lba28(20, 2)
        host.put(COMMAND, 0x20)
        host.words(100)
        other.channel.restore(host.channel.snapshot())
        assert other.irq.level == 1
        assert other.words(412) == host.words(412)
        assert other.get(STATUS) == READY

    def test_of_other_drives_is_refused_and_changes_nothing(self) -> None:
        host = AtaHost(disk())
        before = host.channel.snapshot()
        for other in (AtaHost(), AtaHost(cd()), AtaHost(disk(), disk())):
            with pytest.raises(SnapshotError, match="ide0: snapshot was taken with other drives attached"):
                host.channel.restore(other.channel.snapshot())
        assert host.channel.snapshot() == before

    def test_copy_is_independent(self) -> None:
        host = AtaHost(disk())
        saved = host.channel.snapshot()
        host.lba28(1)
        host.put(COMMAND, 0x20)
        host.channel.restore(saved)
        host.channel.restore(saved)
        host.put(LOW, 9)
        assert host.channel.snapshot() != saved


COMMANDS = [0x20, 0x30, 0xC4, 0xC5, 0xC6, 0x24, 0x34, 0xA0, 0xA1, 0xEC, 0x90, 0x08, 0xEF, 0x42, 0xE6, 0x91, 0xFF]
Steps = st.lists(
    st.one_of(
        st.tuples(st.just("command"), st.sampled_from(COMMANDS), st.just(1)),
        st.tuples(st.just("access"), st.sampled_from([0x30, 0x20, 0xC4, 0xC5]), st.integers(0, 299)),
        st.tuples(st.just("send"), st.sampled_from([1, 2, 4]), st.integers(1, 200)),
        st.tuples(st.just("take"), st.sampled_from([1, 2, 4]), st.integers(1, 200)),
        st.tuples(st.just("select"), st.sampled_from([0xA0, 0xE0, 0xB0, 0xF0]), st.just(1)),
        st.tuples(st.just("control"), st.integers(0, 255), st.just(1)),
        st.tuples(st.just("register"), st.integers(1, 6), st.integers(0, 255)),
        st.tuples(st.just("read"), st.integers(1, 7), st.sampled_from([1, 2, 4])),
    ),
    min_size=15,
    max_size=60,
)


def step(host: AtaHost, kind: str, first: int, second: int) -> None:
    if kind == "command":
        host.put(COMMAND, first)
    elif kind == "access":
        host.lba28(second, second % 5)
        host.put(COMMAND, first)
    elif kind == "send":
        host.space.write_block(0x1F0, first, bytes(first * second))
        host.space.write(0x1F0, first, 0)
    elif kind == "take":
        assert len(host.space.read_block(0x1F0, first, second)) == first * second
        host.space.read(0x1F0, first)
    elif kind == "select":
        host.put(DEVICE, first)
    elif kind == "control":
        host.control(first)
    elif kind == "register":
        host.put(first, second)
    else:
        host.space.read(0x1F0 + first, second)


@settings(max_examples=150, deadline=None)
@given(steps=Steps)
def test_no_sequence_raises_or_grows_and_the_line_follows_its_rule(steps: list[tuple[str, int, int]]) -> None:
    host = AtaHost(AtaDisk(MemoryImage(300 * 512)), cd())
    for kind, first, second in steps:
        step(host, kind, first, second)
        state = host.channel.state
        drives = [drive for drive in state.drives if drive]
        assert all(len(drive.buffer) <= 65_536 for drive in drives)
        assert host.irq.level == (drives[state.selected].interrupt and not state.control & NIEN)
