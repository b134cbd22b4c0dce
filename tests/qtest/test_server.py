"""The server as a process: a client's view, run state, devices, and clients that misbehave."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from portvisor.qtest.client import OURS, QmpFailureError, QtestClient, QtestFailureError

WAIT = 30.0
PC = ("-machine", "pc", "-nodefaults", "-m", "16")


@pytest.fixture(scope="module")
def shared() -> Iterator[QtestClient]:
    """A PC for tests that leave nothing behind but port states."""
    with QtestClient(PC) as machine:
        yield machine


def refused(*arguments: str) -> str:
    """What the program says when it ends with status 1."""
    result = subprocess.run([*OURS, *arguments], capture_output=True, text=True, timeout=WAIT, check=False)
    assert result.returncode == 1
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    return result.stderr


# --- the machine ----------------------------------------------------------------------------------------


def test_ports_memory_and_clock(shared: QtestClient) -> None:
    shared.outb(0x21, 0xFB)
    assert shared.inb(0x21) == 0xFB
    shared.write(0x1000, b"portvisor" * 10_000)
    assert shared.read(0x1000, 90_000) == b"portvisor" * 10_000
    assert shared.read_register(0x1000, 4) == int.from_bytes(b"port", "little")
    before = shared.clock_step(1)
    assert shared.clock_step(1000) == before + 1000
    assert shared.clock_set(5) == before + 1000


def test_memory_across_a_hole_reads_ones_there(shared: QtestClient) -> None:
    shared.memset(0x9FFFE, 2, 0x11)
    assert shared.read(0x9FFFE, 4) == b"\x11\x11\xff\xff"
    assert shared.read(0xFFFFFFFFFFFFFFFF, 1) == b"\xff"


def test_set_irq_reaches_the_pic(shared: QtestClient) -> None:
    for irq in (5, 11):
        for level in (1, 0):
            shared.set_irq(irq, level)
            port = 0x20 if irq < 8 else 0xA0
            shared.outb(port, 0x0A)
            assert shared.inb(port) >> (irq & 7) & 1 == level


def test_clock_step_without_time_goes_to_the_next_deadline(shared: QtestClient) -> None:
    for port, value in ((0x43, 0x34), (0x40, 0), (0x40, 0x10)):
        shared.outb(port, value)
    first = shared.clock_step()
    assert 0 < shared.clock_step() - first <= 0x1000 * 839


def test_timer_interrupts_are_reported() -> None:
    with QtestClient(PC) as machine:
        machine.intercept_irqs()
        for port, value in ((0x43, 0x30), (0x40, 0), (0x40, 1)):
            machine.outb(port, value)
        machine.take_edges()
        machine.clock_step(1_000_000)
        assert machine.take_edges() == [(0, 1)]
        assert machine.irq == {0: 1}


@pytest.mark.parametrize("name", ["pc", "q35", "none"])
def test_machine_types_start_and_end(name: str) -> None:
    with QtestClient(["-M", name]) as machine:
        assert machine.qmp("query-status")["status"] == "running"
    assert machine.process.returncode == 0


def test_q35_blocks_are_where_the_client_programs_them() -> None:
    with QtestClient(["-M", "q35", "-nodefaults"]) as machine:

        def config(register: int, value: int) -> None:
            machine.outl(0xCF8, 0x8000F800 | register)
            machine.outl(0xCFC, value)

        assert machine.inl(0x608) == 0xFFFFFFFF
        config(0x40, 0x601)
        config(0x44, 0x80)
        config(0xF0, 0xFED1C001)
        machine.clock_set(1_000_000_000)
        assert machine.inl(0x608) == 3_579_545
        machine.write_register(0xFED1F410, 4, 0)
        assert machine.read_register(0xFED1F410, 4) == 0


def test_q35_watchdog_event() -> None:
    with QtestClient(["-M", "q35", "-nodefaults", "-watchdog-action", "none"]) as machine:
        for register, value in ((0x40, 0x601), (0x44, 0x80), (0xF0, 0xFED1C001)):
            machine.outl(0xCF8, 0x8000F800 | register)
            machine.outl(0xCFC, value)
        machine.write_register(0xFED1F410, 4, 0)
        machine.outw(0x660 + 0x12, 2)
        machine.outw(0x660 + 0x08, 0)
        machine.outw(0x660, 1)
        machine.clock_step(10_000_000_000)
        assert machine.wait_event("WATCHDOG")["data"] == {"action": "none"}


# --- run state ------------------------------------------------------------------------------------------


def test_reset_brings_devices_back_and_tells_so() -> None:
    with QtestClient(PC) as machine:
        machine.outb(0x92, 0x02)
        machine.qmp("system_reset")
        event = machine.wait_event("RESET")
        assert event["data"] == {"guest": False, "reason": "host-qmp-system-reset"}
        assert machine.inb(0x92) == 0


def test_a_guest_may_reset() -> None:
    with QtestClient(PC) as machine:
        machine.outb(0xCF9, 0x06)
        assert machine.wait_event("RESET")["data"]["guest"] is True


def test_no_reboot_makes_a_reset_the_end() -> None:
    with QtestClient([*PC, "-no-reboot"]) as machine:
        machine.outb(0xCF9, 0x06)
        assert machine.wait_event("SHUTDOWN")["data"]["guest"] is True
        assert machine.process.wait(WAIT) == 0


def test_stop_and_cont() -> None:
    with QtestClient([*PC, "-S"]) as machine:
        assert machine.qmp("query-status")["status"] == "prelaunch"
        machine.qmp("cont")
        machine.wait_event("RESUME")
        machine.qmp("stop")
        machine.wait_event("STOP")
        assert machine.qmp("query-status") == {"status": "paused", "singlestep": False, "running": False}


def test_quit_ends_with_status_0() -> None:
    with QtestClient(PC) as machine:
        machine.qmp("quit")
        machine.wait_event("SHUTDOWN")
        assert machine.process.wait(WAIT) == 0


def test_qmp_errors_are_exceptions(shared: QtestClient) -> None:
    with pytest.raises(QmpFailureError) as caught:
        shared.qmp("no-such-command")
    assert caught.value.kind == "CommandNotFound"


# --- devices --------------------------------------------------------------------------------------------


def test_debug_exit_ends_with_the_guests_status() -> None:
    with QtestClient([*PC, "-device", "isa-debug-exit,iobase=0xf4,iosize=4"]) as machine:
        with pytest.raises(QtestFailureError):
            machine.ask_all(["outl 0xf4 0x10", "inb 0x21"])
            machine.inb(0x21)
        assert machine.process.wait(WAIT) == 0x21


def test_debug_console_and_serial_write_to_files(tmp_path: Path) -> None:
    console, serial = tmp_path / "console", tmp_path / "serial"
    arguments = [
        *("-chardev", f"file,id=a,path={console}", "-device", "isa-debugcon,chardev=a,iobase=0x402"),
        *("-chardev", f"file,id=b,path={serial}", "-device", "isa-serial,chardev=b"),
    ]
    with QtestClient([*PC, *arguments]) as machine:
        machine.outb(0x402, ord("c"))
        machine.outb(0x3F8, ord("s"))
    assert (console.read_text(), serial.read_text()) == ("c", "s")


def test_pvpanic_tells_and_pauses() -> None:
    with QtestClient([*PC, "-device", "pvpanic"]) as machine:
        assert machine.inb(0x505) == 3
        machine.outb(0x505, 1)
        assert machine.wait_event("GUEST_PANICKED")["data"] == {"action": "pause"}
        machine.wait_event("STOP")
        assert machine.qmp("query-status")["status"] == "guest-panicked"


def test_ib700_expires_after_its_time() -> None:
    with QtestClient([*PC, "-device", "ib700", "-watchdog-action", "pause"]) as machine:
        machine.outb(0x443, 0xE)
        machine.clock_step(1_999_999_999)
        machine.outb(0x443, 0xE)
        machine.clock_step(1_999_999_999)
        assert not machine.events
        machine.clock_step(1)
        assert machine.wait_event("WATCHDOG")["data"] == {"action": "pause"}


def test_kcs_is_idle_at_its_port() -> None:
    arguments = ("-device", "ipmi-bmc-sim,id=bmc0", "-device", "isa-ipmi-kcs,bmc=bmc0")
    with QtestClient([*PC, *arguments]) as machine:
        assert machine.inb(0xCA3) == 0
        machine.outb(0xCA3, 0x61)
        assert machine.inb(0xCA3) >> 6 == 2


def test_a_disk_is_where_it_was_put(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(b"portvisor".ljust(1 << 20, b"\0"))
    arguments = ("-drive", f"file={image},if=none,id=d,format=raw", "-device", "ide-hd,drive=d,bus=ide.1,unit=0")
    with QtestClient([*PC, *arguments]) as machine:
        for port, value in ((0x176, 0xE0), (0x172, 1), (0x173, 0), (0x174, 0), (0x175, 0), (0x177, 0x20)):
            machine.outb(port, value)
        assert machine.inb(0x177) & 0x89 == 0x08
        assert b"".join(machine.inw(0x170).to_bytes(2, "little") for _ in range(256))[:9] == b"portvisor"


# --- the command line -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("-frobnicate",), "-frobnicate"),
        (("-machine", "microvm"), "microvm"),
        (("-machine", "pc,vmport=off"), "vmport"),
        (("-accel", "kvm"), "kvm"),
        (("-m",), "-m"),
        (("-m", "many"), "many"),
        (("-m", "1"), "memory"),
        (("-device", "e1000"), "e1000"),
        (("-device", "isa-debug-exit,colour=red"), "colour"),
        (("-device", "isa-debug-exit,iobase=0xffff,iosize=4"), "I/O space"),
        (("-device", "isa-serial,chardev=nothing"), "nothing"),
        (("-device", "isa-ipmi-kcs,bmc=nobody"), "nobody"),
        (("-machine", "none", "-device", "pvpanic"), "ISA"),
        (("-device", "isa-debugcon,iobase=0x20"), "0x0020"),
        (("-drive", "file=/nonexistent/disk,format=raw"), "/nonexistent/disk"),
        (("-drive", "file=x,format=qcow2"), "qcow2"),
        (("-chardev", "socket,path=x"), "id"),
        (("-mon", "chardev=nothing"), "nothing"),
        (("-qtest", "tcp:localhost:1"), "tcp:localhost:1"),
        (("-qtest", "unix:/nonexistent/socket"), "/nonexistent/socket"),
        (("-qtest", "unix:" + "x" * 300), "xxx"),
        (("-rtc", "base=yesterday"), "yesterday"),
        (("-uuid", "5"), "-uuid 5"),
        (("-global", "e1000.mac=5"), "e1000.mac"),
        (("disk.img",), "disk.img"),
        ((), "-qtest"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(arguments: tuple[str, ...], named: str) -> None:
    assert named in refused(*arguments)


def test_globals_are_defaults_of_devices() -> None:
    arguments = ("-device", "isa-debug-exit", "-global", "isa-debug-exit.iobase=0xf4")
    with QtestClient([*PC, *arguments]) as machine:
        machine.ask_all(["outb 0xf4 1"])
        assert machine.process.wait(WAIT) == 3


def test_the_subcommand_is_the_same_program() -> None:
    program = (*OURS[:2], OURS[2].replace("portvisor.qtest.entry", "portvisor.cli.main"), "qtest")
    with QtestClient(PC, program=program) as machine:
        assert machine.ask("endianness") == "little"
    assert machine.process.returncode == 0


# --- clients that misbehave -----------------------------------------------------------------------------


class RawClient:
    """Both sockets in the test's hands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listeners = []
        for name in ("qtest", "qmp"):
            listener = socket.socket(socket.AF_UNIX)
            listener.bind(str(folder / name))
            listener.listen(1)
            listener.settimeout(WAIT)
            listeners.append(listener)
        sockets = ("-qtest", f"unix:{folder}/qtest", "-qtest-log", "/dev/null", "-qmp", f"unix:{folder}/qmp")
        self.process = subprocess.Popen(
            [*OURS, *PC, *sockets], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL
        )
        self.qtest, self.qmp = (listener.accept()[0] for listener in listeners)
        for listener in listeners:
            listener.close()
        for link in (self.qtest, self.qmp):
            link.settimeout(WAIT)

    def line(self) -> bytes:
        """One reply of the qtest socket."""
        data = b""
        while not data.endswith(b"\n"):
            data += self.qtest.recv(1 << 16)
        return data

    def end(self) -> int:
        """Wait for the process, which has to be silent; its status."""
        out, err = self.process.communicate(timeout=WAIT)
        assert (out, err) == (b"", b"")
        return self.process.returncode

    def close(self) -> None:
        """Give everything back."""
        self.process.kill()
        self.process.communicate()
        self.qtest.close()
        self.qmp.close()


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[RawClient]:
    client = RawClient(tmp_path)
    yield client
    client.close()


