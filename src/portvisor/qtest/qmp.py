"""The machine protocol (QMP) next to qtest, without I/O: JSON of a client in, replies and events out.

Source: the QMP specification. A session starts in negotiation mode: only `qmp_capabilities` is taken.
Objects need no line ends between them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from portvisor.qtest.target import PIC_PATHS, PIC_TYPE

OBJECT_LIMIT = 1 << 20
"""Longest object of a client in bytes."""
DEPTH_LIMIT = 64
UNATTACHED = "/machine/unattached"
VERSION = {"major": 7, "minor": 2, "micro": 0}
"""Version of QEMU whose commands these are."""
MACHINES = (("none", 1, False), ("pc", 1, True), ("q35", 1, False))
"""Name, most CPUs, whether it is the default."""

Event = dict[str, Any]


class QmpError(Exception):
    """A command that failed: error class and description."""

    def __init__(self, description: str, kind: str = "GenericError") -> None:
        super().__init__(description)
        self.kind = kind


class Controls(Protocol):
    """What the commands act on: the server's run state."""

    @property
    def status(self) -> str:
        """ "prelaunch", "running", "paused", "shutdown" ..."""
        ...

    @property
    def vm_name(self) -> str:
        """The name given with -name, or nothing."""
        ...

    @property
    def uuid(self) -> str:
        """The machine's UUID."""
        ...

    @property
    def has_pic(self) -> bool:
        """Whether the machine has interrupt controllers."""
        ...

    def reset(self, reason: str, guest: bool) -> None:
        """Reset the machine once the command is answered."""
        ...

    def powerdown(self) -> None:
        """Press the power button."""
        ...

    def change_medium(self, name: str, path: str | None, *, read_only: bool) -> None:
        """Put a medium into a drive, or take it out.

        Raises:
            LookupError: there is no such drive that can do that.
            ValueError: the medium cannot be used.
        """
        ...

    def stop(self) -> None:
        """Pause."""
        ...

    def resume(self) -> None:
        """Go on."""
        ...

    def quit(self, reason: str) -> None:
        """End the server once the command is answered."""
        ...


Handler = Callable[[Mapping[str, Any]], Any]


