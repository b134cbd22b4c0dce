"""Baseboard management controller: answers to IPMI commands, whatever interface they come through.

Source: IPMI 2.0 revision 1.1 (command tables of appendix G; chapters 20-22, 27, 28, 31, 33-35).

A request is NetFn/LUN, command and data; a response NetFn+1/LUN, command, completion code and data. A device
without ports: it hangs on a KCS interface.

| NetFn | answered commands |
|---|---|
| 00 chassis | 00 capabilities, 01 status, 02 control, 04 identify, 07 restart cause, 0F power-on hours |
| 04 sensor | 27 thresholds, 2D reading |
| 06 app | 01 device id, 02/03 cold and warm reset, 04 self test, 06/07 ACPI power state, 08/37 GUIDs |
| | 22/24/25 watchdog, 2E/2F global enables, 30/31 message flags, 33 get message, 35 event message buffer |
| | 42 channel info |
| 0A storage | 10/11 FRU, 20/22/23/28 SDR repository, 40/42/43/44/47/48/49 event log |

Not modelled: bridging (Send Message), users and sessions, LAN, readings that change, events by thresholds,
setting thresholds or FRU data, firmware update, the diagnostic interrupt of Chassis Control.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from portvisor.devices.ipmi_codes import (
    COMMAND_SPECIFIC,
    INVALID_COMMAND,
    INVALID_FIELD,
    INVALID_LUN,
    NOT_PRESENT,
    OK,
    TOO_MANY_BYTES,
    Refusal,
    Reservation,
    need,
    part,
)
from portvisor.devices.ipmi_records import SDR_VERSION, SENSORS, Sensor, fru_information, sensor_record
from portvisor.devices.ipmi_sel import (
    FIRST_ENTRY,
    LAST_ENTRY,
    RESERVE_SUPPORTED,
    UNSPECIFIED_TIME,
    EventLog,
    SelState,
)
from portvisor.devices.ipmi_watchdog import (
    ACTION_MASK,
    ACTIONS,
    DONT_LOG,
    MESSAGING,
    USE_MASK,
    WatchdogState,
    WatchdogTimer,
)
from portvisor.ports import NS_PER_S, Clock, Device

CHASSIS, SENSOR, APP, STORAGE = 0x00, 0x04, 0x06, 0x0A
LUN_MASK, RESPONSE = 0x03, 0x04
"""In the first byte of a message: LUN, and the bit that makes NetFn a response's."""
RESPONSE_LIMIT = 255
"""Bytes of a response, so that any interface can carry it."""

SYSTEM_INTERFACE, THIS_CHANNEL = 0xF, 0xE
MESSAGE_BUFFER_EMPTY = COMMAND_SPECIFIC
EVENT_BUFFER_INTERRUPT, EVENT_BUFFER_ENABLE, EVENT_LOG_ENABLE = 1 << 1, 1 << 2, 1 << 3
GLOBAL_ENABLES_RESERVED = 1 << 4
EVENT_BUFFER_FULL, WATCHDOG_PRETIMEOUT = 1 << 1, 1 << 3
"""Message flags (22.4)."""

CONTROL_ACTIONS = {0: "power down", 1: "power up", 2: "power cycle", 3: "reset", 5: "soft off"}
RESTARTS = frozenset({"power cycle", "reset"})
CAUSE_CHASSIS_CONTROL, CAUSE_WATCHDOG = 1, 4
IDENTIFY_SECONDS, IDENTIFY_FORCED = 15, 1
IDENTIFY_SUPPORTED, IDENTIFY_TIMED, IDENTIFY_ON = 0x40, 0x10, 0x20

SENSOR_SPECIFIC = 0x6F
BOOT_INITIATED, WATCHDOG_2 = 0x1D, 0x23
EXTENSION_IN_DATA_2, WATCHDOG_INTERRUPT = 0xC0, 8

Handler = Callable[[bytes], bytes]


@dataclass
class Identify:
    """The chassis identify light: on for ever, or until a time of the clock."""

    forced: bool = False
    until: int = 0


