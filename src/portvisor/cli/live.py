"""`--live` of every command that runs a guest: let `portvisor top` look on."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from portvisor.machines.machine import warn
from portvisor.machines.pc_like import PcLike

DEFAULT_SOCKET = ""
"""The value of --live without a path of its own."""


def live_options(function: Any) -> Any:
    """Decorator: the option `live`; None, DEFAULT_SOCKET or a path."""
    function = click.option("--live-socket", "live", metavar="PATH", help="Likewise, on a socket of this name.")(
        function
    )
    return click.option("--live", "live", flag_value=DEFAULT_SOCKET, help="Let `portvisor top` look on.")(function)


@contextmanager
def watchable(machine: PcLike, live: str | None) -> Iterator[None]:
    """Offer a machine's traffic to `portvisor top` while it runs, if asked for.

    Raises:
        LiveError: the socket cannot be made.
    """
    if live is None:
        yield
        return
    from portvisor.live.places import default_path
    from portvisor.live.server import LiveServer

    path = Path(live) if live != DEFAULT_SOCKET else default_path()
    server = LiveServer(machine, path, shlex.join(["portvisor", *sys.argv[1:]]))
    warn(f"to look on, type in another terminal: portvisor top {path}" if live else "to look on: portvisor top")
    try:
        yield
    finally:
        server.close(str(machine.outcome or "the command ended"))