def event(name: str, data: Mapping[str, Any] | None = None) -> Event:
    """An event with the host's time."""
    seconds, rest = divmod(time.time_ns(), 1_000_000_000)
    stamp = {"seconds": seconds, "microseconds": rest // 1000}
    return {"timestamp": stamp, "event": name, **({"data": dict(data)} if data else {})}


def encode(message: Mapping[str, Any]) -> bytes:
    """One message as a line."""
    return json.dumps(message).encode("ascii") + b"\r\n"


class ObjectSplitter:
    """Cuts a byte stream into JSON objects; what is no object comes out as one piece of rubbish."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._depth = 0
        self._quoted = self._escaped = False

    def feed(self, data: bytes) -> list[bytes]:
        """The pieces that are complete."""
        pieces: list[bytes] = []
        for byte in data:
            self._take(byte, pieces)
        return pieces

    def _take(self, byte: int, pieces: list[bytes]) -> None:
        char = chr(byte)
        if self._depth == 0 and not self._quoted and char in " \t\r\n":
            self._end(pieces)
            return
        self._buffer.append(byte)
        if self._quoted:
            self._quoted = self._escaped or char != '"'
            self._escaped = not self._escaped and char == "\\"
        elif char == '"':
            self._quoted = True
        elif char in "{[":
            self._depth += 1
        elif char in "}]":
            self._depth -= 1
            if self._depth <= 0:
                self._end(pieces)
        if self._depth > DEPTH_LIMIT or len(self._buffer) > OBJECT_LIMIT:
            self._buffer = bytearray(b"?")
            self._end(pieces)

    def _end(self, pieces: list[bytes]) -> None:
        if self._buffer:
            pieces.append(bytes(self._buffer))
            self._buffer.clear()
        self._depth = 0
        self._quoted = self._escaped = False


class Qmp:
    """The server's side of one connection."""

    def __init__(self, controls: Controls) -> None:
        self._controls = controls
        self._splitter = ObjectSplitter()
        self.negotiated = False
        """Events are sent only after that."""
        self._commands: dict[str, Handler] = {
            "qmp_capabilities": self._capabilities,
            "query-status": self._query_status,
            "query-machines": self._query_machines,
            "query-version": lambda _: {"qemu": VERSION, "package": "portvisor"},
            "query-commands": lambda _: [{"name": name} for name in self._commands],
            "query-name": lambda _: {"name": controls.vm_name} if controls.vm_name else {},
            "query-uuid": lambda _: {"UUID": controls.uuid},
            "qom-list": self._qom_list,
            "system_reset": self._system_reset,
            "system_powerdown": lambda _: self._act(controls.powerdown),
            "blockdev-change-medium": self._change_medium,
            "eject": self._eject,
            "stop": lambda _: self._act(controls.stop),
            "cont": lambda _: self._act(controls.resume),
            "quit": lambda _: self._act(lambda: controls.quit("host-qmp-quit")),
        }
        self._parameters: dict[str, tuple[str, ...]] = {
            "qmp_capabilities": ("enable",),
            "qom-list": ("path",),
            "blockdev-change-medium": ("device", "id", "filename", "format", "read-only-mode", "force"),
            "eject": ("device", "id", "force"),
        }

    @staticmethod
    def greeting() -> bytes:
        """What the server sends first."""
        version = {"qemu": VERSION, "package": "portvisor"}
        return encode({"QMP": {"version": version, "capabilities": []}})

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Carry out what has come; what has to be sent, a reply at a time."""
        for piece in self._splitter.feed(data):
            yield encode(self._answer(piece))

    def _answer(self, piece: bytes) -> dict[str, Any]:
        identity: dict[str, Any] = {}
        try:
            request = self._parse(piece)
            if "id" in request:
                identity = {"id": request["id"]}
            return {"return": self._execute(request), **identity}
        except QmpError as error:
            return {"error": {"class": error.kind, "desc": str(error)}, **identity}

    @staticmethod
    def _parse(piece: bytes) -> dict[str, Any]:
        try:
            request = json.loads(piece)
        except (ValueError, RecursionError):
            raise QmpError("Invalid JSON syntax") from None
        if not isinstance(request, dict):
            raise QmpError("QMP input must be a JSON object")
        return request

    def _execute(self, request: dict[str, Any]) -> Any:
        for key in request:
            if key not in ("execute", "arguments", "id"):
                raise QmpError(f"QMP input member '{key}' is unexpected")
        if "execute" not in request:
            raise QmpError("QMP input lacks member 'execute'")
        name, arguments = request["execute"], request.get("arguments", {})
        if not isinstance(name, str):
            raise QmpError("QMP input member 'execute' must be a string")
        if not isinstance(arguments, dict):
            raise QmpError("QMP input member 'arguments' must be an object")
        if name not in self._commands:
            raise QmpError(f"The command {name} has not been found", "CommandNotFound")
        if self.negotiated == (name == "qmp_capabilities"):
            hint = "Capabilities negotiation is already complete, command ignored"
            raise QmpError(
                hint if self.negotiated else "Expecting capabilities negotiation with 'qmp_capabilities'",
                "CommandNotFound",
            )
        for key in arguments:
            if key not in self._parameters.get(name, ()):
                raise QmpError(f"Parameter '{key}' is unexpected")
        return self._commands[name](arguments)

    @staticmethod
    def _act(action: Callable[[], None]) -> dict[str, Any]:
        action()
        return {}

    def _capabilities(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        wanted = arguments.get("enable", [])
        if wanted:
            raise QmpError(f"Capability {json.dumps(wanted)} is not available")
        self.negotiated = True
        return {}

    def _query_status(self, _: Mapping[str, Any]) -> dict[str, Any]:
        status = self._controls.status
        return {"status": status, "singlestep": False, "running": status == "running"}

    def _query_machines(self, _: Mapping[str, Any]) -> list[dict[str, Any]]:
        common = {"hotpluggable-cpus": False, "numa-mem-supported": False, "deprecated": False}
        return [
            {"name": name, "cpu-max": cpus, **common, **({"is-default": True} if default else {})}
            for name, cpus, default in MACHINES
        ]

    def _qom_list(self, arguments: Mapping[str, Any]) -> list[dict[str, str]]:
        """Only what a client needs to find the interrupt controllers."""
        path = arguments.get("path")
        if path is None:
            raise QmpError("Parameter 'path' is missing")
        if path != UNATTACHED:
            raise QmpError(f"Device '{path}' not found", "DeviceNotFound")
        paths = PIC_PATHS if self._controls.has_pic else ()
        return [{"name": path.rpartition("/")[2], "type": PIC_TYPE} for path in paths]

    def _change_medium(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        path = arguments.get("filename")
        if not isinstance(path, str):
            raise QmpError("Parameter 'filename' is missing")
        for key, values in (("format", ("raw",)), ("read-only-mode", ("retain", "read-only", "read-write"))):
            if arguments.get(key, values[0]) not in values:
                raise QmpError(f"Parameter '{key}' does not accept value {json.dumps(arguments[key])}")
        return self._insert(arguments, path, arguments.get("read-only-mode") == "read-only")

    def _eject(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        return self._insert(arguments, None, False)

    def _insert(self, arguments: Mapping[str, Any], path: str | None, read_only: bool) -> dict[str, Any]:
        names = [arguments[key] for key in ("device", "id") if key in arguments]
        if len(names) != 1:
            raise QmpError("Need exactly one of 'device' and 'id'")
        try:
            self._controls.change_medium(str(names[0]), path, read_only=read_only)
        except LookupError:
            raise QmpError(f"Device '{names[0]}' not found", "DeviceNotFound") from None
        except ValueError as error:
            raise QmpError(str(error)) from None
        return {}

    def _system_reset(self, _: Mapping[str, Any]) -> dict[str, Any]:
        self._controls.reset("host-qmp-system-reset", False)
        return {}
