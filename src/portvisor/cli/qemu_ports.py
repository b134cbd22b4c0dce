"""`portvisor ioports --qemu`: QEMU's port map and ours side by side."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from portvisor.qtest.counterpart import BOARD_OF_REGION, arguments, board_name, port_map
from portvisor.qtest.entry import PROGRAM
from portvisor.qtest.mtree import load_mtree
from portvisor.qtest.port_map import Stretch, compare


def print_comparison(path: Path, machine: str | None, console: Console) -> bool:
    """Print it; whether both maps are the same.

    Args:
        path: the saved output of `info mtree -f`.
        machine: the board of ours; by default the one that the file is of.
        console: where to print.

    Raises:
        MtreeError: the file is malformed.
        OSError: the file cannot be read.
    """
    regions = load_mtree(path)
    board = machine or board_name(regions)
    if board is None:
        known = ", ".join(BOARD_OF_REGION.values())
        raise click.UsageError(f"{path} is the map of neither of the boards {known}; name one with --machine")
    command_line = arguments(board, regions)
    stretches = compare(regions, port_map(command_line))
    console.print(_table(stretches))
    console.print(_summary(stretches), highlight=False)
    console.print(f"QEMU: {path}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"portvisor: {PROGRAM} {' '.join(command_line)}", markup=False, highlight=False, soft_wrap=True)
    return all(stretch.same for stretch in stretches)


def _table(stretches: Sequence[Stretch]) -> Table:
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("")
    table.add_column("ports", no_wrap=True)
    table.add_column("QEMU", overflow="fold")
    table.add_column("portvisor", no_wrap=True)
    table.add_column("why")
    for stretch in stretches:
        mark, style = _mark(stretch)
        owners = [Text(owner or "-", style="" if owner else "dim") for owner in (stretch.theirs, stretch.ours)]
        why = "" if stretch.same else stretch.reason or "unexplained"
        span = Text(f"{stretch.start:04x}-{stretch.end:04x}")
        table.add_row(Text(mark, style=style), span, *owners, Text(why, style=style))
    return table


def _mark(stretch: Stretch) -> tuple[str, str]:
    if stretch.same:
        return "=", "green"
    style = "yellow" if stretch.reason else "red"
    if not stretch.ours:
        return "-", style
    return ("≠" if stretch.theirs else "+"), style


def _summary(stretches: Sequence[Stretch]) -> str:
    different = [stretch for stretch in stretches if not stretch.same]
    known = sum(stretch.reason is not None for stretch in different)
    same, theirs, ours = (
        sum(stretch.ports for stretch in stretches if keep(stretch))
        for keep in (
            lambda stretch: stretch.same,
            lambda stretch: not stretch.ours,
            lambda stretch: not stretch.theirs,
        )
    )
    return (
        f"{same} ports alike, {theirs} only QEMU's (-), {ours} only ours (+)\n"
        f"{len(different)} differences, {len(different) - known} of them unexplained"
    )