@pytest.mark.parametrize("last", [b"", b"inb 0x2", b"outb 0x21 0x00\ninb", b"read 0 0x1000000\n" * 3])
def test_a_client_that_vanishes_is_a_clean_end(raw: RawClient, last: bytes) -> None:
    raw.qtest.sendall(last)
    raw.qtest.close()
    assert raw.end() == 0


def test_the_other_socket_may_vanish_first(raw: RawClient) -> None:
    raw.qmp.close()
    raw.qtest.sendall(b"endianness\n")
    assert raw.line() == b"OK little\n"
    raw.qtest.close()
    assert raw.end() == 0


def test_rubbish_on_both_sockets_is_survived(raw: RawClient) -> None:
    raw.qmp.sendall(os.urandom(5000) + b'"\n')
    raw.qtest.sendall(b"\x00\xff\xfe rubbish\nread 0x0 1073741824\ninb 99999999999999999999\nendianness\n")
    replies = b""
    while replies.count(b"\n") < 4:
        replies += raw.qtest.recv(1 << 16)
    lines = replies.splitlines()
    assert [line.split()[0] for line in lines] == [b"FAIL", b"FAIL", b"FAIL", b"OK"]


def test_qmp_replies_that_nobody_reads_do_not_hold_up_the_ports(raw: RawClient) -> None:
    raw.qmp.settimeout(0.5)
    with suppress(OSError):
        while True:
            raw.qmp.sendall(b"[]" * 1000)
    raw.qtest.sendall(b"endianness\n")
    assert raw.line() == b"OK little\n"
    raw.qtest.close()
    assert raw.end() == 0


