"""IPMI 2.0 command tables; the rule is in each test's docstring."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.kcs_host import OBF, SMS_ATN, KcsHost
from portvisor.devices.bmc import RESPONSE_LIMIT, Bmc
from portvisor.devices.ipmi_records import Sensor
from portvisor.devices.ipmi_sel import CAPACITY
from portvisor.ports import NS_PER_S, VirtualClock
from portvisor.testing import DeviceSuite

BASE_TIME = 1_700_000_000
CHASSIS, SENSOR, APP, STORAGE = 0x00, 0x10, 0x18, 0x28
EVENT = bytes(2) + b"\x02" + bytes(4) + b"\x41\x00\x04\x01\x31\x01\x57\x00\x00"
"""A record to add: ID and timestamp are the log's."""


class Board:
    def __init__(self, **options: object) -> None:
        self.clock = VirtualClock()
        self.actions: list[str] = []
        self.attention: list[tuple[bool, bool]] = []
        self.bmc = Bmc(self.clock, BASE_TIME, self.actions.append, **options)  # type: ignore[arg-type]
        self.bmc.on_attention = lambda attention, interrupt: self.attention.append((attention, interrupt))

    def raw(self, *request: int) -> bytes:
        """Completion code and data of a response; its head must mirror the request's."""
        response = self.bmc.execute(bytes(request))
        assert response[:2] == bytes((request[0] | 4, request[1]))
        return response[2:]

    def ok(self, *request: int) -> bytes:
        """Data of a response that must be good."""
        response = self.raw(*request)
        assert response[0] == 0, f"completion code {response[0]:02x}"
        return response[1:]

    def code(self, *request: int) -> int:
        """Completion code of a response that must have nothing else."""
        response = self.raw(*request)
        assert len(response) == 1
        return response[0]

    def advance(self, seconds: float) -> None:
        self.clock.advance(int(seconds * NS_PER_S))

    # --- event log -----------------------------------------------------------------------------------------

    def sel_info(self) -> tuple[int, ...]:
        """Version, entries, free bytes, last addition, last erase, operation support."""
        return struct.unpack("<BHHIIB", self.ok(STORAGE, 0x40))

    def reserve_sel(self) -> bytes:
        return self.ok(STORAGE, 0x42)

    def entry(self, record_id: int, offset: int = 0, count: int = 0xFF, reservation: bytes = bytes(2)) -> bytes:
        return self.raw(STORAGE, 0x43, *reservation, *struct.pack("<HBB", record_id, offset, count))

    def add(self, record: bytes = EVENT) -> int:
        return int.from_bytes(self.ok(STORAGE, 0x44, *record), "little")

    def clear_sel(self, reservation: bytes, action: int = 0xAA) -> bytes:
        return self.raw(STORAGE, 0x47, *reservation, *b"CLR", action)

    def entries(self) -> list[bytes]:
        """The whole log, as software walks it."""
        found, wanted = [], 0
        while wanted != 0xFFFF:
            response = self.entry(wanted)
            assert response[0] == 0
            wanted = int.from_bytes(response[1:3], "little")
            found.append(response[3:])
        return found

    # --- watchdog ------------------------------------------------------------------------------------------

    def set_watchdog(
        self, use: int = 4, action: int = 1, pretimeout: int = 0, clear: int = 0, ms100: int = 50
    ) -> None:
        assert self.ok(APP, 0x24, use, action, pretimeout, clear, *struct.pack("<H", ms100)) == b""

    def watchdog(self) -> tuple[int, ...]:
        """Use, actions, pre-timeout, expiration flags, initial, present countdown."""
        return struct.unpack("<BBBBHH", self.ok(APP, 0x25))

    def kick(self) -> None:
        assert self.ok(APP, 0x22) == b""


@pytest.fixture
def board() -> Board:
    return Board()


class TestSuite(DeviceSuite):
    def make(self) -> Bmc:
        board = Board()
        self.clock = board.clock
        return board.bmc


# --- requests and responses ----------------------------------------------------------------------------------


