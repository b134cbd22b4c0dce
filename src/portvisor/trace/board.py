"""The board of a trace: what must be known to build it again without guest, firmware or images."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from typing import Any

from portvisor.kvm.null import NullSystem
from portvisor.machines.machine import Machine
from portvisor.machines.pc import MIB, Pc, PcOptions
from portvisor.machines.pc_like import PcLike
from portvisor.machines.poweredge import PowerEdge, PowerEdgeOptions
from portvisor.machines.poweredge_acpi import Variant
from portvisor.ports import BlockBackend, BufferedChar, CharBackend, Clock
from portvisor.trace.errors import TraceError
from portvisor.trace.schema import Metadata

UART_CALLS = ("receive", "receive_break", "receive_bad", "set_modem_inputs")
KEYBOARD_CALLS = ("press", "release", "tap", "type_text")
MOUSE_CALLS = ("move", "press", "release")
MAX_SECTORS = 1 << 32
ROM_MAX = 1 << 20

HostCall = tuple[str, str, object]


def host_calls(machine: PcLike) -> list[HostCall]:
    """What the host may call on devices while the machine runs: (device, method, object)."""
    calls: list[HostCall] = [("keyboard", call, machine.keyboard) for call in KEYBOARD_CALLS]
    calls += [("mouse", call, machine.mouse) for call in MOUSE_CALLS]
    calls += [(uart.name, call, uart) for uart in machine.chips.uarts for call in UART_CALLS]
    return calls


def images(machine: Machine) -> list[tuple[str, BlockBackend]]:
    """The images behind the drives, by name."""
    found: list[tuple[str, BlockBackend]] = []
    if isinstance(machine, Pc):
        found += [(f"disk{number}", image) for number, image in enumerate(machine.options.disks)]
        if machine.options.cdrom:
            found.append(("cdrom", machine.options.cdrom))
        floppies = enumerate(machine.options.floppies)
        found += [(f"floppy{number}", image) for number, image in floppies if image]
    elif isinstance(machine, PowerEdge):
        found += [(f"sata{number}", image) for number, image in enumerate(machine.options.sata)]
        found += [(f"ssata{number}", image) for number, image in enumerate(machine.options.ssata)]
    return found


def serial_backends(machine: Machine) -> Sequence[CharBackend | None]:
    """What is behind the UARTs, COM1 first."""
    return machine.options.serial if isinstance(machine, Pc | PowerEdge) else ()


def board_options(machine: Machine) -> dict[str, Any]:
    """What `build_board` needs, as JSON values."""
    if isinstance(machine, Pc):
        return {
            **_common(machine),
            "vga_bios": base64.b64encode(zlib.compress(machine.options.vga_bios)).decode(),
            "disks": [_image_options(image) for image in machine.options.disks],
            "cdrom": _image_options(machine.options.cdrom) if machine.options.cdrom else None,
            "floppies": [_image_options(image) if image else None for image in machine.options.floppies],
            "boot": list(machine.options.boot),
        }
    if isinstance(machine, PowerEdge):
        return {
            **_common(machine),
            "variant": machine.options.variant.value,
            "linux": machine.options.linux is not None,
            "sata": [_image_options(image) for image in machine.options.sata],
            "ssata": [_image_options(image) for image in machine.options.ssata],
        }
    return {}


def _common(machine: Pc | PowerEdge) -> dict[str, Any]:
    return {
        "memory": machine.options.memory,
        "base_time": machine.options.base_time,
        "serial": [backend is not None for backend in machine.options.serial],
    }


def _image_options(image: BlockBackend) -> dict[str, Any]:
    return {"sectors": image.sectors, "read_only": image.read_only}


class ReplayImage:
    """An image whose content comes from the trace."""

    def __init__(self, sectors: int, read_only: bool, read: Callable[[int, int], bytes]) -> None:
        self.sectors = sectors
        self.read_only = read_only
        self._read = read

    def read(self, sector: int, count: int) -> bytes:
        return self._read(sector, count)

    def write(self, sector: int, data: bytes) -> None:
        """What the guest writes is not looked at."""

    def flush(self) -> None:
        """Nothing is kept."""


def build_board(metadata: Metadata, clock: Clock, read_image: Callable[[int, int], bytes]) -> PcLike:
    """The machine that a trace is of, on an engine without a CPU.

    Raises:
        TraceError: no such machine, or its description is damaged.
    """
    options = metadata.options
    try:
        if metadata.machine == "pc":
            return _build_pc(options, clock, read_image)
        if metadata.machine == "poweredge":
            return _build_poweredge(options, clock, read_image)
    except (LookupError, TypeError, ValueError, AttributeError, zlib.error) as error:
        raise TraceError(f"the trace's machine cannot be built: {error!r}") from None
    raise TraceError(
        f"the trace is of machine {metadata.machine or '(unknown)'!r}; pc and poweredge can be replayed"
    )


def _images(described: list[dict[str, Any]], read: Callable[[int, int], bytes]) -> list[ReplayImage]:
    return [ReplayImage(min(int(one["sectors"]), MAX_SECTORS), bool(one["read_only"]), read) for one in described]


def _serial(options: dict[str, Any]) -> list[CharBackend | None]:
    return [BufferedChar() if there else None for there in options.get("serial", (True, False))]


def _build_pc(options: dict[str, Any], clock: Clock, read: Callable[[int, int], bytes]) -> PcLike:
    cdrom = options.get("cdrom")
    packed = options.get("vga_bios")
    return Pc(
        NullSystem(),
        PcOptions(
            memory=options.get("memory", 64 * MIB),
            vga_bios=zlib.decompressobj().decompress(base64.b64decode(packed), ROM_MAX) if packed else b"",
            disks=_images(options.get("disks", []), read),
            cdrom=_images([cdrom], read)[0] if cdrom else None,
            floppies=[_images([one], read)[0] if one else None for one in options.get("floppies", [])],
            serial=_serial(options),
            base_time=options.get("base_time", 0.0),
            boot=options.get("boot", ("disk", "cdrom")),
        ),
        clock,
    )


def _build_poweredge(options: dict[str, Any], clock: Clock, read: Callable[[int, int], bytes]) -> PcLike:
    machine = PowerEdge(
        NullSystem(),
        PowerEdgeOptions(
            memory=options.get("memory", 512 * MIB),
            variant=Variant(options.get("variant", Variant.HONEST.value)),
            serial=_serial(options),
            sata=_images(options.get("sata", []), read),
            ssata=_images(options.get("ssata", []), read),
            base_time=options.get("base_time", 0.0),
        ),
        clock,
    )
    if options.get("linux"):

        def prepare() -> None:
            """What the board does to its chips before it starts a kernel without firmware."""
            machine.chips.vga.set_text_mode()
            machine._number_buses()

        machine.after_reset.append(prepare)
        prepare()
    return machine
