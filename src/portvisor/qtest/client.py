"""A client of qtest: drives the ports of a machine, ours or QEMU's, from Python.

    with QtestClient(["-machine", "pc", "-nodefaults"]) as machine:
        machine.outb(0x21, 0xFB)
        assert machine.inb(0x21) == 0xFB

The machine is a child process; both ends are connected by Unix sockets in a private directory.
"""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import portvisor
from portvisor.qtest.sockets import set_timeout

_ROOT = str(Path(portvisor.__file__).parents[1])
OURS = (
    sys.executable,
    "-c",
    f"import sys; sys.path.insert(0, {_ROOT!r}); from portvisor.qtest.entry import main; main()",
)
"""Our own machines, by this interpreter."""
QTEST_ACCELERATOR = ("-accel", "qtest")
STOPPED_CPU = ("-accel", "tcg", "-S")
"""For a QEMU without the qtest accelerator: everything but clock_step works."""
START_TIMEOUT = 50.0
END_TIMEOUT = 10.0
MEMORY_PIECE = 1 << 16
"""Bytes that one `read` or `write` command carries."""
PIPELINE = 500
"""Commands that are sent ahead of their replies; the replies fit the socket's buffer."""


class QtestFailureError(RuntimeError):
    """The machine answered a command with an error, sent nonsense, or is gone."""


class QmpFailureError(RuntimeError):
    """A QMP command failed; `kind` is its error class."""

    def __init__(self, kind: str, description: str) -> None:
        super().__init__(f"{kind}: {description}")
        self.kind = kind


class Answer(NamedTuple):
    """What a command has brought."""

    reply: str
    """What follows OK."""
    edges: tuple[tuple[int, int], ...]
    """Changes of intercepted interrupts before it: (number, level)."""


