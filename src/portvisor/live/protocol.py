"""What a machine and `portvisor top` say to each other: one JSON object a line, over a Unix socket.

    machine                                  viewer
    hello      who I am, protocol version
                                             {"want": "snapshot", "watch": PORT or null}
    detail     the watched port
    snapshot   all sums so far
    end        why the machine stopped; then it closes

The viewer asks as often as it likes and makes rates from two snapshots. A request that comes too soon, or before
the last answer was read, is dropped: an answer is a matter of luck, never of waiting. Both sides take the other for
hostile: lines have a limit, every value is checked, and text loses its control characters.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import astuple, dataclass, field
from typing import Any, NamedTuple

from portvisor.live.errors import LiveError
from portvisor.ports import PORT_COUNT

VERSION = 1
MAX_REQUEST = 1024
"""Bytes of a viewer's line."""
MAX_ANSWER = 1 << 21
"""Bytes of a machine's line."""
MAX_PORTS = 1024
"""Ports in a snapshot: the busiest since counting began. Devices have all."""
MAX_DEVICES = 512
MAX_TEXT = 64
"""Characters of a name."""
MAX_LINE = 256
"""Characters of a command line or of a reason."""
NOBODY = "(nobody)"
"""The device of ports that nobody owns."""
UINT64 = 1 << 64


class ProtocolError(LiveError):
    """The other side broke the rules above."""


class Totals(NamedTuple):
    """Sums since counting began; `ns` is host time in handlers."""

    reads: int = 0
    writes: int = 0
    volume: int = 0
    """Bytes."""
    ns: int = 0

    @property
    def accesses(self) -> int:
        """In both directions."""
        return self.reads + self.writes


class PortRow(NamedTuple):
    """A port, with the registers that an IN and an OUT would reach at the moment."""

    port: int
    device: str
    read_register: str
    write_register: str
    totals: Totals


class Access(NamedTuple):
    """One of a port's last accesses; `register` is known while the port is watched."""

    number: int
    value: int
    size: int
    write: bool
    block: bool
    register: str


class RegisterRow(NamedTuple):
    """How often a register was reached through a watched port."""

    register: str
    write: bool
    accesses: int


@dataclass(frozen=True, slots=True)
class Hello:
    """The machine's introduction."""

    pid: int
    machine: str
    engine: str
    command: str
    started: int
    """Seconds since 1970."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All sums at one moment."""

    host_ns: int
    """The host's monotonic clock."""
    guest_ns: int
    """The machine's clock."""
    resets: int
    ports_used: int
    devices: dict[str, Totals] = field(default_factory=dict)
    ports: list[PortRow] = field(default_factory=list)
    interrupts: dict[str, int] = field(default_factory=dict)
    """Rising edges by wire."""


@dataclass(frozen=True, slots=True)
class Detail:
    """The watched port."""

    port: int
    registers: list[RegisterRow]
    last: list[Access]
    """Oldest first."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The machine stopped, or refuses this viewer."""

    why: str


@dataclass(frozen=True, slots=True)
class Request:
    """What a viewer asks for."""

    watch: int | None = None


Message = Hello | Snapshot | Detail | Ended


class LineReader:
    """Cuts a stream into lines of limited length."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._partial = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The lines that are whole now, without their ends.

        Raises:
            ProtocolError: a line is too long.
        """
        *lines, rest = data.split(b"\n")
        for line in lines:
            whole = bytes(self._partial) + line
            self._partial.clear()
            if len(whole) > self._limit:
                raise ProtocolError(f"a line of more than {self._limit} bytes")
            yield whole
        self._partial += rest
        if len(self._partial) > self._limit:
            raise ProtocolError(f"a line of more than {self._limit} bytes")


# --- writing ----------------------------------------------------------------------------------------------


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def encode(message: Message | Request) -> bytes:
    """A message as a line; names are cut to what the other side takes."""
    match message:
        case Request():
            return _line({"want": "snapshot", "watch": message.watch})
        case Hello():
            return _line({"kind": "hello", "portvisor": VERSION, "who": _cut(astuple(message), MAX_LINE)})
        case Snapshot():
            return _line(_snapshot_values(message))
        case Detail():
            registers, last = _cut(message.registers), _cut(message.last)
            return _line({"kind": "detail", "port": message.port, "registers": registers, "last": last})
        case Ended():
            return _line({"kind": "end", "why": message.why[:MAX_LINE]})


