"""Streams on the host: terminal modes, files, pseudo-terminals, sockets, and that `send` never raises or waits."""

from __future__ import annotations

import os
import select
import socket
import stat
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from portvisor.backends.char import (
    PENDING_LIMIT,
    READ_SIZE,
    BackendError,
    EscapeFilter,
    FileChar,
    HostChar,
    NullChar,
    PtyChar,
    RawTerminal,
    SocketChar,
    StdioChar,
    TeeChar,
)
from portvisor.ports import BufferedChar, CharBackend


def readable(stream: HostChar) -> bool:
    return bool(select.select([stream], [], [], 0)[0])


def pump(stream: HostChar) -> None:
    """What the run loop does, until nothing is left."""
    for _ in range(10_000):
        if stream.fileno() < 0 or not readable(stream):
            return
        stream.on_readable()
    raise AssertionError("the stream is readable for ever")


def received(stream: CharBackend) -> bytearray:
    data = bytearray()
    stream.on_receive(data.extend)
    return data


class TestSimple:
    def test_null(self) -> None:
        with NullChar() as stream:
            stream.send(b"x")
            stream.on_readable()
            assert stream.fileno() < 0

    def test_file_is_emptied_then_written_as_it_comes(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        path.write_bytes(b"old")
        with FileChar(path) as stream:
            stream.send(b"one")
            assert path.read_bytes() == b"one"
            stream.send(b"two")
        stream.close()
        assert path.read_bytes() == b"onetwo"

    def test_file_append(self, tmp_path: Path) -> None:
        path = tmp_path / "log"
        path.write_bytes(b"old")
        with FileChar(path, append=True) as stream:
            stream.send(b"new")
        assert path.read_bytes() == b"oldnew"

    @pytest.mark.parametrize(
        ("name", "reason"),
        [("", "Is a directory"), ("missing/log", "No such file or directory"), ("a\0b", "embedded null byte")],
    )
    def test_file_that_cannot_be_opened(self, tmp_path: Path, name: str, reason: str) -> None:
        with pytest.raises(BackendError) as caught:
            FileChar(tmp_path / name)
        assert str(caught.value) == f"file {tmp_path / name}: cannot be opened for writing: {reason}"

    def test_fifo_without_reader_does_not_hang(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fifo")
        with pytest.raises(BackendError, match="cannot be opened"):
            FileChar(tmp_path / "fifo")

    def test_failing_output_is_reported_once_and_not_raised(self) -> None:
        stream = FileChar("/dev/full")
        told: list[BackendError] = []
        stream.on_failure = told.append
        stream.send(b"x")
        stream.send(b"y")
        assert [str(error) for error in told] == ["file /dev/full: No space left on device"]
        assert stream.failure is told[0]
        stream.close()

    def test_tee(self, tmp_path: Path) -> None:
        copies = (BufferedChar(), BufferedChar())
        with SocketChar(tmp_path / "s") as first, socket.socket(socket.AF_UNIX) as client:
            tee = TeeChar(first, *copies)
            data = received(tee)
            client.connect(first.path)
            pump(tee)
            tee.send(b"out")
            assert client.recv(10) == b"out"
            assert [bytes(copy.sent) for copy in copies] == [b"out", b"out"]
            client.send(b"in")
            assert tee.fileno() == first.fileno()
            pump(tee)
            assert data == b"in"


class TestEscapeFilter:
    def test_commands_are_taken_out(self) -> None:
        commands: list[str] = []
        escape = EscapeFilter(commands.append)
        assert escape.feed(b"ab\x01xcd") == b"abcd"
        assert commands == ["x"]

    def test_prefix_twice_is_the_prefix(self) -> None:
        assert EscapeFilter(pytest.fail).feed(b"\x01\x01a\x01\x01") == b"\x01a\x01"

    def test_prefix_and_key_may_come_apart(self) -> None:
        commands: list[str] = []
        escape = EscapeFilter(commands.append)
        assert escape.feed(b"a\x01") == b"a"
        assert escape.feed(b"") == b""
        assert escape.feed(b"qb") == b"b"
        assert commands == ["q"]


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """(the user's end, the program's end) of a terminal."""
    user, program = os.openpty()
    yield user, program
    os.close(user)
    os.close(program)


def modes(fd: int) -> list[object]:
    return list(termios.tcgetattr(fd))


class TestStdio:
    def test_terminal_is_raw_inside_and_restored_outside(self, terminal: tuple[int, int]) -> None:
        _, program = terminal
        before = modes(program)
        with StdioChar(lambda key: None, input_fd=program, output_fd=program):
            local = termios.tcgetattr(program)[3]
            assert not local & (termios.ECHO | termios.ICANON | termios.ISIG)
            assert not termios.tcgetattr(program)[0] & termios.ICRNL
            characters = termios.tcgetattr(program)[6]
            assert (characters[termios.VMIN], characters[termios.VTIME]) == (1, 0)
        assert modes(program) == before

    def test_terminal_is_restored_after_an_exception(self, terminal: tuple[int, int]) -> None:
        _, program = terminal
        before = modes(program)
        with pytest.raises(KeyboardInterrupt), RawTerminal(program, signals=True):
            assert modes(program) != before
            raise KeyboardInterrupt
        assert modes(program) == before

    def test_ctrl_c_keeps_its_meaning_without_a_command_key(self, terminal: tuple[int, int]) -> None:
        _, program = terminal
        with StdioChar(input_fd=program, output_fd=program):
            settings = termios.tcgetattr(program)
            assert settings[3] & termios.ISIG
            assert settings[6][termios.VSUSP] == b"\0"

    def test_keys_arrive_as_typed(self, terminal: tuple[int, int]) -> None:
        user, program = terminal
        commands: list[str] = []
        with StdioChar(commands.append, input_fd=program, output_fd=program) as stream:
            data = received(stream)
            os.write(user, b"ls\r\x03\x01x")
            pump(stream)
            assert data == b"ls\r\x03"
            assert commands == ["x"]
            stream.send(b"reply")
            assert os.read(user, 100) == b"reply"

    def test_pipe_ends(self) -> None:
        source, sink = os.pipe()
        stream = StdioChar(input_fd=source, output_fd=sink)
        data = received(stream)
        with stream:
            stream.on_readable()
            assert not data
            os.write(sink, b"x" * (READ_SIZE + 5))
            os.close(sink)
            pump(stream)
            assert data == b"x" * (READ_SIZE + 5)
            assert stream.fileno() < 0
        os.close(source)

    def test_regular_file_as_input(self, tmp_path: Path) -> None:
        (tmp_path / "script").write_bytes(b"typed")
        source = os.open(tmp_path / "script", os.O_RDONLY)
        stream = StdioChar(input_fd=source)
        data = received(stream)
        pump(stream)
        assert data == b"typed"
        assert stream.fileno() < 0
        os.close(source)

    def test_output_waits_for_its_reader_and_loses_nothing(self) -> None:
        source, sink = os.pipe()
        os.set_blocking(sink, False)
        child = os.fork()
        if child == 0:
            os.close(sink)
            total = 0
            while chunk := os.read(source, 65_536):
                total += len(chunk)
            os._exit(0 if total == 300_000 else 1)
        os.close(source)
        stream = StdioChar(output_fd=sink)
        stream.send(b"y" * 300_000)
        os.close(sink)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert stream.failure is None

    def test_closed_reader_is_a_failure_not_an_exception(self) -> None:
        source, sink = os.pipe()
        os.close(source)
        stream = StdioChar(output_fd=sink)
        stream.send(b"x")
        assert str(stream.failure) == "standard output: Broken pipe"
        os.close(sink)


class TestPty:
    def test_both_directions(self) -> None:
        with PtyChar() as stream:
            data = received(stream)
            client = os.open(stream.path, os.O_RDWR | os.O_NOCTTY)
            stream.send(b"to client\n")
            assert os.read(client, 100) == b"to client\n"
            os.write(client, b"to guest\r")
            select.select([stream], [], [], 5)  # the kernel passes it on in its own time
            pump(stream)
            assert data == b"to guest\r"
            os.close(client)

    def test_clients_come_and_go_without_spinning_the_loop(self) -> None:
        with PtyChar() as stream:
            assert not readable(stream)
            for _ in range(2):
                client = os.open(stream.path, os.O_RDWR | os.O_NOCTTY)
                os.close(client)
                assert not readable(stream)

    def test_absent_reader_costs_bounded_memory_and_no_time(self) -> None:
        with PtyChar() as stream:
            for _ in range(200):
                stream.send(b"z" * 1000)
            assert stream.failure is None
            assert len(stream._pending) == PENDING_LIMIT
            assert 0 < stream.dropped <= 200_000 - PENDING_LIMIT

    def test_late_reader_gets_what_was_kept(self) -> None:
        with PtyChar() as stream:
            stream.send(b"a" * 20_000 + b"end")
            client = os.open(stream.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
            got = b""
            for _ in range(1000):
                try:
                    got += os.read(client, 4096)
                except BlockingIOError:
                    if got.endswith(b"end"):
                        break
                stream.on_readable()
            assert got == b"a" * 20_000 + b"end"
            assert not readable(stream)
            os.close(client)

    def test_close_twice(self) -> None:
        before = len(os.listdir("/proc/self/fd"))
        stream = PtyChar()
        stream.close()
        stream.close()
        stream.send(b"x")
        stream.on_readable()
        assert stream.fileno() < 0
        assert len(os.listdir("/proc/self/fd")) == before


class TestSocket:
    def test_only_the_owner_may_connect(self, tmp_path: Path) -> None:
        with SocketChar(tmp_path / "s"):
            status = (tmp_path / "s").stat()
            assert stat.S_ISSOCK(status.st_mode)
            assert stat.S_IMODE(status.st_mode) == 0o600
        assert not (tmp_path / "s").exists()

    def test_both_directions_and_a_second_client_after_the_first(self, tmp_path: Path) -> None:
        with SocketChar(tmp_path / "s") as stream:
            data = received(stream)
            for _ in range(2):
                with socket.socket(socket.AF_UNIX) as client:
                    client.connect(stream.path)
                    pump(stream)
                    assert stream.connected
                    stream.send(b"out")
                    assert client.recv(100) == b"out"
                    client.send(b"in")
                    pump(stream)
                pump(stream)
                assert not stream.connected
            assert data == b"inin"

    def test_second_client_waits_its_turn(self, tmp_path: Path) -> None:
        with (
            SocketChar(tmp_path / "s") as stream,
            socket.socket(socket.AF_UNIX) as first,
            socket.socket(socket.AF_UNIX) as second,
        ):
            first.connect(stream.path)
            pump(stream)
            second.connect(stream.path)
            assert not readable(stream)
            first.close()
            pump(stream)
            stream.send(b"hello second")
            assert second.recv(100) == b"hello second"

    def test_output_is_kept_for_a_client_to_come(self, tmp_path: Path) -> None:
        with SocketChar(tmp_path / "s") as stream, socket.socket(socket.AF_UNIX) as client:
            stream.send(b"x" * 10 + b"y" * PENDING_LIMIT)
            assert stream.dropped == 10
            client.connect(stream.path)
            pump(stream)
            got = b""
            while len(got) < PENDING_LIMIT:
                got += client.recv(65_536)
            assert got == b"y" * PENDING_LIMIT

    def test_slow_client_gets_everything_that_fits(self, tmp_path: Path) -> None:
        with SocketChar(tmp_path / "s") as stream, socket.socket(socket.AF_UNIX) as client:
            client.connect(stream.path)
            pump(stream)
            sent = 0
            while not stream.dropped and not len(stream._pending):
                stream.send(b"k" * 1000)
                sent += 1000
            got = 0
            client.settimeout(5)
            while got < sent:
                got += len(client.recv(65_536))
                stream.on_readable()
            assert not readable(stream)

    def test_client_that_vanishes_is_no_failure(self, tmp_path: Path) -> None:
        with SocketChar(tmp_path / "s") as stream:
            client = socket.socket(socket.AF_UNIX)
            client.connect(stream.path)
            pump(stream)
            client.close()
            stream.send(b"x")
            stream.send(b"y")
            pump(stream)
            assert stream.failure is None
            assert not stream.connected

    def test_left_over_socket_is_replaced(self, tmp_path: Path) -> None:
        old = socket.socket(socket.AF_UNIX)
        old.bind(str(tmp_path / "s"))
        old.close()
        with SocketChar(tmp_path / "s") as stream, socket.socket(socket.AF_UNIX) as client:
            client.connect(stream.path)

    def test_live_socket_is_not_replaced(self, tmp_path: Path) -> None:
        with SocketChar(tmp_path / "s") as stream:
            with pytest.raises(BackendError, match="is in use by another program"):
                SocketChar(tmp_path / "s")
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(stream.path)

    def test_file_is_not_replaced(self, tmp_path: Path) -> None:
        (tmp_path / "s").write_bytes(b"precious")
        with pytest.raises(BackendError, match="exists and is no socket"):
            SocketChar(tmp_path / "s")
        assert (tmp_path / "s").read_bytes() == b"precious"

    @pytest.mark.parametrize("name", ["missing/s", "x" * 200])
    def test_path_that_cannot_be_bound(self, tmp_path: Path, name: str) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with pytest.raises(BackendError, match=r"socket .*: "):
            SocketChar(tmp_path / name)
        assert len(os.listdir("/proc/self/fd")) == before

    def test_close_gives_everything_back(self, tmp_path: Path) -> None:
        before = len(os.listdir("/proc/self/fd"))
        with SocketChar(tmp_path / "s") as stream, socket.socket(socket.AF_UNIX) as client:
            client.connect(stream.path)
            pump(stream)
        assert len(os.listdir("/proc/self/fd")) == before

    def test_close_leaves_somebody_elses_socket_alone(self, tmp_path: Path) -> None:
        stream = SocketChar(tmp_path / "s")
        (tmp_path / "s").unlink()
        (tmp_path / "s").write_bytes(b"other")
        stream.close()
        stream.close()
        assert (tmp_path / "s").read_bytes() == b"other"
        stream.send(b"x")
        stream.on_readable()
        assert stream.fileno() < 0
