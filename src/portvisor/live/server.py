"""The machine's end: a private socket whose viewers are told sums when they ask.

It runs in the machine's own thread and must never hold the guest up. Nothing waits; a viewer has one answer under
way at most, and its next request counts only after `PAUSE_FACTOR` times what the last one took. Accesses are
counted while a viewer is there, and cost nothing before.
"""

from __future__ import annotations

import os
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

from portvisor.backends.unix_socket import bind_private, file_identity, peer_user, remove_stale
from portvisor.live.counters import LiveCounters
from portvisor.live.errors import LiveError
from portvisor.live.protocol import (
    MAX_LINE,
    MAX_PORTS,
    MAX_REQUEST,
    Detail,
    Ended,
    Hello,
    LineReader,
    ProtocolError,
    Request,
    Snapshot,
    decode_request,
    encode,
)
from portvisor.machines.pc_like import PcLike

MAX_VIEWERS = 8
EVENTS = 16
"""Descriptors served in one go."""
READ_SIZE = 4096
PAUSE_FACTOR = 50
ATTACH_PAUSE_FACTOR = 40
MIN_PAUSE_NS = 20_000_000
PIC_INPUTS = tuple(irq for irq in range(16) if irq != 2)


class _Viewer:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.lines = LineReader(MAX_REQUEST)
        self.unsent = b""
        self.counting = False
        self.watched: int | None = None
        self.next_request_ns = 0

    def send(self) -> None:
        """Send what the other end takes.

        Raises:
            OSError: it is gone.
        """
        try:
            while self.unsent:
                self.unsent = self.unsent[self.connection.send(self.unsent) :]
        except BlockingIOError:
            pass


