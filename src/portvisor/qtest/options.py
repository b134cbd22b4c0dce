"""QEMU's command line, as far as a machine driven over qtest needs it; anything else is refused by name."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from uuid import UUID

MACHINE_ALIASES = {"pc": "pc", "q35": "q35", "none": "none"}
DEFAULT_MEMORY = 128 << 20
UNITS = {"": 1 << 20, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SIZE = re.compile(r"([0-9]{1,12})([BKMG]?)", re.IGNORECASE | re.ASCII)
BOOT_LETTERS = {"a": "floppy", "b": "floppy", "c": "disk", "d": "cdrom", "n": "network"}
WATCHDOG_ACTIONS = ("reset", "shutdown", "poweroff", "inject-nmi", "pause", "debug", "none")


class OptionError(ValueError):
    """The command line is refused; the text is one line that names what is wrong."""


class Properties:
    """`driver,name=value,...`; a comma in a value is doubled. What nobody asked for is refused at `finish`."""

    def __init__(self, text: str, option: str, implied: str = "") -> None:
        self.option, self.text = option, text
        parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
        self.values: dict[str, str] = {}
        for index, part in enumerate(parts):
            name, equals, value = part.partition("=")
            if not equals and index == 0 and implied:
                name, value = implied, part
            elif not equals:
                value = "on"
            self.values[name] = value
        self._asked: set[str] = set()

    def get(self, name: str, default: str = "") -> str:
        """A property's text."""
        self._asked.add(name)
        return self.values.get(name, default)

    def need(self, name: str) -> str:
        """A property that must be there.

        Raises:
            OptionError: it is not.
        """
        if name not in self.values:
            raise OptionError(f"{self.option} {self.text}: '{name}' is missing")
        return self.get(name)

    def number(self, name: str, default: int, most: int = 0xFFFF) -> int:
        """A property that is a number from 0 to `most`, as a C literal."""
        text = self.get(name)
        if not text:
            return default
        try:
            value = int(text, 0)
        except ValueError:
            raise self.invalid(name) from None
        if not 0 <= value <= most:
            raise self.invalid(name)
        return value

    def flag(self, name: str, default: bool) -> bool:
        """A property that is on or off."""
        text = self.get(name, "on" if default else "off")
        if text not in ("on", "off", "true", "false", "yes", "no"):
            raise self.invalid(name)
        return text in ("on", "true", "yes")

    def invalid(self, name: str) -> OptionError:
        """The error for a value that a property cannot have."""
        return OptionError(f"{self.option} {self.text}: '{name}' cannot be '{self.values[name]}'")

    def finish(self) -> None:
        """Refuse what nobody asked for.

        Raises:
            OptionError: there is such a property.
        """
        for name in self.values:
            if name not in self._asked:
                raise OptionError(f"{self.option} {self.text}: Property '{name}' not found")


@dataclass
class Options:
    """What the command line says."""

    machine: str = "pc"
    memory: int = DEFAULT_MEMORY
    qtest: str | None = None
    """Path of the client's qtest socket."""
    qmp: list[str] = field(default_factory=list)
    """Paths of the client's QMP sockets."""
    qtest_log: str | None = None
    """A file; None for standard error."""
    devices: list[Properties] = field(default_factory=list)
    drives: list[Properties] = field(default_factory=list)
    chardevs: dict[str, Properties] = field(default_factory=dict)
    monitors: list[Properties] = field(default_factory=list)
    globals: list[tuple[str, str, str]] = field(default_factory=list)
    """Driver, property and value of each -global."""
    serial: list[str] = field(default_factory=list)
    defaults: bool = True
    stopped: bool = False
    no_reboot: bool = False
    no_shutdown: bool = False
    watchdog_action: str = "reset"
    name: str = ""
    uuid: str = str(UUID(int=0))
    boot: tuple[str, ...] = ("disk", "cdrom", "network")
    base_time: float = field(default_factory=time.time)


def parse_size(text: str) -> int:
    """Bytes from QEMU's notation; a bare number is in MiB.

    Raises:
        OptionError: it is no size.
    """
    match = SIZE.fullmatch(text)
    if not match:
        raise OptionError(f"-m {text}: not a size")
    return int(match[1]) * UNITS[match[2].upper()]


