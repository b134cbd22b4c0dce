"""Intel 8254 programmable interval timer.

Source: Intel 8254 data sheet (231164); the alias at 50-53: Intel PCH data sheet, "8254 Timers".

Registers (offset: port, name)
    0-2: 40-42  counter 0-2: write the count, read the count or what was latched
    3: 43       control word (write only; reads float)

Time rule
    CLK is one free-running oscillator: pulse number n has come when `now * 1193182 // 10**9 >= n` (now in ns,
    integers, rounded down). All counters share the pulses, nothing drifts, and a count that is written
    between two pulses is loaded by the next one, as in the data sheet. So OUT in mode 0 rises N + 1 pulses
    after the write of N, and a period in modes 2 and 3 is exactly N pulses. (Models that start counting at the
    write itself, with time rounded down from there, are up to two pulses ahead of this one.)

IRQ 0 gets the edges of OUT 0 at their time. The one-pulse low strobe of modes 2 and 4 is driven as a falling
and a rising edge at its end: an edge-sensed input sees the rise alone. If the clock is served late (a busy
host), the edges that were missed become one, and the next comes at a later boundary of the same period.

Not modelled: what the data sheet leaves open (the counters before the first control word are idle with OUT
high; a count of 1 in modes 2 and 3, which it forbids, holds OUT high).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from portvisor.ports import NS_PER_S, Clock, Device, IrqLine, PortRange

FREQUENCY = 1_193_182
"""CLK in Hz: 14.31818 MHz / 12."""

# Control word
CONTROL_BCD = 0x01
CONTROL_MODE_SHIFT = 1
CONTROL_MODE = 0x07
CONTROL_RW_SHIFT = 4
CONTROL_RW = 0x03
CONTROL_SELECT_SHIFT = 6
RW_LATCH, RW_LSB, RW_MSB, RW_BOTH = range(4)
SELECT_READ_BACK = 3
# Read-back command
READ_BACK_NO_STATUS = 0x10
READ_BACK_NO_COUNT = 0x20
# Status byte
STATUS_OUT = 0x80
STATUS_NULL_COUNT = 0x40

(
    INTERRUPT_ON_TERMINAL_COUNT,
    ONE_SHOT,
    RATE_GENERATOR,
    SQUARE_WAVE,
    SOFTWARE_STROBE,
    HARDWARE_STROBE,
) = range(6)
"""The modes, 0-5. Mode bits 6 and 7 are modes 2 and 3."""
PERIODIC = (RATE_GENERATOR, SQUARE_WAVE)
TRIGGERED = (ONE_SHOT, HARDWARE_STROBE)

CONTROL = 3
OPEN_BUS = 0xFF

MINIMUM_GAP = FREQUENCY // 20_000
"""After a late edge the next is at least this many pulses (50 us) away, so that a guest that asks for
600,000 interrupts a second cannot keep the host from doing anything else."""


def pulses(now: int) -> int:
    """CLK pulses that have come by `now` ns."""
    return now * FREQUENCY // NS_PER_S


def pulse_time(pulse: int) -> int:
    """The first ns at which `pulses` has reached `pulse`."""
    return -(-pulse * NS_PER_S // FREQUENCY)


@dataclass
class CounterState:
    """Everything that one counter remembers. Times are pulse numbers."""

    mode: int = RATE_GENERATOR
    written_mode: int = RATE_GENERATOR
    """The mode's three bits as written: 6 and 7 are other names of 2 and 3."""
    rw: int = RW_BOTH
    bcd: bool = False
    gate: int = 1
    count_register: int = 0
    """CR, as written."""
    written: bool = False
    """A whole count was written since the control word."""
    null_count: bool = True
    """The count in CR has not been loaded into the counting element yet."""
    low_byte: int | None = None
    """The first of the two bytes of a count, while the second is awaited."""
    read_high: bool = False
    latch: int | None = None
    """OL: what the count latch command caught."""
    status_latch: int | None = None
    load_at: int | None = None
    """The pulse that moves CR into the counting element."""
    reload: int = 0
    """The count in effect, 1-65536 (modes 2 and 3)."""
    start: int = 0
    """The pulse at which the counting element held `element`."""
    element: int = 0
    """Counting element at `start`; modes 0, 1, 4 and 5 let it run below 0, which is the wrap."""
    running: bool = False
    high: bool = True
    """Mode 3: OUT in the half cycle that began at `start`."""
    expires: int | None = None
    """Modes 0, 1, 4 and 5: the pulse at which the counting element reaches 0 and OUT changes."""


