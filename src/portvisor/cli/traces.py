"""`portvisor report`, `replay` and `diff`: what is in a recorded trace."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from portvisor.cli.guest import open_disk
from portvisor.cli.parameters import SIZE_TYPE
from portvisor.cli.parameters import TRACED_MACHINES as MACHINES

if TYPE_CHECKING:
    from portvisor.trace.replay import ReplayResult

GROUPS_SHOWN = 20
PIPE_WIDTH = 140
"""Columns where the output is no terminal."""


def _console() -> Console:
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)


@click.command()
@click.argument("file")
@click.option("--html", metavar="FILE", help="Write one self-contained page instead.")
@click.option("--rows", type=click.IntRange(min=1), default=15, show_default=True, help="Rows of a table at most.")
def report(file: str, html: str | None, rows: int) -> None:
    """Show what is in a trace: devices over time, registers, exits by port with advice, interrupts.

    FILE was recorded with --trace, or imported. A recording that was cut off, or still goes on, can be read too.
    """
    from portvisor.trace.page import write_page
    from portvisor.trace.reader import Trace
    from portvisor.trace.summary import summarise
    from portvisor.trace.terminal import print_report

    summary = summarise(Trace(file))
    if html:
        write_page(summary, Path(html))
        click.echo(f"report in {html}")
    else:
        print_report(_console(), summary, rows)


@click.command()
@click.argument("file")
@click.option("--device", metavar="NAME", help="Compare this device only; everything is fed all the same.")
@click.option("--machine", type=click.Choice(MACHINES), help="The board, for a trace of another system.")
@click.option("--memory", type=SIZE_TYPE, help="RAM of that board, with K, M or G.")
@click.option("--disk", "disks", multiple=True, metavar="IMAGE", help="A disk of that board; writes are dropped.")
@click.option("--pytest", "test", metavar="FILE", help="Write what was done to --device as a test.")
@click.option("--from", "first", type=click.IntRange(min=0), default=0, help="First record of the test.")
@click.option("--to", "last", type=click.IntRange(min=0), help="Last record of the test.")
def replay(
    file: str,
    device: str | None,
    machine: str | None,
    memory: int | None,
    disks: tuple[str, ...],
    test: str | None,
    first: int,
    last: int | None,
) -> None:
    """Feed a trace to the device models, without a CPU, and compare what they answer.

    The first divergence is shown with the events before it; the exit status is 1 if there is one.

    With --pytest, write a test instead: it builds the board, puts the device into the state that it has at the
    first record, does again what was done to it, and asserts each value and interrupt edge. The exit status is 1
    if the test fails with the present device.
    """
    if test:
        _write_test(file, device, machine, test, first, last)
        return
    if first or last is not None:
        raise click.UsageError("--from and --to are for --pytest")
    from portvisor.trace.reader import Trace
    from portvisor.trace.replay import Replay, foreign_board

    trace = Trace(file)
    if trace.metadata.filters:
        click.echo(f"portvisor: recorded with the filter {trace.metadata.filters}: devices missed events", err=True)
    with ExitStack() as stack:
        images = [stack.enter_context(open_disk(spec)) for spec in disks]
        if trace.metadata.source == "portvisor" and (images or memory):
            raise click.UsageError(
                "--memory and --disk are for traces of other systems; this one describes its board"
            )
        result = Replay(foreign_board(trace.metadata, machine, memory, images), device, images).run(trace.records())
    _print_replay(result)
    sys.exit(1 if result.divergences else 0)


def _print_replay(result: ReplayResult) -> None:
    from portvisor.trace.replay import describe_record

    if result.first is not None:
        click.echo("first divergence:")
        for record in result.first.context:
            click.echo(f"    {describe_record(record)}")
        click.echo(f">>> {describe_record(result.first.record)}")
        click.echo(f"    {result.first.what}")
    if result.divergences > 1:
        table = Table(title="Divergences", title_justify="left", box=None, pad_edge=False)
        for name in ("times", "device", "access", "first seen"):
            table.add_column(name, justify="right" if name == "times" else "left")
        for group in result.groups()[:GROUPS_SHOWN]:
            table.add_row(f"{group.times:,}", escape(group.device), escape(group.access), escape(group.what))
        left = len(result.groups()) - GROUPS_SHOWN
        if left > 0:
            table.add_row("", "", f"and {left} more kinds of access", "")
        click.echo()
        _console().print(table)
        click.echo()
    click.echo(f"{result.events:,} events, {result.compared:,} compared, {result.divergences:,} differ")


def _write_test(
    file: str, device: str | None, machine: str | None, test: str, first: int, last: int | None
) -> None:
    from portvisor.trace.pytest_export import Stretch, export_pytest
    from portvisor.trace.reader import Trace

    if device is None:
        raise click.UsageError("--pytest needs --device")
    made = export_pytest(Trace(file), device, Stretch(first, last), Path(test), machine)
    click.echo(f"{test}: {made.events:,} events, {made.checks:,} checks")
    if made.failure is not None:
        click.echo(f"it fails with the present {device}: {made.failure}")
        sys.exit(1)


@click.command()
@click.argument("left")
@click.argument("right")
@click.option(
    "--hunks", type=click.IntRange(min=0), default=5, show_default=True, help="Differences shown a device."
)
def diff(left: str, right: str, hunks: int) -> None:
    """Compare two traces device by device, however often they polled and whatever the time was.

    The exit status is 1 if any device was used otherwise.
    """
    from portvisor.trace.compare import compare, describe_step
    from portvisor.trace.reader import Trace

    found = compare(Trace(left), Trace(right))
    table = Table(box=None, pad_edge=False)
    for name in ("device", "accesses", "", "steps", "", "equal", "differences"):
        table.add_column(name, justify="left" if name == "device" else "right", no_wrap=True)
    for one in found:
        table.add_row(
            escape(one.device), f"{one.left_accesses:,}", f"{one.right_accesses:,}", f"{one.left_steps:,}",
            f"{one.right_steps:,}", f"{one.equal:,}", f"{one.hunk_count:,}" if one.differs else "none",
        )  # fmt: skip
    _console().print(table)
    for one in found:
        for hunk in one.hunks[:hunks]:
            click.echo(f"\n{one.device}, step {hunk.position}:")
            for sign, steps in (("-", hunk.left), ("+", hunk.right)):
                for step in steps[:10]:
                    click.echo(f"  {sign} {describe_step(step)}")
                if len(steps) > 10:
                    click.echo(f"  {sign} and {len(steps) - 10:,} more")
        if one.cut:
            click.echo(f"\n{one.device}: only the beginning was aligned; the rest is in the counts")
    sys.exit(1 if any(one.differs for one in found) else 0)
