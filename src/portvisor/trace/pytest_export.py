"""A stretch of a trace as a pytest file: one device, what was done to it, and what it has to answer.

The test builds the board on an engine without a CPU, puts the device and its companions (chips that hold it or that
it holds, such as the speaker port and the timer) into the state in which the stretch finds them, and does the
stretch again. Events of other devices are left out.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MethodType
from typing import Any

from portvisor.devices.pci.bus import PciBus
from portvisor.devices.pci.host import PciHost
from portvisor.machines.machine import Machine
from portvisor.ports import Device, IrqLine, SharedIrq
from portvisor.trace.effects import FAILED, MEMORY, READ
from portvisor.trace.errors import TraceError
from portvisor.trace.host import host_calls
from portvisor.trace.reader import Trace
from portvisor.trace.replay import Replay, describe_effects, effects_of, events, is_answer, with_machine
from portvisor.trace.schema import MMIO_DATA
from portvisor.trace.source_code import SourceWriter, bytes_source

STATEMENTS_MAX = 20_000
DATA_MAX = 1 << 20
BULKY_OPTIONS = {"vga_bios": "fw_cfg", "records": "erst"}
"""Options that only one device looks at."""
INDENT = 4
Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Record numbers, both included."""

    first: int = 0
    last: int | None = None

    def has(self, number: int) -> bool:
        return number >= self.first and (self.last is None or number <= self.last)


@dataclass(frozen=True, slots=True)
class ExportedTest:
    """What was written."""

    events: int
    checks: int
    failure: str | None
    """Why the test fails with the present device; None if it passes."""


def export_pytest(
    trace: Trace, device: str, stretch: Stretch, path: Path, machine: str | None = None
) -> ExportedTest:
    """Write the test, and run it once.

    Raises:
        TraceError: the stretch is empty or too long, or a state cannot be written.
        OSError: the file cannot be written.
    """
    writer = _TestWriter(trace, device, stretch, machine)
    text = writer.text()
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
    return ExportedTest(writer.events, writer.checks, _run(text, writer.function))


def _run(text: str, function: str) -> str | None:
    """The failure of the test, if it has one."""
    names: dict[str, Any] = {}
    exec(compile(text, "exported test", "exec"), names)
    try:
        names[function]()
    except AssertionError as error:
        frame = error.__traceback__
        while frame and frame.tb_next and frame.tb_next.tb_frame.f_code.co_filename == "exported test":
            frame = frame.tb_next
        line = text.splitlines()[frame.tb_lineno - 1].strip() if frame else ""
        return f"{line}: {error}" if str(error) else line
    return None


