"""A floppy disk controller on a board with the legacy chips: IRQ 6, DMA channel 2, the drives in CMOS."""

from __future__ import annotations

from collections.abc import Sequence

from portvisor.devices.floppy import FloppyController, FloppyDrive, MediumError
from portvisor.guest.errors import GuestFileError
from portvisor.machines import cmos
from portvisor.machines.pc_like import PcLike
from portvisor.ports import BlockBackend

FLOPPY_IRQ = 6
MOST_DRIVES = 2


def drives_of(images: Sequence[BlockBackend | None]) -> list[FloppyDrive | None]:
    """A drive for each medium, A first.

    Raises:
        GuestFileError: there are more than two, or one is no floppy disk.
    """
    if len(images) > MOST_DRIVES:
        raise GuestFileError(f"{len(images)} floppy disks: at most {MOST_DRIVES} are possible")
    drives: list[FloppyDrive | None] = []
    for letter, image in zip("AB", images, strict=False):
        try:
            drives.append(FloppyDrive(image) if image else None)
        except MediumError as error:
            raise GuestFileError(f"floppy disk {letter}: {error}") from None
    return drives


def attach_floppy(
    machine: PcLike, drives: Sequence[FloppyDrive | None], *, as_qemu: bool = False
) -> FloppyController:
    """Put the controller on the board. SRA is not decoded: 3F0 belongs to the Super I/O chip of most boards.

    Args:
        machine: the board.
        drives: A and B.
        as_qemu: wired as on QEMU's boards, where it is enabled after RESET and commands select a drive.
    """
    chips = machine.chips
    controller = FloppyController(
        chips.irq(FLOPPY_IRQ),
        chips.dma,
        machine.ram,
        drives,
        decode_sra=False,
        select_by_command=as_qemu,
        enabled_after_reset=as_qemu,
    )
    cmos.set_floppies(chips.rtc.cmos, [drive.kind if drive else 0 for drive in controller.drives])
    return machine.attach(controller)
