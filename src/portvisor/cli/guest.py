"""Options that every command which runs a guest has, and the run itself."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from portvisor.backends.char import FileChar, HostChar, TeeChar
from portvisor.backends.image import FileImage, ImageMode
from portvisor.cli.live import live_options, watchable
from portvisor.cli.parameters import SIZE_TYPE, TEXT_AND_KEYS
from portvisor.cli.recording import recorded, trace_options
from portvisor.cli.screen import ScreenConsole
from portvisor.cli.script import Script, check_steps
from portvisor.cli.serial import SPECS, open_serial
from portvisor.guest.errors import GuestFileError
from portvisor.kvm.select import ENGINES
from portvisor.machines import paused
from portvisor.machines.machine import Machine, warn
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.pc_like import PcLike
from portvisor.ports import BufferedChar

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class GuestOptions:
    """Values of the common options."""

    engine: str
    memory: int
    serial: str
    serial2: str
    screen: bool
    debug: str | None
    timeout: float | None
    no_reboot: bool
    strict: bool
    when: tuple[tuple[str, str], ...]
    until: str | None
    screenshot: str | None
    trace: str | None = None
    trace_filter: tuple[str, ...] = ()
    live: str | None = None
    save_state: str | None = None


def guest_options(memory: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator: the common options, collected into one `options` argument."""
    decorators: list[Callable[[Any], Any]] = [
        click.option("--engine", type=click.Choice(ENGINES), default="auto", show_default=True,
                     help="What executes the guest; auto takes KVM if it is fast."),
        click.option("--memory", type=SIZE_TYPE, default=memory, show_default=f"{memory // MIB}M",
                     help="RAM, with K, M or G."),
        click.option("--serial", metavar="SPEC", default=None, help=f"COM1: {SPECS}. Default: stdio."),
        click.option("--serial2", metavar="SPEC", default="none", show_default=True, help="COM2, likewise."),
        click.option("--screen", is_flag=True, help="Show the VGA text screen; keys go to the keyboard."),
        click.option("--debug", metavar="FILE", help="Write the firmware's debug port to FILE."),
        click.option("--timeout", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS",
                     help="Stop after this time, with exit status 1."),
        click.option("--no-reboot", is_flag=True, help="Stop where the guest resets the machine."),
        click.option("--strict", is_flag=True, help="Stop when a device model fails, instead of reporting it."),
        click.option("--when", type=TEXT_AND_KEYS, multiple=True, metavar="TEXT=KEYS",
                     help="Press KEYS (down,enter) once TEXT is seen on COM1 or the screen; can be repeated."),
        click.option("--until", metavar="TEXT", help="Stop, with status 0, once TEXT is seen."),
        click.option("--screenshot", metavar="FILE", help="Save the screen at the end: .png or .txt."),
        click.option("--save-state", metavar="FILE",
                     help="Save registers, memory and port map at the end, for `explain --state`."),
        trace_options,
        live_options,
    ]  # fmt: skip

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(**values: Any) -> Any:
            names = GuestOptions.__slots__
            values["serial"] = values["serial"] or ("none" if values["screen"] else "stdio")
            options = GuestOptions(**{name: values.pop(name) for name in names})
            _check_screenshot(options.screenshot)
            _check_state(options.save_state)
            return function(options=options, **values)

        wrapper.__name__, wrapper.__doc__ = function.__name__, function.__doc__
        wrapper.__click_params__ = getattr(function, "__click_params__", [])  # type: ignore[attr-defined]
        for decorator in reversed(decorators):
            decorator(wrapper)
        return wrapper

    return decorate


def _check_screenshot(path: str | None) -> None:
    if path and Path(path).suffix not in (".png", ".txt"):
        raise GuestFileError(f"screenshot {path}: the name must end in .png or .txt")


def _check_state(path: str | None) -> None:
    if path and not Path(path).parent.is_dir():
        raise GuestFileError(f"state {path}: the directory does not exist")