def test_wrong_commands_name_what_is_wrong(raw: RawClient) -> None:
    wrong = {
        b"read 0 0x40000000": b"at most",
        b"memset 0 0x40000000 1": b"at most",
        b"write 0 4 0xzz": b"hexadecimal",
        b"read 0xffffffffffffffff 2": b"leave the address space",
        b"inb 0x10000": b"0x10000",
        b"inb -1": b"'-1'",
        b"outb 0x21 256": b"0xff",
        b"inb": b"arguments",
        b"clock_step 9223372036854775808": b"more than",
        b"irq_intercept_in nowhere": b"nowhere",
        b"set_irq_in /machine/unattached/device[0] unnamed-gpio-in 9 1": b"input 9",
        b"inb 0x20 " + b"x" * 100_000: b"arguments",
    }
    for command, named in wrong.items():
        raw.qtest.sendall(command + b"\n")
        reply = raw.line()
        assert reply.startswith(b"FAIL ")
        assert named in reply


@pytest.mark.parametrize("way", [socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR])
def test_a_client_that_closes_half_is_a_clean_end(raw: RawClient, way: int) -> None:
    raw.qtest.shutdown(way)
    with suppress(OSError):
        raw.qtest.sendall(b"inb 0x21\n" * 100)
    assert raw.end() == 0


