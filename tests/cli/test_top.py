"""`portvisor top` as a user has it: a machine in one process, the viewer in another."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.support import MAIN, SOURCE, CliResult, run_cli
from machines.boot_support import stock_bios
from portvisor.live.client import Connection
from portvisor.live.protocol import Ended, Snapshot
from portvisor.live.rates import Rates
from support import require_kvm

PATIENCE = 60.0
ENDLESS = bytes.fromhex("e440ebfc")
"""l: in al, 40h; jmp l"""
ESCAPES = re.compile(rb"\x1b(?:\[[0-9;?<>=]*[A-Za-z]|[()][A-Z0-9]|[=>78]|[P\]][^\x1b\x07]*(?:\x1b\\|\x07))")


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    """An environment whose sockets are this test's."""
    runtime = tmp_path / "run"
    runtime.mkdir(0o700)
    return {"XDG_RUNTIME_DIR": str(runtime), "TMPDIR": str(tmp_path)}


@contextmanager
def guest(places: dict[str, str], *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A machine in the background; killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *arguments, "--timeout", "120", "--serial", "none"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE), **places},
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def endless(places: dict[str, str], tmp_path: Path, *options: str) -> tuple[str, ...]:
    path = tmp_path / "endless.bin"
    path.write_bytes(ENDLESS)
    return ("run", str(path), "--at", "7c00", "--engine", "software", "--live", *options)


def socket_of(process: subprocess.Popen[bytes], places: dict[str, str]) -> Path:
    """The machine's socket, once it is there."""
    path = Path(places["XDG_RUNTIME_DIR"], "portvisor", f"{process.pid}.sock")
    deadline = time.monotonic() + PATIENCE
    while not path.exists():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, "no socket"
        time.sleep(0.02)
    return path


def top(places: dict[str, str], *arguments: str) -> CliResult:
    return run_cli("top", *arguments, environment=places)


@pytest.mark.parametrize("engine", ["software", pytest.param("kvm", marks=pytest.mark.kvm)])
def test_a_seabios_boot_is_seen_from_another_process_up_to_its_end(
    places: dict[str, str], tmp_path: Path, engine: str
) -> None:
    stock_bios()
    if engine == "kvm":
        require_kvm()
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    trace = tmp_path / "boot.parquet"
    options = ("--engine", engine, "--live", "--trace", str(trace))
    with guest(places, "run", str(disk), *options) as process:
        path = socket_of(process, places)
        assert path.parent.stat().st_mode & 0o777 == 0o700
        assert path.stat().st_mode & 0o777 == 0o600
        with Connection(path) as connection:
            assert connection.hello.pid == process.pid
            assert (connection.hello.machine, connection.hello.engine) == ("pc", engine)
            assert f"run {disk}" in connection.hello.command
            rates, seen, interrupts = Rates(), set[str](), 0.0
            deadline = time.monotonic() + PATIENCE
            while not ({"pic", "ide0"} <= seen and interrupts) and time.monotonic() < deadline:
                connection.request()
                message = connection.receive(0.5)
                if isinstance(message, Snapshot):
                    view = rates.feed(message)
                    seen |= {line.device for line in view.ports if line.rate}
                    interrupts = max(interrupts, view.interrupts.get("IRQ0", 0.0))
                time.sleep(0.05)
            assert {"pic", "ide0"} <= seen
            assert interrupts > 1
            process.send_signal(signal.SIGINT)
            while not isinstance(message, Ended):
                message = connection.receive(PATIENCE)
                assert message is not None
            assert message.why == "interrupted"
        _, errors = process.communicate(timeout=PATIENCE)
        assert process.returncode == 130
        assert b"to look on: portvisor top" in errors
        assert not path.exists()
    assert run_cli("replay", str(trace)).status == 0


class Terminal:
    """`portvisor top` on a terminal of 100 columns."""

    def __init__(self, places: dict[str, str], *arguments: str) -> None:
        pid, self.fd = pty.fork()
        if pid == 0:
            os.environ.update({"PYTHONPATH": str(SOURCE), "TERM": "xterm-256color", **places})
            os.execv(sys.executable, [sys.executable, "-c", MAIN, "top", *arguments])
        self.pid = pid
        self.output = b""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))

    def wait_for(self, text: str) -> None:
        """Read until a text is on the screen, whatever came before."""
        deadline = time.monotonic() + PATIENCE
        while text not in ESCAPES.sub(b"", self.output).decode("utf-8", "replace"):
            assert time.monotonic() < deadline, f"no {text!r} in {self.output[-3000:]!r}"
            if select.select([self.fd], [], [], 0.5)[0]:
                self.output += os.read(self.fd, 1 << 16)

    def press(self, keys: bytes) -> None:
        self.output = b""
        os.write(self.fd, keys)

    def close(self) -> int:
        """Wait for the end; the exit status."""
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                done, status = os.waitpid(self.pid, os.WNOHANG)
                if done:
                    return os.waitstatus_to_exitcode(status)
                if select.select([self.fd], [], [], 0.1)[0]:
                    try:
                        os.read(self.fd, 1 << 16)
                    except OSError:
                        time.sleep(0.05)
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            raise AssertionError("top did not end")
        finally:
            os.close(self.fd)


