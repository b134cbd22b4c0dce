"""The qtest line protocol without any I/O: bytes of a client in, bytes of replies out.

Source: the protocol as QEMU's tests use it. A command is a line of words; numbers are C literals (0x10, 020,
16). The reply is one line that starts with OK, or with FAIL and the reason.

| command | reply | |
|---|---|---|
| outb, outw, outl PORT VALUE | OK | |
| inb, inw, inl PORT | OK 0x%04x | |
| readb, readw, readl, readq ADDRESS | OK 0x%016x | |
| writeb, writew, writel, writeq ADDRESS VALUE | OK | |
| read ADDRESS SIZE | OK 0xHEX | |
| write ADDRESS SIZE 0xHEX | OK | bytes that are missing are zeros |
| b64read ADDRESS SIZE | OK BASE64 | |
| b64write ADDRESS SIZE BASE64 | OK | the shorter of SIZE and the data counts |
| memset ADDRESS SIZE VALUE | OK | |
| clock_step [NS] | OK NOW | without NS: to the next deadline |
| clock_set NS | OK NOW | the past is ignored |
| irq_intercept_in, irq_intercept_out PATH | OK | from now on `IRQ raise N` and `IRQ lower N` come before a reply |
| set_irq_in PATH NAME NUMBER LEVEL | OK | |
| endianness | OK little | |
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import lru_cache, partial
from typing import Protocol

TRANSFER_LIMIT = 16 << 20
"""Most bytes that one command reads or writes."""
LINE_LIMIT = 2 * TRANSFER_LIMIT + 4096
"""Longest line: a `write` of `TRANSFER_LIMIT` bytes in hexadecimal."""
REPLY_LIMIT = 1 << 18
"""Replies are handed over as soon as they are longer than this."""
ACCESSES = 4096
"""Most port accesses that are remembered by their lines."""
ADDRESS_MAX = (1 << 64) - 1
CLOCK_MAX = (1 << 63) - 1
PORT_MAX = 0xFFFF
NUMBER = re.compile(r"(0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9][0-9]{0,19})", re.ASCII)
SIZES = {"b": 1, "w": 2, "l": 4, "q": 8}


class QtestError(ValueError):
    """A command that cannot be carried out; the text is the reply's reason."""


class Target(Protocol):
    """What the commands reach."""

    def port_read(self, port: int, size: int) -> int:
        """An IN."""
        ...

    def port_write(self, port: int, size: int, value: int) -> None:
        """An OUT."""
        ...

    def memory_read(self, address: int, length: int) -> bytes:
        """Guest-physical memory, memory-mapped registers included."""
        ...

    def memory_write(self, address: int, data: bytes) -> None:
        """The same for writing."""
        ...

    def clock_now(self) -> int:
        """The virtual clock in ns."""
        ...

    def clock_step(self) -> None:
        """Move the clock to the next deadline; without any it stays."""
        ...

    def clock_set(self, target: int) -> None:
        """Move the clock forward to `target` ns; the past is ignored."""
        ...

    def intercept(self, path: str, outputs: bool) -> None:
        """Report the changes of a device's interrupt inputs (or outputs).

        Raises:
            QtestError: nothing has that path, or another device is already intercepted.
        """
        ...

    def set_irq(self, path: str, name: str, number: int, level: int) -> None:
        """Drive an interrupt input.

        Raises:
            QtestError: there is no such input.
        """
        ...


@lru_cache(maxsize=4096)
def parse_number(word: str, most: int, what: str) -> int:
    """A C literal from 0 to `most`.

    Raises:
        QtestError: it is no number, or out of range.
    """
    if not NUMBER.fullmatch(word):
        raise QtestError(f"{what}: {_quoted(word)} is not a number")
    octal = word[0] == "0" and word.isdigit()
    value = int(word, 8 if octal else 0)
    if value > most:
        raise QtestError(f"{what}: {_quoted(word)} is more than {most:#x}")
    return value


def _quoted(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:37] + "...")


def _encode(replies: list[str]) -> bytes:
    text = replies[0] if len(replies) == 1 else "\n".join(replies)
    return f"{text}\n".encode("ascii", "backslashreplace")


Handler = Callable[[list[str]], str]
Access = Callable[[], int | None]
"""A port access: the value of an IN, None of an OUT."""


