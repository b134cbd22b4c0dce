"""Byte streams on the host: the terminal, a file, a pseudo-terminal, a Unix socket, none, or several.

All run in the machine's own thread. A stream that has input gives the run loop a descriptor (`fileno`) that
becomes readable when `on_readable` has something to do; neither `on_readable` nor a stream's buffers ever
wait for the other end. `send` never raises, as it is called by device models: what goes wrong is kept in
`failure`, told to `on_failure`, and ends the output.

    class       output                                               input
    StdioChar   waits for a slow reader, loses nothing               terminal (raw), pipe or file
    FileChar    written as it comes                                  none
    PtyChar     buffered up to 64 KiB, then the oldest is dropped    whoever opens the terminal
    SocketChar  the same; kept while nobody is connected             one client at a time
    NullChar    dropped                                              none
    TeeChar     to several streams                                   from the first
"""

from __future__ import annotations

import errno
import os
import select
import socket
import termios
import tty
from collections.abc import Callable
from types import TracebackType
from typing import Self

from portvisor.backends.unix_socket import bind_private, file_identity, remove_stale
from portvisor.ports import CharBackend

READ_SIZE = 256
"""Most bytes given to the device at once."""
PENDING_LIMIT = 65_536
"""Most bytes kept for a slow or absent reader."""
DEFAULT_ESCAPE = 0x01
"""Ctrl-A: the next key is a command to the host."""


class BackendError(RuntimeError):
    """A stream that cannot be opened or has failed: one line with what and why."""


class HostChar:
    """A `CharBackend` with a life on the host: open from construction to `close`."""

    def __init__(self, name: str) -> None:
        self.name = name
        """The stream in messages."""
        self.failure: BackendError | None = None
        self.on_failure: Callable[[BackendError], None] | None = None
        self._callback: Callable[[bytes], None] | None = None

    def on_receive(self, callback: Callable[[bytes], None]) -> None:
        """Register who gets the bytes that come from the host."""
        self._callback = callback

    def send(self, data: bytes) -> None:
        """Bytes from the guest. Never raises; after a failure they are dropped."""
        if self.failure is None:
            try:
                self._send(data)
            except OSError as error:
                self._fail(error)

    def fileno(self) -> int:
        """Descriptor to wait on until it is readable; negative if there is no input, or none any more."""
        return -1

    def on_readable(self) -> None:
        """Pass on what has come. Never waits."""

    def _send(self, data: bytes) -> None:
        """Write bytes; an OSError becomes `failure`."""
        raise NotImplementedError

    def close(self) -> None:
        """Give back all that was opened. Further calls do nothing."""

    def _receive(self, data: bytes) -> None:
        if data and self._callback:
            self._callback(data)

    def _fail(self, error: OSError) -> None:
        self.failure = BackendError(f"{self.name}: {error.strerror or error}")
        if self.on_failure:
            self.on_failure(self.failure)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class NullChar(HostChar):
    """Drops output; no input."""

    def __init__(self) -> None:
        super().__init__("null")

    def _send(self, data: bytes) -> None:
        pass


