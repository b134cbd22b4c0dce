"""A host for tests: drives a KCS interface as the flow charts of IPMI 2.0, chapter 9 do, and checks its states."""

from __future__ import annotations

from collections.abc import Callable

from devices.pci.board import empty_space
from portvisor.devices.ipmi_kcs import IpmiKcs
from portvisor.ports import IrqLine

BASE, SPACING = 0xCA8, 4
IDLE, READ, WRITE, ERROR = range(4)
OBF, IBF, SMS_ATN, COMMAND = 1, 2, 4, 8
GET_STATUS, WRITE_START, WRITE_END, READ_BYTE = 0x60, 0x61, 0x62, 0x68
LONGEST = 300


class KcsHost:
    """The interface on a port space of its own, with a look at its interrupt line."""

    def __init__(self, execute: Callable[[bytes], bytes], *, interrupt: bool = False) -> None:
        self.edges: list[int] = []
        irq = IrqLine(self.edges.append) if interrupt else None
        self.kcs = IpmiKcs(execute, irq, BASE, SPACING)
        self.space = empty_space()
        self.space.attach(self.kcs)

    @property
    def status(self) -> int:
        return self.space.read(BASE + SPACING, 1)

    @property
    def phase(self) -> int:
        return self.status >> 6

    def command(self, value: int) -> None:
        self.space.write(BASE + SPACING, 1, value)
        assert not self.status & IBF

    def put(self, value: int) -> None:
        self.space.write(BASE, 1, value)
        assert not self.status & IBF

    def get(self) -> int:
        """Read DATA_OUT, which is full before and empty after."""
        assert self.status & OBF
        value = self.space.read(BASE, 1)
        assert not self.status & OBF
        return value

    def send(self, request: bytes) -> None:
        """Figure 9-6: the write phase."""
        assert self.phase == IDLE
        self.command(WRITE_START)
        assert self.phase == WRITE
        self.get()
        for value in request[:-1]:
            self.put(value)
            assert self.phase == WRITE
            self.get()
        self.command(WRITE_END)
        assert self.phase == WRITE
        self.get()
        self.put(request[-1])

    def receive(self) -> bytes:
        """Figure 9-7: the read phase, to the dummy byte in IDLE."""
        response = bytearray()
        while self.phase == READ:
            assert len(response) < LONGEST, "a response that does not end"
            response.append(self.get())
            self.put(READ_BYTE)
        assert self.phase == IDLE
        self.get()
        return bytes(response)

    def transact(self, request: bytes) -> bytes:
        self.send(request)
        return self.receive()

    def abort(self) -> int:
        """Figure 9-8: the error exit; gives the status code."""
        self.command(GET_STATUS)
        assert self.phase == WRITE
        self.get()
        self.put(0)
        assert self.phase == READ
        code = self.get()
        self.put(READ_BYTE)
        assert self.phase == IDLE
        self.get()
        return code
