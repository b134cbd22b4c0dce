"""The ring of coalesced writes, without KVM."""

from __future__ import annotations

import pytest

from portvisor.kvm.abi import PAGE_SIZE
from portvisor.kvm.hardware.coalesced import ENTRY, RING_ENTRIES, SLOTS, CoalescedRing

Written = list[tuple[str, int, int, int]]


class Kernel:
    """The producing side, as KVM does it."""

    def __init__(self, start: int = 0) -> None:
        self.page = bytearray(PAGE_SIZE)
        self.ring = CoalescedRing(memoryview(self.page))
        self.ring.indices[0] = self.ring.indices[1] = start
        self.written: Written = []

    def queue(self, address: int, size: int, value: int, pio: int = 1) -> None:
        last = self.ring.indices[1]
        entry = ENTRY.pack(address, size, pio, value.to_bytes(8, "little"))
        start = RING_ENTRIES + last * ENTRY.size
        self.page[start : start + ENTRY.size] = entry
        self.ring.indices[1] = (last + 1) % SLOTS

    def drain(self) -> Written:
        self.ring.drain(self.port, self.memory)
        return self.written

    def port(self, port: int, size: int, value: int) -> None:
        self.written.append(("port", port, size, value))

    def memory(self, address: int, size: int, value: int) -> None:
        self.written.append(("memory", address, size, value))


def test_the_page_holds_170_slots() -> None:
    assert SLOTS == 170


@pytest.mark.parametrize("start", [0, 84, 85, 169])
@pytest.mark.parametrize("count", [0, 1, 85, 169])
def test_every_entry_is_given_once_in_order(start: int, count: int) -> None:
    kernel = Kernel(start)
    for index in range(count):
        kernel.queue(0x402, 1, index & 0xFF)
    assert kernel.drain() == [("port", 0x402, 1, index & 0xFF) for index in range(count)]
    assert kernel.ring.indices[0] == kernel.ring.indices[1] == (start + count) % SLOTS


def test_values_are_cut_to_their_size_and_memory_goes_elsewhere() -> None:
    kernel = Kernel()
    kernel.queue(0x80, 2, 0xAABBCCDD)
    kernel.queue(0xA0000, 8, 0x1122334455667788, pio=0)
    assert kernel.drain() == [("port", 0x80, 2, 0xCCDD), ("memory", 0xA0000, 8, 0x1122334455667788)]


def test_a_write_that_drains_again_gets_the_rest_in_order() -> None:
    kernel = Kernel()
    for index in range(5):
        kernel.queue(index, 1, index)
    order: list[int] = []

    def write(port: int, _size: int, _value: int) -> None:
        order.append(port)
        kernel.ring.drain(write, write)

    kernel.ring.drain(write, write)
    assert order == [0, 1, 2, 3, 4]


def test_a_write_that_raises_is_not_given_again() -> None:
    kernel = Kernel()
    kernel.queue(1, 1, 1)
    kernel.queue(2, 1, 2)

    def fail(port: int, _size: int, _value: int) -> None:
        raise ValueError(port)

    with pytest.raises(ValueError, match="1"):
        kernel.ring.drain(fail, fail)
    assert kernel.drain() == [("port", 2, 1, 2)]
