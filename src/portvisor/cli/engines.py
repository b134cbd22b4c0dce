"""`portvisor engines`: what can execute guests here, and how fast."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from portvisor.kvm.api import EngineError
from portvisor.kvm.select import measure, measure_kvm, open_soft


@click.command()
def engines() -> None:
    """List the engines, and which one --engine auto takes."""
    kvm = measure_kvm()
    table = Table("engine", "guest instructions/s", "", box=None, header_style="bold")
    table.add_row("kvm", f"{kvm.rate / 1e6:.0f} million" if kvm.rate else "-", kvm.reason)
    try:
        system = open_soft()
        rate = measure(system)
        system.close()
        table.add_row("software", f"{rate / 1e6:.0f} million", "always there")
    except EngineError as error:
        table.add_row("software", "-", str(error))
    console = Console()
    console.print(table)
    console.print(f"auto takes: {'kvm' if kvm.fast else 'software'}")