def _unix_path(text: str, option: str) -> str:
    """The path of unix:PATH for which we are the client."""
    head, _, rest = text.partition(",")
    if not head.startswith("unix:") or len(head) == len("unix:"):
        raise OptionError(f"{option} {text}: only unix:PATH is possible")
    if rest not in ("", "server=off", "nowait", "wait=off"):
        raise OptionError(f"{option} {text}: '{rest}' is not possible: the client listens, not the machine")
    return head[len("unix:") :]


def _machine(options: Options, text: str) -> None:
    properties = Properties(text, "-machine", "type")
    name = properties.get("type", options.machine)
    if name not in MACHINE_ALIASES:
        raise OptionError(f"-machine {name}: unsupported machine type; there are {', '.join(MACHINE_ALIASES)}")
    options.machine = MACHINE_ALIASES[name]
    if "accel" in properties.values:
        _accel(options, properties.get("accel"))
    properties.finish()


def _accel(_options: Options, text: str) -> None:
    if text != "qtest":
        raise OptionError(f"-accel {text}: invalid accelerator; there is only qtest")


def _memory(options: Options, text: str) -> None:
    properties = Properties(text, "-m", "size")
    options.memory = parse_size(properties.need("size"))
    properties.finish()


def _display(_options: Options, text: str) -> None:
    if text != "none":
        raise OptionError(f"-display {text}: only none is possible")


def _vga(_options: Options, text: str) -> None:
    if text != "none":
        raise OptionError(f"-vga {text}: only none is possible; -device isa-vga adds the adapter")


def _nothing_but_none(option: str) -> Callable[[Options, str], None]:
    def check(_options: Options, text: str) -> None:
        if text != "none":
            raise OptionError(f"{option} {text}: only none is possible")

    return check


def _rtc(options: Options, text: str) -> None:
    properties = Properties(text, "-rtc", "base")
    base = properties.get("base", "utc")
    if base in ("utc", "localtime"):
        now = time.time()
        offset = datetime.fromtimestamp(now).astimezone().utcoffset() if base == "localtime" else None
        options.base_time = now + (offset.total_seconds() if offset else 0)
    else:
        try:
            options.base_time = datetime.fromisoformat(base).replace(tzinfo=UTC).timestamp()
        except ValueError:
            raise OptionError(f"-rtc {text}: invalid datetime format") from None
    if properties.get("clock", "vm") not in ("vm", "host", "rt"):
        raise properties.invalid("clock")
    if properties.get("driftfix", "none") not in ("none", "slew"):
        raise properties.invalid("driftfix")
    properties.finish()


def _boot(options: Options, text: str) -> None:
    properties = Properties(text, "-boot", "order")
    order = properties.get("order", "cd")
    for name in ("once", "menu", "splash", "splash-time", "reboot-timeout", "strict"):
        if name in properties.values and name != "strict":
            raise OptionError(f"-boot {text}: '{name}' is not possible")
    properties.flag("strict", False)
    try:
        options.boot = tuple(BOOT_LETTERS[letter] for letter in order[:3])
    except KeyError as error:
        raise OptionError(f"-boot {text}: invalid boot device '{error.args[0]}'") from None
    properties.finish()


def _uuid(options: Options, text: str) -> None:
    try:
        options.uuid = str(UUID(text))
    except ValueError:
        raise OptionError(f"-uuid {text}: wrong format") from None


def _name(options: Options, text: str) -> None:
    properties = Properties(text, "-name", "guest")
    options.name = properties.get("guest")
    properties.get("process")
    properties.finish()


def _global(options: Options, text: str) -> None:
    name, equals, value = text.partition("=")
    driver, dot, key = name.rpartition(".")
    if not equals or not dot:
        raise OptionError(f"-global {text}: write DRIVER.PROPERTY=VALUE")
    options.globals.append((driver, key, value))


def _chardev(options: Options, text: str) -> None:
    properties = Properties(text, "-chardev", "backend")
    identity = properties.need("id")
    if identity in options.chardevs:
        raise OptionError(f"-chardev {text}: Duplicate ID '{identity}'")
    options.chardevs[identity] = properties


def _watchdog_action(options: Options, text: str) -> None:
    if text not in WATCHDOG_ACTIONS:
        raise OptionError(f"-watchdog-action {text}: unknown action")
    if text in ("inject-nmi", "debug"):
        raise OptionError(f"-watchdog-action {text}: not possible here")
    options.watchdog_action = text