class _TestWriter:
    """Replays the trace, and writes the statements of a stretch."""

    def __init__(self, trace: Trace, device: str, stretch: Stretch, machine: str | None) -> None:
        self._trace, self._name, self._stretch = trace, device, stretch
        self._metadata = with_machine(trace.metadata, machine)
        self._is_foreign = self._metadata.source != "portvisor"
        self._replay = Replay(self._metadata, device)
        self._machine = self._replay.machine
        self._companions = companions(self._machine, device)
        self._reach = {id(thing) for one in self._companions for thing in reachable(one, self._machine)}
        here = {id(one) for one in self._companions}
        self._whole = {
            id(one)
            for one in self._companions
            if one.name == device or here >= {id(other) for other in companions(self._machine, one.name)}
        }
        """Devices all of whose companions are here: their answers are checked."""
        self._source = SourceWriter()
        self._lines: list[str] = []
        self._data = 0
        self.events = self.checks = 0
        self.function = f"test_{''.join(c if c.isalnum() else '_' for c in device)}"

    def text(self) -> str:
        """The whole file."""
        setup: list[str] | None = None
        for record, pieces in events(self._trace.records()):
            if self._stretch.last is not None and record["seq"] > self._stretch.last:
                break
            if self._stretch.has(record["seq"]):
                setup = self._setup() if setup is None else setup
                self._replay.clock.rewind(record["time"])
                self._event(record, pieces)
            self._replay.event(record, pieces)
        if not self.events:
            raise TraceError(f"{self._trace.path}: no event of {self._name} between these records")
        return self._file(setup or [])

    def _file(self, setup: list[str]) -> str:
        last = "the end" if self._stretch.last is None else f"{self._stretch.last:,}"
        stretch = f"{self._stretch.first:,} to {last}"
        options = {
            key: value
            for key, value in self._metadata.options.items()
            if key not in BULKY_OPTIONS or any(one.name == BULKY_OPTIONS[key] for one in self._companions)
        }
        made = f'"{self._metadata.machine}", {self._source.expression(options, INDENT)}'
        if self._is_foreign:
            made += ", strict=False"
        self._source.imports.setdefault("portvisor.testing.playback", set()).add("Playback")
        head = [
            f'"""{_note(self._name, "of machine", self._metadata.machine)}: records {stretch} of a trace.',
            "",
            "Times are nanoseconds of the guest's clock. Exported by portvisor replay --pytest.",
            '"""',
            "",
            *self._source.import_lines(),
            "",
            "",
            f"def {self.function}() -> None:",
        ]
        body = [f"board = Playback({made})", *setup, *self._lines]
        return "\n".join([*head, *(" " * INDENT + line for line in body)]) + "\n"

    def _setup(self) -> list[str]:
        """States of the device and its companions; none are needed where the trace begins."""
        if not self._replay.result.events:
            return []
        return [
            f'board.restore("{one.name}", {self._source.expression(one.snapshot().state, INDENT)})'
            for one in self._companions
            if one.state != type(one).State() or one.name == self._name
        ]

    # --- events -------------------------------------------------------------------------------------------

    def _event(self, record: Record, pieces: list[Record]) -> None:
        statement = self._statement(record)
        if statement is None:
            self._wires(record, pieces)
            return
        self.events += 1
        if len(self._lines) > STATEMENTS_MAX or self._data > DATA_MAX:
            raise TraceError(f"{self._name} has too many events for one test; give --from and --to")
        self._lines += [
            self._given(piece) for piece in pieces if piece["kind"] in ("dma", "disk") and is_answer(piece)
        ]
        self._lines.append(statement)
        seen = describe_effects(effects_of(pieces))
        if seen and not self._is_foreign:
            self.checks += 1
            self._lines.append(f"assert board.effects() == {self._source.expression(seen, INDENT)}")

    def _wires(self, record: Record, pieces: list[Record]) -> None:
        """What others do to the interrupt controllers, if it is these that are tested."""
        if any(one is self._machine.chips.pic for one in self._companions):
            edges = [piece for piece in pieces if piece["kind"] == "irq"]
            self._lines += [
                f"board.wire({record['time']:_}, {int(piece['device'].removeprefix('IRQ'))}, {piece['value']})"
                for piece in edges
            ]

    def _given(self, piece: Record) -> str:
        """What memory or an image has for the device."""
        where, name, data = piece["value"], piece["register"], bytes(piece["data"] or b"")
        if piece["device"] == MEMORY:
            self._data += len(data)
            return f"board.memory({where:#x}, {bytes_source(data, INDENT)})"
        if name.endswith(FAILED):
            return f"board.image_fails({piece['device']!r}, {where}, {name.removesuffix(FAILED)!r})"
        if name != READ:
            return f"# {_note(piece['device'], name)} at {where:#x}"
        self._data += len(data)
        return f"board.image({piece['device']!r}, {where}, {bytes_source(data, INDENT)})"

    def _statement(self, record: Record) -> str | None:
        """What does the event again; None if it is of other devices."""
        kind, time = record["kind"], f"{record['time']:_}"
        if record["port"] is not None:
            return self._access(record, time) if self._owns_port(record) else None
        if kind in ("mmio_in", "mmio_out"):
            return self._mapped(record, time)
        if kind == "timer":
            return f"board.expire({time}, {record['device']!r})" if self._owns_timer(record["device"]) else None
        if kind == "ack":
            if not any(one is self._machine.chips.pic for one in self._companions):
                return None
            return self._checked(record, f"board.acknowledge({time})", f"{record['value']:#04x}", "INTA")
        if kind == "input":
            return self._host_input(record, time)
        return f"board.reset({time})" if kind == "reset" else None

    def _access(self, record: Record, time: str) -> str:
        port, size = f"{record['port']:#06x}", record["size"]
        owner = self._machine.ports.owner(record["port"], record["size"])
        register = record["register"]
        if not register and owner:
            register = owner.device.register_name(owner.offset, size, record["kind"] in ("out", "outs"))
        note = _note(record["device"] or (owner.device.name if owner else ""), register)
        value = f"{record['value']:#0{2 + 2 * size}x}"
        if record["kind"] == "out":
            return f"board.write({time}, {port}, {size}, {value})  # {note}"
        if record["kind"] == "in":
            return self._checked(record, f"board.read({time}, {port}, {size})", value, note)
        data = bytes(record["data"] or b"")
        self._data += len(data)
        if record["kind"] == "outs":
            return f"# {note}\n    board.write_block({time}, {port}, {size}, {bytes_source(data, INDENT)})"
        call = f"board.read_block({time}, {port}, {size}, {record['count']})"
        return self._checked(record, call, bytes_source(data, INDENT) if data else None, note)

    def _mapped(self, record: Record, time: str) -> str | None:
        address, value = MMIO_DATA.unpack(record["data"])
        window = self._machine.mmio.find(address)
        if window is None or id(window.handler) not in self._reach:
            return None
        note = _note(record["device"], record["register"])
        size = record["size"]
        if record["kind"] == "mmio_out":
            return f"board.mmio_write({time}, {address:#x}, {size}, {value:#x})  # {note}"
        return self._checked(record, f"board.mmio_read({time}, {address:#x}, {size})", f"{value:#x}", note)

    def _checked(self, record: Record, call: str, expected: str | None, note: str) -> str:
        """An assertion if the answer is the device's own and known; companions are only asked."""
        if expected is None or not self._is_own(record):
            return f"{call}  # {note}"
        self.checks += 1
        if "\n" in expected:
            return f"# {note}\n    assert {call} == {expected}"
        return f"assert {call} == {expected}  # {note}"

    def _host_input(self, record: Record, time: str) -> str | None:
        wanted = (record["device"], record["register"])
        calls = host_calls(self._machine)
        owner = next((one for name, call, one in calls if (name, call) == wanted), None)
        if owner is None or id(owner) not in self._reach:
            return None
        positional, named = json.loads(record["data"] or b"[[], {}]")
        arguments = [_argument(one) for one in positional] + [
            f"{key}={_argument(one)}" for key, one in named.items()
        ]
        call = f'"{record["device"]}", "{record["register"]}"'
        return f"board.host({', '.join([time, call, *arguments])})"

    # --- whose it is ----------------------------------------------------------------------------------------

    def _owners(self, record: Record) -> Iterator[Device]:
        """Who serves an access, byte by byte if it is split."""
        space, port, size = self._machine.ports, record["port"], record["size"]
        whole = space.owner(port, size)
        if whole is not None:
            yield whole.device
            return
        for byte in range(size):
            owner = space.owner(port + byte) if port + byte < 0x10000 else None
            if owner is not None:
                yield owner.device

    def _owns_port(self, record: Record) -> bool:
        return any(one is companion for one in self._owners(record) for companion in self._companions)

    def _is_own(self, record: Record) -> bool:
        if record["port"] is None:
            return True
        return all(id(one) in self._whole for one in self._owners(record))

    def _owns_timer(self, name: str) -> bool:
        timer = self._replay.clock.due(name)
        return timer is not None and id(getattr(timer._callback, "__self__", None)) in self._reach


