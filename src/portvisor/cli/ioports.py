"""`portvisor ioports`: the port map of a machine, of this host or of a file, and comparisons."""

from __future__ import annotations

import sys
from pathlib import Path

import click
from rich.console import Console

from portvisor.cli.listing import print_diff, print_score
from portvisor.cli.qemu_ports import print_comparison
from portvisor.guest.seed import seed_listing
from portvisor.kvm.select import open_soft
from portvisor.machines.catalogue import MACHINES, make_bare
from portvisor.ports.ioports import Resource, diff, from_port_space, load, render
from portvisor.qtest.counterpart import BOARD_OF_REGION, arguments, port_map

HOST = Path("/proc/ioports")
QEMU_BOARDS = tuple(BOARD_OF_REGION.values())


def _machine_map(name: str) -> Resource:
    if name not in MACHINES:
        return port_map(arguments(name, ()))
    system = open_soft()
    try:
        with make_bare(name, system) as machine:
            return from_port_space(machine.ports)
    finally:
        system.close()


@click.command()
@click.argument("file", required=False)
@click.option("--machine", type=click.Choice(dict.fromkeys((*MACHINES, *QEMU_BOARDS))),
              help="The map of one of our machines.")  # fmt: skip
@click.option("--host", is_flag=True, help="This host's /proc/ioports.")
@click.option("--diff", "other", metavar="FILE", help="Compare with a listing; `seed` is the built-in one.")
@click.option("--qemu", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE",
              help="Compare with what `info mtree -f` has printed in QEMU's monitor.")  # fmt: skip
@click.option("--all", "show_all", is_flag=True, help="With --diff: equal rows too.")
def ioports(
    file: str | None, machine: str | None, host: bool, other: str | None, qemu: Path | None, show_all: bool
) -> None:
    """Print a port map in the format of /proc/ioports.

    The map is that of FILE, of a machine of ours, or of this host. With --diff the exit status is 1 if the
    listings differ. With --qemu the map of QEMU's board `pc` or `q35` is compared with ours, port by port;
    status 1 if they differ.
    """
    if qemu is not None:
        if file is not None or host or other is not None:
            raise click.UsageError("--qemu takes a machine of ours, not a listing")
        sys.exit(0 if print_comparison(qemu, machine, Console()) else 1)
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
