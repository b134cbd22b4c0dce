"""Types of command-line parameters: sizes, addresses, key strokes."""

from __future__ import annotations

import re

import click

SIZE = re.compile(r"(\d+)([KMG]?)", re.IGNORECASE)
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


class SizeType(click.ParamType):
    """Bytes, with K, M or G: 64M."""

    name = "size"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = SIZE.fullmatch(str(value))
        if not match:
            self.fail(f"{value!r} is no size; write a number with K, M or G, such as 64M", param, ctx)
        return int(match[1]) * UNITS[match[2].upper()]


class AddressType(click.ParamType):
    """A hexadecimal address: 7c00."""

    name = "hex"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return int(str(value), 16)
        except ValueError:
            self.fail(f"{value!r} is no hexadecimal number, such as 7c00", param, ctx)


class PairType(click.ParamType):
    """TEXT=KEYS: what to wait for, and what to press then."""

    name = "text=keys"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        text, equals, keys = str(value).rpartition("=")
        if not equals or not text or not keys:
            self.fail(f"{value!r}: write TEXT=KEYS, such as 'GNU GRUB=down,enter'", param, ctx)
        return text, keys


SIZE_TYPE, ADDRESS, TEXT_AND_KEYS = SizeType(), AddressType(), PairType()

TRACED_MACHINES = ("pc", "poweredge", "q35")
"""Boards that a trace can be held against; kept here so that --help need not import them."""
