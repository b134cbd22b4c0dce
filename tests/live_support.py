"""A viewer's end for tests: snapshots made by hand, and a socket spoken to directly."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from portvisor.live.protocol import (
    MAX_ANSWER,
    NOBODY,
    Ended,
    Hello,
    LineReader,
    Message,
    PortRow,
    Request,
    Snapshot,
    Totals,
    decode,
    encode,
)
from portvisor.machines.pc_like import PcLike

HELLO = Hello(4711, "pc", "software", "portvisor run disk.img --live", 1_700_000_000)
SECOND = 1_000_000_000

PORTS = (
    # port, device, registers of IN and OUT, then per second: reads, writes, bytes, ns
    (0x3F8, "uart0", "RBR", "THR", (0, 9000, 9000, 9_000_000)),
    (0x3FD, "uart0", "LSR", "LSR", (9000, 0, 9000, 1_000_000)),
    (0x071, "rtc", "Seconds", "Seconds", (200, 100, 300, 300_000)),
    (0x1F0, "ide0", "Data", "Data", (50, 0, 25_600, 5_000_000)),
    (0x0CFC, "pci", "CONFDATA", "CONFDATA", (10, 10, 80, 40_000)),
    (0x0080, NOBODY, "", "", (0, 1, 1, 100)),
)


def snapshot_at(second: float, resets: int = 0) -> Snapshot:
    """What a machine with the traffic of `PORTS` would tell after so many seconds."""
    rows = [
        PortRow(port, device, read, write, Totals(*(int(value * second) for value in rates)))
        for port, device, read, write, rates in PORTS
    ]
    rows.sort(key=lambda row: -row.totals.accesses)
    devices: dict[str, Totals] = {}
    for row in rows:
        devices[row.device] = Totals(
            *(a + b for a, b in zip(devices.get(row.device, Totals()), row.totals, strict=True))
        )
    moment = int(second * SECOND)
    return Snapshot(moment + 5, moment, resets, len(rows), devices, rows, {"IRQ0": int(18 * second)})


class FakeSource:
    """A machine whose messages the test puts in."""

    def __init__(self) -> None:
        self.hello = HELLO
        self.requests: list[int | None] = []
        self.queue: asyncio.Queue[Message] = asyncio.Queue()

    def request(self, watch: int | None = None) -> None:
        self.requests.append(watch)

    async def messages(self) -> AsyncIterator[Message]:
        while True:
            message = await self.queue.get()
            yield message
            if isinstance(message, Ended):
                return


class RawViewer:
    """A socket to a machine that does not run: `serve` is called where its run loop would."""

    def __init__(self, path: Path, serve: Callable[[], None]) -> None:
        self._serve = serve
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.settimeout(5)
        self.socket.connect(str(path))
        self._lines = LineReader(MAX_ANSWER)
        serve()

    def read(self) -> list[Message]:
        """What is there now."""
        self.socket.setblocking(False)
        found: list[Message] = []
        while True:
            try:
                data = self.socket.recv(1 << 16)
            except (BlockingIOError, ConnectionResetError):
                return found
            if not data:
                return found
            found += [decode(line) for line in self._lines.feed(data)]

    def ask(self, watch: int | None = None) -> list[Message]:
        """A request and what comes of it."""
        self.socket.send(encode(Request(watch)))
        self._serve()
        return self.read()

    def is_dropped(self) -> bool:
        """Whether the machine closed the connection."""
        self.socket.settimeout(1)
        try:
            while self.socket.recv(1 << 16):
                pass
        except ConnectionResetError:
            return True
        except TimeoutError:
            return False
        return True


def serve_once(machine: PcLike) -> None:
    """What the run loop does with visitors."""
    for visitor in list(machine.visitors):
        visitor.on_readable()
