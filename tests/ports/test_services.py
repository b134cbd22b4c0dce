"""Clock, interrupt lines and guest memory."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portvisor.ports import IrqLine, MmioSpace, Ram, RamRegion, SharedIrq, VirtualClock, WallClock
from portvisor.ports.memory import MmioConflictError


def test_virtual_clock_fires_timers_at_their_deadlines_in_order() -> None:
    clock = VirtualClock()
    fired: list[tuple[str, int]] = []
    for name, deadline in (("b", 20), ("a", 10), ("c", 31)):
        clock.timer(lambda name=name: fired.append((name, clock.now())), name).arm(deadline)  # type: ignore[misc]
    clock.advance(30)
    assert fired == [("a", 10), ("b", 20)]
    assert clock.next_deadline() == 31


def test_a_periodic_timer_rearms_itself_inside_one_step() -> None:
    clock = VirtualClock()
    ticks: list[int] = []

    def tick() -> None:
        ticks.append(clock.now())
        timer.arm(clock.now() + 10)

    timer = clock.timer(tick)
    timer.arm(10)
    clock.advance(35)
    assert ticks == [10, 20, 30]


def test_rearming_replaces_the_deadline_and_disarming_cancels() -> None:
    clock = VirtualClock()
    fired: list[int] = []
    timer = clock.timer(lambda: fired.append(clock.now()))
    timer.arm(10)
    timer.arm(20)
    clock.advance(15)
    assert fired == []
    timer.disarm()
    clock.advance(15)
    assert fired == []
    timer.arm(clock.now())
    clock.advance(0)
    assert fired == [30]


def test_virtual_clock_ignores_the_past() -> None:
    clock = VirtualClock(100)
    clock.set(50)
    assert clock.now() == 100


def test_an_earlier_deadline_is_announced() -> None:
    clock = VirtualClock()
    calls: list[int | None] = []
    clock.on_earlier_deadline = lambda: calls.append(clock.next_deadline())
    clock.timer(lambda: None).arm(50)
    clock.timer(lambda: None).arm(70)
    clock.timer(lambda: None).arm(30)
    assert calls == [50, 30]


def test_wall_clock_starts_at_zero_and_runs_due_timers() -> None:
    clock = WallClock()
    fired: list[int] = []
    clock.timer(lambda: fired.append(1)).arm(0)
    clock.run_due()
    assert fired == [1]
    assert 0 <= clock.now() < 60_000_000_000
    assert abs(clock.host_time(clock.now()) - time.monotonic_ns()) < 10_000_000_000


def test_irq_line_tells_of_changes_only() -> None:
    seen: list[int] = []
    line = IrqLine(seen.append)
    for level in (1, 1, 0, 0, 5):
        line.set(level)
    line.pulse()
    assert seen == [1, 0, 1, 0]


def test_a_watcher_sees_changes_before_the_sink() -> None:
    order: list[str] = []
    line = IrqLine(lambda level: order.append(f"sink {level}"))
    line.watch(lambda level: order.append(f"watch {level}"))
    line.set(1)
    assert order == ["watch 1", "sink 1"]


def test_a_shared_line_is_the_or_of_its_drivers() -> None:
    target = IrqLine()
    shared = SharedIrq(target)
    one, two = shared.input(), shared.input()
    one.set(1)
    two.set(1)
    one.set(0)
    assert target.level == 1
    two.set(0)
    assert target.level == 0


def ram() -> tuple[Ram, bytearray, bytearray]:
    low, high = bytearray(16), bytearray(16)
    return Ram(RamRegion(0x1000, memoryview(low)), RamRegion(0x2000, memoryview(high))), low, high


@given(st.integers(0, 0x3000), st.binary(max_size=64))
def test_memory_never_leaves_its_regions(address: int, data: bytes) -> None:
    memory, low, high = ram()
    memory.write(address, data)
    expected = bytearray(b"\xff" * len(data))
    for n, byte in enumerate(data):
        if 0x1000 <= address + n < 0x1010 or 0x2000 <= address + n < 0x2010:
            expected[n] = byte
    assert memory.read(address, len(data)) == bytes(expected)
    assert (len(low), len(high)) == (16, 16)


def test_memory_reports_what_was_written() -> None:
    memory, _, _ = ram()
    seen: list[tuple[int, int]] = []
    memory.on_write = lambda start, end: seen.append((start, end))
    memory.write(0xFFE, b"abcd")
    memory.write(0x5000, b"ab")
    assert seen == [(0x1000, 0x1002)]


class Registers:
    def __init__(self) -> None:
        self.written: list[tuple[int, int, int]] = []

    def mmio_read(self, offset: int, size: int) -> int:
        return offset + 0x100

    def mmio_write(self, offset: int, size: int, value: int) -> None:
        self.written.append((offset, size, value))


def test_mmio_window_sees_offsets_and_the_rest_is_open_bus() -> None:
    space = MmioSpace()
    registers = Registers()
    window = space.attach(0xFED00000, 0x1000, registers, "regs")
    space.write(0xFED00010, 4, 7)
    assert registers.written == [(0x10, 4, 7)]
    assert space.read(0xFED00004, 1) == 0x04
    assert space.read(0xFED01000, 4) == 0xFFFFFFFF
    assert space.read(0, 8) == (1 << 64) - 1
    space.detach(window)
    assert space.read(0xFED00004, 2) == 0xFFFF


def test_mmio_overlap_names_both() -> None:
    space = MmioSpace()
    space.attach(0x1000, 0x1000, Registers(), "first")
    with pytest.raises(MmioConflictError, match=r"second 0x1800\+0x1000 overlaps first 0x1000\+0x1000"):
        space.attach(0x1800, 0x1000, Registers(), "second")


def test_mmio_handler_that_raises_is_reported() -> None:
    class Bad(Registers):
        def mmio_read(self, offset: int, size: int) -> int:
            raise KeyError("bad")

    space = MmioSpace()
    space.attach(0, 16, Bad(), "bad")
    with pytest.raises(KeyError):
        space.read(0, 1)
    seen: list[str] = []
    space.on_error = lambda what, error: seen.append(what)
    assert space.read(4, 2) == 0xFFFF
    assert seen == ["bad: 2-byte read at 0x4"]