class Counter:
    """One of the three counters: a function of pulse numbers, evaluated only when somebody looks.

    Every method gets the present pulse number; it must not decrease from call to call.
    """

    __slots__ = ("state",)

    def __init__(self, state: CounterState) -> None:
        self.state = state

    # --- counting -------------------------------------------------------------------------------------

    def advance(self, pulse: int) -> None:
        """Do the load that was due by `pulse`, if any."""
        load_at = self.state.load_at
        if load_at is not None and load_at <= pulse:
            self._load(load_at)

    def _load(self, at: int) -> None:
        state = self.state
        restart = not state.running
        if state.mode == SQUARE_WAVE:
            state.high = restart or not self._square_wave(at - 1)[0]
        state.load_at = None
        state.null_count = False
        state.reload = self._decode(state.count_register)
        state.start = at
        state.element = state.reload & ~1 if state.mode == SQUARE_WAVE else state.reload
        state.running = bool(state.gate) or state.mode in TRIGGERED
        state.expires = at + state.element if state.running and state.mode not in PERIODIC else None

    def _decode(self, value: int) -> int:
        """A count as the number of pulses it stands for; 0 is the largest count."""
        if not self.state.bcd:
            return value or 0x10000
        digits = (value >> 12) * 1000 + (value >> 8 & 15) * 100 + (value >> 4 & 15) * 10 + (value & 15)
        return digits or 10_000

    def _encode(self, count: int) -> int:
        if not self.state.bcd:
            return count & 0xFFFF
        count %= 10_000
        return count // 1000 << 12 | count // 100 % 10 << 8 | count // 10 % 10 << 4 | count % 10

    def _square_wave(self, pulse: int) -> tuple[bool, int]:
        """(OUT, pulses since the half cycle began) in mode 3."""
        state = self.state
        position = (pulse - state.start) % state.reload
        first = (state.reload + state.high) >> 1
        if position < first:
            return state.high, position
        return not state.high, position - first

    def _element(self, pulse: int) -> int:
        """The counting element at `pulse`."""
        state = self.state
        if not state.running:
            return state.element
        if state.mode == RATE_GENERATOR:
            return state.reload - (pulse - state.start) % state.reload
        if state.mode == SQUARE_WAVE:
            return (state.reload & ~1) - 2 * self._square_wave(pulse)[1]
        return state.element - (pulse - state.start)

    def count(self, pulse: int) -> int:
        """The counting element as the data bus shows it."""
        self.advance(pulse)
        return self._encode(self._element(pulse))

    def out(self, pulse: int) -> int:
        """Level of OUT."""
        state = self.state
        load_at = state.load_at
        if load_at is not None and load_at <= pulse:
            self._load(load_at)
        mode = state.mode
        if mode == INTERRUPT_ON_TERMINAL_COUNT:
            return 1 if state.expires is not None and pulse >= state.expires else 0
        if mode == ONE_SHOT:
            return 0 if state.expires is not None and pulse < state.expires else 1
        if mode in PERIODIC:
            return self._periodic_out(pulse)
        return 0 if pulse == state.expires else 1

    def _periodic_out(self, pulse: int) -> int:
        state = self.state
        if not state.running:
            return 1
        if state.mode == SQUARE_WAVE:
            return int(self._square_wave(pulse)[0])
        return 0 if (pulse - state.start) % state.reload == state.reload - 1 > 0 else 1

    def _freeze(self, pulse: int) -> None:
        """Stop counting at the present value."""
        state = self.state
        state.element = self._element(pulse)
        state.start = pulse
        state.running = False

    # --- inputs ---------------------------------------------------------------------------------------

    def write_control(self, pulse: int, value: int) -> None:
        """A control word that programs this counter."""
        self.advance(pulse)
        state = self.state
        self._freeze(pulse)
        state.written_mode = mode = value >> CONTROL_MODE_SHIFT & CONTROL_MODE
        state.mode = mode & 3 if mode > HARDWARE_STROBE else mode
        state.bcd = bool(value & CONTROL_BCD)
        state.rw = value >> CONTROL_RW_SHIFT & CONTROL_RW
        state.written = state.read_high = False
        state.null_count = True
        state.low_byte = state.latch = state.status_latch = state.load_at = state.expires = None

    def write_count(self, pulse: int, value: int) -> None:
        """A byte to the counter's own port."""
        self.advance(pulse)
        state = self.state
        if state.rw == RW_BOTH and state.low_byte is None:
            state.low_byte = value
            if state.mode == INTERRUPT_ON_TERMINAL_COUNT:
                self._freeze(pulse)
                state.expires = state.load_at = None
            return
        if state.rw == RW_BOTH:
            state.count_register = value << 8 | (state.low_byte or 0)
            state.low_byte = None
        else:
            state.count_register = value << 8 if state.rw == RW_MSB else value
        self._count_written(pulse)

    def _count_written(self, pulse: int) -> None:
        state = self.state
        first = not state.written
        state.written = True
        state.null_count = True
        if state.mode in TRIGGERED:
            return
        if state.mode not in PERIODIC or first:
            self._freeze(pulse)
            if state.mode == INTERRUPT_ON_TERMINAL_COUNT:
                state.expires = None
            state.load_at = pulse + 1
        elif state.running:
            state.load_at = self._cycle_end(pulse)

    def _cycle_end(self, pulse: int) -> int:
        """Where modes 2 and 3 take up a new count: the end of the period or half cycle."""
        state = self.state
        if state.mode == RATE_GENERATOR:
            return pulse + state.reload - (pulse - state.start) % state.reload
        high, position = self._square_wave(pulse)
        return pulse - position + max((state.reload + high) >> 1, 1)

    def set_gate(self, pulse: int, level: int) -> None:
        """Drive GATE."""
        state = self.state
        if level == state.gate:
            return
        self.advance(pulse)
        state.gate = level
        if state.mode in TRIGGERED or state.mode in PERIODIC:
            if level:
                self._trigger(pulse)
            elif state.mode in PERIODIC:
                self._freeze(pulse)
                state.load_at = state.load_at if state.load_at == pulse + 1 else None
        elif level:
            self._resume(pulse)
        else:
            self._pause(pulse)

    def _trigger(self, pulse: int) -> None:
        if self.state.written:
            self.state.load_at = pulse + 1

    def _pause(self, pulse: int) -> None:
        """Modes 0 and 4: GATE low stops the count and leaves OUT alone."""
        state = self.state
        expired = state.expires is not None and state.expires <= pulse
        self._freeze(pulse)
        if not expired:
            state.expires = None

    def _resume(self, pulse: int) -> None:
        state = self.state
        stopped_by_first_byte = state.mode == INTERRUPT_ON_TERMINAL_COUNT and state.low_byte is not None
        if state.null_count or stopped_by_first_byte:
            return
        state.start = pulse
        state.running = True
        if state.element > 0:
            state.expires = pulse + state.element

    # --- the data bus ---------------------------------------------------------------------------------

    def latch_count(self, pulse: int) -> None:
        """Counter latch command; ignored while an earlier one has not been read."""
        if self.state.latch is None:
            self.state.latch = self.count(pulse)

    def latch_status(self, pulse: int) -> None:
        """Read-back of the status; ignored while an earlier one has not been read."""
        state = self.state
        if state.status_latch is None:
            out = STATUS_OUT if self.out(pulse) else 0
            null = STATUS_NULL_COUNT if state.null_count else 0
            mode = state.written_mode << CONTROL_MODE_SHIFT
            state.status_latch = out | null | state.rw << CONTROL_RW_SHIFT | mode | state.bcd

    def read(self, pulse: int) -> int:
        """A byte from the counter's own port."""
        state = self.state
        if state.status_latch is not None:
            value, state.status_latch = state.status_latch, None
            return value
        value = self.count(pulse) if state.latch is None else state.latch
        if state.rw == RW_BOTH:
            state.read_high = not state.read_high
            if state.read_high:
                return value & 0xFF
        state.latch = None
        return value & 0xFF if state.rw == RW_LSB else value >> 8

    # --- edges of OUT, for a counter whose GATE stays high -----------------------------------------------

    def rises_within(self, since: int, pulse: int) -> bool:
        """Whether OUT rose after pulse `since`, up to `pulse`, in a mode that repeats."""
        state = self.state
        if state.mode not in PERIODIC or not state.running or state.reload == 1:
            return False
        phase = state.start if state.high or state.mode == RATE_GENERATOR else state.start + (state.reload >> 1)
        last_rise = pulse - (pulse - phase) % state.reload
        return last_rise > since and last_rise >= phase

    def next_edge(self, pulse: int) -> int | None:
        """The first pulse after `pulse` at which the interrupt line has to change, or None.

        The low strobes of modes 2 and 4 count as one edge, at their end.
        """
        state = self.state
        self.advance(pulse)
        if state.mode in PERIODIC:
            return self._next_periodic_edge(pulse)
        expires = state.expires
        if state.load_at is not None and expires != pulse:
            expires = state.load_at + self._decode(state.count_register)
        if expires is None or state.mode in TRIGGERED:
            return None
        edge = expires + (state.mode == SOFTWARE_STROBE)
        return edge if edge > pulse else None

    def _next_periodic_edge(self, pulse: int) -> int | None:
        state = self.state
        if state.load_at is not None and not state.running:
            count = self._decode(state.count_register)
            if count == 1:
                return None
            return state.load_at + (count if state.mode == RATE_GENERATOR else (count + 1) >> 1)
        if not state.running or (state.reload == 1 and state.load_at is None):
            return None
        return self._cycle_end(pulse)


