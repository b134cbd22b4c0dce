"""Python source for values: device states and options of boards, so that a person can read and change them."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from typing import Any

from portvisor.trace.errors import TraceError

WIDTH = 100
BYTES_A_LINE = 40
PLAIN = (int, float, str, bool, type(None))


class SourceWriter:
    """Collects the imports that the expressions need."""

    def __init__(self) -> None:
        self.imports: dict[str, set[str]] = {}

    def import_lines(self) -> list[str]:
        """`from module import name, ...`, sorted."""
        return [
            f"from {module} import {', '.join(sorted(names))}" for module, names in sorted(self.imports.items())
        ]

    def expression(self, value: Any, indent: int = 0) -> str:
        """Source that evaluates to an equal value; broken into lines where it is long.

        Raises:
            TraceError: a value has no source.
        """
        if isinstance(value, bytes | bytearray):
            text = bytes_source(bytes(value), indent)
            return f"bytearray({text})" if isinstance(value, bytearray) else text
        if isinstance(value, Enum):
            return self._enum(value)
        if isinstance(value, str):
            return json.dumps(value)
        if type(value) in PLAIN:
            return repr(value)
        if is_dataclass(value) and not isinstance(value, type):
            return self._call(self._name(type(value)), self._arguments(value, indent), indent)
        if isinstance(value, dict):
            inner = [f"{self.expression(k)}: {self.expression(v, indent + 4)}" for k, v in value.items()]
            return _bracketed("{", inner, "}", indent)
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return self._call(self._name(type(value)), [self.expression(one, indent + 4) for one in value], indent)
        if isinstance(value, list | tuple | set | frozenset | deque):
            return self._sequence(value, indent)
        raise TraceError(f"a value of type {type(value).__name__} cannot be written as source")

    def _name(self, kind: type) -> str:
        self.imports.setdefault(kind.__module__, set()).add(kind.__qualname__.partition(".")[0])
        return kind.__qualname__

    def _enum(self, value: Enum) -> str:
        name = self._name(type(value))
        return f"{name}.{value.name}" if value.name and "|" not in value.name else f"{name}({value.value!r})"

    def _arguments(self, value: Any, indent: int) -> list[str]:
        """Fields that are not as a new object has them."""
        return [
            f"{one.name}={self.expression(getattr(value, one.name), indent + 4)}"
            for one in fields(value)
            if one.init and not _is_default(one, getattr(value, one.name))
        ]

    def _call(self, name: str, arguments: Sequence[str], indent: int) -> str:
        return _bracketed(f"{name}(", arguments, ")", indent)

    def _sequence(self, value: Any, indent: int) -> str:
        items = list(value)
        if len(items) > 8 and all(one == items[0] and type(one) in PLAIN for one in items):
            repeated = f"[{self.expression(items[0])}] * {len(items)}"
            return repeated if isinstance(value, list) else f"{type(value).__name__}({repeated})"
        inner = [self.expression(one, indent + 4) for one in items]
        if isinstance(value, list):
            return _bracketed("[", inner, "]", indent)
        if isinstance(value, tuple):
            return _bracketed("(", [*inner[:-1], inner[-1] + ","] if len(inner) == 1 else inner, ")", indent)
        if isinstance(value, deque):
            self._name(deque)
        return f"{type(value).__name__}({_bracketed('[', inner, ']', indent)})"


def _is_default(one: Field[Any], value: Any) -> bool:
    if one.default is not MISSING:
        return bool(one.default == value)
    return one.default_factory is not MISSING and bool(one.default_factory() == value)


def _bracketed(start: str, items: Sequence[str], end: str, indent: int) -> str:
    flat = start + ", ".join(items) + end
    if len(flat) + indent <= WIDTH and "\n" not in flat:
        return flat
    if all(len(item) < 12 and "\n" not in item for item in items):
        return start + "\n" + _filled(items, indent + 4) + "\n" + " " * indent + end
    margin = "\n" + " " * (indent + 4)
    return start + margin + f",{margin}".join(item.rstrip(",") for item in items) + ",\n" + " " * indent + end


def _filled(items: Sequence[str], indent: int) -> str:
    """Short items, as many on a line as fit."""
    lines, line = [], " " * indent
    for item in items:
        if len(line) + len(item) + 2 > WIDTH:
            lines.append(line.rstrip())
            line = " " * indent
        line += item.rstrip(",") + ", "
    return "\n".join([*lines, line.rstrip()])


def bytes_source(data: bytes, indent: int = 0) -> str:
    """Source for bytes: text as text, zeros as a size, all else in hexadecimal."""
    if len(data) > 8 and data.count(data[0]) == len(data):
        return f"bytes({len(data)})" if data[0] == 0 else f"bytes((0x{data[0]:02X},)) * {len(data)}"
    if data and all(32 <= one < 127 for one in data) and len(data) < BYTES_A_LINE:
        return repr(data)
    content = data.rstrip(b"\0")
    fill = len(data) - len(content)
    if fill < 16:
        content, fill = data, 0
    tail = f" + bytes({fill})" if fill else ""
    lines = [content[start : start + BYTES_A_LINE].hex() for start in range(0, len(content), BYTES_A_LINE)]
    if len(lines) <= 1:
        return f'bytes.fromhex("{lines[0] if lines else ""}"){tail}'
    margin = "\n" + " " * (indent + 4)
    return "bytes.fromhex(" + margin + margin.join(f'"{line}"' for line in lines) + "\n" + " " * indent + f"){tail}"
