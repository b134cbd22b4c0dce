"""Traces for other tools: Perfetto's JSON (Chrome trace events), CSV."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from portvisor.trace.reader import Trace
from portvisor.trace.schema import COLUMNS

NS_PER_US = 1000
Record = dict[str, Any]


def export_csv(trace: Trace, path: Path) -> int:
    """One line a record, the columns of the trace; data and RIP in hexadecimal. The number of records."""

    def write(file: IO[str]) -> int:
        names = [name for name, _, _ in COLUMNS]
        writer = csv.writer(file)
        writer.writerow(names)
        count = 0
        for record in trace.records():
            data = record["data"]
            record["data"] = "" if data is None else data.hex()
            record["rip"] = _address(record["rip"])
            writer.writerow(["" if record[name] is None else record[name] for name in names])
            count += 1
        return count

    return _whole(path, write)


def export_perfetto(trace: Trace, path: Path) -> int:
    """Tracks by device; wires as counters. The number of records."""

    def write(file: IO[str]) -> int:
        tracks: dict[str, int] = {}
        count = 0
        file.write('{"displayTimeUnit":"ns","traceEvents":[')
        for event in _events(trace, tracks):
            file.write((",\n" if count else "\n") + json.dumps(event, separators=(",", ":")))
            count += 1
        names = [("process_name", 0, trace.metadata.machine or trace.metadata.source)]
        names += [("thread_name", number, name) for name, number in tracks.items()]
        for index, (what, number, name) in enumerate(names):
            label = {"name": what, "ph": "M", "pid": 1, "tid": number, "args": {"name": name}}
            file.write((",\n" if count or index else "\n") + json.dumps(label, separators=(",", ":")))
        file.write("\n]}\n")
        return count

    return _whole(path, write)


def _events(trace: Trace, tracks: dict[str, int]) -> Iterator[Record]:
    for record in trace.records():
        device = record["device"] or "(nobody)"
        time = record["time"] / NS_PER_US
        if record["kind"] == "irq":
            yield {"name": device, "ph": "C", "pid": 1, "ts": time, "args": {"level": record["value"]}}
            continue
        track = tracks.setdefault(device, len(tracks) + 1)
        name = f"{record['kind']} {record['register'] or device}"
        arguments = {"value": f"{record['value']:#x}", "seq": record["seq"]}
        if record["port"] is not None:
            arguments |= {"port": f"{record['port']:#06x}", "size": record["size"], "count": record["count"]}
        if record["rip"] is not None:
            arguments["rip"] = _address(record["rip"])
        if record["served"] is not None:
            arguments["served"] = record["served"]
        yield {
            "name": name, "cat": record["kind"], "ph": "X", "pid": 1, "tid": track, "ts": time,
            "dur": record["host_ns"] / NS_PER_US, "args": arguments,
        }  # fmt: skip


def _address(value: int | None) -> str | None:
    """In hexadecimal: a spreadsheet, or JavaScript, would round so large a number."""
    return None if value is None else f"{value:#x}"


def _whole(path: Path, write: Callable[[IO[str]], int]) -> int:
    """Write a file whole or not at all."""
    partial = path.with_name(path.name + ".part")
    try:
        with partial.open("w", encoding="utf-8", newline="") as file:
            count = write(file)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return count
