"""`portvisor qtest`: a machine driven port by port over QEMU's qtest protocol."""

from __future__ import annotations

import sys

import click


@click.command(context_settings={"ignore_unknown_options": True, "help_option_names": ["--help"]})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def qtest(arguments: tuple[str, ...]) -> None:
    """Serve the qtest protocol and QMP on sockets that the client listens on.

    ARGUMENTS are those of QEMU, as a qtest client gives them:
    -machine pc|q35|none -qtest unix:SOCKET -qmp unix:SOCKET -m 64M -device ... The program
    portvisor-system-x86_64 is the same under a name that such clients accept.
    """
    from portvisor.qtest.entry import run

    sys.exit(run(arguments))
