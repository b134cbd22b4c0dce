"""Stock firmware and disks for tests; what cannot be had is skipped, in CI a failure."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from portvisor.guest.grub_disk import build_grub_disk
from portvisor.guest.packages import PackageError, package_file
from portvisor.machines.machine import Machine
from portvisor.machines.outcome import End, Outcome
from support import missing

LOOK_EVERY_NS = 20_000_000


@cache
def stock_bios() -> tuple[bytes, bytes]:
    """SeaBIOS and its VGA BIOS."""
    try:
        names = ("bios-256k.bin", "vgabios-isavga.bin")
        bios, vga = (package_file("seabios", f"usr/share/seabios/{name}").read_bytes() for name in names)
    except PackageError as error:
        missing(f"needs the package seabios: {error}")
        raise
    return bios, vga


@cache
def grub_image() -> bytes:
    """A bootable GRUB disk."""
    try:
        return build_grub_disk()
    except PackageError as error:
        missing(f"needs the packages grub-pc-bin and grub-common: {error}")
        raise


def run_until(machine: Machine, condition: Callable[[], bool], limit: float) -> Outcome:
    """Run until a condition on the host's side holds."""

    def look() -> None:
        if condition():
            machine.request_stop(Outcome(End.CONDITION))
        else:
            timer.arm(machine.clock.now() + LOOK_EVERY_NS)

    timer = machine.clock.timer(look, "test")
    timer.arm(machine.clock.now() + LOOK_EVERY_NS)
    outcome = machine.run(limit)
    timer.disarm()
    return outcome
