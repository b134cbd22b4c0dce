"""What the host may do to a board while it runs (keys, serial bytes, discs, buttons), as records of a trace."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from portvisor.devices.ide.atapi_cd import AtapiCd
from portvisor.devices.ide.drive import Drive
from portvisor.devices.pci.function import BarMemory
from portvisor.machines.machine import Machine
from portvisor.machines.pc import Pc
from portvisor.machines.pc_like import PcLike
from portvisor.machines.poweredge import PowerEdge
from portvisor.machines.q35 import Q35
from portvisor.ports import BlockBackend, CharBackend
from portvisor.ports.memory import MmioWindow

UART_CALLS = ("receive", "receive_break", "receive_bad", "set_modem_inputs")
KEYBOARD_CALLS = ("press", "release", "tap", "type_text")
MOUSE_CALLS = ("move", "press", "release")
PORT61_CALLS = ("system_error", "io_check")
PM_CALLS = ("press_power_button", "rtc_alarm", "raise_gpe")
CD_CALLS = ("insert", "eject")
FLOPPY = "floppy"

HostCall = tuple[str, str, object]
"""Device, method, object."""
ImageMaker = Callable[[int, bool], BlockBackend]
"""An image of so many sectors, read-only or not."""


def host_calls(machine: PcLike) -> list[HostCall]:
    """What the host may call on devices."""
    calls: list[HostCall] = [("keyboard", call, machine.keyboard) for call in KEYBOARD_CALLS]
    calls += [("mouse", call, machine.mouse) for call in MOUSE_CALLS]
    calls += [("port61", call, machine.chips.port61) for call in PORT61_CALLS]
    calls += [(uart.name, call, uart) for uart in machine.chips.uarts for call in UART_CALLS]
    if isinstance(machine, PowerEdge | Q35):
        calls += [("pm", call, machine.pm) for call in PM_CALLS]
    if isinstance(machine, PowerEdge):
        calls.append(("bmc", "log", machine.bmc))
    if isinstance(machine, Pc):
        calls.append((FLOPPY, "insert", machine.floppy))
    for name, drive in _drives(machine):
        if isinstance(drive, AtapiCd):
            calls += [(name, call, drive.cd) for call in CD_CALLS]
    return calls


def images(machine: Machine) -> Iterator[tuple[str, BlockBackend]]:
    """The images in the drives of a board, by the drive's place."""
    for name, drive in _drives(machine):
        if (image := image_of(drive)) is not None:
            yield name, image
    if isinstance(machine, Pc):
        for floppy in machine.floppy.drives:
            if floppy is not None and floppy.image is not None:
                yield FLOPPY, floppy.image


def _drives(machine: Machine) -> Iterator[tuple[str, Drive]]:
    """IDE, AHCI and CD drives by their place."""
    places: list[tuple[str, Sequence[Drive | None]]] = []
    if isinstance(machine, Pc):
        places += [(f"ide{number}.", channel.drives) for number, channel in enumerate(machine.ide)]
    elif isinstance(machine, PowerEdge):
        places += [("sata", machine.sata.drives), ("ssata", machine.ssata.drives)]
    elif isinstance(machine, Q35):
        places.append(("sata", machine.sata.drives))
    for prefix, group in places:
        for number, drive in enumerate(group):
            if drive is not None:
                yield f"{prefix}{number}", drive


def image_of(drive: Drive) -> BlockBackend | None:
    """The image that a drive has now."""
    medium: BlockBackend | None = drive.cd.medium if isinstance(drive, AtapiCd) else getattr(drive, "backend", None)
    return medium


def serial_backends(machine: Machine) -> Sequence[CharBackend | None]:
    """What is behind the UARTs, COM1 first."""
    return machine.options.serial if isinstance(machine, Pc | PowerEdge | Q35) else ()


def is_image(value: object) -> bool:
    """Whether an argument of a host's call is an image."""
    return hasattr(value, "sectors") and hasattr(value, "read_only")


def encode_call(arguments: tuple[Any, ...], named: dict[str, Any]) -> bytes:
    """Arguments of a host's call as JSON; bytes as {"hex": ...}, an image as its size."""
    return json.dumps(
        [[_encoded(one) for one in arguments], {key: _encoded(one) for key, one in named.items()}]
    ).encode()


def _encoded(value: Any) -> Any:
    if isinstance(value, bytes | bytearray):
        return {"hex": bytes(value).hex()}
    if is_image(value):
        return {"sectors": value.sectors, "read_only": value.read_only}
    return value


def decode_call(data: bytes | None, make_image: ImageMaker) -> tuple[list[Any], dict[str, Any]]:
    """The arguments back.

    Raises:
        ValueError, TypeError, LookupError: damaged.
    """
    positional, named = json.loads(data or b"[[], {}]")

    def decoded(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        if "hex" in value:
            return bytes.fromhex(value["hex"])
        return make_image(int(value["sectors"]), bool(value["read_only"]))

    return [decoded(one) for one in positional], {key: decoded(one) for key, one in named.items()}


def mmio_names(window: MmioWindow, offset: int, size: int, write: bool) -> tuple[str, str]:
    """Device and register of a memory-mapped access."""
    handler = window.handler
    if isinstance(handler, BarMemory):
        function = handler.function
        return function.name, function.bar_register_name(handler.bar, offset, size, write) or f"+{offset:#x}"
    return window.name, f"+{offset:#x}"
