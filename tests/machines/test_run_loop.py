"""The run loop on both engines: ends, resets, halts, time limits, failures. Guests are a few bytes each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import guest_programs
from portvisor.guest.errors import GuestFileError
from portvisor.kvm.api import System
from portvisor.kvm.select import open_engine
from portvisor.machines.outcome import End, Outcome
from portvisor.machines.pc import MIB, Pc, PcOptions, Program
from portvisor.ports import BufferedChar, Device, PortRange
from support import require_kvm

ORIGIN = 0x7C00
WATCHDOG_S = 20.0


@pytest.fixture(params=["software", pytest.param("kvm", marks=pytest.mark.kvm)])
def engine(request: pytest.FixtureRequest) -> Iterator[System]:
    if request.param == "kvm":
        require_kvm()
    system = open_engine(request.param)
    yield system
    system.close()


def pc(engine: System, code: str, **options: object) -> Pc:
    program = Program(bytes.fromhex(code), ORIGIN)
    return Pc(engine, PcOptions(memory=4 * MIB, program=program, base_time=0, **options))  # type: ignore[arg-type]


def test_exit_port_gives_its_status(engine: System) -> None:
    with pc(engine, "b010 e6f4 f4") as machine:
        outcome = machine.run(WATCHDOG_S)
    assert (outcome.end, outcome.exit_status) == (End.GUEST_EXIT, 0x21)


def test_serial_output_arrives_in_order(engine: System) -> None:
    serial = BufferedChar()
    text = ORIGIN + 18
    code = f"baf803 be{text & 0xFF:02x}{text >> 8:02x} ac 84c0 7403 ee ebf8 b000 e6f4" + b"hello\0".hex()
    with pc(engine, code, serial=(serial, None)) as machine:
        assert machine.run(WATCHDOG_S).end is End.GUEST_EXIT
    assert bytes(serial.sent) == b"hello"


def test_halt_with_interrupts_off_ends(engine: System) -> None:
    with pc(engine, "fa f4") as machine:
        outcome = machine.run(WATCHDOG_S)
    assert outcome.end is End.HALTED
    assert outcome.exit_status == 1


def test_a_triple_fault_resets_as_often_as_allowed_and_then_ends(engine: System) -> None:
    with pc(engine, guest_programs.load("triplefault").hex()) as machine:
        machine.reset_limit = 2
        outcome = machine.run(WATCHDOG_S)
        assert machine.resets == 2
    assert outcome.end is End.SHUTDOWN
    assert "triple fault" in outcome.detail.splitlines()[0]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("b0fe e664 ebfe", "keyboard controller"),
        ("b001 e692 ebfe", "port 92"),
        ("baf90c b002 ee b006 ee ebfe", "reset control (system)"),
    ],
)
def test_every_way_to_reset_ends_a_machine_that_may_not_reboot(engine: System, code: str, reason: str) -> None:
    with pc(engine, code) as machine:
        machine.reset_limit = 0
        outcome = machine.run(WATCHDOG_S)
    assert (outcome.end, outcome.detail) == (End.RESET, reason)


def test_a_guest_that_spins_meets_the_time_limit(engine: System) -> None:
    with pc(engine, "ebfe") as machine:
        assert machine.run(0.2).end is End.TIME_LIMIT
        assert machine.run(0.2).end is End.TIME_LIMIT


def test_a_machine_that_is_switched_off_executes_nothing_until_it_is_reset(engine: System) -> None:
    with pc(engine, "b042 e680 ebfe") as machine:
        timer = machine.clock.timer(lambda: machine.request_stop(Outcome(End.POWER_OFF, detail="once")))
        timer.arm(machine.clock.now() + 100_000_000)
        off = machine.run(WATCHDOG_S)
        assert (off.end, off.detail) == (End.POWER_OFF, "once")
        assert machine.run(WATCHDOG_S) == off
        machine.reset()
        assert machine.run(0.1).end is End.TIME_LIMIT


def test_a_reset_starts_the_program_again(engine: System) -> None:
    """Count resets in CMOS 40h; the third time leave with the count."""
    code = "b040 e670 e471 fec0 88c4 b040 e670 88e0 e671 3c03 7406 b0fe e664 ebfe e6f4 f4"
    with pc(engine, code) as machine:
        outcome = machine.run(WATCHDOG_S)
        assert machine.resets == 2
    assert outcome.exit_status == 3 << 1 | 1


def test_timer_interrupts_wake_a_halted_cpu(engine: System) -> None:
    """The guest `irq` counts a hundred ticks of the PIT with HLT."""
    serial = BufferedChar()
    with pc(engine, guest_programs.load("irq").hex(), serial=(serial, None)) as machine:
        outcome = machine.run(WATCHDOG_S)
    assert outcome.exit_status == 0x21, bytes(serial.sent)


class Broken(Device):
    ports = (PortRange(0x300, 1, name="broken"),)

    def read(self, offset: int, size: int) -> int:
        raise ValueError("oops")


def test_a_device_that_raises_is_reported_and_the_guest_goes_on(engine: System) -> None:
    messages: list[str] = []
    with pc(engine, "ba0003 ec e6f4 f4") as machine:
        machine.attach(Broken())
        machine.on_message = messages.append
        outcome = machine.run(WATCHDOG_S)
    assert outcome.exit_status == 0xFF << 1 | 1
    assert messages == ["device failure: broken: 1-byte read of port 0x0300 raised ValueError: oops"]


def test_a_strict_machine_stops_at_a_device_that_raises(engine: System) -> None:
    with pc(engine, "ba0003 ec e6f4 f4", strict=True) as machine:
        machine.attach(Broken())
        outcome = machine.run(WATCHDOG_S)
    assert outcome.end is End.DEVICE
    assert "broken: 1-byte read of port 0x0300" in str(outcome)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory": 1 * MIB}, "memory of 1048576 bytes: 2M to 3072M in steps of 64K are possible"),
        ({"memory": 4 * MIB + 1}, "steps of 64K"),
        ({"memory": 4096 * MIB}, "2M to 3072M"),
        ({"firmware": bytes(100)}, "firmware: 100 bytes; a BIOS image is a multiple of 64K up to 4M"),
        ({"program": Program(b"", 0x7C00, "empty.bin")}, r"empty\.bin: empty"),
        ({"program": Program(bytes(100), 0x9FFF0, "high.bin")}, r"high\.bin: 100 bytes at 0x9fff0 leave"),
    ],
)
def test_what_the_board_cannot_have_is_one_line(options: dict[str, object], message: str) -> None:
    system = open_engine("software")
    try:
        with pytest.raises(GuestFileError, match=message):
            Pc(system, PcOptions(**{"memory": 4 * MIB, **options}))  # type: ignore[arg-type]
    finally:
        system.close()