class Bmc(Device):
    """The controller."""

    name = "bmc"

    @dataclass
    class State:
        """Everything that commands change."""

        global_enables: int = EVENT_LOG_ENABLE
        message_flags: int = 0
        event_buffer: bytes = b""
        acpi_state: tuple[int, int] = (0, 0)
        sel: SelState = field(default_factory=SelState)
        sdr_reservation: Reservation = field(default_factory=Reservation)
        watchdog: WatchdogState = field(default_factory=WatchdogState)
        identify: Identify = field(default_factory=Identify)
        restart_cause: int = 0
        next_restart_cause: int = 0
        """What the restart that has been asked for will be put down to."""

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
        self.on_attention: Callable[[bool, bool], None] | None = None
        """Told (attention, interrupt) when message flags change: `IpmiKcs.set_attention`."""
        self._sensors = {sensor.number: sensor for sensor in sensors}
        self._guid = guid
        self._fru = fru_information("portvisor", "PV-730", "1.0", "PV000001")
        self._records = {index: sensor_record(index, one) for index, one in enumerate(sensors, start=1)}
        self._log = EventLog(self.state.sel, self._unix_time)
        self._watchdog = WatchdogTimer(
            self.state.watchdog, clock, self._pretimeout, self._watchdog_expired, self._pretimeout_over
        )
        self._commands = self._command_table()
        self.log(BOOT_INITIATED, b"\x00")

    def reset(self) -> None:
        """A host reset: the BMC is not part of it, but its watchdog stops (27.4, completion code 80)."""
        self._watchdog.stop()
        self.state.restart_cause = self.state.next_restart_cause
        self.state.next_restart_cause = 0

    def restored(self) -> None:
        self._log.state = self.state.sel
        self._watchdog.state = self.state.watchdog
        self._watchdog.rearm()
        self._tell_attention(interrupt=False)

    def _command_table(self) -> dict[tuple[int, int], Handler]:
        groups = (
            (APP, self._app_commands()),
            (APP, self._watchdog.commands()),
            (CHASSIS, self._chassis_commands()),
            (SENSOR, {0x27: self._sensor_thresholds, 0x2D: self._sensor_reading}),
            (STORAGE, self._storage_commands()),
            (STORAGE, self._log.commands()),
        )
        return {(net_fn, code): handler for net_fn, group in groups for code, handler in group.items()}

    def _app_commands(self) -> dict[int, Handler]:
        return {
            0x01: self._device_id,
            0x02: self._cold_reset,
            0x03: lambda data: b"",
            0x04: lambda data: b"\x55\x00",
            0x06: self._set_acpi_state,
            0x07: lambda data: bytes(self.state.acpi_state),
            0x08: lambda data: self._guid,
            0x2E: self._set_global_enables,
            0x2F: lambda data: bytes([self.state.global_enables]),
            0x30: self._clear_message_flags,
            0x31: lambda data: bytes([self.state.message_flags]),
            0x33: self._get_message,
            0x35: self._read_event_buffer,
            0x37: lambda data: self._guid,
            0x42: self._channel_info,
        }

    def _chassis_commands(self) -> dict[int, Handler]:
        return {
            0x00: lambda data: bytes([0, 0x20, 0x20, 0x20, 0x20]),
            0x01: self._chassis_status,
            0x02: self._chassis_control,
            0x04: self._identify,
            0x07: lambda data: bytes([self.state.restart_cause, SYSTEM_INTERFACE]),
            0x0F: self._power_on_hours,
        }

    def _storage_commands(self) -> dict[int, Handler]:
        return {
            0x10: self._fru_info,
            0x11: self._fru_read,
            0x20: self._sdr_info,
            0x22: lambda data: self.state.sdr_reservation.make(),
            0x23: self._get_sdr,
            0x28: lambda data: struct.pack("<I", self._log.time()),
        }

    def execute(self, request: bytes) -> bytes:
        """Answer one request as it comes through a system interface."""
        head = bytes(request[:2]).ljust(2, b"\0")
        head = bytes((head[0] | RESPONSE, head[1]))
        try:
            need(request, 2)
            response = head + bytes([OK]) + self._handler(request[0], request[1])(request[2:])
            if len(response) > RESPONSE_LIMIT:
                raise Refusal(TOO_MANY_BYTES)
        except Refusal as refusal:
            return head + bytes([refusal.code])
        return response

    def _handler(self, net_fn: int, command: int) -> Handler:
        if net_fn & LUN_MASK:
            raise Refusal(INVALID_LUN)
        handler = self._commands.get((net_fn >> 2, command))
        if handler is None:
            raise Refusal(INVALID_COMMAND)
        return handler

    def _unix_time(self) -> int:
        return self._base_time + self._clock.now() // NS_PER_S

    # --- events and message flags --------------------------------------------------------------------------------

    def log(self, sensor_type: int, event_data: bytes, event_type: int = SENSOR_SPECIFIC) -> None:
        """An event of the BMC itself goes into the event log and the event message buffer (22.1)."""
        state = self.state
        record = self._log.event(sensor_type, event_type, event_data)
        if state.global_enables & EVENT_LOG_ENABLE:
            record = self._log.add(record)
        if state.global_enables & EVENT_BUFFER_ENABLE and not state.event_buffer:
            state.event_buffer = record
            self._raise_flag(EVENT_BUFFER_FULL, bool(state.global_enables & EVENT_BUFFER_INTERRUPT))

    def _raise_flag(self, flag: int, interrupt: bool) -> None:
        self.state.message_flags |= flag
        self._tell_attention(interrupt=interrupt)

    def _drop_flags(self, flags: int) -> None:
        state = self.state
        state.message_flags &= ~flags
        if flags & EVENT_BUFFER_FULL:
            state.event_buffer = b""
        self._tell_attention(interrupt=False)

    def _tell_attention(self, *, interrupt: bool) -> None:
        if self.on_attention:
            self.on_attention(bool(self.state.message_flags), interrupt)

    def _clear_message_flags(self, data: bytes) -> bytes:
        need(data, 1)
        self._drop_flags(data[0])
        return b""

    def _get_message(self, data: bytes) -> bytes:
        """The receive message queue: nobody sends messages here, so it is always empty."""
        raise Refusal(MESSAGE_BUFFER_EMPTY)

    def _read_event_buffer(self, data: bytes) -> bytes:
        record = self.state.event_buffer
        if not record:
            raise Refusal(MESSAGE_BUFFER_EMPTY)
        self._drop_flags(EVENT_BUFFER_FULL)
        return record

    # --- App -----------------------------------------------------------------------------------------------------

    def _device_id(self, data: bytes) -> bytes:
        """20.1: id 20, revision 1, firmware 2.10, IPMI 2.0; sensor, SDR, SEL, FRU and chassis device."""
        identity = bytes((0x20, 0x01, 0x02, 0x10, 0x02, 0x8F))
        manufacturer, product = (674).to_bytes(3, "little"), struct.pack("<H", 0x0100)
        return identity + manufacturer + product

    def _cold_reset(self, data: bytes) -> bytes:
        """Settings go back to their defaults; the event log is non-volatile."""
        self._watchdog.stop()
        self._drop_flags(0xFF)
        kept = self.state
        kept.sel.reservation.cancel()
        kept.sdr_reservation.cancel()
        self.state = self.State(
            sel=kept.sel,
            sdr_reservation=kept.sdr_reservation,
            restart_cause=kept.restart_cause,
            next_restart_cause=kept.next_restart_cause,
        )
        self._watchdog.state = self.state.watchdog
        return b""

    def _set_acpi_state(self, data: bytes) -> bytes:
        need(data, 2)
        system, device = self.state.acpi_state
        if data[0] & 0x80:
            system = data[0] & 0x7F
        if data[1] & 0x80:
            device = data[1] & 0x7F
        self.state.acpi_state = (system, device)
        return b""

    def _set_global_enables(self, data: bytes) -> bytes:
        need(data, 1)
        self.state.global_enables = data[0] & ~GLOBAL_ENABLES_RESERVED
        return b""

    def _channel_info(self, data: bytes) -> bytes:
        """22.24: the only channel is the system interface."""
        need(data, 1)
        if data[0] & 0xF not in (THIS_CHANNEL, SYSTEM_INTERFACE):
            raise Refusal(INVALID_FIELD)
        return bytes([SYSTEM_INTERFACE, 0x0C, 0x05, 0x00, 0xF2, 0x1B, 0x00, 0xFF, 0xFF])

    # --- what the watchdog does ----------------------------------------------------------------------------------

    def _pretimeout(self) -> None:
        self._log_watchdog(WATCHDOG_INTERRUPT)
        if self.state.watchdog.pretimeout_interrupt == MESSAGING:
            self._raise_flag(WATCHDOG_PRETIMEOUT, True)

    def _pretimeout_over(self) -> None:
        self._drop_flags(WATCHDOG_PRETIMEOUT)

    def _watchdog_expired(self) -> None:
        action = self.state.watchdog.action & ACTION_MASK
        self._log_watchdog(action)
        if action:
            self._chassis(ACTIONS[action], CAUSE_WATCHDOG)

    def _log_watchdog(self, offset: int) -> None:
        watchdog = self.state.watchdog
        if not watchdog.use & DONT_LOG:
            detail = watchdog.pretimeout_interrupt << 4 | watchdog.use & USE_MASK
            self.log(WATCHDOG_2, bytes((EXTENSION_IN_DATA_2 | offset, detail)))

    # --- Chassis -------------------------------------------------------------------------------------------------

    def _chassis(self, action: str, cause: int) -> None:
        if action in RESTARTS:
            self.state.next_restart_cause = cause
        self._on_chassis(action)

    def _chassis_status(self, data: bytes) -> bytes:
        identify = self.state.identify
        light = 0
        if identify.forced:
            light = IDENTIFY_ON
        elif identify.until > self._clock.now():
            light = IDENTIFY_TIMED
        return bytes([0x01, 0x00, IDENTIFY_SUPPORTED | light, 0x00])

    def _chassis_control(self, data: bytes) -> bytes:
        need(data, 1)
        action = CONTROL_ACTIONS.get(data[0] & 0xF)
        if action is None:
            raise Refusal(INVALID_FIELD)
        self._chassis(action, CAUSE_CHASSIS_CONTROL)
        return b""

    def _identify(self, data: bytes) -> bytes:
        seconds = data[0] if data else IDENTIFY_SECONDS
        forced = bool(data[1:] and data[1] & IDENTIFY_FORCED)
        self.state.identify = Identify(forced, self._clock.now() + seconds * NS_PER_S)
        return b""

    def _power_on_hours(self, data: bytes) -> bytes:
        minutes = self._clock.now() // (60 * NS_PER_S)
        return struct.pack("<BI", 60, minutes // 60 & 0xFFFFFFFF)

    # --- Sensor/Event --------------------------------------------------------------------------------------------

    def _sensor(self, data: bytes) -> Sensor:
        need(data, 1)
        sensor = self._sensors.get(data[0])
        if sensor is None:
            raise Refusal(NOT_PRESENT)
        return sensor

    def _sensor_reading(self, data: bytes) -> bytes:
        """35.14: scanning is on, events are off."""
        sensor = self._sensor(data)
        return bytes([sensor.raw, 0x40, 0xC0 | sensor.crossed])

    def _sensor_thresholds(self, data: bytes) -> bytes:
        """35.9: readable mask, then LNC, LC, LNR, UNC, UC, UNR."""
        sensor = self._sensor(data)
        return bytes([sensor.thresholds, 0, sensor.lower_critical or 0, 0, 0, sensor.upper_critical or 0, 0])

    # --- Storage: SDR repository and FRU -------------------------------------------------------------------------

    def _sdr_info(self, data: bytes) -> bytes:
        count = len(self._records)
        return struct.pack("<BHHIIB", SDR_VERSION, count, 0, UNSPECIFIED_TIME, UNSPECIFIED_TIME, RESERVE_SUPPORTED)

    def _get_sdr(self, data: bytes) -> bytes:
        need(data, 6)
        reservation, wanted, offset, count = struct.unpack_from("<HHBB", data)
        if offset or reservation:
            self.state.sdr_reservation.check(reservation)
        if wanted == FIRST_ENTRY:
            wanted = 1
        elif wanted == LAST_ENTRY:
            wanted = len(self._records)
        if wanted not in self._records:
            raise Refusal(NOT_PRESENT)
        after = wanted + 1 if wanted + 1 in self._records else LAST_ENTRY
        return struct.pack("<H", after) + part(self._records[wanted], offset, count)

    def _fru_info(self, data: bytes) -> bytes:
        need(data, 1)
        if data[0]:
            raise Refusal(NOT_PRESENT)
        return struct.pack("<HB", len(self._fru), 0)

    def _fru_read(self, data: bytes) -> bytes:
        need(data, 4)
        if data[0]:
            raise Refusal(NOT_PRESENT)
        offset, count = struct.unpack_from("<HB", data, 1)
        piece = part(self._fru, offset, count)
        return bytes([len(piece)]) + piece
