"""`portvisor ioports`: the port map of a machine, of this host or of a file, and comparisons."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from portvisor.cli.listing import print_diff, print_score
from portvisor.guest.seed import seed_listing
from portvisor.kvm.select import open_soft
from portvisor.machines.catalogue import MACHINES, make_bare
from portvisor.ports.ioports import Resource, diff, from_port_space, load, render

HOST = Path("/proc/ioports")


def _machine_map(name: str) -> Resource:
    system = open_soft()
    try:
        with make_bare(name, system) as machine:
            return from_port_space(machine.ports)
    finally:
        system.close()


@click.command()
@click.argument("file", required=False)
@click.option("--machine", type=click.Choice(MACHINES), help="The map of one of our machines.")
@click.option("--host", is_flag=True, help="This host's /proc/ioports.")
@click.option("--diff", "other", metavar="FILE", help="Compare with a listing; `seed` is the built-in one.")
@click.option("--all", "show_all", is_flag=True, help="With --diff: equal rows too.")
def ioports(file: str | None, machine: str | None, host: bool, other: str | None, show_all: bool) -> None:
    """Print a port map in the format of /proc/ioports.

    The map is that of FILE, of a machine of ours, or of this host. With --diff the exit status is 1 if the
    listings differ.
    """
    if sum((file is not None, machine is not None, host)) != 1:
        raise click.UsageError("give one of FILE, --machine and --host")
    if machine:
        label, tree = machine, _machine_map(machine)
    else:
        path = HOST if host else Path(file or "")
        label, tree = str(path), load(path)
    if other is None:
        click.echo(render(tree), nl=False)
        return
    expected = seed_listing() if other == "seed" else load(Path(other))
    difference = diff(expected, tree)
    console = Console()
    print_diff(console, difference, left=other, right=label, only_different=not show_all)
    print_score(console, difference)
    sys.exit(0 if difference.identical else 1)
