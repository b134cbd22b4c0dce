"""`portvisor boot`: the seed's server with Debian's kernel, or a PC with SeaBIOS and GRUB."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from portvisor.backends.char import HostChar, NullChar, StdioChar
from portvisor.backends.image import MemoryImage
from portvisor.backends.records import FileRecords, MemoryRecords
from portvisor.cli.guest import MIB, command_handler, open_disk
from portvisor.cli.listing import print_diff, print_score
from portvisor.cli.live import live_options, watchable
from portvisor.cli.parameters import SIZE_TYPE
from portvisor.cli.pc_demo import boot_pc
from portvisor.cli.recording import recorded, recording_clock, trace_options
from portvisor.cli.run import stock_firmware
from portvisor.guest.debian import MARK_BEGIN, MARK_END, build_initramfs, debian_kernel, listing_plan
from portvisor.guest.errors import GuestFileError
from portvisor.guest.linux import LinuxGuest
from portvisor.guest.linux_disk import linux_disk
from portvisor.guest.packages import PackageCache, PackageError
from portvisor.guest.seed import seed_listing
from portvisor.kvm.select import ENGINES, open_engine
from portvisor.machines.machine import warn
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.poweredge import PowerEdge, PowerEdgeOptions
from portvisor.machines.poweredge_acpi import Variant
from portvisor.machines.row_owner import owner_of_row
from portvisor.ports import BlockBackend, BufferedChar
from portvisor.ports.ioports import Diff, Difference, diff, parse

COMMAND_LINE = "console=ttyS0 nokaslr panic=-1"
QUIET = "quiet loglevel=3"
EXACT_WORDS = "acpica_no_return_repair"
EXPECTED_ROWS = {Variant.HONEST: 61, Variant.EXACT: 63}
MEGASAS_NOTE = (
    "megasas: LSI cannot appear on a kernel from 4.8 on: its driver claims the memory BAR instead of the I/O BAR, "
    "so 63 rows are all there are."
)
DEFAULT_MEMORY = 512 * MIB


@dataclass(frozen=True, slots=True)
class BootOptions:
    """Values of the command's options."""

    engine: str
    memory: int
    variant: Variant
    shell: bool
    verbose: bool
    timeout: float
    kernel: str | None
    initrd: str | None
    append: str
    sata: tuple[str, ...]
    ssata: tuple[str, ...]
    records: str | None
    firmware: bool
    trace: str | None
    trace_filter: tuple[str, ...]
    live: str | None


class ListingPort(BufferedChar):
    """COM2: collects what the guest prints between the marks."""

    def __init__(self) -> None:
        super().__init__()
        self.listing: str | None = None

    def send(self, data: bytes) -> None:
        super().send(data)
        if self.listing is None and MARK_END.encode() in self.sent:
            text = self.sent.decode("utf-8", "replace").replace("\r", "")
            self.listing = text.partition(f"{MARK_BEGIN}\n")[2].partition(MARK_END)[0]