def _action(options: Options, text: str) -> None:
    properties = Properties(text, "-action")
    if "watchdog" in properties.values:
        _watchdog_action(options, properties.get("watchdog"))
    properties.finish()


def _qtest_log(options: Options, text: str) -> None:
    options.qtest_log = "/dev/null" if text == "none" else text


def _drive(place: str) -> Callable[[Options, str], None]:
    def add(options: Options, text: str) -> None:
        escaped = text.replace(",", ",,")
        options.drives.append(Properties(f"file={escaped},{place}", "-drive"))

    return add


VALUES: dict[str, Callable[[Options, str], None]] = {
    "M": _machine,
    "machine": _machine,
    "accel": _accel,
    "m": _memory,
    "qtest": lambda options, text: setattr(options, "qtest", _unix_path(text, "-qtest")),
    "qtest-log": _qtest_log,
    "qmp": lambda options, text: options.qmp.append(_unix_path(text, "-qmp")),
    "chardev": _chardev,
    "mon": lambda options, text: options.monitors.append(Properties(text, "-mon", "chardev")),
    "monitor": _nothing_but_none("-monitor"),
    "display": _display,
    "vga": _vga,
    "net": _nothing_but_none("-net"),
    "nic": _nothing_but_none("-nic"),
    "parallel": _nothing_but_none("-parallel"),
    "serial": lambda options, text: options.serial.append(text),
    "device": lambda options, text: options.devices.append(Properties(text, "-device", "driver")),
    "drive": lambda options, text: options.drives.append(Properties(text, "-drive")),
    "hda": _drive("if=ide,index=0"),
    "hdb": _drive("if=ide,index=1"),
    "hdc": _drive("if=ide,index=2"),
    "hdd": _drive("if=ide,index=3"),
    "cdrom": _drive("if=ide,index=2,media=cdrom"),
    "fda": _drive("if=floppy,index=0"),
    "fdb": _drive("if=floppy,index=1"),
    "rtc": _rtc,
    "boot": _boot,
    "uuid": _uuid,
    "name": _name,
    "global": _global,
    "watchdog-action": _watchdog_action,
    "action": _action,
}
"""Options with a value."""

FLAGS: dict[str, Callable[[Options], None]] = {
    "S": lambda options: setattr(options, "stopped", True),
    "nodefaults": lambda options: setattr(options, "defaults", False),
    "no-reboot": lambda options: setattr(options, "no_reboot", True),
    "no-shutdown": lambda options: setattr(options, "no_shutdown", True),
    "no-user-config": lambda options: None,
    "no-hpet": lambda options: None,
}
"""Options without."""


def parse(arguments: Sequence[str]) -> Options:
    """The options of a command line.

    Raises:
        OptionError: something in it is unknown or impossible.
    """
    options = Options()
    words = iter(arguments)
    for word in words:
        name = word.removeprefix("-").removeprefix("-") if word.startswith("-") else ""
        if name in FLAGS:
            FLAGS[name](options)
        elif name in VALUES:
            value = next(words, None)
            if value is None:
                raise OptionError(f"{word}: requires an argument")
            VALUES[name](options, value)
        elif name:
            raise OptionError(f"{word}: invalid option")
        else:
            raise OptionError(f"{word!r}: disk images are given with -drive")
    _connect_monitors(options)
    _apply_globals(options)
    return options


def _connect_monitors(options: Options) -> None:
    for monitor in options.monitors:
        identity = monitor.need("chardev")
        if monitor.get("mode", "control") != "control":
            raise monitor.invalid("mode")
        monitor.get("pretty")
        monitor.finish()
        chardev = options.chardevs.pop(identity, None)
        if chardev is None:
            raise OptionError(f"-mon {monitor.text}: chardev '{identity}' not found")
        chardev.get("id")
        if chardev.get("backend") != "socket":
            raise chardev.invalid("backend")
        if chardev.flag("server", False):
            raise chardev.invalid("server")
        options.qmp.append(chardev.need("path"))
        chardev.finish()


def _apply_globals(options: Options) -> None:
    """A -global is a default for the devices of its driver; one that nothing takes is refused."""
    for driver, key, value in options.globals:
        takers = [device for device in options.devices if device.get("driver") == driver]
        if not takers:
            raise OptionError(f"-global {driver}.{key}={value}: no such device here takes it")
        for device in takers:
            device.values.setdefault(key, value)
