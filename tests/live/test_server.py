"""The machine's socket: private, patient with nobody, gone at the end."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from live_support import RawViewer, serve_once
from portvisor.kvm.abi import Regs, Segment, Sregs
from portvisor.kvm.api import System
from portvisor.kvm.null import NullSystem
from portvisor.kvm.select import open_soft
from portvisor.live import places, server
from portvisor.live.client import Connection, find_machines
from portvisor.live.errors import LiveError
from portvisor.live.protocol import MAX_REQUEST, Detail, Ended, Hello, Request, Snapshot, decode_request
from portvisor.live.server import MAX_VIEWERS, LiveServer
from portvisor.machines.machine import Machine
from portvisor.machines.outcome import End
from portvisor.machines.pc import Pc, PcOptions, Program

ENDLESS = bytes.fromhex("e440ebfc")
"""l: in al, 40h; jmp l"""
HLT_FOR_EVER = bytes.fromhex("b0ffe621e6a1fbf4ebfd")
"""Mask all interrupts; sti; l: hlt; jmp l"""
REBOOTING = bytes.fromhex("b006baf90cee")
"""mov al, 6; mov dx, CF9; out dx, al"""


@pytest.fixture(scope="module")
def engine() -> Iterator[System]:
    system = open_soft()
    yield system
    system.close()


@pytest.fixture
def machine() -> Iterator[Pc]:
    with Pc(NullSystem(), PcOptions()) as made:
        yield made


@pytest.fixture
def offered(machine: Pc, tmp_path: Path) -> Iterator[LiveServer]:
    made = LiveServer(machine, tmp_path / "live.sock", "portvisor run x")
    yield made
    made.close()


@pytest.fixture(autouse=True)
def own_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets of this test only."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def viewer(machine: Pc, path: Path) -> RawViewer:
    return RawViewer(path, lambda: serve_once(machine))


def allow_haste(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "MIN_PAUSE_NS", 0)
    monkeypatch.setattr(server, "PAUSE_FACTOR", 0)
    monkeypatch.setattr(server, "ATTACH_PAUSE_FACTOR", 0)


# --- the file ---------------------------------------------------------------------------------------------


def test_only_this_user_may_connect_and_the_file_goes_away(machine: Pc, tmp_path: Path) -> None:
    path = tmp_path / "live.sock"
    made = LiveServer(machine, path)
    assert stat.S_IMODE(path.lstat().st_mode) == 0o600
    made.close()
    made.close()
    assert not path.exists()
    assert machine.visitors == []


def test_the_default_place_is_a_private_directory(tmp_path: Path) -> None:
    path = places.default_path()
    assert path == tmp_path / "portvisor" / f"{os.getpid()}.sock"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_without_a_runtime_directory_it_is_one_in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for value in ("", "relative", str(tmp_path / "missing")):
        monkeypatch.setenv("XDG_RUNTIME_DIR", value)
        assert places.default_path().parent == tmp_path / f"portvisor-{os.geteuid()}"


def test_a_directory_that_others_can_enter_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "portvisor").mkdir(0o755)
    os.chmod(tmp_path / "portvisor", 0o755)
    assert places.default_path().parent.name == f"portvisor-{os.geteuid()}"
    os.chmod(places.default_path().parent, 0o777)
    with pytest.raises(LiveError, match="not a directory of this user alone"):
        places.default_path()
    assert places.sockets() == []


def test_a_link_to_a_directory_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir(0o700)
    (tmp_path / "portvisor").symlink_to(tmp_path / "elsewhere")
    assert places.default_path().parent.name == f"portvisor-{os.geteuid()}"


def test_the_socket_of_a_dead_machine_is_replaced(machine: Pc, tmp_path: Path) -> None:
    path = tmp_path / "live.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    made = LiveServer(machine, path)
    assert isinstance(viewer(machine, path).read()[0], Hello)
    made.close()


def test_the_socket_of_a_living_machine_is_not_replaced(machine: Pc, offered: LiveServer) -> None:
    with pytest.raises(LiveError, match="in use by another program"):
        LiveServer(machine, offered.path)
    assert offered.path.exists()


def test_a_file_that_is_no_socket_is_left_alone(machine: Pc, tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with pytest.raises(LiveError, match="exists and is no socket"):
        LiveServer(machine, path)
    assert path.read_text() == "data"
    with pytest.raises(LiveError, match="too long"):
        LiveServer(machine, tmp_path / ("x" * 200))
    assert machine.visitors == []


def test_another_users_connection_is_refused(
    machine: Pc, offered: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "peer_user", lambda connection: os.geteuid() + 1)
    stranger = viewer(machine, offered.path)
    assert stranger.read() == [Ended("the machine belongs to another user")]
    assert stranger.is_dropped()


# --- answers ----------------------------------------------------------------------------------------------


def test_a_viewer_gets_hello_then_what_it_asks_for(
    machine: Pc, offered: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_haste(monkeypatch)
    one = viewer(machine, offered.path)
    (hello,) = one.read()
    assert hello == Hello(os.getpid(), "pc", "null", "portvisor run x", hello.started)  # type: ignore[union-attr]
    assert abs(hello.started - time.time()) < 60  # type: ignore[union-attr]
    (first,) = one.ask()
    assert isinstance(first, Snapshot)
    assert (first.ports_used, first.resets) == (0, 0)
    machine.ports.write(0x70, 1, 0x0A)
    machine.ports.read(0x71, 1)
    machine.chips.irq(5).pulse()
    detail, second = one.ask(0x71)
    assert isinstance(second, Snapshot)
    assert isinstance(detail, Detail)
    assert {row.port: row.totals.accesses for row in second.ports} == {0x70: 1, 0x71: 1}
    assert second.devices["rtc"].accesses == 2
    assert second.interrupts == {"IRQ5": 1}
    assert [access.size for access in detail.last] == [1]
    assert detail.registers == []
    machine.ports.read(0x71, 1)
    detail, _ = one.ask(0x71)
    assert isinstance(detail, Detail)
    assert [(row.register, row.accesses) for row in detail.registers] == [
        (machine.ports.owner(0x71).device.register_name(1, 1, False), 1)  # type: ignore[union-attr]
    ]


def test_counting_costs_nothing_before_the_first_question_and_after_the_last_viewer(
    machine: Pc, offered: LiveServer
) -> None:
    assert machine.ports.tapped is None
    one, two = viewer(machine, offered.path), viewer(machine, offered.path)
    assert machine.ports.tapped is None
    one.ask()
    assert machine.ports.tapped is offered.counters
    two.ask()
    one.socket.close()
    serve_once(machine)
    assert machine.ports.tapped is offered.counters
    two.socket.close()
    serve_once(machine)
    assert machine.ports.tapped is None


def test_the_watch_ends_with_its_viewer(machine: Pc, offered: LiveServer) -> None:
    one = viewer(machine, offered.path)
    one.ask(0x60)
    machine.ports.read(0x60, 1)
    assert offered.counters.registers(0x60) != []
    one.socket.close()
    serve_once(machine)
    assert offered.counters.registers(0x60) == []


@pytest.mark.parametrize(
    "data",
    [b"\n", b"hello\n", b'{"want":"all"}\n', b"\xff" * 100 + b"\n", b"x" * (MAX_REQUEST + 1), b'{"want":'],
)
def test_a_viewer_that_talks_nonsense_is_dropped_and_half_a_line_waits(
    machine: Pc, offered: LiveServer, data: bytes
) -> None:
    one, other = viewer(machine, offered.path), viewer(machine, offered.path)
    one.read()
    one.socket.send(data)
    serve_once(machine)
    assert one.is_dropped() == (data != b'{"want":')
    other.read()
    assert isinstance(other.ask()[-1], Snapshot)


def test_a_request_may_come_in_pieces(machine: Pc, offered: LiveServer) -> None:
    one = viewer(machine, offered.path)
    one.read()
    for piece in (b'{"want"', b':"snap', b'shot"}'):
        one.socket.send(piece)
        serve_once(machine)
    assert one.read() == []
    one.socket.send(b"\n")
    serve_once(machine)
    assert isinstance(one.read()[0], Snapshot)


def test_a_viewer_in_haste_gets_no_more_than_its_share(machine: Pc, offered: LiveServer) -> None:
    one = viewer(machine, offered.path)
    one.read()
    answers = 0
    begin = time.monotonic()
    while time.monotonic() - begin < 0.3:
        answers += len(one.ask())
    assert 1 <= answers <= 1 + 0.5 / (server.MIN_PAUSE_NS / 1e9)


def test_viewers_that_come_and_go_do_not_make_the_tables_change_all_the_time(
    machine: Pc, offered: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attached = 0
    attach = offered.counters.attach

    def counted() -> None:
        nonlocal attached
        attached += 1
        attach()

    monkeypatch.setattr(offered.counters, "attach", counted)
    monkeypatch.setattr(server, "ATTACH_PAUSE_FACTOR", 10**9)
    for _ in range(20):
        guest = viewer(machine, offered.path)
        guest.ask()
        guest.socket.close()
        serve_once(machine)
    assert attached == 1
    offered._next_attach_ns = 0
    assert isinstance(viewer(machine, offered.path).ask()[-1], Snapshot)
    assert attached == 2


def test_of_a_flood_of_requests_one_is_looked_at(
    machine: Pc, offered: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[bytes] = []

    def decode(line: bytes) -> Request:
        looked_at.append(line)
        return decode_request(line)

    monkeypatch.setattr(server, "decode_request", decode)
    monkeypatch.setattr(server, "MIN_PAUSE_NS", 10**12)
    one = viewer(machine, offered.path)
    one.read()
    for _ in range(50):
        one.socket.send(b'{"want":"snapshot"}\n' * 200)
        serve_once(machine)
    assert len(looked_at) == 1
    assert len(one.read()) == 1


def test_a_viewer_that_does_not_read_never_holds_the_machine_up(
    machine: Pc, offered: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow_haste(monkeypatch)
    for port in range(0x2000, 0x2400):
        machine.ports.read(port, 1)
    deaf, other = viewer(machine, offered.path), viewer(machine, offered.path)
    other.ask()
    for port in range(0x2000, 0x2400):
        machine.ports.read(port, 1)
    deaf.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    slowest = 0.0
    for _ in range(200):
        begin = time.thread_time()
        deaf.socket.send(b'{"want":"snapshot"}\n')
        serve_once(machine)
        slowest = max(slowest, time.thread_time() - begin)
    assert slowest < 0.5
    (waiting,) = [one for one in offered._viewers.values() if one.unsent]
    assert len(waiting.unsent) < 1 << 21
    assert isinstance(other.ask()[-1], Snapshot)
    found = deaf.read()
    assert isinstance(found[0], Hello)
    for _ in range(200):
        serve_once(machine)
        found += deaf.read()
    assert len(found) < 30  # the questions between were dropped
    assert all(isinstance(message, Snapshot) for message in found[1:])


def test_too_many_viewers_are_told_so(machine: Pc, offered: LiveServer) -> None:
    crowd = [viewer(machine, offered.path) for _ in range(MAX_VIEWERS)]
    late = viewer(machine, offered.path)
    assert late.read() == [Ended(f"{MAX_VIEWERS} viewers are there already")]
    crowd[0].socket.close()
    serve_once(machine)
    assert isinstance(viewer(machine, offered.path).read()[0], Hello)


def test_viewers_that_vanish_do_no_harm(machine: Pc, offered: LiveServer, monkeypatch: pytest.MonkeyPatch) -> None:
    allow_haste(monkeypatch)
    for _ in range(50):
        gone = viewer(machine, offered.path)
        gone.socket.send(b'{"want":"snapshot"}\n')
        gone.socket.close()
        serve_once(machine)
    assert isinstance(viewer(machine, offered.path).ask()[-1], Snapshot)


def test_the_end_is_told_with_the_last_sums(machine: Pc, offered: LiveServer) -> None:
    one = viewer(machine, offered.path)
    one.ask()
    machine.ports.read(0x40, 1)
    offered.close("powered off")
    last, end = one.read()
    assert isinstance(last, Snapshot)
    assert last.devices["pit"].reads == 1
    assert end == Ended("powered off")
    assert one.is_dropped()
    assert machine.ports.tapped is None


# --- machines that run ------------------------------------------------------------------------------------


class Asking:
    """Asks every 30 ms from inside the run, as another process would."""

    def __init__(self, machine: Pc, offered: LiveServer) -> None:
        self.found: list[Any] = []
        self._machine = machine
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(offered.path))
        self._socket.setblocking(False)
        self._timer = machine.clock.timer(self._ask, "asking")
        self._timer.arm(machine.clock.now())

    def _ask(self) -> None:
        self._socket.send(b'{"want":"snapshot"}\n')
        self._timer.arm(self._machine.clock.now() + 30_000_000)

    def kinds(self) -> list[str]:
        """Kinds of the messages that came."""
        data = b""
        with contextlib.suppress(BlockingIOError):
            while piece := self._socket.recv(1 << 16):
                data += piece
        self.found = [json.loads(line) for line in data.splitlines()]
        return [one["kind"] for one in self.found]


class Patient:
    """A visitor with nothing to say."""

    def __init__(self) -> None:
        self._pipe = os.pipe()

    def fileno(self) -> int:
        return self._pipe[0]

    def on_readable(self) -> None:
        raise AssertionError


def run_program(engine: System, tmp_path: Path, code: bytes, seconds: float) -> tuple[Asking, Pc, End]:
    with Pc(engine, PcOptions(program=Program(code, 0x7C00, "test"))) as machine:
        offered = LiveServer(machine, tmp_path / "run.sock")
        asking = Asking(machine, offered)
        outcome = machine.run(seconds)
        offered.close(str(outcome))
        return asking, machine, outcome.end


def test_a_busy_guest_is_seen_while_it_runs(engine: System, tmp_path: Path) -> None:
    asking, _, end = run_program(engine, tmp_path, ENDLESS, 1.0)
    kinds = asking.kinds()
    assert end is End.TIME_LIMIT
    assert kinds[0] == "hello"
    assert kinds.count("snapshot") >= 3
    assert kinds[-1] == "end"
    counts = [dict(one["devices"]).get("pit", [0])[0] for one in asking.found[1:-1]]
    assert counts == sorted(counts)
    assert counts[-1] > 1000


def test_a_halted_guest_is_seen_too(engine: System, tmp_path: Path) -> None:
    asking, _, end = run_program(engine, tmp_path, HLT_FOR_EVER, 1.0)
    assert end is End.TIME_LIMIT
    assert asking.kinds().count("snapshot") >= 3


def test_a_guest_that_resets_is_still_seen(engine: System, tmp_path: Path) -> None:
    asking, machine, _ = run_program(engine, tmp_path, REBOOTING, 1.0)
    assert machine.resets > 2
    kinds = asking.kinds()
    last = asking.found[-2]
    assert kinds[-1] == "end"
    assert last["resets"] == machine.resets
    assert dict(last["devices"])["reset-control"][1] > 2


def test_a_socket_alone_keeps_no_halted_machine_alive(engine: System, tmp_path: Path) -> None:
    with Machine(engine, 1 << 20) as machine:
        machine.add_ram(0, 0, 1 << 20)
        machine.ram.write(0x1000, bytes.fromhex("fbf4"))  # sti; hlt
        machine.vcpu.set_sregs(Sregs(cs=Segment(selector=0, type=0xB)))
        machine.vcpu.set_regs(Regs(rip=0x1000, rflags=2))
        machine.visitors.append(Patient())
        assert machine.run(20).end is End.IDLE
        assert machine.outcome is not None
        assert machine.outcome.end is End.IDLE


# --- the viewer's end -------------------------------------------------------------------------------------


def listen(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)
    return listener


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"SSH-2.0\n", "a line that is no JSON object"),
        (b'{"kind":"hello","portvisor":9,"who":[]}\n', "the machine speaks version 9"),
        (b'{"kind":"end","why":"8 viewers are there already"}\n', "8 viewers are there already"),
        (b"x" * ((1 << 21) + 1), "a line of more than 2097152 bytes"),
        (b'{"kind":"hello"', "its process is gone"),
        (b"", "its process is gone"),
        (b'{"kind":"detail","port":1,"registers":[],"last":[]}\n', "is no machine of portvisor"),
    ],
)
def test_a_socket_that_is_no_machine_is_one_clear_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = tmp_path / "odd.sock"
    listener = listen(path)

    def serve() -> None:
        client, _ = listener.accept()
        with client, contextlib.suppress(OSError):
            client.sendall(data)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with pytest.raises(LiveError, match=message) as caught:
            Connection(path)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
    finally:
        thread.join(5)
        listener.close()


def test_a_machine_that_says_nothing_is_given_up(tmp_path: Path) -> None:
    path = tmp_path / "mute.sock"
    listener = listen(path)
    with pytest.raises(LiveError, match="does not answer"):
        Connection(path, timeout=0.1)
    listener.close()


def test_no_file_and_another_users_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(LiveError, match="No such file"):
        Connection(tmp_path / "nothing")
    listener = listen(tmp_path / "other.sock")
    monkeypatch.setattr("portvisor.live.client.peer_user", lambda connection: os.geteuid() + 1)
    with pytest.raises(LiveError, match="another user"):
        Connection(tmp_path / "other.sock")
    listener.close()


def test_dead_sockets_are_removed_when_machines_are_looked_for(tmp_path: Path) -> None:
    folder = places.default_path().parent
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / "1.sock"))
    (folder / "2.sock").write_text("no socket")
    assert find_machines() == ([], [])
    assert [path.name for path in folder.iterdir()] == ["2.sock"]