def _note(*words: str) -> str:
    """A comment: whatever a file calls a register, it stays one."""
    return "".join(c for c in " ".join(word for word in words if word) if c.isprintable() and c not in '"\\')


def _argument(value: Any) -> str:
    if isinstance(value, dict) and "hex" in value:
        return bytes_source(bytes.fromhex(value["hex"]))
    if isinstance(value, dict):
        raise TraceError("a disc is changed in this stretch: that cannot be written as a test")
    return repr(value)


def companions(machine: Machine, name: str) -> list[Device]:
    """The device, then those that hold it and those that it holds."""
    device = next(one for one in machine.devices if one.name == name)
    held = {id(one) for one in reachable(device, machine)}
    others = [
        one
        for one in machine.devices
        if one is not device and (id(one) in held or any(thing is device for thing in reachable(one, machine)))
    ]
    return [device, *others]


def reachable(device: Device, machine: Machine) -> list[object]:
    """Objects of `portvisor.devices` that a device consists of or holds, itself included.

    Other devices of the board are named, but not looked into.
    """
    board = {id(one) for one in machine.devices}
    found: dict[int, object] = {}
    waiting: list[object] = [device]
    while waiting:
        thing = waiting.pop()
        if isinstance(thing, MethodType):
            thing = thing.__self__
        if id(thing) in found:
            continue
        if isinstance(thing, PciBus) and not isinstance(device, PciHost):
            continue  # what else sits on a function's bus is no part of it
        if isinstance(thing, list | tuple):
            waiting += thing
        elif isinstance(thing, dict):
            waiting += thing.values()
        elif type(thing).__module__.startswith("portvisor.devices") and not isinstance(thing, IrqLine | SharedIrq):
            found[id(thing)] = thing
            if thing is device or id(thing) not in board:
                waiting += _parts(thing)
    return list(found.values())


def _parts(thing: object) -> Sequence[object]:
    slots = [getattr(thing, name, None) for kind in type(thing).__mro__ for name in getattr(kind, "__slots__", ())]
    return [*getattr(thing, "__dict__", {}).values(), *slots]
