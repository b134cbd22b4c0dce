"""The host's end of a device: where a serial port's bytes go, where a disk's sectors are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

SECTOR_SIZE = 512
"""Bytes in a disk sector (ATA-6, 3.1.50)."""


class CharBackend(Protocol):
    """A byte stream in both directions."""

    def send(self, data: bytes) -> None:
        """Bytes from the guest to the host."""
        ...

    def on_receive(self, callback: Callable[[bytes], None]) -> None:
        """Register who gets the bytes that come from the host."""
        ...


class BlockBackend(Protocol):
    """Random access to an image, counted in sectors of 512 bytes."""

    @property
    def sectors(self) -> int:
        """Size of the medium in sectors."""
        ...

    @property
    def read_only(self) -> bool:
        """True if `write` would fail."""
        ...

    def read(self, sector: int, count: int) -> bytes:
        """`count` sectors from `sector`.

        Raises:
            OSError: the host cannot read them.
        """
        ...

    def write(self, sector: int, data: bytes) -> None:
        """Whole sectors from `sector`.

        Raises:
            OSError: the host cannot write them, or the image is read-only.
        """
        ...

    def flush(self) -> None:
        """Put everything written on stable storage."""
        ...


class BufferedChar:
    """A `CharBackend` that keeps what the guest sent and feeds it what a test or a user types."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self._callback: Callable[[bytes], None] | None = None

    def send(self, data: bytes) -> None:
        self.sent += data

    def on_receive(self, callback: Callable[[bytes], None]) -> None:
        self._callback = callback

    def type(self, data: bytes) -> None:
        """Send bytes to the guest."""
        if self._callback:
            self._callback(data)
