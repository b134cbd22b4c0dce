"""The command line: one group, one module a command, errors as one line."""

from __future__ import annotations

import os
import sys

import click

from portvisor.cli.boot import boot
from portvisor.cli.engines import engines
from portvisor.cli.errors import describe
from portvisor.cli.explain import explain_command
from portvisor.cli.ioports import ioports
from portvisor.cli.qtest import qtest
from portvisor.cli.run import run
from portvisor.cli.top import top
from portvisor.cli.trace_formats import export_trace, import_trace
from portvisor.cli.traces import diff, replay, report


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="portvisor")
def cli() -> None:
    """Run x86 guests on machines whose port-I/O hardware is written in Python."""


TRACE_COMMANDS = (report, replay, diff, export_trace, import_trace)

for command in (boot, run, ioports, engines, explain_command, qtest, top, *TRACE_COMMANDS):
    cli.add_command(command)


def main() -> None:
    """Entry point. Exit status 2 for usage, 1 for a guest or file that fails, else the guest's."""
    try:
        cli(standalone_mode=False)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.exceptions.Exit as leaving:
        sys.exit(leaving.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        line = describe(error)
        if line is None:
            raise
        click.echo(f"portvisor: {line}", err=True)
        sys.exit(1)
