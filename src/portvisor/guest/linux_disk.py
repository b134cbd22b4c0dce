"""A disk from which firmware starts Linux: GRUB, a kernel and an initramfs. For boots without the VMM's help."""

from __future__ import annotations

from portvisor.guest.errors import GuestFileError
from portvisor.guest.grub_disk import build_grub_disk
from portvisor.guest.linux import LinuxGuest
from portvisor.guest.packages import PackageCache

MENU = """serial --unit=0 --speed=115200
terminal_output serial console
set timeout=0
menuentry "Linux" {{
  linux (hd0,msdos2)/vmlinuz {command_line}
  initrd (hd0,msdos2)/initrd
}}
"""
ELF_MAGIC = b"\x7fELF"


def linux_disk(guest: LinuxGuest, cache: PackageCache | None = None) -> bytes:
    """The image; its kernel must be a bzImage.

    Raises:
        GuestFileError: the kernel is an ELF file, or GRUB's tools fail.
        PackageError: GRUB's packages cannot be had.
    """
    if guest.kernel.startswith(ELF_MAGIC):
        raise GuestFileError(f"{guest.kernel_label}: GRUB starts a bzImage, not an ELF file")
    files = {"vmlinuz": guest.kernel, "initrd": guest.initrd}
    return build_grub_disk(MENU.format(command_line=guest.command_line), files=files, cache=cache)
