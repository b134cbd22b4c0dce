"""The listing that the `poweredge` machine is built after."""

from __future__ import annotations

from importlib.resources import files

from portvisor.ports.ioports import Resource, parse

SEED_NAME = "seed-ioports.txt"


def seed_text() -> str:
    """The /proc/ioports of the server, byte for byte."""
    return (files("portvisor.guest") / "data" / SEED_NAME).read_text()


def seed_listing() -> Resource:
    """The same as a tree."""
    return parse(seed_text(), SEED_NAME)
