"""A host for tests: speaks the register protocol of a legacy channel the way a driver does."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import Protocol

from portvisor.devices.ide import PRIMARY, ChannelAddress, Drive, IdeChannel
from portvisor.devices.ide.registers import BSY, DRQ, ERR, NIEN, SRST
from portvisor.ports import IrqLine, PortSpace

DATA, ERROR, COUNT, LOW, MID, HIGH, DEVICE, STATUS = range(8)
FEATURES, COMMAND = ERROR, STATUS
READY = 0x50
READY_DRQ = 0x58
FAILED = 0x51


_free_spaces: list[PortSpace] = []
"""A port space takes long to make and no time to empty, so hosts hand theirs on."""


def _recycle(space: PortSpace) -> None:
    for device in space.devices():
        space.detach(device)
    _free_spaces.append(space)


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    error: int
    data: bytes = b""

    @property
    def good(self) -> bool:
        return not self.status & (BSY | DRQ | ERR)


class Ports(Protocol):
    """What a driver needs of a port space."""

    def read(self, port: int, size: int) -> int: ...

    def write(self, port: int, size: int, value: int) -> None: ...

    def read_block(self, port: int, size: int, count: int) -> bytes: ...

    def write_block(self, port: int, size: int, data: bytes) -> None: ...


class AtaDriver:
    """What a driver does with a channel."""

    def __init__(self, space: Ports, address: ChannelAddress = PRIMARY) -> None:
        self.space = space
        self.address = address

    # --- registers ----------------------------------------------------------------------------------

    def get(self, register: int) -> int:
        return self.space.read(self.address.command + register, 1)

    def put(self, register: int, value: int) -> None:
        self.space.write(self.address.command + register, 1, value & 0xFF)

    @property
    def alternate_status(self) -> int:
        return self.space.read(self.address.control, 1)

    def control(self, value: int) -> None:
        self.space.write(self.address.control, 1, value)

    def block(self) -> list[int]:
        """Count, LBA low, mid, high."""
        return [self.get(register) for register in (COUNT, LOW, MID, HIGH)]

    def software_reset(self) -> None:
        self.control(SRST | NIEN)
        self.control(0)

    # --- addresses ----------------------------------------------------------------------------------

    def chs(self, cylinder: int, head: int, sector: int, count: int = 1) -> None:
        self.put(DEVICE, 0xA0 | head)
        for register, value in ((COUNT, count), (LOW, sector), (MID, cylinder), (HIGH, cylinder >> 8)):
            self.put(register, value)

    def lba28(self, lba: int, count: int = 1, device: int = 0) -> None:
        self.put(DEVICE, 0xE0 | device << 4 | lba >> 24)
        for register, value in ((COUNT, count), (LOW, lba), (MID, lba >> 8), (HIGH, lba >> 16)):
            self.put(register, value)

    def lba48(self, lba: int, count: int = 1, device: int = 0) -> None:
        self.put(DEVICE, 0x40 | device << 4)
        for upper in (True, False):
            part, number = (lba >> 24, count >> 8) if upper else (lba, count)
            for register, value in ((COUNT, number), (LOW, part), (MID, part >> 8), (HIGH, part >> 16)):
                self.put(register, value)

    # --- commands -----------------------------------------------------------------------------------

    def command(self, code: int) -> int:
        """Write Command; returns Status, which takes the interrupt back."""
        self.put(COMMAND, code)
        return self.get(STATUS)

    def result(self, data: bytes = b"") -> Result:
        return Result(self.get(STATUS), self.get(ERROR), data)

    def words(self, count: int = 256, size: int = 2) -> bytes:
        """REP INSW from the data register."""
        return self.space.read_block(self.address.command, size, count)

    def send(self, data: bytes, size: int = 2) -> None:
        """REP OUTSW to the data register."""
        self.space.write_block(self.address.command, size, data)

    def no_data(self, code: int) -> Result:
        self.put(COMMAND, code)
        return self.result()

    def data_in(self, code: int, sectors_per_block: int = 1, limit: int = 100_000) -> Result:
        """A PIO data-in command: status, block, status, block."""
        self.put(COMMAND, code)
        data = bytearray()
        for _ in range(limit):
            if not self.get(STATUS) & DRQ:
                return self.result(bytes(data))
            data += self.words(256 * sectors_per_block)
        raise AssertionError("DRQ for ever")

    def data_out(self, code: int, data: bytes, sectors_per_block: int = 1) -> Result:
        """A PIO data-out command; ends early if the drive stops asking."""
        self.put(COMMAND, code)
        step = 512 * sectors_per_block
        for start in range(0, len(data), step):
            if not self.get(STATUS) & DRQ:
                break
            self.send(data[start : start + step])
        return self.result()

    def identify(self) -> list[int]:
        """IDENTIFY DEVICE as 256 words."""
        data = self.data_in(0xEC).data
        return [int.from_bytes(data[index : index + 2], "little") for index in range(0, 512, 2)]

    def packet(self, cdb: bytes | list[int], limit: int = 2048, device: int = 0) -> Result:
        """PACKET with PIO data-in."""
        self.put(DEVICE, 0xA0 | device << 4)
        for register, value in ((FEATURES, 0), (MID, limit), (HIGH, limit >> 8)):
            self.put(register, value)
        if not self.command(0xA0) & DRQ:
            return self.result()
        self.send(bytes(cdb).ljust(12, b"\0"))
        data = bytearray()
        for _ in range(100_000):
            if not self.get(STATUS) & DRQ:
                return self.result(bytes(data))
            length = self.get(MID) | self.get(HIGH) << 8
            data += self.words((length + 1) // 2)[:length]
        raise AssertionError("DRQ for ever")


class AtaHost(AtaDriver):
    """A driver with a channel of its own on a strict port space, and a look at its interrupt line."""

    def __init__(
        self, master: Drive | None = None, slave: Drive | None = None, address: ChannelAddress = PRIMARY
    ) -> None:
        self.edges: list[int] = []
        self.irq = IrqLine(self.edges.append)
        self.channel = IdeChannel(self.irq, master, slave, address)
        space = _free_spaces.pop() if _free_spaces else PortSpace(strict=True)
        weakref.finalize(self, _recycle, space)
        space.attach(self.channel)
        super().__init__(space, address)

    def interrupts(self) -> int:
        """Rising edges since the last call."""
        count = self.edges.count(1)
        self.edges.clear()
        return count