def test_unknown_commands(board: Board) -> None:
    """Table 5-2: C1, invalid command."""
    assert board.code(APP, 0x99) == 0xC1
    assert board.code(0xB8, 0x01) == 0xC1


def test_other_luns(board: Board) -> None:
    """Table 5-2: C2, invalid for the LUN; the response names the LUN."""
    assert board.code(APP | 1, 0x01) == 0xC2


@pytest.mark.parametrize("request_bytes", [b"", b"\x18"])
def test_requests_without_a_command(board: Board, request_bytes: bytes) -> None:
    """Table 5-2: C7, request data length invalid."""
    assert board.bmc.execute(request_bytes)[2:] == b"\xc7"


@pytest.mark.parametrize(
    ("net_fn", "command", "length"),
    [
        (APP, 0x24, 5), (APP, 0x06, 1), (APP, 0x2E, 0), (APP, 0x30, 0), (APP, 0x42, 0), (CHASSIS, 0x02, 0),
        (SENSOR, 0x2D, 0), (SENSOR, 0x27, 0), (STORAGE, 0x10, 0), (STORAGE, 0x11, 3), (STORAGE, 0x23, 5),
        (STORAGE, 0x43, 5), (STORAGE, 0x44, 15), (STORAGE, 0x47, 5), (STORAGE, 0x49, 3),
    ],
)  # fmt: skip
def test_short_requests(board: Board, net_fn: int, command: int, length: int) -> None:
    """Table 5-2: C7."""
    assert board.code(net_fn, command, *bytes(length)) == 0xC7


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=30))
def test_any_request_gets_a_response_that_an_interface_can_carry(request_bytes: bytes) -> None:
    """9.3: NetFn/LUN, command, completion code, data."""
    board = BOARD_FOR_PROPERTIES
    response = board.bmc.execute(request_bytes)
    assert 3 <= len(response) <= RESPONSE_LIMIT


BOARD_FOR_PROPERTIES = Board()


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(sorted(BOARD_FOR_PROPERTIES.bmc._commands)),
    st.binary(max_size=20),
    st.integers(0, 20 * NS_PER_S),
)
def test_any_data_for_a_known_command(known: tuple[int, int], data: bytes, pause: int) -> None:
    """9.3, for commands that reach a handler."""
    board = BOARD_FOR_PROPERTIES
    response = board.bmc.execute(bytes((known[0] << 2, known[1])) + data)
    assert 3 <= len(response) <= RESPONSE_LIMIT
    board.clock.advance(pause)


# --- App -----------------------------------------------------------------------------------------------------


def test_device_id(board: Board) -> None:
    """20.1: no device SDRs (bit 7), available, IPMI 2.0 as BCD with the low digit on top, supported devices."""
    data = board.ok(APP, 0x01)
    assert len(data) == 11
    device, revision, firmware, minor, version, support = data[:6]
    assert (device, revision) == (0x20, 0x01)
    assert (firmware & 0x80, f"{firmware & 0x7F}.{minor:02x}") == (0, "2.10")
    assert version == 0x02
    assert support == 0x80 | 0x08 | 0x04 | 0x02 | 0x01, "chassis, FRU, SEL, SDR repository, sensor"


def test_device_id_names_only_what_there_is(board: Board) -> None:
    """20.1: each supported device answers its first command."""
    for net_fn, command in ((CHASSIS, 0x01), (STORAGE, 0x40), (STORAGE, 0x20)):
        board.ok(net_fn, command)
    board.ok(STORAGE, 0x10, 0)
    board.ok(SENSOR, 0x2D, 1)
    assert board.code(SENSOR, 0x20) == 0xC1, "Get Device SDR Info, which bit 7 of the revision would promise"


def test_self_test(board: Board) -> None:
    """20.4: 55 00, no error."""
    assert board.ok(APP, 0x04) == b"\x55\x00"


