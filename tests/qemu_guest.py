"""Run a guest under a stock qemu-system-x86_64: the reference for guests and devices."""

from __future__ import annotations

import json
import os
import selectors
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

import pytest

QEMU = shutil.which("qemu-system-x86_64")
needs_qemu = pytest.mark.skipif(QEMU is None, reason="needs qemu-system-x86_64 (Debian: qemu-system-x86)")

STATUS_GOOD = 0x10 << 1 | 1
"""Exit status after the byte 10 to port F4 (isa-debug-exit)."""
STATUS_BAD = 0x11 << 1 | 1
TIMEOUT = 60
"""Seconds that a guest may take for anything."""


class Qemu:
    """A running machine whose COM1 is `serial`."""

    def __init__(self, arguments: Sequence[str], directory: Path) -> None:
        assert QEMU is not None
        self.serial = b""
        self._seen = 0
        self._qmp_path = directory / "qmp"
        self._process = subprocess.Popen(
            [
                *[QEMU, "-accel", "tcg", "-m", "64", "-display", "none", "-net", "none", "-serial", "stdio"],
                *["-device", "isa-debug-exit,iobase=0xf4,iosize=4"],
                *["-qmp", f"unix:{self._qmp_path},server=on,wait=off"],
                *arguments,
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)

    def __enter__(self) -> Qemu:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._selector.close()
        self._process.kill()
        self._process.communicate()

    def expect(self, text: str) -> None:
        """Wait until the guest has printed the text since the last `expect`."""
        deadline = time.monotonic() + TIMEOUT
        start = self._seen
        while (found := self.serial.find(text.encode(), start)) < 0:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not come; the guest printed:\n{self.text}")
        self._seen = found + len(text)

    def finish(self) -> int:
        """Wait for the end; the exit status."""
        deadline = time.monotonic() + TIMEOUT
        while self._read(deadline):
            pass
        if time.monotonic() > deadline:
            raise AssertionError(f"the guest did not end; it printed:\n{self.text}")
        return self._process.wait(TIMEOUT)

    def send(self, data: bytes) -> None:
        """Type on the serial line."""
        assert self._process.stdin
        self._process.stdin.write(data)
        self._process.stdin.flush()

    def press(self, *keys: str) -> None:
        """Press and release keys of the PS/2 keyboard (QEMU's names), one after the other."""
        with suppress(ConnectionError), self._qmp() as monitor:  # the guest may end at a key
            for key in keys:
                code = {"type": "qcode", "data": key}
                events = [{"type": "key", "data": {"down": down, "key": code}} for down in (True, False)]
                _qmp_call(monitor, "input-send-event", events=events)

    def memory(self, address: int, length: int) -> bytes:
        """Guest-physical memory."""
        dump = self._qmp_path.with_name("memory")
        with self._qmp() as monitor:
            _qmp_call(monitor, "pmemsave", val=address, size=length, filename=str(dump))
        return dump.read_bytes()

    @property
    def text(self) -> str:
        """What the guest printed, with plain line ends."""
        return self.serial.decode(errors="replace").replace("\r\n", "\n")

    def _read(self, deadline: float) -> bool:
        """More from the guest; False at its end or the deadline."""
        if not self._selector.select(max(0, deadline - time.monotonic())):
            return False
        assert self._process.stdout
        data = os.read(self._process.stdout.fileno(), 4096)
        self.serial += data
        return bool(data)

    @contextmanager
    def _qmp(self) -> Iterator[socket.socket]:
        with socket.socket(socket.AF_UNIX) as monitor:
            monitor.settimeout(TIMEOUT)
            monitor.connect(str(self._qmp_path))
            monitor.recv(4096)
            _qmp_call(monitor, "qmp_capabilities")
            yield monitor


def _qmp_call(monitor: socket.socket, command: str, **arguments: object) -> None:
    monitor.sendall(json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")
    answer = b""
    while b'"return"' not in answer:
        received = monitor.recv(4096)
        if not received:
            raise ConnectionError(f"{command}: the machine ended")
        answer += received
        assert b'"error"' not in answer, answer


def run_qemu(arguments: Sequence[str], directory: Path) -> tuple[str, int]:
    """Run to the end: what came on COM1, and the exit status."""
    with Qemu(arguments, directory) as machine:
        status = machine.finish()
        return machine.text, status


def disk_arguments(image: bytes, directory: Path, interface: str = "ide") -> list[str]:
    """Options for a disk with the image at its start: 1 MiB, or a 1.44 MB floppy disk."""
    path = directory / "disk.img"
    path.write_bytes(image.ljust(1440 * 1024 if interface == "floppy" else 1 << 20, b"\0"))
    return ["-drive", f"file={path},format=raw,if={interface}"]


def rom_arguments(rom: bytes, directory: Path) -> list[str]:
    """Options for a 64 KiB ROM in place of the BIOS, on a CPU without APIC, as firmware would have to set it up."""
    path = directory / "rom.bin"
    path.write_bytes(rom)
    return ["-bios", str(path), "-cpu", "qemu64,-apic"]
