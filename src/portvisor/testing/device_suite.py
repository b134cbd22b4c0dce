"""Generic tests of a device model. Subclass `DeviceSuite` in the device's test file and say how to make one.

    class TestScratch(DeviceSuite):
        def make(self) -> Device:
            return Scratch()

It checks what the contract promises whatever the chip: reset is idempotent, any access of any size raises
nothing and gives an integer that fits, a snapshot restores to the same future, and no port outside the
device's ranges answers.
"""

from __future__ import annotations

import random

from portvisor.ports import ACCESS_SIZES, Device, Failure, PortRange, PortSpace, VirtualClock

Step = tuple[bool, int, int, int]
"""(write, port, size, value) of one access."""


class DeviceSuite:
    """Tests that every device class passes; `make` is the only thing to write."""

    SEED = 0x5EED
    ACCESSES = 3_000
    clock: VirtualClock | None = None
    """The clock that `make` gave the device, if any; the suite moves it between accesses."""

    def make(self) -> Device:
        """A device as after power-on, with its own clock, lines and backends."""
        raise NotImplementedError

    def _space(self, device: Device) -> tuple[PortSpace, list[Failure]]:
        space = PortSpace()
        failures: list[Failure] = []
        space.on_failure = failures.append
        space.attach(device)
        return space, failures

    def _ports(self, device: Device) -> list[int]:
        return sorted({port for owned in device.ports for port in range(owned.base, owned.last + 1)})

    def _stream(self, device: Device, seed: int, count: int) -> list[Step]:
        chance = random.Random(seed)
        ports = self._ports(device) or [0]
        return [
            (chance.random() < 0.6, chance.choice(ports), chance.choice(ACCESS_SIZES), self._value(chance))
            for _ in range(count)
        ]

    @staticmethod
    def _value(chance: random.Random) -> int:
        return chance.choice((0, 0xFF, 0xFFFFFFFF, 1 << chance.randrange(32), chance.getrandbits(32)))

    def _play(self, space: PortSpace, stream: list[Step]) -> list[int]:
        replies = []
        for index, (write, port, size, value) in enumerate(stream):
            if write:
                space.write(port, size, value)
            else:
                replies.append(space.read(port, size))
            if self.clock is not None and index % 16 == 0:
                self.clock.advance(100_000)
        return replies

    def test_has_a_name_and_named_ranges(self) -> None:
        device = self.make()
        assert device.name
        assert all(isinstance(owned, PortRange) and owned.name for owned in device.ports)

    def test_reset_is_idempotent(self) -> None:
        device = self.make()
        space, _ = self._space(device)
        self._play(space, self._stream(device, self.SEED, 500))
        device.reset()
        once = device.snapshot()
        device.reset()
        assert device.snapshot() == once

    def test_any_access_is_safe(self) -> None:
        device = self.make()
        space, failures = self._space(device)
        self._play(space, self._stream(device, self.SEED, self.ACCESSES))
        assert not failures, str(failures[0])

    def test_blocks_are_safe_and_whole(self) -> None:
        device = self.make()
        space, failures = self._space(device)
        chance = random.Random(self.SEED)
        for port in self._ports(device)[:64]:
            for size in ACCESS_SIZES:
                count = chance.randrange(1, 40)
                assert len(space.read_block(port, size, count)) == size * count
                space.write_block(port, size, chance.randbytes(size * count))
        assert not failures, str(failures[0])

    def test_snapshot_restores_to_the_same_future(self) -> None:
        device = self.make()
        space, _ = self._space(device)
        self._play(space, self._stream(device, self.SEED, 700))
        saved = device.snapshot()
        now = self.clock.now() if self.clock else 0
        future = self._stream(device, self.SEED + 1, 700)
        first = self._play(space, future)
        if self.clock:
            self.clock.rewind(now)
        device.restore(saved)
        assert device.snapshot() == saved
        assert self._play(space, future) == first

    def test_no_port_outside_its_ranges_answers(self) -> None:
        device = self.make()
        space, _ = self._space(device)
        inside = set(self._ports(device))
        for port in range(0x10000):
            if port not in inside:
                assert space.owner(port, 1) is None
