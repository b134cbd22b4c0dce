"""A paused machine in a file, for looking at: registers, memory and port map. It cannot be resumed from there.

The file is a ZIP archive: `state.json`, and `memory/BASE` (hexadecimal) for each piece of RAM.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from portvisor.guest.errors import GuestFileError
from portvisor.kvm.abi import Dtable, Regs, Segment, Sregs
from portvisor.machines.machine import Machine
from portvisor.ports import PORT_COUNT, PortSpace

STATE = "state.json"
MEMORY = "memory/"
FORMAT = 1
SIZES = (1, 2, 4)


@dataclass(frozen=True, slots=True)
class PausedMachine:
    """What a file holds."""

    machine: str
    """Name of the board."""
    regs: Regs
    sregs: Sregs
    memory: Mapping[int, bytes]
    """RAM by guest-physical address."""
    ports: Mapping[str, str]
    """`access_key` -> who takes it, in words; accesses that nobody takes whole are missing."""


def access_key(port: int, size: int, write: bool) -> str:
    """How an access is called in `PausedMachine.ports`."""
    return f"{'out' if write else 'in'} {port:x}/{size}"


def describe_owner(space: PortSpace, port: int, size: int, write: bool) -> str | None:
    """Device, range and register that take an access whole; None if nobody does."""
    owner = space.owner(port, size)
    if owner is None:
        return None
    register = owner.device.register_name(owner.offset, size, write)
    place = f"register {register}" if register else f"offset {owner.offset:#x}"
    return f"{owner.device.name} ({owner.range}), {place}"


def _port_map(space: PortSpace) -> dict[str, str]:
    accesses = ((port, size, write) for port in range(PORT_COUNT) for size in SIZES for write in (False, True))
    described = ((access, describe_owner(space, *access)) for access in accesses)
    return {access_key(*access): text for access, text in described if text is not None}


def save(machine: Machine, path: Path) -> None:
    """Write a machine that is not running to a file.

    Raises:
        GuestFileError: the file cannot be written.
    """
    sregs = machine.vcpu.get_sregs()
    state = {
        "format": FORMAT,
        "machine": machine.name,
        "regs": asdict(machine.vcpu.get_regs()),
        "sregs": {**asdict(sregs), "interrupt_bitmap": sregs.interrupt_bitmap.hex()},
        "ports": _port_map(machine.ports),
    }
    partial = path.with_name(path.name + ".part")
    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr(STATE, json.dumps(state, indent=1))
            for region in machine.ram.regions:
                with archive.open(f"{MEMORY}{region.base:x}", "w", force_zip64=True) as member:
                    member.write(region.view)
        partial.replace(path)
    except OSError as error:
        raise GuestFileError(f"state {path}: {error.strerror}") from None


def load(path: Path) -> PausedMachine:
    """Read such a file.

    Raises:
        GuestFileError: it cannot be read, or is something else.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            state = json.loads(archive.read(STATE))
            if state["format"] != FORMAT:
                raise GuestFileError(f"state {path}: format {state['format']}, this version reads {FORMAT}")
            names = [name for name in archive.namelist() if name.startswith(MEMORY)]
            memory = {int(name.removeprefix(MEMORY), 16): archive.read(name) for name in names}
        return PausedMachine(
            state["machine"], Regs(**state["regs"]), _sregs(state["sregs"]), memory, dict(state["ports"])
        )
    except OSError as error:
        raise GuestFileError(f"state {path}: {error.strerror}") from None
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError):
        raise GuestFileError(f"state {path}: not a machine that --save-state saved") from None


def _sregs(fields: dict[str, Any]) -> Sregs:
    made = dict(fields)
    for name in Sregs.SEGMENTS:
        made[name] = Segment(**fields[name])
    for name in ("gdt", "idt"):
        made[name] = Dtable(**fields[name])
    made["interrupt_bitmap"] = bytes.fromhex(fields["interrupt_bitmap"])
    return Sregs(**made)