@click.command()
@click.option(
    "--machine",
    type=click.Choice(["poweredge", "pc"]),
    default="poweredge",
    show_default=True,
    help="The seed's server with Debian's kernel, or a PC with SeaBIOS and GRUB.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="auto",
    show_default=True,
    help="What executes the guest; auto takes KVM if it is fast.",
)
@click.option("--memory", type=SIZE_TYPE, default=None, help="RAM, with K, M or G. Default: 512M, for pc 64M.")
@click.option(
    "--variant",
    type=click.Choice([one.value for one in Variant]),
    default=Variant.HONEST.value,
    show_default=True,
    help="ACPI tables: truthful (61 rows), or so that 63 rows come out.",
)
@click.option("--shell", is_flag=True, help="End in a shell of the guest on this terminal.")
@click.option("--verbose", "-v", is_flag=True, help="Show the guest's console.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=300.0,
    show_default=True,
    metavar="SECONDS",
    help="Give up on a boot that does not reach the listing in this time.",
)
@click.option("--kernel", metavar="FILE", help="A bzImage or vmlinux instead of Debian's kernel.")
@click.option("--initrd", metavar="FILE", help="An initramfs instead of ours (no listing is taken).")
@click.option("--append", default="", metavar="WORDS", help="Further words for the kernel's command line.")
@click.option("--sata", multiple=True, metavar="IMAGE[,MODE]", help="A disk on 00:1f.2; MODE cow, ro or rw.")
@click.option("--ssata", multiple=True, metavar="IMAGE[,MODE]", help="A disk on 00:11.4.")
@click.option("--firmware", is_flag=True, help="Start through stock SeaBIOS and GRUB, from a disk on 00:1f.2.")
@click.option("--records", metavar="FILE", help="Keep the error records of panics in FILE.")
@trace_options
@live_options
def boot(machine: str, memory: int | None, variant: str, **values: Any) -> None:
    """Boot a guest and show its /proc/ioports beside the seed's, row by row."""
    if machine == "pc":
        watching = {name: values[name] for name in ("trace", "trace_filter", "live")}
        sys.exit(boot_pc(values["engine"], memory or 64 * MIB, values["timeout"], **watching))
    options = BootOptions(memory=memory or DEFAULT_MEMORY, variant=Variant(variant), **values)
    try:
        guest = _guest(options)
    except PackageError as error:
        warn(f"{error}; booting the built-in guest portprobe instead")
        sys.exit(_portprobe(options))
    with ExitStack() as stack:
        sys.exit(_boot(options, guest, stack))


def _portprobe(options: BootOptions) -> int:
    return boot_pc(
        options.engine,
        64 * MIB,
        options.timeout,
        portprobe=True,
        trace=options.trace,
        trace_filter=options.trace_filter,
        live=options.live,
    )


def _guest(options: BootOptions) -> LinuxGuest:
    words = [COMMAND_LINE]
    if not options.verbose:
        words.append(QUIET)
    if options.variant is Variant.EXACT:
        words.append(EXACT_WORDS)
    line = " ".join([*words, options.append]).strip()
    if options.initrd and options.kernel:
        return LinuxGuest(
            _read(options.kernel, "kernel"),
            _read(options.initrd, "initramfs"),
            line,
            options.kernel,
            options.initrd,
        )
    package = debian_kernel(warn)
    plan = listing_plan(ipmi=options.variant is Variant.EXACT, shell=options.shell)
    initrd = _read(options.initrd, "initramfs") if options.initrd else build_initramfs(package, plan, warn)
    if options.kernel:
        kernel = _read(options.kernel, "kernel")
    else:
        kernel = package.image.read_bytes() if options.firmware else package.unpacked()
    return LinuxGuest(kernel, initrd, line, options.kernel or package.image.name, options.initrd or "initramfs")


