"""`portvisor export` and `portvisor import`: traces in the formats of other tools."""

from __future__ import annotations

from pathlib import Path

import click

from portvisor.cli.parameters import TRACED_MACHINES as MACHINES

EXPORTS = ("perfetto", "csv")
IMPORTS = ("auto", "kvm", "qemu", "qtest")
IMPORT_HELP = "kvm: kvm_pio lines of trace-cmd or perf script; qemu: a -trace log; qtest: a qtest log."


@click.command("export")
@click.argument("file")
@click.argument("output")
@click.option("--format", "kind", type=click.Choice(EXPORTS), help="Default: perfetto for .json, csv for .csv.")
def export_trace(file: str, output: str, kind: str | None) -> None:
    """Write a trace as JSON for Perfetto (ui.perfetto.dev) or as CSV."""
    from portvisor.trace.export import export_csv, export_perfetto
    from portvisor.trace.reader import Trace

    suffix = Path(output).suffix
    kind = kind or {".json": "perfetto", ".csv": "csv"}.get(suffix)
    if kind is None:
        raise click.UsageError(f"{output}: give --format perfetto or csv")
    count = (export_perfetto if kind == "perfetto" else export_csv)(Trace(file), Path(output))
    click.echo(f"{count:,} records in {output}")


@click.command("import")
@click.argument("file")
@click.argument("output")
@click.option("--format", "kind", type=click.Choice(IMPORTS), default="auto", show_default=True, help=IMPORT_HELP)
@click.option("--machine", type=click.Choice(MACHINES), default=None, help="Name devices and registers after it.")
def import_trace(file: str, output: str, kind: str, machine: str | None) -> None:
    """Turn another system's log of port accesses into a trace, for report, diff and replay."""
    from portvisor.trace.importers import import_log

    count = import_log(Path(file), Path(output), kind, machine or "")
    click.echo(f"{count:,} accesses in {output}")