def test_acpi_power_state(board: Board) -> None:
    """20.6, 20.7: bit 7 says whether a byte sets the state."""
    board.ok(APP, 0x06, 0x80 | 5, 0x80 | 3)
    assert board.ok(APP, 0x07) == b"\x05\x03"
    board.ok(APP, 0x06, 0x00, 0x80)
    assert board.ok(APP, 0x07) == b"\x05\x00"


def test_guids(board: Board) -> None:
    """20.8, 22.14: 16 bytes."""
    assert board.ok(APP, 0x08) == board.ok(APP, 0x37) == bytes(range(16))


def test_channel_info(board: Board) -> None:
    """22.24: Fh is the system interface, of KCS protocol, without sessions or interrupt; Eh is "this one"."""
    expected = bytes((0xF, 0x0C, 0x05, 0x00)) + (7154).to_bytes(3, "little") + b"\xff\xff"
    assert board.ok(APP, 0x42, 0x0F) == expected
    assert board.ok(APP, 0x42, 0x0E) == expected
    assert board.code(APP, 0x42, 0x00) == 0xCC


def test_global_enables(board: Board) -> None:
    """22.1, 22.2: event logging is on from the start; bit 4 is reserved."""
    assert board.ok(APP, 0x2F) == b"\x08"
    board.ok(APP, 0x2E, 0xFF)
    assert board.ok(APP, 0x2F) == b"\xef"


def test_cold_reset_keeps_the_log_only(board: Board) -> None:
    """20.2: power-up defaults; the SEL is non-volatile, reservations end, the watchdog stops."""
    board.ok(APP, 0x2E, 0x0F)
    reservation = board.reserve_sel()
    board.set_watchdog()
    board.kick()
    before = board.entries()
    board.ok(APP, 0x02)
    assert board.ok(APP, 0x2F) == b"\x08"
    assert board.entries() == before
    assert board.clear_sel(reservation) == b"\xc5"
    board.advance(60)
    assert board.actions == []
    assert board.code(APP, 0x22) == 0x80


# --- events and message flags --------------------------------------------------------------------------------


def test_event_logging_can_be_switched_off(board: Board) -> None:
    """22.1, bit 3: the BMC's own events only; Add SEL Entry goes on."""
    board.ok(APP, 0x2E, 0x00)
    before = board.entries()
    board.bmc.log(0x12, b"\x00")
    assert board.entries() == before
    board.add()
    assert len(board.entries()) == len(before) + 1


def test_event_message_buffer(board: Board) -> None:
    """22.4, 22.8: one event, flag bit 1; reading it empties the buffer and clears the flag."""
    board.ok(APP, 0x2E, 0x0C)
    assert board.code(APP, 0x35) == 0x80
    board.bmc.log(0x12, b"\x01")
    board.bmc.log(0x12, b"\x02")
    assert board.ok(APP, 0x31) == b"\x02"
    event = board.ok(APP, 0x35)
    assert event == board.entries()[-2]
    assert board.ok(APP, 0x31) == b"\x00"
    assert board.code(APP, 0x35) == 0x80


def test_event_message_buffer_without_logging(board: Board) -> None:
    """31.6.1: FFFF is the record ID of an event that is not in the log."""
    board.ok(APP, 0x2E, 0x04)
    board.bmc.log(0x12, b"\x01")
    assert board.ok(APP, 0x35)[:3] == b"\xff\xff\x02"


def test_clearing_the_flag_empties_the_buffer(board: Board) -> None:
    """22.3, bit 1."""
    board.ok(APP, 0x2E, 0x0C)
    board.bmc.log(0x12, b"\x01")
    board.ok(APP, 0x30, 0x02)
    assert board.code(APP, 0x35) == 0x80
    assert board.ok(APP, 0x31) == b"\x00"


@pytest.mark.parametrize(("enables", "interrupt"), [(0x0C, False), (0x0E, True)])
def test_attention_follows_the_flags(board: Board, enables: int, interrupt: bool) -> None:
    """22.1, bit 1: the event message buffer's interrupt."""
    board.ok(APP, 0x2E, enables)
    board.bmc.log(0x12, b"\x01")
    board.ok(APP, 0x35)
    assert board.attention == [(True, interrupt), (False, False)]


