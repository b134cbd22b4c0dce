"""The board of a trace: what must be known to build it again without guest, firmware or images."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from portvisor.backends.records import MemoryRecords
from portvisor.devices.ide.ata_disk import AtaDisk
from portvisor.devices.ide.atapi_cd import AtapiCd
from portvisor.devices.ide.drive import Drive, Transport
from portvisor.devices.ide.identify import Identity
from portvisor.kvm.null import NullSystem
from portvisor.machines.machine import Machine
from portvisor.machines.pc import FIRMWARE_UNIT, MIB, Pc, PcOptions
from portvisor.machines.pc_like import PcLike
from portvisor.machines.poweredge import PowerEdge, PowerEdgeOptions
from portvisor.machines.poweredge_acpi import Variant
from portvisor.machines.q35 import AHCI_PORTS, Q35, Q35Options
from portvisor.ports import BlockBackend, BufferedChar, CharBackend, Clock
from portvisor.trace.errors import TraceError
from portvisor.trace.host import ImageMaker, image_of
from portvisor.trace.schema import Metadata

MAX_SECTORS = 1 << 32
ROM_MAX = 1 << 20
RECORD_MAX = 1 << 16

Options = Mapping[str, Any]


# --- what goes into the file ------------------------------------------------------------------------------


def board_options(machine: Machine) -> dict[str, Any]:
    """What `build_board` needs, as JSON values."""
    if isinstance(machine, Pc):
        return {
            **_common(machine),
            "vga_bios": _packed(machine.options.vga_bios),
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
            "firmware": bool(machine.options.firmware),
            "vga_bios": _packed(machine.options.vga_bios),
            "sata": [_image_options(image) for image in machine.options.sata],
            "ssata": [_image_options(image) for image in machine.options.ssata],
            "records": [[number, _packed(data)] for number, data in machine.options.records.records.items()],
        }
    if isinstance(machine, Q35):
        return {
            **_common(machine),
            "drives": [_drive_options(drive) for drive in machine.options.drives],
            "boot": list(machine.options.boot),
        }
    return {}


def _common(machine: Pc | PowerEdge | Q35) -> dict[str, Any]:
    return {
        "memory": machine.options.memory,
        "base_time": machine.options.base_time,
        "serial": [backend is not None for backend in machine.options.serial],
    }


def _packed(data: bytes) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def _image_options(image: BlockBackend) -> dict[str, Any]:
    return {"sectors": image.sectors, "read_only": image.read_only}


def _drive_options(drive: Drive | None) -> dict[str, Any] | None:
    """A drive by kind, identity and image."""
    if not isinstance(drive, AtaDisk | AtapiCd):
        return None
    image, identity = image_of(drive), drive.identity
    return {
        "kind": "cdrom" if isinstance(drive, AtapiCd) else "disk",
        "identity": [identity.model, identity.serial, identity.firmware],
        "image": _image_options(image) if image else None,
    }


# --- and back ---------------------------------------------------------------------------------------------


def build_board(metadata: Metadata, clock: Clock, make_image: ImageMaker) -> PcLike:
    """The machine that a trace is of, on an engine without a CPU.

    Raises:
        TraceError: no such machine, or its description is damaged.
    """
    builder = BUILDERS.get(metadata.machine)
    if builder is None:
        raise TraceError(
            f"the trace is of machine {metadata.machine or '(unknown)'!r}; it can be {', '.join(REPLAY_MACHINES)}"
        )
    try:
        return builder(metadata.options, clock, make_image)
    except (LookupError, TypeError, ValueError, AttributeError, zlib.error) as error:
        raise TraceError(f"the trace's machine cannot be built: {error!r}") from None


def _image(described: Options, make_image: ImageMaker) -> BlockBackend:
    return make_image(min(int(described["sectors"]), MAX_SECTORS), bool(described["read_only"]))


def _images(described: Iterable[Options], make_image: ImageMaker) -> list[BlockBackend]:
    return [_image(one, make_image) for one in described]


def _unpacked(text: str | None, limit: int = ROM_MAX) -> bytes:
    return zlib.decompressobj().decompress(base64.b64decode(text), limit) if text else b""


def _serial(options: Options, default: Sequence[bool]) -> list[CharBackend | None]:
    return [BufferedChar() if there else None for there in options.get("serial", default)]


def _build_pc(options: Options, clock: Clock, make_image: ImageMaker) -> PcLike:
    cdrom = options.get("cdrom")
    return Pc(
        NullSystem(),
        PcOptions(
            memory=options.get("memory", 64 * MIB),
            vga_bios=_unpacked(options.get("vga_bios")),
            disks=_images(options.get("disks", []), make_image),
            cdrom=_image(cdrom, make_image) if cdrom else None,
            floppies=[_image(one, make_image) if one else None for one in options.get("floppies", [])],
            serial=_serial(options, (True, False)),
            base_time=options.get("base_time", 0.0),
            boot=options.get("boot", ("disk", "cdrom")),
        ),
        clock,
    )


def _build_poweredge(options: Options, clock: Clock, make_image: ImageMaker) -> PcLike:
    records = MemoryRecords()
    records.replace({int(number): _unpacked(data, RECORD_MAX) for number, data in options.get("records", [])})
    machine = PowerEdge(
        NullSystem(),
        PowerEdgeOptions(
            memory=options.get("memory", 512 * MIB),
            variant=Variant(options.get("variant", Variant.HONEST.value)),
            firmware=bytes(FIRMWARE_UNIT) if options.get("firmware") else b"",
            vga_bios=_unpacked(options.get("vga_bios")),
            serial=_serial(options, (True, False)),
            sata=_images(options.get("sata", []), make_image),
            ssata=_images(options.get("ssata", []), make_image),
            records=records,
            base_time=options.get("base_time", 0.0),
        ),
        clock,
    )
    if options.get("linux"):
        machine.after_reset.append(machine.prepare_chips)
        machine.prepare_chips()
    return machine


def _build_q35(options: Options, clock: Clock, make_image: ImageMaker) -> PcLike:
    return Q35(
        NullSystem(),
        Q35Options(
            memory=options.get("memory", 128 * MIB),
            serial=_serial(options, (True,)),
            drives=[_drive(one, make_image) for one in options.get("drives", (None,) * AHCI_PORTS)],
            boot=options.get("boot", ("disk", "cdrom")),
            base_time=options.get("base_time", 0.0),
        ),
        clock,
    )


def _drive(described: Options | None, make_image: ImageMaker) -> Drive | None:
    if described is None:
        return None
    identity, image = Identity(*described["identity"]), described["image"]
    if described["kind"] == "disk":
        return AtaDisk(_image(image, make_image), identity, Transport.SATA)
    return AtapiCd(_image(image, make_image) if image else None, identity, Transport.SATA)


BUILDERS: dict[str, Callable[[Options, Clock, ImageMaker], PcLike]] = {
    "pc": _build_pc,
    "poweredge": _build_poweredge,
    "q35": _build_q35,
}
REPLAY_MACHINES = tuple(BUILDERS)
