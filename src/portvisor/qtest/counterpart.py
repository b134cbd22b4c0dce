"""Our machine for a port map of QEMU's: the same board, with those of its ISA devices that we have."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from portvisor.machines.legacy import COM_PORTS
from portvisor.ports.ioports import Resource, from_port_space
from portvisor.qtest.devices import Builder
from portvisor.qtest.mtree import Region
from portvisor.qtest.options import parse

BOARD_OF_REGION = {"piix3-reset-control": "pc", "lpc-reset-control": "q35"}
"""The boards by a region that each has alone."""
_COM_BASES = [base for base, _ in COM_PORTS]


def board_name(regions: Iterable[Region]) -> str | None:
    """`pc` or `q35`; None if the map is neither's."""
    return next((BOARD_OF_REGION[region.name] for region in regions if region.name in BOARD_OF_REGION), None)


def _serial(region: Region) -> str:
    index = _COM_BASES.index(region.start) if region.start in _COM_BASES else 0
    return f"isa-serial,index={index},iobase={region.start:#x}"


_DEVICES: dict[str, Callable[[Region], str]] = {
    "vbe": lambda region: "isa-vga",
    "serial": _serial,
    "isa-debug-exit": lambda region: (
        f"isa-debug-exit,iobase={region.start:#x},iosize={region.end + 1 - region.start}"
    ),
    "isa-debugcon": lambda region: f"isa-debugcon,iobase={region.start:#x}",
    "pvpanic": lambda region: f"pvpanic,ioport={region.start:#x}",
    "ib700": lambda region: "ib700",
    "ipmi-kcs": lambda region: f"isa-ipmi-kcs,bmc=bmc0,ioport={region.start:#x}",
}
"""What to give to -device for a region."""


def arguments(board: str, regions: Iterable[Region]) -> list[str]:
    """The command line of `portvisor-system-x86_64` for the board and the devices of the map."""
    words = ["-machine", board, "-nodefaults"]
    for region in regions:
        if region.name == "ipmi-kcs":
            words += ["-device", "ipmi-bmc-sim,id=bmc0"]
        if region.name in _DEVICES:
            words += ["-device", _DEVICES[region.name](region)]
    return words


def port_map(command_line: list[str]) -> Resource:
    """The port map of the machine that a command line describes.

    Raises:
        OptionError: it cannot be had.
    """
    builder = Builder(parse(command_line), lambda events: None)
    try:
        return from_port_space(builder.build().machine.ports)
    finally:
        builder.close()