class Pit(Device):
    """The 8254 of a PC: counter 0 is IRQ 0, counter 1 the DRAM refresh, counter 2 the speaker.

    Args:
        clock: where time comes from.
        irq0: driven by OUT 0.
        alias: also answer at 50-53, as a PCH does.
    """

    REGISTERS: ClassVar[dict[int, str]] = {
        0: "Counter 0",
        1: "Counter 1",
        2: "Counter 2",
        CONTROL: "Control Word",
    }

    @dataclass
    class State:
        """The three counters, and what has been told to IRQ 0."""

        counters: list[CounterState] = field(default_factory=lambda: [CounterState() for _ in range(3)])
        irq_level: int = 1
        irq_pulse: int = 0
        """The pulse up to which IRQ 0 has had its edges."""
        irq_edge: int | None = None
        """The pulse of the next edge."""

    state: State

    def __init__(self, clock: Clock, irq0: IrqLine, *, alias: bool = False) -> None:
        super().__init__()
        self.clock = clock
        self.irq0 = irq0
        self.counters = tuple(Counter(state) for state in self.state.counters)
        self._timer = clock.timer(self._expired, "pit")
        timer0 = PortRange(0x40, 4, name="timer0")
        self.ports = (timer0, PortRange(0x50, 4, name="timer1")) if alias else (timer0,)
        irq0.set(self.state.irq_level)

    # --- wires ------------------------------------------------------------------------------------------

    def set_gate(self, index: int, level: int) -> None:
        """Drive GATE of counter 1 or 2 (that of counter 0 is tied high)."""
        self.counters[index].set_gate(pulses(self.clock.now()), 1 if level else 0)

    def output(self, index: int) -> int:
        """Level of a counter's OUT at this moment."""
        return self.counters[index].out(pulses(self.clock.now()))

    def _expired(self) -> None:
        """An edge of OUT 0 is due, or overdue."""
        state = self.state
        counter = self.counters[0]
        now = self.clock.now()
        pulse = pulses(now)
        out = counter.out(pulse)
        if counter.state.mode == SOFTWARE_STROBE or counter.rises_within(state.irq_pulse, pulse):
            self._drive(0)
            out = 1
        self._drive(out)
        state.irq_pulse = pulse
        late = state.irq_edge is not None and pulse_time(state.irq_edge) < now
        self._plan(pulse + MINIMUM_GAP if late else pulse)

    def _drive(self, level: int) -> None:
        self.state.irq_level = level
        self.irq0.set(level)

    def _plan(self, pulse: int) -> None:
        """Find the first edge after `pulse` and wait for it."""
        self.state.irq_edge = self.counters[0].next_edge(pulse)
        self._arm()

    def _arm(self) -> None:
        edge = self.state.irq_edge
        if edge is None:
            self._timer.disarm()
        else:
            self._timer.arm(pulse_time(edge))

    def _before_write(self, pulse: int) -> None:
        """Serve an edge of OUT 0 that came before the write that may undo it."""
        edge = self.state.irq_edge
        if edge is not None and edge <= pulse:
            self._expired()

    def _after_write(self, pulse: int) -> None:
        """Counter 0 was written: OUT may have changed at once, and the next edge is another."""
        counter = self.counters[0]
        running = counter.state.running
        if counter.state.mode != RATE_GENERATOR or not running:
            self._drive(counter.out(pulse))
        load_at = counter.state.load_at
        self.state.irq_pulse = pulse if running or load_at is None else load_at
        self._plan(pulse)

    # --- registers --------------------------------------------------------------------------------------

    def read(self, offset: int, size: int) -> int:
        if offset == CONTROL:
            return OPEN_BUS
        return self.counters[offset].read(pulses(self.clock.now()))

    def write(self, offset: int, size: int, value: int) -> None:
        pulse = pulses(self.clock.now())
        if offset == CONTROL:
            self._write_control(pulse, value)
            return
        if offset:
            self.counters[offset].write_count(pulse, value)
            return
        self._before_write(pulse)
        self.counters[0].write_count(pulse, value)
        self._after_write(pulse)

    def _write_control(self, pulse: int, value: int) -> None:
        select = value >> CONTROL_SELECT_SHIFT
        if select == SELECT_READ_BACK:
            self._read_back(pulse, value)
        elif value >> CONTROL_RW_SHIFT & CONTROL_RW == RW_LATCH:
            self.counters[select].latch_count(pulse)
        elif select:
            self.counters[select].write_control(pulse, value)
        else:
            self._before_write(pulse)
            self.counters[0].write_control(pulse, value)
            self._after_write(pulse)

    def _read_back(self, pulse: int, value: int) -> None:
        for index, counter in enumerate(self.counters):
            if value >> (index + 1) & 1:
                if not value & READ_BACK_NO_COUNT:
                    counter.latch_count(pulse)
                if not value & READ_BACK_NO_STATUS:
                    counter.latch_status(pulse)

    # --- life -------------------------------------------------------------------------------------------

    def reset(self) -> None:
        """All counters idle with OUT high; their GATE inputs stay as they are driven."""
        gates = [counter.gate for counter in self.state.counters]
        super().reset()
        for state, gate in zip(self.state.counters, gates, strict=True):
            state.gate = gate
        self._bind()
        self._timer.disarm()
        self.irq0.set(self.state.irq_level)

    def restored(self) -> None:
        self._bind()
        self.irq0.set(self.state.irq_level)
        self._arm()

    def _bind(self) -> None:
        for counter, state in zip(self.counters, self.state.counters, strict=True):
            counter.state = state
