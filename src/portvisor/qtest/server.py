"""The sockets: one connection to the client's qtest socket, any number to its QMP sockets, one thread."""

from __future__ import annotations

import contextlib
import select
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from types import FrameType
from typing import TextIO

from portvisor.qtest.options import OptionError, Options
from portvisor.qtest.qmp import Event, Qmp, encode
from portvisor.qtest.session import Session
from portvisor.qtest.sockets import set_timeout

RECEIVE_SIZE = 16_384
SEND_TIMEOUT = 60.0
"""Seconds that a client may leave replies unread."""
MONITOR_SEND_TIMEOUT = 2.0
"""The same for QMP, which may not keep the qtest socket waiting: after that the connection is dropped."""


class Terminated(BaseException):
    """A signal has come, or the client is gone; no handler of a device error may take it."""


def connect(path: str, option: str, send_timeout: float) -> socket.socket:
    """A connection to a client that listens.

    Raises:
        OptionError: nobody does.
    """
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except (OSError, ValueError) as error:
        connection.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise OptionError(f"{option} unix:{path}: Failed to connect: {reason}") from None
    set_timeout(connection, socket.SO_SNDTIMEO, send_timeout)
    return connection


class Connection:
    """A socket and who takes its bytes."""

    def __init__(self, link: socket.socket, feed: Callable[[bytes], Iterable[bytes]]) -> None:
        self.link = link
        self._feed = feed
        self.open = True

    def send(self, data: bytes) -> None:
        """Send, or note that the other end is gone."""
        try:
            self.link.sendall(data)
        except OSError:
            self.open = False

    def serve(self) -> None:
        """Take what has come, answer it."""
        try:
            data = self.link.recv(RECEIVE_SIZE)
        except OSError:
            data = b""
        if not data:
            self.open = False
            return
        for reply in self._feed(data):
            self.send(reply)
            if not self.open:
                return

    def check(self) -> None:
        """During a command that takes long.

        Raises:
            Terminated: the other end is gone.
        """
        watch = select.poll()
        watch.register(self.link, select.POLLRDHUP)
        if watch.poll(0):
            raise Terminated


class Server:
    """Serves until the qtest client leaves, or a command, a guest or a signal ends it."""

    def __init__(self, session: Session, qtest: socket.socket | None, qmp: list[socket.socket]) -> None:
        self._session = session
        self._qtest = Connection(qtest, session.qtest.feed) if qtest else None
        self._monitors: list[tuple[Connection, Qmp]] = []
        session.on_event = self._send_event
        if self._qtest:
            session.target.on_progress = self._qtest.check
        for link in qmp:
            monitor = Qmp(session)
            connection = Connection(link, monitor.feed)
            connection.send(monitor.greeting())
            self._monitors.append((connection, monitor))

    def _send_event(self, event: Event) -> None:
        data = encode(event)
        for connection, monitor in self._monitors:
            if monitor.negotiated and connection.open:
                connection.send(data)

    def _watch(self) -> tuple[select.poll, dict[int, Connection]]:
        """What waits for input on all open connections, and those by descriptor."""
        connections = [connection for connection, _ in self._monitors if connection.open]
        if self._qtest:
            connections.append(self._qtest)
        poll = select.poll()
        for connection in connections:
            poll.register(connection.link, select.POLLIN)
        return poll, {connection.link.fileno(): connection for connection in connections}

    def run(self) -> int:
        """Serve; the exit status."""
        session = self._session
        poll, connections = self._watch()
        while session.exit_status is None and connections and not (self._qtest and not self._qtest.open):
            for descriptor, _ in poll.poll():
                connection = connections[descriptor]
                connection.serve()
                session.settle()
                if not connection.open:
                    poll, connections = self._watch()
                    break
                if session.exit_status is not None:
                    break
        return session.exit_status or 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGTERM and SIGINT end the server in an orderly way; SIGHUP as well."""
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = [signal.signal(number, _terminate) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _open_log(options: Options, stack: ExitStack) -> TextIO | None:
    if options.qtest_log == "/dev/null":
        return None
    if options.qtest_log is None:
        return sys.stderr
    return stack.enter_context(open(options.qtest_log, "w", encoding="ascii", errors="backslashreplace"))


def serve(options: Options) -> int:
    """Build the machine, connect and serve; the exit status.

    Raises:
        OptionError: something cannot be had or nobody listens; also the errors of `Builder.build`.
        OSError: the log cannot be written.
    """
    with ExitStack() as stack:
        stack.enter_context(_signals())
        server = None
        try:
            session = Session(options, _open_log(options, stack) if options.qtest else None)
            stack.callback(session.close)
            qtest = stack.enter_context(connect(options.qtest, "-qtest", SEND_TIMEOUT)) if options.qtest else None
            qmp = [stack.enter_context(connect(path, "-qmp", MONITOR_SEND_TIMEOUT)) for path in options.qmp]
            if qtest is None and not qmp:
                raise OptionError("neither -qtest nor -qmp: there is nobody to serve")
            server = Server(session, qtest, qmp)
            return server.run()
        except Terminated:
            if server:
                session.shut_down("host-signal", guest=False)
            return 0
