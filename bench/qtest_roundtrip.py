"""Round trips of qtest: `inb` one at a time and pipelined by 50, our machine against a stock QEMU.

    python bench/qtest_roundtrip.py [--count N] [--rounds N]

Each round measures both machines one after the other, so that a busy host hits both; the best round of each
counts. Without qemu-system-x86_64 only ours is measured.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack

from portvisor.qtest.client import STOPPED_CPU, QtestClient

MACHINE = ("-machine", "pc", "-nodefaults", "-m", "16")
COMMAND = b"inb 0x21\n"
PIPELINE = 50


def one_at_a_time(link: socket.socket, count: int) -> float:
    """Commands per second when each waits for the reply to the one before."""
    send, receive = link.sendall, link.recv
    start = time.perf_counter()
    for _ in range(count):
        send(COMMAND)
        receive(64)
    return count / (time.perf_counter() - start)


def pipelined(link: socket.socket, count: int) -> float:
    """Commands per second when 50 are on their way."""
    batch, rounds = COMMAND * PIPELINE, count // PIPELINE
    start = time.perf_counter()
    for _ in range(rounds):
        link.sendall(batch)
        lines = 0
        while lines < PIPELINE:
            lines += link.recv(1 << 16).count(b"\n")
    return rounds * PIPELINE / (time.perf_counter() - start)


WAYS: dict[str, Callable[[socket.socket, int], float]] = {
    "one at a time": one_at_a_time,
    f"pipelined by {PIPELINE}": pipelined,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=20_000, help="commands a measurement")
    parser.add_argument("--rounds", type=int, default=5, help="measurements; the best counts")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        machines = {"portvisor": stack.enter_context(QtestClient(MACHINE))}
        qemu = shutil.which("qemu-system-x86_64")
        if qemu:
            machines["QEMU"] = stack.enter_context(QtestClient(MACHINE, program=(qemu,), accelerator=STOPPED_CPU))
        for way, measure in WAYS.items():
            best = dict.fromkeys(machines, 0.0)
            for _ in range(arguments.rounds):
                for name, machine in machines.items():
                    best[name] = max(best[name], measure(machine.link, arguments.count))
            for name, rate in best.items():
                print(f"{way:16}  {name:10} {rate:10,.0f}/s  {rate / best.get('QEMU', rate):.2f}x of QEMU")


if __name__ == "__main__":
    main()