def test_a_client_that_stops_reading_and_vanishes_is_a_clean_end(raw: RawClient) -> None:
    raw.qtest.settimeout(0.5)
    with suppress(OSError):
        while True:
            raw.qtest.sendall(b"read 0 0xffff\n")
    raw.qtest.close()
    assert raw.end() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_a_clean_end(raw: RawClient, number: signal.Signals) -> None:
    raw.qtest.sendall(b"endianness\n")
    raw.line()
    raw.process.send_signal(number)
    assert raw.end() == 0


ENDLESS = b"clock_step 9000000000000000000\n"


def start_endless_step(raw: RawClient) -> None:
    """With a timer that fires every two ticks."""
    raw.qtest.sendall(b"irq_intercept_in ioapic\noutb 0x43 0x34\noutb 0x40 2\noutb 0x40 0\nendianness\n")
    while b"little" not in raw.line():
        pass
    raw.qtest.sendall(ENDLESS)


def test_a_signal_ends_an_endless_step(raw: RawClient) -> None:
    start_endless_step(raw)
    raw.process.terminate()
    assert raw.end() == 0


def test_a_client_that_vanishes_ends_an_endless_step(raw: RawClient) -> None:
    start_endless_step(raw)
    raw.qtest.close()
    assert raw.end() == 0


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with QtestClient(PC) as machine:
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []
    assert machine.process.returncode == 0


def test_a_program_that_ends_at_once_is_reported() -> None:
    with pytest.raises(QtestFailureError, match="status 1"), QtestClient(["-device", "nothing"]):
        pass