class LiveServer:
    """Offers a machine's sums from now on: one of its visitors, whose `on_readable` the run loop calls.

    Args:
        machine: the machine.
        path: the socket's file; a left-over one is replaced, and it is removed on `close`.
        command: what the user typed, to tell machines apart.

    Raises:
        LiveError: the path is in use, is something else, or cannot be bound.
    """

    def __init__(self, machine: PcLike, path: str | os.PathLike[str], command: str = "") -> None:
        self.path = Path(path)
        self.counters = LiveCounters(machine.ports)
        self._machine = machine
        self._hello = Hello(os.getpid(), machine.name, machine.system.name, command[:MAX_LINE], int(time.time()))
        self._viewers: dict[int, _Viewer] = {}
        self._interrupts: list[int] = [0] * 16
        self._watches_wires = False
        self._next_attach_ns = 0
        self._poll = select.epoll()
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            remove_stale(str(path))
            bind_private(self._listener, str(path))
            self._listener.listen(MAX_VIEWERS)
        except (OSError, ValueError) as error:
            self._listener.close()
            self._poll.close()
            reason = (isinstance(error, OSError) and error.strerror) or str(error)
            raise LiveError(f"socket {path}: {reason}") from None
        self._identity = file_identity(str(path))
        self._listener.setblocking(False)
        self._poll.register(self._listener, select.EPOLLIN)
        machine.visitors.append(self)

    def fileno(self) -> int:
        """Readable when a viewer wants something."""
        return -1 if self._poll.closed else self._poll.fileno()

    def on_readable(self) -> None:
        """Serve what viewers want, as far as it can be done at once."""
        if self._poll.closed:
            return
        for descriptor, events in self._poll.poll(0, EVENTS):
            viewer = self._viewers.get(descriptor)
            if viewer is None:
                self._accept()
                continue
            try:
                self._serve(viewer, events)
            except (OSError, ProtocolError):
                self._drop(viewer)

    # --- viewers --------------------------------------------------------------------------------------

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        connection.setblocking(False)
        try:
            self._greet(connection)
        except OSError:
            connection.close()

    def _greet(self, connection: socket.socket) -> None:
        reason = ""
        if peer_user(connection) not in (os.geteuid(), 0):
            reason = "the machine belongs to another user"
        elif len(self._viewers) >= MAX_VIEWERS:
            reason = f"{MAX_VIEWERS} viewers are there already"
        if reason:
            connection.send(encode(Ended(reason)))
            connection.close()
            return
        connection.send(encode(self._hello))
        self._viewers[connection.fileno()] = _Viewer(connection)
        self._poll.register(connection, select.EPOLLIN)

    def _serve(self, viewer: _Viewer, events: int) -> None:
        if events & ~select.EPOLLOUT:
            self._receive(viewer)
        viewer.send()
        wanted = select.EPOLLIN | (select.EPOLLOUT if viewer.unsent else 0)
        self._poll.modify(viewer.connection, wanted)

    def _receive(self, viewer: _Viewer) -> None:
        """Of several requests that have come, the last counts; what comes too soon is not even looked at."""
        data = viewer.connection.recv(READ_SIZE)
        if not data:
            raise ConnectionResetError
        lines = list(viewer.lines.feed(data))
        if lines and not viewer.unsent and time.monotonic_ns() >= viewer.next_request_ns:
            request = decode_request(lines[-1])
            if not self._counts_for(viewer):
                return
            begin = time.monotonic_ns()
            self._answer(viewer, request)
            taken = time.monotonic_ns() - begin
            viewer.next_request_ns = begin + max(MIN_PAUSE_NS, taken * PAUSE_FACTOR)

    def _drop(self, viewer: _Viewer) -> None:
        del self._viewers[viewer.connection.fileno()]
        self._poll.unregister(viewer.connection)
        viewer.connection.close()
        self._watch(viewer, None)
        if not any(other.counting for other in self._viewers.values()):
            self.counters.detach()

    # --- answers --------------------------------------------------------------------------------------

    def _counts_for(self, viewer: _Viewer) -> bool:
        """Begin to count, unless it was begun too short a time ago: viewers that come and go cost time too."""
        if not self.counters.attached:
            begin = time.monotonic_ns()
            if begin < self._next_attach_ns:
                return False
            self.counters.attach()
            self._watch_wires()
            self._next_attach_ns = begin + (time.monotonic_ns() - begin) * ATTACH_PAUSE_FACTOR
        viewer.counting = True
        return True

    def _answer(self, viewer: _Viewer, request: Request) -> None:
        self._watch(viewer, request.watch)
        if request.watch is not None:
            port = request.watch
            viewer.unsent += encode(Detail(port, self.counters.registers(port), self.counters.last(port)))
        viewer.unsent += encode(self._snapshot())

    def _snapshot(self) -> Snapshot:
        ports, used = self.counters.ports(MAX_PORTS)
        return Snapshot(
            time.monotonic_ns(),
            self._machine.clock.now(),
            self._machine.resets,
            used,
            self.counters.devices(),
            ports,
            {f"IRQ{irq}": count for irq, count in enumerate(self._interrupts) if count},
        )

    def _watch(self, viewer: _Viewer, port: int | None) -> None:
        if viewer.watched != port:
            if viewer.watched is not None:
                self.counters.unwatch(viewer.watched)
            if port is not None:
                self.counters.watch(port)
            viewer.watched = port

    def _watch_wires(self) -> None:
        if not self._watches_wires:
            self._watches_wires = True
            for irq in PIC_INPUTS:
                self._machine.chips.pic.input(irq).watch(self._counter(irq))

    def _counter(self, irq: int) -> Callable[[int], None]:
        counts = self._interrupts

        def changed(level: int) -> None:
            counts[irq] += level

        return changed

    # --- the end --------------------------------------------------------------------------------------

    def close(self, why: str = "") -> None:
        """Tell the viewers the last sums and why the machine stopped, as far as they take it; remove the socket."""
        if self._poll.closed:
            return
        for viewer in self._viewers.values():
            self._say_goodbye(viewer, why)
            viewer.connection.close()
        self._viewers.clear()
        self._machine.visitors.remove(self)
        self.counters.detach()
        self._listener.close()
        self._poll.close()
        if file_identity(str(self.path)) == self._identity:
            self.path.unlink()

    def _say_goodbye(self, viewer: _Viewer, why: str) -> None:
        if viewer.counting:
            viewer.unsent += encode(self._snapshot())
        viewer.unsent += encode(Ended(why))
        try:
            viewer.send()
        except OSError:
            return  # gone before the machine was