def test_attention_through_the_interface() -> None:
    """9.7: SMS_ATN is set as long as a message flag is."""
    board = Board()
    host = KcsHost(board.bmc.execute, interrupt=True)
    board.bmc.on_attention = host.kcs.set_attention
    assert host.transact(b"\x18\x2e\x0e") == b"\x1c\x2e\x00"
    board.bmc.log(0x12, b"\x01")
    assert host.status == SMS_ATN | OBF
    host.get()
    assert host.transact(b"\x18\x31") == b"\x1c\x31\x00\x02"
    assert len(host.transact(b"\x18\x35")) == 3 + 16
    assert not host.status & SMS_ATN


def test_receive_queue_is_empty(board: Board) -> None:
    """22.6: 80, data not available."""
    assert board.code(APP, 0x33) == 0x80


# --- watchdog ------------------------------------------------------------------------------------------------


def test_watchdog_settings_are_read_back(board: Board) -> None:
    """27.7: bits of Set Watchdog Timer, both countdown values equal, timer stopped."""
    board.set_watchdog(use=0x84, action=0x31, pretimeout=2, ms100=600)
    assert board.watchdog() == (0x84, 0x31, 2, 0, 600, 600)


def test_reset_before_set_is_refused(board: Board) -> None:
    """27.5: 80, attempt to start an un-initialized watchdog."""
    assert board.code(APP, 0x22) == 0x80


@pytest.mark.parametrize(("use", "action"), [(0, 1), (6, 1), (4, 4), (4, 0x40)])
def test_reserved_uses_and_actions(board: Board, use: int, action: int) -> None:
    assert board.code(APP, 0x24, use, action, 0, 0, 1, 0) == 0xCC


def test_watchdog_counts_down_in_tenths_of_a_second(board: Board) -> None:
    board.set_watchdog(ms100=50)
    board.kick()
    assert board.watchdog()[0] == 0x44, "running"
    board.advance(1.5)
    assert board.watchdog()[4:] == (50, 35)


@pytest.mark.parametrize(
    ("action", "expected"), [(0, []), (1, ["reset"]), (2, ["power down"]), (3, ["power cycle"])]
)
def test_watchdog_expiry(board: Board, action: int, expected: list[str]) -> None:
    """27.1, 27.2: the action, the use's expiration flag, a Watchdog 2 event, and the timer stops."""
    board.set_watchdog(action=action, ms100=50)
    board.kick()
    board.advance(4.9)
    assert board.actions == []
    board.advance(0.1)
    assert board.actions == expected
    assert board.watchdog() == (4, action, 0, 1 << 4, 50, 0)
    event = board.entries()[-1]
    assert event[10:16] == bytes((0x23, 0x00, 0x6F, 0xC0 | action, 0x04, 0xFF))
    board.advance(100)
    assert board.actions == expected


def test_kicking_keeps_the_machine_up(board: Board) -> None:
    board.set_watchdog(ms100=50)
    for _ in range(10):
        board.kick()
        board.advance(4.9)
    assert board.actions == []


def test_dont_log(board: Board) -> None:
    """27.6, byte 1 bit 7."""
    board.set_watchdog(use=0x84)
    board.kick()
    before = len(board.entries())
    board.advance(10)
    assert len(board.entries()) == before


def test_expiration_flags_are_cleared_by_ones(board: Board) -> None:
    """27.6, byte 4."""
    board.set_watchdog(use=1, action=0)
    board.kick()
    board.advance(10)
    board.set_watchdog(use=4, action=0)
    board.kick()
    board.advance(10)
    assert board.watchdog()[3] == 0b10010
    board.set_watchdog(clear=0b00010)
    assert board.watchdog()[3] == 0b10000


