"""`--trace FILE` and `--trace-filter` of every command that runs a guest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from portvisor.machines.machine import warn
from portvisor.machines.pc_like import PcLike
from portvisor.ports import Clock
from portvisor.trace.errors import TraceError

FILTER_HELP = (
    "Record only what matches all of ports=3f8-3ff,cf8 device=uart* dir=in kind=in,out,irq; can be repeated."
)


def trace_options(function: Any) -> Any:
    """Decorator: the options `trace` and `trace_filter`."""
    function = click.option("--trace-filter", multiple=True, metavar="WORDS", help=FILTER_HELP)(function)
    return click.option("--trace", metavar="FILE", help="Record the port traffic to FILE (Parquet).")(function)


def recording_clock(trace: str | None) -> Clock | None:
    """The clock that a machine needs to be recorded; None for the usual one."""
    if trace is None:
        return None
    from portvisor.trace.clock import RecordingWallClock

    return RecordingWallClock()


@contextmanager
def recorded(machine: PcLike, trace: str | None, words: Sequence[str]) -> Iterator[None]:
    """Record what happens inside, if a file is given.

    Raises:
        TraceError: the filter is wrong or without a file, or the file could not be written.
    """
    if trace is None:
        if words:
            raise TraceError("--trace-filter needs --trace FILE")
        yield
        return
    from portvisor.trace.filters import parse_filter
    from portvisor.trace.recording import Recording

    recording = Recording(machine, trace, parse_filter(words))
    try:
        yield
    finally:
        recording.close()
        warn(f"trace in {recording.path}")
