"""`portvisor run`: a disk image through firmware, or a flat program without."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from portvisor.backends.image import FileImage, ImageMode
from portvisor.cli.guest import MIB, GuestOptions, guest_options, open_disk, open_streams, run_guest
from portvisor.cli.parameters import ADDRESS
from portvisor.cli.recording import recording_clock
from portvisor.guest.errors import GuestFileError
from portvisor.guest.packages import package_file
from portvisor.guest.programs import NAMES, load_program
from portvisor.kvm.select import open_engine
from portvisor.machines.machine import warn
from portvisor.machines.pc import Pc, PcOptions, Program

SEABIOS = ("seabios", "usr/share/seabios/bios-256k.bin")
VGABIOS = ("seabios", "usr/share/seabios/vgabios-isavga.bin")
CD_SECTOR = 2048


def read_file(path: str, what: str) -> bytes:
    """A whole file.

    Raises:
        GuestFileError: it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise GuestFileError(f"{what} {path}: {error.strerror}") from None


def stock_firmware() -> tuple[bytes, bytes]:
    """SeaBIOS and its VGA BIOS, from the package cache."""
    bios = package_file(*SEABIOS, progress=warn)
    return bios.read_bytes(), package_file(*VGABIOS, progress=warn).read_bytes()


@click.command()
@click.argument("file", required=False)
@click.option("--at", type=ADDRESS, help="Load FILE there and jump to it in real mode, without firmware.")
@click.option("--disk", "disks", multiple=True, metavar="IMAGE[,MODE]",
              help="A further disk; MODE is cow (writes are dropped at the end, default), ro or rw.")  # fmt: skip
@click.option("--cdrom", metavar="ISO", help="A CD image.")
@click.option("--floppy", "floppies", multiple=True, metavar="IMAGE[,MODE]",
              help="A floppy disk in drive A, then B (1440K and other standard sizes).")  # fmt: skip
@click.option("--bios", metavar="FILE", help="Firmware instead of the stock SeaBIOS.")
@click.option("--vgabios", metavar="FILE", help="VGA BIOS instead of SeaBIOS's.")
@guest_options(memory=64 * MIB)
def run(
    options: GuestOptions,
    file: str | None,
    at: int | None,
    disks: tuple[str, ...],
    cdrom: str | None,
    floppies: tuple[str, ...],
    bios: str | None,
    vgabios: str | None,
) -> None:
    """Run a guest on the machine `pc`.

    FILE is a disk image (PATH[,MODE]) that the firmware boots; with --at it is a flat program, or the name
    of a built-in one such as portprobe.
    """
    with open_streams(options) as (streams, stack):
        program, images = None, []
        if at is not None:
            program = _program(file, at)
        elif file:
            images.append(stack.enter_context(open_disk(file)))
        images += [stack.enter_context(open_disk(spec)) for spec in disks]
        medium = None
        if cdrom:
            medium = stack.enter_context(FileImage(cdrom, ImageMode.READ_ONLY, sector_size=CD_SECTOR))
        media = [stack.enter_context(open_disk(spec)) for spec in floppies]
        firmware, vga = _firmware(bios, vgabios) if program is None else (b"", b"")
        engine = open_engine(options.engine)
        stack.callback(engine.close)
        machine = stack.enter_context(
            Pc(
                engine,
                PcOptions(
                    memory=options.memory,
                    firmware=firmware,
                    firmware_label=bios or "SeaBIOS",
                    vga_bios=vga,
                    program=program,
                    disks=images,
                    cdrom=medium,
                    floppies=media,
                    serial=streams.serial,
                    on_debug=streams.on_debug,
                    boot=_boot_order(disk=bool(images), cdrom=medium is not None, floppy=bool(media)),
                    strict=options.strict,
                ),
                recording_clock(options.trace),
            )
        )
        outcome = run_guest(machine, options, streams)
    sys.exit(outcome.exit_status)


def _boot_order(**present: bool) -> tuple[str, ...]:
    """Disk, CD, floppy disk: what is there first."""
    return tuple(sorted(present, key=lambda device: not present[device]))


def _program(file: str | None, address: int) -> Program:
    if file is None:
        raise GuestFileError("--at needs a FILE: a flat binary or a built-in program")
    if file in NAMES and not Path(file).exists():
        return Program(load_program(file), address, file)
    return Program(read_file(file, "program"), address, file)


def _firmware(bios: str | None, vgabios: str | None) -> tuple[bytes, bytes]:
    stock = (b"", b"") if bios and vgabios else stock_firmware()
    firmware = read_file(bios, "firmware") if bios else stock[0]
    return firmware, read_file(vgabios, "VGA BIOS") if vgabios else stock[1]