def test_set_stops_the_timer_unless_told_not_to(board: Board) -> None:
    """27.6, byte 1 bit 6."""
    board.set_watchdog(ms100=50)
    board.kick()
    board.set_watchdog(ms100=50)
    board.advance(100)
    assert board.actions == []
    board.kick()
    board.set_watchdog(use=0x44, ms100=80)
    board.advance(7.9)
    assert board.actions == []
    board.advance(0.1)
    assert board.actions == ["reset"]


def test_dont_stop_does_not_start(board: Board) -> None:
    """27.6: if it is stopped it stays stopped."""
    board.set_watchdog(use=0x44)
    board.advance(100)
    assert board.actions == []


def test_a_count_of_zero_expires_at_once(board: Board) -> None:
    """27.6: a timer started with 0 expires immediately."""
    board.set_watchdog(ms100=0)
    board.kick()
    assert board.actions == ["reset"]


def test_pretimeout_by_messaging_interrupt(board: Board) -> None:
    """27.3: so many seconds before the end, message flag bit 3; Reset Watchdog Timer then does nothing (27.5)."""
    board.set_watchdog(action=0x31, pretimeout=2, ms100=50)
    board.kick()
    board.advance(2.9)
    assert board.ok(APP, 0x31) == b"\x00"
    board.advance(0.1)
    assert board.ok(APP, 0x31) == b"\x08"
    assert board.attention[-1] == (True, True)
    assert board.entries()[-1][10:15] == bytes((0x23, 0x00, 0x6F, 0xC8, 0x34))
    board.kick()
    board.advance(2)
    assert board.actions == ["reset"]


def test_set_withdraws_the_pretimeout(board: Board) -> None:
    """27.6: Set Watchdog Timer clears the pre-timeout interrupt flag."""
    board.set_watchdog(action=0x31, pretimeout=2)
    board.kick()
    board.advance(4)
    board.set_watchdog(action=0x31, pretimeout=2)
    assert board.ok(APP, 0x31) == b"\x00"
    board.advance(100)
    assert board.actions == []


def test_pretimeout_longer_than_the_countdown_is_due_at_once(board: Board) -> None:
    board.set_watchdog(action=0x31, pretimeout=200)
    board.kick()
    board.advance(0)
    assert board.ok(APP, 0x31) == b"\x08"
    board.advance(5)
    assert board.actions == ["reset"]


def test_a_host_reset_stops_the_watchdog(board: Board) -> None:
    """27.5: after a reset the timer is un-initialized; the expiration flags are kept."""
    board.set_watchdog()
    board.kick()
    board.advance(5)
    board.set_watchdog()
    board.kick()
    board.bmc.reset()
    board.advance(100)
    assert board.actions == ["reset"]
    assert board.watchdog()[3] == 1 << 4
    assert board.code(APP, 0x22) == 0x80


def test_restore_brings_the_countdown_back(board: Board) -> None:
    board.set_watchdog(ms100=50)
    board.kick()
    saved = board.bmc.snapshot()
    board.set_watchdog()
    board.bmc.restore(saved)
    board.advance(5)
    assert board.actions == ["reset"]
    assert len(board.entries()) == 2


# --- Chassis -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("control", "expected"), [(0, "power down"), (1, "power up"), (2, "power cycle"), (3, "reset"), (5, "soft off")]
)
def test_chassis_control(board: Board, control: int, expected: str) -> None:
    """28.3, byte 1."""
    board.ok(CHASSIS, 0x02, control)
    assert board.actions == [expected]


@pytest.mark.parametrize("control", [4, 6, 15])
def test_chassis_control_of_what_is_not_there(board: Board, control: int) -> None:
    assert board.code(CHASSIS, 0x02, control) == 0xCC
    assert board.actions == []


def test_restart_cause(board: Board) -> None:
    """28.11: what the last restart came from: 0 unknown, 1 chassis control, 4 watchdog."""
    assert board.ok(CHASSIS, 0x07)[0] == 0
    board.ok(CHASSIS, 0x02, 3)
    assert board.ok(CHASSIS, 0x07)[0] == 0
    board.bmc.reset()
    assert board.ok(CHASSIS, 0x07)[0] == 1
    board.set_watchdog()
    board.kick()
    board.advance(5)
    board.bmc.reset()
    assert board.ok(CHASSIS, 0x07)[0] == 4
    board.bmc.reset()
    assert board.ok(CHASSIS, 0x07)[0] == 0


