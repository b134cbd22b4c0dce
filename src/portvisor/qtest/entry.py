"""`portvisor-system-x86_64`: started as a client of QEMU's qtest starts QEMU."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.metadata import version

from portvisor.qtest.options import OptionError, parse
from portvisor.qtest.server import serve

PROGRAM = "portvisor-system-x86_64"


def run(arguments: Sequence[str]) -> int:
    """Serve a client; the exit status. Nothing goes to standard output, which belongs to the client."""
    from portvisor.cli.errors import describe

    try:
        return serve(parse(arguments))
    except OptionError as error:
        line: str | None = str(error)
    except Exception as error:
        line = describe(error)
        if line is None:
            raise
    print(f"{PROGRAM}: {line}", file=sys.stderr)
    return 1


def main() -> None:
    """Entry point."""
    arguments = sys.argv[1:]
    if arguments in (["--version"], ["-version"]):
        print(f"{PROGRAM} {version('portvisor')}")
        sys.exit(0)
    sys.exit(run(arguments))
