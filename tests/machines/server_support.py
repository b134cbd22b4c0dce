"""Boots of Debian's kernel on the machine `poweredge`, driven by a shell script in the initramfs."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from machines.boot_support import run_until
from portvisor.backends.records import MemoryRecords
from portvisor.guest.debian import (
    LOAD,
    MODULES,
    SETTLE,
    SPARE_MODULES,
    DebianKernel,
    build_initramfs,
    debian_kernel,
)
from portvisor.guest.initramfs import InitramfsPlan
from portvisor.guest.linux import LinuxGuest
from portvisor.guest.packages import PackageError
from portvisor.kvm.select import open_engine
from portvisor.machines.outcome import Outcome
from portvisor.machines.poweredge import PowerEdge, PowerEdgeOptions
from portvisor.machines.poweredge_acpi import Variant
from portvisor.ports import BlockBackend, BufferedChar, Clock
from support import missing

MIB = 1 << 20
BOOT_LIMIT_S = 300.0
COMMAND_LINE = "console=ttyS0 nokaslr panic=-1"
GUESTS = Path(__file__).parent.parent / "guests"


@cache
def kernel() -> DebianKernel:
    """Debian's kernel, skipped with advice if it cannot be had."""
    try:
        return debian_kernel()
    except PackageError as error:
        missing(f"needs the packages linux-image-amd64 and busybox-static: {error}")
        raise


@cache
def unpacked_kernel() -> bytes:
    """The same as an ELF file."""
    return kernel().unpacked()


def compile_static(source: str, folder: Path) -> bytes:
    """A freestanding program of tests/guests, compiled with the C compiler that portvisor needs anyway."""
    compiler = shutil.which("cc")
    if compiler is None:
        missing("needs cc: apt-get install gcc")
    out = folder / "program"
    flags = ["-static", "-nostdlib", "-ffreestanding", "-fno-stack-protector", "-O1"]
    subprocess.run([str(compiler), *flags, "-o", str(out), str(GUESTS / source)], check=True, timeout=60)
    return out.read_bytes()


@dataclass
class Server:
    """One machine, its console and second serial port."""

    script: str
    variant: Variant = Variant.HONEST
    words: str = ""
    memory: int = 256 * MIB
    sata: Sequence[BlockBackend] = ()
    ssata: Sequence[BlockBackend] = ()
    files: dict[str, bytes] = field(default_factory=dict)
    records: MemoryRecords = field(default_factory=MemoryRecords)
    engine: str = "software"
    clock: Clock | None = None

    def __post_init__(self) -> None:
        self.console, self.second = BufferedChar(), BufferedChar()
        self.messages: list[str] = []
        plan = InitramfsPlan(MODULES, SPARE_MODULES, LOAD + self.script + "\npoweroff -f\n", self.files)
        line = f"{COMMAND_LINE} {self.words}".strip()
        guest = LinuxGuest(unpacked_kernel(), build_initramfs(kernel(), plan), line)
        self.system = open_engine(self.engine)
        self.machine = PowerEdge(
            self.system,
            PowerEdgeOptions(
                memory=self.memory,
                variant=self.variant,
                linux=guest,
                serial=(self.console, self.second),
                sata=self.sata,
                ssata=self.ssata,
                records=self.records,
            ),
            self.clock,
        )
        self.machine.on_message = self.messages.append

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        self.machine.close()
        self.system.close()

    @property
    def text(self) -> str:
        """What the console printed."""
        return self.console.sent.decode("utf-8", "replace").replace("\r", "")

    def run(self, limit: float = BOOT_LIMIT_S) -> Outcome:
        """To the end of the script."""
        outcome = self.machine.run(limit)
        assert not self.machine.failures, self.machine.failures
        return outcome

    def run_until(self, condition: Callable[[], bool], limit: float = BOOT_LIMIT_S) -> Outcome:
        """Until a condition on the host's side holds."""
        return run_until(self.machine, condition, limit)

    def run_until_says(self, text: str, limit: float = BOOT_LIMIT_S) -> Outcome:
        """Until the console has printed a text."""
        return self.run_until(lambda: text.encode() in self.console.sent, limit)


def settled(script: str) -> str:
    """The script, started when the drivers have bound."""
    return SETTLE + script
