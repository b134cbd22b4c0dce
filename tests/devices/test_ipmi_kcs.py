"""IPMI 2.0, chapter 9; the rule is in each test's docstring."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.kcs_host import (
    BASE,
    COMMAND,
    ERROR,
    GET_STATUS,
    IDLE,
    OBF,
    READ,
    READ_BYTE,
    SMS_ATN,
    SPACING,
    WRITE,
    WRITE_END,
    WRITE_START,
    KcsHost,
)
from portvisor.devices.bmc import Bmc
from portvisor.devices.ipmi_kcs import ABORTED, ILLEGAL_CONTROL, LENGTH_ERROR, MESSAGE_LIMIT, NO_ERROR, IpmiKcs
from portvisor.ports import VirtualClock
from portvisor.testing import DeviceSuite


def echo(request: bytes) -> bytes:
    return bytes([request[0] | 4]) + request[1:2] + b"\0" + request[2:][::-1]


class TestSuite(DeviceSuite):
    def make(self) -> IpmiKcs:
        return IpmiKcs(echo, base=BASE, spacing=SPACING)


@pytest.fixture
def host() -> KcsHost:
    return KcsHost(echo)


def test_after_reset_idle_and_empty(host: KcsHost) -> None:
    """9.7: state IDLE, OBF, IBF and C/D# clear; never FF, which means "not present"."""
    assert host.status == 0


def test_spacing_leaves_the_ports_between_alone(host: KcsHost) -> None:
    """SMBIOS type 38: registers on 32-bit boundaries."""
    assert [port for port in range(0xCA0, 0xCB0) if host.space.owner(port, 1)] == [0xCA8, 0xCAC]


def test_a_transfer(host: KcsHost) -> None:
    """Figures 9-6 and 9-7: states and OBF at every step are checked by the host."""
    assert host.transact(b"\x18\x01abc") == b"\x1c\x01\x00cba"
    assert host.phase == IDLE


def test_transfers_follow_each_other(host: KcsHost) -> None:
    for index in range(5):
        assert host.transact(bytes((0x18, index))) == bytes((0x1C, index, 0))


def test_every_byte_value_is_data_in_the_write_phase(host: KcsHost) -> None:
    """9.10: control codes are codes only in the command register."""
    body = bytes(range(0x50, 0x90))
    assert host.transact(b"\x18\x01" + body) == b"\x1c\x01\x00" + body[::-1]


def test_command_or_data_bit(host: KcsHost) -> None:
    """Status bit 3: 1 if the last write went to the command register."""
    host.command(WRITE_START)
    assert host.status & COMMAND
    host.put(0x18)
    assert not host.status & COMMAND


def test_linux_dialogue() -> None:
    """What the ipmi_si driver sends when it finds an interface, against the BMC."""
    bmc = Bmc(VirtualClock(), 1_700_000_000, lambda action: None)
    host = KcsHost(bmc.execute)
    identity = host.transact(b"\x18\x01")
    assert identity[:4] == b"\x1c\x01\x00\x20"
    assert len(identity) == 14
    assert identity[7] == 0x02, "IPMI 2.0"
    assert host.transact(b"\x18\x2f") == b"\x1c\x2f\x00\x08"
    assert host.transact(b"\x18\x2e\x0c") == b"\x1c\x2e\x00"
    assert host.transact(b"\x18\x2f") == b"\x1c\x2f\x00\x0c"
    assert host.transact(b"\x18\x30\x08") == b"\x1c\x30\x00"
    assert host.transact(b"\x18\x08")[:3] == b"\x1c\x08\x00"
    assert host.transact(b"\x18\x42\x00")[:2] == b"\x1c\x42"


# --- errors and aborts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0x00, 0x5F, 0x63, 0x68, 0xFF, WRITE_END])
def test_other_control_codes_are_errors(host: KcsHost, code: int) -> None:
    """9.10: an unknown or misplaced code leads to ERROR, with status 02."""
    host.command(code)
    assert host.phase == ERROR
    assert host.abort() == ILLEGAL_CONTROL


def test_data_in_idle_is_an_error(host: KcsHost) -> None:
    host.put(0x18)
    assert host.phase == ERROR


def test_data_other_than_read_in_the_read_phase_is_an_error(host: KcsHost) -> None:
    """9.10: READ is the only byte that the host may write there."""
    host.send(b"\x18\x01")
    assert host.phase == READ
    host.put(0x00)
    assert host.phase == ERROR
    assert host.abort() == ILLEGAL_CONTROL


def test_a_second_write_end_is_an_error(host: KcsHost) -> None:
    host.command(WRITE_START)
    host.command(WRITE_END)
    host.command(WRITE_END)
    assert host.phase == ERROR


