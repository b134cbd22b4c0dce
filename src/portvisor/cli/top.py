"""`portvisor top`: look on while a machine runs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from portvisor.live.errors import LiveError

if TYPE_CHECKING:
    from portvisor.live.client import Connection
    from portvisor.live.protocol import Hello

NO_MACHINE = "no machine to look at; start one with --live, such as: portvisor run disk.img --live"


@click.command()
@click.argument("which", required=False)
@click.option("--every", type=click.FloatRange(min=0.1, max=60), default=1.0, show_default=True, metavar="SECONDS",
              help="Time between two looks.")  # fmt: skip
@click.option("--once", is_flag=True, help="Print one measurement and leave.")
@click.option("--rows", type=click.IntRange(min=1), default=20, show_default=True, help="Ports that --once prints.")
def top(which: str | None, every: float, once: bool, rows: int) -> None:
    """Show the port traffic of a running machine: devices and ports by rate.

    The machine was started with --live, in another terminal. WHICH is its process number or the path of its
    socket; it can be left out if there is only one.
    """
    if not once and not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise click.UsageError("the screen needs a terminal; --once prints one measurement")
    with _connect(which) as connection:
        if once:
            from portvisor.live.once import print_once

            print_once(connection, every, rows)
        else:
            from portvisor.live.screen import TopApp

            TopApp(connection, every).run()


def _connect(which: str | None) -> Connection:
    """The machine that is meant.

    Raises:
        LiveError: there is none.
        UsageError: there are several.
    """
    from portvisor.live.client import Connection, find_machines
    from portvisor.live.places import socket_of

    if which is not None:
        path = socket_of(int(which)) if which.isdecimal() else Path(which)
        if path is None:
            raise LiveError(f"no machine with process number {which} offers a look; start it with --live")
        return Connection(path)
    found, failures = find_machines()
    if len(found) == 1:
        return found[0]
    for failure in failures:
        click.echo(f"portvisor: {failure}", err=True)
    if not found:
        raise LiveError(NO_MACHINE)
    lines = [_describe(one.hello) for one in found]
    for one in found:
        one.close()
    raise click.UsageError("\n".join([f"{len(found)} machines are running; say which, by its number:", *lines]))


def _describe(hello: Hello) -> str:
    age = max(0, int(time.time()) - hello.started)
    return f"{hello.pid:>8}  {hello.machine} on {hello.engine}, {age:,} s: {hello.command}"
