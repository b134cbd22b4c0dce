"""KVM's ioctls with errors that a user can read."""

from __future__ import annotations

import os
from fcntl import ioctl

from portvisor.kvm.api import EngineError


def call(fd: int, request: int, argument: int | bytes = 0, *, what: str) -> int:
    """An ioctl that takes a number below 2^32 or reads a structure.

    Raises:
        EngineError: KVM refuses; the text starts with `what`.
    """
    if isinstance(argument, bytes):
        return _refusable(fd, request, bytearray(argument), what)
    # fcntl.ioctl takes a C int
    return _refusable(fd, request, argument - (1 << 32) if argument >> 31 else argument, what)


def fetch(fd: int, request: int, structure: bytearray, *, what: str) -> bytearray:
    """An ioctl that fills in a structure; the structure.

    Raises:
        EngineError: KVM refuses; the text starts with `what`.
    """
    _refusable(fd, request, structure, what)
    return structure


def _refusable(fd: int, request: int, argument: int | bytearray, what: str) -> int:
    try:
        return ioctl(fd, request, argument)
    except OSError as error:
        raise EngineError(f"{what}: {error.strerror}") from error


def close(fd: int) -> None:
    """Close a descriptor; -1 is one that is closed already."""
    if fd >= 0:
        os.close(fd)