def test_chassis_status(board: Board) -> None:
    """28.2: power is on; identify is supported and off."""
    assert board.ok(CHASSIS, 0x01) == bytes((0x01, 0x00, 0x40, 0x00))


@pytest.mark.parametrize(("request_data", "seconds"), [((), 15), ((5,), 5), ((255,), 255)])
def test_identify_for_a_time(board: Board, request_data: tuple[int, ...], seconds: int) -> None:
    """28.5: seconds, 15 by default; status bits 5:4 = 01 while it lasts."""
    board.ok(CHASSIS, 0x04, *request_data)
    board.advance(seconds - 0.1)
    assert board.ok(CHASSIS, 0x01)[2] == 0x50
    board.advance(0.2)
    assert board.ok(CHASSIS, 0x01)[2] == 0x40


def test_identify_for_ever(board: Board) -> None:
    """28.5, byte 2 bit 0; status bits 5:4 = 10. An interval of 0 ends it."""
    board.ok(CHASSIS, 0x04, 0, 1)
    board.advance(1000)
    assert board.ok(CHASSIS, 0x01)[2] == 0x60
    board.ok(CHASSIS, 0x04, 0)
    assert board.ok(CHASSIS, 0x01)[2] == 0x40


def test_power_on_hours(board: Board) -> None:
    """28.14: minutes a count, and the count."""
    board.advance(3 * 3600 + 59 * 60)
    assert struct.unpack("<BI", board.ok(CHASSIS, 0x0F)) == (60, 3)


# --- sensors -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "state"), [(23, 0xC0), (47, 0xD0), (200, 0xD0), (46, 0xC0), (4, 0xC0), (3, 0xC2), (0, 0xC2)]
)
def test_sensor_reading(raw: int, state: int) -> None:
    """35.14: scanning on, events off; "at or above" UC is bit 4, "at or below" LC bit 1, bits 7:6 read 1."""
    board = Board(sensors=(Sensor(7, "Temp", 1, 1, raw, upper_critical=47, lower_critical=3),))
    assert board.ok(SENSOR, 0x2D, 7) == bytes((raw, 0x40, state))


def test_sensor_thresholds(board: Board) -> None:
    """35.9: readable mask, LNC, LC, LNR, UNC, UC, UNR."""
    assert board.ok(SENSOR, 0x27, 1) == bytes((0x12, 0, 3, 0, 0, 47, 0))
    assert board.ok(SENSOR, 0x27, 3) == bytes((0x02, 0, 6, 0, 0, 0, 0))


def test_absent_sensors(board: Board) -> None:
    """Table 5-2: CB."""
    assert board.code(SENSOR, 0x2D, 99) == 0xCB


# --- SDR repository ------------------------------------------------------------------------------------------


def walk_sdr(board: Board, step: int = 0xFF) -> list[bytes]:
    """All records, `step` bytes at a time."""
    records, wanted = [], 0
    reservation = board.ok(STORAGE, 0x22)
    while wanted != 0xFFFF:
        head = board.ok(STORAGE, 0x23, *reservation, *struct.pack("<HBB", wanted, 0, 5))
        record = head[2:]
        length = 5 + record[4]
        while len(record) < length:
            count = min(step, length - len(record))
            piece = board.ok(STORAGE, 0x23, *reservation, *struct.pack("<HBB", wanted, len(record), count))
            assert len(piece) == 2 + count
            record += piece[2:]
        records.append(record)
        wanted = int.from_bytes(head[:2], "little")
    return records


