"""The PC of `portvisor boot --machine pc`: SeaBIOS and GRUB, or the built-in guest where they cannot be had."""

from __future__ import annotations

from contextlib import ExitStack

from portvisor.backends.image import MemoryImage
from portvisor.cli.guest import GuestOptions, Streams, run_guest
from portvisor.cli.recording import recording_clock
from portvisor.cli.run import stock_firmware
from portvisor.guest.grub_disk import build_grub_disk
from portvisor.guest.packages import PackageCache, PackageError
from portvisor.guest.programs import load_program
from portvisor.kvm.select import open_engine
from portvisor.machines.machine import warn
from portvisor.machines.pc import Pc, PcOptions, Program

PORTPROBE = "portprobe"
PORTPROBE_ADDRESS = 0x7C00
PORTPROBE_STATUS = 0x21
"""Exit status with which portprobe leaves: it wrote 10h to the exit port."""


def boot_pc(
    engine_name: str,
    memory: int,
    timeout: float | None,
    *,
    portprobe: bool = False,
    trace: str | None = None,
    trace_filter: tuple[str, ...] = (),
    live: str | None = None,
) -> int:
    """Run the demonstration; the exit status."""
    options = GuestOptions(
        engine=engine_name, memory=memory, serial="stdio", serial2="none", screen=False, debug=None,
        timeout=timeout, no_reboot=False, strict=False, when=(), until=None, screenshot=None,
        trace=trace, trace_filter=trace_filter, live=live,
    )  # fmt: skip
    with ExitStack() as stack:
        streams = Streams(options, stack)
        firmware, vga_bios, image = b"", b"", None
        if not portprobe:
            try:
                firmware, vga_bios = stock_firmware()
                image = MemoryImage(build_grub_disk(cache=PackageCache(progress=warn)))
            except PackageError as error:
                warn(f"{error}; running the built-in guest portprobe instead")
                image = None
        program = None if image else Program(load_program(PORTPROBE), PORTPROBE_ADDRESS, PORTPROBE)
        engine = open_engine(engine_name)
        stack.callback(engine.close)
        machine = stack.enter_context(
            Pc(
                engine,
                PcOptions(
                    memory=memory,
                    firmware=firmware if image else b"",
                    vga_bios=vga_bios,
                    program=program,
                    disks=[image] if image else [],
                    serial=streams.serial,
                    on_debug=streams.on_debug,
                ),
                recording_clock(trace),
            )
        )
        outcome = run_guest(machine, options, streams)
    return 0 if program and outcome.status == PORTPROBE_STATUS else outcome.exit_status
