"""MC146818 real-time clock with CMOS RAM, as built into a PC chipset (256 bytes in two banks).

Source: Motorola MC146818A data sheet; extended bank and alias ports: Intel PCH data sheet, "Real Time Clock
Registers"; century byte at 32h: ACPI specification, FADT.CENTURY, and the Dallas DS12C887.

Registers (offset: port, name)
    0: 70  index (6:0) and NMI mask (7); write only, reads float
    1: 71  data
    2: 72  index of the extended bank (6:0)
    3: 73  data of the extended bank
    4-7: 74-77  the same again; 74 reads back the index

Indexed registers: 00 seconds, 01 seconds alarm, 02 minutes, 03 minutes alarm, 04 hours, 05 hours alarm, 06 day of
week, 07 day of month, 08 month, 09 year, 0A-0D registers A-D, 32 century, all else RAM.

Time rule
    Time of day is kept as the bytes that the guest sees and is carried forward when somebody looks. An update
    cycle of 1984 us ends, and the new time appears, at each whole second of `base_time`; UIP rises 244 us before
    the cycle. SET stops updates and aborts one in progress but leaves the divider chain alone. Taking the
    divider out of reset starts the next update cycle half a second later. Alarm, periodic and update interrupts
    come exactly on the clock; a timer runs only while an enabled one has not come yet.
    The periodic taps are counted from the end of an update cycle.

Not modelled: daylight saving (DSE is stored), the square wave output (SQWE is stored), the 4 MHz and 1 MHz time
bases and the test settings of the divider (they hold it), loss of power (VRT is always 1), the lock bits of the
extended bank.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime

from portvisor.ports import NS_PER_S, Clock, Device, IrqLine, PortRange

SECONDS, SECONDS_ALARM, MINUTES, MINUTES_ALARM, HOURS, HOURS_ALARM = range(6)
DAY_OF_WEEK, DAY_OF_MONTH, MONTH, YEAR = range(6, 10)
REGISTER_A, REGISTER_B, REGISTER_C, REGISTER_D = range(0x0A, 0x0E)
CENTURY = 0x32

# Register A
UIP = 0x80
DV = 0x70
DV_RUN = 0x20
RS = 0x0F
# Register B
SET = 0x80
PIE = 0x40
AIE = 0x20
UIE = 0x10
SQWE = 0x08
DM = 0x04
HOUR_24 = 0x02
# Register C
IRQF = 0x80
PF = 0x40
AF = 0x20
UF = 0x10
# Register D
VRT = 0x80
# Time bytes
ALARM_ANY = 0xC0
"""An alarm byte with both top bits set matches any time."""
PM = 0x80
# Port 70
NMI_MASK = 0x80
INDEX = 0x7F

POWER_ON_A = DV_RUN | 0x06
POWER_ON_B = HOUR_24
BANK = 0x80
"""First byte of the extended bank."""
CMOS_SIZE = 256
OPEN_BUS = 0xFF

OSCILLATOR = 32_768
UPDATE_CYCLE = 1_984_000
"""ns from the start of an update cycle to its end (t_UC at 32.768 kHz)."""
UIP_LEAD = 244_000
"""ns from the rise of UIP to the start of the update cycle (t_BUC)."""
FIRST_UPDATE = NS_PER_S // 2
"""ns from the release of the divider to the start of the first update cycle."""

EPOCH_ORDINAL = date(1970, 1, 1).toordinal()
CYCLE_YEARS = 400
CYCLE_DAYS = 146_097
"""Days in 400 Gregorian years."""
SECONDS_PER_DAY = 86_400


def from_bcd(value: int) -> int:
    """Two BCD digits as a number; digits above 9 count as what they are."""
    return (value >> 4) * 10 + (value & 0x0F)


def to_bcd(value: int) -> int:
    """A number below 100 as two BCD digits."""
    return value // 10 << 4 | value % 10


@dataclass
class RtcState:
    """Everything that the RTC remembers."""

    cmos: bytearray = field(default_factory=lambda: bytearray(CMOS_SIZE))
    """Both banks. Time and alarm bytes are the registers themselves; registers A-D are apart."""
    index: int = 0
    extended_index: int = 0
    nmi_masked: bool = True
    a: int = POWER_ON_A
    b: int = POWER_ON_B
    flags: int = 0
    """PF, AF and UF."""
    phase: int = 0
    """Clock time (ns) of one end of an update cycle; the others are whole seconds from it."""
    updates: int = 0
    """Ends of update cycles after `phase` that have been dealt with."""
    taps: int = 0
    """Edges of the periodic tap after `phase` that have been dealt with."""


class Rtc(Device):
    """The real-time clock.

    Args:
        clock: where time comes from.
        irq: IRQ 8; high while IRQF is set.
        base_time: the time of day, in Unix seconds, that the RTC shows at clock time 0.
        cmos: initial bytes of the RAM, up to 256; the time bytes among them are not used.
        extended: answer at 72-73 (the upper 128 bytes).
        aliases: answer at 74-77, as a PCH does.
        on_nmi_mask: told about bit 7 of port 70 when it changes: True masks NMI, as after reset.

    Raises:
        ValueError: `base_time` is outside the years 1 to 9999.
    """

    State = RtcState
    state: RtcState

    def __init__(
        self,
        clock: Clock,
        irq: IrqLine,
        base_time: float = 0,
        cmos: bytes = b"",
        *,
        extended: bool = True,
        aliases: bool = False,
        on_nmi_mask: Callable[[bool], None] | None = None,
    ) -> None:
        super().__init__()
        self.clock = clock
        self.irq = irq
        self.on_nmi_mask = on_nmi_mask
        self._timer = clock.timer(self._expired, "rtc")
        self.ports = _port_ranges(extended, aliases)
        self.cmos[: len(cmos)] = cmos[:CMOS_SIZE]
        self.set_time(base_time, at=0)

    @property
    def cmos(self) -> bytearray:
        """The RAM, for firmware to fill and tests to look at. Registers A-D are not in it."""
        return self.state.cmos

    def set_time(self, unix_seconds: float, at: int | None = None) -> None:
        """Set the time of day at clock time `at` ns (default: now) in the present format of register B."""
        whole = math.floor(unix_seconds)
        fraction = int((unix_seconds - whole) * NS_PER_S)
        state = self.state
        state.phase = (self.clock.now() if at is None else at) - fraction
        state.updates = state.taps = 0
        days, second = divmod(whole, SECONDS_PER_DAY)
        moment = date.fromordinal(EPOCH_ORDINAL + days)
        self._store_time_of_day(second // 3600, second // 60 % 60, second % 60)
        self._store_date(moment.year, moment.month, moment.day)
        state.cmos[DAY_OF_WEEK] = self._encode(moment.isoweekday() % 7 + 1)
        self._advance()
        self._plan()

    def time(self) -> datetime | None:
        """The date and time of day that the guest sees, or None if the bytes are not a valid one."""
        self._advance()
        cmos = self.state.cmos
        year = self._decode(cmos[CENTURY]) * 100 + self._decode(cmos[YEAR])
        month, day = self._decode(cmos[MONTH]), self._decode(cmos[DAY_OF_MONTH])
        try:
            return datetime(year, month, day, self._hour(), *self._minute_second(), tzinfo=UTC)
        except ValueError:
            return None

    # --- formats ----------------------------------------------------------------------------------------

    def _decode(self, value: int) -> int:
        return value if self.state.b & DM else from_bcd(value)

    def _encode(self, value: int) -> int:
        return value if self.state.b & DM else to_bcd(value)

    def _encode_hour(self, hour: int) -> int:
        if self.state.b & HOUR_24:
            return self._encode(hour)
        return self._encode(hour % 12 or 12) | (PM if hour >= 12 else 0)

    def _hour(self) -> int:
        value = self.state.cmos[HOURS]
        if self.state.b & HOUR_24:
            return self._decode(value)
        return self._decode(value & ~PM) % 12 + (12 if value & PM else 0)

    def _minute_second(self) -> tuple[int, int]:
        cmos = self.state.cmos
        return self._decode(cmos[MINUTES]), self._decode(cmos[SECONDS])

    def _second_of_day(self) -> int:
        """Time of day in seconds; a byte out of range counts as its largest value."""
        minute, second = self._minute_second()
        return min(self._hour(), 23) * 3600 + min(minute, 59) * 60 + min(second, 59)

    def _store_time_of_day(self, hour: int, minute: int, second: int) -> None:
        cmos = self.state.cmos
        cmos[HOURS] = self._encode_hour(hour)
        cmos[MINUTES] = self._encode(minute)
        cmos[SECONDS] = self._encode(second)

    def _store_date(self, year: int, month: int, day: int) -> None:
        cmos = self.state.cmos
        cmos[CENTURY] = self._encode(year // 100 % 100)
        cmos[YEAR] = self._encode(year % 100)
        cmos[MONTH] = self._encode(month)
        cmos[DAY_OF_MONTH] = self._encode(day)

    # --- the counters -----------------------------------------------------------------------------------

    def _divider_runs(self) -> bool:
        return self.state.a & DV == DV_RUN

    def _updates_run(self) -> bool:
        return self._divider_runs() and not self.state.b & SET

    def _advance(self) -> None:
        """Do the updates and set the flags that time has brought since the last look."""
        state = self.state
        elapsed = self.clock.now() - state.phase
        if self._updates_run():
            updates = elapsed // NS_PER_S
            count = updates - state.updates
            if count > 0:
                alarm = self._updates_to_alarm()
                state.updates = updates
                state.flags |= UF if alarm is None or alarm > count else UF | AF
                self._add_seconds(count)
        if self._divider_runs() and state.a & RS:
            taps = elapsed * OSCILLATOR // NS_PER_S // self._tap_period()
            if taps > state.taps:
                state.taps = taps
                state.flags |= PF

    def _add_seconds(self, count: int) -> None:
        """Carry from byte to byte. A byte out of range stays until it is carried out of, then starts anew."""
        cmos = self.state.cmos
        minute, second = self._minute_second()
        carry, second = divmod(min(second, 59) + count, 60)
        cmos[SECONDS] = self._encode(second)
        if carry:
            carry, minute = divmod(min(minute, 59) + carry, 60)
            cmos[MINUTES] = self._encode(minute)
        if carry:
            carry, hour = divmod(min(self._hour(), 23) + carry, 24)
            cmos[HOURS] = self._encode_hour(hour)
        if carry:
            self._add_days(carry)

    def _add_days(self, count: int) -> None:
        cmos = self.state.cmos
        cmos[DAY_OF_WEEK] = self._encode((self._decode(cmos[DAY_OF_WEEK]) - 1 + count) % 7 + 1)
        year = self._decode(cmos[CENTURY]) % 100 * 100 + self._decode(cmos[YEAR]) % 100
        month = min(max(self._decode(cmos[MONTH]), 1), 12)
        cycle, year = divmod(year, CYCLE_YEARS)
        year += CYCLE_YEARS
        last_day = _days_in_month(year, month)
        day = min(max(self._decode(cmos[DAY_OF_MONTH]), 1), last_day)
        base = date(CYCLE_YEARS, 1, 1).toordinal()
        more, ordinal = divmod(date(year, month, day).toordinal() - base + count, CYCLE_DAYS)
        moment = date.fromordinal(base + ordinal)
        self._store_date(moment.year - CYCLE_YEARS + (cycle + more) * CYCLE_YEARS, moment.month, moment.day)

    def _update_in_progress(self) -> bool:
        if not self._updates_run():
            return False
        end = self.state.phase + (self.state.updates + 1) * NS_PER_S
        return end - self.clock.now() <= UPDATE_CYCLE + UIP_LEAD

    # --- interrupts -------------------------------------------------------------------------------------

    def _tap_period(self) -> int:
        """Period of the periodic interrupt in oscillator cycles; RS 1 and 2 repeat 8 and 9."""
        select = self.state.a & RS
        return 1 << (select + 6 if select < 3 else select - 1)

    def _alarm_values(self, register: int, values: list[int]) -> list[bool]:
        """For each value of a time byte, in encoded form, whether the alarm byte matches it."""
        alarm = self.state.cmos[register]
        return [alarm >= ALARM_ANY or alarm == value for value in values]

    def _updates_to_alarm(self) -> int | None:
        """Updates (1 or more) until the time of day matches the alarm; None if it never will."""
        sixty = [self._encode(value) for value in range(60)]
        seconds = _matches(self._alarm_values(SECONDS_ALARM, sixty))
        minutes = _matches(self._alarm_values(MINUTES_ALARM, sixty))
        hours = _matches(self._alarm_values(HOURS_ALARM, [self._encode_hour(hour) for hour in range(24)]))
        if not (seconds and minutes and hours):
            return None
        start = self._second_of_day() + 1
        return _next_match(start, hours, minutes, seconds) - start + 1

    def _plan(self) -> None:
        """Drive IRQ 8 and wait for the next enabled interrupt that has not come yet."""
        state = self.state
        self.irq.set(state.flags & state.b & (PIE | AIE | UIE))
        wanted = state.b & (PIE | AIE | UIE) & ~state.flags
        deadlines = []
        if wanted & UIE and self._updates_run():
            deadlines.append(state.phase + (state.updates + 1) * NS_PER_S)
        if wanted & AIE and self._updates_run():
            updates = self._updates_to_alarm()
            if updates is not None:
                deadlines.append(state.phase + (state.updates + updates) * NS_PER_S)
        if wanted & PIE and self._divider_runs() and state.a & RS:
            cycles = (state.taps + 1) * self._tap_period()
            deadlines.append(state.phase - (-cycles * NS_PER_S // OSCILLATOR))
        if deadlines:
            self._timer.arm(min(deadlines))
        else:
            self._timer.disarm()

    def _expired(self) -> None:
        self._advance()
        self._plan()

    # --- registers --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        state = self.state
        if offset & 1:
            if offset & 2:
                return state.cmos[BANK | state.extended_index]
            return self._read_indexed(state.index)
        if offset & 2:
            return state.extended_index
        return state.index if offset else OPEN_BUS

    def write(self, offset: int, size: int, value: int) -> None:
        state = self.state
        if offset & 1:
            if offset & 2:
                state.cmos[BANK | state.extended_index] = value
            else:
                self._write_indexed(state.index, value)
        elif offset & 2:
            state.extended_index = value & INDEX
        else:
            state.index = value & INDEX
            self._mask_nmi(bool(value & NMI_MASK))

    def _mask_nmi(self, masked: bool) -> None:
        if masked != self.state.nmi_masked:
            self.state.nmi_masked = masked
            if self.on_nmi_mask:
                self.on_nmi_mask(masked)

    def _read_indexed(self, index: int) -> int:
        if index > REGISTER_D and index != CENTURY:
            return self.state.cmos[index]
        self._advance()
        if index == REGISTER_A:
            return self.state.a | (UIP if self._update_in_progress() else 0)
        if index == REGISTER_B:
            return self.state.b
        if index == REGISTER_C:
            return self._read_flags()
        if index == REGISTER_D:
            return VRT
        return self.state.cmos[index]

    def _read_flags(self) -> int:
        """Register C: reading it clears all flags and the interrupt."""
        state = self.state
        value = state.flags
        if value & state.b & (PIE | AIE | UIE):
            value |= IRQF
        state.flags = 0
        self._plan()
        return value

    def _write_indexed(self, index: int, value: int) -> None:
        if index > REGISTER_D and index != CENTURY:
            self.state.cmos[index] = value
            return
        self._advance()
        if index == REGISTER_A:
            self._write_a(value)
        elif index == REGISTER_B:
            self._write_b(value)
        elif index not in (REGISTER_C, REGISTER_D):
            self.state.cmos[index] = value
        self._plan()

    def _write_a(self, value: int) -> None:
        state = self.state
        ran = self._divider_runs()
        state.a = value & ~UIP
        now = self.clock.now()
        if self._divider_runs() and not ran:
            state.phase = now + FIRST_UPDATE + UPDATE_CYCLE - NS_PER_S
            state.updates = 0
        if self._divider_runs() and state.a & RS:
            state.taps = (now - state.phase) * OSCILLATOR // NS_PER_S // self._tap_period()

    def _write_b(self, value: int) -> None:
        state = self.state
        if value & SET:
            value &= ~UIE
        released = state.b & ~value & SET
        state.b = value
        if released:
            state.updates = (self.clock.now() + UPDATE_CYCLE - state.phase) // NS_PER_S

    def register_name(self, offset: int, size: int, write: bool) -> str:
        """The port's name; for data, with the indexed register."""
        if offset & 1:
            extended = offset & 2
            index = self.state.extended_index if extended else self.state.index
            return f"RTC extended RAM {index:02X}h" if extended else INDEXED.get(index, f"RTC RAM {index:02X}h")
        return "RTC extended index" if offset & 2 else "RTC index"

    # --- life -------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """RESET# clears PIE, AIE, UIE, SQWE and the flags; time, date and RAM go on (the battery holds them)."""
        self._advance()
        self.state.b &= ~(PIE | AIE | UIE | SQWE)
        self.state.flags = 0
        self.state.index = self.state.extended_index = 0
        self._mask_nmi(True)
        self._plan()

    def restored(self) -> None:
        if self.on_nmi_mask:
            self.on_nmi_mask(self.state.nmi_masked)
        self._plan()


