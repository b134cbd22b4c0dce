"""From `--serial SPEC` to a backend."""

from __future__ import annotations

import sys
from collections.abc import Callable

from portvisor.backends.char import FileChar, HostChar, NullChar, PtyChar, SocketChar, StdioChar
from portvisor.guest.errors import GuestFileError

SPECS = "stdio, none, pty, file:PATH or socket:PATH"


def open_serial(spec: str, on_command: Callable[[str], None]) -> HostChar:
    """Open the host's end of a serial port.

    Raises:
        GuestFileError: the specification is none of those known.
        BackendError: the stream cannot be opened.
    """
    kind, _, path = spec.partition(":")
    if kind == "stdio" and not path:
        return StdioChar(on_command if sys.stdin.isatty() else None)
    if kind == "none" and not path:
        return NullChar()
    if kind == "pty" and not path:
        return PtyChar()
    if kind == "file" and path:
        return FileChar(path)
    if kind == "socket" and path:
        return SocketChar(path)
    raise GuestFileError(f"serial port {spec!r}: possible are {SPECS}")
