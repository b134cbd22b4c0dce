"""What differs between two traces, device by device, however often they polled and whatever the time was.

Each device's accesses become a sequence of steps: kind, port, register, value. Repeats of the same read are one
step: a guest that polls a register sees some values once or a thousand times. Sequences are aligned by their
longest common blocks; what is left over is the difference.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import SequenceMatcher

from portvisor.trace.reader import Trace

STEPS_COMPARED = 20_000
"""Steps of one device that are aligned at most; the rest is compared as counts only."""
CHUNK = 2000
"""Steps aligned at a time: the effort grows with the square."""
HUNKS_KEPT = 20


@dataclass(frozen=True, slots=True)
class Step:
    """One access."""

    kind: str
    port: int
    value: int | str
    """Of a block the data in hexadecimal."""
    register: str = field(compare=False)
    """Not compared: a log of another system is named after the ports, not after what they stand for now."""


@dataclass(frozen=True, slots=True)
class Hunk:
    """Steps of one trace in place of steps of the other."""

    left: tuple[Step, ...]
    right: tuple[Step, ...]
    position: int
    """Index of the first step in the left trace's sequence."""


@dataclass(slots=True)
class DeviceDiff:
    """One device in both traces."""

    device: str
    left_accesses: int = 0
    right_accesses: int = 0
    left_steps: int = 0
    right_steps: int = 0
    equal: int = 0
    hunks: list[Hunk] = field(default_factory=list)
    hunk_count: int = 0
    cut: bool = False

    @property
    def differs(self) -> bool:
        """Whether the steps are not the same."""
        return self.hunk_count > 0 or self.left_steps != self.right_steps


@dataclass(slots=True)
class _Sequence:
    steps: list[Step] = field(default_factory=list)
    accesses: int = 0
    total: int = 0
    seen: set[Step] = field(default_factory=set)
    """Reads since the last step that was no read: polling goes through the same few again and again."""

    def add(self, step: Step, is_read: bool) -> None:
        self.accesses += 1
        if is_read:
            if step in self.seen:
                return
            self.seen.add(step)
        else:
            self.seen.clear()
        self.total += 1
        if len(self.steps) < STEPS_COMPARED:
            self.steps.append(step)


def _sequences(trace: Trace) -> dict[str, _Sequence]:
    found: dict[str, _Sequence] = {}
    columns = ["kind", "port", "value", "data", "device", "register", "depth"]
    for batch in trace.batches(columns):
        for kind, port, value, data, device, register in _accesses(batch):
            step = Step(kind, port, data.hex() if data is not None else value, register)
            found.setdefault(device or "(nobody)", _Sequence()).add(step, kind in ("in", "ins"))
    return found


def _accesses(batch: object) -> Iterator[tuple[str, int, int, bytes | None, str, str]]:
    import pyarrow as pa

    assert isinstance(batch, pa.RecordBatch)
    plain = [
        column.dictionary_decode() if pa.types.is_dictionary(column.type) else column for column in batch.columns
    ]
    for kind, port, value, data, device, register, depth in zip(*(one.to_pylist() for one in plain), strict=True):
        if port is not None and depth == 0:
            yield kind, port, value, data, device, register


def compare(left: Trace, right: Trace) -> list[DeviceDiff]:
    """Both traces' devices, those that differ first.

    Raises:
        TraceError: a file is damaged.
    """
    ours, theirs = _sequences(left), _sequences(right)
    found = [
        _compare(name, ours.get(name, _Sequence()), theirs.get(name, _Sequence())) for name in {*ours, *theirs}
    ]
    return sorted(found, key=lambda one: (not one.differs, -(one.left_accesses + one.right_accesses), one.device))


def _compare(device: str, left: _Sequence, right: _Sequence) -> DeviceDiff:
    result = DeviceDiff(device, left.accesses, right.accesses, left.total, right.total)
    result.cut = max(left.total, right.total) > STEPS_COMPARED
    a, b = left.steps, right.steps
    start_a = start_b = 0
    while start_a < len(a) or start_b < len(b):
        start_a, start_b = _align(result, a, b, start_a, start_b)
    return result


def _align(result: DeviceDiff, a: list[Step], b: list[Step], start_a: int, start_b: int) -> tuple[int, int]:
    """Align one chunk of both; where the next one starts."""
    same = 0
    for x, y in zip(a[start_a:], b[start_b:], strict=False):
        if x != y:
            break
        same += 1
    if same:
        result.equal += same
        return start_a + same, start_b + same
    part_a, part_b = a[start_a : start_a + CHUNK], b[start_b : start_b + CHUNK]
    last_a, last_b = start_a + CHUNK >= len(a), start_b + CHUNK >= len(b)
    codes = SequenceMatcher(None, part_a, part_b, autojunk=False).get_opcodes()
    if not (last_a and last_b) and len(codes) > 1 and codes[-1][0] != "equal":
        codes.pop()
    for tag, a1, a2, b1, b2 in codes:
        if tag == "equal":
            result.equal += a2 - a1
            continue
        result.hunk_count += 1
        if len(result.hunks) < HUNKS_KEPT:
            result.hunks.append(Hunk(tuple(part_a[a1:a2]), tuple(part_b[b1:b2]), start_a + a1))
    return start_a + codes[-1][2], start_b + codes[-1][4]


def describe_step(step: Step) -> str:
    """One line for a person."""
    kind, port, register, value = step.kind, step.port, step.register, step.value
    shown = f"{value:#x}" if isinstance(value, int) else f"{len(value) // 2} bytes {value[:24]}"
    return f"{kind} {port:04x} {register} {shown}".replace("  ", " ")
