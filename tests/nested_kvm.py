"""A KVM with a hardware-like backend on any Linux machine: nested SVM inside a QEMU that emulates the CPU.

`run_nested` boots Debian's kernel in QEMU, mounts the host's file system read-only there, loads kvm-amd and
runs a Python program of the host's with the host's own interpreter. About ten seconds before the program starts.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from machines.server_support import kernel, unpacked_kernel
from portvisor.guest.debian import build_initramfs
from portvisor.guest.initramfs import InitramfsPlan
from support import require_program

MODULES = (
    "virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci", "netfs", "fscache",
    "9pnet", "9pnet_virtio", "9p", "irqbypass", "ccp", "kvm", "kvm-amd",
)  # fmt: skip
COMMAND_LINE = "console=ttyS0 quiet panic=-1 tsc=reliable mitigations=off nokaslr"
BEGIN, END = "<<< nested begin", "<<< nested end "
TOP = Path(__file__).parent.parent


@dataclass(frozen=True, slots=True)
class NestedResult:
    """What the program printed on its standard output, and its exit status (None if it did not end)."""

    output: str
    status: int | None
    console: str


def run_nested(program: str, *, memory: int = 1024, timeout: float = 300.0) -> NestedResult:
    """Run Python source inside; `portvisor` and the test helpers can be imported there."""
    qemu = require_program("qemu-system-x86_64", "qemu-system-x86")
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        (work / "program.py").write_text(program)
        plan = InitramfsPlan(MODULES, (), _script(work / "program.py"))
        (work / "vmlinux").write_bytes(unpacked_kernel())
        (work / "initrd").write_bytes(build_initramfs(kernel(), plan))
        command = [
            qemu, "-accel", "tcg", "-cpu", "max,+svm", "-m", str(memory), "-nodefaults", "-no-reboot",
            "-display", "none", "-serial", "stdio", "-virtfs",
            "local,path=/,mount_tag=root,security_model=none,readonly=on,multidevs=remap",
            "-kernel", str(work / "vmlinux"), "-initrd", str(work / "initrd"), "-append", COMMAND_LINE,
        ]  # fmt: skip
        try:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
            )
            console = done.stdout.decode("utf-8", "replace")
        except subprocess.TimeoutExpired as late:
            console = (late.stdout or b"").decode("utf-8", "replace")
    return _result(console.replace("\r", ""))


def _script(program: Path) -> str:
    """Shell text: the host's root below /r, writable places over it, and the program in a chroot."""
    paths = ":".join(str(TOP / name) for name in ("src", "tests"))
    run = f"PYTHONPATH={shlex.quote(paths)} PYTHONDONTWRITEBYTECODE=1 {shlex.quote(sys.executable)} {program}"
    return f"""
mkdir -p /r
mount -t 9p -o trans=virtio,version=9p2000.L,ro,msize=262144,cache=loose root /r || echo NO-ROOT
mount -t devtmpfs dev /r/dev; mount -t proc proc /r/proc; mount -t sysfs sys /r/sys
mount -t tmpfs tmp /r/run
echo '{BEGIN}'
chroot /r /bin/sh -c {shlex.quote(run)}
echo "{END}$?"
poweroff -f
"""


def _result(console: str) -> NestedResult:
    _, _, after = console.partition(f"{BEGIN}\n")
    output, mark, rest = after.partition(END)
    status = int(rest.split()[0]) if mark else None
    return NestedResult(output, status, console)
