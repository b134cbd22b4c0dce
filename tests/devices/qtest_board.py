"""QEMU's PC with its CPU stopped, as a port space and interrupt inputs, over the qtest protocol and QMP."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support import require_program

TIMEOUT = 30.0
MACHINE = ("-M", "pc", "-m", "16", "-nodefaults", "-display", "none", "-accel", "tcg", "-S")


class QtestBoard:
    """Byte accesses to QEMU's ports and levels on its 8259 inputs."""

    def __init__(self, qtest: socket.socket, qmp: socket.socket) -> None:
        self._qtest = qtest.makefile("rwb")
        self._qmp = qmp.makefile("rwb")
        self._qmp.readline()
        self._command("qmp_capabilities")
        self._pics: list[str] = []

    def _ask(self, line: str) -> int:
        self._qtest.write(f"{line}\n".encode("ascii"))
        self._qtest.flush()
        reply = self._qtest.readline().split()
        while reply[:1] == [b"IRQ"]:
            reply = self._qtest.readline().split()
        assert reply[:1] == [b"OK"], (line, reply)
        return int(reply[1], 16) if len(reply) > 1 else 0

    def _command(self, name: str, **arguments: str) -> Any:
        self._qmp.write(json.dumps({"execute": name, "arguments": arguments}).encode() + b"\n")
        self._qmp.flush()
        while "return" not in (reply := json.loads(self._qmp.readline())):
            assert "error" not in reply, reply
        return reply["return"]

    def read(self, port: int) -> int:
        return self._ask(f"inb {port:#x}")

    def write(self, port: int, value: int) -> None:
        self._ask(f"outb {port:#x} {value:#x}")

    def set_irq(self, irq: int, level: int) -> None:
        """Drive an input of the 8259 pair."""
        if not self._pics:
            self._pics = self._find_pics()
        self._drive(self._pics[irq >> 3], irq & 7, level)

    def _drive(self, pic: str, line: int, level: int) -> None:
        self._ask(f"set_irq_in {pic} unnamed-gpio-in {line} {level}")

    def _find_pics(self) -> list[str]:
        """Paths of master and slave: the master is the one whose IRR answers at port 20."""
        parts = self._command("qom-list", path="/machine/unattached")
        found = [f"/machine/unattached/{part['name']}" for part in parts if "8259" in part["type"]]
        self._drive(found[0], 5, 1)
        self.write(0x20, 0x0A)
        is_master = self.read(0x20) >> 5 & 1
        self._drive(found[0], 5, 0)
        return found if is_master else found[::-1]


def _sockets(folder: Path) -> list[str]:
    return ["-qtest-log", "/dev/null", "-qtest", f"unix:{folder / 'qtest'}", "-qmp", f"unix:{folder / 'qmp'}"]


@contextmanager
def qtest_board(folder: Path) -> Iterator[QtestBoard]:
    """Start QEMU; its sockets go to `folder`."""
    program = require_program("qemu-system-x86_64", "qemu-system-x86")
    with socket.socket(socket.AF_UNIX) as qtest, socket.socket(socket.AF_UNIX) as qmp:
        for name, listener in (("qtest", qtest), ("qmp", qmp)):
            listener.bind(str(folder / name))
            listener.listen(1)
            listener.settimeout(TIMEOUT)
        process = subprocess.Popen([program, *MACHINE, *_sockets(folder)])
        try:
            first, second = qtest.accept()[0], qmp.accept()[0]
            with first, second:
                first.settimeout(TIMEOUT)
                second.settimeout(TIMEOUT)
                yield QtestBoard(first, second)
        finally:
            process.kill()
            process.wait()
