"""`portvisor explain`: one I/O instruction step by step, down to the device and register it reaches."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import click
from rich.console import Console
from rich.table import Table

from portvisor.cli.parameters import ADDRESS
from portvisor.guest.errors import GuestFileError
from portvisor.kvm.abi import KVM_EXIT_IO_OUT, Regs
from portvisor.kvm.emulate.errors import EmulateError
from portvisor.kvm.emulate.execute import IoRequest
from portvisor.kvm.emulate.explain import Explanation, explain
from portvisor.kvm.emulate.state import MODE_NAMES
from portvisor.kvm.null import NullSystem
from portvisor.machines.catalogue import MACHINES, make_bare
from portvisor.machines.paused import access_key, describe_owner, load
from portvisor.ports import PORT_COUNT


def _registers(pairs: Sequence[str]) -> dict[str, int]:
    registers = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        try:
            registers[name.strip().lower()] = int(text, 16)
        except ValueError:
            equals = ""
        if not equals:
            raise GuestFileError(f"register {pair!r}: write NAME=HEX, such as rdx=3f8")
    return registers


Describe: TypeAlias = Callable[[int, int, bool], str | None]
"""Who takes an access (port, size, write) whole."""


def decode_port(describe: Describe, port: int, size: int, write: bool) -> list[str]:
    """Who takes an access, as the bus splits it: one line a piece."""
    if port >= PORT_COUNT:
        return [f"{port:#06x}: beyond the last port, open bus"]
    owner = describe(port, size, write)
    if owner is not None:
        return [f"{port:#06x}, {size} bytes: {owner}"]
    if size == 1:
        return [f"{port:#06x}: nobody; reads ff, writes are lost"]
    half = size // 2
    return decode_port(describe, port, half, write) + decode_port(describe, port + half, half, write)


def _decode(describe: Describe, requests: Sequence[IoRequest]) -> list[list[str]]:
    return [
        decode_port(describe, request.port, request.size, request.direction == KVM_EXIT_IO_OUT)
        for request in requests
    ]


def _with_registers(regs: Regs, changes: dict[str, int]) -> Regs:
    for name, value in changes.items():
        if name not in Regs.__slots__:
            raise GuestFileError(f"unknown register {name!r}: one of {', '.join(Regs.__slots__)}")
        setattr(regs, name, value)
    return regs


@click.command("explain")
@click.argument("code", required=False)
@click.option("--state", "state_file", metavar="FILE",
              help="A paused machine that run or boot saved with --save-state: its registers, TSS, page tables and "
              "port map. CODE is then executed there; without CODE, the instruction at CS:RIP is.")  # fmt: skip
@click.option("--mode", type=click.Choice(MODE_NAMES), help="CPU mode. Default: long.")
@click.option("--reg", "pairs", multiple=True, metavar="NAME=HEX", help="A register: rdx=3f8. Repeat.")
@click.option("--cpl", type=click.IntRange(0, 3), help="Privilege level. Default: 3 in vm86, else 0.")
@click.option("--iopl", type=click.IntRange(0, 3), default=0, show_default=True, help="I/O privilege level.")
@click.option("--open", "open_ports", type=ADDRESS, multiple=True, metavar="PORT",
              help="A port (hex) that the TSS's I/O bitmap allows. Repeat.")  # fmt: skip
@click.option("--served", "served", type=ADDRESS, multiple=True, metavar="PORT",
              help="A port (hex) that a device in the kernel claims: no exit. Repeat.")  # fmt: skip
@click.option("--machine", type=click.Choice(MACHINES),
              help="The board whose port map is looked up. Default: pc.")  # fmt: skip
@click.option("--kvm-compat", is_flag=True, help="Follow KVM where it differs from the architecture.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain_command(
    code: str | None,
    state_file: str | None,
    mode: str | None,
    pairs: tuple[str, ...],
    cpl: int | None,
    iopl: int,
    open_ports: tuple[int, ...],
    served: tuple[int, ...],
    machine: str | None,
    kvm_compat: bool,
    as_json: bool,
) -> None:
    """Say what one I/O instruction will do: decode, permission, exit, device, effect.

    CODE is assembly ("rep insw") or bytes in hexadecimal ("f3 66 6d").
    """
    if code is None and state_file is None:
        raise GuestFileError("what is to be explained? Give CODE, or a paused machine with --state")
    if machine and state_file:
        raise GuestFileError("--machine and --state: the saved machine has its own port map")
    if state_file and (cpl is not None or iopl or open_ports):
        raise GuestFileError("--cpl, --iopl and --open with --state: the saved registers and TSS decide")
    registers = _registers(pairs)
    paused = load(Path(state_file)) if state_file else None
    try:
        explanation = explain(
            code,
            mode,
            _with_registers(paused.regs, registers) if paused else registers,
            cpl=cpl,
            iopl=iopl,
            open_ports=open_ports,
            memory=paused.memory if paused else None,
            sregs=paused.sregs if paused else None,
            served=dict.fromkeys(served, 0xFFFFFFFF),
            kvm_compat=kvm_compat,
        )
    except EmulateError as error:
        where = f"at rIP {paused.regs.rip:#x}: " if paused and code is None else ""
        raise GuestFileError(f"{where}{error}") from None
    if paused:
        name = paused.machine
        ports = paused.ports
        decoded = _decode(lambda *access: ports.get(access_key(*access)), explanation.exits)
    else:
        name = machine or MACHINES[0]
        with make_bare(name, NullSystem()) as board:
            decoded = _decode(partial(describe_owner, board.ports), explanation.exits)
    if as_json:
        click.echo(json.dumps(_to_dict(explanation, name, decoded), indent=2))
    else:
        _print(explanation, name, decoded)


def _to_dict(explanation: Explanation, machine: str, decoded: list[list[str]]) -> dict[str, Any]:
    return {**explanation.to_dict(), "machine": machine, "ports": decoded}


def _print(explanation: Explanation, machine: str, decoded: list[list[str]]) -> None:
    console = Console(highlight=False)
    title = explanation.instruction or explanation.code.hex(" ")
    console.print(
        f"[bold]{title}[/]  ({explanation.code.hex(' ')}; {explanation.mode} mode, "
        f"CPL {explanation.cpl}, IOPL {explanation.iopl})"
    )
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="cyan", no_wrap=True)
    table.add_column()
    exits = iter(decoded)
    for step in explanation.steps:
        table.add_row(step.kind, step.text)
        if step.kind == "exit":
            for line in next(exits, []):
                table.add_row(f"  {machine}", line)
    for name, change in explanation.registers.items():
        table.add_row("register", f"{name}: {change.before:#x} -> {change.after:#x}")
    console.print(table)