class FileChar(HostChar):
    """Output to a file, unbuffered.

    Args:
        path: the file; it is made, or emptied unless `append`.
        append: write after what it holds.

    Raises:
        BackendError: it cannot be opened for writing.
    """

    def __init__(self, path: str | os.PathLike[str], *, append: bool = False) -> None:
        super().__init__(f"file {os.fspath(path)}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK | (os.O_APPEND if append else os.O_TRUNC)
        self._fd = -1
        try:
            self._fd = os.open(path, flags, 0o666)
            os.set_blocking(self._fd, True)  # O_NONBLOCK was for the opening of a FIFO without a reader only
        except (OSError, ValueError) as error:
            raise BackendError(f"{self.name}: cannot be opened for writing: {_reason(error)}") from None

    def _send(self, data: bytes) -> None:
        _write_all(self._fd, data)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class TeeChar(HostChar):
    """One stream with input and output, and others that get a copy of the output. `close` closes none of them."""

    def __init__(self, first: HostChar, *copies: CharBackend) -> None:
        super().__init__(first.name)
        self._first = first
        self._copies = copies

    def on_receive(self, callback: Callable[[bytes], None]) -> None:
        self._first.on_receive(callback)

    def fileno(self) -> int:
        return self._first.fileno()

    def on_readable(self) -> None:
        self._first.on_readable()

    def _send(self, data: bytes) -> None:
        self._first.send(data)
        for copy in self._copies:
            copy.send(data)


# --- standard input and output --------------------------------------------------------------------------


class RawTerminal:
    """A terminal that passes keys on as they are typed, for the time of a `with` block.

    Output processing stays as it was. `signals` leaves Ctrl-C its meaning; Ctrl-Z never has one, since a
    stopped machine would leave the terminal raw. A descriptor that is no terminal is left alone.
    """

    def __init__(self, fd: int, *, signals: bool) -> None:
        self._fd = fd
        self._signals = signals
        self._saved: list[int | list[bytes | int]] | None = None

    def __enter__(self) -> Self:
        if os.isatty(self._fd):
            self._saved = termios.tcgetattr(self._fd)
            raw = termios.tcgetattr(self._fd)
            raw[0] &= ~(
                termios.BRKINT | termios.ICRNL | termios.INLCR | termios.IGNCR | termios.ISTRIP | termios.IXON
            )
            raw[3] &= ~(termios.ECHO | termios.ICANON | termios.IEXTEN)
            if not self._signals:
                raw[3] &= ~termios.ISIG
            raw[6][termios.VMIN], raw[6][termios.VTIME] = 1, 0
            raw[6][termios.VSUSP] = b"\0"
            termios.tcsetattr(self._fd, termios.TCSANOW, raw)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._saved is not None:
            termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)
            self._saved = None


class EscapeFilter:
    """Takes commands to the host out of what the user types: the prefix and one key; the prefix twice is itself."""

    def __init__(self, on_command: Callable[[str], None], prefix: int = DEFAULT_ESCAPE) -> None:
        self._on_command = on_command
        self._prefix = prefix
        self._armed = False

    def feed(self, data: bytes) -> bytes:
        """What of the input is for the guest."""
        passed = bytearray()
        for key in data:
            if not self._armed and key == self._prefix:
                self._armed = True
            elif self._armed and key != self._prefix:
                self._armed = False
                self._on_command(chr(key))
            else:
                self._armed = False
                passed.append(key)
        return bytes(passed)


