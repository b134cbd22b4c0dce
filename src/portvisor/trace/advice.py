"""What an access costs and what could be done about it, worked out from the trace itself."""

from __future__ import annotations

from dataclasses import dataclass

from portvisor.trace.summary import NOBODY, PortUse, Summary

MANY = 200
"""Accesses from which a port is worth a line."""
LARGE_SHARE = 0.1
"""Part of all accesses from which a port is worth it whatever it is used for."""
POLL_RATIO = 8
"""Reads a write from which a port counts as polled."""
RARE = 100
"""Writes a read from which a port counts as nearly write-only."""
SINKS = ("debugcon", "port-e9")
SINK_REGISTERS = ("POST code", "DEBUG")
"""What takes bytes and answers nothing: writes to it may come late. Elsewhere a write changes what comes next."""
UART_DATA, UART_FIFO, UART_STATUS = "THR", "FCR", "LSR"


@dataclass(frozen=True, slots=True)
class BudgetLine:
    """One port's part of the exits."""

    use: PortUse
    share: float
    advice: str


def budget(summary: Summary) -> list[BudgetLine]:
    """Ports by exits, most first, with advice where the trace gives reason for one."""
    total = summary.accesses or 1
    ordered = sorted(summary.ports.values(), key=lambda use: (-use.accesses, use.port))
    return [BudgetLine(use, use.accesses / total, _advice(summary, use, use.accesses / total)) for use in ordered]


def _advice(summary: Summary, use: PortUse, share: float) -> str:
    if use.accesses < MANY:
        return ""
    if use.coalesced * 2 > use.accesses:
        return "coalesced: good as it is"
    single = use.accesses - use.blocks
    if use.device == NOBODY:
        return "nobody answers: the guest probes or waits in vain"
    if UART_DATA in use.registers:
        return _uart_advice(summary, use)
    if use.reads * RARE < use.writes:
        what = "write-only" if use.reads == 0 else "nearly write-only"
        if single <= use.blocks:
            return "blocks: good as it is"
        late = use.device in SINKS or any(name in SINK_REGISTERS for name in use.registers)
        return f"{what}, {use.writes:,} exits: {'coalesce' if late else 'serve in the engine'}"
    if use.writes == 0 and use.blocks == 0:
        return "read-only and polled: serve in the engine"
    if use.reads > POLL_RATIO * use.writes and use.blocks == 0:
        return "polled: serve reads in the engine"
    if use.blocks > single:
        return f"blocks of {use.elements // max(1, use.accesses)} elements: good as it is"
    return "serve in the engine" if share > LARGE_SHARE else ""


def _uart_advice(summary: Summary, use: PortUse) -> str:
    if not _fifo_used(summary, use.device):
        return "FIFO unused: one exit a character"
    polls = summary.registers[use.device, UART_STATUS, "in"]
    if polls >= use.registers[UART_DATA]:
        return "FIFO enabled, but the status is read for each character: fill it with REP OUTS"
    return ""


def _fifo_used(summary: Summary, device: str) -> bool:
    return any(name == device and register == UART_FIFO for name, register, _ in summary.registers)