@pytest.mark.parametrize("step", [1, 16, 0xFF])
def test_sdr_walk(board: Board, step: int) -> None:
    """33.12: next record IDs, partial reads."""
    records = walk_sdr(board, step)
    assert [record[:2] for record in records] == [b"\x01\x00", b"\x02\x00", b"\x03\x00", b"\x04\x00"]
    version, count, _, _, _, support = struct.unpack("<BHHIIB", board.ok(STORAGE, 0x20))
    assert (version, count, support) == (0x51, len(records), 0x02)


def test_first_and_last_sdr(board: Board) -> None:
    """33.12: 0000 is the first record, FFFF the last."""
    first = board.ok(STORAGE, 0x23, 0, 0, 0, 0, 0, 0xFF)
    last = board.ok(STORAGE, 0x23, 0, 0, 0xFF, 0xFF, 0, 0xFF)
    assert (first[:4], last[:4]) == (b"\x02\x00\x01\x00", b"\xff\xff\x04\x00")
    assert board.code(STORAGE, 0x23, 0, 0, 5, 0, 0, 0xFF) == 0xCB
    assert board.code(STORAGE, 0x23, *board.ok(STORAGE, 0x22), 1, 0, 0xF0, 1) == 0xC9


def test_partial_sdr_reads_need_the_reservation(board: Board) -> None:
    """33.11: C5 without one, or with one that another Reserve has ended."""
    assert board.code(STORAGE, 0x23, 0, 0, 1, 0, 5, 1) == 0xC5
    old = board.ok(STORAGE, 0x22)
    board.ok(STORAGE, 0x22)
    assert board.code(STORAGE, 0x23, *old, 1, 0, 5, 1) == 0xC5


def test_the_two_repositories_are_reserved_apart(board: Board) -> None:
    """31.4, 33.11."""
    sdr = board.ok(STORAGE, 0x22)
    board.reserve_sel()
    board.reserve_sel()
    board.ok(STORAGE, 0x23, *sdr, 1, 0, 5, 1)


# --- FRU -----------------------------------------------------------------------------------------------------


def test_fru_inventory(board: Board) -> None:
    """34.1, 34.2: size, then bytes with their count."""
    size, access = struct.unpack("<HB", board.ok(STORAGE, 0x10, 0))
    data = b""
    while len(data) < size:
        piece = board.ok(STORAGE, 0x11, 0, *struct.pack("<HB", len(data), 16))
        assert piece[0] == len(piece) - 1
        data += piece[1:]
    assert (len(data), access) == (size, 0)
    assert data[0] == 1
    assert board.code(STORAGE, 0x11, 0, *struct.pack("<HB", size + 1, 1)) == 0xC9
    assert board.code(STORAGE, 0x10, 1) == 0xCB


# --- the event log -------------------------------------------------------------------------------------------


def test_the_boot_is_logged(board: Board) -> None:
    """32.1: system event, from the BMC, System Boot Initiated (1D) by power-up (0)."""
    (record,) = board.entries()
    assert record == struct.pack("<HBIHBBBB", 1, 2, BASE_TIME, 0x20, 4, 0x1D, 0, 0x6F) + b"\x00\xff\xff"


def test_sel_info(board: Board) -> None:
    """31.2: version, entries, free space, times, operation support (Reserve)."""
    board.advance(10)
    board.add()
    expected = (0x51, 2, (CAPACITY - 2) * 16, BASE_TIME + 10, 0xFFFFFFFF, 0x02)
    assert board.sel_info() == expected


def test_add_and_get(board: Board) -> None:
    """31.6: the log gives the ID and, below type E0, the timestamp."""
    board.advance(7)
    record_id = board.add()
    response = board.entry(record_id)
    assert response[1:3] == b"\xff\xff"
    assert response[3:] == struct.pack("<HBI", record_id, 2, BASE_TIME + 7) + EVENT[7:]


@pytest.mark.parametrize(("record_type", "stamped"), [(0x02, True), (0xDF, True), (0xE0, False), (0xFF, False)])
def test_timestamps_by_record_type(board: Board, record_type: int, stamped: bool) -> None:
    """32.3: OEM records E0-FF have no timestamp."""
    body = bytes(range(13))
    board.add(bytes(2) + bytes((record_type,)) + body)
    stored = board.entry(0xFFFF)[6:]
    assert (stored == body) is not stamped
    assert stored[4:] == body[4:]