def _read(path: str, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise GuestFileError(f"{what} {path}: {error.strerror}") from None


def _boot(options: BootOptions, guest: LinuxGuest, stack: ExitStack) -> int:
    engine = open_engine(options.engine)
    stack.callback(engine.close)
    listing_port = ListingPort()
    console = Terminal(options, stack)
    bios, vga_bios = stock_firmware() if options.firmware else (b"", b"")
    sata: list[BlockBackend] = [stack.enter_context(open_disk(spec)) for spec in options.sata]
    if options.firmware:
        sata.insert(0, MemoryImage(linux_disk(guest, PackageCache(progress=warn))))
    machine = stack.enter_context(
        PowerEdge(
            engine,
            PowerEdgeOptions(
                memory=options.memory,
                variant=options.variant,
                linux=None if options.firmware else guest,
                firmware=bios,
                vga_bios=vga_bios,
                serial=(console.backend, listing_port),
                sata=sata,
                ssata=[stack.enter_context(open_disk(spec)) for spec in options.ssata],
                records=FileRecords(options.records) if options.records else MemoryRecords(),
            ),
            recording_clock(options.trace),
        )
    )
    stack.enter_context(recorded(machine, options.trace, options.trace_filter))
    stack.enter_context(watchable(machine, options.live))
    machine.on_message = warn
    warn(f"booting {guest.kernel_label} on machine poweredge, engine {engine.name}")
    start = time.monotonic()
    watch = ListingWatch(machine, listing_port, show=not options.verbose)
    if options.initrd:
        console.connect(machine)
        return _ended(machine.run())
    if options.verbose:
        console.connect(machine)
    outcome = machine.run(options.timeout)
    watch.stop()
    if listing_port.listing is None:
        warn(f"the guest did not print its listing: {outcome}")
        return outcome.exit_status or 1
    warn(f"listing after {time.monotonic() - start:.1f} s")
    status = _show(options.variant, machine, listing_port.listing)
    if options.shell:
        console.connect(machine)
        return _ended(machine.run())
    return status


def _ended(outcome: Outcome) -> int:
    warn(str(outcome))
    return 0 if outcome.end is End.INTERRUPTED else outcome.exit_status


class Terminal:
    """COM1: nothing, or this terminal."""

    def __init__(self, options: BootOptions, stack: ExitStack) -> None:
        self._command: Callable[[str], None] | None = None
        wanted = options.shell or options.verbose or options.initrd
        self.backend: HostChar = stack.enter_context(
            StdioChar(self._handle if sys.stdin.isatty() else None) if wanted else NullChar()
        )

    def _handle(self, key: str) -> None:
        if self._command:
            self._command(key)

    def connect(self, machine: PowerEdge) -> None:
        """From now on keys go to the guest; Ctrl-A x ends it."""
        self._command = command_handler(machine)
        if self.backend not in machine.inputs:
            machine.inputs.append(self.backend)
            if sys.stdin.isatty() and self.backend.fileno() >= 0:
                warn("Ctrl-A x ends the machine")


class ListingWatch:
    """Stops the run once the listing is complete; on a terminal it shows that time passes."""

    LOOK_EVERY_NS = 20_000_000
    SHOW_EVERY_NS = 500_000_000

    def __init__(self, machine: PowerEdge, port: ListingPort, *, show: bool) -> None:
        self._machine, self._port = machine, port
        self._show = show and sys.stderr.isatty()
        self._next_show = self.SHOW_EVERY_NS
        self._timer = machine.clock.timer(self._look, "listing")
        self._timer.arm(machine.clock.now() + self.LOOK_EVERY_NS)

    def _look(self) -> None:
        now = self._machine.clock.now()
        if self._port.listing is not None:
            self._machine.request_stop(Outcome(End.CONDITION))
            return
        if self._show and now >= self._next_show:
            self._next_show = now + self.SHOW_EVERY_NS
            print(f"\r  {now / 1e9:.1f} s", end="", file=sys.stderr, flush=True)
        self._timer.arm(now + self.LOOK_EVERY_NS)

    def stop(self) -> None:
        """Look no more."""
        self._timer.disarm()
        if self._show:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _show(variant: Variant, machine: PowerEdge, text: str) -> int:
    """Print the comparison; 0 if the listing is as good as the variant's can be."""
    difference = diff(seed_listing(), parse(text, "the guest's /proc/ioports"))
    console = Console(soft_wrap=True)
    print_diff(console, difference, left="the seed's server", right="this guest", device_of=owner_of_row(machine))
    print_score(console, difference)
    _print_notes(console, variant, difference)
    exact = difference.count(Difference.EQUAL)
    return 0 if exact >= EXPECTED_ROWS[variant] and not difference.count(Difference.EXTRA) else 1


def _print_notes(console: Console, variant: Variant, difference: Diff) -> None:
    console.print(MEGASAS_NOTE, style="dim")
    if variant is Variant.HONEST and difference.count(Difference.EQUAL) == EXPECTED_ROWS[variant]:
        console.print(
            "The two ipmi_si rows need a trigger that truthful tables do not give; --variant exact has them.",
            style="dim",
        )