def test_the_screen_on_a_terminal_from_attach_to_the_machines_end(places: dict[str, str], tmp_path: Path) -> None:
    with guest(places, *endless(places, tmp_path)) as process:
        socket_of(process, places)
        terminal = Terminal(places, "--every", "0.2")
        terminal.wait_for("LIVE")
        terminal.wait_for("Counter 0")
        terminal.press(b"\r")
        terminal.wait_for("Registers since you look")
        terminal.press(b" ")
        terminal.wait_for("PAUSED")
        terminal.press(b" ")
        terminal.wait_for("LIVE")
        process.send_signal(signal.SIGINT)
        terminal.wait_for("ended: interrupted")
        terminal.press(b"q")
        assert terminal.close() == 0


def test_a_machine_that_is_killed_is_said_to_be_gone_and_its_socket_is_tidied(
    places: dict[str, str], tmp_path: Path
) -> None:
    with guest(places, *endless(places, tmp_path)) as process:
        path = socket_of(process, places)
        terminal = Terminal(places, "--every", "0.2")
        terminal.wait_for("Counter 0")
        process.kill()
        terminal.wait_for("its process is gone")
        terminal.press(b"q")
        assert terminal.close() == 0
        process.wait()
        assert path.exists()
        result = top(places, "--once")
        assert result.status == 1
        assert result.errors.startswith("portvisor: no machine to look at; start one with --live")
        assert result.errors.count("\n") == 1
        assert not path.exists()


def test_once_prints_a_measurement(places: dict[str, str], tmp_path: Path) -> None:
    with guest(places, *endless(places, tmp_path)) as process:
        socket_of(process, places)
        result = top(places, "--once", "--every", "0.3")
        assert result.status == 0, result.errors
        assert f"pc on software, pid {process.pid}" in result.output
        (row,) = (line for line in result.output.splitlines() if line.startswith("0040"))
        assert "Counter 0" in row
        assert "100%" in row


def test_of_several_machines_one_must_be_named(places: dict[str, str], tmp_path: Path) -> None:
    arguments = endless(places, tmp_path)
    with guest(places, *arguments) as one, guest(places, *arguments) as two:
        for process in (one, two):
            socket_of(process, places)
        result = top(places, "--once")
        assert result.status == 2
        assert "2 machines are running; say which" in result.errors
        for process in (one, two):
            assert f"{process.pid}  pc on software, " in result.errors
        result = top(places, "--once", "--every", "0.1", str(two.pid))
        assert f"pid {two.pid}" in result.output


def test_a_socket_may_have_a_name_of_its_own(places: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "my.sock"
    arguments = endless(places, tmp_path)[:-1]
    with guest(places, *arguments, "--live-socket", str(path)) as process:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.02)
        result = top(places, "--once", "--every", "0.1", str(path))
        assert f"pid {process.pid}" in result.output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--once", "99999999"), 1, "no machine with process number 99999999 offers a look"),
        (("--once", "/nowhere.sock"), 1, "/nowhere.sock: No such file or directory"),
        ((), 2, "the screen needs a terminal; --once prints one measurement"),
        (("--every", "0"), 2, "0.1<=x<=60"),
    ],
)
def test_a_mistake_is_one_clear_message(
    places: dict[str, str], arguments: tuple[str, ...], status: int, message: str
) -> None:
    result = top(places, *arguments)
    assert result.status == status
    assert message in result.errors
    assert "Traceback" not in result.errors


def test_a_socket_that_cannot_be_made_stops_the_run(places: dict[str, str], tmp_path: Path) -> None:
    arguments = endless(places, tmp_path)[:-1]
    result = run_cli(*arguments, "--live-socket", "/nowhere/x.sock", environment=places)
    assert result.status == 1
    assert result.errors.count("\n") == 1
    assert "socket /nowhere/x.sock: No such file or directory" in result.errors
