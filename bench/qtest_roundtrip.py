"""Round trips of qtest: `inb` one at a time and pipelined by 50, our machine against a stock QEMU.

    python bench/qtest_roundtrip.py [--count N] [--rounds N]

The rounds are short and take turns, so that a busy host hits both; the best round of each counts. Ends with
PASS if one at a time is at least as fast as QEMU, else with FAIL and status 1. Without qemu-system-x86_64 only
ours is measured.
"""

from __future__ import annotations

import argparse
import shutil
import socket
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack

from portvisor.qtest.client import STOPPED_CPU, QtestClient

MACHINE = ("-machine", "pc", "-nodefaults", "-m", "16")
COMMAND = b"inb 0x21\n"
PIPELINE = 50
LIMIT = 1.0
"""Of QEMU's rate, one at a time."""


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


def measure(machines: dict[str, QtestClient], way: str, count: int, rounds: int) -> dict[str, float]:
    """The best rate of each machine."""
    best = dict.fromkeys(machines, 0.0)
    for _ in range(rounds):
        for name, machine in machines.items():
            best[name] = max(best[name], WAYS[way](machine.link, count))
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=500, help="commands a round")
    parser.add_argument("--rounds", type=int, default=250, help="rounds; the best counts")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        machines = {"portvisor": stack.enter_context(QtestClient(MACHINE))}
        qemu = shutil.which("qemu-system-x86_64")
        if qemu:
            machines["QEMU"] = stack.enter_context(QtestClient(MACHINE, program=(qemu,), accelerator=STOPPED_CPU))
        results = {way: measure(machines, way, arguments.count, arguments.rounds) for way in WAYS}
    for way, best in results.items():
        for name, rate in best.items():
            print(f"{way:16}  {name:10} {rate:10,.0f}/s  {rate / best.get('QEMU', rate):.2f}x of QEMU")
    single = results["one at a time"]
    if "QEMU" in single:
        passed = single["portvisor"] >= LIMIT * single["QEMU"]
        print("PASS" if passed else "FAIL")
        sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
