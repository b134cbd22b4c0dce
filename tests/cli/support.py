"""The command line as a user runs it: a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).parent.parent.parent / "src"
MAIN = "from portvisor.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class CliResult:
    status: int
    output: str
    errors: str


def run_cli(*arguments: str, timeout: float = 120.0, environment: dict[str, str] | None = None) -> CliResult:
    """Run `portvisor ARGUMENTS` with nothing on standard input."""
    done = subprocess.run(
        [sys.executable, "-c", MAIN, *arguments],
        stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **(environment or {})},
    )  # fmt: skip
    return CliResult(done.returncode, done.stdout.decode(), done.stderr.decode())