def _cut(value: Any, limit: int = MAX_TEXT) -> Any:
    if isinstance(value, str):
        return value[:limit]
    if isinstance(value, list | tuple):
        return [_cut(one, limit) for one in value]
    return value


def _snapshot_values(snapshot: Snapshot) -> dict[str, Any]:
    devices = sorted(snapshot.devices.items(), key=lambda pair: -pair[1].accesses)[:MAX_DEVICES]
    return {
        "kind": "snapshot",
        "host_ns": snapshot.host_ns,
        "guest_ns": snapshot.guest_ns,
        "resets": snapshot.resets,
        "ports_used": snapshot.ports_used,
        "devices": [(name[:MAX_TEXT], totals) for name, totals in devices],
        "ports": [
            (
                row.port,
                row.device[:MAX_TEXT],
                row.read_register[:MAX_TEXT],
                row.write_register[:MAX_TEXT],
                row.totals,
            )
            for row in snapshot.ports[:MAX_PORTS]
        ],
        "interrupts": snapshot.interrupts,
    }


# --- reading ----------------------------------------------------------------------------------------------


def decode_request(line: bytes) -> Request:
    """A viewer's line.

    Raises:
        ProtocolError: it is no request.
    """
    values = _object(line)
    if values.get("want") != "snapshot":
        raise ProtocolError("a request that is not for a snapshot")
    watch = values.get("watch")
    return Request(None if watch is None else _number(watch, PORT_COUNT))


def decode(line: bytes) -> Message:
    """A machine's line.

    Raises:
        ProtocolError: it is no message, or the machine speaks another version.
    """
    values = _object(line)
    try:
        match values.get("kind"):
            case "hello":
                return _hello(values)
            case "snapshot":
                return _snapshot(values)
            case "detail":
                return _detail(values)
            case "end":
                return Ended(_text(values["why"]))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ProtocolError(f"a damaged message of kind {_text(values['kind'])}") from None
    raise ProtocolError("a message of no known kind")


def _object(line: bytes) -> dict[str, Any]:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise ProtocolError("a line that is no JSON object")
    return values


def _number(value: object, limit: int = UINT64) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < limit:
        raise ProtocolError(f"a number that is none, or none from 0 to {limit - 1}")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ProtocolError("neither true nor false")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ProtocolError("text that is none")
    return "".join(letter if letter.isprintable() else "?" for letter in value[:MAX_LINE])


def _items(value: object, limit: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > limit:
        raise ProtocolError(f"a list that is none, or of more than {limit}")
    return value


def _totals(value: object) -> Totals:
    reads, writes, size, ns = map(_number, _items(value, len(Totals._fields)))
    return Totals(reads, writes, size, ns)


def _hello(values: dict[str, Any]) -> Hello:
    version = _number(values["portvisor"])
    if version != VERSION:
        raise ProtocolError(
            f"the machine speaks version {version} of the protocol, this portvisor version {VERSION}"
        )
    pid, machine, engine, command, started = values["who"]
    return Hello(_number(pid), _text(machine), _text(engine), _text(command), _number(started))


def _snapshot(values: dict[str, Any]) -> Snapshot:
    devices, ports = _items(values["devices"], MAX_DEVICES), _items(values["ports"], MAX_PORTS)
    interrupts = values["interrupts"]
    if len(interrupts) > MAX_TEXT:
        raise ProtocolError("too many wires")
    return Snapshot(
        _number(values["host_ns"]),
        _number(values["guest_ns"]),
        _number(values["resets"]),
        _number(values["ports_used"]),
        {_text(name): _totals(totals) for name, totals in devices},
        [
            PortRow(_number(port, PORT_COUNT), _text(device), _text(reads), _text(writes), _totals(totals))
            for port, device, reads, writes, totals in ports
        ],
        {_text(name): _number(count) for name, count in interrupts.items()},
    )


def _detail(values: dict[str, Any]) -> Detail:
    registers, last = _items(values["registers"], 2 * MAX_PORTS), _items(values["last"], MAX_TEXT)
    return Detail(
        _number(values["port"], PORT_COUNT),
        [RegisterRow(_text(name), _flag(write), _number(count)) for name, write, count in registers],
        [_access(*row) for row in last],
    )


def _access(number: object, value: object, size: object, write: object, block: object, name: object) -> Access:
    return Access(
        _number(number), _number(value, 1 << 32), _number(size, 5), _flag(write), _flag(block), _text(name)
    )