def open_disk(spec: str) -> FileImage:
    """Open PATH[,MODE] as a disk.

    Raises:
        GuestFileError: an unknown mode.
        ImageError: the file cannot be used.
    """
    path, comma, word = spec.rpartition(",")
    modes = {"cow": ImageMode.COPY_ON_WRITE, "ro": ImageMode.READ_ONLY, "rw": ImageMode.WRITE_THROUGH}
    if not comma:
        return FileImage(spec)
    if word not in modes:
        raise GuestFileError(f"disk {spec}: mode {word!r}; possible are {', '.join(modes)} (default cow)")
    return FileImage(path, modes[word])


class Streams:
    """The host's ends of a run: serial ports and the debug port."""

    def __init__(self, options: GuestOptions, stack: ExitStack) -> None:
        if options.screen and "stdio" in (options.serial, options.serial2):
            raise GuestFileError("--screen and a serial port on stdio cannot share the terminal")
        self.copy = BufferedTap()
        self.inputs: list[HostChar] = []
        self.serial = [self._open(spec, stack) for spec in (options.serial, options.serial2)]
        self._debug = stack.enter_context(FileChar(options.debug)) if options.debug else None
        self._on_command: Callable[[str], None] | None = None

    def _open(self, spec: str, stack: ExitStack) -> TeeChar:
        stream = stack.enter_context(open_serial(spec, self.command))
        path = getattr(stream, "path", None)
        if path:
            warn(f"serial port on {path}")
        self.inputs.append(stream)
        return TeeChar(stream, self.copy)

    def on_debug(self, data: bytes) -> None:
        """What firmware writes to its debug port."""
        if self._debug:
            self._debug.send(data)

    def command(self, key: str) -> None:
        """The key after Ctrl-A."""
        if self._on_command:
            self._on_command(key)

    def connect(self, machine: Machine) -> None:
        """Let the machine poll the inputs, and Ctrl-A x end it."""
        machine.inputs += self.inputs
        self._on_command = command_handler(machine)


class BufferedTap(BufferedChar):
    """A copy of what the serial ports send, for `--when` and `--until`."""

    def __init__(self) -> None:
        super().__init__()
        self.listener: Callable[[bytes], None] | None = None

    def send(self, data: bytes) -> None:
        if self.listener:
            self.listener(data)


def command_handler(machine: Machine) -> Callable[[str], None]:
    """Commands to the host: x leaves, r resets."""

    def handle(key: str) -> None:
        if key == "x":
            machine.request_stop(Outcome(End.INTERRUPTED))
        elif key == "r":
            machine.request_reset("Ctrl-A r")

    return handle


@contextmanager
def open_streams(options: GuestOptions) -> Iterator[tuple[Streams, ExitStack]]:
    """The streams of a run, closed at its end."""
    with ExitStack() as stack:
        yield Streams(options, stack), stack


def run_guest(machine: PcLike, options: GuestOptions, streams: Streams) -> Outcome:
    """Run a machine with the front end that the options ask for; say how it ended on standard error."""
    machine.on_message = warn
    machine.reset_limit = 0 if options.no_reboot else None
    streams.connect(machine)
    check_steps(options.when)
    if sys.stdin.isatty():
        warn("Ctrl-A x ends the machine, Ctrl-A r resets it")
    with recorded(machine, options.trace, options.trace_filter), watchable(machine, options.live):
        # made while recording: its timer is the host's, not the board's, and no event of the trace
        script = Script(machine, options.when, options.until)
        streams.copy.listener = script.saw_serial
        outcome = _run(machine, options)
    if options.screenshot:
        _save_screen(machine, Path(options.screenshot))
    if options.save_state:
        paused.save(machine, Path(options.save_state))
    warn(str(outcome))
    return outcome


def _run(machine: PcLike, options: GuestOptions) -> Outcome:
    if not options.screen:
        return machine.run(options.timeout)
    with ScreenConsole(machine, command_handler(machine)) as console:
        machine.inputs.append(console)
        return machine.run(options.timeout)


def _save_screen(machine: PcLike, path: Path) -> None:
    if path.suffix == ".png":
        machine.screen.picture().save(path)
        return
    text = "\n".join(line.rstrip() for line in machine.screen.text()).rstrip() + "\n"
    partial = path.with_name(path.name + ".part")
    partial.write_text(text)
    partial.replace(path)