class QtestClient:
    """A machine in a child process.

    Args:
        arguments: machine and devices, in QEMU's notation.
        program: the binary and leading arguments; by default our own.
        accelerator: how its CPU is kept off; `STOPPED_CPU` for a stock QEMU.
        environment: of the child; by default ours.
        timeout: seconds that a reply may take.

    Attributes:
        irq: level of every intercepted interrupt that has changed, by number.
        edges: every change since the last `take_edges`, as (number, level).
        link: the qtest socket, for whoever brings its own commands.
        events: QMP events that no `wait_event` has taken.
    """

    def __init__(
        self,
        arguments: Sequence[str] = (),
        *,
        program: Sequence[str] = OURS,
        accelerator: Sequence[str] = QTEST_ACCELERATOR,
        environment: Mapping[str, str] | None = None,
        timeout: float = 30.0,
    ) -> None:
        self.arguments = tuple(arguments)
        self.program = tuple(program)
        self._accelerator = tuple(accelerator)
        self._environment = environment
        self._timeout = timeout
        self._stack = ExitStack()
        self.irq: dict[int, int] = {}
        self.edges: list[tuple[int, int]] = []
        self.events: deque[dict[str, Any]] = deque()
        self._pics: tuple[str, str] | None = None
        self._received = b""

    # --- start and end ----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def _start(self) -> None:
        stack = self._stack
        folder = Path(tempfile.mkdtemp(prefix="qtest-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        listeners = [stack.enter_context(_listen(folder / name)) for name in ("qtest", "qmp")]
        self.process = subprocess.Popen(
            [*self.program, *self._connections(folder), *self.arguments, *self._accelerator],
            stdin=subprocess.DEVNULL,
            env=dict(self._environment) if self._environment is not None else None,
        )
        stack.callback(self._end)
        self.link, monitor = (stack.enter_context(self._accept(listener)) for listener in listeners)
        for direction in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            set_timeout(self.link, direction, self._timeout)
        monitor.settimeout(self._timeout)
        self._monitor = stack.enter_context(monitor.makefile("rwb"))
        if self.ask("endianness") != "little":
            raise QtestFailureError("the machine is not little endian")
        self._monitor.readline()
        self.qmp("qmp_capabilities")

    @staticmethod
    def _connections(folder: Path) -> tuple[str, ...]:
        return (
            *("-qtest", f"unix:{folder / 'qtest'}", "-qtest-log", "/dev/null"),
            *("-chardev", f"socket,path={folder / 'qmp'},id=char0", "-mon", "chardev=char0,mode=control"),
            *("-display", "none"),
        )

    def _accept(self, listener: socket.socket) -> socket.socket:
        """The connection that the child makes; an error as soon as it has ended."""
        listener.settimeout(0.2)
        for _ in range(int(START_TIMEOUT / 0.2)):
            try:
                link = listener.accept()[0]
            except TimeoutError:
                status = self.process.poll()
                if status is not None:
                    raise QtestFailureError(f"{self.program[0]} ended with status {status}") from None
                continue
            return link
        raise QtestFailureError(f"{self.program[0]} did not connect within {START_TIMEOUT:.0f} s")

    def _end(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_TIMEOUT)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()

    def close(self) -> int:
        """End the machine; its exit status, which is 0 if all was in order."""
        self._end()
        self._stack.close()
        return self.process.returncode

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- lines ------------------------------------------------------------------------------------------

    def _line(self) -> str:
        while b"\n" not in self._received:
            try:
                data = self.link.recv(1 << 16)
            except OSError as error:
                raise QtestFailureError(f"no reply: {error}") from None
            if not data:
                raise QtestFailureError("the machine has closed the connection")
            self._received += data
        line, self._received = self._received.split(b"\n", 1)
        return line.decode("ascii", "backslashreplace")

    def _send(self, text: str) -> None:
        try:
            self.link.sendall(text.encode("ascii"))
        except OSError as error:
            raise QtestFailureError(f"the machine is gone: {error}") from None

    def _reply(self, command: str) -> str:
        line = self._line()
        while line.startswith("IRQ "):
            _, change, number = line.split()
            level = int(change == "raise")
            self.irq[int(number)] = level
            self.edges.append((int(number), level))
            line = self._line()
        status, _, rest = line.partition(" ")
        if status != "OK":
            raise QtestFailureError(f"{command[:60]}: {line}")
        return rest

    def ask(self, command: str) -> str:
        """Send one command; what follows OK.

        Raises:
            QtestFailureError: the reply is not OK, or none comes.
        """
        self._send(f"{command}\n")
        return self._reply(command)

    def ask_all(self, commands: Iterable[str]) -> list[str]:
        """Send many commands ahead of their replies; what follows each OK."""
        return [answer.reply for answer in self.exchange(commands)]

    def exchange(self, commands: Iterable[str]) -> list[Answer]:
        """Like `ask_all`, with the interrupt changes that each command has caused."""
        waiting = list(commands)
        answers: list[Answer] = []
        for start in range(0, len(waiting), PIPELINE):
            part = waiting[start : start + PIPELINE]
            self._send("".join([f"{command}\n" for command in part]))
            for command in part:
                before = len(self.edges)
                reply = self._reply(command)
                answers.append(Answer(reply, tuple(self.edges[before:])))
        return answers

    def take_edges(self) -> list[tuple[int, int]]:
        """The changes of intercepted interrupts since the last call."""
        edges, self.edges = self.edges, []
        return edges

    # --- ports ------------------------------------------------------------------------------------------

    def inb(self, port: int) -> int:
        """IN of a byte."""
        return int(self.ask(f"inb {port:#x}"), 16)

    def inw(self, port: int) -> int:
        """IN of a word."""
        return int(self.ask(f"inw {port:#x}"), 16)

    def inl(self, port: int) -> int:
        """IN of a dword."""
        return int(self.ask(f"inl {port:#x}"), 16)

    def outb(self, port: int, value: int) -> None:
        """OUT of a byte."""
        self.ask(f"outb {port:#x} {value:#x}")

    def outw(self, port: int, value: int) -> None:
        """OUT of a word."""
        self.ask(f"outw {port:#x} {value:#x}")

    def outl(self, port: int, value: int) -> None:
        """OUT of a dword."""
        self.ask(f"outl {port:#x} {value:#x}")

    # --- memory -----------------------------------------------------------------------------------------

    def read_register(self, address: int, size: int) -> int:
        """One read of 1, 2, 4 or 8 bytes of guest-physical memory."""
        return int(self.ask(f"read{'bwlq'[size.bit_length() - 1]} {address:#x}"), 16)

    def write_register(self, address: int, size: int, value: int) -> None:
        """One write of 1, 2, 4 or 8 bytes."""
        self.ask(f"write{'bwlq'[size.bit_length() - 1]} {address:#x} {value:#x}")

    def read(self, address: int, length: int) -> bytes:
        """Guest-physical memory."""
        parts = []
        for start in range(0, length, MEMORY_PIECE):
            size = min(MEMORY_PIECE, length - start)
            parts.append(bytes.fromhex(self.ask(f"read {address + start:#x} {size:#x}")[2:]))
        return b"".join(parts)

    def write(self, address: int, data: bytes) -> None:
        """Store bytes in guest-physical memory."""
        for start in range(0, len(data), MEMORY_PIECE):
            piece = data[start : start + MEMORY_PIECE]
            self.ask(f"write {address + start:#x} {len(piece):#x} 0x{piece.hex()}")

    def memset(self, address: int, length: int, value: int) -> None:
        """Fill guest-physical memory."""
        for start in range(0, length, 1 << 20):
            self.ask(f"memset {address + start:#x} {min(1 << 20, length - start):#x} {value:#x}")

    # --- clock and interrupts ---------------------------------------------------------------------------

    def clock_step(self, ns: int | None = None) -> int:
        """Move the virtual clock by `ns`, or to the next deadline; its new time in ns."""
        return int(self.ask("clock_step" if ns is None else f"clock_step {ns}"))

    def clock_set(self, ns: int) -> int:
        """Move the virtual clock to `ns`; its new time in ns."""
        return int(self.ask(f"clock_set {ns}"))

    def intercept_irqs(self, path: str = "ioapic") -> None:
        """From now on keep `irq` and `edges`; on a PC, of the ISA interrupts."""
        self.ask(f"irq_intercept_in {path}")

    def set_irq(self, irq: int, level: int) -> None:
        """Drive an input of the PIC pair (IRQ 0-15), as a device would."""
        self.ask(self.irq_command(irq, level))

    def irq_command(self, irq: int, level: int) -> str:
        """The command that `set_irq` sends: the PICs' paths are each machine's own."""
        if self._pics is None:
            self._pics = self._find_pics()
        return _drive(self._pics[irq >> 3], irq & 7, level)

    def _find_pics(self) -> tuple[str, str]:
        """Paths of master and slave: the master is the one whose IRR follows at port 20."""
        folder = "/machine/unattached"
        paths = [f"{folder}/{part['name']}" for part in self.qmp("qom-list", path=folder) if "8259" in part["type"]]
        if len(paths) != 2:
            raise QtestFailureError("the machine has no pair of 8259s")
        self.outb(0x20, 0x0A)
        before = self.inb(0x20) >> 5 & 1
        self.ask(_drive(paths[0], 5, 1 - before))
        is_master = self.inb(0x20) >> 5 & 1 != before
        self.ask(_drive(paths[0], 5, before))
        return (paths[0], paths[1]) if is_master else (paths[1], paths[0])

    # --- QMP --------------------------------------------------------------------------------------------

    def _message(self) -> dict[str, Any]:
        try:
            line = self._monitor.readline()
        except OSError as error:
            raise QtestFailureError(f"no QMP message: {error}") from None
        if not line:
            raise QtestFailureError("the machine has closed the QMP connection")
        message: dict[str, Any] = json.loads(line)
        return message

    def qmp(self, command: str, **arguments: object) -> Any:
        """Carry out a QMP command; what it returns.

        Raises:
            QmpFailureError: it failed.
        """
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._monitor.write(json.dumps(request).encode("ascii") + b"\n")
        self._monitor.flush()
        while True:
            message = self._message()
            if "error" in message:
                raise QmpFailureError(message["error"]["class"], message["error"]["desc"])
            if "return" in message:
                return message["return"]
            self.events.append(message)

    def wait_event(self, name: str) -> dict[str, Any]:
        """The next QMP event of that name; those before it are dropped."""
        while True:
            message = self.events.popleft() if self.events else self._message()
            if message.get("event") == name:
                return message

    def reset(self) -> None:
        """Reset the machine and wait until it is done."""
        self.qmp("system_reset")
        self.wait_event("RESET")


def _drive(path: str, number: int, level: int) -> str:
    return f"set_irq_in {path} unnamed-gpio-in {number} {level}"


def _listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener
