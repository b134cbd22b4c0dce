"""The viewer's end: finding running machines, and a connection to one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import socket
import time
from collections import deque
from collections.abc import AsyncIterator
from pathlib import Path
from types import TracebackType
from typing import Self

from portvisor.backends.unix_socket import peer_user
from portvisor.live.errors import LiveError
from portvisor.live.places import sockets
from portvisor.live.protocol import (
    MAX_ANSWER,
    Ended,
    Hello,
    LineReader,
    Message,
    ProtocolError,
    Request,
    decode,
    encode,
)

READ_SIZE = 1 << 16
HELLO_SECONDS = 2.0
"""A machine that is held up longer than this is not answering."""


class Connection:
    """To one machine, whose introduction is read at once. Use it in a `with` block.

    Raises:
        LiveError: nobody is there, it is another user's, or it says something else than it should.
    """

    def __init__(self, path: str | os.PathLike[str], timeout: float = HELLO_SECONDS) -> None:
        self.path = Path(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._lines = LineReader(MAX_ANSWER)
        self._waiting: deque[Message] = deque()
        try:
            self._socket.connect(str(path))
            if peer_user(self._socket) not in (os.geteuid(), 0):
                raise LiveError(f"{path}: belongs to another user")
            first = self.receive(timeout)
        except (OSError, ValueError) as error:
            self._socket.close()
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise LiveError(f"{path}: {reason}") from None
        except LiveError:
            self._socket.close()
            raise
        if not isinstance(first, Hello):
            self._socket.close()
            what = {type(None): "does not answer", Ended: getattr(first, "why", "")}
            raise LiveError(f"{path}: {what.get(type(first), 'is no machine of portvisor')}")
        self.hello = first

    def request(self, watch: int | None = None) -> None:
        """Ask for a snapshot, and for a port's detail. Never waits; may be in vain."""
        with contextlib.suppress(OSError):
            self._socket.send(encode(Request(watch)))

    def receive(self, timeout: float) -> Message | None:
        """The next message; None after so many seconds without one.

        Raises:
            ProtocolError: what came is none.
        """
        deadline = time.monotonic() + timeout
        while not self._waiting:
            left = deadline - time.monotonic()
            if not select.select([self._socket], [], [], max(0.0, left))[0]:
                return None
            with contextlib.suppress(BlockingIOError):
                self._take(self._socket.recv(READ_SIZE))
        return self._waiting.popleft()

    async def messages(self) -> AsyncIterator[Message]:
        """All messages as they come; the last is an `Ended`.

        Raises:
            ProtocolError: what came is none.
        """
        loop = asyncio.get_running_loop()
        while True:
            while self._waiting:
                message = self._waiting.popleft()
                yield message
                if isinstance(message, Ended):
                    return
            try:
                data = await loop.sock_recv(self._socket, READ_SIZE)
            except OSError:
                data = b""
            self._take(data)

    def _take(self, data: bytes) -> None:
        if not data:
            self._waiting.append(Ended("its process is gone, without a word"))
            return
        try:
            self._waiting += [decode(line) for line in self._lines.feed(data)]
        except ProtocolError as error:
            raise ProtocolError(f"{self.path}: {error}") from None

    def close(self) -> None:
        """Leave the machine alone."""
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def find_machines() -> tuple[list[Connection], list[str]]:
    """Connections to all running machines of this user, and a line for each socket that cannot be used.

    Sockets of machines that are no more are removed.
    """
    found, failures = [], []
    for path in sockets():
        if _is_stale(path):
            path.unlink(missing_ok=True)
            continue
        try:
            found.append(Connection(path))
        except LiveError as error:
            failures.append(str(error))
    return found, failures


def _is_stale(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False
