"""Baseboard management controller: answers to IPMI commands, whatever interface they come through.

Source: IPMI 2.0 revision 1.1 (command tables of appendix G; chapters 20-22, 28, 31, 33, 35).

A request is NetFn/LUN, command and data; a response NetFn+1/LUN, command, completion code and data. What is
answered: App (device id, self test, ACPI power state, watchdog timer, global enables, message flags, GUIDs,
channel info), Chassis (status, control, restart cause), Sensor/Event (readings and thresholds), Storage (SDR
repository, SEL with its clock, one FRU). A device without ports: it hangs on a KCS interface.

Not modelled: bridging (Send Message), users and sessions, LAN, event generation by thresholds, firmware update.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from portvisor.ports import NS_PER_S, Clock, Device

CHASSIS, SENSOR, APP, STORAGE = 0x00, 0x04, 0x06, 0x0A

OK, INVALID_COMMAND, INVALID_LUN = 0x00, 0xC1, 0xC2
RESERVATION_CANCELED, BAD_LENGTH, OUT_OF_RANGE, NOT_PRESENT, INVALID_FIELD = 0xC5, 0xC7, 0xC9, 0xCB, 0xCC
OUT_OF_SPACE = 0xC4

EVENT_LOG_ENABLE = 1 << 3
WATCHDOG_RUNNING = 1 << 6
WATCHDOG_ACTIONS = ("none", "reset", "power down", "power cycle")
FIRST_ENTRY, LAST_ENTRY = 0x0000, 0xFFFF
SEL_CAPACITY = 512
WHOLE_RECORD = 0xFF
CONTROL_ACTIONS = {0: "power down", 1: "power up", 2: "power cycle", 3: "reset", 5: "soft off"}


class Refusal(Exception):  # noqa: N818 - a completion code, not an error of ours
    """A request that is answered with a completion code only."""

    def __init__(self, code: int) -> None:
        super().__init__(f"completion code {code:#04x}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Sensor:
    """An analog sensor with a full SDR: value = raw * multiplier."""

    number: int
    name: str
    kind: int
    """Sensor type code (table 42-3): 01 temperature, 02 voltage, 04 fan."""
    unit: int
    """Base unit (table 43-15): 1 degrees C, 4 volts, 18 RPM."""
    raw: int
    multiplier: int = 1
    exponent: int = 0
    """Result exponent: value = raw * multiplier * 10^exponent."""
    entity: int = 7
    """Entity ID (table 43-13): 3 processor, 7 system board, 29 fan, 10 power supply."""
    upper_critical: int = 0xFF
    lower_critical: int = 0


SENSORS = (
    Sensor(1, "Inlet Temp", 1, 1, 23, upper_critical=47, lower_critical=3),
    Sensor(2, "CPU1 Temp", 1, 1, 41, entity=3, upper_critical=90, lower_critical=3),
    Sensor(3, "Fan1", 4, 18, 56, multiplier=100, entity=29, lower_critical=6),
    Sensor(4, "Voltage 1", 2, 4, 115, multiplier=2, entity=10, upper_critical=132),
)


@dataclass
class Watchdog:
    """BMC watchdog timer (chapter 27); times in ns of the clock."""

    use: int = 0
    action: int = 0
    pretimeout: int = 0
    expired_flags: int = 0
    initial: int = 0
    expires: int | None = None


class Bmc(Device):
    """The controller."""

    name = "bmc"

    @dataclass
    class State:
        """Everything that commands change; the SEL holds 16-byte records."""

        global_enables: int = EVENT_LOG_ENABLE
        message_flags: int = 0
        acpi_state: tuple[int, int] = (0, 0)
        sel: list[bytes] = field(default_factory=list)
        sel_next_id: int = 1
        sel_offset: int = 0
        sel_added: int = 0
        sel_erased: int = 0
        reservation: int = 0
        watchdog: Watchdog = field(default_factory=Watchdog)
        identify: bool = False
        restart_cause: int = 0

    state: State

    def __init__(
        self,
        clock: Clock,
        base_time: int,
        on_chassis: Callable[[str], None],
        *,
        sensors: tuple[Sensor, ...] = SENSORS,
        guid: bytes = bytes(range(16)),
    ) -> None:
        """`base_time` is Unix time at clock 0; `on_chassis` gets "reset", "power down", "power cycle"..."""
        super().__init__()
        self._clock = clock
        self._base_time = base_time
        self._on_chassis = on_chassis
        self._sensors = {sensor.number: sensor for sensor in sensors}
        self._guid = guid
        self._fru = _fru(b"portvisor", b"PV-730", b"PV000001")
        self._records = {index: _sensor_record(index, one) for index, one in enumerate(sensors, start=1)}
        self._watchdog_timer = clock.timer(self._watchdog_expired, "bmc-watchdog")
        self._commands = self._command_table()
        self._log_boot()

    def reset(self) -> None:
        """A host reset: the BMC is not part of it and keeps running."""

    def restored(self) -> None:
        self._rearm()

    def _command_table(self) -> dict[tuple[int, int], Callable[[bytes], bytes]]:
        return {
            (APP, 0x01): self._device_id,
            (APP, 0x02): lambda data: b"",
            (APP, 0x03): lambda data: b"",
            (APP, 0x04): lambda data: b"\x55\x00",
            (APP, 0x06): self._set_acpi_state,
            (APP, 0x07): lambda data: bytes(self.state.acpi_state),
            (APP, 0x08): lambda data: self._guid,
            (APP, 0x22): self._reset_watchdog,
            (APP, 0x24): self._set_watchdog,
            (APP, 0x25): self._get_watchdog,
            (APP, 0x2E): self._set_global_enables,
            (APP, 0x2F): lambda data: bytes([self.state.global_enables]),
            (APP, 0x30): self._clear_message_flags,
            (APP, 0x31): lambda data: bytes([self.state.message_flags]),
            (APP, 0x37): lambda data: self._guid,
            (APP, 0x42): self._channel_info,
            (CHASSIS, 0x00): lambda data: bytes([0, 0x20, 0x20, 0x20, 0x20]),
            (CHASSIS, 0x01): self._chassis_status,
            (CHASSIS, 0x02): self._chassis_control,
            (CHASSIS, 0x04): self._identify,
            (CHASSIS, 0x07): lambda data: bytes([self.state.restart_cause, 0]),
            (CHASSIS, 0x0F): self._power_on_hours,
            (SENSOR, 0x27): self._sensor_thresholds,
            (SENSOR, 0x2D): self._sensor_reading,
            (STORAGE, 0x10): self._fru_info,
            (STORAGE, 0x11): self._fru_read,
            (STORAGE, 0x20): self._sdr_info,
            (STORAGE, 0x22): self._reserve,
            (STORAGE, 0x23): self._get_sdr,
            (STORAGE, 0x28): lambda data: struct.pack("<I", self._now()),
            (STORAGE, 0x40): self._sel_info,
            (STORAGE, 0x42): self._reserve,
            (STORAGE, 0x43): self._get_sel_entry,
            (STORAGE, 0x44): self._add_sel_entry,
            (STORAGE, 0x47): self._clear_sel,
            (STORAGE, 0x48): lambda data: struct.pack("<I", self._now()),
            (STORAGE, 0x49): self._set_sel_time,
        }

    def execute(self, request: bytes) -> bytes:
        """Answer one request as it comes through a system interface."""
        if len(request) < 2:
            net_fn, command = (request[0] if request else 0), 0
            return bytes([net_fn | 4, command, BAD_LENGTH])
        net_fn, command, data = request[0], request[1], request[2:]
        head = bytes([net_fn | 4, command])
        handler = self._commands.get((net_fn >> 2, command))
        if net_fn & 3:
            return head + bytes([INVALID_LUN])
        if handler is None:
            return head + bytes([INVALID_COMMAND])
        try:
            return head + bytes([OK]) + handler(data)
        except Refusal as refusal:
            return head + bytes([refusal.code])

    def _now(self) -> int:
        return (self._base_time + self._clock.now() // NS_PER_S + self.state.sel_offset) & 0xFFFFFFFF

    # --- App -----------------------------------------------------------------------------------------------------

    def _device_id(self, data: bytes) -> bytes:
        """20.1: id 20h, SDRs, firmware 2.10, IPMI 2.0; sensor, SDR, SEL, FRU and chassis device."""
        identity = struct.pack("<BBBBBB", 0x20, 0x81, 0x02, 0x10, 0x02, 0x8F)
        manufacturer, product = (674).to_bytes(3, "little"), struct.pack("<H", 0x0100)
        return identity + manufacturer + product

    def _set_acpi_state(self, data: bytes) -> bytes:
        _need(data, 2)
        system, device = self.state.acpi_state
        if data[0] & 0x80:
            system = data[0] & 0x7F
        if data[1] & 0x80:
            device = data[1] & 0x7F
        self.state.acpi_state = (system, device)
        return b""

    def _set_global_enables(self, data: bytes) -> bytes:
        _need(data, 1)
        self.state.global_enables = data[0] & 0xEF
        return b""

    def _clear_message_flags(self, data: bytes) -> bytes:
        _need(data, 1)
        self.state.message_flags &= ~data[0]
        return b""

    def _channel_info(self, data: bytes) -> bytes:
        """22.24: the only channel is the system interface, Fh (and Eh for "this one")."""
        _need(data, 1)
        if data[0] & 0xF not in (0xE, 0xF):
            raise Refusal(INVALID_FIELD)
        return bytes([0xF, 0x0C, 0x05, 0x00, 0xF2, 0x1B, 0x00, 0xFF, 0xFF])

    # --- the watchdog timer (chapter 27) -------------------------------------------------------------------------

    def _set_watchdog(self, data: bytes) -> bytes:
        _need(data, 6)
        watchdog = self.state.watchdog
        keep_running = data[0] & WATCHDOG_RUNNING
        watchdog.use, watchdog.action, watchdog.pretimeout = data[0] & 0x87, data[1] & 0x77, data[2]
        watchdog.expired_flags &= ~data[3]
        watchdog.initial = struct.unpack_from("<H", data, 4)[0] * (NS_PER_S // 10)
        running = watchdog.expires is not None
        watchdog.expires = self._clock.now() + watchdog.initial if keep_running and running else None
        self._rearm()
        return b""

    def _reset_watchdog(self, data: bytes) -> bytes:
        watchdog = self.state.watchdog
        if not watchdog.initial:
            raise Refusal(0x80)
        watchdog.expires = self._clock.now() + watchdog.initial
        self._rearm()
        return b""

    def _get_watchdog(self, data: bytes) -> bytes:
        watchdog = self.state.watchdog
        running = WATCHDOG_RUNNING if watchdog.expires is not None else 0
        left = watchdog.initial if watchdog.expires is None else max(0, watchdog.expires - self._clock.now())
        tenth = NS_PER_S // 10
        head = bytes([watchdog.use | running, watchdog.action, watchdog.pretimeout, watchdog.expired_flags])
        return head + struct.pack("<HH", watchdog.initial // tenth, left // tenth)

    def _rearm(self) -> None:
        expires = self.state.watchdog.expires
        if expires is None:
            self._watchdog_timer.disarm()
        else:
            self._watchdog_timer.arm(expires)

    def _watchdog_expired(self) -> None:
        watchdog = self.state.watchdog
        watchdog.expires = None
        watchdog.expired_flags |= 1 << (watchdog.use & 7)
        action = watchdog.action & 7
        if not watchdog.use & 0x80:
            self.log(0x23, 0x6F, bytes([0xC0 | action, watchdog.use & 7, 0xFF]))
        if 0 < action < len(WATCHDOG_ACTIONS):
            self.state.restart_cause = 4
            self._on_chassis(WATCHDOG_ACTIONS[action])

    # --- Chassis -------------------------------------------------------------------------------------------------

    def _chassis_status(self, data: bytes) -> bytes:
        identify = 0x50 if self.state.identify else 0x40
        return bytes([0x01, 0x00, identify, 0x00])

    def _chassis_control(self, data: bytes) -> bytes:
        _need(data, 1)
        action = CONTROL_ACTIONS.get(data[0] & 0xF)
        if action is None:
            raise Refusal(INVALID_FIELD)
        self.state.restart_cause = 1
        self._on_chassis(action)
        return b""

    def _identify(self, data: bytes) -> bytes:
        self.state.identify = not data or data[0] > 0
        return b""

    def _power_on_hours(self, data: bytes) -> bytes:
        minutes = self._clock.now() // (60 * NS_PER_S)
        return struct.pack("<BI", 60, minutes // 60 & 0xFFFFFFFF)

    # --- Sensor/Event --------------------------------------------------------------------------------------------

    def _sensor(self, data: bytes) -> Sensor:
        _need(data, 1)
        sensor = self._sensors.get(data[0])
        if sensor is None:
            raise Refusal(NOT_PRESENT)
        return sensor

    def _sensor_reading(self, data: bytes) -> bytes:
        sensor = self._sensor(data)
        state = 0x10 if sensor.raw >= sensor.upper_critical else 0x02 if sensor.raw <= sensor.lower_critical else 0
        return bytes([sensor.raw, 0xC0, 0xC0 | state])

    def _sensor_thresholds(self, data: bytes) -> bytes:
        sensor = self._sensor(data)
        return bytes([0x12, 0, sensor.lower_critical, 0, 0, sensor.upper_critical, 0])

    # --- Storage: SDR repository and FRU -------------------------------------------------------------------------

    def _reserve(self, data: bytes) -> bytes:
        self.state.reservation = self.state.reservation % 0xFFFF + 1
        return struct.pack("<H", self.state.reservation)

    def _check_reservation(self, wanted: int, *, partial: bool) -> None:
        if (partial or wanted) and wanted != self.state.reservation:
            raise Refusal(RESERVATION_CANCELED)

    def _sdr_info(self, data: bytes) -> bytes:
        return struct.pack("<BHHIIB", 0x51, len(self._records), 0, 0, 0, 0x02)

    def _get_sdr(self, data: bytes) -> bytes:
        _need(data, 6)
        reservation, wanted, offset, count = struct.unpack_from("<HHBB", data)
        self._check_reservation(reservation, partial=offset > 0)
        ids = sorted(self._records)
        if wanted == FIRST_ENTRY:
            wanted = ids[0]
        elif wanted == LAST_ENTRY:
            wanted = ids[-1]
        if wanted not in self._records:
            raise Refusal(NOT_PRESENT)
        after = wanted + 1 if wanted + 1 in self._records else LAST_ENTRY
        return struct.pack("<H", after) + _slice(self._records[wanted], offset, count)

    def _fru_info(self, data: bytes) -> bytes:
        _need(data, 1)
        if data[0]:
            raise Refusal(NOT_PRESENT)
        return struct.pack("<HB", len(self._fru), 0)

    def _fru_read(self, data: bytes) -> bytes:
        _need(data, 4)
        if data[0]:
            raise Refusal(NOT_PRESENT)
        offset, count = struct.unpack_from("<HB", data, 1)
        piece = _slice(self._fru, offset, count)
        return bytes([len(piece)]) + piece

    # --- Storage: the system event log ---------------------------------------------------------------------------

    def log(self, sensor_type: int, event_type: int, event_data: bytes) -> None:
        """Append a system event record (32.1) of the BMC itself; a full log drops it."""
        body = struct.pack("<IHBBBB", self._now(), 0x0020, 4, sensor_type, 0, event_type) + event_data.ljust(
            3, b"\xff"
        )
        if len(self.state.sel) < SEL_CAPACITY:
            self._append(2, body)

    def _log_boot(self) -> None:
        self.log(0x12, 0x6F, b"\x01")

    def _append(self, record_type: int, body: bytes) -> int:
        state = self.state
        if len(state.sel) >= SEL_CAPACITY:
            raise Refusal(OUT_OF_SPACE)
        record_id = state.sel_next_id
        state.sel_next_id = record_id % 0xFFFE + 1
        state.sel.append(struct.pack("<HB", record_id, record_type) + body[:13].ljust(13, b"\xff"))
        state.sel_added = self._now()
        return record_id

    def _sel_info(self, data: bytes) -> bytes:
        state = self.state
        free = (SEL_CAPACITY - len(state.sel)) * 16
        return struct.pack("<BHHIIB", 0x51, len(state.sel), free, state.sel_added, state.sel_erased, 0x02)

    def _get_sel_entry(self, data: bytes) -> bytes:
        _need(data, 6)
        reservation, wanted, offset, count = struct.unpack_from("<HHBB", data)
        self._check_reservation(reservation, partial=offset > 0)
        records = self.state.sel
        if not records:
            raise Refusal(NOT_PRESENT)
        ids = [struct.unpack_from("<H", record)[0] for record in records]
        if wanted in (FIRST_ENTRY, LAST_ENTRY):
            index = 0 if wanted == FIRST_ENTRY else len(ids) - 1
        elif wanted in ids:
            index = ids.index(wanted)
        else:
            raise Refusal(NOT_PRESENT)
        after = ids[index + 1] if index + 1 < len(ids) else LAST_ENTRY
        return struct.pack("<H", after) + _slice(records[index], offset, count)

    def _add_sel_entry(self, data: bytes) -> bytes:
        _need(data, 16)
        record_type, body = data[2], bytearray(data[3:16])
        if record_type < 0xE0:
            struct.pack_into("<I", body, 0, self._now())
        return struct.pack("<H", self._append(record_type, bytes(body)))

    def _clear_sel(self, data: bytes) -> bytes:
        _need(data, 6)
        reservation = struct.unpack_from("<H", data)[0]
        self._check_reservation(reservation, partial=True)
        if data[2:5] != b"CLR" or data[5] not in (0x00, 0xAA):
            raise Refusal(INVALID_FIELD)
        if data[5] == 0xAA:
            self.state.sel.clear()
            self.state.sel_erased = self._now()
        return b"\x01"

    def _set_sel_time(self, data: bytes) -> bytes:
        _need(data, 4)
        self.state.sel_offset += struct.unpack_from("<I", data)[0] - self._now()
        return b""


def _need(data: bytes, length: int) -> None:
    if len(data) < length:
        raise Refusal(BAD_LENGTH)


def _slice(record: bytes, offset: int, count: int) -> bytes:
    """Part of a record; FFh asks for the rest."""
    if offset > len(record):
        raise Refusal(OUT_OF_RANGE)
    end = len(record) if count == WHOLE_RECORD else min(len(record), offset + count)
    return record[offset:end]


def _sensor_record(record_id: int, sensor: Sensor) -> bytes:
    """Full sensor record (43.1)."""
    key = struct.pack("<BBB", 0x20, 0, sensor.number)
    readable = struct.pack("<HHH", 0x0204, 0x0204, 0x1212)
    head = struct.pack("<BBBBBB", sensor.entity, 1, 0x7F, 0x68, sensor.kind, 0x01)
    units = struct.pack("<BBBB", 0, sensor.unit, 0, 0)
    factors = struct.pack("<BBBBBB", sensor.multiplier & 0xFF, 0, 0, 0, 0, (sensor.exponent & 0xF) << 4)
    nominal = struct.pack("<BBBBBB", 0x01, sensor.raw, 0, 0, 0xFF, 0)
    thresholds = struct.pack("<BBBBBB", 0, sensor.upper_critical, 0, 0, sensor.lower_critical, 0)
    label = sensor.name.encode("ascii")[:16]
    tail = struct.pack("<BBBBBB", 1, 1, 0, 0, 0, 0xC0 | len(label)) + label
    body = key + head + readable + units + factors + nominal + thresholds + tail
    return struct.pack("<HBBB", record_id, 0x51, 0x01, len(body)) + body


def _area(content: bytes) -> bytes:
    """A FRU area: padded to 8 bytes with its length and zero checksum."""
    size = -(-(len(content) + 2) // 8) * 8
    area = bytearray(content.ljust(size, b"\0"))
    area[1] = size // 8
    area[-1] = -sum(area) & 0xFF
    return bytes(area)


def _fru(maker: bytes, product: bytes, serial: bytes) -> bytes:
    """FRU information with one product area (IPMI FRU storage definition 1.0)."""
    fields = (maker, product, b"", b"1.0", serial, b"")
    body = b"\x01\x00\x19" + b"".join(bytes([0xC0 | len(one)]) + one for one in fields) + b"\xc1"
    header = bytearray(b"\x01\x00\x00\x00\x01\x00\x00\x00")
    header[7] = -sum(header) & 0xFF
    return bytes(header) + _area(body)