class StdioChar(HostChar):
    """The user's terminal, or whatever standard input and output are. Use it in a `with` block.

    Args:
        on_command: gets the key after Ctrl-A, which then is the way to end the machine: all other keys, Ctrl-C
            included, go to the guest. Without it Ctrl-C interrupts the program as usual.
    """

    def __init__(
        self, on_command: Callable[[str], None] | None = None, *, input_fd: int = 0, output_fd: int = 1
    ) -> None:
        super().__init__("standard output")
        self._input, self._output = input_fd, output_fd
        self._filter = EscapeFilter(on_command) if on_command else None
        self._terminal = RawTerminal(input_fd, signals=on_command is None)

    def __enter__(self) -> Self:
        self._terminal.__enter__()
        return self

    def close(self) -> None:
        self._terminal.__exit__(None, None, None)

    def fileno(self) -> int:
        return self._input

    def on_readable(self) -> None:
        if not _is_ready(self._input, select.POLLIN):
            return
        try:
            data = os.read(self._input, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._input = -1
        self._receive(self._filter.feed(data) if self._filter else data)

    def _send(self, data: bytes) -> None:
        _write_all(self._output, data)


# --- streams with a reader that may be slow or absent -----------------------------------------------------


class _BufferedStream(HostChar):
    """Output that waits in memory for its reader. One epoll descriptor stands for input and output."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.dropped = 0
        """Bytes lost because nobody read."""
        self._pending = bytearray()
        self._fd = -1
        """The stream's own descriptor, non-blocking; negative while nobody is connected."""
        self._poll = select.epoll()
        self._waits_to_write = False

    def fileno(self) -> int:
        return -1 if self._poll.closed else self._poll.fileno()

    def on_readable(self) -> None:
        if self._poll.closed:
            return
        for fd, events in self._poll.poll(0):
            self._on_event(fd, events)

    def _on_event(self, fd: int, events: int) -> None:
        if fd == self._fd and events & select.EPOLLOUT:
            self._drain()
        if fd == self._fd and events & ~select.EPOLLOUT:
            self._take()

    def _take(self) -> None:
        try:
            data = os.read(self._fd, READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._receive(data)
        else:
            self._disconnected()

    def _send(self, data: bytes) -> None:
        if self._poll.closed:
            return
        waiting = bool(self._pending)
        self._pending += data
        if self._fd >= 0 and not waiting:
            self._drain()
        excess = len(self._pending) - PENDING_LIMIT
        if excess > 0:
            del self._pending[:excess]
            self.dropped += excess

    def _drain(self) -> None:
        try:
            while self._pending:
                del self._pending[: os.write(self._fd, self._pending)]
        except BlockingIOError:
            pass
        except OSError:
            self._disconnected()
            return
        if self._waits_to_write != bool(self._pending):
            self._waits_to_write = bool(self._pending)
            self._poll.modify(self._fd, select.EPOLLIN | (select.EPOLLOUT if self._waits_to_write else 0))

    def _connected(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._waits_to_write = False
        self._poll.register(fd, select.EPOLLIN)
        self._drain()

    def _disconnected(self) -> None:
        """The other end is gone."""
        raise NotImplementedError

    def close(self) -> None:
        self._poll.close()


class PtyChar(_BufferedStream):
    """A pseudo-terminal: open `path` with any terminal program.

    Raises:
        BackendError: the host has no terminal left.
    """

    def __init__(self) -> None:
        super().__init__("pseudo-terminal")
        try:
            master, self._slave = os.openpty()
        except OSError as error:
            self._poll.close()
            raise BackendError(f"{self.name}: cannot be opened: {_reason(error)}") from None
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        """The terminal's device file. This end keeps it open, so that readers may come and go."""
        self._connected(master)

    def _disconnected(self) -> None:
        self._fail(OSError(errno.EIO, os.strerror(errno.EIO)))
        self.close()

    def close(self) -> None:
        super().close()
        if self._fd >= 0:
            os.close(self._fd)
            os.close(self._slave)
            self._fd = -1


class SocketChar(_BufferedStream):
    """A Unix socket that only this user can connect to. One client at a time; others wait their turn.

    What the guest writes while nobody is connected is kept for the next client (64 KiB of it).

    Args:
        path: the socket's file; a left-over one is replaced, and it is removed on `close`.

    Raises:
        BackendError: the path is in use, is something else, or cannot be bound.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        super().__init__(f"socket {self.path}")
        self._client: socket.socket | None = None
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            remove_stale(self.path)
            bind_private(self._listener, self.path)
            self._identity = file_identity(self.path)
            self._listener.listen(1)
        except (OSError, ValueError) as error:
            self._listener.close()
            self._poll.close()
            raise BackendError(f"{self.name}: {_reason(error)}") from None
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.EPOLLIN)

    @property
    def connected(self) -> bool:
        """Whether a client is there."""
        return self._client is not None

    def _on_event(self, fd: int, events: int) -> None:
        if fd == self._listener.fileno():
            self._accept()
        else:
            super()._on_event(fd, events)

    def _accept(self) -> None:
        try:
            self._client, _ = self._listener.accept()
        except OSError:
            return
        self._poll.unregister(self._listener)
        self._connected(self._client.fileno())

    def _disconnected(self) -> None:
        if self._client is not None:
            self._poll.unregister(self._fd)
            self._client.close()
            self._client, self._fd = None, -1
            self._poll.register(self._listener, select.EPOLLIN)

    def close(self) -> None:
        super().close()
        if self._client is not None:
            self._client.close()
            self._client, self._fd = None, -1
        if self._listener.fileno() >= 0:
            self._listener.close()
            if file_identity(self.path) == self._identity:
                os.unlink(self.path)


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _is_ready(fd: int, event: int, timeout_ms: int | None = 0) -> bool:
    poll = select.poll()
    poll.register(fd, event)
    return bool(poll.poll(timeout_ms))


def _write_all(fd: int, data: bytes) -> None:
    """Write everything, waiting for the reader where the descriptor (somebody else's, maybe) does not wait."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            _is_ready(fd, select.POLLOUT, None)