def test_walk_and_ends(board: Board) -> None:
    """31.5: 0000 is the first entry, FFFF the last; the last one's next ID is FFFF."""
    ids = [board.add() for _ in range(3)]
    assert [int.from_bytes(record[:2], "little") for record in board.entries()] == [1, *ids]
    assert board.entry(0xFFFF)[3:5] == struct.pack("<H", ids[-1])
    assert board.entry(0x1234) == b"\xcb"


def test_partial_entries(board: Board) -> None:
    """31.5: need the reservation if the offset is not 0."""
    whole = board.entry(1)[3:]
    assert board.entry(1, 0, 7)[3:] == whole[:7]
    assert board.entry(1, 7, 9) == b"\xc5"
    assert board.entry(1, 7, 9, board.reserve_sel())[3:] == whole[7:]
    assert board.entry(1, 17, 1, board.reserve_sel()) == b"\xc9"


def test_clear(board: Board) -> None:
    """31.9: needs the reservation and "CLR"; erasure is complete at once."""
    board.add()
    board.advance(3)
    reservation = board.reserve_sel()
    assert board.clear_sel(reservation, 0x00) == b"\x00\x01"
    assert len(board.entries()) == 2
    assert board.code(STORAGE, 0x47, *reservation, *b"CLX", 0xAA) == 0xCC
    assert board.clear_sel(reservation, 0x55) == b"\xcc"
    assert board.clear_sel(reservation) == b"\x00\x01"
    assert board.entry(0) == b"\xcb"
    assert board.sel_info()[1] == 0
    assert board.sel_info()[4] == BASE_TIME + 3


@pytest.mark.parametrize("reservation", [b"\x00\x00", b"\x01\x00", b"\xff\xff"])
def test_clear_without_a_reservation(board: Board, reservation: bytes) -> None:
    """31.4: C5, also before any was given."""
    assert board.clear_sel(reservation) == b"\xc5"
    assert len(board.entries()) == 1


def test_what_cancels_a_reservation(board: Board) -> None:
    """31.4.1: an entry is added, the log is cleared, another reservation is made."""
    reservation = board.reserve_sel()
    board.add()
    assert board.clear_sel(reservation) == b"\xc5"
    old = board.reserve_sel()
    reservation = board.reserve_sel()
    assert board.clear_sel(old) == b"\xc5"
    assert board.clear_sel(reservation) == b"\x00\x01"
    assert board.clear_sel(reservation) == b"\xc5"


def test_record_ids_are_not_used_again_after_a_clear(board: Board) -> None:
    first = board.add()
    board.clear_sel(board.reserve_sel())
    assert board.add() == first + 1


def test_a_full_log(board: Board) -> None:
    """31.2, 31.6: C4, out of space, and the overflow flag until the log is cleared."""
    for _ in range(CAPACITY - 1):
        board.add()
    assert board.sel_info()[1:3] == (CAPACITY, 0)
    assert board.code(STORAGE, 0x44, *EVENT) == 0xC4
    board.bmc.log(0x12, b"\x01")
    assert board.sel_info()[1] == CAPACITY
    assert board.sel_info()[5] == 0x82
    board.clear_sel(board.reserve_sel())
    assert board.sel_info()[5] == 0x02


def test_sel_time(board: Board) -> None:
    """31.10, 31.11: seconds since 1970, that go on from what was set."""
    assert board.ok(STORAGE, 0x48) == struct.pack("<I", BASE_TIME)
    board.ok(STORAGE, 0x49, *struct.pack("<I", 1000))
    board.advance(5)
    assert board.ok(STORAGE, 0x48) == struct.pack("<I", 1005)
    record_id = board.add()
    assert board.entry(record_id)[6:10] == struct.pack("<I", 1005)
