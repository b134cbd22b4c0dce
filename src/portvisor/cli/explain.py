"""`portvisor explain`: one I/O instruction step by step, down to the device and register it reaches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from portvisor.cli.parameters import ADDRESS
from portvisor.guest.errors import GuestFileError
from portvisor.kvm.abi import KVM_EXIT_IO_OUT
from portvisor.kvm.emulate.errors import EmulateError
from portvisor.kvm.emulate.execute import IoRequest
from portvisor.kvm.emulate.explain import Explanation, explain
from portvisor.kvm.emulate.state import MODE_NAMES
from portvisor.kvm.null import NullSystem
from portvisor.machines.catalogue import MACHINES, make_bare
from portvisor.ports import PORT_COUNT, PortSpace


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


def decode_port(space: PortSpace, port: int, size: int, write: bool) -> list[str]:
    """Who takes an access, as the bus splits it: one line a piece."""
    if port >= PORT_COUNT:
        return [f"{port:#06x}: beyond the last port, open bus"]
    owner = space.owner(port, size)
    if owner is not None:
        register = owner.device.register_name(owner.offset, size, write)
        place = f"register {register}" if register else f"offset {owner.offset:#x}"
        return [f"{port:#06x}, {size} bytes: {owner.device.name} ({owner.range}), {place}"]
    if size == 1:
        return [f"{port:#06x}: nobody; reads ff, writes are lost"]
    half = size // 2
    return decode_port(space, port, half, write) + decode_port(space, port + half, half, write)


def _decode(space: PortSpace, request: IoRequest) -> list[str]:
    return decode_port(space, request.port, request.size, request.direction == KVM_EXIT_IO_OUT)


@click.command("explain")
@click.argument("code")
@click.option("--mode", type=click.Choice(MODE_NAMES), help="CPU mode. Default: long.")
@click.option("--reg", "pairs", multiple=True, metavar="NAME=HEX", help="A register: rdx=3f8. Repeat.")
@click.option("--cpl", type=click.IntRange(0, 3), help="Privilege level. Default: 3 in vm86, else 0.")
@click.option("--iopl", type=click.IntRange(0, 3), default=0, show_default=True, help="I/O privilege level.")
@click.option("--open", "open_ports", type=ADDRESS, multiple=True, metavar="PORT",
              help="A port (hex) that the TSS's I/O bitmap allows. Repeat.")  # fmt: skip
@click.option("--served", "served", type=ADDRESS, multiple=True, metavar="PORT",
              help="A port (hex) that a device in the kernel claims: no exit. Repeat.")  # fmt: skip
@click.option("--machine", type=click.Choice(MACHINES), default="pc", show_default=True,
              help="The board whose port map is looked up.")  # fmt: skip
@click.option("--kvm-compat", is_flag=True, help="Follow KVM where it differs from the architecture.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def explain_command(
    code: str,
    mode: str | None,
    pairs: tuple[str, ...],
    cpl: int | None,
    iopl: int,
    open_ports: tuple[int, ...],
    served: tuple[int, ...],
    machine: str,
    kvm_compat: bool,
    as_json: bool,
) -> None:
    """Say what one I/O instruction will do: decode, permission, exit, device, effect.

    CODE is assembly ("rep insw") or bytes in hexadecimal ("f3 66 6d").
    """
    try:
        explanation = explain(
            code,
            mode,
            _registers(pairs),
            cpl=cpl,
            iopl=iopl,
            open_ports=open_ports,
            served=dict.fromkeys(served, 0xFFFFFFFF),
            kvm_compat=kvm_compat,
        )
    except EmulateError as error:
        raise GuestFileError(str(error)) from None
    with make_bare(machine, NullSystem()) as board:
        decoded = [_decode(board.ports, request) for request in explanation.exits]
    if as_json:
        click.echo(json.dumps(_to_dict(explanation, machine, decoded), indent=2))
    else:
        _print(explanation, machine, decoded)


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