def test_abort_in_idle_reports_no_error(host: KcsHost) -> None:
    """Table 9-4: 00."""
    assert host.abort() == NO_ERROR


@pytest.mark.parametrize("bytes_sent", [0, 1, 5])
def test_abort_in_the_write_phase(host: KcsHost, bytes_sent: int) -> None:
    """Table 9-4: 01, aborted by command."""
    host.command(WRITE_START)
    for value in range(bytes_sent):
        host.put(value)
    assert host.abort() == ABORTED
    assert host.transact(b"\x18\x01") == b"\x1c\x01\x00"


def test_abort_in_the_read_phase(host: KcsHost) -> None:
    host.send(b"\x18\x01")
    assert host.abort() == ABORTED
    assert host.transact(b"\x18\x02") == b"\x1c\x02\x00"


def test_a_status_is_reported_once(host: KcsHost) -> None:
    host.command(0)
    assert host.abort() == ILLEGAL_CONTROL
    assert host.abort() == NO_ERROR


def test_repeated_abort_keeps_the_first_cause(host: KcsHost) -> None:
    host.command(0)
    host.command(GET_STATUS)
    assert host.abort() == ILLEGAL_CONTROL


def test_write_start_begins_anew_in_any_state(host: KcsHost) -> None:
    """9.10: WRITE_START cancels whatever was under way."""
    host.command(WRITE_START)
    host.put(0x99)
    host.command(WRITE_START)
    host.get()
    for value in (0x18,):
        host.put(value)
    host.command(WRITE_END)
    host.put(0x07)
    assert host.receive() == b"\x1c\x07\x00"


def test_a_request_that_is_too_long(host: KcsHost) -> None:
    """Table 9-4: 06, length error; nothing is executed."""
    host.command(WRITE_START)
    for _ in range(MESSAGE_LIMIT):
        host.put(0)
        assert host.phase == WRITE
    host.put(0)
    assert host.phase == ERROR
    assert host.abort() == LENGTH_ERROR


# --- attention and interrupt ---------------------------------------------------------------------------------


def test_sms_atn(host: KcsHost) -> None:
    """Status bit 2: the BMC has something for the host; polled, it does not touch OBF."""
    host.kcs.set_attention(True)
    assert host.status == SMS_ATN
    assert host.transact(b"\x18\x01") == b"\x1c\x01\x00"
    host.kcs.set_attention(False)
    assert not host.status & SMS_ATN


def test_obf_is_the_interrupt() -> None:
    """9.12: one interrupt a byte, withdrawn by reading DATA_OUT."""
    host = KcsHost(echo, interrupt=True)
    host.transact(b"\x18\x01\x55")
    written = 1 + 2 + 1 + 0
    read = 4 + 1
    assert host.edges == [1, 0] * (written + read)


def test_a_write_over_an_unread_byte_gives_a_new_edge() -> None:
    host = KcsHost(echo, interrupt=True)
    host.command(WRITE_START)
    host.put(0x18)
    assert host.edges == [1, 0, 1]


def test_attention_interrupts_in_idle() -> None:
    """9.12: a non-communication interrupt is a dummy byte in IDLE."""
    host = KcsHost(echo, interrupt=True)
    host.kcs.set_attention(True)
    assert host.status == SMS_ATN | OBF
    assert host.edges == [1]
    host.get()
    assert host.phase == IDLE


def test_attention_waits_for_a_transfer_to_end() -> None:
    """9.12: a byte of a transfer is not overwritten."""
    host = KcsHost(echo, interrupt=True)
    host.send(b"\x18\x01")
    host.kcs.set_attention(True)
    assert host.receive() == b"\x1c\x01\x00"
    assert host.status & SMS_ATN


def test_reset_and_restore_move_the_line() -> None:
    host = KcsHost(echo, interrupt=True)
    host.command(WRITE_START)
    saved = host.kcs.snapshot()
    host.kcs.reset()
    assert host.edges == [1, 0]
    assert host.status == 0
    host.kcs.restore(saved)
    assert host.edges == [1, 0, 1]
    assert host.phase == WRITE


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.sampled_from([GET_STATUS, WRITE_START, WRITE_END, READ_BYTE, 0, 1, 0x18, 0xFF])
        ),
        max_size=60,
    )
)
def test_abort_always_recovers(stream: list[tuple[bool, int]]) -> None:
    """Figure 9-8: whatever the host has written, the error exit brings the interface back."""
    host = KcsHost(echo)
    for to_command, value in stream:
        host.space.write(BASE + SPACING * to_command, 1, value)
        assert host.status != 0xFF
    host.abort()
    assert host.transact(b"\x18\x01\x42") == b"\x1c\x01\x00\x42"