INDEXED = {
    SECONDS: "RTC seconds",
    SECONDS_ALARM: "RTC seconds alarm",
    MINUTES: "RTC minutes",
    MINUTES_ALARM: "RTC minutes alarm",
    HOURS: "RTC hours",
    HOURS_ALARM: "RTC hours alarm",
    DAY_OF_WEEK: "RTC day of week",
    DAY_OF_MONTH: "RTC day of month",
    MONTH: "RTC month",
    YEAR: "RTC year",
    REGISTER_A: "RTC register A",
    REGISTER_B: "RTC register B",
    REGISTER_C: "RTC register C",
    REGISTER_D: "RTC register D",
    CENTURY: "RTC century",
}


def _days_in_month(year: int, month: int) -> int:
    following = date(year + month // 12, month % 12 + 1, 1)
    return following.toordinal() - date(year, month, 1).toordinal()


def _matches(flags: list[bool]) -> list[int]:
    return [value for value, flag in enumerate(flags) if flag]


def _next_match(start: int, hours: list[int], minutes: list[int], seconds: list[int]) -> int:
    """The first second of day from `start` on, today or tomorrow, whose parts are in the (sorted) lists."""
    for hour in [*hours, *(value + 24 for value in hours)]:
        if hour * 3600 + minutes[-1] * 60 + seconds[-1] < start:
            continue
        for minute in minutes:
            base = hour * 3600 + minute * 60
            if base + seconds[-1] >= start:
                return base + next(second for second in seconds if base + second >= start)
    raise AssertionError("an hour list that is not empty repeats tomorrow")


def _port_ranges(extended: bool, aliases: bool) -> tuple[PortRange, ...]:
    ranges = [PortRange(0x70, 2, name="rtc0")]
    if extended:
        ranges.append(PortRange(0x72, 2, name="rtc0", offset=2))
    if aliases:
        ranges.append(PortRange(0x74, 4, name="rtc0", offset=4))
    return tuple(ranges)
