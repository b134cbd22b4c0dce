"""Advice of the exit budget: only what is true of the port."""

from __future__ import annotations

import pytest

from portvisor.trace.advice import budget
from portvisor.trace.schema import Metadata
from portvisor.trace.summary import NOBODY, PortUse, Summary

MANY = 5000


def advice(use: PortUse, *registers: tuple[str, str, str]) -> str:
    """What is said of one port beside a busier one."""
    summary = Summary("t.parquet", Metadata(), finished=True)
    summary.ports[use.port] = use
    summary.devices[use.device] = use.accesses
    summary.devices["other"] = 20 * MANY
    for key in registers:
        summary.registers[key] = MANY
    (line,) = budget(summary)
    return line.advice


def used(port: int, device: str, register: str, reads: int, writes: int) -> PortUse:
    use = PortUse(port, device, reads, writes, reads + writes)
    if register:
        use.registers[register] = reads + writes
    return use


@pytest.mark.parametrize(
    ("port", "device", "register", "expected"),
    [
        (0x402, "debugcon", "DEBUG", "write-only, 5,000 exits: coalesce"),
        (0x80, "dma-pages", "POST code", "write-only, 5,000 exits: coalesce"),
        (0x20, "pic", "PIC1 OCW2/OCW3", "write-only, 5,000 exits: serve in the engine"),
        (0x40, "pit", "Counter 0", "write-only, 5,000 exits: serve in the engine"),
    ],
)
def test_only_writes_that_may_come_late_are_coalesced(port: int, device: str, register: str, expected: str) -> None:
    """An end of interrupt or a timer's count that waits in a queue would change what the guest sees next."""
    assert advice(used(port, device, register, 0, MANY)) == expected


def test_a_polled_port_is_served_in_the_engine() -> None:
    assert advice(used(0x608, "acpi-pm", "PM_TMR", MANY, 0)) == "read-only and polled: serve in the engine"


def test_a_port_without_a_device_is_a_probe() -> None:
    assert advice(used(0x2E, NOBODY, "", MANY, MANY)).startswith("nobody answers")


def test_a_uart_without_its_fifo_is_told_so() -> None:
    assert advice(used(0x3F8, "uart0", "THR", 0, MANY)) == "FIFO unused: one exit a character"
    assert advice(used(0x3F8, "uart0", "THR", 0, MANY), ("uart0", "FCR", "out")) == ""


def test_a_port_that_is_hardly_used_gets_no_advice() -> None:
    assert advice(used(0x402, "debugcon", "DEBUG", 0, 100)) == ""
