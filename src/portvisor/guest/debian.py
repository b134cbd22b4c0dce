"""Debian's kernel as a guest: its image unpacked once, and an initramfs that prints the listing."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from portvisor.guest.errors import GuestFileError
from portvisor.guest.initramfs import InitramfsPlan, build
from portvisor.guest.kernel_image import parse_bzimage
from portvisor.guest.modules import ModuleTree
from portvisor.guest.packages import cache_directory, kernel_package, package_root

Progress = Callable[[str], None]

MODULES = (
    "ipmi_msghandler", "ipmi_devintf", "ahci", "sd_mod", "megaraid_sas", "i2c_i801", "lpc_ich", "iTCO_wdt",
)  # fmt: skip
"""Drivers of the server's devices that Debian builds as modules, in the order a real boot loads them."""
SPARE_MODULES = ("ipmi_si", "button", "ext4", "vfat", "nls_cp437", "nls_ascii")
IPMI_HOTMOD = "add,kcs,i/o,0xca8,rsp=4"
MARK_BEGIN, MARK_END = "=== listing ===", "=== end ==="

LOAD = """load() {
    for m in "$@"; do grep -q "^$m " /proc/modules || insmod /lib/modules/$m.ko 2>/dev/kmsg; done
}
"""
SETTLE = """i=0
while [ $i -lt 50 ] && ! grep -q iTCO_wdt /proc/ioports; do sleep 0.1; i=$((i+1)); done
sleep 0.5
"""
PRINT_LISTING = f"""stty -F /dev/ttyS1 raw 2>/dev/null
{{ echo '{MARK_BEGIN}'; cat /proc/ioports; echo '{MARK_END}'; }} > /dev/ttyS1
"""
LOAD_IPMI = f"""insmod /lib/modules/ipmi_si.ko unload_when_empty=0 2>/dev/kmsg
echo {IPMI_HOTMOD} > /sys/module/ipmi_si/parameters/hotmod
"""
SHELL = """echo
echo "This is the guest's shell. Type poweroff -f to leave."
exec setsid cttyhack sh
"""


@dataclass(frozen=True, slots=True)
class DebianKernel:
    """A kernel package: image, release and modules."""

    release: str
    image: Path
    modules: Path

    def unpacked(self) -> bytes:
        """The kernel as an ELF file, unpacked once and then taken from the cache."""
        cached = cache_directory() / "vmlinux" / self.release
        stamp = f"{self.image.stat().st_size}-{self.image.stat().st_mtime_ns}"
        path = cached.with_name(f"{cached.name}-{stamp}")
        if path.exists():
            return path.read_bytes()
        payload = parse_bzimage(self.image.read_bytes(), self.image.name).unpacked_payload()
        write_whole(path, payload)
        return payload


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(partial).replace(path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def debian_kernel(progress: Progress | None = None) -> DebianKernel:
    """Debian's kernel for amd64, from the package cache.

    Raises:
        PackageError: it cannot be had.
    """
    name = kernel_package(progress=progress)
    release = name.removeprefix("linux-image-")
    root = package_root(name, progress=progress)
    folder = root / "lib/modules" / release
    if not folder.is_dir():
        folder = root / "usr/lib/modules" / release
    return DebianKernel(release, root / "boot" / f"vmlinuz-{release}", folder)


def busybox(progress: Progress | None = None) -> Path:
    """A static busybox, from the package cache.

    Raises:
        PackageError: it cannot be had.
        GuestFileError: the package has none.
    """
    root = package_root("busybox-static", progress=progress)
    for place in ("bin/busybox", "usr/bin/busybox"):
        if (root / place).is_file():
            return root / place
    raise GuestFileError(f"package busybox-static in {root} has no busybox")


def listing_plan(*, ipmi: bool, shell: bool, script: str = "") -> InitramfsPlan:
    """Load the drivers, print /proc/ioports on COM2, then a shell or power off.

    Args:
        ipmi: load ipmi_si before the listing is taken (the tables trigger it); otherwise after it, with
            parameters.
        shell: end in a shell on the console.
        script: shell text that runs after the listing.
    """
    early = "load ipmi_si\n" if ipmi else ""
    late = "" if ipmi else LOAD_IPMI
    end = SHELL if shell else "poweroff -f\n"
    text = LOAD + early + SETTLE + PRINT_LISTING + late + script + end
    return InitramfsPlan(MODULES, SPARE_MODULES, text)


def build_initramfs(kernel: DebianKernel, plan: InitramfsPlan, progress: Progress | None = None) -> bytes:
    """The initramfs for a plan.

    Raises:
        PackageError: busybox cannot be had.
        GuestFileError: a module is missing or does not fit the kernel.
    """
    return build(busybox(progress), ModuleTree(kernel.modules), plan)
