"""One measurement as text, for scripts and for terminals that cannot show a screen."""

from __future__ import annotations

import time

import click
from rich.console import Console
from rich.table import Table

from portvisor.live.client import Connection
from portvisor.live.columns import DEVICES, PORTS, TREND, WIDE, Column, cells, fitted
from portvisor.live.errors import LiveError
from portvisor.live.head import traffic
from portvisor.live.protocol import Ended, Snapshot
from portvisor.live.rates import Line, Rates

PATIENCE = 10.0
"""Seconds that a machine may take to answer."""
WIDTH = 140
"""More than the columns take."""


def print_once(connection: Connection, seconds: float, rows: int) -> None:
    """Measure for so many seconds and print devices and the busiest ports.

    Raises:
        LiveError: the machine does not answer, or ended.
    """
    rates = Rates()
    rates.feed(_ask(connection))
    time.sleep(seconds)
    view = rates.feed(_ask(connection))
    hello = connection.hello
    click.echo(f"{hello.machine} on {hello.engine}, pid {hello.pid}: {hello.command}")
    click.echo(traffic(view).plain)
    console = Console(width=WIDTH)
    for columns, lines in ((DEVICES, view.devices), (PORTS, view.ports)):
        busy = sorted((line for line in lines if line.rate), key=lambda line: -line.rate)
        click.echo()
        shown = [column for column in fitted(columns, WIDE) if column.name != TREND]
        console.print(_table(shown, busy[:rows]))


def _ask(connection: Connection) -> Snapshot:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        connection.request()
        message = connection.receive(1.0)
        if isinstance(message, Snapshot):
            return message
        if isinstance(message, Ended):
            raise LiveError(f"{connection.path}: the machine ended: {message.why}")
    raise LiveError(f"{connection.path}: does not answer")


def _table(columns: list[Column], lines: list[Line]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.name, width=column.width, justify="right" if column.right else "left", no_wrap=True)
    for line in lines:
        table.add_row(*cells(tuple(columns), line))
    return table
