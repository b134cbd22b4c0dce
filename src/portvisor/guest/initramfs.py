"""An initramfs from busybox and a Debian kernel's modules, with an init script of our own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from portvisor.guest.cpio import Archive
from portvisor.guest.errors import GuestFileError
from portvisor.guest.modules import ModuleTree

DIRECTORIES = ("bin", "dev", "etc", "lib/modules", "mnt", "proc", "run", "sys", "tmp", "root")
CONSOLE = (5, 1)
NULL = (1, 3)
BUSYBOX_APPLETS_FROM_INIT = "/bin/busybox --install -s /bin"

INIT_HEAD = f"""#!/bin/busybox sh
export PATH=/bin HOME=/root TERM=linux
{BUSYBOX_APPLETS_FROM_INIT}
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev 2>/dev/null
"""


@dataclass(frozen=True, slots=True)
class InitramfsPlan:
    """What goes in and what runs."""

    modules: Sequence[str] = ()
    """Loaded by init in this order, with what they need before them."""
    spare_modules: Sequence[str] = ()
    """Included, but left to the script (`insmod /lib/modules/NAME.ko`)."""
    script: str = "exec sh"
    """Shell text that init ends with."""
    files: Mapping[str, bytes] = field(default_factory=dict)
    """Further files by path; those below bin/ become executable."""


def build(busybox: Path, modules: ModuleTree | None, plan: InitramfsPlan) -> bytes:
    """The archive, uncompressed (a software CPU unpacks slowly).

    Raises:
        GuestFileError: busybox cannot be read, or a module does not exist or fit the kernel.
    """
    archive = Archive()
    for path in DIRECTORIES:
        archive.directory(path)
    archive.character_device("dev/console", *CONSOLE)
    archive.character_device("dev/null", *NULL, mode=0o666)
    try:
        archive.file("bin/busybox", busybox.read_bytes(), 0o755)
    except OSError as error:
        raise GuestFileError(f"busybox {busybox}: {error.strerror}") from None
    lines = _add_modules(archive, modules, plan)
    for path, data in plan.files.items():
        archive.file(path, data, 0o755 if path.startswith("bin/") else 0o644)
    archive.file("init", (INIT_HEAD + "".join(lines) + plan.script + "\n").encode(), 0o755)
    return archive.build()


def _add_modules(archive: Archive, tree: ModuleTree | None, plan: InitramfsPlan) -> list[str]:
    """Put modules into the archive; the init lines that load them."""
    if tree is None:
        if plan.modules or plan.spare_modules:
            raise GuestFileError("modules are wanted, but there is no kernel package to take them from")
        return []
    loaded = tree.with_dependencies(list(plan.modules))
    names = {module.name for module in loaded}
    spare = [one for one in tree.with_dependencies(list(plan.spare_modules)) if one.name not in names]
    for module in (*loaded, *spare):
        archive.file(f"lib/modules/{module.name}.ko", module.data)
    archive.file("lib/modules/spare", "".join(f"{one.name}\n" for one in spare).encode())
    return [f"insmod /lib/modules/{module.name}.ko 2>/dev/kmsg\n" for module in loaded]
