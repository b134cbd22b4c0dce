"""Debian's kernel to user space: machine `poweredge` on the software engine against QEMU's TCG, same kernel.

    .venv/bin/python bench/linux_boot.py [--profile]

Both boot the same vmlinux and initramfs (quiet); the clock stops when the first process has printed its mark.
`--profile` tells where the time goes: seconds in device models by port range, and in the guest.
"""

from __future__ import annotations

import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from portvisor.guest.debian import build_initramfs, debian_kernel
from portvisor.guest.initramfs import InitramfsPlan
from portvisor.guest.linux import LinuxGuest
from portvisor.kvm.select import open_engine
from portvisor.machines.machine import warn
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.poweredge import PowerEdge, PowerEdgeOptions
from portvisor.ports import BufferedChar, Owner

MIB = 1 << 20
MEMORY, ROUNDS, LIMIT, GIVE_UP_S = 256 * MIB, 3, 2.5, 300.0
MARK = b"USERSPACE"
COMMAND_LINE = "console=ttyS0 quiet loglevel=3 nokaslr panic=-1"


class Console(BufferedChar):
    """Stops the machine at the mark."""

    machine: PowerEdge | None = None

    def send(self, data: bytes) -> None:
        super().send(data)
        if self.machine and data == MARK[-1:] and MARK in self.sent:
            self.machine.request_stop(Outcome(End.CONDITION))


class Profile:
    """Port accesses by device."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def _count(self, owner: Owner | None, depth: int) -> None:
        if depth == 0:
            name = owner.device.name if owner else "split or unassigned"
            self.counts[name] = self.counts.get(name, 0) + 1

    def port_read(self, port: int, size: int, value: int, owner: Owner | None, depth: int) -> None:
        self._count(owner, depth)

    def port_write(self, port: int, size: int, value: int, owner: Owner | None, depth: int) -> None:
        self._count(owner, depth)

    def port_read_block(self, port: int, size: int, data: bytes, owner: Owner | None) -> None:
        self._count(owner, 0)

    def port_write_block(self, port: int, size: int, data: bytes, owner: Owner | None) -> None:
        self._count(owner, 0)


def ours(guest: LinuxGuest, profile: Profile | None = None) -> float:
    system = open_engine("software")
    console = Console()
    with PowerEdge(system, PowerEdgeOptions(memory=MEMORY, linux=guest, serial=(console, None))) as machine:
        console.machine = machine
        if profile:
            machine.ports.observe(profile)
        start = time.perf_counter()
        outcome = machine.run(GIVE_UP_S)
        taken = time.perf_counter() - start
    system.close()
    if outcome.end is not End.CONDITION:
        raise SystemExit(f"no user space: {outcome}")
    return taken


def qemus(qemu: str, kernel: Path, initrd: Path) -> float:
    command = [
        qemu, "-accel", "tcg", "-m", "256", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio",
        "-kernel", str(kernel), "-initrd", str(initrd), "-append", COMMAND_LINE,
    ]  # fmt: skip
    start = time.perf_counter()
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as process:
        assert process.stdout
        seen = b""
        while MARK not in seen:
            data = process.stdout.read1(4096)
            if not data:
                raise SystemExit("QEMU ended without reaching user space")
            seen += data
        taken = time.perf_counter() - start
        process.kill()
    return taken


def main() -> int:
    qemu = shutil.which("qemu-system-x86_64")
    if qemu is None:
        raise SystemExit("needs qemu-system-x86_64: apt-get install qemu-system-x86")
    package = debian_kernel(warn)
    initrd = build_initramfs(package, InitramfsPlan(script=f"echo {MARK.decode()}; sleep 600"), warn)
    vmlinux = package.unpacked()
    guest = LinuxGuest(vmlinux, initrd, COMMAND_LINE)
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "vmlinux", Path(folder) / "initrd"
        files[0].write_bytes(vmlinux)
        files[1].write_bytes(initrd)
        pairs = [(ours(guest), qemus(qemu, *files)) for _ in range(ROUNDS)]
    mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
    ratio = mine / theirs
    verdict = "PASS" if ratio <= LIMIT else "FAIL"
    print(f"portvisor {mine:.2f} s, QEMU TCG {theirs:.2f} s: {ratio:.2f}x (limit {LIMIT}) {verdict}")
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    print(f"largest resident size {resident} MiB with {MEMORY // MIB} MiB of guest memory (limit guest + 200)")
    if "--profile" in sys.argv:
        profile = Profile()
        ours(guest, profile)
        for name, count in sorted(profile.counts.items(), key=lambda item: -item[1])[:12]:
            print(f"{count:8d} accesses  {name}")
    return verdict == "FAIL" or resident > MEMORY // MIB + 200


if __name__ == "__main__":
    sys.exit(main())