class Qtest:
    """The server's side of one connection.

    Args:
        target: the machine.
        log: told every line with its direction, "R" (received) or "S" (sent).
    """

    def __init__(self, target: Target, log: Callable[[str, str], None] | None = None) -> None:
        self._target = target
        self._log = log
        self._partial = bytearray()
        self._skipping = False
        self._sent: list[str] = []
        self._ports = self._port_table()
        self._accesses: dict[bytes, Access] = {}
        """Port accesses by the lines that have asked for them."""
        self._commands: dict[str, tuple[Handler, tuple[int, ...]]] = self._command_table()

    def _command_table(self) -> dict[str, tuple[Handler, tuple[int, ...]]]:
        """Handler and possible numbers of arguments, by command."""
        table: dict[str, tuple[Handler, tuple[int, ...]]] = {
            "read": (self._read, (2,)),
            "write": (self._write, (3,)),
            "b64read": (self._b64read, (2,)),
            "b64write": (self._b64write, (3,)),
            "memset": (self._memset, (3,)),
            "clock_step": (self._clock_step, (0, 1)),
            "clock_set": (self._clock_set, (1,)),
            "irq_intercept_in": (lambda words: self._intercept(words, False), (1,)),
            "irq_intercept_out": (lambda words: self._intercept(words, True), (1,)),
            "set_irq_in": (self._set_irq, (4,)),
            "endianness": (lambda words: "OK little", (0,)),
        }
        for command, (parse, counts) in self._ports.items():
            table[command] = (self._port_handler(parse), counts)
        for letter, size in SIZES.items():
            table[f"read{letter}"] = (self._memory_reader(size), (1,))
            table[f"write{letter}"] = (self._memory_writer(size), (2,))
        return table

    # --- lines ------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> Iterable[bytes]:
        """Carry out what has come; what has to be sent, in pieces. Half a line waits for its rest.

        Nothing is carried out before the first piece is asked for, except a single port access, the usual case.
        """
        access = self._accesses.get(data)
        if access is None or self._partial or self._skipping:
            return self._feed_pieces(data)
        value = access()
        reply = b"OK\n" if value is None else b"OK 0x%04x\n" % value
        return (_encode(self._take_sent()) + reply if self._sent else reply,)

    def _feed_pieces(self, data: bytes) -> Iterator[bytes]:
        *lines, rest = data.split(b"\n")
        if len(lines) == 1 and not (rest or self._partial or self._skipping or self._log):
            self._remember(data)
        replies: list[str] = []
        size = 0
        for piece in lines:
            line = self._complete(piece) if self._partial or self._skipping else piece
            answer = self._finish("FAIL line is too long") if line is None else self.execute(line.decode("latin-1"))
            replies += answer
            size += len(answer[-1])
            if size > REPLY_LIMIT:
                yield _encode(replies)
                replies, size = [], 0
        if rest:
            self._keep(rest)
        if replies:
            yield _encode(replies)

    def _remember(self, line: bytes) -> None:
        """Keep what a port access comes to: the same line is likely to come again."""
        words = line.decode("latin-1").split()
        parse, counts = self._ports.get(words[0], (None, ())) if words else (None, ())
        if parse is None or len(words) - 1 not in counts:
            return
        if len(self._accesses) == ACCESSES:
            self._accesses.clear()
        with suppress(QtestError):
            self._accesses[line] = parse(words)

    def _complete(self, line: bytes) -> bytes | None:
        """Join the last piece to those before; None if the line was too long."""
        self._keep(line)
        whole = None if self._skipping else bytes(self._partial)
        self._partial.clear()
        self._skipping = False
        return whole

    def _keep(self, piece: bytes) -> None:
        if self._skipping or len(self._partial) + len(piece) > LINE_LIMIT:
            self._skipping = True
            self._partial.clear()
        else:
            self._partial += piece

    def irq_changed(self, number: int, level: int) -> None:
        """An intercepted interrupt has changed: tell the client before the reply."""
        self._sent.append(f"IRQ {'raise' if level else 'lower'} {number}")

    def execute(self, line: str) -> list[str]:
        """Carry out one line; the lines of the answer, interrupts first."""
        if self._log is not None:
            self._log("R", line)
        try:
            reply = self._run(line.split())
        except QtestError as error:
            reply = f"FAIL {error}"
        if self._sent or self._log is not None:
            return self._finish(reply)
        return [reply]

    def _finish(self, reply: str) -> list[str]:
        lines = [*self._take_sent(), reply]
        if self._log:
            for line in lines:
                self._log("S", line)
        return lines

    def _take_sent(self) -> list[str]:
        lines, self._sent = self._sent, []
        return lines

    def _run(self, words: list[str]) -> str:
        try:
            handler, counts = self._commands[words[0]]
        except IndexError:
            raise QtestError("empty command") from None
        except KeyError:
            raise QtestError(f"Unknown command {_quoted(words[0])}") from None
        if len(words) - 1 not in counts:
            raise QtestError(f"{words[0]}: {len(words) - 1} arguments, takes {' or '.join(map(str, counts))}")
        return handler(words)

    # --- ports and memory -------------------------------------------------------------------------------

    def _port_table(self) -> dict[str, tuple[Callable[[list[str]], Access], tuple[int, ...]]]:
        """What the words of a port command come to, and their possible number, by command."""
        table: dict[str, tuple[Callable[[list[str]], Access], tuple[int, ...]]] = {}
        for letter, size in SIZES.items():
            if size <= 4:
                table[f"in{letter}"] = (self._port_reader(size), (1,))
                table[f"out{letter}"] = (self._port_writer(size), (2,))
        return table

    def _port_reader(self, size: int) -> Callable[[list[str]], Access]:
        read = self._target.port_read
        return lambda words: partial(read, parse_number(words[1], PORT_MAX, "port"), size)

    def _port_writer(self, size: int) -> Callable[[list[str]], Access]:
        write, most = self._target.port_write, (1 << 8 * size) - 1

        def parse(words: list[str]) -> Access:
            port = parse_number(words[1], PORT_MAX, "port")
            return partial(write, port, size, parse_number(words[2], most, "value"))

        return parse

    @staticmethod
    def _port_handler(parse: Callable[[list[str]], Access]) -> Handler:
        def handle(words: list[str]) -> str:
            value = parse(words)()
            return "OK" if value is None else f"OK 0x{value:04x}"

        return handle

    def _memory_reader(self, size: int) -> Handler:
        def read(words: list[str]) -> str:
            address = self._address(words[1], size)
            return f"OK 0x{int.from_bytes(self._target.memory_read(address, size), 'little'):016x}"

        return read

    def _memory_writer(self, size: int) -> Handler:
        most = (1 << 8 * size) - 1

        def write(words: list[str]) -> str:
            address = self._address(words[1], size)
            value = parse_number(words[2], most, "value")
            self._target.memory_write(address, value.to_bytes(size, "little"))
            return "OK"

        return write

    @staticmethod
    def _address(word: str, length: int) -> int:
        address = parse_number(word, ADDRESS_MAX, "address")
        if address + length > ADDRESS_MAX + 1:
            raise QtestError(f"{length} bytes from {address:#x} leave the address space")
        return address

    def _range(self, words: list[str]) -> tuple[int, int]:
        """Address and size of a transfer."""
        size = parse_number(words[2], ADDRESS_MAX, "size")
        if size > TRANSFER_LIMIT:
            raise QtestError(f"size: {size} bytes, at most {TRANSFER_LIMIT} at once")
        return self._address(words[1], size), size

    def _read(self, words: list[str]) -> str:
        address, size = self._range(words)
        return f"OK 0x{self._target.memory_read(address, size).hex()}"

    def _b64read(self, words: list[str]) -> str:
        address, size = self._range(words)
        return f"OK {base64.b64encode(self._target.memory_read(address, size)).decode('ascii')}"

    def _write(self, words: list[str]) -> str:
        address, size = self._range(words)
        try:
            if words[3][:2] not in ("0x", "0X"):
                raise ValueError
            data = bytes.fromhex(words[3][2:])
        except ValueError:
            raise QtestError("data: not 0x and pairs of hexadecimal digits") from None
        self._target.memory_write(address, data[:size].ljust(size, b"\0"))
        return "OK"

    def _b64write(self, words: list[str]) -> str:
        address, size = self._range(words)
        try:
            data = base64.b64decode(words[3], validate=True)
        except (binascii.Error, ValueError):
            raise QtestError("data: not base64") from None
        self._target.memory_write(address, data[:size])
        return "OK"

    def _memset(self, words: list[str]) -> str:
        address, size = self._range(words)
        self._target.memory_write(address, bytes((parse_number(words[3], 0xFF, "value"),)) * size)
        return "OK"

    # --- clock and interrupts ---------------------------------------------------------------------------

    def _clock_step(self, words: list[str]) -> str:
        target = self._target
        if len(words) == 1:
            target.clock_step()
        else:
            step = parse_number(words[1], CLOCK_MAX, "ns")
            if target.clock_now() + step > CLOCK_MAX:
                raise QtestError(f"ns: {step} goes beyond the clock's end")
            target.clock_set(target.clock_now() + step)
        return f"OK {target.clock_now()}"

    def _clock_set(self, words: list[str]) -> str:
        self._target.clock_set(parse_number(words[1], CLOCK_MAX, "ns"))
        return f"OK {self._target.clock_now()}"

    def _intercept(self, words: list[str], outputs: bool) -> str:
        self._target.intercept(words[1], outputs)
        return "OK"

    def _set_irq(self, words: list[str]) -> str:
        number = parse_number(words[3], PORT_MAX, "number")
        self._target.set_irq(words[1], words[2], number, parse_number(words[4], CLOCK_MAX, "level"))
        return "OK"
